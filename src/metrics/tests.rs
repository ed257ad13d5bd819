//! Metrics against counts and means by hand, on the f64 interpreter.

use super::*;
use crate::graph::interpret::{Given, interpret};
use crate::losses::Loss;
use crate::shape::Shape;

fn t(data: &[f32], shape: impl Into<Shape>) -> Tensor {
    Tensor::new(data, shape)
}

fn value(tensor: &Tensor) -> f64 {
    let array = interpret(std::slice::from_ref(tensor), &Given::new()).unwrap().remove(0);
    assert_eq!(array.shape, Shape::scalar());
    array.data[0]
}

/// The result after some observations.
fn after(metric: impl Into<Metric>, observed: &[Observed]) -> f64 {
    let metric = metric.into();
    let variables = observed.iter().fold(metric.initial(), |v, o| metric.stateless_update_state(&v, o.clone()));
    value(&metric.stateless_result(&variables))
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-7 * (1.0 + b.abs()), "{a}, expected {b}");
}

#[test]
fn nothing_observed_is_zero() {
    close(after(Mean, &[]), 0.0);
    close(after(RootMeanSquaredError, &[]), 0.0);
}

#[test]
fn a_mean_counts_values_or_their_weights() {
    let (a, b) = (Tensor::scalar(2f32), Tensor::scalar(5f32));
    close(after(Mean, &[Observed::value(&a), Observed::value(&b)]), 3.5);
    // A loss weighted by its batch, the last of which is smaller.
    let (w, v) = (Tensor::scalar(32f32), Tensor::scalar(8f32));
    close(after(Mean, &[Observed::value(&a).weighted(&w), Observed::value(&b).weighted(&v)]), (64. + 40.) / 40.);
    let list = t(&[1., 2., 6.], [3]);
    close(after(Mean, &[Observed::value(&list), Observed::value(&a)]), 11. / 4.);
    let none: Option<Tensor> = None;
    close(after(Mean, &[Observed::value(&list).weighted(&none)]), 3.);
    close(after(Mean, &[Observed::value(&list).weighted(&t(&[1., 0., 1.], [3, 1]))]), 3.5);
    close(after(Sum, &[Observed::value(&list).weighted(&t(&[1., 0., 2.], [3])), Observed::value(&a)]), 15.);
}

#[test]
fn samples_count_not_batches() {
    let full = Observed::pair(&t(&[0., 0., 0.], [3, 1]), &t(&[1., 2., 3.], [3, 1]));
    let rest = Observed::pair(&t(&[0.], [1, 1]), &t(&[6.], [1, 1]));
    close(after(MeanAbsoluteError, &[full.clone(), rest.clone()]), 3.);
    close(after(MeanSquaredError, &[full.clone(), rest.clone()]), 50. / 4.);
    close(after(RootMeanSquaredError, &[full.clone(), rest]), (50f64 / 4.).sqrt());
    close(after(MeanAbsoluteError, &[full.weighted(&t(&[0., 1., 1.], [3]))]), 2.5);
}

#[test]
fn weights_of_samples_meet_values_of_positions() {
    // Values [2, 2] and weights [2]: positions are averaged first, then samples weighted.
    let (y, p) = (Tensor::zeros([2, 2, 1]), t(&[1., 3., 5., 9.], [2, 2, 1]));
    close(after(MeanAbsoluteError, &[Observed::pair(&y, &p).weighted(&t(&[3., 1.], [2]))]), (3. * 2. + 7.) / 4.);
    // Weights [2, 2]: each position has its own; sums of both are averaged over positions.
    let w = t(&[1., 0., 0., 2.], [2, 2]);
    close(after(MeanAbsoluteError, &[Observed::pair(&y, &p).weighted(&w)]), (1. + 18.) / 3.);
}

#[test]
fn accuracies() {
    let p = t(&[0.9, 0.4, 0.6, 0.1], [4, 1]);
    let y = t(&[1., 1., 1., 0.], [4, 1]);
    close(after(BinaryAccuracy::default(), &[Observed::pair(&y, &p)]), 0.75);
    close(after(BinaryAccuracy { threshold: 0.3 }, &[Observed::pair(&y, &p)]), 1.0);
    close(after(Accuracy, &[Observed::pair(&Tensor::new(&[1i32, 1, 1, 0], [4]), &p)]), 0.75);

    let p = t(&[0.1, 0.7, 0.2, 0.5, 0.2, 0.3], [2, 3]);
    let hot = t(&[0., 1., 0., 0., 0., 1.], [2, 3]);
    for metric in [Metric::from(CategoricalAccuracy), Metric::from(Accuracy)] {
        close(after(metric, &[Observed::pair(&hot, &p)]), 0.5);
    }
    for labels in [Tensor::new(&[1i32, 2], [2]), Tensor::new(&[1u32, 2], [2, 1]), t(&[1., 2.], [2])] {
        for metric in [Metric::from(SparseCategoricalAccuracy), Metric::from(Accuracy)] {
            close(after(metric, &[Observed::pair(&labels, &p)]), 0.5);
        }
        close(after(get("acc").unwrap(), &[Observed::pair(&labels, &p).weighted(&t(&[3., 1.], [2]))]), 0.75);
    }
}

