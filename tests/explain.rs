//! What plans tell of themselves: expressions, slots, bytes, memory before anything is allocated, profiles and traces,
//! pictures, what each pass did, and where a number that is none began.

#![cfg(not(target_arch = "wasm32"))]

mod common;
#[allow(dead_code)] // its main
#[path = "../examples/explain.rs"]
mod example;

use common::training::Training;
use wengert::gpu::Device;
use wengert::graph::Tree;
use wengert::layers::{MaxPooling2D, Network};
use wengert::losses;
use wengert::metrics;
use wengert::plan::{Memory, Plan, Role};
use wengert::prelude::*;
use wengert::random::threefry;

fn device() -> Device {
    Device::blocking().unwrap()
}

fn uniform(seed: u32, shape: &[usize]) -> Tensor {
    Tensor::new(&threefry::uniform([7, seed], shape.iter().product(), -1.0, 1.0), shape)
}

type State = (Vec<Tensor>, Vec<Tensor>, Vec<Tensor>, Vec<Variables>);

/// A network trained with Adam.
fn adam(network: Network, loss: &str) -> Training {
    Training {
        network,
        loss: match loss {
            "classes" => SparseCategoricalCrossentropy { from_logits: true, ..Default::default() }.into(),
            name => losses::get(name).unwrap(),
        },
        optimizer: Adam::default().into(),
        metrics: vec![
            Metric::from(Mean).named("loss"),
            metrics::get(if loss == "mse" { "mae" } else { "accuracy" }).unwrap(),
        ],
    }
}

fn classes(rows: usize) -> Tensor {
    Tensor::new(&(0..rows as i32).map(|row| row * 7 % 10).collect::<Vec<_>>(), [rows])
}

fn mlp() -> (Training, (Tensor, Tensor)) {
    let network = Sequential::new([784]).add(Dense::new(512).activation("relu"));
    let network = network.add(Dense::new(512).activation("relu")).add(Dense::new(10)).network().unwrap();
    (adam(network, "classes"), (uniform(1, &[128, 784]), classes(128)))
}

fn cnn() -> (Training, (Tensor, Tensor)) {
    let network = Sequential::new([28, 28, 1])
        .add(Conv2D::new(32, 3).activation("relu"))
        .add(MaxPooling2D::new(2))
        .add(Conv2D::new(64, 3).activation("relu"))
        .add(Flatten)
        .add(Dense::new(10));
    (adam(network.network().unwrap(), "classes"), (uniform(1, &[32, 28, 28, 1]), classes(32)))
}

fn tiny() -> (Training, (Tensor, Tensor)) {
    (Training::guide(), (uniform(1, &[32, 32]), uniform(2, &[32, 1])))
}

fn transformer() -> (Training, (Tensor, Tensor)) {
    let tokens = Symbolic::input([32], wengert::dtype::DType::I32);
    let x = Embedding::new(64, 64).on(&tokens);
    let y = LayerNormalization::new().on(&x);
    let x = Add.on([&x, &MultiHeadAttention::new(4, 16).use_causal_mask(true).on([&y, &y])]);
    let y = Dense::new(256).activation("gelu").on(LayerNormalization::new().on(&x));
    let x = Add.on([&x, &Dense::new(64).on(&y)]);
    let logits = Dense::new(64).on(LayerNormalization::new().on(&x));
    let text = |from: i32| Tensor::new(&(0..16 * 32).map(|i| (i * 13 + from) % 64).collect::<Vec<i32>>(), [16, 32]);
    (adam(Network::new(&[tokens], &[logits]).unwrap(), "classes"), (text(0), text(1)))
}

/// The bytes allocated once nothing that has been used is on its way back any more.
fn settled(device: &Device) -> u64 {
    let mut bytes = [0; 5];
    while bytes.iter().any(|&before| before != bytes[0] || before == 0) {
        std::thread::sleep(std::time::Duration::from_millis(2));
        device.trim();
        bytes.rotate_right(1);
        bytes[0] = device.stats().bytes_allocated;
    }
    bytes[0]
}

