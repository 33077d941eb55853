//! `outputCap: Inject`: computes how much output a request's holds cover.

use super::{Estimate, Hold};
use crate::model::{Tariff, Unit};

/// The largest output, in tokens and at least 1, that the holds of all capping limits cover. `None` if no
/// limit caps the output.
pub(super) fn of(holds: &[Hold], estimate: Estimate) -> Option<u64> {
    // A dry run does not edit requests.
    let capping = holds.iter().filter(|hold| hold.rate.caps_output && hold.enforced);
    capping.filter_map(|hold| enough_for(hold, estimate)).min().map(|cap| cap.max(1))
}

fn enough_for(hold: &Hold, estimate: Estimate) -> Option<u64> {
    let rate = &hold.rate.rate;
    match (rate.unit, hold.tariff) {
        (unit, _) if unit.counts_output() && hold.has_own_count() => Some(estimate.output),
        (Unit::Tokens, _) => Some(hold.amount.saturating_sub(estimate.input)),
        (Unit::OutputTokens, _) => Some(hold.amount),
        (Unit::Usd, Some(tariff)) => bought(hold.amount, tariff, estimate.input),
        (Unit::Usd, None) | (Unit::InputTokens | Unit::Requests | Unit::Concurrency, _) => None,
    }
}

/// Returns how many output tokens this amount covers in addition to the input. `None` if output is free.
fn bought(micro_usd: u64, tariff: Tariff, input: u64) -> Option<u64> {
    // Prices are per million tokens.
    let all = u128::from(micro_usd).saturating_mul(1_000_000);
    let of_input = u128::from(input).saturating_mul(u128::from(tariff.input));
    let output = all.saturating_sub(of_input).checked_div(u128::from(tariff.output))?;
    Some(u64::try_from(output).unwrap_or(u64::MAX))
}
