//! What a user reads when something does not fit: op, both shapes or dtypes, the reason, the line, the layers around
//! it. And that nothing panics: an ill-shaped op is a poisoned tensor that carries its error to a boundary.

#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use std::ops::Bound;

use common::{Random, bool_if};
use wengert::dtype::DType;
use wengert::error::{Error, ErrorKind};
use wengert::gpu::Device;
use wengert::grad::{grad, value_and_grad};
use wengert::graph::interpret::{Given, interpret};
use wengert::graph::{Scope, Tensor};
use wengert::ops::{Keep, Sample, concat, registry, stack};
use wengert::random;
use wengert::shape::Shape;
use wengert::step::{Logs, Step};

fn zeros(shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::new(&vec![0f32; shape.numel()], shape)
}

fn ints(shape: impl Into<Shape>) -> Tensor {
    let shape = shape.into();
    Tensor::new(&vec![0i32; shape.numel()], shape)
}

/// The message of a poisoned tensor, all but where it was recorded, which must be the line of the call.
macro_rules! says {
    ($tensor:expr, $text:expr) => {{
        let line = line!();
        let tensor = $tensor;
        let text = tensor.error().unwrap_or_else(|| panic!("line {line}: {tensor:?} is not poisoned")).to_string();
        let (what, place) = text.rsplit_once(" (at ").unwrap_or_else(|| panic!("no place: {text}"));
        assert_eq!(what, $text);
        assert!(place.starts_with(&format!("{}:{line}:", file!())), "line {line}: {text}");
    }};
}

#[test]
#[rustfmt::skip] // one call a line, since the line is a part of the message
fn messages_have_the_op_both_shapes_the_reason_and_the_line() {
    let (x, y, i) = (zeros([2, 3]), zeros([4]), ints([2, 3]));
    let bools = i.cast(DType::Bool);
    says!(&x + &y, "add: shapes [2, 3] and [4] do not fit: they do not broadcast");
    says!(x.maximum(&y), "maximum: shapes [2, 3] and [4] do not fit: they do not broadcast");
    says!(bools.select(&x, &y), "select: shapes [2, 3] and [2, 3] and [4] do not fit: they do not broadcast");
    says!(&x + &i, "add: dtypes f32 and i32 do not fit: they must be alike; cast one");
    says!(i.sqrt(), "sqrt: dtypes i32 do not fit: it takes f32");
    says!(x.and(&bools), "and: dtypes f32 and bool do not fit: they must be alike; cast one");
    says!(x.not(), "not: dtypes f32 do not fit: it takes bools");
    says!(x.select(&x, &x), "select: dtypes f32 and f32 and f32 do not fit: it takes a bool first");
    says!(bools.select(&x, &i), "select: dtypes bool and f32 and i32 do not fit: they must be alike; cast one");
    says!(bools.sum(..), "sum: dtypes bool do not fit: it takes numbers; cast first");
    says!(x.matmul(&zeros([2, 5])), "matmul: shapes [2, 3] and [2, 5] do not fit: the inner lengths 3 and 2 differ");
    says!(x.matmul(&zeros([3])), "matmul: shapes [2, 3] and [3] do not fit: both need two axes at least");
    says!(zeros([2, 1, 3]).matmul(&zeros([5, 3, 1])), "matmul: shapes [2, 1, 3] and [5, 3, 1] do not fit: the axes before the last two do not broadcast");
    says!(i.matmul(&ints([3, 2])), "matmul: dtypes i32 and i32 do not fit: it takes f32");
    says!(x.reshape([4]), "reshape: shapes [2, 3] do not fit: [4] has 4 elements, not 6");
    says!(x.broadcast_to([3, 2]), "broadcast: shapes [2, 3] do not fit: it does not broadcast to [3, 2]");
    says!(x.permute([0, 0]), "permute: shapes [2, 3] do not fit: [0, 0] does not name each axis once");
    says!(y.t(), "t: shapes [4] do not fit: two axes are needed");
    says!(x.slice(1, 2..5), "slice: shapes [2, 3] do not fit: 2..5 is not within axis 1");
    says!(x.slice(-3, ..), "slice: shapes [2, 3] do not fit: there is no axis -3");
    says!(x.pad(&[(1, 1)]), "pad: shapes [2, 3] do not fit: 1 pairs of widths were given");
    says!(x.flip(2), "flip: shapes [2, 3] do not fit: there is no axis 2");
    says!(x.squeeze(0), "squeeze: shapes [2, 3] do not fit: axis 0 is not of length 1");
    says!(x.unsqueeze(4), "unsqueeze: shapes [2, 3] do not fit: there is no axis 4");
    says!(x.sum(2), "sum: shapes [2, 3] do not fit: one of the axes does not exist in [2, 3]");
    says!(x.mean([0, -3]), "sum: shapes [2, 3] do not fit: one of the axes does not exist in [2, 3]");
    says!(x.max(Keep(5)), "max: shapes [2, 3] do not fit: one of the axes does not exist in [2, 3]");
    says!(x.argmax(2), "argmax: shapes [2, 3] do not fit: there is no axis 2");
    says!(zeros([2, 0]).argmax(1), "argmax: shapes [2, 0] do not fit: axis 1 is empty");
    says!(x.take(&y, 0), "take: dtypes f32 and f32 do not fit: indices are i32 or u32");
    says!(x.take(&i, 2), "take: shapes [2, 3] do not fit: there is no axis 2");
    says!(zeros([0, 3]).take(&i, 0), "take: shapes [0, 3] do not fit: axis 0 is empty");
    says!(concat(&[&x, &y], 0), "concat: shapes [2, 3] and [4] do not fit: all axes but 0 must agree");
    says!(concat(&[&x, &i], 0), "concat: dtypes f32 and i32 do not fit: they must be alike; cast one");
    says!(concat(&[&x], 2), "concat: shapes [2, 3] do not fit: there is no axis 2");
    says!(concat(&[], 0), "concat: nothing to join");
    says!(stack(&[&x, &y], 0), "concat: shapes [1, 2, 3] and [1, 4] do not fit: all axes but 0 must agree");
    says!(Tensor::iota([2, 3], 2), "iota: shapes  do not fit: [2, 3] has no axis 2");
    says!(random::bits(&y, [3]), "random: shapes [4] do not fit: a key is two words of u32");
    says!(random::fold_in(&random::key(1), -1.0), "-1 is not a value of u32");
    says!(&i + 0.5, "0.5 is not a value of i32");
    says!(&x + 1e39, "1e39 is not a value of f32");
    says!(bools.eq(2.0), "2 is not a value of bool");
    says!(Tensor::new(&[1f32, 2.0], [3]), "tensor: shapes [3] do not fit: 2 elements were given, the shape has 3");
    says!(Tensor::new(&[1f64, 1e39], [2]), "tensor: 1e39 is outside the range of f32");
    says!(Tensor::new(&[1i64 << 31], [1]), "tensor: 2147483648 is outside the range of i32");
}

