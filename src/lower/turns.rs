//! Loops: a program that runs `count` times, with some of its tensors at another place in each turn.
//!
//! The steps of a training and the steps of a recurrence are the same to the compiler: what is carried from turn to turn is
//! overwritten in place, what comes in and goes out lies `stride` words further each time. Which turn it is comes from a
//! uniform of its own, `turns`, bound at a dynamic offset: one pipeline and one bind group serve every turn, and another
//! number of turns makes nothing. A program that is one workgroup runs its turns inside one dispatch, with a barrier
//! between them; the bounds of that loop come from the uniform, so every invocation takes the same way, as browsers
//! demand. Deliberately absent: any limit on how many turns there are, which is the caller's.

use crate::collections::Table;

use super::program::Id;

/// Where a tensor lies in each turn: `stride` words behind where it lay in the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stride {
    /// Words from one turn to the next, negative where turns go backwards.
    pub words: i32,
    /// Words from the beginning of the tensor's slot to its place in the first turn.
    pub first: u32,
    /// Bytes from the beginning of the slot that all turns together take.
    pub extent: u64,
}

impl Stride {
    /// Places `words` apart for so many turns.
    pub fn forward(words: usize, turns: usize) -> Stride {
        Stride { words: words as i32, first: 0, extent: (words * turns) as u64 * 4 }
    }

    /// Whether four lanes may be read and written at once in every turn.
    pub fn is_aligned(&self) -> bool {
        self.words % 4 == 0 && self.first.is_multiple_of(4)
    }
}

/// How the kernels of a loop find out which turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each dispatch is one turn, the one that the uniform says.
    Outside,
    /// Each dispatch runs all turns that the uniform says.
    Inside,
}

/// The loop that kernels are written for.
#[derive(Clone, Copy, Debug)]
pub struct Turns<'a> {
    /// The tensors that advance.
    pub strides: &'a Table<Id, Stride>,
    /// Values that are copied over leaves at the end of each turn, where the loop is inside the dispatch.
    pub copies: &'a [(Id, Id)],
    /// Where the loop is.
    pub way: Way,
}

impl Turns<'_> {
    /// The number of the turn, in WGSL.
    pub fn turn(&self) -> &'static str {
        match self.way {
            Way::Outside => "turns.x",
            Way::Inside => "turn",
        }
    }
}

/// The declaration of the uniform: the first turn and the one behind the last.
pub fn declare(binding: usize) -> String {
    format!("@group(0) @binding({binding}) var<uniform> turns: vec4<u32>;\n")
}

/// A body as a loop over the turns. The variable is private so that the functions which load and store see it; what decides
/// about another turn is not, since a browser takes private variables for different in every invocation.
pub fn repeat(body: &str) -> String {
    format!("for (var next = turns.x; next < turns.y + zero; next++) {{\nturn = next;\n{body}storageBarrier();\n}}\n")
}
