//! Writes the WGSL of values: expressions, index maps, loads and stores.
//!
//! One [`Unit`] is one dispatch: its uniform words, the tensors it touches, its helper functions. An [`Emitter`]
//! writes the body of one group into nested scopes, each value once per scope and index. Sizes, strides and scalars
//! become words of the uniform `q`, so the text depends on the *structure* of a computation; a batch of another size
//! compiles anew only where it changes the form of a kernel (lanes, rows in registers, a region). Tensors are reached
//! through small accessor functions that `kernel` declares once it knows which buffers they share. Deliberately absent:
//! any choice; what is computed where was decided before.

use std::fmt::Write;

use super::fuse::Fused;
use super::program::{Id, Kind, Program};
use super::space::{Level, Space, level};
use crate::collections::{Sorted, Table};
use crate::dtype::DType;
use crate::gpu::shader;
use crate::gpu::shader::shader_text;
use crate::graph::Reduction;

/// How a dispatch touches one tensor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// One element is loaded at a time somewhere.
    pub read: bool,
    /// Four elements are loaded at a time somewhere.
    pub read4: bool,
    /// One element is stored at a time somewhere.
    pub write: bool,
    /// Four elements are stored at a time somewhere.
    pub write4: bool,
}

/// What one dispatch consists of while it is being written.
#[derive(Debug, Default)]
pub struct Unit {
    /// Words of the uniform `q`.
    pub params: Vec<u32>,
    /// Tensors in order of first use; `r3` and `w3` access the fourth.
    pub tensors: Vec<(Id, Touch)>,
    /// Helper functions by name, with the files that they are from.
    pub helpers: Table<String, (String, &'static str)>,
    /// Variables at module scope (workgroup memory).
    pub globals: String,
    /// Whether some tensor lies at another place in each turn of a loop.
    pub turns: bool,
    /// Whether the words are loaded once, at the start. On a CPU a load from a uniform takes a sixth of one from memory, and
    /// under a branch or in a loop it is done again; but what is held across barriers has to be saved there.
    pub held: bool,
    /// What a pass got wrong; the kernel is refused.
    pub defect: Option<String>,
    names: usize,
}

impl Unit {
    /// A word of the uniform, as an expression of type u32.
    pub fn param(&mut self, value: u32) -> String {
        let at = self.params.len();
        self.params.push(value);
        format!("q[{}].{}", at / 4, ["x", "y", "z", "w"][at % 4])
    }

    /// A name nobody else has, not even WGSL's types: `f` and 32 would make one.
    pub fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        if matches!(self.names, 16 | 32 | 64) {
            self.names += 1;
        }
        format!("{prefix}{}", self.names)
    }

    /// The accessor index of a tensor.
    pub fn tensor(&mut self, id: Id) -> usize {
        match self.tensors.iter().position(|t| t.0 == id) {
            Some(index) => index,
            None => {
                self.tensors.push((id, Touch::default()));
                self.tensors.len() - 1
            }
        }
    }

    /// Adds the functions of a helper file that `caller` calls, and those that they call, each once per lane count. Two files
    /// cannot have different functions of one name in one kernel.
    pub fn help(&mut self, file: &'static str, caller: &str, lanes: usize) {
        let words = caller.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.ends_with("_T")) {
            let unique = dialect(name, &[], lanes);
            let known = self.helpers.get(&unique);
            if known.is_some_and(|(_, from)| std::ptr::eq(*from, file)) {
                continue;
            }
            let Some(function) = shader::function(file, name) else { continue };
            let text = dialect(function, &[], lanes);
            // Behind its own name.
            let body = function.split_once('{').map_or("", |(_, body)| body);
            match known {
                Some((other, _)) if *other == text => self.help(file, body, lanes),
                Some(_) => {
                    let why = format!("two ops bring different functions {name}; rename one");
                    self.defect.get_or_insert(why);
                }
                None => {
                    self.helpers.insert(unique, (text, file));
                    self.help(file, body, lanes);
                }
            }
        }
    }
}

/// The WGSL type of a value.
pub fn wgsl_type(dtype: DType, lanes: usize) -> String {
    if lanes == 4 { format!("vec4<{}>", dtype.wgsl()) } else { dtype.wgsl().into() }
}

