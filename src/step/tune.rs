//! [`Step::tune`]: which variant of a step's products is fastest on the device at hand, found by trying.
//!
//! Every tile that the device can run computes the product on numbers whose sums are exact, so each result must be the same in
//! every bit as that of the plainest tile; one that is not is left out and logged, as is one that the driver refuses. The
//! others run in turns, and the best run of each counts: what is slower than that is somebody else's work. The table's tile stays
//! unless another is clearly faster. What was found holds for the device from then on and is kept for
//! later processes (`gpu::Choices`). Deliberately absent: tuning that nobody asked for; operands that are windows are timed as plain matrices.

use std::fmt;

use super::entry::Entry;
use super::record::record;
use super::{Logs, Step};
use crate::collections::Set;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Access, BindGroup, Buffer, Device, Pipeline, Range};
use crate::graph::Tree;
use crate::lower::Target;
use crate::lower::gemm::{self, Gemm, Operand, Problem};

/// What the variants of a product took.
#[derive(Clone, Debug)]
pub struct Tuned {
    /// The product, by layout and sizes up to the next power of two: what the choice holds for.
    pub product: String,
    /// Matrices, their rows and columns, and the terms of each sum, as they were timed.
    pub sizes: [usize; 4],
    /// Variants that are right, with the seconds of their best run, fastest first.
    pub variants: Vec<(String, f64)>,
    /// What an untuned device takes.
    pub default: String,
    /// What this device takes from now on.
    pub chosen: String,
}

impl Tuned {
    /// The time of the untuned choice, as a multiple of the best.
    pub fn default_over_best(&self) -> f64 {
        let time = |name: &str| self.variants.iter().find(|(variant, _)| variant == name).map(|(_, seconds)| *seconds);
        let best = self.variants.first().map(|(_, seconds)| *seconds);
        time(&self.default).zip(best).map_or(f64::NAN, |(default, best)| default / best)
    }
}

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [batch, m, n, k] = self.sizes;
        let flops = 2.0 * (batch * m * n * k) as f64;
        write!(f, "{} ({batch} of {m}x{n}x{k}): takes {}", self.product, self.chosen)?;
        if self.chosen != self.default {
            write!(f, " instead of {}", self.default)?;
        }
        write!(f, "; the untuned choice is {:.2} of the best", self.default_over_best())?;
        for (name, seconds) in &self.variants {
            write!(f, "\n    {name:<22} {:>9.3} ms {:>8.1} GFLOP/s", seconds * 1e3, flops / seconds * 1e-9)?;
        }
        Ok(())
    }
}

/// The table's choice stays unless another takes this share of its time or less.
const GAIN: f64 = 0.97;
/// Rounds, and the seconds that all variants of a product together may take beyond the first round.
const ROUNDS: usize = 15;
const SECONDS: f64 = 1.5;
/// Bytes of a result that are compared.
const COMPARED: u64 = 16 << 20;