#[test]
fn memory_is_known_before_anything_is_allocated() {
    for (name, (training, batch)) in [("mlp", mlp()), ("cnn", cnn()), ("tiny", tiny()), ("transformer", transformer())]
    {
        let device = device();
        let state: State = training.state(1);
        // Values on the host, as a program that starts has them.
        let mut state: State = state.map(&mut |tensor| host(&device, tensor));
        let mut step = Step::new(&device);
        device.trim();
        let work = uniform(9, &[1024, 1024]).to(&device).unwrap();
        let busy = (0..4).fold(work.clone(), |x, _| x.matmul(&work)).to(&device).unwrap();
        device.wait_blocking().unwrap();
        let before = settled(&device);
        let told = step.memory(&state, &batch, |s, b| training.step(s, b)).unwrap();
        assert_eq!(
            device.stats().bytes_allocated,
            before,
            "{name}: memory was allocated to tell how much there will be"
        );
        step.plan_for(&mut state, &batch, |s, b| training.step(s, b)).unwrap();
        // Keeps the device busy, so that the second step is encoded before the first is done.
        let with_plan = device.stats().bytes_allocated;
        let busy = (0..6).fold(busy, |x, _| x.matmul(&work)).to(&device).unwrap();
        let busy_with = device.stats().bytes_allocated - with_plan;
        for _ in 0..3 {
            training.run(&mut step, &mut state, &batch);
        }
        device.wait_blocking().unwrap();
        drop(busy);
        let taken = device.stats().bytes_allocated - before - busy_with;
        let share = taken as f64 / told.total() as f64;
        assert!((0.95..=1.05).contains(&share), "{name}: told {told}, taken {taken}, {share:.3}");
        let bound: &Memory = step.plan().unwrap().memory();
        assert_eq!(Memory { uniforms: 0, ..*bound }, Memory { uniforms: 0, ..told }, "{name}");
    }
}

/// The same values, on the host alone.
fn host(device: &Device, tensor: &Tensor) -> Tensor {
    use wengert::dtype::DType;
    match tensor.dtype() {
        DType::F32 => Tensor::new(&tensor.to_vec_on::<f32>(device).unwrap(), tensor.shape()),
        DType::I32 => Tensor::new(&tensor.to_vec_on::<i32>(device).unwrap(), tensor.shape()),
        _ => Tensor::new(&tensor.to_vec_on::<u32>(device).unwrap(), tensor.shape()),
    }
}

#[test]
fn a_model_tells_what_training_takes_before_it_trains() {
    let mut model = Sequential::new([784]).add(Dense::new(64).activation("relu")).add(Dense::new(10)).build().unwrap();
    let x = Tensor::new(&[0.5f32; 100 * 784], [100, 784]);
    let y = Tensor::new(&[0.0f32; 1000], [100, 10]);
    let memory = |model: &Functional| pollster::block_on(model.memory((&x, &y)));
    assert!(matches!(memory(&model), Err(error) if matches!(error.kind(), ErrorKind::NotCompiled { .. })));
    model.compile(Compile { optimizer: "adam".into(), loss: "mse".into(), ..Compile::default() }).unwrap();
    let told = memory(&model).unwrap();
    model.fit_blocking((&x, &y), Fit { batch_size: 100, verbose: Verbose::Silent, ..Fit::default() }).unwrap();
    let plan = model.plan().unwrap();
    assert_eq!(Memory { uniforms: 0, staging: 0, ..told }, Memory { uniforms: 0, staging: 0, ..*plan.memory() });
    // Parameters and two moments.
    assert!(told.state >= 3 * 4 * model.count_params() as u64, "{told}");
    let text = format!("{plan:#}");
    for name in ["dense/kernel'", "dense_1/bias/velocity'", "metrics/loss/0", "learning_rate"] {
        assert!(text.contains(name), "{name} is not in\n{text}");
    }
}

/// Weights and their velocities.
type Two = (Vec<Tensor>, Vec<Tensor>);

/// Two layers by hand, with momentum.
fn two_layers((weights, velocities): Two, x: &Tensor) -> Result<(Logs, Two)> {
    let loss = |weights: &Vec<Tensor>| {
        let hidden = (x.matmul(&weights[0]) + &weights[1]).relu();
        Ok(((hidden.matmul(&weights[2]) + &weights[3]).square().mean(..), ()))
    };
    let ((loss, ()), gradients) = value_and_grad(loss, &weights)?;
    let velocities: Vec<Tensor> = velocities.iter().zip(&gradients).map(|(v, g)| v * 0.9 + g).collect();
    let weights = weights.iter().zip(&velocities).map(|(w, v)| w - v * 0.01).collect();
    Ok((Logs::from([("loss", loss)]), (weights, velocities)))
}

