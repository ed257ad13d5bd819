//! Layers and networks: shapes, names, numbers and messages. Numbers are the f64 interpreter's.

use super::*;
use crate::error::ErrorKind;
use crate::grad::grad;
use crate::graph::interpret::{Given, interpret};

fn values(tensor: &Tensor) -> Vec<f64> {
    interpret(std::slice::from_ref(tensor), &Given::new()).unwrap().remove(0).data
}

fn seed(state: u32, counter: u32) -> Tensor {
    Tensor::new(&[state, counter], [2])
}

fn one(x: &Symbolic, y: &Symbolic) -> Result<Network> {
    Network::new(std::slice::from_ref(x), std::slice::from_ref(y))
}

fn mlp() -> Network {
    Sequential::new([784])
        .add(Dense::new(512).activation("relu"))
        .add(Dropout::new(0.2))
        .add(Dense::new(10))
        .network()
        .unwrap()
}

/// The only output of a network with the variables of seed 0.
fn output(network: &Network, inputs: &[Tensor]) -> Result<Tensor> {
    let (trainable, non_trainable) = network.init(0)?;
    Ok(network.call(&trainable, &non_trainable, inputs, Mode::Infer)?.0.remove(0))
}

#[test]
fn names_shapes_and_counts_are_those_of_keras() {
    let network = mlp();
    let names: Vec<_> = network.variables().iter().map(|v| v.name.as_str()).collect();
    let expected = ["dense/kernel", "dense/bias", "dropout/seed_generator_state", "dense_1/kernel", "dense_1/bias"];
    assert_eq!(names, expected);
    assert_eq!(network.input_shapes(), [[784].into()]);
    assert_eq!(network.output_shapes(), [[10].into()]);
    assert_eq!(network.count_params(), 784 * 512 + 512 + 512 * 10 + 10);
    let (trainable, non_trainable) = network.init(0).unwrap();
    assert_eq!((trainable.len(), non_trainable.len()), (4, 1));
}

#[test]
fn summary_is_the_table_of_keras() {
    let expected = "\
Model: \"sequential\"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ dense (Dense)                   │ (None, 512)            │       401,920 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dropout (Dropout)               │ (None, 512)            │             0 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dense_1 (Dense)                 │ (None, 10)             │         5,130 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 407,050 (1.55 MB)
 Trainable params: 407,050 (1.55 MB)
 Non-trainable params: 0 (0.00 B)
";
    assert_eq!(mlp().summary(), expected);
}

#[test]
fn summary_of_a_graph_tells_connections() {
    let (a, b) = (Input([2]), Input([3]));
    let dense = Dense::new(4).shared();
    let (x, y) = (Dense::new(5).on(&a), Dense::new(5).on(&b));
    let sum = Add.on([&dense.on(&x), &dense.on(&y)]);
    let text = Network::new(&[a, b], &[sum]).unwrap().summary();
    let cell = |row: &str, column: usize| row.split('│').nth(column + 1).unwrap().trim().to_string();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with('│')).collect();
    assert_eq!(cell(rows[0], 0), "input_layer (InputLayer)");
    assert_eq!(cell(rows[4], 0), "dense_2 (Dense)");
    assert_eq!((cell(rows[4], 2).as_str(), cell(rows[5], 2).as_str()), ("24", "0"));
    assert_eq!(cell(rows[6], 3), "dense_2, dense_2");
    assert!(text.contains(" Total params: 59 (236.00 B)\n"), "{text}");
}

#[test]
fn dense_is_an_affine_map_of_the_last_axis() {
    let network = Sequential::new([2]).add(Dense::new(2).activation("relu")).network().unwrap();
    let trainable = [Tensor::new(&[1f32, -1., 2., 0.5], [2, 2]), Tensor::new(&[0.5f32, -0.5], [2])];
    let x = Tensor::new(&[1f32, 2., -3., 1.], [2, 2]);
    let (y, _) = network.call(&trainable, &[], &[x], Mode::Train).unwrap();
    assert_eq!(values(&y[0]), [5.5, 0.0, 0.0, 3.0]);

    let deep = Sequential::new([2, 2]).add(Dense::new(2).use_bias(false)).network().unwrap();
    let x = Tensor::new(&[1f32, 2., -3., 1., 0., 1., 1., 0.], [2, 2, 2]);
    let (y, _) = deep.call(&trainable[..1], &[], &[x], Mode::Train).unwrap();
    assert_eq!(y[0].shape(), [2, 2, 2].into());
    assert_eq!(values(&y[0]), [5., 0., -1., 3.5, 2., 0.5, 1., -1.]);
}

