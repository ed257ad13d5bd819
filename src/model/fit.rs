//! The entry points: [`Train`], for every [`Model`].
//!
//! `fit` is one loop around replays of the recorded step: it gathers rows, submits, and waits only where the device
//! says that enough is queued; numbers come back when the bar wants them and at the end of an epoch. Every entry point
//! is async, because a browser must not block, and has a blocking twin natively. Deliberately absent: a second loop for
//! evaluation inside `fit`; validation is `evaluate`.

use super::compile::Compile;
use super::functional::{Functional, Session};
use super::history::{History, Scores};
use super::state::{Loan, lock};
use super::{Model, PredictState, TestState, TrainState};
use crate::callbacks::{Callback, ProgressBar, Run, Style};
use crate::data::{Batch, Batches, Data, Shuffle};
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Tensor, Tree, nowhere};
use crate::layers::Variables;
use crate::metrics::Metric;
use crate::step::{Logs, Step, assign_all};

/// How much `fit` and its kin write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Verbose {
    /// A bar that moves on a terminal, one line elsewhere.
    #[default]
    Auto,
    /// Nothing: Keras' 0.
    Silent,
    /// The bar, moving: Keras' 1.
    Bar,
    /// One line an epoch: Keras' 2.
    Line,
}

/// How to train. Take what differs: `Fit { epochs: 3, ..Default::default() }`.
pub struct Fit<'a> {
    /// Rows of a step; the last of an epoch may have fewer.
    pub batch_size: usize,
    /// Epoch to stop before, counted from 0.
    pub epochs: usize,
    /// Epoch to start with, for a training that goes on.
    pub initial_epoch: usize,
    /// What is written.
    pub verbose: Verbose,
    /// What else happens around epochs and steps, in this order.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// Evaluated at the end of an epoch.
    pub validation_data: Option<Batch>,
    /// The share of rows, from the end and before shuffling, that is held back as validation data.
    pub validation_split: f64,
    /// Rows of a validation step; that of a training step if absent.
    pub validation_batch_size: Option<usize>,
    /// Validate every so many epochs.
    pub validation_freq: usize,
    /// Whether each epoch takes the rows in an order of its own.
    pub shuffle: bool,
    /// What that order is drawn from, together with the epoch.
    pub seed: u64,
    /// Steps of an epoch, which then goes on through the rows where the last stopped; one pass if absent.
    pub steps_per_epoch: Option<usize>,
}

impl Default for Fit<'_> {
    fn default() -> Self {
        Fit {
            batch_size: 32,
            epochs: 1,
            initial_epoch: 0,
            verbose: Verbose::Auto,
            callbacks: Vec::new(),
            validation_data: None,
            validation_split: 0.0,
            validation_batch_size: None,
            validation_freq: 1,
            shuffle: true,
            seed: 0,
            steps_per_epoch: None,
        }
    }
}

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Evaluate {
    /// Rows of a step.
    pub batch_size: usize,
    /// What is written.
    pub verbose: Verbose,
}

impl Default for Evaluate {
    fn default() -> Evaluate {
        Evaluate { batch_size: 32, verbose: Verbose::Auto }
    }
}

/// How to predict.
#[derive(Clone, Copy, Debug)]
pub struct Predict {
    /// Rows of a step.
    pub batch_size: usize,
}

impl Default for Predict {
    fn default() -> Predict {
        Predict { batch_size: 32 }
    }
}

/// The entry points of every model.
#[allow(async_fn_in_trait)] // the futures are awaited where they are made, on one thread
pub trait Train: Model {
    /// Settles optimizer, loss and metrics. The optimizer and the metrics start over.
    ///
    /// # Errors
    /// [`Error::UnknownName`] lists the known names.
    fn compile(&mut self, options: Compile) -> Result<()> {
        self.base_mut().compile(options)
    }

    /// Trains. The model keeps its newest complete state on an error, and if the future is dropped.
    ///
    /// # Errors
    /// [`Error::NotCompiled`]; [`Error::Data`] for empty or uneven data; whatever the step returns.
    async fn fit(&mut self, data: impl Into<Batch>, options: Fit<'_>) -> Result<History> {
        fit(&*self, data.into(), options).await
    }

    /// The loss and the metrics over a data set.
    async fn evaluate(&self, data: impl Into<Batch>, options: Evaluate) -> Result<Scores> {
        let data = Data::new(data)?;
        evaluate(self, &data, options.batch_size, style(options.verbose)).await
    }

