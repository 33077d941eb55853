//! Both ends of a WebSocket. They are implemented by hand, because tests must send messages that no library
//! would send.

use crate::wait::DEADLINE;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// An event on a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Close(u16, String),
    Ping(Vec<u8>),
    Pong,
    /// The end of the connection.
    End,
}

/// One end of a socket.
pub struct Peer {
    stream: TcpStream,
    masks: bool,
    deflate: Option<(Compress, Decompress)>,
    /// The number of bytes in each write.
    pub piece: usize,
    /// The number of frames per message.
    pub frames: usize,
}

const DEFLATE: &str = "sec-websocket-extensions: permessage-deflate\r\n";

impl Peer {
    fn new(stream: TcpStream, masks: bool, deflate: bool) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket can be told");
        stream.set_nodelay(true).expect("a socket can be told");
        let deflate = deflate.then(|| (Compress::new(Compression::fast(), false), Decompress::new(false)));
        Self { stream, masks, deflate, piece: usize::MAX, frames: 1 }
    }

    /// Accepts an upgrade request with this key.
    pub fn accept(mut stream: TcpStream, key: &str, deflate: bool) -> Self {
        let extensions = if deflate { DEFLATE } else { "" };
        let accept = sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        let accept = STANDARD.encode(accept.digest().bytes());
        let switched = format!(
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-accept: {accept}\r\n{extensions}\r\n"
        );
        stream.write_all(switched.as_bytes()).expect("Envoy listens");
        Self::new(stream, false, deflate)
    }

    /// Requests an upgrade. If the server refuses, the error is the head of its response.
    pub fn open(address: SocketAddr, path: &str, headers: &str, deflate: bool) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).expect("Envoy listens");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket can be told");
        let extensions = if deflate { DEFLATE } else { "" };
        let asked = format!(
            "GET {path} HTTP/1.1\r\nhost: llm\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extensions}{headers}\r\n"
        );
        stream.write_all(asked.as_bytes()).expect("Envoy listens");
        let head = head(&mut stream);
        if !head.starts_with("http/1.1 101") {
            return Err(head);
        }
        Ok(Self::new(stream, true, deflate && head.contains("permessage-deflate")))
    }

    /// Sends a message.
    pub fn say(&mut self, text: &str) {
        let payload = match &mut self.deflate {
            Some((compress, _)) => deflated(compress, text.as_bytes()),
            None => text.as_bytes().to_vec(),
        };
        let size = payload.len().div_ceil(self.frames).max(1);
        let count = payload.chunks(size).len();
        let mut bytes = Vec::new();
        for (index, piece) in payload.chunks(size).enumerate() {
            let first = if index == 0 { 1 | if self.deflate.is_some() { 0x40 } else { 0 } } else { 0 };
            self.frame(&mut bytes, first | if index + 1 == count { 0x80 } else { 0 }, piece);
        }
        self.send(&bytes);
    }

    /// Sends a control frame.
    pub fn control(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        self.frame(&mut bytes, 0x80 | opcode, payload);
        self.send(&bytes);
    }

    /// Sends raw bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(self.piece) {
            // The other end may have closed the connection.
            let _sent = self.stream.write_all(piece);
        }
    }

    fn frame(&self, bytes: &mut Vec<u8>, first: u8, payload: &[u8]) {
        let mask = if self.masks { 0x80 } else { 0 };
        bytes.push(first);
        match payload.len() {
            length @ ..126 => bytes.push(mask | length as u8),
            length @ ..0x10000 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let key = if self.masks { [0x37, 0xfa, 0x21, 0x3d] } else { [0; 4] };
        bytes.extend(key.iter().filter(|_| self.masks));
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    }

    /// Waits for the next event. Answers pings.
    pub fn hear(&mut self) -> Heard {
        let (mut payload, mut compressed) = (Vec::new(), false);
        loop {
            let Some([first, second]) = self.bytes(2).map(|two| [two[0], two[1]]) else { return Heard::End };
            let length = match second & 0x7f {
                126 => self.bytes(2).map(|two| u64::from(u16::from_be_bytes([two[0], two[1]]))),
                127 => self.bytes(8).map(|eight| u64::from_be_bytes(eight.try_into().expect("eight"))),
                length => Some(u64::from(length)),
            };
            let key = if second & 0x80 == 0 { Some(vec![0; 4]) } else { self.bytes(4) };
            let (Some(length), Some(key)) = (length, key) else { return Heard::End };
            let Some(mut bytes) = self.bytes(usize::try_from(length).expect("it is short")) else {
                return Heard::End;
            };
            bytes.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            match first & 0x0f {
                8 => {
                    let code = bytes.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                    let reason = bytes.get(2..).unwrap_or_default();
                    return Heard::Close(code, String::from_utf8_lossy(reason).into_owned());
                }
                9 => {
                    self.control(10, &bytes);
                    return Heard::Ping(bytes);
                }
                10 => return Heard::Pong,
                _ => {
                    compressed |= first & 0x40 != 0;
                    payload.extend(bytes);
                    if first & 0x80 != 0 {
                        break;
                    }
                }
            }
        }
        if compressed {
            let (_, decompress) = self.deflate.as_mut().expect("it was negotiated");
            payload = inflated(decompress, &payload);
        }
        Heard::Text(String::from_utf8(payload).expect("a message is text"))
    }

    /// Waits for the next message, or the end of the socket.
    pub fn hear_message(&mut self) -> Heard {
        loop {
            match self.hear() {
                Heard::Ping(_) | Heard::Pong => {}
                heard => return heard,
            }
        }
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }
}

fn deflated(compress: &mut Compress, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1024);
    compress.compress_vec(text, &mut bytes, FlushCompress::Sync).expect("it is compressed");
    assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]), "there was room");
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn inflated(decompress: &mut Decompress, payload: &[u8]) -> Vec<u8> {
    let all = [payload, &[0, 0, 0xff, 0xff]].concat();
    let mut bytes = Vec::with_capacity(1 << 20);
    decompress.decompress_vec(&all, &mut bytes, FlushDecompress::Sync).expect("it is deflate");
    bytes
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
        head.extend(byte);
    }
    String::from_utf8_lossy(&head).to_lowercase()
}

/// A provider with a WebSocket API.
pub struct SocketUpstream {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl SocketUpstream {
    /// Starts a provider that answers each message with `answer`.
    pub fn start(answer: impl Fn(&mut Peer, &str) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let (heard, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let log = Arc::clone(&heard);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (heard, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let deflate = head(&mut stream).contains("permessage-deflate");
                    // The tests' clients ignore the accept key.
                    let mut peer = Peer::accept(stream, "", deflate);
                    loop {
                        let said = peer.hear();
                        heard.lock().expect("nobody panics").push(said.clone());
                        match said {
                            Heard::Text(text) => answer(&mut peer, &text),
                            Heard::Close(..) => {
                                peer.control(8, &1000_u16.to_be_bytes());
                                return;
                            }
                            Heard::Ping(_) | Heard::Pong => {}
                            Heard::End => return,
                        }
                    }
                });
            }
        });
        Self { address, heard }
    }

    /// Returns the provider's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns all events that the provider received, on all sockets.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("nobody panics").clone()
    }

    /// Returns the messages that the provider received.
    pub fn messages(&self) -> Vec<String> {
        let text = |heard| match heard {
            Heard::Text(text) => Some(text),
            _ => None,
        };
        self.heard().into_iter().filter_map(text).collect()
    }
}
