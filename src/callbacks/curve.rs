//! Training curves as a picture: a self-contained SVG of what a history holds.
//!
//! SVG because it is text: no dependency, sharp in a page and in a README, and the same on every platform. It carries
//! its own background and follows the viewer's light or dark scheme. Deliberately absent: options. Whoever wants another
//! chart has the numbers.

use std::fmt::Write;

/// Distance from one panel's origin to the next, and the picture's height; legends of several lines add to it.
const PANEL: [f64; 2] = [460.0, 340.0];
/// The plot within a panel: left, top, width and height.
const PLOT: [f64; 4] = [62.0, 84.0, 376.0, 206.0];
/// From one line of a legend to the next.
const LEGEND_LINE: f64 = 18.0;
/// Up to this many epochs, each has a dot.
const DOTS: usize = 30;
/// Told apart on white and on black, also by most colour-blind people when next to each other.
const COLOURS: [&str; 7] = ["#3b82f6", "#f97316", "#10a37f", "#a855f7", "#ef4444", "#0ea5b7", "#ca8a04"];
const STYLE: &str = "\
svg{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}\
.ground{fill:#fff}.grid{stroke:#d8dee4}.axis{stroke:#6e7781}text{fill:#424a53}.title{fill:#1f2328;font-size:15px;font-weight:600}\
@media(prefers-color-scheme:dark){.ground{fill:#0d1117}.grid{stroke:#2a313a}.axis{stroke:#8b949e}text{fill:#b1bac4}.title{fill:#f0f6fc}}";

/// A line chart of named values per epoch, the first of which is epoch 1.
///
/// Losses (a name that contains `loss`, `error`, `mae` or `mse`), learning rates and other metrics, such as accuracies,
/// have a panel each. A series named `val_x` is dashed in the colour of `x`. Values that are not finite are gaps.
pub fn curve_svg<S: AsRef<str>>(title: &str, series: &[(S, Vec<f64>)]) -> String {
    let series: Vec<Series> = series.iter().map(|(name, values)| Series::new(name.as_ref(), values)).collect();
    let panels: Vec<(Kind, Vec<&Series>)> = [Kind::Loss, Kind::Metric, Kind::Rate]
        .into_iter()
        .map(|kind| (kind, series.iter().filter(|s| s.kind == kind).collect::<Vec<_>>()))
        .filter(|(_, of_kind)| !of_kind.is_empty())
        .collect();
    // Every plot begins below the longest legend.
    let room = panels.iter().flat_map(|(_, of_kind)| legend(of_kind)).map(|place| place[1]).fold(0.0, f64::max);
    let (width, height) = (PANEL[0] * panels.len().max(1) as f64, PANEL[1] + room);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\">\n<title>{0}</title>\n<style>{STYLE}</style>\n<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n\
         <text class=\"title\" x=\"{1}\" y=\"26\">{0}</text>\n",
        escape(title),
        PLOT[0],
    );
    for (i, (kind, of_kind)) in panels.iter().enumerate() {
        put(&mut svg, format_args!("<g transform=\"translate({},0)\">", i as f64 * PANEL[0]));
        panel(&mut svg, *kind, of_kind, room);
        svg.push_str("</g>\n");
    }
    if panels.is_empty() {
        put(&mut svg, format_args!("<text x=\"{}\" y=\"{}\">no values</text>", PLOT[0], PLOT[1]));
    }
    svg.push_str("</svg>\n");
    svg
}

/// What is drawn in one panel, because its values are of one order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Loss,
    Metric,
    Rate,
}

struct Series<'a> {
    name: &'a str,
    /// The name without `val_`.
    base: &'a str,
    kind: Kind,
    values: &'a [f64],
}

impl<'a> Series<'a> {
    fn new(name: &'a str, values: &'a [f64]) -> Series<'a> {
        let base = name.strip_prefix("val_").unwrap_or(name);
        let lower = base.to_ascii_lowercase();
        let kind = if ["loss", "error", "mae", "mse"].iter().any(|part| lower.contains(part)) {
            Kind::Loss
        } else if lower == "lr" || lower.contains("learning_rate") {
            Kind::Rate
        } else {
            Kind::Metric
        };
        Series { name, base, kind, values }
    }

    fn is_validation(&self) -> bool {
        self.name.len() > self.base.len()
    }
}

