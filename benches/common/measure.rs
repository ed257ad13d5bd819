//! Checks a case against f64 and times it: by the device's clock where it has timestamps, and by the host's with the device
//! waited for at both ends.
//!
//! Nothing here blocks, so it runs on a page too. Deliberately absent: a choice of kernels; what a variant is, is in
//! [`VARIANTS`].

use web_time::Instant;

use wengert::gpu::DeviceOptions;
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::prelude::*;
use wengert::step::Tuned;

use super::cases::{Case, copies};

/// What one program may ask of the compiler and the device.
#[derive(Clone, Copy)]
pub struct Variant {
    pub name: &'static str,
    /// Only what every WebGPU grants: no subgroups, so other families of products and other reductions.
    pub portable: bool,
    /// Temporaries in one slab rather than in buffers of their own.
    pub slab: bool,
    /// Every op a dispatch of its own.
    pub unfused: bool,
}

const DEFAULT: Variant = Variant { name: "default", portable: false, slab: false, unfused: false };

/// All variants; the first is what everybody gets.
pub const VARIANTS: [Variant; 4] = [
    DEFAULT,
    Variant { name: "portable", portable: true, ..DEFAULT },
    Variant { name: "slab", slab: true, ..DEFAULT },
    Variant { name: "unfused", unfused: true, ..DEFAULT },
];

impl Variant {
    /// A device as the variant wants it.
    pub async fn device(&self) -> Result<Device> {
        let options = DeviceOptions::default();
        Device::with(DeviceOptions { portable: self.portable || options.portable, ..options }).await
    }

    fn options(&self) -> Options {
        let strategy = if self.slab { Strategy::Arena } else { Strategy::Whole };
        Options { fuse: !self.unfused, strategy }
    }
}

/// A case on a device, recorded and bound.
pub struct Running<'c> {
    device: Device,
    case: &'c Case,
    inputs: Vec<Tensor>,
    state: Vec<Tensor>,
    step: Step,
}

/// What was measured of a case.
#[derive(Clone, Debug, Default)]
pub struct Timing {
    /// Median milliseconds of one run in a block in one submission, the device waited for before and after.
    pub wall: f64,
    /// Median milliseconds of the dispatches of a run by the device's clock.
    pub gpu: Option<f64>,
    /// Timed runs.
    pub n: usize,
    /// Floating-point operations of a run, as the plan counts them.
    pub flops: u64,
    /// Dispatches and submissions of a run.
    pub dispatches: f64,
    pub submits: f64,
}

impl Timing {
    /// What rates are computed from: the smaller of the two medians. The host's holds a share of a submission and of a wait;
    /// the device's holds what its timestamps cost, which on a software driver may be more.
    pub fn ms(&self) -> f64 {
        self.gpu.map_or(self.wall, |gpu| gpu.min(self.wall))
    }
}

/// The middle one, of an even number the later.
pub fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

