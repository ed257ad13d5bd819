//! Bindings: through which binding a dispatch reaches each of its tensors, and the functions that load and store them.
//!
//! WebGPU wants one access mode for a buffer in a dispatch, and eight bindings are all that is portable; so tensors that
//! lie in one buffer share a binding, and each gets accessor functions that know where it begins.

use std::fmt::Write;

use super::emit::{Touch, Unit};
use super::kernel::{Binding, Context};
use super::program::Id;
use super::turns::Stride;
use crate::dtype::DType;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::{Access, Range};
use crate::graph::Slot;

/// One storage binding and the tensors reached through it.
pub(super) struct Bound {
    pub var: String,
    pub ids: Vec<Id>,
    pub start: u64,
    pub end: u64,
    pub written: bool,
    pub stored: DType,
    pub vec4: bool,
    /// Declared by the shader file already; `start` and `end` are relative to the tensor.
    pub declared: bool,
}

impl Context<'_> {
    pub(super) fn slot(&self, id: Id) -> Result<&Slot> {
        let missing =
            || Error::new(ErrorKind::Validation { why: format!("{} has no place", self.program.vals[id].name) });
        self.slots.get(&id).ok_or_else(missing)
    }

    /// Assigns every tensor of the unit to a binding and declares its accessor functions.
    pub(super) fn accessors(&self, unit: &mut Unit, bounds: &mut Vec<Bound>, share: bool) -> Result<String> {
        if let Some(why) = unit.defect.take() {
            return Err(Error::new(ErrorKind::Validation { why }));
        }
        let tensors = unit.tensors.clone();
        let mut binding = Vec::new();
        for (id, touch) in &tensors {
            let slot = self.slot(*id)?;
            let written = touch.write || touch.write4;
            let (start, end) = (slot.offset, slot.offset + self.extent(*id));
            let dtype = self.program.vals[*id].dtype;
            let beside = |bound: &Bound| {
                !bound.declared && self.slots.get(&bound.ids[0]).is_some_and(|s| s.buffer.id() == slot.buffer.id())
            };
            // No binding grows into another of the buffer, which may be larger than a binding.
            let grows = |at: usize| {
                let (from, to) = (bounds[at].start.min(start), bounds[at].end.max(end));
                let meets = |other: &Bound| beside(other) && from < other.end && other.start < to;
                to - from <= self.target.binding_bytes
                    && !bounds.iter().enumerate().any(|(other, bound)| other != at && meets(bound))
            };
            let found = bounds.iter().enumerate().position(|(at, bound)| match bound.declared {
                true => bound.ids.contains(id) && !written,
                // What a result is written over shares its binding in any case: two of one range may not be writable.
                false => beside(bound) && (share || (start < bound.end && bound.start < end)) && grows(at),
            });
            let at = match found {
                Some(at) => at,
                None => {
                    let var = format!("b{}", bounds.len());
                    bounds.push(Bound {
                        var,
                        ids: vec![],
                        start,
                        end,
                        written: false,
                        stored: dtype,
                        vec4: false,
                        declared: false,
                    });
                    bounds.len() - 1
                }
            };
            let bound = &mut bounds[at];
            if !bound.declared {
                bound.start = bound.start.min(start);
                bound.end = bound.end.max(end);
                let aligned = self.stride(*id).is_none_or(|(stride, _)| stride.is_aligned());
                bound.vec4 |= aligned && (touch.read4 || touch.write4);
                if dtype.wgsl_stored() != bound.stored.wgsl_stored() {
                    bound.stored = DType::U32;
                }
            }
            bound.written |= written;
            if !bound.ids.contains(id) {
                bound.ids.push(*id);
            }
            binding.push(at);
        }
        let mut text = String::new();
        for (index, ((id, touch), &at)) in tensors.iter().zip(&binding).enumerate() {
            let bound = &bounds[at];
            let slot = self.slot(*id)?;
            let start = if bound.declared { slot.offset + bound.start } else { bound.start };
            // A product's own operand may begin later than the tensor: its accessor counts back.
            let first = self.stride(*id).map_or(0, |(stride, _)| stride.first);
            // The binding of a tensor that is alone in it begins with it.
            let alone = !bound.declared && bound.ids.len() == 1 && first == 0;
            let base = (((slot.offset as i64 - start as i64) / 4) as i32 as u32).wrapping_add(first);
            let base = if alone { String::new() } else { unit.param(base) + " + " };
            text += &match self.stride(*id) {
                None => accessor(index, *touch, self.program.vals[*id].dtype, bound, &base, None),
                Some((stride, turn)) => {
                    unit.turns = true;
                    let base = format!("{base}{turn} * {} + ", unit.param(stride.words as u32));
                    let end = (!stride.is_aligned()).then(|| unit.param(self.program.vals[*id].numel as u32));
                    accessor(index, *touch, self.program.vals[*id].dtype, bound, &base, end.as_deref())
                }
            };
        }
        Ok(text)
    }

    /// How a tensor advances from turn to turn, if it does, and the number of the turn in WGSL.
    pub(super) fn stride(&self, id: Id) -> Option<(Stride, &'static str)> {
        let turns = self.turns.as_ref()?;
        turns.strides.get(&id).map(|&stride| (stride, turns.turn()))
    }

    /// Bytes a kernel may touch from the start of a tensor: one that begins a pack stands for all of it.
    fn extent(&self, id: Id) -> u64 {
        if let Some((stride, _)) = self.stride(id) {
            return stride.extent.max(4).next_multiple_of(16);
        }
        let wide = self.wide.values().find(|wide| wide.firsts.contains(&id));
        wide.map_or(self.program.vals[id].bytes().max(4).next_multiple_of(16), |wide| wide.elements as u64 * 4)
    }

    pub(super) fn range(&self, bound: &Bound) -> Result<Range> {
        let slot = self.slot(bound.ids[0])?;
        let (start, end) = if bound.declared {
            (slot.offset + bound.start, slot.offset + bound.end)
        } else {
            (bound.start, bound.end)
        };
        let end = end.next_multiple_of(16).min(slot.buffer.size());
        Ok(Range { buffer: slot.buffer.clone(), offset: start, size: end.saturating_sub(start).max(16) })
    }

    /// A buffer that one binding writes must be bound for writing by all.
    pub(super) fn is_written(&self, bound: &Bound, bounds: &[Bound]) -> bool {
        let buffer = |b: &Bound| self.slots.get(&b.ids[0]).map(|slot| slot.buffer.id());
        bounds.iter().any(|other| other.written && buffer(other) == buffer(bound))
    }

    pub(super) fn with_access(&self, ranges: Vec<Range>, bounds: &[Bound]) -> Vec<Binding> {
        let access = |bound: &Bound| if self.is_written(bound, bounds) { Access::ReadWrite } else { Access::Read };
        ranges.into_iter().zip(bounds).map(|(range, bound)| Binding::Storage(range, access(bound))).collect()
    }

    pub(super) fn declare(&self, bound: &Bound, binding: usize, bounds: &[Bound]) -> String {
        let access = if self.is_written(bound, bounds) { "read_write" } else { "read" };
        let stored = bound.stored.wgsl_stored();
        let element = if bound.vec4 { format!("vec4<{stored}>") } else { stored.into() };
        format!("@group(0) @binding({binding}) var<storage, {access}> {}: array<{element}>;\n", bound.var)
    }
}

