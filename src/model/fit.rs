//! The loops: `fit`, `evaluate` and `predict`.
//!
//! Each is one loop around replays of a recorded step: it gathers rows, submits, and waits only where the device says
//! that enough is queued. Numbers come back when the bar wants them and at the end of an epoch, predictions when many
//! have gathered. Deliberately absent: a second loop for evaluation inside `fit`; validation is `evaluate`.

use super::options::{Evaluate, Fit, Predict, Verbose};
use super::source::{Feed, Source};
use super::state::lock;
use super::state::{InEpoch, at_home};
use super::work::{Work, ready_to_train};
use super::{History, Model, Scores, resume};
use crate::callbacks::{Callback, Hook, Run};
#[cfg(feature = "progress")]
use crate::callbacks::{ProgressBar, Style};
use crate::data::{Batch, Batches, Data, Shuffle};
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Tensor, nowhere};
use crate::host::Float;
use crate::read::read_all;
use crate::step::Logs;

/// Predictions are read together, so many at most ...
const TOGETHER: usize = 64;
/// ... and at most so many bytes.
const TOGETHER_BYTES: u64 = 16 << 20;

/// Calls one hook of all callbacks, in their order.
async fn all(
    callbacks: &mut [&mut dyn Callback],
    run: &mut Run<'_>,
    hook: for<'a, 'r> fn(&'a mut dyn Callback, &'a mut Run<'r>) -> Hook<'a>,
) -> Result<()> {
    for callback in callbacks {
        hook(&mut **callback, run).await?;
    }
    Ok(())
}

macro_rules! each {
    ($callbacks:expr, $hook:ident, $run:expr) => {
        all(&mut $callbacks[..], &mut $run, |callback, run| callback.$hook(run)).await?
    };
}

/// The callbacks, then the bar, which so shows what they add to the scores.
fn with<'a, 'b: 'a>(
    callbacks: Vec<&'b mut dyn Callback>,
    bar: &'a mut Option<Box<dyn Callback>>,
) -> Vec<&'a mut dyn Callback> {
    let callbacks = callbacks.into_iter().map(|callback| callback as &mut dyn Callback);
    callbacks.chain(bar.as_deref_mut().map(|bar| bar as &mut dyn Callback)).collect()
}

#[cfg(feature = "progress")]
fn bar(verbose: Verbose) -> Option<Box<dyn Callback>> {
    let style = match verbose {
        Verbose::Silent => return None,
        Verbose::Line => Style::Brief,
        Verbose::Bar | Verbose::Auto if crate::host::page_redraws() => Style::Page,
        Verbose::Bar => Style::Terminal,
        Verbose::Auto if crate::host::is_terminal() => Style::Terminal,
        Verbose::Auto => Style::Plain,
    };
    Some(Box::new(ProgressBar::new(style)))
}

#[cfg(not(feature = "progress"))]
fn bar(_: Verbose) -> Option<Box<dyn Callback>> {
    None
}

pub(super) async fn read(logs: &Logs) -> Result<Scores> {
    Ok(logs.read().await?.into_iter().map(|(name, value)| (name, f64::from(value))).collect())
}

/// What is wrong with the options themselves, so that a training that started does not stop over them.
fn check(options: &Fit<'_>) -> Result<()> {
    if !(0.0..1.0).contains(&options.validation_split) {
        let what =
            format!("validation_split is a share of the rows, 0 to below 1, not {}", Float(options.validation_split));
        return Err(Error::argument(what));
    }
    let zero = [
        ("steps_per_epoch", options.steps_per_epoch == Some(0)),
        ("validation_batch_size", options.validation_batch_size == Some(0)),
        ("validation_steps", options.validation_steps == Some(0)),
        ("validation_freq", options.validation_freq == 0),
    ];
    if let Some((name, _)) = zero.iter().find(|option| option.1) {
        return Err(Error::argument(format!("{name} must be 1 at least")));
    }
    if options.validation_epochs.iter().flatten().any(|&epoch| epoch == 0) {
        return Err(Error::argument("validation_epochs are counted from 1"));
    }
    match options.class_weight.iter().find(|(_, weight)| !weight.is_finite()) {
        Some((class, weight)) => {
            Err(Error::new(ErrorKind::NonFinite { what: format!("class_weight of class {class}, {}", Float(*weight)) }))
        }
        None => Ok(()),
    }
}

