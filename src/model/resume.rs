//! What `fit` does for checkpoints: taking one when a callback asked, and going on from one.
//!
//! Here rather than in a callback, since no callback sees the others' memory, and a checkpoint must have it. Deliberately
//! absent: files, which are a callback's business, and loops.

use super::checkpoint::{Checkpoint, DataOrder, Progress};
use super::work::Work;
use super::{History, Model};
use crate::callbacks::{Callback, CallbackState, Run};
use crate::error::Result;

/// Takes a checkpoint and shows it to all callbacks. `next` are the epoch and step to go on with.
pub(super) async fn checkpoint<M: Model + ?Sized>(
    work: &Work<'_, M>,
    run: &mut Run<'_>,
    next: (usize, usize),
    order: &DataOrder,
    history: &History,
    callbacks: &mut [&mut (dyn Callback + '_)],
) -> Result<()> {
    run.checkpoint = false;
    let progress = Progress {
        epoch: next.0,
        step: next.1,
        stop: run.stop,
        order: *order,
        history: history.clone(),
        scores: run.scores.clone(),
    };
    let states = callbacks.iter().filter_map(|callback| callback.state()).collect();
    let checkpoint = work.checkpoint(Some(progress), states)?;
    for callback in callbacks {
        callback.on_checkpoint(&checkpoint, run).await?;
    }
    Ok(())
}

/// Gives variables and callbacks what a checkpoint has of them. The n-th callback of a kind gets the n-th state of it;
/// what has no partner is left alone, with a warning.
pub(super) fn restore<M: Model + ?Sized>(
    work: &Work<'_, M>,
    checkpoint: &Checkpoint,
    callbacks: &mut [&mut (dyn Callback + '_)],
) -> Result<()> {
    work.restore(checkpoint)?;
    let mut states: Vec<&CallbackState> = checkpoint.callbacks().iter().collect();
    for callback in callbacks {
        let Some(own) = callback.state() else { continue };
        match states.iter().position(|state| state.kind() == own.kind()) {
            Some(at) => callback.restore(states.remove(at))?,
            None if checkpoint.progress().is_none() => {}
            None => log::warn!("the checkpoint has no state of a callback {}, which starts over", own.kind()),
        }
    }
    for state in states {
        log::warn!("the checkpoint has the state of a callback {}, which is not there now", state.kind());
    }
    Ok(())
}
