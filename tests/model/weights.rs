//! Weights as bytes and files.

use crate::{adam, bits, mlp, silent, uniform, unseen};
use wengert::model::{Layout, LoadWeights};
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
    assert!(matches!(error.kind(), ErrorKind::Format { .. }), "{error}");
    let error = pollster::block_on(model.load_weights("/no/such/file")).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Io { .. }), "{error}");
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

/// A file as PyTorch names and lays it out: `[out, in]`.
fn torch(tensors: &[(&str, &[usize], Vec<f32>)]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let view = |shape: &[usize], bytes| {
        safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap()
    };
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| (*name, view(shape, bytes)));
    safetensors::serialize(views, None).unwrap()
}

fn values(model: &Functional) -> Vec<Vec<f32>> {
    let device = pollster::block_on(model.device()).unwrap();
    model.variables().unwrap().iter().map(|(_, t)| t.to_vec_on::<f32>(&device).unwrap()).collect()
}

#[test]
fn a_file_of_pytorch_fits_by_its_names_and_its_layout() {
    let model = Sequential::new([3]).add(Dense::new(2).named("head")).build().unwrap();
    let file = torch(&[
        ("net.head.weight", &[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ("net.head.bias", &[2], vec![7.0, 8.0]),
        ("other.weight", &[1], vec![0.0]),
    ]);
    let rename = |name: &str| name.strip_prefix("net.").map(Into::into);
    let options = LoadWeights { strict: true, layout: Layout::PyTorch, rename: Some(&rename), ..Default::default() };
    let loaded = pollster::block_on(model.set_weights_with(&file, options)).unwrap();
    assert_eq!((loaded.matched.len(), loaded.unused.len()), (2, 0));
    assert_eq!(values(&model), [vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0], vec![7.0, 8.0]]);
    // y = x W^T + b there is y = x W + b here.
    let x = Tensor::new(&[1.0f32, 10.0, 100.0], [1, 3]);
    let y = model.predict_blocking(&x, Predict::default()).unwrap().to_vec::<f32>().unwrap();
    assert_eq!(y, [321.0 + 7.0, 654.0 + 8.0]);
    // Under the names of here, the same file has nothing for the network.
    let error = pollster::block_on(model.set_weights(&file)).unwrap_err().to_string();
    assert!(error.contains("net.head.bias") && error.contains("head/kernel"), "{error}");
    // Two tensors cannot be one variable.
    let options = LoadWeights { rename: Some(&|_| Some("head/bias".into())), ..LoadWeights::default() };
    let error = pollster::block_on(model.set_weights_with(&file, options)).unwrap_err().to_string();
    assert!(error.contains("are both head/bias"), "{error}");
    // A square or wrong kernel is judged by the shape it has when turned.
    let wide = torch(&[("head.weight", &[3, 2], vec![0.0; 6])]);
    let options = LoadWeights { layout: Layout::PyTorch, ..LoadWeights::default() };
    let error = pollster::block_on(model.set_weights_with(&wide, options)).unwrap_err().to_string();
    assert!(error.contains("head/kernel is f32[3, 2], the file has f32[3, 2] as head.weight"), "{error}");
}

#[test]
fn strictness_and_leniency_are_asked_for() {
    let network = |units: usize, last: &str| {
        Sequential::new([4]).add(Dense::new(8).named("body")).add(Dense::new(units).named(last)).build().unwrap()
    };
    let (model, before) = (network(2, "head"), bits(&network(2, "head")));
    let load = |other: &Functional, options| pollster::block_on(model.set_weights_with(&bits(other), options));
    let strict = LoadWeights { strict: true, ..LoadWeights::default() };
    let error = load(&network(2, "tail"), strict).unwrap_err().to_string();
    assert!(
        error.contains("lacks head/kernel, head/bias; the network has no place for tail/bias, tail/kernel"),
        "{error}"
    );
    assert!(load(&network(3, "head").seed(1).unwrap(), strict).is_err());
    assert!(bits(&model) == before);
    let lenient = LoadWeights { skip_mismatch: true, ..LoadWeights::default() };
    let loaded = load(&network(3, "head").seed(1).unwrap(), lenient).unwrap();
    assert_eq!(loaded.matched, ["body/kernel", "body/bias"]);
    assert_eq!(
        loaded.mismatched,
        ["head/kernel is f32[8, 2], the file has f32[8, 3]", "head/bias is f32[2], the file has f32[3]"]
    );
    let seeded = network(2, "head").seed(1).unwrap();
    assert_eq!(load(&seeded, strict).unwrap().matched.len(), 4);
    assert!(bits(&model) == bits(&seeded));
}
