//! Learning-rate schedules, step by step.

use wengert::dtype::DType;
use wengert::error::ErrorKind;
use wengert::graph::Tensor;
use wengert::layers::{Dense, Sequential};
use wengert::model::{Compile, Fit, Train, Verbose};
use wengert::optimizers::schedules::{
    CosineDecay, CosineDecayRestarts, ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay,
};
use wengert::optimizers::{Optimizer, SGD};
use wengert::step::{Logs, Step, assign};

use crate::reference::{Reference, TOLERANCE, close, device};

/// The rate that an optimizer reports at each stored count of batches, and the rate that it moves a parameter by.
fn check(case: &str, schedule: impl Into<wengert::optimizers::LearningRate>) {
    let reference = Reference::open("schedules");
    let optimizer = Optimizer::from(SGD::default()).learning_rate(schedule);
    let mut state = (vec![Tensor::zeros([1])], optimizer.variables(&[Tensor::zeros([1])]).unwrap());
    let mut step = Step::new(device());
    let (mut reported, mut moved) = (Vec::new(), Vec::new());
    for &count in reference.values("steps") {
        assign(device(), &state.1[0], &Tensor::scalar(count as i32)).unwrap();
        assign(device(), &state.0[0], &Tensor::new(&[0f32], [1])).unwrap();
        let rate = optimizer.rate_in_force(&state.1).unwrap();
        reported.push(rate.to_vec_on::<f64>(device()).unwrap()[0]);
        drop(rate);
        step.run(&mut state, &Tensor::new(&[-1f32], [1]), |(trainable, variables), gradient| {
            let gradients = std::slice::from_ref(gradient);
            let (trainable, variables) = optimizer.stateless_apply(&variables, gradients, &trainable)?;
            Ok((Logs::default(), (trainable, variables)))
        })
        .unwrap();
        moved.push(state.0[0].to_vec_on::<f64>(device()).unwrap()[0]);
        assert_eq!(state.1[0].to_vec_on::<i32>(device()).unwrap(), [count as i32 + 1]);
    }
    close(&format!("{case}, reported"), &reported, reference.values(case), TOLERANCE);
    close(&format!("{case}, applied"), &moved, reference.values(case), TOLERANCE);
}

#[test]
fn exponential_and_inverse_time() {
    check("exponential", ExponentialDecay::new(0.1, 10, 0.9));
    check("exponential_staircase", ExponentialDecay { staircase: true, ..ExponentialDecay::new(0.1, 7, 0.5) });
    check("exponential_slow", ExponentialDecay::new(0.01, 100_000, 0.96));
    check("inverse_time", InverseTimeDecay::new(0.1, 10, 0.5));
    check("inverse_time_staircase", InverseTimeDecay { staircase: true, ..InverseTimeDecay::new(0.1, 7, 0.5) });
}

#[test]
fn piecewise_constant() {
    check("piecewise", PiecewiseConstantDecay::new(&[5, 20, 1000], &[0.1, 0.05, 0.2, 0.001]));
    check("piecewise_one", PiecewiseConstantDecay::new(&[1_000_000], &[1.0, 0.1]));
}

#[test]
fn polynomial() {
    let to = |end_learning_rate, power, from, steps| PolynomialDecay {
        end_learning_rate,
        power,
        ..PolynomialDecay::new(from, steps)
    };
    check("polynomial", PolynomialDecay::new(0.1, 20));
    check("polynomial_power", to(0.02, 0.5, 0.1, 33));
    check("polynomial_square", to(0.0, 2.0, 0.5, 1000));
    check("polynomial_cycle", PolynomialDecay { cycle: true, ..to(0.01, 2.0, 0.1, 7) });
    check("polynomial_cycle_line", PolynomialDecay { cycle: true, ..to(0.01, 1.0, 0.1, 10) });
}

