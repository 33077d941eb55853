//! Reads `limits`.

use super::thresholds::warn_at;
use super::{BUFFER, expression, expression_in, header_name, header_value, money, remark, when};
use crate::document::{DocumentNode, DocumentObject, KnownFields, Reported, distinct, one_line, shortened};
use crate::duration;
use crate::model::{
    Boundary, DEFAULT_TTL, Limit, Maximum, OnLapse, Overrun, Period, Rate, Share, SoftSignal, Ttl, Unit,
    Window, ZoneName, boundary, names,
};
use expression::cel::{Expression, Phase, ResultType};
use std::sync::Arc;
use std::time::Duration;

/// The units in the order of error messages.
const UNITS: &[(&str, Unit)] = &[
    ("tokens", Unit::Tokens),
    ("requests", Unit::Requests),
    ("inputTokens", Unit::InputTokens),
    ("outputTokens", Unit::OutputTokens),
    ("usd", Unit::Usd),
    ("concurrency", Unit::Concurrency),
];
const WINDOW_TYPES: &[(&str, bool)] = &[("Fixed", false), ("Sliding", true)];
const OUTPUT_CAPS: &[(&str, bool)] = &[("None", false), ("Inject", true)];
const OVERRUNS: &[(&str, Overrun)] = &[("Continue", Overrun::Continue), ("Cut", Overrun::Cut)];
const ON_LAPSE: &[(&str, OnLapse)] = &[("Charge", OnLapse::Charge), ("Release", OnLapse::Release)];
const LEASES: &[(&str, bool)] = &[("Auto", true), ("Never", false)];
const BOUNDARIES: &[(&str, bool)] = &[("Hard", false), ("Soft", true)];
/// The maximum number of headers of a signal, and the maximum length of a value in bytes.
const MAX_SIGNAL_HEADERS: usize = 8;
const MAX_SIGNAL_VALUE: usize = 256;
const LIMIT: KnownFields = KnownFields {
    known: &[
        "when",
        "counters",
        "rates",
        "reservation",
        "lease",
        "overrun",
        "boundary",
        "softSignal",
        "warnAt",
        "counterKey",
        "enforceWhen",
        "outputCap",
    ],
    later: &[],
    ignored: &[],
};
const RATE: KnownFields = KnownFields {
    known: &["limit", "limitFrom", "window", "windowType", "period", "timeZone", "unit", "cost"],
    later: &[],
    ignored: &[],
};
const RESERVATION: KnownFields =
    KnownFields { known: &["amount", "ttl", "maxShare", "onLapse"], later: &[], ignored: &[] };
const SOFT_SIGNAL: KnownFields = KnownFields { known: &["headers"], later: &[], ignored: &[] };
const SIGNAL_HEADER: KnownFields = KnownFields { known: &["name", "value"], later: &[], ignored: &[] };
const COUNTER: KnownFields = KnownFields { known: &["expression"], later: &[], ignored: &[] };

/// Reads the limits. `priced` is set if the policy has prices.
pub(super) fn limits(node: &DocumentNode<'_>, priced: bool) -> Result<Vec<Limit>, Reported> {
    let limits = node.entries()?;
    if limits.is_empty() {
        return Err(node.refuse("must have at least one limit"));
    }
    distinct(
        limits.into_iter().map(|(name, node)| (node.clone(), limit(name, node, priced))),
        |limit, other| limit.counter_key.is_some() && limit.counter_key == other.counter_key,
        |limit, _| {
            let key = limit.counter_key.as_deref().unwrap_or_default();
            format!(
                "has the counterKey `{key}` of another limit, so a request would count twice in one bucket"
            )
        },
    )
}

fn limit(name: &str, node: DocumentNode<'_>, priced: bool) -> Result<Limit, Reported> {
    let name = names::LIMIT.check(name, &node);
    let limit = node.object(&LIMIT)?;
    let when = limit.optional("when").map(when).transpose();
    let counters = limit.optional("counters").map(counters).transpose();
    let rates = limit.required("rates").and_then(|node| rates(&node, priced));
    let reservation =
        limit.optional("reservation").map(|node| reservation(node, rates.as_deref())).transpose();
    let counter_key = limit.optional("counterKey").map(counter_key).transpose();
    let overrun = limit.optional("overrun").map(|node| overrun(&node, rates.as_deref())).transpose();
    let enforce_when =
        limit.optional("enforceWhen").map(|node| expression(&node, ResultType::Predicate)).transpose();
    let boundary = boundary(&limit);
    let leases = limit.optional("lease").map(|node| node.word(LEASES, &[])).transpose();
    let warn_at = limit.optional("warnAt").map(|node| warn_at(&node, rates.as_deref())).transpose();
    let caps_output =
        limit.optional("outputCap").map(|node| caps_output(&node, rates.as_deref())).transpose();
    let ReservationFields { amount, ttl, max_share, on_lapse } = reservation?.unwrap_or_default();
    Ok(Limit {
        name: name?,
        when: when?.unwrap_or_default(),
        counters: counters?.unwrap_or_default(),
        rates: rates?,
        amount,
        ttl,
        max_share,
        on_lapse,
        leases: leases?.unwrap_or(true),
        overrun: overrun?.unwrap_or_default(),
        boundary: boundary?,
        warn_at: warn_at?.unwrap_or_default(),
        counter_key: counter_key?,
        enforce_when: enforce_when?,
        caps_output: caps_output?.unwrap_or_default(),
    })
}