/// Whether a value has a place in the plot; the bound keeps the span of two values finite.
fn drawable(value: f64) -> bool {
    value.abs() < 1e300
}

/// Draws one panel, its plot moved down by `room`.
fn panel(svg: &mut String, kind: Kind, series: &[&Series], room: f64) {
    let [left, top, width, height] = PLOT;
    let top = top + room;
    let epochs = series.iter().map(|s| s.values.len()).max().unwrap_or(0);
    let (ticks, step) = y_ticks(series.iter().flat_map(|s| s.values).copied().filter(|&v| drawable(v)));
    // `y_ticks` gives at least two ticks.
    let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
    let y = |value: f64| top + height * (high - value) / (high - low);
    let x = |epoch: usize| match epochs {
        0 | 1 => left + width / 2.0,
        _ => left + width * (epoch - 1) as f64 / (epochs - 1) as f64,
    };

    let (right, bottom) = (left + width, top + height);
    for &tick in &ticks {
        let at = y(tick);
        put(svg, format_args!("<path class=\"grid\" d=\"M{left} {at:.2}H{right}\"/>"));
        let label = number(tick, step);
        put(svg, format_args!("<text x=\"{}\" y=\"{:.2}\" text-anchor=\"end\">{label}</text>", left - 8.0, at + 4.0));
    }
    for epoch in x_ticks(epochs) {
        let at = x(epoch);
        put(svg, format_args!("<path class=\"axis\" d=\"M{at:.2} {bottom}v4\"/>"));
        put(svg, format_args!("<text x=\"{at:.2}\" y=\"{}\" text-anchor=\"middle\">{epoch}</text>", bottom + 18.0));
    }
    put(svg, format_args!("<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>"));
    let middle = left + width / 2.0;
    put(svg, format_args!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">epoch</text>", bottom + 36.0));
    let heading = match kind {
        Kind::Loss => "loss",
        Kind::Metric => "metrics",
        Kind::Rate => "learning rate",
    };
    put(svg, format_args!("<text x=\"{left}\" y=\"48\">{heading}</text>"));

    let mut bases: Vec<&str> = Vec::new();
    for (series, [entry, below]) in series.iter().zip(legend(series)) {
        let index = bases.iter().position(|&base| base == series.base).unwrap_or_else(|| {
            bases.push(series.base);
            bases.len() - 1
        });
        let colour = COLOURS[index % COLOURS.len()];
        let dash = if series.is_validation() { " stroke-dasharray=\"5 4\"" } else { "" };
        put(svg, format_args!("<g stroke=\"{colour}\" fill=\"none\" stroke-width=\"2\" stroke-linejoin=\"round\">"));
        line(svg, series.values, x, y, dash, epochs <= DOTS);
        put(svg, format_args!("<path d=\"M{entry:.1} {}h22\"{dash}/></g>", 64.0 + below));
        let name = escape(series.name);
        put(svg, format_args!("<text x=\"{:.1}\" y=\"{}\">{name}</text>", entry + 28.0, 68.0 + below));
    }
}

/// Where each series' entry of the legend lies: from the panel's left, and below the legend's first line.
fn legend(series: &[&Series]) -> Vec<[f64; 2]> {
    let (mut x, mut y) = (PLOT[0], 0.0);
    let places = series.iter().map(|series| {
        // The font is not known here; 6.7 pixels is a wide guess for a letter.
        let width = 28.0 + 6.7 * series.name.chars().count() as f64;
        if x > PLOT[0] && x + width > PLOT[0] + PLOT[2] {
            (x, y) = (PLOT[0], y + LEGEND_LINE);
        }
        let place = [x, y];
        x += width + 16.0;
        place
    });
    places.collect()
}

/// The line of one series, broken where values are missing.
fn line(svg: &mut String, values: &[f64], x: impl Fn(usize) -> f64, y: impl Fn(f64) -> f64, dash: &str, dots: bool) {
    let points: Vec<(usize, f64)> = values.iter().enumerate().map(|(i, &v)| (i + 1, v)).collect();
    for run in points.split(|&(_, v)| !drawable(v)).filter(|run| !run.is_empty()) {
        let places: Vec<String> = run.iter().map(|&(epoch, v)| format!("{:.2} {:.2}", x(epoch), y(v))).collect();
        if run.len() > 1 {
            put(svg, format_args!("<path d=\"M{}\"{dash}/>", places.join("L")));
        }
        if dots || run.len() == 1 {
            // A line of no length with round ends is a dot.
            let dots: String = places.iter().map(|place| format!("M{place}h0")).collect();
            put(svg, format_args!("<path d=\"{dots}\" stroke-width=\"5\" stroke-linecap=\"round\"/>"));
        }
    }
}

