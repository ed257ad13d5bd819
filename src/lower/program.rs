//! First pass: recorded nodes become a flat list of single-output values, views folded, repeats removed.
//!
//! What the later passes work on is a [`Program`]: values in recording order, each with its lowering and the indices
//! of its inputs. Scalars known on the host stay values of their own kind, because they travel in the plan's uniform
//! and never in shader text. The structural [`Signature`] that guards purity is taken here too. Deliberately absent:
//! constant folding of arithmetic; a scalar expression costs nothing inside a fused kernel.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::dtype::DType;
use crate::error::{Error, Place, Result};
use crate::graph::{
    Contraction, Fold, Lowering, Map, Node, Primitive, Reduction, Spec, Tensor, Through, View, ViewOp, Windows,
};

/// Index of a value in its program.
pub type Id = usize;

/// How a value comes about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One element known on the host, by its bits.
    Scalar(u32),
    /// Given from outside: index into [`Program::leaves`].
    Leaf(usize),
    /// An expression of the inputs at one index.
    Map(Map),
    /// A reduction of the only input.
    Fold(Fold),
    /// A strided window of the only input.
    View(View),
    /// The only input read through sliding windows.
    Window(Windows, Through),
    /// The coordinate along an axis.
    Iota { inner: usize, length: usize },
    /// Rows of the first input picked by the second.
    Gather { length: usize, count: usize, inner: usize },
    /// A batched matrix product.
    Contraction(Contraction),
}

/// One value of a program.
#[derive(Clone, Debug)]
pub struct Val {
    /// How it comes about.
    pub kind: Kind,
    /// What it is computed from.
    pub inputs: Vec<Id>,
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub numel: usize,
    /// Name of the op, for plans and messages.
    pub name: Arc<str>,
    /// Where it was recorded.
    pub place: Place,
}

impl Val {
    /// Bytes it takes when stored.
    pub fn bytes(&self) -> u64 {
        (self.numel as u64).saturating_mul(self.dtype.bytes() as u64)
    }
}

/// A flattened graph.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// Values in an order in which inputs come first.
    pub vals: Vec<Val>,
    /// The tensors behind [`Kind::Leaf`].
    pub leaves: Vec<Tensor>,
    /// What the program is run for, one for each root.
    pub roots: Vec<Id>,
}

/// The structure of a graph, comparable between recordings: one hash a node, in order.
#[derive(Clone, Debug, Default)]
pub struct Signature {
    /// Hash of everything up to the roots.
    pub hash: u64,
    nodes: Vec<Trace>,
}

/// What a signature remembers of a node.
#[derive(Clone, Debug)]
struct Trace {
    hash: u64,
    place: Place,
    op: Arc<dyn Primitive>,
    outputs: Vec<Spec>,
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outputs: Vec<_> = self.outputs.iter().map(ToString::to_string).collect();
        let (name, attributes) = (self.op.name(), self.op.attributes());
        if attributes.is_empty() {
            write!(f, "{name} {}", outputs.join(", "))
        } else {
            write!(f, "{name}[{attributes}] {}", outputs.join(", "))
        }
    }
}

impl Signature {
    /// The first node by which `other` differs from `self`: what it is there, and where it was recorded.
    pub fn difference(&self, other: &Signature) -> Option<(String, Place)> {
        if self.hash == other.hash {
            return None;
        }
        let differs = self.nodes.iter().zip(&other.nodes).find(|(a, b)| a.hash != b.hash);
        Some(match differs {
            Some((was, now)) => {
                let (before, after) = (was.to_string(), now.to_string());
                let same = before == after;
                let why = if same { format!("{after} changed") } else { format!("{before} became {after}") };
                (why, now.place.clone())
            }
            None => {
                let longest = if self.nodes.len() > other.nodes.len() { self } else { other };
                let shared = self.nodes.len().min(other.nodes.len());
                match longest.nodes.get(shared).or(longest.nodes.last()) {
                    Some(node) => {
                        let why = format!("{} nodes became {} ({node})", self.nodes.len(), other.nodes.len());
                        (why, node.place.clone())
                    }
                    None => ("the outputs changed".into(), crate::graph::nowhere()),
                }
            }
        })
    }
}

