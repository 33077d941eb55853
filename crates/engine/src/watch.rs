//! Decides when to ask the adapter for its plan, and whether to accept a reply. Times are milliseconds of any
//! clock that does not run backwards.

use crate::backoff::Backoff;
use policy::model::Policy;
use policy::plan::BodyAccess;
use policy::plan::Plan;
use policy::routes::Routes;
use policy::validation_error::ValidationError;
use prost::Message;
use protocol::call::CallFailure;
use protocol::wire::weir::v1::{GetPlanRequest, GetPlanResponse};
use std::time::Duration;

/// The timeout of a poll. The adapter holds a poll without news for 30 s.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// The minimum interval between two polls if the first one returned a new version.
const BETWEEN_NEWS: u64 = 50;
/// The minimum interval after a poll that returned no new version, so that an adapter that does not hold
/// polls is not flooded.
const BETWEEN_OLDS: u64 = 1_000;

/// While a policy change propagates, the adapters behind one address have different plans. An adapter that
/// has the filter's current plan holds the poll. An adapter that replies at once with a plan that the filter
/// has already replaced may be outdated. So the filter returns to such a plan only after this many such
/// replies in a row. By then, no adapter has the newer plan: the change was reverted.
const RETURN_ANSWERS: u32 = 8;
/// The pause between these polls.
const BETWEEN_RETURNS: u64 = 100;
/// An adapter that took longer than this to reply had the filter's plan until then, so its reply is a new
/// change.
const AT_ONCE: u64 = 1_000;
/// The maximum number of replaced plans to remember.
const MAX_LEFT: usize = 4;

#[derive(Debug)]
pub struct Watch {
    gateway: String,
    /// The last version seen, whether or not it could be compiled.
    version: String,
    /// The replaced versions, the latest last.
    left: Vec<String>,
    /// How many replies in a row named a replaced version.
    returns: u32,
    headers_alone: bool,
    state: WatchState,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug)]
enum WatchState {
    Due(u64),
    AskedAt(u64),
}

impl Watch {
    /// Polls at once. `seed` differs between VMs, so that they do not all poll at the same moment.
    pub fn new(gateway: &str, seed: u128) -> Self {
        let gateway = gateway.to_owned();
        let (state, backoff) = (WatchState::Due(0), Backoff::default().with_jitter(seed));
        let (version, left, returns) = (String::new(), Vec::new(), 0);
        Self { gateway, version, left, returns, headers_alone: false, state, backoff }
    }

    /// Sets which parts of requests the filter can read.
    pub fn with_body(self, access: BodyAccess) -> Self {
        Self { headers_alone: matches!(access, BodyAccess::None), ..self }
    }

    /// The name under which VMs that poll the same adapters share a reply. A release that understands more of
    /// a plan than the previous one must change the number. Envoy allows any name for a cluster, so the
    /// cluster's name comes last, after a character that no gateway's name contains.
    pub fn shared_name(&self, cluster: &str) -> String {
        format!("weir.plan.2.{}.{} {cluster}", self.headers_alone, self.gateway)
    }

    /// Takes over a reply that another VM received. It applies until the next one.
    pub fn resume(&mut self, kept: &[u8]) -> Option<GetPlanResponse> {
        let answer = GetPlanResponse::decode(kept).ok().filter(|answer| !answer.version.is_empty())?;
        self.take(&answer.version);
        Some(answer)
    }

    /// The next poll, if it is due.
    pub fn ask(&mut self, now: u64) -> Option<Vec<u8>> {
        self.wake_at().filter(|due| *due <= now)?;
        self.state = WatchState::AskedAt(now);
        let (gateway, version) = (self.gateway.clone(), self.version.clone());
        let question =
            GetPlanRequest { gateway, version, headers_alone: self.headers_alone, knows_doubt: true };
        Some(question.encode_to_vec())
    }

    /// Returns when to poll next, if no poll is in progress.
    pub fn wake_at(&self) -> Option<u64> {
        match self.state {
            WatchState::Due(at) => Some(at),
            WatchState::AskedAt(_) => None,
        }
    }

    /// Returns the number of polls that have failed since the last reply.
    pub fn failures(&self) -> u32 {
        self.backoff.failures()
    }

    /// Handles a reply or a failure. Returns the policies if their version is different.
    pub fn answered(
        &mut self,
        reply: Result<&[u8], CallFailure>,
        now: u64,
    ) -> Result<Option<GetPlanResponse>, CallFailure> {
        let asked = match self.state {
            WatchState::AskedAt(at) => at,
            WatchState::Due(_) => now,
        };
        let answer = reply.and_then(|bytes| {
            // An empty message is valid too, but no adapter sends it.
            let answer = GetPlanResponse::decode(bytes).ok().filter(|answer| !answer.version.is_empty());
            answer.ok_or(CallFailure::Malformed)
        });
        match answer {
            Ok(answer) => {
                self.backoff.succeeded();
                let is_at_once = now.saturating_sub(asked) < AT_ONCE;
                if is_at_once && self.is_return(&answer.version) {
                    self.state = WatchState::Due(now.saturating_add(BETWEEN_RETURNS));
                    return Ok(None);
                }
                let news = answer.version != self.version;
                let pause = if news { BETWEEN_NEWS } else { BETWEEN_OLDS };
                self.state = WatchState::Due(now.max(asked.saturating_add(pause)));
                self.take(&answer.version);
                Ok(news.then_some(answer))
            }
            Err(failure) => {
                self.state = WatchState::Due(now.saturating_add(self.backoff.failed()));
                Err(failure)
            }
        }
    }

