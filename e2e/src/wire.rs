//! HTTP/1.1 at the byte level, for clients and servers. Bodies are read in pieces as they arrive.
//!
//! It is written by hand because tests cut connections at exact byte positions, and HTTP libraries prevent
//! that.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::Arc;

/// Header fields in order, with names in lower case.
pub type Headers = Vec<(String, String)>;

/// Returns the value of the first field with this name.
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The head of a message: the start line and the header fields.
#[derive(Clone, Debug)]
pub struct Head {
    /// The three words of the start line.
    pub start: [String; 3],
    pub headers: Headers,
}

/// A piece of a body.
#[derive(Debug)]
pub enum Piece {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// The end of the body, with its trailers.
    End(Headers),
}

/// A socket, and the bytes that were read from it but not used yet.
pub struct Wire {
    pub stream: Arc<TcpStream>,
    buffer: Vec<u8>,
    body: Body,
}

/// How the rest of the body is delimited.
enum Body {
    Length(u64),
    ChunkSize,
    Chunk(u64),
    UntilClose,
    Done,
}

impl Wire {
    /// Creates a reader for this socket.
    pub fn new(stream: Arc<TcpStream>) -> Self {
        Self { stream, buffer: Vec::new(), body: Body::Done }
    }

    /// Reads a request's head. Returns `None` if the peer has closed the connection.
    pub fn request(&mut self) -> io::Result<Option<Head>> {
        let Some(bytes) = self.upto(b"\r\n\r\n")? else { return Ok(None) };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Request::new(&mut fields);
        parsed.parse(&bytes).map_err(io::Error::other)?;
        let start = [parsed.method.unwrap_or(""), parsed.path.unwrap_or(""), "HTTP/1.1"].map(str::to_owned);
        let headers = own(parsed.headers);
        self.body = Body::of(&headers, Body::Length(0));
        Ok(Some(Head { start, headers }))
    }

    /// Reads a response's head. Returns `None` if the peer has closed the connection. Set `bodiless` for the
    /// response to a HEAD request.
    pub fn response(&mut self, bodiless: bool) -> io::Result<Option<Head>> {
        let Some(bytes) = self.upto(b"\r\n\r\n")? else { return Ok(None) };
        let mut fields = [httparse::EMPTY_HEADER; 100];
        let mut parsed = httparse::Response::new(&mut fields);
        parsed.parse(&bytes).map_err(io::Error::other)?;
        let code = parsed.code.unwrap_or(0);
        let start = ["HTTP/1.1".to_owned(), code.to_string(), parsed.reason.unwrap_or("").to_owned()];
        let headers = own(parsed.headers);
        let empty = bodiless || code == 204 || code == 304 || code < 200;
        self.body = if empty { Body::Length(0) } else { Body::of(&headers, Body::UntilClose) };
        Ok(Some(Head { start, headers }))
    }

    /// Reads the next piece of the body after the last head. Returns an error if the body was cut off.
    pub fn piece(&mut self) -> io::Result<Piece> {
        loop {
            match self.body {
                Body::Done | Body::Length(0) => {
                    self.body = Body::Done;
                    return Ok(Piece::End(Vec::new()));
                }
                Body::Length(left) => return self.some(left, Body::Length),
                Body::Chunk(0) => {
                    self.upto(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    self.body = Body::ChunkSize;
                }
                Body::Chunk(left) => return self.some(left, Body::Chunk),
                Body::ChunkSize => {
                    let line = self.upto(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    let (_, size) = httparse::parse_chunk_size(&line)
                        .map_err(|error| io::Error::other(error.to_string()))?
                        .parsed()?;
                    if size == 0 {
                        return self.trailers();
                    }
                    self.body = Body::Chunk(size);
                }
                Body::UntilClose => {
                    if self.buffer.is_empty() && self.fill()? == 0 {
                        self.body = Body::Done;
                        continue;
                    }
                    return Ok(Piece::Bytes(std::mem::take(&mut self.buffer)));
                }
            }
        }
    }

    fn some(&mut self, left: u64, state: fn(u64) -> Body) -> io::Result<Piece> {
        if self.buffer.is_empty() && self.fill()? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = (left as usize).min(self.buffer.len());
        self.body = state(left - count as u64);
        Ok(Piece::Bytes(self.buffer.drain(..count).collect()))
    }

    fn trailers(&mut self) -> io::Result<Piece> {
        let mut trailers = Headers::new();
        loop {
            let line = self.upto(b"\r\n")?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let line = String::from_utf8_lossy(&line);
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            trailers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        self.body = Body::Done;
        Ok(Piece::End(trailers))
    }

    /// Reads the bytes up to and including `end`. Returns `None` if the peer closed the connection before
    /// sending any.
    fn upto(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.buffer.drain(..at + end.len()).collect()));
            }
            if self.fill()? == 0 {
                let clean = self.buffer.is_empty();
                return if clean { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 * 1024];
        let count = loop {
            match (&*self.stream).read(&mut bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                count => break count?,
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

impl Body {
    fn of(headers: &Headers, otherwise: Body) -> Body {
        let chunked = header(headers, "transfer-encoding").is_some_and(|value| value.contains("chunked"));
        let length = header(headers, "content-length").and_then(|value| value.parse().ok());
        if chunked { Body::ChunkSize } else { length.map_or(otherwise, Body::Length) }
    }
}

trait Parsed {
    fn parsed(self) -> io::Result<(usize, u64)>;
}

impl Parsed for httparse::Status<(usize, u64)> {
    fn parsed(self) -> io::Result<(usize, u64)> {
        match self {
            httparse::Status::Complete(size) => Ok(size),
            httparse::Status::Partial => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn own(fields: &[httparse::Header]) -> Headers {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    fields.iter().map(|field| (field.name.to_lowercase(), text(field.value))).collect()
}

/// Makes the connection end with a reset when the last owner drops it.
pub fn reset(stream: &TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger(stream, Some(std::time::Duration::ZERO));
    linger.expect("a socket takes SO_LINGER");
}

/// Encodes a piece of a chunked body.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Encodes the end of a chunked body.
pub fn last_chunk(trailers: &[(String, String)]) -> Vec<u8> {
    let fields: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("0\r\n{fields}\r\n").into_bytes()
}
