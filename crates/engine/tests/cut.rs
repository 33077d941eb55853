//! Streams that outgrow their holds: which holds are raised, and how each API's stream ends if there is no
//! room.
// Clippy recognises tests by their attribute, and so misses functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use engine::exchange::{ActivePlan, Effect, Event, Exchange, ReservationId};
use engine::metric::Metric;
use engine::outbox::{CommitRoute, Outbox};
use expression::facts::Facts;
use llm::memory::MemoryBudget;
use llm::response::ResponseHead;
use policy::model::Policy;
use policy::plan::{BodyAccess, Plan};
use prost::Message;
use protocol::wire::envoy::service::ratelimit::v3::rate_limit_response::Code;
use protocol::wire::kuadrant::service::ratelimit::v1::{CommitRequest, RaisedHolds, ReserveResponse};
use serde_json::{Value, json};
use std::sync::Arc;

fn plan(limit: Value) -> Plan {
    let document = json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "TokenRateLimitPolicy", "metadata": {"name": "p"},
        "spec": {
            "targetRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
            "limits": {"free": limit},
        },
    });
    Plan::new(vec![Policy::read(&document).expect("a good policy")]).with_body(BodyAccess::Buffer(100_000))
}

fn cut() -> Value {
    json!({"rates": [{"limit": 1000, "window": "1h"}], "reservation": {"amount": "1"}, "overrun": "Cut"})
}

struct Stream {
    exchange: Exchange,
    outbox: Outbox,
    /// The effects of the request.
    asked: Vec<Effect>,
    /// The bytes that the client receives.
    got: Vec<u8>,
    cuts: usize,
    resets: usize,
}

impl Stream {
    fn new(limit: Value, path: &str, request: &Value, content_type: &str, encoding: &str) -> Self {
        Self::within(&MemoryBudget::default(), limit, path, request, content_type, encoding)
    }

    fn within(
        memory: &MemoryBudget,
        limit: Value,
        path: &str,
        request: &Value,
        content_type: &str,
        encoding: &str,
    ) -> Self {
        let id = ReservationId { prefix: "w".into(), number: 1 };
        let mut exchange = Exchange::new(ActivePlan::Plan(Arc::new(plan(limit))), id).within(memory);
        let mut facts = Facts::default();
        facts.header(":path", path.as_bytes());
        facts.header(":method", b"POST");
        facts.header("accept-encoding", b"gzip, identity;q=0");
        let body = request.to_string().into_bytes();
        exchange.handle(Event::Request { facts, bodiless: false });
        let asked = exchange.handle(Event::RequestBody { body: &body, end: true });
        let reply = ReserveResponse { code: Code::Ok.into(), ..ReserveResponse::default() };
        exchange.handle(Event::Reply(Ok(reply)));
        let (content_type, content_encoding) = (content_type.to_owned(), encoding.to_owned());
        let head = ResponseHead { status: 200, content_type, content_encoding, ..ResponseHead::default() };
        exchange.handle(Event::Response(head));
        Self { exchange, outbox: Outbox::new(1 << 20), asked, got: Vec::new(), cuts: 0, resets: 0 }
    }

