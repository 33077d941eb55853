use super::*;
use prost::Message;
use protocol::call::{Entries, Item};
use protocol::wire::kuadrant::service::ratelimit::v1::CommitRequest;
use std::collections::BTreeSet;
use std::time::Duration;

fn settlement(id: &str) -> Settlement {
    Settlement::new(call::commit(id, std::iter::empty()))
}

fn send(outbox: &mut Outbox, now: u64) -> Option<Commit> {
    outbox.send(CommitRoute::Stream, now)
}

/// Handles the reply to the last call that was sent.
fn answered(outbox: &mut Outbox, reply: Result<CommitResponse, CallFailure>, now: u64) -> CommitOutcome {
    outbox.answered(outbox.number, reply, now)
}

fn ids(commit: Option<Commit>) -> Vec<String> {
    let Some(commit) = commit else { return Vec::new() };
    let request = CommitRequest::decode(&*commit.message).unwrap();
    let further = request.further.into_iter().map(|commit| commit.reservation_id);
    std::iter::once(request.reservation_id).chain(further).collect()
}

fn reply(settled: u64) -> Result<CommitResponse, CallFailure> {
    Ok(CommitResponse { settled, ..CommitResponse::default() })
}

#[test]
fn what_settles_during_a_call_goes_together_in_the_next() {
    let mut outbox = Outbox::new(1000);
    assert_eq!(outbox.push(settlement("a")), Displaced::default());
    assert_eq!(ids(send(&mut outbox, 0)), ["a"]);
    outbox.push(settlement("b"));
    outbox.push(settlement("c"));
    assert_eq!(send(&mut outbox, 0), None, "one call at a time");
    assert_eq!(answered(&mut outbox, reply(1), 1).settled, 1);
    assert_eq!(ids(send(&mut outbox, 1)), ["b", "c"]);
    assert_eq!(answered(&mut outbox, reply(2), 2).settled, 2);
    assert!(outbox.is_empty() && outbox.wake_at().is_none());
}

#[test]
fn a_failed_call_is_sent_again_whole_after_a_growing_pause() {
    let mut outbox = Outbox::new(1000);
    outbox.push(settlement("a"));
    let mut now = 0;
    for longest in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
        assert_eq!(ids(send(&mut outbox, now)), ["a"]);
        assert_eq!(answered(&mut outbox, Err(CallFailure::Unavailable), now).retried, 1);
        let wake = outbox.wake_at().unwrap();
        assert_eq!(send(&mut outbox, wake - 1), None);
        assert!((longest / 2..longest).contains(&(wake - now)), "{} of {longest}", wake - now);
        now = wake;
    }
    assert_eq!(ids(send(&mut outbox, now)), ["a"]);
    answered(&mut outbox, reply(1), now);
    assert!(outbox.is_empty());
}

#[test]
fn a_full_queue_drops_the_oldest_that_is_not_under_way() {
    let mut outbox = Outbox::new(3 * settlement("a").message.len());
    outbox.push(settlement("a"));
    send(&mut outbox, 0);
    outbox.push(settlement("b"));
    outbox.push(settlement("c"));
    assert_eq!(outbox.push(settlement("d")).dropped, 1);
    answered(&mut outbox, reply(1), 0);
    assert_eq!(ids(send(&mut outbox, 0)), ["c", "d"]);
    assert_eq!(outbox.push(settlement(&"e".repeat(100))).dropped, 0, "except for settlements in flight");
    answered(&mut outbox, reply(2), 0);
    assert_eq!(outbox.push(settlement("f")).dropped, 1);
    assert_eq!(ids(send(&mut outbox, 0)), ["f"]);
}

#[test]
fn a_call_is_no_longer_than_servers_take() {
    let mut outbox = Outbox::new(usize::MAX);
    for number in 0..10 {
        outbox.push(settlement(&format!("{number}{}", "x".repeat(300_000))));
    }
    let mut sent = Vec::new();
    while let Some(commit) = send(&mut outbox, 0) {
        assert!(commit.message.len() <= LONGEST);
        let count = ids(Some(commit)).len();
        sent.push(count);
        answered(&mut outbox, reply(count as u64), 0);
    }
    assert_eq!(sent, [3, 3, 3, 1]);
}

#[test]
fn a_server_that_settles_only_the_first_gets_the_rest_again() {
    let mut outbox = Outbox::new(1000);
    for id in ["a", "b", "c"] {
        outbox.push(settlement(id));
    }
    assert_eq!(ids(send(&mut outbox, 0)), ["a", "b", "c"]);
    assert_eq!(answered(&mut outbox, Ok(CommitResponse::default()), 0).settled, 1);
    assert_eq!(ids(send(&mut outbox, 0)), ["b", "c"]);
    assert_eq!(answered(&mut outbox, reply(u64::MAX), 0).settled, 2, "never more than were sent");
}

