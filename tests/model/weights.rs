//! Weights as bytes and files.

use crate::{adam, bits, mlp, silent, uniform, unseen};
use wengert::prelude::*;

fn trained() -> Functional {
    let ((x, _), (y, _)) = (uniform(1, 40, 4), uniform(2, 40, 1));
    let mut model = mlp();
    model.compile(adam()).unwrap();
    model.fit_blocking((&x, &y), silent()).unwrap();
    model
}

#[test]
fn weights_come_back_in_every_bit() {
    let folder = std::env::temp_dir().join(format!("wengert-weights-{}", std::process::id()));
    let path = folder.join("model.safetensors");
    let (model, fresh) = (trained(), mlp());
    pollster::block_on(model.save_weights(&path)).unwrap();
    assert!(bits(&model) != bits(&fresh));
    let loaded = pollster::block_on(fresh.load_weights(&path)).unwrap();
    assert_eq!(loaded.matched, ["dense/kernel", "dense/bias", "dense_1/kernel", "dense_1/bias"]);
    assert!(loaded.missing.is_empty() && loaded.unused.is_empty());
    assert!(bits(&model) == bits(&fresh));
    // Onto a device too, where a recorded step goes on with them.
    let x = uniform(1, 40, 4).0;
    let again = trained();
    pollster::block_on(again.set_weights(&bits(&mlp()))).unwrap();
    assert!(bits(&again) == bits(&mlp()));
    let a = again.predict_blocking(&x, unseen()).unwrap().to_vec::<f32>().unwrap();
    let b = mlp().predict_blocking(&x, unseen()).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(a, b);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn names_without_a_partner_are_reported() {
    let network = |last: &str| {
        Sequential::new([4]).add(Dense::new(8).named("body")).add(Dense::new(2).named(last)).build().unwrap()
    };
    let (old, new) = (network("head").seed(1).unwrap(), network("tail"));
    let before = bits(&new);
    let loaded = pollster::block_on(new.set_weights(&bits(&old))).unwrap();
    assert_eq!(loaded.matched, ["body/kernel", "body/bias"]);
    assert_eq!(loaded.missing, ["tail/kernel", "tail/bias"]);
    assert_eq!(loaded.unused, ["head/bias", "head/kernel"]);
    assert!(bits(&new) != before);
}

#[test]
fn a_file_that_does_not_fit_changes_nothing() {
    let model = trained();
    let before = bits(&model);
    let other = Sequential::new([4]).add(Dense::new(8)).add(Dense::new(2)).build().unwrap();
    let error = pollster::block_on(model.set_weights(&bits(&other))).unwrap_err().to_string();
    assert!(error.contains("dense_1/kernel is f32[8, 1]") && error.contains("[8, 2]"), "{error}");
    assert!(before == bits(&model));
    let strange = Sequential::new([4]).add(Dense::new(8).named("strange")).build().unwrap();
    let error = pollster::block_on(model.set_weights(&bits(&strange))).unwrap_err().to_string();
    assert!(error.contains("dense/kernel") && error.contains("strange/bias"), "{error}");
    let error = pollster::block_on(model.set_weights(b"no such thing")).unwrap_err();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    let error = pollster::block_on(model.load_weights("/no/such/file")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(before == bits(&model));
}

#[test]
fn tensors_that_were_taken_keep_their_values_when_others_are_set() {
    let model = trained();
    let device = pollster::block_on(model.device()).unwrap();
    let before = bits(&model);
    let taken = model.variables().unwrap();
    pollster::block_on(model.set_weights(&bits(&mlp()))).unwrap();
    let kept: Vec<f32> = taken.iter().flat_map(|(_, t)| t.to_vec_on::<f32>(&device).unwrap()).collect();
    assert!(before != bits(&model));
    pollster::block_on(model.set_weights(&before)).unwrap();
    let back: Vec<f32> =
        model.variables().unwrap().iter().flat_map(|(_, t)| t.to_vec_on::<f32>(&device).unwrap()).collect();
    assert_eq!(kept, back);
}