#[test]
fn messages_name_the_layers_around() {
    let (x, y) = (zeros([2, 3]), zeros([4]));
    let outer = Scope::enter("encoder");
    let inner = Scope::enter("dense_1");
    let text = (&x + &y).error().unwrap().to_string();
    assert!(text.ends_with(", within encoder/dense_1)"), "{text}");
    drop(inner);
    let text = (&x + &y).error().unwrap().to_string();
    assert!(text.ends_with(", within encoder)"), "{text}");
    drop(outer);
    let text = (&x + &y).error().unwrap().to_string();
    assert!(!text.contains("within"), "{text}");
    let error = (&x + &y).error().cloned().unwrap();
    let ErrorKind::Shape { op, inputs, place, .. } = error.kind() else { panic!("not a shape error") };
    assert_eq!((op.as_str(), &inputs[..]), ("add", &[[2, 3].into(), [4].into()][..]));
    assert_eq!((place.at.file(), place.at.line()), (file!(), line!() - 3));
}

#[test]
fn derivatives_that_do_not_exist_are_errors() {
    let x = Tensor::new(&[1f32, 2.0], [2]);
    let through = |x: &Tensor| {
        let _scope = Scope::enter("head");
        x.exp().prod(..)
    };
    let line = line!() - 2;
    let error = grad(|x| Ok(through(x)), &x).unwrap_err();
    let ErrorKind::NotDifferentiable { op, place } = error.kind() else { panic!("{error}") };
    assert_eq!((op.as_str(), place.at.line(), &*place.within), ("prod", line, "head"));
    let text = format!(
        "prod has no derivative, but one was asked through it; cut the path with stop_gradient (at {}:{line}:17, within head)",
        file!()
    );
    assert_eq!(error.to_string(), text);
    // The cure works, and what is not on the path does not matter.
    let cut = grad(|x| Ok(through(&x.stop_gradient()) * x.sum(..)), &x).unwrap();
    let cut = interpret(&[cut], &Given::new()).unwrap().remove(0).data;
    assert!(cut.iter().all(|&g| (g - 3f64.exp()).abs() < 1e-9), "{cut:?}");
    grad(|x| Ok(x.sum(..) + through(&Tensor::new(&[1f32, 2.0], [2]))), &x).unwrap();

    let message = |result: Result<Tensor, Error>| result.unwrap_err().to_string();
    let text = message(grad(|x| Ok(x * 2.0), &x));
    assert!(
        text.starts_with("value_and_grad: shapes [2] do not fit: the loss must be one number; take its mean or sum"),
        "{text}"
    );
    let text = message(grad(|x| Ok(x.argmax(0)), &x));
    assert!(text.starts_with("value_and_grad: dtypes i32 do not fit: the loss must be f32"), "{text}");
    let text = message(grad(|i| Ok(i.cast(DType::F32).sum(..)), &ints([2])));
    assert!(text.starts_with("value_and_grad: dtypes i32 do not fit: only f32 has derivatives"), "{text}");
    for text in [message(grad(|x| Ok(x.sum(3)), &x)), message(grad(|x| Ok(x.sum(..)), &x.sum(3)))] {
        assert!(text.starts_with("sum: shapes [2] do not fit"), "{text}");
    }
    assert_eq!(message(grad(|_| Err(Error::data("empty")), &x)), "empty");
}

