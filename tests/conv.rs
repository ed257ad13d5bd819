//! Convolution and pooling at sizes where the tuned product kernels run: values and both gradients against f64.
//!
//! `tests/ops.rs` has the same ops at sizes that derivatives can be checked at; those are small enough to be computed
//! inside a region, so the load functions of the product kernels are held here, with every alignment of channels, long
//! products that are split, and the promise that no windows are written.
#![cfg(all(feature = "reference", not(target_arch = "wasm32")))]

mod common;

use common::Random;
use wengert::gpu::Device;
use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::graph::interpret::{Given, interpret};
use wengert::lower::Options;
use wengert::ops::{Conv, Padding, Window};
use wengert::read::evaluate;
use wengert::step::{Logs, Step};

/// Compares tensors with their f64 interpretation: an error of one unit in the last place of the largest result for each
/// of the roundings of a sum of `terms`, which add up like a random walk, with a factor of 8 for luck.
fn check(device: &Device, what: &str, tensors: &[Tensor], terms: usize) {
    let wanted = interpret(tensors, &Given::new()).unwrap_or_else(|error| panic!("{what}: {error}"));
    for (index, (tensor, wanted)) in tensors.iter().zip(wanted).enumerate() {
        let got = tensor.to_vec_on::<f32>(device).unwrap_or_else(|error| panic!("{what}: {error}"));
        let largest = wanted.data.iter().fold(0f64, |m, x| m.max(x.abs()));
        let allowed = 8.0 * (terms as f64).sqrt() * largest * f64::from(f32::EPSILON);
        for (at, (got, wanted)) in got.iter().zip(&wanted.data).enumerate() {
            assert!((f64::from(*got) - wanted).abs() <= allowed, "{what}, result {index} [{at}]: {got}, not {wanted}");
        }
    }
}

fn leaf(random: &mut Random, shape: &[usize]) -> Tensor {
    Tensor::new(&random.floats(shape.iter().product(), (-1.0, 1.0), false), shape)
}

#[test]
fn large_convolutions_and_their_gradients() {
    let device = Device::blocking().unwrap();
    let plain = Conv::default();
    let same = Conv { padding: Padding::Same, ..plain };
    let cases: &[(&str, [usize; 4], [usize; 4], Conv)] = &[
        ("of one channel", [5, 28, 28, 1], [3, 3, 1, 32], plain),
        ("of quads", [3, 13, 13, 32], [3, 3, 32, 64], plain),
        ("of odd channels", [3, 12, 11, 5], [3, 3, 5, 18], same),
        ("same", [2, 14, 14, 16], [5, 5, 16, 24], same),
        ("strided", [2, 27, 30, 8], [3, 3, 8, 16], Conv { stride: [2, 2], ..same }),
        ("dilated", [2, 20, 18, 4], [3, 3, 4, 12], Conv { dilation: [2, 3], ..plain }),
        ("padded far", [2, 9, 9, 8], [3, 3, 8, 8], Conv { padding: Padding::Explicit([(4, 3), (0, 5)]), ..plain }),
        ("of pixels", [4, 16, 16, 24], [1, 1, 24, 40], plain),
        ("of every other pixel", [4, 16, 17, 24], [1, 1, 24, 40], Conv { stride: [2, 2], ..plain }),
        ("to one filter", [4, 20, 20, 8], [3, 3, 8, 1], same),
        ("in groups", [2, 16, 16, 16], [3, 3, 8, 32], Conv { groups: 2, ..same }),
        ("by depth", [2, 24, 24, 16], [3, 3, 1, 16], Conv { groups: 16, ..same }),
    ];
    let mut random = Random::new(7);
    for (name, x, k, options) in cases {
        let (x, k) = (leaf(&mut random, x), leaf(&mut random, k));
        let y = x.conv2d(&k, options);
        let probe = leaf(&mut random, &y.shape());
        let options = *options;
        let loss = |w: &Vec<Tensor>| Ok((w[0].conv2d(&w[1], &options) * &probe).sum(..));
        let gradients = grad(loss, &vec![x, k]).unwrap();
        let terms = y.dim(0) * y.dim(1) * y.dim(2);
        check(&device, name, &[vec![y], gradients].concat(), terms);
    }
}

#[test]
fn large_transposed_convolutions_and_their_gradients() {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(8);
    for (stride, size, padding) in [([1, 1], [15, 14], Padding::Valid), ([2, 2], [26, 24], Padding::Same)] {
        let (x, k) = (leaf(&mut random, &[3, 13, 12, 24]), leaf(&mut random, &[3, 3, 16, 24]));
        let options = Conv { stride, padding, ..Conv::default() };
        let y = x.conv2d_transpose(&k, size, &options);
        let probe = leaf(&mut random, &y.shape());
        let loss = |w: &Vec<Tensor>| Ok((w[0].conv2d_transpose(&w[1], size, &options) * &probe).sum(..));
        let gradients = grad(loss, &vec![x, k]).unwrap();
        check(&device, "transposed", &[vec![y], gradients].concat(), 600);
    }
}

