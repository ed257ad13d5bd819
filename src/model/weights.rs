//! Weights as a safetensors file: every variable of a network under its name ("dense/kernel").
//!
//! Files of other programs are read by mapping their names, and those of PyTorch by turning its layouts into ours.
//! Deliberately absent: optimizer and progress; a weights file is for using a model, see
//! [`Checkpoint`](super::Checkpoint) for going on training it.

use super::checkpoint::shortened;
use super::functional::Functional;
use super::state::at_home;
use super::tensors::{self, File, View};
use crate::collections::Table;
use crate::error::{Error, Result};
use crate::gpu::Device;
use crate::graph::{Spec, Tensor, nowhere};
use crate::read::read_all;
use crate::step::{assign_all, part_from_holders};

/// What a weights file and a network had in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Variables that were set.
    pub matched: Vec<String>,
    /// Variables of the network that the file does not have; they keep their values.
    pub missing: Vec<String>,
    /// Tensors of the file that the network does not have, under their names in the file.
    pub unused: Vec<String>,
    /// Variables that the file has in another shape or dtype, with both; they keep their values.
    pub mismatched: Vec<String>,
}

/// How the tensors of a file are named and laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Layout {
    /// As here and in Keras: "dense/kernel", `[in, out]`.
    #[default]
    Keras,
    /// As in PyTorch: "dense.weight", `[out, in]`. Dots in names become slashes. A `weight` is the variable `kernel` of
    /// its layer, with its axes turned (`[out, in, ..window]` to `[..window, in, out]`), or else `gamma` or
    /// `embeddings`, which are laid out alike; `bias` may be `beta`, `running_mean` and `running_var` are the moving
    /// ones. Not covered: transposed and depthwise convolutions, whose axes come in other orders.
    PyTorch,
}

/// What a tensor of the file is called in the network; `None` leaves it out.
pub type Rename<'a> = &'a dyn Fn(&str) -> Option<String>;

/// How weights are loaded. Take what differs: `LoadWeights { strict: true, ..Default::default() }`.
///
/// ```
/// use wengert::model::{Layout, LoadWeights};
///
/// // "model.encoder.0.weight" of a PyTorch file is the kernel of the layer "encoder.0" named "encoder/0" here.
/// let torch = LoadWeights {
///     layout: Layout::PyTorch,
///     rename: Some(&|name| name.strip_prefix("model.").map(Into::into)),
///     ..LoadWeights::default()
/// };
/// ```
#[derive(Clone, Copy, Default)]
pub struct LoadWeights<'a> {
    /// Whether it is an error that the network has a variable without a tensor or the file a tensor without a variable.
    /// Tensors that `rename` leaves out do not count.
    pub strict: bool,
    /// Whether variables that the file has in another shape or dtype keep their values; an error unless set.
    pub skip_mismatch: bool,
    /// How the file names its tensors and lays them out.
    pub layout: Layout,
    /// Applied to the names of the file first.
    pub rename: Option<Rename<'a>>,
}

/// A tensor of a file that is a variable.
struct Found<'f> {
    /// Its name in the file.
    name: &'f str,
    view: View<'f>,
    /// Whether it is `[out, in, ..window]` and the variable `[..window, in, out]`.
    turned: bool,
}

impl Found<'_> {
    /// The shape that the variable must have.
    fn shape(&self) -> Vec<usize> {
        match self.view.shape() {
            [out, inputs, window @ ..] if self.turned => [window, &[*inputs, *out]].concat(),
            shape => shape.to_vec(),
        }
    }
}

impl Functional {
    /// The variables as the bytes of a safetensors file.
    pub async fn weights(&self) -> Result<Vec<u8>> {
        let device = self.device().await?;
        let (names, values): (Vec<String>, Vec<Tensor>) = self.variables()?.into_iter().unzip();
        let read = read_all(&device, &values).await?;
        let spec = |tensor: &Tensor| Spec::new(tensor.shape(), tensor.dtype());
        let all: Vec<_> = names.into_iter().zip(values.iter().map(spec)).zip(read).map(flat).collect();
        Ok(tensors::write(&all, None))
    }

    /// Sets the variables that `file` has by name; see [`set_weights_with`](Functional::set_weights_with).
    pub async fn set_weights(&self, file: &[u8]) -> Result<Loaded> {
        self.set_weights_with(file, LoadWeights::default()).await
    }