    /// The outputs for all rows, on the host.
    async fn predict(&self, x: impl Into<Batch>, options: Predict) -> Result<Tensor> {
        predict(self, &Data::new(x)?, options.batch_size).await
    }

    /// One update; the scores are those of the metrics since they were last reset.
    async fn train_on_batch(&mut self, batch: impl Into<Batch>) -> Result<Scores> {
        ready_to_train(&*self)?;
        self.base().device().await?;
        read(&train(&*self, &[batch.into()])?).await
    }

    /// One batch of evaluation; the scores are those of the metrics since they were last reset.
    async fn test_on_batch(&self, batch: impl Into<Batch>) -> Result<Scores> {
        self.base().device().await?;
        read(&test(self, batch.into())?).await
    }

    /// The outputs for one batch, on the host.
    async fn predict_on_batch(&self, x: impl Into<Batch>) -> Result<Tensor> {
        let data = Data::new(x)?;
        predict(self, &data, data.len()).await
    }

    /// Sets all metrics back to where they start.
    async fn reset_metrics(&self) -> Result<()> {
        let device = self.base().device().await?;
        reset(self, &device)
    }

    /// [`fit`](Train::fit), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn fit_blocking(&mut self, data: impl Into<Batch>, options: Fit<'_>) -> Result<History> {
        pollster::block_on(self.fit(data, options))
    }

    /// [`evaluate`](Train::evaluate), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn evaluate_blocking(&self, data: impl Into<Batch>, options: Evaluate) -> Result<Scores> {
        pollster::block_on(self.evaluate(data, options))
    }

    /// [`predict`](Train::predict), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn predict_blocking(&self, x: impl Into<Batch>, options: Predict) -> Result<Tensor> {
        pollster::block_on(self.predict(x, options))
    }
}

impl<M: Model + ?Sized> Train for M {}

/// A part of a mutex' content, put back when dropped: what runs meanwhile may look for it in vain but never lose it.
struct Lent<'m> {
    home: &'m Functional,
    session: Option<Session>,
}

impl<'m> Lent<'m> {
    fn take(home: &'m Functional) -> Result<Lent<'m>> {
        let session = lock(&home.session).take();
        match session {
            Some(session) => Ok(Lent { home, session: Some(session) }),
            None => Err(Error::State { what: "the model is running already".into() }),
        }
    }

    fn step(&mut self, which: fn(&mut Session) -> &mut Step) -> Result<&mut Step> {
        self.session.as_mut().map(which).ok_or(Error::State { what: "the model has no device".into() })
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        *lock(&self.home.session) = self.session.take();
    }
}

/// Changes with everything that makes another step of the same function.
fn generation<M: Model + ?Sized>(model: &M) -> u64 {
    model.networks().iter().map(|network| network.settings.generation).sum()
}

/// Replays the train step for each batch, in one submission.
fn train<M: Model + ?Sized>(model: &M, batches: &[Batch]) -> Result<Logs> {
    let metrics = model.metrics();
    let mut loan = Loan::take(model.networks(), &metrics)?;
    let mut lent = Lent::take(model.base())?;
    let f = |state: TrainState, batch: &Batch| {
        let (logs, state) = model.train_step(state, batch.clone())?;
        let logs = with_results(logs, &metrics, &state.3)?;
        Ok((logs, state))
    };
    lent.step(|session| &mut session.train)?.run_tagged(generation(model), &mut loan.state, batches, f)
}

/// Replays the test step.
fn test<M: Model + ?Sized>(model: &M, batch: Batch) -> Result<Logs> {
    let metrics = model.metrics();
    let mut loan = Loan::take(model.networks(), &metrics)?;
    let mut lent = Lent::take(model.base())?;
    let f = |state: TestState, batch: &Batch| {
        let (logs, state) = model.test_step(state, batch.clone())?;
        let logs = with_results(logs, &metrics, &state.2)?;
        Ok((logs, state))
    };
    let (trainable, non_trainable, _, trackers) = &mut loan.state;
    let mut state = (std::mem::take(trainable), std::mem::take(non_trainable), std::mem::take(trackers));
    let step = lent.step(|session| &mut session.test)?;
    let logs = step.run_tagged(generation(model), &mut state, &[batch], f);
    (*trainable, *non_trainable, *trackers) = state;
    logs
}

/// The metrics' results under their names, then whatever else the step logged: an epoch's scores are its metrics'.
fn with_results(logs: Logs, metrics: &[Metric], variables: &[Variables]) -> Result<Logs> {
    if metrics.len() != variables.len() {
        let what =
            format!("the step returned variables of {} metrics, the model has {}", variables.len(), metrics.len());
        return Err(Error::State { what });
    }
    let result =
        |(metric, variables): (&Metric, &Variables)| (metric.name().to_string(), metric.stateless_result(variables));
    let mut all: Logs = metrics.iter().zip(variables).map(result).collect();
    for (name, value) in logs.iter().filter(|(name, _)| metrics.iter().all(|metric| metric.name() != *name)) {
        all.push(name, value.clone());
    }
    Ok(all)
}

async fn read(logs: &Logs) -> Result<Scores> {
    Ok(logs.read().await?.into_iter().map(|(name, value)| (name, f64::from(value))).collect())
}

/// Sets the metrics' variables to their initial values, in place where they lie on the device.
fn reset<M: Model + ?Sized>(model: &M, device: &Device) -> Result<()> {
    let metrics = model.metrics();
    let loan = Loan::take(model.networks(), &metrics)?;
    let targets = loan.state.3.iter().flatten().cloned();
    let values = metrics.iter().flat_map(Metric::initial);
    assign_all(device, &targets.zip(values).collect::<Vec<_>>())
}

fn ready_to_train<M: Model + ?Sized>(model: &M) -> Result<()> {
    let compiled = model.networks().iter().all(|network| network.settings.compiled);
    if compiled { Ok(()) } else { Err(Error::NotCompiled { needs: "an optimizer" }) }
}

fn style(verbose: Verbose) -> Option<Style> {
    match verbose {
        Verbose::Silent => None,
        Verbose::Bar => Some(Style::Terminal),
        Verbose::Line => Some(Style::Brief),
        Verbose::Auto if crate::host::is_terminal() => Some(Style::Terminal),
        Verbose::Auto => Some(Style::Plain),
    }
}

/// The batches of one epoch after the other. With a number of steps given, an epoch goes on where the last stopped.
struct Rows<'a> {
    data: &'a Data,
    options: (usize, bool, u64),
    pass: usize,
    order: Batches,
    next: usize,
}

