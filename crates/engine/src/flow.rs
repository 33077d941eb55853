//! Tracks the bytes of one exchange: what the proxy buffers of the request and the response, and what has
//! passed but is still to be read. The shell reports each callback here and acts on the result.

use llm::memory::Lease;

/// The request on its way upstream.
#[derive(Debug)]
pub struct RequestFlow {
    state: RequestState,
    /// A GET that has not ended and announces no body: its client may keep it open until it is answered.
    may_be_endless: bool,
    /// The bytes of its body that the proxy buffers, or that are passing now.
    gathered: usize,
    /// The bytes of its body that were forwarded.
    sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    /// The request passes.
    Passing,
    /// Paused until this many bytes of its body have arrived, or all of it.
    AwaitingBody(usize),
    /// Paused until it is resumed or answered.
    Held,
}

impl RequestFlow {
    /// Creates the state of a request when its headers have arrived.
    pub fn new(may_be_endless: bool) -> Self {
        Self { state: RequestState::Passing, may_be_endless, gathered: 0, sent: 0 }
    }

    /// Returns whether the client may keep the request open until it is answered. If so, its body must not be
    /// awaited for long.
    pub fn may_be_endless(&self) -> bool {
        self.may_be_endless
    }

    /// Pauses the request until this many bytes of its body have arrived.
    pub fn await_body(&mut self, most: usize) {
        self.state = RequestState::AwaitingBody(most);
    }

    /// Pauses the request until it is resumed.
    pub fn hold(&mut self) {
        self.state = RequestState::Held;
    }

    /// Returns whether the proxy must keep the request paused after this callback.
    pub fn is_held(&self) -> bool {
        self.state != RequestState::Passing
    }

    /// Whether the request is paused for its body.
    pub fn is_awaiting_body(&self) -> bool {
        matches!(self.state, RequestState::AwaitingBody(_))
    }

    /// Whether the request is paused for its body and none of the body has arrived.
    pub fn awaits_first_byte(&self) -> bool {
        self.is_awaiting_body() && self.gathered == 0
    }

    /// Records that the awaited body will not arrive. The request stays paused until that is handled. Returns
    /// false if no body is awaited, or some of it has arrived.
    pub fn body_missing(&mut self) -> bool {
        let missing = self.awaits_first_byte();
        if missing {
            self.state = RequestState::Held;
        }
        missing
    }

    /// Records how many bytes are available now: all that the proxy buffers, or those that are passing.
    /// Returns true if this is the awaited body. The request then passes unless handling it pauses it again.
    pub fn gather(&mut self, size: usize, end: bool) -> bool {
        self.gathered = size;
        let complete = matches!(self.state, RequestState::AwaitingBody(most) if end || size >= most);
        if complete {
            self.state = RequestState::Passing;
        }
        complete
    }

    /// Returns the number of bytes of the body that are available now.
    pub fn gathered(&self) -> usize {
        self.gathered
    }

    /// Returns the number of bytes of the body that have arrived so far.
    pub fn come(&self) -> u64 {
        self.sent.saturating_add(self.gathered as u64)
    }

    /// Ends the callback. Returns true if the proxy must buffer what has arrived.
    pub fn finish_callback(&mut self) -> bool {
        let held = self.is_held();
        if !held {
            self.pass();
        }
        held
    }

    /// Resumes the request. Returns true if it was paused, because the proxy must then be resumed.
    pub fn resume(&mut self) -> bool {
        let held = self.is_held();
        if held {
            self.state = RequestState::Passing;
            self.pass();
        }
        held
    }

    fn pass(&mut self) {
        self.sent = self.come();
        self.gathered = 0;
    }
}

/// The response on its way to the client.
#[derive(Debug, Default)]
pub struct ResponseFlow {
    deferred: Option<DeferredBody>,
    /// The bytes of its body that the proxy buffers.
    buffered: usize,
    /// Whether its trailers have arrived. If so, no chunk of its body is passing.
    has_trailers: bool,
}

/// The part of a response's body that has passed and has not been read yet.
#[derive(Debug, Default)]
pub struct DeferredBody {
    /// The chunks in order, each with its memory.
    pub pieces: Vec<(Vec<u8>, Lease)>,
    /// What follows the chunks.
    pub end: BodyEnd,
    size: usize,
    /// Whether it is in the queue of bodies to read.
    queued: bool,
}

/// What follows the deferred chunks of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEnd {
    /// More chunks will follow.
    #[default]
    Open,
    /// Nothing; the body is complete.
    Complete,
    /// Nothing; the exchange ended early.
    Cut,
}

/// What to do when an exchange has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Handle the end now. Nothing remains to be read.
    Now,
    /// Queue what remains to be read, including the end.
    Queue,
    /// Nothing to do: the rest is already queued.
    Queued,
}

impl ResponseFlow {
    /// Returns how many of the bytes in a callback are new.
    pub fn new_bytes(&self, size: usize) -> usize {
        size.saturating_sub(self.buffered)
    }

    /// Returns how many bytes the proxy had buffered before the new ones.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// Records that the trailers have arrived.
    pub fn trailers(&mut self) {
        self.has_trailers = true;
    }

    /// Replaces the current bytes. `buffered` is how many bytes of the replacement the proxy buffers. Returns
    /// false if there are no current bytes, because the trailers have arrived.
    pub fn replace(&mut self, buffered: usize) -> bool {
        let possible = !self.has_trailers || self.buffered > 0;
        if possible {
            self.buffered = buffered;
        }
        possible
    }

    /// Records that the proxy sends its buffer, and returns how many bytes that is.
    pub fn release(&mut self) -> usize {
        std::mem::take(&mut self.buffered)
    }

