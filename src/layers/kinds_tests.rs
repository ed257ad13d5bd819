//! The layers beyond the basic ones: shapes, names of variables, messages, what is drawn, and how many dispatches.

use super::*;
use crate::gpu::Device;
use crate::graph::interpret::{Given, interpret};
use crate::lower::Options;

fn values(tensor: &Tensor) -> Vec<f64> {
    interpret(std::slice::from_ref(tensor), &Given::new()).unwrap().remove(0).data
}

fn network(shapes: &[&[usize]], layer: impl Into<LayerRef>) -> Result<Network> {
    let inputs: Vec<Symbolic> = shapes.iter().map(|&shape| Input(shape)).collect();
    Network::new(&inputs, &[layer.into().on(&inputs[..])])
}

fn names(shapes: &[&[usize]], layer: impl Into<LayerRef>) -> Vec<String> {
    network(shapes, layer).unwrap().variables().iter().map(|v| v.name.clone()).collect()
}

fn shape(shapes: &[&[usize]], layer: impl Into<LayerRef>) -> Shape {
    network(shapes, layer).unwrap().output_shapes().remove(0)
}

fn message(shapes: &[&[usize]], layer: impl Into<LayerRef>) -> String {
    network(shapes, layer).unwrap_err().to_string()
}

#[test]
fn names_of_layers_and_variables_are_those_of_keras() {
    let cell = |layer: &str| ["kernel", "recurrent_kernel", "bias"].map(|v| format!("{layer}/{v}")).to_vec();
    assert_eq!(names(&[&[5, 4]], LSTM::new(3)), cell("lstm/lstm_cell"));
    assert_eq!(names(&[&[5, 4]], GRU::new(3)), cell("gru/gru_cell"));
    assert_eq!(names(&[&[5, 4]], SimpleRNN::new(3)), cell("simple_rnn/simple_rnn_cell"));
    let both = [cell("bidirectional/forward_lstm/lstm_cell"), cell("bidirectional/backward_lstm/lstm_cell")].concat();
    assert_eq!(names(&[&[5, 4]], Bidirectional::new(LSTM::new(3))), both);
    let dense = ["time_distributed/dense/kernel", "time_distributed/dense/bias"];
    assert_eq!(names(&[&[5, 4]], TimeDistributed::new(Dense::new(3))), dense);
    let norm = ["gamma", "beta", "moving_mean", "moving_variance"].map(|v| format!("batch_normalization/{v}"));
    assert_eq!(names(&[&[4]], BatchNormalization::new()), norm);
    assert_eq!(names(&[&[4]], RMSNormalization::new()), ["rms_normalization/scale"]);
    assert_eq!(names(&[&[4]], PReLU::new()), ["p_re_lu/alpha"]);
    assert_eq!(names(&[&[4]], Embedding::new(3, 2)), ["embedding/embeddings"]);
    let parts = ["query", "key", "value", "attention_output"];
    let mha: Vec<_> =
        parts.iter().flat_map(|p| ["kernel", "bias"].map(|v| format!("multi_head_attention/{p}/{v}"))).collect();
    assert_eq!(names(&[&[5, 4], &[6, 4]], MultiHeadAttention::new(2, 3)), mha);
    let kinds: [(&str, &dyn Layer); 9] = [
        ("re_lu", &ReLU::new()),
        ("leaky_re_lu", &LeakyReLU::default()),
        ("elu", &ELU::default()),
        ("zero_padding2d", &ZeroPadding2D::default()),
        ("up_sampling2d", &UpSampling2D::default()),
        ("cropping2d", &Cropping2D::default()),
        ("spatial_dropout1d", &SpatialDropout1D::new(0.5)),
        ("repeat_vector", &RepeatVector::new(2)),
        ("identity", &Identity),
    ];
    kinds.iter().for_each(|(kind, layer)| assert_eq!(layer.kind(), *kind));
    assert_eq!((LSTM::new(1).type_name(), GRU::new(1).type_name()), ("LSTM", "GRU"));
}

