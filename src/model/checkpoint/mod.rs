//! [`Checkpoint`]: a whole training at one moment, as one safetensors file.
//!
//! It has everything that the next step depends on: weights, non-trainable variables (random counters among them),
//! optimizer and metric variables, where in which order of the data the training stands, what callbacks remember, and
//! the history so far. A training that goes on from it, in another process too, computes the same bits as one that was
//! never interrupted. Deliberately absent: the architecture and the options of `compile` and `fit`, which the program
//! gives again; and the data, of which only the order is kept.

mod text;
mod whole;

use super::crc::{Crc, ISO};
use super::tensors::{self, File};
use super::{History, Scores};
use crate::callbacks::CallbackState;
use crate::error::{Error, ErrorKind, Result};
use crate::graph::{Spec, Tensor};
use crate::read::{AskedAll, ask_all};
use crate::sort::sort_by;
use text::Facts;
pub(super) use whole::shortened;

/// The entry of a file's metadata that makes it a checkpoint.
const KEY: &str = "wengert.checkpoint";

/// A training at one moment.
///
/// The tensors of one that was just taken lie on the device and keep their values while the training goes on.
///
/// ```no_run
/// use wengert::prelude::*;
/// # fn resume(mut model: Functional, x: Tensor, y: Tensor) -> Result<()> {
/// let checkpoint = Checkpoint::read("training.safetensors")?;
/// model.fit_blocking((&x, &y), Fit { epochs: 10, resume_from: Some(checkpoint), ..Fit::default() })?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// "weights/0/dense/kernel", "optimizer/0/dense/kernel/momentum", "metrics/0/loss/0"; the numbers count networks
    /// and metrics.
    tensors: Vec<(String, Tensor)>,
    progress: Option<Progress>,
    callbacks: Vec<CallbackState>,
}

/// Where a training stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The epoch that goes on or comes next, from 0.
    pub epoch: usize,
    /// Steps of that epoch that were taken.
    pub step: usize,
    /// Whether somebody has ended the training.
    pub stop: bool,
    /// Which rows the next step takes, together with epoch and step.
    pub order: DataOrder,
    /// The epochs so far.
    pub history: History,
    /// The scores of the newest complete epoch.
    pub scores: Scores,
}

/// What the order of a training's rows depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataOrder {
    /// Rows to train on, without those held back; 0 for a stream.
    pub rows: usize,
    /// Rows of a step; 0 for a stream.
    pub batch_size: usize,
    /// What the order is drawn from, unless rows come in their own.
    pub seed: Option<u64>,
    /// Steps of an epoch.
    pub steps: usize,
}

impl DataOrder {
    /// An error where the two would not take the same rows.
    pub(super) fn must_be(&self, now: &DataOrder) -> Result<()> {
        let seed = |order: &DataOrder| order.seed.map_or("none, unshuffled".into(), |seed| seed.to_string());
        let rows = |order: &DataOrder| if order.rows == 0 { "of a stream".into() } else { order.rows.to_string() };
        let facts = [
            ("rows", rows(self), rows(now)),
            ("batch_size", self.batch_size.to_string(), now.batch_size.to_string()),
            ("seed", seed(self), seed(now)),
            ("steps_per_epoch", self.steps.to_string(), now.steps.to_string()),
        ];
        match facts.iter().find(|(_, then, now)| then != now) {
            Some((name, then, now)) => {
                let what = format!("the checkpoint was taken with {name} {then}, the training to resume has {now}");
                Err(Error::state(format!("{what}; give the same, or load the checkpoint and start a fit anew")))
            }
            None => Ok(()),
        }
    }
}

impl Checkpoint {
    /// The variables, by name: those of the networks ("weights/0/dense/kernel"), of the optimizers
    /// ("optimizer/0/iteration") and of the metrics ("metrics/0/loss/0").
    pub fn tensors(&self) -> &[(String, Tensor)] {
        &self.tensors
    }

    /// Where the training stood; nothing if it was taken outside of `fit`.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// What callbacks remembered.
    pub fn callbacks(&self) -> &[CallbackState] {
        &self.callbacks
    }

    /// The bytes of the file: what a page keeps, which has no files.
    pub async fn to_bytes(&self) -> Result<Vec<u8>> {
        self.ask()?.wait().await
    }

