//! What a program may do besides the ordinary: graphs as state, odd shapes, long chains, too much of everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::*;
use crate::error::{Error, ErrorKind};
use crate::step::{Purity, assign, assign_all};

/// `$0 + 1`, counting how often it was lowered and how many there are.
#[derive(Debug)]
struct Counted(&'static Counters);

#[derive(Debug, Default)]
struct Counters {
    lowered: AtomicUsize,
    alive: AtomicUsize,
}

impl Counted {
    fn new(counters: &'static Counters) -> Counted {
        counters.alive.fetch_add(1, Relaxed);
        Counted(counters)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Relaxed);
    }
}

impl Primitive for Counted {
    fn name(&self) -> &str {
        "counted"
    }

    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>, Misfit> {
        Ok(vec![inputs[0].clone()])
    }

    fn lower(&self, _: &[Spec], _: &[Spec]) -> Vec<Lowering> {
        self.0.lowered.fetch_add(1, Relaxed);
        vec![Lowering::Map(Map { text: "$0 + T(1.0)", helpers: "", heavy: false })]
    }

    fn reference(&self, x: &[Array], _: &[Spec]) -> Vec<Array> {
        vec![Array::new(x[0].shape.clone(), x[0].data.iter().map(|v| v + 1.0).collect())]
    }
}

type Pair = (Tensor, Tensor);

fn values(t: &Tensor) -> Vec<f32> {
    t.to_vec().unwrap()
}

fn numbers(values: &[f32]) -> Tensor {
    Tensor::new(values, [values.len()])
}

fn no_logs<S>(state: S) -> Result<(Logs, S)> {
    Ok((Logs::default(), state))
}

#[test]
fn a_graph_read_before_compiles_nothing() {
    static COUNTERS: Counters = Counters { lowered: AtomicUsize::new(0), alive: AtomicUsize::new(0) };
    let device = Device::blocking().unwrap();
    let graph = |seed| softmax(&Tensor::apply(Counted::new(&COUNTERS), &[&data(&[5, 70], seed)]));
    graph(1).to_vec_on::<f32>(&device).unwrap();
    let (before, lowered) = (device.stats(), COUNTERS.lowered.load(Relaxed));
    let again = graph(2);
    let expected = interpret(std::slice::from_ref(&again), &Default::default()).unwrap();
    let got: Vec<f32> = again.to_vec_on(&device).unwrap();
    assert!(got.iter().zip(&expected[0].data).all(|(g, e)| (f64::from(*g) - e).abs() < 1e-6));
    assert_eq!((device.stats() - before).pipelines, 0);
    assert_eq!(COUNTERS.lowered.load(Relaxed), lowered);
    // A scalar is a part of the program, so another one is compiled anew, but to the same pipelines.
    let scaled = |by: f32| mul(&data(&[9], 1), &broadcast(&Tensor::scalar(by), &[9]));
    let one: Vec<f32> = scaled(1.0).to_vec_on(&device).unwrap();
    let before = device.stats();
    let two: Vec<f32> = scaled(2.0).to_vec_on(&device).unwrap();
    assert!(one.iter().zip(&two).all(|(a, b)| 2.0 * a == *b));
    assert_eq!((device.stats() - before).pipelines, 0);
    // A cached plan holds no memory of the tensors it was made for.
    device.wait_blocking().unwrap();
    device.trim();
    drop(again);
    device.trim();
    assert!(device.stats().bytes_allocated < 1 << 16, "{}", device.stats());
}

#[test]
fn graphs_in_state_and_batch_are_evaluated() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = (add(&numbers(&[1.0, 2.0]), &numbers(&[10.0, 20.0])), exp(&numbers(&[0.0])));
    let f = |(a, b): Pair, x: &Tensor| no_logs((add(&a, x), b));
    for _ in 0..3 {
        step.run(&mut state, &mul(&numbers(&[1.0, 2.0]), &numbers(&[3.0, 4.0])), f).unwrap();
    }
    assert_eq!((values(&state.0), values(&state.1)), (vec![20.0, 46.0], vec![1.0]));
    let poisoned = Tensor::new(&[1.0f32], [2]);
    assert!(
        matches!(step.run(&mut state, &poisoned, f), Err(error) if matches!(error.kind(), ErrorKind::Shape { .. }))
    );
    assert_eq!(values(&state.0), [20.0, 46.0]);
}

