//! The project's build chores for browsers. Two so far:
//!
//!     cargo run -p xtask -- web <example> [--features <features>]
//!     cargo run -p xtask -- js
//!
//! The first builds an example, with the progress bar unless features are named, and writes target/web/<example>/:
//! <example>.js with its types, <example>_bg.wasm and the page. An example that is a folder with an index.html is a page
//! of its own: all its files but the Rust ones are copied. Any other gets index.html, a copy of tests/web/index.html with
//! EXAMPLE replaced by the example's name. The second builds packages/js and writes target/js/, ready for `npm publish`.
//!
//! It uses wasm-bindgen's own library in place of its command-line tool, so that Cargo.lock keeps the two halves of
//! wasm-bindgen in step and nobody has to install anything.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "wasm"; // see Cargo.toml

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["web", example] => web(example, "progress"),
        ["web", example, "--features", features] => web(example, features),
        ["js"] => js(),
        _ => Err("usage: cargo run -p xtask -- web <example> [--features <features>] | js".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn web(example: &str, features: &str) -> Result<()> {
    let root = root()?;
    let folder = root.join("examples").join(example);
    let page = root.join("tests/web/index.html");
    let page = std::fs::read_to_string(&page).map_err(|error| format!("{}: {error}", page.display()))?;

    let target = target(&root);
    let site = target.join("web").join(example);
    build(&root, &["--no-default-features", "--features", features, "--example", example])?;
    bindings(&target.join(TARGET).join(PROFILE).join(format!("examples/{example}.wasm")), example, &site)?;
    if folder.join("index.html").exists() {
        for file in std::fs::read_dir(folder)? {
            let path = file?.path();
            if let (Some(name), true) = (path.file_name(), path.extension().is_none_or(|kind| kind != "rs")) {
                std::fs::copy(&path, site.join(name))?;
            }
        }
    } else {
        std::fs::write(site.join("index.html"), page.replace("EXAMPLE", example))?;
    }
    Ok(())
}

fn js() -> Result<()> {
    let root = root()?;
    let target = target(&root);
    let (source, package) = (root.join("packages/js"), target.join("js"));
    build(&root, &["-p", "wengert-js"])?;
    bindings(&target.join(TARGET).join(PROFILE).join("wengert_js.wasm"), "wengert", &package)?;
    for name in ["package.json", "README.md"] {
        std::fs::copy(source.join(name), package.join(name))?;
    }
    Ok(())
}

/// Has cargo build for browsers what `what` names.
fn build(root: &Path, what: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root).args(["build", "--target", TARGET, "--profile", PROFILE]).args(what);
    command.arg("--target-dir").arg(target(root));
    if command.status()?.success() {
        Ok(())
    } else {
        Err(format!("cargo could not build {what:?} for {TARGET}").into())
    }
}

/// Writes `name`.js, its types and `name`_bg.wasm.
fn bindings(wasm: &Path, name: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut output = wasm_bindgen_cli_support::Bindgen::new()
        .input_path(wasm)
        .out_name(name)
        .web(true)?
        // Otherwise init() without an argument does not know where its own wasm lies.
        .omit_default_module_path(false)
        // A quarter of a megabyte of function names; the glue has its own.
        .remove_name_section(true)
        .remove_producers_section(true)
        .typescript(true)
        .generate_output()?;
    // Of 300 names with a hash each, which nothing can compress, both halves have a copy.
    let imports = output.wasm_mut().imports.iter_mut().filter(|import| import.name.starts_with("__wb"));
    let shorter = |(at, import): (usize, &mut walrus::Import)| {
        let short = format!("i{at}");
        (std::mem::replace(&mut import.name, short.clone()), short)
    };
    let names: Vec<(String, String)> = imports.enumerate().map(shorter).collect();
    drop_columns(output.wasm_mut());
    output.emit(folder)?;
    let glue = folder.join(format!("{name}.js"));
    std::fs::write(&glue, smaller(&std::fs::read_to_string(&glue)?, &names)?)?;
    let size = std::fs::metadata(folder.join(format!("{name}_bg.wasm")))?.len();
    println!("{}: {} KB of wasm", folder.display(), size / 1000);
    Ok(())
}

/// Panics name a file, a line and a column. There are two thousand such places in a module, and their columns, which tell
/// hardly anybody anything, are what compresses worst of them. A place is the address and length of a file's name, then
/// both numbers.
fn drop_columns(module: &mut walrus::Module) {
    use walrus::{ConstExpr, DataKind, ir::Value};

    let starts: Vec<(walrus::DataId, usize)> = (module.data.iter())
        .filter_map(|data| match &data.kind {
            DataKind::Active { offset: ConstExpr::Value(Value::I32(start)), .. } => Some((data.id(), *start as usize)),
            _ => None,
        })
        .collect();
    for (id, start) in starts {
        let bytes = &mut module.data.get_mut(id).value;
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i])) as usize;
        for at in (start.next_multiple_of(4) - start..bytes.len().saturating_sub(15)).step_by(4) {
            let [name, length, line, column] = [0, 4, 8, 12].map(|offset| word(bytes, at + offset));
            let name = name.checked_sub(start).and_then(|name| bytes.get(name..name.checked_add(length)?));
            let is_file = name.is_some_and(|name| name.ends_with(b".rs") && name.iter().all(u8::is_ascii_graphic));
            if is_file && (1..100_000).contains(&line) && (1..1000).contains(&column) {
                // Of a file that is not of this project its name is enough.
                let from = if name.is_some_and(|name| name.starts_with(b"/")) { 8 } else { 12 };
                bytes[at + from..at + 16].fill(0);
            }
        }
    }
}

/// The glue with other names for what it gives to the wasm, and without what only people read: indents and comments, which
/// the types have too. Anything more is a bundler's work.
fn smaller(glue: &str, names: &[(String, String)]) -> Result<String> {
    let (mut text, mut comment, mut renamed) = (String::new(), false, 0);
    for line in glue.lines().map(str::trim) {
        comment |= line.starts_with("/**");
        if !comment && !line.is_empty() && !line.starts_with("// ") {
            match line
                .split_once(": ")
                .and_then(|(key, rest)| Some((names.iter().find(|(name, _)| name == key)?, rest)))
            {
                Some(((_, short), rest)) => {
                    text += &format!("{short}: {rest}\n");
                    renamed += 1;
                }
                None => text += &format!("{line}\n"),
            }
        }
        comment &= !line.ends_with("*/");
    }
    if renamed == names.len() { Ok(text) } else { Err("the glue does not define what the wasm imports".into()) }
}

fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// Where `cargo run` found this package, which is not always where it was built: a build folder may be a copy.
fn root() -> Result<PathBuf> {
    let xtask = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("start me by cargo run -p xtask")?);
    Ok(xtask.parent().ok_or("xtask/ lies directly under the root of the repository")?.to_path_buf())
}
