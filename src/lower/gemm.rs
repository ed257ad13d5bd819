//! Which matmul kernel, for which problem, on which class of device.
//!
//! `select` is a pure function: from sizes, layouts and a target to WGSL text, grid and uniform words. Three families:
//! subgroup broadcast (F3: CPU drivers, where a vector load is the cost that counts), register tiles without workgroup
//! memory (F2: browsers, CPU drivers without subgroups), and workgroup tiles (F1: GPUs). Within a family the tile is
//! the cheapest of a short list under a cost model that counts vector loads, multiply-adds and stores per tile, tails included,
//! and what the text takes to compile.
//!
//! What was measured on the device at hand goes before the table and the model ([`Choices`](crate::gpu::Choices)).
//!
//! The text depends on family, tile and layout, never on sizes: another batch size compiles nothing new.
//! Absent on purpose: devices and pipelines; fusion (the compiler replaces the seams of the text, see `gemm_text`).

use super::Target;
use super::gemm_text::{self, Layout};
use super::program::product_stretch;
use crate::gpu::Class;

/// One operand as it lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// A: stored [K, M]; B: stored [N, K].
    pub transposed: bool,
    /// Elements from one stored row to the next.
    pub ld: usize,
    /// Elements from one matrix of the batch to the next; 0 broadcasts one matrix.
    pub batch_stride: usize,
    /// Where one stride does not do: so many matrices, and elements from the first of those to the first behind them.
    pub outer: Option<(usize, usize)>,
    /// Base offset, `ld` and `batch_stride` are multiples of 4, and four elements from any such one on can be loaded.
    pub vec4: bool,
}

/// C[b, m, n] = sum over k of A[b, m, k] B[b, k, n]; C is dense. Of a product in several parts (of a batch of one) part
/// `b` sums a stretch of K.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem {
    pub batch: usize,
    pub parts: usize,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: Operand,
    pub b: Operand,
    /// The store seam is long in text: it is called in a loop, where it would stand once for each vec4 of a tile.
    pub rolled: bool,
}

/// A kernel ready to compile and launch. Bindings: 0 uniform `params`, 1 A, 2 B, 3 C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gemm {
    /// For plans and profiles, e.g. "matmul nt sg8 32x8".
    pub name: String,
    /// WGSL with default seams and bindings.
    pub source: String,
    /// Workgroups; 0 in x when C is empty.
    pub grid: [u32; 3],
    /// Uniform words: batch, m, n, k, lda, ldb, batch stride of A, of B, tiles along n, along m, in all, length of
    /// a stretch of K or 0, then for A and for B the matrices of an outer stride and what it is more than so many
    /// batch strides.
    pub params: Vec<u32>,
    /// The epilogue seam is `store_c` (vec4) rather than `store_c1`.
    pub stores_vec4: bool,
}

/// Whether there are subgroups of one known size at all. In browsers there never are, and a page need not bring the texts.
const SUBGROUPS: bool = cfg!(not(target_arch = "wasm32"));

/// A family with its tile.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Tile {
    /// tm x (sg * tn) per subgroup, lanes along N.
    Subgroup { sg: usize, tm: usize, tn: usize },
    /// (sg * 4 * vs) x tn per subgroup, lanes along M.
    Narrow { sg: usize, vs: usize, tn: usize },
    /// tm x tn per invocation, wx x wy invocations.
    Register { wx: usize, wy: usize, tm: usize, tn: usize },
    /// bm x bn per workgroup, staged bk deep, tm x tn per invocation.
    Workgroup { bm: usize, bn: usize, bk: usize, tm: usize, tn: usize },
}

impl Tile {
    /// Rows and columns of C per workgroup.
    fn extent(self) -> (usize, usize) {
        match self {
            Tile::Subgroup { sg, tm, tn } => (tm, sg * tn),
            Tile::Narrow { sg, vs, tn } => (sg * 4 * vs, tn),
            Tile::Register { wx, wy, tm, tn } => (wy * tm, wx * tn),
            Tile::Workgroup { bm, bn, .. } => (bm, bn),
        }
    }

