//! A response as it passes, and what it has used at its end.

use super::Effect;
use super::reservation::{Reservation, estimated};
use crate::count::{Count, UsageSource};
use crate::facts::Answer;
use crate::meter::{CHARACTERS_PER_TOKEN, Cause, Meter, Usage};
use crate::request::UsageChunkFilter;
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Responding {
    pub(super) reservation: Reservation,
    pub(super) status: u16,
    /// Those that a `cost` names.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) meter: Option<Meter>,
    /// Finds what policies want of the body beside its usage.
    pub(super) finder: Option<Meter>,
    /// Takes out what the client has not asked for.
    pub(super) usage_chunk: Option<UsageChunkFilter>,
}

/// How a response came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its last byte has passed.
    Complete,
    /// The client or the upstream went away before.
    Cut,
}

impl Responding {
    /// What the response used. A call that failed, or that uses no tokens, costs none; a successful one that
    /// reports nothing costs its input and what was delivered.
    pub(super) fn settle(mut self: Box<Self>, ending: Ending) -> Vec<Effect> {
        let finished = ending == Ending::Complete;
        let headers = std::mem::take(&mut self.headers);
        let pointed = self.finder.as_mut().map(Meter::found).unwrap_or_default();
        let answer = |usage| Answer { usage, code: self.status, finished, headers, pointed };
        let Some(meter) = &mut self.meter else {
            return self.reservation.charge(answer(Usage::default()), UsageSource::None);
        };
        let reading = meter.finish();
        let reservation = &mut self.reservation;
        // A count that is none is no report: what was delivered and is in no other is estimated.
        let whole = finished && !reading.ended_in_error && reading.broken != Some(Cause::Count);
        let usage = if whole { reading.usage } else { reading.usage_if_cut() };
        let mut effects = match usage {
            Some(usage) => reservation.charge(answer(usage), UsageSource::Reported),
            None if (200..300).contains(&self.status) && !reservation.tokenless => {
                let delivered = reading.delivered.div_ceil(CHARACTERS_PER_TOKEN);
                let usage = estimated(reservation.estimate.input, delivered);
                reservation.charge(answer(usage), UsageSource::Estimated)
            }
            None => reservation.charge(answer(Usage::default()), UsageSource::None),
        };
        // Half a document is what a cut leaves; anything else that could not be read should be known.
        if let Some(cause) = reading.broken.filter(|_| finished) {
            effects.push(Effect::Count(Count::Unreadable(cause)));
        }
        effects
    }
}
