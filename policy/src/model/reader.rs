//! Document → [`Policy`]. Everything is read before anything is given up, so one pass tells every mistake.

use super::usage::{UsageRules, usage};
use super::{
    DEFAULT_TTL, FailureMode, Limit, Maximum, Period, Policy, Price, Rate, Target, TargetKind, Tariff, Ttl,
    Unit, Window, names, price,
};
use crate::cel::{Expression, Phase, Use};
use crate::document::{Fields, Node, Object, Reported, all, distinct, one_line, shortened};
use crate::duration;
use std::time::Duration;

const VERSIONS: &[(&str, ())] = &[("weir.dev/v1alpha1", ()), ("kuadrant.io/v1alpha1", ())];
const KINDS: &[(&str, ())] = &[("TokenRateLimitPolicy", ())];
const GROUPS: &[(&str, ())] = &[("gateway.networking.k8s.io", ())];
const TARGETS: &[(&str, TargetKind)] =
    &[("Gateway", TargetKind::Gateway), ("HTTPRoute", TargetKind::HttpRoute)];
const UNITS: &[(&str, Unit)] = &[
    ("tokens", Unit::Tokens),
    ("requests", Unit::Requests),
    ("inputTokens", Unit::InputTokens),
    ("outputTokens", Unit::OutputTokens),
    ("usd", Unit::Usd),
    ("concurrency", Unit::Concurrency),
];
const PERIODS: &[(&str, Period)] = &[("Day", Period::Day), ("Week", Period::Week), ("Month", Period::Month)];
pub(crate) const FAILURE_MODES: &[(&str, FailureMode)] =
    &[("Allow", FailureMode::Allow), ("Deny", FailureMode::Deny)];

const DOCUMENT: Fields =
    Fields { known: &["apiVersion", "kind", "metadata", "spec"], later: &[], ignored: &["status"] };
const METADATA: Fields = Fields {
    known: &["name", "namespace"],
    later: &[],
    ignored: &[
        "annotations",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "generation",
        "labels",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
        "uid",
    ],
};
const SPEC: Fields = Fields {
    known: &["targetRef", "when", "limits", "failureMode", "usage", "prices"],
    later: &[
        ("defaults", Some("limits")),
        ("overrides", Some("limits")),
        ("onExceeded", None),
        // Kuadrant's `usage.pointers`.
        ("dataExtraction", None),
    ],
    ignored: &[],
};
const TARGET: Fields = Fields { known: &["group", "kind", "name", "sectionName"], later: &[], ignored: &[] };
const LIMIT: Fields = Fields {
    known: &["when", "counters", "rates", "reservation", "enforceWhen"],
    later: &[("outputCap", None)],
    ignored: &[],
};
const RATE: Fields =
    Fields { known: &["limit", "limitFrom", "window", "period", "unit", "cost"], later: &[], ignored: &[] };
const PRICE: Fields =
    Fields { known: &["model", "input", "cachedInput", "output"], later: &[], ignored: &[] };
const RESERVATION: Fields = Fields { known: &["amount", "ttl"], later: &[], ignored: &[] };
const PREDICATE: Fields = Fields { known: &["predicate"], later: &[], ignored: &[] };
const COUNTER: Fields = Fields { known: &["expression"], later: &[], ignored: &[] };

/// One policy, of no cluster: a section is a listener or a rule, which only a cluster's Gateway or HTTPRoute can tell.
pub(crate) fn policy(document: Node<'_>) -> Result<Policy, Reported> {
    let policy = policy_in_cluster(document.clone());
    match document.at(&["spec", "targetRef", "sectionName"]) {
        Some(section) => Err(section.refuse("only a cluster knows the sections of a target")),
        None => policy,
    }
}

