//! Whole trajectories of `fit`: History and final weights.
