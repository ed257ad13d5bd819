//! The WGSL of attention, forward and backward, written for the lengths of a head.
//!
//! An invocation holds a query or two (or, for the gradients of keys and values, keys) in registers and walks along the
//! other side a few rows at a time. Named registers rather than arrays, for the reason given in `lower/gemm_text.rs`.
//! Where subgroups have a fixed size, each lane loads one of the rows and all hear of it by broadcasts: on a CPU a load
//! costs as much as ten multiply-adds, whether or not all lanes ask for the same. Nothing of the size of the scores is
//! ever written. Absent on purpose: sizes other than a head's; and workgroup memory, which would serve GPUs with small
//! caches.

use std::fmt::Write;

/// What the text depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    /// Length of a query and of a key.
    pub key: usize,
    /// Length of a value.
    pub value: usize,
    /// A query sees keys up to its own place only.
    pub causal: bool,
    /// There is a mask.
    pub masked: bool,
    /// Size of a subgroup, if lanes are to share their rows.
    pub subgroup: Option<u32>,
}

/// Queries, or keys, of a workgroup.
pub(super) const ROWS: u32 = 64;
/// Rows of the other side at a time where every invocation loads all of them.
const AT_ONCE: u32 = 4;
/// Queries of an invocation that shares its loads: what is loaded once serves both.
const SHARED: u32 = 2;
/// What a masked score is: not the lowest number, for the distances of scores must stay finite.
const MASKED: &str = "-1e9";

const XYZW: [&str; 4] = ["x", "y", "z", "w"];

/// Appends a formatted line; writing to a String cannot fail.
macro_rules! put {
    ($s:expr, $($arg:tt)*) => {{ let _ = writeln!($s, $($arg)*); }};
}

impl Form {
    /// Invocations of a workgroup.
    pub fn width(&self) -> u32 {
        ROWS / self.own()
    }

    /// Queries, or keys, of an invocation.
    fn own(&self) -> u32 {
        if self.subgroup.is_some() { SHARED } else { 1 }
    }

    /// Rows of the other side at a time.
    fn rows(&self) -> u32 {
        self.subgroup.unwrap_or(AT_ONCE)
    }

    /// The four elements from `4 c` on of a row of operand `k` that begins at `base`; zeros behind its end.
    fn load(&self, k: usize, length: usize, base: &str, c: usize) -> String {
        if length.is_multiple_of(4) {
            return format!("load_{k}_4({base} + {}u)", 4 * c);
        }
        let one = |i: usize| match 4 * c + i {
            at if at < length => format!("load_{k}({base} + {at}u * stride_{k}_3())"),
            _ => "0.0".into(),
        };
        format!("vec4<f32>({}, {}, {}, {})", one(0), one(1), one(2), one(3))
    }

    /// Stores a row of an output.
    fn store(&self, s: &mut String, k: usize, length: usize, base: &str, value: &dyn Fn(usize) -> String) {
        for c in 0..length.div_ceil(4) {
            if length.is_multiple_of(4) {
                put!(s, "store_{k}_4({base} + {}u, {});", 4 * c, value(c));
                continue;
            }
            for (i, x) in XYZW.iter().enumerate().filter(|(i, _)| 4 * c + i < length) {
                put!(s, "store_{k}({base} + {}u, ({}).{x});", 4 * c + i, value(c));
            }
        }
    }

    /// Loads some rows of operand `k` into registers `name`: one row a lane, or all of them.
    fn load_rows(&self, s: &mut String, k: usize, length: usize, name: &str, base: &str, end: &str) {
        for r in 0..if self.subgroup.is_some() { 1 } else { self.rows() } {
            let (row, mark) = match self.subgroup {
                Some(_) => ("j + mine".to_string(), String::new()),
                None => (format!("j + {r}u"), format!("_{r}")),
            };
            put!(s, "let {name}at{mark} = {base} + min({row}, {end} - 1u) * stride_{k}_1();");
            for c in 0..length.div_ceil(4) {
                put!(s, "let {name}{c}{mark} = {};", self.load(k, length, &format!("{name}at{mark}"), c));
            }
        }
    }

    /// Part `c` of row `r` of what `load_rows` has loaded.
    fn row(&self, name: &str, c: usize, r: u32) -> String {
        match self.subgroup {
            Some(_) => format!("subgroupBroadcast({name}{c}, {r}u)"),
            None => format!("{name}{c}_{r}"),
        }
    }

