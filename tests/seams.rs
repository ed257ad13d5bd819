//! What a reading of the compiler found where two of its parts meet: values that are overwritten while others are still to be
//! read, tensors that lie together, ops of several outputs, names that two ops share.
#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use common::{Random, read};
use wengert::gpu::{Device, DeviceOptions};
use wengert::grad::{checkpoint, grad, value_and_grad};
use wengert::graph::interpret::{Given, interpret};
use wengert::graph::{Tensor, Tree};
use wengert::ops::elementwise::{Elementwise, FLOAT, Row, Rule};
use wengert::ops::{Attend, Keep, attention, scan};
use wengert::step::{Logs, Step, assign};

fn devices() -> [Device; 2] {
    let portable = DeviceOptions { portable: true, ..DeviceOptions::default() };
    [Device::blocking().unwrap(), pollster::block_on(Device::with(portable)).unwrap()]
}

fn floats(seed: u64, shape: &[usize]) -> Tensor {
    Tensor::new(&Random::new(seed).floats(shape.iter().product(), (-1.0, 1.0), false), shape)
}

/// Runs a step that returns a new state, and compares it with the interpreter's.
fn check<B: Tree>(device: &Device, what: &str, state: &[Tensor], batch: &B, f: impl Fn(&[Tensor], &B) -> Vec<Tensor>) {
    let wanted = interpret(&f(state, batch), &Given::new()).unwrap();
    let mut state = state.to_vec();
    let run = |state: Vec<Tensor>, batch: &B| Ok((Logs::default(), f(&state, batch)));
    Step::new(device).run(&mut state, batch, run).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (index, (got, wanted)) in state.iter().zip(&wanted).enumerate() {
        let got = read(got, device).unwrap();
        let largest = wanted.data.iter().fold(1f64, |most, x| most.max(x.abs()));
        for (at, (got, wanted)) in got.iter().zip(&wanted.data).enumerate() {
            assert!((got - wanted).abs() <= 1e-4 * largest, "{what}, {index} at {at}: {got}, not {wanted}");
        }
    }
}

/// Adafactor's statistic of each row is read by all lanes that share the row, and one of them writes the new one over it.
#[test]
fn a_number_of_a_row_is_not_overwritten_before_all_lanes_have_read_it() {
    for device in devices() {
        for columns in [36, 300, 512, 1021, 2048, 5000] {
            let state = [floats(1, &[64]).abs() + 0.1, floats(2, &[64, columns])];
            check(&device, &format!("{columns} columns"), &state, &floats(3, &[64, columns]), |s, g| {
                let old = s[0].unsqueeze(-1);
                let row = &s[0] * 0.9 + g.square().mean(-1) * 0.1;
                vec![row.clone(), &s[1] - g * row.unsqueeze(-1).rsqrt() * old]
            });
        }
    }
}

#[test]
fn a_leaf_and_a_temporary_do_not_lie_together() {
    for device in devices() {
        // Two updates alike: one by another leaf, one by a sum that a kernel of its own computes.
        let state = [floats(1, &[512]), floats(2, &[512]), floats(3, &[512])];
        check(&device, "leaf and sum", &state, &floats(4, &[128, 512]), |s, x| {
            vec![&s[0] - &s[1] * 0.1, s[1].clone(), &s[2] - x.sum(0) * 0.1]
        });
    }
}

#[test]
fn what_lies_together_fits_into_a_binding() {
    // Three tensors of 48 MiB are more than the 128 MiB that a portable device binds.
    let [_, device] = devices();
    let mut state: Vec<Tensor> = (0..3).map(|_| Tensor::ones([48 << 18])).collect();
    let f = |s: Vec<Tensor>, _: &()| Ok((Logs::default(), s.iter().map(|s| s * 0.5 + 1.0).collect()));
    let mut step = Step::new(&device);
    step.run(&mut state, &(), f).unwrap();
    step.run(&mut state, &(), f).unwrap();
    for tensor in &state {
        assert_eq!(tensor.slice(0, (48 << 18) - 2..).to_vec_on::<f32>(&device).unwrap(), [1.75; 2]);
    }
    drop(state);
    // So are three tensors of a batch.
    let batch: Vec<Tensor> = (0..3).map(|_| Tensor::ones([48 << 18])).collect();
    let f = |s: Tensor, batch: &Vec<Tensor>| {
        let sum = batch.iter().map(|x| x.slice(0, ..5).sum(..)).fold(s, |sum, x| sum + x);
        Ok((Logs::default(), sum))
    };
    let mut sum = Tensor::scalar(0f32);
    Step::new(&device).run(&mut sum, &batch, f).unwrap();
    assert_eq!(sum.to_vec::<f32>().unwrap(), [15.0]);
}

