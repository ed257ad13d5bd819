//! [`Tree`]: structures of tensors, and the two walks every transform needs.
//!
//! A step's state, its batch and the aux of `value_and_grad` are trees. Deliberately absent: flattening to a list
//! and back with a separate description, and a derive macro; a user's struct implements two short methods.

use std::collections::BTreeMap;

use super::node::Tensor;

/// A structure whose leaves are tensors, always visited in the same order.
pub trait Tree: Sized {
    /// Calls `f` on every leaf.
    fn visit(&self, f: &mut dyn FnMut(&Tensor));

    /// The same structure with every leaf replaced by what `f` makes of it, in the order of [`visit`](Tree::visit).
    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self;

    /// The leaves.
    fn leaves(&self) -> Vec<Tensor> {
        let mut leaves = Vec::new();
        self.visit(&mut |t| leaves.push(t.clone()));
        leaves
    }
}

impl Tree for Tensor {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        f(self);
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        f(self)
    }
}

impl<A: Tree> Tree for Vec<A> {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        self.iter().for_each(|a| a.visit(f));
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|a| a.map(f)).collect()
    }
}

impl<A: Tree, const N: usize> Tree for [A; N] {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        self.iter().for_each(|a| a.visit(f));
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.each_ref().map(|a| a.map(f))
    }
}

impl<A: Tree> Tree for Option<A> {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        self.iter().for_each(|a| a.visit(f));
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.as_ref().map(|a| a.map(f))
    }
}

impl<K: Ord + Clone, A: Tree> Tree for BTreeMap<K, A> {
    fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
        self.values().for_each(|a| a.visit(f));
    }

    fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
        self.iter().map(|(k, a)| (k.clone(), a.map(f))).collect()
    }
}

impl Tree for () {
    fn visit(&self, _: &mut dyn FnMut(&Tensor)) {}

    fn map(&self, _: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {}
}

macro_rules! tuples {
    ($(($($name:ident $index:tt),*))*) => {$(
        impl<$($name: Tree),*> Tree for ($($name,)*) {
            fn visit(&self, f: &mut dyn FnMut(&Tensor)) {
                $(self.$index.visit(f);)*
            }

            fn map(&self, f: &mut dyn FnMut(&Tensor) -> Tensor) -> Self {
                ($(self.$index.map(f),)*)
            }
        }
    )*};
}
tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6)
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7)
}
