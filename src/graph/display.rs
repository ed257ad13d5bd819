//! Prints a graph in the order it was recorded, one line a node, with the line it came from.
//!
//! Deliberately absent: values, but for single numbers, which are a part of what is computed. What a tensor holds is read
//! with `read`, not printed by accident.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::node::{Node, Tensor};
use crate::collections::Table;
use crate::dtype::DType;
use crate::error::Result;
use crate::sort::sort_by_key;

/// The nodes that `roots` are computed from, in recording order.
pub fn collect(roots: &[Tensor]) -> Result<Vec<Arc<Node>>> {
    let mut seen: Table<u64, Arc<Node>> = Table::new();
    let mut stack = Vec::new();
    for root in roots {
        stack.push(root.node()?.0.clone());
    }
    while let Some(node) = stack.pop() {
        if seen.insert(node.number(), node.clone()).is_none() {
            for input in node.inputs() {
                stack.push(input.node()?.0.clone());
            }
        }
    }
    let mut nodes: Vec<_> = seen.into_values().collect();
    sort_by_key(&mut nodes, |node| node.number());
    Ok(nodes)
}

/// A printable graph: `println!("{}", Graph::of(&[loss])?)`.
pub struct Graph {
    nodes: Vec<Arc<Node>>,
    roots: Vec<Tensor>,
}

impl Graph {
    /// The graph behind `roots`.
    pub fn of(roots: &[Tensor]) -> Result<Graph> {
        Ok(Graph { nodes: collect(roots)?, roots: roots.to_vec() })
    }

    /// Number of recorded nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index: Table<u64, usize> = self.nodes.iter().enumerate().map(|(i, n)| (n.number(), i)).collect();
        let name = |tensor: &Tensor| match tensor.node() {
            Ok((node, 0)) => format!("%{}", index[&node.number()]),
            Ok((node, output)) => format!("%{}.{output}", index[&node.number()]),
            Err(_) => "poisoned".into(),
        };
        for (i, node) in self.nodes.iter().enumerate() {
            let outputs: Vec<_> = node.outputs().iter().map(ToString::to_string).collect();
            let mut line = format!("%{i}: {} = {}", outputs.join(", "), node.op().name());
            let attributes = node.op().attributes();
            if !attributes.is_empty() {
                write!(line, "[{attributes}]")?;
            }
            if let (Some(&[only]), 1) = (node.value(0).host.as_deref(), outputs.len()) {
                write!(line, " {}", number(only, node.outputs()[0].dtype))?;
            }
            let inputs: Vec<_> = node.inputs().iter().map(name).collect();
            if !inputs.is_empty() {
                write!(line, "({})", inputs.join(", "))?;
            }
            let file = node.place().at.file().rsplit('/').next().unwrap_or("");
            writeln!(
                f,
                "{line:<72} # {file}:{}{}{}",
                node.place().at.line(),
                if node.place().within.is_empty() { "" } else { " in " },
                node.place().within
            )?;
        }
        let roots: Vec<_> = self.roots.iter().map(name).collect();
        writeln!(f, "return {}", roots.join(", "))
    }
}

/// The number that bits of a dtype stand for, as it is written in a program.
pub(crate) fn number(bits: u32, dtype: DType) -> String {
    match dtype {
        DType::F32 => match f32::from_bits(bits) {
            value if value == 0.0 || (1e-3..1e6).contains(&value.abs()) => value.to_string(),
            value => format!("{value:e}"),
        },
        DType::I32 => (bits as i32).to_string(),
        DType::U32 => bits.to_string(),
        DType::Bool => (bits != 0).to_string(),
    }
}
