//! [`EventFile`]: the file format that TensorBoard reads.
//!
//! A file is a sequence of records (TFRecord: length, checksum of the length, bytes, checksum of the bytes), each the
//! protobuf message `Event`. Of that message a scalar needs five fields, so they are encoded here by hand. Sources:
//! `tensorflow/core/lib/io/record_writer.h`, `tensorflow/core/util/event.proto`, `tensorflow/core/framework/summary.proto`.
//! Deliberately absent: reading, and every kind of event but scalars.

#![cfg(not(target_arch = "wasm32"))]

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoError, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use web_time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, ErrorKind, Result};
use crate::io;
use crate::model::crc::{CASTAGNOLI, Crc};

/// As records store it, so that a checksum of data that holds checksums is none of them again.
fn masked(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new(CASTAGNOLI);
    sum.update(bytes);
    sum.sum().rotate_right(15).wrapping_add(0xa282_ead8)
}

fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend(length);
    record.extend(masked(&length).to_le_bytes());
    record.extend(data);
    record.extend(masked(data).to_le_bytes());
    record
}

/// A protobuf message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut value: u64) -> Message {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    /// The head of a field; wire types are 0 for varints, 1 for 8 bytes, 2 for a length and bytes, 5 for 4 bytes.
    fn key(self, field: u64, wire: u64) -> Message {
        self.varint(field << 3 | wire)
    }

    fn int(self, field: u64, value: u64) -> Message {
        self.key(field, 0).varint(value)
    }

    fn fixed<const N: usize>(self, field: u64, bytes: [u8; N]) -> Message {
        let mut message = self.key(field, if N == 8 { 1 } else { 5 });
        message.0.extend(bytes);
        message
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Message {
        let mut message = self.key(field, 2).varint(bytes.len() as u64);
        message.0.extend(bytes);
        message
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// `Event { wall_time: 1, step: 2, file_version: 3 | summary: 5 }`.
fn event(wall_time: f64, step: u64) -> Message {
    let event = Message::default().fixed(1, wall_time.to_le_bytes());
    // 0 is what a reader takes a missing field for.
    if step == 0 { event } else { event.int(2, step) }
}

/// `Summary { value: 1 { tag: 1, simple_value: 2 } }`.
fn scalar(wall_time: f64, step: u64, tag: &str, value: f32) -> Vec<u8> {
    let value = Message::default().bytes(1, tag.as_bytes()).fixed(2, value.to_le_bytes());
    event(wall_time, step).bytes(5, &Message::default().bytes(1, &value.0).0).0
}

/// Makes the name of a file the only one of its process.
static FILES: AtomicU32 = AtomicU32::new(0);

/// A file of events that is being written.
pub(super) struct EventFile {
    folder: PathBuf,
    /// What the name is made of: the time in seconds, the process and a number.
    id: [u64; 3],
    /// Bytes so far.
    length: u64,
    file: Option<File>,
}

impl EventFile {
    /// A new file in a folder. Both are made when something is written, so that no empty ones lie about.
    pub fn new(folder: PathBuf) -> EventFile {
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let id = [seconds() as u64, u64::from(std::process::id()), u64::from(number)];
        EventFile { folder, id, length: 0, file: None }
    }

    /// Which file this is and how long: what [`resume`](EventFile::resume) goes on from.
    pub fn place(&self) -> [u64; 4] {
        let [time, process, number] = self.id;
        [time, process, number, self.length]
    }

    /// Goes on with the file of a place, without what was written to it later. A file that is not there any more, or
    /// has lost some of its bytes, is left alone for a new one.
    pub fn resume(folder: PathBuf, [time, process, number, length]: [u64; 4]) -> Result<EventFile> {
        let mut events = EventFile { folder, id: [time, process, number], length, file: None };
        let path = events.path();
        if length == 0 {
            return io::remove(path).map(|()| events);
        }
        // For writing, not appending, which on Windows does not allow to cut.
        match OpenOptions::new().write(true).open(&path) {
            Ok(mut file) if file.metadata().is_ok_and(|is| is.len() >= length) => {
                file.set_len(length).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed(&path))?;
                events.file = Some(file);
                Ok(events)
            }
            Err(why) if why.kind() != IoError::NotFound => Err(failed(&path)(why)),
            _ => Ok(EventFile::new(events.folder)),
        }
    }

    fn path(&self) -> PathBuf {
        // Readers take files in the order of their names, so the time comes first.
        let [time, process, number] = self.id;
        self.folder.join(format!("events.out.tfevents.{time:010}.wengert.{process}.{number}"))
    }

    /// Appends scalars at a step, as one piece, so that who reads at the same time sees whole records.
    pub fn scalars(&mut self, step: usize, scalars: impl IntoIterator<Item = (String, f64)>) -> Result<()> {
        let now = seconds();
        let record = |(tag, value): (String, f64)| record(&scalar(now, step as u64, &tag, value as f32));
        let mut records: Vec<u8> = scalars.into_iter().flat_map(record).collect();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                records.splice(..0, self::record(&event(now, 0).bytes(3, b"brain.Event:2").0));
                self.create()?
            }
        };
        file.write_all(&records).map_err(failed(&self.path()))?;
        self.length += records.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn create(&mut self) -> Result<File> {
        fs::create_dir_all(&self.folder).map_err(failed(&self.folder))?;
        self.length = 0;
        loop {
            let path = self.path();
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                // Processes of two machines may have one number.
                Err(why) if why.kind() == IoError::AlreadyExists => self.id[2] += 1,
                file => return file.map_err(failed(&path)),
            }
        }
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |why| Error::new(ErrorKind::Io { path: path.display().to_string(), why: why.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4, and the check value of the catalogue of CRCs.
    #[test]
    fn checksums_are_known_ones() {}

    /// The bytes that protoc's encoder makes of the same message, and the record around it.
    #[test]
    fn a_scalar_is_these_bytes() {
        let event = scalar(1.5, 300, "loss", 0.25);
        let expected = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xF8, 0x3F, 0x10, 0xAC, 0x02, 0x2A, 13, 0x0A, 11, 0x0A, 4][..],
            b"loss",
            &[0x15, 0, 0, 0x80, 0x3E],
        ];
        assert_eq!(event, expected.concat());
        let record = record(&event);
        assert_eq!(record[..8], 27u64.to_le_bytes());
        assert_eq!(record.len(), 27 + 16);
    }
}