fn counter_key(node: DocumentNode<'_>) -> Result<String, Reported> {
    names::COUNTER_KEY.check(node.text()?, &node)
}

/// Reads `boundary` and `softSignal`. A soft limit neither ends streams nor edits requests.
fn boundary(limit: &DocumentObject<'_>) -> Result<Boundary, Reported> {
    let node = limit.optional("boundary");
    let is_soft = node.as_ref().map(|node| node.word(BOUNDARIES, &[])).transpose();
    let signal = limit.optional("softSignal").map(soft_signal).transpose();
    let (is_soft, signal) = (is_soft?.unwrap_or_default(), signal?);
    if !is_soft {
        return match limit.optional("softSignal") {
            Some(node) => Err(node.refuse("needs `boundary: Soft`: a hard limit refuses requests")),
            None => Ok(Boundary::Hard),
        };
    }
    let hard_alone = [("overrun", "Cut"), ("outputCap", "Inject")];
    let is_set = |(field, word): &(&str, &str)| {
        limit.optional(field).is_some_and(|node| node.word(&[(*word, ())], &[]).is_ok())
    };
    if let (Some((field, word)), Some(node)) = (hard_alone.iter().find(|one| is_set(one)), node) {
        return Err(node.refuse(format!("`Soft` is mutually exclusive with `{field}: {word}`")));
    }
    Ok(Boundary::Soft(Arc::new(signal.unwrap_or_default())))
}

fn soft_signal(node: DocumentNode<'_>) -> Result<SoftSignal, Reported> {
    let headers = node.object(&SOFT_SIGNAL)?.required("headers")?;
    let items = headers.items()?;
    if items.is_empty() || items.len() > MAX_SIGNAL_HEADERS {
        return Err(headers.refuse(format!("must have 1 to {MAX_SIGNAL_HEADERS} headers")));
    }
    let headers = distinct(
        items.into_iter().map(|item| (item.clone(), signal_header(item))),
        |(name, _), (other, _)| name == other,
        |(name, _), first| format!("sets `{name}`, as headers[{first}] does"),
    )?;
    Ok(SoftSignal { headers })
}

fn signal_header(node: DocumentNode<'_>) -> Result<(String, String), Reported> {
    let header = node.object(&SIGNAL_HEADER)?;
    let name = header.required("name").and_then(|node| signal_name(&node));
    let value = header.required("value").and_then(|node| signal_value(&node));
    Ok((name?, value?))
}

fn signal_name(node: &DocumentNode<'_>) -> Result<String, Reported> {
    let text = node.text()?;
    if text.starts_with(':') {
        let told = shortened(text);
        return Err(node.refuse(format!("`{told}` is a pseudo-header, which a signal cannot set")));
    }
    let name = header_name(text, node)?;
    match boundary::reserved(&name) {
        Some(why) => {
            let told = shortened(&name);
            Err(node.refuse(format!(
                "`{told}` {why}, and Weir removes a signal's header from every request: choose a name such as `x-weir-budget`"
            )))
        }
        None => Ok(name),
    }
}

/// Reads a value of a signal header. Routes compare whole values, and HTTP drops spaces around them, so such
/// spaces are rejected.
fn signal_value(node: &DocumentNode<'_>) -> Result<String, Reported> {
    let value = header_value(node)?;
    let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if value.is_empty() || value.len() > MAX_SIGNAL_VALUE || !is_plain || value.trim() != value {
        return Err(node.refuse(format!(
            "must be 1 to {MAX_SIGNAL_VALUE} ASCII characters, without spaces at either end"
        )));
    }
    Ok(value)
}

/// Reads `overrun`. Only usage can outgrow a hold.
fn overrun(node: &DocumentNode<'_>, rates: Result<&[Rate], &Reported>) -> Result<Overrun, Reported> {
    let overrun = node.word(OVERRUNS, &[])?;
    if overrun == Overrun::Cut && rates.is_ok_and(|rates| !rates.iter().any(|rate| rate.unit.is_of_usage())) {
        return Err(node.refuse("`Cut` needs a rate in `tokens`, `inputTokens`, `outputTokens` or `usd`"));
    }
    Ok(overrun)
}