/// How captured tensors enter a signature.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Captures {
    /// Small host constants by content, others by identity: another tensor in the same place is another step.
    Identity,
    /// By shape only, but for the scalars that a program holds.
    Shape,
}

/// Constants up to this many elements enter a signature by content.
const SMALL: usize = 64;

/// A graph as recorded: nodes in order, without their history beyond known values.
pub struct Recording {
    nodes: Vec<Arc<Node>>,
    roots: Vec<(u64, usize)>,
}

impl Recording {
    /// Walks back from `roots` to values that are known or stand-ins. Iterative, since chains may be long.
    pub fn of(roots: &[Tensor]) -> Result<Recording> {
        let mut seen: HashMap<u64, Arc<Node>> = HashMap::new();
        let mut stack: Vec<Arc<Node>> = Vec::new();
        let mut ends = Vec::with_capacity(roots.len());
        for root in roots {
            let (node, output) = root.node()?;
            ends.push((node.number(), output));
            stack.push(node.clone());
        }
        while let Some(node) = stack.pop() {
            if seen.contains_key(&node.number()) {
                continue;
            }
            if !known(&node) {
                for input in node.inputs() {
                    stack.push(input.node()?.0.clone());
                }
            }
            seen.insert(node.number(), node);
        }
        let mut nodes: Vec<_> = seen.into_values().collect();
        nodes.sort_unstable_by_key(|node| node.number());
        Ok(Recording { nodes, roots: ends })
    }

    /// The nodes in recording order.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Values not known that were recorded before node `than` and are read by later ones or wanted as `roots`.
    pub fn older(&self, than: u64, roots: &[Tensor]) -> Result<Vec<Tensor>> {
        let late = self.nodes.iter().filter(|node| node.number() >= than && !known(node));
        let mut found: Vec<Tensor> = Vec::new();
        for tensor in late.flat_map(|node| node.inputs()).chain(roots.iter().cloned()) {
            let (node, _) = tensor.node()?;
            if node.number() < than && !known(node) && !found.iter().any(|other| other.same(&tensor)) {
                found.push(tensor);
            }
        }
        Ok(found)
    }

    /// The structure with captured tensors by identity: what must not change between runs of a step.
    pub fn signature(&self, stand_ins: &HashMap<u64, usize>) -> Signature {
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let hash = self.hash(Captures::Identity, stand_ins, &mut |node, hash| {
            let (place, op, outputs) = (node.place().clone(), node.op().clone(), node.outputs().to_vec());
            nodes.push(Trace { hash, place, op, outputs });
        });
        Signature { hash, nodes }
    }

    /// Equal for recordings that the same program computes from other leaves.
    pub fn shape(&self) -> u64 {
        self.hash(Captures::Shape, &HashMap::new(), &mut |_, _| {})
    }

    /// The tensors that are leaves of [`program`](Recording::program) without stand-ins, in its order.
    pub fn leaves(&self) -> Vec<Tensor> {
        let outputs = |node: &Arc<Node>| (0..node.outputs().len()).map(|output| (node.clone(), output)).collect();
        let all = self.nodes.iter().filter(|node| known(node)).flat_map(|node| -> Vec<_> { outputs(node) });
        all.filter(|(node, output)| scalar(node, *output).is_none()).map(|(n, output)| Tensor::of(n, output)).collect()
    }

