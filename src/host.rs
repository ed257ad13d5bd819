//! What differs between a program on a desktop and one on a page: how it starts, where its lines go, how it prints floats.
//!
//! Floor 0. With [`main`] and [`say`] the same source runs in both places. Deliberately absent: anything to do with the
//! device; a page and a desktop differ there only in which adapter they find.

use std::fmt;
use std::future::Future;
#[cfg(any(feature = "progress", not(target_arch = "wasm32")))]
use std::io::{self, Write};

use crate::error::Result;

/// Runs a program: `fn main() { wengert::main(run()) }`. Natively it blocks, and an error ends the process with its
/// message and status 1. On a page it goes on in the background, and says how it ended to `wengert_done`, if the page
/// has such a function. A progress bar that moves is given to `wengert_progress`, if there is one: the line each time, and
/// the empty text when it is complete and goes to the console.
#[cfg(not(target_arch = "wasm32"))]
pub fn main(program: impl Future<Output = Result<()>>) {
    if let Err(error) = pollster::block_on(program) {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}

/// Runs a program: `fn main() { wengert::main(run()) }`. Natively it blocks, and an error ends the process with its
/// message and status 1. On a page it goes on in the background, and says how it ended to `wengert_done`, if the page
/// has such a function. A progress bar that moves is given to `wengert_progress`, if there is one: the line each time, and
/// the empty text when it is complete and goes to the console.
#[cfg(target_arch = "wasm32")]
pub fn main(program: impl Future<Output = Result<()>> + 'static) {
    wasm_bindgen_futures::spawn_local(async move {
        let verdict = match program.await {
            Ok(()) => "OK".to_string(),
            Err(error) => format!("FAIL {error}"),
        };
        match function_of_page("wengert_done") {
            // A page whose function throws has been told all the same.
            Some(done) => drop(done.call1(&wasm_bindgen::JsValue::NULL, &verdict.into())),
            None => say(&verdict),
        }
    });
}

#[cfg(target_arch = "wasm32")]
fn function_of_page(name: &str) -> Option<js_sys::Function> {
    use wasm_bindgen::JsCast;

    js_sys::Reflect::get(&js_sys::global(), &name.into()).ok()?.dyn_into().ok()
}

/// Lets a page do what it has to, input and drawing, before going on. By a message to itself, which comes as soon as nothing
/// else is due, in a hidden page too; timers are held back there, and waits for the next picture never end.
#[cfg(target_arch = "wasm32")]
pub(crate) async fn turn() {
    // Where there are no channels there is no page.
    let Ok(channel) = web_sys::MessageChannel::new() else { return };
    let message = js_sys::Promise::new(&mut |resolve, _| {
        channel.port1().set_onmessage(Some(&resolve));
        // It can be refused to transfer an object only, and there is none.
        drop(channel.port2().post_message(&wasm_bindgen::JsValue::NULL));
    });
    drop(wasm_bindgen_futures::JsFuture::from(message).await);
    channel.port1().close();
}

/// Writes a line where people look: standard output, or the console of a page.
pub fn say(line: &str) {
    #[cfg(not(target_arch = "wasm32"))]
    // A closed pipe is no reason to stop training.
    drop(writeln!(io::stdout(), "{line}"));
    #[cfg(target_arch = "wasm32")]
    web_sys::console::log_1(&line.into());
}

/// A float as text. A page has the formatting of its browser, which linked in once more is 16 KB of wasm: what may be on a
/// page prints floats by this. Very large and small ones have an exponent.
pub(crate) struct Float(pub f64);

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(not(target_arch = "wasm32"))]
        return match self.0.abs() {
            0.0 | 1e-5..1e16 => fmt::Display::fmt(&self.0, f),
            _ => fmt::LowerExp::fmt(&self.0, f),
        };
        #[cfg(target_arch = "wasm32")]
        match js_sys::Number::from(self.0).to_string_with_radix(10) {
            Ok(text) => f.write_str(&String::from(text)),
            // It fails for other bases only.
            Err(_) => Err(fmt::Error),
        }
    }
}

/// Whether lines go to a terminal that can redraw them.
#[cfg(feature = "progress")]
pub(crate) fn is_terminal() -> bool {
    #[cfg(not(target_arch = "wasm32"))]
    return io::IsTerminal::is_terminal(&io::stdout());
    #[cfg(target_arch = "wasm32")]
    return false;
}

/// Whether there is a page that shows a line which is redrawn.
#[cfg(feature = "progress")]
pub(crate) fn page_redraws() -> bool {
    #[cfg(not(target_arch = "wasm32"))]
    return false;
    #[cfg(target_arch = "wasm32")]
    return function_of_page("wengert_progress").is_some();
}

/// Standard output; or, line by line, the console of a page, and what begins with a carriage return its redrawn line.
#[cfg(feature = "progress")]
#[derive(Default)]
pub(crate) struct Out(#[allow(dead_code)] Vec<u8>);

#[cfg(feature = "progress")]
impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(not(target_arch = "wasm32"))]
        return io::stdout().write(bytes);
        #[cfg(target_arch = "wasm32")]
        return self.0.write(bytes);
    }

    fn flush(&mut self) -> io::Result<()> {
        #[cfg(not(target_arch = "wasm32"))]
        return io::stdout().flush();
        #[cfg(target_arch = "wasm32")]
        {
            let text = std::mem::take(&mut self.0);
            let text = String::from_utf8_lossy(&text);
            let redrawn = text.strip_prefix('\r');
            if let Some(show) = function_of_page("wengert_progress") {
                // As above.
                drop(show.call1(&wasm_bindgen::JsValue::NULL, &redrawn.unwrap_or_default().into()));
            }
            if redrawn.is_none() {
                say(text.trim_end());
            }
            Ok(())
        }
    }
}
