//! What is written beside the weights: tables, and event files, which are read here by a reader of their own.

use wengert::prelude::*;

use super::{Folder, compiled, data};
use crate::{adam, mlp, quiet, silent};

/// The rows of a table.
fn table(text: &[u8], separator: char) -> Vec<Vec<String>> {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().map(|line| line.split(separator).map(str::to_string).collect()).collect()
}

#[test]
fn a_table_has_the_scores_of_each_epoch() {
    let (x, y) = data();
    let folder = Folder::new("table");
    let mut log = CSVLogger::new(folder.path("log.csv")).separator(';');
    let options = Fit { epochs: 3, validation_data: Some((&x, &y).into()), callbacks: vec![&mut log], ..silent() };
    let history = compiled().fit_blocking((&x, &y), options).unwrap();
    let rows = table(&folder.read("log.csv"), ';');
    assert_eq!(rows[0], ["epoch", "loss", "mae", "val_loss", "val_mae"]);
    assert_eq!(rows.len(), 4);
    for (epoch, row) in rows[1..].iter().enumerate() {
        assert_eq!(row[0], epoch.to_string());
        for (name, value) in rows[0].iter().zip(row).skip(1) {
            // Every digit: the number itself comes back.
            assert_eq!(value.parse::<f64>().unwrap(), history.get(name).unwrap()[epoch], "{name}");
        }
    }
    // Another training replaces the file. Its first epoch is not validated, so columns are kept for that, as in Keras.
    let mut log = CSVLogger::new(folder.path("log.csv"));
    let validation_data = Some((&x, &y).into());
    let options = Fit { epochs: 2, validation_data, validation_freq: 2, callbacks: vec![&mut log], ..silent() };
    compiled().fit_blocking((&x, &y), options).unwrap();
    let rows = table(&folder.read("log.csv"), ',');
    assert_eq!(rows[0], ["epoch", "loss", "mae", "val_loss", "val_mae"]);
    assert_eq!(rows[1][3..], ["NA", "NA"]);
    assert!(rows.len() == 3 && rows[2].iter().all(|value| value.parse::<f64>().is_ok()), "{rows:?}");
}

#[test]
fn a_table_goes_on_after_a_training_was_killed() {
    let (x, y) = data();
    let folder = Folder::new("resumed");
    let fit = |log: &mut CSVLogger, from: usize, to: usize, validated: bool| {
        let validation_data = validated.then(|| (&x, &y).into());
        let options = Fit { initial_epoch: from, epochs: to, validation_data, callbacks: vec![log], ..silent() };
        let mut model = compiled();
        if from > 0 {
            model.fit_blocking((&x, &y), Fit { epochs: from, ..silent() }).unwrap();
        }
        model.fit_blocking((&x, &y), options).unwrap();
        folder.read("log.csv")
    };
    let path = folder.path("log.csv");
    let whole = fit(&mut CSVLogger::new(&path), 0, 6, true);
    // Killed in the middle of the line of epoch 4, with a checkpoint of before epoch 3.
    let cut = whole.len() - whole.iter().rev().skip(1).position(|&b| b == b'\n').unwrap() - 5;
    std::fs::write(&path, &whole[..cut]).unwrap();
    assert!(fit(&mut CSVLogger::new(&path).append(), 3, 6, true) == whole);
    // A training from the start is added to what is there, in its columns.
    let rows = table(&fit(&mut CSVLogger::new(&path).append(), 0, 2, false), ',');
    assert_eq!(rows.len(), 9);
    assert_eq!(rows[7], [&rows[1][..3], &["NA".to_string(), "NA".to_string()]].concat());
    // Where nothing is yet, appending begins.
    std::fs::remove_file(&path).unwrap();
    assert!(fit(&mut CSVLogger::new(&path).append(), 0, 6, true) == whole);
    let mut wrong = CSVLogger::new(&path).separator('"');
    compiled().fit_blocking((&x, &y), Fit { callbacks: vec![&mut wrong], ..silent() }).unwrap_err();
}

/// CRC-32C, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc % 2 == 1 { (crc / 2) ^ 0x82F6_3B78 } else { crc / 2 };
        }
    }
    !crc
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[..4].try_into().unwrap())
}

/// Asserts that a stored checksum is that of the bytes: it was turned by 15 bits, and a number was added.
fn sound(bytes: &[u8], stored: u32) {
    let turned = stored.wrapping_sub(0xA282_EAD8);
    assert_eq!(turned.rotate_left(15), crc(bytes));
}

