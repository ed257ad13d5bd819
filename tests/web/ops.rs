//! The checks of all ops and kernels on a device, as a page: `cargo run -p xtask -- web ops --features reference`.
//!
//! What `tests/ops` and the sweep of `tests/kernels.rs` check natively is checked here on the browser's own WebGPU: another
//! compiler of shaders, and another driver. `scripts/test` runs it in headless Chromium.

#[path = "../../benches/common/mod.rs"]
mod bench;
#[path = "../common/mod.rs"]
mod common;
#[path = "../ops/device.rs"]
mod device;

use bench::cases::sweep;
use bench::measure::{Running, VARIANTS};
use wengert::prelude::*;

/// Runs all checks. What is wrong panics, as in a native test.
async fn run() -> Result<()> {
    let gpu = Device::new().await?;
    device::random_numbers_are_those_of_the_host(&gpu).await;
    say("random numbers are those of the host, bit for bit");
    device::views_and_joins_give_the_answers_of_numpy(&gpu).await;
    say("views and joins give the answers of numpy");
    device::nan_and_infinity_pass(&gpu).await;
    device::folds_pass_nan(&gpu).await;
    say("NaN and infinity pass where the documentation says so");
    let compared = device::values_agree_with_the_reference(&gpu).await;
    say(&format!("{compared} results of {} examples agree with the reference", wengert::ops::registry().len()));
    // Each variant that a browser can tell from the others: which kernels there are, and where temporaries lie.
    for variant in VARIANTS.iter().filter(|variant| ["default", "slab"].contains(&variant.name)) {
        let cases = sweep()?;
        for case in &cases {
            Running::new(&gpu, variant, case).await?.check().await?;
        }
        say(&format!("{} kernels of odd and even sizes agree with the reference ({})", cases.len(), variant.name));
    }
    Ok(())
}

fn main() {
    #[cfg(target_arch = "wasm32")]
    std::panic::set_hook(Box::new(|info| web_sys::console::error_1(&info.to_string().into())));
    wengert::main(run());
}