    /// Returns whether it is a replaced version that is not confirmed yet.
    fn is_return(&mut self, version: &str) -> bool {
        if version == self.version || !self.left.iter().any(|left| left == version) {
            return false;
        }
        self.returns = self.returns.saturating_add(1);
        self.returns < RETURN_ANSWERS
    }

    fn take(&mut self, version: &str) {
        self.returns = 0;
        if version == self.version {
            return;
        }
        let before = std::mem::replace(&mut self.version, version.to_owned());
        // After a return, the filter cannot know which of the two versions is newer.
        if self.left.iter().any(|left| left == version) {
            self.left.clear();
        } else if !before.is_empty() {
            self.left.push(before);
            let surplus = self.left.len().saturating_sub(MAX_LEFT);
            self.left.drain(..surplus);
        }
    }
}

/// The leading hexadecimal digits of a version as a number that every metrics system can hold. 0 if there are
/// none.
pub fn number(version: &str) -> u64 {
    version.get(..12).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// Compiles the policies of a reply.
pub fn compile(answer: &GetPlanResponse, access: BodyAccess) -> Result<Plan, Vec<ValidationError>> {
    let mut policies = Vec::with_capacity(answer.policies.len());
    let mut mistakes = Vec::new();
    for (index, text) in answer.policies.iter().enumerate() {
        let read = serde_json::from_slice(text)
            .map_err(|error| {
                vec![ValidationError { path: String::new(), message: format!("no JSON: {error}") }]
            })
            .and_then(|document| match &answer.placement {
                Some(_) => Policy::read_in_cluster(&document),
                None => Policy::read(&document),
            })
            .and_then(|policy| match access {
                BodyAccess::None if !policy.needs_body.is_empty() => Err(policy.needs_body),
                _ => Ok(policy),
            });
        match read {
            Ok(policy) => policies.push(policy),
            Err(found) => mistakes.extend(found.into_iter().map(|mistake| ValidationError {
                path: format!("policies[{index}].{}", mistake.path).trim_end_matches('.').to_owned(),
                message: mistake.message,
            })),
        }
    }
    match &answer.placement {
        _ if !mistakes.is_empty() => Err(mistakes),
        None => Ok(Plan::new(policies)),
        Some(placement) => {
            Routes::compile(placement, policies.len()).map(|routes| Plan::placed(policies, routes))
        }
    }
    .map(|plan| plan.with_body(access).recording_usage(answer.records_usage).tracing(answer.traces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch() -> Watch {
        Watch::new("default/llm", 7)
    }

    fn plan(version: &str) -> Vec<u8> {
        GetPlanResponse { version: version.to_owned(), ..GetPlanResponse::default() }.encode_to_vec()
    }

    fn asked(question: Option<Vec<u8>>) -> Option<String> {
        question.map(|bytes| GetPlanRequest::decode(&*bytes).unwrap().version)
    }

    #[test]
    fn the_next_question_names_the_version_that_was_seen() {
        let mut watch = watch();
        assert_eq!(asked(watch.ask(0)).as_deref(), Some(""));
        assert_eq!(asked(watch.ask(0)), None, "one at a time");
        assert_eq!(watch.answered(Ok(&plan("a")), 5).unwrap().unwrap().version, "a");
        let due = watch.wake_at().unwrap();
        assert_eq!(asked(watch.ask(due)).as_deref(), Some("a"));
        assert!(watch.answered(Ok(&plan("b")), 20_000).unwrap().is_some());
        assert_eq!(watch.wake_at(), Some(20_000), "after a long poll with news, the next poll is immediate");
    }

    #[test]
    fn an_adapter_that_answers_at_once_without_news_is_asked_once_a_second() {
        let mut watch = watch();
        for second in 0..3 {
            assert!(watch.ask(second * 1_000).is_some());
            let news = watch.answered(Ok(&plan("a")), second * 1_000).unwrap();
            assert_eq!(news.is_some(), second == 0);
        }
        assert_eq!(watch.wake_at(), Some(3_000));
    }

    /// Polls as soon as allowed, and gets a reply `later` milliseconds afterwards. Returns the version in
    /// force after that, and the time.
    fn polled(watch: &mut Watch, now: &mut u64, version: &str, later: u64) -> String {
        *now = (*now).max(watch.wake_at().unwrap());
        assert!(watch.ask(*now).is_some());
        *now += later;
        watch.answered(Ok(&plan(version)), *now).unwrap();
        watch.version.clone()
    }

    #[test]
    fn of_two_adapters_with_different_plans_the_newer_plan_stays_in_force() {
        let (mut watch, mut now) = (watch(), 0);
        assert_eq!(polled(&mut watch, &mut now, "old", 1), "old");
        // The edit has reached one adapter. Every other poll goes to the other adapter, which answers at
        // once.
        assert_eq!(polled(&mut watch, &mut now, "new", 500), "new");
        for _ in 0..10 {
            assert_eq!(polled(&mut watch, &mut now, "old", 1), "new");
            assert_eq!(polled(&mut watch, &mut now, "new", 30_000), "new");
        }
        // By chance, the same adapter answers several times.
        for _ in 0..RETURN_ANSWERS - 1 {
            assert_eq!(polled(&mut watch, &mut now, "old", 1), "new");
        }
        assert_eq!(polled(&mut watch, &mut now, "new", 30_000), "new");
        assert_eq!(polled(&mut watch, &mut now, "old", 1), "new");
        assert_eq!(
            polled(&mut watch, &mut now, "next", 1),
            "next",
            "another edit does not count as a return"
        );
    }

    #[test]
    fn an_edit_that_is_undone_comes_into_force() {
        let (mut watch, mut now) = (watch(), 0);
        for version in ["a", "b"] {
            assert_eq!(polled(&mut watch, &mut now, version, 5_000), version);
        }
        assert_eq!(polled(&mut watch, &mut now, "a", 5_000), "a", "its adapter had `b` until then");
        assert_eq!(
            polled(&mut watch, &mut now, "b", 1),
            "b",
            "and `b` no longer counts as an earlier version"
        );
        // The reply arrives at once, but every adapter has to confirm it.
        let undone = now;
        for _ in 0..RETURN_ANSWERS - 1 {
            assert_eq!(polled(&mut watch, &mut now, "a", 1), "b");
        }
        assert_eq!(polled(&mut watch, &mut now, "a", 1), "a");
        assert!(now - undone < 1_000, "an edit is in force within a second: {}", now - undone);
    }

    #[test]
    fn few_versions_are_remembered() {
        let (mut watch, mut now) = (watch(), 0);
        for version in 0..100 {
            polled(&mut watch, &mut now, &version.to_string(), 1);
        }
        assert_eq!(watch.left, ["95", "96", "97", "98"]);
    }

    #[test]
    fn failures_are_asked_after_with_growing_pauses() {
        let mut watch = watch();
        for longest in [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000] {
            assert!(watch.ask(0).is_some() || watch.ask(100_000).is_some());
            assert!(watch.answered(Err(CallFailure::Unavailable), 0).is_err());
            let pause = watch.wake_at().unwrap();
            assert!((longest / 2..longest).contains(&pause), "{pause} of {longest}");
        }
        assert!(watch.ask(100_000).is_some());
        assert!(watch.answered(Ok(&plan("a")), 100_000).is_ok());
        assert_eq!(watch.failures(), 0);
    }

    #[test]
    fn an_answer_is_shared_only_between_those_that_ask_the_same() {
        let named = |gateway: &str, access, cluster: &str| {
            Watch::new(gateway, 7).with_body(access).shared_name(cluster)
        };
        let names = [
            named("default/llm", BodyAccess::None, "weir"),
            named("default/llm", BodyAccess::Buffer(1), "weir"),
            named("default/llm", BodyAccess::None, "other"),
            named("default/llm.weir", BodyAccess::None, "other"),
            named("default/llm", BodyAccess::None, "weir.other"),
            named("default/llm.weir", BodyAccess::None, ""),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert_eq!(names[0], Watch::new("default/llm", 8).with_body(BodyAccess::None).shared_name("weir"));
    }

    #[test]
    fn an_answer_that_says_nothing_is_no_plan() {
        for reply in [&[] as &[u8], &[0xff]] {
            let mut watch = watch();
            watch.ask(0);
            assert_eq!(watch.answered(Ok(reply), 0), Err(CallFailure::Malformed));
        }
    }

    #[test]
    fn a_version_is_a_number_if_it_can_be() {
        assert_eq!(number("561551cebbd17ab1"), 0x5615_51ce_bbd1);
        assert_eq!(["", "12", "not a number", "ééééééééé"].map(number), [0; 4]);
    }

    #[test]
    fn a_policy_that_cannot_be_read_is_named_by_its_place() {
        let answer = GetPlanResponse {
            version: "a".into(),
            policies: vec![b"{".to_vec()],
            placement: None,
            records_usage: false,
            traces: false,
        };
        let mistakes = compile(&answer, BodyAccess::None).unwrap_err();
        assert_eq!(mistakes[0].path, "policies[0]");
        assert!(mistakes[0].message.starts_with("no JSON: "), "{}", mistakes[0]);
    }
}
