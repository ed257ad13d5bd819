//! The WGSL of the matmul families, written from tile parameters.
//!
//! The inner loops are *unrolled text with named accumulators*, which is why a generator stands here and not four files
//! in `shaders/`: a file with loops over `array<vec4<f32>, N>` accumulators is as fast only where the driver unrolls it, and
//! under wgpu's checked translation (clamped local indices, bounded loops) it is up to ten times slower (numbers in
//! `docs/notes/bets.md`). What comes out is still whole, valid WGSL with seams on single lines: `load_a`, `load_b` and
//! `store_c`/`store_c1` are the only functions that touch a storage buffer, so their bodies and the bindings can be
//! replaced. A line starting with `fn` never continues.
//!
//! Two aliases separate storage from arithmetic: bindings hold `S`, seams take and return `A`, accumulators and workgroup
//! memory are `A`. Both are f32; `gpu::Shader` makes the variant that stores f16 and still accumulates in f32.
//!
//! What a seam may rely on: `i` is always inside the stored matrix, `j` is a multiple of 4 inside it, and only those of the
//! elements `j..j+4` that lie inside are used; what a load returns for the others is ignored. A store is called once per
//! element of C, never outside it. Where stores are vec4 and a tile's are not in a loop, they come column by column, and
//! `column(j)` is called before those of each: for what depends on the column alone, as a bias does.
//!
//! Absent on purpose: sizes. They come from the uniform, so the text depends on tile, layout and alignment only.

use std::fmt::Write;

/// How the operands lie in memory: everything but tile and sizes that the text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    /// A is stored [K, M].
    pub ta: bool,
    /// B is stored [N, K].
    pub tb: bool,
    /// Loads of A are aligned vec4 loads.
    pub a4: bool,
    /// Loads of B are aligned vec4 loads.
    pub b4: bool,
    /// N is a multiple of 4.
    pub c4: bool,
    /// K is a multiple of 4, and an operand's rows along it are loaded by fours.
    pub k4: bool,
    /// Register tiles are stored in a loop.
    pub rolled: bool,
}

const XYZW: [&str; 4] = ["x", "y", "z", "w"];

/// Appends formatted text; writing to a String cannot fail.
macro_rules! put {
    ($s:expr, $($arg:tt)*) => {{ let _ = write!($s, $($arg)*); }};
}

/// The body of the load seam of an operand in variable `x`, whose row stride and first element are the components `ld`
/// and `first` of `s`; `first` may be any text that adds to it.
pub(super) fn load(x: &str, v4: bool, ld: &str, first: &str) -> String {
    let at = format!("s.{first} + i * s.{ld} + j");
    match v4 {
        true => format!("return vec4<A>({x}[({at}) >> 2u]);"),
        false => format!("let o = {at}; return vec4<A>(A({x}[o]), A({x}[o + 1u]), A({x}[o + 2u]), A({x}[o + 3u]));"),
    }
}

