//! Checks and times kernels: each against f64, then against what this device can do at best.
//!
//!     cargo run --release --example kernel_bench -- [case...] [options]
//!
//! In a browser it is a tab of the page that `scripts/web` builds.
//!
//! A case is chosen by any part of its name. `--list` names them all; `--large` adds products of 4096 and 8192 and rows of 64 MB;
//! `--seconds N` is how long each is timed (1); `--variants` tries every variant, `--variant NAME` one of them;
//! `--tune` tries every tile of a product, says how long each takes, and takes the fastest, now and in later processes;
//! `--json FILE` writes a line of JSON for each, `--plot FILE.svg` a picture of the roofline; `--plan` prints the
//! dispatches, `--source` their WGSL too. The share of the roof is the better of bytes over measured bandwidth and
//! operations over measured peak. See `benches/common` for what the cases are.

#[path = "../benches/common/mod.rs"]
mod common;

use common::cases;
use common::measure::{Running, VARIANTS, Variant};
use common::report::{HEAD, Row, roofline};
use wengert::prelude::*;

/// What was asked for.
struct Request {
    names: Vec<String>,
    seconds: f64,
    variants: Vec<Variant>,
    json: Option<String>,
    plot: Option<String>,
    large: bool,
    list: bool,
    plan: bool,
    source: bool,
    tune: bool,
}

fn request(words: impl Iterator<Item = String>) -> Result<Request> {
    let mut asked = Request {
        names: Vec::new(),
        seconds: 1.0,
        variants: VARIANTS[..1].to_vec(),
        json: None,
        plot: None,
        large: false,
        list: false,
        plan: false,
        source: false,
        tune: false,
    };
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| Error::argument(format!("{word} wants a value")));
        match word.as_str() {
            "--large" => asked.large = true,
            "--list" => asked.list = true,
            "--tune" => asked.tune = true,
            "--plan" => asked.plan = true,
            "--source" => (asked.plan, asked.source) = (true, true),
            "--variants" => asked.variants = VARIANTS.to_vec(),
            "--variant" => {
                let name = value()?;
                asked.variants = VARIANTS.iter().copied().filter(|variant| variant.name == name).collect();
                if asked.variants.is_empty() {
                    let known: Vec<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
                    return Err(Error::argument(format!("no variant {name}; there are {}", known.join(", "))));
                }
            }
            "--json" => asked.json = Some(value()?),
            "--plot" => asked.plot = Some(value()?),
            "--seconds" => {
                let text = value()?;
                let seconds = text.parse().ok().filter(|&seconds: &f64| seconds > 0.0 && seconds < 1e6);
                asked.seconds = seconds.ok_or_else(|| Error::argument(format!("--seconds {text}")))?;
            }
            _ if word.starts_with('-') => {
                return Err(Error::argument(format!("unknown option {word}")));
            }
            _ => asked.names.push(word),
        }
    }
    Ok(asked)
}

fn write(file: &str, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(|error| Error::argument(format!("{file}: {error}")))
}

async fn run(asked: Request) -> Result<()> {
    let large = if asked.large { cases::large() } else { Vec::new() };
    let chosen: Vec<_> = cases::timed()
        .into_iter()
        .chain(large)
        .filter(|(name, _)| asked.names.is_empty() || asked.names.iter().any(|part| name.contains(part.as_str())))
        .collect();
    if chosen.is_empty() {
        return Err(Error::argument(format!("no case is called {}; see --list", asked.names.join(", "))));
    }
    if asked.list {
        chosen.iter().for_each(|(name, _)| say(name));
        return Ok(());
    }
    let mut devices = Vec::new();
    for &variant in &asked.variants {
        let device = variant.device().await?;
        let ceilings = device.ceilings().await?;
        say(&format!("{}: {device:?}, {ceilings}", variant.name));
        devices.push((variant, device, ceilings));
    }
    say(HEAD);
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (name, make) in chosen {
        let case = make(name)?;
        for (variant, device, ceilings) in &devices {
            let measured = async {
                let mut running = Running::new(device, variant, &case).await?;
                if asked.tune {
                    running.tune().await?.iter().for_each(|tuned| say(&tuned.to_string()));
                    running = Running::new(device, variant, &case).await?;
                }
                let error = running.check().await?;
                let timing = running.time(asked.seconds).await?;
                let plan = if asked.plan { running.plan(asked.source) } else { String::new() };
                Ok::<_, Error>((Row::new(&case, variant.name, timing, error, *ceilings), plan))
            };
            match measured.await {
                Ok((row, plan)) => {
                    say(&row.line());
                    if asked.plan {
                        say(&plan);
                    }
                    rows.push(row);
                }
                Err(error) => {
                    say(&format!("{name:<24} {:<8} FAILED: {error}", variant.name));
                    failures.push(format!("{name} ({})", variant.name));
                }
            }
        }
    }
    if let Some(file) = &asked.json {
        write(file, &rows.iter().map(|row| row.json() + "\n").collect::<String>())?;
    }
    if let (Some(file), Some((_, device, _))) = (&asked.plot, devices.first()) {
        write(file, &roofline(&rows, &device.info().name))?;
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Validation { why: format!("these cases failed: {}", failures.join(", ")) })),
    }
}

fn main() {
    // A page has no arguments; there the cases that a slow machine finishes soon enough.
    #[cfg(target_arch = "wasm32")]
    let words = ["256", "512", "128x", "32x32", "4m", "_1024", "adam"].map(String::from).into_iter();
    #[cfg(not(target_arch = "wasm32"))]
    let words = std::env::args().skip(1);
    wengert::main(async move { run(request(words)?).await });
}
