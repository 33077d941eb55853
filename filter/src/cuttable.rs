//! Streams with raised holds, by reservation id. They are cut if there is no room (`overrun: Cut`).

use crate::caller::Caller;
use crate::host;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// Smaller tables are not shrunk.
const MIN_CAPACITY: usize = 256;

/// Streams that may be cut, by reservation id.
#[derive(Default)]
pub struct CuttableStreams {
    streams: RefCell<HashMap<String, Caller>>,
}

/// The registration of a stream, which ends when this is dropped. The exchange's lease includes its memory.
pub struct CuttableStream {
    id: String,
    streams: Rc<CuttableStreams>,
}

impl CuttableStreams {
    /// Registers a stream that may be cut.
    pub fn watch(self: &Rc<Self>, id: &str, caller: &Caller) -> CuttableStream {
        self.streams.borrow_mut().insert(id.to_owned(), Weak::clone(caller));
        CuttableStream { id: id.to_owned(), streams: Rc::clone(self) }
    }

    /// Cuts these streams.
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

impl Drop for CuttableStream {
    fn drop(&mut self) {
        let mut streams = self.streams.streams.borrow_mut();
        streams.remove(&self.id);
        // Shrinks the table after a burst of long streams.
        if streams.capacity() > streams.len().saturating_mul(4).max(MIN_CAPACITY) {
            streams.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::{ReserveReply, Waiting};

    struct Idle;

    impl Waiting for Idle {
        fn context(&self) -> u32 {
            2
        }
        fn reserved(&mut self, _reply: ReserveReply) {}
        fn out_of_room(&mut self) {}
        fn awaits_body(&self) -> bool {
            false
        }
        fn body_missing(&mut self) {}
        fn has_ended(&self) -> bool {
            false
        }
        fn read_deferred(&mut self) {}
    }

    #[test]
    fn a_stream_that_has_ended_leaves_nothing_behind() {
        let idle: Rc<RefCell<dyn Waiting>> = Rc::new(RefCell::new(Idle));
        let streams = Rc::new(CuttableStreams::default());
        let watched: Vec<_> =
            (0..1000).map(|number| streams.watch(&format!("w-{number}"), &Rc::downgrade(&idle))).collect();
        assert_eq!(streams.streams.borrow().len(), 1000);
        drop(watched);
        assert_eq!((streams.streams.borrow().len(), Rc::weak_count(&idle)), (0, 0));
        assert!(streams.streams.borrow().capacity() <= 2 * MIN_CAPACITY);
    }
}