impl<'c> Running<'c> {
    /// Puts the inputs on the device and runs once.
    pub async fn new(device: &Device, variant: &Variant, case: &'c Case) -> Result<Running<'c>> {
        let options = variant.options();
        let inputs = copies(&case.inputs)?.iter().map(|input| input.to(device)).collect::<Result<Vec<_>>>()?;
        let state = copies(&case.state)?;
        let step = Step::with(device, options).purity(wengert::step::Purity::Sometimes);
        let mut running = Running { device: device.clone(), case, inputs, state, step };
        running.block(1)?;
        device.wait().await?;
        Ok(running)
    }

    /// So many runs in one submission.
    pub fn block(&mut self, runs: usize) -> Result<()> {
        let (case, inputs) = (self.case, &self.inputs);
        let f = |state: Vec<Tensor>, _: &()| Ok((Logs::default(), (case.apply)(&state, inputs)?));
        self.step.run_tagged(0, &mut self.state, &vec![(); runs], f).map(drop)
    }

    /// Times every variant of the case's products; whatever is made on the device from then on takes the fastest.
    pub async fn tune(&mut self) -> Result<Vec<Tuned>> {
        let (case, inputs) = (self.case, &self.inputs);
        let f = |state: Vec<Tensor>, _: &()| Ok((Logs::default(), (case.apply)(&state, inputs)?));
        self.step.tune(&self.state, &(), f).await
    }

    /// The largest error over the bound, of the results of the one run there has been; an error where that exceeds 1.
    pub async fn check(&self) -> Result<f64> {
        let mut worst = 0.0f64;
        for (at, (result, expected)) in self.state.iter().zip(self.case.expected()?).enumerate() {
            let got = match result.dtype() {
                DType::F32 => result.read::<f32>().await?.into_iter().map(f64::from).collect::<Vec<_>>(),
                DType::I32 => result.read::<i32>().await?.into_iter().map(f64::from).collect(),
                _ => result.read::<u32>().await?.into_iter().map(f64::from).collect(),
            };
            let scale = expected.iter().fold(0.0f64, |scale, (_, value)| scale.max(value.abs()));
            let bound = self.case.bound(scale);
            for (index, want) in expected {
                let error = (got[index] - want).abs();
                // A NaN must not pass.
                if error.is_nan() || error > bound {
                    let name = &self.case.name;
                    let why = format!("{name}: element {index} of result {at}: {} for {want}", got[index]);
                    return Err(Error::new(ErrorKind::Validation { why }));
                }
                worst = worst.max(if bound > 0.0 { error / bound } else { 0.0 });
            }
        }
        Ok(worst)
    }

    /// Times runs for about so many seconds, at least ten times.
    pub async fn time(&mut self, seconds: f64) -> Result<Timing> {
        let mut timing = Timing::default();
        for _ in 0..3 {
            self.block(1)?;
        }
        self.device.wait().await?;
        let started = Instant::now();
        self.block(1)?;
        self.device.wait().await?;
        let one = started.elapsed().as_secs_f64().max(1e-6);
        // Blocks of about a twentieth of the time, so that there are enough of them.
        let waits = std::env::var_os("WENGERT_BENCH_WAIT").is_some();
        let runs = if waits { 1 } else { ((seconds / 20.0 / one) as usize).clamp(1, 64) };
        self.block(runs)?;
        self.device.wait().await?;
        let before = self.device.stats();
        let (mut walls, begun) = (Vec::new(), Instant::now());
        while walls.len() < 10 || begun.elapsed().as_secs_f64() < 0.7 * seconds {
            let started = Instant::now();
            self.block(runs)?;
            self.device.wait().await?;
            walls.push(started.elapsed().as_secs_f64() * 1e3 / runs as f64);
        }
        let spent = self.device.stats() - before;
        timing.n = walls.len() * runs;
        timing.wall = median(&mut walls);
        timing.dispatches = spent.dispatches as f64 / timing.n as f64;
        timing.submits = spent.submissions as f64 / timing.n as f64;
        if self.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            let mut times = Vec::new();
            let begun = Instant::now();
            while times.len() < 10 || begun.elapsed().as_secs_f64() < 0.3 * seconds {
                let (case, inputs) = (self.case, &self.inputs);
                let f = |state: Vec<Tensor>, _: &()| Ok((Logs::default(), (case.apply)(&state, inputs)?));
                times.push(self.step.profile(&mut self.state, &(), f).await?.seconds() * 1e3);
            }
            // A clock that stands still says nothing.
            timing.gpu = Some(median(&mut times)).filter(|&ms| ms > 0.0);
        }
        if let Some(plan) = self.step.plan() {
            timing.flops = plan.lines.iter().map(|line| line.flops + line.ops).sum();
        }
        Ok(timing)
    }

    /// The plan, for people.
    pub fn plan(&self, source: bool) -> String {
        let Some(plan) = self.step.plan() else { return String::new() };
        let sources = plan.lines.iter().map(|line| line.source.as_str()).filter(|_| source);
        [plan.to_string()].into_iter().chain(sources.map(String::from)).collect::<Vec<_>>().join("\n")
    }
}
