//! Fetches the facts of a request.

use crate::host;
use crate::shared::Shared;
use engine::config::IdentitySource;
use engine::exchange::ActivePlan;
use engine::metric::Metric;
use expression::facts::{Facts, Need};
use expression::identity::{self, IdentityError};

/// Fetches what is needed, and removes the identity's header from the request. `None` if no limit applies.
pub fn facts(shared: &Shared, in_force: &ActivePlan) -> Option<Facts> {
    let (mut facts, mut came) = (Facts::default(), None);
    remove_signals(shared, in_force, &mut facts);
    if let Some(IdentitySource::Header { name, .. }) = &shared.config.identity {
        facts.loses_header(name);
    }
    let concerned = in_force.rounds().iter().all(|round| {
        came = fetch(shared, round.needs(), &mut facts).or(came);
        round.is_open(&facts)
    });
    // Last: when a header is removed, Envoy selects the route again without it, even if there was no such
    // header.
    if let Some(IdentitySource::Header { name, .. }) = &shared.config.identity
        && came.unwrap_or_else(|| host::has_request_header(name))
    {
        host::remove_request_header(name);
    }
    concerned.then_some(facts)
}

/// Removes a client's own copies of the headers that soft limits set, before anything else can see them.
fn remove_signals(shared: &Shared, in_force: &ActivePlan, facts: &mut Facts) {
    let identity = match &shared.config.identity {
        Some(IdentitySource::Header { name, .. }) => Some(name),
        Some(IdentitySource::Metadata { .. }) | None => None,
    };
    // The identity's header is read and removed all the same.
    for name in in_force.signal_headers().iter().filter(|name| identity != Some(name)) {
        if host::has_request_header(name) {
            host::remove_request_header(name);
            // Envoy may have matched the route by it, and goes on naming that one until it matches again.
            facts.doubt_route();
        }
    }
}

/// Whether there is an identity, if it was needed.
fn fetch(shared: &Shared, needs: &[Need], facts: &mut Facts) -> Option<bool> {
    let mut came = None;
    for need in needs {
        match need {
            Need::Header(name) => {
                if let Some(value) = host::request_header(name) {
                    facts.header(name, &value);
                }
            }
            Need::Headers => {
                for (name, value) in host::request_headers() {
                    facts.header(&name, &value);
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

/// Reads the identity. True if one was given; an unreadable one counts as none, and in a metric.
fn identify(shared: &Shared, facts: &mut Facts) -> bool {
    let mut came = false;
    let found = match &shared.config.identity {
        None => Ok(None),
        // A repeated header is joined with a comma, which is invalid in either encoding: it would be unknown
        // which of the values the authentication filter wrote.
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