#[test]
fn activations_by_name_and_by_function() {
    let x = Tensor::new(&[-1f32, 0., 2.], [1, 3]);
    let apply = |activation: Activation| values(&activation.apply(&x));
    assert_eq!(apply("linear".into()), [-1., 0., 2.]);
    assert_eq!(apply("ReLU".into()), [0., 0., 2.]);
    assert_eq!(apply("swish".into()), apply("silu".into()));
    assert!((apply("softmax".into()).iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!((apply("sigmoid".into())[2] - 1.0 / (1.0 + (-2f64).exp())).abs() < 1e-12);
    assert!((apply("softplus".into())[1] - 2f64.ln()).abs() < 1e-12);
    assert_eq!(apply(Activation::function("double", |x: &Tensor| x * 2.0)), [-2., 0., 4.]);
    // At -1, 0 and 2, by the formulas of Keras.
    let (e, phi) = (1f64.exp(), [0.158_655_253_931_457_05, 0.977_249_868_051_820_8]);
    let mish = |x: f64| x * x.exp().ln_1p().tanh();
    let tanh_form =
        |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let by_hand: [(&str, [f64; 3]); 13] = [
        ("gelu", [-phi[0], 0.0, 2.0 * phi[1]]),
        ("gelu_tanh", [tanh_form(-1.0), 0.0, tanh_form(2.0)]),
        ("softsign", [-0.5, 0.0, 2.0 / 3.0]),
        ("elu", [1.0 / e - 1.0, 0.0, 2.0]),
        ("celu", [1.0 / e - 1.0, 0.0, 2.0]),
        ("selu", [1.050_700_987_355_480_5 * 1.673_263_242_354_377_2 * (1.0 / e - 1.0), 0.0, 2.101_401_974_710_961]),
        ("leaky_relu", [f64::from(-0.2f32), 0.0, 2.0]),
        ("relu6", [0.0, 0.0, 2.0]),
        ("hard_sigmoid", [1.0 / 3.0, 0.5, 5.0 / 6.0]),
        ("hard_swish", [-1.0 / 3.0, 0.0, 5.0 / 3.0]),
        ("hard_tanh", [-1.0, 0.0, 1.0]),
        ("mish", [mish(-1.0), 0.0, mish(2.0)]),
        ("log_sigmoid", [-e.ln_1p(), -(2f64.ln()), -(-2f64).exp().ln_1p()]),
    ];
    for (name, wanted) in by_hand {
        let got = apply(name.into());
        assert!(
            got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-12),
            "{name}: {got:?}, {wanted:?}"
        );
    }
    let sum_of_exp = |name: &str| apply(name.into()).iter().map(|x| x.exp()).sum::<f64>();
    assert!((sum_of_exp("log_softmax") - 1.0).abs() < 1e-12);
    assert!((apply("exponential".into())[2] - e * e).abs() < 1e-12);
    for name in ["linear", "relu", "gelu", "silu", "sigmoid", "tanh", "softmax", "softplus"] {
        let network = Sequential::new([3]).add(Activation::new(name)).network().unwrap();
        assert_eq!(output(&network, std::slice::from_ref(&x)).unwrap().shape(), [1, 3].into());
    }
}

#[test]
fn what_does_not_fit_surfaces_in_the_network_with_the_line_of_the_call() {
    let x = Input([]);
    let y = Dense::new(3).on(&x);
    let line = line!() - 1;
    let z = Dense::new(2).on(&y);
    let error = one(&x, &z).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Shape { op, inputs, .. } if op == "dense" && inputs[0] == [1].into()));
    let message = error.to_string();
    assert!(message.contains(&format!("src/layers/tests.rs:{line}:")), "{message}");
    assert!(message.contains("within dense)"), "{message}");

    // The second layer has the number that the network gives it.
    let x = Input([4]);
    let y = Reshape::new([3, -1]).on(Dense::new(4).on(Reshape::new([4, 1]).on(&x)));
    let message = one(&x, &y).unwrap_err().to_string();
    assert!(message.contains("the 16 elements of a batch entry do not fill [3, -1]"), "{message}");
    assert!(message.contains("within reshape_1)"), "{message}");

    let message = Sequential::new([4]).add(Dense::new(4).activation("rellu")).network().unwrap_err().to_string();
    assert!(message.starts_with("unknown activation \"rellu\"; known: linear, relu, gelu"), "{message}");
    let error = Sequential::new([4]).add(Dense::new(4).kernel_initializer("glorot")).network().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownName { kind: "initializer", .. }));
    let error = Sequential::new([4]).add(Dropout::new(1.5)).network().unwrap_err();
    assert_eq!(error.to_string(), "dropout: the rate is a fraction between 0 and 1, not 1.5");
}

