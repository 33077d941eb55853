//! `/api/counters`: lists buckets, resets them, and grants additional amounts until a window ends.

use super::http::{CounterView, Pages, unavailable};
use super::live::Live;
use super::overview::top;
use super::search::SearchQuery;
use crate::ledger::moment::Moment;
use crate::ledger::{CounterReading, Grant, Granted, Key, Unavailable, key_text};
use crate::policies::snapshot::PolicySnapshot;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use llm::spelling::percent_decoded;
use policy::model::{Unit, Window};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

/// The number of buckets that are formatted at once.
const PART: usize = 128;

/// The maximum length of a grant's id in bytes.
const MAX_ID: usize = 256;

/// Selects buckets. An omitted field matches all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct CounterFilter {
    policy: Option<String>,
    limit: Option<String>,
    unit: Option<String>,
    /// `1h`, `Month`, or `Month-Europe/Berlin`.
    window: Option<String>,
    counters: BTreeMap<String, String>,
}

/// The body of a grant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GrantRequest {
    policy: String,
    limit: String,
    unit: String,
    window: Option<String>,
    #[serde(default)]
    counters: BTreeMap<String, String>,
    amount: u64,
    id: String,
}

/// Returns a window's name in the list of counters.
fn window_name(window: &Window) -> String {
    match window {
        Window::Period(period, zone) => zone.with_period(*period),
        Window::Fixed(_) | Window::Sliding(_) | Window::Now => window.to_string(),
    }
}

impl CounterFilter {
    fn matches(&self, key: &Key, in_force: &PolicySnapshot) -> bool {
        let (policy, limit) = in_force.names_of(key);
        let is =
            |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|wanted| wanted == value);
        let has = |(name, value): (&String, &String)| {
            !key.is_overflow() && key.counters.iter().any(|(of, is)| of == name && is == value)
        };
        is(&self.policy, policy)
            && is(&self.limit, limit)
            && is(&self.unit, key.unit.name())
            && self.window.as_ref().is_none_or(|wanted| *wanted == window_name(&key.window))
            && self.counters.iter().all(has)
    }
}

/// The parameters of a list.
#[derive(Debug, Default)]
struct ListQuery {
    filter: CounterFilter,
    /// Each `counter=NAME:VALUE` parameter. Both parts may contain colons.
    counters: Vec<String>,
    count: Option<usize>,
    after: Option<Position>,
    search: SearchQuery,
}

/// Where a page begins.
#[derive(Debug)]
enum Position {
    /// After this bucket, in the default order.
    After(Key),
    /// After this many buckets, in a sorted list.
    Skip(usize),
}

impl Position {
    fn parse(text: &str, is_sorted: bool) -> Result<Self, String> {
        if is_sorted {
            return text
                .parse()
                .map(Self::Skip)
                .map_err(|_| "after: must be a number in a sorted list".to_owned());
        }
        let key = key_text::parse(text).map(Self::After);
        key.ok_or_else(|| "after: must be the position in the Link header of the page before".to_owned())
    }
}

impl ListQuery {
    fn parse(query: &str) -> Result<Self, String> {
        let (mut list, mut after) = (Self::default(), None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = percent_decoded(value).into_owned();
            match name {
                "policy" => list.filter.policy = Some(value),
                "limit" => list.filter.limit = Some(value),
                "unit" => list.filter.unit = Some(value),
                "window" => list.filter.window = Some(value),
                "counter" if value.contains(':') => list.counters.push(value),
                "counter" => return Err("counter: must be NAME:VALUE".to_owned()),
                "count" => {
                    list.count = Some(value.parse().map_err(|_| "count: must be a number".to_owned())?)
                }
                "after" => after = Some(value),
                _ => match list.search.read(name, &value) {
                    Some(read) => read?,
                    None => return Err(format!("{name}: unknown parameter")),
                },
            }
        }
        list.after = after.map(|after| Position::parse(&after, list.search.is_sorted())).transpose()?;
        Ok(list)
    }

