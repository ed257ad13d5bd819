//! Index arithmetic: where an element of a view or a window lies in what it is read from.
//!
//! Divisions cost most of it, so an index that was put together from coordinates is known by them
//! ([`Emitter::know`]) and is not taken apart again. Deliberately absent: the choice of lanes, which `kernel` makes; a
//! form that four lanes cannot read at once is read one by one here.

use super::emit::{At, Emitter, Unit, wgsl_type};
use super::program::Id;
use super::space::{Level, through};
use crate::dtype::DType;
use crate::graph::{Through, View, Windows};

/// The pixel that element `k` of window `at` reads along an axis, or the window step whose element `k` pixel `at` is;
/// and what must hold of it (`$`), unless it always does. Indices are unsigned: what lies before zero is very large.
/// Conditions are joined by `&`: `&&` is a branch, and SwiftShader takes minutes for a kernel with a hundred of them.
pub fn along(w: &Windows, through: Through, axis: usize, at: &str, k: &str) -> (String, Option<String>) {
    let (stride, dilation, before) = (w.stride[axis], w.dilation[axis], w.before[axis]);
    let times = |x: &str, by: usize| if by == 1 { x.to_string() } else { format!("{x} * {by}u") };
    if through == Through::Lay {
        let start = format!("{at}{} - {}", shift(before), times(k, dilation));
        let aligned = if stride == 1 { String::new() } else { format!(" & ($ % {stride}u == 0u)") };
        return (start, Some(format!("($ < {}u){aligned}", w.count[axis] * stride)));
    }
    let pixel = format!("{} + {}{}", times(at, stride), times(k, dilation), shift(-before));
    (pixel, w.overhangs(axis).then(|| format!("($ < {}u)", w.image[axis])))
}

/// What adding a constant looks like.
fn shift(by: isize) -> String {
    match by {
        0 => String::new(),
        1.. => format!(" + {by}u"),
        _ => format!(" - {}u", -by),
    }
}

/// A size as a word of the uniform, or of the text.
fn size(unit: &mut Unit, value: usize, fixed: bool) -> String {
    if fixed { format!("{value}u") } else { unit.param(value as u32) }
}

/// `whole / by % rest`. An axis without elements has none to find, but its division must be valid text.
fn part(unit: &mut Unit, whole: &str, by: usize, rest: Option<usize>, fixed: bool) -> String {
    let (by, rest) = (by.max(1), rest.map(|length| length.max(1)));
    let quotient = if by == 1 { whole.to_string() } else { format!("({whole} / {})", size(unit, by, fixed)) };
    match rest {
        Some(length) => format!("({quotient} % {})", size(unit, length, fixed)),
        None => quotient,
    }
}

