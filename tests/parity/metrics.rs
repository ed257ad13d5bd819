//! Metrics over three weighted batches.
