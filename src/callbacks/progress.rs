//! The callback that draws the bar.
//!
//! It never waits for a number: every now and then it asks for the newest logs and draws them when they have come.

use web_time::Instant;

use super::bar::{self, Bar, Style};
use super::callback::{Callback, Hook, Run};
use super::latest::Latest;
use crate::error::{Error, Result};
use crate::host::Out;
use crate::model::Scores;

/// Keras' progress bar, for one epoch after the other.
pub struct ProgressBar {
    style: Style,
    bar: Bar,
    started: Instant,
    latest: Latest,
}

fn failed(why: std::io::Error) -> Error {
    Error::Io { path: "standard output".into(), why: why.to_string() }
}

impl ProgressBar {
    /// A bar in a style, for so many steps, if it is known how many.
    pub fn new(style: Style, steps: impl Into<Option<usize>>) -> ProgressBar {
        ProgressBar { style, bar: Bar::new(style, steps.into()), started: Instant::now(), latest: Latest::default() }
    }

    fn update(&mut self, run: &Run<'_>) -> Result<()> {
        // Elsewhere than on a terminal nothing is drawn before the end, so no numbers are needed.
        let none = Scores::default();
        let scores = if self.style == Style::Terminal { self.latest.look(run)? } else { &none };
        self.bar.update(&mut Out::default(), run.step, scores.iter(), self.started.elapsed()).map_err(failed)
    }
}

impl Callback for ProgressBar {
    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        *self = ProgressBar::new(self.style, run.steps);
        crate::host::say(&bar::epoch(run.epoch, run.epochs));
        super::nothing()
    }

    fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move { self.update(run) })
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        Box::pin(async move {
            let elapsed = self.started.elapsed();
            self.bar.finish(&mut Out::default(), run.scores.iter(), elapsed).map_err(failed)
        })
    }
}
