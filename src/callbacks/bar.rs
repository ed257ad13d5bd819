//! The progress bar of Keras 3: its text, and when to write it.
//!
//! People read this line hundreds of times a day, so it is that of Keras to the character. Values are shown as given: the
//! crate's metrics are running means already. Two things are better than the original: the time per step leaves out the
//! whole first *update*, which with several steps per execution is more than one step; and a target that is no terminal
//! gets one line per epoch instead of one per update. Deliberately absent: clocks and the question whether there is a
//! terminal; both are the caller's, so that every string here is a function of its arguments. Source: the behaviour of
//! keras 3.15.1, `keras.utils.Progbar`.

use std::io::{Result, Write};
use std::time::Duration;

use crate::sort::sort_by;

/// Cells of the bar.
const WIDTH: usize = 20;
/// No redraw sooner than this after the last: eyes need no more, and terminals are slow.
const INTERVAL: Duration = Duration::from_millis(50);

const BOLD: &str = "\x1b[1m";
const GREEN: &str = "\x1b[32m";
const WHITE: &str = "\x1b[37m";
const RESET: &str = "\x1b[0m";
const ERASE_TO_END: &str = "\x1b[K";

/// How progress is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One line that is redrawn in place, in colour.
    Terminal,
    /// The same line without colour, redrawn in place; at the end it goes to the console. For a page that shows it: see
    /// [`main`](crate::host::main).
    Page,
    /// The same line without colour, once, at the end: for files, pipes and the console of a browser.
    Plain,
    /// A line without a bar, at the end: Keras' `verbose=2`.
    Brief,
}

impl Style {
    /// Whether the line is redrawn before its end.
    pub fn moves(self) -> bool {
        matches!(self, Style::Terminal | Style::Page)
    }
}

/// How far something is: what a line says, besides the metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub current: usize,
    /// Steps in all, where that is known.
    pub target: Option<usize>,
    /// Seconds since the start.
    pub elapsed: f64,
    /// Seconds per step.
    pub per_step: f64,
    /// Whether this is the last line: it has the time elapsed, earlier ones the time remaining.
    pub last: bool,
}

/// The line above the bar, with `epoch` counted from 0: `Epoch 1/3`.
pub fn epoch(epoch: usize, epochs: usize) -> String {
    format!("Epoch {}/{epochs}", epoch + 1)
}

/// The line with the bar: `32/32 ━━━━━━━━━━━━━━━━━━━━ 1s 17ms/step - loss: 0.2870`.
pub fn line(progress: Progress, metrics: &[(String, f64)], colour: bool) -> String {
    let paint = |code: &str, text: String| match (colour, text.is_empty()) {
        (true, false) => format!("{code}{text}{RESET}"),
        _ => text,
    };
    let target = progress.target.filter(|&target| target > 0);
    let head = match target {
        Some(target) => {
            let filled = (WIDTH as f64 * progress.current as f64 / target as f64) as usize;
            let filled = filled.min(WIDTH);
            let cells = paint(GREEN, "━".repeat(filled)) + &paint(WHITE, "━".repeat(WIDTH - filled));
            paint(BOLD, count(progress.current, target)) + " " + &cells
        }
        None => format!("{:7}/Unknown", progress.current),
    };
    let time = match target {
        Some(target) if !progress.last => remaining(progress.per_step * target.saturating_sub(progress.current) as f64),
        _ => format!("{:.0}s", progress.elapsed),
    };
    format!("{head} {} {}{}", paint(BOLD, time), per_step(progress.per_step), listed(metrics))
}

/// The line without a bar: `32/32 - 1s - 17ms/step - loss: 0.2870`.
pub fn brief(progress: Progress, metrics: &[(String, f64)]) -> String {
    let count = count(progress.current, progress.target.unwrap_or(progress.current));
    format!("{count} - {:.0}s - {}{}", progress.elapsed, per_step(progress.per_step), listed(metrics))
}

/// A metric's value: four decimals, or four in scientific notation where those would show too little.
pub fn value(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.abs() > 1e-3 {
        return format!("{value:.4}");
    }
    scientific(value, 4)
}

