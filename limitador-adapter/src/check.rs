//! `check`: reports errors in policies, and summarises what valid policies limit.

use crate::policies::collection::{CollectedPolicies, PolicyReport};
use policy::model::{
    Boundary, FailureMode, Limit, Maximum, OnLapse, Overrun, Policy, Rate, SoftSignal, Target, TargetKind,
    Threshold, Ttl, Unit, Window,
};
use serde_json::{Value, json};

/// The findings of `check`.
#[derive(Debug)]
pub struct CheckReport {
    collected: CollectedPolicies,
}

/// What a limit holds, counts and refuses.
struct LimitSummary<'p> {
    limit: &'p Limit,
}

impl CheckReport {
    pub fn new(collected: CollectedPolicies) -> Self {
        Self { collected }
    }

    /// Returns each error as `FILE: document N: path: what is wrong`.
    pub fn errors(&self) -> Vec<String> {
        self.collected.mistakes()
    }

    /// Returns each warning in the same form.
    pub fn warnings(&self) -> Vec<String> {
        self.collected.entries.iter().flat_map(PolicyReport::warnings).collect()
    }

    /// Returns the limits of each policy as text.
    pub fn summary(&self) -> String {
        let policies = self.collected.policies.iter().map(|valid| described(&valid.policy));
        policies.collect::<Vec<_>>().join("\n")
    }

    /// Returns the number of policies, errors and warnings.
    pub fn count(&self) -> String {
        let count = |number: usize, one: &str, many: &str| {
            format!("{number} {}", if number == 1 { one } else { many })
        };
        format!(
            "{}, {}, {}",
            count(self.collected.policies.len(), "policy", "policies"),
            count(self.errors().len(), "error", "errors"),
            count(self.warnings().len(), "warning", "warnings"),
        )
    }

    /// Returns the findings as JSON.
    pub fn json(&self) -> Value {
        let entries = &self.collected.entries;
        let errors = entries.iter().flat_map(|entry| entry.mistakes.iter().map(move |error| (entry, error)));
        let warnings =
            entries.iter().flat_map(|entry| entry.warnings.iter().map(move |warning| (entry, warning)));
        let finding = |(entry, found): (&PolicyReport, &policy::validation_error::ValidationError)| {
            json!({
                "file": entry.file.display().to_string(), "document": entry.document, "path": found.path,
                "message": found.message,
            })
        };
        json!({
            "policies": self.collected.policies.iter().map(|valid| policy_json(&valid.policy)).collect::<Vec<_>>(),
            "errors": errors.map(finding).collect::<Vec<_>>(),
            "warnings": warnings.map(finding).collect::<Vec<_>>(),
        })
    }
}

fn kind(target: &Target) -> &'static str {
    match target.kind {
        TargetKind::Gateway => "Gateway",
        TargetKind::HttpRoute => "HTTPRoute",
        TargetKind::GrpcRoute => "GRPCRoute",
    }
}

fn target(target: &Target) -> String {
    match &target.section {
        Some(section) => format!("{} {}, section {section}", kind(target), target.name),
        None => format!("{} {}", kind(target), target.name),
    }
}

fn described(policy: &Policy) -> String {
    let targets: Vec<String> = policy.targets().map(target).collect();
    let mut text = format!("{}/{}: {}\n", policy.namespace, policy.name, targets.join(", "));
    for predicate in &policy.when {
        line(&mut text, "  applies if ", predicate.source());
    }
    if policy.failure_mode == FailureMode::Deny {
        text.push_str("  refuses requests with 503 if the adapter does not answer in time\n");
    }
    for limit in &policy.limits {
        let summary = LimitSummary { limit };
        line(&mut text, "  ", &format!("{}: {}", limit.name, summary.rates()));
        summary.details().iter().for_each(|detail| line(&mut text, "    ", detail));
    }
    text
}

/// Appends one line. Line breaks in the text become spaces.
fn line(text: &mut String, before: &str, rest: &str) {
    let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
    text.extend([before, &rest, "\n"]);
}

fn window(rate: &Rate) -> String {
    if rate.window == Window::Now { " at a time".to_owned() } else { format!(" per {}", rate.window) }
}

fn rate(rate: &Rate) -> String {
    match &rate.max {
        Maximum::Fixed(max) => format!("{}{}", rate.unit.quantity(*max), window(rate)),
        Maximum::From(from) => {
            let unit = match rate.unit {
                Unit::Usd => "USD",
                Unit::Requests | Unit::Concurrency => "requests",
                Unit::Tokens => "tokens",
                Unit::InputTokens => "input tokens",
                Unit::OutputTokens => "output tokens",
            };
            format!("`{}` {unit}{}", from.source().trim(), window(rate))
        }
    }
}