    /// The parts of all rows `b`, as `let {b}{c}r{r}`.
    fn parts(&self, s: &mut String, b: &str, length: usize) {
        for c in 0..length.div_ceil(4) {
            (0..self.rows()).for_each(|r| put!(s, "let {b}{c}r{r} = {};", self.row(b, c, r)));
        }
    }

    /// Scalar products of each of the invocation's own rows `a` with each of the rows `b`, as `var {name}{r}_{n}`. Part by
    /// part rather than row by row: the sums stay in registers, the parts need not.
    fn dots(&self, s: &mut String, name: &str, a: &str, b: &str, length: usize) {
        for r in 0..self.rows() {
            (0..self.own()).for_each(|n| put!(s, "var {name}{r}_{n} = 0.0;"));
        }
        for c in 0..length.div_ceil(4) {
            for r in 0..self.rows() {
                put!(s, "let {b}{c}r{r} = {};", self.row(b, c, r));
                for n in 0..self.own() {
                    for x in XYZW.iter().take((length - 4 * c).min(4)) {
                        put!(s, "{name}{r}_{n} = fma({a}{c}_{n}.{x}, {b}{c}r{r}.{x}, {name}{r}_{n});");
                    }
                }
            }
        }
    }

    /// Adds to registers `sum` the rows `b`, whose parts are there, each times its `weight`. One register after
    /// the other, for there are more than a CPU has.
    fn add_rows(&self, s: &mut String, sum: &str, weight: &str, b: &str, length: usize) {
        for c in 0..length.div_ceil(4) {
            for n in 0..self.own() {
                for r in 0..self.rows() {
                    put!(s, "{sum}{c}_{n} = fma(vec4<f32>({weight}{r}_{n}), {b}{c}r{r}, {sum}{c}_{n});");
                }
            }
        }
    }

    /// Whether query `t` sees key `j`.
    fn sees(&self, mask: usize, t: &str, j: &str) -> String {
        let causal = if self.causal { format!(" && {j} <= {t}") } else { String::new() };
        let mask = match self.masked {
            true => {
                let at = |axis: usize| format!("stride_{mask}_{axis}()");
                let (t, j) = (format!("min({t}, T - 1u)"), format!("min({j}, S - 1u)"));
                format!(" && load_{mask}(b * {} + h * {} + {t} * {} + {j} * {})", at(0), at(1), at(2), at(3))
            }
            false => String::new(),
        };
        format!("{t} < T && {j} < S{causal}{mask}")
    }

    /// Names of the words of the uniform (queries, keys, heads, scale), and the lane's part of rows that are shared.
    fn begin(&self, s: &mut String) {
        put!(s, "fn run(group: vec3<u32>, lane: u32) {{");
        put!(s, "let T = size_0(); let S = size_1(); let H = size_2(); let scale = bitcast<f32>(size_3());");
        put!(s, "let h = group.y; let b = group.z;");
        match self.subgroup {
            None => put!(s, "let own_0 = group.x * {ROWS}u + lane;"),
            // Rows of a subgroup lie together, so that those of a causal one see about the same.
            Some(size) => {
                put!(s, "let mine = lane % {size}u;");
                put!(s, "let first = group.x * {ROWS}u + lane / {size}u * {}u;", size * self.own());
                (0..self.own()).for_each(|n| put!(s, "let own_{n} = first + {}u + mine;", n * size));
            }
        }
    }

    /// The keys that the queries of this invocation and of those it shares rows with see, as the end of their range.
    fn end_of_keys(&self) -> String {
        match (self.causal && !self.masked, self.subgroup) {
            (false, _) => "S".into(),
            (true, None) => "min(S, own_0 + 1u)".into(),
            (true, Some(size)) => format!("min(S, first + {}u)", size * self.own()),
        }
    }
}

/// Where row `t` of the head at hand begins in operand `k`.
fn row(k: usize, t: &str) -> String {
    format!("b * stride_{k}_0() + {t} * stride_{k}_1() + h * stride_{k}_2()")
}