fn two_layers_state() -> Two {
    let shapes: [&[usize]; 4] = [&[96, 128], &[128], &[128, 64], &[64]];
    let weights = (1..).zip(shapes).map(|(seed, shape)| uniform(seed, shape)).collect();
    (weights, shapes.iter().map(|shape| uniform(9, shape)).collect())
}

fn named(device: &Device) -> Step {
    Step::new(device).named(["w1", "b1", "w2", "b2", "v_w1", "v_b1", "v_w2", "v_b2"])
}

#[test]
fn a_plan_tells_what_each_dispatch_computes_and_where_everything_lies() {
    let (device, mut state, x) = (device(), two_layers_state(), uniform(5, &[128, 96]));
    let mut step = named(&device);
    let plan = step.plan_for(&mut state, &x, two_layers).unwrap();
    let (short, long) = (plan.to_string(), format!("{plan:#}"));
    assert_eq!(short.lines().count(), 1 + plan.dispatches(), "{short}");
    for text in [
        " f32[128, 128] = relu(x0 @ w1 + b1)",
        "v_w1' f32[96, 128] = v_w1 * 0.9 + x0^T @ ",
        "w1' f32[96, 128] = w1 - v_w1' * 0.01",
        "loss f32[] = ",
        "\nslots:",
        "\nmemory: ",
    ] {
        assert!(long.contains(text), "{text:?} is not in\n{long}");
    }
    let first = &plan.lines[0];
    // x and the first layer's parameters, and the hidden values.
    let (read, written) = (4 * (128 * 96 + 96 * 128 + 128), 4 * 128 * 128);
    assert_eq!((first.read, first.written, first.flops), (read, written, 2 * 128 * 96 * 128), "{long}");
    // Every element: an addition and a relu.
    assert_eq!(first.ops, 2 * 128 * 128, "{long}");
    // Eight leaves, an input, a log; then what lies within the step. No two of one buffer that are alive share a byte.
    let roles = |role| plan.values.iter().filter(|value| value.role == role).count();
    assert_eq!((roles(Role::State), roles(Role::Input), roles(Role::Log)), (8, 1, 1), "{long}");
    let lasting: Vec<_> = plan.values.iter().filter(|value| value.role != Role::Temporary).collect();
    for (at, a) in lasting.iter().enumerate() {
        for b in &lasting[..at] {
            let apart = a.buffer != b.buffer || a.offset + a.bytes <= b.offset || b.offset + b.bytes <= a.offset;
            assert!(apart, "{} and {} overlap\n{long}", a.name, b.name);
        }
    }
    // The plan ran nothing.
    assert_eq!(device.stats().dispatches, 0, "{}", device.stats());
    assert_eq!(state.0[1].to_vec::<f32>().unwrap(), uniform(2, &[128]).to_vec::<f32>().unwrap());
    assert_eq!(plan.memory().total(), step.memory(&state, &x, two_layers).unwrap().total());
}

#[test]
fn the_bytes_of_a_packed_update_are_those_of_the_whole_pack() {
    let (training, batch) = mlp();
    let (mut step, mut state) = (Step::new(&device()), training.state(1));
    let plan = step.plan_for(&mut state, &batch, |s, b| training.step(s, b)).unwrap();
    let update = plan.lines.iter().find(|line| line.computes.iter().any(|c| c.alike > 1)).expect("something packs");
    // Of Adam: parameter, gradient and two moments are read, all but the gradient are written.
    let alike = update.computes.iter().map(|computed| computed.alike).max().unwrap();
    let leaves: Vec<_> = update.writes.iter().map(|&at| &plan.values[at]).collect();
    assert_eq!(leaves.len(), 3 * alike, "{plan:#}");
    let written: u64 = leaves.iter().map(|leaf| leaf.bytes).sum();
    assert_eq!(update.written, written, "{plan:#}");
    // Besides those the step size, a number or two.
    assert!((written / 3 * 4..written / 3 * 4 + 64).contains(&update.read), "{} of {written}\n{plan:#}", update.read);
    assert!(written > 3 * 4 * 600_000, "{written}");
}

