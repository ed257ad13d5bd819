//! Layers other than convolutions: forward, gradients, new state.