    /// Sets the variables that `file` has by name. Numbers of f16, bf16 and f64 are rounded to f32, those of i64 must
    /// fit.
    ///
    /// # Errors
    /// [`ErrorKind::Format`](crate::error::ErrorKind::Format) for what is no safetensors file, or a truncated one; [`ErrorKind::State`](crate::error::ErrorKind::State) where a tensor has
    /// another shape or dtype than its variable, where two tensors are the same variable, where no tensor is any
    /// variable, and for what [`strict`](LoadWeights::strict) forbids. Nothing is changed then.
    pub async fn set_weights_with(&self, file: &[u8], options: LoadWeights<'_>) -> Result<Loaded> {
        let file = File::read(file, "the weights")?;
        let variables = self.variables()?;
        let known: Table<&str, usize> = variables.iter().enumerate().map(|(at, (name, _))| (&**name, at)).collect();
        let (mut found, mut loaded) = (Table::new(), Loaded::default());
        for view in file.tensors() {
            let name = view.name();
            let renamed = match options.rename {
                Some(rename) => rename(name),
                None => Some(name.to_string()),
            };
            let Some(renamed) = renamed else { continue };
            let Some((at, turned)) = partner(&renamed, view.shape().len(), options.layout, &known) else {
                loaded.unused.push(name.into());
                continue;
            };
            if let Some(Found { name: other, .. }) = found.insert(at, Found { name, view, turned }) {
                return Err(state(format!("{other} and {name} of the file are both {}", variables[at].0)));
            }
        }
        let mut values = Vec::new();
        for (at, (name, variable)) in variables.iter().enumerate() {
            let Some(tensor) = found.get(&at) else {
                loaded.missing.push(name.clone());
                continue;
            };
            let spec = Spec::new(variable.shape(), variable.dtype());
            let bits = Some(()).filter(|()| tensor.shape() == spec.shape.dims());
            let Some(bits) = bits.and_then(|()| tensors::converted(&tensor.view, spec.dtype)) else {
                let own = if tensor.name == name { String::new() } else { format!(" as {}", tensor.name) };
                loaded.mismatched.push(format!("{name} is {spec}, the file has {}{own}", tensor.view.describe()));
                continue;
            };
            let bits = if tensor.turned { turned(&bits, tensor.view.shape()) } else { bits };
            values.push((at, Tensor::from_bits(bits.into(), spec, nowhere())));
            loaded.matched.push(name.clone());
        }
        if !(loaded.mismatched.is_empty() || options.skip_mismatch) {
            return Err(state(shortened(&loaded.mismatched)));
        }
        if options.strict && !(loaded.missing.is_empty() && loaded.unused.is_empty()) {
            let list = |names: &[String]| if names.is_empty() { "nothing".into() } else { shortened(names) };
            let (missing, unused) = (list(&loaded.missing), list(&loaded.unused));
            return Err(state(format!("the file lacks {missing}; the network has no place for {unused}")));
        }
        if let (true, true, [missing, ..], [unused, ..]) =
            (loaded.matched.is_empty(), loaded.mismatched.is_empty(), &*loaded.missing, &*loaded.unused)
        {
            let what = format!("nothing in the file is a variable of the network: it has {unused}, not {missing}");
            return Err(state(what));
        }
        self.assign(&self.device().await?, &values)?;
        Ok(loaded)
    }

    /// Overwrites variables, given by their position in [`variables`](Functional::variables), where they lie. Tensors
    /// that somebody took before keep their values.
    pub(crate) fn assign(&self, device: &Device, values: &[(usize, Tensor)]) -> Result<()> {
        let mut store = at_home(&self.store)?;
        let store = &mut *store;
        part_from_holders(device, &mut store.trainable)?;
        part_from_holders(device, &mut store.non_trainable)?;
        let all: Vec<&Tensor> = store.trainable.iter().chain(&store.non_trainable).collect();
        let pair = |(index, value): &(usize, Tensor)| all.get(*index).map(|&target| (target.clone(), value.clone()));
        assign_all(device, &values.iter().filter_map(pair).collect::<Vec<_>>())
    }

