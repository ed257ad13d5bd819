//! [`CSVLogger`]: the scores of each epoch as a line of a file.
//!
//! A line is written as one piece after its epoch, so a training that is killed leaves whole lines, at worst one that is
//! cut off; appending cuts that away. Deliberately absent: reading the file back; every tool for tables does it.

#![cfg(not(target_arch = "wasm32"))]

use std::fs::{self, OpenOptions};
use std::future::ready;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::callback::{Callback, Hook, Run, nothing};
use super::state::CallbackState;
use crate::error::{Error, ErrorKind, Result};
use crate::io;

/// Writes the number of each epoch, from 0, and its scores to a file of comma-separated values.
///
/// The columns are those of Keras: `epoch`, then the scores of the first epoch in alphabetical order, and if it was not
/// validated also those that validation would give. What an epoch does not have is `NA`.
///
/// A training that goes on from a checkpoint goes on with the file, cut to what it had when the checkpoint was taken.
///
/// ```
/// use wengert::callbacks::CSVLogger;
///
/// let log = CSVLogger::new("training.csv").append();
/// ```
pub struct CSVLogger {
    path: PathBuf,
    separator: char,
    append: bool,
    /// Bytes so far; nothing before the file is open.
    length: Option<usize>,
    columns: Option<Vec<String>>,
}

impl CSVLogger {
    /// Writes to a file; one that exists is replaced when training begins.
    pub fn new(path: impl AsRef<Path>) -> CSVLogger {
        CSVLogger { path: path.as_ref().into(), separator: ',', append: false, length: None, columns: None }
    }

    /// What is between two values, instead of a comma.
    pub fn separator(mut self, separator: char) -> Self {
        self.separator = separator;
        self
    }

    /// Goes on with a file that exists, in its columns. A training that begins with a later epoch
    /// ([`initial_epoch`](crate::model::Fit::initial_epoch) above 0) first takes away the last lines of epochs that it
    /// runs again, and any training a last line that was cut off.
    pub fn append(mut self) -> Self {
        self.append = true;
        self
    }

    fn failed(&self) -> impl Fn(std::io::Error) -> Error {
        let path = self.path.display().to_string();
        move |why| Error::new(ErrorKind::Io { path: path.clone(), why: why.to_string() })
    }

    /// Before the first epoch, whose number is `epoch`.
    fn open(&mut self, epoch: usize) -> Result<()> {
        if ['"', '\n', '\r'].contains(&self.separator) {
            let what = format!("{:?} cannot separate the values of a table", self.separator);
            return Err(Error::argument(what));
        }
        let text = match self.append {
            true if self.path.exists() => fs::read_to_string(&self.path).map_err(self.failed())?,
            _ => String::new(),
        };
        self.cut(&text, kept(&text, self.separator, epoch), !self.append)
    }

    /// Goes on with a part of the file's text.
    fn cut(&mut self, text: &str, kept: &str, always: bool) -> Result<()> {
        if kept.len() < text.len() || always {
            io::write(&self.path, kept.as_bytes())?;
        }
        self.columns = kept.lines().next().map(|header| split(header, self.separator));
        self.length = Some(kept.len());
        Ok(())
    }

    fn write(&mut self, run: &Run<'_>) -> Result<()> {
        let mut text = String::new();
        if self.columns.is_none() {
            let columns = columns(run.scores.iter().map(|(name, _)| name));
            text = joined(columns.iter().map(String::as_str), self.separator);
            self.columns = Some(columns);
        }
        let value = |column: &String| match run.scores.get(column) {
            _ if column == EPOCH => run.epoch.to_string(),
            None => "NA".into(),
            Some(value) if value.is_nan() => "nan".into(),
            Some(value) => format!("{value:?}"),
        };
        let values: Vec<String> = self.columns.iter().flatten().map(value).collect();
        text += &joined(values.iter().map(String::as_str), self.separator);
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(self.failed())?;
        self.length = self.length.map(|length| length + text.len());
        Ok(())
    }
}

const EPOCH: &str = "epoch";

/// The text without a last line that was cut off.
fn whole_lines(text: &str) -> &str {
    &text[..text.rfind('\n').map_or(0, |at| at + 1)]
}