/// The rows of a batch on the host, from which those of each step are gathered. What was computed of other tensors
/// (scaled, cut, one-hot) is read here, once.
pub(super) async fn on_host<M: Model + ?Sized>(model: &M, mut batch: Batch) -> Result<Data> {
    let is_away = |tensor: &Tensor| tensor.node().is_ok_and(|(node, output)| node.value(output).host.is_none());
    let Batch { inputs, targets, sample_weights } = &mut batch;
    let away: Vec<_> =
        [inputs, targets, sample_weights].into_iter().flatten().filter(|tensor| is_away(tensor)).collect();
    if !away.is_empty() {
        let device = Work::new(model).await?.device;
        for tensor in away {
            let bits = tensor.read_bits(Some(&device)).await?;
            let (node, output) = tensor.node()?;
            *tensor = Tensor::from_bits(bits.into(), node.outputs()[output].clone(), node.place().clone());
        }
    }
    Data::new(batch)
}

/// What to train on, and what is held back to validate on.
async fn feeds<'d, M: Model + ?Sized>(
    model: &M,
    source: Source<'d>,
    options: &Fit<'_>,
) -> Result<(Feed<'d>, Option<Data>)> {
    let given = match options.validation_data.clone() {
        Some(batch) => Some(on_host(model, batch).await?),
        None => None,
    };
    let whole = match source {
        Source::Rows(rows) => on_host(model, rows).await?,
        Source::Stream(_) if options.steps_per_epoch.is_none() => {
            let what = "a stream of batches has no end that an epoch could stop at; give steps_per_epoch";
            return Err(Error::argument(what));
        }
        Source::Stream(_) if options.validation_split > 0.0 => {
            let what = "validation_split holds back the last rows, which a stream does not have; give validation_data";
            return Err(Error::argument(what));
        }
        Source::Stream(stream) => return Ok((Feed::stream(stream, &options.class_weight), given)),
    };
    let (data, held_back) = match (given, options.validation_split > 0.0) {
        (None, true) => whole.split(options.validation_split).map(|(data, rest)| (data, Some(rest)))?,
        (given, _) => (whole, given),
    };
    let data = if options.class_weight.is_empty() { data } else { data.class_weighted(&options.class_weight)? };
    Ok((Feed::rows(data, options.batch_size, options.shuffle.then_some(options.seed))?, held_back))
}

