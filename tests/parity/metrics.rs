//! Metrics over three batches of different sizes, with and without weights: the result after each of them.

use crate::reference::Reference;
use wengert::graph::Tensor;
use wengert::losses::Loss;
use wengert::metrics::{
    Auc, Average, BinaryAccuracy, BinaryCrossentropy, CategoricalCrossentropy, ConfusionMatrix, Curve, F1Score,
    FalseNegatives, FalsePositives, MeanIoU, Metric, Observed, Precision, R2Score, Recall,
    SparseTopKCategoricalAccuracy, Summation, TopKCategoricalAccuracy, TrueNegatives, TruePositives, get,
};
use wengert::ops::stack;

const SIZES: [usize; 3] = [7, 5, 3];
const SAMPLES: [&str; 3] = ["unweighted", "weight", "no_weight"];
const POSITIONS: [&str; 2] = ["unweighted", "weights"];

/// The results after each batch, `[3]`.
fn results(metric: &Metric, mut observe: impl FnMut(&dyn Fn(&Tensor) -> Tensor) -> Observed) -> Tensor {
    let (mut variables, mut results, mut start) = (metric.initial(), Vec::new(), 0);
    for size in SIZES {
        let batch = |all: &Tensor| all.slice(0, start..start + size);
        variables = metric.stateless_update_state(&variables, observe(&batch));
        results.push(metric.stateless_result(&variables));
        start += size;
    }
    stack(&results.iter().collect::<Vec<_>>(), 0)
}

/// One case of the generator under each of some weights.
#[track_caller]
fn check(reference: &Reference, name: &str, metric: &Metric, y: &Tensor, y_pred: &str, weights: &[&str]) {
    let y_pred = reference.tensor(y_pred);
    for weight in weights {
        let by = (*weight != "unweighted").then(|| reference.tensor(weight));
        let actual = results(metric, |batch| {
            Observed::pair(&batch(y), &batch(&y_pred)).weighted(by.as_ref().map(batch).as_ref())
        });
        reference.check(&format!("{name}/{weight}"), &actual);
    }
}

#[test]
fn means_of_losses() {
    let reference = Reference::open("metrics");
    let check = |name: &str, metric: Metric, y: Tensor, y_pred: &str| {
        check(&reference, name, &metric, &y, y_pred, &SAMPLES);
    };
    let plain = |name: &str, y: &str, y_pred: &str| check(name, get(name).unwrap(), reference.tensor(y), y_pred);
    plain("mean_squared_error", "real_y", "real");
    plain("root_mean_squared_error", "real_y", "real");
    plain("mean_absolute_error", "real_y", "real");
    plain("mean_absolute_percentage_error", "positive_y", "real");
    plain("mean_squared_logarithmic_error", "positive_y", "positive");
    plain("cosine_similarity", "real_y", "real");
    plain("log_cosh", "real_y", "real");
    plain("poisson", "positive_y", "positive");
    plain("categorical_hinge", "hot_y", "distribution");
    plain("binary_crossentropy", "labels_y", "labels");
    plain("categorical_crossentropy", "hot_y", "distribution");
    plain("sparse_categorical_crossentropy", "class_y", "distribution");
    let sign = reference.tensor("real_y").sign();
    check("hinge", get("hinge").unwrap(), sign.clone(), "real");
    check("squared_hinge", get("squared_hinge").unwrap(), sign, "real");
    check("kl_divergence", get("kld").unwrap(), reference.tensor("distribution").flip(-1), "distribution");
    let binary = BinaryCrossentropy { from_logits: true, label_smoothing: 0.1 };
    // [n] against [n, 1], integers against f32.
    check("binary_crossentropy/logits", binary.into(), reference.ints("binary_y"), "logits");
    let categorical = CategoricalCrossentropy { from_logits: true, label_smoothing: 0.1 };
    check("categorical_crossentropy/logits", categorical.into(), reference.tensor("hot_y"), "ties");
    check("categorical_crossentropy", get("ce").unwrap(), reference.tensor("hot_y"), "distribution");
    check("sparse_categorical_crossentropy", get("crossentropy").unwrap(), reference.ints("class_y"), "distribution");
    // As a loss that is a metric.
    check(
        "mean_absolute_error",
        Loss::from(wengert::losses::MeanAbsoluteError).into(),
        reference.tensor("real_y"),
        "real",
    );
}