    /// Hashes ops, edges, shapes, dtypes, small constants, and the captured tensors as told.
    fn hash(&self, captures: Captures, stand_ins: &HashMap<u64, usize>, each: &mut dyn FnMut(&Arc<Node>, u64)) -> u64 {
        let by_content = if captures == Captures::Identity { SMALL } else { 1 };
        let mut order: HashMap<u64, usize> = HashMap::with_capacity(self.nodes.len());
        let mut whole = DefaultHasher::new();
        for (index, node) in self.nodes.iter().enumerate() {
            order.insert(node.number(), index);
            let mut hasher = DefaultHasher::new();
            node.op().identify(&mut hasher);
            node.outputs().hash(&mut hasher);
            if let Some(stand_in) = stand_ins.get(&node.number()) {
                ("stand-in", stand_in).hash(&mut hasher);
            } else if known(node) {
                for output in 0..node.outputs().len() {
                    let value = node.value(output);
                    match value.host {
                        Some(bits) if bits.len() <= by_content => bits.hash(&mut hasher),
                        _ if captures == Captures::Identity => node.number().hash(&mut hasher),
                        _ => "captured".hash(&mut hasher),
                    }
                }
            } else {
                for input in node.inputs() {
                    if let Ok((input, output)) = input.node() {
                        (order.get(&input.number()), output).hash(&mut hasher);
                    }
                }
            }
            let hash = hasher.finish();
            hash.hash(&mut whole);
            each(node, hash);
        }
        for (number, output) in &self.roots {
            (order.get(number), output).hash(&mut whole);
        }
        whole.finish()
    }

    /// Flattens to values. `stand_ins` are leaves even where they hold host data.
    pub fn program(&self, stand_ins: &HashMap<u64, usize>) -> Result<Program> {
        let mut builder = Builder::default();
        for node in &self.nodes {
            if stand_ins.contains_key(&node.number()) || known(node) {
                for output in 0..node.outputs().len() {
                    let id = builder.leaf(node, output, stand_ins.contains_key(&node.number()))?;
                    builder.ids.insert((node.number(), output), id);
                }
                continue;
            }
            let mut inputs = Vec::new();
            let mut specs = Vec::new();
            for input in node.inputs() {
                let (input, output) = input.node()?;
                inputs.push(builder.ids[&(input.number(), output)]);
                specs.push(input.outputs()[output].clone());
            }
            for (output, lowering) in node.op().lower(&specs, node.outputs()).into_iter().enumerate() {
                let id = builder.lowered(node, output, lowering, &inputs, &specs);
                builder.ids.insert((node.number(), output), id);
            }
        }
        builder.program.roots = self.roots.iter().map(|root| builder.ids[root]).collect();
        match builder.defect {
            Some(defect) => Err(defect),
            None => Ok(builder.program),
        }
    }
}

fn known(node: &Node) -> bool {
    (0..node.outputs().len()).all(|output| {
        let value = node.value(output);
        value.is_known() || value.placeholder
    })
}

/// The bits of a single element known on the host.
fn scalar(node: &Node, output: usize) -> Option<u32> {
    match node.value(output).host.as_deref() {
        Some(&[only]) => Some(only),
        _ => None,
    }
}

type Key = (Kind, Vec<Id>, DType, usize);

/// Products with fewer results than this are split, ...
const RESULTS: usize = 1 << 16;
/// ... but never into sums of fewer terms.
const STRETCH: usize = 512;

#[derive(Default)]
struct Builder {
    program: Program,
    ids: HashMap<(u64, usize), Id>,
    seen: HashMap<Key, Id>,
    /// The first thing an op got wrong.
    defect: Option<Error>,
}

impl Builder {
    fn refuse(&mut self, node: &Node, what: &str) {
        let why = format!("{} {what} ({})", node.op().name(), node.place());
        self.defect.get_or_insert(Error::Validation { why });
    }

    fn push(&mut self, kind: Kind, inputs: Vec<Id>, spec: (DType, usize), node: &Node) -> Id {
        let key = (kind, inputs, spec.0, spec.1);
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        let id = self.program.vals.len();
        self.program.vals.push(Val {
            kind: key.0.clone(),
            inputs: key.1.clone(),
            dtype: spec.0,
            numel: spec.1,
            name: node.op().name().into(),
            place: node.place().clone(),
        });
        self.seen.insert(key, id);
        id
    }

    fn leaf(&mut self, node: &Arc<Node>, output: usize, stand_in: bool) -> Result<Id> {
        let spec = &node.outputs()[output];
        if !stand_in && let Some(only) = scalar(node, output) {
            return Ok(self.push(Kind::Scalar(only), vec![], (spec.dtype, 1), node));
        }
        let leaf = self.program.leaves.len();
        self.program.leaves.push(Tensor::of(node.clone(), output));
        Ok(self.push(Kind::Leaf(leaf), vec![], (spec.dtype, spec.shape.numel()), node))
    }

