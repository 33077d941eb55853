//! The soft limits that a request exceeds. The request and its response carry their headers.

use super::Effect;
use super::reservation::Reservation;
use crate::metric::Metric;
use crate::refusal::HeaderList;
use policy::model::{FailureMode, SoftSignal};
use policy::plan::Hold;
use std::sync::Arc;

/// The soft limits that a request exceeds, in the order in which limits apply.
#[derive(Debug, Default)]
pub(super) struct ExceededLimits {
    signals: Vec<Arc<SoftSignal>>,
}

impl ExceededLimits {
    /// The maximum memory in bytes that an instance for these holds needs.
    pub(super) fn size(holds: &[Hold]) -> usize {
        let soft = holds.iter().filter(|hold| hold.signal.is_some());
        soft.count().saturating_mul(size_of::<Arc<SoftSignal>>())
    }

    /// The headers of all signals. If two set the same one, the first applies.
    pub(super) fn headers(&self) -> HeaderList {
        let mut headers = HeaderList::new();
        for (name, value) in self.signals.iter().flat_map(|signal| &signal.headers) {
            if !headers.iter().any(|(known, _)| known == name) {
                headers.push((name.clone().into(), value.clone()));
            }
        }
        headers
    }

    fn add(&mut self, signal: &Arc<SoftSignal>) {
        // The rates and buckets of a limit share one signal.
        if !self.signals.iter().any(|known| Arc::ptr_eq(known, signal)) {
            self.signals.push(Arc::clone(signal));
        }
    }
}

impl Reservation {
    /// Records which soft limits have no room according to the adapter's reply, or would hold more than
    /// `maxShare`.
    pub(super) fn note_exceeded(&mut self) {
        let mut exceeded = std::mem::take(&mut self.signals);
        for standing in self.standings() {
            let is_exceeded = standing.status.is_some_and(|status| status.exceeded);
            if is_exceeded || standing.hold.is_above_share() {
                standing.hold.signal.iter().for_each(|signal| exceeded.add(signal));
            }
        }
        self.signals = exceeded;
    }

    /// Records that the adapter could not answer: the soft limits of strict policies count as exceeded.
    pub(super) fn unchecked(&mut self) {
        let strict = |hold: &&Hold| hold.rate.failure_mode == FailureMode::Deny || hold.is_above_share();
        for hold in self.holds.iter().filter(strict) {
            hold.signal.iter().for_each(|signal| self.signals.add(signal));
        }
    }

    /// Returns the effects for a request that passes although it exceeds soft limits.
    pub(super) fn signal(&self) -> Vec<Effect> {
        let is_exceeded = |hold: &&Hold| {
            let mut signals = self.signals.signals.iter();
            hold.signal.as_ref().is_some_and(|own| signals.any(|signal| Arc::ptr_eq(own, signal)))
        };
        let mut limits: Vec<&Hold> = self.holds.iter().filter(is_exceeded).collect();
        limits.dedup_by(|a, b| a.rate.policy == b.rate.policy && a.rate.limit == b.rate.limit);
        let mut effects: Vec<Effect> =
            limits.into_iter().map(|hold| Effect::Count(Metric::soft_exceeded(hold))).collect();
        let headers = self.signals.headers();
        effects.extend((!headers.is_empty()).then_some(Effect::Signal(headers)));
        effects
    }
}
