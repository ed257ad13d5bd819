//! The machine, on whatever adapter there is; software Vulkan will do.

use pollster::block_on;

use super::*;
use crate::error::{Error, ErrorKind, Result};

const DOUBLE: &str = "@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@group(0) @binding(2) var<uniform> n: vec4<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < n.x) { y[id.x] = 2u * x[id.x] + n.y; }
}
";

/// One kernel with its buffers.
struct Doubler {
    device: Device,
    x: Buffer,
    y: Buffer,
    pipeline: Pipeline,
    group: BindGroup,
    _uniform: Buffer,
}

const N: u32 = 1000;

impl Doubler {
    fn new() -> Result<Doubler> {
        let device = Device::blocking()?;
        let pipeline = device.pipeline("double", DOUBLE, &[Access::Read, Access::ReadWrite, Access::Uniform])?;
        let (x, y) = (device.alloc(u64::from(N) * 4)?, device.alloc(u64::from(N) * 4)?);
        let uniform = device.uniform(&[N, 1, 0, 0])?;
        let group = device.bind_group(&pipeline, &[x.whole(), y.whole(), uniform.whole()]);
        Ok(Doubler { device, x, y, pipeline, group, _uniform: uniform })
    }

    fn encode(&self, encoder: &mut Encoder, from: u32) -> Result<()> {
        let words: Vec<u32> = (from..from + N).collect();
        encoder.upload(bytemuck::cast_slice(&words), &self.x, 0)?;
        encoder.dispatch(&self.pipeline, &self.group, [N.div_ceil(64), 1, 1]);
        Ok(())
    }

    fn read(&self, buffer: &Buffer) -> Result<Vec<u32>> {
        let read = block_on(self.device.read(&[Range::new(buffer, 0, u64::from(N) * 4)]))?;
        Ok(bytemuck::pod_collect_to_vec(&read[0]))
    }
}

#[test]
fn upload_dispatch_read() -> Result<()> {
    let doubler = Doubler::new()?;
    let before = doubler.device.stats();
    let mut encoder = doubler.device.encoder();
    doubler.encode(&mut encoder, 5)?;
    encoder.dispatch(&doubler.pipeline, &doubler.group, [N.div_ceil(64), 1, 1]);
    encoder.dispatch(&doubler.pipeline, &doubler.group, [0, 1, 1]);
    encoder.clear(&doubler.x, 8, 4);
    // Within one buffer: words 0..4 go to 2..6, an overlap.
    encoder.copy(&doubler.x, 0, &doubler.x, 8, 16);
    encoder.submit()?;
    assert_eq!(doubler.read(&doubler.y)?, (5..5 + N).map(|i| 2 * i + 1).collect::<Vec<_>>());
    assert_eq!(doubler.read(&doubler.x)?[..7], [5, 6, 5, 6, 0, 8, 11]);
    let spent = doubler.device.stats() - before;
    assert_eq!((spent.dispatches, spent.passes, spent.submissions), (2, 1, 3));
    assert_eq!((spent.copies, spent.clears, spent.waits), (1 + 2 + 2, 1, 2));
    assert_eq!((spent.bytes_uploaded, spent.bytes_read), (u64::from(N) * 4, u64::from(N) * 8));
    doubler.device.check()
}