#[test]
fn what_was_recorded_before_a_step_is_computed_once() {
    static COUNTERS: Counters = Counters { lowered: AtomicUsize::new(0), alive: AtomicUsize::new(0) };
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device).purity(Purity::Always);
    let table = Tensor::apply(Counted::new(&COUNTERS), &[&data(&[100], 1)]);
    let mut state = data(&[100], 2);
    let f = |s: Tensor, _: &()| no_logs(add(&s, &table));
    step.run(&mut state, &(), f).unwrap();
    // Reading it in between changes nothing.
    let t = values(&table);
    step.run(&mut state, &(), f).unwrap();
    let start: Vec<f32> = values(&data(&[100], 2));
    assert!(values(&state).iter().zip(start.iter().zip(&t)).all(|(s, (a, b))| (s - (a + 2.0 * b)).abs() < 1e-5));
    assert_eq!(COUNTERS.lowered.load(Relaxed), 1);
}

#[test]
fn assigning_overwrites_in_place() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = (numbers(&[0.0; 5]), Tensor::scalar(1.0f32));
    // On the host at first: no device is touched.
    assign(&device, &state.1, &Tensor::scalar(2.0f32)).unwrap();
    assert_eq!((values(&state.1), device.stats().submissions), (vec![2.0], 0));
    let f = |(a, rate): Pair, _: &()| {
        let a = add(&a, &broadcast(&rate, &[5]));
        Ok((Logs::from([("first", fold(&a, Reduction::Max, 0))]), (a, rate)))
    };
    let mut run = |state: &mut Pair| step.run(state, &(), f).unwrap();
    run(&mut state);
    assert_eq!(values(&state.0), [2.0; 5]);
    run(&mut state);
    run(&mut state);
    let before = device.stats();
    // From the host, from a graph of the state itself, and again after a step that is still queued.
    let grown = mul(&state.0, &state.0);
    assign_all(&device, &[(state.1.clone(), Tensor::scalar(10.0f32)), (state.0.clone(), grown.clone())]).unwrap();
    let made = device.stats().bind_groups;
    assert_eq!(run(&mut state).read_blocking().unwrap()[0].1, 46.0);
    assert_eq!(device.stats().bind_groups, made, "nothing is bound anew");
    assign(&device, &state.0, &numbers(&[1.0, 2.0, 3.0, 4.0, 5.0])).unwrap();
    run(&mut state);
    assert_eq!(values(&state.0), [11.0, 12.0, 13.0, 14.0, 15.0]);
    assert_eq!(values(&grown), [36.0; 5]);
    // Two steps, two assignments, and the graph that one of them needed; reads submit as well.
    let spent = device.stats() - before;
    assert_eq!(spent.submissions - spent.waits, 5, "{spent}");
    // Nothing of a list is assigned if one does not fit.
    let wrong = [(state.0.clone(), numbers(&[0.0; 5])), (state.1.clone(), numbers(&[0.0]))];
    assert!(matches!(assign_all(&device, &wrong), Err(error) if matches!(error.kind(), ErrorKind::State { .. })));
    assert_eq!(values(&state.0)[0], 11.0);
    // A target that was a graph becomes a value.
    let graph = add(&numbers(&[1.0]), &numbers(&[1.0]));
    assign(&device, &graph, &numbers(&[7.0])).unwrap();
    assert_eq!(values(&graph), [7.0]);
}

#[test]
fn what_the_host_remembers_is_never_stale() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let mut state = numbers(&[1.0, 2.0]).to(&device).unwrap();
    step.run(&mut state, &(), |s: Tensor, _: &()| no_logs(add(&s, &s))).unwrap();
    assert_eq!(values(&state), [2.0, 4.0]);
    assign(&device, &state, &numbers(&[5.0, 6.0])).unwrap();
    step.run(&mut state, &(), |s: Tensor, _: &()| no_logs(add(&s, &s))).unwrap();
    assert_eq!(values(&state), [10.0, 12.0]);
}