/// Rust writes 5.0000e-4 where the rest of the world writes 5.0000e-04.
pub(super) fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

fn count(current: usize, target: usize) -> String {
    let digits = target.to_string().len();
    format!("{current:digits$}/{target}")
}

fn per_step(seconds: f64) -> String {
    if seconds >= 1.0 || seconds == 0.0 {
        format!("{seconds:.0}s/step")
    } else if seconds >= 1e-3 {
        format!("{:.0}ms/step", seconds * 1e3)
    } else {
        format!("{:.0}us/step", seconds * 1e6)
    }
}

fn remaining(seconds: f64) -> String {
    let whole = seconds as u64;
    let (hours, minutes) = (whole / 3600, whole % 3600 / 60);
    if seconds > 3600.0 {
        format!("{hours}:{minutes:02}:{:02}", whole % 60)
    } else if seconds > 60.0 {
        format!("{}:{:02}", whole / 60, whole % 60)
    } else {
        format!("{whole}s")
    }
}

fn listed(metrics: &[(String, f64)]) -> String {
    metrics.iter().map(|(name, v)| format!(" - {name}: {}", value(*v))).collect()
}

/// The progress of one epoch, evaluation or prediction, from its first step to its last.
#[derive(Clone, Debug)]
pub struct Bar {
    style: Style,
    target: Option<usize>,
    current: usize,
    metrics: Vec<(String, f64)>,
    /// When the first update came, and how many steps it was for.
    first: Option<(Duration, usize)>,
    drawn: Option<Duration>,
}

impl Bar {
    /// A bar for `target` steps; `None` where their number is not known before they end.
    pub fn new(style: Style, target: Option<usize>) -> Bar {
        Bar { style, target, current: 0, metrics: Vec::new(), first: None, drawn: None }
    }