#[test]
fn uploads_of_one_encoder_do_not_meet() -> Result<()> {
    let device = Device::blocking()?;
    let big = vec![7u8; 300 * 1024];
    let buffer = device.alloc(400 * 1024)?;
    let mut encoder = device.encoder();
    for word in 0..10u32 {
        encoder.upload(&word.to_le_bytes(), &buffer, u64::from(word) * 4)?;
    }
    encoder.upload(&big, &buffer, 40)?;
    encoder.upload_with(8, &buffer, 4, |mut room| room.fill(9))?;
    encoder.submit()?;
    // An encoder that is dropped has no effect and harms nobody.
    let mut dropped = device.encoder();
    dropped.upload(&[1; 16], &buffer, 0)?;
    drop(dropped);
    let read = block_on(device.read(&[Range::new(&buffer, 0, 40), Range::new(&buffer, 40, big.len() as u64)]))?;
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&read[0]);
    assert_eq!(words, [0, 0x09090909, 0x09090909, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(read[1], big);
    let mut encoder = device.encoder();
    for (len, offset) in [(3, 0), (4, 2), (8, 400 * 1024 - 4)] {
        assert!(
            matches!(encoder.upload(&vec![0; len], &buffer, offset), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. }))
        );
    }
    Ok(())
}

#[test]
fn the_steady_state_makes_nothing() -> Result<()> {
    let doubler = Doubler::new()?;
    let device = &doubler.device;
    // As many encoders at once as can ever be in flight: on a fast device fewer would be, by chance.
    let mut encoders = Vec::new();
    for i in 0..64 {
        let mut encoder = device.encoder();
        doubler.encode(&mut encoder, i)?;
        encoders.push(encoder);
    }
    encoders.into_iter().try_for_each(|encoder| encoder.submit().map(drop))?;
    block_on(device.wait())?;
    doubler.read(&doubler.y)?;
    let before = device.stats();
    for i in 0..1000 {
        block_on(device.ready())?;
        let mut encoder = device.encoder();
        doubler.encode(&mut encoder, i)?;
        encoder.submit()?;
        if i % 250 == 0 {
            assert_eq!(doubler.read(&doubler.y)?[3], 2 * (i + 3) + 1);
        }
    }
    block_on(device.wait())?;
    let spent = device.stats() - before;
    assert_eq!((spent.submissions, spent.dispatches), (1004, 1000));
    assert_eq!((spent.buffers, spent.bind_groups, spent.pipelines), (0, 0, 0), "{spent}");
    assert_eq!(doubler.read(&doubler.y)?[0], 2 * 999 + 1);
    Ok(())
}

#[test]
fn buffers_return_to_the_pool() -> Result<()> {
    let device = Device::blocking()?;
    let first = device.alloc(1000)?;
    let (id, raw) = (first.id(), first.raw().clone());
    assert_eq!((first.size(), first.device() == device), (1024, true));
    let clone = first.clone();
    drop(first);
    assert_ne!(device.alloc(1024)?.raw(), &raw, "still held by the clone");
    device.trim();
    drop(clone);
    let again = device.alloc(800)?;
    assert_eq!(again.raw(), &raw);
    assert_ne!(again.id(), id);
    drop((again, raw));
    assert_eq!(device.stats().buffers, 2);
    // The pool holds at most what was once used together.
    for kib in 1..100 {
        device.alloc(kib * 1024)?;
    }
    assert!(device.stats().bytes_allocated <= 100 * 1024, "{}", device.stats());
    device.trim();
    assert_eq!(device.stats().bytes_allocated, 0);
    let have = device.limits().max_storage_buffer_binding_size.min(device.limits().max_buffer_size);
    assert_eq!(
        device.alloc(have + 1),
        Err(Error::new(ErrorKind::Limit { what: "a buffer".into(), need: have + 1, have }))
    );
    assert_eq!(device.alloc(u64::MAX).map(|_| ()), device.alloc(u64::MAX).map(|_| ()));
    Ok(())
}

#[test]
fn a_bad_shader_is_an_error_with_its_text() -> Result<()> {
    let device = Device::blocking()?;
    for text in ["fn main( {", "@compute @workgroup_size(1) fn main() { let x: i32 = 1.5; }", "fn f() {}"] {
        let Err(ErrorKind::Shader { why, source }) = device.pipeline("bad", text, &[]).map_err(Error::into_kind) else {
            panic!("{text} compiled")
        };
        assert!(!why.is_empty());
        assert_eq!(&*source, text);
    }
    let wrong = device.pipeline("wrong bindings", DOUBLE, &[Access::Read]);
    assert!(matches!(&wrong, Err(error) if matches!(error.kind(), ErrorKind::Shader { .. })), "{wrong:?}");
    let many = vec![Access::Read; 1 + device.limits().max_storage_buffers_per_shader_stage as usize];
    assert!(
        matches!(device.pipeline("many", DOUBLE, &many), Err(error) if matches!(error.kind(), ErrorKind::Limit { .. }))
    );
    device.check()
}

