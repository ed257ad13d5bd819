//! `predict` and the methods for one batch.

use crate::{close, linear, mean, mlp, predictions, quiet, sgd, silent, uniform, unseen};
use wengert::prelude::*;

#[test]
fn all_rows_are_predicted_in_order() {
    let ((x, xs), (y, ys)) = (uniform(1, 100, 4), uniform(2, 100, 1));
    let mut model = linear(4);
    model.compile(sgd(0.1)).unwrap();
    for trained in [false, true] {
        if trained {
            model.fit_blocking((&x, &y), silent()).unwrap();
        }
        let expected = predictions(&model, &xs);
        // 100 rows in batches of 32 leave 4; and twice, since the second time everything is recorded already.
        for batch_size in [32, 32, 7, 100, 1000] {
            let predicted = model.predict_blocking(&x, Predict { batch_size, ..unseen() }).unwrap();
            assert_eq!(predicted.shape(), [100, 1].into());
            let predicted = predicted.to_vec::<f32>().unwrap();
            for (p, q) in predicted.iter().zip(&expected) {
                assert!((f64::from(*p) - q).abs() < 1e-5, "{trained}, batches of {batch_size}: {p} and {q}");
            }
        }
        let scores = model.evaluate_blocking((&x, &y), quiet()).unwrap();
        close(scores.get("loss").unwrap(), mean(&ys, &expected, |e| e * e));
        close(scores.get("mae").unwrap(), mean(&ys, &expected, f64::abs));
        let whole = pollster::block_on(model.predict_on_batch(&x)).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(
            whole,
            model.predict_blocking(&x, Predict { batch_size: 100, ..unseen() }).unwrap().to_vec::<f32>().unwrap()
        );
    }
}

#[test]
fn other_dtypes_and_shapes_come_back_as_they_are() {
    struct Classes(Functional);
    impl Model for Classes {
        crate::base!(0);
        fn predict_step(&self, state: PredictState, batch: Batch) -> Result<Tensor> {
            let (trainable, non_trainable) = state;
            let (y, _) = self.stateless_call(&trainable, &non_trainable, &batch.x()?, Mode::Infer)?;
            Ok(y.argmax(-1))
        }
    }
    let x = uniform(3, 9, 4).0;
    let network = Sequential::new([4]).add(Dense::new(5)).build().unwrap();
    let logits = network.predict_blocking(&x, unseen()).unwrap();
    assert_eq!(logits.shape(), [9, 5].into());
    let logits = logits.to_vec::<f32>().unwrap();
    let largest = |row: &[f32]| (0..5).max_by(|&i, &j| row[i].total_cmp(&row[j])).unwrap() as i32;
    let expected: Vec<i32> = logits.chunks(5).map(largest).collect();
    let predicted = Classes(network).predict_blocking(&x, Predict { batch_size: 4, ..unseen() }).unwrap();
    assert_eq!((predicted.shape(), predicted.dtype()), ([9].into(), DType::I32));
    assert_eq!(predicted.to_vec::<i32>().unwrap(), expected);
}

#[test]
fn predicting_a_known_shape_makes_nothing() {
    let x = uniform(1, 256, 4).0;
    let model = mlp();
    let device = pollster::block_on(model.device()).unwrap();
    let options = || Predict { batch_size: 8, ..unseen() };
    model.predict_blocking(&x, options()).unwrap();
    model.predict_blocking(&x, options()).unwrap();
    let before = device.stats();
    model.predict_blocking(&x, options()).unwrap();
    let made = device.stats() - before;
    assert_eq!((made.bind_groups, made.pipelines), (0, 0), "{made}");
    // 32 batches: replayed and set aside, and read together, not one by one.
    assert!(made.waits < 32 && made.submissions <= 66, "{made}");
}

#[test]
fn single_batches_train_test_and_accumulate() {
    let ((x, xs), (y, ys)) = (uniform(1, 16, 4), uniform(2, 16, 1));
    let mut model = linear(4);
    model.compile(sgd(0.0)).unwrap();
    let expected = mean(&ys, &predictions(&model, &xs), |e| e * e);
    let scores = pollster::block_on(model.train_on_batch((&x, &y))).unwrap();
    close(scores.get("loss").unwrap(), expected);
    let scores = pollster::block_on(model.test_on_batch((&x, &y))).unwrap();
    close(scores.get("loss").unwrap(), expected);
    pollster::block_on(model.reset_metrics()).unwrap();
    // Another batch alone, then both.
    let half = (Tensor::new(&xs[..32], [8, 4]), Tensor::new(&ys[..8], [8, 1]));
    let first = mean(&ys[..8], &predictions(&model, &xs)[..8], |e| e * e);
    let scores = pollster::block_on(model.test_on_batch(half.clone())).unwrap();
    close(scores.get("loss").unwrap(), first);
    let scores = pollster::block_on(model.test_on_batch((&x, &y))).unwrap();
    close(scores.get("loss").unwrap(), (8.0 * first + 16.0 * expected) / 24.0);
    // Training on a batch is one update of fit.
    let train = |by_hand: bool| {
        let mut model = mlp();
        model.compile(crate::adam()).unwrap();
        if by_hand {
            pollster::block_on(model.train_on_batch((&x, &y))).unwrap();
        } else {
            model.fit_blocking((&x, &y), Fit { shuffle: false, ..silent() }).unwrap();
        }
        crate::bits(&model)
    };
    assert!(train(true) == train(false));
}
