//! Optimizers: ten steps each, with their options.

use wengert::graph::Tensor;
use wengert::layers::{Dense, Sequential};
use wengert::model::{Compile, Fit, Train, Verbose};
use wengert::optimizers::schedules::{CosineDecay, ExponentialDecay};
use wengert::optimizers::{
    Adadelta, Adagrad, Adam, AdamW, Adamax, Clip, Ema, Lion, Nadam, Optimizer, RMSprop, SGD, Variables,
};
use wengert::step::{Logs, Step};

use crate::reference::{Reference, TOLERANCE, close, device};

const STEPS: usize = 10;
const NAMES: [&str; 3] = ["kernel", "bias", "embeddings"];

/// The same steps as a recorded step that is replayed; parameters after each, and the variables after the last.
fn run(reference: &Reference, optimizer: &Optimizer) -> (Vec<Vec<Vec<f32>>>, Variables) {
    let read = |tensors: &[Tensor]| tensors.iter().map(|t| t.to_vec_on(device()).unwrap()).collect();
    let trainable: Vec<Tensor> = (0..NAMES.len()).map(|i| reference.tensor(&format!("start/{i}"))).collect();
    let variables = optimizer.variables(&trainable).unwrap();
    let (mut state, mut step) = ((trainable, variables), Step::new(device()));
    let mut path = Vec::new();
    for number in 0..STEPS {
        let gradients: Vec<Tensor> =
            (0..NAMES.len()).map(|i| reference.tensor(&format!("gradients/{number}/{i}"))).collect();
        step.run(&mut state, &gradients, |(trainable, variables), gradients| {
            let (trainable, variables) = optimizer.stateless_apply(&variables, gradients, &trainable)?;
            Ok((Logs::default(), (trainable, variables)))
        })
        .unwrap();
        path.push(read(&state.0));
    }
    (path, state.1)
}

/// Parameters after some steps, and every variable in Keras' order.
fn check(case: &str, optimizer: impl Into<Optimizer>) {
    let reference = Reference::open("optimizers");
    let (path, variables) = run(&reference, &optimizer.into().for_parameters(NAMES));
    for step in [0, 1, STEPS - 1] {
        for (index, values) in path[step].iter().enumerate() {
            let name = format!("{case}/parameters/{index}/{step}");
            let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
            close(&name, &values, reference.values(&name), TOLERANCE);
            // What the parameters moved by, which is small against them: besides, half a unit in the last place of a
            // parameter for each step that moved it. The bias starts from 0, so its first step has no such slack.
            let start = reference.values(&format!("start/{index}"));
            let moved = |values: &[f64]| values.iter().zip(start).map(|(a, b)| a - b).collect::<Vec<f64>>();
            let largest = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let expected = moved(reference.values(&name));
            let rounding = match largest(&expected) {
                0.0 => 0.0,
                scale => largest(start) * f64::from(f32::EPSILON) / 2.0 * (step + 1) as f64 / scale,
            };
            close(&format!("{name}, moved"), &moved(&values), &expected, TOLERANCE + rounding);
        }
    }
    let stored = reference.names().iter().filter(|name| name.starts_with(&format!("{case}/variables/"))).count();
    assert_eq!(variables.len(), stored, "{case}");
    for (index, variable) in variables.iter().enumerate() {
        let name = format!("{case}/variables/{index}");
        match index {
            0 => assert_eq!(variable.to_vec_on::<i32>(device()).unwrap(), [STEPS as i32], "{name}"),
            _ => reference.check(&name, variable),
        }
    }
}

#[test]
fn sgd() {
    check("sgd", SGD::default());
    let momentum = SGD { learning_rate: 0.1, momentum: 0.9, nesterov: false };
    check("sgd_momentum", momentum);
    check("sgd_nesterov", SGD { nesterov: true, ..momentum });
}

#[test]
fn rmsprop() {
    check("rmsprop", RMSprop::default());
    check("rmsprop_momentum", RMSprop { learning_rate: 0.01, rho: 0.8, momentum: 0.5, ..RMSprop::default() });
    let centered = RMSprop { learning_rate: 0.01, momentum: 0.9, centered: true, epsilon: 1e-3, ..RMSprop::default() };
    check("rmsprop_centered", centered);
}

#[test]
fn adam() {
    check("adam", Adam::default());
    let options = Adam { learning_rate: 0.01, beta_1: 0.8, beta_2: 0.9, amsgrad: true, ..Adam::default() };
    check("adam_amsgrad", options);
    check("adamw", AdamW { learning_rate: 0.01, ..AdamW::default() });
    let decays = Optimizer::from(AdamW { learning_rate: 0.01, weight_decay: 0.1, ..AdamW::default() });
    check("adamw_excluded", decays.exclude_from_weight_decay(&["bias"]));
}

#[test]
fn adagrad_and_adadelta() {
    check("adagrad", Adagrad::default());
    check("adagrad_initial", Adagrad { learning_rate: 0.1, initial_accumulator_value: 0.5, epsilon: 1e-3 });
    check("adadelta", Adadelta::default());
    check("adadelta_rate", Adadelta { learning_rate: 1.0, rho: 0.8, epsilon: 1e-3 });
}

#[test]
fn adamax_and_nadam() {
    check("adamax", Adamax::default());
    check("adamax_options", Adamax { learning_rate: 0.01, beta_1: 0.8, beta_2: 0.9, ..Adamax::default() });
    check("nadam", Nadam::default());
    check("nadam_options", Nadam { learning_rate: 0.01, beta_1: 0.8, beta_2: 0.9, ..Nadam::default() });
}

#[test]
fn lion() {
    check("lion", Lion::default());
    let lion = Optimizer::from(Lion { learning_rate: 0.01, beta_1: 0.8, beta_2: 0.9 });
    check("lion_options", lion.weight_decay(0.1));
}

