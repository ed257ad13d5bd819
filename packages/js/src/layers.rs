//! Layers by their descriptions.
//!
//! The words are Keras' in camel case, and so are the defaults, which are those of the Rust layers. Deliberately absent:
//! layers of several inputs, which a chain does not have.

use wasm_bindgen::{JsError, JsValue};
use wengert::layers::LayerRef;
use wengert::prelude::*;

use crate::options::Options;

/// Calls a builder's method where the option was given.
macro_rules! set {
    ($options:ident, $layer:ident, $($read:ident $name:literal => $method:ident),* $(,)?) => {
        $(if let Some(value) = $options.$read($name) {
            $layer = $layer.$method(value);
        })*
    };
}

/// The same with text, which builders take by reference.
macro_rules! words {
    ($options:ident, $layer:ident, $($name:literal => $method:ident),* $(,)?) => {
        $(if let Some(value) = $options.text($name) {
            $layer = $layer.$method(value.as_str());
        })*
    };
}

/// Sets a field where the option was given.
macro_rules! fields {
    ($options:ident, $layer:ident, $($read:ident $name:literal => $field:ident),* $(,)?) => {
        $(if let Some(value) = $options.$read($name) {
            $layer.$field = value;
        })*
    };
}

macro_rules! conv {
    ($options:ident, $layer:ident, $rank:literal) => {{
        let filters = $options.needed("filters", $options.count("filters"));
        let mut layer = $layer::new(filters, $options.needed("kernelSize", $options.size::<$rank>("kernelSize")));
        if let Some(strides) = $options.size::<$rank>("strides") {
            layer = layer.strides(strides);
        }
        if let Some(rate) = $options.size::<$rank>("dilationRate") {
            layer = layer.dilation_rate(rate);
        }
        words!($options, layer, "padding" => padding, "activation" => activation,
            "kernelInitializer" => kernel_initializer);
        set!($options, layer, flag "useBias" => use_bias, count "groups" => groups);
        layer.into()
    }};
}

macro_rules! pool {
    ($options:ident, $layer:ident, $rank:literal) => {{
        let mut layer = $layer::new($options.size::<$rank>("poolSize").unwrap_or([2; $rank]));
        if let Some(strides) = $options.size::<$rank>("strides") {
            layer = layer.strides(strides);
        }
        words!($options, layer, "padding" => padding);
        layer.into()
    }};
}

macro_rules! recurrent {
    ($options:ident, $layer:ident) => {{
        let mut layer = $layer::new($options.needed("units", $options.count("units")));
        set!($options, layer, flag "returnSequences" => return_sequences, number "dropout" => dropout);
        layer.into()
    }};
}

/// Names that `layer` knows, for the message of another.
const KNOWN: &str = "dense, conv1d, conv2d, maxPooling1d, maxPooling2d, averagePooling1d, averagePooling2d, \
    globalMaxPooling1d, globalMaxPooling2d, globalAveragePooling1d, globalAveragePooling2d, batchNormalization, \
    layerNormalization, dropout, activation, flatten, reshape, rescaling, embedding, lstm, gru, simpleRnn";

/// The layer that an object describes.
pub fn layer(description: &JsValue) -> Result<LayerRef, JsError> {
    let kind = Options::of(description, "a layer")?.text("type");
    let Some(kind) = kind else { return Err(JsError::new(&format!("a layer needs a type, one of {KNOWN}"))) };
    let options = Options::of(description, format!("a layer of type {kind}"))?;
    options.get("type");
    let mut layer: LayerRef = match kind.as_str() {
        "dense" => {
            let mut layer = Dense::new(options.needed("units", options.count("units")));
            words!(options, layer, "activation" => activation, "kernelInitializer" => kernel_initializer);
            set!(options, layer, flag "useBias" => use_bias);
            layer.into()
        }
        "conv1d" => conv!(options, Conv1D, 1),
        "conv2d" => conv!(options, Conv2D, 2),
        "maxPooling1d" => pool!(options, MaxPooling1D, 1),
        "maxPooling2d" => pool!(options, MaxPooling2D, 2),
        "averagePooling1d" => pool!(options, AveragePooling1D, 1),
        "averagePooling2d" => pool!(options, AveragePooling2D, 2),
        "globalMaxPooling1d" => GlobalMaxPooling1D::new().into(),
        "globalMaxPooling2d" => GlobalMaxPooling2D::new().into(),
        "globalAveragePooling1d" => GlobalAveragePooling1D::new().into(),
        "globalAveragePooling2d" => GlobalAveragePooling2D::new().into(),
        "batchNormalization" => {
            let mut layer = BatchNormalization::new();
            fields!(options, layer, number "momentum" => momentum, number "epsilon" => epsilon, flag "center" => center,
                flag "scale" => scale);
            layer.into()
        }
        "layerNormalization" => {
            let mut layer = LayerNormalization::new();
            fields!(options, layer, number "epsilon" => epsilon, flag "center" => center, flag "scale" => scale);
            layer.into()
        }
        "dropout" => Dropout::new(options.needed("rate", options.number("rate"))).into(),
        "activation" => Activation::new(&options.needed("function", options.text("function"))).into(),
        "flatten" => Flatten.into(),
        "reshape" => {
            let shape = options.needed("shape", options.counts("shape"));
            Reshape::new(shape.into_iter().map(|length| length as i32).collect::<Vec<_>>()).into()
        }
        "rescaling" => {
            let mut layer = Rescaling::new(options.needed("scale", options.number("scale")));
            set!(options, layer, number "offset" => offset);
            layer.into()
        }
        "embedding" => {
            let rows = options.needed("inputDim", options.count("inputDim"));
            Embedding::new(rows, options.needed("outputDim", options.count("outputDim"))).into()
        }
        "lstm" => recurrent!(options, LSTM),
        "gru" => recurrent!(options, GRU),
        "simpleRnn" => recurrent!(options, SimpleRNN),
        _ => return Err(JsError::new(&format!("there is no layer of type {kind:?}; there are {KNOWN}"))),
    };
    if let Some(name) = options.text("name") {
        layer = layer.named(&name);
    }
    if options.flag("trainable") == Some(false) {
        layer = layer.frozen();
    }
    options.end()?;
    Ok(layer)
}
