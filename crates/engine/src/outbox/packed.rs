//! Settlements in a compact form, for a queue that is full: the texts that identify buckets and the worker are
//! stored once for many settlements. Nothing is merged, so each settlement is still sent under its own id, and
//! charged exactly once.

use super::Settlement;
use prost::Message;
use prost::encoding::{decode_varint, encode_varint};
use protocol::call::DOMAIN;
use protocol::wire::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;
use protocol::wire::kuadrant::service::ratelimit::v1::CommitRequest;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The number of settlements in a block. They share their texts, and are dropped together.
const BLOCK: usize = 4096;

/// The memory of a text in addition to its bytes.
const TEXT: usize = 96;

/// A queue of packed settlements.
#[derive(Debug, Default)]
pub(super) struct PackedSettlements {
    /// None is empty.
    blocks: VecDeque<PackedBlock>,
}

impl PackedSettlements {
    /// Adds a settlement as the newest.
    pub fn push(&mut self, settlement: &Settlement) {
        if self.blocks.back().is_none_or(|block| block.pushed >= BLOCK) {
            self.blocks.push_back(PackedBlock::default());
        }
        if let Some(block) = self.blocks.back_mut() {
            block.push(settlement);
            if block.pushed >= BLOCK {
                block.records.shrink_to_fit();
            }
        }
    }

    /// Removes the oldest settlement.
    pub fn pop(&mut self) -> Option<Settlement> {
        let block = self.blocks.front_mut()?;
        let settlement = block.pop();
        if block.left == 0 || settlement.is_none() {
            self.blocks.pop_front();
        }
        settlement
    }

    /// Drops the oldest block, and returns the number of its settlements.
    pub fn drop_oldest(&mut self) -> usize {
        self.blocks.pop_front().map_or(0, |block| block.left)
    }

    pub fn len(&self) -> usize {
        self.blocks.iter().map(|block| block.left).fold(0, usize::saturating_add)
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Returns the memory in bytes.
    pub fn size(&self) -> usize {
        self.blocks.iter().map(PackedBlock::size).fold(0, usize::saturating_add)
    }
}

/// Consecutive settlements. A record is the number of descriptors plus 1, the reservation's id (the number of
/// its worker's text, and the rest), the amount of the whole call, and for each descriptor the number of its
/// text and the amount. Or it is 0 and the settlement as it was.
#[derive(Debug, Default)]
struct PackedBlock {
    records: Vec<u8>,
    /// Where the oldest record begins.
    at: usize,
    /// The number of records.
    left: usize,
    /// The number of records that were ever added.
    pushed: usize,
    texts: Vec<Arc<[u8]>>,
    numbers: BTreeMap<Arc<[u8]>, u64>,
    texts_size: usize,
}

impl PackedBlock {
    fn size(&self) -> usize {
        self.records.capacity().saturating_add(self.texts_size)
    }

    fn push(&mut self, settlement: &Settlement) {
        self.left = self.left.saturating_add(1);
        self.pushed = self.pushed.saturating_add(1);
        match CommitRequest::decode(&*settlement.message).ok().filter(is_plain) {
            Some(request) => self.push_plain(request),
            None => {
                self.put(0);
                self.put_bytes(&settlement.message);
            }
        }
    }

    fn push_plain(&mut self, request: CommitRequest) {
        let id = request.reservation_id;
        let (worker, rest) = id.split_at(id.find('-').map_or(0, |at| at.saturating_add(1)));
        self.put(request.descriptors.len().saturating_add(1) as u64);
        let worker = self.number_of(worker.as_bytes());
        self.put(worker);
        self.put_bytes(rest.as_bytes());
        self.put(request.actual_amount);
        for mut descriptor in request.descriptors {
            let amount = descriptor.hits_addend.take().unwrap_or_default();
            let text = self.number_of(&descriptor.encode_to_vec());
            self.put(text);
            self.put(amount);
        }
    }

    fn put(&mut self, number: u64) {
        encode_varint(number, &mut self.records);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len() as u64);
        self.records.extend_from_slice(bytes);
    }

    /// Returns the number of a text, and adds it if it is new.
    fn number_of(&mut self, text: &[u8]) -> u64 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let (number, text) = (self.texts.len() as u64, Arc::<[u8]>::from(text));
        self.texts_size = self.texts_size.saturating_add(text.len()).saturating_add(TEXT);
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    fn pop(&mut self) -> Option<Settlement> {
        let mut rest = self.records.get(self.at..)?;
        let settlement = self.read(&mut rest)?;
        self.at = self.records.len().saturating_sub(rest.len());
        self.left = self.left.saturating_sub(1);
        Some(settlement)
    }

