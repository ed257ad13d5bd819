//! Decisions of callbacks: when training stops, which epoch is kept, what the learning rate becomes.
