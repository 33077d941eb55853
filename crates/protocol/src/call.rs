//! Encodes the calls to the adapter. The entries that identify a hold are encoded once, for both the
//! `Reserve` that takes the hold and the `Commit` that ends it.

use crate::trace::TraceContext;
use crate::wire::envoy::extensions::common::ratelimit::v3::{DeferredCharge, LeaseDraw};
use crate::wire::kuadrant::service::ratelimit::v1::{
    CommitRequest, ParkedResult, RaisedHolds, ReserveRequest, SeenResult,
};
use crate::wire::weir::v1::{self, SettledUsage};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::time::Duration;

/// The `domain` of every call.
pub const DOMAIN: &str = "weir";

/// The maximum number of descriptors in one call. It is more than a reasonable plan needs, and low enough
/// that the ledger's lock is held only briefly. A request that needs more is refused, regardless of its
/// policies' failure mode.
pub const MAX_DESCRIPTORS: usize = 4096;

/// The maximum size of a call in bytes. By default, gRPC servers accept 4 MB, and a commit may carry further
/// commits.
pub const LONGEST_CALL: usize = 1 << 20;

/// The maximum length of a stored result's id in bytes. Some gateways combine several names into one id.
pub const MAX_RESULT_ID: usize = 1024;

/// The adapter's gRPC service for holds and charges.
pub const RATE_LIMIT_SERVICE: &str = "kuadrant.service.ratelimit.v1.RateLimitService";

/// The adapter's gRPC service for many holds and charges in one stream.
pub const RESERVATION_SERVICE: &str = "weir.v1.ReservationService";

/// The adapter's gRPC service for plans.
pub const POLICY_SERVICE: &str = "weir.v1.PolicyService";

/// The adapter's gRPC service for reading buckets.
pub const USAGE_SERVICE: &str = "weir.v1.UsageService";

/// Why a call to the adapter failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// The reply did not arrive in time.
    Timeout,
    /// The adapter is unreachable.
    Unavailable,
    /// The adapter replied with this gRPC status.
    Status(u32),
    /// The reply is not a valid message.
    Malformed,
    /// The adapter does not know a limit of the call.
    UnknownLimit,
}

impl From<u32> for CallFailure {
    /// Converts a gRPC status code to a failure.
    fn from(status: u32) -> Self {
        match status {
            4 => Self::Timeout,
            14 => Self::Unavailable,
            other => Self::Status(other),
        }
    }
}

impl CallFailure {
    /// The name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::Status(_) => "status",
            Self::Malformed => "malformed",
            Self::UnknownLimit => "unknown_limit",
        }
    }

    /// Whether the connection or a proxy may have caused the status, so that a retry may succeed: Cancelled,
    /// Unknown, ResourceExhausted, Aborted, Internal, DataLoss.
    pub fn may_be_of_connection(self) -> bool {
        matches!(self, Self::Status(1 | 2 | 8 | 10 | 13 | 15))
    }

    /// Whether a retry cannot succeed: InvalidArgument, NotFound, FailedPrecondition, OutOfRange.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Status(3 | 5 | 9 | 11))
    }
}

/// The encoded entries of a descriptor, which identify what is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entries(Vec<u8>);

impl Entries {
    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Returns the encoded entries.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Adds one entry.
    pub fn push(&mut self, key: &str, value: &str) {
        let field = |text: &str| 1 + encoded_len_varint(text.len() as u64) + text.len();
        encode_key(1, WireType::LengthDelimited, &mut self.0);
        encode_varint((field(key) + field(value)) as u64, &mut self.0);
        put_bytes(1, key.as_bytes(), &mut self.0);
        put_bytes(2, value.as_bytes(), &mut self.0);
    }

    /// Returns these entries followed by the other ones.
    pub fn with(&self, other: &Entries) -> Self {
        Self([self.0.as_slice(), other.0.as_slice()].concat())
    }
}

/// A descriptor with its amount and, for a hold, its maximum lifetime.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The entries of the descriptor.
    pub entries: &'a Entries,
    pub amount: u64,
    /// The maximum lifetime, or zero if there is none.
    pub ttl: Duration,
    /// The maximum, if the adapter cannot know it.
    pub max: Option<u64>,
    /// Whether the amount is counted, but never causes a refusal.
    pub unenforced: bool,
    /// The lease that the amount comes out of, if it was admitted from one.
    pub draw: Option<LeaseDraw>,
}

