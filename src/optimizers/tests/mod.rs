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
    assert!(matches!(wild.variables(&trainable), Err(error) if matches!(error.kind(), ErrorKind::NonFinite { .. })));
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
    let known = "sgd, adam, adamw, rmsprop, adagrad, adadelta, adamax, nadam, lion";
    assert_eq!(get("ftrl").unwrap_err().to_string(), format!("unknown optimizer \"ftrl\"; known: {known}"));
    let name = |choice: OptimizerChoice| choice.resolve().map(|o| o.unwrap().name().to_string());
    assert_eq!(name("Adam".into()).unwrap(), "adam");
    assert_eq!(name(SGD::default().into()).unwrap(), "sgd");
    assert_eq!(name(Optimizer::from(RMSprop::default()).into()).unwrap(), "rmsprop");
    assert!(name("nothing".into()).is_err());
}

/// On the device, where f32 is what counts.
fn on_device(tensors: &[Tensor]) -> Vec<f64> {
    let device = crate::gpu::Device::blocking().unwrap();
    tensors.iter().flat_map(|tensor| tensor.to_vec_on::<f64>(&device).unwrap()).collect()
}

#[test]
fn the_bias_of_an_average_is_exact_at_any_count() {
    for beta in [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999] {
        let counts = [1i32, 2, 3, 10, 100, 1000, 100_000, 10_000_000];
        let biases = on_device(&counts.map(|t| rule::unbiased(beta, &Tensor::scalar(t))));
        for (t, bias) in counts.into_iter().zip(biases) {
            let expected = -(f64::from(t) * f64::ln(beta)).exp_m1();
            assert!((bias - expected).abs() <= 1e-6 * expected, "{beta}, {t}: {bias}, expected {expected}");
        }
    }
}

/// The count is a whole number, so that nothing stands still or comes twice after millions of batches.
#[test]
fn counts_are_exact_after_millions_of_batches() {
    let sgd = Optimizer::from(SGD { learning_rate: 1.0, ..SGD::default() });
    let optimizer = sgd
        .gradient_accumulation_steps(3)
        .ema(Ema { momentum: 0.5, overwrite_frequency: Some(2) })
        .learning_rate(schedules::PiecewiseConstantDecay::new(&[9_999_999, 20_000_000], &[1.0, 2.0, 4.0]));
    // 2^24 + 1 is the first whole number that f32 does not hold.
    for start in [9_999_996i32, 16_777_212, 1_999_999_998] {
        let (mut trainable, grads) = (vec![Tensor::zeros([1])], [t(&[1.0], [1])]);
        let mut variables = optimizer.variables(&trainable).unwrap();
        variables[ITERATION] = Tensor::scalar(start);
        let (mut p, mut average, mut sum) = (0.0, 0.0, 0.0);
        for count in start..start + 9 {
            (trainable, variables) = optimizer.stateless_apply(&variables, &grads, &trainable).unwrap();
            let rate = if count <= 9_999_999 {
                1.0
            } else if count <= 20_000_000 {
                2.0
            } else {
                4.0
            };
            sum += 1.0;
            if (count + 1) % 3 == 0 {
                p -= rate * sum / 3.0;
                sum = 0.0;
            }
            average = 0.5 * average + 0.5 * p;
            if (count / 3 + 1) % 2 == 0 {
                p = average;
            }
            let got = on_device(&[trainable[0].clone(), variables[1].clone(), variables[2].clone()]);
            let expected = [p, average, sum];
            assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{count}: {got:?}, {expected:?}");
        }
        assert_eq!(values(&variables[ITERATION]), [f64::from(start + 9)]);
    }
}

#[test]
fn options_outside_their_domains_are_refused() {
    let trainable = [Tensor::zeros([2])];
    let message = |optimizer: Optimizer| optimizer.variables(&trainable).unwrap_err().to_string();
    let sgd = || Optimizer::from(SGD::default());
    let momentum = message(SGD { momentum: 1.5, ..SGD::default() }.into());
    assert_eq!(momentum, "momentum of sgd lies between 0 and 1, it is 1.5");
    assert!(message(Adam { beta_2: f64::NAN, ..Adam::default() }.into()).contains("beta_2 of adam"));
    assert!(message(RMSprop { rho: -0.1, ..RMSprop::default() }.into()).contains("rho of rmsprop"));
    assert!(message(Lion { beta_1: 0.0, ..Lion::default() }.into()).contains("beta_1 of lion is above 0"));
    assert!(message(sgd().weight_decay(f64::INFINITY)).contains("weight decay"));
    for batches in [0, 1, u32::MAX] {
        assert!(message(sgd().gradient_accumulation_steps(batches)).contains("2 batches at least"));
    }
    assert!(message(sgd().ema(Ema { momentum: 1.5, ..Ema::default() })).contains("between 0 and 1, it is 1.5"));
    assert!(message(sgd().ema(Ema { overwrite_frequency: Some(0), ..Ema::default() })).contains("1 update at least"));
}