#[test]
fn cosine() {
    let warm = |target, warmup_steps, from, steps| CosineDecay {
        warmup_target: Some(target),
        warmup_steps,
        ..CosineDecay::new(from, steps)
    };
    check("cosine", CosineDecay::new(0.1, 20));
    check("cosine_alpha", CosineDecay { alpha: 0.1, ..CosineDecay::new(0.1, 1000) });
    check("cosine_warmup", CosineDecay { alpha: 0.05, ..warm(0.1, 10, 0.01, 20) });
    check("cosine_warmup_from_0", warm(0.3, 21, 0.0, 1000));
    check("cosine_no_warmup_steps", warm(0.1, 0, 0.01, 20));
}

#[test]
fn cosine_with_restarts() {
    let restarts = |t_mul, m_mul, alpha, steps| CosineDecayRestarts {
        t_mul,
        m_mul,
        alpha,
        ..CosineDecayRestarts::new(0.1, steps)
    };
    check("restarts", CosineDecayRestarts::new(0.1, 10));
    check("restarts_equal", restarts(1.0, 0.9, 0.1, 7));
    check("restarts_options", restarts(1.5, 0.8, 0.05, 10));
    check("restarts_long", restarts(1.1, 0.95, 0.0, 100));
}

/// A closure over the step tensor: the smooth decay once more, by one's own hand.
#[test]
fn of_ones_own() {
    check("inverse_time", |step: &Tensor| 0.1 / (step.cast(DType::F32) * 0.05 + 1.0));
}

/// Read between epochs, and not settable, as in Keras; a number is.
#[test]
fn the_rate_of_a_model_follows_its_schedule() {
    let reference = Reference::open("schedules");
    let mut model = Sequential::new([2]).add(Dense::new(1)).build().unwrap().on(device());
    let at = |model: &wengert::model::Functional| pollster::block_on(model.learning_rate());
    assert!(matches!(at(&model), Err(error) if matches!(error.kind(), ErrorKind::NotCompiled { .. })));
    let sgd = Optimizer::from(SGD::default()).learning_rate(CosineDecay::new(0.1, 20));
    model.compile(Compile { optimizer: sgd.into(), loss: "mse".into(), ..Compile::default() }).unwrap();
    let (x, y) = (Tensor::new(&[1f32; 20], [10, 2]), Tensor::new(&[1f32; 10], [10, 1]));
    let fit = |batch_size| Fit { batch_size, verbose: Verbose::Silent, ..Fit::default() };
    let steps = reference.values("steps");
    let (mut rates, mut expected) = (Vec::new(), Vec::new());
    for batches in [0.0, 5.0, 10.0, 15.0, 20.0] {
        let index = steps.iter().position(|&step| step == batches).unwrap();
        expected.push(reference.values("cosine")[index]);
        rates.push(at(&model).unwrap());
        model.fit_blocking((x.clone(), y.clone()), fit(2)).unwrap();
    }
    close("rates between fits of five batches", &rates, &expected, TOLERANCE);
    let error = pollster::block_on(model.set_learning_rate(0.5)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Argument { .. }), "{error}");
    let expected = "the learning rate of sgd follows a schedule and cannot be set; give it a number first";
    assert_eq!(error.to_string(), expected);

    let sgd = Optimizer::from(SGD::default()).learning_rate(0.25);
    model.compile(Compile { optimizer: sgd.into(), loss: "mse".into(), ..Compile::default() }).unwrap();
    assert_eq!(at(&model).unwrap(), 0.25);
    pollster::block_on(model.set_learning_rate(0.0)).unwrap();
    let before = model.trainable().unwrap()[0].to_vec_on::<f32>(device()).unwrap();
    model.fit_blocking((x.clone(), y.clone()), fit(2)).unwrap();
    assert_eq!(model.trainable().unwrap()[0].to_vec_on::<f32>(device()).unwrap(), before);
    assert_eq!(at(&model).unwrap(), 0.0);
}
