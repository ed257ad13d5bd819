//! Losses against their formulas in plain f64, on the f64 interpreter.

use super::*;
use crate::grad::grad;
use crate::graph::interpret::{Given, interpret};

fn values(tensor: &Tensor) -> Vec<f64> {
    interpret(std::slice::from_ref(tensor), &Given::new()).unwrap().remove(0).data
}

fn close(tensor: &Tensor, expected: &[f64]) {
    let got = values(tensor);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-7 * (1.0 + b.abs());
    assert!(got.len() == expected.len() && got.iter().zip(expected).all(near), "{got:?}, expected {expected:?}");
}

fn t(data: &[f32], shape: impl Into<Shape>) -> Tensor {
    Tensor::new(data, shape)
}

#[test]
fn regression_losses_average_the_last_axis() {
    let (y, p) = (t(&[1., 2., 3., 4.], [2, 2]), t(&[1.5, 2., 1., 7.], [2, 2]));
    let mse = Loss::from(MeanSquaredError);
    close(&mse.values(&y, &p), &[0.125, 6.5]);
    close(&mse.call(&y, &p, None), &[3.3125]);
    close(&Loss::from(MeanAbsoluteError).call(&y, &p, None), &[(0.5 + 2.0 + 3.0) / 4.0]);
    // Integer targets are as good.
    close(&mse.call(&Tensor::new(&[1i32, 2, 3, 4], [2, 2]), &p, None), &[3.3125]);
}

#[test]
fn a_column_and_a_list_are_the_same_and_nothing_broadcasts() {
    let (list, column) = (t(&[1., 2., 4.], [3]), t(&[2., 2., 2.], [3, 1]));
    let mse = Loss::from(MeanSquaredError);
    close(&mse.call(&list, &column, None), &[5.0 / 3.0]);
    close(&mse.call(&column, &list, None), &[5.0 / 3.0]);
    let error = mse.call(&t(&[0.; 4], [2, 2]), &column, None);
    let message = error.ok().unwrap_err().to_string();
    let expected =
        "mean_squared_error: shapes [2, 2] and [3, 1] do not fit: targets and predictions must have the same";
    assert!(message.starts_with(expected), "{message}");
    assert!(mse.call(&t(&[0.], [1, 1]), &column, None).ok().is_err());
}

#[test]
fn reductions_and_weights() {
    let (y, p) = (t(&[0.; 6], [3, 2]), t(&[1., 1., 2., 2., 3., 3.], [3, 2]));
    let w = t(&[1., 0., 2.], [3]);
    let with = |reduction, w: Option<&Tensor>| Loss::from(MeanSquaredError).reduction(reduction).call(&y, &p, w);
    close(&with(Reduction::None, None), &[1., 4., 9.]);
    close(&with(Reduction::Sum, None), &[14.]);
    close(&with(Reduction::SumOverBatchSize, None), &[14. / 3.]);
    close(&with(Reduction::MeanWithSampleWeight, None), &[14. / 3.]);
    close(&with(Reduction::None, Some(&w)), &[1., 0., 18.]);
    close(&with(Reduction::Sum, Some(&w)), &[19.]);
    close(&with(Reduction::SumOverBatchSize, Some(&w)), &[19. / 3.]);
    close(&with(Reduction::MeanWithSampleWeight, Some(&w)), &[19. / 3.]);
    close(&with(Reduction::MeanWithSampleWeight, Some(&t(&[1., 0., 0.], [3, 1]))), &[1.]);
    close(&with(Reduction::MeanWithSampleWeight, Some(&t(&[0.; 3], [3]))), &[0.]);
    let error = with(Reduction::Sum, Some(&t(&[1.; 2], [2])));
    assert!(error.ok().unwrap_err().to_string().starts_with("sample_weight: shapes [2] and [3] do not fit"));
}

#[test]
fn weights_of_samples_never_weigh_columns() {
    // As many columns as samples: NumPy broadcasting would pick the wrong axis without a word.
    let (y, p) = (t(&[0.; 4], [2, 2, 1]), t(&[1., 2., 3., 4.], [2, 2, 1]));
    let loss = Loss::from(MeanSquaredError).reduction(Reduction::None);
    close(&loss.call(&y, &p, Some(&t(&[1., 10.], [2]))), &[1., 4., 90., 160.]);
}

