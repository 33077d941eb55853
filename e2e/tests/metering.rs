//! Plays the exchanges in `metering/` through a real Envoy at one gateway. Each one must be charged
//! correctly, and the client must receive the upstream's bytes, except for a usage chunk that it did not
//! request. Each exchange is played as recorded, in two pieces, and compressed. `cargo test -p engine --test
//! metering` splits each exchange at every byte.

use e2e::client::{Request, Response};
use e2e::metering::{COUNTS, MeteredExchange};
use e2e::upstream::{Answer, Gate};
use e2e::wait;
use e2e::world::{World, policy};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

/// Returns a policy with one rate for each of [`COUNTS`], and a bucket for each way to play an exchange.
fn limits() -> Value {
    let limit = |name: &&str| {
        let rate = match *name {
            "total" => json!({ "limit": 1_000_000_000, "window": "1h" }),
            "input" | "output" => {
                json!({ "limit": 1_000_000_000, "window": "1h", "unit": format!("{name}Tokens") })
            }
            name => json!({ "limit": 1_000_000_000, "window": "1h", "cost": format!("usage.{name}") }),
        };
        let counters = json!([{ "expression": "request.headers['x-case']" }]);
        ((*name).to_lowercase(), json!({ "counters": counters, "rates": [rate] }))
    };
    COUNTS.iter().map(limit).collect::<Map<_, _>>().into()
}

/// The ways to play an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    AsRecorded,
    InTwo,
    Compressed,
}

impl Delivery {
    fn all(exchange: &MeteredExchange) -> &'static [Self] {
        let is_plain = !exchange.headers.contains_key("content-encoding");
        // An empty body is no gzip.
        let has_body = !exchange.chunks().concat().is_empty();
        match is_plain && has_body && !exchange.cut && exchange.hangup_after.is_none() {
            true => &[Self::AsRecorded, Self::InTwo, Self::Compressed],
            false => &[Self::AsRecorded],
        }
    }

    fn bucket(self, exchange: &MeteredExchange) -> String {
        format!("{} {self:?}", exchange.name)
    }
}

/// Plays an exchange in one way. Returns the bytes that the upstream sent, and the client's response.
fn play(world: &World, exchange: &MeteredExchange, delivery: Delivery) -> (Vec<u8>, Response) {
    let bucket = delivery.bucket(exchange);
    let mut request = Request::new(&exchange.method, &exchange.path).header("x-case", &bucket);
    if let Some(body) = exchange.sent() {
        if !exchange.request_headers.contains_key("content-type") {
            request = request.header("content-type", "application/json");
        }
        request = request.body(body);
    }
    for (name, value) in exchange.request_headers.iter().filter(|(name, _)| *name != "content-length") {
        request = request.header(name, value);
    }
    let mut answer = Answer::new(exchange.status);
    for (name, value) in exchange.headers.iter().filter(|(name, _)| *name != "content-length") {
        answer = answer.header(name, value);
    }
    let (whole, gate) = (exchange.chunks().concat(), Gate::default());
    let sent = match delivery {
        Delivery::Compressed => gzip(&whole),
        Delivery::AsRecorded | Delivery::InTwo => whole,
    };
    answer = match delivery {
        Delivery::AsRecorded => exchange.chunks().into_iter().fold(answer, Answer::bytes),
        Delivery::InTwo => {
            let (first, second) = sent.split_at(sent.len() * 7 / 16);
            let answer = if first.is_empty() { answer } else { answer.bytes(first).wait(&gate) };
            if second.is_empty() { answer } else { answer.bytes(second) }
        }
        Delivery::Compressed => answer.header("content-encoding", "gzip").bytes(sent.clone()),
    };
    if exchange.hangup_after.is_some() {
        answer = answer.wait(&gate);
    } else if exchange.cut {
        answer = answer.close();
    } else if !exchange.trailers.is_empty() {
        let trailers: Vec<_> =
            exchange.trailers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        answer = answer.trailers(&trailers);
    }
    world.upstream.on(&bucket, answer);
    let mut in_flight = world.open(&request.answered_by(&bucket));
    if exchange.hangup_after.is_some() {
        in_flight.body_of(sent.len());
        in_flight.hang_up();
        gate.open();
        let (headers, trailers) = Default::default();
        let finished = std::time::Instant::now();
        let status = exchange.status;
        return (sent.clone(), Response { status, headers, body: sent, trailers, cut: None, finished });
    }
    if delivery == Delivery::InTwo {
        in_flight.head();
        // The split may be anywhere, as long as the second piece is not read together with the first.
        std::thread::sleep(Duration::from_millis(1));
        gate.open();
    }
    (sent, in_flight.finish())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("compressing");
    encoder.finish().expect("compressing")
}