/// Reads `outputCap`. The cap is computed from the hold and written into the request's body.
fn caps_output(node: &DocumentNode<'_>, rates: Result<&[Rate], &Reported>) -> Result<bool, Reported> {
    if !node.word(OUTPUT_CAPS, &[])? {
        return Ok(false);
    }
    if rates.is_ok_and(|rates| !rates.iter().any(|rate| rate.unit.counts_output())) {
        return Err(node.refuse(
            "`Inject` needs a rate in `tokens`, `outputTokens` or `usd`, which it caps the output to",
        ));
    }
    node.note(format!("`Inject` changes the request's body: {BUFFER}"));
    Ok(true)
}

fn counters(node: DocumentNode<'_>) -> Result<Vec<Expression>, Reported> {
    let read = |item: DocumentNode<'_>| {
        expression(&item.object(&COUNTER)?.required("expression")?, ResultType::Counter)
    };
    distinct(
        node.items()?.into_iter().map(|item| (item.clone(), read(item))),
        |counter, other| counter.source() == other.source(),
        |_, first| format!("is the same as counters[{first}]"),
    )
}

fn rates(node: &DocumentNode<'_>, priced: bool) -> Result<Vec<Rate>, Reported> {
    let items = node.items()?;
    if items.is_empty() {
        return Err(node.refuse("must have at least one rate"));
    }
    distinct(
        items.into_iter().map(|item| (item.clone(), rate(item, priced))),
        |rate, other| (rate.unit, &rate.window) == (other.unit, &other.window),
        |rate, first| {
            let (unit, window) = (rate.unit.name(), &rate.window);
            match window {
                Window::Fixed(_) | Window::Sliding(_) => {
                    format!("counts {unit} in a window of {window}, as rates[{first}] does")
                }
                Window::Period(..) => format!("counts {unit} per {window}, as rates[{first}] does"),
                Window::Now => format!("counts {unit}, as rates[{first}] does"),
            }
        },
    )
}

fn rate(node: DocumentNode<'_>, priced: bool) -> Result<Rate, Reported> {
    let rate = node.object(&RATE)?;
    let unit = rate.optional("unit").map(|node| node.word(UNITS, &[])).transpose();
    // If the unit is mistyped, the intended unit may have another form of limit and window.
    let unit = unit?.unwrap_or_default();
    let max = maximum(&rate, unit);
    let window = window(&rate, unit);
    let cost = rate.optional("cost").map(|node| cost(&node, unit)).transpose();
    if unit == Unit::Usd && !priced && rate.optional("cost").is_none() {
        let node = rate.optional("unit").unwrap_or_else(|| rate.node().clone());
        return Err(node.refuse("`usd` needs `spec.prices`, or a `cost` in the rate"));
    }
    Ok(Rate { max: max?, window: window?, unit, cost: cost? })
}

fn maximum(rate: &DocumentObject<'_>, unit: Unit) -> Result<Maximum, Reported> {
    if let Some(node) = rate.optional("limitFrom") {
        if rate.optional("limit").is_some() {
            return Err(node.refuse("is mutually exclusive with `limit`"));
        }
        return Ok(Maximum::From(expression(&node, ResultType::Maximum)?));
    }
    let node = rate.required("limit")?;
    Ok(Maximum::Fixed(if unit == Unit::Usd { money(&node)? } else { node.whole_number()? }))
}

fn cost(node: &DocumentNode<'_>, unit: Unit) -> Result<Expression, Reported> {
    if unit == Unit::Concurrency {
        return Err(node.refuse("`concurrency` counts requests in flight and has no cost"));
    }
    expression_in(node, Phase::Response, ResultType::Cost)
}

fn window(rate: &DocumentObject<'_>, unit: Unit) -> Result<Window, Reported> {
    let (window, period) = (rate.optional("window"), rate.optional("period"));
    let (zone, kind) = (rate.optional("timeZone"), rate.optional("windowType"));
    if unit == Unit::Concurrency {
        return match window.or(period).or(zone).or(kind) {
            Some(node) => {
                Err(node.refuse("`concurrency` counts requests in flight and has no window; remove it"))
            }
            None => Ok(Window::Now),
        };
    }
    let zone = match zone {
        Some(node) if period.is_none() => {
            Err(node.refuse("needs `period`: a `window` begins with its first charge"))
        }
        zone => zone.map(|node| time_zone(&node)).transpose(),
    };
    let kind = kind.map(|node| match node.word(WINDOW_TYPES, &[]) {
        Ok(_) if window.is_none() => {
            Err(node.refuse("needs `window`: a `period` begins and ends with the calendar"))
        }
        read => read,
    });
    let kind = kind.transpose();
    match (window, period) {
        (Some(_), Some(period)) => Err(period.refuse("is mutually exclusive with `window`")),
        (_, Some(period)) => {
            let period = period.word(Period::NAMED, &[]);
            let zone = kind.and(zone)?.unwrap_or(ZoneName::UTC);
            Ok(Window::Period(period?, zone))
        }
        (None, None) => {
            Err(rate.missing("window", "is required, or `period` in its place, such as `Day` or `Month`"))
        }
        (Some(node), None) => {
            let length = node.duration(Duration::from_secs(1), Duration::MAX);
            let is_sliding = zone.and(kind)?.unwrap_or_default();
            let length = length?;
            Ok(if is_sliding { Window::Sliding(length) } else { Window::Fixed(length) })
        }
    }
}