/// Encodes a [`ReserveRequest`].
pub fn reserve<'a>(id: &str, items: impl Iterator<Item = Item<'a>> + Clone) -> Vec<u8> {
    let mut call = Vec::with_capacity(capacity(&items));
    put_bytes(1, DOMAIN.as_bytes(), &mut call);
    let (mut amount, mut ttl) = (0, Duration::ZERO);
    for item in items {
        put_descriptor(&item, &[], &mut call);
        amount = amount.max(item.amount);
        ttl = ttl.max(item.ttl);
    }
    let rest = ReserveRequest {
        amount,
        ttl: prost_types::Duration::try_from(ttl).ok(),
        reservation_id: id.to_owned(),
        ..Default::default()
    };
    append(&rest, &mut call);
    call
}

/// Encodes a [`ReserveRequest`] that asks for a lease of one bucket.
pub fn lease(id: &str, item: Item<'_>) -> Vec<u8> {
    let mut call = reserve(id, std::iter::once(item));
    append(&ReserveRequest { lease: true, ..Default::default() }, &mut call);
    call
}

/// Adds how long the adapter may wait for recalled leases to an encoded [`ReserveRequest`].
pub fn add_recall_time(reserve: &mut Vec<u8>, time: Duration) {
    let recall_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    append(&ReserveRequest { recall_ms, ..Default::default() }, reserve);
}

/// Encodes a [`CommitRequest`] that ends nothing. It contains a reservation that was admitted from leases, as an
/// encoded [`ReserveRequest`].
pub fn admitted(reserve: &[u8]) -> Vec<u8> {
    let mut call = Vec::new();
    add_admitted(&mut call, reserve);
    call
}

/// Adds a reservation that was admitted from leases, as an encoded [`ReserveRequest`], to an encoded
/// [`CommitRequest`].
pub fn add_admitted(call: &mut Vec<u8>, reserve: &[u8]) {
    put_bytes(104, reserve, call);
}

/// Adds the trace of the request to an encoded [`ReserveRequest`].
pub fn add_trace(reserve: &mut Vec<u8>, trace: &TraceContext) {
    put_bytes(102, &trace.message().encode_to_vec(), reserve);
}

/// Returns the trace in an encoded [`ReserveRequest`].
pub fn trace_of(reserve: &[u8]) -> Option<TraceContext> {
    /// Skips the other fields.
    #[derive(PartialEq, Message)]
    struct Traced {
        #[prost(message, optional, tag = "102")]
        trace: Option<v1::TraceContext>,
    }
    TraceContext::from_message(&Traced::decode(reserve).ok()?.trace?)
}

/// Encodes a [`CommitRequest`] without `further`.
pub fn commit<'a>(id: &str, items: impl Iterator<Item = Item<'a>>) -> Vec<u8> {
    let mut call = Vec::with_capacity(capacity(&items));
    put_bytes(1, DOMAIN.as_bytes(), &mut call);
    let mut amount = 0;
    for item in items {
        put_descriptor(&item, &[], &mut call);
        amount = amount.max(item.amount);
    }
    let rest = CommitRequest { actual_amount: amount, reservation_id: id.to_owned(), ..Default::default() };
    append(&rest, &mut call);
    call
}

/// Encodes a [`CommitRequest`] for a reservation that created a background result. Deferred charges are made
/// when the result's usage is seen. Adapters that do not support this charge each item's amount.
pub fn park<'a>(
    id: &str,
    items: impl Iterator<Item = (Item<'a>, Option<DeferredCharge>)>,
    result: ParkedResult,
) -> Vec<u8> {
    let mut call = Vec::new();
    put_bytes(1, DOMAIN.as_bytes(), &mut call);
    let mut amount = 0;
    for (item, deferred) in items {
        let mut further = Vec::new();
        deferred.into_iter().for_each(|deferred| put_bytes(103, &deferred.encode_to_vec(), &mut further));
        put_descriptor(&item, &further, &mut call);
        amount = amount.max(item.amount);
    }
    let rest = CommitRequest {
        actual_amount: amount,
        reservation_id: id.to_owned(),
        parked: Some(result),
        ..Default::default()
    };
    append(&rest, &mut call);
    call
}

