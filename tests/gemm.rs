//! Every matmul family, layout and alignment class against f64, with sizes off every tile, batches and broadcast operands.
//! The families run on whatever adapter is there: workgroup and register tiles need nothing special; subgroup tiles run
//! where the subgroup size is fixed.

use wengert::gpu::{Choices, Class, Shader};
use wengert::lower::Target;
use wengert::lower::gemm::{Gemm, Operand, Problem, kind, select, variants};
use wgpu::util::DeviceExt;

/// Product kernels are chosen by class and subgroup size alone.
fn target_of(class: Class, subgroup: Option<u32>) -> Target {
    Target { class, subgroup, bindings: 8, binding_bytes: 128 << 20, choices: Choices::default() }
}

struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    subgroup: Option<u32>,
}

fn gpu() -> Gpu {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env());
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    let info = adapter.get_info();
    let features = adapter.features() & (wgpu::Features::SUBGROUP | wgpu::Features::SHADER_F16);
    let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
        required_features: features,
        required_limits: adapter.limits(),
        ..Default::default()
    }))
    .expect("a device");
    let fixed = features.contains(wgpu::Features::SUBGROUP) && info.subgroup_min_size == info.subgroup_max_size;
    Gpu { device, queue, subgroup: fixed.then_some(info.subgroup_min_size) }
}

impl Gpu {
    fn pipeline(&self, source: &str) -> wgpu::ComputePipeline {
        let source = wgpu::ShaderSource::Wgsl(source.into());
        let module = self.device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
        self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: Default::default(),
            cache: None,
        })
    }

    fn run(&self, pipeline: &wgpu::ComputePipeline, gemm: &Gemm, a: &[f32], b: &[f32], c_len: usize) -> Vec<f32> {
        // A value that no product has, so that an element never written is seen; four more to see a write beyond.
        let c = vec![-777.0f32; c_len.next_multiple_of(4) + 4];
        let (a, b) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
        bytemuck::cast_slice(&self.run_bytes(pipeline, gemm, a, b, bytemuck::cast_slice(&c))).to_vec()
    }

    /// Operands and the first content of C as they lie in memory; C afterwards.
    fn run_bytes(&self, pipeline: &wgpu::ComputePipeline, gemm: &Gemm, a: &[u8], b: &[u8], c: &[u8]) -> Vec<u8> {
        let length = c.len() as u64;
        let make = |contents: &[u8], usage| {
            self.device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        use wgpu::BufferUsages as U;
        let params = make(bytemuck::cast_slice(&gemm.params), U::UNIFORM);
        let (a, b, c) = (make(a, U::STORAGE), make(b, U::STORAGE), make(c, U::STORAGE | U::COPY_SRC));
        let usage = U::MAP_READ | U::COPY_DST;
        let back = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: length,
            usage,
            mapped_at_creation: false,
        });
        let entries: Vec<_> = [&params, &a, &b, &c]
            .iter()
            .enumerate()
            .map(|(i, x)| wgpu::BindGroupEntry { binding: i as u32, resource: x.as_entire_binding() })
            .collect();
        let layout = pipeline.get_bind_group_layout(0);
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &layout,
            entries: &entries,
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let [x, y, z] = gemm.grid;
            pass.dispatch_workgroups(x, y, z);
        }
        encoder.copy_buffer_to_buffer(&c, 0, &back, 0, length);
        self.queue.submit([encoder.finish()]);
        back.slice(..).map_async(wgpu::MapMode::Read, |r| r.expect("mapped"));
        self.device.poll(wgpu::PollType::wait_indefinitely()).expect("polled");
        back.slice(..).get_mapped_range().expect("mapped").to_vec()
    }
}

/// Multiples of 1/8 in [-1, 1]: products and sums of a few hundred are exact in f32, so the comparison can be `==`.
fn values(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(747796405).wrapping_add(2891336453);
    (0..n)
        .map(|_| {
            s ^= s << 13;
            s ^= s >> 17;
            s ^= s << 5;
            ((s >> 8) % 17) as f32 / 8.0 - 1.0
        })
        .collect()
}

/// Batched sizes, transposes, whether A and B broadcast over the batch, extra elements per stored row.
#[derive(Clone, Copy, Debug)]
struct Case {
    size: [usize; 4],
    t: [bool; 2],
    broadcast: [bool; 2],
    pad: usize,
}

