//! The WGSL files of `shaders/`: each is valid as it stands and says what it is, and every helper function of an op
//! comes from one of them.
//!
//! Deliberately absent: what the functions compute; `tests/ops.rs` and `src/random/tests.rs` hold their values.

#![cfg(not(target_arch = "wasm32"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use wengert::dtype::DType;
use wengert::gpu::shader::{Shader, function};
use wengert::graph::display::collect;
use wengert::graph::{Lowering, Spec, Tensor};
use wengert::lower::emit::EXTREMA;
use wengert::ops::registry;

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

#[test]
fn every_helper_of_an_op_comes_from_a_file_and_every_function_is_used() {
    let files = files();
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut use_of = |name: &str, file: &str, calls: &str| {
        let (_, text) = files
            .iter()
            .find(|(_, text)| *text == file)
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