#[test]
fn one_that_the_adapter_will_never_take_does_not_stop_the_others() {
    let mut outbox = Outbox::new(1000);
    outbox.push(settlement("bad"));
    outbox.push(settlement("good"));
    let mut now = 0;
    assert_eq!(ids(send(&mut outbox, now)).len(), 2);
    assert_eq!(answered(&mut outbox, Err(CallFailure::Status(3)), now).retried, 2);
    now = outbox.wake_at().unwrap();
    assert_eq!(ids(send(&mut outbox, now)), ["bad"]);
    assert_eq!(answered(&mut outbox, Err(CallFailure::Status(3)), now).dropped, 1);
    assert_eq!(ids(send(&mut outbox, now)), ["good"]);
}

#[test]
fn an_answer_that_cannot_be_read_is_a_failure() {
    let mut outbox = Outbox::new(1000);
    outbox.push(settlement("a"));
    send(&mut outbox, 0);
    assert_eq!(answered(&mut outbox, call::reply(Ok(&[0xff])), 0).retried, 1);
    assert_eq!(outbox.len(), 1);
}

fn copied(outbox: &Outbox, route: CommitRoute, now: u64) -> Vec<String> {
    let copies = outbox.copies(route, now).into_iter();
    copies.map(|copy| CommitRequest::decode(copy).unwrap().reservation_id).collect()
}

#[test]
fn what_has_settled_goes_with_a_reserve_whatever_else_is_under_way() {
    let mut outbox = Outbox::new(1000);
    outbox.push(settlement("a"));
    let first = send(&mut outbox, 0).unwrap();
    outbox.push(settlement("b"));
    let second = outbox.send_before_reserve(0).unwrap();
    outbox.push(settlement("c"));
    assert_eq!(send(&mut outbox, 0), None, "the timer waits for its own call");
    let third = outbox.send_before_reserve(0).unwrap();
    assert_eq!(outbox.send_before_reserve(0), None);
    assert_eq!(copied(&outbox, CommitRoute::Stream, 0), Vec::<String>::new(), "the stream keeps the order");
    assert_eq!(copied(&outbox, CommitRoute::Unary, 0), ["c", "b", "a"]);
    assert_eq!(outbox.answered(third.number, reply(1), 1).settled, 1);
    assert_eq!(
        outbox.answered(third.number, reply(1), 1),
        CommitOutcome::default(),
        "a reply counts only once"
    );
    assert_eq!(outbox.answered(first.number, reply(1), 1).settled, 1);
    assert_eq!(outbox.answered(second.number, Err(CallFailure::Unavailable), 1).retried, 1);
    assert_eq!(ids(send(&mut outbox, 1)), ["b"], "only the timer's own failures make it wait");
}

#[test]
fn a_reserve_carries_copies_of_what_might_come_after_it() {
    let mut outbox = Outbox::new(usize::MAX);
    outbox.push(settlement("a"));
    let unary = outbox.send(CommitRoute::Unary, 0).unwrap();
    outbox.push(settlement("b"));
    let streamed = outbox.send_before_reserve(0).unwrap();
    assert_eq!(ids(Some(streamed)), ["b"]);
    assert_eq!(copied(&outbox, CommitRoute::Stream, 0), ["a"]);
    outbox.answered(unary.number, Err(CallFailure::Unavailable), 0);
    assert_eq!(outbox.send_before_reserve(0), None, "an adapter that fails gets no further calls");
    assert_eq!(
        copied(&outbox, CommitRoute::Stream, 0),
        ["a"],
        "except for settlements that a reserve depends on"
    );
    for number in 0..1000 {
        outbox.push(settlement(&format!("{number}{}", "x".repeat(1000))));
    }
    let sizes = [0, outbox.not_before].map(|now| {
        let copies = outbox.copies(CommitRoute::Unary, now);
        assert!(
            copies
                .first()
                .is_some_and(|copy| *copy == settlement(&format!("999{}", "x".repeat(1000))).message)
        );
        copies.iter().map(|copy| copy.len()).sum::<usize>()
    });
    assert!(sizes[0] <= COPIED_AFTER_FAILURE && sizes[1] <= COPIED && sizes[1] > COPIED / 2, "{sizes:?}");
}

#[test]
fn what_a_stream_leaves_is_sent_again_at_once_and_in_order() {
    let mut outbox = Outbox::new(1000);
    outbox.push(settlement("a"));
    let first = send(&mut outbox, 0).unwrap();
    outbox.push(settlement("b"));
    let second = outbox.send_before_reserve(0).unwrap();
    outbox.push(settlement("c"));
    assert_eq!(outbox.returned([first.number, second.number].into_iter()).retried, 2);
    assert_eq!(outbox.wake_at(), Some(0));
    assert_eq!(ids(outbox.send_before_reserve(0)), ["a", "b", "c"]);
}