    /// Asks for the values without waiting. The device copies them now, and nothing that is submitted later changes
    /// what comes, so training goes on meanwhile and the checkpoint may be dropped.
    pub fn ask(&self) -> Result<AskedCheckpoint> {
        let mut all = self.tensors.clone();
        for (index, callback) in self.callbacks.iter().enumerate() {
            let named = |(name, tensor): &(String, Tensor)| (format!("callbacks/{index}/{name}"), tensor.clone());
            all.extend(callback.tensors.iter().map(named));
        }
        sort_by(&mut all, |a, b| a.0.cmp(&b.0));
        if let Some(pair) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Error::state(format!("two variables are called {}", pair[0].0)));
        }
        let (names, values): (Vec<String>, Vec<Tensor>) = all.into_iter().unzip();
        let specs = values.iter().map(|t| Ok(Spec::new(t.ok()?.shape(), t.dtype()))).collect::<Result<_>>()?;
        let callbacks = self.callbacks.iter().map(|state| CallbackState { tensors: Vec::new(), ..state.clone() });
        let facts = Facts { progress: self.progress.clone(), callbacks: callbacks.collect(), crc: 0 };
        Ok(AskedCheckpoint { names, specs, facts, asked: ask_all(&values)? })
    }

    /// A checkpoint of the bytes of a file.
    ///
    /// # Errors
    /// [`ErrorKind::Format`] names what is wrong: truncated, no safetensors file, one without a training in it, of another
    /// version, or damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Checkpoint> {
        Checkpoint::parse(bytes, "the checkpoint")
    }

    fn parse(bytes: &[u8], what: &str) -> Result<Checkpoint> {
        let error = |why: String| Error::new(ErrorKind::Format { what: what.into(), why });
        let file = File::read(bytes, what)?;
        let Some(text) = file.metadata(KEY) else {
            let why = "it is a safetensors file, but no checkpoint of a training; weights are loaded by load_weights";
            return Err(error(why.into()));
        };
        let Facts { progress, mut callbacks, crc } = Facts::parse(text).map_err(error)?;
        let (mut tensors, mut sum) = (Vec::new(), Crc::new(ISO));
        for view in file.tensors() {
            let name = view.name();
            let Some(tensor) = tensors::exact(&view) else {
                return Err(error(format!("{name} is {}, which no variable is", view.describe())));
            };
            sum.update(view.data());
            let Some((index, own)) = name.strip_prefix("callbacks/").and_then(|rest| rest.split_once('/')) else {
                tensors.push((name.to_string(), tensor));
                continue;
            };
            match index.parse::<usize>().ok().and_then(|index| callbacks.get_mut(index)) {
                Some(callback) => callback.tensors.push((own.to_string(), tensor)),
                None => return Err(error(format!("{name} belongs to no callback"))),
            }
        }
        if sum.sum() != crc {
            let why = format!("it is damaged: the check sum of its tensors is {:08x}, not {crc:08x}", sum.sum());
            return Err(error(why));
        }
        Ok(Checkpoint { tensors, progress, callbacks })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]; those of [`from_bytes`](Checkpoint::from_bytes), with the path.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn read(path: impl AsRef<std::path::Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        Checkpoint::parse(&crate::io::read(path)?, &path.display().to_string())
    }

    /// Writes a file, whole or not at all. The one of before is kept beside it, as [`io::previous`](crate::io::previous).
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn write(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        crate::io::replace(path, &self.to_bytes().await?)
    }
}

/// A checkpoint whose values are on their way from the device.
pub struct AskedCheckpoint {
    names: Vec<String>,
    specs: Vec<Spec>,
    facts: Facts,
    asked: AskedAll,
}

impl AskedCheckpoint {
    /// Waits for the bytes of the file.
    pub async fn wait(self) -> Result<Vec<u8>> {
        self.arrive().await?.into_bytes()
    }

    /// The bytes of the file if the values have come by now; once. Never waits.
    pub fn look(&mut self) -> Result<Option<Vec<u8>>> {
        self.arrived()?.map(Arrived::into_bytes).transpose()
    }

    /// Waits for the values.
    pub(crate) async fn arrive(self) -> Result<Arrived> {
        let AskedCheckpoint { names, specs, facts, asked } = self;
        Ok(Arrived { names, specs, facts, bits: asked.wait().await? })
    }

    /// The values if they have come by now; once. Never waits.
    pub(crate) fn arrived(&mut self) -> Result<Option<Arrived>> {
        let Some(bits) = self.asked.look()? else { return Ok(None) };
        let (names, specs) = (std::mem::take(&mut self.names), std::mem::take(&mut self.specs));
        Ok(Some(Arrived { names, specs, facts: std::mem::take(&mut self.facts), bits }))
    }
}

/// A checkpoint whose values have come. Making the file of them takes time that another thread may have.
pub(crate) struct Arrived {
    /// Sorted, as the check sum wants them.
    names: Vec<String>,
    specs: Vec<Spec>,
    facts: Facts,
    bits: Vec<Vec<u32>>,
}

impl Arrived {
    pub fn into_bytes(mut self) -> Result<Vec<u8>> {
        let tensors = self.names.into_iter().zip(self.specs).zip(self.bits);
        let all: Vec<_> = tensors.map(|((name, spec), bits)| (name, spec, bits)).collect();
        self.facts.crc = tensors::crc(&all);
        Ok(tensors::write(&all, Some((KEY, self.facts.to_text()))))
    }
}