/// Adds the observed usage of a stored result to an encoded [`CommitRequest`].
pub fn add_seen(call: &mut Vec<u8>, seen: SeenResult) {
    append(&CommitRequest { seen: vec![seen], ..Default::default() }, call);
}

/// Encodes a [`SettledUsage`]. Further ones are added with [`add_further`].
pub fn record(usage: &SettledUsage) -> Vec<u8> {
    usage.encode_to_vec()
}

/// Encodes a [`RaisedHolds`] with the totals to hold.
pub fn raise<'a>(id: &str, items: impl Iterator<Item = Item<'a>>) -> Vec<u8> {
    let mut raised = Vec::with_capacity(capacity(&items));
    for item in items {
        put_descriptor(&item, &[], &mut raised);
    }
    append(&RaisedHolds { reservation_id: id.to_owned(), ..Default::default() }, &mut raised);
    raised
}

/// Adds an encoded [`RaisedHolds`] to an encoded [`CommitRequest`].
pub fn add_raised(call: &mut Vec<u8>, raised: &[u8]) {
    put_bytes(103, raised, call);
}

/// Adds an encoded [`CommitRequest`] or [`SettledUsage`] to another one's `further`.
pub fn add_further(call: &mut Vec<u8>, commit: &[u8]) {
    put_bytes(100, commit, call);
}

/// Encodes a `GetUsageRequest` without commits. Only the entries and the maxima of the items are used.
pub fn usage<'a>(items: impl Iterator<Item = Item<'a>>) -> Vec<u8> {
    let mut call = Vec::with_capacity(capacity(&items));
    for item in items {
        put_descriptor(&item, &[], &mut call);
    }
    call
}

/// Adds encoded [`CommitRequest`]s, which the adapter handles first, to an encoded [`ReserveRequest`] or
/// `GetUsageRequest`.
pub fn with_commits(reserve: &[u8], commits: &[&[u8]]) -> Vec<u8> {
    let mut call = reserve.to_vec();
    commits.iter().for_each(|commit| put_bytes(101, commit, &mut call));
    call
}

/// Encodes a `ReserveAndCommitRequest` from encoded messages.
pub fn streamed(number: u64, reserve: Option<&[u8]>, commit: Option<&[u8]>) -> Vec<u8> {
    let length = |message: Option<&[u8]>| message.map_or(0, <[u8]>::len);
    let mut call = Vec::with_capacity(length(reserve).saturating_add(length(commit)).saturating_add(32));
    if number > 0 {
        put_varint(1, number, &mut call);
    }
    reserve.into_iter().for_each(|message| put_bytes(2, message, &mut call));
    commit.into_iter().for_each(|message| put_bytes(3, message, &mut call));
    call
}

/// Encodes the first `ReserveAndCommitRequest` of a stream, which identifies the worker by the prefix of its
/// reservation ids.
pub fn introduction(worker: &str) -> Vec<u8> {
    let mut call = Vec::new();
    put_bytes(4, worker.as_bytes(), &mut call);
    call
}

/// Decodes a reply.
pub fn reply<T: Message + Default>(reply: Result<&[u8], CallFailure>) -> Result<T, CallFailure> {
    reply.and_then(|bytes| T::decode(bytes).map_err(|_| CallFailure::Malformed))
}

/// Appends an encoded part. Parts can be concatenated, because the fields of a message may be in any order.
fn append(message: &impl Message, call: &mut Vec<u8>) {
    call.extend_from_slice(&message.encode_to_vec());
}

/// Returns the approximate encoded size of the items.
fn capacity<T>(items: &impl Iterator<Item = T>) -> usize {
    items.size_hint().0.saturating_mul(128).saturating_add(96)
}