#[test]
fn binary_crossentropy_from_both() {
    let (y, x) = (t(&[0., 1., 1., 0.25], [2, 2]), t(&[-1., 2., -3., 0.5], [2, 2]));
    let p = |x: f64| 1.0 / (1.0 + (-x).exp());
    let term = |y: f64, p: f64| -(y * p.ln() + (1.0 - y) * (1.0 - p).ln());
    let expected = [(term(0., p(-1.)) + term(1., p(2.))) / 2.0, (term(1., p(-3.)) + term(0.25, p(0.5))) / 2.0];
    let logits = BinaryCrossentropy { from_logits: true, ..Default::default() };
    close(&logits.values(&y, &x), &expected);
    close(&BinaryCrossentropy::default().values(&y, &x.sigmoid()), &expected);
    let smooth = BinaryCrossentropy { from_logits: true, label_smoothing: 0.2 };
    close(&smooth.values(&t(&[1.], [1, 1]), &t(&[2.], [1, 1])), &[term(0.9, p(2.))]);
}

#[test]
fn categorical_crossentropies_agree() {
    let x = t(&[1., 2., 3., 0., -1., 0.5], [2, 3]);
    let row = |x: [f64; 3], c: usize| x.iter().map(|v| v.exp()).sum::<f64>().ln() - x[c];
    let expected = [row([1., 2., 3.], 2), row([0., -1., 0.5], 0)];
    let hot = t(&[0., 0., 1., 1., 0., 0.], [2, 3]);
    let dense = CategoricalCrossentropy { from_logits: true, ..Default::default() };
    let sparse = SparseCategoricalCrossentropy { from_logits: true, ..Default::default() };
    close(&dense.values(&hot, &x), &expected);
    close(&CategoricalCrossentropy::default().values(&hot, &x.softmax(-1)), &expected);
    // Probabilities that do not sum to 1 are scaled.
    close(&CategoricalCrossentropy::default().values(&hot, &(x.softmax(-1) * 5.0)), &expected);
    for labels in
        [Tensor::new(&[2i32, 0], [2]), Tensor::new(&[2u32, 0], [2, 1]), t(&[2., 0.], [2]), t(&[2., 0.], [2, 1])]
    {
        close(&sparse.values(&labels, &x), &expected);
        close(&SparseCategoricalCrossentropy::default().values(&labels, &x.softmax(-1)), &expected);
    }
    // A number that is no class, negative ones included, is no loss of zero. Other rows are as they were.
    let unclear = values(&sparse.values(&t(&[-1., 0.], [2]), &x));
    assert!(unclear[0].is_nan() && (unclear[1] - expected[1]).abs() < 1e-6, "{unclear:?}");
    assert!(values(&sparse.values(&t(&[3., 7.], [2]), &x)).iter().all(|value| value.is_nan()));
    let gradient = grad(|x| Ok(sparse.values(&Tensor::new(&[3i32, 0], [2]), x).sum(..)), &x).unwrap();
    let gradient = values(&gradient);
    assert!(gradient[..3] == [0.0; 3] && gradient[3..].iter().all(|g| g.abs() > 1e-3), "{gradient:?}");
    let smooth = CategoricalCrossentropy { from_logits: true, label_smoothing: 0.3 };
    let all = [row([1., 2., 3.], 0), row([1., 2., 3.], 1), row([1., 2., 3.], 2)];
    close(
        &smooth.values(&t(&[0., 0., 1.], [1, 3]), &t(&[1., 2., 3.], [1, 3])),
        &[0.1 * all[0] + 0.1 * all[1] + 0.8 * all[2]],
    );

    let message = sparse.values(&hot, &x).ok().unwrap_err().to_string();
    assert!(message.contains("targets must be class numbers"), "{message}");
    assert!(dense.values(&Tensor::new(&[2i32, 0], [2]), &x).ok().is_err());
}

#[test]
fn sequences_have_one_label_for_each_position() {
    let x = t(&[0., 1., 2., 3., 5., 4., 0., 0.], [2, 2, 2]);
    let loss = SparseCategoricalCrossentropy { from_logits: true, ..Default::default() };
    let values_ = loss.values(&Tensor::new(&[0i32, 1, 0, 1], [2, 2]), &x);
    assert_eq!(values_.shape(), [2, 2].into());
    let up = (1.0 + 1f64.exp()).ln();
    let down = (1.0 + (-1f64).exp()).ln();
    close(&values_, &[up, down, down, 2f64.ln()]);
}

#[test]
fn certain_mistakes_cost_a_finite_amount() {
    let most = -(EPSILON as f32 as f64).ln();
    close(&BinaryCrossentropy::default().values(&t(&[1.], [1, 1]), &t(&[0.], [1, 1])), &[most]);
    close(&CategoricalCrossentropy::default().values(&t(&[1., 0.], [1, 2]), &t(&[0., 1.], [1, 2])), &[most]);
    let logits = BinaryCrossentropy { from_logits: true, ..Default::default() };
    close(&logits.values(&t(&[1., 0.], [1, 2]), &t(&[-1e4, 1e4], [1, 2])), &[1e4]);
    let masked = t(&[0., f32::MIN, 1.], [1, 3]);
    let sparse = SparseCategoricalCrossentropy { from_logits: true, ..Default::default() };
    close(&sparse.values(&t(&[2.], [1]), &masked), &[(1.0 + (-1f64).exp()).ln()]);
}

