//! Fetches the facts of a request.

use crate::host;
use crate::shared::Shared;
use engine::config::IdentitySource;
use engine::exchange::ActivePlan;
use engine::metric::Metric;
use engine::usage::UsageQuestion;
use expression::facts::{Facts, Need};
use expression::identity::{self, IdentityError};
use policy::plan::Plan;

/// Returned if the request asks for the caller's usage.
pub struct AsksForUsage;

/// Fetches the facts that the plan needs, and removes the identity header from the request. Returns `None` if
/// no limit applies.
pub fn facts(shared: &Shared, in_force: &ActivePlan) -> Result<Option<Facts>, AsksForUsage> {
    let (mut facts, mut came) = (own_facts(shared), None);
    remove_signals(shared, in_force, &mut facts);
    let mut rounds = in_force.rounds().iter();
    let first = rounds.next();
    if let Some(round) = first {
        came = fetch(shared, round.needs(), &mut facts, None);
    }
    if let Some(path) = &shared.config.usage_path {
        // Nearly every plan needs the path in the first round.
        if facts.path().is_none()
            && let Some(target) = host::request_header(":path")
        {
            facts.header(":path", &target);
        }
        if path.is(&facts) {
            return Err(AsksForUsage);
        }
    }
    let concerned = first.is_none_or(|round| round.is_open(&facts))
        && rounds.all(|round| {
            came = fetch(shared, round.needs(), &mut facts, None).or(came);
            round.is_open(&facts)
        });
    if concerned
        && let Some(name) = facts.hiding_header().filter(|name| facts.fetched_header(name).is_empty())
        && let Some(value) = host::request_header(name)
    {
        facts.header(name, &value);
    }
    // This comes last, because Envoy selects the route again when a header is removed, even if there was no
    // such header.
    if let Some(IdentitySource::Header { name, .. }) = &shared.config.identity
        && came.unwrap_or_else(|| host::has_request_header(name))
    {
        host::remove_request_header(name);
    }
    Ok(concerned.then_some(facts))
}

/// Removes a client's copies of the headers that soft limits set, so that nothing else sees them.
fn remove_signals(shared: &Shared, in_force: &ActivePlan, facts: &mut Facts) {
    let identity = match &shared.config.identity {
        Some(IdentitySource::Header { name, .. }) => Some(name),
        Some(IdentitySource::Metadata { .. }) | None => None,
    };
    // The identity header is read and removed elsewhere.
    for name in in_force.signal_headers().iter().filter(|name| identity != Some(name)) {
        if host::has_request_header(name) {
            host::remove_request_header(name);
            // Envoy may have matched the route by this header, and reports that route until it matches again.
            facts.doubt_route();
        }
    }
}

/// The facts of the request that a question about usage describes. `None` if the caller must be identified, and is not.
pub fn described_facts(shared: &Shared, plan: &Plan, question: &UsageQuestion) -> Option<Facts> {
    let mut facts = own_facts(shared);
    fetch(shared, question.needs(plan), &mut facts, Some(question));
    if shared.config.identity.is_some() && !plan.needs().contains(&Need::Identity) {
        identify(shared, &mut facts);
    }
    (shared.config.identity.is_none() || facts.is_identified()).then_some(facts)
}

fn own_facts(shared: &Shared) -> Facts {
    let mut facts = Facts::default();
    if let Some(IdentitySource::Header { name, .. }) = &shared.config.identity {
        facts.loses_header(name);
    }
    facts
}

/// Fetches these facts. Returns whether there is an identity, if it was needed. The headers of `described`
/// replace those of the request.
fn fetch<'n>(
    shared: &Shared,
    needs: impl IntoIterator<Item = &'n Need>,
    facts: &mut Facts,
    described: Option<&UsageQuestion>,
) -> Option<bool> {
    let mut came = None;
    let instead = |name: &str| described.and_then(|question| question.header(name));
    for need in needs {
        match need {
            Need::Header(name) => {
                let value = match instead(name) {
                    Some(value) => value.map(|value| value.as_bytes().to_vec()),
                    None => host::request_header(name),
                };
                if let Some(value) = value {
                    facts.header(name, &value);
                }
            }
            Need::Headers => {
                for (name, value) in host::request_headers() {
                    if instead(&name).is_none() {
                        facts.header(&name, &value);
                    }
                }
                for (name, value) in described.iter().flat_map(|question| question.headers()) {
                    value.iter().for_each(|value| facts.header(name, value.as_bytes()));
                }
            }
            Need::Property(path) => {
                if let Some(value) = host::property(path.iter().map(String::as_str).collect()) {
                    facts.property(path, &value);
                }
            }
            Need::Identity => came = Some(identify(shared, facts)),
            Need::Failures => facts.failures(shared.health.borrow_mut().counts(shared.now())),
        }
    }
    came
}

/// Reads the identity. Returns true if the request has one. An unreadable identity is treated as absent, and
/// counted in a metric.
fn identify(shared: &Shared, facts: &mut Facts) -> bool {
    let mut came = false;
    let found = match &shared.config.identity {
        None => Ok(None),
        // Repeated headers are joined with a comma, which is invalid in either encoding. This rejects them,
        // because it is unknown which value the authentication filter wrote.
        Some(IdentitySource::Header { name, encoding }) => {
            let value = host::request_header(name);
            came = value.is_some();
            value.map(|value| identity::from_header(&value, *encoding)).transpose()
        }
        Some(IdentitySource::Metadata { namespace, key }) => host::property(vec!["metadata"])
            .map_or(Ok(None), |message| identity::from_metadata(&message, namespace, key.as_deref())),
    };
    match found {
        Ok(Some(auth)) => facts.auth(auth),
        Ok(None) => {}
        Err(error) => {
            if error == IdentityError::TooLarge {
                facts.auth_too_large();
            }
            shared.metrics.count(&Metric::Unidentified(error));
        }
    }
    came
}