#[test]
fn crossentropy_takes_its_form_from_the_shapes() {
    let p = t(&[0.25, 0.75], [1, 2]);
    let metric = || get("ce").unwrap();
    close(after(metric(), &[Observed::pair(&t(&[0., 1.], [1, 2]), &p)]), -0.75f64.ln());
    close(after(metric(), &[Observed::pair(&Tensor::new(&[0i32], [1]), &p)]), -0.25f64.ln());
    close(after(metric(), &[Observed::pair(&t(&[1.], [1, 1]), &t(&[0.25], [1, 1]))]), -0.25f64.ln());
}

#[test]
fn functions_names_and_choices() {
    let largest = Metric::mean_of("largest", |y: &Tensor, p: &Tensor| (y - p).abs().max(-1));
    close(after(largest.clone(), &[Observed::pair(&Tensor::zeros([2, 2]), &t(&[1., 2., 5., 4.], [2, 2]))]), 3.5);
    for name in ["rmse", "top_k_categorical_accuracy", "auc", "f1_score", "r2_score", "huber", "kld", "sum"] {
        assert_eq!(get(name).unwrap().name(), name);
    }
    assert_eq!(get("MAE").unwrap().name(), "MAE");
    assert_eq!(Metric::new(Mean).named("loss").name(), "loss");
    let message = get("accuracies").unwrap_err().to_string();
    assert!(message.starts_with("unknown metric \"accuracies\"; known: binary_accuracy, "), "{message}");
    assert!(message.contains("recall") && message.contains("mape"), "{message}");

    let name = |choice: MetricChoice| choice.resolve().map(|metric| metric.unwrap().name().to_string());
    assert_eq!(name("mae".into()).unwrap(), "mae");
    assert_eq!(name(MeanAbsoluteError.into()).unwrap(), "mean_absolute_error");
    assert_eq!(name(largest.into()).unwrap(), "largest");
    assert_eq!(name((|y: &Tensor, p: &Tensor| (y - p).abs()).into()).unwrap(), "metric");
    assert!(name("nothing".into()).is_err());
}