/// Seven tensors, a number that another kernel computes, and the sum of all are nine buffers, where a portable device binds eight.
#[test]
fn numbers_count_among_what_a_kernel_binds() {
    for device in devices() {
        let x: Vec<Tensor> = (0..7).map(|seed| floats(seed, &[3000])).collect();
        let number = floats(7, &[4000]).sum(..).tanh();
        let sum = x.iter().fold(x[0].slice(0, ..1).broadcast_to([3000]), |sum, x| sum + x) + number;
        let wanted = interpret(std::slice::from_ref(&sum), &Given::new()).unwrap().remove(0);
        for (got, wanted) in read(&sum, &device).unwrap().iter().zip(&wanted.data) {
            assert!((got - wanted).abs() < 1e-5, "{got}, not {wanted}");
        }
    }
}

#[test]
fn what_spreads_one_number_over_a_part_is_masked_in_each_update() {
    for device in devices() {
        let state = [floats(1, &[6]), floats(2, &[9]), floats(3, &[1])];
        check(&device, "padded", &state, &(), |s, ()| {
            let spread = |n: usize, pad: usize| s[2].broadcast_to([n]).pad(&[(0, pad)]);
            vec![&s[0] - spread(4, 2), &s[1] - spread(5, 4), s[2].clone()]
        });
    }
}

#[test]
fn outputs_of_one_op_are_known_together() {
    let device = Device::blocking().unwrap();
    let q = floats(1, &[2, 5, 2, 8]);
    let o = attention(&q, &q, &q, &Attend::default()).to(&device).unwrap();
    assign(&device, &o, &Tensor::zeros([2, 5, 2, 8])).unwrap();
    assert_eq!((&o + 0.0).to_vec::<f32>().unwrap(), [0.0; 160]);
    // One that was not computed yet.
    let o = attention(&q, &q, &q, &Attend { causal: true, ..Attend::default() });
    assign(&device, &o, &Tensor::ones([2, 5, 2, 8])).unwrap();
    assert_eq!((&o * 2.0).to_vec_on::<f32>(&device).unwrap(), [2.0; 160]);
    // What only a derivative reads is there for it, also when the value was read before.
    let slope = |read: bool| {
        let f = |q: &Tensor| {
            let o = attention(q, q, q, &Attend::default());
            Ok((o.square().sum(..), o))
        };
        let ((_, o), g) = value_and_grad(f, &q).unwrap();
        if read {
            o.to_vec_on::<f32>(&device).unwrap();
        }
        g.to_vec_on::<f32>(&device).unwrap()
    };
    assert_eq!(slope(true), slope(false));
    // Long chains that nobody reads are computed in between.
    let mut h = Tensor::ones([4]).to(&device).unwrap();
    for _ in 0..600 {
        h = scan(3, h, (), |h, ()| Ok((&h * 0.5 + 1.0, ()))).unwrap().0;
    }
    assert_eq!(h.to_vec_on::<f32>(&device).unwrap(), [2.0; 4]);
    // A leaf of a state that a step goes on with.
    let turns = |x: &Tensor| scan(3, x.clone(), (), |h, ()| Ok((&h * 2.0, h.sum(..)))).unwrap().0;
    let mut state = turns(&Tensor::ones([4]));
    let mut step = Step::new(&device);
    for _ in 0..2 {
        step.run(&mut state, &(), |s, ()| Ok((Logs::default(), s + 1.0))).unwrap();
    }
    assert_eq!(state.to_vec::<f32>().unwrap(), [10.0; 4]);
    assert_eq!((&state * 1.0).to_vec::<f32>().unwrap(), [10.0; 4]);
    // An eager loop computes each turn once.
    let mut h = Tensor::ones([4]);
    let mut dispatches = Vec::new();
    for _ in 0..6 {
        let before = device.stats().dispatches;
        h = turns(&h);
        h.to_vec_on::<f32>(&device).unwrap();
        dispatches.push(device.stats().dispatches - before);
    }
    assert_eq!(h.to_vec::<f32>().unwrap(), [8f32.powi(6); 4]);
    assert!(dispatches.iter().all(|&count| count == dispatches[0]), "{dispatches:?}");
}

