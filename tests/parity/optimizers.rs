//! Optimizers: ten steps each, with their options.
