//! The loops: `fit`, `evaluate` and `predict`.
//!
//! Each is one loop around replays of a recorded step: it gathers rows, submits, and waits only where the device says
//! that enough is queued. Numbers come back when the bar wants them and at the end of an epoch, predictions when many
//! have gathered. Deliberately absent: a second loop for evaluation inside `fit`; validation is `evaluate`.

use super::options::{Fit, Verbose};
use super::work::{Work, ready_to_train};
use super::{DataOrder, History, Model, Scores, resume};
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

pub(super) fn style(verbose: Verbose) -> Option<Style> {
    match verbose {
        Verbose::Silent => None,
        Verbose::Bar => Some(Style::Terminal),
        Verbose::Line => Some(Style::Brief),
        Verbose::Auto if crate::host::is_terminal() => Some(Style::Terminal),
        Verbose::Auto => Some(Style::Plain),
    }
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

    let mut bar = style(options.verbose).map(|style| ProgressBar::new(style, steps));
    let mut callbacks: Vec<&mut dyn Callback> = Vec::new();
    callbacks.extend(bar.as_mut().map(|bar| bar as &mut dyn Callback));
    callbacks.extend(options.callbacks);
    let mut run = Run::new(work.networks(), options.epochs, steps);
    let mut history = History::default();
    let seed = options.shuffle.then_some(options.seed);
    let order = DataOrder { rows: data.len(), batch_size: options.batch_size, seed, steps };
    macro_rules! each {
        ($hook:ident) => {
            for callback in &mut callbacks {
                callback.$hook(&mut run).await?;
            }
        };
    }

    each!(on_train_begin);
    let resumed = run.resume.take().or(options.resume_from);
    let (mut first, mut skip) = (options.initial_epoch, 0);
    if let Some(checkpoint) = &resumed {
        let progress = checkpoint.progress();
        progress.map_or(Ok(()), |progress| progress.order.must_be(&order))?;
        resume::restore(&work, checkpoint, &mut callbacks)?;
        if let Some(progress) = progress {
            (first, skip, run.stop) = (progress.epoch, progress.step, progress.stop);
            (history, run.scores) = (progress.history.clone(), progress.scores.clone());
        }
    }
    for epoch in first..options.epochs {
        if run.stop {
            break;
        }
        rows.seek(epoch * steps + skip)?;
        run.start_epoch(epoch);
        run.step = std::mem::take(&mut skip);
        match resumed.as_ref().filter(|_| run.step > 0) {
            None => {
                work.reset()?;
                each!(on_epoch_begin);
            }
            Some(checkpoint) => {
                // The epoch began before the checkpoint was taken: what its hooks do must not be done twice.
                each!(on_epoch_begin);
                resume::restore(&work, checkpoint, &mut callbacks)?;
            }
        }
        while run.step < steps && !run.stop {
            each!(on_batch_begin);
            work.device.ready().await?;
            let group = rows.group(fused.min(steps - run.step))?;
            let logs = work.train(&group)?;
            run.finish_step(group.len(), logs);
            each!(on_batch_end);
            if run.checkpoint && run.step < steps && !run.stop {
                let next = (epoch, run.step);
                resume::checkpoint(&work, &mut run, next, &order, &history, &mut callbacks).await?;
            }
        }
        let mut scores = run.read_logs().await?;
        if let Some(validation) = held_back.as_ref().filter(|_| (epoch + 1) % options.validation_freq == 0) {
            let batch_size = options.validation_batch_size.unwrap_or(options.batch_size);
            for (name, value) in evaluate(&work, validation, batch_size, None).await?.iter() {
                scores.push(format!("val_{name}"), value);
            }
        }
        history.push(epoch, &scores);
        run.scores = scores;
        each!(on_epoch_end);
        if run.checkpoint {
            resume::checkpoint(&work, &mut run, (epoch + 1, 0), &order, &history, &mut callbacks).await?;
        }
    }
    each!(on_train_end);
    Ok(history)
}

pub(super) async fn evaluate<M: Model + ?Sized>(
    work: &Work<'_, M>,
    data: &Data,
    batch_size: usize,
    style: Option<Style>,
) -> Result<Scores> {
    let order = Batches::new(data.len(), batch_size, Shuffle::Off)?;
    work.reset()?;
    let mut bar = style.map(|style| ProgressBar::new(style, order.len()));
    let mut run = Run::new(work.networks(), 1, order.len());
    for rows in &order {
        work.device.ready().await?;
        let logs = work.test(&data.rows(rows))?;
        run.finish_step(1, logs);
        if let Some(bar) = &mut bar {
            bar.on_batch_end(&mut run).await?;
        }
    }
    run.scores = run.read_logs().await?;
    if let Some(bar) = &mut bar {
        bar.on_epoch_end(&mut run).await?;
    }
    Ok(run.scores)
}

pub(super) async fn predict<M: Model + ?Sized>(work: &Work<'_, M>, data: &Data, batch_size: usize) -> Result<Tensor> {
    let mut bits: Vec<u32> = Vec::new();
    let mut outputs: Vec<Tensor> = Vec::new();
    let (mut row, mut bytes) = (Spec::new([0], crate::dtype::DType::F32), 0);
    let order = Batches::new(data.len(), batch_size, Shuffle::Off)?;
    for (index, rows) in order.iter().enumerate() {
        work.device.ready().await?;
        let output = work.predict(&data.rows(rows))?;
        let (node, at) = output.node()?;
        row = node.outputs()[at].clone();
        if row.shape.first() != Some(&rows.len()) {
            let what = format!("predict_step returned {row} for {} rows; its first axis must be the rows", rows.len());
            return Err(Error::State { what });
        }
        bytes += row.bytes();
        outputs.push(output);
        if outputs.len() == TOGETHER || bytes >= TOGETHER_BYTES || index + 1 == order.len() {
            bits.extend(read_all(&work.device, &outputs).await?.into_iter().flatten());
            outputs.clear();
            bytes = 0;
        }
    }
    let shape = [&[data.len()], &row.shape[1.min(row.shape.rank())..]].concat();
    Ok(Tensor::from_bits(bits.into(), Spec::new(shape, row.dtype), nowhere()))
}
