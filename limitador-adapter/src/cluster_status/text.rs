//! The status for people.

use super::problem::short;
use super::{ClusterStatus, GatewayStatus, InstallStatus};
use std::fmt;

impl fmt::Display for ClusterStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "Adapters", self.installs.iter().map(install))?;
        section(f, "Gateways", self.gateways.iter().map(gateway))?;
        let enforced = self.policies.iter().filter(|policy| policy.enforced == Some(true)).count();
        writeln!(f, "Policies: {}, {enforced} of them enforced", self.policies.len())?;
        if self.problems.is_empty() {
            return writeln!(f, "\nEverything is in order.");
        }
        writeln!(f, "\nProblems:")?;
        for (index, problem) in self.problems.iter().enumerate() {
            writeln!(f, "{:>3}. {}: {}", index + 1, line(&problem.object), line(&problem.message))?;
            writeln!(f, "     next: {}", line(&problem.next))?;
        }
        Ok(())
    }
}

fn section(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: impl ExactSizeIterator<Item = String>,
) -> fmt::Result {
    if lines.len() == 0 {
        return writeln!(f, "{title}: none");
    }
    writeln!(f, "{title}:")?;
    lines.into_iter().try_for_each(|text| writeln!(f, "  {}", line(&text)))
}

fn install(install: &InstallStatus) -> String {
    let InstallStatus { deployment, image, ready, replicas, module } = install;
    let module =
        module.as_deref().map_or_else(|| "module unknown".to_owned(), |it| format!("module {}", short(it)));
    format!("{deployment}: {ready} of {replicas} ready, {module}, {image}")
}

fn gateway(gateway: &GatewayStatus) -> String {
    let filters: Vec<_> = gateway
        .filters
        .iter()
        .map(|filter| format!("module {} ({} {})", short(&filter.module), filter.kind, filter.object))
        .collect();
    let filters = if filters.is_empty() { "no filter".to_owned() } else { filters.join(", ") };
    let policies =
        if gateway.policies == 1 { "1 policy".to_owned() } else { format!("{} policies", gateway.policies) };
    format!("{} ({}): {filters}, {policies}", gateway.gateway, gateway.class)
}

/// Reduces a text of an object to one line without control characters.
fn line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