impl<'a> Rows<'a> {
    fn new(data: &'a Data, batch_size: usize, shuffle: bool, seed: u64, pass: usize) -> Result<Rows<'a>> {
        let drawn = if shuffle { Shuffle::On { seed, epoch: pass as u32 } } else { Shuffle::Off };
        let order = Batches::new(data.len(), batch_size, drawn)?;
        Ok(Rows { data, options: (batch_size, shuffle, seed), pass, order, next: 0 })
    }

    fn turn(&mut self, pass: usize) -> Result<()> {
        let (batch_size, shuffle, seed) = self.options;
        *self = Rows::new(self.data, batch_size, shuffle, seed, pass)?;
        Ok(())
    }

    /// Up to `count` batches of equal size, from this pass or, if that is at its end, the next.
    fn group(&mut self, count: usize) -> Result<Vec<Batch>> {
        if self.next == self.order.len() {
            self.turn(self.pass + 1)?;
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

async fn fit<M: Model + ?Sized>(model: &M, data: Batch, options: Fit<'_>) -> Result<History> {
    ready_to_train(model)?;
    if !(0.0..1.0).contains(&options.validation_split) {
        let what = format!("validation_split is a share of the rows, 0 to below 1, not {}", options.validation_split);
        return Err(Error::Argument { what });
    }
    let whole = Data::new(data)?;
    let (data, held_back) = match (&options.validation_data, options.validation_split > 0.0) {
        (Some(validation), _) => (whole, Some(Data::new(validation.clone())?)),
        (None, true) => whole.split(options.validation_split).map(|(data, rest)| (data, Some(rest)))?,
        (None, false) => (whole, None),
    };
    let device = model.base().device().await?;
    let mut rows = Rows::new(&data, options.batch_size, options.shuffle, options.seed, options.initial_epoch)?;
    let steps = options.steps_per_epoch.unwrap_or(rows.order.len());
    let fused = model.base().settings.steps_per_execution;

    let mut bar = style(options.verbose).map(ProgressBar::new);
    let mut callbacks: Vec<&mut dyn Callback> = Vec::new();
    callbacks.extend(bar.as_mut().map(|bar| bar as &mut dyn Callback));
    callbacks.extend(options.callbacks);
    let mut run = Run::new(model.networks(), options.epochs, steps);
    let mut history = History::default();
    macro_rules! each {
        ($hook:ident) => {
            for callback in &mut callbacks {
                callback.$hook(&mut run).await?;
            }
        };
    }

    each!(on_train_begin);
    for epoch in options.initial_epoch..options.epochs {
        if options.steps_per_epoch.is_none() && rows.pass != epoch {
            rows.turn(epoch)?;
        }
        reset(model, &device)?;
        run.start_epoch(epoch);
        each!(on_epoch_begin);
        while run.step < steps && !run.stop {
            each!(on_batch_begin);
            device.ready().await?;
            let group = rows.group(fused.min(steps - run.step))?;
            let logs = train(model, &group)?;
            run.finish_step(group.len(), logs);
            each!(on_batch_end);
        }
        let mut scores = run.read_logs().await?;
        if let Some(validation) = held_back.as_ref().filter(|_| (epoch + 1) % options.validation_freq.max(1) == 0) {
            let batch_size = options.validation_batch_size.unwrap_or(options.batch_size);
            for (name, value) in evaluate(model, validation, batch_size, None).await?.iter() {
                scores.push(format!("val_{name}"), value);
            }
        }
        history.push(epoch, &scores);
        run.scores = scores;
        each!(on_epoch_end);
        if run.stop {
            break;
        }
    }
    each!(on_train_end);
    Ok(history)
}

async fn evaluate<M: Model + ?Sized>(
    model: &M,
    data: &Data,
    batch_size: usize,
    style: Option<Style>,
) -> Result<Scores> {
    let device = model.base().device().await?;
    reset(model, &device)?;
    let order = Batches::new(data.len(), batch_size, Shuffle::Off)?;
    let mut bar = style.map(ProgressBar::new);
    let mut run = Run::new(model.networks(), 1, order.len());
    for rows in &order {
        device.ready().await?;
        let logs = test(model, data.rows(rows))?;
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

async fn predict<M: Model + ?Sized>(model: &M, data: &Data, batch_size: usize) -> Result<Tensor> {
    let device = model.base().device().await?;
    let mut bits: Vec<u32> = Vec::new();
    let mut row: Option<Spec> = None;
    for rows in &Batches::new(data.len(), batch_size, Shuffle::Off)? {
        device.ready().await?;
        let output = predict_batch(model, data.rows(rows), &device)?;
        row = output.spec().cloned();
        bits.extend(output.read_bits(Some(&device)).await?);
    }
    let Some(Spec { shape, dtype }) = row else { return Ok(Tensor::zeros([0])) };
    let shape = [&[data.len()], &shape[1.min(shape.rank())..]].concat();
    Ok(Tensor::from_bits(bits.into(), Spec::new(shape, dtype), nowhere()))
}

/// Replays the predict step. The outputs are a part of the state that each run overwrites.
fn predict_batch<M: Model + ?Sized>(model: &M, batch: Batch, device: &Device) -> Result<Tensor> {
    let mut loan = Loan::take(model.networks(), &model.metrics())?;
    let mut lent = Lent::take(model.base())?;
    // The output's shape is found by recording, on the same stand-ins a step would use.
    let spec = {
        let stand_in = |t: &Tensor| match t.spec() {
            Some(spec) => Tensor::placeholder(spec.clone(), nowhere()),
            None => t.clone(),
        };
        let state: PredictState = (loan.state.0.map(&mut { stand_in }), loan.state.1.map(&mut { stand_in }));
        let output = model.predict_step(state, batch.map(&mut { stand_in }))?;
        let (node, index) = output.node()?;
        node.outputs()[index].clone()
    };
    let empty = Tensor::from_bits(vec![0; spec.shape.numel()].into(), spec, nowhere()).to(device)?;
    let (trainable, non_trainable, ..) = &mut loan.state;
    let mut state = (std::mem::take(trainable), std::mem::take(non_trainable), empty);
    let f = |(trainable, non_trainable, _): (Vec<Tensor>, Vec<Tensor>, Tensor), batch: &Batch| {
        let output = model.predict_step((trainable.clone(), non_trainable.clone()), batch.clone())?;
        Ok((Logs::default(), (trainable, non_trainable, output)))
    };
    let step = lent.step(|session| &mut session.predict)?;
    let ran = step.run_tagged(generation(model), &mut state, &[batch], f);
    let output = state.2;
    (*trainable, *non_trainable) = (state.0, state.1);
    ran.map(|_| output)
}