#[test]
fn equal_texts_share_a_pipeline() -> Result<()> {
    let device = Device::blocking()?;
    let bindings = [Access::Read, Access::ReadWrite, Access::Uniform];
    let first = device.pipeline("one", DOUBLE, &bindings)?;
    let second = device.pipeline("two", DOUBLE, &bindings)?;
    let other = device.pipeline("three", &DOUBLE.replace("64", "32"), &bindings)?;
    assert!(first == second && first != other);
    assert_eq!((device.stats().pipelines, first.label()), (2, "one"));
    Ok(())
}

#[test]
fn uncaught_errors_wait_in_the_slot() -> Result<()> {
    let doubler = Doubler::new()?;
    let device = &doubler.device;
    device.bind_group(&doubler.pipeline, &[doubler.x.whole()]);
    assert!(matches!(device.check(), Err(error) if matches!(error.kind(), ErrorKind::Validation { .. })));
    device.check()?;
    let mut encoder = device.encoder();
    encoder.clear(&doubler.x, 0, 1 << 20);
    assert!(matches!(encoder.submit(), Err(error) if matches!(error.kind(), ErrorKind::Validation { .. })));
    let most = device.limits().max_compute_workgroups_per_dimension;
    let mut encoder = device.encoder();
    encoder.dispatch(&doubler.pipeline, &doubler.group, [1, most + 1, 1]);
    assert!(matches!(encoder.submit(), Err(error) if matches!(error.kind(), ErrorKind::Limit { .. })));
    // None of it hurt the device.
    let mut encoder = device.encoder();
    doubler.encode(&mut encoder, 1)?;
    encoder.submit()?;
    assert_eq!(doubler.read(&doubler.y)?[1], 5);
    let scoped = block_on(device.guarded("a try", || {
        device.raw().create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: None,
            entries: &[wgpu::BindGroupLayoutEntry {
                binding: u32::MAX,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Sampler(wgpu::SamplerBindingType::Filtering),
                count: None,
            }],
        })
    }));
    let Err(ErrorKind::Validation { why }) = scoped.map_err(Error::into_kind) else { panic!("accepted") };
    assert!(why.starts_with("a try: "), "{why}");
    device.check()
}

#[test]
fn a_lost_device_stays_lost_and_never_panics() -> Result<()> {
    let doubler = Doubler::new()?;
    let device = &doubler.device;
    device.raw().destroy();
    let _ = block_on(device.wait());
    let lost = |result: Result<()>| {
        assert!(matches!(&result, Err(error) if matches!(error.kind(), ErrorKind::DeviceLost { .. })), "{result:?}")
    };
    lost(device.check());
    lost(device.check());
    lost(block_on(device.ready()));
    lost(block_on(device.wait()));
    lost(device.alloc(5000).map(|_| ()));
    lost(
        device
            .pipeline("new", &DOUBLE.replace("2u", "3u"), &[Access::Read, Access::ReadWrite, Access::Uniform])
            .map(|_| ()),
    );
    lost(doubler.read(&doubler.y).map(|_| ()));
    let mut encoder = device.encoder();
    lost(doubler.encode(&mut encoder, 0));
    lost(encoder.submit().map(|_| ()));
    Ok(())
}