/// Bindings and default seams.
fn header(l: &Layout, what: &str) -> String {
    let ty = |v4| if v4 { "vec4<S>" } else { "S" };
    let mut s = format!(
        "// C[z, m, n] = sum over k of A[z, m, k] B[z, k, n]. {what}\n\
         // Stored as S, accumulated in A: S alone may become f16, and then the text needs `enable f16;` on top.\n\
         alias S = f32;\n\
         alias A = f32;\n\
         // A is stored {}, B {}; C is dense [batch, M, N].\n\
         // p: (batch, M, N, K), (lda, ldb, batch stride of A, of B), (tiles along N, tiles along M, tiles in all, length of a stretch of K or 0), (matrices of an outer stride, what it is more than those, of A; of B)\n\
         @group(0) @binding(0) var<uniform> p: array<vec4<u32>, 4>;\n\
         @group(0) @binding(1) var<storage, read> a: array<{}>;\n\
         @group(0) @binding(2) var<storage, read> b: array<{}>;\n\
         @group(0) @binding(3) var<storage, read_write> c: array<{}>;\n\
         // lda, ldb, first element of this batch in A, in B: held here, since a load from the uniform in the loop costs 10 %.\n\
         var<private> s: vec4<u32>;\n",
        if l.ta { "[K, M]" } else { "[M, K]" },
        if l.tb { "[N, K]" } else { "[K, N]" },
        ty(l.a4),
        ty(l.b4),
        ty(l.c4),
    );
    put!(s, "fn load_a(z: u32, i: u32, j: u32) -> vec4<A> {{ {} }}\n", load("a", l.a4, "x", "z"));
    put!(s, "fn load_b(z: u32, i: u32, j: u32) -> vec4<A> {{ {} }}\n", load("b", l.b4, "y", "w"));
    let at = "(z * p[0].y + i) * p[0].z + j";
    if l.c4 {
        put!(s, "fn store_c(z: u32, i: u32, j: u32, v: vec4<A>) {{ c[({at}) >> 2u] = vec4<S>(v); }}\n");
        s += "fn column(j: u32) { }\n";
        s += "fn put(z: u32, i: u32, j: u32, v: vec4<A>) { if (i < p[0].y && j < p[0].z) { store_c(z, i, j, v); } }\n";
    } else {
        put!(s, "fn store_c1(z: u32, i: u32, j: u32, v: A) {{ c[{at}] = S(v); }}\n");
        s += "fn put(z: u32, i: u32, j: u32, v: vec4<A>) { if (i < p[0].y) { let n = p[0].z; if (j < n) { store_c1(z, i, j, v.x); } if (j + 1u < n) { store_c1(z, i, j + 1u, v.y); } if (j + 2u < n) { store_c1(z, i, j + 2u, v.z); } if (j + 3u < n) { store_c1(z, i, j + 3u, v.w); } } }\n";
    }
    s
}

/// Entry point up to the origin (mt, nt) of this workgroup's tile. The grid is flat; a surplus workgroup gets mt = M, so
/// that its loads are clamped and its stores masked.
fn entry(threads: usize, lane: &str, tile_m: usize, tile_n: usize) -> String {
    format!(
        "@compute @workgroup_size({threads})\n\
         fn main(@builtin(workgroup_id) w: vec3<u32>, @builtin(num_workgroups) g: vec3<u32>, @builtin({lane}) l: u32) {{\n\
         let M = p[0].y; let N = p[0].z;\n\
         let t = w.x + w.y * g.x; let per = p[2].x * p[2].y; let z = min(t / per, p[0].x - 1u); let ti = t % per;\n\
         let kf = z * p[2].w; let K = select(p[0].w, min(p[0].w, kf + p[2].w), p[2].w != 0u) + (g.z - 1u);\n\
         s = vec4<u32>(p[1].xy, vec2<u32>(z) * p[1].zw + vec2<u32>(z) / p[3].xz * p[3].yw);\n\
         let mt = select(M, (ti / p[2].x) * {tile_m}u, t < p[2].z); let nt = (ti % p[2].x) * {tile_n}u;\n\
         let Mc = M - 1u; let Nc = N - 1u; let M4 = Mc & 0xfffffffcu; let N4 = Nc & 0xfffffffcu;\n"
    )
}

/// Where the A values of a register tile come from.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// Each lane of the subgroup loads its share of the rows, which is then broadcast.
    Broadcast { sg: usize },
    /// Each invocation loads all rows of its own tile.
    Own,
}

/// (F3) One subgroup computes tm x (sg * tn): lanes lie along N, A is broadcast between them.
pub(super) fn subgroup(l: &Layout, sg: usize, tm: usize, tn: usize) -> String {
    let mut s = header(l, "One subgroup per tile; lanes along N; A is loaded once per subgroup and broadcast.");
    s += &entry(sg, "subgroup_invocation_id", tm, sg * tn);
    s += "let mi = mt; let lane = l;\n";
    register_tile(&mut s, l, Source::Broadcast { sg }, sg, tm, tn);
    s
}

