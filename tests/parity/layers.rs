//! Layers other than convolutions: forward, gradients, new state.
//!
//! `generate/layers.py` says what the arrays of a case are. Every gradient is compared, by each input and each weight.

use wengert::dtype::DType;
use wengert::grad::value_and_grad;
use wengert::graph::{Spec, Tensor};
use wengert::layers::*;
use wengert::lower::Options;
use wengert::read::evaluate;

use crate::reference::{Reference, TOLERANCE, device};

struct Case<'a> {
    reference: &'a Reference,
    name: &'a str,
    mode: Mode,
    tolerance: f64,
}

impl Case<'_> {
    /// The arrays `name/kind0`, `name/kind1`, ...
    fn all(&self, kind: &str) -> Vec<Tensor> {
        let names = self.reference.names();
        let name = |i: &usize| format!("{}/{kind}{i}", self.name);
        let present = (0..).take_while(|i| names.contains(&name(i).as_str()));
        present.map(|i| self.reference.tensor(&name(&i))).collect()
    }

    fn run(&self, layer: &dyn Layer) {
        let Case { reference, name, mode, .. } = *self;
        let key = |kind: &str| format!("{name}/{kind}");
        let (inputs, weights, states) = (self.all("x"), self.all("w"), self.all("s"));
        assert!(layer.accepts().contains(&inputs.len()), "{name}");
        // With a batch of 1, as networks ask.
        let spec = |x: &Tensor| Spec::new([&[1], &x.shape()[1..]].concat(), x.dtype());
        let variables = layer.variables(&inputs.iter().map(spec).collect::<Vec<_>>()).unwrap();
        let shapes = |trainable: bool| -> Vec<_> {
            variables.iter().filter(|v| v.trainable == trainable).map(|v| v.shape.clone()).collect()
        };
        assert_eq!(shapes(true), weights.iter().map(Tensor::shape).collect::<Vec<_>>(), "{name}: weights");
        assert_eq!(shapes(false), states.iter().map(Tensor::shape).collect::<Vec<_>>(), "{name}: states");

        let cotangent = reference.tensor(&key("g"));
        let ((_, (y, new)), (dx, dw)) = value_and_grad(
            |(x, w): &(Vec<Tensor>, Vec<Tensor>)| {
                let mut context = Context::new(mode, w.clone(), states.clone());
                let y = layer.call(x, &mut context);
                Ok(((&y * &cotangent).sum(..), (y, context.into_states()?)))
            },
            &(inputs, weights),
        )
        .unwrap_or_else(|e| panic!("{name}: {e}"));
        // One plan for all, as in a step.
        let all: Vec<Tensor> = [&dx[..], &dw, &new, std::slice::from_ref(&y)].concat();
        evaluate(device(), &all, &Options::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        reference.check_within(&key("y"), &y, self.tolerance);
        for (i, state) in new.iter().enumerate() {
            reference.check_within(&key(&format!("n{i}")), state, self.tolerance);
        }
        let gradients: Vec<(String, &Tensor)> = (dx.iter().enumerate().map(|(i, d)| (key(&format!("dx{i}")), d)))
            .filter(|(k, _)| reference.names().contains(&k.as_str()))
            .chain(dw.iter().enumerate().map(|(i, d)| (key(&format!("dw{i}")), d)))
            .collect();
        let largest = |k: &String| reference.values(k).iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let scale = gradients.iter().map(|(k, _)| largest(k)).fold(0.0, f64::max);
        for (k, gradient) in &gradients {
            // A gradient that is zero by algebra, as that of the keys' bias, is rounding of the others' size in any
            // floating-point arithmetic, f64 included; and one number that sums over everything is rounded as its
            // terms are, which may cancel.
            if largest(k) < 1e-12 * scale || gradient.rank() == 0 {
                let values = gradient.to_vec_on::<f32>(device()).unwrap();
                let near = |(v, e): (&f32, &f64)| (f64::from(*v) - e).abs() <= self.tolerance * scale;
                assert!(values.iter().zip(reference.values(k)).all(near), "{k}: {values:?}");
            } else {
                reference.check_within(k, gradient, self.tolerance);
            }
        }
    }
}

fn infer(reference: &Reference, name: &str, layer: impl Layer) {
    Case { reference, name, mode: Mode::Infer, tolerance: TOLERANCE }.run(&layer);
}