    /// Passes a chunk through the exchange, which reads it.
    fn pass(&mut self, chunk: &[u8]) {
        let mut got = chunk.to_vec();
        if self.exchange.edits_body() {
            for effect in self.exchange.handle(Event::Passing { chunk, end: false }) {
                match effect {
                    Effect::ReplaceChunk(bytes) => got = bytes,
                    Effect::Count(Metric::StreamCut) => self.cuts += 1,
                    Effect::Reset => self.resets += 1,
                    Effect::Count(Metric::StreamReset) => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        self.got.extend(got);
        for effect in self.exchange.handle(Event::Body { chunk, end: false }) {
            match effect {
                Effect::Raise(raise) => assert!(self.outbox.raise(raise)),
                other => panic!("{other:?}"),
            }
        }
    }

    fn out_of_room(&mut self) {
        let effects = self.exchange.handle(Event::OutOfRoom);
        self.resets += effects.iter().filter(|effect| **effect == Effect::Reset).count();
    }

    fn asks_for_plain_bytes(&self) -> bool {
        self.asked.contains(&Effect::SetRequestHeader("accept-encoding", "identity"))
    }

    /// Returns what was raised since the last call.
    fn raised(&mut self) -> Vec<RaisedHolds> {
        let Some(commit) = self.outbox.send(CommitRoute::Stream, 0) else { return Vec::new() };
        self.outbox.answered(commit.number, Ok(Default::default()), 0);
        CommitRequest::decode(&*commit.message).unwrap().raised
    }

    fn totals(&mut self) -> Vec<u64> {
        let raised = self.raised().into_iter().flat_map(|raised| raised.descriptors);
        raised.map(|descriptor| descriptor.hits_addend.unwrap()).collect()
    }

    /// Ends the stream and returns its charge.
    fn end(mut self) -> u64 {
        let effects = self.exchange.handle(Event::Body { chunk: b"", end: true });
        for effect in effects {
            if let Effect::Commit(settlement) = effect {
                self.outbox.push(settlement);
            }
        }
        let commit = self.outbox.send(CommitRoute::Stream, 0).unwrap();
        CommitRequest::decode(&*commit.message).unwrap().descriptors[0].hits_addend.unwrap()
    }
}

const SSE: &str = "text/event-stream";

fn event(data: &Value) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

fn named(data: &Value) -> Vec<u8> {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()).into_bytes()
}

fn line(data: &Value) -> Vec<u8> {
    format!("{data}\n").into_bytes()
}

fn text() -> String {
    "four".repeat(200)
}

fn chat(delta: &str) -> Vec<u8> {
    event(&json!({
        "id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m",
        "choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": null}],
    }))
}

fn of_chat() -> Stream {
    let request =
        json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
    Stream::new(cut(), "/v1/chat/completions", &request, SSE, "")
}

/// Returns the documents at the end of a stream, after the given pieces.
fn ending(stream: &mut Stream, pieces: &[Vec<u8>]) -> Vec<Value> {
    for piece in pieces {
        stream.pass(piece);
    }
    assert!(!stream.raised().is_empty(), "nothing was raised");
    stream.exchange.handle(Event::OutOfRoom);
    let before = stream.got.len();
    // The chunk has two events. Not even the first one passes.
    let further = [pieces.last().unwrap().as_slice(), pieces.last().unwrap()].concat();
    stream.pass(&further);
    stream.pass(&further);
    assert_eq!(stream.cuts, 1);
    let tail = String::from_utf8(stream.got[before..].to_vec()).unwrap();
    let documents = tail.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    let documents = documents.filter(|line| !line.is_empty() && !line.starts_with("event: "));
    documents.map(|line| serde_json::from_str(line).unwrap_or_else(|_| line.into())).collect()
}

#[test]
fn holds_follow_what_is_delivered_in_steps() {
    let limit = json!({"rates": [
        {"limit": 1000, "window": "1h"}, {"limit": 1000, "window": "1h", "unit": "outputTokens", "cost": "usage.output * 2"},
    ], "reservation": {"amount": "10"}});
    let request = json!({"model": "m", "stream": true, "messages": []});
    let mut stream = Stream::new(limit, "/v1/chat/completions", &request, SSE, "");
    let mut steps = Vec::new();
    for _ in 0..1000 {
        stream.pass(&chat("four"));
        let totals = stream.totals();
        if !totals.is_empty() {
            steps.push(totals);
        }
    }
    assert!(steps.len() > 3 && steps.len() < 16, "{steps:?}");
    assert!(steps.is_sorted(), "{steps:?}");
    let last = steps.last().unwrap();
    assert!(last[0] >= 800 && last[1] >= 1600, "{steps:?}");
}

#[test]
fn an_estimate_that_suffices_is_never_raised() {
    let limit = json!({"rates": [{"limit": 100_000, "window": "1h"}], "overrun": "Cut"});
    let request = json!({"model": "m", "stream": true, "max_tokens": 5000, "messages": []});
    let mut stream = Stream::new(limit, "/v1/chat/completions", &request, SSE, "");
    for _ in 0..1000 {
        stream.pass(&chat("four"));
    }
    assert!(stream.totals().is_empty());
}