/// Encodes a descriptor. `further` contains additional encoded fields.
fn put_descriptor(item: &Item<'_>, further: &[u8], call: &mut Vec<u8>) {
    let ttl = (!item.ttl.is_zero()).then(|| u64::try_from(item.ttl.as_millis()).unwrap_or(u64::MAX));
    let addend = (item.amount > 0).then_some(item.amount);
    let numbers = [(100, ttl), (101, item.max), (102, item.unenforced.then_some(1))];
    let known = || numbers.iter().filter_map(|(field, number)| Some((*field, (*number)?)));
    let addend_length = addend.map_or(0, |amount| varint_field_len(1, amount));
    let tail: usize = known().map(|(field, number)| varint_field_len(field, number)).sum();
    let draw = item.draw.map_or(0, |draw| draw_len(&draw));
    encode_key(2, WireType::LengthDelimited, call);
    // An addend is shorter than 128 bytes, so its length takes one byte, and so does its key.
    encode_varint((item.entries.0.len() + 2 + addend_length + tail + draw + further.len()) as u64, call);
    call.extend_from_slice(&item.entries.0);
    encode_key(3, WireType::LengthDelimited, call);
    encode_varint(addend_length as u64, call);
    addend.into_iter().for_each(|amount| put_varint(1, amount, call));
    known().for_each(|(field, number)| put_varint(field, number, call));
    item.draw.iter().for_each(|draw| put_bytes(104, &draw.encode_to_vec(), call));
    call.extend_from_slice(further);
}

/// The length of an encoded draw with its key. A draw is shorter than 128 bytes.
fn draw_len(draw: &LeaseDraw) -> usize {
    encoded_len_varint(104 << 3).saturating_add(1).saturating_add(draw.encoded_len())
}

fn varint_field_len(field: u32, number: u64) -> usize {
    encoded_len_varint(u64::from(field) << 3) + encoded_len_varint(number)
}

fn put_varint(field: u32, number: u64, into: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, into);
    encode_varint(number, into);
}