/// (F2) Each invocation computes tm x tn from its own vec4 loads: no workgroup memory, no subgroups. Workgroup wx x wy.
pub(super) fn register(l: &Layout, wx: usize, wy: usize, tm: usize, tn: usize) -> String {
    let mut s = header(l, "One register tile per invocation, neither workgroup memory nor subgroups.");
    s += &entry(wx * wy, "local_invocation_index", wy * tm, wx * tn);
    put!(s, "let mi = mt + (l / {wx}u) * {tm}u; let lane = l % {wx}u;\n");
    register_tile(&mut s, l, Source::Own, wx, tm, tn);
    s
}

/// The body shared by F2 and F3: accumulators c{i}_{v} for row mi + i and columns j{v}..j{v}+4, `lanes` lanes along N.
fn register_tile(s: &mut String, l: &Layout, source: Source, lanes: usize, tm: usize, tn: usize) {
    let vs = tn / 4;
    // Registers of A per k block: (not transposed) one row each, (transposed) four consecutive rows each.
    let (step, share) = match source {
        Source::Broadcast { sg } => (sg, "lane"),
        Source::Own => (1, "0u"),
    };
    let regs = if l.ta { tm.div_ceil(4 * step) } else { tm / step };
    for r in 0..regs {
        match l.ta {
            true => put!(s, "let r{r} = min(mi + ({}u + {share}) * 4u, M4);\n", r * step),
            false => put!(s, "let r{r} = min(mi + {}u + {share}, Mc);\n", r * step),
        };
    }
    for v in 0..vs {
        put!(s, "let n{v} = nt + (lane + {}u) * 4u; let j{v} = min(n{v}, N4);\n", v * lanes);
        if l.tb {
            for e in 0..4 {
                put!(s, "let j{v}_{e} = min(n{v} + {e}u, Nc);");
            }
            s.push('\n');
        }
    }
    for i in 0..tm {
        for v in 0..vs {
            put!(s, "var c{i}_{v} = vec4<A>();");
        }
        s.push('\n');
    }
    // The value of A for row i as a scalar, given the text of its component along K (A not transposed).
    let value = |i: usize, q: usize, comp: &str| {
        let (reg, comp, lane) = match l.ta {
            true => (format!("a{}_{q}", i / 4 / step), format!(".{}", XYZW[i % 4]), (i / 4) % step),
            false => (format!("a{}", i / step), comp.to_string(), i % step),
        };
        match source {
            Source::Broadcast { .. } => format!("subgroupBroadcast({reg}{comp}, {lane}u)"),
            Source::Own => format!("{reg}{comp}"),
        }
    };
    // Four steps of K for one accumulator after the other, and not four times all of them: a tile does not fit into the
    // registers, so each visit to an accumulator is a load and a store (numbers in docs/notes/bets.md).
    put!(s, "let Ke = {};\nfor (var k = kf; k < Ke; k += 4u) {{\n", if l.k4 { "K" } else { "K & 0xfffffffcu" });
    for r in 0..regs {
        match l.ta {
            true => (0..4).for_each(|q| put!(s, "let a{r}_{q} = load_a(z, k + {q}u, r{r}); ")),
            false => put!(s, "let a{r} = load_a(z, r{r}, k); "),
        };
    }
    for v in 0..vs {
        s.push_str("\n{ ");
        if l.tb {
            (0..4).for_each(|e| put!(s, "let q{e} = load_b(z, j{v}_{e}, k); "));
        }
        for (q, x) in XYZW.iter().enumerate() {
            match l.tb {
                true => put!(s, "let b{q} = vec4<A>(q0.{x}, q1.{x}, q2.{x}, q3.{x}); "),
                false => put!(s, "let b{q} = load_b(z, k + {q}u, j{v}); "),
            };
        }
        for i in 0..tm {
            s.push('\n');
            for (q, x) in XYZW.iter().enumerate() {
                put!(s, "c{i}_{v} = fma(vec4<A>({}), b{q}, c{i}_{v}); ", value(i, q, &format!(".{x}")));
            }
        }
        s.push_str(" }");
    }
    s.push_str("\n}\n");
    if !l.k4 {
        s.push_str("for (var k = max(Ke, kf); k < K; k++) { let e = k - Ke;\n");
        for r in 0..regs {
            match l.ta {
                true => put!(s, "let a{r}_0 = load_a(z, k, r{r}); "),
                false => put!(s, "let a{r} = load_a(z, r{r}, Ke)[e]; "),
            };
        }
        for v in 0..vs {
            match l.tb {
                true => {
                    let quad: Vec<String> = (0..4).map(|e| format!("load_b(z, j{v}_{e}, Ke)[e]")).collect();
                    put!(s, "\nlet b{v} = vec4<A>({});", quad.join(", "))
                }
                false => put!(s, "\nlet b{v} = load_b(z, k, j{v});"),
            };
        }
        for i in 0..tm {
            put!(s, "\n{{ let x = vec4<A>({}); ", value(i, 0, ""));
            (0..vs).for_each(|v| put!(s, "c{i}_{v} = fma(x, b{v}, c{i}_{v}); "));
            s.push('}');
        }
        s.push_str("\n}\n");
    }
    let tile = (0..tm).flat_map(|i| (0..vs).map(move |v| (i, v)));
    if l.rolled {
        let all = tile.map(|(i, v)| format!("c{i}_{v}")).collect::<Vec<_>>().join(", ");
        put!(s, "var tile = array<vec4<A>, {}>({all});\n", tm * vs);
        put!(s, "for (var q = 0u; q < {}u; q++) {{ let n = nt + (lane + q % {vs}u * {lanes}u) * 4u;\n", tm * vs);
        put!(s, "put(z, mi + q / {vs}u, n, tile[q]);\n}}\n");
    } else {
        for v in 0..vs {
            if l.c4 {
                put!(s, "column(j{v});\n");
            }
            (0..tm).for_each(|i| put!(s, "put(z, mi + {i}u, n{v}, c{i}_{v});\n"));
        }
    }
    s.push_str("}\n");
}