/// The functions through which one tensor is loaded and stored, where `base` is what precedes an index in it. One that does not begin on four elements in every turn
/// is reached one by one, up to its `end`.
fn accessor(index: usize, touch: Touch, dtype: DType, bound: &Bound, base: &str, end: Option<&str>) -> String {
    let (value, stored, held) = (dtype.wgsl(), dtype.wgsl_stored(), bound.stored.wgsl_stored());
    let load = |element: String, four: bool| {
        let wrap = |name: &str| if four { format!("vec4<{name}>") } else { name.to_string() };
        let element = if held == stored { element } else { format!("bitcast<{}>({element})", wrap(stored)) };
        match dtype {
            DType::Bool => format!("{element} != {}(0u)", wrap("u32")),
            _ => element,
        }
    };
    let keep = |four: bool| {
        let wrap = |name: &str| if four { format!("vec4<{name}>") } else { name.to_string() };
        let value = match dtype {
            DType::Bool => format!("select({0}(0u), {0}(1u), v)", wrap("u32")),
            _ => "v".into(),
        };
        if held == stored { value } else { format!("bitcast<{}>({value})", wrap(held)) }
    };
    let var = &bound.var;
    let one = if bound.vec4 { format!("{var}[({base}i) >> 2u][({base}i) & 3u]") } else { format!("{var}[{base}i]") };
    let four = format!("{var}[({base}i) >> 2u]");
    let mut text = String::new();
    if touch.read || (end.is_some() && touch.read4) {
        writeln!(text, "fn r{index}(i: u32) -> {value} {{ return {}; }}", load(one.clone(), false)).ok();
    }
    if end.is_some() && touch.read4 {
        let parts: Vec<String> = (0..4).map(|lane| format!("r{index}(i + {lane}u)")).collect();
        let four = format!("vec4<{value}>({})", parts.join(", "));
        writeln!(text, "fn r{index}v(i: u32) -> vec4<{value}> {{ return {four}; }}").ok();
    } else if touch.read4 {
        writeln!(text, "fn r{index}v(i: u32) -> vec4<{value}> {{ return {}; }}", load(four.clone(), true)).ok();
    }
    if touch.write || (end.is_some() && touch.write4) {
        writeln!(text, "fn w{index}(i: u32, v: {value}) {{ {one} = {}; }}", keep(false)).ok();
    }
    if let Some(end) = end.filter(|_| touch.write4) {
        let part = |lane: u32| format!("if (i + {lane}u < {end}) {{ w{index}(i + {lane}u, v[{lane}]); }}");
        let parts: Vec<String> = (0..4).map(part).collect();
        writeln!(text, "fn w{index}v(i: u32, v: vec4<{value}>) {{ {} }}", parts.join(" ")).ok();
    } else if touch.write4 {
        writeln!(text, "fn w{index}v(i: u32, v: vec4<{value}>) {{ {four} = {}; }}", keep(true)).ok();
    }
    text
}
