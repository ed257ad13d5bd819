//! Convolution and pooling layers: forward, gradients, shapes.
//!
//! Each layer here has the options of the case of the same name in `generate/convolution.py`. The derivatives are those
//! of half the sum of the output's squares. Names of layers and variables are compared too: they are in the names of
//! the arrays.

use wengert::grad::grad;
use wengert::graph::Tensor;
use wengert::layers::*;
use wengert::lower::Options;
use wengert::read::evaluate;

use crate::reference::{Reference, close, device};

fn conv(cases: &mut Vec<(&'static str, LayerRef)>) {
    let conv2d = Conv2D::new;
    cases.extend([
        ("conv2d", conv2d(3, 3).shared()),
        ("conv2d plain", Conv2D::new(4, (2, 3)).use_bias(false).activation("tanh").shared()),
        ("conv2d relu", conv2d(4, 3).padding("same").activation("relu").shared()),
        ("conv2d pixels", conv2d(3, 1).shared()),
        ("conv2d pixels strided", conv2d(3, 1).strides(2).shared()),
        ("conv2d same odd kernel", conv2d(2, 3).padding("same").shared()),
        ("conv2d same even kernel", Conv2D::new(2, [2, 4]).padding("same").shared()),
        ("conv2d same 5 by 2 in steps", conv2d(2, 2).strides(2).padding("same").shared()),
        ("conv2d same 5 by 3 in steps", conv2d(2, 3).strides(2).padding("same").shared()),
        ("conv2d same 6 by 2 in steps", conv2d(2, 2).strides(2).padding("same").shared()),
        ("conv2d same 6 by 3 in steps", conv2d(2, 3).strides(2).padding(Padding::Same).shared()),
        ("conv2d valid in steps", Conv2D::new(3, [3, 2]).strides([2, 3]).shared()),
        ("conv2d wide steps", conv2d(2, 2).strides(3).padding("same").shared()),
        ("conv2d dilated", conv2d(2, 2).dilation_rate([2, 3]).shared()),
        ("conv2d dilated same", Conv2D::new(2, [3, 2]).dilation_rate(2).padding("SAME").shared()),
        ("conv2d dilated steps", conv2d(2, 2).strides([2, 1]).dilation_rate(2).padding("same").shared()),
        ("conv2d groups", conv2d(6, 3).groups(2).padding("same").shared()),
        ("conv2d groups in steps", conv2d(4, 2).groups(2).strides(2).shared()),
        ("conv2d channels", conv2d(6, 2).groups(3).shared()),
        ("conv2d channels in steps", conv2d(3, 3).groups(3).strides(2).padding("same").shared()),
        ("conv1d", Conv1D::new(3, 3).shared()),
        ("conv1d same", Conv1D::new(3, 4).padding("same").strides(2).shared()),
        ("conv1d causal", Conv1D::new(3, 3).padding("causal").shared()),
        ("conv1d causal dilated", Conv1D::new(3, 2).padding("causal").dilation_rate(3).activation("relu").shared()),
        ("conv1d causal in steps", Conv1D::new(3, 3).padding(Padding::Causal).strides(2).shared()),
        ("conv1d groups", Conv1D::new(4, 2).groups(2).use_bias(false).shared()),
    ]);
}

fn separable(cases: &mut Vec<(&'static str, LayerRef)>) {
    cases.extend([
        ("depthwise2d", DepthwiseConv2D::new(3).shared()),
        ("depthwise2d same", DepthwiseConv2D::new((2, 3)).padding("same").depth_multiplier(2).shared()),
        ("depthwise2d steps", DepthwiseConv2D::new(3).strides(2).padding("same").activation("relu").shared()),
        ("depthwise2d dilated", DepthwiseConv2D::new(2).dilation_rate(2).use_bias(false).shared()),
        ("depthwise1d", DepthwiseConv1D::new(3).depth_multiplier(2).shared()),
        ("depthwise1d same", DepthwiseConv1D::new(2).strides(2).padding("same").shared()),
        ("separable2d", SeparableConv2D::new(3, 3).shared()),
        (
            "separable2d doubled",
            SeparableConv2D::new(3, 2).depth_multiplier(2).padding("same").activation("relu").shared(),
        ),
        ("separable2d steps", SeparableConv2D::new(4, 3).strides(2).padding("same").use_bias(false).shared()),
        ("separable2d dilated", SeparableConv2D::new(2, 2).dilation_rate(2).shared()),
        ("separable1d", SeparableConv1D::new(3, 3).padding("same").shared()),
    ]);
}

fn transposed(cases: &mut Vec<(&'static str, LayerRef)>) {
    let steps = |kernel: usize, padding: &str| Conv2DTranspose::new(2, kernel).strides(2).padding(padding).shared();
    let added = |kernel: usize, padding: &str, added: [usize; 2]| {
        Conv2DTranspose::new(2, kernel).strides(3).padding(padding).output_padding(added).shared()
    };
    cases.extend([
        ("transpose2d", Conv2DTranspose::new(3, 3).shared()),
        ("transpose2d same", Conv2DTranspose::new(3, 3).padding("same").activation("relu").shared()),
        ("transpose2d same even", Conv2DTranspose::new(2, (2, 4)).padding("same").shared()),
        ("transpose2d valid 1 in steps", steps(1, "valid")),
        ("transpose2d valid 2 in steps", steps(2, "valid")),
        ("transpose2d valid 3 in steps", steps(3, "valid")),
        ("transpose2d valid 4 in steps", steps(4, "valid")),
        ("transpose2d valid 2 and 0", added(2, "valid", [0, 1])),
        ("transpose2d valid 2 and 2", added(2, "valid", [2, 2])),
        ("transpose2d valid 3 and 0", added(3, "valid", [0, 1])),
        ("transpose2d valid 3 and 2", added(3, "valid", [2, 2])),
        ("transpose2d same 1 in steps", steps(1, "same")),
        ("transpose2d same 2 in steps", steps(2, "same")),
        ("transpose2d same 3 in steps", steps(3, "same")),
        ("transpose2d same 4 in steps", steps(4, "same")),
        ("transpose2d same 2 and 0", added(2, "same", [0, 1])),
        ("transpose2d same 2 and 2", added(2, "same", [2, 2])),
        ("transpose2d same 3 and 0", added(3, "same", [0, 1])),
        ("transpose2d same 3 and 2", added(3, "same", [2, 2])),
        ("transpose2d wide steps", Conv2DTranspose::new(2, 2).strides((3, 4)).use_bias(false).shared()),
        ("transpose2d dilated", Conv2DTranspose::new(2, (3, 2)).dilation_rate(2).shared()),
        ("transpose2d dilated same", Conv2DTranspose::new(2, 2).dilation_rate((2, 3)).padding("same").shared()),
        ("transpose1d", Conv1DTranspose::new(3, 3).strides(2).shared()),
        ("transpose1d same", Conv1DTranspose::new(3, 4).strides(2).padding("same").shared()),
        ("transpose1d added", Conv1DTranspose::new(3, 3).strides(2).padding("same").output_padding(1).shared()),
    ]);
}

fn pooling(cases: &mut Vec<(&'static str, LayerRef)>) {
    cases.extend([
        ("max2d", MaxPooling2D::default().shared()),
        ("max2d ties", MaxPooling2D::new((3, 2)).shared()),
        ("max2d overlapping ties", MaxPooling2D::new(3).strides(1).shared()),
        ("max2d same ties", MaxPooling2D::new(3).strides(2).padding("same").shared()),
        ("max2d same negative", MaxPooling2D::new((2, 3)).strides((3, 2)).padding("same").shared()),
        ("max2d zeros", MaxPooling2D::new(2).padding("same").shared()),
        ("max1d", MaxPooling1D::default().shared()),
        ("max1d same", MaxPooling1D::new(3).strides(2).padding("same").shared()),
        ("mean2d", AveragePooling2D::new(2).shared()),
        ("mean2d overlapping", AveragePooling2D::new((3, 2)).strides(1).shared()),
        ("mean2d same", AveragePooling2D::new(3).strides(2).padding("same").shared()),
        ("mean2d same one axis", AveragePooling2D::new((2, 1)).strides(1).padding("same").shared()),
        ("mean1d", AveragePooling1D::new(2).shared()),
        ("mean1d same", AveragePooling1D::new(3).strides(2).padding("same").shared()),
        ("global max2d", GlobalMaxPooling2D::new().shared()),
        ("global max2d kept", GlobalMaxPooling2D::new().keepdims(true).shared()),
        ("global max1d", GlobalMaxPooling1D::new().shared()),
        ("global mean2d", GlobalAveragePooling2D::new().shared()),
        ("global mean2d kept", GlobalAveragePooling2D::new().keepdims(true).shared()),
        ("global mean1d", GlobalAveragePooling1D::new().shared()),
        ("global mean1d kept", GlobalAveragePooling1D::new().keepdims(true).shared()),
    ]);
}

/// What stands behind the name of the case in the names of its arrays.
fn suffixes<'a>(reference: &'a Reference, case: &str) -> Vec<&'a str> {
    reference.names().into_iter().filter_map(|name| name.strip_prefix(case)?.strip_prefix('/')).collect()
}

fn check(reference: &Reference, case: &str, layer: &LayerRef) {
    let at = |suffix: &str| format!("{case}/{suffix}");
    let x = reference.tensor(&at("x"));
    let input = Input(&x.shape()[1..]);
    let network =
        Network::new(std::slice::from_ref(&input), &[layer.on(&input)]).unwrap_or_else(|e| panic!("{case}: {e}"));

    let suffixes = suffixes(reference, case);
    let named = suffixes.iter().find_map(|suffix| suffix.strip_prefix("is.")).unwrap();
    let (class, name) = named.split_once('.').unwrap();
    assert_eq!((layer.layer().type_name(), layer.layer().kind()), (class, name), "{case}");
    let variables: Vec<_> = (0..)
        .map_while(|i| suffixes.iter().find(|suffix| suffix.starts_with(&format!("{i}."))))
        .map(|suffix| (suffix.split_once('.').unwrap().1, reference.shape(&at(suffix))))
        .collect();
    let ours: Vec<_> =
        network.variables().iter().map(|v| (v.name.split_once('/').unwrap().1, v.shape.dims())).collect();
    assert_eq!(ours, variables, "{case}");

    let weights: Vec<Tensor> =
        variables.iter().enumerate().map(|(i, (name, _))| reference.tensor(&at(&format!("{i}.{name}")))).collect();
    let output = |weights: &[Tensor], x: &Tensor| {
        network.call(weights, &[], std::slice::from_ref(x), Mode::Train).map(|(mut y, _)| y.remove(0))
    };
    let y = output(&weights, &x).unwrap();
    let loss = |(x, weights): &(Tensor, Vec<Tensor>)| Ok(output(weights, x)?.square().sum(..) * 0.5);
    let (dx, dw) = grad(loss, &(x, weights)).unwrap();
    // One plan for all of them, since most of the time goes into compiling pipelines.
    let all: Vec<Tensor> = [&y, &dx].into_iter().chain(&dw).cloned().collect();
    evaluate(device(), &all, &Options::default()).unwrap_or_else(|e| panic!("{case}: {e}"));
    reference.check(&at("y"), &y);
    reference.check(&at("dx"), &dx);
    for (i, dw) in dw.iter().enumerate() {
        reference.check(&at(&format!("d{i}")), dw);
    }
}

fn check_all(fill: fn(&mut Vec<(&'static str, LayerRef)>)) {
    let reference = Reference::open("convolution");
    let mut cases = Vec::new();
    fill(&mut cases);
    for (case, layer) in &cases {
        check(&reference, case, layer);
    }
}

#[test]
fn convolutions() {
    check_all(conv);
}

#[test]
fn separable_convolutions() {
    check_all(separable);
}

#[test]
fn transposed_convolutions() {
    check_all(transposed);
}

#[test]
fn pooling_layers() {
    check_all(pooling);
}

#[test]
fn no_case_is_left_out() {
    let mut cases = Vec::new();
    for fill in [conv, separable, transposed, pooling] {
        fill(&mut cases);
    }
    let mut ours: Vec<_> = cases.iter().map(|(case, _)| *case).chain(["nan max2d"]).collect();
    let reference = Reference::open("convolution");
    let mut theirs: Vec<_> = reference.names().iter().map(|name| name.split_once('/').unwrap().0).collect();
    ours.sort_unstable();
    theirs.sort_unstable();
    theirs.dedup();
    assert_eq!(ours, theirs);
}

#[test]
fn a_window_with_nan_has_no_largest_element() {
    let reference = Reference::open("convolution");
    let x = reference.tensor("nan max2d/x");
    let y = MaxPooling2D::new(2).call(&[x], &mut Context::new(Mode::Infer, vec![], vec![]));
    let y: Vec<f64> = y.to_vec_on::<f32>(device()).unwrap().into_iter().map(f64::from).collect();
    let expected = reference.values("nan max2d/y");
    assert_eq!(expected.iter().filter(|y| y.is_nan()).count(), 2);
    // The scale of a list with NaN is that of its other numbers.
    close("nan max2d/y", &y, expected, crate::reference::TOLERANCE);
}
