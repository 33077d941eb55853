//! Warns about expressions that use a part of `auth` that is probably misspelt. Other filters may add any
//! fields to `auth`, so these are warnings instead of errors.

use expression::cel::Expression;
use expression::suggest::nearest;

/// Returns a warning for each such part.
pub(super) fn warnings(expression: &Expression) -> impl Iterator<Item = String> {
    expression.references().iter().filter_map(|fact| {
        let names: Vec<&str> = fact.iter().map(String::as_str).collect();
        let (root, name) = match names.as_slice() {
            ["auth", name, ..] => ("auth", *name),
            ["request", "auth", name, ..] => ("request.auth", *name),
            _ => return None,
        };
        let meant = nearest(name, ["identity"]).filter(|meant| *meant != name)?;
        Some(format!(
            "`{root}.{name}` is always absent, unless a filter in front sets it; did you mean `{root}.{meant}`?"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::warnings;
    use crate::model::Policy;
    use expression::cel::{Expression, Phase, ResultType};
    use serde_json::json;

    #[test]
    fn a_name_close_to_identity_is_probably_misspelt() {
        let warned = |source: &str| {
            let expression = Expression::compile(source, Phase::Request, ResultType::Predicate).unwrap();
            warnings(&expression).collect::<Vec<_>>()
        };
        assert_eq!(
            warned("auth.identty.role == 'x'"),
            [
                "`auth.identty` is always absent, unless a filter in front sets it; did you mean `auth.identity`?"
            ]
        );
        assert_eq!(warned("!has(request.auth.Identity.role)").len(), 1);
        for right in ["auth.identity.role == 'x'", "auth.authorization.opa == 'x'", "request.method == 'GET'"]
        {
            assert!(warned(right).is_empty(), "{right}");
        }
    }

    #[test]
    fn every_expression_of_a_policy_is_checked() {
        let (is_gold, number) = ("auth.identty.plan == 'gold'", "auth.identty.number");
        let limit = json!({
            "when": [{ "predicate": is_gold }],
            "counters": [{ "expression": "auth.identity.userid" }, { "expression": "auth.identty.team" }],
            "enforceWhen": is_gold,
            "reservation": { "amount": number, "ttl": number },
            "rates": [{ "limitFrom": number, "window": "1h", "cost": number }],
        });
        let document = json!({
            "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": { "name": "llm" },
            "spec": {
                "targetRef": { "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "llm" },
                "when": [{ "predicate": is_gold }],
                "onExceeded": { "body": "auth.identty.name" },
                "limits": { "a": limit },
            },
        });
        let warnings = Policy::read(&document).unwrap().warnings();
        let misspelt = warnings.iter().filter(|warning| warning.message.contains("auth.identty"));
        let mut paths: Vec<&str> = misspelt.map(|warning| warning.path.as_str()).collect();
        paths.sort_unstable();
        assert_eq!(
            paths,
            [
                "spec.limits.a.counters[1].expression",
                "spec.limits.a.enforceWhen",
                "spec.limits.a.rates[0].cost",
                "spec.limits.a.rates[0].limitFrom",
                "spec.limits.a.reservation.amount",
                "spec.limits.a.reservation.ttl",
                "spec.limits.a.when[0].predicate",
                "spec.onExceeded.body",
                "spec.when[0].predicate",
            ]
        );
    }
}
