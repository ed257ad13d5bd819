//! Graphs evaluated eagerly, values and derivatives, and the smallest set of results that fails.

use std::fmt::Write;

use wengert::dtype::DType;
use wengert::error::ErrorKind;
use wengert::gpu::Device;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::graph::display::Graph;
use wengert::graph::interpret::{Given, interpret, interpret_rounded};
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::read::evaluate;

use crate::common::{Random, read};
use crate::graphs::{Fuzz, UNIT, Value};

/// A value to compute and the error allowed.
#[derive(Clone)]
struct Root {
    tensor: Tensor,
    allowed: f64,
    /// Of a derivative its seed and number. Errors are not tracked on its way, so that terms that cancel are not in `allowed`.
    slope: Option<(u64, usize)>,
}

impl Root {
    fn scatter(&self, wanted: &[f64]) -> Vec<f64> {
        let Some((seed, at)) = self.slope else { return Vec::new() };
        // Recorded anew, since evaluating a graph lets go of it.
        scatter(&slopes(seed).swap_remove(at), wanted)
    }
}

/// What a result may be off by besides, element by element: twice as far as the interpreter's own result moves where each
/// value on the way is rounded to f32, up or down by chance. What f32 holds exactly stays where it is, so no choice
/// between exact values falls otherwise. A sum of many terms moves by a quarter of a rounding for each of them: where they
/// are alike, so are their roundings, which do not make up for one another. Looked at only where something does not fit: terms
/// that cancel, and long sums of equal ones, are rare.
pub fn scatter(root: &Tensor, wanted: &[f64]) -> Vec<f64> {
    const TRIALS: u64 = 24;
    let mut scatter = vec![0.0f64; wanted.len()];
    for trial in 0..TRIALS {
        let mut random = Random::new(trial);
        let rounded = |value: f64, terms: usize| {
            let drift = if terms > 256 { terms as f64 / 8.0 * f64::from(f32::EPSILON) } else { 0.0 };
            let value = if random.chance(0.5) { value * (1.0 + drift) } else { value * (1.0 - drift) };
            let near = value as f32;
            let other = if f64::from(near) < value { near.next_up() } else { near.next_down() };
            if f64::from(near) == value || random.chance(0.5) { f64::from(near) } else { f64::from(other) }
        };
        let Ok(moved) = interpret_rounded(std::slice::from_ref(root), &Given::new(), rounded) else {
            return Vec::new();
        };
        let off = moved[0].data.iter().zip(wanted).map(|(a, b)| 2.0 * (a - b).abs());
        scatter.iter_mut().zip(off).for_each(|(most, off)| *most = most.max(off));
    }
    scatter
}

/// A recorded graph: all values in order, which of them are asked for, and the float leaves.
struct Recorded {
    values: Vec<Root>,
    which: Vec<usize>,
    leaves: Vec<Tensor>,
}

/// The graph of a seed, on `arguments` in the place of its first float leaves.
fn record(seed: u64, arguments: &[Tensor], differentiated: bool) -> Recorded {
    let mut fuzz = Fuzz::new(seed, arguments, differentiated);
    let nodes = 10 + fuzz.random.below(31);
    while fuzz.values.len() < nodes {
        fuzz.grow();
    }
    let count = 1 + fuzz.random.below(4);
    let mut which: Vec<usize> = (0..count).map(|_| fuzz.random.below(nodes)).chain([fuzz.values.len() - 1]).collect();
    which.sort_unstable();
    which.dedup();
    let root = |value: Value| {
        let allowed = 2.0 * value.error + f64::from(f32::EPSILON);
        Root { tensor: value.tensor, allowed, slope: None }
    };
    Recorded { values: fuzz.values.into_iter().map(root).collect(), which, leaves: fuzz.leaves }
}

/// The derivatives of a weighed sum of the values asked for, by every float leaf.
fn slopes(seed: u64) -> Vec<Tensor> {
    let loss = |arguments: &Vec<Tensor>| {
        let Recorded { values, which, .. } = record(seed, arguments, true);
        let mut random = Random::new(seed);
        let mut term = |at: &usize| {
            let t = &values[*at].tensor;
            let upstream = random.leaf(&t.shape(), DType::F32, (-1.0, 1.0), false);
            (t.cast(DType::F32) * upstream).sum(..)
        };
        Ok(which.iter().map(&mut term).fold(Tensor::scalar(0f32), |a, b| a + b))
    };
    let leaves = record(seed, &[], true).leaves;
    match grad(loss, &leaves) {
        Ok(gradients) => gradients,
        Err(error) => panic!("seed {seed}: {error}"),
    }
}

/// Their condition is not tracked; it is bounded by the largest derivative times the 40 ops of a path, and looked at where
/// terms cancel. A fault of the compiler is of the order of the values.
fn derivatives(seed: u64) -> Vec<Root> {
    let root = |(at, tensor): (usize, Tensor)| {
        let values = interpret(std::slice::from_ref(&tensor), &Given::new()).map(|mut v| v.remove(0).data);
        let largest = values.unwrap_or_default().iter().fold(1.0f64, |a, b| a.max(b.abs()));
        Root { tensor, allowed: 40.0 * UNIT * largest, slope: Some((seed, at)) }
    };
    slopes(seed).into_iter().enumerate().map(root).collect()
}

