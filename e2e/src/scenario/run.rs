//! Plays a story step by step, and reports the first step with an unexpected outcome.

use super::{AdapterFate, Bucket, Expected, PolicySource, Request, Step, Story};
use crate::wait;
use crate::wire::Headers;
use serde_json::Value;
use std::collections::HashMap;
use std::time::Duration;

/// Plays the steps of a story and reports what happened. It does not check expectations.
pub trait Player {
    /// A request that stays open.
    type Open;

    /// Puts these policies into force, and no others.
    fn apply(&mut self, policies: &[Value]);
    /// Sends a request and waits until it is blocked on the provider's answer, after `answer.before` chunks
    /// of it. If the request is answered before that, returns the response. `claims` are the user's claims.
    fn open(&mut self, request: &Request, claims: Option<&Value>) -> Result<Self::Open, Seen>;
    /// Lets the provider answer and reads the rest.
    fn finish(&mut self, open: Self::Open) -> Seen;
    /// Disconnects the client.
    fn hang_up(&mut self, open: Self::Open);
    /// Returns all buckets, as in `/api/counters`.
    fn counters(&mut self) -> Vec<Value>;
    /// Returns how long it may take until everything is counted.
    fn settles_within(&self) -> Duration;
    /// Stops, continues, kills or restarts the adapter.
    fn adapter(&mut self, fate: AdapterFate);
    /// Lets time pass.
    fn pass(&mut self, time: Duration);
}

/// The outcome of a request.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The status, or 0 if there is no response.
    pub status: u16,
    /// The response's headers.
    pub headers: Headers,
    /// The part of the body that arrived.
    pub body: Vec<u8>,
    /// Whether the body is incomplete.
    pub cut: bool,
    /// The headers that the provider received.
    pub sent: Option<Headers>,
    /// The body that the provider received.
    pub sent_body: Option<Vec<u8>>,
    /// The number of Reserves that the adapter received, or `None` if the player cannot observe it.
    pub asked: Option<u64>,
}

/// Plays a story. The error contains the step and every failed expectation.
pub fn run<P: Player>(story: &Story, player: &mut P) -> Result<(), String> {
    player.apply(&objects(&story.policies));
    let mut open = HashMap::new();
    for (index, step) in story.steps.iter().enumerate() {
        let wrong = play(story, player, &mut open, step);
        if !wrong.is_empty() {
            return Err(format!("step {} ({}):\n  {}", index + 1, describe(step), wrong.join("\n  ")));
        }
    }
    Ok(())
}

fn play<P: Player>(
    story: &Story,
    player: &mut P,
    open: &mut HashMap<String, P::Open>,
    step: &Step,
) -> Vec<String> {
    match step {
        Step::Request(request) => {
            let mut wrong = Vec::new();
            for time in 1..=request.times {
                let seen = match player.open(request, claims(story, request)) {
                    Ok(open) => player.finish(open),
                    Err(seen) => seen,
                };
                wrong.extend(
                    compare(request.expect.as_ref(), &seen).map(|wrong| format!("time {time}: {wrong}")),
                );
            }
            wrong
        }
        Step::Open(opened) => match player.open(&opened.request, claims(story, &opened.request)) {
            Ok(on_its_way) => {
                open.insert(opened.name.clone(), on_its_way);
                let unanswered = Seen { sent: Some(Headers::new()), ..Seen::default() };
                compare(opened.request.expect.as_ref(), &unanswered).collect()
            }
            Err(seen) => match &opened.request.expect {
                Some(expected) => expected.compare(&seen),
                None => vec![format!("it did not reach the provider: {}", seen.status)],
            },
        },
        Step::Finish(finished) => {
            let seen = player.finish(taken(open, &finished.name));
            compare(finished.expect.as_ref(), &seen).collect()
        }
        Step::HangUp(name) => {
            player.hang_up(taken(open, name));
            Vec::new()
        }
        Step::Counters(buckets) => counters(player, buckets),
        Step::Policies(policies) => {
            player.apply(&objects(policies));
            Vec::new()
        }
        Step::Adapter(fate) => {
            player.adapter(*fate);
            Vec::new()
        }
        Step::Pass(time) => {
            player.pass(*time);
            Vec::new()
        }
    }
}

fn counters<P: Player>(player: &mut P, buckets: &[Bucket]) -> Vec<String> {
    let mut last = Vec::new();
    wait::within(player.settles_within(), || {
        let all = player.counters();
        last = buckets.iter().flat_map(|bucket| bucket.compare(&all)).collect();
        if !last.is_empty() {
            last.push(format!("counted: {}", Value::from(all)));
        }
        last.is_empty().then_some(())
    });
    last
}

fn compare(expected: Option<&Expected>, seen: &Seen) -> impl Iterator<Item = String> {
    expected.map(|expected| expected.compare(seen)).unwrap_or_default().into_iter()
}

fn claims<'s>(story: &'s Story, request: &Request) -> Option<&'s Value> {
    let who = request.who.as_ref()?;
    Some(story.people.get(who).unwrap_or_else(|| panic!("the story does not define the user {who}")))
}

fn taken<O>(open: &mut HashMap<String, O>, name: &str) -> O {
    open.remove(name).unwrap_or_else(|| panic!("the story has not opened {name}"))
}

fn objects(sources: &[PolicySource]) -> Vec<Value> {
    sources.iter().flat_map(PolicySource::objects).collect()
}

fn describe(step: &Step) -> String {
    let asked = |request: &Request| {
        let who = request.who.as_deref().unwrap_or("nobody");
        format!("{} {} as {who}", request.method, request.path)
    };
    match step {
        Step::Request(request) => asked(request),
        Step::Open(opened) => format!("open {}: {}", opened.name, asked(&opened.request)),
        Step::Finish(finished) => format!("finish {}", finished.name),
        Step::HangUp(name) => format!("hangUp {name}"),
        Step::Counters(_) => "counters".to_owned(),
        Step::Policies(_) => "policies".to_owned(),
        Step::Adapter(fate) => format!("adapter {fate:?}").to_lowercase(),
        Step::Pass(time) => format!("pass {time:?}"),
    }
}
