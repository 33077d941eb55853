//! A response in flight, and its usage at the end.

use super::cut::{CutEdit, CutRequest, StreamCutter};
use super::live::LiveHolds;
use super::reservation::{Reservation, estimated};
use super::stored::ResultRole;
use super::{ActivePlan, Effect};
use crate::metric::{MemoryUse, Metric, UsageSource};
use expression::facts::ResponseFacts;
use llm::memory::{Lease, MemoryBudget, Purpose};
use llm::request::{ChunkEdit, UsageChunkFilter};
use llm::response::{CHARACTERS_PER_TOKEN, Cause, Meter, MeterReading, ResponseHead, Usage};

#[derive(Debug)]
pub(super) struct ResponseInFlight {
    pub(super) reservation: Box<Reservation>,
    pub(super) head: ResponseHead,
    pub(super) memory: MemoryBudget,
    /// Removes the usage chunk that the client did not ask for.
    pub(super) usage_chunk: Option<UsageChunkFilter>,
    /// Cuts the stream when its limit runs out of room.
    pub(super) cutter: Option<StreamCutter>,
    /// The current holds.
    pub(super) live: LiveHolds,
    /// Created when the first bytes are read, which may be after they have passed.
    pub(super) readers: Option<ResponseReaders>,
}

/// The readers of a response's body.
#[derive(Debug)]
pub(super) struct ResponseReaders {
    pub(super) meter: Option<Meter>,
    /// Finds the values that policies' pointers name.
    finder: Option<Box<Meter>>,
    /// Finds references to a stored result.
    stored: Option<Box<Meter>>,
    /// The memory of all readers. `None` if there is not enough.
    lease: Option<Lease>,
    /// How many bytes have passed.
    passed: u64,
}

/// How a response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its last byte has passed.
    Complete,
    /// The client or the upstream disconnected before the end.
    Cut,
}

impl ResponseInFlight {
    /// Edits a chunk that is passing.
    pub(super) fn edit(&mut self, chunk: &[u8], end: bool) -> Vec<Effect> {
        let has_cut = self.cutter.as_ref().is_some_and(StreamCutter::has_cut);
        let filter = self.usage_chunk.as_mut().filter(|_| !has_cut);
        let edited = match filter.and_then(|filter| filter.edit(chunk, end)) {
            // The proxy buffers the chunk and sends it with the next one.
            Some(ChunkEdit::Keep(bytes)) => return vec![Effect::KeepChunk(bytes)],
            Some(ChunkEdit::Replace(bytes)) => Some(bytes),
            None => None,
        };
        let usage = self.live.usage();
        let cutter = self.cutter.as_mut();
        match cutter.and_then(|cutter| cutter.edit(edited.as_deref().unwrap_or(chunk), &usage)) {
            Some(CutEdit::Replace(bytes)) => vec![Effect::ReplaceChunk(bytes)],
            Some(CutEdit::End(bytes)) => vec![Effect::ReplaceChunk(bytes), Effect::Count(Metric::StreamCut)],
            Some(CutEdit::Reset) => [Effect::ReplaceChunk(Vec::new())].into_iter().chain(reset()).collect(),
            None => edited.map(Effect::ReplaceChunk).into_iter().collect(),
        }
    }

    /// Handles a stream that has used more than its limits have room for.
    pub(super) fn out_of_room(&mut self) -> Vec<Effect> {
        let refused = Effect::Count(Metric::RaiseRefused);
        match self.cutter.as_mut().map_or(CutRequest::Ignored, StreamCutter::cut) {
            CutRequest::Ignored => Vec::new(),
            CutRequest::Noted => vec![refused],
            CutRequest::Reset => [refused].into_iter().chain(reset()).collect(),
        }
    }

    /// Handles a chunk that passes and cannot be examined. After a cut, it is dropped.
    pub(super) fn pass_unread(&mut self) -> Vec<Effect> {
        if self.cutter.as_ref().is_some_and(StreamCutter::has_cut) {
            return vec![Effect::ReplaceChunk(Vec::new())];
        }
        self.cutter.iter_mut().for_each(StreamCutter::lose_track);
        let given_up = self.usage_chunk.take().is_some();
        let count = || Effect::Count(Metric::MemoryRefused(MemoryUse::UsageChunk));
        given_up.then(count).into_iter().collect()
    }

    /// Reads bytes that have passed.
    pub(super) fn read(&mut self, chunk: &[u8], in_force: &ActivePlan) {
        let ResponseReaders { meter, finder, stored, passed, .. } = self.readers(in_force);
        *passed = passed.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        meter.iter_mut().for_each(|meter| meter.feed(chunk));
        finder.iter_mut().chain(stored).for_each(|meter| meter.feed(chunk));
    }