impl Step {
    /// Tries every variant of the products of the function for such a state and batch. The fastest is taken by all that is
    /// compiled on the device from now on, and in later processes (see [`DeviceOptions::cache`](crate::gpu::DeviceOptions::cache)).
    /// Never needed: the defaults are tuned for classes of devices. Nothing of the function is run. What this step had
    /// compiled before is forgotten; other steps keep theirs.
    ///
    /// Other variants may add up in another order, so the bits of results may differ from those of an untuned device.
    ///
    /// ```no_run
    /// use wengert::prelude::*;
    ///
    /// # wengert::host::main(async {
    /// let (mut step, w) = (Step::new(&Device::new().await?), Tensor::zeros([512, 512]));
    /// let f = |w: Tensor, x: &Tensor| Ok((Logs::default(), x.matmul(&w)));
    /// for tuned in step.tune(&w, &Tensor::ones([512, 512]), f).await? {
    ///     println!("{tuned}");
    /// }
    /// # Ok::<(), Error>(())
    /// # });
    /// ```
    ///
    /// # Errors
    /// Those of recording and compiling; [`ErrorKind::OutOfMemory`] where there is no room for a copy of the operands;
    /// [`ErrorKind::DeviceLost`].
    pub async fn tune<S: Tree, B: Tree>(
        &mut self,
        state: &S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Vec<Tuned>> {
        let products = self.products(0, state, batch, f)?;
        tune(&self.device, &products).await
    }

    /// The products of a form of the function, whose plans are forgotten.
    pub(crate) fn products<S: Tree, B: Tree>(
        &mut self,
        tag: u64,
        state: &S,
        batch: &B,
        f: impl Fn(S, &B) -> Result<(Logs, S)>,
    ) -> Result<Vec<Problem>> {
        let recorded = record(&self.device, &self.options, state, batch, &f)?;
        let entry = Entry::new(&self.device, tag, recorded, None, &self.options, self.budget)?;
        self.entries.clear();
        Ok(entry.compiled.products(&Target::of(&self.device)))
    }
}

/// Tunes products on a device, each kind once.
pub(crate) async fn tune(device: &Device, products: &[Problem]) -> Result<Vec<Tuned>> {
    let (mut seen, mut all) = (Set::new(), Vec::new());
    for product in products {
        if product.m * product.n * product.k * product.batch > 0 && seen.insert(gemm::kind(product)) {
            all.push(one(device, product).await?);
        }
    }
    device.keep_choices();
    device.trim();
    Ok(all)
}

/// A variant on the device.
struct Running {
    name: String,
    pipeline: Pipeline,
    group: BindGroup,
    grid: [u32; 3],
    best: f64,
    _uniform: Buffer,
}

async fn one(device: &Device, product: &Problem) -> Result<Tuned> {
    let target = Target::of(device);
    let bare = plain(product);
    let [a, b] = [(&bare.a, bare.m, bare.k), (&bare.b, bare.k, bare.n)].map(|(operand, rows, columns)| {
        let matrices = if operand.batch_stride == 0 { 1 } else { bare.batch };
        numbers(device, matrices * if operand.transposed { columns } else { rows } * operand.ld)
    });
    let (a, b) = (a?, b?);
    let c = device.alloc(4 * (bare.batch * bare.parts * bare.m * bare.n).next_multiple_of(4) as u64)?;
    let compared = Range::new(&c, 0, c.size().min(COMPARED));
    let variants = gemm::variants(&bare, &target);
    let default =
        variants.iter().find(|variant| variant.default).map(|variant| variant.name.clone()).unwrap_or_default();
    let (mut running, mut right): (Vec<Running>, Option<Vec<Vec<u8>>>) = (Vec::new(), None);
    for variant in variants {
        let first = async {
            let mut made = make(device, variant.name.clone(), &variant.gemm, [&a, &b, &c])?;
            // A result of before must not pass for this one's.
            let mut encoder = device.encoder();
            encoder.clear(&c, 0, c.size());
            encoder.submit()?;
            made.best = device.seconds(&made.pipeline, &made.group, made.grid).await?;
            Ok::<_, Error>((made, device.read(std::slice::from_ref(&compared)).await?))
        };
        match first.await {
            Err(why) if matches!(why.kind(), ErrorKind::DeviceLost { .. } | ErrorKind::OutOfMemory { .. }) => {
                return Err(why);
            }
            Err(why) => log::warn!("{} of {} is left out: {why}", variant.name, gemm::kind(product)),
            Ok((made, result)) if right.get_or_insert(result.clone()) == &result => running.push(made),
            Ok((made, _)) => log::warn!("{} of {} is left out: wrong results", made.name, gemm::kind(product)),
        }
    }
    let round: f64 = running.iter().map(|variant| variant.best).sum();
    // The first run also paid for what a driver sets up lazily.
    running.iter_mut().for_each(|variant| variant.best = f64::INFINITY);
    for _ in 0..((SECONDS / round) as usize).clamp(2, ROUNDS) {
        for variant in &mut running {
            let seconds = device.seconds(&variant.pipeline, &variant.group, variant.grid).await?;
            // A clock too coarse to see the run says nothing.
            if seconds > 0.0 {
                variant.best = variant.best.min(seconds);
            }
        }
    }
    let mut variants: Vec<(String, f64)> = running.into_iter().map(|variant| (variant.name, variant.best)).collect();
    crate::sort::sort_by(&mut variants, |a, b| a.1.total_cmp(&b.1));
    let usual = variants.iter().find(|(name, _)| *name == default).map_or(f64::INFINITY, |(_, seconds)| *seconds);
    let chosen = match variants.first() {
        Some((name, seconds)) if *seconds <= GAIN * usual => name.clone(),
        _ => default.clone(),
    };
    device.choose(&gemm::kind(product), &chosen);
    let sizes = [product.batch * product.parts, product.m, product.n, product.k / product.parts];
    let tuned = Tuned { product: gemm::kind(product), sizes, variants, default, chosen };
    log::info!("{tuned}");
    Ok(tuned)
}

/// The same product of operands that lie as dense in memory as they may.
fn plain(product: &Problem) -> Problem {
    let dense = |operand: &Operand, rows: usize, columns: usize| {
        let (lines, length) = if operand.transposed { (columns, rows) } else { (rows, columns) };
        let ld = if operand.vec4 { length.next_multiple_of(4) } else { length };
        let batch_stride = if operand.batch_stride == 0 || product.parts > 1 { 0 } else { lines * ld };
        Operand { ld, batch_stride, outer: None, ..*operand }
    };
    Problem { a: dense(&product.a, product.m, product.k), b: dense(&product.b, product.k, product.n), ..*product }
}

/// Multiples of an eighth in [-1, 1], whose products add up without rounding, a hundred thousand of them at least.
fn numbers(device: &Device, count: usize) -> Result<Buffer> {
    let buffer = device.alloc(4 * count.next_multiple_of(4) as u64)?;
    let mut state = 0x9e37_79b9u32;
    let mut next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ((state >> 8) % 17) as f32 / 8.0 - 1.0
    };
    /// Elements of an upload.
    const PART: usize = 1 << 18;
    for start in (0..count).step_by(PART) {
        let part: Vec<f32> = (start..(start + PART).min(count)).map(&mut next).collect();
        let mut encoder = device.encoder();
        encoder.upload(bytemuck::cast_slice(&part), &buffer, 4 * start as u64)?;
        encoder.submit()?;
    }
    Ok(buffer)
}

fn make(device: &Device, name: String, gemm: &Gemm, [a, b, c]: [&Buffer; 3]) -> Result<Running> {
    let accesses = [Access::Uniform, Access::Read, Access::Read, Access::ReadWrite];
    let pipeline = device.pipeline(&gemm.name, &gemm.source, &accesses)?;
    let uniform = device.uniform(&gemm.params)?;
    let group = device.bind_group(&pipeline, &[uniform.whole(), a.whole(), b.whole(), c.whole()]);
    Ok(Running { name, pipeline, group, grid: gemm.grid, best: f64::INFINITY, _uniform: uniform })
}