#[test]
fn every_metric_with_a_name_equals_the_loss_of_that_name() {
    let (y, p) = (t(&[0., 1., 1., 0.], [2, 2]), t(&[0.2, 0.8, 0.6, 0.4], [2, 2]));
    for name in ["mse", "mae", "binary_crossentropy", "categorical_crossentropy"] {
        let loss: Loss = losses::get(name).unwrap();
        close(after(get(name).unwrap(), &[Observed::pair(&y, &p)]), value(&loss.call(&y, &p, None)));
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Tensor::ones([2, 2]);
    let error = |metric: Metric, observed: Observed| {
        let variables = metric.stateless_update_state(&metric.initial(), observed);
        variables[0].ok().unwrap_err().to_string()
    };
    let message = error(MeanSquaredError.into(), Observed::value(&x));
    assert_eq!(message, "metric mean_squared_error compares targets and predictions; give it Observed::pair");
    assert_eq!(error(Mean.into(), Observed::pair(&x, &x)), "metric mean takes values; give it Observed::value");
    let message = error(MeanSquaredError.into(), Observed::pair(&x, &Tensor::ones([2, 3])));
    assert!(message.starts_with("mean_squared_error: shapes [2, 2] and [2, 3] do not fit"), "{message}");
    let message = error(MeanSquaredError.into(), Observed::pair(&x, &x).weighted(&Tensor::ones([3])));
    assert!(message.starts_with("sample_weight: "), "{message}");
    let metric = Metric::new(Mean);
    let message = metric.stateless_result(&[]).ok().unwrap_err().to_string();
    assert_eq!(message, "wrong state: metric mean has 2 variables, 0 were given");
    assert!(metric.stateless_update_state(&[], Observed::value(&x))[0].ok().is_err());
}

#[test]
fn a_nan_prediction_is_never_swallowed() {
    // For a comparison NaN is a miss, or even a hit where the target is 0.
    let (y, p) = (t(&[0., 1., 1.], [3, 1]), t(&[f32::NAN, 0.9, 0.2], [3, 1]));
    let hot = t(&[1., 0., 0., 1.], [2, 2]);
    let rows = t(&[f32::NAN, 0.5, 0.1, 0.9], [2, 2]);
    for name in [
        "accuracy",
        "mse",
        "mape",
        "msle",
        "huber",
        "bce",
        "hinge",
        "poisson",
        "precision",
        "recall",
        "auc",
        "f1_score",
        "true_positives",
        "false_negatives",
        "r2_score",
        "rmse",
    ] {
        assert!(after(get(name).unwrap(), &[Observed::pair(&y, &p)]).is_nan(), "{name}");
    }
    let top = SparseTopKCategoricalAccuracy { k: 1 };
    let many: [Metric; 6] = [
        get("acc").unwrap(),
        TopKCategoricalAccuracy { k: 1 }.into(),
        MeanIoU::new(2).into(),
        ConfusionMatrix::new(2).into(),
        F1Score::new(2).into(),
        Precision { top_k: Some(1), ..Precision::default() }.into(),
    ];
    for metric in many {
        let name = metric.name().to_string();
        assert!(after(metric, &[Observed::pair(&hot, &rows)]).is_nan(), "{name}");
    }
    assert!(after(top, &[Observed::pair(&Tensor::new(&[0i32, 1], [2]), &rows)]).is_nan());
}

#[test]
fn nothing_counted_is_zero_for_every_metric() {
    let (y, p, w) = (t(&[0., 1.], [2, 1]), t(&[0.3, 0.6], [2, 1]), t(&[0., 0.], [2]));
    for name in ["accuracy", "mse", "rmse", "precision", "recall", "auc", "f1_score", "r2_score", "bce"] {
        close(after(get(name).unwrap(), &[]), 0.0);
        close(after(get(name).unwrap(), &[Observed::pair(&y, &p).weighted(&w)]), 0.0);
    }
    close(after(MeanIoU::new(2), &[Observed::pair(&y, &p).weighted(&w)]), 0.0);
}

#[test]
fn a_confusion_matrix_has_a_row_for_each_true_class() {
    let p = t(&[0.1, 0.7, 0.2, 0.5, 0.2, 0.3, 0.1, 0.1, 0.8, 0.6, 0.1, 0.3], [4, 3]);
    // A class that does not exist, such as the padding of a segmentation, is not counted.
    let observed = Observed::pair(&Tensor::new(&[1i32, 2, 2, 255], [4]), &p);
    let metric = Metric::from(ConfusionMatrix::new(3));
    let variables = metric.stateless_update_state(&metric.initial(), observed);
    let matrix = interpret(&variables, &Given::new()).unwrap().remove(0);
    assert_eq!(matrix.data, [0., 0., 0., 0., 1., 0., 1., 0., 1.]);
    close(value(&metric.stateless_result(&variables)), 2. / 3.);
    // Classes 1 and 2 have 1 of 1 and 1 of 2; class 0 was predicted but is never true.
    close(value(&Metric::from(MeanIoU::new(3)).stateless_result(&variables)), 0.5);
}

#[test]
fn what_is_ignored_is_not_counted() {
    let metric = SparseCategoricalCrossentropy { from_logits: true, ignore_class: Some(-1) };
    let (y, p) = (Tensor::new(&[0i32, -1], [2]), t(&[0., 0., f32::NAN, 0.], [2, 2]));
    close(after(metric, &[Observed::pair(&y, &p)]), 2f64.ln());
    close(after(metric, &[Observed::pair(&y, &p).weighted(&t(&[2., 5.], [2]))]), 2f64.ln());
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let x = Tensor::ones([2, 3]);
    let error = |metric: Metric| {
        let variables = metric.stateless_update_state(&metric.initial(), Observed::pair(&x, &x));
        variables[0].ok().unwrap_err().to_string()
    };
    let class = Precision { class_id: Some(3), ..Precision::default() };
    assert!(error(class.into()).starts_with("metric precision needs an axis of classes"));
    assert!(error(F1Score::new(4).into()).starts_with("metric f1_score of 4 classes has predictions [2, 3]"));
    assert!(error(MeanIoU::new(4).into()).starts_with("metric mean_io_u of 4 classes has predictions [2, 3]"));
    assert!(error(R2Score { outputs: 2 }.into()).starts_with("metric r2_score of 2 outputs has predictions [2, 3]"));
    assert!(error(Auc { num_thresholds: 1, ..Auc::default() }.into()).starts_with("metric auc needs 2 thresholds"));
}
