//! The header of a safetensors file: JSON that maps the name of each tensor to its type, its shape and its bytes.
//!
//! Source: the description of the format (github.com/huggingface/safetensors, "Format"). Read is as much of JSON as the
//! format has: objects, lists of whole numbers, and strings with all their escapes. Deliberately absent: any other JSON,
//! and what the types mean.

use crate::sort::{sort, sort_by};
use std::fmt::Write;

/// The entry that is not a tensor.
const METADATA: &str = "__metadata__";

/// What a header says of one tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub name: String,
    /// The format's name of its type: "F32".
    pub kind: String,
    pub shape: Vec<usize>,
    /// Its bytes begin and end so many after the header.
    pub range: [usize; 2],
}

/// What a header says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    /// In the order of their bytes.
    pub entries: Vec<Entry>,
    pub metadata: Vec<(String, String)>,
}

impl Header {
    /// The text, padded so that the bytes after it and a length before it lie on multiples of 8.
    pub fn to_text(&self) -> String {
        let mut text = String::from("{");
        let mut separator = "";
        if !self.metadata.is_empty() {
            let pairs = self.metadata.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)));
            text += &format!("\"{METADATA}\":{{{}}}", pairs.collect::<Vec<_>>().join(","));
            separator = ",";
        }
        for Entry { name, kind, shape, range: [from, to] } in &self.entries {
            let (name, shape) = (quoted(name), shape.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
            text += &format!(
                "{separator}{name}:{{\"dtype\":\"{kind}\",\"shape\":[{shape}],\"data_offsets\":[{from},{to}]}}"
            );
            separator = ",";
        }
        text.push('}');
        let padding = text.len().next_multiple_of(8) - text.len();
        text + &" ".repeat(padding)
    }

    /// What a text says, or what is wrong with it.
    pub fn parse(text: &[u8]) -> Result<Header, String> {
        let mut reader = Reader { text, at: 0 };
        let header = reader.header().filter(|_| reader.peek().is_none());
        let mut header = header.ok_or_else(|| format!("its header is malformed at byte {}", reader.at))?;
        sort_by(&mut header.entries, |a, b| (a.range, &a.name).cmp(&(b.range, &b.name)));
        let mut end = 0;
        for Entry { name, range, .. } in &header.entries {
            if range[0] != end || range[1] < range[0] {
                return Err(format!("its header is wrong: the bytes of {name} do not follow those before"));
            }
            end = range[1];
        }
        Ok(header)
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.range[1])
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            // Writing to a string cannot fail.
            ..' ' => drop(write!(quoted, "\\u{:04x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A text and the place in it that is read next.
struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    /// What `each` reads, separated by commas, up to the byte that closes.
    fn list(&mut self, [open, close]: [u8; 2], each: &mut dyn FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(open)?;
        if self.eat(close) {
            return Some(());
        }
        loop {
            each(self)?;
            if !self.eat(b',') {
                return self.take(close);
            }
        }
    }

    fn object(&mut self, each: &mut dyn FnMut(String, &mut Self) -> Option<()>) -> Option<()> {
        self.list(*b"{}", &mut |reader| {
            let key = reader.string()?;
            reader.take(b':')?;
            each(key, reader)
        })
    }

    fn header(&mut self) -> Option<Header> {
        let mut header = Header::default();
        self.object(&mut |name, reader| {
            if name == METADATA {
                return reader.object(&mut |key, reader| {
                    header.metadata.push((key, reader.string()?));
                    Some(())
                });
            }
            header.entries.push(reader.entry(name)?);
            Some(())
        })?;
        let mut names: Vec<&str> = header.entries.iter().map(|entry| &*entry.name).collect();
        sort(&mut names);
        names.windows(2).all(|pair| pair[0] != pair[1]).then_some(())?;
        Some(header)
    }

    fn entry(&mut self, name: String) -> Option<Entry> {
        let (mut kind, mut shape, mut range) = (None, None, None);
        self.object(&mut |key, reader| {
            match key.as_str() {
                "dtype" => kind = Some(reader.string()?),
                "shape" => shape = Some(reader.numbers()?),
                "data_offsets" => range = Some(reader.numbers()?.try_into().ok()?),
                _ => return None,
            }
            Some(())
        })?;
        Some(Entry { name, kind: kind?, shape: shape?, range: range? })
    }

    fn numbers(&mut self) -> Option<Vec<usize>> {
        let mut numbers = Vec::new();
        self.list(*b"[]", &mut |reader| {
            reader.peek()?;
            let digits = reader.text[reader.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            let text = &reader.text[reader.at..reader.at + digits];
            numbers.push(std::str::from_utf8(text).ok()?.parse().ok()?);
            reader.at += digits;
            Some(())
        })?;
        Some(numbers)
    }

    fn string(&mut self) -> Option<String> {
        self.take(b'"')?;
        let mut bytes = Vec::new();
        loop {
            let byte = *self.text.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(bytes).ok(),
                b'\\' => {
                    let letter = self.escape()?;
                    bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
                }
                ..b' ' => return None,
                _ => bytes.push(byte),
            }
        }
    }

    /// The letter that an escape stands for, after its backslash.
    fn escape(&mut self) -> Option<char> {
        let letter = *self.text.get(self.at)?;
        self.at += 1;
        Some(match letter {
            b'"' | b'\\' | b'/' => char::from(letter),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => match self.unit()? {
                // Beyond the first 65,536, letters are pairs of units of UTF-16.
                first @ 0xd800..0xdc00 => {
                    let follows = self.text.get(self.at..self.at + 2)? == b"\\u";
                    self.at += 2;
                    let second =
                        follows.then(|| self.unit()).flatten().filter(|unit| (0xdc00..0xe000).contains(unit))?;
                    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?
                }
                unit => char::from_u32(unit)?,
            },
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, shape: &[usize], range: [usize; 2]) -> Entry {
        Entry { name: name.into(), kind: "F32".into(), shape: shape.into(), range }
    }

    #[test]
    fn what_is_written_is_read_here_and_by_the_format_s_own_library() {
        let names = ["a/kernel", "\"quoted\" \\ back", "tab\tand\nline\u{1}", "größe 𝛽"];
        let entries = names.iter().enumerate().map(|(at, name)| entry(name, &[1, 2], [8 * at, 8 * at + 8])).collect();
        let header = Header { entries, metadata: vec![("note".into(), "two\nlines, \u{7f} é".into())] };
        let text = header.to_text();
        assert_eq!(text.len() % 8, 0);
        assert_eq!(Header::parse(text.as_bytes()).unwrap(), header);
        let file = [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 32]].concat();
        let theirs = safetensors::SafeTensors::deserialize(&file).unwrap();
        names.iter().for_each(|name| assert_eq!(theirs.tensor(name).unwrap().shape(), [1, 2], "{name}"));
        let metadata = safetensors::SafeTensors::read_metadata(&file).unwrap().1;
        assert_eq!(metadata.metadata().as_ref().unwrap()["note"], "two\nlines, \u{7f} é");
    }

    #[test]
    fn other_writers_spaces_orders_and_escapes_are_read() {
        let text = r#" { "b" : {"data_offsets":[ 4 , 8 ],"dtype":"F32","shape":[ ]},
            "__metadata__":{}, "a\u00e9\ud835\udefd\/\b":{"shape":[1],"dtype":"F32","data_offsets":[0,4]} }  "#;
        let header = Header::parse(text.as_bytes()).unwrap();
        assert_eq!(header.entries, [entry("aé𝛽/\x08", &[1], [0, 4]), entry("b", &[], [4, 8])]);
        assert_eq!((header.bytes(), Header::parse(b"{}").unwrap()), (8, Header::default()));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let one = |name: &str, range: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":{range}}}"#);
        let why = |text: String| Header::parse(text.as_bytes()).unwrap_err();
        assert!(why(format!("{{{},{}}}", one("a", "[0,4]"), one("a", "[4,8]"))).contains("malformed"));
        assert!(why(format!("{{{},{}}}", one("a", "[0,4]"), one("b", "[8,12]"))).contains("bytes of b"));
        assert!(why(format!("{{{}}}", one("a", "[0,-4]"))).contains("malformed"));
        assert!(why(format!("{{{}}}", one("a", "[0,4,8]"))).contains("malformed"));
        assert!(why(format!("{{{}}}", one("a", "[0,99999999999999999999]"))).contains("malformed"));
        for text in
            ["", "{", "[]", "{} x", r#"{"a":1}"#, r#"{"a\ud835":{}}"#, r#"{"__metadata__":{"a":1}}"#, "{\"a\n\":{}}"]
        {
            assert!(why(text.into()).contains("malformed at byte"), "{text}");
        }
    }
}