#[test]
fn batch_normalization() {
    let reference = Reference::open("layers");
    for (name, mode) in [("train", Mode::Train), ("infer", Mode::Infer)] {
        let case = |group: &str, layer: BatchNormalization| {
            let name = format!("batch_norm{group}/{name}");
            Case { reference: &reference, name: &name, mode, tolerance: TOLERANCE }.run(&layer);
        };
        let new = BatchNormalization::new;
        case("", new());
        case("/rows", BatchNormalization { momentum: 0.7, epsilon: 1e-2, ..new() });
        case("/first", BatchNormalization { axis: 1, ..new() });
        case("/plain", BatchNormalization { center: false, scale: false, ..new() });
    }
    let train = |name, layer| Case { reference: &reference, name, mode: Mode::Train, tolerance: TOLERANCE }.run(&layer);
    train("batch_norm/scale/train", BatchNormalization { center: false, ..BatchNormalization::new() });
    train("batch_norm/center/train", BatchNormalization { scale: false, ..BatchNormalization::new() });
}

/// Values about 10,000 with a deviation of 1: f32 holds them to 0.0005, so what is computed from a rounded mean is off
/// by as much. The tolerance is that of all others.
#[test]
fn a_mean_much_larger_than_the_deviation_costs_no_digits() {
    let reference = Reference::open("layers");
    let name = "batch_norm/far";
    Case { reference: &reference, name, mode: Mode::Train, tolerance: TOLERANCE }.run(&BatchNormalization::new());
    infer(&reference, "layer_norm/far", LayerNormalization::new());
    infer(&reference, "group_norm/far", GroupNormalization::new(2));
}

#[test]
fn normalization_of_samples() {
    let reference = Reference::open("layers");
    let new = LayerNormalization::new;
    infer(&reference, "layer_norm", new());
    infer(&reference, "layer_norm/sequence", LayerNormalization { epsilon: 1e-5, ..new() });
    infer(&reference, "layer_norm/axes", LayerNormalization { axis: vec![1, 2], ..new() });
    infer(&reference, "layer_norm/middle", LayerNormalization { axis: vec![1], ..new() });
    infer(&reference, "layer_norm/plain", LayerNormalization { center: false, scale: false, ..new() });
    infer(&reference, "layer_norm/center", LayerNormalization { scale: false, ..new() });
    infer(&reference, "layer_norm/scale", LayerNormalization { center: false, ..new() });
    infer(&reference, "layer_norm/rms", LayerNormalization { rms_scaling: true, ..new() });
    infer(&reference, "rms_norm", RMSNormalization::new());
    infer(&reference, "rms_norm/axes", RMSNormalization { axis: vec![1, 2], epsilon: 1e-3 });
    infer(&reference, "group_norm", GroupNormalization::new(2));
    infer(&reference, "group_norm/first", GroupNormalization { axis: 1, ..GroupNormalization::new(3) });
    infer(&reference, "group_norm/instance", GroupNormalization { center: false, ..GroupNormalization::new(-1) });
    infer(&reference, "group_norm/center", GroupNormalization { scale: false, ..GroupNormalization::new(2) });
    infer(&reference, "unit_norm", UnitNormalization::new());
    infer(&reference, "unit_norm/axes", UnitNormalization { axis: vec![1, 2] });
}

#[test]
fn rectifiers_and_softmax() {
    let reference = Reference::open("layers");
    infer(&reference, "relu", ReLU::new());
    infer(&reference, "relu/six", ReLU { max_value: Some(6.0), ..ReLU::new() });
    infer(&reference, "relu/all", ReLU { max_value: Some(2.0), negative_slope: 0.2, threshold: 0.5 });
    infer(&reference, "relu/threshold", ReLU { threshold: 0.5, ..ReLU::new() });
    infer(&reference, "relu/slope", ReLU { negative_slope: 0.1, ..ReLU::new() });
    infer(&reference, "leaky_relu", LeakyReLU::default());
    infer(&reference, "prelu", PReLU::new());
    infer(&reference, "prelu/shared", PReLU { shared_axes: vec![1, 2], ..PReLU::new() });
    infer(&reference, "elu", ELU::default());
    infer(&reference, "elu/small", ELU::new(0.5));
    infer(&reference, "softmax", Softmax::new());
    infer(&reference, "softmax/middle", Softmax { axis: vec![1] });
    infer(&reference, "softmax/axes", Softmax { axis: vec![1, 2] });
    infer(&reference, "softmax/mask", Softmax::new());
}

#[test]
fn embedding() {
    let reference = Reference::open("layers");
    infer(&reference, "embedding", Embedding::new(6, 4));
    // Integers as such pick the same rows.
    let table = reference.tensor("embedding/w0");
    for index in [reference.ints("embedding/x0"), reference.ints("embedding/x0").cast(DType::U32)] {
        let y = Embedding::new(6, 4).call(&[index], &mut Context::new(Mode::Infer, vec![table.clone()], vec![]));
        reference.check_within("embedding/y", &y, 0.0);
    }
}

