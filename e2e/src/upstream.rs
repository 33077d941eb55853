//! A scripted LLM provider. The test chooses the answer, its chunks, their timing, and how it ends.
//!
//! The request header [`ANSWER`] selects the answer. Without it, [`crate::llm::answer`] answers the request.

use crate::socket::{Heard, Peer};
use crate::wait;
use crate::wire::{Head, Headers, Piece, Wire, chunk, header, last_chunk, reset};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The request header that names the answer.
pub const ANSWER: &str = "x-answer";

/// A running provider.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<Weak<TcpStream>>>,
    closing: AtomicBool,
}

/// A request that reached the provider.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// The path and query.
    pub path: String,
    pub headers: Headers,
    /// The whole body.
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// When the last byte of the answer was written.
    pub answered: Option<Instant>,
    /// The number of tokens that the answer reports, if it comes from [`crate::llm`].
    pub reported: u64,
}

/// Delays an answer until the test opens the gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// The steps of the provider's answer to a request.
#[derive(Clone, Default)]
pub struct Answer {
    status: u16,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    steps: Vec<Step>,
    reported: u64,
}

#[derive(Clone)]
enum Step {
    Head,
    Bytes(Vec<u8>),
    Wait(Gate),
    Pause(Duration),
    Trailers(Vec<(String, String)>),
    Reset,
    Close,
}

impl Gate {
    /// Opens the gate for all current and future answers.
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (open, changed) = &*self.0;
        drop(changed.wait_timeout_while(lock(open), wait::DEADLINE, |open| !*open));
    }
}

impl Answer {
    /// Creates an answer with this status and no body.
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// Creates a JSON answer.
    pub fn json(status: u16, json: &serde_json::Value) -> Self {
        Self::new(status).header("content-type", "application/json").bytes(json.to_string())
    }

    /// Creates a chat completion that used this many tokens. All but one of them are output.
    pub fn used(total: u64) -> Self {
        Self::json(200, &crate::llm::completion("gpt-4o", "Hello.", 1, total.saturating_sub(1)))
    }

    /// Sets the number of tokens that the answer reports.
    pub fn reporting(mut self, tokens: u64) -> Self {
        self.reported = tokens;
        self
    }

    /// Adds a header. Without a content-length, the body is chunked, with one chunk per [`Answer::bytes`].
    pub fn header(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sends the head now. Otherwise, it is sent with the first byte of the body.
    pub fn head(self) -> Self {
        self.step(Step::Head)
    }

    /// Sends these bytes of the body.
    pub fn bytes(self, bytes: impl Into<Vec<u8>>) -> Self {
        self.step(Step::Bytes(bytes.into()))
    }

    /// Waits until the gate opens.
    pub fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Waits this long, as a provider does that generates text.
    pub fn pause(self, time: Duration) -> Self {
        self.step(Step::Pause(time))
    }

    /// Waits until the gate opens, before any other step.
    pub fn wait_first(mut self, gate: &Gate) -> Self {
        self.steps.insert(0, Step::Wait(gate.clone()));
        self
    }

    /// Ends the body with these trailers.
    pub fn trailers(self, trailers: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        self.step(Step::Trailers(trailers.iter().map(own).collect()))
    }

    /// Resets the connection.
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Closes the connection, even if the body is incomplete.
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn chunked(&self) -> bool {
        // A response with status 204 has no body, and no header that describes one.
        self.status != 204
            && !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"content-length"))
    }

    fn head_bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            head.extend([name, b": ".as_slice(), value, b"\r\n"].concat());
        }
        if self.chunked() {
            head.extend(b"transfer-encoding: chunked\r\n");
        }
        head.extend(b"\r\n");
        head
    }

    /// Writes the answer. Returns false if the connection must be closed afterwards.
    fn play(&self, stream: &TcpStream) -> io::Result<bool> {
        let (mut out, mut headed, mut ended) = (stream, false, false);
        for step in &self.steps {
            if !headed && matches!(step, Step::Head | Step::Bytes(_) | Step::Trailers(_)) {
                out.write_all(&self.head_bytes())?;
                headed = true;
            }
            match step {
                Step::Head => {}
                Step::Bytes(bytes) if self.chunked() => out.write_all(&chunk(bytes))?,
                Step::Bytes(bytes) => out.write_all(bytes)?,
                Step::Wait(gate) => gate.pass(),
                Step::Pause(time) => std::thread::sleep(*time),
                Step::Trailers(trailers) => {
                    out.write_all(&last_chunk(trailers))?;
                    ended = true;
                }
                Step::Reset => {
                    reset(stream);
                    return Ok(false);
                }
                Step::Close => return Ok(false),
            }
        }
        if !headed {
            out.write_all(&self.head_bytes())?;
        }
        if !ended && self.chunked() {
            out.write_all(&last_chunk(&[]))?;
        }
        Ok(true)
    }
}