#[test]
fn shapes_of_sequences_and_images() {
    assert_eq!(shape(&[&[5, 4]], LSTM::new(3)), [3].into());
    assert_eq!(shape(&[&[5, 4]], LSTM::new(3).return_sequences(true)), [5, 3].into());
    assert_eq!(shape(&[&[5, 4], &[3], &[3]], LSTM::new(3)), [3].into());
    assert_eq!(shape(&[&[5, 4]], Bidirectional::new(GRU::new(3).return_sequences(true))), [5, 6].into());
    assert_eq!(shape(&[&[5, 2, 4]], TimeDistributed::new(Flatten)), [5, 8].into());
    assert_eq!(shape(&[&[4, 6, 3]], UpSampling2D::new([2, 3])), [8, 18, 3].into());
    let first = UpSampling2D { channels_first: true, ..UpSampling2D::new([2, 3]) };
    assert_eq!(shape(&[&[3, 4, 6]], first), [3, 8, 18].into());
    assert_eq!(shape(&[&[4, 6, 3]], ZeroPadding2D::default()), [6, 8, 3].into());
    assert_eq!(shape(&[&[4, 6, 3]], Cropping2D::new([(1, 2), (0, 3)])), [1, 3, 3].into());
    assert_eq!(shape(&[&[7]], Embedding::new(9, 2)), [7, 2].into());
    assert_eq!(shape(&[&[4], &[4]], Dot::new([1, 1])), [1].into());
    assert_eq!(shape(&[&[2, 3], &[3]], Multiply), [2, 3].into());
    assert_eq!(shape(&[&[3], &[3]], Lambda::of(2, |x: &[Tensor]| &x[0] - &x[1] * 2.0)), [3].into());
    let attention = MultiHeadAttention { output_shape: Some(vec![2, 3]), ..MultiHeadAttention::new(2, 3) };
    assert_eq!(shape(&[&[4, 5], &[6, 5], &[6, 2], &[4, 6]], attention), [4, 2, 3].into());
}