#[test]
fn merging() {
    let reference = Reference::open("layers");
    infer(&reference, "merge/add", Add);
    infer(&reference, "merge/multiply", Multiply);
    infer(&reference, "merge/average", Average);
    infer(&reference, "merge/maximum", Maximum);
    infer(&reference, "merge/minimum", Minimum);
    infer(&reference, "merge/subtract", Subtract);
    infer(&reference, "merge/concatenate", Concatenate { axis: 1 });
    infer(&reference, "merge/dot", Dot::new([2, 1]));
    infer(&reference, "merge/dot/vectors", Dot::new([-1, -1]));
    infer(&reference, "merge/dot/mixed", Dot::new([1, 2]));
    infer(&reference, "merge/dot/images", Dot::new([1, 3]));
    infer(&reference, "merge/dot/cosine", Dot { normalize: true, ..Dot::new([2, 2]) });
}

#[test]
fn images_and_shapes() {
    let reference = Reference::open("layers");
    infer(&reference, "pad", ZeroPadding2D::new([(1, 2), (0, 3)]));
    infer(&reference, "crop", Cropping2D::new([(1, 0), (1, 1)]));
    infer(&reference, "up/nearest", UpSampling2D::new([2, 3]));
    for (name, size) in [("", [2, 2]), ("/odd", [3, 1]), ("/four", [4, 5])] {
        let layer = UpSampling2D::new(size).interpolation(Interpolation::Bilinear);
        infer(&reference, &format!("up/bilinear{name}"), layer);
    }
    infer(&reference, "permute", Permute::new([3, 1, 2]));
    infer(&reference, "repeat", RepeatVector::new(3));
    infer(&reference, "rescaling", Rescaling::new(0.5).offset(-1.0));
}

#[test]
fn recurrent() {
    let reference = Reference::open("layers");
    infer(&reference, "simple_rnn", SimpleRNN::new(3));
    let relu = SimpleRNN { activation: "relu".into(), use_bias: false, ..SimpleRNN::new(3) };
    infer(&reference, "simple_rnn/relu", relu.return_sequences(true));
    infer(&reference, "lstm", LSTM::new(3));
    infer(&reference, "lstm/sequences", LSTM::new(3).return_sequences(true));
    let backwards = LSTM { return_sequences: true, go_backwards: true, use_bias: false, ..LSTM::new(3) };
    infer(&reference, "lstm/backwards", backwards);
    infer(&reference, "lstm/states", LSTM::new(3));
    infer(&reference, "gru", GRU::new(3));
    let cell = GRUCell { reset_after: false, ..GRU::new(3).cell };
    infer(&reference, "gru/before", GRU { cell, return_sequences: true, ..GRU::new(3) });
    let plain = GRU { use_bias: false, go_backwards: true, activation: "sigmoid".into(), ..GRU::new(3) };
    infer(&reference, "gru/plain", plain);
    infer(&reference, "gru/states", GRU::new(3));
}

#[test]
fn wrappers() {
    let reference = Reference::open("layers");
    infer(&reference, "bidirectional", Bidirectional::new(LSTM::new(3)));
    infer(&reference, "bidirectional/sequences", Bidirectional::new(GRU::new(3).return_sequences(true)));
    let merged = |mode, sequences| Bidirectional::new(SimpleRNN::new(3).return_sequences(sequences)).merge_mode(mode);
    infer(&reference, "bidirectional/sum", merged(MergeMode::Sum, false));
    infer(&reference, "bidirectional/mul", merged(MergeMode::Mul, true));
    infer(&reference, "bidirectional/ave", merged(MergeMode::Ave, false));
    infer(&reference, "bidirectional/states", merged(MergeMode::Concat, false));
    infer(&reference, "time_distributed", TimeDistributed::new(Dense::new(3).activation("tanh")));
}

#[test]
fn attention() {
    let reference = Reference::open("layers");
    let new = || MultiHeadAttention::new(2, 3);
    infer(&reference, "mha", new());
    let key = MultiHeadAttention { value_dim: Some(4), output_shape: Some(vec![7]), ..new() };
    infer(&reference, "mha/key", key);
    infer(&reference, "mha/plain", MultiHeadAttention { use_bias: false, ..MultiHeadAttention::new(3, 2) });
    infer(&reference, "mha/causal", new().use_causal_mask(true));
    infer(&reference, "mha/mask", new());
    infer(&reference, "mha/both", new().use_causal_mask(true));
    infer(&reference, "mha/shape", MultiHeadAttention { output_shape: Some(vec![2, 3]), ..new() });
    infer(&reference, "attention", Attention::new());
    infer(&reference, "attention/scale", Attention { use_scale: true, use_causal_mask: true, ..Attention::new() });
    let concat = Attention { use_scale: true, score_mode: ScoreMode::Concat, ..Attention::new() };
    infer(&reference, "attention/concat", concat);
}
