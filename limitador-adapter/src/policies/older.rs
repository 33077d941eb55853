//! A placement for filters of the version before, which do not know that a rule may be in doubt. They would let it take requests
//! away from other routes' policies. What they cannot be told applies everywhere: too much rather than nothing.

use protocol::wire::weir::v1::{Match, Placement, Rule, r#match::Path};

/// The same placement without in_doubt, regexes_last and gateways.
pub fn placement(placement: Placement) -> Placement {
    let Placement { mut everywhere, listeners, rules, regexes_last, gateways } = placement;
    for gateway in gateways {
        everywhere.extend(gateway.everywhere);
        everywhere.extend(gateway.listeners.into_iter().flat_map(|listener| listener.policies));
        everywhere.extend(gateway.rules.into_iter().flat_map(|rule| rule.policies));
    }
    let is_regex = |found: &Match| matches!(found.path, Some(Path::Regex(_)));
    let is_unclear = |rule: &Rule| rule.in_doubt || regexes_last && rule.matches.iter().any(is_regex);
    let (unclear, rules): (Vec<_>, Vec<_>) = rules.into_iter().partition(is_unclear);
    everywhere.extend(unclear.into_iter().flat_map(|rule| rule.policies));
    everywhere.sort_unstable();
    everywhere.dedup();
    Placement { everywhere, listeners, rules, ..Placement::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expression::facts::Facts;
    use policy::routes::Routes;
    use protocol::wire::weir::v1::Listener;

    fn rule(path: Path, policy: u32, in_doubt: bool) -> Rule {
        let matches = vec![Match { path: Some(path), ..Match::default() }];
        Rule { matches, policies: vec![policy], in_doubt, ..Rule::default() }
    }

    /// As a filter reads it that does not know these fields.
    fn found(placement: Placement, path: &str) -> Vec<usize> {
        let mut placement = Placement { regexes_last: false, gateways: Vec::new(), ..placement };
        placement.rules.iter_mut().for_each(|rule| rule.in_doubt = false);
        let routes = Routes::compile(&placement, 10).unwrap();
        let mut facts = Facts::default();
        for (name, value) in [(":method", "POST"), (":authority", "h"), (":path", path)] {
            facts.header(name, value.as_bytes());
        }
        routes.find(&facts)
    }

    #[test]
    fn a_filter_of_the_version_before_fails_closed() {
        let chat = "/v1/chat/completions";
        let in_doubt = Placement {
            rules: vec![rule(Path::Prefix("/v1".into()), 0, false), rule(Path::Exact(chat.into()), 1, true)],
            ..Placement::default()
        };
        assert_eq!(found(in_doubt.clone(), chat), [1], "this is why");
        assert_eq!(found(placement(in_doubt), chat), [0, 1]);

        let regexes_last = Placement {
            rules: vec![
                rule(Path::Regex("/v1/.*".into()), 0, false),
                rule(Path::Prefix("/v1".into()), 1, false),
            ],
            regexes_last: true,
            ..Placement::default()
        };
        assert_eq!(found(placement(regexes_last), chat), [0, 1]);

        let listener = Listener { policies: vec![2], ..Listener::default() };
        let gateway = Placement {
            everywhere: vec![3],
            listeners: vec![listener],
            rules: vec![rule(Path::Prefix("/else".into()), 4, false)],
            ..Placement::default()
        };
        let several = Placement { gateways: vec![gateway], ..Placement::default() };
        assert_eq!(found(several.clone(), chat), [] as [usize; 0], "this is why");
        assert_eq!(found(placement(several), chat), [2, 3, 4]);
    }
}
