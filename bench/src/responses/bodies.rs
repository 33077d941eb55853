//! The responses, and the upstream that sends them and records the send times.

use crate::message;
use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The pause between two events of a stream.
pub const PAUSE: Duration = Duration::from_millis(1);
/// The delay before a response when throughput is not measured. In this time, the proxy finishes its work on the
/// request.
pub const THINKING: Duration = Duration::from_millis(2);
/// The number of events in each stream.
pub const EVENTS: usize = 200;
const PROSE: &str = "A weir is a low wall across a river. It holds the flow back, lets through what may pass, and measures it. ";

/// A response.
pub struct Body {
    pub name: String,
    pub encoding: &'static str,
    pub is_stream: bool,
    /// The uncompressed size in bytes.
    pub plain: usize,
    head: Vec<u8>,
    pieces: Vec<Vec<u8>>,
}

/// The upstream, and the data that it shares with the clients.
pub struct Stage {
    pub address: SocketAddr,
    pub bodies: Vec<Body>,
    epoch: Instant,
    /// When the first and the last piece were sent, in nanoseconds, by the client's number.
    sent: Vec<[AtomicU64; 2]>,
    /// While this is true, streams wait between their events.
    held: (Mutex<bool>, Condvar),
    waiting: AtomicUsize,
}

/// Returns every body, uncompressed and compressed.
pub fn all() -> Result<Vec<Body>> {
    let mut bodies = Vec::new();
    for encoding in ["", "gzip"] {
        for (name, events, is_stream) in [
            ("responses: 1.2 kB JSON", vec![message::completion(&PROSE.repeat(8))], false),
            ("responses: 1 MB JSON", vec![message::completion(&PROSE.repeat(9_600))], false),
            ("responses: stream of 200 chunks", events(), true),
        ] {
            bodies.push(Body::new(name, encoding, &events, is_stream)?);
        }
    }
    Ok(bodies)
}

impl Body {
    fn new(name: &str, encoding: &'static str, events: &[String], is_stream: bool) -> Result<Self> {
        let plain = events.iter().map(String::len).sum();
        let bytes = pieces(events, encoding)?;
        let content_type = if is_stream { "text/event-stream" } else { "application/json" };
        let mut head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n");
        if !encoding.is_empty() {
            head.push_str(&format!("content-encoding: {encoding}\r\n"));
        }
        match bytes.first() {
            Some(body) if !is_stream => head.push_str(&format!("content-length: {}\r\n\r\n", body.len())),
            _ => head.push_str("transfer-encoding: chunked\r\n\r\n"),
        }
        let name = if encoding.is_empty() { name.to_owned() } else { format!("{name}, {encoding}") };
        let pieces = if is_stream { chunked(bytes) } else { bytes };
        Ok(Self { name, encoding, is_stream, plain, head: head.into_bytes(), pieces })
    }
}

fn events() -> Vec<String> {
    let chunk = |choices: serde_json::Value, usage: serde_json::Value| {
        let chunk = serde_json::json!({
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": "gpt-4o",
            "system_fingerprint": "fp_1",
            "choices": choices,
            "usage": usage
        });
        format!("data: {chunk}\n\n")
    };
    let words = PROSE.split_inclusive(' ').cycle().take(EVENTS);
    let mut events: Vec<String> = words
        .map(|word| {
            let choice =
                serde_json::json!({ "index": 0, "delta": { "content": word }, "finish_reason": null });
            chunk(serde_json::json!([choice]), serde_json::Value::Null)
        })
        .collect();
    let usage =
        serde_json::json!({ "prompt_tokens": 40, "completion_tokens": EVENTS, "total_tokens": 40 + EVENTS });
    events.push(chunk(serde_json::json!([]), usage));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// Compresses the events so that each one can be decompressed as soon as it arrives.
fn pieces(events: &[String], encoding: &str) -> Result<Vec<Vec<u8>>> {
    if encoding.is_empty() {
        return Ok(events.iter().map(|event| event.clone().into_bytes()).collect());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut pieces = Vec::new();
    for (at, event) in events.iter().enumerate() {
        encoder.write_all(event.as_bytes())?;
        if at + 1 < events.len() {
            encoder.flush()?;
            pieces.push(std::mem::take(encoder.get_mut()));
        } else {
            encoder.try_finish()?;
            pieces.push(std::mem::take(encoder.get_mut()));
        }
    }
    Ok(pieces)
}

fn chunked(pieces: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let last = pieces.len().saturating_sub(1);
    let chunk = |(at, piece): (usize, Vec<u8>)| {
        let end: &[u8] = if at == last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
        [format!("{:x}\r\n", piece.len()).as_bytes(), &piece[..], end].concat()
    };
    pieces.into_iter().enumerate().map(chunk).collect()
}

impl Stage {
    /// Serves until the program ends.
    pub fn start(bodies: Vec<Body>) -> Result<Arc<Self>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stage = Arc::new(Self {
            address: listener.local_addr()?,
            bodies,
            epoch: Instant::now(),
            sent: (0..crate::responses::OPEN_STREAMS).map(|_| Default::default()).collect(),
            held: Default::default(),
            waiting: AtomicUsize::default(),
        });
        let own = Arc::clone(&stage);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stage = Arc::clone(&own);
                thread::spawn(move || stage.serve(stream));
            }
        });
        Ok(stage)
    }

    /// Returns the time since the first or the last piece was sent to the client with this number.
    pub fn since_sent(&self, client: usize, piece: usize, now: Instant) -> Duration {
        let sent = self.sent.get(client).and_then(|sent| sent.get(piece));
        let sent = sent.map_or(0, |sent| sent.load(Ordering::SeqCst));
        now.duration_since(self.epoch).saturating_sub(Duration::from_nanos(sent))
    }

    /// Sets whether streams stop halfway.
    pub fn hold(&self, held: bool) {
        *self.held.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
        self.held.1.notify_all();
    }

    /// Returns the number of streams that have stopped halfway.
    pub fn held(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = message::Reader::new(stream.try_clone()?);
        while let Some(head) = reader.next()? {
            let header = |name: &str| {
                let mut fields = head.lines().filter_map(|line| line.split_once(": "));
                fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            };
            let body = self.bodies.iter().find(|body| Some(body.name.as_str()) == header("x-answer"));
            let client = header("x-client").and_then(|client| client.parse().ok()).unwrap_or(0);
            let body = body.ok_or_else(|| io::Error::other("no such answer"))?;
            if header("x-think").is_some() {
                thread::sleep(THINKING);
            }
            self.answer(&mut stream, body, client)?;
        }
        Ok(())
    }

    fn answer(&self, stream: &mut TcpStream, body: &Body, client: usize) -> io::Result<()> {
        for (at, piece) in body.pieces.iter().enumerate() {
            if at > 0 {
                thread::sleep(PAUSE);
            }
            if at == body.pieces.len() / 2 && body.is_stream {
                let held = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
                self.waiting.fetch_add(1, Ordering::SeqCst);
                drop(self.held.1.wait_while(held, |held| *held));
                self.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            if at == 0 {
                self.note(client, 0);
            }
            if at + 1 == body.pieces.len() {
                self.note(client, 1);
            }
            if at == 0 {
                stream.write_all(&[&body.head[..], piece].concat())?;
            } else {
                stream.write_all(piece)?;
            }
        }
        Ok(())
    }

    fn note(&self, client: usize, piece: usize) {
        if let Some(sent) = self.sent.get(client).and_then(|sent| sent.get(piece)) {
            let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
            sent.store(now, Ordering::SeqCst);
        }
    }
}
