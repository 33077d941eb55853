//! Looks for single values or for a background result instead of usage.

use super::place::Node;
use super::pointed::{Found, Pointers, number};
use super::stored::StoredAnswer;
use serde_json::Value;
use std::sync::Arc;

/// What a meter looks for instead of usage, and what it has found.
#[derive(Clone, Debug)]
pub(super) enum ResponseSearch {
    Pointers { pointers: Arc<Pointers>, found: Vec<Option<Value>> },
    Stored(Box<StoredAnswer>),
}

impl ResponseSearch {
    /// Creates a search for the values at these pointers.
    pub(super) fn values(pointers: Arc<Pointers>) -> Self {
        let found = vec![None; pointers.len()];
        Self::Pointers { pointers, found }
    }

    /// Creates a search for references to a background result.
    pub(super) fn of_stored() -> Self {
        Self::Stored(Box::default())
    }

    /// Returns the values at the pointers.
    pub(super) fn found(&self) -> Found {
        match self {
            Self::Pointers { pointers, found } => pointers.found(found),
            Self::Stored(_) => Found::default(),
        }
    }

    /// Returns what was found about a background result.
    pub(super) fn stored(&self) -> StoredAnswer {
        match self {
            Self::Pointers { .. } => StoredAnswer::default(),
            Self::Stored(stored) => StoredAnswer::clone(stored),
        }
    }

    pub(super) fn stored_mut(&mut self) -> Option<&mut StoredAnswer> {
        match self {
            Self::Pointers { .. } => None,
            Self::Stored(stored) => Some(stored),
        }
    }

    /// Returns the place of `key` in an object.
    pub(super) fn child(&self, parent: Node, key: &[u8]) -> Node {
        match self {
            Self::Pointers { pointers, .. } => pointers.child(parent, key),
            Self::Stored(_) => StoredAnswer::child(parent, key),
        }
    }

    /// Returns the place of an array's element.
    pub(super) fn element(&self, array: Node, index: u32) -> Node {
        match self {
            Self::Pointers { pointers, .. } => pointers.element(array, index),
            Self::Stored(_) => array,
        }
    }

    /// Records the value at a pointer. Null is not a value, and a zero does not replace an earlier value.
    pub(super) fn find(&mut self, pointer: u16, value: Option<Value>) {
        if let Self::Pointers { found, .. } = self
            && let Some(place) = found.get_mut(usize::from(pointer))
            && let Some(value) = value.filter(|value| !value.is_null())
            && (place.is_none() || number(&value) != Some(0.0))
        {
            *place = Some(value);
        }
    }
}