#[test]
fn work_in_flight_is_bounded() -> Result<()> {
    let doubler = Doubler::new()?;
    let device = &doubler.device;
    for i in 0..200 {
        block_on(device.ready())?;
        let (flight, bound) = device.in_flight();
        assert!((2..=64).contains(&bound) && flight < bound, "{flight} of {bound}");
        let mut encoder = device.encoder();
        doubler.encode(&mut encoder, i)?;
        encoder.submit()?;
    }
    block_on(device.wait())?;
    assert_eq!(device.in_flight().0, 0);
    assert!(device.seconds_per_submission().is_some_and(|seconds| seconds > 0.0));
    // A device with nothing to do makes nobody wait.
    let before = device.stats();
    block_on(device.ready())?;
    assert_eq!((device.stats() - before).waits, 0);
    Ok(())
}

#[test]
fn slow_work_is_queued_sparingly() -> Result<()> {
    let device = Device::blocking()?;
    let text = "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            var v = id.x;
            for (var i = 0u; i < 60000u; i++) { v = v * 1664525u + 1013904223u; }
            y[id.x] = v;
        }";
    let pipeline = device.pipeline("slow", text, &[Access::ReadWrite])?;
    let y = device.alloc(64 * 256 * 4)?;
    let group = device.bind_group(&pipeline, &[y.whole()]);
    let submit = |groups| {
        let mut encoder = device.encoder();
        encoder.dispatch(&pipeline, &group, [groups, 1, 1]);
        encoder.submit().map(|_| ())
    };
    submit(1)?;
    device.wait_blocking()?;
    for _ in 0..12 {
        block_on(device.ready())?;
        submit(128)?;
    }
    device.wait_blocking()?;
    let seconds = device.seconds_per_submission().unwrap();
    let (_, bound) = device.in_flight();
    assert_eq!(bound, ((0.150 / seconds) as usize).clamp(2, 64), "at {seconds} s");
    println!("{seconds} s per submission, bound {bound}, {} waits", device.stats().waits);
    Ok(())
}

#[test]
fn profiles_time_each_dispatch() -> Result<()> {
    let doubler = Doubler::new()?;
    let Ok(mut encoder) = doubler.device.encoder_profiled() else { return Ok(()) };
    doubler.encode(&mut encoder, 0)?;
    for _ in 0..2500 {
        encoder.dispatch(&doubler.pipeline, &doubler.group, [1, 1, 1]);
    }
    let spans = block_on(encoder.submit()?.spans())?;
    assert_eq!(spans.len(), 2501);
    assert!(spans.iter().all(|s| (0.0..10.0).contains(&s.seconds) && (0.0..10.0).contains(&s.start)));
    assert!(spans.iter().map(|s| s.seconds).sum::<f64>() > 0.0);
    let plain = doubler.device.encoder().submit()?;
    assert!(matches!(block_on(plain.spans()), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })));
    Ok(())
}