/// Returns whether the client received the upstream's bytes, except for usage events that it did not request.
fn is_unchanged(exchange: &MeteredExchange, sent: &[u8], got: &[u8]) -> bool {
    if sent == got {
        return true;
    }
    let asks = exchange.body.pointer("/stream_options/include_usage") == Some(&Value::Bool(true));
    let (sent, got) = (String::from_utf8_lossy(sent), String::from_utf8_lossy(got));
    let mut got = got.split("\n\n").peekable();
    let missing = sent.split("\n\n").filter(|event| got.next_if_eq(event).is_none());
    let missing: Vec<&str> = missing.collect();
    !asks && got.next().is_none() && missing.iter().all(|event| event.contains("\"usage\""))
}

/// Plays exchanges at a gateway, and returns all errors.
fn wrong(world: &World, exchanges: &[MeteredExchange]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut played = Vec::new();
    for exchange in exchanges {
        for delivery in Delivery::all(exchange) {
            for _ in 0..exchange.times {
                let (sent, response) = play(world, exchange, *delivery);
                let is_whole = response.cut.is_none() || exchange.cut;
                if response.status != exchange.status || !is_whole {
                    wrong.push(format!("{} {delivery:?}: {response:?}", exchange.name));
                } else if !is_unchanged(exchange, &sent, &response.body) {
                    let text = response.text();
                    wrong.push(format!("{} {delivery:?}: the client got {text}", exchange.name));
                }
            }
            played.push((exchange, *delivery));
        }
    }
    // Exchanges are charged after their responses, and in order.
    wait::within(wait::DEADLINE, || mischarged(world, &played).is_empty().then_some(()));
    wrong.extend(mischarged(world, &played));
    wrong
}

fn mischarged(world: &World, played: &[(&MeteredExchange, Delivery)]) -> Vec<String> {
    let mut charged: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for counter in world.adapter.counters() {
        let count = COUNTS.iter().find(|name| name.to_lowercase() == counter.limit).expect("a limit of ours");
        let bucket = counter.counters.into_values().next().unwrap_or_default();
        *charged.entry(bucket).or_default().entry(count).or_default() += counter.used;
    }
    let none = COUNTS.iter().map(|name| (*name, 0)).collect();
    let found = |(exchange, delivery): &(&MeteredExchange, Delivery)| {
        let mut all: BTreeMap<&str, u64> = BTreeMap::clone(&none);
        all.extend(
            charged.get(&delivery.bucket(exchange)).into_iter().flatten().map(|(name, used)| (*name, *used)),
        );
        let right = &exchange.right;
        (!exchange.fits(&all))
            .then(|| format!("{} {delivery:?}: charged {all:?} instead of {right:?}", exchange.name))
    };
    played.iter().filter_map(found).collect()
}

#[test]
fn each_exchange_is_charged_what_it_used_and_reaches_its_client_unchanged() {
    let (buffered, unread): (Vec<_>, Vec<_>) =
        MeteredExchange::all().into_iter().partition(|exchange| exchange.access.as_deref() != Some("None"));
    let document = policy("llm", json!({ "limits": limits() }));
    let world = World::build().policy(&document).reading_bodies(1 << 20).start();
    let mut wrong_ones = wrong(&world, &buffered);
    drop(world);
    let world = World::build().policy(&document).start();
    wrong_ones.extend(wrong(&world, &unread));
    assert!(wrong_ones.is_empty(), "{} are wrong:\n{}", wrong_ones.len(), wrong_ones.join("\n"));
}
