use super::*;
use expression::facts::Facts;
use policy::model::Policy;
use policy::plan::Plan;
use prost::Message;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, GrantedLease, ReserveRequest};
use serde_json::json;

const WORKER: &str = "0123456789abcdef0123456789abcdef";
const COUNTER: u64 = 7;

/// Returns the holds of a request of 100 tokens for this user.
fn holds(user: &str, lease: &str) -> Vec<Hold> {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": {"chat": {
                "counters": [{"expression": "request.headers['x-user']"}],
                "reservation": {"amount": 100},
                "lease": lease,
                "rates": [{"limit": 1_000_000, "window": "1h"}],
            }},
        },
    });
    let plan = Plan::new(vec![Policy::read(&document).unwrap()]);
    let mut facts = Facts::default();
    facts.header(":path", b"/v1/chat/completions");
    facts.header("content-length", b"10");
    facts.header("x-user", user.as_bytes());
    plan.judge(&mut facts, false).holds
}

fn leases() -> Leases {
    Leases::new(&WORKER.into(), &MemoryBudget::default())
}

/// Asks as often as makes a bucket busy. Returns the requests for leases.
fn make_busy(leases: &Leases, holds: &[Hold], now: u64) -> Vec<LeaseCall> {
    for _ in 0..16 {
        assert!(leases.admit(0, holds).is_none());
    }
    let mut number = 1000;
    leases.calls(now, || {
        number += 1;
        number
    })
}

fn granted(amount: u64) -> ReserveResponse {
    ReserveResponse {
        code: Code::Ok.into(),
        reservation_id: String::new(),
        statuses: vec![DescriptorStatus {
            code: Code::Ok.into(),
            limit: 1_000_000,
            remaining: 900_000,
            reset_ms: 60_000,
            used: Some(5),
            exceeded: false,
        }],
        lease: Some(GrantedLease { amount, ttl_ms: 10_000, counter: COUNTER }),
    }
}

/// Returns leases with this much room for one user, from time 0 on.
fn leased(amount: u64) -> (Leases, Vec<Hold>) {
    let (leases, holds) = (leases(), holds("alice", "Auto"));
    let calls = make_busy(&leases, &holds, 0);
    assert_eq!(leases.answered(calls[0].number, Ok(granted(amount)), 0), None);
    (leases, holds)
}

fn commits(report: &LeaseReport) -> Vec<CommitRequest> {
    report.settlements.iter().map(|one| CommitRequest::decode(&*one.message).unwrap()).collect()
}

#[test]
fn a_busy_bucket_gets_a_lease_and_then_its_requests_are_admitted_from_it() {
    let (leases, holds) = (leases(), holds("alice", "Auto"));
    for _ in 0..15 {
        assert!(leases.admit(0, &holds).is_none());
    }
    assert!(leases.calls(0, || 1).is_empty(), "it is not busy yet");
    assert!(leases.admit(0, &holds).is_none());
    let calls = leases.calls(0, || 9);
    let [LeaseCall { number: 9, message }] = calls.as_slice() else { panic!("{calls:?}") };
    let request = ReserveRequest::decode(&**message).unwrap();
    assert_eq!((request.reservation_id, request.lease), (format!("{WORKER}-9"), true));
    assert_eq!(request.descriptors[0].hits_addend, Some(6400), "four seconds");
    assert!(leases.calls(0, || 10).is_empty(), "one at a time");
    assert!(leases.admit(1, &holds).is_none(), "it has not been granted");
    assert_eq!(leases.answered(9, Ok(granted(250)), 0), None);
    let status = leases.admit(1, &holds).unwrap().remove(0);
    assert_eq!((status.limit, status.remaining, status.used), (1_000_000, 900_150, Some(5)));
    assert!(leases.admit(2, &holds).is_some());
    assert!(leases.admit(3, &holds).is_none(), "there is not enough room left");
}

#[test]
fn buckets_that_are_rarely_used_and_limits_without_leases_always_ask() {
    let leases = leases();
    for user in 0..500 {
        assert!(leases.admit(0, &holds(&format!("user-{user}"), "Auto")).is_none());
    }
    assert!(leases.calls(0, || 1).is_empty());
    assert!(make_busy(&leases, &holds("alice", "Never"), 0).is_empty());
    // A busy bucket is of no use to a request that needs another one.
    let both = |user: &str| [holds("alice", "Auto"), holds(user, "Auto")].concat();
    for user in 0..100 {
        assert!(leases.admit(0, &both(&format!("user-{user}"))).is_none());
    }
    assert!(leases.calls(0, || 1).is_empty());
    // Sightings are forgotten after a second.
    let slow = holds("bob", "Auto");
    for time in 0..40 {
        assert!(leases.admit(0, &slow).is_none());
        leases.review(time * REVIEW);
    }
    assert!(leases.calls(40 * REVIEW, || 1).is_empty());
}

#[test]
fn what_a_request_has_not_used_goes_back() {
    let (leases, holds) = leased(200);
    assert!(leases.admit(1, &holds).is_some() && leases.admit(2, &holds).is_some());
    assert!(leases.admit(3, &holds).is_none());
    assert_eq!(leases.settle(1, &[30]), Some(vec![LeaseDraw { lease: 1001, amount: 30 }]));
    assert_eq!(leases.settle(1, &[30]), None, "once");
    assert_eq!(leases.settle(2, &[170]), Some(vec![LeaseDraw { lease: 1001, amount: 100 }]));
    assert!(leases.admit(4, &holds).is_none(), "70 are left");
}

