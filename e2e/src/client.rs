//! A client that can stop at any point: it sends a request, reads the response in pieces, or disconnects.

use crate::wait;
use crate::wire::{self, Head, Headers, Piece, Wire, header};
use serde_json::Value;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Instant;

/// A request to send.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, String)>,
    chunked: bool,
}

/// A running request.
pub struct InFlight {
    wire: Wire,
    bodiless: bool,
    head: Option<Head>,
    body: Vec<u8>,
}

/// The part of a response that has arrived.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    /// The part of the body that arrived.
    pub body: Vec<u8>,
    pub trailers: Headers,
    /// The reason, if the body is incomplete.
    pub cut: Option<String>,
    /// When the last byte arrived.
    pub finished: Instant,
}

impl Request {
    /// Creates a request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        let (method, path) = (method.to_owned(), path.to_owned());
        Self { method, path, headers: Vec::new(), body: Vec::new(), trailers: Vec::new(), chunked: false }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// Creates a POST request with a JSON body.
    pub fn post(path: &str, json: &Value) -> Self {
        Self::new("POST", path).header("content-type", "application/json").body(json.to_string())
    }

    /// Creates a chat completion request with this maximum output.
    pub fn chat(max_tokens: u64) -> Self {
        let messages = serde_json::json!([{ "role": "user", "content": "Hi" }]);
        let json = serde_json::json!({ "model": "gpt-4o", "messages": messages, "max_tokens": max_tokens });
        Self::post("/v1/chat/completions", &json)
    }

    /// Adds a header, which may contain any bytes.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Sets the `authorization` header to this bearer token.
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// Asks the upstream for the answer of this name.
    pub fn answered_by(self, name: &str) -> Self {
        self.header(crate::upstream::ANSWER, name)
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Adds a trailer, which makes the request chunked.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        self.trailers.push((name.to_owned(), value.to_owned()));
        self.chunked()
    }

    /// Sends the body without a content-length, in chunks of a hundred bytes.
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    pub fn path(mut self, path: &str) -> Self {
        self.path = path.to_owned();
        self
    }

    /// Sends the request without waiting for the response.
    pub fn open(&self, to: SocketAddr) -> InFlight {
        self.try_open(to).unwrap_or_else(|error| panic!("cannot send a request to {to}: {error}"))
    }

    /// Sends the request and reads the response.
    pub fn send(&self, to: SocketAddr) -> Response {
        self.open(to).finish()
    }

    /// Like `send`, but returns an error if the server is unavailable.
    pub fn try_send(&self, to: SocketAddr) -> io::Result<Response> {
        self.try_open(to)?.try_finish()
    }

    /// Sends this many bytes of the request, waits, sends the rest, and reads the response.
    pub fn send_in_two(&self, to: SocketAddr, first: usize, wait: impl FnOnce()) -> Response {
        let sent = self.try_open_in_two(to, first, wait);
        sent.unwrap_or_else(|error| panic!("cannot send a request to {to}: {error}")).finish()
    }

    fn try_open(&self, to: SocketAddr) -> io::Result<InFlight> {
        self.try_open_in_two(to, usize::MAX, || {})
    }

    fn try_open_in_two(&self, to: SocketAddr, first: usize, wait: impl FnOnce()) -> io::Result<InFlight> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(wait::DEADLINE))?;
        let mut bytes = format!("{} {} HTTP/1.1\r\nhost: {to}\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value);
            bytes.extend_from_slice(b"\r\n");
        }
        if self.chunked {
            bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            self.body.chunks(100).for_each(|piece| bytes.extend(wire::chunk(piece)));
            bytes.extend(wire::last_chunk(&self.trailers));
        } else {
            if !self.body.is_empty() {
                bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
            }
            bytes.extend_from_slice(b"\r\n");
            bytes.extend_from_slice(&self.body);
        }
        let (first, rest) = bytes.split_at(first.min(bytes.len()));
        (&stream).write_all(first)?;
        if !rest.is_empty() {
            wait();
            (&stream).write_all(rest)?;
        }
        let wire = Wire::new(Arc::new(stream));
        Ok(InFlight { wire, bodiless: self.method == "HEAD", head: None, body: Vec::new() })
    }
}

impl InFlight {
    /// Waits for the response's head.
    pub fn head(&mut self) -> &Head {
        self.try_head().unwrap_or_else(|error| panic!("there was no response: {error}"))
    }

    /// Reads until the body has at least this length.
    pub fn body_of(&mut self, length: usize) -> &[u8] {
        self.head();
        while self.body.len() < length {
            match self.wire.piece() {
                Ok(Piece::Bytes(bytes)) => self.body.extend(bytes),
                end => panic!("the body ended after {} of {length} bytes: {end:?}", self.body.len()),
            }
        }
        &self.body
    }

    /// Reads the rest of the response until it ends or is cut off.
    pub fn finish(self) -> Response {
        self.try_finish().unwrap_or_else(|error| panic!("there was no response: {error}"))
    }

    /// Returns whether the beginning of a response, or the end of the connection, can be read.
    pub fn answered(&self) -> bool {
        let stream = &self.wire.stream;
        stream.set_nonblocking(true).expect("a socket can be asked");
        let there = !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        stream.set_nonblocking(false).expect("a socket can be asked");
        there
    }

    /// Disconnects without reading further.
    pub fn hang_up(self) {}

    fn try_head(&mut self) -> io::Result<&Head> {
        let head = match self.head.take() {
            Some(head) => head,
            None => self.wire.response(self.bodiless)?.ok_or(io::ErrorKind::UnexpectedEof)?,
        };
        Ok(self.head.insert(head))
    }

    /// Like `finish`, but returns an error if there is no response.
    pub fn try_finish(mut self) -> io::Result<Response> {
        let head = self.try_head()?.clone();
        let (trailers, cut) = loop {
            match self.wire.piece() {
                Ok(Piece::Bytes(bytes)) => self.body.extend(bytes),
                Ok(Piece::End(trailers)) => break (trailers, None),
                Err(error) => break (Headers::new(), Some(error.to_string())),
            }
        };
        let status = head.start[1].parse().unwrap_or(0);
        Ok(Response {
            status,
            headers: head.headers,
            body: self.body,
            trailers,
            cut,
            finished: Instant::now(),
        })
    }
}

impl Response {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }
}