    fn lowered(&mut self, node: &Node, output: usize, lowering: Lowering, inputs: &[Id], specs: &[Spec]) -> Id {
        let spec = &node.outputs()[output];
        let size = (spec.dtype, spec.shape.numel());
        match lowering {
            Lowering::View(op) => self.view(&op, inputs[0], &specs[0], size, node),
            Lowering::Fold(fold) if fold.length == 1 => inputs[0],
            Lowering::Fold(fold) => self.fold(fold, inputs[0], size, node),
            Lowering::Map(map) => self.push(Kind::Map(map), inputs.to_vec(), size, node),
            Lowering::Window(windows, through) => {
                self.push(Kind::Window(windows, through), inputs.to_vec(), size, node)
            }
            Lowering::Iota { inner, length } => self.push(Kind::Iota { inner, length }, vec![], size, node),
            Lowering::Gather { length, count, inner } => {
                self.push(Kind::Gather { length, count, inner }, inputs.to_vec(), size, node)
            }
            Lowering::Contraction(c) => self.product(c, [inputs[0], inputs[1]], size, node),
            // An op that says it is given has no value here: a mistake of the op's.
            Lowering::Leaf => {
                self.refuse(node, "is computed, but lowers to a leaf");
                self.push(Kind::Scalar(0), vec![], size, node)
            }
        }
    }

    fn view(&mut self, op: &ViewOp, source: Id, spec: &Spec, size: (DType, usize), node: &Node) -> Id {
        let shape = &spec.shape;
        let val = &self.program.vals[source];
        let spreads = !matches!(op, ViewOp::Pad(_));
        if matches!(val.kind, Kind::Scalar(_)) && spreads && size.1 > 0 {
            return source;
        }
        let folded = match &val.kind {
            Kind::View(below) => below
                .then(&ViewOp::Reshape(shape.clone()))
                .and_then(|below| below.then(op))
                .map(|view| (val.inputs[0], view)),
            _ => None,
        };
        let (source, view) = match folded {
            Some(folded) => folded,
            None => match View::whole(shape).then(op) {
                Some(view) => (source, view),
                // A whole tensor takes any single op: only chains can leave the strided form.
                None => {
                    self.refuse(node, "is a view that is not strided");
                    return source;
                }
            },
        };
        if view.is_identity() && self.program.vals[source].numel == size.1 {
            return source;
        }
        self.push(Kind::View(view), vec![source], size, node)
    }

    /// A long product with few results would leave the device idle: it becomes several, whose results are added up.
    fn product(&mut self, c: Contraction, [a, b]: [Id; 2], size: (DType, usize), node: &Node) -> Id {
        let results = c.batch * c.m * c.n;
        let most = (RESULTS / results.max(1)).min(c.k / STRETCH);
        let parts = [64, 49, 32, 25, 16, 8, 7, 5, 4, 3, 2]
            .into_iter()
            .find(|&parts| parts <= most && c.k.is_multiple_of(parts));
        if let (1, Some(parts)) = (c.batch, parts)
            && let Some(a) = self.stretches(a, [c.m, c.k], 1, parts, node)
            && let Some(b) = self.stretches(b, [c.k, c.n], 0, parts, node)
        {
            let part = Contraction { batch: parts, k: c.k / parts, ..c };
            let partial = self.push(Kind::Contraction(part), vec![a, b], (size.0, parts * results), node);
            let sum = Fold { reduction: Reduction::Sum, outer: 1, length: parts, inner: results };
            return self.push(Kind::Fold(sum), vec![partial], size, node);
        }
        let a = self.operand(a, (c.batch, c.m, c.k), node);
        let b = self.operand(b, (c.batch, c.k, c.n), node);
        self.push(Kind::Contraction(c), vec![a, b], size, node)
    }

