//! Where `fit` and `evaluate` take batches from: tensors with all rows, or a [`Stream`] of ready batches.
//!
//! Deliberately absent: threads that read ahead, and shuffling of a stream, which only whoever makes it can do.

use super::DataOrder;
use crate::data::{Batch, Batches, Data, Shuffle};
use crate::error::{Error, Result};

/// What `fit` and `evaluate` are given: whatever a [`Batch`] is made from, for all rows at once, or a [`Stream`].
pub enum Source<'d> {
    /// All rows.
    Rows(Batch),
    /// Batch after batch.
    Stream(Stream<'d>),
}

/// Batches that come one after the other, for data that does not fit in memory or is made as it is needed.
///
/// ```
/// use wengert::prelude::*;
///
/// // Points of y = 2 x, drawn while training.
/// let batches = (0..).map(|step| {
///     let x = random::threefry::uniform(random::threefry::key(step), 16, -1.0, 1.0);
///     let y: Vec<f32> = x.iter().map(|x| 2.0 * x).collect();
///     Ok((Tensor::new(&x, [16, 1]), Tensor::new(&y, [16, 1])).into())
/// });
/// let mut model = Sequential::new([1]).add(Dense::new(1)).build()?;
/// model.compile(Compile { loss: "mse".into(), ..Compile::default() })?;
/// let options = Fit { steps_per_epoch: Some(10), epochs: 2, verbose: Verbose::Silent, ..Fit::default() };
/// let history = model.fit_blocking(Stream::new(batches), options)?;
/// assert_eq!(history.epoch, [0, 1]);
/// # Ok::<(), Error>(())
/// ```
pub struct Stream<'d>(Box<dyn Iterator<Item = Result<Batch>> + 'd>);

impl<'d> Stream<'d> {
    /// A stream of whatever an iterator returns. `fit` needs `steps_per_epoch` with it, takes so many batches for each
    /// epoch and goes on in the next where it stopped; if the iterator ends before, so does the training. An `Err` is
    /// returned by `fit`. A `fit` that goes on from a checkpoint is given the stream from its start, as the first was,
    /// and passes over the batches that were trained on.
    pub fn new(batches: impl IntoIterator<Item = Result<Batch>, IntoIter: 'd>) -> Stream<'d> {
        Stream(Box::new(batches.into_iter()))
    }
}

impl<B> From<B> for Source<'_>
where
    Batch: From<B>,
{
    fn from(rows: B) -> Self {
        Source::Rows(rows.into())
    }
}

impl<'d> From<Stream<'d>> for Source<'d> {
    fn from(stream: Stream<'d>) -> Source<'d> {
        Source::Stream(stream)
    }
}

/// Batches as a loop takes them.
pub(super) enum Feed<'d> {
    Rows(Rows),
    Stream {
        batches: Stream<'d>,
        /// Taken, and too unlike the others of its group.
        held: Option<Batch>,
        class_weight: Vec<(usize, f64)>,
    },
}

/// The batches of one pass over the data after the other.
pub(super) struct Rows {
    data: Data,
    batch_size: usize,
    /// The seed of the order, unless rows come in their own.
    seed: Option<u64>,
    pass: usize,
    order: Batches,
    next: usize,
}

fn drawn(seed: Option<u64>, pass: usize) -> Shuffle {
    seed.map_or(Shuffle::Off, |seed| Shuffle::On { seed, epoch: pass as u32 })
}