#[test]
fn odd_shapes_in_a_step() {
    let device = Device::blocking().unwrap();
    for n in [0usize, 1, 2, 3, 5, 63, 65, 257, 1023] {
        let mut step = Step::new(&device);
        let mut state = (vec![data(&[n], 1), data(&[n, 3], 2)], data(&[n], 3));
        let start = (values(&state.0[0]), values(&state.1));
        let f = |(ab, c): (Vec<Tensor>, Tensor), x: &Tensor| {
            let one = mul(&ab[0], x);
            let sum = fold(&one, Reduction::Sum, 0);
            // The same value thrice: in the state, in the logs, and as a log once more.
            let logs = Logs::from([
                ("sum", sum.clone()),
                ("again", sum.clone()),
                ("half", mul(&sum, &Tensor::scalar(0.5f32))),
            ]);
            Ok((logs, (vec![one.clone(), exp(&ab[1])], add(&one, &c))))
        };
        let x = data(&[n], 9);
        let logs = step.run(&mut state, &x, f).unwrap().read_blocking().unwrap();
        let (x, mut sum) = (values(&x), 0.0);
        let (now, other) = (values(&state.0[0]), values(&state.1));
        for (i, x) in x.iter().enumerate() {
            let one = start.0[i] * x;
            sum += one;
            assert_eq!((now[i], other[i]), (one, one + start.1[i]), "{i} of {n}");
        }
        assert!((logs[0].1 - sum).abs() < 1e-4 && logs[0].1 == logs[1].1 && (logs[2].1 - sum / 2.0).abs() < 1e-4);
        assert_eq!(values(&state.0[1]).len(), 3 * n);
    }
}

#[test]
fn leaves_may_be_permuted_repeated_kept_and_logged() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let tensors: Vec<Tensor> = (0..5u8).map(|i| numbers(&[f32::from(i), 10.0 + f32::from(i)])).collect();
    let mut state = (tensors, Tensor::scalar(3.5f32));
    let f = |(t, unread): (Vec<Tensor>, Tensor), x: &Tensor| {
        // Rotated, one returned twice, one never read, one replaced by a constant; logs are leaves.
        let new = vec![t[1].clone(), t[2].clone(), t[0].clone(), t[0].clone(), numbers(&[7.0, 7.0])];
        Ok((Logs::from([("x", x.clone()), ("unread", unread.clone()), ("one", Tensor::scalar(1.0f32))]), (new, unread)))
    };
    let logs = step.run(&mut state, &Tensor::scalar(8.0f32), f).unwrap();
    let read: Vec<f32> = logs.read_blocking().unwrap().into_iter().map(|l| l.1).collect();
    assert_eq!(read, [8.0, 3.5, 1.0]);
    let now: Vec<f32> = state.0.iter().map(|t| values(t)[0]).collect();
    assert_eq!(now, [1.0, 2.0, 0.0, 0.0, 7.0]);
    step.run(&mut state, &Tensor::scalar(8.0f32), f).unwrap();
    let now: Vec<f32> = state.0.iter().map(|t| values(t)[0]).collect();
    assert_eq!(now, [2.0, 0.0, 1.0, 1.0, 7.0]);
}

#[test]
fn a_tensor_that_stands_twice_in_the_state_becomes_two() {
    let device = Device::blocking().unwrap();
    let mut step = Step::new(&device);
    let shared = numbers(&[1.0, 2.0, 3.0]).to(&device).unwrap();
    let mut state = (shared.clone(), shared.clone());
    for _ in 0..2 {
        step.run(&mut state, &(), |(a, b): Pair, _: &()| no_logs((add(&a, &a), mul(&b, &b)))).unwrap();
    }
    assert_eq!(values(&state.0), [4.0, 8.0, 12.0]);
    assert_eq!(values(&state.1), [1.0, 16.0, 81.0]);
    assert_eq!(values(&shared), [1.0, 2.0, 3.0], "a clone kept outside keeps its value");
}