    fn label(self) -> String {
        match self {
            Tile::Subgroup { sg, tm, tn } => format!("sg{sg} {tm}x{tn}"),
            Tile::Narrow { sg, vs, tn } => format!("sg{sg} narrow {}x{tn}", 4 * vs),
            Tile::Register { tm, tn, .. } => format!("reg {tm}x{tn}"),
            Tile::Workgroup { bm, bn, bk, tm, tn } => format!("wg {bm}x{bn}x{bk} {tm}x{tn}"),
        }
    }

    fn text(self, l: &Layout) -> String {
        match self {
            Tile::Subgroup { .. } | Tile::Narrow { .. } if !SUBGROUPS => String::new(),
            Tile::Subgroup { sg, tm, tn } => gemm_text::subgroup(l, sg, tm, tn),
            Tile::Narrow { sg, vs, tn } => gemm_text::subgroup_narrow(l, sg, vs, tn),
            Tile::Register { wx, wy, tm, tn } => gemm_text::register(l, wx, wy, tm, tn),
            Tile::Workgroup { bm, bn, bk, tm, tn } => gemm_text::workgroup(l, bm, bn, bk, tm, tn),
        }
    }

    /// Cycles of one subgroup on a CPU driver for the whole problem: `LOAD` per vec4 load or store of a subgroup (four
    /// times a scalar one otherwise), one per vec4 multiply-add; and a ten-thousandth of what the driver takes to compile
    /// the text (lavapipe 0.77 ms a statement), which for a small product is more than any tile gains. Only the order of
    /// the results is used.
    fn cost(self, p: &Problem, l: &Layout) -> f64 {
        const LOAD: f64 = 30.0;
        const SCALAR: f64 = 60.0;
        const STATEMENT: f64 = 77.0;
        let price = |v4| if v4 { LOAD } else { SCALAR };
        let (rows, cols) = self.extent();
        let tiles = p.m.div_ceil(rows) * p.n.div_ceil(cols) * p.batch * p.parts;
        // vec4 loads of A, of B and multiply-adds per k; vec4 stores
        let (a, b, fma) = match self {
            Tile::Subgroup { sg, tm, tn } => {
                let a = if l.ta { tm.div_ceil(4 * sg) as f64 } else { (tm / sg) as f64 / 4.0 };
                (a, tn as f64 / 4.0, (tm * tn / 4) as f64)
            }
            Tile::Narrow { sg, vs, tn } => {
                let b = if l.tb { tn.div_ceil(sg) as f64 / 4.0 } else { tn as f64 / 4.0 / sg as f64 };
                (vs as f64, b, (vs * tn) as f64)
            }
            Tile::Register { tm, tn, .. } => (tm as f64 / 4.0, tn as f64 / 4.0, (tm * tn / 4) as f64),
            Tile::Workgroup { .. } => (0.0, 0.0, 1.0),
        };
        let invocations = if let Tile::Register { wx, wy, .. } = self { wx * wy } else { 1 } as f64;
        let per_tile = (p.k / p.parts) as f64 * (a * price(l.a4) + b * price(l.b4) + fma) + fma * price(l.c4) + 1000.0;
        // Two workgroups at least, so that two cores have work.
        per_tile * invocations * (tiles.max(2) as f64) + STATEMENT * self.statements(l)
    }

    /// Multiply-adds and stores that stand in the text of a tile in registers.
    fn statements(self, l: &Layout) -> f64 {
        let (accumulators, depth) = match self {
            Tile::Subgroup { tm, tn, .. } | Tile::Register { tm, tn, .. } => (tm * tn / 4, 4),
            Tile::Narrow { sg, vs, tn } => (vs * tn, if l.tb { 4 } else { sg }),
            Tile::Workgroup { .. } => return 0.0,
        };
        let (tail, stores) = (usize::from(!l.k4), if l.c4 { 1 } else { 4 });
        (accumulators * (depth + tail + if l.rolled { 0 } else { stores })) as f64
    }
}