/// The fields of a protobuf message: number, and bytes (of a varint: its value in eight).
fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key % 8 {
            0 => {
                fields.push((key / 8, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        fields.push((key / 8, bytes[..length].to_vec()));
        bytes = &bytes[length..];
    }
    fields
}

fn only(fields: &[(u64, Vec<u8>)], number: u64) -> Option<&[u8]> {
    let mut found = fields.iter().filter(|field| field.0 == number);
    let first = found.next();
    assert!(found.next().is_none(), "field {number} twice");
    first.map(|field| field.1.as_slice())
}

/// The scalars of the event files of a folder, as (tag, step, value), and the number of files.
pub fn scalars(folder: &std::path::Path) -> (Vec<(String, u64, f32)>, usize) {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let mut scalars = Vec::new();
    for path in &paths {
        assert!(path.file_name().unwrap().to_str().unwrap().contains("tfevents"));
        let bytes = std::fs::read(path).unwrap();
        let (mut rest, mut first, mut last) = (bytes.as_slice(), true, 0.0);
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            sound(&rest[..8], word(&rest[8..]));
            let data = &rest[12..12 + length];
            sound(data, word(&rest[12 + length..]));
            rest = &rest[16 + length..];
            let event = fields(data);
            let time = f64::from_le_bytes(only(&event, 1).unwrap().try_into().unwrap());
            assert!(time > 1.7e9 && time >= last, "{time} after {last}");
            last = time;
            if std::mem::take(&mut first) {
                assert_eq!(only(&event, 3), Some(&b"brain.Event:2"[..]));
                continue;
            }
            let step = only(&event, 2).map_or(0, |step| u64::from_le_bytes(step.try_into().unwrap()));
            for (number, value) in fields(only(&event, 5).unwrap()) {
                assert_eq!(number, 1);
                let value = fields(&value);
                let tag = String::from_utf8(only(&value, 1).unwrap().to_vec()).unwrap();
                scalars.push((tag, step, f32::from_bits(word(only(&value, 2).unwrap()))));
            }
        }
    }
    (scalars, paths.len())
}

#[test]
fn the_reader_of_this_test_knows_checksums() {
    assert_eq!(crc(b"123456789"), 0xE306_9283);
    assert_eq!(crc(&[0; 32]), 0x8A91_36AA);
}

/// Scalars of one tag.
pub fn of(scalars: &[(String, u64, f32)], tag: &str) -> Vec<(u64, f64)> {
    scalars.iter().filter(|scalar| scalar.0 == tag).map(|scalar| (scalar.1, f64::from(scalar.2))).collect()
}

#[test]
fn event_files_have_the_scores_of_epochs_and_batches() {
    let (x, y) = data();
    let folder = Folder::new("events");
    let logs = std::cell::RefCell::new(Vec::new());
    let mut see = LambdaCallback::new()
        .on_batch_end(|run| logs.borrow_mut().push(pollster::block_on(run.read_logs()).unwrap().get("loss").unwrap()));
    let mut board = TensorBoard::new(&folder.0).update_freq(3).write_steps_per_second();
    // 8 steps an epoch, 300 epochs: steps need two bytes.
    let callbacks: Vec<&mut dyn Callback> = vec![&mut see, &mut board];
    let validation_data = Some((&x, &y).into());
    let options = Fit { batch_size: 4, epochs: 40, validation_data, callbacks, ..silent() };
    let mut model = compiled();
    let history = model.fit_blocking((&x, &y), options).unwrap();
    drop(see);
    let (train, files) = scalars(&folder.0.join("train"));
    assert_eq!(files, 1);
    let each = |name: &str| (0..).zip(history.get(name).unwrap().iter().copied()).collect::<Vec<_>>();
    assert_eq!(of(&train, "epoch_loss"), each("loss"));
    assert_eq!(of(&train, "epoch_mae"), each("mae"));
    let rate = f64::from(0.001f32);
    assert_eq!(of(&train, "epoch_learning_rate"), (0..40).map(|epoch| (epoch, rate)).collect::<Vec<_>>());
    let speed = of(&train, "epoch_steps_per_second");
    assert!(speed.len() == 40 && speed.iter().all(|&(_, speed)| speed > 0.0));
    let logs = logs.into_inner();
    let every_third = (3..=320).step_by(3).map(|step| (step as u64, logs[step - 1])).collect::<Vec<_>>();
    assert_eq!(of(&train, "batch_loss"), every_third);
    assert_eq!(of(&train, "batch_mae").len(), every_third.len());
    let (validation, files) = scalars(&folder.0.join("validation"));
    assert_eq!(files, 1);
    assert_eq!(of(&validation, "epoch_loss"), each("val_loss"));
    let updates = (1..=40).map(|epoch| epoch * 8).zip(history.get("val_loss").unwrap().iter().copied());
    assert_eq!(of(&validation, "evaluation_loss_vs_iterations"), updates.collect::<Vec<_>>());
    assert_eq!(train.len(), 40 * 4 + every_third.len() * 2);
    assert_eq!(validation.len(), 40 * 4);

    // A training that is resumed goes on in a new file, with its steps; evaluation is written too.
    let options = Fit { batch_size: 4, initial_epoch: 40, epochs: 41, callbacks: vec![&mut board], ..silent() };
    model.fit_blocking((&x, &y), options).unwrap();
    let options = Evaluate { callbacks: vec![&mut board], ..quiet() };
    let scores = model.evaluate_blocking((&x, &y), options).unwrap();
    let (train, files) = scalars(&folder.0.join("train"));
    assert_eq!((files, of(&train, "epoch_loss").last().unwrap().0), (2, 40));
    assert_eq!(of(&train, "batch_loss")[every_third.len()..].iter().map(|b| b.0).collect::<Vec<_>>(), [321, 324, 327]);
    let (validation, files) = scalars(&folder.0.join("validation"));
    assert_eq!(files, 2);
    let last = *of(&validation, "evaluation_loss_vs_iterations").last().unwrap();
    assert_eq!(last, (328, scores.get("loss").unwrap()));
}

#[test]
fn fused_steps_are_written_at_the_step_that_was_read() {
    let (x, y) = data();
    let folder = Folder::new("fused-events");
    let mut model = mlp();
    model.compile(Compile { steps_per_execution: 4, ..adam() }).unwrap();
    let mut board = TensorBoard::new(&folder.0).update_freq(6);
    let options = Fit { batch_size: 4, epochs: 3, callbacks: vec![&mut board], ..silent() };
    let history = model.fit_blocking((&x, &y), options).unwrap();
    let (train, _) = scalars(&folder.0.join("train"));
    let batches = of(&train, "batch_loss");
    // 6, 12, 18 and 24, each at the end of the submission that reaches it.
    assert_eq!(batches.iter().map(|batch| batch.0).collect::<Vec<_>>(), [8, 12, 20, 24]);
    assert_eq!(batches[3].1, history.last("loss").unwrap());
    assert!(!folder.0.join("validation").exists());
}