/// With momentum: 0.9 and a rate of 0.1.
fn momentum() -> Optimizer {
    SGD { learning_rate: 0.1, momentum: 0.9, nesterov: false }.into()
}

fn adam_001() -> Optimizer {
    Adam { learning_rate: 0.01, ..Adam::default() }.into()
}

#[test]
fn clipping() {
    check("clipvalue", momentum().clip(Clip::Value(0.5)));
    check("clipnorm", momentum().clip(Clip::Norm(1.5)));
    check("global_clipnorm", adam_001().clip(Clip::GlobalNorm(1.5)));
}

#[test]
fn averages() {
    let sgd = Optimizer::from(SGD { learning_rate: 0.1, ..SGD::default() });
    check("ema", sgd.ema(Ema { momentum: 0.9, ..Ema::default() }));
    check("ema_overwrite", adam_001().ema(Ema { momentum: 0.7, overwrite_frequency: Some(3) }));
}

#[test]
fn accumulation() {
    check("accumulation", momentum().gradient_accumulation_steps(3));
    let nadam = Optimizer::from(Nadam { learning_rate: 0.01, ..Nadam::default() });
    check("accumulation_nadam", nadam.gradient_accumulation_steps(2));
    let ema = Ema { momentum: 0.8, overwrite_frequency: Some(2) };
    check("accumulation_ema", adam_001().gradient_accumulation_steps(2).ema(ema));
}

#[test]
fn scheduled_rates_and_everything_together() {
    let decay = CosineDecay { warmup_target: Some(0.05), warmup_steps: 3, ..CosineDecay::new(0.01, 8) };
    let rmsprop = Optimizer::from(RMSprop { momentum: 0.5, ..RMSprop::default() });
    check("scheduled", rmsprop.learning_rate(decay));
    let adamw = Optimizer::from(AdamW { weight_decay: 0.1, amsgrad: true, ..AdamW::default() });
    let all = adamw
        .learning_rate(ExponentialDecay::new(0.02, 2, 0.8))
        .clip(Clip::GlobalNorm(1.0))
        .ema(Ema { momentum: 0.9, ..Ema::default() })
        .gradient_accumulation_steps(2);
    check("all", all);
}

/// What `generate/optimizers.py` prints; names cannot be stored as numbers. Nadam's last one has no name in Keras.
#[test]
fn names_of_variables() {
    let names = NAMES.map(String::from);
    let of = |optimizer: Optimizer| optimizer.variable_names(&names).join(" ");
    assert_eq!(
        of(Adam { amsgrad: true, ..Adam::default() }.into()),
        "iteration learning_rate kernel_momentum kernel_velocity bias_momentum bias_velocity embeddings_momentum \
         embeddings_velocity kernel_velocity_hat bias_velocity_hat embeddings_velocity_hat"
    );
    assert_eq!(
        of(RMSprop { momentum: 0.9, centered: true, ..RMSprop::default() }.into()),
        "iteration learning_rate kernel_velocity bias_velocity embeddings_velocity kernel_momentum bias_momentum \
         embeddings_momentum kernel_average_gradient bias_average_gradient embeddings_average_gradient"
    );
    assert_eq!(
        of(momentum().learning_rate(CosineDecay::new(0.1, 5)).ema(Ema::default()).gradient_accumulation_steps(2)),
        "iteration kernel_average bias_average embeddings_average kernel_gradient_accumulator \
         bias_gradient_accumulator embeddings_gradient_accumulator kernel_momentum bias_momentum embeddings_momentum"
    );
    let of_bias = |optimizer: Optimizer| {
        optimizer.variable_names(&["dense/bias".to_string()]).join(" ").replace("iteration learning_rate ", "")
    };
    assert_eq!(of_bias(Adamax::default().into()), "dense_bias_momentum dense_bias_norm");
    assert_eq!(of_bias(Adagrad::default().into()), "dense_bias_accumulator");
    assert_eq!(of_bias(Adadelta::default().into()), "dense_bias_accumulated_grad dense_bias_accumulated_delta_var");
    assert_eq!(of_bias(Nadam::default().into()), "dense_bias_momentum dense_bias_velocity u_product");
    assert_eq!(of_bias(Lion::default().into()), "dense_bias_momentum");
}

/// Keras' `finalize_variable_values`: one weight on one row, whose path is computed here by the definition.
#[test]
fn a_fit_ends_with_the_averages() {
    let layer = Dense::new(1).use_bias(false).kernel_initializer("zeros");
    let mut model = Sequential::new([1]).add(layer).build().unwrap().on(device());
    let sgd = Optimizer::from(SGD { learning_rate: 0.125, ..SGD::default() });
    let optimizer = sgd.ema(Ema { momentum: 0.75, ..Ema::default() }).into();
    model.compile(Compile { optimizer, loss: "mse".into(), ..Compile::default() }).unwrap();
    let mut weight = 0.0f64;
    let mut average = 0.0f64;
    for epochs in [3, 0, 2] {
        let fit = Fit { epochs, verbose: Verbose::Silent, ..Fit::default() };
        let one = Tensor::new(&[1f32], [1, 1]);
        model.fit_blocking((one.clone(), one), fit).unwrap();
        for _ in 0..epochs {
            weight -= 0.125 * 2.0 * (weight - 1.0);
            average = if average == 0.0 { weight } else { 0.75 * average + 0.25 * weight };
        }
        // The next fit goes on from the average.
        weight = average;
        let trained = model.trainable().unwrap()[0].to_vec_on::<f64>(device()).unwrap();
        close(&format!("after {epochs}"), &trained, &[weight], TOLERANCE);
    }
}