/// One policy.
pub(crate) fn policy_in_cluster(document: Node<'_>) -> Result<Policy, Reported> {
    if let Some(kind) = document.peek("kind").filter(|kind| !is_one_of(kind, KINDS))
        && !document.peek("apiVersion").is_some_and(|version| is_one_of(version, VERSIONS))
    {
        // Another kind of object altogether: what else is in it cannot be judged.
        return Err(document.refuse(format!(
            "is a `{}`, not a `TokenRateLimitPolicy` of `weir.dev/v1alpha1` or `kuadrant.io/v1alpha1`",
            shortened(kind)
        )));
    }
    let document = document.object(&DOCUMENT)?;
    let version = document.required("apiVersion").and_then(|node| node.word(VERSIONS, &[]));
    let kind = document.required("kind").and_then(|node| node.word(KINDS, &[]));
    let metadata = document.required("metadata").and_then(metadata);
    let spec = document.required("spec").and_then(spec);
    version.and(kind)?;
    let (namespace, name) = metadata?;
    let Spec { target, when, limits, failure_mode, usage, prices } = spec?;
    let needs_body = Vec::new();
    Ok(Policy { namespace, name, target, when, limits, failure_mode, usage, prices, needs_body })
}

fn metadata(node: Node<'_>) -> Result<(String, String), Reported> {
    let metadata = node.object(&METADATA)?;
    let name = metadata.required("name").and_then(|node| names::POLICY.check(node.text()?, &node));
    let namespace = match metadata.optional("namespace") {
        Some(node) => node.text().and_then(|name| names::NAMESPACE.check(name, &node)),
        None => Ok("default".to_owned()),
    };
    Ok((namespace?, name?))
}

struct Spec {
    target: Target,
    when: Vec<Expression>,
    limits: Vec<Limit>,
    failure_mode: FailureMode,
    usage: UsageRules,
    prices: Vec<Price>,
}

fn spec(node: Node<'_>) -> Result<Spec, Reported> {
    let spec = node.object(&SPEC)?;
    let target = spec.required("targetRef").and_then(target);
    let when = spec.optional("when").map(when).transpose();
    let priced = spec.optional("prices").is_some();
    let limits = spec.required("limits").and_then(|node| limits(&node, priced));
    let failure_mode = spec.optional("failureMode").map(|node| node.word(FAILURE_MODES, &[])).transpose();
    let usage = spec.optional("usage").map(usage).transpose();
    let prices = spec.optional("prices").map(|node| prices(&node)).transpose();
    Ok(Spec {
        target: target?,
        when: when?.unwrap_or_default(),
        limits: limits?,
        failure_mode: failure_mode?.unwrap_or_default(),
        usage: usage?.unwrap_or_default(),
        prices: prices?.unwrap_or_default(),
    })
}

fn target(node: Node<'_>) -> Result<Target, Reported> {
    let target = node.object(&TARGET)?;
    let group = target.required("group").and_then(|node| node.word(GROUPS, &[]));
    let kind = target.required("kind").and_then(|node| node.word(TARGETS, &[]));
    // Without a cluster this is the name of an Envoy route, which may be any text.
    let name = target.required("name").and_then(|node| node.text());
    let section = target.optional("sectionName").map(|node| node.text()).transpose();
    group?;
    Ok(Target { kind: kind?, name: name?.to_owned(), section: section?.map(str::to_owned) })
}

fn when(node: Node<'_>) -> Result<Vec<Expression>, Reported> {
    all(node.items()?.into_iter().map(|item| {
        item.object(&PREDICATE)?.required("predicate").and_then(|node| expression(&node, Use::Predicate))
    }))
}

/// `priced`: the policy says what tokens cost.
fn limits(node: &Node<'_>, priced: bool) -> Result<Vec<Limit>, Reported> {
    let limits = node.entries()?;
    if limits.is_empty() {
        return Err(node.refuse("must have at least one limit"));
    }
    all(limits.into_iter().map(|(name, node)| limit(name, node, priced)))
}