    /// Defers reading a chunk that has passed. Returns true if the response should be queued now: at its end,
    /// or once more than `small` bytes are unread.
    pub fn defer(&mut self, piece: Vec<u8>, lease: Lease, end: bool, small: usize) -> bool {
        let deferred = self.deferred.get_or_insert_default();
        deferred.size = deferred.size.saturating_add(piece.len());
        deferred.pieces.push((piece, lease));
        if end {
            deferred.end = BodyEnd::Complete;
        }
        (end || deferred.size > small) && deferred.queue()
    }

    /// Ends the exchange, for any reason.
    pub fn close(&mut self) -> Closing {
        let Some(deferred) = &mut self.deferred else { return Closing::Now };
        if deferred.end == BodyEnd::Open {
            deferred.end = BodyEnd::Cut;
        }
        if deferred.queue() { Closing::Queue } else { Closing::Queued }
    }

    /// Returns whether the unread part is the end of the response.
    pub fn has_ended(&self) -> bool {
        self.deferred.as_ref().is_none_or(|deferred| deferred.end != BodyEnd::Open)
    }

    /// Takes the unread part.
    pub fn take_deferred(&mut self) -> Option<DeferredBody> {
        self.deferred.take()
    }
}

impl DeferredBody {
    fn queue(&mut self) -> bool {
        !std::mem::replace(&mut self.queued, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llm::memory::{MemoryBudget, Purpose};
    use proptest::prelude::*;

    fn lease() -> Lease {
        MemoryBudget::default().empty(Purpose::Keep)
    }

    #[test]
    fn a_request_that_nothing_holds_passes_and_is_counted() {
        let mut request = RequestFlow::new(false);
        for (size, come) in [(10, 10), (5, 15), (0, 15)] {
            assert!(!request.gather(size, false));
            assert_eq!(request.come(), come);
            assert!(!request.finish_callback());
        }
        assert!(!request.resume(), "there was nothing to resume");
    }

    #[test]
    fn a_request_is_held_until_its_body_is_here() {
        let mut request = RequestFlow::new(false);
        request.await_body(100);
        assert!(request.awaits_first_byte());
        assert!(!request.gather(60, false) && request.finish_callback());
        assert!(!request.awaits_first_byte() && !request.body_missing());
        assert!(request.gather(100, false), "the proxy's sizes are cumulative");
        request.hold();
        assert!(request.finish_callback());
        assert!(!request.gather(120, true), "the body is handed over once");
        assert_eq!(request.come(), 120);
        assert!(request.resume() && !request.resume());
        assert_eq!((request.gathered(), request.come()), (0, 120));
    }

    #[test]
    fn a_body_that_does_not_come_leaves_the_request_held_until_that_is_handled() {
        let mut request = RequestFlow::new(true);
        assert!(!request.body_missing());
        request.await_body(100);
        assert!(request.body_missing() && !request.body_missing());
        assert!(request.is_held() && !request.gather(7, true));
        assert!(request.resume());
    }

    #[test]
    fn small_pieces_wait_for_what_follows() {
        let mut response = ResponseFlow::default();
        assert!(!response.defer(vec![0; 10], lease(), false, 16));
        assert!(!response.has_ended());
        assert!(response.defer(vec![0; 10], lease(), false, 16));
        assert!(!response.defer(vec![], lease(), true, 16), "it is queued");
        assert!(response.has_ended());
        let deferred = response.take_deferred().unwrap();
        assert_eq!((deferred.pieces.len(), deferred.end), (3, BodyEnd::Complete));
        assert_eq!(response.close(), Closing::Now);
    }

    #[test]
    fn what_passed_before_a_cut_is_read_before_it() {
        let mut response = ResponseFlow::default();
        assert!(!response.defer(vec![0; 10], lease(), false, 16));
        assert_eq!((response.close(), response.close()), (Closing::Queue, Closing::Queued));
        assert_eq!(response.take_deferred().unwrap().end, BodyEnd::Cut);
        assert!(response.defer(vec![], lease(), true, 16));
        assert_eq!(response.close(), Closing::Queued);
        assert_eq!(response.take_deferred().unwrap().end, BodyEnd::Complete, "it was complete before");
    }

    #[test]
    fn trailers_leave_no_way_back_for_what_is_not_buffered() {
        let mut response = ResponseFlow::default();
        assert!(response.replace(10));
        assert_eq!((response.new_bytes(14), response.buffered()), (4, 10));
        response.trailers();
        assert!(response.replace(0));
        assert!(!response.replace(3));
        assert_eq!(response.release(), 0);
    }

    proptest! {
        /// In any order of events, each byte is counted once, and a paused request can be resumed.
        #[test]
        fn every_byte_is_counted_once(steps in proptest::collection::vec((0..6_u8, 0..50_usize), 0..100)) {
            let (mut request, mut come) = (RequestFlow::new(false), 0_u64);
            for (step, size) in steps {
                match step {
                    0 => request.await_body(size),
                    1 => request.hold(),
                    2 => {
                        request.resume();
                    }
                    3 => {
                        request.body_missing();
                    }
                    _ => {
                        // A proxy that buffers reports all buffered bytes again.
                        let gathered = if request.is_held() { request.gathered() } else { 0 };
                        request.gather(gathered + size, step == 5);
                        come += size as u64;
                        request.finish_callback();
                    }
                }
                prop_assert_eq!(request.come(), come);
            }
            request.resume();
            prop_assert!(!request.is_held());
            prop_assert_eq!((request.come(), request.gathered()), (come, 0));
        }
    }
}
