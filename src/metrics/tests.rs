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
    for name in KNOWN {
        assert_eq!(get(name).unwrap().name(), name);
    }
    assert_eq!(get("MAE").unwrap().name(), "MAE");
    assert_eq!(Metric::new(Mean).named("loss").name(), "loss");
    let message = get("accuracies").unwrap_err().to_string();
    assert!(message.starts_with("unknown metric \"accuracies\"; known: mean_squared_error, mse"), "{message}");

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
