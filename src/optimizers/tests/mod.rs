//! Optimizers against plain f64 loops, on the f64 interpreter. Host scalars of a graph are f32, so equality is within
//! the rounding of the hyper-parameters.

mod plan;

use super::*;
use crate::graph::Tensor;
use crate::graph::display::Graph;
use crate::graph::interpret::{Given, interpret};
use crate::shape::Shape;

fn values(tensor: &Tensor) -> Vec<f64> {
    interpret(std::slice::from_ref(tensor), &Given::new()).unwrap().remove(0).data
}

fn t(data: &[f32], shape: impl Into<Shape>) -> Tensor {
    Tensor::new(data, shape)
}

const STEPS: usize = 3;
const START: [f64; 3] = [1.0, -2.0, 0.5];
/// Exact in f32.
const GRADS: [[f64; 3]; STEPS] = [[0.5, -1.0, 0.25], [0.125, 2.0, -0.5], [-1.5, 0.0, 3.0]];

/// The trainables after each step, two of them: START's first two and its last.
fn run(optimizer: &Optimizer) -> Vec<Vec<f64>> {
    let mut trainable = vec![t(&START.map(|v| v as f32)[..2], [2]), t(&[START[2] as f32], [1, 1])];
    let mut variables = optimizer.variables(&trainable).unwrap();
    let mut path = Vec::new();
    for g in GRADS.map(|g| g.map(|v| v as f32)) {
        let grads = [t(&g[..2], [2]), t(&g[2..], [1, 1])];
        (trainable, variables) = optimizer.stateless_apply(&variables, &grads, &trainable).unwrap();
        path.push(trainable.iter().flat_map(values).collect());
    }
    assert_eq!(values(&variables[ITERATION]), [STEPS as f64]);
    path
}

/// The same by `update(parameter, gradient, element, step)` on plain numbers.
fn by_hand(mut update: impl FnMut(f64, f64, usize, i32) -> f64) -> Vec<Vec<f64>> {
    let mut p = START;
    (0..STEPS)
        .map(|step| {
            for (i, value) in p.iter_mut().enumerate() {
                *value = update(*value, GRADS[step][i], i, step as i32 + 1);
            }
            p.to_vec()
        })
        .collect()
}

fn close(got: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    for (a, b) in got.iter().flatten().zip(expected.iter().flatten()) {
        assert!((a - b).abs() <= tolerance, "{got:?}, expected {expected:?}");
    }
    assert_eq!(got.len(), expected.len());
}

#[test]
fn adam_is_the_form_of_keras() {
    let (rate, b1, b2, epsilon) = (0.1, 0.9, 0.999, 1e-7);
    let (mut m, mut v) = ([0f64; 3], [0f64; 3]);
    let expected = by_hand(|p, g, i, step| {
        let alpha = rate * (1.0 - f64::powi(b2, step)).sqrt() / (1.0 - f64::powi(b1, step));
        m[i] += (g - m[i]) * (1.0 - b1);
        v[i] += (g * g - v[i]) * (1.0 - b2);
        p - m[i] * alpha / (v[i].sqrt() + epsilon)
    });
    // Host scalars are f32, so a step of 0.1 is off by a few 1e-8 of itself.
    let adam = Adam { learning_rate: rate, ..Adam::default() };
    close(&run(&adam.into()), &expected, 1e-7);
    // With hyper-parameters that f32 holds, all of it is exact but for the logarithms of the betas.
    let (mut m, mut v) = ([0f64; 3], [0f64; 3]);
    let expected = by_hand(|p, g, i, step| {
        let alpha = 0.125 * (1.0 - f64::powi(0.75, step)).sqrt() / (1.0 - f64::powi(0.5, step));
        m[i] += (g - m[i]) * 0.5;
        v[i] += (g * g - v[i]) * 0.25;
        p - m[i] * alpha / (v[i].sqrt() + f64::powi(2.0, -20))
    });
    let adam =
        Adam { learning_rate: 0.125, beta_1: 0.5, beta_2: 0.75, epsilon: f64::powi(2.0, -20), ..Adam::default() };
    close(&run(&adam.into()), &expected, 3.0 * 0.125 * 6e-8);
}

#[test]
fn the_first_step_of_adam_is_the_learning_rate() {
    let path = run(&Adam::default().into());
    for (p, (start, g)) in path[0].iter().zip(START.iter().zip(GRADS[0])) {
        assert!((p - (start - 1e-3 * g.signum())).abs() < 1e-6, "{path:?}");
    }
}

