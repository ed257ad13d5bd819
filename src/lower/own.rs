//! Kernels that ops bring themselves, see [`crate::graph::Kernel`]: the functions they call are written here.
//!
//! Deliberately absent: fusion. What such a kernel reads is in memory and what it computes goes there; ops whose results
//! should flow on in registers are maps and folds.

use std::fmt::Write;

use super::emit::{Unit, wgsl_type};
use super::kernel::{Context, Kernel, Thread};
use super::program::Kind;
use crate::error::{Error, ErrorKind, Result};

/// Workgroups that any device takes in one dimension.
const DIMENSION: u32 = 65535;

impl Context<'_> {
    /// Writes the kernel of a group whose op has brought it.
    pub(super) fn own(&self, group: usize) -> Result<Kernel> {
        let members = &self.fused.groups[group].members;
        let val = &self.program.vals[members[0]];
        let wrong =
            |what: &str| Error::new(ErrorKind::Validation { why: format!("{} {what} ({})", val.name, val.place) });
        let Kind::Kernel(kernel, _) = &val.kind else { return Err(wrong("has no kernel of its own")) };
        let (text, width) = kernel.text_for(self.target.subgroup);
        let calls = |function: &str| text.contains(&format!("{function}("));
        let (mut unit, mut given) = (Unit::default(), String::new());
        let word = |unit: &mut Unit, name: &str, value: usize| {
            let called = calls(name).then(|| unit.param(value as u32));
            called.map_or(String::new(), |word| format!("fn {name}() -> u32 {{ return {word}; }}\n"))
        };
        for (n, &size) in kernel.words.iter().enumerate() {
            given += &word(&mut unit, &format!("size_{n}"), size as usize);
        }
        for (k, &operand) in val.inputs.iter().enumerate() {
            let seen = &self.program.vals[operand];
            let Kind::View(view) = &seen.kind else { return Err(wrong("has an operand that is no view")) };
            let source = seen.inputs[0];
            let (tensor, dtype) = (unit.tensor(source), self.program.vals[source].dtype);
            for (axis, &stride) in view.strides.iter().enumerate() {
                given += &word(&mut unit, &format!("stride_{k}_{axis}"), stride as usize);
            }
            let [one, four] = [calls(&format!("load_{k}")), calls(&format!("load_{k}_4"))];
            let first = unit.param(view.offset as u32);
            if one {
                let ty = wgsl_type(dtype, 1);
                writeln!(given, "fn load_{k}(i: u32) -> {ty} {{ return r{tensor}({first} + i); }}").ok();
            }
            if four {
                let ty = wgsl_type(dtype, 4);
                writeln!(given, "fn load_{k}_4(i: u32) -> {ty} {{ return r{tensor}v({first} + i); }}").ok();
            }
            let touch = &mut unit.tensors[tensor].1;
            (touch.read, touch.read4) = (touch.read || one, touch.read4 || four);
        }
        for (k, &output) in members.iter().enumerate() {
            let (tensor, dtype) = (unit.tensor(output), self.program.vals[output].dtype);
            let [one, four] = [calls(&format!("store_{k}")), calls(&format!("store_{k}_4"))];
            if one {
                writeln!(given, "fn store_{k}(i: u32, v: {}) {{ w{tensor}(i, v); }}", wgsl_type(dtype, 1)).ok();
            }
            if four {
                writeln!(given, "fn store_{k}_4(i: u32, v: {}) {{ w{tensor}v(i, v); }}", wgsl_type(dtype, 4)).ok();
            }
            let touch = &mut unit.tensors[tensor].1;
            (touch.write, touch.write4) = (one, four);
        }
        unit.globals = format!("{given}{text}\n");
        // Zero that no driver sees through, see `assemble`: a loop's bound must not be a word of the uniform alone. These grids
        // may have a third dimension.
        unit.globals += "var<private> unseen: u32;\n";
        let asked = kernel.workgroups.map(|n| n.max(1));
        let all: u64 = asked.iter().map(|&n| u64::from(n)).product();
        let (mut grid, mut run) = (asked, "run(group, lane);".to_string());
        if asked.iter().any(|&n| n > DIMENSION) {
            // Workgroups are numbered, and find their place in the grid that was asked for. Surplus ones run nothing, all
            // of their lanes alike.
            let most = u64::from(DIMENSION);
            if all > most * most {
                let what = format!("the workgroups of {} ({})", val.name, val.place);
                return Err(Error::new(ErrorKind::Limit { what, need: all, have: most * most }));
            }
            grid = [DIMENSION, all.div_ceil(most) as u32, 1];
            let [x, y, all] = [asked[0], asked[1], all as u32].map(|n| unit.param(n));
            run = format!(
                "let at = group.y * groups.x + group.x;\nlet row = at / {x};\n\
                 if (at < {all}) {{ run(vec3<u32>(at % {x}, row % {y}, row / {y}), lane); }}"
            );
        }
        let body = format!("unseen = groups.z - {};\n{run}\n", unit.param(grid[2]));
        let mut written = self.assemble(unit, &[group], &body, width, 1, Thread::Lane)?;
        written.grid = grid;
        Ok(written)
    }
}