#[test]
fn a_raise_travels_once_in_the_stream_or_beside_a_commit_and_takes_no_settlement_s_place() {
    let raise = |id: &str, total: u8| Raise { id: id.to_owned(), message: vec![total], may_cut: false };
    let mut outbox = Outbox::new(160);
    assert!(outbox.raise(raise("a", 1)) && outbox.raise(raise("a", 2)) && outbox.raise(raise("b", 3)));
    // An adapter without streams may not know raises, so they are not sent to it alone.
    assert_eq!(outbox.send(CommitRoute::Unary, 0), None);
    assert_eq!(outbox.wake_at(), None);
    let commit = outbox.send(CommitRoute::Stream, 0).expect("the raises alone");
    let mut both = Vec::new();
    [[2], [3]].iter().for_each(|message| call::add_raised(&mut both, message));
    assert_eq!(commit.message, both, "the last of each");
    // If the call of a raise fails, the raise is not sent again.
    outbox.answered(commit.number, Err(CallFailure::Unavailable), 0);
    assert_eq!((outbox.wake_at(), outbox.size()), (None, 0));
    let kept = (0..100).filter(|at| outbox.raise(raise(&format!("{at:09}"), 1))).count();
    assert_eq!(kept, 2, "an eighth of the room");
    assert_eq!(outbox.push(Settlement::new(vec![0; 160])), Displaced::default());
}

/// A settlement of one of these users, as a filter encodes it.
fn used(number: u64, users: u64) -> Settlement {
    let entries = |unit: &str| {
        let mut entries = Entries::default();
        let user = format!("user-{}", number % users);
        let all = [("limit", "default/llm/free"), ("unit", unit), ("window", "24h")];
        all.iter().for_each(|(key, value)| entries.push(key, value));
        entries.push("auth.identity.userid", &user);
        entries
    };
    let (tokens, requests) = (entries("tokens"), entries("requests"));
    let item = |entries, amount| Item {
        entries,
        amount,
        ttl: Duration::ZERO,
        max: None,
        unenforced: false,
        draw: None,
    };
    let id = format!("0123456789abcdef0123456789abcdef-{number:x}");
    Settlement::new(call::commit(&id, [item(&tokens, number % 1000), item(&requests, 1)].into_iter()))
}

#[test]
fn a_full_queue_packs_and_after_an_outage_every_settlement_is_sent_once() {
    let capacity = 1 << 20;
    let mut outbox = Outbox::new(capacity).that_packs();
    let total = 25_000;
    let mut packed = 0;
    for number in 0..total {
        let displaced = outbox.push(used(number, 50));
        assert_eq!(displaced.dropped, 0, "{number}");
        packed += displaced.packed;
        assert!(outbox.size() <= capacity + 1000, "{}", outbox.size());
        if number % 5_000 == 0 {
            let pause = outbox.wake_at().unwrap();
            send(&mut outbox, pause).unwrap();
            answered(&mut outbox, Err(CallFailure::Unavailable), pause);
        }
    }
    assert!(packed > 20_000, "{packed}");
    assert_eq!(outbox.len() as u64, total);
    let mut sums = BTreeMap::<String, u64>::new();
    let mut seen = BTreeSet::new();
    let now = outbox.wake_at().unwrap();
    while let Some(commit) = send(&mut outbox, now) {
        let mut first = CommitRequest::decode(&*commit.message).unwrap();
        let further = std::mem::take(&mut first.further);
        let count = further.len() as u64 + 1;
        for request in std::iter::once(first).chain(further) {
            let [tokens, requests] = request.descriptors.as_slice() else { panic!("{request:?}") };
            *sums.entry(tokens.entries[3].value.clone()).or_default() += tokens.hits_addend.unwrap();
            assert_eq!(requests.hits_addend, Some(1));
            assert!(seen.insert(request.reservation_id), "sent once");
        }
        answered(&mut outbox, reply(count), now);
    }
    assert!(outbox.is_empty() && outbox.size() == 0);
    let mut wanted = BTreeMap::<String, u64>::new();
    (0..total).for_each(|number| {
        *wanted.entry(format!("user-{}", number % 50)).or_default() += number % 1000;
    });
    assert_eq!((seen.len() as u64, sums), (total, wanted));
}

#[test]
fn a_queue_that_is_full_of_packed_settlements_drops_the_oldest() {
    let mut outbox = Outbox::new(1 << 20).that_packs();
    let displaced: Vec<_> = (0..60_000).map(|number| outbox.push(used(number, 50)).dropped).collect();
    let dropped: usize = displaced.iter().sum();
    assert!(dropped > 0 && dropped < 40_000, "{dropped}");
    assert_eq!(outbox.len(), 60_000 - dropped);
    assert_eq!(ids(send(&mut outbox, 0))[0], format!("0123456789abcdef0123456789abcdef-{dropped:x}"));
    // Without packing, the queue has room for far fewer.
    let mut plain = Outbox::new(1 << 20);
    let dropped: usize = (0..60_000).map(|number| plain.push(used(number, 50)).dropped).sum();
    assert_eq!(plain.len(), 60_000 - dropped);
    assert!(plain.len() * 3 < outbox.len(), "{} and {}", plain.len(), outbox.len());
}