#[test]
fn accuracies() {
    let reference = Reference::open("metrics");
    let check = |name: &str, metric: Metric, y: Tensor, y_pred: &str| {
        check(&reference, name, &metric, &y, y_pred, &SAMPLES);
    };
    let metric = |name: &str| get(name).unwrap();
    for name in ["binary_accuracy", "accuracy"] {
        check("binary_accuracy", metric(name), reference.ints("binary_y"), "probability");
    }
    check(
        "binary_accuracy/threshold",
        BinaryAccuracy { threshold: 0.3 }.into(),
        reference.tensor("labels_y"),
        "labels",
    );
    for name in ["categorical_accuracy", "acc"] {
        check("categorical_accuracy", metric(name), reference.tensor("hot_y"), "distribution");
    }
    let column = reference.tensor("class_y").unsqueeze(-1);
    for name in ["sparse_categorical_accuracy", "accuracy"] {
        check("sparse_categorical_accuracy", metric(name), reference.tensor("class_y"), "distribution");
        check("sparse_categorical_accuracy/column", metric(name), column.clone(), "distribution");
    }
    for k in [1, 3] {
        let (hot, class) = (reference.tensor("hot_y"), reference.ints("class_y"));
        check(&format!("top_k_categorical_accuracy/{k}"), TopKCategoricalAccuracy { k }.into(), hot, "ties");
        let sparse = SparseTopKCategoricalAccuracy { k };
        check(&format!("sparse_top_k_categorical_accuracy/{k}"), sparse.into(), class, "ties");
    }
}

#[test]
fn positions_of_sequences() {
    let reference = Reference::open("metrics");
    let check = |name: &str, metric: Metric| {
        let y = reference.ints("sequence_y");
        check(&reference, &format!("{name}/sequence"), &metric, &y, "sequence", &POSITIONS);
    };
    check("sparse_categorical_crossentropy", get("sparse_categorical_crossentropy").unwrap());
    check("sparse_categorical_accuracy", get("accuracy").unwrap());
    check("sparse_top_k_categorical_accuracy", SparseTopKCategoricalAccuracy { k: 2 }.into());
    check("mean_io_u", MeanIoU::new(6).into());
}

#[test]
fn counts_precision_and_recall() {
    let reference = Reference::open("metrics");
    let check = |name: &str, metric: Metric, y: &str, y_pred: &str| {
        check(&reference, name, &metric, &reference.tensor(y), y_pred, &SAMPLES);
    };
    for name in ["true_positives", "false_positives", "true_negatives", "false_negatives", "precision", "recall"] {
        check(name, get(name).unwrap(), "binary_y", "probability");
    }
    check("true_positives/threshold", TruePositives { threshold: 0.7 }.into(), "labels_y", "labels");
    check("false_positives/threshold", FalsePositives { threshold: 0.7 }.into(), "labels_y", "labels");
    check("true_negatives/threshold", TrueNegatives { threshold: 0.7 }.into(), "labels_y", "labels");
    check("false_negatives/threshold", FalseNegatives { threshold: 0.7 }.into(), "labels_y", "labels");
    let options = [
        ("threshold", Some(0.3), None, None, "labels_y", "labels"),
        ("none", None, None, None, "none_y", "probability"),
        ("top", None, Some(2), None, "labels_y", "ties"),
        ("top class", None, Some(2), Some(1), "labels_y", "labels"),
        ("top threshold", Some(0.6), Some(3), None, "labels_y", "labels"),
        ("class", None, None, Some(4), "labels_y", "labels"),
    ];
    for (case, threshold, top_k, class_id, y, y_pred) in options {
        check(&format!("precision/{case}"), Precision { threshold, top_k, class_id }.into(), y, y_pred);
        check(&format!("recall/{case}"), Recall { threshold, top_k, class_id }.into(), y, y_pred);
    }
}

#[test]
fn areas() {
    let reference = Reference::open("metrics");
    let check = |name: String, metric: Auc, y: &str, y_pred: &str, weights: &[&str]| {
        check(&reference, &name, &metric.into(), &reference.tensor(y), y_pred, weights);
    };
    for (curve, name) in [(Curve::Roc, "auc/ROC"), (Curve::Pr, "auc/PR")] {
        let of = |num_thresholds, summation| Auc { num_thresholds, curve, summation, from_logits: false };
        for (summation, method) in [
            (Summation::Interpolation, "interpolation"),
            (Summation::Minoring, "minoring"),
            (Summation::Majoring, "majoring"),
        ] {
            let name = format!("{name}/{method}");
            let weights = if summation == Summation::Interpolation { &SAMPLES[..] } else { &SAMPLES[..1] };
            check(name.clone(), of(200, summation), "binary_y", "probability", weights);
            check(format!("{name}/5"), of(5, summation), "binary_y", "corners", &SAMPLES[..1]);
            check(format!("{name}/labels"), of(50, summation), "labels_y", "labels", &SAMPLES[..1]);
        }
        let default = of(200, Summation::Interpolation);
        check(format!("{name}/none"), default, "none_y", "probability", &SAMPLES);
        let logits = Auc { from_logits: true, ..default };
        check(format!("{name}/logits"), logits, "binary_y", "logits", &SAMPLES);
    }
}