/// The bits of 1.5 are the i32 1069547520, which nobody wants to see.
#[test]
fn a_tensor_is_read_as_what_it_holds() {
    let (x, i, u) = (Tensor::new(&[1.5f32], [1]), ints([1]), Tensor::new(&[3u8], [1]));
    let device = Device::blocking().unwrap();
    assert_eq!((x.to_vec::<f64>().unwrap(), u.to_vec::<u32>().unwrap()), (vec![1.5], vec![3]));
    let truth = x.gt(1.0);
    assert_eq!(truth.to_vec_on::<u8>(&device).unwrap(), [1]);
    assert_eq!(truth.to_vec_on::<i32>(&device).unwrap(), [1]);
    for error in [
        x.to_vec::<i32>().unwrap_err(),
        x.to_vec::<u8>().unwrap_err(),
        i.to_vec_on::<f32>(&device).unwrap_err(),
        i.to_vec_on::<u32>(&device).unwrap_err(),
        truth.to_vec_on::<f32>(&device).unwrap_err(),
        u.to_vec::<i64>().unwrap_err(),
    ] {
        assert!(matches!(error.kind(), ErrorKind::DType { op, .. } if op == "read"), "{error}");
    }
}

/// Views of host data are read where the data lies; there is no device here.
#[test]
fn views_of_host_data_need_no_device() {
    let x = Tensor::new(&[1i32, 2, 3, 4, 5, 6], [3, 2]);
    let read = |t: Tensor| t.to_vec::<i32>().unwrap();
    assert_eq!(read(x.slice(0, 1..3)), [3, 4, 5, 6]);
    assert_eq!(read(x.t()), [1, 3, 5, 2, 4, 6]);
    assert_eq!(read(x.reshape([2, 3]).slice(1, 1..).flip(0)), [5, 6, 2, 3]);
    assert_eq!(read(x.slice(0, 2..).pad(&[(1, 0), (0, 1)])), [0, 0, 0, 5, 6, 0]);
    assert_eq!(read(x.slice(1, ..1).broadcast_to([3, 2])), [1, 1, 3, 3, 5, 5]);
    assert_eq!(read(x.slice(0, 1..1)), [0i32; 0]);
    assert!(matches!((&x + &x).to_vec::<i32>(), Err(error) if matches!(error.kind(), ErrorKind::Device { .. })));
}