pub(super) async fn fit<M: Model + ?Sized>(model: &M, source: Source<'_>, options: Fit<'_>) -> Result<History> {
    ready_to_train(model)?;
    check(&options)?;
    let (mut feed, held_back) = feeds(model, source, &options).await?;
    let work = Work::new(model).await?;
    let steps = options.steps_per_epoch.or(feed.len()).unwrap_or_default();
    let due = |epoch: usize| match &options.validation_epochs {
        Some(epochs) => epochs.contains(&(epoch + 1)),
        None => (epoch + 1).is_multiple_of(options.validation_freq),
    };
    let fused = model.base().settings.steps_per_execution;

    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), options.epochs, steps);
    let order = feed.order(steps);
    let mut history = History { epochs: options.epochs, steps, ..History::default() };
    let keep = |history: &History| *lock(&model.base().history) = history.clone();
    keep(&history);

    each!(callbacks, on_train_begin, run);
    let resumed = run.resume.take().or(options.resume_from);
    let (mut first, mut skip) = (options.initial_epoch, 0);
    if let Some(checkpoint) = &resumed {
        let progress = checkpoint.progress();
        progress.map_or(Ok(()), |progress| progress.order.must_be(&order))?;
        resume::restore(&work, checkpoint, &mut callbacks)?;
        if let Some(progress) = progress {
            (first, skip, run.stop) = (progress.epoch, progress.step, progress.stop);
            run.scores = progress.scores.clone();
            history = History { epochs: options.epochs, steps, ..progress.history.clone() };
            keep(&history);
            if first < options.epochs && !run.stop {
                // Smaller batches take the order of long sums from the plan of the first one. So it is met here too.
                let met = feed.pass_over(first.saturating_sub(options.initial_epoch) * steps + skip)?;
                met.map_or(Ok(()), |batch| work.meet(&batch))?;
            }
        }
    }
    for epoch in first..options.epochs {
        if run.stop {
            break;
        }
        let mut ended = false;
        feed.seek(epoch * steps + skip)?;
        run.start_epoch(epoch);
        run.step = std::mem::take(&mut skip);
        match resumed.as_ref().filter(|_| run.step > 0) {
            None => {
                work.reset()?;
                each!(callbacks, on_epoch_begin, run);
            }
            Some(checkpoint) => {
                // The epoch began before the checkpoint was taken: what its hooks do must not be done twice.
                each!(callbacks, on_epoch_begin, run);
                resume::restore(&work, checkpoint, &mut callbacks)?;
            }
        }
        // Nothing will be seen of this epoch, so there will be nothing to report.
        if run.stop {
            break;
        }
        let in_epoch = InEpoch::begin(model.base());
        while run.step < steps && !run.stop {
            let group = feed.group(fused.min(steps - run.step))?;
            if group.is_empty() {
                log::warn!("the stream ended in step {} of epoch {}; the training ends", run.step + 1, epoch + 1);
                run.stop = true;
                ended = run.step == 0;
                break;
            }
            run.start_step();
            each!(callbacks, on_batch_begin, run);
            work.device.ready().await?;
            let logs = work.train(&group)?;
            run.finish_step(group.len(), logs);
            each!(callbacks, on_batch_end, run);
            if run.checkpoint && run.step < steps && !run.stop {
                let next = (epoch, run.step);
                resume::checkpoint(&work, &mut run, next, &order, &history, &mut callbacks).await?;
            }
        }
        if ended {
            // Nothing was seen of this epoch, so there is nothing to report.
            break;
        }
        let mut scores = run.read_logs().await?;
        drop(in_epoch);
        if let Some(validation) = held_back.as_ref().filter(|_| due(epoch)) {
            let batch_size = options.validation_batch_size.unwrap_or(options.batch_size);
            let mut feed = Feed::rows(validation.clone(), batch_size, None)?;
            let steps = at_most(options.validation_steps, &feed);
            let mut within = run.validation(steps.unwrap_or_default());
            test(&work, &mut feed, steps, &mut callbacks, &mut within).await?;
            run.stop |= within.stop;
            run.checkpoint |= within.checkpoint;
            for (name, value) in within.scores.iter() {
                scores.push(format!("val_{name}"), value);
            }
        }
        run.scores = scores;
        each!(callbacks, on_epoch_end, run);
        history.push(epoch, &run.scores);
        keep(&history);
        if run.checkpoint {
            resume::checkpoint(&work, &mut run, (epoch + 1, 0), &order, &history, &mut callbacks).await?;
        }
    }
    if !history.epoch.is_empty() {
        for network in work.networks() {
            network.adopt_averages(&work.device).await?;
        }
    }
    each!(callbacks, on_train_end, run);
    Ok(history)
}

/// Steps of an evaluation: as many as asked for, of those that there are, where either is known.
fn at_most(steps: Option<usize>, feed: &Feed<'_>) -> Option<usize> {
    match (steps, feed.len()) {
        (Some(steps), Some(all)) => Some(steps.min(all)),
        (steps, all) => steps.or(all),
    }
}

pub(super) async fn evaluate<M: Model + ?Sized>(
    model: &M,
    source: Source<'_>,
    options: Evaluate<'_>,
) -> Result<Scores> {
    if options.steps == Some(0) {
        return Err(Error::argument("steps must be 1 at least"));
    }
    let mut feed = match source {
        Source::Rows(rows) => Feed::rows(on_host(model, rows).await?, options.batch_size, None)?,
        Source::Stream(stream) => Feed::stream(stream, &[]),
    };
    let work = Work::new(model).await?;
    let steps = at_most(options.steps, &feed);
    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), 1, steps.unwrap_or_default());
    // A callback evaluates in the middle of an epoch, which goes on with what its metrics have seen.
    let of_epoch = {
        let store = at_home(&model.base().store)?;
        store.in_epoch.then(|| store.metrics.clone())
    };
    let tested = test(&work, &mut feed, steps, &mut callbacks, &mut run).await;
    if let Some(metrics) = of_epoch {
        at_home(&model.base().store)?.metrics = metrics;
    }
    tested?;
    Ok(run.scores)
}

