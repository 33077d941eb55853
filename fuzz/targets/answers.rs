//! Any bytes as the adapter's answers to GetPlan and Commit: nothing is lost, nothing is settled that was not sent,
//! and there is always a next time.
#![no_main]

use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use policy::call::CallFailure;
use policy::outbox::Outbox;
use policy::watch::{Watch, compile};

fuzz_target!(|bytes: &[u8]| {
    let mut now = 0;
    let (mut outbox, mut watch) = (Outbox::new(8), Watch::new("*", 7));
    for reply in Pieces(bytes) {
        let reply = match reply {
            [] => Err(CallFailure::Unavailable),
            [255, status, ..] => Err(CallFailure::from(u32::from(*status))),
            reply => Ok(reply),
        };
        for settlement in settlements() {
            outbox.push(settlement);
        }
        if outbox.send(now).is_some() {
            let before = outbox.len();
            let answer = outbox.answered(reply, now);
            assert_eq!(before - answer.settled - answer.dropped, outbox.len());
        }
        if watch.ask(now).is_some() {
            assert!(watch.ask(now).is_none());
            if let Ok(Some(answer)) = watch.answered(reply, now) {
                let _ = compile(&answer);
            }
        }
        let due = [outbox.wake_at(), watch.wake_at()];
        now = due.into_iter().flatten().max().expect("something is always due");
    }
});

/// As an exchange makes them.
fn settlements() -> Vec<policy::outbox::Settlement> {
    let effects = fuzz::waiting().handle(policy::exchange::Event::Closed);
    let settlement = |effect| match effect {
        policy::exchange::Effect::Commit(settlement) => Some(settlement),
        _ => None,
    };
    effects.into_iter().filter_map(settlement).collect()
}
