//! The entry points: [`Train`], for every [`Model`].
//!
//! Each is async, because a browser must not block, and the usual ones have a blocking twin natively. Deliberately
//! absent: a way to override one; what a model may change are the steps.

use super::fit;
use super::options::{Compile, Evaluate, Fit, Predict, Verbose};
use super::source::Source;
use super::state::NetworkState;
use super::work::{Work, ready_to_train};
use super::{Checkpoint, History, Model, Scores, TrainState, outputs};
use crate::data::Batch;
use crate::error::{Error, Result};
use crate::graph::Tensor;
use crate::layers::Variables;
use crate::plan::Memory;
use crate::step::{Logs, Tuned};

/// The entry points of every model.
#[allow(async_fn_in_trait)] // the futures are awaited where they are made, on one thread
pub trait Train: Model {
    /// Settles optimizer, loss and metrics of the first network. The optimizer and the metrics start over. Other
    /// networks of a model are compiled by themselves, each with an optimizer of its own.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownName`](crate::error::ErrorKind::UnknownName) lists the known names. What was compiled before stays then.
    fn compile(&mut self, options: Compile) -> Result<()> {
        self.base_mut().compile(options)
    }

    /// Trains, on all rows of tensors, `(&x, &y)`, or on a [`Stream`](super::Stream) of batches. Tensors computed of
    /// others, `(&x / 255.0, y.one_hot(10))`, are computed once. The model keeps its newest complete state on an error,
    /// and if the future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::NotCompiled`](crate::error::ErrorKind::NotCompiled); [`ErrorKind::Data`](crate::error::ErrorKind::Data) for empty or uneven data; [`ErrorKind::State`](crate::error::ErrorKind::State) if layers were frozen since
    /// `compile`; whatever a step or a callback returns.
    async fn fit<'d>(&mut self, data: impl Into<Source<'d>>, options: Fit<'_>) -> Result<History> {
        fit::fit(&*self, data.into(), options).await
    }

    /// The loss and the metrics over a data set. The metrics start over.
    async fn evaluate<'d>(&self, data: impl Into<Source<'d>>, options: Evaluate<'_>) -> Result<Scores> {
        fit::evaluate(self, data.into(), options).await
    }

    /// The outputs for all rows, on the host, of a model with one output.
    async fn predict(&self, x: impl Into<Batch>, options: Predict<'_>) -> Result<Tensor> {
        only(fit::predict(self, &fit::on_host(self, x.into()).await?, options, false).await?)
    }

    /// The outputs for all rows, on the host, in the order of the network's outputs.
    async fn predict_all(&self, x: impl Into<Batch>, options: Predict<'_>) -> Result<Vec<Tensor>> {
        fit::predict(self, &fit::on_host(self, x.into()).await?, options, true).await
    }

    /// One update; the scores are those of the metrics since they were last reset.
    async fn train_on_batch(&mut self, batch: impl Into<Batch>) -> Result<Scores> {
        ready_to_train(&*self)?;
        fit::read(&Work::new(&*self).await?.train(&[batch.into()])?).await
    }

    /// One batch of evaluation; the scores are those of the metrics since they were last reset.
    async fn test_on_batch(&self, batch: impl Into<Batch>) -> Result<Scores> {
        fit::read(&Work::new(self).await?.test(&batch.into())?).await
    }

    /// The outputs for one batch, on the host.
    async fn predict_on_batch(&self, x: impl Into<Batch>) -> Result<Tensor> {
        let data = fit::on_host(self, x.into()).await?;
        let options = Predict { batch_size: data.len(), verbose: Verbose::Silent, ..Predict::default() };
        only(fit::predict(self, &data, options, false).await?)
    }

    /// The device memory that training on batches like this one takes, known before anything of it is allocated: a way to
    /// ask whether a model or a batch fits. Of the batch only shapes and dtypes count.
    ///
    /// # Errors
    /// [`ErrorKind::NotCompiled`](crate::error::ErrorKind::NotCompiled), and those of the train step.
    async fn memory(&self, batch: impl Into<Batch>) -> Result<Memory> {
        ready_to_train(self)?;
        Work::new(self).await?.memory(&batch.into())
    }

    /// Tries every variant of the products of the train step on batches like this one, and takes the fastest from now on, in
    /// later processes too: [`Step::tune`](crate::step::Step::tune). Never needed. Of the batch only shapes and dtypes count.
    ///
    /// # Errors
    /// [`ErrorKind::NotCompiled`](crate::error::ErrorKind::NotCompiled), and those of `Step::tune`.
    async fn tune(&self, batch: impl Into<Batch>) -> Result<Vec<Tuned>> {
        ready_to_train(self)?;
        Work::new(self).await?.tune(&batch.into()).await
    }

    /// Sets all metrics back to where they start.
    async fn reset_metrics(&self) -> Result<()> {
        Work::new(self).await?.reset()
    }

    /// The whole state of training as it is now: networks, optimizers and metrics. The values stay on the device until
    /// somebody asks for the bytes.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::error::ErrorKind::State) inside a step.
    async fn checkpoint(&self) -> Result<Checkpoint> {
        Work::new(self).await?.checkpoint(None, Vec::new())
    }

    /// Sets networks, optimizers and metrics to those of a checkpoint. Where a `fit` is to go on in the middle, give it
    /// the checkpoint as [`resume_from`](Fit::resume_from) instead.
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::error::ErrorKind::State) with what is missing, unexpected or of another shape. Nothing is changed then.
    async fn restore(&mut self, checkpoint: &Checkpoint) -> Result<()> {
        Work::new(&*self).await?.restore(checkpoint)
    }

    /// Writes a [`checkpoint`](Train::checkpoint) to a file, whole or not at all; the file of before is kept beside it.
    /// Weights alone, for using a model, are [`save_weights`](super::Functional::save_weights).
    #[cfg(not(target_arch = "wasm32"))]
    async fn save(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        self.checkpoint().await?.write(path).await
    }

    /// Reads what [`save`](Train::save) or a training wrote. The model is made and compiled as the saved one was; a
    /// `fit` that follows, with [`initial_epoch`](Fit::initial_epoch), computes what it would have computed then.
    ///
    /// # Errors
    /// Those of [`Checkpoint::read`] and [`restore`](Train::restore).
    #[cfg(not(target_arch = "wasm32"))]
    async fn load(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        self.restore(&Checkpoint::read(path)?).await
    }

    /// Puts tensors that go by name into the order of the network's inputs and outputs. Outputs without sample weights
    /// of their own weigh 1 if any has some.
    ///
    /// ```
    /// use wengert::prelude::*;
    ///
    /// let (height, width) = (Input([1]).named("height"), Input([1]).named("width"));
    /// let area = Dense::new(1).named("area").on(&Concatenate::default().on([&height, &width]));
    /// let model = Functional::new(&[height, width], &[area])?;
    /// let x = Tensor::ones([4, 1]);
    /// let batch = model.by_name(&[("width", &x), ("height", &x)], &[("area", &x)], &[])?;
    /// assert_eq!((batch.inputs.len(), batch.targets.len()), (2, 1));
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Argument`](crate::error::ErrorKind::Argument) for a name that there is not, one that occurs twice, and an input that is missing.
    fn by_name(
        &self,
        inputs: &[(&str, &Tensor)],
        targets: &[(&str, &Tensor)],
        sample_weights: &[(&str, &Tensor)],
    ) -> Result<Batch> {
        outputs::by_name(self.base(), inputs, targets, sample_weights)
    }

    /// What the default steps do with the metrics: the tracker of the loss and those of the outputs' losses are updated
    /// with what [`compute_losses`](Model::compute_losses) returned, weighed by the rows of the batch; all others with
    /// targets and predictions of their output. Returns their results and the new variables.
    ///
    /// # Errors
    /// [`ErrorKind::Data`](crate::error::ErrorKind::Data) if a metric needs a target that the batch does not have.
    fn update_metrics(
        &self,
        metrics: Vec<Variables>,
        batch: &Batch,
        (loss, each): (&Tensor, &[Tensor]),
        y_pred: &[Tensor],
    ) -> Result<(Logs, Vec<Variables>)> {
        outputs::update_metrics(self, metrics, batch, (loss, each), y_pred)
    }

    /// Takes a train state apart: the variables of each network and its optimizer, in the order of
    /// [`networks`](Model::networks), and those of the metrics. [`NetworkState::join`] puts it together again.
    ///
    /// ```
    /// # use wengert::prelude::*;
    /// # struct Gan { generator: Functional, discriminator: Functional }
    /// # impl Model for Gan {
    /// #     fn base(&self) -> &Functional { &self.generator }
    /// #     fn base_mut(&mut self) -> &mut Functional { &mut self.generator }
    /// fn networks(&self) -> Vec<&Functional> {
    ///     vec![&self.generator, &self.discriminator]
    /// }
    ///
    /// fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
    ///     let ([generator, discriminator], metrics) = self.split(state)?;
    ///     // Losses and gradients as ever, then for each of both:
    ///     // let generator = generator.update(self.generator.optimizer(), &gradients, non_trainable)?;
    ///     Ok((Logs::default(), NetworkState::join([generator, discriminator], metrics)))
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::State`](crate::error::ErrorKind::State) if there is another number of networks than asked for.
    fn split<const N: usize>(&self, state: TrainState) -> Result<([NetworkState; N], Vec<Variables>)> {
        let networks = self.networks();
        let (trainable, non_trainable, optimizer, metrics) = state;
        let (mut trainable, mut non_trainable) = (trainable.into_iter(), non_trainable.into_iter());
        let mut optimizers = optimizer.into_iter();
        let part = |network: &&_| {
            let (own, fixed) = super::Functional::counts(network);
            NetworkState {
                trainable: trainable.by_ref().take(own).collect(),
                non_trainable: non_trainable.by_ref().take(fixed).collect(),
                optimizer: optimizers.next().unwrap_or_default(),
            }
        };
        let parts: Vec<NetworkState> = networks.iter().map(part).collect();
        let parts = parts.try_into().map_err(|parts: Vec<_>| {
            Error::state(format!("the model has {} networks, its state was split for {N}", parts.len()))
        })?;
        Ok((parts, metrics))
    }

    /// [`save`](Train::save), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn save_blocking(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        pollster::block_on(self.save(path))
    }

    /// [`load`](Train::load), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn load_blocking(&mut self, path: impl AsRef<std::path::Path>) -> Result<()> {
        pollster::block_on(self.load(path))
    }

    /// [`fit`](Train::fit), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn fit_blocking<'d>(&mut self, data: impl Into<Source<'d>>, options: Fit<'_>) -> Result<History> {
        pollster::block_on(self.fit(data, options))
    }

    /// [`evaluate`](Train::evaluate), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn evaluate_blocking<'d>(&self, data: impl Into<Source<'d>>, options: Evaluate<'_>) -> Result<Scores> {
        pollster::block_on(self.evaluate(data, options))
    }

    /// [`predict`](Train::predict), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    fn predict_blocking(&self, x: impl Into<Batch>, options: Predict<'_>) -> Result<Tensor> {
        pollster::block_on(self.predict(x, options))
    }
}

/// The predictions of a model with one output, which `predict_step` sees to.
fn only(mut all: Vec<Tensor>) -> Result<Tensor> {
    all.pop().ok_or_else(|| Error::state("the predict step returned nothing"))
}

impl<M: Model + ?Sized> Train for M {}
