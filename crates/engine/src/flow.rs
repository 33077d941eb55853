//! Where the bytes of one exchange are: what the proxy holds of the request and of the response, and what has passed and
//! is still to be read. The shell reports each callback and does what the answer says.

use llm::memory::Lease;

/// The request on its way upstream.
#[derive(Debug)]
pub struct RequestFlow {
    state: RequestState,
    /// A GET that has not ended and announces no body: it may go on until it is answered.
    may_be_endless: bool,
    /// Bytes of its body that the proxy buffers, or that are just passing.
    gathered: usize,
    /// Bytes of its body that have gone on.
    sent: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    /// Nothing holds it.
    Passing,
    /// It is held until so many bytes of its body are here, or all of it.
    AwaitingBody(usize),
    /// It is held until it is resumed, or was answered.
    Held,
}

impl RequestFlow {
    /// A request whose headers are here.
    pub fn new(may_be_endless: bool) -> Self {
        Self { state: RequestState::Passing, may_be_endless, gathered: 0, sent: 0 }
    }

    /// Whether it may go on until it is answered, so that its body is not awaited for long.
    pub fn may_be_endless(&self) -> bool {
        self.may_be_endless
    }

    /// Holds it until so many bytes of its body are here.
    pub fn await_body(&mut self, most: usize) {
        self.state = RequestState::AwaitingBody(most);
    }

    /// Holds it until it is resumed.
    pub fn hold(&mut self) {
        self.state = RequestState::Held;
    }

    /// Whether the proxy is to keep it after this callback.
    pub fn is_held(&self) -> bool {
        self.state != RequestState::Passing
    }

    /// Whether it waits for its body.
    pub fn is_awaiting_body(&self) -> bool {
        matches!(self.state, RequestState::AwaitingBody(_))
    }

    /// Whether it waits for its body and nothing of that has come.
    pub fn awaits_first_byte(&self) -> bool {
        self.is_awaiting_body() && self.gathered == 0
    }

    /// The body that is awaited will not come: the request stays held until that is handled. False: none is awaited, or
    /// some of it is here.
    pub fn body_missing(&mut self) -> bool {
        let missing = self.awaits_first_byte();
        if missing {
            self.state = RequestState::Held;
        }
        missing
    }

    /// So many bytes are gathered now: all that the proxy buffers, or what is just passing. True: this is the body that
    /// was awaited, and the request passes unless handling it holds it again.
    pub fn gather(&mut self, size: usize, end: bool) -> bool {
        self.gathered = size;
        let complete = matches!(self.state, RequestState::AwaitingBody(most) if end || size >= most);
        if complete {
            self.state = RequestState::Passing;
        }
        complete
    }

    /// How much of the body is gathered.
    pub fn gathered(&self) -> usize {
        self.gathered
    }

    /// How much of the body has come so far.
    pub fn come(&self) -> u64 {
        self.sent.saturating_add(self.gathered as u64)
    }

    /// The callback is over: whether the proxy is to keep what has come.
    pub fn finish_callback(&mut self) -> bool {
        let held = self.is_held();
        if !held {
            self.pass();
        }
        held
    }

    /// Lets it go on. True: it was held, so the proxy has to be told.
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
    /// Bytes of its body that the proxy buffers.
    buffered: usize,
    /// Its trailers are here: no piece of its body is passing.
    has_trailers: bool,
}

/// What has passed of a response's body and is still to be read.
#[derive(Debug, Default)]
pub struct DeferredBody {
    /// In their order, each with the memory for it.
    pub pieces: Vec<(Vec<u8>, Lease)>,
    /// What follows them.
    pub end: BodyEnd,
    size: usize,
    /// It is in the queue of what is read next.
    queued: bool,
}

/// What follows the pieces of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyEnd {
    /// More of it.
    #[default]
    Open,
    /// Nothing: it is complete.
    Complete,
    /// Nothing: the exchange ended before it was complete.
    Cut,
}

/// What to do when an exchange is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Handle it now: nothing is still to be read.
    Now,
    /// Queue what is still to be read; its end tells.
    Queue,
    /// Nothing: what is still to be read is queued.
    Queued,
}

impl ResponseFlow {
    /// Of so many bytes in a callback, those that are new.
    pub fn new_bytes(&self, size: usize) -> usize {
        size.saturating_sub(self.buffered)
    }

    /// How many bytes the proxy buffers, before those that are new.
    pub fn buffered(&self) -> usize {
        self.buffered
    }

    /// The trailers are here.
    pub fn trailers(&mut self) {
        self.has_trailers = true;
    }

    /// Of what takes the place of the bytes at hand, the proxy is to buffer this many. False: there are no such bytes,
    /// since the trailers have overtaken them.
    pub fn replace(&mut self, buffered: usize) -> bool {
        let possible = !self.has_trailers || self.buffered > 0;
        if possible {
            self.buffered = buffered;
        }
        possible
    }

    /// The proxy is to send on what it buffers: how much that is.
    pub fn release(&mut self) -> usize {
        std::mem::take(&mut self.buffered)
    }

    /// A piece has passed and is to be read later. True: queue it now. A response of which fewer than `small` bytes have
    /// passed waits for what follows.
    pub fn defer(&mut self, piece: Vec<u8>, lease: Lease, end: bool, small: usize) -> bool {
        let deferred = self.deferred.get_or_insert_default();
        deferred.size = deferred.size.saturating_add(piece.len());
        deferred.pieces.push((piece, lease));
        if end {
            deferred.end = BodyEnd::Complete;
        }
        (end || deferred.size > small) && deferred.queue()
    }

    /// The exchange is over, however it ended.
    pub fn close(&mut self) -> Closing {
        let Some(deferred) = &mut self.deferred else { return Closing::Now };
        if deferred.end == BodyEnd::Open {
            deferred.end = BodyEnd::Cut;
        }
        if deferred.queue() { Closing::Queue } else { Closing::Queued }
    }

    /// Whether nothing of the response follows what is still to be read.
    pub fn has_ended(&self) -> bool {
        self.deferred.as_ref().is_none_or(|deferred| deferred.end != BodyEnd::Open)
    }

    /// What is still to be read.
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
        assert!(!request.resume(), "there is nothing to resume");
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
        /// Whatever happens in whatever order: each byte is counted once, and whatever is held can be resumed.
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
                        // A proxy that buffers reports all of it again.
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