#[test]
fn adamw_decays_before_the_step() {
    let path = run(&AdamW { weight_decay: 0.5, learning_rate: 0.125, ..AdamW::default() }.into());
    let plain = run(&Adam { learning_rate: 0.125, ..Adam::default() }.into());
    for i in 0..3 {
        let expected = plain[0][i] - START[i] * 0.5 * 0.125;
        assert!((path[0][i] - expected).abs() < 1e-12, "{path:?}");
    }
}

#[test]
fn sgd_with_and_without_momentum() {
    let sgd = SGD { learning_rate: 0.25, ..SGD::default() };
    close(&run(&sgd.into()), &by_hand(|p, g, _, _| p - 0.25 * g), 1e-12);
    for nesterov in [false, true] {
        let mut m = [0f64; 3];
        let expected = by_hand(|p, g, i, _| {
            m[i] = 0.5 * m[i] - 0.25 * g;
            if nesterov { p + 0.5 * m[i] - 0.25 * g } else { p + m[i] }
        });
        close(&run(&SGD { learning_rate: 0.25, momentum: 0.5, nesterov }.into()), &expected, 1e-12);
    }
}

#[test]
fn rmsprop_in_all_its_forms() {
    let epsilon = f64::powi(2.0, -10);
    for (momentum, centered) in [(0.0, false), (0.0, true), (0.5, false), (0.5, true)] {
        let (mut v, mut a, mut m) = ([0f64; 3], [0f64; 3], [0f64; 3]);
        let expected = by_hand(|p, g, i, _| {
            v[i] = 0.75 * v[i] + 0.25 * g * g;
            a[i] = 0.75 * a[i] + 0.25 * g;
            let variance = if centered { v[i] - a[i] * a[i] } else { v[i] };
            let step = 0.125 * g / (variance + epsilon).sqrt();
            m[i] = momentum * m[i] + step;
            p - if momentum > 0.0 { m[i] } else { step }
        });
        let rule = RMSprop { learning_rate: 0.125, rho: 0.75, momentum, epsilon, centered };
        close(&run(&rule.into()), &expected, 1e-12);
    }
}

#[test]
fn clipping_bounds_elements_norms_or_all() {
    let grads = [t(&[3., -4.], [2]), t(&[12.], [1])];
    let descend = Optimizer::from(SGD { learning_rate: 1.0, ..SGD::default() });
    let clipped = |clip: Clip, grads: &[Tensor]| -> Vec<f64> {
        let (optimizer, start) = (descend.clone().clip(clip), [Tensor::zeros([2]), Tensor::zeros([1])]);
        let variables = optimizer.variables(&start).unwrap();
        let (moved, _) = optimizer.stateless_apply(&variables, grads, &start).unwrap();
        moved.iter().flat_map(values).map(|v| -v).collect()
    };
    let near = |got: Vec<f64>, expected: [f64; 3]| {
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{got:?}, expected {expected:?}");
    };
    near(clipped(Clip::Value(3.5), &grads), [3., -3.5, 3.5]);
    near(clipped(Clip::Norm(10.0), &grads), [3., -4., 10.]);
    near(clipped(Clip::Norm(2.5), &grads), [1.5, -2., 2.5]);
    near(clipped(Clip::GlobalNorm(6.5), &grads), [1.5, -2., 6.]);
    near(clipped(Clip::GlobalNorm(13.0), &grads), [3., -4., 12.]);
    // A gradient of zero stays zero.
    near(clipped(Clip::Norm(1.0), &[Tensor::zeros([2]), Tensor::zeros([1])]), [0.; 3]);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(descend.clone().clip(Clip::Norm(bad)).variables(&grads).is_err());
    }
}

#[test]
fn variables_are_iteration_rate_and_slots_in_turn() {
    let trainable = [Tensor::zeros([2, 3]), Tensor::zeros([3])];
    let variables = Optimizer::from(Adam::default()).variables(&trainable).unwrap();
    let specs: Vec<_> = variables.iter().map(|v| v.spec().unwrap().to_string()).collect();
    assert_eq!(specs, ["i32[]", "f32[]", "f32[2, 3]", "f32[2, 3]", "f32[3]", "f32[3]"]);
    assert!((values(&variables[LEARNING_RATE])[0] - 1e-3).abs() < 1e-9);
    assert_eq!(Optimizer::from(SGD::default()).variables(&trainable).unwrap().len(), 2);
    let wild = Optimizer::from(SGD { learning_rate: f64::NAN, ..SGD::default() });
    assert!(matches!(wild.variables(&trainable), Err(Error::NonFinite { .. })));
}