#[test]
fn a_chat_ends_with_its_length_its_usage_and_done() {
    let mut stream = of_chat();
    let documents = ending(&mut stream, &[chat(&text())]);
    let [last, usage, done] = documents.as_slice() else { panic!("{documents:?}") };
    assert_eq!((&last["id"], &last["model"], &last["created"]), (&json!("c1"), &json!("m"), &json!(7)));
    assert_eq!(last["choices"][0]["finish_reason"], "length");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(200)));
    assert_eq!(done, "[DONE]");
    // Usage that the provider reports after the cut is charged.
    stream.pass(&event(
        &json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 900, "total_tokens": 905}}),
    ));
    assert_eq!(stream.end(), 905);
}

#[test]
fn a_cut_comes_at_the_end_of_an_event_wherever_the_pieces_are_split() {
    for separator in ["\n", "\r\n", "\r"] {
        let whole: Vec<u8> = (0..8).flat_map(|_| chat(&"four".repeat(60))).collect();
        let whole = String::from_utf8(whole).unwrap().replace('\n', separator).into_bytes();
        for size in [1, 2, 3, 7, 100, 311] {
            let mut stream = of_chat();
            for piece in whole.chunks(size) {
                stream.pass(piece);
                if !stream.raised().is_empty() {
                    stream.exchange.handle(Event::OutOfRoom);
                }
            }
            assert_eq!(stream.cuts, 1, "{separator:?} {size}");
            let got = String::from_utf8(stream.got).unwrap().replace("\r\n", "\n").replace('\r', "\n");
            assert!(got.ends_with("data: [DONE]\n\n"), "{separator:?} {size}: {got}");
            for document in got.lines().filter_map(|line| line.strip_prefix("data: ")) {
                assert!(
                    document == "[DONE]" || serde_json::from_str::<Value>(document).is_ok(),
                    "{document}"
                );
            }
        }
    }
}

#[test]
fn what_has_ended_itself_is_left_alone() {
    let mut stream = of_chat();
    stream.pass(&chat(&text()));
    stream.exchange.handle(Event::OutOfRoom);
    let end = event(
        &json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    );
    // The current event already ends the stream.
    let mut stream = of_chat();
    stream.pass(&chat(&text()));
    stream.pass(&end);
    stream.exchange.handle(Event::OutOfRoom);
    stream.pass(b"data: [DONE]\n\n");
    assert_eq!(stream.cuts, 0);
    assert!(stream.got.ends_with(b"data: [DONE]\n\n"));
}

#[test]
fn who_may_be_cut_asks_for_a_response_that_is_not_compressed_whatever_the_client_wants() {
    let request = json!({"model": "m", "stream": true, "messages": []});
    let asks = |limit| Stream::new(limit, "/v1/messages", &request, SSE, "").asks_for_plain_bytes();
    assert!(asks(cut()));
    let mut limit = cut();
    limit["overrun"] = "Continue".into();
    assert!(!asks(limit));
    let mut dry_run = cut();
    dry_run["enforceWhen"] = "false".into();
    assert!(!asks(dry_run), "a dry run changes nothing");
    let whole = json!({"model": "m", "messages": []});
    assert!(!Stream::new(cut(), "/v1/messages", &whole, SSE, "").asks_for_plain_bytes());
    let lenient = json!({"model": "m", "stream": "true", "messages": []});
    assert!(Stream::new(cut(), "/v1/messages", &lenient, SSE, "").asks_for_plain_bytes());
}