#[test]
fn every_boundary_returns_the_error_of_a_poisoned_tensor() {
    let device = Device::blocking().unwrap();
    let poisoned = zeros([2]) + zeros([3]);
    let error = poisoned.error().unwrap().clone();
    assert_eq!(poisoned.ok().unwrap_err(), error);
    assert_eq!(poisoned.node().map(drop).unwrap_err(), error);
    assert_eq!(poisoned.to_vec::<f32>().unwrap_err(), error);
    assert_eq!(poisoned.to_vec_on::<f32>(&device).unwrap_err(), error);
    assert_eq!(poisoned.to(&device).unwrap_err(), error);
    assert_eq!(poisoned.dims::<2>().unwrap_err(), error);
    assert_eq!(value_and_grad(|x: &Tensor| Ok((x.sum(..), ())), &poisoned).map(drop).unwrap_err(), error);
    let mut step = Step::new(&device);
    let keep = |s: Tensor, _: &Tensor| Ok((Logs::default(), s));
    assert_eq!(step.run(&mut poisoned.clone(), &zeros([1]), keep).map(drop).unwrap_err(), error);
    assert_eq!(step.run(&mut zeros([1]), &poisoned, keep).map(drop).unwrap_err(), error);
    let given = |_: Tensor, x: &Tensor| Ok((Logs::from([("x", x + &poisoned)]), x.clone()));
    assert_eq!(step.run(&mut zeros([1]), &zeros([1]), given).map(drop).unwrap_err(), error);
    assert!(format!("{poisoned:?}").starts_with("poisoned: add: shapes [2] and [3]"));
}

#[test]
fn a_poisoned_tensor_answers_every_question() {
    let poisoned = zeros([2]) + zeros([3]);
    assert_eq!((poisoned.rank(), poisoned.shape(), poisoned.dtype()), (0, Shape::scalar(), DType::F32));
    assert_eq!([0, 1, 99].map(|axis| poisoned.dim(axis)), [1, 1, 1]);
    assert!(poisoned.spec().is_none() && poisoned.device().is_none() && !poisoned.same(&poisoned));
    // A sound one is asked beyond its axes.
    let sound = zeros([2, 3]);
    assert_eq!((sound.dim(1), sound.dim(2)), (3, 1));
    assert_eq!(sound.dims::<2>().unwrap(), [2, 3]);
    let text = sound.dims::<3>().unwrap_err().to_string();
    assert!(text.starts_with("dims: shapes [2, 3] do not fit: 3 axes were expected"), "{text}");
}

fn operand(sample: &Sample) -> Tensor {
    bool_if(&Random::new(1).leaf(&sample.shape, sample.dtype, sample.domain, false), sample.dtype)
}

#[test]
fn poison_passes_through_every_op_and_stays_the_first_error() {
    let poisoned = zeros([2]) + zeros([3]);
    let error = poisoned.error().unwrap();
    for example in registry() {
        for at in 0..example.inputs.len() {
            let mut operands: Vec<Tensor> = example.inputs.iter().map(operand).collect();
            operands[at] = poisoned.clone();
            let result = (example.apply)(&operands);
            assert_eq!(result.error(), Some(error), "{} with operand {at} poisoned", example.name);
        }
    }
}

/// Operands that do not belong: every op either refuses them or is right about them, forwards and backwards.
#[test]
fn no_op_panics_whatever_it_is_given() {
    let strangers = [
        zeros([]),
        zeros([0]),
        zeros([1]),
        zeros([7]),
        zeros([3, 0, 2]),
        zeros([2, 3, 4, 5]),
        ints([]),
        ints([4, 6]),
        ints([0, 6]),
        Tensor::new(&[0u32; 24], [4, 6]),
        ints([4, 6]).cast(DType::Bool),
        ints([1]).cast(DType::Bool),
    ];
    let (mut refused, mut taken) = (0, 0);
    for example in registry() {
        let own: Vec<Tensor> = example.inputs.iter().map(operand).collect();
        let mut tries: Vec<Vec<Tensor>> = Vec::new();
        for stranger in &strangers {
            tries.push(vec![stranger.clone(); own.len()]);
            for at in 0..own.len() {
                let mut operands = own.clone();
                operands[at] = stranger.clone();
                tries.push(operands);
            }
        }
        for operands in tries {
            let result = (example.apply)(&operands);
            let Some(spec) = result.spec().cloned() else {
                let text = result.error().unwrap().to_string();
                assert!(text.contains("do not fit") || text.contains("is not a value of"), "{}: {text}", example.name);
                refused += 1;
                continue;
            };
            let value = interpret(std::slice::from_ref(&result), &Given::new()).unwrap().remove(0);
            assert_eq!((&value.shape, value.data.len()), (&spec.shape, spec.shape.numel()), "{}", example.name);
            let floats: Vec<Tensor> = operands.iter().filter(|t| t.dtype() == DType::F32).cloned().collect();
            let loss = |floats: &Vec<Tensor>| {
                let mut floats = floats.iter();
                let own =
                    |t: &Tensor| if t.dtype() == DType::F32 { floats.next().unwrap_or(t).clone() } else { t.clone() };
                let operands: Vec<Tensor> = operands.iter().map(own).collect();
                Ok((example.apply)(&operands).cast(DType::F32).sum(..))
            };
            match grad(loss, &floats) {
                Ok(gradients) => drop(interpret(&gradients, &Given::new()).unwrap()),
                Err(error) if matches!(error.kind(), ErrorKind::NotDifferentiable { .. }) => {}
                Err(error) => panic!("{}: {error}", example.name),
            }
            taken += 1;
        }
    }
    assert!(refused > 500 && taken > 500, "{refused} refused, {taken} taken");
}

