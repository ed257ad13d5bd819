//! Whatever happens while a model works, it keeps its newest complete state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;

use crate::{adam, base, bits, mlp, quiet, silent, uniform, unseen};
use wengert::prelude::*;

fn data() -> (Tensor, Tensor) {
    (uniform(1, 32, 4).0, uniform(2, 32, 1).0)
}

fn compiled() -> Functional {
    let mut model = mlp();
    model.compile(adam()).unwrap();
    model
}

/// The bits after so many undisturbed epochs of one step.
fn after(epochs: usize) -> Vec<u8> {
    let (mut model, (x, y)) = (compiled(), data());
    model.fit_blocking((&x, &y), Fit { epochs, ..silent() }).unwrap();
    bits(&model)
}

/// Does something it should not, from outside: what, is set by number.
struct Mischief {
    network: Functional,
    what: Arc<AtomicUsize>,
}

const NOTHING: usize = 0;
const BAKED: usize = 1;
const PANIC: usize = 2;
const ERROR: usize = 3;
const OWN_WEIGHTS: usize = 4;
const READ: usize = 5;
const RATE: usize = 6;

impl Mischief {
    fn new() -> Mischief {
        Mischief { network: compiled(), what: Arc::default() }
    }

    fn act(&self, trainable: &[Tensor]) -> Result<()> {
        match self.what.load(Ordering::Relaxed) {
            PANIC => panic!("a step panicked on purpose"),
            ERROR => Err(Error::argument("on purpose")),
            OWN_WEIGHTS => self.network.trainable().map(drop),
            READ => trainable[0].to_vec::<f32>().map(drop),
            RATE => pollster::block_on(self.network.learning_rate()).map(drop),
            _ => Ok(()),
        }
    }
}

impl Model for Mischief {
    base!(network);

    fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
        self.act(&state.0)?;
        let (logs, mut state) = self.network.train_step(state, batch)?;
        if self.what.load(Ordering::Relaxed) == BAKED {
            state.0[0] = &state.0[0] * 2.0;
        }
        Ok((logs, state))
    }

    fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
        self.act(&state.0)?;
        self.network.test_step(state, batch)
    }

    fn predict_step(&self, state: PredictState, batch: Batch) -> Result<Tensor> {
        self.act(&state.0)?;
        self.network.predict_step(state, batch)
    }
}

#[test]
fn a_step_that_changes_ends_training_with_the_newest_state() {
    let (x, y) = data();
    for what in [BAKED, ERROR] {
        let mut model = Mischief::new();
        let flag = model.what.clone();
        let mut flip = LambdaCallback::new().on_epoch_begin(|run| {
            if run.epoch == 2 {
                flag.store(what, Ordering::Relaxed);
            }
        });
        let options = Fit { epochs: 5, callbacks: vec![&mut flip], ..silent() };
        let error = model.fit_blocking((&x, &y), options).unwrap_err();
        match what {
            BAKED => assert!(matches!(error.kind(), ErrorKind::StepChanged { .. }), "{error}"),
            _ => assert_eq!(error, Error::argument("on purpose")),
        }
        assert!(bits(&model.network) == after(2));
        // And it goes on from there.
        model.what.store(NOTHING, Ordering::Relaxed);
        model.fit_blocking((&x, &y), Fit { initial_epoch: 2, epochs: 4, ..silent() }).unwrap();
        assert!(bits(&model.network) == after(4));
    }
}

#[test]
fn a_panic_in_a_step_loses_nothing() {
    let (x, y) = data();
    let mut model = Mischief::new();
    model.fit_blocking((&x, &y), silent()).unwrap();
    model.what.store(PANIC, Ordering::Relaxed);
    let panics = |f: &mut dyn FnMut()| assert!(catch_unwind(AssertUnwindSafe(f)).is_err());
    for _ in 0..2 {
        // Batches of other sizes are recorded anew in any build.
        panics(&mut || drop(model.fit_blocking((&x, &y), Fit { batch_size: 16, ..silent() })));
        panics(&mut || drop(model.evaluate_blocking((&x, &y), Evaluate { batch_size: 16, ..quiet() })));
        panics(&mut || drop(model.predict_blocking(&x, Predict { batch_size: 16, ..unseen() })));
    }
    assert!(bits(&model.network) == after(1));
    model.what.store(NOTHING, Ordering::Relaxed);
    model.fit_blocking((&x, &y), Fit { initial_epoch: 1, epochs: 3, ..silent() }).unwrap();
    assert!(bits(&model.network) == after(3));
}