const CONFIGURATIONS: [(&str, Options); 3] = [
    ("unfused", Options { fuse: false, strategy: Strategy::Whole }),
    ("fused, whole buffers", Options { fuse: true, strategy: Strategy::Whole }),
    ("fused, arena", Options { fuse: true, strategy: Strategy::Arena }),
];

/// Evaluates roots in one plan; what is wrong with the results, if anything, and the results.
fn run(device: &Device, roots: &[Root], options: &Options) -> Result<Vec<Vec<f64>>, String> {
    let tensors: Vec<Tensor> = roots.iter().map(|root| root.tensor.clone()).collect();
    let wanted = interpret(&tensors, &Given::new()).map_err(|error| error.to_string())?;
    let drawn = Graph::of(&tensors).map_err(|error| error.to_string())?.to_string();
    let plan = match evaluate(device, &tensors, options) {
        // Windows that are stored, which a fused product reads where they lie, may be more than a device binds.
        Err(error) if !options.fuse && matches!(error.kind(), ErrorKind::Limit { .. }) => return Ok(Vec::new()),
        plan => plan.map_err(|error| format!("{error}\n{drawn}"))?,
    };
    if let Some(plan) = plan.as_ref().filter(|plan| plan.temporaries * 100 > plan.live * 110) {
        return Err(format!(
            "temporaries take {} bytes, and {} are alive at most\n{drawn}",
            plan.temporaries, plan.live
        ));
    }
    let mut results = Vec::new();
    for (at, (root, wanted)) in roots.iter().zip(&wanted).enumerate() {
        let got = read(&root.tensor, device).map_err(|error| error.to_string())?;
        let wrong = |scatter: &[f64]| {
            // NaN fits nothing.
            let fits = |at: usize, off: f64| off <= root.allowed + scatter.get(at).copied().unwrap_or_default();
            got.iter().zip(&wanted.data).enumerate().position(|(at, (g, w))| !fits(at, (g - w).abs()))
        };
        let wrong = wrong(&[]).and_then(|_| wrong(&root.scatter(&wanted.data)));
        if got.len() != wanted.data.len() || wrong.is_some() {
            let element = wrong.unwrap_or(0);
            let mut text = format!(
                "result {at} {} of {} elements: [{element}] is {:?}, not {:?}, allowed {:e}\n{drawn}",
                root.tensor.shape(),
                got.len(),
                got.get(element),
                wanted.data.get(element),
                root.allowed
            );
            for (index, line) in plan.iter().flat_map(|plan| &plan.lines).enumerate() {
                let _ = write!(text, "\n// dispatch {index}: {} {:?}\n{}", line.label, line.grid, line.source);
            }
            return Err(text);
        }
        results.push(got);
    }
    Ok(results)
}

/// What is compared, recorded anew at each call, since evaluating a graph lets go of it.
#[derive(Clone, Copy)]
pub enum What {
    Values,
    Derivatives,
}

impl What {
    /// All that could be evaluated, and which of it is.
    fn record(self, seed: u64) -> (Vec<Root>, Vec<usize>) {
        match self {
            What::Values => {
                let recorded = record(seed, &[], false);
                (recorded.values, recorded.which)
            }
            What::Derivatives => {
                let all = derivatives(seed);
                let which = (0..all.len()).collect();
                (all, which)
            }
        }
    }

    fn roots(self, seed: u64, which: &[usize]) -> Vec<Root> {
        let all = self.record(seed).0;
        which.iter().map(|&at| all[at].clone()).collect()
    }
}

/// The smallest set of roots that fails: one alone if one does, the earliest; else as few as fail together.
fn shrink(device: &Device, what: What, seed: u64, options: &Options) -> Option<String> {
    let (all, which) = what.record(seed);
    for at in 0..all.len() {
        if let Err(text) = run(device, &what.roots(seed, &[at]), options) {
            return Some(format!("value {at} alone fails: {text}"));
        }
    }
    let mut least = which.clone();
    let mut shrunk = None;
    for drop in which {
        let fewer: Vec<usize> = least.iter().copied().filter(|&at| at != drop).collect();
        if let Err(text) = run(device, &what.roots(seed, &fewer), options) {
            shrunk = Some(format!("values {fewer:?} together fail: {text}"));
            least = fewer;
        }
    }
    shrunk
}

pub fn check(device: &Device, what: What, seed: u64) -> Result<(), String> {
    let mut fused: Option<Vec<Vec<f64>>> = None;
    for (name, options) in &CONFIGURATIONS {
        let (all, which) = what.record(seed);
        let roots: Vec<Root> = which.iter().map(|&at| all[at].clone()).collect();
        match run(device, &roots, options) {
            // Where temporaries lie changes no bit.
            Ok(results) if options.fuse => match &fused {
                Some(before) if *before != results => {
                    return Err(format!("seed {seed}: the two placements differ in bits"));
                }
                _ => fused = Some(results),
            },
            Ok(_) => {}
            Err(text) => {
                let small = shrink(device, what, seed, options).unwrap_or(text);
                return Err(format!("seed {seed}, {name}: {small}"));
            }
        }
    }
    Ok(())
}
