//! The loops: `fit`, `evaluate` and `predict`.
//!
//! Each is one loop around replays of a recorded step: it gathers rows, submits, and waits only where the device says
//! that enough is queued. Numbers come back when the bar wants them and at the end of an epoch, predictions when many
//! have gathered. Deliberately absent: a second loop for evaluation inside `fit`; validation is `evaluate`.

use super::options::{Evaluate, Fit, Predict, Verbose};
use super::work::{Work, ready_to_train};
use super::{History, Model, Scores};
use crate::callbacks::{Callback, ProgressBar, Run, Style};
use crate::data::{Batch, Batches, Data, Shuffle};
use crate::error::{Error, Result};
use crate::graph::{Spec, Tensor, nowhere};
use crate::read::read_all;
use crate::step::Logs;

/// Predictions are read together, so many at most ...
const TOGETHER: usize = 64;
/// ... and at most so many bytes.
const TOGETHER_BYTES: u64 = 16 << 20;

/// Calls one hook of all callbacks, in their order.
macro_rules! each {
    ($callbacks:expr, $hook:ident, $run:expr) => {
        for callback in $callbacks.iter_mut() {
            callback.$hook(&mut $run).await?;
        }
    };
}

/// The callbacks, then the bar, which so shows what they add to the scores.
fn with<'a, 'b: 'a>(
    callbacks: Vec<&'b mut dyn Callback>,
    bar: &'a mut Option<ProgressBar>,
) -> Vec<&'a mut dyn Callback> {
    let callbacks = callbacks.into_iter().map(|callback| callback as &mut dyn Callback);
    callbacks.chain(bar.as_mut().map(|bar| bar as &mut dyn Callback)).collect()
}

fn bar(verbose: Verbose) -> Option<ProgressBar> {
    let style = match verbose {
        Verbose::Silent => return None,
        Verbose::Line => Style::Brief,
        Verbose::Bar | Verbose::Auto if crate::host::page_redraws() => Style::Page,
        Verbose::Bar => Style::Terminal,
        Verbose::Auto if crate::host::is_terminal() => Style::Terminal,
        Verbose::Auto => Style::Plain,
    };
    Some(ProgressBar::new(style))
}

pub(super) async fn read(logs: &Logs) -> Result<Scores> {
    Ok(logs.read().await?.into_iter().map(|(name, value)| (name, f64::from(value))).collect())
}

/// The batches of one pass over the data after the other.
struct Rows<'a> {
    data: &'a Data,
    batch_size: usize,
    /// The seed of the order, unless rows come in their own.
    seed: Option<u64>,
    pass: usize,
    order: Batches,
    next: usize,
}

impl<'a> Rows<'a> {
    fn new(data: &'a Data, batch_size: usize, seed: Option<u64>) -> Result<Rows<'a>> {
        let order = Batches::new(data.len(), batch_size, drawn(seed, 0))?;
        Ok(Rows { data, batch_size, seed, pass: 0, order, next: 0 })
    }

    /// Goes to a batch, counted from the first of the first pass.
    fn seek(&mut self, batch: usize) -> Result<()> {
        let (pass, next) = (batch / self.order.len(), batch % self.order.len());
        if pass != self.pass {
            self.order = Batches::new(self.data.len(), self.batch_size, drawn(self.seed, pass))?;
        }
        (self.pass, self.next) = (pass, next);
        Ok(())
    }

    /// Up to `count` batches of equal size, from this pass or, if that is at its end, the next.
    fn group(&mut self, count: usize) -> Result<Vec<Batch>> {
        if self.next == self.order.len() {
            self.seek((self.pass + 1) * self.order.len())?;
        }
        let mut group: Vec<Batch> = Vec::new();
        while let Some(rows) = self.order.get(self.next).filter(|_| group.len() < count) {
            if group.first().is_some_and(|first| first.size() != rows.len()) {
                break;
            }
            group.push(self.data.rows(rows));
            self.next += 1;
        }
        Ok(group)
    }
}

fn drawn(seed: Option<u64>, pass: usize) -> Shuffle {
    seed.map_or(Shuffle::Off, |seed| Shuffle::On { seed, epoch: pass as u32 })
}

/// What is wrong with the options themselves, so that a training that started does not stop over them.
fn check(options: &Fit<'_>) -> Result<()> {
    if !(0.0..1.0).contains(&options.validation_split) {
        let what = format!("validation_split is a share of the rows, 0 to below 1, not {}", options.validation_split);
        return Err(Error::Argument { what });
    }
    let zero = [
        ("steps_per_epoch", options.steps_per_epoch == Some(0)),
        ("validation_batch_size", options.validation_batch_size == Some(0)),
        ("validation_freq", options.validation_freq == 0),
    ];
    match zero.iter().find(|option| option.1) {
        Some((name, _)) => Err(Error::Argument { what: format!("{name} must be 1 at least") }),
        None => Ok(()),
    }
}

pub(super) async fn fit<M: Model + ?Sized>(model: &M, data: Batch, options: Fit<'_>) -> Result<History> {
    ready_to_train(model)?;
    check(&options)?;
    let whole = Data::new(data)?;
    let (data, held_back) = match (&options.validation_data, options.validation_split > 0.0) {
        (Some(validation), _) => (whole, Some(Data::new(validation.clone())?)),
        (None, true) => whole.split(options.validation_split).map(|(data, rest)| (data, Some(rest)))?,
        (None, false) => (whole, None),
    };
    let mut rows = Rows::new(&data, options.batch_size, options.shuffle.then_some(options.seed))?;
    let work = Work::new(model).await?;
    let steps = options.steps_per_epoch.unwrap_or(rows.order.len());
    let fused = model.base().settings.steps_per_execution;

    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), options.epochs, steps);
    let mut history = History::default();

    each!(callbacks, on_train_begin, run);
    for epoch in options.initial_epoch..options.epochs {
        if run.stop {
            break;
        }
        rows.seek(epoch * steps)?;
        work.reset()?;
        run.start_epoch(epoch);
        each!(callbacks, on_epoch_begin, run);
        while run.step < steps && !run.stop {
            run.start_step();
            each!(callbacks, on_batch_begin, run);
            work.device.ready().await?;
            let group = rows.group(fused.min(steps - run.step))?;
            let logs = work.train(&group)?;
            run.finish_step(group.len(), logs);
            each!(callbacks, on_batch_end, run);
        }
        let mut scores = run.read_logs().await?;
        if let Some(validation) = held_back.as_ref().filter(|_| (epoch + 1) % options.validation_freq == 0) {
            let batch_size = options.validation_batch_size.unwrap_or(options.batch_size);
            let order = Batches::new(validation.len(), batch_size, Shuffle::Off)?;
            let mut within = run.validation(order.len());
            test(&work, validation, &order, &mut callbacks, &mut within).await?;
            run.stop |= within.stop;
            for (name, value) in within.scores.iter() {
                scores.push(format!("val_{name}"), value);
            }
        }
        run.scores = scores;
        each!(callbacks, on_epoch_end, run);
        history.push(epoch, &run.scores);
    }
    if !history.epoch.is_empty() {
        work.networks().iter().try_for_each(|network| network.adopt_averages(&work.device))?;
    }
    each!(callbacks, on_train_end, run);
    Ok(history)
}

