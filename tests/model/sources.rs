//! What `fit` is given besides tensors: streams of batches, class weights, and how much of the data is looked at.

use std::cell::RefCell;

use crate::{adam, bits, close, linear, mean, mlp, numbered, predictions, quiet, sgd, silent, uniform};
use wengert::model::Source;
use wengert::prelude::*;

/// Batches of 8 of 24 rows, over and over.
fn batches<'d>(x: &'d Tensor, y: &'d Tensor) -> impl Iterator<Item = Result<Batch>> + 'd {
    let data = Data::new((x, y)).unwrap();
    (0..).map(move |step: usize| Ok(data.rows(&(0..8).map(|row| step % 3 * 8 + row).collect::<Vec<_>>())))
}

#[test]
fn a_stream_trains_as_its_rows_do() {
    let ((x, _), (y, _)) = (uniform(1, 24, 4), uniform(2, 24, 1));
    let train = |stream: bool, steps_per_execution: usize| {
        let mut model = mlp();
        model.compile(Compile { steps_per_execution, ..adam() }).unwrap();
        let validation_data = Some((&x, &y).into());
        let options = Fit { batch_size: 8, epochs: 3, shuffle: false, validation_data, ..silent() };
        let history = match stream {
            true => {
                let options = Fit { steps_per_epoch: Some(3), ..options };
                model.fit_blocking(Stream::new(batches(&x, &y)), options).unwrap()
            }
            false => model.fit_blocking((&x, &y), options).unwrap(),
        };
        (bits(&model), history)
    };
    let rows = train(false, 1);
    assert_eq!(rows.1.history.len(), 4);
    for k in [1, 2, 3] {
        assert!(rows == train(true, k), "{k} steps in one submission");
    }
}

/// What a program usually does to its data first, scaling, cutting and one-hot targets, needs no reading by hand.
#[test]
fn tensors_computed_of_others_are_data() {
    let ((x, values), labels) = (uniform(1, 24, 4), Tensor::new(&[0i32, 1, 2, 1, 0, 2, 2, 1], [8]));
    let halved: Vec<f32> = values[..32].iter().map(|value| value / 2.0).collect();
    let one_hot: Vec<f32> =
        [0usize, 1, 2, 1, 0, 2, 2, 1].iter().flat_map(|&of| (0..3).map(move |i| f32::from(i == of))).collect();
    let train = |x: Tensor, y: Tensor, weight: Tensor| {
        let mut model = Sequential::new([4]).add(Dense::new(3).activation("softmax")).build().unwrap();
        let compile = Compile { loss: "categorical_crossentropy".into(), metrics: vec!["accuracy".into()], ..adam() };
        model.compile(compile).unwrap();
        let validation_data = Some((&x, &y).into());
        let options = Fit { batch_size: 3, epochs: 2, validation_data, ..silent() };
        let history = model.fit_blocking((&x, &y, &weight), options).unwrap();
        let scores = model.evaluate_blocking((&x, &y, &weight), quiet()).unwrap();
        (
            bits(&model),
            history,
            scores,
            model.predict_blocking(&x, Predict::default()).unwrap().to_vec::<f32>().unwrap(),
        )
    };
    let given = train(Tensor::new(&halved, [8, 4]), Tensor::new(&one_hot, [8, 3]), Tensor::new(&[1.0f32; 8], [8]));
    let computed = train(x.slice(0, 0..8) / 2.0, labels.one_hot(3), Tensor::ones([8]));
    assert!(given == computed);

    // Rows of what no buffer holds as a whole.
    let large = Tensor::new(&vec![1f32; 40 << 20], [10 << 20, 4]);
    let mut model = linear(4);
    model.compile(sgd(0.1)).unwrap();
    model.fit_blocking((large.slice(0, 5..13), Tensor::ones([8, 1])), silent()).unwrap();
    assert_eq!(model.predict_blocking(large.slice(0, 7..9), Predict::default()).unwrap().dim(0), 2);

    let empty = model.fit_blocking((Tensor::zeros([0, 4]), Tensor::zeros([0, 1])), silent()).unwrap_err();
    assert_eq!(empty.to_string(), "the data set is empty: the input has 0 rows");
    let poisoned = model.fit_blocking((&x + Tensor::zeros([3]), Tensor::zeros([24, 1])), silent()).unwrap_err();
    assert!(matches!(poisoned.kind(), ErrorKind::Shape { .. }), "{poisoned}");
}

