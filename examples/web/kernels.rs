//! The page's kernel benchmark: what `examples/kernel_bench.rs` does natively, in a worker of its own.
//!
//!     scripts/web build       builds it beside the page, which loads it when somebody asks for it
//!
//! It is a wasm module apart from the page's because it checks every result against the f64 references, which training
//! does not need. The cases, their checks and their timing are those of `benches/common`. Deliberately absent: stopping;
//! the page ends the worker.

#[path = "../../benches/common/mod.rs"]
mod common;

#[cfg(target_arch = "wasm32")]
mod page {
    use js_sys::{Array, Function};
    use wasm_bindgen::prelude::*;
    use wengert::prelude::*;

    use super::common::cases;
    use super::common::measure::{Running, VARIANTS};
    use super::common::report::{Row, roofline};

    /// The names of all cases.
    #[wasm_bindgen(js_name = kernelNames)]
    pub fn kernel_names() -> Vec<String> {
        cases::timed().into_iter().map(|(name, _)| name.to_string()).collect()
    }

    /// Checks and times the cases of these names, each for about so many seconds. `tell` is called with a word and a text:
    /// "device" and what was measured of it; "case" and a name, before each; then "row" and a line of JSON, or "failed" and
    /// why; and "plot" with the roofline of the rows so far.
    #[wasm_bindgen(js_name = measureKernels)]
    pub async fn measure_kernels(names: Vec<String>, seconds: f64, tell: Function) -> std::result::Result<(), JsError> {
        let tell = |word: &str, text: &str| {
            // A page that throws has been told all the same.
            drop(tell.apply(&JsValue::NULL, &Array::of2(&word.into(), &text.into())));
        };
        let variant = &VARIANTS[0];
        let device = variant.device().await?;
        let ceilings = device.ceilings().await?;
        tell("device", &ceilings.to_string());
        let mut rows = Vec::new();
        for (name, make) in cases::timed().into_iter().filter(|(name, _)| names.iter().any(|wanted| wanted == name)) {
            tell("case", name);
            let measured = async {
                let case = make(name)?;
                let mut running = Running::new(&device, variant, &case).await?;
                let error = running.check().await?;
                let timing = running.time(seconds).await?;
                Ok::<Row, Error>(Row::new(&case, variant.name, timing, error, ceilings))
            };
            match measured.await {
                Ok(row) => {
                    tell("row", &row.json());
                    rows.push(row);
                    tell("plot", &roofline(&rows, "this browser's GPU"));
                }
                Err(error) => tell("failed", &error.to_string()),
            }
        }
        Ok(())
    }
}

fn main() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
    #[cfg(not(target_arch = "wasm32"))]
    println!("This is a part of the page of scripts/web; natively it is cargo run --release --example kernel_bench.");
}
