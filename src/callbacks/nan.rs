//! [`TerminateOnNaN`]: ends a training whose numbers are no numbers any more.
//!
//! Whether a number is finite is asked on the host, of its bits: shaders may assume that NaN does not exist.

use std::future::ready;

use super::callback::{Callback, Hook, Run, nothing};
use super::latest::Latest;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Scores;

/// Stops when a log or a score is a NaN or infinite. Which op made it is found with
/// [`debug_nans`](crate::model::Compile::debug_nans).
///
/// A step is never waited for unless [`every`](TerminateOnNaN::every) says so. Logs that have come by themselves are
/// looked at during an epoch, several times a second, and the scores at its end. Nothing slips through there: the loss
/// and most metrics are means since the epoch began, so after one NaN they stay NaN until its end.
#[derive(Default)]
pub struct TerminateOnNaN {
    every: Option<usize>,
    raise: bool,
    latest: Latest,
    looked: usize,
    found: Option<(usize, String)>,
}

impl TerminateOnNaN {
    /// Watches all logs.
    pub fn new() -> TerminateOnNaN {
        TerminateOnNaN::default()
    }

    /// Waits for every so many batches' logs and looks at them: 1 finds the very batch, and keeps the device from working
    /// ahead.
    pub fn every(mut self, batches: usize) -> Self {
        self.every = Some(batches.max(1));
        self
    }

    /// Returns an error from `fit` instead of ending it in order: no hook is called after that, so what other callbacks
    /// saved last stays.
    pub fn raise_error(mut self) -> Self {
        self.raise = true;
        self
    }

    /// The epoch, from 0, in which it was found, and the name of the log.
    pub fn found(&self) -> Option<(usize, &str)> {
        self.found.as_ref().map(|(epoch, name)| (*epoch, name.as_str()))
    }

    async fn look(&mut self, run: &mut Run<'_>) -> Result<()> {
        match self.every {
            None => {
                let name = not_finite(self.latest.look(run)?);
                self.note(name, run)
            }
            Some(every) if run.step / every > self.looked => {
                self.looked = run.step / every;
                let name = not_finite(&run.read_logs().await?);
                self.note(name, run)
            }
            Some(_) => Ok(()),
        }
    }

    fn note(&mut self, name: Option<String>, run: &mut Run<'_>) -> Result<()> {
        let Some(name) = name.filter(|_| !run.stop) else { return Ok(()) };
        let what = format!("{name} in epoch {}, after {} steps of it", run.epoch + 1, run.step);
        self.found = Some((run.epoch, name));
        if self.raise {
            return Err(Error::new(ErrorKind::NonFinite { what }));
        }
        log::warn!("not finite: {what}; training stops");
        run.stop = true;
        Ok(())
    }
}

fn not_finite(scores: &Scores) -> Option<String> {
    scores.iter().find(|(_, value)| !value.is_finite()).map(|(name, _)| name.to_string())
}

impl Callback for TerminateOnNaN {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        self.found = None;
        nothing()
    }

    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        // An epoch that goes on in its middle is past its first steps.
        (self.latest, self.looked) = (Latest::default(), self.every.map_or(0, |every| run.step / every));
        nothing()
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(self.look(run))
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let name = not_finite(&run.scores);
        let noted = self.note(name, run);
        Box::pin(ready(noted))
    }
}
