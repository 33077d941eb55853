//! Selects the facts that an exchange keeps after it was judged: only those that its expressions use. Most
//! other facts are arbitrary data from the client.

use super::Facts;
use super::body::{POINTED, pointer};
use super::needs::{Need, needs_of};
use crate::cel::FactPath;
use llm::tree;
use serde_json::{Map, Value};

/// The size of a string in a map or list, without its text.
const ITEM: usize = 64;

impl Facts {
    /// The maximum size of the facts in bytes.
    pub fn size(&self) -> usize {
        let texts = self.headers.iter().map(|(name, value)| name.len().saturating_add(value.len()));
        let properties = self.properties.iter().map(|(_, value)| match value {
            super::Property::Text(text) => text.len(),
            _ => 0,
        });
        let failures = self.failures.keys().map(String::len);
        let headers = self.answer.iter().flat_map(|answer| answer.headers.iter());
        let headers = headers.map(|(name, value)| name.len().saturating_add(value.len()));
        let all = texts.chain(properties).chain(failures).chain(headers);
        let trees = [
            self.route_name.as_ref().map_or(0, String::len),
            self.spelled.as_ref().map_or(0, |spelled| spelled.size()),
            self.metadata.as_ref().map_or(0, tree::map_size),
            tree::map_size(&self.filter_state),
            self.auth.as_ref().map_or(0, tree::size),
            self.body.as_ref().map_or(0, |body| body.size()),
            self.answer.as_ref().map_or(0, |answer| size_of_val(&**answer)),
        ];
        all.map(|text| text.saturating_add(2 * ITEM))
            .chain(trees)
            .fold(size_of::<Self>(), usize::saturating_add)
    }

    /// Drops every fact that is not `named`.
    pub fn keep(&mut self, named: &[&FactPath]) {
        let mut needs: Vec<Need> = named.iter().flat_map(|path| needs_of(path)).collect();
        if needs.contains(&Need::Failures) {
            // Failures are counted by model, which the path may name.
            needs.push(Need::Header(":path".to_owned()));
        }
        let all_headers = needs.contains(&Need::Headers);
        let is_needed = |name: &str| needs.iter().any(|need| matches!(need, Need::Header(n) if n == name));
        self.headers.retain(|name| all_headers || is_needed(name));
        if let Some(spelled) = &mut self.spelled {
            // Without the original header, the normalised value is not needed.
            spelled.path.take_if(|_| !self.headers.contains(":path"));
            spelled.host.take_if(|_| !self.headers.contains(":authority"));
        }
        self.properties.retain(|(attribute, _)| {
            let is_this = |path: &Vec<String>| path.iter().eq([attribute.root, attribute.name]);
            needs.iter().any(|need| matches!(need, Need::Property(path) if is_this(path)))
        });
        self.route_name = None;
        if let Some(model) = needs.contains(&Need::Failures).then(|| self.model().unwrap_or_default()) {
            self.failures.retain(|known, _| *known == model);
        } else {
            self.failures.clear();
        }
        let of = |roots: &[&str]| -> Vec<&[String]> {
            named.iter().filter_map(|path| below(path, roots)).collect()
        };
        let mut auth = of(&["request", "auth"]);
        auth.extend(of(&["auth"]));
        self.auth = self.auth.take().and_then(|value| pruned(value, &auth));
        let metadata = of(&["metadata", "filter_metadata"]);
        self.metadata = self.metadata.take().map(|fields| pruned_fields(fields, &metadata));
        let states = of(&["filter_state"]);
        self.filter_state = pruned_fields(std::mem::take(&mut self.filter_state), &states);
        if let Some(body) = &mut self.body {
            body.keep(named);
        }
    }
}

impl super::Spelled {
    fn size(&self) -> usize {
        let path = self.path.as_ref().map_or(0, |(path, _)| path.len());
        let host = self.host.as_ref().map_or(0, String::len);
        size_of::<Self>().saturating_add(path).saturating_add(host)
    }
}

impl super::BodyFacts {
    fn size(&self) -> usize {
        let route = &self.body().route;
        let texts =
            [&self.body().model, &self.body().user, &self.body().session, &route.model, &route.query_model];
        let texts = texts.map(|text| text.as_ref().map_or(0, String::len));
        let pointed = self.pointed.iter().map(|(pointer, value)| {
            let value = value.as_ref().map_or(0, tree::size);
            ITEM.saturating_add(pointer.len()).saturating_add(value)
        });
        texts.into_iter().chain(pointed).fold(size_of::<Self>(), usize::saturating_add)
    }

    fn keep(&mut self, named: &[&FactPath]) {
        self.pointed.retain_mut(|(here, value)| {
            let of_this = named.iter().filter(|path| pointer(POINTED, path) == Some(here));
            // `llm.metadata` has parts; `requestBodyJSON` has none.
            let parts: Vec<&[String]> =
                of_this.map(|path| below(path, &["llm", "metadata"]).unwrap_or_default()).collect();
            *value = value.take().and_then(|value| pruned(value, &parts));
            !parts.is_empty()
        });
    }
}