/// The tiles of a target worth choosing between.
fn candidates(target: &Target, p: &Problem) -> Vec<Tile> {
    match (target.class, target.subgroup) {
        (Class::Cpu, Some(sg @ (4 | 8 | 16))) => {
            let sg = sg as usize;
            let wide: &[(usize, usize)] = match sg {
                4 => &[(16, 8), (16, 4), (8, 4)],
                // Loads one by one, and a tail of K besides, make a text that a CPU driver compiles for a second.
                8 if p.b.transposed && !(p.a.vec4 && p.b.vec4) => &[(32, 4), (16, 4), (8, 8), (8, 4)],
                // 32x8 also reads whole lines of B, and holds up better than 32x4 when memory is slow.
                8 => &[(32, 8), (32, 4), (16, 4), (8, 8), (8, 4)],
                _ => &[(32, 4), (16, 4)],
            };
            let wide = wide.iter().map(|&(tm, tn)| Tile::Subgroup { sg, tm, tn });
            wide.chain([4, 12].map(|tn| Tile::Narrow { sg, vs: 1, tn })).collect()
        }
        (Class::Cpu | Class::Browser, _) => {
            [(8, 8), (8, 4), (4, 4)].map(|(tm, tn)| Tile::Register { wx: 8, wy: 8, tm, tn }).to_vec()
        }
        (Class::Integrated | Class::Discrete | Class::Virtual | Class::Other, _) => {
            let large = p.batch * p.parts * p.m.div_ceil(64) * p.n.div_ceil(64) >= 64;
            let small = Tile::Workgroup { bm: 32, bn: 32, bk: 16, tm: 4, tn: 4 };
            vec![if large { Tile::Workgroup { bm: 64, bn: 64, bk: 16, tm: 8, tn: 4 } } else { small }]
        }
    }
}

/// Workgroups along each dimension for `total` workgroups in flat order (x fastest), each at most 65535.
fn flat_grid(total: usize) -> [u32; 3] {
    const MAX: usize = 65535;
    let rows = total.div_ceil(MAX).max(1);
    [total.div_ceil(rows) as u32, rows as u32, 1]
}

/// The kernel for a problem on a target.
pub fn select(problem: &Problem, target: &Target) -> Gemm {
    select_like(problem, problem, target)
}

/// The kernel for a problem, with the tile that is best for another one: so that a last, smaller batch needs no kernel
/// of its own.
pub fn select_like(problem: &Problem, like: &Problem, target: &Target) -> Gemm {
    let p = problem;
    let layout = layout_of(p);
    let like = if layout_of(like) == layout { like } else { p };
    let chosen = if target.choices.is_empty() { None } else { target.choices.get(&kind(like)) };
    let chosen = chosen.and_then(|name| every(target).into_iter().find(|tile| tile.label() == name));
    written(p, &layout, chosen.unwrap_or_else(|| default(like, target)))
}

fn layout_of(p: &Problem) -> Layout {
    Layout {
        ta: p.a.transposed,
        tb: p.b.transposed,
        a4: p.a.vec4,
        b4: p.b.vec4,
        c4: p.n.is_multiple_of(4),
        k4: p.k.is_multiple_of(4) && ((!p.a.transposed && p.a.vec4) || (p.b.transposed && p.b.vec4)),
        rolled: p.rolled,
    }
}

/// The tile of the table.
fn default(p: &Problem, target: &Target) -> Tile {
    let layout = layout_of(p);
    candidates(target, p)
        .into_iter()
        .min_by(|x, y| x.cost(p, &layout).total_cmp(&y.cost(p, &layout)))
        .expect("every class lists a tile")
}