#[test]
fn a_stream_goes_on_where_the_last_epoch_stopped_and_may_end() {
    /// Logs the mean of the inputs.
    struct Mean(Functional);
    impl Model for Mean {
        crate::base!(0);
        fn train_step(&self, state: TrainState, batch: Batch) -> Result<(Logs, TrainState)> {
            Ok(([("mean", batch.x()?.mean(..))].into(), state))
        }
    }
    let mut model = Mean(linear(1));
    model.compile(sgd(0.0)).unwrap();
    let one = |i: usize| Ok(Tensor::new(&[i as f32; 2], [2, 1]).into());
    let options = || Fit { steps_per_epoch: Some(2), epochs: 4, ..silent() };
    let history = model.fit_blocking(Stream::new((0..8).map(one)), options()).unwrap();
    assert_eq!(history.get("mean").unwrap(), [1.0, 3.0, 5.0, 7.0]);
    // It ends in the middle of the third epoch, which is reported; a fourth does not begin.
    let history = model.fit_blocking(Stream::new((0..5).map(one)), options()).unwrap();
    assert_eq!(
        (history.epoch.as_slice(), history.get("mean").unwrap()),
        ([0, 1, 2].as_slice(), [1.0, 3.0, 4.0].as_slice())
    );
    // It ends between two.
    let history = model.fit_blocking(Stream::new((0..4).map(one)), options()).unwrap();
    assert_eq!(history.epoch, [0, 1]);
    let history = model.fit_blocking(Stream::new([]), options()).unwrap();
    assert!(history.epoch.is_empty() && history.history.is_empty());
    // Batches of several sizes are submitted apart, in order.
    model.compile(Compile { steps_per_execution: 4, ..sgd(0.0) }).unwrap();
    let seen = RefCell::new(Vec::new());
    let mut see = LambdaCallback::new().on_batch_end(|run| seen.borrow_mut().push(run.step));
    let sizes = [2, 2, 3, 3, 3, 2].map(|rows: usize| Ok(Tensor::ones([rows, 1]).into()));
    let options = Fit { steps_per_epoch: Some(6), callbacks: vec![&mut see], ..silent() };
    model.fit_blocking(Stream::new(sizes), options).unwrap();
    drop(see);
    assert_eq!(seen.into_inner(), [2, 5, 6]);
}

#[test]
fn a_stream_is_evaluated_to_its_end_or_for_so_many_steps() {
    let ((x, xs), (y, ys)) = (uniform(1, 24, 4), uniform(2, 24, 1));
    let mut model = linear(4);
    model.compile(sgd(0.0)).unwrap();
    let p = predictions(&model, &xs);
    let loss = |data: Source<'_>, steps: Option<usize>| {
        model.evaluate_blocking(data, Evaluate { steps, batch_size: 8, ..quiet() }).unwrap().get("loss").unwrap()
    };
    let (all, two) = (mean(&ys, &p, |e| e * e), mean(&ys[..16], &p[..16], |e| e * e));
    close(loss(Stream::new(batches(&x, &y).take(3)).into(), None), all);
    close(loss(Stream::new(batches(&x, &y)).into(), Some(2)), two);
    close(loss((&x, &y).into(), None), all);
    close(loss((&x, &y).into(), Some(2)), two);
    close(loss((&x, &y).into(), Some(100)), all);
    let error = model.evaluate_blocking(Stream::new([]), quiet()).unwrap_err().to_string();
    assert!(error.contains("no batches"), "{error}");
    assert!(model.evaluate_blocking((&x, &y), Evaluate { steps: Some(0), ..quiet() }).is_err());
}