/// (F3, few columns) One subgroup computes (sg * 4 * vs) x tn: lanes lie along M, each owns 4 * vs rows; B is broadcast.
pub(super) fn subgroup_narrow(l: &Layout, sg: usize, vs: usize, tn: usize) -> String {
    let mut s =
        header(l, "Few columns: one subgroup per tile; lanes along M; B is loaded once per subgroup and broadcast.");
    s += &entry(sg, "subgroup_invocation_id", sg * 4 * vs, tn);
    for v in 0..vs {
        put!(s, "let m{v} = mt + (l + {}u) * 4u; let i{v} = min(m{v}, M4);", v * sg);
        if !l.ta {
            for e in 0..4 {
                put!(s, "let i{v}_{e} = min(m{v} + {e}u, Mc);");
            }
        }
        s.push('\n');
    }
    // Registers of B per block: (not transposed) row k + lane, four columns each; (transposed) one column per lane each.
    let (regs, block) = if l.tb { (tn.div_ceil(sg), 4) } else { (tn / 4, sg) };
    for r in 0..regs {
        match l.tb {
            true => put!(s, "let j{r} = min(nt + {}u + l, Nc);\n", r * sg),
            false => put!(s, "let j{r} = min(nt + {}u, N4);\n", r * 4),
        };
    }
    for v in 0..vs {
        for n in 0..tn {
            put!(s, "var c{v}_{n} = vec4<A>();");
        }
        s.push('\n');
    }
    let load_rows = |s: &mut String, k: &str| {
        for v in 0..vs {
            for e in 0..4 {
                put!(s, "let q{v}_{e} = load_a(z, i{v}_{e}, {k}); ");
            }
            s.push('\n');
        }
    };
    let accumulate = |s: &mut String, value: &dyn Fn(usize) -> String| {
        for n in 0..tn {
            put!(s, "{{ let y = vec4<A>({}); ", value(n));
            for v in 0..vs {
                put!(s, "c{v}_{n} = fma(x{v}, y, c{v}_{n}); ");
            }
            s.push_str("}\n");
        }
    };
    put!(s, "let Ke = K - K % {block}u;\nfor (var k = kf; k < Ke; k += {block}u) {{\n");
    for r in 0..regs {
        match l.tb {
            true => put!(s, "let b{r} = load_b(z, j{r}, k); "),
            false => put!(s, "let b{r} = load_b(z, k + l, j{r}); "),
        };
    }
    s.push('\n');
    for q in 0..block {
        let x = XYZW[q % 4];
        if !l.ta && q % 4 == 0 {
            s.push_str("{\n");
            load_rows(&mut s, &format!("k + {q}u"));
        }
        s.push_str("{ ");
        for v in 0..vs {
            match l.ta {
                true => put!(s, "let x{v} = load_a(z, k + {q}u, i{v}); "),
                false => put!(s, "let x{v} = vec4<A>(q{v}_0.{x}, q{v}_1.{x}, q{v}_2.{x}, q{v}_3.{x}); "),
            };
        }
        s.push('\n');
        accumulate(&mut s, &|n| match l.tb {
            true => format!("subgroupBroadcast(b{}.{x}, {}u)", n / sg, n % sg),
            false => format!("subgroupBroadcast(b{}.{}, {q}u)", n / 4, XYZW[n % 4]),
        });
        s.push_str("}\n");
        if !l.ta && q % 4 == 3 {
            s.push_str("}\n");
        }
    }
    s += "}\nfor (var k = max(Ke, kf); k < K; k++) { let kb = k & 0xfffffffcu; let e = k & 3u;\n";
    for r in 0..regs {
        match l.tb {
            true => put!(s, "let b{r} = load_b(z, j{r}, kb)[e]; "),
            false => put!(s, "let b{r} = load_b(z, k, j{r}); "),
        };
    }
    if !l.ta {
        load_rows(&mut s, "kb");
    }
    for v in 0..vs {
        match l.ta {
            true => put!(s, "let x{v} = load_a(z, k, i{v}); "),
            false => put!(s, "let x{v} = vec4<A>(q{v}_0[e], q{v}_1[e], q{v}_2[e], q{v}_3[e]); "),
        };
    }
    s.push('\n');
    accumulate(&mut s, &|n| match l.tb {
        true => format!("subgroupBroadcast(b{}, {}u)", n / sg, n % sg),
        false => format!("b{}.{}", n / 4, XYZW[n % 4]),
    });
    s.push_str("}\n");
    for v in 0..vs {
        for (e, x) in XYZW.iter().enumerate() {
            for n in (0..tn).step_by(4) {
                let quad: Vec<String> = (n..n + 4).map(|n| format!("c{v}_{n}.{x}")).collect();
                put!(s, "put(z, m{v} + {e}u, nt + {n}u, vec4<A>({}));\n", quad.join(", "));
            }
        }
    }
    s.push_str("}\n");
    s
}

