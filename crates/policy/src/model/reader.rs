//! Converts a document to a [`Policy`]. It reads everything before it fails, so one pass finds every error.

mod limits;
mod thresholds;

use super::extraction::{Extraction, extraction};
use super::usage::{UsageReporting, UsageRules, usage, usage_reporting};
use super::{
    FailureMode, Limit, OnExceeded, Policy, Precedence, Price, QuotaHeaders, Strategy, Target, TargetKind,
    Tariff, misspelt, names, price,
};
use crate::document::{
    DocumentNode, DocumentObject, KnownFields, Reported, all, distinct, one_line, shortened,
};
use expression::cel::{Expression, Phase, ResultType};
use limits::limits;
use std::sync::Arc;

/// Each API version, and how its plain `limits` combine with those of a more specific policy. In Kuadrant,
/// they are implicit defaults.
const VERSIONS: &[(&str, Precedence)] = &[
    ("weir.dev/v1alpha1", Precedence::Own),
    ("kuadrant.io/v1alpha1", Precedence::Defaults(Strategy::Atomic)),
];
const KINDS: &[(&str, ())] = &[("TokenRateLimitPolicy", ())];
const GROUPS: &[(&str, ())] = &[("gateway.networking.k8s.io", ())];
const TARGETS: &[(&str, TargetKind)] = &[
    ("Gateway", TargetKind::Gateway),
    ("HTTPRoute", TargetKind::HttpRoute),
    ("GRPCRoute", TargetKind::GrpcRoute),
];
pub const FAILURE_MODES: &[(&str, FailureMode)] =
    &[("Allow", FailureMode::Allow), ("Deny", FailureMode::Deny)];

const DOCUMENT: KnownFields =
    KnownFields { known: &["apiVersion", "kind", "metadata", "spec"], later: &[], ignored: &["status"] };