    /// After `current` steps, `elapsed` since the start. Names that were not seen before are appended, in alphabetical
    /// order among themselves. Writes only where the line moves, and not more often than 20 times a second.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn update<S: AsRef<str>>(
        &mut self,
        out: &mut dyn Write,
        current: usize,
        metrics: impl IntoIterator<Item = (S, f64)>,
        elapsed: Duration,
    ) -> Result<()> {
        self.note(metrics);
        self.current = current;
        let progress = self.progress(elapsed, false);
        if self.first.is_none() && current > 0 {
            self.first = Some((elapsed, current));
        }
        let too_soon = self.drawn.is_some_and(|drawn| elapsed.saturating_sub(drawn) < INTERVAL);
        if !self.style.moves() || too_soon {
            return Ok(());
        }
        self.drawn = Some(elapsed);
        match self.style {
            Style::Page => write!(out, "\r{}", line(progress, &self.metrics, false))?,
            _ => write!(out, "\r{}{ERASE_TO_END}", line(progress, &self.metrics, true))?,
        }
        out.flush()
    }

    /// At the end: the last line, with the metrics of the whole. An unknown number of steps is known now.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish<S: AsRef<str>>(
        &mut self,
        out: &mut dyn Write,
        metrics: impl IntoIterator<Item = (S, f64)>,
        elapsed: Duration,
    ) -> Result<()> {
        self.note(metrics);
        self.current = *self.target.get_or_insert(self.current);
        let progress = self.progress(elapsed, true);
        match self.style {
            Style::Terminal => writeln!(out, "\r{}{ERASE_TO_END}", line(progress, &self.metrics, true))?,
            Style::Plain | Style::Page => writeln!(out, "{}", line(progress, &self.metrics, false))?,
            Style::Brief => writeln!(out, "{}", brief(progress, &self.metrics))?,
        }
        out.flush()
    }

    fn note<S: AsRef<str>>(&mut self, metrics: impl IntoIterator<Item = (S, f64)>) {
        let seen = self.metrics.len();
        for (name, value) in metrics {
            match self.metrics.iter_mut().find(|(known, _)| known == name.as_ref()) {
                Some((_, known)) => *known = value,
                None => self.metrics.push((name.as_ref().to_string(), value)),
            }
        }
        sort_by(&mut self.metrics[seen..], |a, b| a.0.cmp(&b.0));
    }

    fn progress(&self, elapsed: Duration, last: bool) -> Progress {
        // The first step compiles and is not representative, where there are others.
        let (since, steps) = self.first.filter(|&(_, first)| self.current > first).unwrap_or_default();
        let steps = self.current - steps;
        let per_step = if steps == 0 { 0.0 } else { elapsed.saturating_sub(since).as_secs_f64() / steps as f64 };
        Progress { current: self.current, target: self.target, elapsed: elapsed.as_secs_f64(), per_step, last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = "━━━━━━━━━━━━━━━━━━━━";

    /// The updates of an epoch of 32 steps, then its end.
    fn epoch_of_32(style: Style) -> Vec<String> {
        let mut bar = Bar::new(style, Some(32));
        let mut written = Vec::new();
        for (seconds, current, loss, mae) in
            [(0.5, 1, 1.25, 0.5), (0.52, 2, 1.2, 0.5), (0.75, 16, 1.0, 0.0005), (1.03, 32, 0.28704, 0.44839)]
        {
            let mut out = Vec::new();
            let metrics = [("mae", mae), ("loss", loss)];
            bar.update(&mut out, current, metrics, Duration::from_secs_f64(seconds)).unwrap();
            written.push(String::from_utf8(out).unwrap());
        }
        let mut out = Vec::new();
        let metrics = [("val_loss", 0.001), ("loss", 0.28704), ("mae", 0.44839)];
        bar.finish(&mut out, metrics, Duration::from_secs_f64(1.03)).unwrap();
        written.push(String::from_utf8(out).unwrap());
        written
    }

    /// The strings of keras 3.15.1 for these updates, but for the way a line is erased and for empty colours.
    #[test]
    fn a_terminal_is_redrawn() {
        assert_eq!(
            epoch_of_32(Style::Terminal),
            [
                "\r\x1b[1m 1/32\x1b[0m \x1b[37m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m15s\x1b[0m 500ms/step - loss: 1.2500 - mae: 0.5000\x1b[K",
                "",
                "\r\x1b[1m16/32\x1b[0m \x1b[32m━━━━━━━━━━\x1b[0m\x1b[37m━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 17ms/step - loss: 1.0000 - mae: 5.0000e-04\x1b[K",
                "\r\x1b[1m32/32\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m0s\x1b[0m 17ms/step - loss: 0.2870 - mae: 0.4484\x1b[K",
                "\r\x1b[1m32/32\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m \x1b[1m1s\x1b[0m 17ms/step - loss: 0.2870 - mae: 0.4484 - val_loss: 1.0000e-03\x1b[K\n",
            ]
        );
    }

    #[test]
    fn a_page_is_redrawn_without_colour() {
        assert_eq!(
            epoch_of_32(Style::Page),
            [
                "\r 1/32 ━━━━━━━━━━━━━━━━━━━━ 15s 500ms/step - loss: 1.2500 - mae: 0.5000",
                "",
                "\r16/32 ━━━━━━━━━━━━━━━━━━━━ 0s 17ms/step - loss: 1.0000 - mae: 5.0000e-04",
                "\r32/32 ━━━━━━━━━━━━━━━━━━━━ 0s 17ms/step - loss: 0.2870 - mae: 0.4484",
                "32/32 ━━━━━━━━━━━━━━━━━━━━ 1s 17ms/step - loss: 0.2870 - mae: 0.4484 - val_loss: 1.0000e-03\n",
            ]
        );
    }

    #[test]
    fn anything_else_gets_one_line() {
        let metrics = "loss: 0.2870 - mae: 0.4484 - val_loss: 1.0000e-03\n";
        let plain = format!("32/32 {FULL} 1s 17ms/step - {metrics}");
        assert_eq!(epoch_of_32(Style::Plain), ["", "", "", "", plain.as_str()]);
        let brief = format!("32/32 - 1s - 17ms/step - {metrics}");
        assert_eq!(epoch_of_32(Style::Brief), ["", "", "", "", brief.as_str()]);
        assert_eq!(epoch(0, 3), "Epoch 1/3");
    }

    #[test]
    fn values_are_written_as_in_keras() {
        for (v, text) in [
            (0.28704, "0.2870"),
            (-12345.678, "-12345.6780"),
            (0.0010001, "0.0010"),
            (1e-3, "1.0000e-03"),
            (-4.56789e-5, "-4.5679e-05"),
            (1.5e-123, "1.5000e-123"),
            (0.0, "0.0000e+00"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(value(v), text);
        }
    }

    #[test]
    fn times_are_written_as_in_keras() {
        for (seconds, text) in
            [(0.5, "0s"), (59.9, "59s"), (61.0, "1:01"), (3599.0, "59:59"), (3661.0, "1:01:01"), (90000.0, "25:00:00")]
        {
            assert_eq!(remaining(seconds), text);
        }
        for (seconds, text) in
            [(0.0, "0s/step"), (3e-5, "30us/step"), (1e-3, "1ms/step"), (0.45, "450ms/step"), (61.0, "61s/step")]
        {
            assert_eq!(per_step(seconds), text);
        }
    }

    #[test]
    fn counts_are_as_wide_as_the_target() {
        let progress = Progress { current: 1, target: Some(1875), elapsed: 0.1, per_step: 0.1, last: false };
        assert_eq!(line(progress, &[], false), format!("   1/1875 {FULL} 3:07 100ms/step"));
        // One step too many, as a generator may give, does not break the bar.
        let over = Progress { current: 1876, last: true, ..progress };
        assert_eq!(line(over, &[], false), format!("1876/1875 {FULL} 0s 100ms/step"));
    }

    #[test]
    fn an_unknown_number_of_steps_is_known_at_the_end() {
        let mut bar = Bar::new(Style::Terminal, None);
        let mut out = Vec::new();
        let at = Duration::from_secs_f64;
        bar.update(&mut out, 1, [("loss", 2.0)], at(0.1)).unwrap();
        bar.update(&mut out, 3, [("loss", 2.0)], at(1.0)).unwrap();
        bar.finish(&mut out, [("loss", 2.0)], at(1.0)).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            format!(
                "\r      1/Unknown \x1b[1m0s\x1b[0m 100ms/step - loss: 2.0000\x1b[K\
                 \r      3/Unknown \x1b[1m1s\x1b[0m 450ms/step - loss: 2.0000\x1b[K\
                 \r\x1b[1m3/3\x1b[0m \x1b[32m{FULL}\x1b[0m \x1b[1m1s\x1b[0m 450ms/step - loss: 2.0000\x1b[K\n"
            )
        );
    }

    #[test]
    fn the_first_update_is_left_out_of_the_step_time() {
        let run = |updates: &[(f64, usize)]| {
            let (mut bar, mut out) = (Bar::new(Style::Brief, Some(64)), Vec::new());
            let mut end = 0.0;
            for &(seconds, current) in updates {
                end = seconds;
                bar.update(&mut out, current, [("loss", 1.0); 0], Duration::from_secs_f64(seconds)).unwrap();
            }
            bar.finish(&mut out, [("loss", 1.0); 0], Duration::from_secs_f64(end)).unwrap();
            String::from_utf8(out).unwrap()
        };
        // 16 steps per execution, the first of which takes 2 s.
        assert_eq!(run(&[(2.0, 16), (2.24, 32), (2.72, 64)]), "64/64 - 3s - 15ms/step\n");
        // Only one update: nothing to leave out.
        assert_eq!(run(&[(1.28, 64)]), "64/64 - 1s - 20ms/step\n");
        assert_eq!(run(&[]), "64/64 - 0s - 0s/step\n");
    }

    #[test]
    fn names_that_appear_later_come_last() {
        let (mut bar, mut out) = (Bar::new(Style::Brief, Some(1)), Vec::new());
        bar.update(&mut out, 1, [("mae", 0.5)], Duration::ZERO).unwrap();
        bar.finish(&mut out, [("val_mae", 2.0), ("loss", 1.0), ("mae", 0.25)], Duration::ZERO).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1/1 - 0s - 0s/step - mae: 0.2500 - loss: 1.0000 - val_mae: 2.0000\n"
        );
    }
}