#[test]
fn a_request_that_runs_for_longer_gets_a_reservation_of_its_own() {
    let (leases, holds) = leased(1000);
    leases.review(REVIEW);
    assert!(leases.admit(5, &holds).is_some());
    assert_eq!(leases.review(2 * REVIEW).settlements, []);
    let commits = commits(&leases.review(3 * REVIEW));
    let [CommitRequest { admitted, reservation_id, .. }] = commits.as_slice() else { panic!("{commits:?}") };
    assert_eq!((admitted.len(), reservation_id.as_str()), (1, ""));
    assert_eq!(admitted[0].reservation_id, format!("{WORKER}-5"));
    let descriptor = &admitted[0].descriptors[0];
    assert_eq!(descriptor.hits_addend, Some(100));
    assert_eq!(descriptor.draw, Some(LeaseDraw { lease: 1001, amount: 100 }));
    assert!(descriptor.ttl_ms > 0);
    assert_eq!(leases.settle(5, &[30]), None);
    assert_eq!(leases.detach(5), None);
}

#[test]
fn a_lease_ends_early_and_its_running_requests_are_told_first() {
    let (leases, holds) = leased(1000);
    assert!(leases.admit(5, &holds).is_some());
    let recalled = leases.recalled(&[1, COUNTER]);
    let commits = commits(&recalled);
    assert_eq!(commits.len(), 2);
    assert_eq!(commits[0].admitted[0].reservation_id, format!("{WORKER}-5"));
    assert_eq!(commits[1].reservation_id, format!("{WORKER}-3e9"));
    assert_eq!(recalled.unused, 900);
    assert!(leases.admit(6, &holds).is_none());
    for time in 1..=19 {
        leases.review(time * REVIEW);
        for _ in 0..16 {
            leases.admit(6, &holds);
        }
        assert!(leases.calls(time * REVIEW, || 9).is_empty(), "{time}: others need the room");
    }
    leases.review(20 * REVIEW);
    assert_eq!(leases.calls(20 * REVIEW, || 9).len(), 1);
    assert_eq!(leases.recalled(&[8]), LeaseReport::default());
}

#[test]
fn a_lease_is_returned_when_it_expires_or_is_idle_or_the_plan_changes() {
    let (leases, holds) = leased(1000);
    for time in 1..24 {
        assert_eq!(commits(&leases.review(time * REVIEW)).len(), 0, "{time}");
        assert!(leases.admit(time, &holds).is_some());
        leases.settle(time, &[0]);
    }
    let report = leases.review(24 * REVIEW);
    assert_eq!((report.unused, report.admitted), (1000, 1));
    assert_eq!(commits(&report)[0].reservation_id, format!("{WORKER}-3e9"), "after 6 s of 10 s");

    let (leases, _) = leased(1000);
    let returned = (1..20).find(|time| !leases.review(time * REVIEW).settlements.is_empty());
    assert_eq!(returned, Some(9), "after 2 s without a request");
    assert!(leases.is_empty() && leases.review_at().is_none());

    let (leases, holds) = leased(1000);
    assert_eq!(commits(&leases.reset()).len(), 1);
    assert!(leases.admit(1, &holds).is_none() && leases.is_empty());
    assert_eq!(leases.reset(), LeaseReport::default());
}

#[test]
fn a_refusal_makes_it_wait_and_a_lost_reply_returns_the_lease() {
    let (leases, holds) = (leases(), holds("alice", "Auto"));
    let mut now = 0;
    let refused = ReserveResponse { code: Code::OverLimit.into(), ..ReserveResponse::default() };
    let calls = make_busy(&leases, &holds, now);
    assert_eq!(leases.answered(calls[0].number, Ok(refused), now), None);
    let mut waited = Vec::new();
    for pause in [4, 8, 16] {
        let mut reviews = 0;
        let call = loop {
            now += REVIEW;
            leases.review(now);
            reviews += 1;
            if let [call] = make_busy(&leases, &holds, now).as_slice() {
                break call.number;
            }
        };
        waited.push((pause, reviews));
        let lost = leases.answered(call, Err(CallFailure::Timeout), now).unwrap();
        let commit = CommitRequest::decode(&*lost.message).unwrap();
        assert_eq!(commit.reservation_id, format!("{WORKER}-3e9"));
    }
    assert_eq!(waited, [(4, 4), (8, 8), (16, 16)]);
    // A server that does not know leases holds the amount, and does not say that it is one.
    let (leases, holds) = (super::tests::leases(), holds);
    let calls = make_busy(&leases, &holds, 0);
    let stock = ReserveResponse { lease: None, ..granted(5) };
    assert!(leases.answered(calls[0].number, Ok(stock), 0).is_some());
    assert!(leases.admit(1, &holds).is_none());
}

#[test]
fn the_default_has_no_leases() {
    let (leases, holds) = (Leases::default(), holds("alice", "Auto"));
    assert!(make_busy(&leases, &holds, 0).is_empty());
    assert_eq!((leases.review_at(), leases.len()), (None, 0));
}
