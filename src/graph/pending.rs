//! What a thread has recorded and what has no value yet.
//!
//! A read computes what it needs; what else hangs on the same values, a training step's new state beside the loss that
//! is read, is best computed with it, and to find it somebody has to know of it. References are weak: nothing lives for
//! being listed here. Deliberately absent: what is recorded on stand-ins, which a step computes.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::{Arc, Weak};

use super::node::Node;
use crate::collections::Set;

/// A chain of so many nodes without a value is evaluated where it is recorded, ...
const LONGEST: u32 = 256;
/// The list is looked through for what has gone when it is so long, or twice as long as what was left the last time.
const SHORT: usize = 1024;

thread_local! {
    static PENDING: RefCell<Pending> = const { RefCell::new(Pending { nodes: Vec::new(), full: SHORT, site: None, due: LONGEST }) };
}

struct Pending {
    /// In recording order.
    nodes: Vec<Weak<Node>>,
    full: usize,
    /// The line that recorded what was evaluated for its length last.
    site: Option<&'static Location<'static>>,
    /// The length that is too long.
    due: u32,
}

fn waits(node: &Weak<Node>) -> bool {
    // Without counting a reference, so that nothing is dropped in here.
    node.strong_count() > 0
}

/// Lists a node.
pub(super) fn enter(node: &Arc<Node>) {
    PENDING.with_borrow_mut(|pending| {
        if pending.nodes.len() >= pending.full {
            pending.nodes.retain(waits);
            pending.full = SHORT.max(2 * pending.nodes.len());
        }
        pending.nodes.push(Arc::downgrade(node));
    });
}

/// Whether a chain is to be evaluated now that it is `length` long and `site` has recorded the latest node. In a loop it
/// is so always at the same line, or the loop would be cut at another place each time, which is another program to
/// compile; at the latest at twice the length.
pub(super) fn is_due(length: u32, site: &'static Location<'static>) -> bool {
    PENDING.with_borrow_mut(|pending| {
        let due = length >= pending.due && (pending.site == Some(site) || length >= pending.due.saturating_mul(2));
        if due {
            pending.site = Some(site);
        }
        due
    })
}

/// What came of it: what could not be evaluated is not tried again before it is twice as long.
pub(super) fn was_evaluated(length: u32, evaluated: bool) {
    PENDING.with_borrow_mut(|pending| pending.due = if evaluated { LONGEST } else { length.saturating_mul(2) });
}

/// What this thread has recorded on top of any of `nodes`.
pub(crate) fn above(nodes: &[Arc<Node>]) -> Vec<Arc<Node>> {
    let mut below: Set<u64> = nodes.iter().filter(|node| !node.is_end()).map(|node| node.number()).collect();
    let Some(first) = nodes.iter().map(|node| node.number()).find(|number| below.contains(number)) else {
        return Vec::new();
    };
    let listed: Vec<Arc<Node>> = PENDING.with_borrow_mut(|pending| {
        pending.nodes.retain(waits);
        let from = pending.nodes.iter().filter_map(Weak::upgrade);
        from.filter(|node| node.number() > first && !node.is_end()).collect()
    });
    let mut found = Vec::new();
    for node in listed {
        let mut on_top = below.contains(&node.number());
        let known = on_top;
        node.visit_inputs(&mut |input| {
            on_top |= input.node().is_ok_and(|(input, _)| below.contains(&input.number()));
        });
        if on_top && !known {
            below.insert(node.number());
            found.push(node);
        }
    }
    found
}