#[test]
fn no_argument_panics_however_large() {
    let (x, i) = (zeros([2, 3]), ints([2]));
    let most = usize::MAX;
    let refused = [
        x.slice(0, ..=most),
        x.slice(0, most..),
        x.slice(0, (Bound::Excluded(most), Bound::Unbounded)),
        x.slice(i32::MIN, ..),
        x.pad(&[(most, 1), (0, 0)]),
        x.pad(&[(0, most), (most, most)]),
        x.reshape([most, 2]),
        x.reshape([1 << 40, 1 << 40]),
        x.permute([most, 0]),
        x.sum(i32::MAX),
        x.sum([i32::MIN, 0]),
        x.unsqueeze(i32::MAX),
        x.unsqueeze(i32::MIN),
        x.squeeze(i32::MIN),
        x.softmax(i32::MIN),
        x.take(&i, i32::MIN),
        concat(&[&x], i32::MIN),
        Tensor::iota([2], most),
    ];
    for (number, tensor) in refused.iter().enumerate() {
        assert!(tensor.error().is_some(), "{number}: {tensor:?}");
    }
    // Larger than any memory, but a graph all the same: what refuses them is the device.
    for tensor in [
        i.one_hot(most),
        Tensor::zeros([most, 2]),
        Tensor::iota([1 << 40, 1 << 40], 0).cast(DType::F32),
        x.broadcast_to([most, 2, 3]),
    ] {
        let device = Device::blocking().unwrap();
        let result = tensor.to_vec_on::<f32>(&device).map(|values| values.len());
        assert!(
            matches!(result.as_ref().map_err(Error::kind), Err(ErrorKind::Limit { .. } | ErrorKind::Shape { .. })),
            "{result:?}"
        );
    }
    assert_eq!(x.flatten(most).shape(), [2, 3, 1].into());
}

#[test]
fn a_graph_needs_one_device() {
    let (a, b) = (Device::blocking().unwrap(), Device::blocking().unwrap());
    let text = (zeros([2]) + 1.0).to_vec::<f32>().unwrap_err().to_string();
    assert!(
        text.starts_with("nothing in the graph lies on a device; use read_on, or move an operand with to"),
        "{text}"
    );
    let sum = zeros([2]).exp().to(&a).unwrap() + zeros([2]).exp().to(&b).unwrap();
    let text = sum.to_vec::<f32>().unwrap_err().to_string();
    assert!(text.starts_with("the graph holds tensors of two devices; move one of them"), "{text}");
    let mut state = zeros([2]).exp().to(&a).unwrap();
    let error = Step::new(&b).run(&mut state, &(), |s: Tensor, _: &()| Ok((Logs::default(), s + 1.0))).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Device { .. }), "{error}");
    assert_eq!(state.to_vec::<f32>().unwrap(), [1.0, 1.0]);
}

/// What has no derivative is an error behind every kind of rule, slices included, and never a panic.
#[test]
fn an_op_without_a_derivative_behind_a_view_is_an_error() {
    let x = Tensor::new(&[1f32, 2.0, 3.0, 4.0], [4]);
    let refused = |result: Result<Tensor, Error>| {
        assert!(
            matches!(&result, Err(error) if matches!(error.kind(), ErrorKind::NotDifferentiable { op, .. } if op == "prod")),
            "{result:?}"
        );
    };
    refused(grad(|x| Ok(x.slice(0, 1..3).prod(..)), &x));
    refused(grad(|x| Ok(x.pad(&[(1, 2)]).prod(..)), &x));
    refused(grad(|x| Ok(x.reshape([2, 2]).t().prod(..)), &x));
    refused(grad(|x| Ok(x.reshape([2, 2]).max(-1).prod(..)), &x));
}