#[test]
fn a_million_recorded_nodes() {
    static COUNTERS: Counters = Counters { lowered: AtomicUsize::new(0), alive: AtomicUsize::new(0) };
    let device = Device::blocking().unwrap();
    let op: Arc<dyn Primitive> = Arc::new(Counted::new(&COUNTERS));
    let chain = |n: usize| {
        let first = Tensor::record(op.clone(), &[&numbers(&[0.0, 0.5, 0.25])], 1).remove(0);
        let weak = Arc::downgrade(first.node().unwrap().0);
        let last = (1..n).fold(first, |t, _| Tensor::record(op.clone(), &[&t], 1).remove(0));
        (last, weak)
    };
    let start = std::time::Instant::now();
    let (t, first) = chain(1_000_000);
    drop(t);
    assert!(first.upgrade().is_none());
    let dropped = start.elapsed();
    let (t, first) = chain(1_000_000);
    let recording = crate::lower::recording::Recording::of(std::slice::from_ref(&t)).unwrap();
    let hash = recording.signature(&Default::default()).hash;
    assert_ne!(hash, 0);
    drop(recording);
    let walked = start.elapsed();
    // Values above 2^20 lose the fraction, so the sum is exact.
    assert_eq!(t.to_vec_on::<f32>(&device).unwrap(), [1e6, 1e6 + 0.5, 1e6 + 0.25]);
    println!("dropped {dropped:?}, walked {walked:?}, evaluated {:?}", start.elapsed());
    assert!(first.upgrade().is_none(), "an evaluated tensor lets go of its history");
}

#[test]
fn an_impure_step_is_named_with_its_line() {
    let device = Device::blocking().unwrap();
    let run = |change: &dyn Fn(&Tensor, u32) -> Tensor| {
        let mut step = Step::new(&device).purity(Purity::Always);
        let mut state = data(&[40], 1);
        let mut result = Ok(());
        for i in 0..2 {
            result = step.run(&mut state, &(), |s: Tensor, _: &()| no_logs(change(&s, i))).map(drop);
        }
        result
    };
    let line = |error: Result<()>, expected: u32, what: &str| match error.map_err(Error::into_kind) {
        Err(ErrorKind::StepChanged { why, place }) => {
            assert!(place.at.file().ends_with("robust.rs") && place.at.line() == expected, "{why} {place}");
            assert!(why.contains(what), "{why}");
        }
        other => panic!("{other:?}"),
    };
    // A counter baked in, as a scalar and as an attribute of an op.
    line(run(&|s, i| mul(s, &broadcast(&Tensor::scalar(i as f32), &[40]))), line!(), "leaf f32[]");
    let flips =
        |s: &Tensor, i: u32| view(s, ViewOp::Slice(vec![(i as usize % 2 * 39, 40, if i == 0 { 1 } else { -1 })]));
    line(run(&|s, i| flips(s, i)), line!() - 1, "view");
    // Another op in the same place, and more of them.
    line(run(&|s, i| if i == 0 { add(s, s) } else { mul(s, s) }), line!(), "$0 + $1 f32[40] became $0 * $1");
    line(run(&|s, i| if i == 0 { add(s, s) } else { add(s, &add(s, s)) }), line!(), "nodes became");
    // A captured tensor that was replaced by another of equal shape.
    let captured = [data(&[40, 2], 1), data(&[40, 2], 2)];
    let made = line!() - 1;
    line(run(&|s, i| add(s, &fold(&captured[i as usize], Reduction::Sum, 1))), made, "leaf f32[40, 2] changed");
    // The same one, and a small constant made anew with equal content, are no change.
    run(&|s, _| add(s, &fold(&captured[0], Reduction::Sum, 1))).unwrap();
    run(&|s, _| add(s, &fold(&data(&[40, 1], 7), Reduction::Sum, 1))).unwrap();
}