impl<'d> Feed<'d> {
    pub fn rows(data: Data, batch_size: usize, seed: Option<u64>) -> Result<Feed<'d>> {
        let order = Batches::new(data.len(), batch_size, drawn(seed, 0))?;
        Ok(Feed::Rows(Rows { data, batch_size, seed, pass: 0, order, next: 0 }))
    }

    pub fn stream(batches: Stream<'d>, class_weight: &[(usize, f64)]) -> Feed<'d> {
        Feed::Stream { batches, held: None, class_weight: class_weight.to_vec() }
    }

    /// Batches of a pass over the data, if that is known.
    pub fn len(&self) -> Option<usize> {
        match self {
            Feed::Rows(rows) => Some(rows.order.len()),
            Feed::Stream { .. } => None,
        }
    }

    /// Goes to a batch, counted from the first of the first pass; a stream stays where it is.
    pub fn seek(&mut self, batch: usize) -> Result<()> {
        match self {
            Feed::Rows(rows) => rows.seek(batch),
            Feed::Stream { .. } => Ok(()),
        }
    }

    /// What the order of rows depends on, in epochs of so many steps.
    pub fn order(&self, steps: usize) -> DataOrder {
        match self {
            Feed::Rows(Rows { data, batch_size, seed, .. }) => {
                DataOrder { rows: data.len(), batch_size: *batch_size, seed: *seed, steps }
            }
            Feed::Stream { .. } => DataOrder { steps, ..DataOrder::default() },
        }
    }

    /// Takes what a training that goes on has had of a stream, whose only order is that in which batches come. Returns a batch of
    /// the shapes that it met first.
    pub fn pass_over(&mut self, batches: usize) -> Result<Option<Batch>> {
        if let Feed::Rows(rows) = self {
            return Ok(rows.order.get(0).map(|first| rows.data.rows(first)));
        }
        let first = if batches > 0 { self.group(1)?.pop() } else { None };
        let Feed::Stream { batches: stream, .. } = self else { return Ok(first) };
        for taken in usize::from(first.is_some())..batches {
            let Some(batch) = stream.0.next() else {
                let what = format!("the stream ends after {taken} batches, the training to resume has had {batches}");
                return Err(Error::data(what));
            };
            batch?;
        }
        Ok(first)
    }

    /// Up to `count` batches of equal shapes; none if a stream has ended.
    pub fn group(&mut self, count: usize) -> Result<Vec<Batch>> {
        match self {
            Feed::Rows(rows) => rows.group(count),
            Feed::Stream { batches, held, class_weight } => {
                let mut group: Vec<Batch> = Vec::new();
                while group.len() < count {
                    let next = match held.take() {
                        Some(batch) => batch,
                        None => match batches.0.next() {
                            Some(batch) => checked(batch?, class_weight)?,
                            None => break,
                        },
                    };
                    if group.first().is_some_and(|first| !alike(first, &next)) {
                        *held = Some(next);
                        break;
                    }
                    group.push(next);
                }
                Ok(group)
            }
        }
    }
}

impl Rows {
    fn seek(&mut self, batch: usize) -> Result<()> {
        let (pass, next) = (batch / self.order.len(), batch % self.order.len());
        if pass != self.pass {
            self.order = Batches::new(self.data.len(), self.batch_size, drawn(self.seed, pass))?;
        }
        (self.pass, self.next) = (pass, next);
        Ok(())
    }

    /// From this pass or, if that is at its end, the next.
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

/// A batch of a stream, weighed by class if that was asked.
fn checked(batch: Batch, class_weight: &[(usize, f64)]) -> Result<Batch> {
    if !class_weight.is_empty() {
        let data = Data::new(batch)?.class_weighted(class_weight)?;
        return Ok(data.rows(&(0..data.len()).collect::<Vec<_>>()));
    }
    let rows = batch.size();
    let others = batch.targets.iter().chain(&batch.sample_weights).chain(&batch.inputs);
    match others.map(|tensor| tensor.ok().map(|tensor| tensor.dim(0))).find(|other| *other != Ok(rows)) {
        Some(Ok(other)) => {
            let what = format!("a batch of a stream has {rows} rows in its first input, but {other} in another tensor");
            Err(Error::data(what))
        }
        Some(Err(error)) => Err(error),
        None if rows == 0 => Err(Error::data("a batch of a stream has no rows")),
        None => Ok(batch),
    }
}

fn alike(a: &Batch, b: &Batch) -> bool {
    use crate::graph::Tree;
    let (a, b) = (a.leaves(), b.leaves());
    a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.spec() == b.spec())
}
