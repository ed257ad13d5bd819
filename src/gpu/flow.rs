//! Waiting for the device, and keeping it busy without running too far ahead.
//!
//! Too few submissions in flight starve the device, too many make it unresponsive and hold memory, so what is bounded
//! is *time*: each submission's completion is observed, and the bound is the number of submissions that fill about
//! 150 ms. That is longer than the 100 ms at which Firefox reports completions (three in flight would cap it at 30
//! steps a second) and short enough that a stop is felt at once. Natively a waiting future drives the device itself,
//! in slices, so it needs no thread of its own; in a browser the browser wakes it. Deliberately absent: a wait per step.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Mutex;
use std::task::Poll;

use futures::FutureExt;
use futures::channel::oneshot;
use web_time::{Duration, Instant};

use super::stats::add;
use super::{Device, lock};
use crate::error::Result;

/// Work to keep queued, in seconds.
const AIM: f64 = 0.150;
/// Submissions in flight: one runs while the next is prepared ...
const FEWEST: usize = 2;
/// ... and beyond this many only latency grows.
const MOST: usize = 64;
/// Completions seen within this time of each other were one observation: the host looks now and then, not always.
const TOGETHER: Duration = Duration::from_micros(100);
/// How much older observations count at each new one.
const FADE: f64 = 0.75;
/// How long steps follow each other on a page's thread before the page gets its turn: what nobody notices.
#[cfg(target_arch = "wasm32")]
const TURN: Duration = Duration::from_millis(20);
/// How long a waiting future blocks its thread before it lets the executor run something else.
#[cfg(not(target_arch = "wasm32"))]
const SLICE: Duration = Duration::from_millis(4);

/// The submissions in flight and how long they take.
#[derive(Default)]
pub(super) struct Flow(Mutex<State>);

#[derive(Default)]
struct State {
    /// Oldest first.
    flight: VecDeque<(wgpu::SubmissionIndex, Instant)>,
    done: u64,
    last_seen: Option<Instant>,
    /// Seconds of work seen and the number of submissions they belong to, both faded.
    seconds: f64,
    count: f64,
    /// Who waits until `done` reaches a number.
    waiting: Vec<(u64, oneshot::Sender<()>)>,
    /// When the page last had its turn.
    #[cfg(target_arch = "wasm32")]
    turned: Option<Instant>,
}

impl State {
    fn bound(&self) -> usize {
        if self.count == 0.0 {
            return FEWEST;
        }
        // A mean of 0 gives infinity, which the cast saturates.
        ((AIM * self.count / self.seconds) as usize).clamp(FEWEST, MOST)
    }

    fn finished(&mut self, now: Instant) {
        #[cfg(target_arch = "wasm32")]
        {
            // The browser calls, so whatever ran before is over.
            self.turned = Some(now);
        }
        self.done += 1;
        if let Some((_, started)) = self.flight.pop_front() {
            let idle_until = self.last_seen.map_or(started, |seen| seen.max(started));
            if self.last_seen.is_none_or(|seen| now.saturating_duration_since(seen) > TOGETHER) {
                self.seconds *= FADE;
                self.count *= FADE;
            }
            self.seconds += now.saturating_duration_since(idle_until).as_secs_f64();
            self.count += 1.0;
            self.last_seen = Some(now);
        }
        let done = self.done;
        for (_, sender) in self.waiting.extract_if(.., |(until, _)| *until <= done) {
            // The waiter may have been dropped, which is its right.
            let _ = sender.send(());
        }
    }
}

impl Flow {
    pub fn started(&self, index: wgpu::SubmissionIndex, at: Instant) {
        lock(&self.0).flight.push_back((index, at));
    }

    pub fn finished(&self) {
        lock(&self.0).finished(Instant::now());
    }

    /// Whether there is room for another submission.
    fn free(&self) -> bool {
        let state = lock(&self.0);
        state.flight.len() < state.bound()
    }

    /// If there is no room: the submission to wait for, and the word that it is done.
    fn pressure(&self) -> Option<(wgpu::SubmissionIndex, oneshot::Receiver<()>)> {
        let mut state = lock(&self.0);
        let excess = state.flight.len().checked_sub(state.bound())?;
        let (index, _) = state.flight.get(excess)?;
        let index = index.clone();
        let (sender, receiver) = oneshot::channel();
        let until = state.done + excess as u64 + 1;
        state.waiting.push((until, sender));
        Some((index, receiver))
    }
}