/// 1, 2 or 5 times a power of ten, the smallest that is not below `at_least`.
fn nice(at_least: f64) -> f64 {
    let power = 10f64.powf(at_least.log10().floor());
    // A little less than the ratio, so that 0.2 / 0.1 does not round up to 5.
    let ratio = at_least / power * (1.0 - 1e-9);
    power * [1.0, 2.0, 5.0].into_iter().find(|&step| ratio <= step).unwrap_or(10.0)
}

/// Ticks from at or below the least value to at or above the greatest, about five, and their distance.
fn y_ticks(values: impl Iterator<Item = f64>) -> (Vec<f64>, f64) {
    let (mut low, mut high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    // What is nearly subnormal counts as nothing, so that a step has a logarithm.
    let size = if low.abs().max(high.abs()) > 1e-290 { low.abs().max(high.abs()) } else { 0.0 };
    // A constant series, or one that differs in rounding only, is drawn in the middle.
    if size == 0.0 || high - low <= 1e-9 * size {
        let half = if size > 0.0 { 0.1 * size } else { 1.0 };
        (low, high) = (low - half, high + half);
    }
    let step = nice((high - low) / 5.0);
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    let count = (last - first) as usize;
    ((0..=count).map(|i| (first + i as f64) * step).collect(), step)
}

/// Epochs to label: all, or multiples of a round number, at most about eight.
fn x_ticks(epochs: usize) -> impl Iterator<Item = usize> {
    let step = if epochs <= 8 { 1 } else { nice(epochs as f64 / 8.0).max(1.0) as usize };
    (step..=epochs).step_by(step)
}

/// A tick's label, with the decimals that tell it from the next.
fn number(tick: f64, step: f64) -> String {
    let order = |v: f64| (v * (1.0 + 1e-9)).log10().floor() as i32;
    if tick == 0.0 {
        return "0".into();
    }
    if step < 1e-4 || tick.abs() >= 1e5 {
        let decimals = (order(tick.abs()) - order(step)).max(0) as usize;
        return format!("{tick:.decimals$e}");
    }
    let decimals = (-order(step)).max(0) as usize;
    format!("{tick:.decimals$}")
}

/// Text that XML accepts.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

fn put(svg: &mut String, text: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = writeln!(svg, "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: &[f64]) -> Vec<String> {
        let (ticks, step) = y_ticks(values.iter().copied());
        ticks.into_iter().map(|tick| number(tick, step)).collect()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(
            ticks(&[0.03, 0.93]),
            ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(|t| if t == "0.0" { "0" } else { t })
        );
        assert_eq!(ticks(&[0.9, 1.0]), ["0.90", "0.92", "0.94", "0.96", "0.98", "1.00"]);
        assert_eq!(ticks(&[-3.0, 11.0]), ["-5", "0", "5", "10", "15"]);
        assert_eq!(ticks(&[1e-6, 5e-6]), ["1e-6", "2e-6", "3e-6", "4e-6", "5e-6"]);
        assert_eq!(ticks(&[1_000_000.0, 1_200_000.0]), ["1.00e6", "1.05e6", "1.10e6", "1.15e6", "1.20e6"]);
        assert_eq!(ticks(&[0.5, 0.5]), ["0.44", "0.46", "0.48", "0.50", "0.52", "0.54", "0.56"]);
        assert_eq!(ticks(&[0.0]), ["-1.0", "-0.5", "0", "0.5", "1.0"]);
        assert_eq!(ticks(&[0.0, 5e-324]), ticks(&[0.0]));
        assert_eq!(ticks(&[-9e299, 9e299]).len(), 5);
        assert_eq!(ticks(&[]), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
    }

    #[test]
    fn every_epoch_is_labelled_or_every_round_one() {
        let at = |epochs| x_ticks(epochs).collect::<Vec<_>>();
        assert_eq!(at(3), [1, 2, 3]);
        assert_eq!(at(0), [0; 0]);
        assert_eq!(at(20), [5, 10, 15, 20]);
        assert_eq!(at(100), [20, 40, 60, 80, 100]);
    }

    #[test]
    fn kinds_have_panels_and_validation_is_dashed_in_the_same_colour() {
        let series = [("accuracy", vec![0.5, 0.9]), ("loss", vec![2.0, 1.0]), ("val_loss", vec![2.5, 1.5])];
        let svg = curve_svg("a & b", &series);
        assert_eq!(svg.matches("<g transform").count(), 2);
        assert!(svg.contains("viewBox=\"0 0 920 340\"") && svg.contains("<title>a &amp; b</title>"));
        let (loss, metrics) = svg.split_once("translate(460,0)").unwrap();
        assert!(metrics.contains(">accuracy<") && !loss.contains(">accuracy<"));
        // One colour in the panel of the losses; the validation's line and its sample in the legend are dashed.
        assert_eq!((loss.matches("stroke=\"#3b82f6\"").count(), loss.matches("#f97316").count()), (2, 0));
        assert_eq!(loss.matches("stroke-dasharray").count(), 2);
        // Ticks from 1.0 to 2.5 on a plot of 206 pixels: 2 lies a third below its top, 1 at its foot.
        assert!(loss.contains("<path d=\"M62.00 152.67L438.00 290.00\"/>"), "{loss}");
        let one = curve_svg("", &[("loss", vec![1.0]), ("mean_absolute_error", vec![1.0]), ("rmse", vec![2.0])]);
        assert_eq!(one.matches("<g transform").count(), 1);
    }

    #[test]
    fn missing_values_are_gaps() {
        let svg = curve_svg("", &[("loss", vec![1.0, 2.0, f64::NAN, 3.0, f64::INFINITY])]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        // A line of two epochs, and the dot of the fourth.
        assert_eq!(svg.matches('L').count(), 1);
        assert!(svg.contains("h0\" stroke-width=\"5\""));
        assert!(curve_svg::<&str>("", &[]).contains("no values"));
        assert_eq!(curve_svg("", &[("loss", vec![f64::NAN])]).matches("stroke-linecap").count(), 0);
    }

    #[test]
    fn a_long_legend_is_broken_and_the_plot_makes_room() {
        let names = ["loss", "reconstruction_loss", "kullback_leibler_loss", "val_loss", "val_reconstruction_loss"];
        let series = names.map(|name| Series::new(name, &[1.0]));
        let places = legend(&series.iter().collect::<Vec<_>>());
        assert_eq!(places.iter().map(|place| place[1]).collect::<Vec<_>>(), [0.0, 0.0, 18.0, 18.0, 36.0]);
        assert_eq!((places[0][0], places[2][0]), (PLOT[0], PLOT[0]));
        // The picture is two lines of 18 pixels higher, and the plot that much lower.
        let svg = curve_svg("", &names.map(|name| (name, vec![1.0, 2.0])));
        assert!(
            svg.contains("viewBox=\"0 0 460 376\"") && svg.contains("M62 326H438") && svg.contains("M62 120.00H438"),
            "{svg}"
        );
    }

    /// Writes pictures to look at: `cargo test curve_pictures -- --ignored`, then open `target/curve*.svg`.
    #[test]
    #[ignore = "writes pictures for a person to look at"]
    fn curve_pictures() {
        let falling = |n: usize, rate: f64, end: f64| -> Vec<f64> {
            (0..n).map(|i| end + 1.2 * (-rate * i as f64).exp() + 0.01 * (7.0 * i as f64).sin()).collect()
        };
        let rising = |n, rate, end: f64| falling(n, rate, 0.0).into_iter().map(|v| end - 0.4 * v).collect::<Vec<_>>();
        let history = [
            ("loss", falling(12, 0.6, 0.05)),
            ("accuracy", rising(12, 0.6, 0.985)),
            ("val_loss", falling(12, 0.5, 0.15)),
            ("val_accuracy", rising(12, 0.5, 0.97)),
        ];
        std::fs::write("target/curve.svg", curve_svg("MNIST, 784-128-10", &history)).unwrap();
        let regression = [
            ("loss", falling(200, 0.03, 0.1)),
            ("mae", falling(200, 0.02, 0.3)),
            ("val_loss", falling(200, 0.02, 0.2)),
            ("val_mae", falling(200, 0.015, 0.4)),
        ];
        std::fs::write("target/curve_one.svg", curve_svg("Regression", &regression)).unwrap();
    }
}
