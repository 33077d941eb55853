//! What policies may say and the ledger cannot count yet: refused by name when a policy is loaded.

use policy::mistake::Mistake;
use policy::model::{Policy, Window};

/// One mistake for each rate that cannot be counted.
pub fn lacking(policy: &Policy) -> Vec<Mistake> {
    let rates = policy.limits.iter().flat_map(|limit| {
        limit
            .rates
            .iter()
            .enumerate()
            .map(move |(at, rate)| (format!("spec.limits.{}.rates[{at}]", limit.name), rate))
    });
    let told = rates.filter_map(|(path, rate)| match rate.window {
        Window::Fixed(_) => None,
        Window::Period(_) => Some((format!("{path}.period"), "`period`")),
        Window::Now => Some((format!("{path}.unit"), "`concurrency`")),
    });
    told.map(|(path, what)| Mistake { path, message: format!("{what} is not supported yet") }).collect()
}