    fn read(&self, rest: &mut &[u8]) -> Option<Settlement> {
        let Some(descriptors) = decode_varint(rest).ok()?.checked_sub(1) else {
            return Some(Settlement::new(bytes(rest)?.to_vec()));
        };
        let mut id = self.text(rest)?.to_vec();
        id.extend_from_slice(bytes(rest)?);
        let mut request = CommitRequest {
            domain: DOMAIN.to_owned(),
            reservation_id: String::from_utf8(id).ok()?,
            actual_amount: decode_varint(rest).ok()?,
            ..CommitRequest::default()
        };
        for _ in 0..descriptors {
            let mut descriptor = RateLimitDescriptor::decode(self.text(rest)?).ok()?;
            descriptor.hits_addend = Some(decode_varint(rest).ok()?);
            request.descriptors.push(descriptor);
        }
        Some(Settlement::new(request.encode_to_vec()))
    }

    /// Reads the number of a text, and returns the text.
    fn text(&self, rest: &mut &[u8]) -> Option<&[u8]> {
        let number = usize::try_from(decode_varint(rest).ok()?).ok()?;
        self.texts.get(number).map(|text| &**text)
    }
}

/// Reads a length and as many bytes.
fn bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

/// Whether a record holds all of a settlement.
fn is_plain(request: &CommitRequest) -> bool {
    let CommitRequest { domain, descriptors, further, parked, seen, raised, admitted, .. } = request;
    domain == DOMAIN
        && descriptors.iter().all(|descriptor| descriptor.hits_addend.is_some())
        && (further.is_empty()
            && parked.is_none()
            && seen.is_empty()
            && raised.is_empty()
            && admitted.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::wire::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
    use protocol::wire::kuadrant::service::ratelimit::v1::ParkedResult;

    fn request(number: u64) -> CommitRequest {
        let user = if number.is_multiple_of(100) { number } else { number % 7 };
        let entry = |key: &str, value: String| Entry { key: key.to_owned(), value };
        let descriptor = |limit: &str, amount: u64| RateLimitDescriptor {
            entries: vec![entry("limit", limit.to_owned()), entry("auth.identity.userid", user.to_string())],
            hits_addend: Some(amount),
            max: (user == 3).then_some(amount),
            ..RateLimitDescriptor::default()
        };
        let descriptors = vec![descriptor("default/llm/free", number), descriptor("default/llm/slots", 0)];
        CommitRequest {
            domain: DOMAIN.to_owned(),
            descriptors,
            reservation_id: format!("0123456789abcdef0123456789abcdef-{number:x}"),
            actual_amount: number,
            ..CommitRequest::default()
        }
    }

    #[test]
    fn what_was_packed_is_unpacked_in_order_and_takes_little_room() {
        let requests: Vec<_> = (0..10_000).map(request).collect();
        let mut packed = PackedSettlements::default();
        let mut size = 0;
        for request in &requests {
            let settlement = Settlement::new(request.encode_to_vec());
            size += settlement.message.len();
            packed.push(&settlement);
        }
        assert_eq!(packed.len(), 10_000);
        assert!(packed.size() * 4 < size, "{} of {size}", packed.size());
        for request in requests {
            let settlement = packed.pop().unwrap();
            assert_eq!(CommitRequest::decode(&*settlement.message).unwrap(), request);
        }
        assert!(packed.is_empty() && packed.pop().is_none());
        assert_eq!((packed.len(), packed.size()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_a_record_stays_as_it_is() {
        let parked = ParkedResult { id: "resp_1".to_owned(), input: 7 };
        let mut silent = request(2);
        silent.descriptors[0].hits_addend = None;
        let other = [
            CommitRequest { parked: Some(parked), ..request(1) },
            silent,
            CommitRequest { domain: "another".to_owned(), ..request(3) },
            CommitRequest { reservation_id: "no-worker-ä".to_owned(), ..request(4) },
            CommitRequest { reservation_id: String::new(), descriptors: Vec::new(), ..request(5) },
        ];
        let mut messages: Vec<_> = other.iter().map(CommitRequest::encode_to_vec).collect();
        messages.push(vec![0xff; 3]);
        let mut packed = PackedSettlements::default();
        messages.iter().for_each(|message| packed.push(&Settlement::new(message.clone())));
        for message in messages {
            let unpacked = packed.pop().unwrap().message;
            match CommitRequest::decode(&*message) {
                Ok(request) => assert_eq!(CommitRequest::decode(&*unpacked).unwrap(), request),
                Err(_) => assert_eq!(unpacked, message),
            }
        }
    }

    #[test]
    fn the_oldest_are_dropped_together() {
        let mut packed = PackedSettlements::default();
        (0..BLOCK as u64 + 10)
            .for_each(|number| packed.push(&Settlement::new(request(number).encode_to_vec())));
        packed.pop();
        assert_eq!(packed.drop_oldest(), BLOCK - 1);
        let first = CommitRequest::decode(&*packed.pop().unwrap().message).unwrap();
        assert_eq!((first, packed.len()), (request(BLOCK as u64), 9));
        assert_eq!((packed.drop_oldest(), packed.drop_oldest()), (9, 0));
    }
}