#[test]
fn every_pass_can_be_printed() {
    let (device, mut state, x) = (device(), two_layers_state(), uniform(5, &[128, 96]));
    let explained = named(&device).explain(&mut state, &x, two_layers).unwrap();
    let names: Vec<&str> = explained.passes.iter().map(|pass| pass.0).collect();
    assert_eq!(names, ["graph", "program", "fuse", "pack", "schedule", "place", "kernel"]);
    for (pass, texts) in [
        ("graph", &["= relu(", "# explain.rs:"][..]),
        ("program", &["w1 f32[96, 128]\n", " with strides [0, 1]", "return w1', b1'"]),
        ("fuse", &["g0: product 128 x 128 over 96\n", "  * relu", "= relu(matmul"]),
        ("schedule", &["  0  g0\n", "overwritten in place: w1, b1, w2, b2, v_w1, v_b1, v_w2, v_b2"]),
        ("place", &["  T0 + 0 ", "live at most"]),
        ("kernel", &["@compute @workgroup_size"]),
    ] {
        let text = explained.pass(pass).unwrap();
        texts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in {pass}:\n{text}"));
    }
    let (training, batch) = mlp();
    let mut state = training.state(1);
    let explained = Step::new(&device).explain(&mut state, &batch, |s, b| training.step(s, b)).unwrap();
    let text = explained.pass("pack").unwrap();
    assert!(text.contains(" groups and runs over ") && text.contains("one behind the other: "), "{text}");
}

/// A value of a JSON text, as far as a test needs it: nothing but checks.
fn json(text: &str, at: &mut usize) {
    let skip = |at: &mut usize| *at += text[*at..].len() - text[*at..].trim_start().len();
    let expect = |at: &mut usize, what: &str| {
        assert!(text[*at..].starts_with(what), "{what:?} expected at {:?}", &text[*at..text.len().min(*at + 40)]);
        *at += what.len();
    };
    skip(at);
    let list = |at: &mut usize, close: char, each: &dyn Fn(&mut usize)| {
        *at += 1;
        skip(at);
        while !text[*at..].starts_with(close) {
            each(at);
            skip(at);
            if !text[*at..].starts_with(close) {
                expect(at, ",");
                skip(at);
            }
        }
        *at += 1;
    };
    match text[*at..].chars().next().expect("a value") {
        '{' => list(at, '}', &|at| {
            json(text, at);
            expect(at, ":");
            json(text, at);
        }),
        '[' => list(at, ']', &|at| json(text, at)),
        '"' => {
            *at += 1;
            loop {
                let c = text[*at..].chars().next().expect("the end of a string");
                assert!(c >= ' ', "a control character in a string");
                *at += c.len_utf8();
                match c {
                    '"' => break,
                    '\\' => *at += 1,
                    _ => {}
                }
            }
        }
        _ => {
            let end = text[*at..].find([',', '}', ']', '\n']).unwrap();
            text[*at..*at + end].parse::<f64>().expect("a number");
            *at += end;
        }
    }
    skip(at);
}

#[test]
fn a_profile_knows_the_roofline_and_writes_a_trace() {
    let (device, mut state, x) = (device(), two_layers_state(), uniform(5, &[128, 96]));
    if !device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
        println!("skipped: {device:?} has no timestamps");
        return;
    }
    let mut step = named(&device);
    step.run(&mut state, &x, two_layers).unwrap();
    let profile = pollster::block_on(step.profile(&mut state, &x, two_layers)).unwrap();
    assert_eq!(profile.spans.len(), profile.plan.dispatches());
    let ceilings = profile.ceilings.unwrap();
    for (at, (line, span)) in profile.plan.lines.iter().zip(&profile.spans).enumerate() {
        let least = (line.bytes() as f64 / ceilings.bytes_per_second)
            .max((line.flops + line.ops) as f64 / ceilings.flops_per_second);
        let share = profile.share(at).unwrap();
        assert!((share * span.seconds - least).abs() <= 1e-9 * least, "{at}: {share}");
        assert!(share > 0.0 && (at == 0 || span.start >= profile.spans[at - 1].start), "{profile}");
    }
    let text = profile.to_string();
    assert!(text.contains("ceilings of the device: ") && text.contains("roofline"), "{text}");
    // Columns are as wide in each line.
    let labels = text.lines().skip(2).zip(&profile.plan.lines);
    let ends: Vec<usize> = labels.map(|(line, of)| line.len() - of.label.len()).collect();
    assert!(ends.windows(2).all(|pair| pair[0] == pair[1]), "{text}");

    let trace = profile.trace();
    let mut at = 0;
    json(&trace, &mut at);
    assert_eq!(at, trace.len());
    let events = |kind: &str| trace.matches(&format!("\"ph\":\"{kind}\"")).count();
    assert_eq!((events("M"), events("X")), (2, 3 + profile.plan.dispatches()), "{trace}");
    assert!(trace.contains("relu(x0 @ w1 + b1)") && trace.contains("\"encode\""), "{trace}");
}

