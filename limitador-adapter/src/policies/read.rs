//! Reads one policy with the `policy` crate. Also rejects unknown time zones, because only the adapter knows
//! which time zones exist.

use crate::ledger::calendar;
use policy::model::{Policy, Window};
use policy::validation_error::ValidationError;
use serde_json::Value;

/// Reads a policy from a file.
pub fn policy(document: &Value) -> Result<Policy, Vec<ValidationError>> {
    Policy::read(document).and_then(checked)
}

/// Reads a policy from a cluster.
pub fn policy_in_cluster(document: &Value) -> Result<Policy, Vec<ValidationError>> {
    Policy::read_in_cluster(document).and_then(checked)
}

fn checked(policy: Policy) -> Result<Policy, Vec<ValidationError>> {
    let mut mistakes = Vec::new();
    for limit in &policy.limits {
        for (at, rate) in limit.rates.iter().enumerate() {
            if let Window::Period(_, zone) = &rate.window
                && let Some(message) = calendar::unknown_zone(zone)
            {
                let path = format!("{}.limits.{}.rates[{at}].timeZone", policy.block, limit.name);
                mistakes.push(ValidationError { path, message });
            }
        }
    }
    if mistakes.is_empty() { Ok(policy) } else { Err(mistakes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_time_zone_that_does_not_exist_is_told_with_its_path() {
        let spec = |zone: &str| {
            let rates =
                json!([{"limit": 1, "window": "1h"}, {"limit": 1, "period": "Day", "timeZone": zone}]);
            let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"});
            json!({
                "apiVersion": "weir.dev/v1alpha1",
                "kind": "TokenRateLimitPolicy",
                "metadata": {"name": "p"},
                "spec": {"targetRef": target, "defaults": {"limits": {"free": {"rates": rates}}}},
            })
        };
        assert!(policy(&spec("Europe/Berlin")).is_ok() && policy_in_cluster(&spec("UTC")).is_ok());
        let told: Vec<String> =
            policy(&spec("Europe/Berln")).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "spec.defaults.limits.free.rates[1].timeZone: `Europe/Berln` is not a time zone of the IANA database; did you mean \
              `Europe/Berlin`?"
            ]
        );
    }
}