fn time_zone(node: &DocumentNode<'_>) -> Result<ZoneName, Reported> {
    let text = node.text()?;
    ZoneName::parse(text).ok_or_else(|| {
        let told = shortened(text);
        node.refuse(format!("`{told}` is not the name of a time zone such as `Europe/Berlin`"))
    })
}

struct ReservationFields {
    amount: Option<Expression>,
    ttl: Ttl,
    max_share: Option<Share>,
    on_lapse: OnLapse,
}

impl Default for ReservationFields {
    fn default() -> Self {
        let (ttl, on_lapse) = (Ttl::Fixed(DEFAULT_TTL), OnLapse::default());
        Self { amount: None, ttl, max_share: None, on_lapse }
    }
}

fn reservation(
    node: DocumentNode<'_>,
    rates: Result<&[Rate], &Reported>,
) -> Result<ReservationFields, Reported> {
    let reservation = node.object(&RESERVATION)?;
    let amount = reservation.optional("amount").map(|node| amount(&node)).transpose();
    let ttl = reservation.optional("ttl").map(|node| ttl(&node)).transpose();
    let max_share = reservation.optional("maxShare").map(|node| max_share(&node, rates)).transpose();
    let on_lapse = reservation.optional("onLapse").map(|node| on_lapse(&node, rates)).transpose();
    let ttl = ttl?.unwrap_or(Ttl::Fixed(DEFAULT_TTL));
    let on_lapse = on_lapse?.unwrap_or_default();
    Ok(ReservationFields { amount: amount?, ttl, max_share: max_share?, on_lapse })
}

/// Reads `onLapse`. A lapsed hold of `concurrency` is always released, and `requests` are charged at admission.
fn on_lapse(node: &DocumentNode<'_>, rates: Result<&[Rate], &Reported>) -> Result<OnLapse, Reported> {
    let on_lapse = node.word(ON_LAPSE, &[])?;
    needs_usage(node, rates)?;
    Ok(on_lapse)
}

/// Refuses a field if no rate counts usage.
fn needs_usage(node: &DocumentNode<'_>, rates: Result<&[Rate], &Reported>) -> Result<(), Reported> {
    if rates.is_ok_and(|rates| !rates.iter().any(|rate| rate.unit.is_of_usage())) {
        return Err(node.refuse("needs a rate in `tokens`, `inputTokens`, `outputTokens` or `usd`"));
    }
    Ok(())
}

/// Reads `maxShare`. For `requests` and `concurrency`, every request holds one, so a share would be
/// meaningless.
fn max_share(node: &DocumentNode<'_>, rates: Result<&[Rate], &Reported>) -> Result<Share, Reported> {
    let text = node.text()?;
    let share = Share::parse(text).ok_or_else(|| {
        let told = shortened(text);
        node.refuse(format!(
            "`{told}` is not a percentage of the limit such as `20%`: above 0% and at most 100%"
        ))
    })?;
    needs_usage(node, rates)?;
    Ok(share)
}

/// Reads `amount`. As in Kuadrant, it may also be a number.
fn amount(node: &DocumentNode<'_>) -> Result<Expression, Reported> {
    if !node.is_whole() {
        return expression(node, ResultType::Amount);
    }
    let compiled = Expression::compile(&node.whole_number()?.to_string(), Phase::Request, ResultType::Amount);
    compiled.map_err(|error| node.refuse(error))
}

fn ttl(node: &DocumentNode<'_>) -> Result<Ttl, Reported> {
    let text = node.text()?;
    if duration::parse(text).is_some() {
        return node.duration(Duration::from_millis(1), Duration::MAX).map(Ttl::Fixed);
    }
    let compiled = Expression::compile(text.trim(), Phase::Request, ResultType::Life).map_err(|error| {
        let told = shortened(text);
        node.refuse(one_line(&format!(
            "`{told}` is neither a duration such as `15m` nor an expression: {error}"
        )))
    })?;
    remark(node, &compiled);
    Ok(Ttl::From(compiled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_can_be_written() {
        assert!(
            Unit::NAMED.iter().all(|named| UNITS.contains(named)),
            "UNITS lacks one of {:?}",
            Unit::NAMED
        );
    }
}