#[test]
fn a_checkpoint_has_the_derivative_by_an_input_that_it_captures_too() {
    let device = Device::blocking().unwrap();
    let w = Tensor::new(&[2f32, 3.0], [2]);
    let loss = |w: &Tensor| {
        let captured = w.clone();
        let f = checkpoint(move |t: &[Tensor]| Ok(vec![&t[0] * &captured]));
        Ok((f(std::slice::from_ref(w))?[0].sum(..), ()))
    };
    let ((value, ()), slope) = value_and_grad(loss, &w).unwrap();
    assert_eq!(value.to_vec_on::<f32>(&device).unwrap(), [13.0]);
    assert_eq!(slope.to_vec_on::<f32>(&device).unwrap(), [4.0, 6.0]);
}

/// Functions of one name: that of the crate's logistic function, and another.
static HALF: Row = Row {
    name: "half",
    text: "sigmoid_T($0)",
    helpers: "fn sigmoid_T(x: T) -> T {\n    return T(0.5) * x;\n}\n",
    reference: |x| 0.5 * x[0],
    rule: Rule::Zero,
    ..FLOAT
};
/// The same function, of another that is not.
static INNER: Row = Row {
    text: "both_T($0)",
    helpers: "fn own_T(x: T) -> T {\n    return x;\n}\nfn both_T(x: T) -> T {\n    return own_T(x);\n}\n",
    ..HALF
};
static OUTER: Row = Row {
    helpers: "fn own_T(x: T) -> T {\n    return -x;\n}\nfn both_T(x: T) -> T {\n    return own_T(x);\n}\n",
    ..INNER
};
static THIRD: Row = Row { helpers: "fn sigmoid_T(x: T) -> T {\n    return T(3.0) * x;\n}\n", ..HALF };

#[test]
fn functions_of_one_name_are_not_taken_for_each_other() {
    let device = Device::blocking().unwrap();
    let x = Tensor::new(&[2f32], [1]);
    let (half, third) = (Tensor::apply(Elementwise(&HALF), &[&x]), Tensor::apply(Elementwise(&THIRD), &[&x]));
    assert_eq!(half.to_vec_on::<f32>(&device).unwrap(), [1.0]);
    assert_eq!(third.to_vec_on::<f32>(&device).unwrap(), [6.0]);
    let both = Tensor::apply(Elementwise(&HALF), &[&x]) + x.sigmoid();
    let below = Tensor::apply(Elementwise(&INNER), &[&x]) + Tensor::apply(Elementwise(&OUTER), &[&x]);
    for (both, name) in [(both, "sigmoid_T"), (below, "own_T")] {
        let error = both.to_vec_on::<f32>(&device).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}; rename one")), "{error}");
    }
}

#[test]
fn powers_of_zero_have_derivatives() {
    let device = Device::blocking().unwrap();
    let x = Tensor::new(&[0f32, 2.0], [2, 1]);
    let exponents = Tensor::new(&[0f32, 1.0, 2.0, 3.0], [4]);
    let slope = grad(|x| Ok(x.pow(&exponents).sum(..)), &x).unwrap();
    assert_eq!(slope.to_vec_on::<f32>(&device).unwrap(), [1.0, 17.0]);
    let whole = Tensor::new(&[0i32, 1, 2, 3], [4]);
    let slope = grad(|x| Ok(x.powi(&whole).sum(..)), &x).unwrap();
    assert_eq!(slope.to_vec_on::<f32>(&device).unwrap(), [1.0, 17.0]);
    let curve = |f: &dyn Fn(&Tensor) -> Tensor| {
        let slope = |x: &Tensor| grad(|x| Ok(f(x).sum(..)), x).unwrap();
        grad(|x| Ok(slope(x).sum(..)), &x).unwrap().to_vec_on::<f32>(&device).unwrap()
    };
    assert_eq!(curve(&|x| x.pow(&exponents)), [2.0, 14.0]);
    assert_eq!(curve(&|x| x.powi(&whole)), [2.0, 14.0]);
    let far = Tensor::new(&[f32::INFINITY, f32::MAX, -1.0, 0.0, 1e-20], [5]).log1p();
    let far = far.to_vec_on::<f32>(&device).unwrap();
    assert_eq!((far[0], far[2], far[3], far[4]), (f32::INFINITY, f32::NEG_INFINITY, 0.0, 1e-20));
    assert!((far[1] - f32::MAX.ln()).abs() < 1e-4, "{far:?}");
}