#[test]
fn gradients_of_logits_are_probability_minus_target() {
    let x = t(&[0., 0., 2., -1.], [2, 2]);
    let labels = Tensor::new(&[1i32, 0], [2]);
    let loss =
        Loss::from(SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }).reduction(Reduction::Sum);
    let slope = grad(|x: &Tensor| Ok(loss.call(&labels, x, None)), &x).unwrap();
    let p = 1.0 / (1.0 + (-3f64).exp());
    close(&slope, &[0.5, -0.5, p - 1.0, 1.0 - p]);
    // At 0 too, where a form with |x| has a kink.
    let y = t(&[1., 0., 1., 0.], [2, 2]);
    let loss = Loss::from(BinaryCrossentropy { from_logits: true, ..Default::default() }).reduction(Reduction::Sum);
    let slope = grad(|x: &Tensor| Ok(loss.call(&y, x, None)), &x).unwrap();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    close(&slope, &[-0.25, 0.25, (sigmoid(2.) - 1.) / 2., sigmoid(-1.) / 2.]);
}

#[test]
fn names_and_choices() {
    for (name, full) in [
        ("mse", "mean_squared_error"),
        ("MAE", "mean_absolute_error"),
        ("MeanSquaredError", "mean_squared_error"),
        ("bce", "binary_crossentropy"),
        ("sparse_categorical_crossentropy", "sparse_categorical_crossentropy"),
    ] {
        assert_eq!(&*get(name).unwrap().name, full);
    }
    for name in rows().flat_map(|(names, _)| names) {
        get(name).unwrap();
    }
    let message = get("msw").unwrap_err().to_string();
    assert!(message.starts_with("unknown loss \"msw\"; known: mean_squared_error, mse, "), "{message}");

    let name = |choice: LossChoice| choice.resolve().map(|loss| loss.unwrap().name.to_string());
    assert_eq!(name("mse".into()).unwrap(), "mean_squared_error");
    assert_eq!(name(MeanAbsoluteError.into()).unwrap(), "mean_absolute_error");
    assert_eq!(name(Loss::from(MeanAbsoluteError).into()).unwrap(), "mean_absolute_error");
    assert_eq!(name((|y: &Tensor, p: &Tensor| (y - p).abs().mean(-1)).into()).unwrap(), "loss");
    assert!(name("nothing".into()).is_err());
}

#[test]
fn a_poisoned_prediction_keeps_its_own_error() {
    let bad = Tensor::ones([2, 3]).matmul(&Tensor::ones([2, 3]));
    for name in rows().flat_map(|(names, _)| names) {
        let message = get(name).unwrap().call(&Tensor::ones([2, 3]), &bad, None).ok().unwrap_err().to_string();
        assert!(message.starts_with("matmul: "), "{name}: {message}");
    }
}

#[test]
fn what_is_ignored_reaches_neither_loss_nor_gradient() {
    let options = SparseCategoricalCrossentropy { from_logits: true, ignore_class: Some(255) };
    let (y, x) = (Tensor::new(&[1i32, 255], [2]), t(&[0., 0., f32::NAN, f32::INFINITY], [2, 2]));
    // The mean is over what counts.
    let loss = Loss::from(options);
    close(&loss.call(&y, &x, None), &[2f64.ln()]);
    close(&grad(|x: &Tensor| Ok(loss.call(&y, x, None)), &x).unwrap(), &[0.5, -0.5, 0., 0.]);
    close(&loss.call(&Tensor::new(&[255i32, 255], [2]), &x, None), &[0.]);
}

#[test]
fn a_vector_of_zeros_has_a_finite_cosine_and_gradient() {
    let loss = Loss::from(CosineSimilarity);
    let (y, zero) = (t(&[1., 0.], [1, 2]), t(&[0., 0.], [1, 2]));
    close(&loss.call(&y, &zero, None), &[0.]);
    close(&grad(|x: &Tensor| Ok(loss.call(&y, x, None) * 1e-7), &zero).unwrap(), &[-1., 0.]);
}

#[test]
fn reductions_have_names() {
    assert_eq!("mean".parse::<Reduction>().unwrap(), Reduction::SumOverBatchSize);
    assert_eq!("none".parse::<Reduction>().unwrap(), Reduction::None);
    let message = "average".parse::<Reduction>().unwrap_err().to_string();
    assert!(message.starts_with("unknown reduction \"average\"; known: sum_over_batch_size, mean, sum, "), "{message}");
}