fn limit(name: &str, node: Node<'_>, priced: bool) -> Result<Limit, Reported> {
    let name = names::LIMIT.check(name, &node);
    let limit = node.object(&LIMIT)?;
    let when = limit.optional("when").map(when).transpose();
    let counters = limit.optional("counters").map(counters).transpose();
    let rates = limit.required("rates").and_then(|node| rates(&node, priced));
    let reservation = limit.optional("reservation").map(reservation).transpose();
    let enforce_when =
        limit.optional("enforceWhen").map(|node| expression(&node, Use::Predicate)).transpose();
    let (amount, ttl) = reservation?.unwrap_or((None, Ttl::Fixed(DEFAULT_TTL)));
    Ok(Limit {
        name: name?,
        when: when?.unwrap_or_default(),
        counters: counters?.unwrap_or_default(),
        rates: rates?,
        amount,
        ttl,
        enforce_when: enforce_when?,
    })
}

fn counters(node: Node<'_>) -> Result<Vec<Expression>, Reported> {
    let read = |item: Node<'_>| expression(&item.object(&COUNTER)?.required("expression")?, Use::Counter);
    distinct(
        node.items()?.into_iter().map(|item| (item.clone(), read(item))),
        |counter, other| counter.source() == other.source(),
        |_, first| format!("is the same as counters[{first}]"),
    )
}

fn rates(node: &Node<'_>, priced: bool) -> Result<Vec<Rate>, Reported> {
    let items = node.items()?;
    if items.is_empty() {
        return Err(node.refuse("must have at least one rate"));
    }
    distinct(
        items.into_iter().map(|item| (item.clone(), rate(item, priced))),
        |rate, other| (rate.unit, rate.window) == (other.unit, other.window),
        |rate, first| {
            let (unit, window) = (rate.unit.name(), rate.window);
            match window {
                Window::Fixed(_) => {
                    format!("counts {unit} in a window of {window}, which rates[{first}] does already")
                }
                Window::Period(_) => format!("counts {unit} per {window}, which rates[{first}] does already"),
                Window::Now => format!("counts {unit}, which rates[{first}] does already"),
            }
        },
    )
}

fn rate(node: Node<'_>, priced: bool) -> Result<Rate, Reported> {
    let rate = node.object(&RATE)?;
    let unit = rate.optional("unit").map(|node| node.word(UNITS, &[])).transpose();
    // Whoever mistyped the unit may have meant one whose limit and window look otherwise.
    let unit = unit?.unwrap_or_default();
    let max = maximum(&rate, unit);
    let window = window(&rate, unit);
    let cost = rate.optional("cost").map(|node| cost(&node, unit)).transpose();
    if unit == Unit::Usd && !priced && rate.optional("cost").is_none() {
        let node = rate.optional("unit").unwrap_or_else(|| rate.node().clone());
        return Err(node.refuse("`usd` needs `spec.prices`, or a `cost` of its own"));
    }
    Ok(Rate { max: max?, window: window?, unit, cost: cost? })
}

fn maximum(rate: &Object<'_>, unit: Unit) -> Result<Maximum, Reported> {
    if let Some(node) = rate.optional("limitFrom") {
        if rate.optional("limit").is_some() {
            return Err(node.refuse("stands beside `limit`; a rate has one of them"));
        }
        return Ok(Maximum::From(expression(&node, Use::Maximum)?));
    }
    let node = rate.required("limit")?;
    Ok(Maximum::Fixed(if unit == Unit::Usd { money(&node)? } else { node.whole_number()? }))
}

/// USD: whole, or a decimal text.
fn money(node: &Node<'_>) -> Result<u64, Reported> {
    if node.is_whole() {
        let usd = node.whole_number()?;
        return usd
            .checked_mul(1_000_000)
            .filter(|micro| i64::try_from(*micro).is_ok())
            .ok_or_else(|| node.refuse("is more money than can be counted"));
    }
    let text = node.text()?;
    price::micro_usd(text).ok_or_else(|| {
        let told = shortened(text);
        node.refuse(format!("`{told}` is not an amount of USD with up to six places, such as `5.00`"))
    })
}

