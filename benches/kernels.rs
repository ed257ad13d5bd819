//! Kernels alone: `cargo bench --bench kernels -- [case...]` prints a line of JSON for each.
//!
//! The table of `examples/kernel_bench.rs`, which checks too, draws, and tries variants; here every result is checked as
//! well, since a wrong kernel has no time. `--rounds=N` goes through the cases N times, for runs that alternate with those of
//! another program; `--seconds=S` is how long each is timed.

mod common;

use common::cases;
use common::measure::{Running, VARIANTS};
use common::report::Row;
use wengert::prelude::*;

async fn run() -> Result<()> {
    // Cargo passes --bench.
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).filter(|word| word != "--bench").partition(|word| word.starts_with("--"));
    let number = |flag: &str| flags.iter().find_map(|word| word.strip_prefix(flag)?.parse::<f64>().ok());
    let (rounds, seconds) = (number("--rounds=").unwrap_or(1.0) as usize, number("--seconds=").unwrap_or(1.0));
    let variant = VARIANTS[0];
    let device = variant.device().await?;
    let ceilings = device.ceilings().await?;
    for _ in 0..rounds.max(1) {
        for (name, make) in cases::timed() {
            if !names.is_empty() && !names.iter().any(|part| name.contains(part.as_str())) {
                continue;
            }
            let case = make(name)?;
            let mut running = Running::new(&device, &variant, &case).await?;
            let error = running.check().await?;
            let timing = running.time(seconds).await?;
            say(&Row::new(&case, variant.name, timing, error, ceilings).json());
        }
    }
    Ok(())
}

fn main() {
    wengert::main(run());
}