/// Returns the rest of the path, if it begins with these parts.
fn below<'p>(path: &'p FactPath, roots: &[&str]) -> Option<&'p [String]> {
    let (begin, rest) = path.split_at_checked(roots.len())?;
    begin.iter().eq(roots).then_some(rest)
}

/// Removes the parts that no path leads to. Keeps a value without parts, because an error may name its type.
fn pruned(value: Value, paths: &[&[String]]) -> Option<Value> {
    if paths.is_empty() {
        return None;
    }
    if paths.iter().any(|path| path.is_empty()) {
        return Some(value);
    }
    Some(match value {
        Value::Object(fields) => Value::Object(pruned_fields(fields, paths)),
        Value::Array(_) => Value::Array(Vec::new()),
        Value::String(_) => Value::String(String::new()),
        other => other,
    })
}

fn pruned_fields(fields: Map<String, Value>, paths: &[&[String]]) -> Map<String, Value> {
    if paths.iter().any(|path| path.is_empty()) {
        return fields;
    }
    let mut kept = Map::new();
    for (name, value) in fields {
        let below = paths.iter().filter_map(|path| path.split_first());
        let further: Vec<&[String]> =
            below.filter(|(first, _)| **first == name).map(|(_, rest)| rest).collect();
        if let Some(value) = pruned(value, &further) {
            kept.insert(name, value);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{Expression, Phase, ResultType};
    use crate::facts::ResponseFacts;
    use llm::request::{self, Extent};
    use serde_json::json;

    fn facts() -> Facts {
        let mut facts = Facts::default();
        for (name, value) in [
            (":path", "/v1//chat/completions/?a"),
            (":authority", "LLM.example:80"),
            ("x-tenant", "blue"),
            ("x-long", &"x".repeat(10_000)),
            ("content-length", "7"),
        ] {
            facts.header(name, value.as_bytes());
        }
        facts.property(&["source".to_owned(), "address".to_owned()], b"192.0.2.1:443");
        facts.property(&["filter_state".to_owned(), "a".to_owned()], b"state");
        facts.auth(json!({"identity": {"userid": "alice", "groups": ["a", "b"], "deep": {"er": {"x": 1}}}}));
        facts.estimate(7, 8);
        facts.failures([("m".to_owned(), 3), ("other".to_owned(), 4)].into_iter().collect());
        let text = br#"{"model":"m","messages":[],"metadata":{"team":"red","rest":[1,2]},"n":{"o":2}}"#;
        let read = request::read("/v1/chat/completions", "application/json", text, Extent::Whole);
        facts.body(read, text, &["/metadata".to_owned(), "/n".to_owned()]);
        facts.answer(ResponseFacts { code: 200, ..ResponseFacts::default() });
        facts
    }

    #[test]
    fn an_expression_says_the_same_with_the_facts_that_it_names_alone() {
        for source in [
            "request.headers['x-tenant']",
            "request.url_path + request.query",
            "request.host",
            "size(request.headers) > 1 ? 'many' : 'few'",
            "auth.identity.userid",
            "request.auth.identity.userid",
            "auth.identity.groups.exists(g, g == 'b') ? 'in' : 'out'",
            "has(auth.identity.deep.er) ? 'deep' : 'flat'",
            "has(auth.identity.nobody) ? 'some' : 'none'",
            "auth.identity.userid.x",
            "auth.identity.groups.x",
            "auth.identity.nobody",
            "source.remote_address",
            "filter_state['a']",
            "llm.model",
            "llm.metadata.team",
            "llm.metadata.exists(key, key == 'rest') ? 'rest' : 'none'",
            "requestBodyJSON('/n').o == 2 ? 'two' : 'other'",
            "upstream.failuresLastMinute == 3 ? 'three' : 'other'",
            "response.code == 200 ? 'ok' : 'not'",
            "llm.estimate.total == 15 ? 'yes' : 'no'",
            "metadata.filter_metadata.x.y",
        ] {
            let expression = Expression::compile(source, Phase::Response, ResultType::Text).unwrap();
            let (whole, mut kept) = (facts(), facts());
            let named: Vec<&FactPath> = expression.references().iter().collect();
            kept.keep(&named);
            assert_eq!(expression.counter(&kept), expression.counter(&whole), "{source}");
            assert!(kept.size() <= whole.size());
        }
    }

    #[test]
    fn what_nobody_names_is_forgotten() {
        let mut facts = facts();
        assert!(facts.size() > 10_000);
        facts.keep(&[]);
        assert!(facts.size() < 2000, "{}", facts.size());
    }
}