#[test]
fn a_stream_that_nobody_can_end_properly_is_reset() {
    let request =
        json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}, "messages": []});
    for (content_type, encoding) in [(SSE, "gzip"), (SSE, "x-unknown"), ("application/json", "br")] {
        let mut stream = Stream::new(cut(), "/v1/chat/completions", &request, content_type, encoding);
        stream.pass(&chat(&text()));
        let raised = stream.raised();
        assert!(!raised.is_empty(), "{encoding}");
        assert!(raised.iter().all(|raised| raised.descriptors.iter().all(|one| !one.unenforced)));
        stream.out_of_room();
        assert_eq!(stream.resets, 1, "{content_type} {encoding}");
        stream.pass(&chat(&text()));
        assert_eq!((stream.resets, stream.got.len()), (1, chat(&text()).len()));
        // The delivered output is charged.
        stream.exchange.handle(Event::OutOfRoom);
    }
    // The stream has events of an unknown API, and its first event has not ended yet.
    for (content_type, separator) in [(SSE, "\n\n"), ("text/plain", "\n\n"), ("application/x-ndjson", "\n")] {
        let mut stream = Stream::new(cut(), "/v1/chat/completions", &request, content_type, "");
        let data = if separator == "\n" { "" } else { "data: " };
        let unknown = format!("{data}{}{separator}", json!({"answer": text()}));
        let (begin, end) = unknown.split_at(unknown.len() - 2);
        stream.pass(begin.as_bytes());
        stream.out_of_room();
        assert_eq!(stream.resets, 0);
        stream.pass(end.as_bytes());
        stream.pass(unknown.as_bytes());
        assert_eq!((stream.cuts, stream.resets), (0, 1), "{content_type}");
        assert!(stream.got.len() < unknown.len(), "nothing passes once it is reset");
    }
}

#[test]
fn a_single_document_is_never_cut() {
    let request = json!({"model": "m", "stream": true, "messages": []});
    let pretty =
        serde_json::to_string_pretty(&json!({"choices": [{"message": {"content": text()}}]})).unwrap();
    for body in [pretty, json!({"choices": [{"message": {"content": text()}}]}).to_string()] {
        let mut stream =
            Stream::new(cut(), "/v1/chat/completions", &request, "application/json; charset=utf-8", "");
        for piece in body.as_bytes().chunks(100) {
            stream.pass(piece);
            for raised in stream.raised() {
                assert!(raised.descriptors.iter().all(|descriptor| descriptor.unenforced));
            }
            assert!(stream.exchange.handle(Event::OutOfRoom).is_empty());
        }
        assert_eq!((stream.cuts, stream.resets, stream.got), (0, 0, body.into_bytes()));
    }
}

#[test]
fn a_stream_is_recognised_whatever_its_content_type_says() {
    let request = json!({"model": "m", "stream": true, "messages": []});
    for content_type in ["", "text/plain", "application/octet-stream"] {
        let mut stream = Stream::new(cut(), "/v1/chat/completions", &request, content_type, "");
        let documents = ending(&mut stream, &[chat(&text())]);
        assert_eq!(documents.last().unwrap(), "[DONE]", "{content_type}");
    }
    let nameless = event(&json!({"choices": [{"index": 0, "delta": {"content": text()}}]}));
    let mut stream = of_chat();
    assert_eq!(ending(&mut stream, &[nameless])[0]["choices"][0]["finish_reason"], "length");
    // JSON lines, sent with the content type of a document.
    let part =
        line(&json!({"model": "m", "created_at": "now", "message": {"content": text()}, "done": false}));
    let mut stream = Stream::new(cut(), "/api/chat", &request, "application/json", "");
    assert_eq!(ending(&mut stream, &[part])[0]["done_reason"], "length");
}

