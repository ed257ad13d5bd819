//! [`Sequential`]: a chain of layers, each called on the output of the one before.

use super::{Input, LayerRef, Network, Symbolic};
use crate::error::Result;
use crate::shape::Shape;

/// A chain of layers being built.
///
/// ```
/// use wengert::layers::{Dense, Dropout, Sequential};
///
/// let network = Sequential::new([784])
///     .add(Dense::new(512).activation("relu"))
///     .add(Dropout::new(0.2))
///     .add(Dense::new(10))
///     .network()?;
/// assert_eq!(network.count_params(), 407_050);
/// # Ok::<(), wengert::error::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sequential {
    input: Symbolic,
    output: Symbolic,
}

impl Sequential {
    /// An empty chain for f32 batch entries of this shape.
    pub fn new(shape: impl Into<Shape>) -> Sequential {
        Sequential::of(Input(shape))
    }

    /// An empty chain on an input of one's own, of another dtype for example.
    pub fn of(input: Symbolic) -> Sequential {
        Sequential { output: input.clone(), input }
    }

    /// Appends a layer. What does not fit is returned by [`network`](Sequential::network).
    #[track_caller]
    #[allow(clippy::should_implement_trait)] // The field's word; nothing is summed.
    pub fn add(self, layer: impl Into<LayerRef>) -> Sequential {
        self.append(layer.into())
    }

    #[track_caller]
    fn append(self, layer: LayerRef) -> Sequential {
        let output = layer.on(&self.output);
        Sequential { output, ..self }
    }

    /// The tensor the chain begins with.
    pub fn input(&self) -> &Symbolic {
        &self.input
    }

    /// The output of the last layer, to build on.
    pub fn output(&self) -> &Symbolic {
        &self.output
    }

    /// The network.
    pub fn network(&self) -> Result<Network> {
        Network::new(std::slice::from_ref(&self.input), std::slice::from_ref(&self.output))
            .map(|network| network.named("sequential"))
    }
}
