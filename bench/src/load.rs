//! Clients that send requests in a closed loop or at a fixed rate.

use crate::message;
use anyhow::{Context, Result, bail};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The number of concurrent connections.
pub const CONNECTIONS: u32 = 16;

/// A connection that repeats the same request.
struct Client {
    stream: TcpStream,
    reader: message::Reader,
    request: Vec<u8>,
}

impl Client {
    fn new(address: SocketAddr, request: &[u8]) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let reader = message::Reader::new(stream.try_clone()?);
        Ok(Self { stream, reader, request: request.to_vec() })
    }

    /// Sends the request and returns the head of the response, which must be a success.
    fn exchange(&mut self) -> Result<String> {
        self.stream.write_all(&self.request)?;
        let head = self.reader.next()?.context("Envoy closed the connection")?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("the answer is not 200: {head}");
        }
        Ok(head)
    }
}

/// Returns a chat completion request from alice with a body of 560 bytes.
fn request() -> Vec<u8> {
    let text = "What does a weir do to a river? ".repeat(14);
    let mut body = serde_json::json!({
        "model": "gpt-4o",
        "messages": [{ "role": "user", "content": text }],
        "max_tokens": 60
    })
    .to_string();
    while body.len() < 560 {
        body.push(' ');
    }
    with_headers(body.as_bytes())
}

/// Returns a request from alice with this body.
pub fn with_headers(body: &[u8]) -> Vec<u8> {
    let headers = [
        ("host", "llm.example"),
        ("content-type", "application/json"),
        ("user-agent", "bench"),
        ("x-identity", r#"{"userid":"alice","group":"free"}"#),
    ];
    message::encode("POST /v1/chat/completions HTTP/1.1", &headers, body)
}

/// Sends one request and returns the head of the response.
pub fn once(address: SocketAddr) -> Result<String> {
    Client::new(address, &request())?.exchange()
}

/// Runs `measure` while every connection sends its next request as soon as it has its response. Returns the result of
/// `measure`, and counts the responses in `answers`.
pub fn closed<T>(address: SocketAddr, measure: impl FnOnce(&AtomicU64) -> Result<T>) -> Result<T> {
    closed_with(address, &request(), measure)
}

/// Does the same with this request.
pub fn closed_with<T>(
    address: SocketAddr,
    request: &[u8],
    measure: impl FnOnce(&AtomicU64) -> Result<T>,
) -> Result<T> {
    let (answers, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let run = || -> Result<()> {
            let mut client = Client::new(address, request)?;
            while !stop.load(Ordering::Relaxed) {
                client.exchange()?;
                answers.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(run)).collect();
        let measured = measure(&answers);
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().try_for_each(joined)?;
        measured
    })
}

/// Measures the latencies at this many requests per second. If a connection is still waiting when a request is due, the
/// latency includes the delay.
pub fn fixed(address: SocketAddr, rate: u32, time: Duration) -> Result<Vec<Duration>> {
    let step = Duration::from_secs(1) * CONNECTIONS / rate;
    let begin = Instant::now() + Duration::from_millis(20);
    let run = |index: u32| -> Result<Vec<Duration>> {
        let mut client = Client::new(address, &request())?;
        let mut taken = Vec::new();
        let mut due = begin + step * index / CONNECTIONS;
        while due < begin + time {
            let now = Instant::now();
            let start = if now < due {
                thread::sleep(due - now);
                Instant::now()
            } else {
                due
            };
            client.exchange()?;
            taken.push(start.elapsed());
            due += step;
        }
        Ok(taken)
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS).map(|index| scope.spawn(move || run(index))).collect();
        clients.into_iter().map(joined).collect::<Result<Vec<_>>>().map(|taken| taken.concat())
    })
}

fn joined<T>(client: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    client.join().unwrap_or_else(|_| bail!("a client panicked"))
}