#[test]
fn graphs_that_cannot_be_are_refused() {
    let (a, b) = (Input([4]), Input([4]));
    let sum = Add.on([&a, &b]);
    let message = one(&a, &sum).unwrap_err().to_string();
    assert!(message.contains("an input that is not among the network's inputs"), "{message}");
    let message = one(&a, &Dense::new(1).on([&a, &a])).unwrap_err().to_string();
    assert!(message.starts_with("dense takes 1 inputs, 2 were given (at "), "{message}");
    let twice = Dense::new(4).named("d").on(Dense::new(4).named("d").on(&a));
    assert_eq!(one(&a, &twice).unwrap_err().to_string(), "two layers are named d; names must be unique");
    assert!(one(&a, &Concatenate { axis: 0 }.on([&a, &a])).is_err());
    assert!(one(&a, &Add.on([&a, &Input([3])])).is_err());

    #[derive(Debug)]
    struct SumAll;
    impl Layer for SumAll {
        fn kind(&self) -> &str {
            "sum_all"
        }
        fn call(&self, inputs: &[Tensor], _: &mut Context) -> Tensor {
            inputs[0].sum(..)
        }
    }
    let message = one(&a, &SumAll.on(&a)).unwrap_err().to_string();
    assert!(message.contains("its first axis is not the batch"), "{message}");
}

#[test]
fn a_call_checks_what_it_is_given() {
    let network = mlp();
    let (trainable, state) = network.init(0).unwrap();
    let x = Tensor::zeros([3, 784]);
    let call = |trainable: &[Tensor], state: &[Tensor], x: &Tensor| {
        network.call(trainable, state, std::slice::from_ref(x), Mode::Infer).map(|(y, _)| y[0].shape())
    };
    assert_eq!(call(&trainable, &state, &x).unwrap(), [3, 10].into());
    assert_eq!(call(&trainable, &state, &Tensor::zeros([7, 784])).unwrap(), [7, 10].into());

    let error = call(&trainable, &state, &Tensor::zeros([3, 28, 28])).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Shape { .. }));
    let message = error.to_string();
    let expected = "input_layer of sequential: shapes [3, 28, 28] do not fit: the network takes (None, 784) (at ";
    assert!(message.starts_with(expected), "{message}");
    // Whole numbers and truth values are cast, as in Keras; a fraction would be lost, so it is refused.
    for whole in [Tensor::new(&[1i32; 784], [1, 784]), Tensor::new(&[1u8; 784], [1, 784]), x.slice(0, 0..1).eq(0.0)] {
        assert_eq!(call(&trainable, &state, &whole).unwrap(), [1, 10].into());
    }
    let ids = Symbolic::input([2], DType::I32);
    let table = Network::new(std::slice::from_ref(&ids), &[Embedding::new(3, 4).on(&ids)]).unwrap();
    let (rows, _) = table.init(0).unwrap();
    let look_up = |ids: Tensor| table.call(&rows, &[], &[ids], Mode::Infer).map(|(y, _)| y[0].shape());
    assert_eq!(look_up(Tensor::new(&[0u8, 2], [1, 2])).unwrap(), [1, 2, 4].into());
    assert!(matches!(look_up(Tensor::zeros([1, 2])), Err(error) if matches!(error.kind(), ErrorKind::DType { .. })));
    let nothing = Dense::new(0).on(Input([4])).shape().unwrap_err().to_string();
    assert_eq!(nothing, "dense: units is 0; it must be 1 or more");

    let message = call(&trainable[1..], &state, &x).unwrap_err().to_string();
    assert_eq!(message, "wrong state: sequential has 4 trainable variables, 3 were given");
    let mut wrong = trainable.clone();
    wrong.swap(0, 2);
    let message = call(&wrong, &state, &x).unwrap_err().to_string();
    assert_eq!(message, "wrong state: variable dense/kernel is f32[784, 512], f32[512, 10] was given");
    assert!(call(&trainable, &[], &x).is_err());
    assert!(network.call(&trainable, &state, &[x.clone(), x], Mode::Infer).is_err());
}