#[test]
fn what_a_stream_cannot_do_is_refused() {
    let x = numbered(4);
    let mut model = linear(1);
    model.compile(sgd(0.1)).unwrap();
    let before = bits(&model);
    let mut message = |items: Vec<Result<Batch>>, options: Fit<'_>| {
        model.fit_blocking(Stream::new(items), options).unwrap_err().to_string()
    };
    let some = || Fit { steps_per_epoch: Some(1), ..silent() };
    assert!(message(vec![], silent()).contains("give steps_per_epoch"));
    assert!(message(vec![], Fit { validation_split: 0.5, ..some() }).contains("give validation_data"));
    let failed = || Err(Error::new(ErrorKind::Io { path: "rows.bin".into(), why: "gone".into() }));
    assert_eq!(message(vec![failed()], some()), "rows.bin: gone");
    let uneven = Ok((&x, &numbered(3)).into());
    assert_eq!(
        message(vec![uneven], some()),
        "a batch of a stream has 4 rows in its first input, but 3 in another tensor"
    );
    assert!(message(vec![Ok(Batch::default())], some()).contains("no rows"));
    let weighted = Ok((&x, &x, &Tensor::new(&[1.0; 4], [4])).into());
    let error = message(vec![weighted], Fit { class_weight: vec![(0, 2.0)], ..some() });
    assert!(error.contains("class_weight"), "{error}");
    assert!(before == bits(&model));
}

#[test]
fn classes_weigh_in_training_and_not_in_validation() {
    let (x, xs) = uniform(1, 32, 4);
    let ys: Vec<f32> = (0..32).map(|i| (i % 3) as f32).collect();
    let y = Tensor::new(&ys, [32, 1]);
    let mut model = linear(4);
    model.compile(Compile { weighted_metrics: vec!["mse".into()], ..sgd(0.0) }).unwrap();
    let p = predictions(&model, &xs);
    let class_weight = vec![(0, 0.5), (2, 3.0)];
    let weight = |y: f32| [0.5, 1.0, 3.0][y as usize];
    let square = |from: usize, to: usize| (from..to).map(|i| (p[i] - f64::from(ys[i])).powi(2)).collect::<Vec<_>>();
    let expected: f64 = square(0, 24).iter().zip(&ys).map(|(s, &y)| s * weight(y)).sum();
    let total: f64 = ys[..24].iter().map(|&y| weight(y)).sum();
    let options = || Fit { class_weight: class_weight.clone(), validation_split: 0.25, batch_size: 8, ..silent() };
    let history = model.fit_blocking((&x, &y), options()).unwrap();
    close(history.last("loss").unwrap(), expected / 24.0);
    close(history.last("mse").unwrap(), expected / total);
    close(history.last("mae").unwrap(), mean(&ys[..24], &p[..24], f64::abs));
    close(history.last("val_loss").unwrap(), mean(&ys[24..], &p[24..], |e| e * e));
    // The same for a stream.
    let data = Data::new((&x, &y)).unwrap();
    let parts = (0..3).map(|part| Ok(data.rows(&(part * 8..part * 8 + 8).collect::<Vec<_>>())));
    let stream = Fit { validation_split: 0.0, steps_per_epoch: Some(3), ..options() };
    close(model.fit_blocking(Stream::new(parts), stream).unwrap().last("loss").unwrap(), expected / 24.0);
    // Either, not both.
    let w = Tensor::new(&[1.0; 32], [32]);
    let error = model.fit_blocking((&x, &y, &w), options()).unwrap_err().to_string();
    assert!(error.contains("class_weight") && error.contains("sample weights"), "{error}");
    let error = model.fit_blocking((&x, &y), Fit { class_weight: vec![(1, f64::NAN)], ..silent() }).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NonFinite { .. }), "{error}");
}

#[test]
fn validation_may_be_at_given_epochs_and_of_some_steps() {
    let ((x, xs), (y, ys)) = (uniform(1, 24, 4), uniform(2, 24, 1));
    let mut model = linear(4);
    model.compile(sgd(0.0)).unwrap();
    let p = predictions(&model, &xs);
    let options = |epochs| Fit {
        epochs: 5,
        batch_size: 8,
        validation_data: Some((&x, &y).into()),
        validation_epochs: Some(epochs),
        validation_steps: Some(2),
        ..silent()
    };
    let history = model.fit_blocking((&x, &y), options(vec![1, 4])).unwrap();
    assert_eq!((history.get("loss").unwrap().len(), history.get("val_loss").unwrap().len()), (5, 2));
    close(history.last("val_loss").unwrap(), mean(&ys[..16], &p[..16], |e| e * e));
    assert!(model.fit_blocking((&x, &y), options(vec![0])).is_err());
    assert!(model.fit_blocking((&x, &y), Fit { validation_steps: Some(0), ..options(vec![]) }).is_err());
}
