//! Streams whose holds have been raised and that are cut where there is no room for that (`overrun: Cut`), by the ids of
//! their reservations.

use crate::caller::Caller;
use crate::host;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Weak;

/// Fewer are not worth a look.
const MIN_PRUNED: usize = 64;

/// See the module.
#[derive(Default)]
pub struct CuttableStreams {
    streams: RefCell<HashMap<String, Caller>>,
    /// From so many on, those that are gone are forgotten.
    prune_at: Cell<usize>,
}

impl CuttableStreams {
    /// The adapter may say that there is no room for this stream.
    pub fn watch(&self, id: &str, caller: &Caller) {
        let mut streams = self.streams.borrow_mut();
        if streams.len() >= self.prune_at.get().max(MIN_PRUNED) {
            streams.retain(|_, caller| caller.strong_count() > 0);
            self.prune_at.set(streams.len().saturating_mul(2));
        }
        if !streams.contains_key(id) {
            streams.insert(id.to_owned(), Weak::clone(caller));
        }
    }

    /// It has said so of these.
    pub fn cut(&self, ids: &[String], root: u32) {
        for id in ids {
            let stream = self.streams.borrow_mut().remove(id);
            if let Some(stream) = stream.and_then(|caller| caller.upgrade()) {
                let mut stream = stream.borrow_mut();
                host::as_context(stream.context(), root, || stream.out_of_room());
            }
        }
    }
}
