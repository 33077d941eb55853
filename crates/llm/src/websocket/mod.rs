//! WebSockets (RFC 6455) as they pass through a proxy: bytes in any pieces → messages, in bounded memory, and which calls
//! of an LLM API the messages are. It changes no byte; [`frame`] makes the few frames that a filter adds.
//!
//! Compression is permessage-deflate (RFC 7692), with or without context takeover. No other extension is understood.

mod api;
mod deflate;
mod encode;
mod frame;
mod message;

pub use api::{ClientEvent, ServerEvent, SocketApi};
pub use deflate::Extensions;
pub use encode::{MAX_REASON, close, frame};
pub use message::{MessageReader, Peer, SocketEvent};

/// Why no more can be read of a direction of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// It violates the protocol, or uses an extension that is not known.
    Protocol,
    /// A compressed message is no deflate.
    Corrupt,
    /// A message is too much when it is decompressed.
    Bomb,
    /// There is no memory for a decoder.
    Memory,
}

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation,
    /// The first frame of a text.
    Text,
    /// The first frame of a binary message.
    Binary,
    /// The end of the socket.
    Close,
    /// To be answered with a pong.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    fn of(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0,
            Self::Text => 1,
            Self::Binary => 2,
            Self::Close => 8,
            Self::Ping => 9,
            Self::Pong => 10,
        }
    }

    /// Whether it may stand between the frames of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}