#[test]
fn classes() {
    let reference = Reference::open("metrics");
    let check = |name: &str, metric: Metric, y: &str, y_pred: &str| {
        check(&reference, name, &metric, &reference.tensor(y), y_pred, &SAMPLES);
    };
    for (average, name) in [(Average::Macro, "macro"), (Average::Micro, "micro"), (Average::Weighted, "weighted")] {
        let score = F1Score { average, ..F1Score::new(6) };
        check(&format!("f1_score/{name}"), score.into(), "hot_y", "distribution");
        let score = F1Score { threshold: Some(0.4), ..score };
        check(&format!("f1_score/{name}/threshold"), score.into(), "labels_y", "labels");
    }
    check("f1_score/binary", get("f1_score").unwrap(), "binary_y", "probability");
    check("mean_io_u", MeanIoU::new(6).into(), "class_y", "distribution");
    let padded = MeanIoU { classes: 6, ignore_class: Some(255) };
    check("mean_io_u/ignored", padded.into(), "padded_y", "distribution");
    check("mean_io_u/binary", MeanIoU::new(2).into(), "binary_y", "probability");

    let metric = Metric::new(ConfusionMatrix::new(6));
    let observed = Observed::pair(&reference.ints("class_y"), &reference.tensor("distribution"))
        .weighted(&reference.tensor("weight"));
    reference.check("matrix", &metric.stateless_update_state(&metric.initial(), observed)[0]);
}

#[test]
fn coefficients_of_determination() {
    let reference = Reference::open("metrics");
    let check = |name: &str, outputs: usize, y: &str, y_pred: &str| {
        let metric = R2Score { outputs }.into();
        check(&reference, name, &metric, &reference.tensor(y), y_pred, &SAMPLES[..2]);
    };
    check("r2_score", 3, "real_y", "real");
    check("r2_score/far", 2, "far_y", "far");
}

#[test]
fn means_and_sums_of_values() {
    let reference = Reference::open("metrics");
    let values = reference.tensor("real");
    for name in ["mean", "sum"] {
        for weight in SAMPLES {
            let by = (weight != "unweighted").then(|| reference.tensor(weight));
            let actual = results(&get(name).unwrap(), |batch| {
                Observed::value(&batch(&values)).weighted(by.as_ref().map(batch).as_ref())
            });
            reference.check(&format!("{name}/{weight}"), &actual);
        }
    }
}

#[test]
fn a_matrix_is_read_from_the_model_that_counted() {
    use wengert::prelude::*;
    let reference = Reference::open("metrics");
    let mut model = Sequential::new([6]).add(Reshape::new([6])).build().unwrap();
    let weighted_metrics = vec![ConfusionMatrix::new(6).into(), MeanIoU::new(6).into(), "precision".into()];
    let loss = "categorical_crossentropy".into();
    model.compile(Compile { loss, weighted_metrics, ..Compile::default() }).unwrap();
    let (x, weight) = (reference.tensor("distribution"), reference.tensor("weight"));
    let hot = |&class: &f64| (0..6).map(move |at| f32::from(at == class as u8));
    let y: Vec<f32> = reference.values("class_y").iter().flat_map(hot).collect();
    let y = Tensor::new(&y, [15, 6]);
    let quiet = Evaluate { verbose: Verbose::Silent, batch_size: 4, ..Evaluate::default() };
    let scores = model.evaluate_blocking((&x, &y, &weight), quiet).unwrap();
    // The tracker of the loss comes first.
    let matrix = &model.metric_variables().unwrap()[1][0];
    reference.check("matrix", matrix);
    let matrix = reference.values("matrix");
    let right: f64 = (0..6).map(|class| matrix[class * 7]).sum();
    let accuracy = right / matrix.iter().sum::<f64>();
    assert!((scores.get("confusion_matrix").unwrap() - accuracy).abs() < 1e-5, "{scores:?}, {accuracy}");
    let iou = reference.values("mean_io_u/weight")[2];
    assert!((scores.get("mean_io_u").unwrap() - iou).abs() < 1e-5, "{scores:?}, {iou}");
}

#[test]
fn devices_do_not_swallow_nan() {
    let p = Tensor::new(&[0.2f32, f32::NAN, 0.9, 0.1, 0.4, 0.6], [3, 2]);
    let y = Tensor::new(&[1f32, 0., 0., 1., 1., 0.], [3, 2]);
    let metrics: [Metric; 9] = [
        get("binary_accuracy").unwrap(),
        get("accuracy").unwrap(),
        get("mse").unwrap(),
        get("precision").unwrap(),
        get("auc").unwrap(),
        TopKCategoricalAccuracy { k: 1 }.into(),
        F1Score::new(2).into(),
        MeanIoU::new(2).into(),
        R2Score { outputs: 2 }.into(),
    ];
    let result = |metric: &Metric| {
        let variables = metric.stateless_update_state(&metric.initial(), Observed::pair(&y, &p));
        metric.stateless_result(&variables)
    };
    let all = stack(&metrics.iter().map(result).collect::<Vec<_>>().iter().collect::<Vec<_>>(), 0);
    let values = all.to_vec_on::<f32>(crate::reference::device()).unwrap();
    assert!(values.iter().all(|value| value.is_nan()), "{values:?}");
}