/// Checks that the tags of an XML text are balanced and its attributes quoted; returns how often each opens.
fn tags(text: &str) -> std::collections::HashMap<String, usize> {
    let (mut open, mut count) = (Vec::new(), std::collections::HashMap::new());
    for piece in text.split('<').skip(1) {
        let (tag, rest) = piece.split_once('>').expect("a tag ends");
        assert!(!rest.contains('>'), "{rest:?} has a bare >");
        for entity in rest.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;", "quot;"].iter().any(|e| entity.starts_with(e)), "a bare & in {rest:?}");
        }
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_string();
        match (tag.starts_with('/'), tag.ends_with('/')) {
            (true, _) => assert_eq!(open.pop(), Some(name)),
            (false, closed) => {
                *count.entry(name.clone()).or_default() += 1;
                if !closed {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
    count
}

#[test]
fn a_plan_is_drawn_with_a_box_for_each_dispatch() {
    let (device, mut state, x) = (device(), two_layers_state(), uniform(5, &[128, 96]));
    let plan = named(&device).plan_for(&mut state, &x, two_layers).unwrap();
    let svg = plan.svg("a < b & \"c\"");
    let tags = tags(&svg);
    let handed_on: usize = (plan.lines.iter().enumerate())
        .flat_map(|(at, line)| line.reads.iter().map(move |value| (at, value)))
        .filter(|(at, value)| plan.lines[..*at].iter().any(|line| line.writes.contains(value)))
        .count();
    assert!(handed_on >= 5, "{plan:#}");
    // A group around all and one for each dispatch; a curve and a tip for each tensor handed on.
    assert_eq!((tags["g"], tags["path"]), (1 + plan.dispatches(), 2 * handed_on), "{svg}");
    assert!(svg.contains("a &lt; b &amp; &quot;c&quot;") && svg.contains("prefers-color-scheme:dark"), "{svg}");
    assert!(plan.lines.iter().all(|line| svg.contains(&line.label)), "{svg}");
    assert_eq!(Plan::default().svg("nothing").matches("<path").count(), 0);
}

/// The excerpts in ARCHITECTURE.md, each with the pass that prints it.
fn excerpts(text: &str) -> Vec<(&str, Vec<&str>)> {
    let blocks = text.split("<!-- explain: ").skip(1);
    blocks
        .map(|block| {
            let (pass, rest) = block.split_once(" -->\n```text\n").unwrap();
            (pass, rest.split_once("```").unwrap().0.lines().collect())
        })
        .collect()
}

#[test]
fn the_document_shows_what_the_passes_do_today() {
    let (mut state, batch, names) = example::start();
    let explanation = Step::new(&device()).named(names).explain(&mut state, &batch, example::train_step).unwrap();
    let excerpts = excerpts(include_str!("../ARCHITECTURE.md"));
    let passes: Vec<&str> = excerpts.iter().map(|excerpt| excerpt.0).collect();
    assert_eq!(passes, ["graph", "graph", "program", "fuse", "pack", "schedule", "place", "kernel"]);
    for (pass, lines) in excerpts {
        let printed = explanation.pass(pass).unwrap();
        let mut rest = printed.lines();
        for line in lines {
            assert!(rest.any(|other| other == line), "{pass} does not print, or not here: {line}\n{printed}");
        }
    }
}
