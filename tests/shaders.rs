//! The WGSL files of `shaders/`: each is valid as it stands and says what it is, and every helper function of an op
//! comes from one of them. And the kernels of whole trainings: each can be translated for Metal and DirectX.
//!
//! Deliberately absent: what they compute; `tests/ops.rs`, `src/random/tests.rs` and `tests/train_step.rs` hold that.

#![cfg(not(target_arch = "wasm32"))]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::training::Training;
use common::translate::{for_browser, translate_all};
use wengert::dtype::DType;
use wengert::gpu::shader::{Shader, function};
use wengert::gpu::{Device, DeviceOptions};
use wengert::graph::Lowering;
use wengert::graph::display::collect;
use wengert::layers::Network;
use wengert::lower::emit::EXTREMA;
use wengert::ops::registry;
use wengert::optimizers;
use wengert::prelude::*;

/// The files by name.
fn files() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
    };
    fs::read_dir(folder).unwrap().map(read).collect()
}

fn validate(file: &str, text: &str) {
    use wgpu::naga;
    let module = naga::front::wgsl::parse_str(text).unwrap_or_else(|e| panic!("{file}: {}", e.emit_to_string(text)));
    let flags = naga::valid::ValidationFlags::all();
    let valid = naga::valid::Validator::new(flags, naga::valid::Capabilities::empty()).validate(&module);
    valid.unwrap_or_else(|e| panic!("{file}: {}", e.emit_to_string(text)));
}

/// Names that are declared with `fn` at the beginning of a line.
fn functions(text: &str) -> Vec<&str> {
    let name = |line: &'_ str| line.split('(').next().unwrap_or_default().trim().len();
    text.lines().filter_map(|line| line.strip_prefix("fn ")).map(|line| &line[..name(line)]).collect()
}

#[test]
fn every_file_is_valid_as_it_stands_and_for_four_lanes() {
    for (file, text) in files() {
        assert!(file.ends_with(".wgsl"), "{file}");
        assert!(text.starts_with("// "), "{file} does not say what it is");
        let head: String = text.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(head.contains("ource"), "{file} does not say where it is from");
        validate(&file, &text);
        let mut four = Shader::new(text.as_str());
        for (alias, scalar) in [("T", "f32"), ("I", "i32"), ("U", "u32"), ("B", "bool")] {
            if text.contains(&format!("alias {alias} = {scalar};")) {
                four = four.alias(alias, &format!("vec4<{scalar}>"));
            }
        }
        validate(&file, &four.build().unwrap());
        assert!(!functions(&text).is_empty(), "{file}");
        for name in functions(&text) {
            assert!(name.ends_with("_T"), "{file}: {name} has no lane count");
            assert!(function(&text, name).unwrap().trim_end().ends_with('}'));
        }
    }
}

/// A file as it is compiled in.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with("//")).fold(String::new(), |code, line| code + line + "\n")
}

#[test]
fn every_helper_of_an_op_comes_from_a_file_and_every_function_is_used() {
    let files = files();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut use_of = |name: &str, file: &str, calls: &str| {
        let (_, text) = files
            .iter()
            .find(|(_, text)| code(text) == file)
            .unwrap_or_else(|| panic!("{name} has helpers that are not in shaders/:\n{file}"));
        // What it calls, and what that calls.
        let mut open: Vec<&str> = functions(text).into_iter().filter(|f| calls.contains(&format!("{f}("))).collect();
        assert!(!open.is_empty(), "{name} calls nothing of its file: {calls}");
        while let Some(next) = open.pop() {
            if used.insert(next.into()) {
                let body = function(text, next).unwrap();
                open.extend(functions(text).into_iter().filter(|f| body.contains(&format!("{f}("))));
            }
        }
    };
    use_of("folds", EXTREMA, "max_T($0, $1) min_T($0, $1)");
    for example in registry() {
        let leaf = |sample: &wengert::ops::Sample| {
            let n = sample.shape.numel();
            match sample.dtype {
                DType::F32 => Tensor::new(&vec![0.5f32; n], &sample.shape),
                DType::I32 => Tensor::new(&vec![1i32; n], &sample.shape),
                DType::U32 => Tensor::new(&vec![1u32; n], &sample.shape),
                DType::Bool => Tensor::new(&vec![1u32; n], &sample.shape).cast(DType::Bool),
            }
        };
        let result = (example.apply)(&example.inputs.iter().map(leaf).collect::<Vec<_>>());
        for node in collect(&[result.ok().unwrap().clone()]).unwrap() {
            let specs: Vec<Spec> = node.inputs().iter().filter_map(|input| input.spec().cloned()).collect();
            for lowering in node.op().lower(&specs, node.outputs()) {
                match lowering {
                    Lowering::Map(map) if map.helpers.is_empty() => {
                        assert!(!map.text.contains("_T("), "{}: whose function is in {}?", example.name, map.text);
                    }
                    Lowering::Map(map) => use_of(&example.name, map.helpers, map.text),
                    _ => {}
                }
            }
        }
    }
    let all: BTreeSet<String> = files.values().flat_map(|text| functions(text)).map(|name| name.to_string()).collect();
    assert_eq!(used, all, "functions that no op uses");
}

