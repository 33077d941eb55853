//! Live holds: while a stream delivers more than was held, its holds grow in steps. Nothing waits for a raise,
//! and it does not affect charges.
//!
//! A hold grows before the stream outgrows it, as soon as it covers less than one and a half times what was
//! delivered, and to twice that: the longer a stream has been, the longer it is likely to go on. A hold that can cut the stream only grows to what was delivered, so that no
//! stream is cut while there is room for it.

use super::Effect;
use super::charging::Charging;
use super::cut::StreamCutter;
use super::reservation::{Reservation, estimated};
use super::response::ResponseInFlight;
use super::stored::ResultRole;
use crate::metric::UsageSource;
use crate::outbox::Raise;
use expression::facts::ResponseFacts;
use llm::response::{CHARACTERS_PER_TOKEN, Found, MeterReading, Usage};
use policy::plan::Hold;
use protocol::call::{self, Item};
use std::time::Duration;

/// Holds are reviewed each time a stream has delivered this many more tokens, or a quarter more if that is
/// larger. So they are raised only a few times.
const STEP: u64 = 100;

/// The current holds of a stream.
#[derive(Debug, Default)]
pub(super) struct LiveHolds {
    /// The number of delivered tokens at which to review the holds again.
    look_at: u64,
    /// The current amount of each hold of the reservation, in order. Empty if nothing was raised.
    held: Vec<u64>,
    /// The usage at the last review.
    usage: Usage,
}

impl LiveHolds {
    /// The stream's usage at the last review.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }
}

impl ResponseInFlight {
    /// Returns the new holds if any of them has grown since the last review.
    pub(super) fn outgrown(&mut self) -> Option<Effect> {
        let reading = self.readers.as_ref()?.meter.as_ref()?.reading();
        let delivered = reading.delivered.div_ceil(CHARACTERS_PER_TOKEN);
        if delivered < self.live.look_at || !self.head.is_success() {
            return None;
        }
        self.live.look_at = delivered.saturating_add(STEP.max(delivered / 4));
        let can_be_cut = self.can_be_cut();
        self.reservation.outgrown(&reading, delivered, &mut self.live, can_be_cut)
    }

    fn can_be_cut(&self) -> bool {
        self.cutter.as_ref().is_some_and(StreamCutter::can_cut)
    }
}

impl Reservation {
    fn outgrown(
        &mut self,
        reading: &MeterReading,
        delivered: u64,
        live: &mut LiveHolds,
        can_be_cut: bool,
    ) -> Option<Effect> {
        // Reading a stored result costs nothing, and a background result is charged when it is seen.
        if self.tokenless || matches!(self.role, ResultRole::Reads(_) | ResultRole::Creates { asked: true }) {
            return None;
        }
        let input = self.input();
        let usage = match reading.usage_if_cut().filter(|usage| usage.total > 0) {
            Some(usage) => reading.completed(usage, input),
            None => estimated(input, delivered),
        };
        live.usage = usage;
        let charges = self.charges_so_far(usage);
        let output = usage.output;
        let least = self.charges_so_far(self.expected(usage, output.saturating_add(output / 2)));
        let ahead = self.charges_so_far(self.expected(usage, output.saturating_mul(2)));
        let held = |at: usize, hold: &Hold| live.held.get(at).copied().unwrap_or(hold.amount.max(1));
        let wanted = self.holds.iter().enumerate().zip(charges.into_iter().zip(least.into_iter().zip(ahead)));
        let wanted = wanted.map(|((at, hold), (charge, (least, ahead)))| match can_be_cut && hold.is_cut() {
            true => charge,
            false if least > held(at, hold) => ahead,
            false => 0,
        });
        let charges: Vec<u64> = wanted.collect();
        let outgrown = self.holds.iter().zip(&charges).enumerate();
        let outgrown = outgrown.filter(|(at, (hold, charge))| **charge > held(*at, hold));
        let items: Vec<Item<'_>> = outgrown
            .map(|(_, (hold, charge))| Item {
                entries: &hold.entries,
                amount: *charge,
                ttl: Duration::ZERO,
                max: hold.rate.rate.max.fixed().is_none().then_some(hold.max),
                unenforced: !(can_be_cut && hold.is_cut()),
                draw: None,
            })
            .collect();
        if items.is_empty() {
            return None;
        }
        let may_cut = items.iter().any(|item| !item.unenforced);
        let message = call::raise(self.id(), items.into_iter());
        live.held = self
            .holds
            .iter()
            .zip(charges)
            .enumerate()
            .map(|(at, (hold, charge))| charge.max(held(at, hold)))
            .collect();
        Some(Effect::Raise(Raise { id: self.id().to_owned(), message, may_cut }))
    }

    /// Returns the usage with this output, or with the maximum that the request allows, unless the provider has
    /// exceeded it.
    fn expected(&self, usage: Usage, output: u64) -> Usage {
        let max = self.max_output.filter(|max| *max >= usage.output);
        let output = max.map_or(output, |max| output.min(max)).max(usage.output);
        let total = usage.total.saturating_add(output.saturating_sub(usage.output));
        Usage { output, total, ..usage }
    }

    /// Returns what this usage would charge each hold.
    fn charges_so_far(&mut self, usage: Usage) -> Vec<u64> {
        if let Some(facts) = &mut self.facts {
            facts.answer(ResponseFacts { usage, code: 200, finished: false, ..ResponseFacts::default() });
        }
        let charging = Charging {
            usage: &usage,
            pointed: &Found::new(),
            source: UsageSource::Estimated,
            finished: false,
            facts: self.facts.as_deref(),
        };
        let charge = |hold: &Hold| if hold.rate.rate.unit.is_of_usage() { charging.of(hold).0 } else { 0 };
        self.holds.iter().map(charge).collect()
    }
}