#[test]
fn what_a_layer_cannot_take_is_refused_with_the_reason() {
    let says = |text: String, part: &str| assert!(text.contains(part), "{text}");
    says(message(&[&[4]], LSTM::new(3)), "it takes sequences, [batch, steps, features], of rank 3");
    says(message(&[&[5, 4], &[3]], LSTM::new(3)), "the inputs behind the first are the 2 initial states, [batch, 3]");
    says(message(&[&[5, 4], &[2]], GRU::new(3)), "the 1 initial states, [batch, 3]");
    says(message(&[&[5, 4]], GRU::new(0)), "gru: 0 units for 5 steps");
    says(message(&[&[5, 4]], GRU::new(3).dropout(2.0)), "gru: the rate is a fraction between 0 and 1, not 2");
    says(message(&[&[5, 4], &[3]], Bidirectional::new(LSTM::new(3))), "2 initial states for each direction");
    says(message(&[&[]], TimeDistributed::new(Dense::new(1))), "it takes sequences, [batch, steps, ..]");
    says(message(&[&[4]], LayerNormalization { axis: vec![2], ..Default::default() }), "there is no axis 2");
    says(message(&[&[4]], BatchNormalization { axis: 0, ..Default::default() }), "axis 0 is the batch");
    says(message(&[&[4]], BatchNormalization { momentum: 1.5, ..Default::default() }), "not at 1.5");
    says(message(&[&[6]], GroupNormalization::new(4)), "6 channels do not make 4 groups of one size");
    says(message(&[&[6]], GroupNormalization::new(0)), "the number of groups is positive");
    says(message(&[&[6]], UnitNormalization { axis: vec![] }), "at least one axis is needed");
    says(message(&[&[6]], ReLU { max_value: Some(-1.0), ..ReLU::new() }), "max_value cannot be -1");
    says(message(&[&[6]], LeakyReLU::new(-0.1)), "negative_slope cannot be -0.1");
    says(message(&[&[6]], PReLU { shared_axes: vec![2], ..PReLU::new() }), "axis 2 is not one behind the batch");
    says(message(&[&[6]], Embedding::new(0, 3)), "a table of 0 by 3");
    says(message(&[&[6, 6]], ZeroPadding2D::default()), "it takes images");
    says(message(&[&[2, 6, 1]], Cropping2D::new([(1, 1), (0, 0)])), "cropping 1 and 1 leaves nothing of axis 1");
    says(message(&[&[2, 6, 1]], UpSampling2D::new([0, 1])), "factors are at least 1, not [0, 1]");
    says(message(&[&[2, 6]], Permute::new([1, 1])), "[1, 1] does not name each of 1 to 2 once");
    says(message(&[&[2, 6]], Permute::new([1])), "[1] orders 1 axes behind the batch");
    says(message(&[&[2, 6]], RepeatVector::new(2)), "it takes vectors, [batch, features], of rank 2");
    says(message(&[&[3], &[4]], Dot::new([1, 1])), "3 elements along axis 1 do not meet 4 along axis 1");
    says(message(&[&[3], &[4]], Dot::new([0, 1])), "[0, 1] are not axes behind the batch");
    says(message(&[&[3], &[3], &[3]], Subtract), "subtract takes 2 inputs, 3 were given");
    says(message(&[&[3], &[4, 4]], MultiHeadAttention::new(2, 3)), "query, value and key are [batch, steps, features]");
    let mask = [&[4, 5][..], &[6, 5], &[6, 5], &[6, 4]];
    says(message(&mask, MultiHeadAttention::new(2, 3)), "the mask is [batch, query steps, key steps]");
    says(message(&[&[4, 5], &[6, 5]], MultiHeadAttention::new(0, 3)), "0 heads with keys of 3");
    says(message(&[&[4, 5], &[6, 4]], Attention::new()), "query and key have the same features");
    says(message(&[&[4], &[3]], SpatialDropout1D::new(0.5)), "spatial_dropout1d takes 1 inputs");
    says(message(&[&[4]], SpatialDropout2D::new(0.5)), "it takes images, [batch, height, width, channels], of rank 4");
}

#[test]
fn the_forget_gate_starts_open_unless_told_otherwise() {
    let bias = |layer: LSTM| network(&[&[5, 4]], layer).unwrap().init(0).unwrap().0.remove(2);
    let open = [0., 0., 1., 1., 0., 0., 0., 0.];
    assert_eq!(values(&bias(LSTM::new(2))), open);
    let cell = LSTMCell { unit_forget_bias: false, ..LSTM::new(2).cell };
    assert_eq!(values(&bias(LSTM { cell, ..LSTM::new(2) })), [0.; 8]);
    let unknown = LSTM { bias_initializer: "zeroes".into(), ..LSTM::new(2) };
    assert!(message(&[&[5, 4]], unknown).starts_with("unknown initializer \"zeroes\""));
}

#[test]
fn spatial_and_recurrent_dropout_drop_the_same_everywhere() {
    let seed = || Tensor::new(&[7u32, 3], [2]);
    let mut context = Context::new(Mode::Train, vec![], vec![seed()]);
    let y = values(&SpatialDropout1D::new(0.5).call(&[Tensor::ones([4, 3, 10])], &mut context));
    assert_eq!(values(&context.state(0)), [7., 4.]);
    let channel = |sample: usize, step: usize, c: usize| y[(sample * 3 + step) * 10 + c];
    let same = (0..4).all(|b| (0..10).all(|c| (1..3).all(|t| channel(b, t, c) == channel(b, 0, c))));
    assert!(same && y.contains(&0.0) && y.contains(&2.0), "{y:?}");

    // With identity projections and no recurrence, the outputs are the inputs as they were dropped.
    let layer = SimpleRNN { activation: "linear".into(), use_bias: false, dropout: 0.5, ..SimpleRNN::new(2) };
    let weights = vec![Tensor::new(&[1f32, 0., 0., 1.], [2, 2]), Tensor::zeros([2, 2])];
    let mut context = Context::new(Mode::Train, weights, vec![seed()]);
    let y = values(&layer.return_sequences(true).call(&[Tensor::ones([8, 3, 2])], &mut context));
    let same = y.chunks(6).all(|sample| sample[..2] == sample[2..4] && sample[..2] == sample[4..]);
    assert!(same && y.contains(&0.0) && y.contains(&2.0), "{y:?}");
}