#[test]
fn a_region_takes_so_many_values_and_the_next_one_the_others() {
    let device = Device::blocking().unwrap();
    let mut state: Vec<Tensor> = (0..1500).map(|i| Tensor::scalar(i as f32)).collect();
    let f = |s: Vec<Tensor>, _: &()| Ok((Logs::default(), s.iter().map(|s| s * 0.5 + 1.0).collect()));
    let mut step = Step::new(&device);
    let plan = step.plan_for(&mut state, &(), f).unwrap();
    assert!(plan.dispatches() > 1, "{plan}");
    step.run(&mut state, &(), f).unwrap();
    for at in [0usize, 700, 1499] {
        assert_eq!(state[at].to_vec::<f32>().unwrap(), [at as f32 * 0.5 + 1.0]);
    }
}

/// Standardised rows and columns against the definition, and second derivatives of both.
#[test]
fn standardisation_has_the_derivatives_of_its_definition() {
    let device = Device::blocking().unwrap();
    let (x, w) = (floats(1, &[6, 20]), floats(2, &[6, 20]));
    // A mean that is large against the deviation costs no digits.
    let far = (floats(3, &[6, 64]) + 1000.0).to(&device).unwrap();
    let far = Tensor::new(&far.to_vec::<f32>().unwrap(), [6, 64]);
    let wanted = interpret(&[far.standardize(-1, 1e-3)], &Given::new()).unwrap().remove(0);
    for (got, wanted) in read(&far.standardize(-1, 1e-3), &device).unwrap().iter().zip(&wanted.data) {
        assert!((got - wanted).abs() < 1e-5, "{got}, not {wanted}");
    }
    for axis in [-1, 0] {
        let plain = move |x: &Tensor| {
            let centred = x - x.mean(Keep(axis));
            &centred * (centred.square().mean(Keep(axis)) + 1e-2).rsqrt()
        };
        let slope = |f: &dyn Fn(&Tensor) -> Tensor, x: &Tensor| grad(|x| Ok((f(x).sin() * &w).sum(..)), x).unwrap();
        let curve = |f: &dyn Fn(&Tensor) -> Tensor| grad(|x| Ok((slope(f, x) * &w).sum(..)), &x).unwrap();
        let ours = move |x: &Tensor| x.standardize(axis, 1e-2);
        let wanted = interpret(&[plain(&x), slope(&plain, &x), curve(&plain)], &Given::new()).unwrap();
        for (got, wanted) in [ours(&x), slope(&ours, &x), curve(&ours)].iter().zip(&wanted) {
            for (got, wanted) in read(got, &device).unwrap().iter().zip(&wanted.data) {
                assert!((got - wanted).abs() < 2e-4, "{got}, not {wanted}");
            }
        }
        let spread = |x: &Tensor| grad(|x| Ok((x.var(axis).sin()).sum(..)), x).unwrap();
        let plain = |x: &Tensor| grad(|x| Ok(((x - x.mean(Keep(axis))).square().mean(axis).sin()).sum(..)), x).unwrap();
        let curve = |f: &dyn Fn(&Tensor) -> Tensor| grad(|x| Ok((f(x) * &w).sum(..)), &x).unwrap();
        let wanted = interpret(&[plain(&x), curve(&plain)], &Given::new()).unwrap();
        for (got, wanted) in [spread(&x), curve(&spread)].iter().zip(&wanted) {
            for (got, wanted) in read(got, &device).unwrap().iter().zip(&wanted.data) {
                assert!((got - wanted).abs() < 1e-5, "{got}, not {wanted}");
            }
        }
    }
}
