//! The part of a checkpoint that is not tensors, as text: one fact a line, fields apart by tabs.
//!
//! Numbers are written as their bits. Deliberately absent: JSON, whose numbers have no NaN and no agreed precision.

use super::{DataOrder, Progress};
use crate::callbacks::CallbackState;

/// Raised when an older version could misread a file.
const FORMAT: u32 = 2;

/// What the text says.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub progress: Option<Progress>,
    /// Without their tensors.
    pub callbacks: Vec<CallbackState>,
    /// Check sum of all tensors.
    pub crc: u32,
}

fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}

fn unescaped(text: &str) -> Option<String> {
    let (mut name, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        name.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                't' => '\t',
                'n' => '\n',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(name)
}

/// The bits, so that a NaN comes back too, and no page needs a parser of decimals, whose tables are large.
fn number(value: f64) -> String {
    format!("{:016x}", value.to_bits())
}

fn parsed_number(text: &str) -> Option<f64> {
    u64::from_str_radix(text, 16).ok().map(f64::from_bits)
}

impl Facts {
    pub fn to_text(&self) -> String {
        let mut lines = vec![format!("format\t{FORMAT}"), format!("crc\t{:08x}", self.crc)];
        if let Some(progress) = &self.progress {
            let Progress { epoch, step, stop, order, history, scores } = progress;
            lines.push(format!("progress\t{epoch}\t{step}\t{stop}"));
            let DataOrder { rows, batch_size, seed, steps } = order;
            let seed = seed.map_or("none".into(), |seed| seed.to_string());
            lines.push(format!("order\t{rows}\t{batch_size}\t{seed}\t{steps}"));
            lines.push(format!("training\t{}\t{}", history.epochs, history.steps));
            lines.extend(history.epoch.iter().map(|epoch| format!("epoch\t{epoch}")));
            for (name, values) in &history.history {
                let values: String = values.iter().map(|&value| format!("\t{}", number(value))).collect();
                lines.push(format!("history\t{}{values}", escaped(name)));
            }
            lines.extend(scores.iter().map(|(name, value)| format!("score\t{}\t{}", escaped(name), number(value))));
        }
        for state in &self.callbacks {
            lines.push(format!("callback\t{}", escaped(&state.kind)));
            let line = |(name, value): &(String, f64)| format!("number\t{}\t{}", escaped(name), number(*value));
            lines.extend(state.numbers.iter().map(line));
        }
        lines.join("\n")
    }

    /// What a text says, or what is wrong with it.
    pub fn parse(text: &str) -> Result<Facts, String> {
        let mut lines = text.lines();
        match lines.next().and_then(|line| line.strip_prefix("format\t")) {
            Some(format) if format == FORMAT.to_string() => {}
            Some(format) => return Err(format!("it has format {format}, this version reads format {FORMAT}")),
            None => return Err("it does not say which format it has".into()),
        }
        let mut facts = Facts::default();
        for line in lines {
            facts.read(line).ok_or_else(|| format!("the line {line:?} is not understood"))?;
        }
        Ok(facts)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            ["crc", crc] => self.crc = u32::from_str_radix(crc, 16).ok()?,
            ["progress", epoch, step, stop] => {
                self.progress = Some(Progress {
                    epoch: epoch.parse().ok()?,
                    step: step.parse().ok()?,
                    stop: stop.parse().ok()?,
                    ..Progress::default()
                });
            }
            ["order", rows, batch_size, seed, steps] => {
                self.progress.as_mut()?.order = DataOrder {
                    rows: rows.parse().ok()?,
                    batch_size: batch_size.parse().ok()?,
                    seed: if seed == "none" { None } else { Some(seed.parse().ok()?) },
                    steps: steps.parse().ok()?,
                };
            }
            ["training", epochs, steps] => {
                let history = &mut self.progress.as_mut()?.history;
                (history.epochs, history.steps) = (epochs.parse().ok()?, steps.parse().ok()?);
            }
            ["epoch", epoch] => self.progress.as_mut()?.history.epoch.push(epoch.parse().ok()?),
            ["history", name, ..] => {
                let values = fields[2..].iter().map(|text| parsed_number(text)).collect::<Option<_>>()?;
                self.progress.as_mut()?.history.history.push((unescaped(name)?, values));
            }
            ["score", name, value] => self.progress.as_mut()?.scores.push(unescaped(name)?, parsed_number(value)?),
            ["callback", kind] => self.callbacks.push(CallbackState::new(&unescaped(kind)?)),
            ["number", name, value] => {
                self.callbacks.last_mut()?.numbers.push((unescaped(name)?, parsed_number(value)?));
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{History, Scores};

    #[test]
    fn facts_come_back_with_all_their_bits() {
        let values = vec![0.1, -0.0, f64::MIN_POSITIVE / 8.0, f64::INFINITY, 1e300, f64::from(1.0f32 / 3.0)];
        let order = DataOrder { rows: 100, batch_size: 8, seed: Some(u64::MAX), steps: 13 };
        let history = vec![("a\tname\nof \\two lines".into(), values.clone())];
        let history = History { epoch: vec![0, 1], epochs: 3, steps: 13, history };
        let scores: Scores = [("loss".to_string(), 0.3)].into_iter().collect();
        let progress = Progress { epoch: 2, step: 5, stop: true, order, history, scores };
        let callback = CallbackState::new("kind").with("nan", f64::from_bits(0x7ff8_dead_beef_0001)).with_count("n", 7);
        let facts = Facts { progress: Some(progress.clone()), callbacks: vec![callback], crc: 0xdead_beef };
        let back = Facts::parse(&facts.to_text()).unwrap();
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back.progress.as_ref().unwrap().history.history[0].1), bits(&values));
        assert_eq!((back.progress, back.crc), (Some(progress), 0xdead_beef));
        assert_eq!(back.callbacks[0].number("nan").map(f64::to_bits), Some(0x7ff8_dead_beef_0001));
        assert_eq!((back.callbacks[0].kind(), back.callbacks[0].count("n")), ("kind", Some(7)));
        let unshuffled = Progress { order: DataOrder::default(), ..Progress::default() };
        let facts = Facts { progress: Some(unshuffled.clone()), ..Facts::default() };
        assert_eq!(Facts::parse(&facts.to_text()).unwrap().progress, Some(unshuffled));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        assert!(Facts::parse("").unwrap_err().contains("which format"));
        assert!(Facts::parse("format\t3").unwrap_err().contains("has format 3, this version reads format 2"));
        for line in ["epoch\t1", "progress\t1\t2", "number\ta\t1", "colour\tred", "callback\ta\\x"] {
            assert!(Facts::parse(&format!("format\t2\n{line}")).unwrap_err().contains(&format!("{line:?}")), "{line}");
        }
    }
}
