//! Figures as a line for people, as a line of JSON, and as a picture of the roofline.
//!
//! The picture is Williams, Waterman and Patterson's (2009): operations a second over operations a byte, both logarithmic,
//! under the device's measured bandwidth and peak. What exceeds the roof was held by a cache. Deliberately absent: files.

use std::fmt::Write;

use wengert::gpu::Ceilings;

use super::cases::Case;
use super::measure::Timing;

/// A measured case.
pub struct Row {
    pub case: String,
    pub variant: &'static str,
    pub bytes: u64,
    pub timing: Timing,
    /// The largest error over its bound.
    pub error: f64,
    pub ceilings: Ceilings,
}

/// The head of the table that [`Row::line`] fills. The last column is the largest error as a share of what is allowed.
pub const HEAD: &str =
    "case                     variant    gpu ms   wall ms   GFLOP/s     GB/s  of roof  limit  error/bound";

impl Row {
    pub fn new(case: &Case, variant: &'static str, timing: Timing, error: f64, ceilings: Ceilings) -> Row {
        Row { case: case.name.clone(), variant, bytes: case.bytes, timing, error, ceilings }
    }

    fn gflops(&self) -> f64 {
        self.timing.flops as f64 / self.timing.ms() / 1e6
    }

    fn gbps(&self) -> f64 {
        self.bytes as f64 / self.timing.ms() / 1e6
    }

    /// Shares of the measured bandwidth and peak; the larger one is the share of the roofline.
    fn shares(&self) -> (f64, f64) {
        (self.gbps() * 1e9 / self.ceilings.bytes_per_second, self.gflops() * 1e9 / self.ceilings.flops_per_second)
    }

    /// For people.
    pub fn line(&self) -> String {
        let (memory, arithmetic) = self.shares();
        let gpu = self.timing.gpu.map_or("-".into(), |ms| format!("{ms:.3}"));
        format!(
            "{:<24} {:<8} {gpu:>8} {:>9.3} {:>9.1} {:>8.2} {:>8.3}  {:<6} {:>11.2}",
            self.case,
            self.variant,
            self.timing.wall,
            self.gflops(),
            self.gbps(),
            memory.max(arithmetic),
            if memory > arithmetic { "memory" } else { "flops" },
            self.error,
        )
    }

    /// One object, without a line break. `ms_median` is by the host's clock and `ms_gpu` by the device's; `gflops`, `gbps` and the
    /// shares are of `ms`, the smaller of them.
    pub fn json(&self) -> String {
        let (memory, arithmetic) = self.shares();
        let gpu = self.timing.gpu.map_or("null".into(), |ms| format!("{ms:.5}"));
        format!(
            "{{\"case\":\"{}\",\"variant\":\"{}\",\"ms_median\":{:.5},\"ms_gpu\":{gpu},\"ms\":{:.5},\"n\":{},\"gflops\":{:.3},\"gbps\":{:.3},\"of_peak\":{arithmetic:.4},\"of_bandwidth\":{memory:.4},\"error_of_bound\":{:.4},\"dispatches\":{:.2},\"submits\":{:.4}}}",
            self.case,
            self.variant,
            self.timing.wall,
            self.timing.ms(),
            self.timing.n,
            self.gflops(),
            self.gbps(),
            self.error,
            self.timing.dispatches,
            self.timing.submits,
        )
    }
}