fn put_bytes(field: u32, bytes: &[u8], into: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, into);
    encode_varint(bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::weir::v1::GetUsageRequest;

    fn entries(pairs: &[(&str, &str)]) -> Entries {
        let mut entries = Entries::default();
        for (key, value) in pairs {
            entries.push(key, value);
        }
        entries
    }

    #[test]
    fn a_reserve_decodes_to_what_was_put_in() {
        let long = "x".repeat(300);
        let mut first = entries(&[("limit", "default/p/free"), ("unit", "tokens")]);
        first = first.with(&entries(&[("auth.identity.userid", &long)]));
        let second = entries(&[("limit", "default/p/gold")]);
        let items = [
            Item {
                entries: &first,
                amount: u64::MAX,
                ttl: Duration::from_secs(900),
                max: None,
                unenforced: false,
                draw: None,
            },
            Item {
                entries: &second,
                amount: 1,
                ttl: Duration::from_millis(1500),
                max: Some(0),
                unenforced: true,
                draw: None,
            },
        ];
        let request = ReserveRequest::decode(&*reserve("id-1", items.into_iter())).unwrap();
        assert_eq!(request.domain, "weir");
        assert_eq!(request.reservation_id, "id-1");
        assert_eq!(request.amount, u64::MAX);
        assert_eq!(request.ttl, Some(prost_types::Duration { seconds: 900, nanos: 0 }));
        let [one, two] = request.descriptors.as_slice() else { panic!("{request:?}") };
        let pairs: Vec<_> = one.entries.iter().map(|e| (e.key.as_str(), e.value.as_str())).collect();
        assert_eq!(
            pairs,
            [("limit", "default/p/free"), ("unit", "tokens"), ("auth.identity.userid", long.as_str())]
        );
        assert_eq!((one.hits_addend, one.ttl_ms), (Some(u64::MAX), 900_000));
        assert_eq!((two.hits_addend, two.ttl_ms), (Some(1), 1500));
        assert_eq!(((one.max, one.unenforced), (two.max, two.unenforced)), ((None, false), (Some(0), true)));
    }

    #[test]
    fn a_reserve_carries_the_trace_of_its_request() {
        let counted = entries(&[("limit", "default/p/free")]);
        let item = Item {
            entries: &counted,
            amount: 1,
            ttl: Duration::ZERO,
            max: None,
            unenforced: false,
            draw: None,
        };
        let mut call = reserve("a", [item].into_iter());
        assert_eq!(trace_of(&call), None);
        let parent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = TraceContext::parse(parent).unwrap().with_state(b"vendor=1");
        add_trace(&mut call, &trace);
        assert_eq!(trace_of(&call), Some(trace.clone()));
        let request = ReserveRequest::decode(&*with_commits(&call, &[])).unwrap();
        assert_eq!((request.descriptors.len(), request.trace), (1, Some(trace.message())));
        assert_eq!(trace_of(&[0xff]), None);
    }

    #[test]
    fn a_question_about_usage_names_the_buckets_and_what_has_ended() {
        let counted = entries(&[("limit", "default/p/free"), ("unit", "tokens")]);
        let item = Item {
            entries: &counted,
            amount: 0,
            ttl: Duration::ZERO,
            max: Some(7),
            unenforced: false,
            draw: None,
        };
        let call = with_commits(&usage([item].into_iter()), &[&commit("a", [item].into_iter())]);
        let request = GetUsageRequest::decode(&*call).unwrap();
        let [descriptor] = request.descriptors.as_slice() else { panic!("{request:?}") };
        assert_eq!((descriptor.entries.len(), descriptor.max), (2, Some(7)));
        assert_eq!(request.commits[0].reservation_id, "a");
    }

    #[test]
    fn a_creation_says_what_waits_and_a_reader_what_it_has_seen() {
        let counted = entries(&[("limit", "default/p/free")]);
        let item = Item {
            entries: &counted,
            amount: 300,
            ttl: Duration::ZERO,
            max: None,
            unenforced: false,
            draw: None,
        };
        let deferred = DeferredCharge { now: 5, input: u64::MAX, output: 1_000_000, ..Default::default() };
        let result = ParkedResult { id: "resp_1".to_owned(), input: 12 };
        let items = [(item, Some(deferred)), (Item { amount: 1, ..item }, None)];
        let mut call = park("a", items.into_iter(), result.clone());
        let seen = SeenResult { id: "resp_2".to_owned(), total: 7, ..Default::default() };
        add_seen(&mut call, seen.clone());
        let request = CommitRequest::decode(&*call).unwrap();
        assert_eq!((request.reservation_id.as_str(), request.actual_amount), ("a", 300));
        let [one, two] = request.descriptors.as_slice() else { panic!("{request:?}") };
        assert_eq!((one.hits_addend, one.deferred), (Some(300), Some(deferred)));
        assert_eq!((two.hits_addend, two.deferred), (Some(1), None));
        assert_eq!((request.parked, request.seen), (Some(result), vec![seen]));
    }

    #[test]
    fn a_raise_travels_with_a_commit_or_alone() {
        let counted = entries(&[("limit", "default/p/free")]);
        let item = Item {
            entries: &counted,
            amount: 900,
            ttl: Duration::ZERO,
            max: Some(7),
            unenforced: true,
            draw: None,
        };
        let mut call = Vec::new();
        add_raised(&mut call, &raise("a", [item].into_iter()));
        let alone = CommitRequest::decode(&*call).unwrap();
        assert_eq!((alone.reservation_id.as_str(), alone.descriptors.len()), ("", 0));
        let [raised] = alone.raised.as_slice() else { panic!("{alone:?}") };
        let [descriptor] = raised.descriptors.as_slice() else { panic!("{raised:?}") };
        assert_eq!(raised.reservation_id, "a");
        assert_eq!(
            (descriptor.hits_addend, descriptor.max, descriptor.unenforced),
            (Some(900), Some(7), true)
        );
        let mut call = commit("b", [item].into_iter());
        add_raised(&mut call, &raise("a", [item].into_iter()));
        let beside = CommitRequest::decode(&*call).unwrap();
        assert_eq!((beside.reservation_id.as_str(), beside.raised.len()), ("b", 1));
    }

    #[test]
    fn a_commit_carries_others_and_says_zero_explicitly() {
        let counted = entries(&[("limit", "default/p/free")]);
        let item = Item {
            entries: &counted,
            amount: 0,
            ttl: Duration::ZERO,
            max: None,
            unenforced: false,
            draw: None,
        };
        let mut call = commit("a", [item].into_iter());
        add_further(&mut call, &commit("b", [Item { amount: 7, ..item }].into_iter()));
        let request = CommitRequest::decode(&*call).unwrap();
        assert_eq!(request.reservation_id, "a");
        assert_eq!(request.descriptors[0].hits_addend, Some(0));
        assert_eq!(request.further.len(), 1);
        assert_eq!(request.further[0].reservation_id, "b");
        assert_eq!(request.further[0].actual_amount, 7);
        assert_eq!(request.further[0].descriptors[0].hits_addend, Some(7));
    }
}
