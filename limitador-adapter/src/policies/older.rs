//! Converts a placement for filters of the previous version, which do not know that a rule may be in doubt.
//! They would let such a rule take requests away from other routes' policies. So the policies that these
//! filters cannot place apply everywhere: in doubt, the limit applies.

use protocol::wire::weir::v1::{Match, Placement, Rule, r#match::Path};

/// Returns the placement without `in_doubt`, `regexes_last`, `gateways` and `methods_are_headers`.
pub fn placement(placement: Placement) -> Placement {
    let Placement { mut everywhere, listeners, rules, regexes_last, gateways, methods_are_headers } =
        placement;
    for gateway in gateways {
        everywhere.extend(gateway.everywhere);
        everywhere.extend(gateway.listeners.into_iter().flat_map(|listener| listener.policies));
        everywhere.extend(gateway.rules.into_iter().flat_map(|rule| rule.policies));
    }
    let is_regex = |found: &Match| matches!(found.path, Some(Path::Regex(_)));
    // Older filters would assign these matches' requests to a match with a method.
    let is_ahead_of_methods = |found: &Match| {
        let is_longer =
            matches!(&found.path, Some(Path::Prefix(path)) if path.len() > 1 && path.ends_with('/'));
        is_longer || !found.headers.is_empty()
    };
    let is_unclear = |rule: &Rule| {
        let matches = &rule.matches;
        rule.in_doubt
            || regexes_last && matches.iter().any(is_regex)
            || methods_are_headers && matches.iter().any(is_ahead_of_methods)
    };
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
    use protocol::wire::weir::v1::{Field, Listener, field};

    fn rule(path: Path, policy: u32, in_doubt: bool) -> Rule {
        let matches = vec![Match { path: Some(path), ..Match::default() }];
        Rule { matches, policies: vec![policy], in_doubt, ..Rule::default() }
    }

    /// Evaluates the placement like a filter that does not know these fields.
    fn found(placement: Placement, path: &str) -> Vec<usize> {
        let mut placement =
            Placement { regexes_last: false, gateways: Vec::new(), methods_are_headers: false, ..placement };
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

        let mut with_header = rule(Path::Prefix("/v1".into()), 0, false);
        with_header.matches[0]
            .headers
            .push(Field { name: ":path".into(), value: Some(field::Value::Exact(chat.into())) });
        let mut with_method = rule(Path::Prefix("/v1".into()), 1, false);
        with_method.matches[0].method = "POST".into();
        let as_headers = Placement {
            rules: vec![with_header, with_method],
            methods_are_headers: true,
            ..Placement::default()
        };
        assert_eq!(found(as_headers.clone(), chat), [1], "this is why");
        assert_eq!(found(placement(as_headers), chat), [0, 1]);

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