#[test]
fn weights_are_not_read_inside_a_step() {
    let (x, y) = data();
    for what in [OWN_WEIGHTS, READ, RATE] {
        let mut model = Mischief::new();
        model.what.store(what, Ordering::Relaxed);
        let errors = [
            model.fit_blocking((&x, &y), silent()).unwrap_err(),
            model.evaluate_blocking((&x, &y), quiet()).unwrap_err(),
            model.predict_blocking(&x, unseen()).unwrap_err(),
        ];
        for error in errors {
            match what {
                READ => assert!(matches!(error.kind(), ErrorKind::ReadInsideStep { .. }), "{error}"),
                _ => assert!(error.to_string().contains("a step is running"), "{error}"),
            }
        }
        assert!(bits(&model.network) == bits(&mlp()));
    }
}

#[test]
fn a_step_may_ask_for_the_device_it_runs_on() {
    struct Asks(Functional, std::sync::OnceLock<Device>);
    impl Model for Asks {
        base!(0);
        fn test_step(&self, state: TestState, batch: Batch) -> Result<(Logs, TestState)> {
            let device = pollster::block_on(self.0.device())?;
            self.1.get_or_init(|| device);
            self.0.test_step(state, batch)
        }
    }
    let model = Asks(compiled(), Default::default());
    model.evaluate_blocking((&data().0, &data().1), quiet()).unwrap();
    assert_eq!(model.1.get(), Some(&pollster::block_on(model.0.device()).unwrap()));
}

#[test]
fn a_dropped_fit_leaves_the_newest_state() {
    /// Returns pending once, in the step of a number.
    struct Pause(usize);
    impl Callback for Pause {
        fn on_batch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
            let mut pause = run.step == self.0;
            Box::pin(std::future::poll_fn(move |_| {
                if std::mem::take(&mut pause) { std::task::Poll::Pending } else { std::task::Poll::Ready(Ok(())) }
            }))
        }
    }
    let (x, y) = data();
    let options = || Fit { batch_size: 4, shuffle: false, ..silent() };
    let mut model = compiled();
    let mut pause = Pause(3);
    {
        let device = pollster::block_on(model.device()).unwrap();
        let fit = model.fit((&x, &y), Fit { callbacks: vec![&mut pause], ..options() });
        // Waiting for the device is pending too, so that one poll may not be enough to get to the pause.
        let mut fit = Box::pin(fit);
        for _ in 0..3 {
            assert!(fit.as_mut().now_or_never().is_none(), "the pause comes first");
            if device.stats().submissions >= 3 {
                break;
            }
        }
    }
    let stopped = bits(&model);
    let mut other = compiled();
    other.fit_blocking((&x, &y), Fit { steps_per_epoch: Some(3), ..options() }).unwrap();
    assert!(stopped == bits(&other));
    // Both go on alike.
    model.fit_blocking((&x, &y), options()).unwrap();
    other.fit_blocking((&x, &y), options()).unwrap();
    assert!(bits(&model) == bits(&other));
}

#[test]
fn threads_that_use_one_model_at_once_cannot_lose_its_weights() {
    let (x, y) = data();
    let model = compiled();
    pollster::block_on(model.device()).unwrap();
    let before = bits(&model);
    let worked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    match model.evaluate_blocking((&x, &y), quiet()) {
                        Ok(_) => drop(worked.fetch_add(1, Ordering::Relaxed)),
                        Err(error) if matches!(error.kind(), ErrorKind::State { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(worked.into_inner() > 0);
    assert!(before == bits(&model));
}

#[test]
fn a_tensor_that_is_held_on_host_and_device_is_never_stale() {
    let (x, y) = data();
    let mut model = compiled();
    let device = pollster::block_on(model.device()).unwrap();
    for tensor in model.trainable().unwrap() {
        tensor.to(&device).unwrap();
    }
    model.fit_blocking((&x, &y), silent()).unwrap();
    assert!(bits(&model) == after(1));
    // The same where no two variables are laid out together.
    let mut one = Sequential::new([4]).add(Dense { use_bias: false, ..Dense::new(1) }).build().unwrap().on(&device);
    one.compile(crate::sgd(0.1)).unwrap();
    let before = bits(&one);
    one.trainable().unwrap()[0].to(&device).unwrap();
    one.fit_blocking((&x, &y), silent()).unwrap();
    assert!(bits(&one) != before);
}

#[test]
fn compiling_again_starts_the_optimizer_over_and_keeps_the_weights() {
    let (x, y) = data();
    let mut model = compiled();
    model.fit_blocking((&x, &y), Fit { epochs: 3, ..silent() }).unwrap();
    let before = bits(&model);
    model.compile(crate::sgd(0.5)).unwrap();
    assert!(before == bits(&model));
    assert_eq!(pollster::block_on(model.learning_rate()).unwrap(), 0.5);
    model.fit_blocking((&x, &y), silent()).unwrap();
    pollster::block_on(model.set_learning_rate(0.25)).unwrap();
    assert_eq!(pollster::block_on(model.learning_rate()).unwrap(), 0.25);
    for rate in [f64::NAN, f64::INFINITY] {
        assert!(
            matches!(pollster::block_on(model.set_learning_rate(rate)), Err(error) if matches!(error.kind(), ErrorKind::NonFinite { .. }))
        );
    }
}