impl Device {
    /// Returns once there is room for another submission; at once in the usual case. Also the place where errors of
    /// earlier submissions surface. A page gets its turn here now and then.
    pub async fn ready(&self) -> Result<()> {
        let flow = &self.inner().flow;
        #[cfg(target_arch = "wasm32")]
        {
            // Before the first step too, whose recording takes a while.
            let turned = lock(&flow.0).turned;
            if turned.is_none_or(|turned| turned.elapsed() >= TURN) {
                crate::host::turn().await;
                lock(&flow.0).turned = Some(Instant::now());
            }
        }
        if !flow.free() {
            // Natively completions are seen only by looking.
            #[cfg(not(target_arch = "wasm32"))]
            self.turn(wgpu::PollType::Poll)?;
            let mut waited = false;
            while let Some((index, done)) = flow.pressure() {
                if !waited {
                    add(&self.inner().counters.waits, 1);
                    waited = true;
                }
                self.drive(done, Some(index)).await?;
            }
        }
        self.check()
    }

    /// Returns when all submitted work is done, with the first error it met.
    pub async fn wait(&self) -> Result<()> {
        add(&self.inner().counters.waits, 1);
        let (sender, receiver) = oneshot::channel();
        // The receiver may have been dropped, which is its right.
        self.inner().queue.on_submitted_work_done(move || {
            let _ = sender.send(());
        });
        self.drive(receiver, None).await?;
        self.check()
    }

    /// [`wait`](Device::wait), blocking the thread.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn wait_blocking(&self) -> Result<()> {
        pollster::block_on(self.wait())
    }

    /// Waits, a slice at most, for the oldest submission in flight; false if there is none.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn await_oldest(&self) -> Result<bool> {
        let oldest = lock(&self.inner().flow.0).flight.front().map(|(index, _)| index.clone());
        let Some(index) = oldest else { return Ok(false) };
        self.turn(wgpu::PollType::Wait { submission_index: Some(index), timeout: Some(SLICE) })?;
        Ok(true)
    }

    /// The number of submissions in flight, as far as the host has looked, and the present bound on it.
    pub fn in_flight(&self) -> (usize, usize) {
        let state = lock(&self.inner().flow.0);
        (state.flight.len(), state.bound())
    }

    /// The measured duration of a recent submission.
    pub fn seconds_per_submission(&self) -> Option<f64> {
        let state = lock(&self.inner().flow.0);
        (state.count > 0.0).then(|| state.seconds / state.count)
    }

    /// Awaits `answer`, which some callback of the device sends, while natively making the device run its callbacks.
    ///
    /// Each poll blocks for a slice at most: under a blocking executor this is a proper wait in the driver, under any
    /// other one the remaining tasks get their turn between slices. wgpu holds locks while it waits, so slices also
    /// let other threads submit.
    pub(super) async fn drive<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
        index: Option<wgpu::SubmissionIndex>,
    ) -> Result<T> {
        #[cfg(target_arch = "wasm32")]
        let _ = index;
        poll_fn(|context| {
            if let Poll::Ready(answer) = answer.poll_unpin(context) {
                return Poll::Ready(answer.map_err(|_| self.silence("the device dropped a callback")));
            }
            #[cfg(not(target_arch = "wasm32"))]
            {
                let wait = wgpu::PollType::Wait { submission_index: index.clone(), timeout: Some(SLICE) };
                if let Err(error) = self.turn(wait) {
                    return Poll::Ready(Err(error));
                }
                if let Ok(Some(value)) = answer.try_recv() {
                    return Poll::Ready(Ok(value));
                }
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }

    /// Lets wgpu look at the device and run callbacks. Running into a timeout is no error.
    #[cfg(not(target_arch = "wasm32"))]
    pub(super) fn turn(&self, how: wgpu::PollType) -> Result<()> {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let slot = &self.inner().slot;
        if let Some(lost) = slot.lost() {
            return Err(lost);
        }
        // wgpu answers a device that is lost during a poll with a panic; to the caller that is an error like others.
        // Its locks do not poison, and the device is not used again.
        let _turn = lock(&self.inner().turn);
        let look = |how| catch_unwind(AssertUnwindSafe(|| self.raw().poll(how)));
        let mut looked = look(how.clone());
        if let (Ok(Err(wgpu::PollError::WrongSubmissionIndex(..))), wgpu::PollType::Wait { timeout, .. }) =
            (&looked, how)
        {
            // That submission was refused, so there is no such thing to wait for; all others will do.
            looked = look(wgpu::PollType::Wait { submission_index: None, timeout });
        }
        match looked {
            Ok(_) => Ok(()),
            Err(_) => {
                slot.lose("polling it failed".into());
                Err(self.silence("polling it failed"))
            }
        }
    }
}