#[test]
fn initial_variables_follow_the_seed() {
    let bits = |seed: u64| {
        let (trainable, state) = mlp().init(seed).unwrap();
        let host = |t: &Tensor| t.node().map(|(node, output)| node.value(output).host.unwrap()).unwrap();
        trainable.iter().chain(&state).map(|t| host(t).to_vec()).collect::<Vec<_>>()
    };
    let (first, second) = (bits(1), bits(2));
    assert_eq!(first, bits(1));
    // Biases are zero whatever the seed; kernels and the seed of dropout differ.
    let differ: Vec<_> = first.iter().zip(&second).map(|(a, b)| a != b).collect();
    assert_eq!(differ, [true, false, true, false, true]);
    assert_eq!(first[4][1], 0);
}

#[test]
fn flatten_reshape_add_and_concatenate() {
    let x = Input([2, 3]);
    assert_eq!(Flatten.on(&x).shape().unwrap(), [6].into());
    assert_eq!(Flatten.on(Input([])).shape().unwrap(), [1].into());
    assert_eq!(Reshape::new([3, -1, 1]).on(&x).shape().unwrap(), [3, 2, 1].into());
    assert!(Reshape::new([-1, -1]).on(&x).shape().is_err());
    assert!(Reshape::new([4, -1]).on(&x).shape().is_err());
    assert_eq!(Concatenate::default().on([&x, &Input([2, 1])]).shape().unwrap(), [2, 4].into());
    assert_eq!(Concatenate { axis: 1 }.on([&x, &x]).shape().unwrap(), [4, 3].into());

    // [batch, 3] adds to [batch, 2, 3] along its own last axis, whatever the batch.
    let y = Input([3]);
    let network = Network::new(&[x.clone(), y.clone()], &[Add.on([&x, &y])]).unwrap();
    let a = Tensor::new(&(0..12).collect::<Vec<i32>>(), [2, 2, 3]).cast(DType::F32);
    let b = Tensor::new(&[100f32, 200., 300., 1000., 2000., 3000.], [2, 3]);
    let sum = output(&network, &[a, b]).unwrap();
    assert_eq!(values(&sum), [100., 201., 302., 103., 204., 305., 1006., 2007., 3008., 1009., 2010., 3011.]);
}

#[test]
fn dropout_scales_what_it_keeps_and_follows_its_state() {
    let layer = Dropout::new(0.25);
    let n = 20_000;
    let x = Tensor::ones([n / 10, 10]);
    let drop = |state: Tensor| {
        let mut context = Context::new(Mode::Train, vec![], vec![state]);
        let y = layer.call(std::slice::from_ref(&x), &mut context);
        (values(&y), values(&context.into_states().unwrap()[0]))
    };
    let (y, state) = drop(seed(7, 41));
    assert_eq!(state, [7., 42.]);
    assert!(y.iter().all(|&v| v == 0.0 || (v - 1.0 / 0.75).abs() < 1e-6));
    // Five standard deviations of a mean of n Bernoulli draws.
    let mean = y.iter().sum::<f64>() / n as f64;
    assert!((mean - 1.0).abs() < 5.0 * (0.25f64 / 0.75 / n as f64).sqrt(), "mean {mean}");
    assert_eq!(y, drop(seed(7, 41)).0);
    assert_ne!(y, drop(seed(7, 42)).0);
    assert_ne!(y, drop(seed(8, 41)).0);

    let mut context = Context::new(Mode::Infer, vec![], vec![seed(7, 41)]);
    assert!(layer.call(std::slice::from_ref(&x), &mut context).same(&x));
    assert_eq!(values(&context.state(0)), [7., 41.]);
}

#[test]
fn dropout_passes_gradients_where_it_passes_values_and_drops_all_at_rate_1() {
    for rate in [0.5, 1.0] {
        let x = Tensor::new(&[1f32, 2., 3., 4., 5., 6., 7., 8.], [2, 4]);
        let call = |x: &Tensor| {
            Dropout::new(rate).call(std::slice::from_ref(x), &mut Context::new(Mode::Train, vec![], vec![seed(1, 0)]))
        };
        let slope = grad(|x: &Tensor| Ok(call(x).sum(..)), &x).unwrap();
        let expected: Vec<_> = values(&call(&x)).iter().map(|&y| if y == 0.0 { 0.0 } else { 2.0 }).collect();
        assert_eq!(values(&slope), expected);
        assert_eq!(expected.iter().all(|&v| v == 0.0), rate == 1.0);
    }
}

