//! Drives an exchange with arbitrary events in any order. There is at most one Reserve, one Resume or Deny,
//! and one Commit, and the exchange ends.
#![no_main]

use engine::exchange::{Effect, Event};
use fuzz::Pieces;
use libfuzzer_sys::fuzz_target;
use llm::response::ResponseHead;
use protocol::call::{self, CallFailure};

#[derive(Debug, Default)]
struct Done {
    waits: u32,
    reserves: u32,
    resumes: u32,
    denials: u32,
    commits: u32,
}

impl Done {
    fn perform(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Reserve(_) => self.reserves += 1,
                Effect::Resume => self.resumes += 1,
                Effect::Deny(_) => self.denials += 1,
                Effect::Commit(_) => self.commits += 1,
                Effect::AwaitBody(_) => self.waits += 1,
                Effect::Edit(edit) => {
                    assert!(serde_json::from_slice::<serde_json::Value>(&edit.body).is_ok())
                }
                Effect::SetRequestHeader(..)
                | Effect::Signal(_)
                | Effect::SetHeaders(_)
                | Effect::RemoveHeader(_)
                | Effect::ReplaceChunk(_)
                | Effect::KeepChunk(_)
                | Effect::Reset
                | Effect::Raise(_)
                | Effect::UpstreamFailed(_)
                | Effect::Record(_)
                | Effect::RecordUsage(_)
                | Effect::Count(_) => {}
            }
        }
        assert!(
            self.waits <= 1 && self.reserves <= 1 && self.commits <= 1 && self.resumes + self.denials <= 1,
            "{self:?}"
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut exchange = fuzz::exchange();
    let mut done = Done::default();
    for piece in Pieces(bytes) {
        let Some((kind, rest)) = piece.split_first() else { continue };
        let head = ResponseHead {
            status: 200 + u16::from(*kind),
            content_type: String::from_utf8_lossy(rest).into_owned(),
            ..ResponseHead::default()
        };
        done.perform(&exchange.handle(match kind % 8 {
            0 | 1 => Event::Request { facts: fuzz::facts(), bodiless: kind % 8 == 1 },
            7 => Event::RequestBody { body: rest, end: kind & 64 == 0 },
            2 => Event::Reply(call::reply(Ok(rest))),
            3 => Event::Reply(Err(CallFailure::from(u32::from(*kind)))),
            4 => Event::Response(head),
            _ if kind & 64 == 0 => Event::Passing { chunk: rest, end: kind % 8 == 6 },
            _ => Event::Body { chunk: rest, end: kind % 8 == 6 },
        }));
    }
    done.perform(&exchange.handle(Event::Closed));
    assert!(exchange.is_over());
    assert!(done.reserves == 0 || done.commits + done.denials >= 1, "a hold was not released: {done:?}");
});