/// Turns the dialect of [`crate::graph::Map`] into WGSL for a lane count.
pub fn dialect(text: &str, args: &[String], lanes: usize) -> String {
    let mut out = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c == '$' {
            let digits: usize = rest[1..].chars().take_while(char::is_ascii_digit).count();
            let index: usize = rest[1..1 + digits].parse().unwrap_or(usize::MAX);
            out.push_str(args.get(index).map_or("", String::as_str));
            rest = &rest[1 + digits..];
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let word = &rest[..length];
            let dtype = match word {
                "T" => Some(DType::F32),
                "I" => Some(DType::I32),
                "U" => Some(DType::U32),
                "B" => Some(DType::Bool),
                _ => None,
            };
            match (dtype, word.strip_suffix("_T")) {
                (Some(dtype), _) => out.push_str(&wgsl_type(dtype, lanes)),
                (None, Some(stem)) => {
                    let _ = write!(out, "{stem}_{lanes}");
                }
                _ => out.push_str(word),
            }
            rest = &rest[length..];
        } else if c.is_ascii_digit() {
            // A number with its suffix, so that `1u` or `0x1p-3f` is never taken for a name.
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap_or(rest.len());
            out.push_str(&rest[..length]);
            rest = &rest[length..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// NaN is tested by bits: WGSL may assume that it does not exist. Both operands' NaN pass.
pub const EXTREMA: &str = shader_text!("../../shaders/extrema.wgsl");

/// `a` combined with `b`.
pub fn combine(unit: &mut Unit, reduction: Reduction, dtype: DType, lanes: usize, a: &str, b: &str) -> String {
    let extremum = |unit: &mut Unit, name: &str| {
        if dtype == DType::F32 {
            let call = format!("{name}_T($0, $1)");
            unit.help(EXTREMA, &call, lanes);
            dialect(&call, &[a.into(), b.into()], lanes)
        } else {
            format!("{name}({a}, {b})")
        }
    };
    match reduction {
        Reduction::Sum => format!("{a} + {b}"),
        Reduction::Prod => format!("{a} * {b}"),
        Reduction::Max => extremum(unit, "max"),
        Reduction::Min => extremum(unit, "min"),
    }
}

/// An index: the variable that holds it and the level it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct At {
    /// Name of a u32 variable: the linear index of the first lane.
    pub var: String,
    /// Its level in the group's space.
    pub level: Level,
}

type Seen = Table<(Id, String, usize), String>;

/// Keeps values of a row in private arrays between passes.
#[derive(Debug, Default)]
pub struct Keep {
    /// The loop variable that indexes the arrays.
    pub step: String,
    /// Iterations of the loop.
    pub steps: usize,
    /// Declarations, for the scope outside the passes.
    pub declarations: String,
    /// Array of each kept value.
    pub arrays: Table<Id, String>,
}

/// Writes the body of one group.
pub struct Emitter<'a> {
    pub(super) program: &'a Program,
    fused: &'a Fused,
    group: usize,
    /// The dispatch written into.
    pub unit: &'a mut Unit,
    pub(super) space: Space,
    /// The index of the reduced level and its lanes, where the space has one.
    pub reduced: Option<(At, usize)>,
    /// Arrays that hold a row, in cooperative kernels.
    pub keep: Option<Keep>,
    /// What indices are made of, where that is at hand: see [`know`](Emitter::know).
    pub(super) known: Table<String, Vec<(usize, String)>>,
    scopes: Vec<(String, Seen)>,
}

impl<'a> Emitter<'a> {
    /// An emitter for one group of a fused program.
    pub fn new(program: &'a Program, fused: &'a Fused, group: usize, unit: &'a mut Unit) -> Emitter<'a> {
        let space = fused.groups[group].space;
        let scopes = vec![Default::default()];
        Emitter { program, fused, group, unit, space, reduced: None, keep: None, known: Table::new(), scopes }
    }

    /// Opens a scope, for the body of a loop.
    pub fn open(&mut self) {
        self.scopes.push(Default::default());
    }

    /// Closes the scope and returns its text.
    pub fn close(&mut self) -> String {
        self.scopes.pop().map(|scope| scope.0).unwrap_or_default()
    }

    /// Adds a line to the current scope.
    pub fn line(&mut self, line: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.0.push_str(line);
            scope.0.push('\n');
        }
    }

    /// Binds an expression to a name.
    pub fn bind(&mut self, prefix: &str, expression: &str) -> String {
        let name = self.unit.name(prefix);
        self.line(&format!("let {name} = {expression};"));
        name
    }

    /// Declares that a value at an index is held by a variable.
    pub fn define(&mut self, id: Id, at: &At, lanes: usize, var: &str) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.1.insert((id, at.var.clone(), lanes), var.into());
        }
    }

    /// Stores a value.
    pub fn store(&mut self, id: Id, at: &At, lanes: usize, value: &str) {
        let tensor = self.unit.tensor(id);
        let touch = &mut self.unit.tensors[tensor].1;
        if lanes == 4 {
            touch.write4 = true
        } else {
            touch.write = true
        }
        let four = if lanes == 4 { "v" } else { "" };
        self.line(&format!("w{tensor}{four}({}, {value});", at.var));
    }

    /// The variable that holds a value at an index, writing whatever it takes to compute it. Values of the reduced
    /// level are written outside the loops over elements.
    pub fn value(&mut self, id: Id, at: &At, lanes: usize) -> String {
        if self.scopes.len() > 1 && self.reduced.as_ref().is_some_and(|(reduced, _)| reduced.var == at.var) {
            let deeper = self.scopes.split_off(1);
            let var = self.value(id, at, lanes);
            self.scopes.extend(deeper);
            return var;
        }
        let everywhere = self.is_uniform(id);
        let key = (id, if everywhere { String::new() } else { at.var.clone() }, lanes);
        if let Some(var) = self.scopes.iter().rev().find_map(|scope| scope.1.get(&key)) {
            return var.clone();
        }
        let kept = self
            .keep
            .as_ref()
            .filter(|_| at.level == Level::Full)
            .and_then(|keep| keep.arrays.get(&id).map(|array| format!("{array}[{}]", keep.step)));
        let var = match kept {
            Some(array) => self.bind("v", &array),
            None => self.compute(id, at, lanes),
        };
        if let Some(scope) = self.scopes.last_mut() {
            scope.1.insert(key, var.clone());
        }
        var
    }

    /// Whether a value is the same at every index: a number, or one element of a tensor spread over a shape.
    fn is_uniform(&self, id: Id) -> bool {
        match &self.program.vals[id].kind {
            Kind::Scalar(_) => true,
            Kind::View(view) => view.inside.is_none() && view.merged().iter().all(|axis| axis.1 == 0),
            _ => false,
        }
    }

    fn compute(&mut self, id: Id, at: &At, lanes: usize) -> String {
        let val = &self.program.vals[id];
        let elsewhere = self.fused.group_of[id].is_some_and(|group| group != self.group);
        if elsewhere || matches!(val.kind, Kind::Leaf(_)) {
            return self.load(id, at, lanes);
        }
        match &val.kind {
            Kind::Scalar(bits) => {
                let word = self.unit.param(*bits);
                let one = match val.dtype {
                    DType::F32 => format!("bitcast<f32>({word})"),
                    DType::I32 => format!("bitcast<i32>({word})"),
                    DType::U32 => word,
                    DType::Bool => format!("{word} != 0u"),
                };
                let value = if lanes == 4 { format!("{}({one})", wgsl_type(val.dtype, 4)) } else { one };
                self.bind("s", &value)
            }
            Kind::Map(map) => {
                let args: Vec<String> = val.inputs.iter().map(|&input| self.value(input, at, lanes)).collect();
                self.unit.help(map.helpers, map.text, lanes);
                let text = dialect(map.text, &args, lanes);
                if text == args.first().map_or("", String::as_str) {
                    return text;
                }
                let var = self.bind("v", &text);
                if map.heavy {
                    self.remember(id, at, lanes, &var);
                }
                var
            }
            Kind::View(view) => self.view(id, view, at, lanes),
            Kind::Window(windows, through) => self.window(id, *windows, *through, at, lanes),
            Kind::Iota { inner, length } if lanes == 1 || inner % 4 == 0 => {
                let coordinate = self.coordinate(&at.var, *inner, Some(*length), false);
                let value = if lanes == 4 { format!("vec4<u32>({coordinate})") } else { coordinate };
                self.bind("v", &value)
            }
            Kind::Iota { inner, length } => {
                let at = if lanes == 4 {
                    format!("(vec4<u32>({}) + vec4<u32>(0u, 1u, 2u, 3u))", at.var)
                } else {
                    at.var.clone()
                };
                let mut text = at;
                if *inner != 1 {
                    let by = self.unit.param(*inner as u32);
                    text = format!("({text} / {by})");
                }
                let by = self.unit.param(*length as u32);
                self.bind("v", &format!("{text} % {by}"))
            }
            Kind::Gather { length, count, inner } => {
                if lanes == 4 && inner % 4 != 0 {
                    return self.four(id, at);
                }
                let (table, index) = (val.inputs[0], val.inputs[1]);
                let one = val.numel <= count * inner;
                let which = self.coordinate(&at.var, *inner, (!one).then_some(*count), false);
                let which = self.bind("i", &which);
                let picked = self.value(index, &At { var: which, level: Level::Other }, 1);
                let axis = self.unit.param(*length as u32);
                let clamped = match self.program.vals[index].dtype {
                    DType::I32 => format!("min(u32(max({picked}, 0i)), {axis} - 1u)"),
                    _ => format!("min({picked}, {axis} - 1u)"),
                };
                let mut source = clamped;
                if !one {
                    let outer = self.coordinate(&at.var, count * inner, None, false);
                    source = format!("{outer} * {axis} + {source}");
                }
                if *inner > 1 {
                    let column = self.coordinate(&at.var, 1, Some(*inner), false);
                    let by = self.unit.param(*inner as u32);
                    source = format!("({source}) * {by} + {column}");
                }
                let source = self.bind("i", &source);
                let var = self.value(table, &At { var: source, level: Level::Other }, lanes);
                self.remember(id, at, lanes, &var);
                var
            }
            // Defined by the phase before anything reads them; reaching this line would be a defect of the passes.
            Kind::Leaf(_) | Kind::Fold(..) | Kind::Contraction(..) | Kind::Scan(..) | Kind::Kernel(..) => {
                let defect = format!("{} is not available at {at:?}", val.name);
                self.unit.defect.get_or_insert(defect);
                format!("{}(0)", wgsl_type(val.dtype, lanes))
            }
        }
    }

    fn load(&mut self, id: Id, at: &At, lanes: usize) -> String {
        let tensor = self.unit.tensor(id);
        let touch = &mut self.unit.tensors[tensor].1;
        if lanes == 4 {
            touch.read4 = true
        } else {
            touch.read = true
        }
        let four = if lanes == 4 { "v" } else { "" };
        let var = self.bind("v", &format!("r{tensor}{four}({})", at.var));
        self.remember(id, at, lanes, &var);
        var
    }

    /// Keeps a value of a row for later passes.
    fn remember(&mut self, id: Id, at: &At, lanes: usize, var: &str) {
        if at.level != Level::Full || self.keep.is_none() {
            return;
        }
        let array = self.unit.name("c");
        let dtype = wgsl_type(self.program.vals[id].dtype, lanes);
        if let Some(keep) = &mut self.keep {
            let _ = writeln!(keep.declarations, "var {array}: array<{dtype}, {}>;", keep.steps);
            let line = format!("{array}[{}] = {var};", keep.step);
            keep.arrays.insert(id, array);
            self.line(&line);
        }
    }

    /// The stage of each value of this group: how many folds have to be complete before it can be computed.
    pub fn stages(&self, wanted: &[Id]) -> Table<Id, usize> {
        let mut stages = Table::new();
        for &id in wanted {
            self.stage(id, &mut stages);
        }
        stages
    }

    fn stage(&self, id: Id, stages: &mut Table<Id, usize>) -> usize {
        if let Some(&stage) = stages.get(&id) {
            return stage;
        }
        let val = &self.program.vals[id];
        let elsewhere = self.fused.group_of[id].is_some_and(|group| group != self.group);
        let stage = if elsewhere || val.inputs.is_empty() {
            0
        } else {
            let below = val.inputs.iter().map(|&input| self.stage(input, stages)).max().unwrap_or(0);
            below + usize::from(matches!(val.kind, Kind::Fold(..)))
        };
        stages.insert(id, stage);
        stage
    }

    /// Which members are folds to the reduced level, by stage (the first is stage 1).
    pub fn folds(&self, stages: &Table<Id, usize>) -> Vec<Vec<Id>> {
        let mut folds: Vec<Vec<Id>> = Vec::new();
        let members = Sorted::from_iter(self.fused.groups[self.group].members.iter().copied());
        let fold = |&id: &Id| {
            matches!(self.program.vals[id].kind, Kind::Fold(..))
                && level(self.program, id, self.space) == Level::Reduced
        };
        for id in members.into_iter().filter(fold) {
            let stage = stages.get(&id).copied().unwrap_or(1);
            folds.resize(folds.len().max(stage), Vec::new());
            folds[stage - 1].push(id);
        }
        folds
    }
}