    fn matches(&self, key: &Key, in_force: &PolicySnapshot) -> bool {
        let has = |wanted: &String| {
            let is = |(name, value): &(String, String)| {
                wanted.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(':'))
                    == Some(value.as_str())
            };
            !key.is_overflow() && key.counters.iter().any(is)
        };
        self.filter.matches(key, in_force) && self.counters.iter().all(has)
    }

    /// Returns the page of these readings that the query names.
    fn page(&self, query: &str, readings: &[CounterReading], in_force: &PolicySnapshot) -> ListedPage {
        let matches = |reading: &&CounterReading| {
            self.matches(&reading.key, in_force) && self.search.matches(reading, in_force)
        };
        let found: Vec<&CounterReading> = readings.iter().filter(matches).collect();
        let total = found.len();
        let (page, last) =
            if self.search.is_sorted() { self.sorted(&found, in_force) } else { self.positioned(found) };
        let next = last.map(|last| self.next(query, &last));
        ListedPage { readings: page.into_iter().cloned().collect(), total, next }
    }

    /// Returns the buckets of the page in the default order. If others follow, also returns the last position.
    fn positioned<'a>(
        &self,
        mut found: Vec<&'a CounterReading>,
    ) -> (Vec<&'a CounterReading>, Option<String>) {
        if let Some(Position::After(key)) = &self.after {
            found.retain(|reading| *reading.key > *key);
        }
        let follow = found.len() > self.count();
        top(&mut found, self.count(), |a, b| a.key.cmp(&b.key));
        let last = found.last().filter(|_| follow).map(|reading| key_text::of(&reading.key));
        (found, last)
    }

    /// Returns the buckets of the page of a sorted list. Its positions are numbers, because amounts change
    /// between two calls.
    fn sorted<'a>(
        &self,
        found: &[&'a CounterReading],
        in_force: &PolicySnapshot,
    ) -> (Vec<&'a CounterReading>, Option<String>) {
        let skip = match self.after {
            Some(Position::Skip(number)) => number,
            Some(Position::After(_)) | None => 0,
        };
        let page = self.search.page(found, in_force, skip, self.count());
        let end = skip.saturating_add(page.len());
        let follow = !page.is_empty() && end < found.len();
        (page, follow.then(|| end.to_string()))
    }

    fn count(&self) -> usize {
        self.count.unwrap_or(usize::MAX)
    }

    /// Returns the query for the page that starts after this bucket.
    fn next(&self, query: &str, last: &str) -> String {
        let rest = query.split('&').filter(|part| !part.is_empty() && !part.starts_with("after="));
        rest.map(str::to_owned)
            .chain([format!("after={}", percent_encoded(last))])
            .collect::<Vec<_>>()
            .join("&")
    }
}

/// Describes a bucket in the audit log.
fn described(key: &Key) -> String {
    json!([*key.limit, key.unit.name(), window_name(&key.window), *key.counters]).to_string()
}

pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

/// The header with the number of buckets that match.
const TOTAL: HeaderName = HeaderName::from_static("x-total-count");

/// A page of the list.
struct ListedPage {
    readings: Vec<CounterReading>,
    /// The number of buckets that match, on all pages.
    total: usize,
    /// The query of the next page.
    next: Option<String>,
}

/// `GET /api/counters`.
pub(super) async fn list(State(pages): State<Pages>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let list = match ListQuery::parse(&query) {
        Ok(list) => list,
        Err(problem) => return bad_request(&problem),
    };
    let in_force = Arc::clone(&pages.in_force.borrow());
    let turn = match pages.live.turn().await {
        Ok(turn) => turn,
        Err(error) => return error.into_response(),
    };
    let (now, readings) = match pages.live.readings(list.search.max_age()).await {
        Ok(readings) => readings,
        Err(error) => return error.into_response(),
    };
    let of_list = Arc::clone(&in_force);
    let listed = Live::compute(move || list.page(&query, &readings, &of_list)).await;
    drop(turn);
    let ListedPage { readings, total, next } = match listed {
        Ok(listed) => listed,
        Err(error) => return error.into_response(),
    };
    let link = next.map(|next| format!("</api/counters?{next}>; rel=\"next\""));
    let link = link.and_then(|link| Some((header::LINK, HeaderValue::try_from(link).ok()?)));
    let since = pages.ledger.counting_since();
    let views = as_json(readings, move |reading| CounterView::new(reading, &in_force, since, now));
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = ([(TOTAL, total.to_string())], json, Body::from_stream(views)).into_response();
    response.headers_mut().extend(link);
    response
}