#[test]
fn more_workgroups_than_one_dimension_has() {
    let device = Device::blocking().unwrap();
    check(&device, "rows", || fold(&data(&[70_000, 36], 1), Reduction::Max, 1));
    check(&device, "products", || {
        let c = Contraction { batch: 66_000, m: 1, k: 2, n: 1 };
        let (a, b) = (data(&[66_000, 1, 2], 1), data(&[66_000, 2, 1], 2));
        Tensor::apply(Op::Product(c, Spec::new([66_000, 1, 1], DType::F32)), &[&a, &b])
    });
}

#[test]
fn too_much_is_an_error() {
    let device = Device::blocking().unwrap();
    let limit = device.limits().max_storage_buffer_binding_size as usize;
    let spread = |shape: &[usize]| broadcast(&numbers(&[1.0]), shape);
    let refused = |t: Tensor| {
        let result = t.to_vec_on::<f32>(&device);
        assert!(
            matches!(&result, Err(error) if matches!(error.kind(), ErrorKind::Limit { .. })),
            "{:?}",
            result.map(|v| v.len())
        );
    };
    // A result, a temporary, more elements than an index counts, more than a machine word does.
    refused(exp(&spread(&[limit / 4 + 1])));
    let x = exp(&spread(&[limit / 1024 + 1, 256]));
    let two = matmul(&x, &view(&x, ViewOp::Permute(vec![1, 0])));
    refused(two);
    refused(fold(&fold(&spread(&[70_000, 70_000]), Reduction::Sum, 1), Reduction::Sum, 0));
    refused(exp(&spread(&[1 << 40, 1 << 40])));
    let mut step = Step::new(&device);
    let mut state = numbers(&[1.0]);
    let f = |s: Tensor, _: &()| {
        no_logs(fold(&exp(&broadcast(&exp(&broadcast(&s, &[limit / 4 + 1])), &[2, limit / 4 + 1])), Reduction::Max, 1))
            .map(|(l, t)| (l, fold(&reshape(&t, &[1, 2]), Reduction::Sum, 1)))
    };
    assert!(matches!(step.run(&mut state, &(), f), Err(error) if matches!(error.kind(), ErrorKind::Limit { .. })));
    assert_eq!(values(&state), [1.0]);
}

#[test]
fn one_constant_replaces_several_leaves_of_different_lengths() {
    let device = Device::blocking().unwrap();
    for fuse in [true, false] {
        let leaf = |n: usize| numbers(&vec![7.0; n]);
        let mut state = vec![leaf(3), leaf(6), leaf(1)];
        let mut step = Step::with(&device, Options { fuse, ..Options::default() });
        let five = |n: usize| Tensor::full([n], 5.0);
        step.run(&mut state, &(), |_: Vec<Tensor>, _: &()| Ok((Logs::default(), vec![five(3), five(6), five(1)])))
            .unwrap();
        for (tensor, n) in state.iter().zip([3, 6, 1]) {
            assert_eq!(values(tensor), vec![5.0; n], "fused: {fuse}");
        }
        // Nothing is copied twice.
        assert!(step.plan().unwrap().dispatches() <= 3);
    }
}

#[test]
fn products_take_views_of_views_and_padded_constants() {
    let device = Device::blocking().unwrap();
    // Columns by rows joined with another axis have no strides; their transpose is a view of a view. Large enough that
    // the tuned kernels run.
    let data: Vec<f32> = (0..4096).map(|i| (i % 13) as f32 - 6.0).collect();
    let x = Tensor::new(&data, [2, 64, 16, 2]).permute([0, 3, 1, 2]).permute([1, 0, 2, 3]);
    let (left, right) = (x.permute([3, 2, 0, 1]).reshape([16, 128, 2]).t(), Tensor::new(&data, [16, 128, 2]));
    let padded = Tensor::scalar(1.5f32).reshape([1, 1]).pad(&[(3, 60), (1, 62)]);
    for product in [left.matmul(&right), padded.matmul(&Tensor::new(&data, [64, 64]))] {
        let wanted = interpret(std::slice::from_ref(&product), &Default::default()).unwrap().remove(0).data;
        let got = product.to_vec_on::<f32>(&device).unwrap();
        assert!(got.iter().zip(&wanted).all(|(&got, want)| (f64::from(got) - want).abs() <= 1e-3));
    }
}
