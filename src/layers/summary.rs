//! Keras' table of a network: layer (type), output shape, parameters, and what it is connected to unless that is the
//! layer above.

use std::fmt::Write;

use super::Variable;
use super::network::Graph;
use super::symbolic::entry;
use crate::shape::Shape;

/// A shape with the open batch axis before it: `(None, 32)`.
pub(super) fn batched(shape: &Shape) -> String {
    let axes: Vec<_> = std::iter::once("None".to_string()).chain(shape.iter().map(usize::to_string)).collect();
    // A tuple of one has its comma, as in Python.
    if axes.len() == 1 { "(None,)".into() } else { format!("({})", axes.join(", ")) }
}

/// 1234567 as 1,234,567.
fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in powers of 1024, two decimals.
fn bytes(n: usize) -> String {
    let (n, mut unit, mut name) = (n as u64, 1, "B");
    for larger in ["KB", "MB", "GB", "TB", "PB"] {
        if n >= unit * 1024 {
            (unit, name) = (unit * 1024, larger);
        }
    }
    // To the nearest, ties to even, as floats are printed; those would link their formatting into small builds.
    let (mut hundredths, rest) = (n / unit * 100 + n % unit * 100 / unit, n % unit * 100 % unit);
    if (rest * 2, hundredths % 2) > (unit, 0) {
        hundredths += 1;
    }
    format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
}

pub(super) fn summary(name: &str, graph: &Graph, variables: &[Variable]) -> String {
    let chain = graph.inputs == 1 && graph.calls.iter().enumerate().all(|(i, call)| call.inputs == [i]);
    let mut rows: Vec<[String; 4]> = Vec::new();
    let joined = |ports: &[usize]| ports.iter().map(|&p| &*graph.ports[p].name).collect::<Vec<_>>().join(", ");
    if !chain {
        for port in &graph.ports[..graph.inputs] {
            let shape = batched(&entry(&port.spec.shape));
            rows.push([format!("{} (InputLayer)", port.name), shape, "0".into(), "-".into()]);
        }
    }
    let mut counted = vec![false; graph.layers.len()];
    for (call, port) in graph.calls.iter().zip(&graph.ports[graph.inputs..]) {
        let layer = &graph.layers[call.layer];
        // A shared layer's parameters are counted at its first call.
        let params = if std::mem::replace(&mut counted[call.layer], true) {
            0
        } else {
            layer.variables.iter().map(Variable::count).sum()
        };
        rows.push([
            format!("{} ({})", layer.name, layer.layer.layer().type_name()),
            batched(&entry(&port.spec.shape)),
            grouped(params),
            joined(&call.inputs),
        ]);
    }
    let heads = ["Layer (type)", "Output Shape", "Param #", "Connected to"];
    // Keras' widths for 80 columns; longer contents widen them.
    let least: &[usize] = if chain { &[31, 22, 13] } else { &[19, 17, 10, 17] };
    let widths: Vec<usize> = (least.iter().enumerate())
        .map(|(c, &least)| rows.iter().map(|row| row[c].chars().count()).fold(least, usize::max))
        .collect();
    let rule = |left: &str, line: &str, middle: &str, right: &str| {
        let lines: Vec<_> = widths.iter().map(|width| line.repeat(width + 2)).collect();
        format!("{left}{}{right}\n", lines.join(middle))
    };
    let line = |cells: &[String], bar: &str| {
        let cells: Vec<_> = (widths.iter().zip(cells).enumerate())
            .map(|(c, (&width, cell))| match c {
                2 => format!(" {cell:>width$} "),
                _ => format!(" {cell:<width$} "),
            })
            .collect();
        format!("{bar}{}{bar}\n", cells.join(bar))
    };
    let mut text = format!("Model: \"{name}\"\n");
    text += &rule("┏", "━", "┳", "┓");
    text += &line(&heads.map(String::from), "┃");
    text += &rule("┡", "━", "╇", "┩");
    for (i, row) in rows.iter().enumerate() {
        if i > 0 {
            text += &rule("├", "─", "┼", "┤");
        }
        text += &line(row, "│");
    }
    text += &rule("└", "─", "┴", "┘");
    let of = |trainable: &dyn Fn(bool) -> bool| -> (usize, usize) {
        let counted = variables.iter().filter(|v| trainable(v.trainable));
        let (count, size) = counted.fold((0, 0), |(n, size), v| (n + v.count(), size + v.count() * v.dtype.bytes()));
        (count, size)
    };
    for (label, (count, size)) in [("Total", of(&|_| true)), ("Trainable", of(&|t| t)), ("Non-trainable", of(&|t| !t))]
    {
        // Writing to a String cannot fail.
        let _ = writeln!(text, " {label} params: {} ({})", grouped(count), bytes(size));
    }
    text
}