fn cost(node: &Node<'_>, unit: Unit) -> Result<Expression, Reported> {
    if unit == Unit::Concurrency {
        return Err(node.refuse("`concurrency` counts what is under way, which costs nothing"));
    }
    expression_in(node, Phase::Response, Use::Cost)
}

fn prices(node: &Node<'_>) -> Result<Vec<Price>, Reported> {
    distinct(
        node.items()?.into_iter().map(|item| (item.clone(), price(item))),
        |price, other| price.model == other.model,
        |_, first| format!("is for the same model as prices[{first}]"),
    )
}

fn price(node: Node<'_>) -> Result<Price, Reported> {
    let price = node.object(&PRICE)?;
    let model = price.required("model").and_then(|node| node.text());
    let input = price.required("input").and_then(|node| money(&node));
    let cached = price.optional("cachedInput").map(|node| money(&node)).transpose();
    let output = price.required("output").and_then(|node| money(&node));
    let (input, cached) = (input?, cached?);
    let tariff = Tariff { input, cached: cached.unwrap_or(input), output: output? };
    Ok(Price { model: model?.to_owned(), tariff })
}

fn window(rate: &Object<'_>, unit: Unit) -> Result<Window, Reported> {
    let (window, period) = (rate.optional("window"), rate.optional("period"));
    if unit == Unit::Concurrency {
        return match window.or(period) {
            Some(node) => Err(node.refuse("`concurrency` counts what is under way, which has no window")),
            None => Ok(Window::Now),
        };
    }
    match (window, period) {
        (Some(_), Some(period)) => Err(period.refuse("stands beside `window`; a rate has one of them")),
        (_, Some(period)) => Ok(Window::Period(period.word(PERIODS, &[])?)),
        _ => {
            let node = rate.required("window")?;
            Ok(Window::Fixed(node.duration(Duration::from_secs(1), Duration::MAX)?))
        }
    }
}

fn reservation(node: Node<'_>) -> Result<(Option<Expression>, Ttl), Reported> {
    let reservation = node.object(&RESERVATION)?;
    let amount = reservation.optional("amount").map(|node| expression(&node, Use::Amount)).transpose();
    let ttl = reservation.optional("ttl").map(|node| ttl(&node)).transpose();
    Ok((amount?, ttl?.unwrap_or(Ttl::Fixed(DEFAULT_TTL))))
}

fn ttl(node: &Node<'_>) -> Result<Ttl, Reported> {
    let text = node.text()?;
    if duration::parse(text).is_some() {
        return node.duration(Duration::from_millis(1), Duration::MAX).map(Ttl::Fixed);
    }
    let compiled = Expression::compile(text.trim(), Phase::Request, Use::Life);
    compiled.map(Ttl::From).map_err(|error| {
        let told = shortened(text);
        node.refuse(one_line(&format!(
            "`{told}` is neither a duration such as `15m` nor an expression: {error}"
        )))
    })
}

fn expression(node: &Node<'_>, purpose: Use) -> Result<Expression, Reported> {
    expression_in(node, Phase::Request, purpose)
}

fn expression_in(node: &Node<'_>, phase: Phase, purpose: Use) -> Result<Expression, Reported> {
    // YAML's block strings end in a line break, and a counter's text is part of its identity.
    let compiled = Expression::compile(node.text()?.trim(), phase, purpose);
    // The error may quote the expression, with whatever characters are in it.
    let compiled = compiled.map_err(|error| node.refuse(one_line(&error)))?;
    if let Some(fact) = compiled.fact_of_body() {
        node.note(format!(
            "`{}` is in the request's body: the filter's configuration must say `requestBody: {{\"access\": \
             \"Buffer\"}}`",
            one_line(&fact)
        ));
    }
    Ok(compiled)
}

fn is_one_of(word: &str, words: &[(&str, ())]) -> bool {
    words.iter().any(|(known, ())| *known == word)
}
