//! Steps over a state that is updated in place, with full and smaller batches in turn.
//!
//! The interpreter starts each step from what the device held before it, so errors do not add up over steps. Beside it
//! stands a step that has seen no other batch; and what others hold of the state must not change.

use std::fmt::Write;

use wengert::dtype::DType;
use wengert::gpu::Device;
use wengert::graph::Tensor;
use wengert::graph::interpret::{Given, interpret};
use wengert::lower::Options;
use wengert::lower::place::Strategy;
use wengert::step::{Logs, Step};

use crate::common::Random;
use crate::eager::scatter;
use crate::functions::{Function, Item, Outcome};

type Text<T> = Result<T, String>;

fn text(error: wengert::error::Error) -> String {
    error.to_string()
}

/// The bits of a tensor.
fn bits(tensor: &Tensor, device: &Device) -> Text<Vec<u32>> {
    Ok(match tensor.dtype() {
        DType::F32 => tensor.to_vec_on::<f32>(device).map_err(text)?.into_iter().map(f32::to_bits).collect(),
        DType::I32 => tensor.to_vec_on::<i32>(device).map_err(text)?.into_iter().map(|i| i as u32).collect(),
        DType::U32 | DType::Bool => tensor.to_vec_on::<u32>(device).map_err(text)?,
    })
}

fn all_bits(tensors: &[Tensor], device: &Device) -> Text<Vec<Vec<u32>>> {
    tensors.iter().map(|tensor| bits(tensor, device)).collect()
}

/// A tensor of these bits that lies on the host, or is computed there from one that does.
fn from_bits(bits: &[u32], shape: &[usize], dtype: DType) -> Tensor {
    match dtype {
        DType::F32 => Tensor::new(&bits.iter().map(|&b| f32::from_bits(b)).collect::<Vec<_>>(), shape),
        DType::I32 => Tensor::new(&bits.iter().map(|&b| b as i32).collect::<Vec<_>>(), shape),
        DType::U32 => Tensor::new(bits, shape),
        DType::Bool => Tensor::new(bits, shape).cast(DType::Bool),
    }
}

fn restore(function: &Function, bits: &[Vec<u32>]) -> Vec<Tensor> {
    bits.iter().zip(&function.state).map(|(bits, (shape, dtype))| from_bits(bits, shape, *dtype)).collect()
}

/// Draws tensors of these shapes and dtypes.
fn draw(random: &mut Random, specs: &[(Vec<usize>, DType)]) -> Vec<Tensor> {
    let mut one = |(shape, dtype): &(Vec<usize>, DType)| {
        let shape = shape.clone().into();
        match dtype {
            DType::F32 => random.leaf(&shape, DType::F32, (-2.0, 2.0), true),
            DType::I32 => random.leaf(&shape, DType::I32, (0.0, 4.0), true),
            DType::U32 => random.leaf(&shape, DType::U32, (0.0, 4e9), false),
            DType::Bool => random.leaf(&shape, DType::U32, (0.0, 1.0), false).cast(DType::Bool),
        }
    };
    specs.iter().map(&mut one).collect()
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|at| format!("log {at}"))
}

fn run(step: &mut Step, function: &Function, state: &mut Vec<Tensor>, batches: &[Vec<Tensor>]) -> Text<Vec<f32>> {
    let f = |state: Vec<Tensor>, batch: &Vec<Tensor>| {
        let Outcome { state, logs } = function.record(&state, batch)?;
        let logs: Logs = names(logs.len()).zip(logs.into_iter().map(|log| log.tensor)).collect();
        Ok((logs, state.into_iter().map(|item| item.tensor).collect()))
    };
    let logs = step.run_tagged(0, state, batches, f).map_err(text)?;
    Ok(logs.read_blocking().map_err(text)?.into_iter().map(|log| log.1).collect())
}

/// What is wrong with new state and logs, if anything.
fn compare(wanted: &[(Item, Vec<f64>)], state: &[Vec<u32>], logs: &[f32]) -> Option<String> {
    let number = |bits: u32, dtype: DType| match dtype {
        DType::F32 => f64::from(f32::from_bits(bits)),
        DType::I32 => f64::from(bits as i32),
        DType::U32 | DType::Bool => f64::from(bits),
    };
    for (at, (item, wanted)) in wanted.iter().enumerate() {
        let (name, got): (String, Vec<f64>) = match state.get(at) {
            Some(bits) => (format!("leaf {at}"), bits.iter().map(|&b| number(b, item.tensor.dtype())).collect()),
            None => (format!("log {}", at - state.len()), vec![f64::from(logs[at - state.len()])]),
        };
        let allowed =
            if item.tensor.dtype() == DType::F32 { 2.0 * item.error + 2.0 * f64::from(f32::EPSILON) } else { 0.0 };
        let wrong = |scatter: &[f64]| {
            // NaN fits nothing.
            let fits = |at: usize, off: f64| off <= allowed + scatter.get(at).copied().unwrap_or_default();
            got.iter().zip(wanted).enumerate().position(|(at, (g, w))| !fits(at, (g - w).abs()))
        };
        let rounds = item.tensor.dtype() == DType::F32;
        let scattered = |_| if rounds { scatter(&item.tensor, wanted) } else { Vec::new() };
        let wrong = wrong(&[]).and_then(|at| wrong(&scattered(at)));
        if got.len() != wanted.len() || wrong.is_some() {
            let i = wrong.unwrap_or(0);
            return Some(format!(
                "{name} {} [{i}] is {:?}, not {:?}, allowed {allowed:e}",
                item.tensor.shape(),
                got.get(i),
                wanted.get(i)
            ));
        }
    }
    None
}

