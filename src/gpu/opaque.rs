//! Shared ownership whose content the compiler does not look into.
//!
//! Whether a type may move to a thread is found by walking all of its fields. wgpu's go so deep that the walk exceeds
//! the compiler's default limit, in the crate of every user who puts a model into a struct. Here the question is
//! answered once, where the content is put in, and the walk ends. Deliberately absent: `unsafe impl Send`.

use std::fmt;
use std::ops::Deref;

use super::Shared;
use crate::threads::{MaybeSend, MaybeSync};

/// What is owned; its bounds are those of the owner.
trait Content<T>: MaybeSend + MaybeSync {
    fn get(&self) -> &T;
}

impl<T: MaybeSend + MaybeSync> Content<T> for T {
    fn get(&self) -> &T {
        self
    }
}

/// Shared ownership of a `T`.
pub(crate) struct Opaque<T: 'static>(Shared<dyn Content<T>>);

impl<T: MaybeSend + MaybeSync> Opaque<T> {
    pub fn new(content: T) -> Opaque<T> {
        Opaque(Shared::new(content))
    }
}

impl<T> Opaque<T> {
    /// Whether both own the same one.
    pub fn same(&self, other: &Opaque<T>) -> bool {
        std::ptr::eq(&**self, &**other)
    }
}

impl<T> Clone for Opaque<T> {
    fn clone(&self) -> Opaque<T> {
        Opaque(self.0.clone())
    }
}

impl<T> Deref for Opaque<T> {
    type Target = T;
    fn deref(&self) -> &T {
        (*self.0).get()
    }
}

impl<T: fmt::Debug> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