    /// Writes [`weights`](Functional::weights) to a file, whole or not at all.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn save_weights(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        crate::io::write(path, &self.weights().await?)
    }

    /// Reads a file that [`save_weights`](Functional::save_weights) or any other program wrote.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load_weights(&self, path: impl AsRef<std::path::Path>) -> Result<Loaded> {
        self.set_weights(&crate::io::read(path)?).await
    }

    /// Reads a file with names or layouts of another program, or strictly.
    #[cfg(not(target_arch = "wasm32"))]
    pub async fn load_weights_with(
        &self,
        path: impl AsRef<std::path::Path>,
        options: LoadWeights<'_>,
    ) -> Result<Loaded> {
        self.set_weights_with(&crate::io::read(path)?, options).await
    }

    /// [`save_weights`](Functional::save_weights), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn save_weights_blocking(&self, path: impl AsRef<std::path::Path>) -> Result<()> {
        pollster::block_on(self.save_weights(path))
    }

    /// [`load_weights`](Functional::load_weights), blocking.
    #[cfg(not(target_arch = "wasm32"))]
    pub fn load_weights_blocking(&self, path: impl AsRef<std::path::Path>) -> Result<Loaded> {
        pollster::block_on(self.load_weights(path))
    }
}

fn state(what: String) -> Error {
    Error::state(what)
}

fn flat<A, B, C>(((a, b), c): ((A, B), C)) -> (A, B, C) {
    (a, b, c)
}

/// The variable of a name of the file, and whether the axes of the tensor are to be turned.
fn partner(name: &str, rank: usize, layout: Layout, known: &Table<&str, usize>) -> Option<(usize, bool)> {
    if layout == Layout::Keras {
        return Some((*known.get(name)?, false));
    }
    let name = name.replace('.', "/");
    let (path, last) = match name.rsplit_once('/') {
        Some((path, last)) => (format!("{path}/"), last),
        None => (String::new(), &*name),
    };
    let candidates: &[&str] = match last {
        "weight" => &["kernel", "gamma", "embeddings"],
        "bias" => &["bias", "beta"],
        "running_mean" => &["moving_mean"],
        "running_var" => &["moving_variance"],
        other => &[other],
    };
    let mut places = candidates.iter().filter_map(|own| Some((*known.get(&*format!("{path}{own}"))?, *own)));
    let (at, own) = places.next()?;
    Some((at, last == "weight" && own == "kernel" && rank >= 2))
}

/// The elements of `[out, in, ..window]` as `[..window, in, out]`.
fn turned(bits: &[u32], shape: &[usize]) -> Vec<u32> {
    let (out, inputs) = (shape[0], shape[1]);
    let window: usize = shape[2..].iter().product();
    let mut result = Vec::with_capacity(bits.len());
    for at in 0..window {
        for i in 0..inputs {
            result.extend((0..out).map(|o| bits[(o * inputs + i) * window + at]));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_turned_with_any_window() {
        assert_eq!(turned(&[1, 2, 3, 4, 5, 6], &[2, 3]), [1, 4, 2, 5, 3, 6]);
        // [out 2, in 3, 2, 2] to [2, 2, in, out], element by element.
        let (shape, bits) = ([2, 3, 2, 2], (0..24).collect::<Vec<u32>>());
        let result = turned(&bits, &shape);
        for (o, i, a, b) in (0..24).map(|at| (at / 12, at / 4 % 3, at / 2 % 2, at % 2)) {
            assert_eq!(result[((a * 2 + b) * 3 + i) * 2 + o], bits[((o * 3 + i) * 2 + a) * 2 + b]);
        }
    }

    #[test]
    fn names_of_pytorch_find_what_the_layer_has() {
        let names =
            ["a/kernel", "a/bias", "b/c/gamma", "b/c/beta", "b/c/moving_mean", "b/c/moving_variance", "e/embeddings"];
        let known: Table<&str, usize> = names.iter().enumerate().map(|(at, &name)| (name, at)).collect();
        let find = |name, rank| partner(name, rank, Layout::PyTorch, &known);
        assert_eq!((find("a.weight", 2), find("a.bias", 1)), (Some((0, true)), Some((1, false))));
        assert_eq!((find("b.c.weight", 1), find("b.c.bias", 1)), (Some((2, false)), Some((3, false))));
        assert_eq!((find("b.c.running_mean", 1), find("b.c.running_var", 1)), (Some((4, false)), Some((5, false))));
        assert_eq!((find("e.weight", 2), find("b.c.num_batches_tracked", 0)), (Some((6, false)), None));
        assert_eq!((find("weight", 2), find("a", 2), find("a/kernel", 2)), (None, None, Some((0, false))));
        assert_eq!(partner("a.weight", 2, Layout::Keras, &known), None);
    }
}