/// Every tile that the device at hand can run, for a tuner: none takes more than every WebGPU grants. The first is the plainest.
fn every(target: &Target) -> Vec<Tile> {
    let registers = [(4, 4), (8, 4), (8, 8)].map(|(tm, tn)| Tile::Register { wx: 8, wy: 8, tm, tn });
    let mut all = registers.to_vec();
    if let Some(sg @ (4 | 8 | 16 | 32)) = target.subgroup {
        let sg = sg as usize;
        // Rows of a tile are shared out among the lanes by fours.
        let wide = [(8, 4), (8, 8), (16, 4), (16, 8), (32, 4), (32, 8), (64, 4)];
        all.extend(wide.into_iter().filter(|(tm, _)| tm % sg == 0).map(|(tm, tn)| Tile::Subgroup { sg, tm, tn }));
        all.extend([4, 12].map(|tn| Tile::Narrow { sg, vs: 1, tn }));
    }
    if target.class != Class::Cpu {
        let tiles =
            [(32, 32, 16, 4, 4), (64, 64, 16, 4, 4), (64, 64, 16, 8, 4), (64, 64, 8, 8, 8), (128, 64, 16, 8, 4)];
        let tiles = tiles.into_iter().chain([(128, 128, 8, 8, 8)]);
        all.extend(tiles.map(|(bm, bn, bk, tm, tn)| Tile::Workgroup { bm, bn, bk, tm, tn }));
    }
    all
}

/// What one choice of a tile holds for: layout, alignment, and sizes up to the next power of two.
pub fn kind(p: &Problem) -> String {
    let letter = |is: bool, yes: &'static str, no: &'static str| if is { yes } else { no };
    let layout = layout_of(p);
    let (a, b) = (letter(layout.ta, "t", "n"), letter(layout.tb, "t", "n"));
    let four = [letter(layout.a4, "a", ""), letter(layout.b4, "b", ""), letter(layout.c4, "c", "")].concat();
    let [m, n, k] = [p.m, p.n, p.k].map(usize::next_power_of_two);
    let (batch, rolled) = ((p.batch * p.parts).next_power_of_two(), letter(layout.rolled, " rolled", ""));
    format!("matmul {a}{b} {m}x{n}x{k} of {batch}, vec4 {four}{rolled}")
}

/// A way to compute a product, for a tuner.
pub struct Variant {
    /// The tile's name, which [`Choices`](crate::gpu::Choices) keep.
    pub name: String,
    /// Whether it is what an untuned device takes.
    pub default: bool,
    /// The kernel.
    pub gemm: Gemm,
}

/// All ways to compute a product; the first is the plainest, which the others are compared with.
pub fn variants(p: &Problem, target: &Target) -> Vec<Variant> {
    let (layout, usual) = (layout_of(p), default(p, target));
    let mut tiles = every(target);
    if !tiles.contains(&usual) {
        tiles.push(usual);
    }
    let variant = |tile: Tile| Variant { name: tile.label(), default: tile == usual, gemm: written(p, &layout, tile) };
    tiles.into_iter().map(variant).collect()
}

/// The kernel that computes a product by a tile.
fn written(p: &Problem, layout: &Layout, tile: Tile) -> Gemm {
    let (rows, cols) = tile.extent();
    let (tiles_m, tiles_n) = (p.m.div_ceil(rows), p.n.div_ceil(cols));
    let matrices = p.batch * p.parts;
    let total = tiles_m * tiles_n * matrices;
    let stretch = if p.parts == 1 { 0 } else { product_stretch(p.k, p.parts) };
    let outer = |o: &Operand| match o.outer {
        Some((count, stride)) => [count, stride.wrapping_sub(count * o.batch_stride)],
        None => [1, 0],
    };
    let [[count_a, more_a], [count_b, more_b]] = [outer(&p.a), outer(&p.b)];
    let words = [
        [matrices, p.m, p.n, p.k],
        [p.a.ld, p.b.ld, p.a.batch_stride, p.b.batch_stride],
        [tiles_n, tiles_m, total, stretch],
        [count_a, more_a, count_b, more_b],
    ];
    let kind = |t: bool| if t { "t" } else { "n" };
    let ragged = if p.a.vec4 && p.b.vec4 && layout.c4 { "" } else { " ragged" };
    Gemm {
        name: format!("matmul {}{} {}{ragged}", kind(layout.ta), kind(layout.tb), tile.label()),
        source: tile.text(layout),
        grid: flat_grid(total),
        params: words.into_iter().flatten().map(|w| w as u32).collect(),
        stores_vec4: layout.c4,
    }
}