/// (F1) A bm x bn tile per workgroup, staged bk deep in workgroup memory; each invocation computes tm x tn of it.
pub(super) fn workgroup(l: &Layout, bm: usize, bn: usize, bk: usize, tm: usize, tn: usize) -> String {
    let (tx, ty, vs) = (bn / tn, bm / tm, tn / 4);
    let threads = tx * ty;
    let mut s = header(l, "One tile per workgroup, staged through workgroup memory; a register tile per invocation.");
    // Tile of A: (not transposed) [bm][bk/4 + 1] along K, the odd pitch spreads rows over banks; (transposed) [bk][bm/4].
    let (pitch_a, pitch_b) = (if l.ta { bm / 4 } else { bk / 4 + 1 }, bn / 4);
    put!(
        s,
        "var<workgroup> sa: array<vec4<A>, {}>;\nvar<workgroup> sb: array<vec4<A>, {}>;\n",
        if l.ta { bk * pitch_a } else { bm * pitch_a },
        bk * pitch_b
    );
    s += "fn below(j: u32, n: u32, v: vec4<A>) -> vec4<A> { return select(vec4<A>(), v, vec4<u32>(j, j + 1u, j + 2u, j + 3u) < vec4<u32>(n)); }\n";
    s += &entry(threads, "local_invocation_index", bm, bn);
    put!(s, "let lx = l % {tx}u; let ly = l / {tx}u; let Kc = max(K, 1u) - 1u; let K4 = Kc & 0xfffffffcu;\n");
    for i in 0..tm {
        for v in 0..vs {
            put!(s, "var c{i}_{v} = vec4<A>();");
        }
        s.push('\n');
    }
    put!(s, "for (var k0 = kf; k0 < K; k0 += {bk}u) {{\n");
    // Stage: `n` pieces spread over the threads; a piece beyond the last is skipped. Values beyond K become zero.
    let stage = |s: &mut String, n: usize, body: &str| {
        for first in (0..n).step_by(threads) {
            if first + threads > n {
                put!(s, "if (l + {first}u < {n}u) ");
            }
            put!(s, "{{ let o = l + {first}u; {body} }}\n");
        }
    };
    let body = match l.ta {
        true => format!(
            "let r = o / {0}u; let q = o % {0}u; let k = k0 + r; sa[r * {0}u + q] = select(vec4<A>(), load_a(z, min(k, Kc), min(mt + q * 4u, M4)), k < K);",
            bm / 4
        ),
        false => format!(
            "let r = o / {0}u; let q = o % {0}u; let k = k0 + q * 4u; sa[r * {1}u + q] = below(k, K, load_a(z, min(mt + r, Mc), min(k, K4)));",
            bk / 4,
            pitch_a
        ),
    };
    stage(&mut s, bm * bk / 4, &body);
    if l.tb {
        // A 4 x 4 block per piece, transposed in registers.
        let mut body =
            format!("let r = o / {0}u; let q = o % {0}u; let k = k0 + q * 4u; let n = nt + r * 4u;\n", bk / 4);
        for e in 0..4 {
            put!(body, "let w{e} = below(k, K, load_b(z, min(n + {e}u, Nc), min(k, K4)));\n");
        }
        for (e, x) in XYZW.iter().enumerate() {
            put!(body, "sb[(q * 4u + {e}u) * {pitch_b}u + r] = vec4<A>(w0.{x}, w1.{x}, w2.{x}, w3.{x});\n");
        }
        stage(&mut s, bn * bk / 16, &body);
    } else {
        let body = format!(
            "let r = o / {pitch_b}u; let q = o % {pitch_b}u; let k = k0 + r; sb[o] = select(vec4<A>(), load_b(z, min(k, Kc), min(nt + q * 4u, N4)), k < K);"
        );
        stage(&mut s, bn * bk / 4, &body);
    }
    put!(s, "workgroupBarrier();\nfor (var q = 0u; q < {}u; q++) {{\n", bk / 4);
    if !l.ta {
        for i in 0..tm {
            put!(s, "let a{i} = sa[(ly + {}u) * {pitch_a}u + q]; ", i * ty);
        }
        s.push('\n');
    }
    for (e, x) in XYZW.iter().enumerate() {
        s.push_str("{ ");
        for v in 0..vs {
            put!(s, "let b{v} = sb[(q * 4u + {e}u) * {pitch_b}u + lx + {}u]; ", v * tx);
        }
        if l.ta {
            for r in 0..tm / 4 {
                put!(s, "let a{r} = sa[(q * 4u + {e}u) * {pitch_a}u + ly + {}u]; ", r * ty);
            }
        }
        s.push('\n');
        for i in 0..tm {
            match l.ta {
                true => put!(s, "{{ let x = vec4<A>(a{}.{}); ", i / 4, XYZW[i % 4]),
                false => put!(s, "{{ let x = vec4<A>(a{i}.{x}); "),
            };
            for v in 0..vs {
                put!(s, "c{i}_{v} = fma(x, b{v}, c{i}_{v}); ");
            }
            s.push_str("}\n");
        }
        s.push_str("}\n");
    }
    s += "}\nworkgroupBarrier();\n}\n";
    for i in 0..tm {
        let row = match l.ta {
            true => format!("mt + (ly + {}u) * 4u + {}u", i / 4 * ty, i % 4),
            false => format!("mt + ly + {}u", i * ty),
        };
        for v in 0..vs {
            put!(s, "put(z, {row}, nt + (lx + {}u) * 4u, c{i}_{v});\n", v * tx);
        }
    }
    s.push_str("}\n");
    s
}
