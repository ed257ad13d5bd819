//! What a training program usually names: `use wengert::prelude::*;`.
//!
//! Floor 5. Deliberately absent: what only a program about the machine or the compiler needs.

#[cfg(not(target_arch = "wasm32"))]
pub use crate::callbacks::{BackupAndRestore, CSVLogger, ModelCheckpoint, TensorBoard};
pub use crate::callbacks::{
    Callback, CallbackState, EarlyStopping, Hook, LambdaCallback, LearningRateScheduler, ReduceLROnPlateau, Run,
    TerminateOnNaN,
};
pub use crate::data::{Batch, Data};
pub use crate::dtype::DType;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::gpu::Device;
pub use crate::grad::{grad, value_and_grad};
pub use crate::graph::{Spec, Tensor, Tree};
pub use crate::host::say;
pub use crate::layers::{
    Activation, Add, Attention, Average, AveragePooling1D, AveragePooling2D, BatchNormalization, Bidirectional,
    Concatenate, Context, Conv1D, Conv1DTranspose, Conv2D, Conv2DTranspose, Cropping2D, Dense, DepthwiseConv1D,
    DepthwiseConv2D, Dot, Dropout, ELU, Embedding, Flatten, GRU, GlobalAveragePooling1D, GlobalAveragePooling2D,
    GlobalMaxPooling1D, GlobalMaxPooling2D, GroupNormalization, Identity, Input, LSTM, Lambda, Layer,
    LayerNormalization, LeakyReLU, MaxPooling1D, MaxPooling2D, Maximum, Minimum, Mode, MultiHeadAttention, Multiply,
    PReLU, Permute, RMSNormalization, ReLU, RepeatVector, Rescaling, Reshape, SeparableConv1D, SeparableConv2D,
    Sequential, SimpleRNN, Softmax, SpatialDropout1D, SpatialDropout2D, Subtract, Symbolic, TimeDistributed,
    UnitNormalization, UpSampling2D, Variable, Variables, ZeroPadding2D,
};
pub use crate::losses::{BinaryCrossentropy, CategoricalCrossentropy, Loss, SparseCategoricalCrossentropy};
pub use crate::metrics::{Mean, Metric, Observed};
pub use crate::model::{
    Checkpoint, Compile, Evaluate, Fit, Functional, History, Model, NetworkState, Predict, PredictState, Scores,
    Stream, TestState, Train, TrainState, Verbose,
};
pub use crate::ops::{Axes, Keep, Operand, concat, stack};
pub use crate::optimizers::{Adam, AdamW, Optimizer, RMSprop, SGD};
pub use crate::random;
pub use crate::step::{Logs, Step};