#[test]
fn a_fixed_seed_overrides_that_of_the_network() {
    let network = Sequential::new([4]).add(Dropout::new(0.5).seed(3)).network().unwrap();
    for seed in 0..3 {
        assert_eq!(values(&network.init(seed).unwrap().1[0]), [3., 0.]);
    }
    // Nothing is dropped at rate 0, so nothing is kept for it.
    assert!(Sequential::new([4]).add(Dropout::new(0.0)).network().unwrap().variables().is_empty());
}

#[test]
fn a_shared_layer_has_one_set_of_variables_and_threads_its_state() {
    let x = Input([3]);
    let (dense, dropout) = (Dense::new(3).shared(), Dropout::new(0.5).shared());
    let y = dropout.on(dense.on(dropout.on(dense.on(&x))));
    let network = one(&x, &y).unwrap();
    let names: Vec<_> = network.variables().iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["dense/kernel", "dense/bias", "dropout/seed_generator_state"]);
    let (trainable, state) = network.init(0).unwrap();
    let (_, state) = network.call(&trainable, &state, &[Tensor::ones([2, 3])], Mode::Train).unwrap();
    assert_eq!(values(&state[0])[1], 2.0);

    let wide = Input([5]);
    let network = Network::new(&[x.clone(), wide.clone()], &[dense.on(&x), dense.on(&wide)]);
    let message = network.unwrap_err().to_string();
    assert_eq!(message, "wrong state: dense is shared, but its calls need variables of different shapes");
}

#[test]
fn networks_nest_and_can_begin_inside() {
    let x = Input([4]);
    let hidden = Dense::new(3).named("hidden").on(&x);
    let y = Dense::new(2).on(Dropout::new(0.5).on(&hidden));
    let whole = one(&x, &y).unwrap();
    let tail = one(&hidden, &y).unwrap();
    assert_eq!(tail.input_shapes(), [[3].into()]);
    assert_eq!(tail.variables().len(), 3);

    let z = Input([4]);
    let outer = one(&z, &Dense::new(1).on(whole.clone().named("body").on(&z))).unwrap();
    assert_eq!(outer.variables()[0].name, "body/hidden/kernel");
    let (trainable, state) = outer.init(0).unwrap();
    let batch = Tensor::new(&[1f32, 2., 3., 4.], [1, 4]);
    let (_, new) = outer.call(&trainable, &state, std::slice::from_ref(&batch), Mode::Train).unwrap();
    assert_eq!(values(&new[0])[1], 1.0);
    let (inner, _) = whole.call(&trainable[..4], &state, std::slice::from_ref(&batch), Mode::Infer).unwrap();
    let expected = inner[0].matmul(&trainable[4]) + &trainable[5];
    let (outputs, _) = outer.call(&trainable, &state, &[batch], Mode::Infer).unwrap();
    assert_eq!(values(&outputs[0]), values(&expected));

    let two = Network::new(std::slice::from_ref(&x), &[hidden, y]).unwrap();
    let message = one(&x, &two.on(&x)).unwrap_err().to_string();
    assert_eq!(message, "functional has not one output, so it cannot be a layer");
}

#[test]
fn a_context_refuses_what_a_layer_does_not_have() {
    let mut context = Context::new(Mode::Train, vec![], vec![seed(0, 0)]);
    assert!(matches!(context.weight(0).error(), Some(error) if matches!(error.kind(), ErrorKind::State { .. })));
    assert!(matches!(context.state(1).error(), Some(error) if matches!(error.kind(), ErrorKind::State { .. })));
    context.set_state(0, Tensor::zeros([2]));
    let message = context.into_states().unwrap_err().to_string();
    assert!(message.contains("replaced its variable 0, u32[2]"), "{message}");
}

#[test]
fn ops_of_a_layer_are_within_it() {
    let network = mlp();
    let y = output(&network, &[Tensor::ones([2, 784])]).unwrap();
    assert_eq!(&*y.node().unwrap().0.place().within, "dense_1");
}
