//! Losses: values under every reduction and weight, and gradients by the predictions.