/// Evaluates; the scores are left in `run`.
async fn test<M: Model + ?Sized>(
    work: &Work<'_, M>,
    feed: &mut Feed<'_>,
    steps: Option<usize>,
    callbacks: &mut [&mut dyn Callback],
    run: &mut Run<'_>,
) -> Result<()> {
    work.reset()?;
    each!(callbacks, on_test_begin, *run);
    while steps.is_none_or(|steps| run.step < steps) {
        if run.stop && !run.validating {
            break;
        }
        let group = feed.group(1)?;
        let Some(batch) = group.first() else { break };
        run.start_step();
        each!(callbacks, on_test_batch_begin, *run);
        work.device.ready().await?;
        let logs = work.test(batch)?;
        run.finish_step(1, logs);
        each!(callbacks, on_test_batch_end, *run);
    }
    if run.step == 0 && !run.stop {
        return Err(Error::data("the stream has no batches to evaluate"));
    }
    run.scores = run.read_logs().await?;
    each!(callbacks, on_test_end, *run);
    Ok(())
}

/// The outputs for all rows: of one output, or of all.
pub(super) async fn predict<M: Model + ?Sized>(
    model: &M,
    data: &Data,
    options: Predict<'_>,
    all: bool,
) -> Result<Vec<Tensor>> {
    let work = Work::new(model).await?;
    let order = Batches::new(data.len(), options.batch_size, Shuffle::Off)?;
    let mut bar = bar(options.verbose);
    let mut callbacks = with(options.callbacks, &mut bar);
    let mut run = Run::new(work.networks(), 1, order.len());
    each!(callbacks, on_predict_begin, run);
    // For each output its bits so far and what one batch of it is like.
    let mut done: Vec<(Vec<u32>, Spec)> = Vec::new();
    let (mut waiting, mut bytes): (Vec<Tensor>, u64) = (Vec::new(), 0);
    let mut seen = 0;
    for rows in &order {
        if run.stop {
            break;
        }
        run.start_step();
        each!(callbacks, on_predict_batch_begin, run);
        work.device.ready().await?;
        let outputs = work.predict(&data.rows(rows), all)?;
        done.resize_with(outputs.len(), || (Vec::new(), Spec::new([0], DType::F32)));
        for (output, (_, spec)) in outputs.iter().zip(&mut done) {
            let (node, at) = output.node()?;
            *spec = node.outputs()[at].clone();
            if spec.shape.first() != Some(&rows.len()) {
                let rows = rows.len();
                let what = format!("predict_step returned {spec} for {rows} rows; its first axis must be the rows");
                return Err(Error::state(what));
            }
            bytes += spec.bytes();
        }
        seen += rows.len();
        waiting.extend(outputs);
        run.finish_step(1, Logs::default());
        each!(callbacks, on_predict_batch_end, run);
        if waiting.len() >= TOGETHER || bytes >= TOGETHER_BYTES {
            gather(&work.device, &mut waiting, &mut done).await?;
            bytes = 0;
        }
    }
    gather(&work.device, &mut waiting, &mut done).await?;
    each!(callbacks, on_predict_end, run);
    // Stopped before the first batch there is nothing to know the outputs by.
    done.resize_with(done.len().max(1), || (Vec::new(), Spec::new([0], DType::F32)));
    let whole = |(bits, row): (Vec<u32>, Spec)| {
        let shape = [&[seen], &row.shape[1.min(row.shape.rank())..]].concat();
        Tensor::from_bits(bits.into(), Spec::new(shape, row.dtype), nowhere())
    };
    Ok(done.into_iter().map(whole).collect())
}

/// Reads the outputs that wait, each batch's in turn, to where they belong.
async fn gather(device: &Device, waiting: &mut Vec<Tensor>, done: &mut [(Vec<u32>, Spec)]) -> Result<()> {
    let each = done.len().max(1);
    for (at, bits) in read_all(device, waiting).await?.into_iter().enumerate() {
        done[at % each].0.extend(bits);
    }
    waiting.clear();
    Ok(())
}