/// What stays of a file that is appended to by a training that begins with an epoch.
fn kept(text: &str, separator: char, epoch: usize) -> &str {
    let mut kept = whole_lines(text);
    // A training from the start is another one, whose predecessors stay.
    if epoch == 0 {
        return kept;
    }
    loop {
        let before = kept.trim_end_matches(['\n', '\r']);
        let Some(start) = before.rfind('\n').map(|at| at + 1) else { break };
        let ran = split(&before[start..], separator).first().and_then(|first| first.parse::<usize>().ok());
        if ran.is_none_or(|ran| ran < epoch) {
            break;
        }
        kept = &kept[..start];
    }
    kept
}

/// The columns for scores of these names.
fn columns<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(str::to_string).collect();
    names.sort();
    if !names.iter().any(|name| name.starts_with("val_")) {
        names.extend(names.clone().iter().map(|name| format!("val_{name}")));
    }
    std::iter::once(EPOCH.to_string()).chain(names).collect()
}

/// A line of values, quoted where they have to be.
fn joined<'a>(values: impl Iterator<Item = &'a str>, separator: char) -> String {
    let quoted = |value: &str| match value.contains([separator, '"', '\n', '\r']) {
        true => format!("\"{}\"", value.replace('"', "\"\"")),
        false => value.to_string(),
    };
    values.map(quoted).collect::<Vec<_>>().join(&separator.to_string()) + "\n"
}

/// The values of a line.
fn split(line: &str, separator: char) -> Vec<String> {
    let (mut values, mut value, mut quoted) = (Vec::new(), String::new(), false);
    let mut characters = line.trim_end_matches(['\n', '\r']).chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => value.extend(characters.next()),
            '"' => quoted = !quoted,
            c if c == separator && !quoted => values.push(std::mem::take(&mut value)),
            c => value.push(c),
        }
    }
    values.push(value);
    values
}

impl Callback for CSVLogger {
    fn on_train_begin<'a>(&'a mut self, _: &'a mut Run<'_>) -> Hook<'a> {
        (self.length, self.columns) = (None, None);
        nothing()
    }

    fn state(&self) -> Option<CallbackState> {
        Some(CallbackState::new("csv_logger").with_count("bytes", self.length))
    }

    fn restore(&mut self, state: &CallbackState) -> Result<()> {
        let Some(length) = state.count("bytes") else { return Ok(()) };
        let text = match self.path.exists() {
            true => fs::read_to_string(&self.path).map_err(self.failed())?,
            false => String::new(),
        };
        self.cut(&text, whole_lines(text.get(..length).unwrap_or(&text)), false)
    }

    fn on_epoch_begin<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        // Only now is it known which epoch the training begins with.
        let opened = if self.length.is_some() { Ok(()) } else { self.open(run.epoch) };
        Box::pin(ready(opened))
    }

    fn on_epoch_end<'a>(&'a mut self, run: &'a mut Run<'_>) -> Hook<'a> {
        let written = self.write(run);
        Box::pin(ready(written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_keras() {
        assert_eq!(columns(["loss", "acc"].into_iter()), ["epoch", "acc", "loss", "val_acc", "val_loss"]);
        assert_eq!(columns(["loss", "acc", "val_loss"].into_iter()), ["epoch", "acc", "loss", "val_loss"]);
    }

    #[test]
    fn a_line_is_read_as_it_was_written() {
        for values in [vec!["a"], vec!["a", "", "b"], vec!["a,b", "say \"so\"", "c"], vec!["", ""]] {
            assert_eq!(split(&joined(values.iter().copied(), ','), ','), values);
        }
        assert_eq!(joined(["a,b", "c;d"].into_iter(), ';'), "a,b;\"c;d\"\n");
        assert_eq!(split("0,1\r\n", ','), ["0", "1"]);
    }

    #[test]
    fn what_is_run_again_and_what_was_cut_off_goes() {
        let text = "epoch,loss\n0,3\n1,2\n2,1\n3,0.";
        assert_eq!(kept(text, ',', 0), "epoch,loss\n0,3\n1,2\n2,1\n");
        assert_eq!(kept(text, ',', 3), "epoch,loss\n0,3\n1,2\n2,1\n");
        assert_eq!(kept(text, ',', 1), "epoch,loss\n0,3\n");
        // Lines of another training, before, stay; and the header does, whatever comes first in it.
        assert_eq!(kept("epoch\n0\n5\n0\n1\n2\n", ',', 1), "epoch\n0\n5\n0\n");
        assert_eq!(kept("3\n4\n", ',', 1), "3\n");
        assert_eq!(kept("", ',', 1), "");
        assert_eq!(kept("epo", ',', 0), "");
    }
}
