//! Losses: values under every reduction and weight, and gradients by the predictions.

use crate::reference::Reference;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::losses::{
    BinaryCrossentropy, BinaryFocalCrossentropy, CategoricalCrossentropy, Huber, Loss, MeanSquaredError, Reduction,
    SparseCategoricalCrossentropy, get,
};

/// The value and the gradient of its sum, as the generator stores them.
fn check(reference: &Reference, name: &str, loss: &Loss, y: &Tensor, y_pred: &str, weight: Option<&str>) {
    let (y_pred, weight) = (reference.tensor(y_pred), weight.map(|weight| reference.tensor(weight)));
    reference.check(name, &loss.call(y, &y_pred, weight.as_ref()));
    let slope = grad(|p: &Tensor| Ok(loss.call(y, p, weight.as_ref()).sum(..)), &y_pred).unwrap();
    reference.check(&format!("{name}/grad"), &slope);
}

#[test]
fn formulas_and_options() {
    let reference = Reference::open("losses");
    let check = |name: &str, loss: Loss, y: &str, y_pred: &str| {
        // Class numbers as f32 and as i32, which most data have.
        check(&reference, name, &loss, &reference.tensor(y), y_pred, None);
        if y.contains("class") || y.contains("binary") {
            check(&reference, name, &loss, &reference.ints(y), y_pred, None);
        }
    };
    let plain = |name: &str, y: &str, y_pred: &str| check(name, get(name).unwrap(), y, y_pred);
    plain("mean_squared_error", "real_y", "real");
    plain("mean_absolute_error", "real_y", "real");
    plain("mean_absolute_percentage_error", "positive_y", "real");
    plain("mean_squared_logarithmic_error", "positive_y", "positive");
    check("mean_squared_logarithmic_error/clipped", get("msle").unwrap(), "real_y", "real");
    plain("huber", "real_y", "real");
    check("huber/delta", Huber { delta: 2.5 }.into(), "real_y", "real");
    plain("log_cosh", "real_y", "real");
    plain("cosine_similarity", "real_y", "real");
    plain("poisson", "positive_y", "positive");
    plain("kl_divergence", "distribution_y", "distribution");
    plain("hinge", "sign_y", "real");
    check("hinge/binary", get("hinge").unwrap(), "binary_y", "real");
    plain("squared_hinge", "sign_y", "real");
    check("squared_hinge/binary", get("squared_hinge").unwrap(), "binary_y", "real");
    plain("categorical_hinge", "hot_y", "real");
    check("mean_squared_error/list", get("mse").unwrap(), "list_y", "column");
}

#[test]
fn cross_entropies_and_their_options() {
    let reference = Reference::open("losses");
    let check = |name: &str, loss: Loss, y: &str, y_pred: &str| {
        check(&reference, name, &loss, &reference.tensor(y), y_pred, None);
    };
    let binary = |from_logits, label_smoothing| BinaryCrossentropy { from_logits, label_smoothing }.into();
    check("binary_crossentropy", binary(false, 0.0), "binary_y", "probability");
    check("binary_crossentropy/smooth", binary(false, 0.2), "binary_y", "probability");
    check("binary_crossentropy/logits", binary(true, 0.0), "binary_y", "real");
    check("binary_crossentropy/logits smooth", binary(true, 0.1), "binary_y", "real");
    let focal = BinaryFocalCrossentropy::default();
    check("binary_focal_crossentropy", focal.into(), "binary_y", "probability");
    let gamma = BinaryFocalCrossentropy { gamma: 3.0, label_smoothing: 0.1, ..focal };
    check("binary_focal_crossentropy/gamma", gamma.into(), "binary_y", "probability");
    let balanced = BinaryFocalCrossentropy { alpha: Some(0.3), from_logits: true, ..focal };
    check("binary_focal_crossentropy/balanced logits", balanced.into(), "binary_y", "real");
    let categorical = |from_logits, label_smoothing| CategoricalCrossentropy { from_logits, label_smoothing }.into();
    check("categorical_crossentropy", categorical(false, 0.0), "hot_y", "distribution");
    check("categorical_crossentropy/unscaled", categorical(false, 0.0), "distribution_y", "positive");
    check("categorical_crossentropy/smooth", categorical(false, 0.3), "hot_y", "distribution");
    check("categorical_crossentropy/logits", categorical(true, 0.0), "hot_y", "real");
    check("categorical_crossentropy/logits smooth", categorical(true, 0.1), "distribution_y", "real");
    let sparse = |from_logits| SparseCategoricalCrossentropy { from_logits, ignore_class: None }.into();
    check("sparse_categorical_crossentropy", sparse(false), "class_y", "distribution");
    check("sparse_categorical_crossentropy/logits", sparse(true), "class_y", "real");
    check("sparse_categorical_crossentropy/sequence", sparse(true), "sequence_y", "sequence");
}

#[test]
fn reductions_weights_and_what_is_ignored() {
    let reference = Reference::open("losses");
    for reduction in ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none"] {
        let reduced = |loss: Loss| loss.reduction(reduction.parse::<Reduction>().unwrap());
        for weight in [None, Some("weight"), Some("no_weight")] {
            let tail = format!("/{reduction}/{}", weight.unwrap_or("unweighted"));
            let y = reference.tensor("real_y");
            let mse = reduced(MeanSquaredError.into());
            check(&reference, &format!("mean_squared_error{tail}"), &mse, &y, "real", weight);
            for (ignored, y) in [(255, "ignored_y"), (0, "zero_ignored_y")] {
                let loss = SparseCategoricalCrossentropy { from_logits: true, ignore_class: Some(ignored) };
                let (name, y) = (format!("ignore {ignored}{tail}"), reference.tensor(y));
                check(&reference, &name, &reduced(loss.into()), &y, "real", weight);
            }
        }
        for weight in [None, Some("weights")] {
            let tail = format!("/{reduction}/{}", weight.unwrap_or("unweighted"));
            let loss = SparseCategoricalCrossentropy { from_logits: true, ignore_class: None };
            let y = reference.ints("sequence_y");
            check(&reference, &format!("sequence{tail}"), &reduced(loss.into()), &y, "sequence", weight);
        }
    }
}

#[test]
fn a_cross_entropy_and_its_gradient_are_one_pass_over_the_rows() {
    use wengert::step::{Logs, Step};
    // Rows too many for a workgroup region, so that passes can be told apart.
    let (rows, classes) = (4096, 64);
    let (labels, targets) = (Tensor::zeros([rows]), Tensor::zeros([rows, classes]));
    let losses: [(Loss, &Tensor); 3] = [
        (SparseCategoricalCrossentropy { from_logits: true, ignore_class: None }.into(), &labels),
        (CategoricalCrossentropy { from_logits: true, label_smoothing: 0.1 }.into(), &targets),
        (BinaryCrossentropy { from_logits: true, label_smoothing: 0.0 }.into(), &targets),
    ];
    for (loss, y) in losses {
        let mut step = Step::new(crate::reference::device());
        let mut logits = Tensor::zeros([rows, classes]);
        let descend = |logits: Tensor, y: &Tensor| {
            let slope = grad(|x: &Tensor| Ok(loss.call(y, x, None)), &logits)?;
            Ok((Logs::default(), logits - slope))
        };
        step.run(&mut logits, y, descend).unwrap();
        let plan = step.plan().unwrap();
        assert_eq!(plan.dispatches(), 1, "{loss:?}\n{plan}");
    }
}