fn operand(rows: usize, cols: usize, transposed: bool, broadcast: bool, pad: usize) -> Operand {
    let ld = cols + pad;
    let batch_stride = if broadcast { 0 } else { rows * ld };
    let vec4 = [ld, batch_stride].iter().all(|x| x.is_multiple_of(4));
    Operand { transposed, ld, batch_stride, outer: None, vec4 }
}

fn problem(c: &Case) -> Problem {
    let [batch, m, n, k] = c.size;
    let [ta, tb] = c.t;
    let (ar, ac) = if ta { (k, m) } else { (m, k) };
    let (br, bc) = if tb { (n, k) } else { (k, n) };
    let a = operand(ar, ac, ta, c.broadcast[0], c.pad);
    let b = operand(br, bc, tb, c.broadcast[1], c.pad);
    Problem { batch, parts: 1, m, n, k, a, b, rolled: false }
}

fn check(gpu: &Gpu, target: &Target, cases: &[Case]) {
    check_all(gpu, &cases.iter().map(|case| (case, select(&problem(case), target))).collect::<Vec<_>>());
}

fn check_all(gpu: &Gpu, kernels: &[(&Case, Gemm)]) {
    let mut pipelines: std::collections::HashMap<String, wgpu::ComputePipeline> = Default::default();
    for (case, gemm) in kernels {
        let p = problem(case);
        assert!(gemm.grid.iter().all(|&g| g <= 65535), "{gemm:?}");
        let rows = |o: &Operand, mn: usize| if o.transposed { p.k } else { mn };
        let a_rows = rows(&p.a, p.m);
        let b_rows = if p.b.transposed { p.n } else { p.k };
        let len = |rows: usize, o: &Operand| (rows * o.ld + o.batch_stride * (p.batch - 1)).max(4);
        let (a, b) = (values(len(a_rows, &p.a), 1), values(len(b_rows, &p.b), 2));
        if !pipelines.contains_key(&gemm.source) {
            pipelines.insert(gemm.source.clone(), gpu.pipeline(&gemm.source));
        }
        let c_len = p.batch * p.m * p.n;
        let c = gpu.run(&pipelines[&gemm.source], gemm, &a, &b, c_len);
        let at = |x: &[f32], o: &Operand, z: usize, row: usize, k: usize| {
            let (i, j) = if o.transposed { (k, row) } else { (row, k) };
            x[z * o.batch_stride + i * o.ld + j] as f64
        };
        let b_view = Operand { transposed: !p.b.transposed, ..p.b };
        for z in 0..p.batch {
            for i in 0..p.m {
                for j in 0..p.n {
                    let want: f64 = (0..p.k).map(|k| at(&a, &p.a, z, i, k) * at(&b, &b_view, z, j, k)).sum();
                    let got = c[(z * p.m + i) * p.n + j] as f64;
                    assert!(want == got, "{} {case:?} at [{z}, {i}, {j}]: {got}, want {want}", gemm.name);
                }
            }
        }
        assert!(c[c_len..].iter().all(|&x| x == -777.0), "{} {case:?} wrote beyond C", gemm.name);
    }
    println!("{} kernels, {} texts", kernels.len(), pipelines.len());
}

fn cases() -> Vec<Case> {
    let sizes = [
        [1, 64, 64, 64],
        [1, 1, 1, 1],
        [1, 5, 3, 0],
        [1, 33, 68, 12],
        [1, 37, 75, 29],
        [1, 130, 10, 40],
        [1, 12, 10, 6],
        [1, 10, 131, 10],
        [1, 1, 200, 36],
        [1, 67, 1, 33],
        [3, 20, 36, 8],
        [3, 19, 7, 9],
    ];
    let mut cases = Vec::new();
    for size in sizes {
        for t in [[false, false], [true, false], [false, true], [true, true]] {
            cases.push(Case { size, t, broadcast: [false; 2], pad: 0 });
            if size[0] > 1 {
                cases.push(Case { size, t, broadcast: [true, false], pad: 4 });
                cases.push(Case { size, t, broadcast: [false, true], pad: 1 });
                // Rows of 29 that begin on four elements: a last group of four ends outside.
                cases.push(Case { size: [1, 37, 75, 29], t, broadcast: [false; 2], pad: 3 });
            }
        }
    }
    cases
}

#[test]
fn register_tiles() {
    let gpu = gpu();
    check(&gpu, &target_of(Class::Browser, None), &cases());
}

