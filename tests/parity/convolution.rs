//! Convolution and pooling layers: forward, gradients, shapes.