#[test]
fn the_rate_in_force_is_the_variable() {
    let optimizer = Optimizer::from(SGD { learning_rate: 1.0, ..SGD::default() });
    let trainable = [t(&[1.], [1])];
    let mut variables = optimizer.variables(&trainable).unwrap();
    variables[LEARNING_RATE] = Tensor::scalar(0.25f32);
    let (moved, variables) = optimizer.stateless_apply(&variables, &[t(&[2.], [1])], &trainable).unwrap();
    assert_eq!(values(&moved[0]), [0.5]);
    assert_eq!(values(&variables[LEARNING_RATE]), [0.25]);
}

/// What depends on the iteration must not be computed once for each parameter, and parameters must not differ in
/// anything but their tensors, or they cannot share a dispatch.
#[test]
fn every_parameter_adds_the_same_ops() {
    let count = |n: usize| {
        let trainable: Vec<_> = (0..n).map(|_| Tensor::zeros([4])).collect();
        let optimizer = Optimizer::from(AdamW::default()).clip(Clip::Value(1.0));
        let variables = optimizer.variables(&trainable).unwrap();
        let (moved, new) = optimizer.stateless_apply(&variables, &trainable, &trainable).unwrap();
        let text = Graph::of(&[moved, new].concat()).unwrap().to_string();
        ["tanh", "sqrt", "div", "add", "sub", "mul"].map(|op| text.matches(&format!("= {op}(")).count())
    };
    let (one, two, three) = (count(1), count(2), count(3));
    for op in 0..one.len() {
        assert_eq!(two[op] - one[op], three[op] - two[op]);
    }
    // Two powers of the betas for the step, none for a parameter.
    assert_eq!((one[0], two[0]), (2, 2));
}

#[test]
fn a_state_of_one_optimizer_can_be_given_as_a_list() {
    let optimizer = Optimizer::from(Adam::default());
    let trainable = vec![t(&[1., 2.], [2])];
    let grads = trainable.clone();
    let variables = vec![optimizer.variables(&trainable).unwrap()];
    let (_, new): (_, Vec<Variables>) = optimizer.stateless_apply(&variables, &grads, &trainable).unwrap();
    assert_eq!((new.len(), new[0].len()), (1, 4));
    let two = vec![variables[0].clone(), variables[0].clone()];
    let message = optimizer.stateless_apply(&two, &grads, &trainable).unwrap_err().to_string();
    assert_eq!(message, "wrong state: the state holds the variables of 2 optimizers; pass those of one, by index");
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let optimizer = Optimizer::from(Adam::default());
    let trainable = vec![t(&[1., 2.], [2])];
    let variables = optimizer.variables(&trainable).unwrap();
    let apply = |v: &Variables, g: &[Tensor]| optimizer.stateless_apply(v, g, &trainable).unwrap_err().to_string();
    let short = variables[1..].to_vec();
    assert_eq!(apply(&short, &trainable), "wrong state: adam has 4 variables for 1 trainables, 3 were given");
    assert_eq!(apply(&variables, &[]), "wrong state: adam was given 0 gradients for 1 trainables");
    let message = apply(&variables, &[t(&[1.], [1])]);
    assert!(message.starts_with("adam: shapes [1] and [2] do not fit: a gradient must have the shape"), "{message}");
    let message = apply(&variables, &[Tensor::new(&[1i32, 2], [2])]);
    assert!(message.contains("only f32 parameters can be trained"), "{message}");
    let bad = Tensor::ones([2, 3]).matmul(&Tensor::ones([2, 3]));
    assert!(apply(&variables, &[bad]).starts_with("matmul: "));
}

#[test]
fn names_and_choices() {
    for name in ["SGD", "RMSprop", "Adam", "AdamW", "Adagrad", "Adadelta", "Adamax", "Nadam", "Lion"] {
        assert_eq!(get(name).unwrap().name(), name.to_lowercase());
    }
    let known = "sgd, rmsprop, adam, adamw, adagrad, adadelta, adamax, nadam, lion";
    assert_eq!(get("ftrl").unwrap_err().to_string(), format!("unknown optimizer \"ftrl\"; known: {known}"));
    let name = |choice: OptimizerChoice| choice.resolve().map(|o| o.unwrap().name().to_string());
    assert_eq!(name("Adam".into()).unwrap(), "adam");
    assert_eq!(name(SGD::default().into()).unwrap(), "sgd");
    assert_eq!(name(Optimizer::from(RMSprop::default()).into()).unwrap(), "rmsprop");
    assert!(name("nothing".into()).is_err());
}