#[test]
fn a_stream_in_the_form_of_an_array_stays_one_wherever_it_is_split() {
    let part = json!({
        "candidates": [{"content": {"parts": [{"text": format!("[{{\\\",]}}{}", "four".repeat(60))}]}}],
        "modelVersion": "m",
    });
    let whole = format!("\r\n[{}\n]", vec![serde_json::to_string_pretty(&part).unwrap(); 8].join("\n,\r\n"));
    for size in [1, 2, 3, 7, 100, 311, 700] {
        let path = "/v1beta/models/m:streamGenerateContent";
        let mut stream =
            Stream::new(cut(), path, &json!({"contents": []}), "application/json; charset=UTF-8", "");
        let mut asked = false;
        for piece in whole.as_bytes().chunks(size) {
            stream.pass(piece);
            let raised = stream.raised();
            // Until the body's form is known, it may be a single document, which is never cut.
            let may_cut = raised.iter().any(|raised| raised.descriptors.iter().any(|one| !one.unenforced));
            if may_cut && !std::mem::replace(&mut asked, true) {
                stream.out_of_room();
            }
        }
        assert_eq!((stream.cuts, stream.resets), (1, 0), "{size}");
        let parts: Vec<Value> = serde_json::from_slice(&stream.got)
            .unwrap_or_else(|error| panic!("{size}: {error}: {}", String::from_utf8_lossy(&stream.got)));
        let (last, passed) = parts.split_last().unwrap();
        assert_eq!(last["candidates"][0]["finishReason"], "MAX_TOKENS");
        assert!(!passed.is_empty() && passed.len() < 8 && passed.iter().all(|passed| *passed == part));
    }
}

#[test]
fn what_is_looked_at_is_within_the_budget() {
    // Sixty thousand bytes that take millions of bytes when parsed into a tree.
    let bomb = event(&json!({
        "object": "chat.completion.chunk", "choices": [], "x": vec![json!({"": 0}); 8000],
    }));
    let request = json!({"model": "m", "stream": true, "messages": []});
    let path = "/v1/chat/completions";
    let memory = MemoryBudget::new(64 << 20);
    let mut stream = Stream::within(&memory, cut(), path, &request, SSE, "");
    stream.pass(&bomb);
    assert!(memory.peak() > bomb.len() * 8, "the tree is counted");
    assert!(memory.peak() < 2 << 20, "{}", memory.peak());
    // The event does not reveal its API, so the API counts as unknown.
    stream.pass(&event(&json!({"answer": text()})));
    stream.out_of_room();
    stream.pass(&event(&json!({"answer": text()})));
    assert_eq!(stream.resets, 1);
}

#[test]
fn each_api_s_stream_ends_as_at_its_maximum() {
    let open = |path: &str, content_type: &str| {
        let request = json!({"model": "m", "stream": true, "messages": [], "prompt": "x", "input": "x"});
        Stream::new(cut(), path, &request, content_type, "")
    };
    let completion = event(&json!({
        "id": "t1", "object": "text_completion", "created": 7, "model": "m",
        "choices": [{"index": 0, "text": text(), "finish_reason": null}],
    }));
    let told = ending(&mut open("/v1/completions", SSE), &[completion]);
    assert_eq!(
        (&told[0]["choices"][0]["finish_reason"], told.last()),
        (&json!("length"), Some(&json!("[DONE]")))
    );

    let created = named(&json!({"type": "response.created", "sequence_number": 0, "response": {
        "id": "resp_1", "object": "response", "created_at": 7, "model": "m", "status": "in_progress",
    }}));
    let delta = named(&json!({"type": "response.output_text.delta", "sequence_number": 1, "delta": text()}));
    let told = ending(&mut open("/v1/responses", SSE), &[created, delta]);
    assert_eq!((&told[0]["type"], &told[0]["sequence_number"]), (&json!("response.incomplete"), &json!(2)));
    let response = &told[0]["response"];
    assert_eq!((&response["id"], &response["status"]), (&json!("resp_1"), &json!("incomplete")));
    assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");

    let start = named(&json!({"type": "message_start", "message": {
        "id": "msg_1", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1},
    }}));
    let block = named(
        &json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
    );
    let delta = named(
        &json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text()}}),
    );
    let told = ending(&mut open("/v1/messages", SSE), &[start, block, delta]);
    let kinds: Vec<_> = told.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(told[1]["delta"]["stop_reason"], "max_tokens");
    assert!(told[1]["usage"]["output_tokens"].as_u64().unwrap() >= 200);

    let part = event(
        &json!({"candidates": [{"content": {"parts": [{"text": text()}]}}], "modelVersion": "m", "responseId": "g1"}),
    );
    let path = "/v1beta/models/m:streamGenerateContent?alt=sse";
    let told = ending(&mut open(path, SSE), &[part]);
    assert_eq!(
        (&told[0]["candidates"][0]["finishReason"], &told[0]["responseId"]),
        (&json!("MAX_TOKENS"), &json!("g1"))
    );
    assert_eq!(told[0]["usageMetadata"]["candidatesTokenCount"], 200);

    let start = named(&json!({"type": "message-start", "id": "co1"}));
    let block = named(
        &json!({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
    );
    let delta = named(
        &json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text()}}}}),
    );
    let told = ending(&mut open("/v2/chat", SSE), &[start, block, delta]);
    assert_eq!((&told[0]["type"], &told[1]["type"]), (&json!("content-end"), &json!("message-end")));
    assert_eq!(told[1]["delta"]["finish_reason"], "MAX_TOKENS");

    let part = line(
        &json!({"model": "m", "created_at": "now", "message": {"role": "assistant", "content": text()}, "done": false}),
    );
    let told = ending(&mut open("/api/chat", "application/x-ndjson"), &[part]);
    assert_eq!((&told[0]["done"], &told[0]["done_reason"]), (&json!(true), &json!("length")));
    assert_eq!(told[0]["message"]["content"], "");
    let part = line(&json!({"model": "m", "created_at": "now", "response": text(), "done": false}));
    let told = ending(&mut open("/api/generate", "application/x-ndjson"), &[part]);
    assert_eq!((&told[0]["response"], &told[0]["eval_count"]), (&json!(""), &json!(200)));
}