/// Returns what a soft limit does with requests that exceed it.
pub fn signal_text(signal: &SoftSignal) -> String {
    let headers: Vec<_> = signal.headers.iter().map(|(name, value)| format!("`{name}: {value}`")).collect();
    match headers.as_slice() {
        [] => "weir_soft_exceeded counts the request".to_owned(),
        headers => format!("the request and the response carry {}", headers.join(" and ")),
    }
}

/// Returns when a limit warns, if it has thresholds.
pub fn warning_text(thresholds: &[Threshold]) -> Option<String> {
    let texts: Vec<String> = thresholds.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| format!("warns at {}", texts.join(", ")))
}

impl LimitSummary<'_> {
    fn rates(&self) -> String {
        self.limit.rates.iter().map(rate).collect::<Vec<_>>().join(", ")
    }

    /// Describes who the limit applies to, what it holds, and its other settings.
    fn details(&self) -> Vec<String> {
        let limit = self.limit;
        let mut all: Vec<String> =
            limit.when.iter().map(|predicate| format!("applies if {}", predicate.source())).collect();
        let counters: Vec<&str> = limit.counters.iter().map(|counter| counter.source()).collect();
        all.push(match counters.as_slice() {
            [] => "one bucket for everybody".to_owned(),
            counters => format!("one bucket for each {}", counters.join(" and ")),
        });
        all.push(self.holds());
        let costs = limit.rates.iter().filter_map(|rate| Some((rate.unit, rate.cost.as_ref()?)));
        all.extend(costs.map(|(unit, cost)| format!("charges {} in {}", cost.source(), unit.name())));
        all.extend(limit.enforce_when.as_ref().map(|only| format!("refuses only if {}", only.source())));
        if let Boundary::Soft(signal) = &limit.boundary {
            all.push(format!("refuses nothing; once it is exceeded, {}", signal_text(signal)));
        }
        all.extend(warning_text(&limit.warn_at));
        all.extend(limit.caps_output.then(|| "caps the output of requests without a maximum".to_owned()));
        all.extend(
            (limit.overrun == Overrun::Cut)
                .then(|| "ends streams that outgrow their hold when there is no room".to_owned()),
        );
        all
    }

    fn holds(&self) -> String {
        let limit = self.limit;
        let counts_usage = limit.rates.iter().any(|rate| rate.unit.is_of_usage());
        let mut text = match &limit.amount {
            Some(amount) => format!("holds {}", amount.source()),
            None if counts_usage => "holds the estimate of each request".to_owned(),
            None => "holds 1 for each request".to_owned(),
        };
        if let Some(share) = limit.max_share {
            text.push_str(&format!(", at most {share} of the limit"));
        }
        if limit.on_lapse == OnLapse::Release {
            text.push_str(", released without a charge if it lapses");
        }
        if let Ttl::From(ttl) = &limit.ttl {
            text.push_str(&format!(", for {}", ttl.source()));
        }
        text
    }
}

fn policy_json(policy: &Policy) -> Value {
    let limit = |limit: &Limit| {
        let summary = LimitSummary { limit };
        json!({
            "name": limit.name,
            "when": limit.when.iter().map(|predicate| predicate.source().trim()).collect::<Vec<_>>(),
            "counters": limit.counters.iter().map(|counter| counter.source()).collect::<Vec<_>>(),
            "rates": limit.rates.iter().map(|rate| json!({
                "unit": rate.unit.name(),
                "limit": rate.max.fixed(),
                "limitFrom": match &rate.max { Maximum::From(from) => Some(from.source()), Maximum::Fixed(_) => None },
                "window": rate.window.entry().map(|(_, window)| window),
            })).collect::<Vec<_>>(),
            "warnAt": limit.warn_at.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "holds": summary.holds().trim_start_matches("holds "),
        })
    };
    json!({
        "policy": format!("{}/{}", policy.namespace, policy.name),
        "targets": policy.targets().map(|target| json!({
            "kind": kind(target), "name": target.name, "sectionName": target.section,
        })).collect::<Vec<_>>(),
        "when": policy.when.iter().map(|predicate| predicate.source().trim()).collect::<Vec<_>>(),
        "limits": policy.limits.iter().map(limit).collect::<Vec<_>>(),
    })
}