    /// A matrix as `parts` matrices side by side along an axis, if that is a view that products read as it lies.
    fn stretches(&mut self, id: Id, shape: [usize; 2], axis: usize, parts: usize, node: &Node) -> Option<Id> {
        let mut split = shape.to_vec();
        split[axis] /= parts;
        let sizes = (parts, split[0], split[1]);
        split.insert(axis, parts);
        let order = if axis == 0 { vec![0, 1, 2] } else { vec![1, 0, 2] };
        let val = &self.program.vals[id];
        let (source, view) = match &val.kind {
            Kind::View(view) => (val.inputs[0], view.then(&ViewOp::Reshape(shape.into()))?),
            _ => (id, View::whole(&shape.into())),
        };
        let view = view.then(&ViewOp::Reshape(split.into()))?.then(&ViewOp::Permute(order))?;
        let size = (val.dtype, val.numel);
        let id = if view.is_identity() { source } else { self.push(Kind::View(view), vec![source], size, node) };
        self.program.matrix(id, sizes).is_some().then_some(id)
    }

    /// An operand of a product must be a matrix whose rows or columns lie dense; any other view of it is copied first.
    fn operand(&mut self, id: Id, sizes: (usize, usize, usize), node: &Node) -> Id {
        if self.program.matrix(id, sizes).is_some() {
            return id;
        }
        // Windows over what is nowhere stored: the image is copied rather than its windows.
        let id = self.over_a_copy(id, node);
        if self.program.matrix(id, sizes).is_some() {
            return id;
        }
        self.copy(id, (self.program.vals[id].dtype, sizes.0 * sizes.1 * sizes.2), node)
    }

    /// Windows, or a view of some, over a copy of their image.
    fn over_a_copy(&mut self, id: Id, node: &Node) -> Id {
        let Val { kind, inputs, dtype, numel, .. } = self.program.vals[id].clone();
        let below = match (&kind, inputs.first()) {
            (Kind::Window(..), Some(&image)) => self.copy(image, (dtype, self.program.vals[image].numel), node),
            (Kind::View(_), Some(&cut)) if matches!(self.program.vals[cut].kind, Kind::Window(..)) => {
                self.over_a_copy(cut, node)
            }
            _ => return id,
        };
        self.push(kind, vec![below], (dtype, numel), node)
    }

    fn copy(&mut self, id: Id, size: (DType, usize), node: &Node) -> Id {
        let map = Map { text: "$0", helpers: "", heavy: false };
        self.push(Kind::Map(map), vec![id], size, node)
    }

    /// A long fold to few results would leave the device idle: it becomes two, the first of many partial results.
    fn fold(&mut self, fold: Fold, source: Id, size: (DType, usize), node: &Node) -> Id {
        let results = fold.outer * fold.inner;
        let split = (results > 0 && results < 256 && fold.length >= 8192)
            .then(|| [256, 128, 64, 32, 125, 100, 49, 25].into_iter().find(|parts| fold.length.is_multiple_of(*parts)))
            .flatten();
        let Some(parts) = split else {
            return self.push(Kind::Fold(fold), vec![source], size, node);
        };
        let first = Fold { outer: fold.outer * parts, length: fold.length / parts, ..fold };
        let partial = self.push(Kind::Fold(first), vec![source], (size.0, results * parts), node);
        self.push(Kind::Fold(Fold { length: parts, ..fold }), vec![partial], size, node)
    }
}

impl Reduction {
    /// The result of combining nothing, as WGSL of one scalar of `dtype`.
    pub fn identity(self, dtype: DType) -> &'static str {
        match (self, dtype) {
            (Reduction::Sum, DType::F32) => "0.0",
            (Reduction::Prod, DType::F32) => "1.0",
            (Reduction::Max, DType::F32) => "-0x1.fffffep+127f",
            (Reduction::Min, DType::F32) => "0x1.fffffep+127f",
            (Reduction::Sum, DType::I32) => "0i",
            (Reduction::Prod, DType::I32) => "1i",
            (Reduction::Max, DType::I32) => "i32(-2147483648)",
            (Reduction::Min, DType::I32) => "2147483647i",
            (Reduction::Sum | Reduction::Max, DType::U32 | DType::Bool) => "0u",
            (Reduction::Prod, DType::U32 | DType::Bool) => "1u",
            (Reduction::Min, DType::U32 | DType::Bool) => "4294967295u",
        }
    }
}