/// Operands q, k, v, mask; outputs o, and for each query its largest score and one over the sum of exponentials.
pub(super) fn forward(form: &Form) -> String {
    let (d, e, rows) = (form.key, form.value, form.rows());
    let mut s = String::new();
    form.begin(&mut s);
    for n in 0..form.own() {
        put!(s, "let qat_{n} = {};", row(0, &format!("min(own_{n}, T - 1u)")));
        for c in 0..d.div_ceil(4) {
            put!(s, "let q{c}_{n} = scale * {};", form.load(0, d, &format!("qat_{n}"), c));
        }
        for c in 0..e.div_ceil(4) {
            put!(s, "var o{c}_{n} = vec4<f32>(0.0);");
        }
        put!(s, "var m_{n} = {MASKED}; var l_{n} = 0.0;");
    }
    put!(s, "let kat = b * stride_1_0() + h * stride_1_2(); let vat = b * stride_2_0() + h * stride_2_2();");
    put!(s, "let end = {} + unseen;", form.end_of_keys());
    put!(s, "for (var j = 0u; j < end; j += {rows}u) {{");
    form.load_rows(&mut s, 1, d, "x", "kat", "S");
    form.dots(&mut s, "d", "q", "x", d);
    for n in 0..form.own() {
        for r in 0..rows {
            let sees = form.sees(3, &format!("own_{n}"), &format!("(j + {r}u)"));
            put!(s, "let w{r}_{n} = {sees}; let s{r}_{n} = select({MASKED}, d{r}_{n}, w{r}_{n});");
        }
        let largest = (0..rows).fold(format!("m_{n}"), |m, r| format!("max({m}, s{r}_{n})"));
        put!(s, "let n_{n} = {largest}; let f_{n} = exp(m_{n} - n_{n}); m_{n} = n_{n};");
        for r in 0..rows {
            put!(s, "let p{r}_{n} = select(0.0, exp(s{r}_{n} - n_{n}), w{r}_{n});");
        }
        let sum = (0..rows).map(|r| format!(" + p{r}_{n}")).collect::<String>();
        put!(s, "l_{n} = l_{n} * f_{n}{sum};");
        (0..e.div_ceil(4)).for_each(|c| put!(s, "o{c}_{n} *= f_{n};"));
    }
    form.load_rows(&mut s, 2, e, "y", "vat", "S");
    form.parts(&mut s, "y", e);
    form.add_rows(&mut s, "o", "p", "y", e);
    put!(s, "}}");
    for n in 0..form.own() {
        // NaN by its bits: that it differs from itself a driver may forget.
        put!(s, "let nan_{n} = (bitcast<u32>(l_{n}) & 0x7fffffffu) > 0x7f800000u;");
        put!(s, "let inverse_{n} = select(0.0, 1.0 / l_{n}, l_{n} > 0.0 || nan_{n});");
        put!(s, "if (own_{n} < T) {{");
        put!(s, "let at = (b * T + own_{n}) * H + h; let oat = at * {e}u;");
        form.store(&mut s, 0, e, "oat", &|c| format!("o{c}_{n} * inverse_{n}"));
        put!(s, "store_1(2u * at, m_{n}); store_1(2u * at + 1u, inverse_{n});");
        put!(s, "}}");
    }
    put!(s, "}}");
    s
}

/// Operands q, k, v, what the forward pass keeps, o and its cotangent g; outputs the gradient of q, and for each query the
/// scalar product of o and g.
pub(super) fn queries(form: &Form) -> String {
    let (d, e, rows) = (form.key, form.value, form.rows());
    let mut s = String::new();
    form.begin(&mut s);
    for n in 0..form.own() {
        put!(s, "let t_{n} = min(own_{n}, T - 1u);");
        for (name, k) in [("qat", 0), ("nat", 3), ("oat", 4), ("gat", 5)] {
            put!(s, "let {name}_{n} = {};", row(k, &format!("t_{n}")));
        }
        for c in 0..d.div_ceil(4) {
            let load = form.load(0, d, &format!("qat_{n}"), c);
            put!(s, "let q{c}_{n} = scale * {load}; var dq{c}_{n} = vec4<f32>(0.0);");
        }
        for c in 0..e.div_ceil(4) {
            put!(s, "let g{c}_{n} = {};", form.load(5, e, &format!("gat_{n}"), c));
        }
        put!(s, "let m_{n} = load_3(nat_{n}); let inverse_{n} = load_3(nat_{n} + stride_3_3());");
        // Zeros stand behind the end of a row.
        let products =
            (0..e.div_ceil(4)).map(|c| format!(" + dot(g{c}_{n}, {})", form.load(4, e, &format!("oat_{n}"), c)));
        put!(s, "let delta_{n} = 0.0{};", products.collect::<String>());
    }
    put!(s, "let kat = b * stride_1_0() + h * stride_1_2(); let vat = b * stride_2_0() + h * stride_2_2();");
    put!(s, "let end = {} + unseen;", form.end_of_keys());
    put!(s, "for (var j = 0u; j < end; j += {rows}u) {{");
    form.load_rows(&mut s, 1, d, "x", "kat", "S");
    form.load_rows(&mut s, 2, e, "y", "vat", "S");
    form.dots(&mut s, "s", "q", "x", d);
    form.dots(&mut s, "u", "g", "y", e);
    for n in 0..form.own() {
        for r in 0..rows {
            let sees = form.sees(6, &format!("own_{n}"), &format!("(j + {r}u)"));
            put!(
                s,
                "let z{r}_{n} = select(0.0, exp(s{r}_{n} - m_{n}) * inverse_{n} * (u{r}_{n} - delta_{n}), {sees});"
            );
        }
    }
    form.add_rows(&mut s, "dq", "z", "x", d);
    put!(s, "}}");
    for n in 0..form.own() {
        put!(s, "if (own_{n} < T) {{ let at = (b * T + own_{n}) * H + h; let qst = at * {d}u;");
        form.store(&mut s, 0, d, "qst", &|c| format!("dq{c}_{n} * scale"));
        put!(s, "store_1(at, delta_{n}); }}");
    }
    put!(s, "}}");
    s
}