fn crc(bytes: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|byte| {
            (0..8).fold(byte, |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 })
        })
        .collect();
    !bytes.iter().fold(u32::MAX, |sum, byte| (sum >> 8) ^ table[((sum ^ u32::from(*byte)) & 0xFF) as usize])
}

fn frame(kind: &str, payload: &Value) -> Vec<u8> {
    let mut headers = vec![11];
    headers.extend_from_slice(b":event-type");
    headers.push(7);
    headers.extend((kind.len() as u16).to_be_bytes());
    headers.extend_from_slice(kind.as_bytes());
    let payload = payload.to_string();
    let mut frame = ((headers.len() + payload.len() + 16) as u32).to_be_bytes().to_vec();
    frame.extend((headers.len() as u32).to_be_bytes());
    frame.extend(crc(&frame).to_be_bytes());
    frame.extend(headers);
    frame.extend(payload.as_bytes());
    frame.extend(crc(&frame).to_be_bytes());
    frame
}

#[test]
fn a_converse_stream_ends_with_frames_whose_checksums_are_right() {
    for size in [1, 5, 64, 10_000] {
        let request = json!({"messages": []});
        let path = "/model/m/converse-stream";
        let mut stream = Stream::new(cut(), path, &request, "application/vnd.amazon.eventstream", "");
        let delta = frame("contentBlockDelta", &json!({"contentBlockIndex": 0, "delta": {"text": text()}}));
        let all = [frame("messageStart", &json!({"role": "assistant"})), delta.clone(), delta.clone(), delta]
            .concat();
        for piece in all.chunks(size) {
            stream.pass(piece);
            if !stream.raised().is_empty() {
                stream.exchange.handle(Event::OutOfRoom);
            }
        }
        if size == 10_000 {
            // The stream came in one chunk, and is read after that has passed.
            stream.pass(&all);
        }
        assert_eq!(stream.cuts, 1, "{size}");
        let (mut rest, mut kinds) = (stream.got.as_slice(), Vec::new());
        while !rest.is_empty() {
            let total = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            let (frame, after) = rest.split_at(total);
            assert_eq!(crc(&frame[..8]).to_be_bytes(), frame[8..12]);
            assert_eq!(crc(&frame[..total - 4]).to_be_bytes(), frame[total - 4..]);
            let text = String::from_utf8_lossy(frame).into_owned();
            let known = ["messageStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"];
            kinds.push(*known.iter().find(|kind| text.contains(*kind)).unwrap());
            if text.contains("messageStop") {
                assert!(text.contains(r#""stopReason":"max_tokens""#));
            }
            rest = after;
        }
        assert!(kinds.ends_with(&["contentBlockStop", "messageStop", "metadata"]), "{kinds:?}");
    }
}
