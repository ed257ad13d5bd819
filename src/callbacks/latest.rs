//! [`Latest`]: logs that are asked for now and then, and looked at when they have come.
//!
//! For callbacks that want numbers during an epoch and must not hold it up. Deliberately absent: waiting, and a read for
//! every step.

use web_time::{Duration, Instant};

use super::callback::Run;
use crate::error::Result;
use crate::model::Scores;
use crate::step::Asked;

/// How often numbers are asked for.
const EVERY: Duration = Duration::from_millis(150);

/// The newest logs that have arrived.
#[derive(Default)]
pub(super) struct Latest {
    when: Option<Instant>,
    asked: Option<Asked>,
    scores: Scores,
}

impl Latest {
    /// Looks whether an answer came, and asks again if it is time to: for the first logs at once.
    pub fn look(&mut self, run: &Run<'_>) -> Result<&Scores> {
        if let Some(asked) = &mut self.asked {
            if let Some(answer) = asked.look()? {
                self.scores = answer.into_iter().map(|(name, value)| (name, f64::from(value))).collect();
                self.asked = None;
            }
        } else if self.when.is_none_or(|when| when.elapsed() >= EVERY) {
            self.when = Some(Instant::now());
            self.asked = run.logs().ask()?;
        }
        Ok(&self.scores)
    }
}
