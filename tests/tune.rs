//! Tuning: every variant of a step's products is tried, what won is taken and kept, and results stay right.

#![cfg(not(target_arch = "wasm32"))]

use wengert::gpu::DeviceOptions;
use wengert::ops::Conv;
use wengert::prelude::*;

/// A device that keeps what it finds in a folder of its own.
fn device(folder: &std::path::Path) -> Device {
    let options = DeviceOptions { cache: Some(folder.into()), ..DeviceOptions::default() };
    pollster::block_on(Device::with(options)).unwrap()
}

fn step(w: Tensor, x: &Tensor) -> Result<(Logs, Tensor)> {
    let f = |w: &Tensor| Ok((x.matmul(w).tanh().matmul(&w.t()).square().mean(..), ()));
    let ((loss, ()), gradient) = value_and_grad(f, &w)?;
    let mut logs = Logs::default();
    logs.push("loss", loss);
    Ok((logs, w - gradient * 0.1))
}

#[test]
fn a_tuned_step_computes_the_same_and_later_devices_know() {
    let folder = std::env::temp_dir().join(format!("wengert-tune-{}", std::process::id()));
    let run = |device: &Device, tune: bool| {
        let numbers = |count: usize| (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 404.0 - 0.1).collect::<Vec<_>>();
        let (w, x) = (Tensor::new(&numbers(40 * 48), [40, 48]), Tensor::new(&numbers(64 * 40), [64, 40]));
        let (mut step_, mut w) = (Step::new(device), w);
        let tuned = if tune { pollster::block_on(step_.tune(&w, &x, step)).unwrap() } else { Vec::new() };
        for _ in 0..3 {
            step_.run(&mut w, &x, step).unwrap();
        }
        (pollster::block_on(w.read::<f32>()).unwrap(), tuned)
    };
    let first = device(&folder);
    assert!(first.choices().is_empty());
    let (untuned, _) = run(&first, false);
    let (right, tuned) = run(&first, true);
    // Two products forwards, and the ones of the gradient that are of another kind.
    assert!(tuned.len() >= 3, "{tuned:?}");
    for one in &tuned {
        println!("{one}");
        assert!(one.variants.len() >= 3, "{one}");
        assert!(one.variants.windows(2).all(|pair| pair[0].1 <= pair[1].1 && pair[0].1 > 0.0), "{one}");
        assert!(one.variants.iter().any(|(name, _)| *name == one.chosen), "{one}");
        assert!(one.default_over_best() >= 1.0, "{one}");
        assert_eq!(first.choices().get(&one.product), Some(one.chosen.as_str()));
    }
    for (a, b) in untuned.iter().zip(&right) {
        assert!((a - b).abs() <= 1e-6 * a.abs().max(1.0), "{a} {b}");
    }
    let later = device(&folder);
    assert_eq!(later.choices(), first.choices());
    assert_eq!(run(&later, false).0, right);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn loops_and_convolutions_are_tuned_as_well() {
    let device = pollster::block_on(Device::with(DeviceOptions { cache: None, ..DeviceOptions::default() })).unwrap();
    let f = |state: (Tensor, Tensor), x: &Tensor| {
        let seen = x.conv2d(&state.0, &Conv::default()).relu();
        let steps = seen.reshape([8, 2, 72]);
        let (h, _) = wengert::ops::scan(8, Tensor::zeros([2, 16]), steps, |h: Tensor, x: Tensor| {
            let h = (x.matmul(&state.1) + h).tanh();
            Ok((h.clone(), h))
        })?;
        let mut logs = Logs::default();
        logs.push("sum", h.sum(..));
        Ok((logs, state))
    };
    let state = (Tensor::ones([3, 3, 1, 32]), Tensor::ones([72, 16]));
    let batch = Tensor::ones([1, 8, 8, 1]);
    let tuned = pollster::block_on(Step::new(&device).tune(&state, &batch, f)).unwrap();
    let sizes: Vec<[usize; 4]> = tuned.iter().map(|one| one.sizes).collect();
    assert_eq!(sizes, [[1, 36, 32, 9], [1, 2, 16, 72]], "{tuned:?}");
}

#[test]
fn a_model_is_tuned_by_a_batch() {
    let device = pollster::block_on(Device::with(DeviceOptions { cache: None, ..DeviceOptions::default() })).unwrap();
    let layers = Sequential::new([20]).add(Dense::new(33).activation("relu")).add(Dense::new(7));
    let mut model = layers.build().unwrap().on(&device);
    model.compile(Compile { loss: "mse".into(), ..Compile::default() }).unwrap();
    let batch = (Tensor::zeros([16, 20]), Tensor::zeros([16, 7]));
    let tuned = pollster::block_on(model.tune(batch.clone())).unwrap();
    assert!(tuned.iter().any(|one| one.sizes == [1, 16, 33, 20]), "{tuned:?}");
    pollster::block_on(model.train_on_batch(batch)).unwrap();
}