    fn readers(&mut self, in_force: &ActivePlan) -> &mut ResponseReaders {
        let Self { reservation, head, readers, memory, .. } = self;
        readers.get_or_insert_with(|| {
            let pointers = reservation.pointers(in_force);
            let stores = reservation.role != ResultRole::None;
            let counts = reservation.counts_tokens() || matches!(reservation.role, ResultRole::Reads(_));
            let count = [counts, pointers.is_some(), stores].into_iter().filter(|reads| *reads).count();
            let lease = memory.lease(Purpose::Record, count.saturating_mul(Meter::SIZE));
            let has_room = lease.is_some();
            ResponseReaders {
                meter: (counts && has_room).then(|| Meter::within(head, memory)),
                finder: pointers
                    .filter(|_| has_room)
                    .map(|pointers| Box::new(Meter::looking_for(pointers, head, memory))),
                stored: (stores && has_room).then(|| Box::new(Meter::looking_for_stored(head, memory))),
                lease,
                passed: 0,
            }
        })
    }

    /// The response's usage. A call that failed, or that uses no tokens, costs nothing. A successful call
    /// that reports nothing costs its input and the delivered output.
    pub(super) fn settle(&mut self, in_force: &ActivePlan, ending: Ending) -> Vec<Effect> {
        let mut finished = ending == Ending::Complete || self.head.switches_protocols();
        let succeeded = self.head.is_success();
        let ResponseReaders { meter, finder, stored, lease, passed } = self.readers(in_force);
        let stored = stored.as_mut().map(|meter| meter.stored()).unwrap_or_default();
        let pointed = finder.as_mut().map(|meter| meter.found()).unwrap_or_default();
        let mut reading = meter.as_mut().map(Meter::finish);
        let (passed, has_readers) = (*passed, lease.is_some());
        let gave_up = reading.is_some_and(|reading| reading.broken == Some(Cause::Memory));
        let unread = passed > 0 && (gave_up || !has_readers);
        if unread && self.reservation.counts_tokens() {
            // The response is charged for the delivered output, as if it had been cut.
            finished = false;
            let read = reading.unwrap_or_default();
            let (delivered, uncovered) = (read.delivered.max(passed), read.uncovered.max(passed));
            reading = Some(MeterReading { delivered, uncovered, ..read });
        }
        let Self { reservation, head: ResponseHead { status: code, usage_headers, .. }, .. } = self;
        let code = *code;
        let headers = if reservation.facts.is_some() { std::mem::take(usage_headers) } else { Vec::new() };
        let headers = headers.into_iter().collect();
        let answer = |usage| ResponseFacts { usage, code, finished, headers, pointed };
        let Some(reading) = reading else {
            return reservation.charge(answer(Usage::default()), UsageSource::None);
        };
        // An invalid count is not a report, and unread bytes may contain more text. The delivered output
        // without a report is therefore estimated.
        let read = matches!(reading.broken, None | Some(Cause::Mislabeled));
        let whole = finished && !reading.ended_in_error && read;
        let usage = if whole { reading.usage } else { reading.usage_if_cut() };
        let is_idle = reservation.is_warm_up
            && finished
            && reading.delivered == 0
            && usage.is_none_or(|usage| usage.total == 0);
        // No content (204, 205) was generated, unless the response has some.
        let has_no_content = matches!(code, 204 | 205) && reading.delivered == 0;
        let uses_tokens = succeeded && !reservation.tokenless && !is_idle && !has_no_content;
        let is_only_error = reading.ended_in_error && reading.delivered == 0;
        if let ResultRole::Reads(_) = &reservation.role {
            let seen = reservation.role.seen(&stored, &reading, finished && read).filter(|_| succeeded);
            return reservation.charge_reader(answer(Usage::default()), seen);
        }
        let input = reservation.input();
        let reports = usage.is_some_and(|usage| usage.total > 0) || reading.other_unit;
        let created = (uses_tokens && !reports)
            .then(|| reservation.role.created(&stored, &reading, input, finished))
            .flatten();
        let usage = usage.filter(|_| created.is_none());
        let mut effects = match usage {
            Some(usage) => {
                let completed = uses_tokens && !(is_only_error && usage.total == 0);
                let usage = if completed { reading.completed(usage, reservation.input()) } else { usage };
                reservation.charge(answer(usage), UsageSource::Reported)
            }
            None if uses_tokens && !is_only_error => {
                let mut delivered = reading.delivered.div_ceil(CHARACTERS_PER_TOKEN);
                if matches!(reservation.role, ResultRole::Creates { asked: true }) {
                    // No client will read a later result of this request, so the creation costs at least its
                    // hold.
                    delivered = delivered.max(reservation.estimate.output);
                }
                let usage = estimated(input, delivered);
                reservation.charge_with(answer(usage), UsageSource::Estimated, created)
            }
            None => reservation.charge(answer(Usage::default()), UsageSource::None),
        };
        // After a cut, the rest of the document is missing as expected. Other unreadable parts are counted.
        if let Some(cause) = reading.broken.filter(|_| finished) {
            effects.push(Effect::Count(Metric::Unreadable(cause)));
        }
        if unread {
            effects.push(Effect::Count(Metric::MemoryRefused(MemoryUse::ResponseBody)));
        }
        effects
    }
}

fn reset() -> [Effect; 2] {
    [Effect::Reset, Effect::Count(Metric::StreamReset)]
}
