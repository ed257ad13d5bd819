//! The callback that draws the bar.
//!
//! It never waits for a number: every now and then it asks for the newest logs and draws them when they have come.
//! Deliberately absent: a read for every step, which would make the device wait for the host.

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use web_time::{Duration, Instant};

use super::bar::{self, Bar, Style};
use super::callback::{Callback, Hook, Run};
use crate::error::{Error, Result};
use crate::host::Out;

/// How often numbers are asked for.
const EVERY: Duration = Duration::from_millis(150);

/// Numbers that were asked for.
type Answer = LocalBoxFuture<'static, Result<Vec<(String, f32)>>>;

/// Keras' progress bar, for one epoch after the other.
pub struct ProgressBar {
    style: Style,
    bar: Bar,
    started: Instant,
    asked: Instant,
    asking: Option<Answer>,
    known: Vec<(String, f64)>,
}

impl ProgressBar {
    /// A bar in a style, for so many steps.
    pub fn new(style: Style, steps: usize) -> ProgressBar {
        let (bar, now) = (Bar::new(style, Some(steps)), Instant::now());
        ProgressBar { style, bar, started: now, asked: now, asking: None, known: Vec::new() }
    }

    fn update(&mut self, run: &Run<'_>) -> Result<()> {
        if run.step == 0 || self.style != Style::Terminal {
            // Only the time of the first step is of interest.
            return self.draw(run);
        }
        if let Some(asking) = &mut self.asking {
            if let Some(answer) = asking.now_or_never() {
                self.asking = None;
                self.known = answer?.into_iter().map(|(name, value)| (name, f64::from(value))).collect();
            }
        } else if self.known.is_empty() || self.asked.elapsed() >= EVERY {
            let logs = run.logs().clone();
            self.asked = Instant::now();
            self.asking = Some(async move { logs.read().await }.boxed_local());
        }
        self.draw(run)
    }

    fn draw(&mut self, run: &Run<'_>) -> Result<()> {
        let known = self.known.iter().map(|(name, value)| (name, *value));
        let drawn = self.bar.update(&mut Out::default(), run.step, known, self.started.elapsed());
        drawn.map_err(|why| Error::Io { path: "standard output".into(), why: why.to_string() })
    }

    fn finish(&mut self, run: &Run<'_>) -> Result<()> {
        self.asking = None;
        let drawn = self.bar.finish(&mut Out::default(), run.scores.iter(), self.started.elapsed());
        drawn.map_err(|why| Error::Io { path: "standard output".into(), why: why.to_string() })
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
        Box::pin(async move { self.finish(run) })
    }
}