#[test]
fn schedules_outside_their_domains_are_refused() {
    use schedules::*;
    let trainable = [Tensor::zeros([2])];
    let message = |rate: LearningRate| {
        Optimizer::from(SGD::default()).learning_rate(rate).variables(&trainable).unwrap_err().to_string()
    };
    assert_eq!(message(CosineDecay::new(0.1, 0).into()), "decay_steps lies between 1 and 2^30, it is 0");
    assert!(message(ExponentialDecay::new(0.1, 5, 0.0).into()).contains("decay_rate is above 0"));
    assert!(message(PolynomialDecay::new(f64::NAN, 5).into()).contains("not finite"));
    assert!(message(InverseTimeDecay::new(0.1, u32::MAX, 0.5).into()).contains("decay_steps"));
    let restarts = CosineDecayRestarts { t_mul: 0.5, ..CosineDecayRestarts::new(0.1, 5) };
    assert_eq!(message(restarts.into()), "t_mul is 1 at least, not 0.5");
    assert!(message(PiecewiseConstantDecay::new(&[5], &[0.1]).into()).contains("1 boundaries part 2 values"));
    assert!(message(PiecewiseConstantDecay::new(&[5, 5], &[0.1, 0.2, 0.3]).into()).contains("do not increase"));
    // A closure is seen when it is asked.
    let apply = |schedule: fn(&Tensor) -> Tensor| {
        let optimizer = Optimizer::from(SGD::default()).learning_rate(schedule);
        let variables = optimizer.variables(&trainable).unwrap();
        optimizer.stateless_apply(&variables, &trainable, &trainable).unwrap_err().to_string()
    };
    let expected = "the schedule of sgd gives i32[]; a learning rate is one f32 number";
    assert_eq!(apply(|step| step.clone()), expected);
    assert!(apply(|_| Tensor::ones([2])).contains("gives f32[2]"));
    assert!(apply(|step| step.exp()).starts_with("exp: "));
}

#[test]
fn weight_decay_leaves_parameters_alone_by_name() {
    let trainable = [t(&[1.0], [1]), t(&[1.0], [1]), t(&[1.0], [1])];
    let names = ["bias_net/kernel", "bias_net/bias", "out/kernel"];
    let decayed = |words: &[&str]| -> Vec<f64> {
        let sgd = Optimizer::from(SGD { learning_rate: 1.0, ..SGD::default() }).weight_decay(0.5);
        let optimizer = sgd.exclude_from_weight_decay(words).for_parameters(names);
        let (variables, grads) = (optimizer.variables(&trainable).unwrap(), vec![Tensor::zeros([1]); 3]);
        optimizer.stateless_apply(&variables, &grads, &trainable).unwrap().0.iter().flat_map(values).collect()
    };
    assert_eq!(decayed(&[]), [0.5, 0.5, 0.5]);
    assert_eq!(decayed(&["bias"]), [0.5, 1.0, 0.5]);
    assert_eq!(decayed(&["out/", "bias"]), [0.5, 1.0, 1.0]);
    let unnamed = Optimizer::from(AdamW::default()).exclude_from_weight_decay(&["bias", "gamma"]);
    let message = unnamed.variables(&trainable).unwrap_err().to_string();
    assert!(message.contains("by name (bias, gamma), but the names of 0 of 3 are known"), "{message}");
}

/// A rule of somebody's own, with a shared number and a slot that starts elsewhere.
#[test]
fn a_rule_of_ones_own() {
    #[derive(Debug)]
    struct Counting {
        forgets: bool,
    }
    impl Rule for Counting {
        fn name(&self) -> &str {
            "counting"
        }
        fn slots(&self) -> Vec<Vec<&'static str>> {
            vec![vec!["height"]]
        }
        fn initial(&self, _: &str) -> f64 {
            3.0
        }
        fn shared(&self) -> Vec<(&'static str, f64)> {
            vec![("total", 10.0)]
        }
        fn scalars(&self, update: &Tensor, _: &Tensor, shared: &[Tensor]) -> Vec<Tensor> {
            if self.forgets { vec![] } else { vec![&shared[0] + update.cast(crate::dtype::DType::F32)] }
        }
        fn update(&self, p: &Tensor, _: &Tensor, slots: &[Tensor], scalars: &[Tensor]) -> (Tensor, Variables) {
            if self.forgets { (p.clone(), vec![]) } else { (p + &scalars[0], vec![&slots[0] * 2.0]) }
        }
    }
    let mut trainable = vec![t(&[0.0], [1])];
    let grads = trainable.clone();
    let optimizer = Optimizer::new(Counting { forgets: false }, 1.0).named("mine");
    let mut variables = optimizer.variables(&trainable).unwrap();
    for _ in 0..2 {
        (trainable, variables) = optimizer.stateless_apply(&variables, &grads, &trainable).unwrap();
    }
    assert_eq!(variables.iter().flat_map(values).collect::<Vec<_>>(), [2.0, 1.0, 12.0, 13.0]);
    assert_eq!((values(&trainable[0]), optimizer.name()), (vec![11.0 + 13.0], "mine"));
    let forgets = Optimizer::new(Counting { forgets: true }, 1.0);
    let message = forgets.stateless_apply(&variables, &grads, &trainable).unwrap_err().to_string();
    assert!(message.contains("counting keeps 1 slots, its update returned 0"), "{message}");
}
