//! Whether history is still needed: evaluated tensors let go of theirs unless a derivative is being recorded.

use std::cell::Cell;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Keeps the history of tensors that are evaluated meanwhile, until dropped.
#[derive(Debug)]
pub(crate) struct Taping(());

impl Taping {
    /// Starts keeping.
    pub fn start() -> Taping {
        DEPTH.set(DEPTH.get() + 1);
        Taping(())
    }
}

impl Drop for Taping {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Whether a derivative is being recorded on this thread.
pub(crate) fn is_taping() -> bool {
    DEPTH.get() > 0
}
