//! [`BackupAndRestore`]: a training that is killed goes on when it is started again.
//!
//! The values are copied on the device in the order of the queue, come back while training goes on, and are written by a
//! thread, so a save costs training no more than the copy. Deliberately absent: pages, which have neither files nor
//! threads; there a callback of one's own keeps the bytes of [`Callback::on_checkpoint`].

#![cfg(not(target_arch = "wasm32"))]

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use super::callback::{Callback, Hook, Run};
use crate::error::{Error, ErrorKind, Result};
use crate::io;
use crate::model::{Arrived, AskedCheckpoint, Checkpoint};

/// Keeps a checkpoint of the training in a file, and goes on from it if it is there when a training begins.
///
/// A `fit` that was killed, run again with the same arguments, continues with the very next batch after the newest
/// checkpoint and ends with the same bits as one that was not. The file is removed when the training has ended.
///
/// ```
/// use wengert::callbacks::BackupAndRestore;
///
/// let every_epoch = BackupAndRestore::new("backup.safetensors");
/// let every_500_steps = BackupAndRestore::new("backup.safetensors").save_freq(500).delete_checkpoint(false);
/// ```
///
/// A file is replaced as a whole, and the one before is kept beside it as `backup.safetensors.previous`; that one is
/// used, with a warning, if the newer one cannot be read. If neither can, training does not begin: the error names what
/// is wrong with the newer one. One training at a time may use a path: what killed writers left there is removed.
pub struct BackupAndRestore {
    path: PathBuf,
    save_freq: Option<usize>,
    delete: bool,
    /// Steps since the newest checkpoint was asked for, and the step of the epoch that this counts up to.
    since: usize,
    step: usize,
    due: bool,
    saving: Saving,
}

/// A checkpoint on its way to the disk.
#[derive(Default)]
enum Saving {
    #[default]
    Nothing,
    Reading(Box<AskedCheckpoint>),
    Writing(JoinHandle<Result<()>>),
}

impl BackupAndRestore {
    /// Saves to a file after every epoch.
    pub fn new(path: impl AsRef<Path>) -> BackupAndRestore {
        let path = path.as_ref().to_path_buf();
        BackupAndRestore { path, save_freq: None, delete: true, since: 0, step: 0, due: false, saving: Saving::Nothing }
    }

    /// Saves after every so many steps instead (at the end of the submission that has the step, where steps are fused).
    pub fn save_freq(mut self, steps: usize) -> Self {
        self.save_freq = Some(steps);
        self
    }

    /// Whether the file is removed when the training has ended, so that the next one starts anew; true unless set.
    pub fn delete_checkpoint(mut self, delete: bool) -> Self {
        self.delete = delete;
        self
    }

    /// The newest checkpoint that can be read; nothing if there is none.
    fn newest(&self) -> Result<Option<Checkpoint>> {
        let previous = io::previous(&self.path);
        let failed = match (self.path.exists(), previous.exists()) {
            (false, false) => return Ok(None),
            (false, true) => format!("{} is not there", self.path.display()),
            (true, _) => match Checkpoint::read(&self.path) {
                Ok(checkpoint) => return Ok(Some(checkpoint)),
                Err(error) if !previous.exists() => return Err(error),
                Err(error) => match Checkpoint::read(&previous) {
                    Ok(_) => error.to_string(),
                    Err(_) => return Err(error),
                },
            },
        };
        log::warn!("{failed}; training goes on from {}", previous.display());
        Checkpoint::read(&previous).map(Some)
    }

    /// Moves a save on as far as that goes without waiting, or to its end.
    async fn advance(&mut self, to_the_end: bool) -> Result<()> {
        loop {
            self.saving = match std::mem::take(&mut self.saving) {
                Saving::Nothing => return Ok(()),
                Saving::Reading(asked) if to_the_end => Saving::Writing(self.write(asked.arrive().await?)?),
                Saving::Reading(mut asked) => match asked.arrived()? {
                    Some(values) => Saving::Writing(self.write(values)?),
                    None => {
                        self.saving = Saving::Reading(asked);
                        return Ok(());
                    }
                },
                Saving::Writing(thread) if to_the_end || thread.is_finished() => {
                    joined(thread)?;
                    Saving::Nothing
                }
                writing => {
                    self.saving = writing;
                    return Ok(());
                }
            }
        }
    }

    fn write(&self, values: Arrived) -> Result<JoinHandle<Result<()>>> {
        let path = self.path.clone();
        let failed = |why: std::io::Error| {
            Error::new(ErrorKind::Io { path: self.path.display().to_string(), why: why.to_string() })
        };
        let thread = std::thread::Builder::new().name("checkpoint".into());
        thread.spawn(move || io::replace(&path, &values.into_bytes()?)).map_err(failed)
    }
}

fn joined(thread: JoinHandle<Result<()>>) -> Result<()> {
    let died = |_| Error::state("the thread that writes a checkpoint panicked");
    thread.join().map_err(died)?
}

impl Callback for BackupAndRestore {
    fn on_train_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if self.save_freq == Some(0) {
                return Err(Error::argument("save_freq is 1 step at least"));
            }
            // What a training that ended by an error had under way; with a device that is gone, that is gone too.
            match self.advance(true).await {
                Err(why) if matches!(why.kind(), ErrorKind::DeviceLost { .. }) => {
                    log::warn!("a checkpoint was lost: {why}")
                }
                advanced => advanced?,
            }
            (self.since, self.due) = (0, false);
            io::remove_partial(&self.path)?;
            if let Some(checkpoint) = self.newest()? {
                run.resume_from(checkpoint);
            }
            Ok(())
        })
    }

    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        self.step = run.step;
        super::nothing()
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.since += run.step - std::mem::replace(&mut self.step, run.step);
            if self.save_freq.is_some_and(|steps| self.since >= steps) {
                (self.since, self.due) = (0, true);
                run.checkpoint();
            }
            self.advance(false).await
        })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if self.save_freq.is_none() {
                self.due = true;
                run.checkpoint();
            }
            self.advance(false).await
        })
    }

    fn on_checkpoint<'a>(&'a mut self, checkpoint: &'a Checkpoint, _: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            if std::mem::take(&mut self.due) {
                // A disk slower than the frequency of saving sets the pace: nothing asked for is left out.
                self.advance(true).await?;
                self.saving = Saving::Reading(Box::new(checkpoint.ask()?));
            }
            Ok(())
        })
    }

    fn on_train_end<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            self.advance(true).await?;
            if self.delete {
                // The older one first: if this is all that happens, the newest is still there to say that the training ended.
                io::remove(io::previous(&self.path))?;
                io::remove(&self.path)?;
            }
            Ok(())
        })
    }
}

impl Drop for BackupAndRestore {
    fn drop(&mut self) {
        // A program that ends with its training must not take the writer with it.
        if let Saving::Writing(thread) = std::mem::take(&mut self.saving)
            && let Err(error) = joined(thread)
        {
            log::warn!("a checkpoint was not written: {error}");
        }
    }
}
