//! The callback that draws the bar.
//!
//! It never waits for a number: every now and then it asks for the newest logs and draws them when they have come.

use std::future::ready;

use web_time::Instant;

use super::bar::{self, Bar, Style};
use super::callback::{Callback, Hook, Run};
use super::latest::Latest;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Out;
use crate::model::Scores;

/// Keras' progress bar, for one epoch, evaluation or prediction after the other. A validation has none of its own.
pub struct ProgressBar {
    style: Style,
    bar: Bar,
    started: Instant,
    latest: Latest,
}

fn failed(why: std::io::Error) -> Error {
    Error::new(ErrorKind::Io { path: "standard output".into(), why: why.to_string() })
}

impl ProgressBar {
    /// A bar in a style.
    pub fn new(style: Style) -> ProgressBar {
        ProgressBar { style, bar: Bar::new(style, None), started: Instant::now(), latest: Latest::default() }
    }

    fn start(&mut self, run: &Run<'_>) -> Result<()> {
        if !run.validating {
            let target = (run.steps > 0).then_some(run.steps);
            *self = ProgressBar { bar: Bar::new(self.style, target), ..ProgressBar::new(self.style) };
        }
        Ok(())
    }

    fn update(&mut self, run: &Run<'_>) -> Result<()> {
        if run.validating {
            return Ok(());
        }
        // Where nothing is drawn before the end, no numbers are needed.
        let none = Scores::default();
        let scores = if self.style.moves() { self.latest.look(run)? } else { &none };
        self.bar.update(&mut Out::default(), run.step, scores.iter(), self.started.elapsed()).map_err(failed)
    }

    fn finish(&mut self, run: &Run<'_>) -> Result<()> {
        if run.validating {
            return Ok(());
        }
        let elapsed = self.started.elapsed();
        self.bar.finish(&mut Out::default(), run.scores.iter(), elapsed).map_err(failed)
    }
}

macro_rules! hooks {
    ($($hook:ident: $does:ident)*) => {
        impl Callback for ProgressBar {
            fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                if run.epochs > 1 {
                    crate::host::say(&bar::epoch(run.epoch, run.epochs));
                }
                Box::pin(ready(self.start(run)))
            }

            $(fn $hook<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
                Box::pin(ready(self.$does(run)))
            })*
        }
    };
}

hooks! {
    on_batch_end: update
    on_epoch_end: finish
    on_test_begin: start
    on_test_batch_end: update
    on_test_end: finish
    on_predict_begin: start
    on_predict_batch_end: update
    on_predict_end: finish
}
