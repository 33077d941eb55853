//! Feeds arbitrary bytes to the readers of GetPlan replies, Commit replies and the adapter's stream. No
//! settlement or Reserve is lost, only settlements that were sent count as settled, and the next call is
//! always scheduled.
#![no_main]

use engine::outbox::{CommitRoute, Outbox};
use engine::stream::CallStream;
use engine::watch::{Watch, compile};
use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use policy::plan::BodyAccess;
use protocol::call::{self, CallFailure};

fuzz_target!(|bytes: &[u8]| {
    let mut now = 0;
    let (mut outbox, mut watch) = (Outbox::new(100), Watch::new("*", 7));
    let mut stream = CallStream::new(200);
    for reply in Pieces(bytes) {
        let reply = match reply {
            [] => Err(CallFailure::Unavailable),
            [255, status, ..] => Err(CallFailure::from(u32::from(*status))),
            reply => Ok(reply),
        };
        for settlement in settlements() {
            outbox.push(settlement);
        }
        if let Some(commit) = outbox.send(CommitRoute::Unary, now) {
            let before = outbox.len();
            let answer = outbox.answered(commit.number, call::reply(reply), now);
            assert_eq!(before - answer.settled - answer.dropped, outbox.len());
        }
        if watch.ask(now).is_some() {
            assert!(watch.ask(now).is_none());
            if let Ok(Some(answer)) = watch.answered(reply, now) {
                let _ = compile(&answer, BodyAccess::None);
            }
        }
        if stream.open(now) || stream.is_open() {
            let waits = stream.is_open();
            if waits {
                stream.reserve(Vec::new(), &[], None, (), now);
            }
            let heard = stream.heard(reply.unwrap_or_default(), now);
            let answered = heard.is_ok_and(|heard| heard.reserve.is_some());
            let left = if reply.is_err() { stream.closed(now, false).reserves.len() } else { 0 };
            assert!(!waits || answered || left > 0 || stream.wake_at().is_some(), "a reserve was forgotten");
        }
        let due = [outbox.wake_at(), watch.wake_at()];
        now = due.into_iter().flatten().max().expect("something is always due");
    }
});

/// Returns the settlements of an exchange.
fn settlements() -> Vec<engine::outbox::Settlement> {
    let effects = fuzz::waiting().handle(engine::exchange::Event::Closed);
    let settlement = |effect| match effect {
        engine::exchange::Effect::Commit(settlement) => Some(settlement),
        _ => None,
    };
    effects.into_iter().filter_map(settlement).collect()
}
