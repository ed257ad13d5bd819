//! [`Template`]: a path with fields, as `weights/{epoch:02d}-{val_loss:.2f}.safetensors`.
//!
//! Python's format of numbers, since that is how everybody writes such paths. Deliberately absent: what no file name
//! needs (alignment, signs, thousands, percent) and a precision without `f` or `e`, which Python and Rust read
//! differently; all of it is refused.

use crate::error::{Error, Result};

/// A path with fields.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Field { name: String, zeros: bool, width: usize, precision: usize, kind: Kind },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Whole,
    Fixed,
    Scientific,
}

fn wrong(text: &str, why: impl std::fmt::Display) -> Error {
    Error::argument(format!("the path \"{text}\": {why}"))
}

impl Template {
    /// Reads a path.
    ///
    /// # Errors
    /// A brace without its other, or a format that is none of `02d`, `.2f`, `.2e`, with or without width.
    pub fn new(text: &str) -> Result<Template> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, tail) = (&rest[at..at + 1], &rest[at + 1..]);
            if let Some(tail) = tail.strip_prefix(brace) {
                plain.push_str(brace);
                rest = tail;
                continue;
            }
            let Some((field, tail)) = tail.split_once('}').filter(|_| brace == "{") else {
                return Err(wrong(text, format!("a single {brace}; write it twice for itself")));
            };
            parts.push(Part::Text(std::mem::take(&mut plain)));
            parts.push(field_of(text, field)?);
            rest = tail;
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Template(parts))
    }

    /// Names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Field { name, .. } => Some(name.as_str()),
        })
    }

    /// The path with numbers in place of the fields.
    ///
    /// # Errors
    /// A field that no number has the name of, or one of a whole number for a value that is none.
    pub fn fill<'a>(&self, values: impl Iterator<Item = (&'a str, f64)>) -> Result<String> {
        let values: Vec<(&str, f64)> = values.collect();
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Field { name, zeros, width, precision, kind } => {
                    let Some((_, value)) = values.iter().find(|(known, _)| known == name) else {
                        let known: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
                        let what = format!("there is no number \"{name}\" for a path; there are {}", known.join(", "));
                        return Err(Error::argument(what));
                    };
                    if *kind == Kind::Whole && value.fract() != 0.0 {
                        let what = format!("{name} is {value}, which {{{name}:d}} of a path has no place for");
                        return Err(Error::argument(what));
                    }
                    path.push_str(&padded(&number(*value, *kind, *precision), *width, *zeros));
                }
            }
        }
        Ok(path)
    }
}

fn field_of(text: &str, field: &str) -> Result<Part> {
    let (name, format) = field.split_once(':').unwrap_or((field, ""));
    let unknown = || wrong(text, format!("the format of {{{field}}} is none of those like 02d, .2f and .2e"));
    let zeros = format.starts_with('0');
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (width, rest) = format.split_at(digits(format));
    let (precision, kind) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (precision, kind) = rest.split_at(digits(rest));
            (Some(precision.parse::<usize>().map_err(|_| unknown())?), kind)
        }
        None => (None, rest),
    };
    let kind = match (kind, precision) {
        ("", None) => Kind::Plain,
        ("d", None) => Kind::Whole,
        ("f", _) => Kind::Fixed,
        ("e", _) => Kind::Scientific,
        _ => return Err(unknown()),
    };
    let width = if width.is_empty() { 0 } else { width.parse().map_err(|_| unknown())? };
    // No path is so long, and a larger number would only cost memory.
    if name.is_empty() || width > 255 || precision.is_some_and(|precision| precision > 255) {
        return Err(unknown());
    }
    Ok(Part::Field { name: name.into(), zeros, width, precision: precision.unwrap_or(6), kind })
}

fn number(value: f64, kind: Kind, precision: usize) -> String {
    match kind {
        _ if value.is_nan() => "nan".into(),
        Kind::Plain | Kind::Whole => format!("{value}"),
        Kind::Fixed => format!("{value:.precision$}"),
        Kind::Scientific => super::bar::scientific(value, precision),
    }
}

/// To the right, with zeros between sign and digits or with spaces before both.
fn padded(text: &str, width: usize, zeros: bool) -> String {
    match text.strip_prefix('-').filter(|_| zeros) {
        Some(digits) => format!("-{digits:0>0$}", width.saturating_sub(1)),
        None if zeros => format!("{text:0>width$}"),
        None => format!("{text:>width$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn fill(text: &str) -> Result<String> {
        let values = [("epoch", 7.0), ("val_loss", 0.123456), ("r2", -1.5), ("bad", f64::NAN)];
        Template::new(text)?.fill(values.into_iter())
    }

    /// What `str.format` of Python 3 makes of the same.
    #[test]
    fn numbers_are_formatted_as_in_python() {
        for (text, path) in [
            ("plain", "plain"),
            ("{epoch:02d}-{val_loss:.2f}.safetensors", "07-0.12.safetensors"),
            ("{epoch}{epoch:d}{epoch:4d}|{epoch:04d}", "77   7|0007"),
            ("{val_loss:f} {val_loss:8.3f} {val_loss:08.3f} {val_loss:.0f}", "0.123456    0.123 0000.123 0"),
            ("{r2:06.2f} {r2:7.1f} {r2:.2e} {r2:e}", "-01.50    -1.5 -1.50e+00 -1.500000e+00"),
            ("{{{epoch}}} {bad:.2f} {bad:06.2f} {epoch:.1f}", "{7} nan 000nan 7.0"),
        ] {
            assert_eq!(fill(text).unwrap(), path, "{text}");
        }
        let names: Vec<String> = Template::new("{epoch}/{val_loss:.2f}").unwrap().names().map(str::to_string).collect();
        assert_eq!(names, ["epoch", "val_loss"]);
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        for text in [
            "{epoch",
            "epoch}",
            "{}",
            "{:02d}",
            "{epoch:<4d}",
            "{epoch:x}",
            "{val_loss:.2}",
            "{epoch:.2d}",
            "{epoch:9999999999999999999999d}",
            "{epoch:999d}",
            "{val_loss:.f}",
        ] {
            assert!(
                matches!(Template::new(text), Err(error) if matches!(error.kind(), ErrorKind::Argument { .. })),
                "{text}"
            );
        }
        let error = fill("{loss:.2f}").unwrap_err().to_string();
        assert_eq!(error, "there is no number \"loss\" for a path; there are epoch, val_loss, r2, bad");
        assert!(fill("{val_loss:d}").is_err());
    }
}