#[test]
fn threads_share_a_device() -> Result<()> {
    let doubler = Doubler::new()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|i| {
                let device = doubler.device.clone();
                scope.spawn(move || -> Result<()> {
                    for j in 0..50u32 {
                        block_on(device.ready())?;
                        let buffer = device.alloc(256)?;
                        let mut encoder = device.encoder();
                        encoder.upload(&(i * 1000 + j).to_le_bytes(), &buffer, 0)?;
                        encoder.submit()?;
                        let read = block_on(device.read(&[Range::new(&buffer, 0, 4)]))?;
                        assert_eq!(read[0], (i * 1000 + j).to_le_bytes());
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("the assertions above hold"))
    })
}

#[test]
fn unusual_uses_of_a_native_executor() -> Result<()> {
    let doubler = Doubler::new()?;
    let device = &doubler.device;
    let ranges = [doubler.x.whole(), Range::new(&doubler.y, 0, 0)];
    // A future that is dropped half way leaves nothing behind, and two at once do not starve each other.
    let mut abandoned = Box::pin(device.read(&ranges));
    let waker = futures::task::noop_waker();
    let _ = abandoned.as_mut().poll(&mut std::task::Context::from_waker(&waker));
    drop(abandoned);
    let (one, two) = block_on(async { futures::join!(device.read(&ranges), device.wait()) });
    two?;
    assert_eq!(one?.iter().map(Vec::len).collect::<Vec<_>>(), [4096, 0]);
    assert_eq!(block_on(device.read(&[]))?, Vec::<Vec<u8>>::new());
    Ok(())
}

#[test]
fn native_handles_and_futures_move_to_threads() -> Result<()> {
    fn moves<T: Send>(value: T) -> T {
        value
    }
    let device = moves(block_on(moves(Device::new()))?);
    let buffer = moves(device.alloc(256)?);
    let pipeline = device.pipeline("double", DOUBLE, &[Access::Read, Access::ReadWrite, Access::Uniform]);
    moves(pipeline?);
    let mut encoder = moves(device.encoder());
    encoder.clear(&buffer, 0, 256);
    let submission = moves(encoder.submit()?);
    assert!(block_on(moves(submission.spans())).is_err(), "not a profiled one");
    block_on(moves(device.ready()))?;
    block_on(moves(device.guarded("nothing", || ())))?;
    block_on(moves(device.wait()))?;
    assert_eq!(block_on(moves(device.read(&[buffer.whole()])))?[0], [0; 256]);
    Ok(())
}

#[test]
fn a_plan_compiles_each_new_text_once() -> Result<()> {
    let device = Device::blocking()?;
    let texts: Vec<String> = (2..9).map(|by| DOUBLE.replace("2u *", &format!("{by}u *"))).collect();
    let bindings = [Access::Read, Access::ReadWrite, Access::Uniform];
    let wanted = |text: &'static str| Wanted { label: "a kernel", wgsl: text, bindings: &bindings };
    let texts: Vec<&'static str> = texts.into_iter().map(|text| &*text.leak()).collect();
    let mut all: Vec<Wanted> = texts.iter().chain(&texts[..3]).map(|text| wanted(text)).collect();
    let before = device.stats();
    let pipelines = device.compile(&all)?;
    assert_eq!((device.stats() - before).pipelines, 7);
    assert!(pipelines[0] == pipelines[7] && pipelines[0] != pipelines[1]);
    // One that does not compile is found among others, and those are there afterwards.
    all.insert(3, wanted("fn broken("));
    assert!(matches!(device.compile(&all), Err(error) if matches!(error.kind(), ErrorKind::Shader { .. })));
    all.remove(3);
    assert_eq!(device.compile(&all)?.len(), 10);
    assert_eq!((device.stats() - before).pipelines, 7);
    device.check()
}

#[test]
fn pipelines_are_kept_in_a_file_where_the_driver_gives_them() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("wengert-kept-{}", std::process::id()));
    let files = || std::fs::read_dir(&folder).map_or(vec![], |files| files.flatten().map(|f| f.path()).collect());
    let compile = || -> Result<bool> {
        let options = DeviceOptions { cache: Some(folder.clone()), ..DeviceOptions::default() };
        let device = block_on(Device::with(options))?;
        let bindings = [Access::Read, Access::ReadWrite, Access::Uniform];
        device.compile(&[Wanted { label: "double", wgsl: DOUBLE, bindings: &bindings }])?;
        device.check()?;
        Ok(device.features().contains(wgpu::Features::PIPELINE_CACHE))
    };
    let kept = usize::from(compile()?);
    assert_eq!(files().len(), kept);
    // What is no such file is passed over and replaced.
    for path in files() {
        let whole = std::fs::read(&path).unwrap_or_default();
        std::fs::write(&path, b"anything").unwrap();
        compile()?;
        assert_eq!(std::fs::read(&path).unwrap_or_default().len(), whole.len());
    }
    let _ = std::fs::remove_dir_all(&folder);
    Ok(())
}