/// The roofline with a point for each row, as SVG. Points are numbered, since names would lie over each other.
pub fn roofline(rows: &[Row], device: &str) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 60.0;
    const WIDTH: f64 = 640.0;
    const HEIGHT: f64 = 460.0;
    let Some(Row { ceilings, .. }) = rows.first() else { return String::new() };
    let (bandwidth, peak) = (ceilings.bytes_per_second, ceilings.flops_per_second);
    // What computes nothing (copies, integers) has no place on a picture of floating-point operations.
    let shown: Vec<&Row> = rows.iter().filter(|row| row.timing.flops > 0 && row.bytes > 0).collect();
    let intensity = |row: &Row| row.timing.flops as f64 / row.bytes as f64;
    let rate = |row: &Row| row.gflops() * 1e9;
    let decades = |values: &[f64]| {
        let low = values.iter().fold(f64::INFINITY, |a, &b| a.min(b)).log10().floor();
        (low, values.iter().fold(0.0f64, |a, &b| a.max(b)).log10().ceil().max(low + 1.0))
    };
    let ridge = peak / bandwidth;
    let (x0, x1) = decades(&shown.iter().map(|row| intensity(row)).chain([ridge]).collect::<Vec<_>>());
    let (y0, y1) = decades(&shown.iter().map(|row| rate(row)).chain([peak]).collect::<Vec<_>>());
    let x = |value: f64| LEFT + WIDTH * (value.log10() - x0) / (x1 - x0);
    let y = |value: f64| TOP + HEIGHT * (1.0 - (value.log10() - y0) / (y1 - y0));
    let rows_of_legend = shown.len();
    let height = (TOP + HEIGHT + 60.0).max(TOP + 18.0 * rows_of_legend as f64 + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1060 {height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">Roofline: {}</text>\n\
         <text x=\"{LEFT}\" y=\"46\" fill=\"#555\">measured: copy {:.1} GB/s, multiply-add {:.1} GFLOP/s</text>\n",
        device.replace('&', "&amp;").replace('<', "&lt;"),
        bandwidth / 1e9,
        peak / 1e9,
    );
    let mut line = |from: (f64, f64), to: (f64, f64), stroke: &str| {
        let ((a, b), (c, d)) = (from, to);
        writeln!(svg, "<line x1=\"{a:.1}\" y1=\"{b:.1}\" x2=\"{c:.1}\" y2=\"{d:.1}\" {stroke}/>").ok();
    };
    let grid = "stroke=\"#e4e4e4\"";
    for decade in x0 as i32..=x1 as i32 {
        let at = x(10f64.powi(decade));
        line((at, TOP), (at, TOP + HEIGHT), grid);
    }
    for decade in y0 as i32..=y1 as i32 {
        let at = y(10f64.powi(decade));
        line((LEFT, at), (LEFT + WIDTH, at), grid);
    }
    let roof = "stroke=\"#222\" stroke-width=\"2\"";
    // The slope enters the picture at its left edge or at its foot.
    let start = 10f64.powf(x0).max(10f64.powf(y0) / bandwidth);
    line((x(start), y(start * bandwidth)), (x(ridge), y(peak)), roof);
    line((x(ridge), y(peak)), (LEFT + WIDTH, y(peak)), roof);
    for decade in x0 as i32..=x1 as i32 {
        let (at, below) = (x(10f64.powi(decade)), TOP + HEIGHT + 18.0);
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", 10f64.powi(decade)).ok();
    }
    for decade in y0 as i32..=y1 as i32 {
        let (at, before) = (y(10f64.powi(decade)) + 4.0, LEFT - 8.0);
        writeln!(svg, "<text x=\"{before}\" y=\"{at:.1}\" text-anchor=\"end\">{}</text>", 10f64.powi(decade - 9)).ok();
    }
    let (middle, foot) = (LEFT + WIDTH / 2.0, TOP + HEIGHT + 40.0);
    writeln!(svg, "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">operations per byte</text>").ok();
    let (turned, centre) = (18.0, TOP + HEIGHT / 2.0);
    writeln!(
        svg,
        "<text x=\"{turned}\" y=\"{centre}\" text-anchor=\"middle\" transform=\"rotate(-90 {turned} {centre})\">GFLOP/s</text>"
    )
    .ok();
    for (at, row) in shown.iter().enumerate() {
        let number = at + 1;
        let (px, py) = (x(intensity(row)), y(rate(row)));
        let (memory, arithmetic) = row.shares();
        let colour = if memory > arithmetic { "#1f6feb" } else { "#bc4c00" };
        writeln!(svg, "<circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"4\" fill=\"{colour}\"/>").ok();
        // Neighbours take turns above and below.
        let beside = if at % 2 == 0 { py - 7.0 } else { py + 16.0 };
        writeln!(svg, "<text x=\"{px:.1}\" y=\"{beside:.1}\" text-anchor=\"middle\" font-size=\"10\">{number}</text>")
            .ok();
        let (key, down) = (LEFT + WIDTH + 24.0, TOP + 12.0 + 18.0 * at as f64);
        let suffix = if row.variant == "default" { String::new() } else { format!(" ({})", row.variant) };
        writeln!(
            svg,
            "<text x=\"{key}\" y=\"{down}\" fill=\"{colour}\">{number}  {}{suffix}: {:.0} %</text>",
            row.case,
            100.0 * memory.max(arithmetic)
        )
        .ok();
    }
    svg.push_str("</svg>\n");
    svg
}
