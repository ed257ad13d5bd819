//! Weights as a safetensors file: every variable of a network under its name ("dense/kernel").
//!
//! Deliberately absent: optimizer and progress; a weights file is for using a model, not for going on training it.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::functional::Functional;
use super::state::at_home;
use crate::dtype::DType;
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
    /// Tensors of the file that the network does not have.
    pub unused: Vec<String>,
}

fn format(what: &str) -> impl Fn(safetensors::SafeTensorError) -> Error {
    move |why| Error::Format { what: what.into(), why: why.to_string() }
}

const fn kind(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::I32 => Dtype::I32,
        DType::U32 | DType::Bool => Dtype::U32,
    }
}

impl Functional {
    /// The variables as the bytes of a safetensors file.
    pub async fn weights(&self) -> Result<Vec<u8>> {
        let device = self.device().await?;
        let (names, tensors): (Vec<String>, Vec<Tensor>) = self.variables()?.into_iter().unzip();
        let mut read = Vec::new();
        for ((name, tensor), bits) in names.into_iter().zip(&tensors).zip(read_all(&device, &tensors).await?) {
            let bytes: Vec<u8> = bits.into_iter().flat_map(u32::to_le_bytes).collect();
            read.push((name, kind(tensor.dtype()), tensor.shape().to_vec(), bytes));
        }
        let views: Vec<(&str, TensorView)> = (read.iter())
            .map(|(name, dtype, shape, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<_, _>>()
            .map_err(format("weights"))?;
        serialize(views, None).map_err(format("weights"))
    }

    /// Sets the variables that `file` has by name.
    ///
    /// # Errors
    /// [`Error::Format`] for what is no safetensors file; [`Error::State`] where a tensor has another shape or dtype
    /// than the variable of its name, and for a file that has none of the variables. Nothing is changed then.
    pub async fn set_weights(&self, file: &[u8]) -> Result<Loaded> {
        let tensors = SafeTensors::deserialize(file).map_err(format("weights"))?;
        let (mut values, mut loaded) = (Vec::new(), Loaded::default());
        for (index, (name, variable)) in self.variables()?.into_iter().enumerate() {
            let Ok(view) = tensors.tensor(&name) else {
                loaded.missing.push(name);
                continue;
            };
            let spec = Spec::new(variable.shape(), variable.dtype());
            if view.shape() != spec.shape.dims() || view.dtype() != kind(spec.dtype) {
                let what = format!("{name} is {spec}, the file has {:?}{:?}", view.dtype(), view.shape());
                return Err(Error::State { what });
            }
            let bits = view.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            values.push((index, Tensor::from_bits(bits, spec, nowhere())));
            loaded.matched.push(name);
        }
        loaded.unused =
            tensors.names().into_iter().filter(|n| !loaded.matched.iter().any(|m| m == n)).map(Into::into).collect();
        loaded.unused.sort();
        if let (true, Some(missing), Some(unused)) = (values.is_empty(), loaded.missing.first(), loaded.unused.first())
        {
            let what =
                format!("the file has no variable of the network, which has \"{missing}\", say; it has \"{unused}\"");
            return Err(Error::State { what });
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
}