fn listing(step: &Step) -> String {
    let mut text = String::new();
    let Some(plan) = step.plan() else { return text };
    let _ = write!(text, "\n{plan}");
    for (index, line) in plan.lines.iter().enumerate() {
        let _ = write!(text, "\n// dispatch {index}: {} {:?}\n{}", line.label, line.grid, line.source);
    }
    text
}

/// Runs the function of a seed for several steps.
pub fn check(device: &Device, seed: u64) -> Text<()> {
    let function = Function::new(seed);
    let mut random = Random::new(seed ^ 0x5EED);
    let options = match random.below(6) {
        0 => Options { fuse: false, strategy: Strategy::Whole },
        1 => Options { fuse: true, strategy: Strategy::Arena },
        _ => Options::default(),
    };
    let full = function.full;
    let mut state = draw(&mut random, &function.state);
    // One tensor may stand for two leaves.
    let twin = (1..state.len()).find(|&i| function.state[i] == function.state[0]);
    if let Some(twin) = twin.filter(|_| random.chance(0.3)) {
        state[twin] = state[0].clone();
    }
    let reshaped = function.reshaped(&mut random);
    // The device keeps large constants to itself, so the interpreter has its own.
    let (on_host, reshaped_on_host) = (function.twin(), reshaped.twin());
    let mut step = Step::with(device, options.clone());
    let mut sizes = vec![full];
    for _ in 0..3 + random.below(3) {
        sizes.push(match random.below(5) {
            0 => full,
            1 => 1,
            2 => *random.pick(&sizes),
            _ => 1 + random.below(full),
        });
    }
    let fresh = 1 + random.below(sizes.len() - 1);
    let mut held: Vec<(Tensor, Vec<u32>)> = Vec::new();
    for (run_number, &rows) in sizes.iter().enumerate() {
        let is_other = run_number > 0 && reshaped.batch != function.batch && random.chance(0.2);
        let (function, on_host, rows) = match is_other {
            true => (&reshaped, &reshaped_on_host, rows.min(reshaped.full)),
            false => (&function, &on_host, rows),
        };
        let at = |what: &str, step: &Step| {
            let rows = if is_other { format!("{rows} longer") } else { rows.to_string() };
            format!("seed {seed}, run {run_number} of {sizes:?} with {rows} rows, {options:?}: {what}{}", listing(step))
        };
        let specs: Vec<_> =
            (function.batch.iter()).map(|(inner, dtype)| ([&[rows], &inner[..]].concat(), *dtype)).collect();
        let batch = draw(&mut random, &specs);
        let before = all_bits(&state, device)?;
        // What the caller may do between runs: keep what it sees, put in other values, exchange leaves.
        if random.chance(0.3) {
            let i = random.below(state.len());
            held.push((state[i].clone(), before[i].clone()));
        }
        let mut now = before.clone();
        if random.chance(0.15) {
            let i = random.below(state.len());
            let (shape, dtype) = &function.state[i];
            state[i] = from_bits(&before[i], shape, *dtype);
        }
        if random.chance(0.15) {
            let (i, j) = (random.below(state.len()), random.below(state.len()));
            if function.state[i] == function.state[j] {
                state.swap(i, j);
                now.swap(i, j);
            }
        }
        let outcome = on_host.record(&restore(function, &now), &batch).map_err(text)?;
        let items: Vec<Item> = outcome.state.into_iter().chain(outcome.logs).collect();
        let tensors: Vec<Tensor> = items.iter().map(|item| item.tensor.clone()).collect();
        let values = interpret(&tensors, &Given::new()).map_err(text)?;
        let wanted: Vec<_> = items.into_iter().zip(values.into_iter().map(|array| array.data)).collect();
        let logs = run(&mut step, function, &mut state, std::slice::from_ref(&batch)).map_err(|e| at(&e, &step))?;
        let after = all_bits(&state, device)?;
        if let Some(wrong) = compare(&wanted, &after, &logs) {
            return Err(at(&wrong, &step));
        }
        for (number, (tensor, bits_held)) in held.iter().enumerate() {
            if bits(tensor, device)? != *bits_held {
                return Err(at(&format!("what was held of the state ({number}) has changed"), &step));
            }
        }
        let is_full = rows == full && !is_other;
        if !is_full && run_number != fresh {
            continue;
        }
        let (mut alone, mut other) = (Step::with(device, options.clone()), restore(function, &now));
        let alone_logs =
            run(&mut alone, function, &mut other, std::slice::from_ref(&batch)).map_err(|e| at(&e, &alone))?;
        let alone_bits = all_bits(&other, device)?;
        if let Some(wrong) = compare(&wanted, &alone_bits, &alone_logs) {
            return Err(at(&format!("alone: {wrong}"), &alone));
        }
        // The plan of the full batch is the same wherever its state lies.
        if is_full && (alone_bits != after || alone_logs.iter().zip(&logs).any(|(a, b)| a.to_bits() != b.to_bits())) {
            return Err(at("a step that saw no other batch gives other bits", &step));
        }
        // Several batches in one submission are as many runs.
        if random.chance(0.3) {
            let batches = [batch, draw(&mut random, &specs)];
            let mut one_by_one = restore(function, &after);
            run(&mut alone, function, &mut one_by_one, &batches[..1])?;
            let last = run(&mut alone, function, &mut one_by_one, &batches[1..])?;
            let mut together = restore(function, &after);
            let logs = run(&mut alone, function, &mut together, &batches)?;
            let same = all_bits(&one_by_one, device)? == all_bits(&together, device)? && last == logs;
            if !same {
                return Err(at("two batches in one submission are not two runs", &alone));
            }
        }
    }
    Ok(())
}