impl Emitter<'_> {
    /// States that an index is a position in axes of these lengths, innermost first, with these coordinates; the
    /// outermost has no length. Divisions are what an index costs most, and this saves them.
    pub fn know(&mut self, index: &str, axes: &[(usize, &str)]) {
        let Some((outermost, inner)) = axes.split_last() else { return };
        if inner.iter().all(|axis| axis.0 > 0) {
            let axes = inner.iter().filter(|axis| axis.0 > 1).chain([outermost]);
            self.known.insert(index.into(), axes.map(|&(length, name)| (length, name.to_string())).collect());
        }
    }

    /// The coordinate along an axis with `behind` elements behind each step; `length` is `None` for the outermost.
    /// Sizes are words of the uniform, or of the text where they are `fixed`.
    pub(super) fn coordinate(&mut self, index: &str, behind: usize, length: Option<usize>, fixed: bool) -> String {
        let mut inner = 1;
        let axes = self.known.get(index).cloned().unwrap_or_default();
        for (at, (own, coordinate)) in axes.iter().enumerate() {
            let last = at + 1 == axes.len();
            if !last && behind >= inner * own {
                inner *= own;
                continue;
            }
            let by = behind / inner;
            if !behind.is_multiple_of(inner) {
                break;
            }
            if last {
                return part(self.unit, coordinate, by, length, fixed);
            }
            // Within this axis, or from its beginning over several.
            match length {
                Some(length) if by * length == *own => return part(self.unit, coordinate, by, None, fixed),
                Some(length) if by * length < *own && own.is_multiple_of(by * length) => {
                    return part(self.unit, coordinate, by, Some(length), fixed);
                }
                _ if by == 1 => {
                    let (mut terms, mut covered) = (Vec::new(), 1);
                    for (above, (own, coordinate)) in axes.iter().enumerate().skip(at) {
                        let term = match covered {
                            1 => coordinate.clone(),
                            _ => format!("{coordinate} * {}", size(self.unit, covered, fixed)),
                        };
                        terms.push(term);
                        if above + 1 == axes.len() {
                            covered = if length.is_none() { usize::MAX } else { 0 };
                            break;
                        }
                        covered *= own;
                        if length.is_some_and(|length| covered >= length) {
                            break;
                        }
                    }
                    if length.unwrap_or(usize::MAX) == covered {
                        return format!("({})", terms.join(" + "));
                    }
                    break;
                }
                _ => break,
            }
        }
        part(self.unit, index, behind, length, fixed)
    }

    /// Four lanes computed one by one.
    pub(super) fn four(&mut self, id: Id, at: &At) -> String {
        let parts: Vec<String> = (0..4)
            .map(|lane| {
                let var = if lane == 0 { at.var.clone() } else { self.bind("i", &format!("{} + {lane}u", at.var)) };
                self.value(id, &At { var, level: Level::Other }, 1)
            })
            .collect();
        let dtype = wgsl_type(self.program.vals[id].dtype, 4);
        self.bind("v", &format!("{dtype}({})", parts.join(", ")))
    }

    /// Four lanes of one row: elements of the source, so far apart, from an index on.
    fn neighbours(&mut self, source: Id, at: &At, stride: isize) -> String {
        let by = if stride == 1 { "1u".into() } else { self.unit.param(stride as i32 as u32) };
        let mut parts = vec![self.value(source, at, 1)];
        for lane in 1..4 {
            let var = self.bind("i", &format!("{} + {lane}u * {by}", at.var));
            parts.push(self.value(source, &At { var, level: Level::Other }, 1));
        }
        let dtype = wgsl_type(self.program.vals[source].dtype, 4);
        self.bind("v", &format!("{dtype}({})", parts.join(", ")))
    }

    fn splat(&mut self, id: Id, at: &At) -> String {
        let one = self.value(id, at, 1);
        let dtype = wgsl_type(self.program.vals[id].dtype, 4);
        self.bind("v", &format!("{dtype}({one})"))
    }

    pub(super) fn view(&mut self, id: Id, view: &View, at: &At, lanes: usize) -> String {
        let val = &self.program.vals[id];
        let source = val.inputs[0];
        match through(view, self.program.vals[source].numel, val.numel, at.level, self.space) {
            Level::Reduced if at.level == Level::Full => {
                if let Some((reduced, reduced_lanes)) = self.reduced.clone() {
                    return match (lanes, reduced_lanes) {
                        (4, 1) => self.splat(source, &reduced),
                        _ => self.value(source, &reduced, lanes),
                    };
                }
            }
            Level::Full | Level::Reduced => return self.value(source, at, lanes),
            Level::Column | Level::Other => {}
        }
        if view.is_identity() {
            return self.value(source, &At { var: at.var.clone(), level: Level::Other }, lanes);
        }
        if view.inside.is_some() {
            let rows = view.shape.last().is_some_and(|length| length.is_multiple_of(4));
            return if lanes == 4 && !rows { self.four(id, at) } else { self.masked(view, source, at, lanes) };
        }
        let merged = view.merged();
        if lanes == 4 {
            let (last, outer) = merged.split_last().map_or((None, &[][..]), |(l, o)| (Some(*l), o));
            let aligned = outer.iter().all(|axis| axis.1 % 4 == 0) && view.offset % 4 == 0;
            match last {
                Some((length, 1)) if length % 4 == 0 && aligned => {}
                Some((length, 0)) if length % 4 == 0 || outer.is_empty() => {
                    let index = self.index(view, &merged, at);
                    return self.splat(source, &index);
                }
                None => {
                    let index = self.index(view, &merged, at);
                    return self.splat(source, &index);
                }
                Some((length, stride)) if length % 4 == 0 => {
                    let index = self.index(view, &merged, at);
                    return self.neighbours(source, &index, stride);
                }
                _ => return self.four(id, at),
            }
        }
        let index = self.index(view, &merged, at);
        self.value(source, &index, lanes)
    }

    /// The source index of an unmasked view. Negative steps wrap around u32, which is what makes them subtract.
    fn index(&mut self, view: &View, merged: &[(usize, isize)], at: &At) -> At {
        let mut terms = Vec::new();
        let mut behind = 1;
        for (axis, &(length, stride)) in merged.iter().enumerate().rev() {
            if stride != 0 {
                let mut term = self.coordinate(&at.var, behind, (axis != 0).then_some(length), false);
                if stride != 1 {
                    term = format!("({term}) * {}", self.unit.param(stride as i32 as u32));
                }
                terms.push(term);
            }
            behind *= length;
        }
        if view.offset != 0 || terms.is_empty() {
            terms.push(self.unit.param(view.offset as i32 as u32));
        }
        let var = self.bind("i", &terms.join(" + "));
        At { var, level: Level::Other }
    }

    /// A value read through sliding windows. Their geometry is text: it does not change with the batch, and dividing by
    /// words of the uniform costs a third of a convolution's speed.
    pub(super) fn window(&mut self, id: Id, w: Windows, through: Through, at: &At, lanes: usize) -> String {
        if lanes == 4 && !w.channels.is_multiple_of(4) {
            return self.four(id, at);
        }
        let source = self.program.vals[id].inputs[0];
        let elements = w.kernel[0] * w.kernel[1];
        if through == Through::Cover {
            return self.cover(id, w, at, lanes);
        }
        let grid = if through == Through::Lay { w.image } else { w.count };
        let mut behind = 1;
        let mut axes = Vec::new();
        for length in [Some(w.channels), Some(w.kernel[1]), Some(w.kernel[0]), Some(grid[1]), Some(grid[0]), None] {
            let coordinate = self.coordinate(&at.var, behind, length, true);
            axes.push(self.bind("i", &coordinate));
            behind *= length.unwrap_or(1);
        }
        let [c, kw, kh, x, y, n] = &axes[..] else { return String::new() };
        let (mut inside, mut found) = (Vec::new(), Vec::new());
        for (axis, (at, k)) in [(y, kh), (x, kw)].into_iter().enumerate() {
            let (value, condition) = along(&w, through, axis, at, k);
            let value = self.bind("i", &value);
            inside.extend(condition.map(|condition| condition.replace('$', &value)));
            found.push(match (through, w.stride[axis]) {
                (Through::Lay, 2..) => format!("{value} / {}u", w.stride[axis]),
                _ => value,
            });
        }
        let exists = (!inside.is_empty()).then(|| self.bind("m", &inside.join(" & ")));
        if let Some(exists) = &exists {
            found.iter_mut().for_each(|value| *value = format!("select(0u, {value}, {exists})"));
        }
        let [y, x] = &found[..] else { return String::new() };
        let size = if through == Through::Lay { w.count } else { w.image };
        let row = self.bind("i", &format!("({n} * {}u + {y}) * {}u + {x}", size[0], size[1]));
        let index = if through == Through::Cut {
            let index = self.bind("i", &format!("{row} * {}u + {c}", w.channels));
            self.know(&index, &[(w.channels, c), (0, &row)]);
            index
        } else {
            let k = self.coordinate(&at.var, w.channels, Some(elements), true);
            let k = self.bind("i", &k);
            let index = self.bind("i", &format!("({row} * {elements}u + {k}) * {}u + {c}", w.channels));
            self.know(&index, &[(w.channels, c), (elements, &k), (0, &row)]);
            index
        };
        self.where_inside(source, index, lanes, exists, w.outside)
    }

    /// A pixel's element of the one window that covers it.
    fn cover(&mut self, id: Id, w: Windows, at: &At, lanes: usize) -> String {
        let source = self.program.vals[id].inputs[0];
        let mut behind = 1;
        let mut axes = Vec::new();
        for length in [Some(w.channels), Some(w.image[1]), Some(w.image[0]), None] {
            let coordinate = self.coordinate(&at.var, behind, length, true);
            axes.push(self.bind("i", &coordinate));
            behind *= length.unwrap_or(1);
        }
        let [c, x, y, n] = &axes[..] else { return String::new() };
        let (mut inside, mut windows, mut elements) = (Vec::new(), Vec::new(), Vec::new());
        for (axis, pixel) in [y, x].into_iter().enumerate() {
            let stride = w.stride[axis];
            let from = self.bind("i", &format!("{pixel}{}", shift(w.before[axis])));
            windows.push(self.bind("i", &format!("{from} / {stride}u")));
            elements.push(self.bind("i", &format!("{from} % {stride}u")));
            if w.misses(axis) {
                inside.push(format!("({} < {}u)", windows[axis], w.count[axis]));
            }
            if stride > w.kernel[axis] {
                inside.push(format!("({} < {}u)", elements[axis], w.kernel[axis]));
            }
        }
        let exists = (!inside.is_empty()).then(|| self.bind("m", &inside.join(" & ")));
        if let Some(exists) = &exists {
            windows.iter_mut().chain(&mut elements).for_each(|i| *i = format!("select(0u, {i}, {exists})"));
        }
        let row =
            self.bind("i", &format!("({n} * {}u + {}) * {}u + {}", w.count[0], windows[0], w.count[1], windows[1]));
        let k = self.bind("i", &format!("{} * {}u + {}", elements[0], w.kernel[1], elements[1]));
        let all = w.kernel[0] * w.kernel[1];
        let index = self.bind("i", &format!("({row} * {all}u + {k}) * {}u + {c}", w.channels));
        self.know(&index, &[(w.channels, c), (all, &k), (0, &row)]);
        self.where_inside(source, index, lanes, exists, 0)
    }

    /// The value at an index where it exists, else these bits.
    fn where_inside(&mut self, id: Id, index: String, lanes: usize, exists: Option<String>, outside: u32) -> String {
        let dtype = self.program.vals[id].dtype;
        let value = self.value(id, &At { var: index, level: Level::Other }, lanes);
        let Some(exists) = exists else { return value };
        let outside = match dtype {
            DType::Bool => format!("{}", outside != 0),
            _ => format!("bitcast<{}>({outside}u)", dtype.wgsl()),
        };
        self.bind("v", &format!("select({}({outside}), {value}, {exists})", wgsl_type(dtype, lanes)))
    }

    /// A value where it lies inside the view's ranges, else zero. Four lanes are of one row.
    fn masked(&mut self, view: &View, source: Id, at: &At, lanes: usize) -> String {
        let mut rest = at.var.clone();
        let (mut index, mut exists) = (self.unit.param(view.offset as i32 as u32), String::new());
        let inside = view.inside.clone().unwrap_or_default();
        let last = view.shape.rank().wrapping_sub(1);
        // Whether the lanes differ in what is read: not where they lie one behind the other, as four that are loaded at once.
        let apart = lanes == 4 && {
            let aligned = view.offset % 4 == 0 && view.strides[..last].iter().all(|stride| stride % 4 == 0);
            !(aligned && view.strides[last] == 1 && inside[last] == (0, view.shape[last]))
        };
        let mut own = None;
        for axis in (0..view.shape.rank()).rev() {
            let coordinate = if self.known.contains_key(&at.var) {
                let behind = view.shape[axis + 1..].iter().product();
                let coordinate = self.coordinate(&at.var, behind, (axis != 0).then_some(view.shape[axis]), false);
                self.bind("i", &coordinate)
            } else if axis == 0 {
                rest.clone()
            } else {
                let by = self.unit.param(view.shape[axis] as u32);
                let next = self.bind("i", &format!("{rest} / {by}"));
                let coordinate = self.bind("i", &format!("{rest} - {next} * {by}"));
                rest = next;
                coordinate
            };
            // Of the coordinate `$`. No index lies before zero.
            let (mut within, mut step) = (String::new(), String::new());
            for (is, end, always) in [(">=", inside[axis].0, 0), ("<", inside[axis].1, view.shape[axis])] {
                if end != always {
                    join(&mut within, " & ", &format!("($ {is} {})", self.unit.param(end as u32)));
                }
            }
            if view.strides[axis] != 0 {
                step = format!("$ * {}", self.unit.param(view.strides[axis] as i32 as u32));
            }
            if apart && axis == last {
                own = Some((coordinate, within, step));
            } else {
                join(&mut exists, " & ", &within.replace('$', &coordinate));
                join(&mut index, " + ", &step.replace('$', &coordinate));
            }
        }
        let Some((column, within, step)) = own else {
            return self.where_all(source, &index, &exists, lanes);
        };
        let row = self.bind("i", &index);
        let exists = if exists.is_empty() { exists } else { self.bind("m", &exists) };
        let mut parts = String::new();
        for lane in 0..4 {
            let at = self.bind("i", &format!("{column} + {lane}u"));
            let (mut index, mut exists) = (row.clone(), exists.clone());
            join(&mut exists, " & ", &within.replace('$', &at));
            join(&mut index, " + ", &step.replace('$', &at));
            join(&mut parts, ", ", &self.where_all(source, &index, &exists, 1));
        }
        let dtype = wgsl_type(self.program.vals[source].dtype, 4);
        self.bind("v", &format!("{dtype}({parts})"))
    }

    /// The value at an index where all conditions hold, else zero.
    fn where_all(&mut self, source: Id, index: &str, exists: &str, lanes: usize) -> String {
        let exists = self.bind("m", if exists.is_empty() { "true" } else { exists });
        let index = self.bind("i", &format!("select(0u, {index}, {exists})"));
        self.where_inside(source, index, lanes, Some(exists), 0)
    }
}

/// Appends to a list.
fn join(list: &mut String, between: &str, more: &str) {
    if !list.is_empty() && !more.is_empty() {
        list.push_str(between);
    }
    list.push_str(more);
}