#[test]
fn a_batch_of_another_size_goes_through_every_layer() {
    let shared = MultiHeadAttention::new(2, 3).dropout(0.1).shared();
    let x = Input([5, 4]);
    let y = LayerNormalization::new().on(shared.on([&x, &x]));
    let y = Bidirectional::new(LSTM::new(3).dropout(0.2)).on(BatchNormalization::new().on(&y));
    let network = Network::new(std::slice::from_ref(&x), &[y]).unwrap();
    let (trainable, state) = network.init(1).unwrap();
    for batch in [1, 3] {
        let (y, new) = network.call(&trainable, &state, &[Tensor::ones([batch, 5, 4])], Mode::Train).unwrap();
        assert_eq!(y[0].shape(), [batch, 6].into());
        assert_eq!(new.len(), state.len());
    }
}

/// The dispatches of a forward pass of rows long enough not to fall into a region.
fn dispatches(layer: &dyn Layer, weights: Vec<Tensor>) -> usize {
    let device = Device::blocking().unwrap();
    let given = Tensor::new(&vec![0.5f32; 256 * 512], [256, 512]).to(&device).unwrap();
    let y = layer.call(&[given], &mut Context::new(Mode::Infer, weights, vec![]));
    let plan = crate::read::evaluate(&device, &[y], &Options::default()).unwrap().unwrap();
    plan.lines.len()
}

#[test]
fn normalisation_and_softmax_are_one_dispatch_forward() {
    let vector = |value: f32| Tensor::new(&[value; 512], [512]);
    assert_eq!(dispatches(&LayerNormalization::new(), vec![vector(1.0), vector(0.5)]), 1);
    assert_eq!(dispatches(&RMSNormalization::new(), vec![vector(1.0)]), 1);
    assert_eq!(dispatches(&UnitNormalization::new(), vec![]), 1);
    assert_eq!(dispatches(&Softmax::new(), vec![]), 1);
}

/// Each step is a slice of one product and a part of one result: more tensors than a kernel can bind.
#[test]
fn a_long_sequence_is_not_one_expression_of_all_steps() {
    let device = Device::blocking().unwrap();
    let steps = 48;
    let layer = GRU::new(4).return_sequences(true);
    let x = Tensor::new(&(0..2 * steps * 3).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>(), [2, steps, 3]);
    let network = network(&[&[steps, 3]], layer.clone()).unwrap();
    let (weights, _) = network.init(5).unwrap();
    let run = |weights: &Vec<Tensor>| {
        Ok(layer
            .call(std::slice::from_ref(&x), &mut Context::new(Mode::Infer, weights.clone(), vec![]))
            .square()
            .sum(..))
    };
    let gradients = crate::grad::grad(run, &weights).unwrap();
    // Reading one computes the others, whose histories are then gone.
    let expected: Vec<_> = gradients.iter().map(values).collect();
    for (gradient, expected) in gradients.iter().zip(&expected) {
        let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let actual: Vec<f32> = gradient.to_vec_on(&device).unwrap();
        assert!(actual.iter().zip(expected).all(|(a, e)| (f64::from(*a) - e).abs() < 1e-5 * scale), "{actual:?}");
    }
}
