//! The WGSL of attention, forward and backward, written for the lengths of a head.
//!
//! An invocation holds one query (or, for the gradients of keys and values, one key) in registers and walks along the
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

/// Invocations of a workgroup.
pub(super) const WIDTH: u32 = 64;
/// Rows at a time where every invocation loads all of them.
const ROWS: u32 = 4;
/// What a masked score is: not the lowest number, for the distances of scores must stay finite.
const MASKED: &str = "-1e9";

const XYZW: [&str; 4] = ["x", "y", "z", "w"];

/// Appends a formatted line; writing to a String cannot fail.
macro_rules! put {
    ($s:expr, $($arg:tt)*) => {{ let _ = writeln!($s, $($arg)*); }};
}

/// Words of the uniform: queries, keys, heads, batch, scale.
const SIZES: [&str; 4] = ["size_0()", "size_1()", "size_2()", "size_3()"];

impl Form {
    fn rows(&self) -> u32 {
        self.subgroup.unwrap_or(ROWS)
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
        // Rows of several lengths may lie one behind the other in an output.
        let four = self.key.is_multiple_of(4) && self.value.is_multiple_of(4);
        for c in 0..length.div_ceil(4) {
            if four {
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

    /// The scalar product of registers `a` with row `r` of `b`, as `let name`; the row's parts stay as `b_c`.
    fn dot(&self, s: &mut String, name: &str, a: &str, b: &str, length: usize, r: u32) {
        let parts = length.div_ceil(4);
        for c in 0..parts {
            put!(s, "let {b}{c}r{r} = {};", self.row(b, c, r));
        }
        let mut sum = String::from("0.0");
        for c in 0..parts {
            for x in XYZW.iter().take((length - 4 * c).min(4)) {
                sum = format!("fma({a}{c}.{x}, {b}{c}r{r}.{x}, {sum})");
            }
        }
        put!(s, "let {name} = {sum};");
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

    /// Names of sizes, and the lane's part of rows that are shared.
    fn begin(&self, s: &mut String) {
        for (name, size) in ["T", "S", "H", "B"].into_iter().zip(SIZES) {
            put!(s, "let {name} = {size};");
        }
        put!(s, "let scale = bitcast<f32>(size_4());");
        put!(s, "let h = group.y;");
        put!(s, "let own = group.x * {WIDTH}u + lane;");
        if let Some(size) = self.subgroup {
            put!(s, "let mine = lane % {size}u;");
        }
    }

    /// The keys that the queries of this invocation and of those it shares rows with see, as the end of their range.
    fn end_of_keys(&self) -> String {
        match (self.causal && !self.masked, self.subgroup) {
            (false, _) => "S".into(),
            (true, None) => "min(S, own + 1u)".into(),
            (true, Some(size)) => format!("min(S, own / {size}u * {size}u + {size}u)"),
        }
    }
}

/// Operands q, k, v, mask; outputs o, the largest score of each query, and one over the sum of exponentials.
pub(super) fn forward(form: &Form) -> String {
    let (d, e, rows) = (form.key, form.value, form.rows());
    let mut s = String::from("fn run(group: vec3<u32>, lane: u32) {\n");
    form.begin(&mut s);
    put!(s, "let b = group.z;");
    put!(s, "let qat = b * stride_0_0() + min(own, T - 1u) * stride_0_1() + h * stride_0_2();");
    for c in 0..d.div_ceil(4) {
        put!(s, "let q{c} = scale * {};", form.load(0, d, "qat", c));
    }
    for c in 0..e.div_ceil(4) {
        put!(s, "var o{c} = vec4<f32>(0.0);");
    }
    put!(s, "var m = {MASKED}; var l = 0.0;");
    put!(s, "let kat = b * stride_1_0() + h * stride_1_2(); let vat = b * stride_2_0() + h * stride_2_2();");
    put!(s, "let end = {} + unseen;", form.end_of_keys());
    put!(s, "for (var j = 0u; j < end; j += {rows}u) {{");
    form.load_rows(&mut s, 1, d, "x", "kat", "S");
    for r in 0..rows {
        form.dot(&mut s, &format!("d{r}"), "q", "x", d, r);
        put!(s, "let w{r} = {}; let s{r} = select({MASKED}, d{r}, w{r});", form.sees(3, "own", &format!("(j + {r}u)")));
    }
    let largest = (0..rows).fold(String::from("m"), |m, r| format!("max({m}, s{r})"));
    put!(s, "let n = {largest}; let f = exp(m - n); m = n;");
    for r in 0..rows {
        put!(s, "let p{r} = select(0.0, exp(s{r} - n), w{r});");
    }
    let sum = (0..rows).map(|r| format!(" + p{r}")).collect::<String>();
    put!(s, "l = l * f{sum};");
    form.load_rows(&mut s, 2, e, "y", "vat", "S");
    for c in 0..e.div_ceil(4) {
        let sum = (0..rows)
            .fold(format!("o{c} * f"), |sum, r| format!("fma(vec4<f32>(p{r}), {}, {sum})", form.row("y", c, r)));
        put!(s, "o{c} = {sum};");
    }
    put!(s, "}}");
    put!(s, "let inverse = select(0.0, 1.0 / l, l > 0.0 || l != l);");
    put!(s, "if (own < T) {{");
    put!(s, "let at = (b * T + own) * H + h; let oat = at * {e}u;");
    form.store(&mut s, 0, e, "oat", &|c| format!("o{c} * inverse"));
    put!(s, "store_1(at, m); store_2(at, inverse);");
    put!(s, "}}\n}}");
    s
}

/// Operands q, k, v, the two of the forward pass, the scalar products of o and its cotangent g, and g; one output, the
/// gradients of q, k and v one behind the other: three would bind more buffers than every device has. Workgroups of the lower half along z have queries, the others keys.
pub(super) fn backward(form: &Form) -> String {
    let (d, e, rows) = (form.key, form.value, form.rows());
    let mut s = String::from("fn run(group: vec3<u32>, lane: u32) {\n");
    form.begin(&mut s);
    put!(s, "if (group.z < B) {{");
    {
        put!(s, "let b = group.z;");
        put!(s, "let t = min(own, T - 1u);");
        put!(s, "let qat = b * stride_0_0() + t * stride_0_1() + h * stride_0_2();");
        put!(s, "let gat = b * stride_6_0() + t * stride_6_1() + h * stride_6_2();");
        for c in 0..d.div_ceil(4) {
            put!(s, "let q{c} = scale * {}; var dq{c} = vec4<f32>(0.0);", form.load(0, d, "qat", c));
        }
        for c in 0..e.div_ceil(4) {
            put!(s, "let g{c} = {};", form.load(6, e, "gat", c));
        }
        let scalar = |k: usize| format!("load_{k}(b * stride_{k}_0() + t * stride_{k}_1() + h * stride_{k}_2())");
        put!(s, "let m = {}; let inverse = {}; let delta = {};", scalar(3), scalar(4), scalar(5));
        put!(s, "let kat = b * stride_1_0() + h * stride_1_2(); let vat = b * stride_2_0() + h * stride_2_2();");
        put!(s, "let end = {} + unseen;", form.end_of_keys());
        put!(s, "for (var j = 0u; j < end; j += {rows}u) {{");
        form.load_rows(&mut s, 1, d, "x", "kat", "S");
        form.load_rows(&mut s, 2, e, "y", "vat", "S");
        for r in 0..rows {
            form.dot(&mut s, &format!("s{r}"), "q", "x", d, r);
            form.dot(&mut s, &format!("u{r}"), "g", "y", e, r);
            let sees = form.sees(7, "own", &format!("(j + {r}u)"));
            put!(s, "let z{r} = select(0.0, exp(s{r} - m) * inverse * (u{r} - delta), {sees});");
            // At once, while the row is in registers.
            for c in 0..d.div_ceil(4) {
                put!(s, "dq{c} = fma(vec4<f32>(z{r}), x{c}r{r}, dq{c});");
            }
        }
        put!(s, "}}");
        put!(s, "if (own < T) {{ let at = ((b * T + own) * H + h) * {d}u;");
        form.store(&mut s, 0, d, "at", &|c| format!("dq{c} * scale"));
        put!(s, "}}");
    }
    put!(s, "}} else {{");
    {
        put!(s, "let b = group.z - B;");
        put!(s, "let t = min(own, S - 1u);");
        put!(s, "let kat = b * stride_1_0() + t * stride_1_1() + h * stride_1_2();");
        put!(s, "let vat = b * stride_2_0() + t * stride_2_1() + h * stride_2_2();");
        for c in 0..d.div_ceil(4) {
            put!(s, "let k{c} = scale * {}; var dk{c} = vec4<f32>(0.0);", form.load(1, d, "kat", c));
        }
        for c in 0..e.div_ceil(4) {
            put!(s, "let v{c} = {}; var dv{c} = vec4<f32>(0.0);", form.load(2, e, "vat", c));
        }
        put!(s, "let qat = b * stride_0_0() + h * stride_0_2(); let gat = b * stride_6_0() + h * stride_6_2();");
        let start = match (form.causal, form.subgroup) {
            (false, _) => "0u".into(),
            (true, None) => "own".to_string(),
            (true, Some(size)) => format!("own / {size}u * {size}u"),
        };
        put!(s, "for (var j = {start}; j < T + unseen; j += {rows}u) {{");
        form.load_rows(&mut s, 0, d, "x", "qat", "T");
        form.load_rows(&mut s, 6, e, "y", "gat", "T");
        let scalar = |k: usize, row: &str| {
            format!("load_{k}(b * stride_{k}_0() + min({row}, T - 1u) * stride_{k}_1() + h * stride_{k}_2())")
        };
        for r in 0..if form.subgroup.is_some() { 1 } else { rows } {
            let (row, mark) = match form.subgroup {
                Some(_) => ("j + mine".to_string(), String::new()),
                None => (format!("j + {r}u"), format!("_{r}")),
            };
            for (name, k) in [("m0", 3), ("i0", 4), ("a0", 5)] {
                put!(s, "let {name}{mark} = {};", scalar(k, &row));
            }
        }
        for r in 0..rows {
            form.dot(&mut s, &format!("s{r}"), "k", "x", d, r);
            form.dot(&mut s, &format!("u{r}"), "v", "y", e, r);
            let sees = form.sees(7, &format!("(j + {r}u)"), "own");
            let [m, inverse, delta] = ["m", "i", "a"].map(|name| form.row(name, 0, r));
            put!(s, "let p{r} = select(0.0, exp(s{r} - {m}) * {inverse}, {sees});");
            put!(s, "let z{r} = p{r} * (u{r} - {delta});");
            for c in 0..d.div_ceil(4) {
                put!(s, "dk{c} = fma(vec4<f32>(z{r}), x{c}r{r}, dk{c});");
            }
            for c in 0..e.div_ceil(4) {
                put!(s, "dv{c} = fma(vec4<f32>(p{r}), y{c}r{r}, dv{c});");
            }
        }
        put!(s, "}}");
        put!(s, "if (own < S) {{ let row = (b * S + own) * H + h;");
        put!(s, "let kst = (B * T * H + row) * {d}u; let vst = B * (T + S) * H * {d}u + row * {e}u;");
        form.store(&mut s, 0, d, "kst", &|c| format!("dk{c} * scale"));
        form.store(&mut s, 0, e, "vst", &|c| format!("dv{c}"));
        put!(s, "}}");
    }
    put!(s, "}}\n}}");
    s
}
