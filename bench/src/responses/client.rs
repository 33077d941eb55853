//! Clients that record when the first and the last byte of a body arrive.

use super::bodies::{Body, Stage};
use crate::message;
use anyhow::{Result, bail};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// The delay between the first requests of two clients: about a quarter of a stream.
const STAGGER: Duration = Duration::from_millis(53);

/// The times of one response.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The time from the upstream's first piece to the first byte of the body.
    pub first: Duration,
    /// The time from the upstream's last piece to the last byte.
    pub last: Duration,
    /// The time from the request to the first byte of the body.
    pub asked: Duration,
}

struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    /// The recent bytes of the current response.
    received: Vec<u8>,
    number: usize,
}

impl Client {
    fn new(address: SocketAddr, body: &Body, number: usize, think: bool) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = request(body, number, think);
        Ok(Self { stream, request, buffer: vec![0; 256 << 10], received: Vec::new(), number })
    }

    /// Sends the request and reads the head and the beginning of the body. Returns the head, the time, and the missing
    /// length of the body if it is known.
    fn begin(&mut self) -> Result<(String, Instant, Option<usize>)> {
        self.received.clear();
        self.stream.write_all(&self.request)?;
        loop {
            let now = self.read()?;
            let end = self.received.windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end.filter(|end| self.received.len() > end + 4) else { continue };
            let head = String::from_utf8_lossy(self.received.get(..end).unwrap_or_default()).into_owned();
            if !head.starts_with("HTTP/1.1 200") {
                bail!("the answer is not 200: {head}");
            }
            self.received.drain(..end + 4);
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let length = length.map(str::parse::<usize>).transpose()?;
            return Ok((head, now, length));
        }
    }

    fn read(&mut self) -> Result<Instant> {
        let count = self.stream.read(&mut self.buffer)?;
        if count == 0 {
            bail!("Envoy closed the connection");
        }
        self.received.extend_from_slice(self.buffer.get(..count).unwrap_or_default());
        Ok(Instant::now())
    }

    /// Reads the rest of the body, and returns when its last byte arrived.
    fn end(&mut self, mut now: Instant, length: Option<usize>) -> Result<Instant> {
        let mut passed = 0;
        let is_over = |passed: usize, tail: &[u8]| match length {
            Some(length) => passed + tail.len() >= length,
            None => tail.ends_with(b"\r\n0\r\n\r\n"),
        };
        while !is_over(passed, &self.received) {
            let done = self.received.len().saturating_sub(7);
            passed += done;
            self.received.drain(..done);
            now = self.read()?;
        }
        Ok(now)
    }

    fn exchange(&mut self, stage: &Stage) -> Result<Sample> {
        let asked = Instant::now();
        let (_, began, length) = self.begin()?;
        let ended = self.end(began, length)?;
        Ok(Sample {
            first: stage.since_sent(self.number, 0, began),
            last: stage.since_sent(self.number, 1, ended),
            asked: began - asked,
        })
    }
}

/// Returns a chat completion request of about 300 bytes from alice.
fn request(body: &Body, client: usize, think: bool) -> Vec<u8> {
    let request = serde_json::json!({
        "model": "gpt-4o",
        "messages": [{ "role": "user", "content": "What does a weir do to a river? ".repeat(6) }],
        "max_tokens": 60,
        "stream": body.is_stream
    });
    let client = client.to_string();
    let mut headers = vec![
        ("host", "llm.example"),
        ("content-type", "application/json"),
        ("user-agent", "bench"),
        ("accept-encoding", "gzip"),
        ("x-identity", r#"{"userid":"alice","group":"free"}"#),
        ("x-answer", &body.name),
        ("x-client", &client),
    ];
    if think {
        headers.push(("x-think", "yes"));
    }
    message::encode("POST /v1/chat/completions HTTP/1.1", &headers, request.to_string().as_bytes())
}

/// Sends one request and returns the head of the response.
pub fn once(address: SocketAddr, body: &Body) -> Result<String> {
    let mut client = Client::new(address, body, 0, false)?;
    let (head, began, length) = client.begin()?;
    client.end(began, length)?;
    Ok(head)
}

/// Runs this many clients for this time. Each client repeats its request after this pause.
pub fn ask(
    address: SocketAddr,
    stage: &Stage,
    body: &Body,
    (clients, rest): (usize, Duration),
    time: Duration,
) -> Result<Vec<Sample>> {
    let until = Instant::now() + time;
    let run = |number: usize| -> Result<Vec<Sample>> {
        let mut client = Client::new(address, body, number, !rest.is_zero())?;
        let mut samples = Vec::new();
        if !rest.is_zero() {
            // Synchronised streams would wait for each other, especially if they were admitted together.
            thread::sleep(STAGGER.saturating_mul(number as u32));
        }
        while Instant::now() < until {
            samples.push(client.exchange(stage)?);
            thread::sleep(rest);
        }
        Ok(samples)
    };
    let samples: Vec<Sample> = thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|number| scope.spawn(move || run(number))).collect();
        let joined = |client: thread::ScopedJoinHandle<'_, Result<Vec<Sample>>>| {
            client.join().unwrap_or_else(|_| bail!("a client panicked"))
        };
        clients.into_iter().map(joined).collect::<Result<Vec<_>>>()
    })?
    .concat();
    if samples.is_empty() { bail!("no answers") } else { Ok(samples) }
}

/// Open streams that have stopped halfway.
pub struct Streams(Vec<Client>);

impl Streams {
    /// Opens the streams, and waits until half of the events of each stream have arrived.
    pub fn open(address: SocketAddr, stage: &Stage, body: &Body, count: usize) -> Result<Self> {
        stage.hold(true);
        let mut clients =
            (0..count).map(|number| Client::new(address, body, number, false)).collect::<Result<Vec<_>>>()?;
        for client in &mut clients {
            client.stream.write_all(&client.request)?;
        }
        e2e::wait::until("open streams", || (stage.held() >= count).then_some(()));
        Ok(Self(clients))
    }

    /// Lets the streams run to their end.
    pub fn finish(self, stage: &Stage) -> Result<()> {
        stage.hold(false);
        for mut client in self.0 {
            client.end(Instant::now(), None)?;
        }
        Ok(())
    }
}