/// Networks that between them hold most layers, each with a batch: features or tokens, and classes.
fn networks() -> Vec<(&'static str, Network, Vec<usize>, DType)> {
    let dense = |units: usize| Dense::new(units).activation("relu");
    let mlp = Sequential::new([784]).add(dense(128)).add(Dropout::new(0.2)).add(Dense::new(10)).network();
    let cnn = Sequential::new([28, 28, 1])
        .add(Conv2D::new(16, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(BatchNormalization::new())
        .add(SeparableConv2D::new(16, 3).strides([2, 2]))
        .add(Conv2DTranspose::new(8, 3).strides([2, 2]))
        .add(AveragePooling2D::new(2))
        .add(Flatten)
        .add(Dense::new(10))
        .network();
    let tokens = Symbolic::input([20], DType::I32);
    let x = Embedding::new(96, 64).on(&tokens);
    let y = LayerNormalization::new().on(&x);
    let x = wengert::layers::Add.on([&x, &MultiHeadAttention::new(4, 16).use_causal_mask(true).on([&y, &y])]);
    let y = Dense::new(128).activation("gelu").on(RMSNormalization::new().on(&x));
    let x = GlobalAveragePooling1D::new().on(Dense::new(64).on(&y));
    let transformer = Network::new(&[tokens], &[Dense::new(10).on(&x)]);
    let recurrent = |layer: &dyn Fn(Sequential) -> Sequential| {
        layer(Sequential::new([12, 8])).add(Dense::new(10)).network().unwrap()
    };
    vec![
        ("mlp", mlp.unwrap(), vec![784], DType::F32),
        ("cnn", cnn.unwrap(), vec![28, 28, 1], DType::F32),
        ("transformer", transformer.unwrap(), vec![20], DType::I32),
        ("lstm", recurrent(&|s| s.add(LSTM::new(24))), vec![12, 8], DType::F32),
        ("gru", recurrent(&|s| s.add(Bidirectional::new(GRU::new(24)))), vec![12, 8], DType::F32),
    ]
}

#[test]
fn the_kernels_of_trainings_are_valid_everywhere() {
    for portable in [false, true] {
        let device = pollster::block_on(Device::with(DeviceOptions { portable, ..Default::default() })).unwrap();
        let train = |network: Network, optimizer: optimizers::Optimizer, shape: &[usize], dtype: DType| {
            let training = Training::of(network, optimizer);
            let mut step = Step::new(&device);
            let mut state = training.state(3);
            for rows in [64, 10] {
                let shape = [&[rows], shape].concat();
                let n: usize = shape.iter().product();
                let x = match dtype {
                    DType::I32 => Tensor::new(&(0..n).map(|i| i as i32 * 7 % 96).collect::<Vec<_>>(), &shape[..]),
                    _ => Tensor::new(&random::threefry::uniform([1, 2], n, -1.0, 1.0), &shape[..]),
                };
                let y = Tensor::new(&(0..rows as i32).map(|i| i % 10).collect::<Vec<_>>(), [rows]);
                let logs = training.run(&mut step, &mut state, &(x, y));
                assert!(logs.read_blocking().unwrap().iter().all(|log| log.1.is_finite()));
            }
        };
        for (_, network, shape, dtype) in networks() {
            train(network, Adam::default().into(), &shape, dtype);
        }
        for name in ["sgd", "rmsprop", "adamw", "adagrad", "adadelta", "adamax", "nadam", "lion"] {
            let network = Sequential::new([8]).add(Dense::new(40).activation("elu")).add(Dense::new(10)).network();
            train(network.unwrap(), optimizers::get(name).unwrap(), &[8], DType::F32);
        }
        let mut texts = BTreeSet::new();
        translate_all(&device, &mut texts);
        assert!(texts.len() > 100, "{}", texts.len());
        if portable {
            for_browser("trainings", &texts);
        }
    }
}