/// Operands q, k, v, what the forward pass keeps, the scalar products of o and its cotangent g, and g; outputs the gradients
/// of k and v.
pub(super) fn keys(form: &Form) -> String {
    let (d, e, rows) = (form.key, form.value, form.rows());
    let mut s = String::new();
    form.begin(&mut s);
    for n in 0..form.own() {
        put!(s, "let t_{n} = min(own_{n}, S - 1u);");
        for (name, k) in [("kat", 1), ("vat", 2)] {
            put!(s, "let {name}_{n} = {};", row(k, &format!("t_{n}")));
        }
        for c in 0..d.div_ceil(4) {
            let load = form.load(1, d, &format!("kat_{n}"), c);
            put!(s, "let k{c}_{n} = scale * {load}; var dk{c}_{n} = vec4<f32>(0.0);");
        }
        for c in 0..e.div_ceil(4) {
            let load = form.load(2, e, &format!("vat_{n}"), c);
            put!(s, "let v{c}_{n} = {load}; var dv{c}_{n} = vec4<f32>(0.0);");
        }
    }
    put!(s, "let qat = b * stride_0_0() + h * stride_0_2(); let gat = b * stride_5_0() + h * stride_5_2();");
    let start = match (form.causal, form.subgroup) {
        (false, _) => "0u",
        (true, None) => "own_0",
        (true, Some(_)) => "first",
    };
    put!(s, "for (var j = {start}; j < T + unseen; j += {rows}u) {{");
    form.load_rows(&mut s, 0, d, "x", "qat", "T");
    form.load_rows(&mut s, 5, e, "y", "gat", "T");
    for r in 0..if form.subgroup.is_some() { 1 } else { rows } {
        let (at, mark) = match form.subgroup {
            Some(_) => ("j + mine".to_string(), String::new()),
            None => (format!("j + {r}u"), format!("_{r}")),
        };
        let at = format!("min({at}, T - 1u)");
        put!(s, "let nat{mark} = {}; let m0{mark} = load_3(nat{mark});", row(3, &at));
        put!(s, "let i0{mark} = load_3(nat{mark} + stride_3_3()); let a0{mark} = load_4({});", row(4, &at));
    }
    form.dots(&mut s, "s", "k", "x", d);
    form.dots(&mut s, "u", "v", "y", e);
    for r in 0..rows {
        let [m, inverse, delta] = ["m", "i", "a"].map(|name| form.row(name, 0, r));
        put!(s, "let m0r{r} = {m}; let i0r{r} = {inverse}; let a0r{r} = {delta};");
        for n in 0..form.own() {
            let sees = form.sees(6, &format!("(j + {r}u)"), &format!("own_{n}"));
            put!(s, "let p{r}_{n} = select(0.0, exp(s{r}_{n} - m0r{r}) * i0r{r}, {sees});");
            put!(s, "let z{r}_{n} = p{r}_{n} * (u{r}_{n} - a0r{r});");
        }
    }
    form.add_rows(&mut s, "dk", "z", "x", d);
    form.add_rows(&mut s, "dv", "p", "y", e);
    put!(s, "}}");
    for n in 0..form.own() {
        put!(s, "if (own_{n} < S) {{ let row = (b * S + own_{n}) * H + h;");
        put!(s, "let kst = row * {d}u; let vst = row * {e}u;");
        form.store(&mut s, 0, d, "kst", &|c| format!("dk{c}_{n} * scale"));
        form.store(&mut s, 1, e, "vst", &|c| format!("dv{c}_{n}"));
        put!(s, "}}");
    }
    put!(s, "}}");
    s
}