const METADATA: KnownFields = KnownFields {
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
const SPEC: KnownFields = KnownFields {
    known: &[
        "targetRef",
        "targetRefs",
        "when",
        "limits",
        "defaults",
        "overrides",
        "failureMode",
        "usage",
        "prices",
        "onExceeded",
        "dataExtraction",
        "tokenCompute",
        "usageReporting",
    ],
    later: &[],
    ignored: &[],
};
const TARGET: KnownFields =
    KnownFields { known: &["group", "kind", "name", "sectionName"], later: &[], ignored: &[] };
const BLOCK: KnownFields = KnownFields {
    known: &["strategy", "when", "limits", "dataExtraction", "tokenCompute"],
    later: &[],
    ignored: &[],
};
const STRATEGIES: &[(&str, Strategy)] = &[("atomic", Strategy::Atomic), ("merge", Strategy::Merge)];
const PRICE: KnownFields = KnownFields {
    known: &["model", "input", "cachedInput", "cacheWrite", "cacheWrite1h", "output"],
    later: &[],
    ignored: &[],
};
const ON_EXCEEDED: KnownFields =
    KnownFields { known: &["status", "headers", "body", "quotaHeaders"], later: &[], ignored: &[] };
const QUOTA_HEADERS: &[(&str, QuotaHeaders)] =
    &[("All", QuotaHeaders::All), ("Constrained", QuotaHeaders::Constrained), ("None", QuotaHeaders::None)];
/// How to change the configuration for a policy that needs request bodies.
const BUFFER: &str = "the filter's configuration must say `requestBody: {\"access\": \"Buffer\"}`";
const PREDICATE: KnownFields = KnownFields { known: &["predicate"], later: &[], ignored: &[] };

/// Reads a policy outside a cluster. It may not name a section, because listeners and rules exist only in a
/// cluster.
pub fn policy(document: DocumentNode<'_>) -> Result<Policy, Reported> {
    let policy = policy_in_cluster(document.clone());
    let targets = document.at(&["spec", "targetRefs"]).and_then(|node| node.items().ok()).unwrap_or_default();
    let sections = targets.iter().filter_map(|target| target.at(&["sectionName"]));
    let section = document.at(&["spec", "targetRef", "sectionName"]).or_else(|| sections.into_iter().next());
    match section {
        Some(section) => {
            Err(section
                .refuse("`sectionName` works only in Kubernetes: listeners and rules are unknown here"))
        }
        None => policy,
    }
}

pub fn policy_in_cluster(document: DocumentNode<'_>) -> Result<Policy, Reported> {
    if let Some(kind) = document.peek("kind").filter(|kind| !is_one_of(kind, KINDS))
        && !document.peek("apiVersion").is_some_and(|version| is_one_of(version, VERSIONS))
    {
        // Another kind of object, so its content cannot be validated.
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
    let (plain, _) = (version?, kind?);
    let (namespace, name) = metadata?;
    let Spec {
        target: (target, further_targets),
        rules,
        failure_mode,
        usage,
        reporting,
        prices,
        on_exceeded,
    } = spec?;
    let Rules { block, precedence, when, limits, extraction } = rules;
    let precedence = if precedence == Precedence::Own { plain } else { precedence };
    let on_exceeded = on_exceeded.map(Arc::new);
    Ok(Policy {
        namespace,
        name,
        target,
        further_targets,
        block,
        when,
        limits,
        precedence,
        extraction: extraction.data,
        token_compute: extraction.token_compute,
        failure_mode,
        usage,
        reporting,
        prices,
        on_exceeded,
        needs_body: Vec::new(),
        misspelt: Vec::new(),
    })
}

fn metadata(node: DocumentNode<'_>) -> Result<(String, String), Reported> {
    let metadata = node.object(&METADATA)?;
    let name = metadata.required("name").and_then(|node| names::POLICY.check(node.text()?, &node));
    let namespace = match metadata.optional("namespace") {
        Some(node) => node.text().and_then(|name| names::NAMESPACE.check(name, &node)),
        None => Ok("default".to_owned()),
    };
    Ok((namespace?, name?))
}

struct Spec {
    target: (Target, Vec<Target>),
    rules: Rules,
    failure_mode: FailureMode,
    usage: UsageRules,
    reporting: Option<UsageReporting>,
    prices: Vec<Price>,
    on_exceeded: Option<OnExceeded>,
}

struct Rules {
    /// The path of the block that contains the limits.
    block: &'static str,
    precedence: Precedence,
    when: Vec<Expression>,
    limits: Vec<Limit>,
    extraction: Extraction,
}

fn spec(node: DocumentNode<'_>) -> Result<Spec, Reported> {
    let spec = node.object(&SPEC)?;
    let target = targets(&spec);
    let rules = rules(&spec);
    let failure_mode = spec.optional("failureMode").map(|node| node.word(FAILURE_MODES, &[])).transpose();
    let usage = spec.optional("usage").map(usage).transpose();
    let reporting = spec.optional("usageReporting").map(usage_reporting).transpose();
    let prices = spec.optional("prices").map(|node| prices(&node)).transpose();
    let on_exceeded = spec.optional("onExceeded").map(on_exceeded).transpose();
    let (rules, usage) = (rules?, usage?.unwrap_or_default());
    if rules.extraction.data.is_some() && usage.pointers.is_some() {
        return Err(spec.node().refuse("`usage.pointers` and `dataExtraction` are mutually exclusive"));
    }
    Ok(Spec {
        target: target?,
        rules,
        failure_mode: failure_mode?.unwrap_or_default(),
        usage,
        reporting: reporting?.flatten(),
        prices: prices?.unwrap_or_default(),
        on_exceeded: on_exceeded?,
    })
}

/// Reads the rules from `limits`, `defaults` or `overrides`. Exactly one of them is required.
fn rules(spec: &DocumentObject<'_>) -> Result<Rules, Reported> {
    let priced = spec.optional("prices").is_some();
    let (own, defaults, overrides) =
        (spec.optional("limits"), spec.optional("defaults"), spec.optional("overrides"));
    let (path, block, precedence): (_, _, fn(Strategy) -> Precedence) = match (&own, defaults, overrides) {
        (_, Some(_), Some(node)) => {
            return Err(node.refuse("is mutually exclusive with `defaults`"));
        }
        (Some(_), Some(node), _) | (Some(_), _, Some(node)) => {
            return Err(node.refuse("is mutually exclusive with `limits`"));
        }
        (None, Some(node), None) => ("spec.defaults", node, Precedence::Defaults),
        (None, None, Some(node)) => ("spec.overrides", node, Precedence::Overrides),
        (_, None, None) => {
            let when = spec.optional("when").map(when).transpose();
            let limits = spec.required("limits").and_then(|node| limits(&node, priced));
            let extraction = extraction(spec, false)?;
            let (block, precedence) = ("spec", Precedence::Own);
            let (when, limits) = (when?.unwrap_or_default(), limits?);
            return Ok(Rules { block, precedence, when, limits, extraction });
        }
    };
    let block = block.object(&BLOCK)?;
    let strategy = block.optional("strategy").map(|node| node.word(STRATEGIES, &[])).transpose();
    let own_when = block.optional("when").map(when).transpose();
    let limits = block.required("limits").and_then(|node| limits(&node, priced));
    let outside = ["when", "dataExtraction", "tokenCompute"];
    if let Some(node) = outside.iter().find_map(|field| spec.optional(field)) {
        return Err(node.refuse("belongs inside `defaults` or `overrides`, next to the limits it is for"));
    }
    let strategy = strategy?.unwrap_or_default();
    let extraction = extraction(&block, strategy == Strategy::Merge)?;
    Ok(Rules {
        block: path,
        precedence: precedence(strategy),
        when: own_when?.unwrap_or_default(),
        limits: limits?,
        extraction,
    })
}

/// Reads the targets from `targetRef` or `targetRefs`.
fn targets(spec: &DocumentObject<'_>) -> Result<(Target, Vec<Target>), Reported> {
    let Some(node) = spec.optional("targetRefs") else {
        return Ok((spec.required("targetRef").and_then(target)?, Vec::new()));
    };
    let items = node.items()?;
    if items.len() > MAX_TARGETS {
        return Err(node.refuse(format!("has more than {MAX_TARGETS} targets")));
    }
    let read = all(items.into_iter().map(|item| Ok((target(item.clone())?, item))))?;
    if spec.optional("targetRef").is_some() {
        return Err(node.refuse("is mutually exclusive with `targetRef`"));
    }
    let mut targets: Vec<Target> = Vec::new();
    for (next, item) in read {
        let level = |target: &Target| (target.kind == TargetKind::Gateway, target.section.is_some());
        if targets.contains(&next) {
            return Err(item.refuse("is a duplicate"));
        }
        // The level determines which policies `defaults` yield to and which policies `overrides` prevail
        // over.
        if targets.first().is_some_and(|first| level(first) != level(&next)) {
            return Err(item.refuse(
                "differs in kind from the first target: all must be Gateways or all must be routes, and all or none must have a `sectionName`",
            ));
        }
        targets.push(next);
    }
    let mut targets = targets.into_iter();
    let first = targets.next().ok_or_else(|| node.refuse("must not be empty"))?;
    Ok((first, targets.collect()))
}

const MAX_TARGETS: usize = 16;

fn target(node: DocumentNode<'_>) -> Result<Target, Reported> {
    let target = node.object(&TARGET)?;
    let group = target.required("group").and_then(|node| node.word(GROUPS, &[]));
    let kind = target.required("kind").and_then(|node| node.word(TARGETS, &[]));
    // Outside a cluster, this is the name of an Envoy route, which may be any text.
    let name = target.required("name").and_then(|node| node.text());
    let section = target.optional("sectionName").map(|node| node.text()).transpose();
    group?;
    Ok(Target { kind: kind?, name: name?.to_owned(), section: section?.map(str::to_owned) })
}

fn when(node: DocumentNode<'_>) -> Result<Vec<Expression>, Reported> {
    all(node.items()?.into_iter().map(|item| {
        item.object(&PREDICATE)?
            .required("predicate")
            .and_then(|node| expression(&node, ResultType::Predicate))
    }))
}

/// Reads an amount in USD: an integer, or a decimal in a string.
fn money(node: &DocumentNode<'_>) -> Result<u64, Reported> {
    if node.is_whole() {
        let usd = node.whole_number()?;
        return usd
            .checked_mul(1_000_000)
            .filter(|micro| i64::try_from(*micro).is_ok())
            .ok_or_else(|| node.refuse("is too large"));
    }
    let text = node.text()?;
    price::micro_usd(text).ok_or_else(|| {
        let told = shortened(text);
        node.refuse(format!("`{told}` is not an amount of USD with up to six places, such as `5.00`"))
    })
}

fn prices(node: &DocumentNode<'_>) -> Result<Vec<Price>, Reported> {
    distinct(
        node.items()?.into_iter().map(|item| (item.clone(), price(item))),
        |price, other| price.model == other.model,
        |_, first| format!("is for the same model as prices[{first}]"),
    )
}

fn price(node: DocumentNode<'_>) -> Result<Price, Reported> {
    let price = node.object(&PRICE)?;
    let model = price.required("model").and_then(|node| Ok((node.text()?, node)));
    if let Ok((glob, node)) = &model
        && *glob != "*"
    {
        // If the model is unknown, the most expensive price applies to every model.
        node.note(format!("the model is in the request's body: {BUFFER}"));
    }
    let input = price.required("input").and_then(|node| money(&node));
    let cached = price.optional("cachedInput").map(|node| money(&node)).transpose();
    let cache_write = price.optional("cacheWrite").map(|node| money(&node)).transpose();
    let cache_write_1h = price.optional("cacheWrite1h").map(|node| money(&node)).transpose();
    let output = price.required("output").and_then(|node| money(&node));
    let (input, cached) = (input?, cached?);
    let cache_write = cache_write?.unwrap_or(input);
    let cache_write_1h = cache_write_1h?.unwrap_or(cache_write);
    let cached = cached.unwrap_or(input);
    let tariff = Tariff { input, cached, cache_write, cache_write_1h, output: output? };
    Ok(Price { model: model?.0.to_owned(), tariff })
}

fn on_exceeded(node: DocumentNode<'_>) -> Result<OnExceeded, Reported> {
    let own = node.object(&ON_EXCEEDED)?;
    let status = own.optional("status").map(|node| status(&node)).transpose();
    let headers = own.optional("headers").map(|node| {
        all(node
            .entries()?
            .into_iter()
            .map(|(name, node)| Ok((header_name(name, &node)?, header_value(&node)?))))
    });
    let headers = headers.transpose();
    let body = own.optional("body").map(|node| expression(&node, ResultType::Text)).transpose();
    let quota = own.optional("quotaHeaders").map(|node| node.word(QUOTA_HEADERS, &[])).transpose();
    Ok(OnExceeded {
        status: status?,
        headers: headers?.unwrap_or_default(),
        body: body?,
        quota_headers: quota?.unwrap_or_default(),
    })
}

fn status(node: &DocumentNode<'_>) -> Result<u16, Reported> {
    let status = node.whole_number()?;
    u16::try_from(status)
        .ok()
        .filter(|status| (400..600).contains(status))
        .ok_or_else(|| node.refuse("must be an error status, 400 to 599"))
}

fn header_name(name: &str, node: &DocumentNode<'_>) -> Result<String, Reported> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(plain) {
        return Err(node.refuse("is not a header name"));
    }
    let name = name.to_ascii_lowercase();
    if ["connection", "content-length", "transfer-encoding", "upgrade"].contains(&name.as_str()) {
        return Err(node.refuse("is set by Envoy itself"));
    }
    Ok(name)
}

fn header_value(node: &DocumentNode<'_>) -> Result<String, Reported> {
    let value = node.text()?;
    if value.chars().any(char::is_control) {
        Err(node.refuse("must be on one line"))
    } else {
        Ok(value.to_owned())
    }
}

fn expression(node: &DocumentNode<'_>, purpose: ResultType) -> Result<Expression, Reported> {
    expression_in(node, Phase::Request, purpose)
}

pub(super) fn expression_in(
    node: &DocumentNode<'_>,
    phase: Phase,
    purpose: ResultType,
) -> Result<Expression, Reported> {
    // Block strings in YAML end in a line break, and a counter's text is part of its identity.
    let compiled = Expression::compile(node.text()?.trim(), phase, purpose);
    // The error may quote the expression, with any characters.
    let compiled = compiled.map_err(|error| node.refuse(one_line(&error)))?;
    remark(node, &compiled);
    Ok(compiled)
}

/// Records the note and the warnings about an expression.
fn remark(node: &DocumentNode<'_>, compiled: &Expression) {
    if let Some(fact) = compiled.fact_of_body() {
        node.note(format!("`{}` is in the request's body: {BUFFER}", one_line(&fact)));
    }
    misspelt::warnings(compiled).for_each(|warning| node.warn(warning));
}

fn is_one_of<T>(word: &str, words: &[(&str, T)]) -> bool {
    words.iter().any(|(known, _)| *known == word)
}