#[test]
fn workgroup_tiles() {
    let gpu = gpu();
    let target = target_of(Class::Discrete, None);
    check(&gpu, &target, &cases());
    let large: Vec<Case> = [[false, false], [true, false], [false, true], [true, true]]
        .into_iter()
        .flat_map(|t| {
            [[16, 130, 68, 20], [16, 65, 129, 19]].map(|size| Case { size, t, broadcast: [false; 2], pad: 0 })
        })
        .collect();
    check(&gpu, &target, &large);
}

#[test]
fn subgroup_tiles() {
    let gpu = gpu();
    let Some(sg @ (4 | 8 | 16)) = gpu.subgroup else { return };
    check(&gpu, &target_of(Class::Cpu, Some(sg)), &cases());
}

/// Ragged and aligned sizes by every tile that a device of any class can run.
#[test]
fn tiles_that_a_tuner_may_choose() {
    let gpu = gpu();
    let all: Vec<Case> = (cases().into_iter())
        .filter(|case| case.pad == 0 && [[1, 37, 75, 29], [3, 20, 36, 8]].contains(&case.size))
        .collect();
    let mut kernels: Vec<(&Case, Gemm)> = Vec::new();
    for target in [target_of(Class::Discrete, gpu.subgroup), target_of(Class::Cpu, gpu.subgroup)] {
        for case in &all {
            let variants = variants(&problem(case), &target);
            assert_eq!(variants.iter().filter(|variant| variant.default).count(), 1);
            kernels.extend(variants.into_iter().map(|variant| (case, variant.gemm)));
        }
    }
    let mut names: Vec<&str> = kernels.iter().map(|(_, gemm)| gemm.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    // Four layouts of nine tiles at least, ragged and not.
    assert!(names.len() >= 4 * 9 * 2, "{names:?}");
    check_all(&gpu, &kernels);
}

/// A choice goes before the table, for its kind of product alone; what nobody knows is passed over.
#[test]
fn what_was_measured_goes_before_the_table() {
    let target = target_of(Class::Cpu, Some(8));
    let p = |m| problem(&Case { size: [1, m, 512, 512], t: [false; 2], broadcast: [false; 2], pad: 0 });
    let usual = select(&p(512), &target);
    for variant in variants(&p(512), &target) {
        let choices = Choices::default().with(&kind(&p(512)), &variant.name);
        let tuned = Target { choices, ..target.clone() };
        assert_eq!(select(&p(512), &tuned), variant.gemm);
        assert_eq!(select(&p(400), &tuned).source, variant.gemm.source);
        assert_eq!(select(&p(200), &tuned), select(&p(200), &target));
    }
    let choices = Choices::default().with(&kind(&p(512)), "a tile of another version");
    assert_eq!(select(&p(512), &Target { choices, ..target }), usual);
}

/// The variant that stores f16 and accumulates in f32. Every sum here is exact in f32, so what differs from f64 is the
/// rounding of the result to f16, by at most one unit: 2^-10. Accumulators of f16 would be far off: from 2048 on they
/// lose every addend below one, and these sums of up to 2,500 terms get there.
#[test]
fn halves_are_stored_and_floats_accumulated() {
    use half::f16;
    let gpu = gpu();
    if !gpu.device.features().contains(wgpu::Features::SHADER_F16) {
        println!("skipped: this device has no SHADER_F16");
        return;
    }
    let mut targets = vec![target_of(Class::Browser, None), target_of(Class::Discrete, None)];
    targets.extend(gpu.subgroup.filter(|sg| [4, 8, 16].contains(sg)).map(|sg| target_of(Class::Cpu, Some(sg))));
    for target in targets {
        for size in [[1, 33, 68, 2500], [1, 37, 75, 2499], [2, 40, 10, 96], [1, 5, 3, 0]] {
            for t in [[false, false], [true, false], [false, true], [true, true]] {
                let p = problem(&Case { size, t, broadcast: [false; 2], pad: 0 });
                let gemm = select(&p, &target);
                let source = Shader::new(gemm.source.as_str()).alias("S", "f16").enable("f16").build().unwrap();
                // Multiples of 1/8 in [1/2, 1]: their products are exact in f32, as are sums of 2,500 of them.
                let numbers = |n: usize, seed| -> Vec<f16> {
                    values(n.next_multiple_of(4).max(4), seed)
                        .iter()
                        .map(|v| f16::from_f32(0.5 + v.abs() / 2.0))
                        .collect()
                };
                let eighths = |x: Vec<f16>| -> Vec<f16> {
                    x.iter().map(|v| f16::from_f32((v.to_f32() * 8.0).round() / 8.0)).collect()
                };
                let (a, b) = (eighths(numbers(p.batch * p.m * p.k, 1)), eighths(numbers(p.batch * p.n * p.k, 2)));
                let c_len = p.batch * p.m * p.n;
                let c = vec![f16::from_f32(-777.0); c_len.next_multiple_of(4) + 4];
                let bytes = |x: &[f16]| bytemuck::cast_slice::<f16, u8>(x).to_vec();
                let c = gpu.run_bytes(&gpu.pipeline(&source), &gemm, &bytes(&a), &bytes(&b), &bytes(&c));
                let c: &[f16] = bytemuck::cast_slice(&c);
                let at = |x: &[f16], o: &Operand, transposed: bool, z: usize, row: usize, k: usize| {
                    let (i, j) = if transposed { (k, row) } else { (row, k) };
                    x[z * o.batch_stride + i * o.ld + j].to_f64()
                };
                for (index, got) in c[..c_len].iter().enumerate() {
                    let (z, i, j) = (index / p.n / p.m, index / p.n % p.m, index % p.n);
                    let product = |k| at(&a, &p.a, t[0], z, i, k) * at(&b, &p.b, !t[1], z, j, k);
                    let want: f64 = (0..p.k).map(product).sum();
                    let error = (got.to_f64() - want).abs();
                    assert!(error <= want.abs() * 2f64.powi(-10), "{} {p:?}: {got}, want {want}", gemm.name);
                }
                assert!(c[c_len..].iter().all(|x| x.to_f32() == -777.0), "{} wrote beyond C", gemm.name);
            }
        }
    }
}

/// One text serves all sizes of a class, and every text is accepted by naga and has its seams on lines of their own.
#[test]
fn text_depends_on_the_class_only() {
    let p = |m, n, k| problem(&Case { size: [1, m, n, k], t: [false; 2], broadcast: [false; 2], pad: 0 });
    let target = target_of(Class::Cpu, Some(8));
    let (x, y) = (select(&p(512, 512, 512), &target), select(&p(1024, 768, 256), &target));
    assert_eq!(x.source, y.source);
    assert_ne!(x.params, y.params);
    for sg in [None, Some(4), Some(8), Some(16)] {
        for class in [Class::Cpu, Class::Browser, Class::Discrete] {
            for case in cases() {
                let g = select(&problem(&case), &target_of(class, sg));
                for seam in
                    ["fn load_a(z: u32", "fn load_b(z: u32", if g.stores_vec4 { "fn store_c(" } else { "fn store_c1(" }]
                {
                    let line = g.source.lines().find(|l| l.starts_with(seam)).expect("a seam on its own line");
                    assert!(line.ends_with('}'));
                }
            }
        }
    }
}

/// More workgroups than one dimension of a grid holds.
#[test]
fn grids_stay_within_limits() {
    let p = Problem {
        parts: 1,
        batch: 70000,
        m: 8,
        n: 8,
        k: 4,
        a: Operand { transposed: false, ld: 4, batch_stride: 32, outer: None, vec4: true },
        b: Operand { transposed: false, ld: 8, batch_stride: 0, outer: None, vec4: true },
        rolled: false,
    };
    let gpu = gpu();
    let mut targets = vec![target_of(Class::Browser, None)];
    targets.extend(gpu.subgroup.map(|sg| target_of(Class::Cpu, Some(sg))));
    for target in targets {
        let gemm = select(&p, &target);
        assert!(gemm.grid[1] > 1 && gemm.grid.iter().all(|&g| g <= 65535), "{:?}", gemm.grid);
        let (a, b) = (values(70000 * 32, 1), values(32, 2));
        let c = gpu.run(&gpu.pipeline(&gemm.source), &gemm, &a, &b, 70000 * 64);
        for z in [0, 1, 65534, 65535, 65536, 69999] {
            for e in 0..64 {
                let (i, j) = (e / 8, e % 8);
                let want: f32 = (0..4).map(|k| a[z * 32 + i * 4 + k] * b[k * 8 + j]).sum();
                assert_eq!(c[z * 64 + e], want, "batch {z} element {e}");
            }
        }
    }
}
