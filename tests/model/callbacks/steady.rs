//! What callbacks cost the device: reads that are counted, and nothing that grows.

use std::time::Instant;

use wengert::callbacks::ProgressBar;
use wengert::callbacks::Style;
use wengert::gpu::Stats;
use wengert::prelude::*;

use super::{Folder, data};
use crate::{adam, mlp, silent};

/// A network on a device of its own, whose counters no other test moves.
fn alone() -> (Functional, Device) {
    let device = Device::blocking().unwrap();
    let mut model = mlp().on(&device);
    model.compile(adam()).unwrap();
    (model, device)
}

/// What two epochs of so many steps cost, after a first one that records and compiles.
fn cost(steps: usize, callback: Option<&mut dyn Callback>) -> Stats {
    let (x, y) = data();
    let (mut model, device) = alone();
    model.fit_blocking((&x, &y), Fit { batch_size: 4, ..silent() }).unwrap();
    let before = device.stats();
    let options = Fit { batch_size: 4, epochs: 2, steps_per_epoch: Some(steps), ..silent() };
    model.fit_blocking((&x, &y), Fit { callbacks: callback.into_iter().collect(), ..options }).unwrap();
    device.stats() - before
}

/// Bytes of one read of the logs: each of the two has a place of its own.
const LOGS: u64 = 512;

#[test]
fn no_callback_reads_more_for_more_batches_unless_it_says_so() {
    let folder = Folder::new("reads");
    let none = cost(8, None);
    assert_eq!(none.bytes_read, 2 * LOGS, "the scores of two epochs: {none}");
    assert_eq!(cost(64, None).bytes_read, none.bytes_read);
    let (log, events, weights) = (folder.path("log.csv"), folder.path("events"), folder.path("{epoch}"));
    let callbacks: [&dyn Fn() -> Box<dyn Callback>; 7] = [
        &|| Box::new(EarlyStopping::new("loss").patience(9).restore_best_weights()),
        &|| Box::new(ModelCheckpoint::new(&weights).save_best_only("loss")),
        &|| Box::new(ReduceLROnPlateau::new("loss")),
        &|| Box::new(LearningRateScheduler::new(|_, rate| rate)),
        &|| Box::new(CSVLogger::new(&log)),
        &|| Box::new(TensorBoard::new(&events)),
        &|| Box::new(LambdaCallback::new().on_batch_end(|run| assert!(run.step > 0))),
    ];
    for (index, callback) in callbacks.iter().enumerate() {
        let (few, many) = (cost(8, Some(&mut *callback())), cost(64, Some(&mut *callback())));
        // Weights improve in one epoch or in both, which is one more read of them.
        assert!(few.bytes_read.abs_diff(many.bytes_read) < LOGS, "callback {index}: {few}; {many}");
        let extra = |with: Stats, steps: u64| with.submissions - 2 * steps;
        assert!(extra(many, 64) <= extra(few, 8) + 4, "callback {index}: {few}; {many}");
    }
    // Those that look at numbers during an epoch ask at most once in 150 ms, and once at the beginning of each.
    let looking: [&dyn Fn() -> Box<dyn Callback>; 2] =
        [&|| Box::new(TerminateOnNaN::new()), &|| Box::new(ProgressBar::new(Style::Terminal))];
    for callback in looking {
        let began = Instant::now();
        let with = cost(64, Some(&mut *callback()));
        let asked = 2 + began.elapsed().as_millis() as u64 / 150;
        assert!(with.bytes_read <= none.bytes_read + asked * LOGS, "{with}");
    }
    // Those that say so read as often as they say.
    let with = cost(64, Some(&mut TensorBoard::new(&events).update_freq(16)));
    let without = cost(64, Some(&mut TensorBoard::new(&events)));
    assert_eq!(with.bytes_read - without.bytes_read, 2 * 64 / 16 * LOGS);
    let with = cost(64, Some(&mut TerminateOnNaN::new().every(32)));
    assert_eq!(with.bytes_read - none.bytes_read, 2 * 64 / 32 * LOGS);
}

#[test]
fn fifty_epochs_with_all_callbacks_hold_no_more_than_five() {
    let (x, y) = data();
    let folder = Folder::new("fifty");
    let (mut model, device) = alone();
    let held = std::cell::RefCell::new(Vec::new());
    let mut stopping = EarlyStopping::new("val_loss").patience(100).restore_best_weights();
    let mut best = ModelCheckpoint::new(&folder.path("best.safetensors")).save_best_only("val_loss");
    let mut often = ModelCheckpoint::new(&folder.path("often.safetensors")).save_freq(5);
    let mut reduce = ReduceLROnPlateau::new("val_loss").patience(3).cooldown(2);
    let mut schedule = LearningRateScheduler::new(|_, rate| rate * 0.999);
    let mut terminate = TerminateOnNaN::new();
    let mut log = CSVLogger::new(folder.path("log.csv"));
    let mut board = TensorBoard::new(folder.path("events")).update_freq(2);
    let mut see = LambdaCallback::new().on_epoch_end(|_| held.borrow_mut().push(device.stats()));
    let callbacks: Vec<&mut dyn Callback> = vec![
        &mut stopping,
        &mut best,
        &mut often,
        &mut reduce,
        &mut schedule,
        &mut terminate,
        &mut log,
        &mut board,
        &mut see,
    ];
    let validation_data = Some((&x, &y).into());
    let options = Fit { batch_size: 4, epochs: 50, validation_data, callbacks, ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    drop(see);
    assert_eq!(history.epoch.len(), 50);
    let held = held.into_inner();
    let (early, late) = (held[4], held[49]);
    // Reads that nobody waits for have a staging buffer each, kept for others: as many as were ever under way at once,
    // which depends on the device's haste, but is never more than an epoch asks for (four times for the events, once for
    // what is not finite, once by waiting). A leak would be one buffer an epoch at least.
    let most = 6;
    assert!(late.buffers - early.buffers <= most, "{early}; {late}");
    assert!(late.bytes_allocated <= early.bytes_allocated + most * 4096, "{early}; {late}");
    assert_eq!((late.bind_groups, late.pipelines), (early.bind_groups, early.pipelines), "{early}; {late}");
    assert_eq!(std::fs::read_to_string(folder.path("log.csv")).unwrap().lines().count(), 51);
}