pub(super) async fn evaluate<M: Model + ?Sized>(model: &M, data: &Data, options: Evaluate<'_>) -> Result<Scores> {
    let work = Work::new(model).await?;
    let order = Batches::new(data.len(), options.batch_size, Shuffle::Off)?;
    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), 1, order.len());
    test(&work, data, &order, &mut callbacks, &mut run).await?;
    Ok(run.scores)
}

/// Evaluates; the scores are left in `run`.
async fn test<M: Model + ?Sized>(
    work: &Work<'_, M>,
    data: &Data,
    order: &Batches,
    callbacks: &mut [&mut dyn Callback],
    run: &mut Run<'_>,
) -> Result<()> {
    work.reset()?;
    each!(callbacks, on_test_begin, *run);
    for rows in order {
        if run.stop && !run.validating {
            break;
        }
        run.start_step();
        each!(callbacks, on_test_batch_begin, *run);
        work.device.ready().await?;
        let logs = work.test(&data.rows(rows))?;
        run.finish_step(1, logs);
        each!(callbacks, on_test_batch_end, *run);
    }
    run.scores = run.read_logs().await?;
    each!(callbacks, on_test_end, *run);
    Ok(())
}

pub(super) async fn predict<M: Model + ?Sized>(model: &M, data: &Data, options: Predict<'_>) -> Result<Tensor> {
    let work = Work::new(model).await?;
    let order = Batches::new(data.len(), options.batch_size, Shuffle::Off)?;
    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), 1, order.len());
    each!(callbacks, on_predict_begin, run);
    let mut bits: Vec<u32> = Vec::new();
    let mut outputs: Vec<Tensor> = Vec::new();
    let (mut row, mut bytes) = (Spec::new([0], crate::dtype::DType::F32), 0);
    let mut seen = 0;
    for rows in &order {
        if run.stop {
            break;
        }
        run.start_step();
        each!(callbacks, on_predict_batch_begin, run);
        work.device.ready().await?;
        let output = work.predict(&data.rows(rows))?;
        let (node, at) = output.node()?;
        row = node.outputs()[at].clone();
        if row.shape.first() != Some(&rows.len()) {
            let what = format!("predict_step returned {row} for {} rows; its first axis must be the rows", rows.len());
            return Err(Error::State { what });
        }
        bytes += row.bytes();
        seen += rows.len();
        outputs.push(output);
        run.finish_step(1, Logs::default());
        each!(callbacks, on_predict_batch_end, run);
        if outputs.len() == TOGETHER || bytes >= TOGETHER_BYTES {
            bits.extend(read_all(&work.device, &outputs).await?.into_iter().flatten());
            outputs.clear();
            bytes = 0;
        }
    }
    if !outputs.is_empty() {
        bits.extend(read_all(&work.device, &outputs).await?.into_iter().flatten());
    }
    each!(callbacks, on_predict_end, run);
    let shape = [&[seen], &row.shape[1.min(row.shape.rank())..]].concat();
    Ok(Tensor::from_bits(bits.into(), Spec::new(shape, row.dtype), nowhere()))
}
