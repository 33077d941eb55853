//! A policy for Kuadrant has the same meaning in Weir.

use policy::model::{DEFAULT_TTL, FailureMode, Policy, TargetKind, Ttl, Unit, Window};
use std::time::Duration;

#[test]
fn the_announced_policy_is_read_as_it_is() {
    let yaml = include_str!("../../../examples/kuadrant/policy.yaml");
    let policy = Policy::read(&serde_saphyr::from_str(yaml).expect("YAML")).expect("a policy");

    assert_eq!((policy.namespace.as_str(), policy.name.as_str()), ("default", "llm-token-limits"));
    assert_eq!((policy.target.kind, policy.target.name.as_str()), (TargetKind::Gateway, "api-gateway"));
    assert_eq!(policy.when.len(), 0);
    assert_eq!(policy.failure_mode, FailureMode::Allow);
    let names: Vec<_> = policy.limits.iter().map(|limit| limit.name.as_str()).collect();
    assert_eq!(names, ["free", "gold"]);
    for (limit, max) in policy.limits.iter().zip([20_000, 200_000]) {
        assert_eq!(limit.rates.len(), 1);
        assert_eq!(limit.rates[0].max.fixed(), Some(max));
        assert_eq!(limit.rates[0].unit, Unit::Tokens);
        assert_eq!(limit.rates[0].window, Window::Fixed(Duration::from_secs(24 * 60 * 60)));
        assert_eq!(limit.rates[0].window.entry(), Some(("window", "86400s".into())));
        let sources: Vec<_> = limit.when.iter().map(|predicate| predicate.source()).collect();
        assert_eq!(sources[0], r#"request.path == "/v1/chat/completions""#);
        assert!(sources[1].ends_with(&format!(r#".exists(g, g == "{}")"#, limit.name)), "{}", sources[1]);
        let counters: Vec<_> = limit.counters.iter().map(|counter| counter.source()).collect();
        assert_eq!(counters, ["auth.identity.userid"]);
        assert!(limit.amount.is_none());
        assert!(matches!(limit.ttl, Ttl::Fixed(DEFAULT_TTL)));
    }
}