/// Formats a list as JSON, in parts that are computed when the caller has read those before. So a long list
/// takes neither memory nor much of this thread's time at once.
fn as_json<T, V: Serialize>(
    items: Vec<T>,
    view: impl Fn(&T) -> V,
) -> impl Stream<Item = Result<Vec<u8>, serde_json::Error>> {
    let parts = (0..items.len().max(1)).step_by(PART);
    stream::iter(parts).map(move |start| {
        let end = start.saturating_add(PART).min(items.len());
        let mut json = Vec::new();
        for (index, item) in items.iter().enumerate().take(end).skip(start) {
            json.push(if index == 0 { b'[' } else { b',' });
            serde_json::to_writer(&mut json, &view(item))?;
        }
        if end == items.len() {
            json.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
        }
        Ok(json)
    })
}

/// `POST /api/counters/reset`.
pub(super) async fn reset(State(pages): State<Pages>, body: Bytes) -> Response {
    let filter: CounterFilter = match serde_json::from_slice(&body) {
        Ok(filter) => filter,
        Err(error) => return bad_request(&error.to_string()),
    };
    let Some(policy) = filter.policy.clone() else {
        return bad_request("policy: is required, as NAMESPACE/NAME");
    };
    let now = Moment::now();
    match reset_matching(&pages, &filter, now).await {
        Ok(reset) => {
            for key in &reset {
                tracing::info!(target: AUDIT, bucket = described(key), "counter reset");
            }
            pages.audit.record(
                &policy,
                "CountersReset",
                &format!("an operator reset {} counters", reset.len()),
            );
            Json(json!({"reset": reset.len()})).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

async fn reset_matching(
    pages: &Pages,
    filter: &CounterFilter,
    now: Moment,
) -> Result<Vec<Arc<Key>>, Unavailable> {
    let in_force = Arc::clone(&pages.in_force.borrow());
    let readings = pages.ledger.readings(now).await?;
    let keys = readings.into_iter().map(|reading| reading.key).filter(|key| filter.matches(key, &in_force));
    let reset = pages.ledger.reset(keys.collect(), now).await?;
    pages.ledger.durable().await?;
    Ok(reset)
}

/// `POST /api/counters/grant`.
pub(super) async fn grant(State(pages): State<Pages>, body: Bytes) -> Response {
    let request: GrantRequest = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return bad_request(&error.to_string()),
    };
    let in_force = Arc::clone(&pages.in_force.borrow());
    let key = match request.key(&in_force) {
        Ok(key) => key,
        Err((status, problem)) => return (status, format!("{problem}\n")).into_response(),
    };
    let policy = request.policy.clone();
    let (now, since) = (Moment::now(), pages.ledger.counting_since());
    let grant = Grant { key: Arc::new(key), amount: request.amount, id: request.id };
    let quantity = grant.key.unit.quantity(grant.amount);
    let id = grant.id.clone();
    let granted = pages.ledger.grant(grant, now).await;
    // The caller may repeat the grant if it is not durable.
    let granted = match pages.ledger.durable().await {
        Ok(()) => granted,
        Err(error) => Err(error),
    };
    match granted {
        Ok(Granted { reading, is_repeated }) => {
            if !is_repeated {
                tracing::info!(target: AUDIT, bucket = described(&reading.key), amount = request.amount, id, "grant");
                let limit = &request.limit;
                pages.audit.record(
                    &policy,
                    "Granted",
                    &format!("an operator granted {quantity} to a counter of {limit}"),
                );
            }
            Json(CounterView::new(&reading, &in_force, since, now)).into_response()
        }
        Err(error) => unavailable(&error),
    }
}

impl GrantRequest {
    /// Finds the bucket to change.
    fn key(&self, in_force: &PolicySnapshot) -> Result<Key, (StatusCode, String)> {
        let bad = |problem: &str| (StatusCode::BAD_REQUEST, problem.to_owned());
        let missing = |problem: String| (StatusCode::NOT_FOUND, problem);
        if self.amount == 0 {
            return Err(bad("amount: must be at least 1"));
        }
        if self.id.is_empty() || self.id.len() > MAX_ID {
            return Err(bad(
                "id: must be 1 to 256 bytes long; a repeated grant with the same id changes nothing",
            ));
        }
        let unit = Unit::named(&self.unit).ok_or_else(|| bad("unit: unknown unit"))?;
        if unit == Unit::Concurrency {
            return Err(bad("unit: concurrency has no window, so nothing can be granted until it ends"));
        }
        let name = format!("{}/{}", self.policy, self.limit);
        let limit = in_force.limit(&name).ok_or_else(|| missing(format!("no limit {name} is in force")))?;
        let expressions = in_force.counters(&name);
        let given: Vec<&str> = self.counters.keys().map(String::as_str).collect();
        if given != expressions {
            return Err(bad(&format!("counters: must name [{}], as the limit does", expressions.join(", "))));
        }
        let is_wanted =
            |window: &Window| self.window.as_ref().is_none_or(|name| *name == window_name(window));
        let rates = limit.rates.iter().filter(|rate| rate.unit == unit && is_wanted(&rate.window));
        let windows: Vec<&Window> = rates.map(|rate| &rate.window).collect();
        let window = match windows.as_slice() {
            [] => return Err(missing(format!("{name} has no such rate"))),
            [window] => (*window).clone(),
            several => {
                let names: Vec<_> = several.iter().map(|window| window_name(window)).collect();
                return Err(bad(&format!("window: is required, one of {}", names.join(", "))));
            }
        };
        if matches!(window, Window::Sliding(_)) {
            return Err(bad(
                "window: a sliding window does not end, so nothing can be granted until it ends",
            ));
        }
        let counters = self.counters.iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Key { limit: Arc::clone(&limit.counted_as), unit, window, counters: counters.collect() })
    }
}

/// The target of audit log lines.
const AUDIT: &str = "limitador_adapter::audit";

fn bad_request(problem: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{problem}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn reading(who: &str) -> CounterReading {
        let counters = Arc::from([("auth.identity.userid".to_owned(), who.to_owned())]);
        let limit = "default/llm/free".into();
        let window = Window::Fixed(Duration::from_secs(3600));
        let key = Arc::new(Key { limit, unit: Unit::Tokens, window, counters });
        CounterReading { key, used: 1, held: 0, leased: 0, granted: 0, reset: None }
    }

    #[test]
    fn a_filter_matches_what_it_names() {
        let list = |query: &str| {
            ListQuery::parse(query).unwrap().matches(&reading("a:b c").key, &PolicySnapshot::default())
        };
        for query in [
            "",
            "policy=default%2Fllm&limit=free&unit=tokens&window=1h",
            "counter=auth.identity.userid:a:b%20c",
        ] {
            assert!(list(query), "{query}");
        }
        for query in [
            "policy=default/other",
            "limit=fre",
            "unit=requests",
            "window=1m",
            "counter=auth.identity.userid:a",
        ] {
            assert!(!list(query), "{query}");
        }
        for query in ["counter=a", "count=x", "what=1", "after=x", "sort=used&after=x"] {
            ListQuery::parse(query).unwrap_err();
        }
    }

    #[test]
    fn pages_follow_each_other() {
        let readings: Vec<_> = (0..100_u32).rev().map(|n| reading(&format!("u\u{e4}{n:02}"))).collect();
        let (mut query, mut seen) = ("count=7&policy=default/llm".to_owned(), Vec::new());
        loop {
            let list = ListQuery::parse(&query).unwrap();
            let page = list.page(&query, &readings, &PolicySnapshot::default());
            assert_eq!(page.total, 100);
            seen.extend(page.readings);
            match page.next {
                Some(next) => query = next,
                None => break,
            }
        }
        assert_eq!(seen, readings.into_iter().rev().collect::<Vec<_>>());
    }

    #[test]
    fn a_list_in_parts_is_the_list() {
        for length in [0, 1, 127, 128, 129, 1000] {
            let items: Vec<u32> = (0..length).collect();
            let parts = stream::StreamExt::collect::<Vec<_>>(as_json(items.clone(), |item| *item));
            let parts = futures::FutureExt::now_or_never(parts).unwrap();
            let json: Vec<u8> = parts.into_iter().flat_map(Result::unwrap).collect();
            assert_eq!(json, serde_json::to_vec(&items).unwrap());
        }
    }
}