impl Upstream {
    /// Starts a provider on a free port.
    pub fn start() -> Self {
        Self::listen("127.0.0.1:0").expect("there is a free port")
    }

    /// Starts a provider on this address.
    pub fn listen(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let upstream = Self { address, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.closing.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Ok(upstream)
    }

    /// Returns the provider's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the answer for requests that select this name.
    pub fn on(&self, name: &str, answer: Answer) {
        lock(&self.shared.answers).insert(name.to_owned(), answer);
    }

    /// Returns the requests that reached the provider, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// Returns how many requests reached the provider.
    pub fn calls(&self) -> usize {
        lock(&self.shared.seen).len()
    }

    /// Forgets the requests so far, so that a long test does not run out of memory.
    pub fn forget(&self) {
        lock(&self.shared.seen).clear();
    }

    /// Waits until this many requests have reached the provider.
    pub fn wait_for_calls(&self, count: usize) {
        wait::until(&format!("{count} requests at the upstream"), || (self.calls() >= count).then_some(()));
    }

    /// Waits until the last request is answered completely, and returns the time of its last byte.
    pub fn last_answered(&self) -> Instant {
        wait::until("the upstream's answer", || lock(&self.shared.seen).last().and_then(|seen| seen.answered))
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        lock(&self.connections).push(Arc::downgrade(&stream));
        let mut wire = Wire::new(stream);
        while let Some(head) = wire.request()? {
            if header(&head.headers, "expect").is_some() {
                (&*wire.stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            if header(&head.headers, "upgrade").is_some_and(|name| name.eq_ignore_ascii_case("websocket")) {
                self.converse(&wire.stream, head)?;
                break;
            }
            let (body, trailers) = whole(&mut wire)?;
            let (index, answer) = self.record(head, body, trailers);
            if !answer.play(&wire.stream)? {
                break;
            }
            // The test may have forgotten the request.
            if let Some(seen) = lock(&self.seen).get_mut(index) {
                seen.answered = Some(Instant::now());
            }
        }
        Ok(())
    }

    fn record(&self, head: Head, body: Vec<u8>, trailers: Headers) -> (usize, Answer) {
        let [method, path, _] = head.start;
        let seen = Seen { method, path, headers: head.headers, body, trailers, answered: None, reported: 0 };
        let named = header(&seen.headers, ANSWER).map(|name| {
            let unknown = Answer::json(500, &serde_json::json!({ "unknown answer": name }));
            lock(&self.answers).get(name).cloned().unwrap_or(unknown)
        });
        let answer = named.unwrap_or_else(|| crate::llm::answer(&seen));
        let mut all = lock(&self.seen);
        all.push(Seen { reported: answer.reported, ..seen });
        (all.len() - 1, answer)
    }

    /// Serves a WebSocket. Each message is recorded as a request with the method `MESSAGE`.
    fn converse(&self, stream: &TcpStream, head: Head) -> io::Result<()> {
        let mut peer = Peer::accept(
            stream.try_clone()?,
            header(&head.headers, "sec-websocket-key").unwrap_or_default(),
            false,
        );
        let [_, path, _] = head.start;
        while let Heard::Text(text) = peer.hear_message() {
            let (method, path, headers) = ("MESSAGE".to_owned(), path.clone(), head.headers.clone());
            let (body, trailers) = (text.into_bytes(), Headers::new());
            let seen = Seen { method, path, headers, body, trailers, answered: None, reported: 0 };
            let (messages, reported) = crate::llm::messages(&seen);
            lock(&self.seen).push(Seen { reported, ..seen });
            messages.iter().for_each(|message| peer.say(&message.to_string()));
        }
        Ok(())
    }
}

fn whole(wire: &mut Wire) -> io::Result<(Vec<u8>, Headers)> {
    let mut body = Vec::new();
    loop {
        match wire.piece()? {
            Piece::Bytes(bytes) => body.extend(bytes),
            Piece::End(trailers) => return Ok((body, trailers)),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        for stream in lock(&self.shared.connections).iter().filter_map(Weak::upgrade) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