/// How a matrix of a product lies in the tensor it is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrix {
    /// The stored or given value it is read from.
    pub source: Id,
    /// First element.
    pub offset: usize,
    /// Columns lie dense rather than rows.
    pub transposed: bool,
    /// Elements from one dense line to the next.
    pub ld: usize,
    /// Elements from one matrix of the batch to the next; 0 if all share one.
    pub batch_stride: usize,
    /// The dense lines are windows over the source rather than elements of it.
    pub windows: Option<Windows>,
}

impl Program {
    /// Reads a value as `batch` matrices of `rows` by `columns`, if its view allows it.
    pub fn matrix(&self, id: Id, (batch, rows, columns): (usize, usize, usize)) -> Option<Matrix> {
        let val = &self.vals[id];
        let shape: crate::shape::Shape = [batch, rows, columns].into();
        let (seen, view) = match &val.kind {
            Kind::View(view) => (val.inputs[0], view.then(&ViewOp::Reshape(shape))?),
            _ => (id, View::whole(&shape)),
        };
        let (source, windows) = match self.vals[seen].kind {
            Kind::Window(windows, Through::Cut) => (self.vals[seen].inputs[0], Some(windows)),
            _ => (seen, None),
        };
        // Neither a view, where a chain of them has no strided form, nor a constant lies in a buffer.
        if matches!(self.vals[source].kind, Kind::View(_) | Kind::Window(..) | Kind::Scalar(_)) {
            return None;
        }
        let [batch_stride, row, column] = view.strides[..] else { return None };
        if view.inside.is_some() || view.offset < 0 || [batch_stride, row, column].iter().any(|&s| s < 0) {
            return None;
        }
        let (transposed, ld) = match () {
            () if column == 1 || columns == 1 => (false, row as usize),
            () if row == 1 || rows == 1 => (true, column as usize),
            () => return None,
        };
        let (offset, batch_stride) = (view.offset as usize, if batch == 1 { 0 } else { batch_stride as usize });
        match windows {
            // A line is a whole window.
            Some(windows) => {
                let line = windows.elements();
                let lines = if transposed { columns } else { rows };
                let dense = if transposed { rows } else { columns };
                if dense != line || (ld != line && lines > 1) || offset != 0 || !batch_stride.is_multiple_of(line) {
                    return None;
                }
            }
            // A binding has to start at a multiple of 256 bytes on any adapter.
            None if !offset.is_multiple_of(64) => return None,
            None => {}
        }
        Some(Matrix { source, offset, transposed, ld, batch_stride, windows })
    }

    /// How often each value is used, roots included.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.vals.len()];
        for val in &self.vals {
            val.inputs.iter().for_each(|&input| uses[input] += 1);
        }
        self.roots.iter().for_each(|&root| uses[root] += 1);
        uses
    }

    /// Appends a value.
    pub fn push(&mut self, val: Val) -> Id {
        self.vals.push(val);
        self.vals.len() - 1
    }

    /// The value itself if it is computed with `numel` elements, else a stored copy of it.
    pub fn computed(&mut self, id: Id, numel: usize) -> Id {
        let val = &self.vals[id];
        if !matches!(val.kind, Kind::Leaf(_) | Kind::Scalar(_) | Kind::View(_) | Kind::Window(..)) && val.numel == numel
        {
            return id;
        }
        self.copy_of(id, numel)
    }

    /// A stored copy of a value in `numel` elements, as many as it has; of a constant, as many as are asked for.
    pub fn copy_of(&mut self, source: Id, numel: usize) -> Id {
        let Val { dtype, place, .. } = self.vals[source].clone();
        let map = Map { text: "$0", helpers: "", heavy: false };
        self.push(Val { kind: Kind::Map(map), inputs: vec![source], dtype, numel, name: "copy".into(), place })
    }
}