#[test]
fn large_pools_and_their_gradients() {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(9);
    let pools = [
        Window { kernel: [2, 2], stride: [2, 2], ..Window::default() },
        Window { kernel: [3, 3], stride: [2, 2], padding: Padding::Same, ..Window::default() },
        Window { kernel: [3, 2], stride: [1, 1], ..Window::default() },
    ];
    for (window, channels) in pools.iter().flat_map(|window| [(window, 32), (window, 3)]) {
        for max in [true, false] {
            // Halves, so that there are ties.
            let shape = [3, 27, 26, channels].into();
            let x = random.leaf(&shape, wengert::dtype::DType::F32, (-2.0, 2.0), true);
            let pool = |x: &Tensor| if max { x.max_pool2d(window) } else { x.avg_pool2d(window) };
            let probe = leaf(&mut random, &pool(&x).shape());
            let gradient = grad(|x| Ok((pool(x) * &probe).sum(..)), &x).unwrap();
            check(&device, "pool", &[pool(&x), gradient], 9);
        }
    }
}

/// The gradient of a maximum goes to the first of equals, whole.
/// Such an image is one number, or a row of them, wherever it is read; windows over it are taken of a copy that has its size.
#[test]
fn images_that_are_the_same_everywhere() {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(11);
    let k = leaf(&mut random, &[2, 2, 12, 4]);
    let padding = Padding::Explicit([(1, 0), (0, 1)]);
    let options = Conv { stride: [2, 3], padding, ..Conv::default() };
    let row = leaf(&mut random, &[12]);
    for (name, image) in [("a number", Tensor::scalar(-0.5f32)), ("a row", row)] {
        let image = image.broadcast_to([3, 7, 3, 12]);
        for fuse in [true, false] {
            let y = image.conv2d(&k, &options);
            evaluate(&device, std::slice::from_ref(&y), &Options { fuse, ..Options::default() }).unwrap();
            let wanted = image.conv2d(&k, &options);
            let got = y.to_vec_on::<f32>(&device).unwrap();
            let wanted = interpret(&[wanted], &Given::new()).unwrap().remove(0).data;
            for (at, (got, wanted)) in got.iter().zip(&wanted).enumerate() {
                assert!((f64::from(*got) - wanted).abs() <= 1e-5, "{name}, fuse {fuse} [{at}]: {got}, not {wanted}");
            }
        }
    }
}

#[test]
fn ties_in_a_pool_go_to_the_first() {
    let device = Device::blocking().unwrap();
    let x = Tensor::new(&[1f32, 5.0, 5.0, 5.0, 2.0, 2.0, 2.0, 2.0], [1, 2, 4, 1]);
    let window = Window { kernel: [2, 2], stride: [2, 2], ..Window::default() };
    let gradient = grad(|x| Ok(x.max_pool2d(&window).sum(..)), &x).unwrap();
    assert_eq!(gradient.to_vec_on::<f32>(&device).unwrap(), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

/// Forward and both gradients of a convolution with bias and relu are products that read windows where the image lies;
/// nothing of the size of the windows is written.
#[test]
fn windows_are_never_written() {
    let device = Device::blocking().unwrap();
    let mut random = Random::new(10);
    let shapes: [&[usize]; 3] = [&[8, 15, 15, 16], &[3, 3, 16, 32], &[32]];
    let mut state: Vec<Tensor> = shapes.iter().map(|shape| leaf(&mut random, shape)).collect();
    let mut step = Step::new(&device);
    let f = |state: Vec<Tensor>, _: &()| {
        let loss = |w: &Vec<Tensor>| Ok((w[0].conv2d(&w[1], &Conv::default()) + &w[2]).relu().square().sum(..));
        let gradients = grad(loss, &state)?;
        let update = |(w, g): (&Tensor, &Tensor)| w - g * 1e-3;
        Ok((Logs::default(), state.iter().zip(&gradients).map(update).collect()))
    };
    step.run(&mut state, &(), f).unwrap();
    let plan = step.plan().unwrap();
    let products: Vec<_> =
        plan.lines.iter().filter(|line| line.label.starts_with("matmul ") && line.flops > 0).collect();
    assert_eq!(products.len(), 3, "{plan}");
    assert!(products.iter().all(|line| line.label.contains("windows")), "{plan}");
    let windows = 8 * 13 * 13 * 9 * 16 * 4;
    assert!(plan.lines.iter().all(|line| line.bytes() < windows), "{plan}");
}
