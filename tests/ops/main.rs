//! Every op, found through the registry: its derivatives in f64 against central differences, and its values on the
//! device against its f64 reference, alone and in company. A new op is tested by being in the registry. What needs a
//! device is in `device.rs`, which a browser runs too.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

#[path = "../common/mod.rs"]
mod common;
mod device;

use std::collections::BTreeSet;

use common::{Random, bool_if};
use device::{weighed, with_floats};
use wengert::dtype::DType;
use wengert::error::{Error, ErrorKind};
use wengert::gpu::Device;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::graph::display::{Graph, collect};
use wengert::graph::interpret::{Given, interpret};
use wengert::ops::{Example, registry};

// ---- derivatives, in f64 ----

/// Operands of an example, one random leaf each.
fn operands(example: &Example, random: &mut Random) -> Vec<Tensor> {
    let leaf = |s: &wengert::ops::Sample| bool_if(&random.leaf(&s.shape, s.dtype, s.domain, false), s.dtype);
    example.inputs.iter().map(leaf).collect()
}

/// What `stop_gradient` means: its value is held while the operands move.
fn held(loss: &Tensor) -> Given {
    let stops: Vec<_> =
        collect(std::slice::from_ref(loss)).unwrap().into_iter().filter(|n| n.op().name() == "stop_gradient").collect();
    let inputs: Vec<Tensor> = stops.iter().flat_map(|node| node.inputs()).collect();
    let values = interpret(&inputs, &Given::new()).unwrap();
    stops.iter().zip(values).map(|(node, value)| ((node.number(), 0), value)).collect()
}

/// Compares the gradient of `loss` by `floats` with central differences at some elements of each.
fn against_differences(name: &str, loss: &Tensor, floats: &[Tensor], gradient: &[Tensor]) {
    let analytic = interpret(gradient, &Given::new()).unwrap();
    let mut given = held(loss);
    for ((leaf, gradient), at) in floats.iter().zip(&analytic).zip(0u64..) {
        assert_eq!(leaf.shape(), gradient.shape, "{name}: the gradient of operand {at} has another shape");
        let (node, output) = leaf.node().unwrap();
        let base = interpret(std::slice::from_ref(leaf), &Given::new()).unwrap().remove(0);
        let n = base.data.len();
        let mut random = Random::new(7 + at);
        let sample: BTreeSet<usize> =
            if n <= 12 { (0..n).collect() } else { (0..12).map(|_| random.below(n)).collect() };
        for element in sample {
            // Truncation grows with the square of the distance, cancellation with its inverse: both are near 1e-10.
            let distance = 1e-5 * base.data[element].abs().max(0.1);
            let mut value = |by: f64| {
                let mut moved = base.clone();
                moved.data[element] += by;
                given.insert((node.number(), output), moved);
                interpret(std::slice::from_ref(loss), &given).unwrap()[0].data[0]
            };
            let difference = (value(distance) - value(-distance)) / (2.0 * distance);
            let tolerance = 1e-6 * (1.0 + difference.abs());
            let got = gradient.data[element];
            assert!(
                (got - difference).abs() <= tolerance,
                "{name}: derivative by element {element} of operand {at} is {got}, differences say {difference}\n{}",
                Graph::of(std::slice::from_ref(loss)).unwrap()
            );
        }
        given.insert((node.number(), output), base);
    }
}

#[test]
fn derivatives_agree_with_central_differences() {
    let registry = registry();
    let (mut checked, mut refused, mut without_floats) = (0, BTreeSet::new(), Vec::new());
    for (example, seed) in registry.iter().zip(1u64..) {
        let name = &example.name;
        let at = operands(example, &mut Random::new(seed));
        let floats: Vec<Tensor> = at.iter().filter(|t| t.dtype() == DType::F32).cloned().collect();
        if floats.is_empty() {
            without_floats.push(name.as_str());
            continue;
        }
        let loss = |w: &Vec<Tensor>| Ok(weighed(&(example.apply)(&with_floats(&at, w)), seed));
        let first = match grad(loss, &floats).map_err(Error::into_kind) {
            Ok(gradient) => gradient,
            Err(ErrorKind::NotDifferentiable { op, .. }) => {
                refused.insert(op);
                continue;
            }
            Err(error) => panic!("{name}: {error:?}"),
        };
        against_differences(name, &loss(&floats).unwrap(), &floats, &first);
        // The derivative is a graph like any other: differentiate it once more.
        let slope = |gradient: &[Tensor]| {
            gradient.iter().zip(100u64..).map(|(g, seed)| weighed(g, seed)).reduce(|a, b| a + b).unwrap()
        };
        let second =
            grad(|w: &Vec<Tensor>| Ok(slope(&grad(loss, w)?)), &floats).unwrap_or_else(|e| panic!("{name}: {e}"));
        against_differences(&format!("{name}, second order"), &slope(&first), &floats, &second);
        checked += 1;
    }
    println!("{checked} examples differentiated twice; without a float operand: {without_floats:?}");
    // Whoever adds an op without a derivative writes its name here, and why in its documentation.
    assert_eq!(refused.iter().map(String::as_str).collect::<Vec<_>>(), ["prod"]);
}

// ---- values, on the device ----

fn device() -> Device {
    Device::blocking().unwrap()
}

#[test]
fn values_on_the_device_agree_with_the_reference() {
    let compared = pollster::block_on(device::values_agree_with_the_reference(&device()));
    assert!(compared > 1000, "only {compared} results were compared");
}

#[test]
fn nan_and_infinity_pass_where_the_documentation_says_so() {
    pollster::block_on(device::nan_and_infinity_pass(&device()));
}

#[test]
fn folds_pass_nan_and_argmax_finds_it() {
    pollster::block_on(device::folds_pass_nan(&device()));
}

#[test]
fn random_numbers_are_those_of_the_host_bit_for_bit() {
    pollster::block_on(device::random_numbers_are_those_of_the_host(&device()));
}

#[test]
fn views_and_joins_give_the_answers_of_numpy() {
    pollster::block_on(device::views_and_joins_give_the_answers_of_numpy(&device()));
}
