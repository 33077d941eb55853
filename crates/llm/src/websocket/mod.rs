//! Reads WebSocket connections (RFC 6455) that pass through a proxy. It assembles messages from chunks of any
//! size in bounded memory, and assigns them to calls of an LLM API. It does not change any bytes. [`encode`]
//! creates the few frames that a filter adds.
//!
//! The only supported extension is permessage-deflate (RFC 7692), with or without context takeover.

mod api;
mod audio;
mod deflate;
mod encode;
mod frame;
mod input;
mod message;

pub use api::{ClientEvent, ServerEvent, SocketApi};
pub use audio::{AudioEvent, AudioRequest, tokens_of_speech};
pub use deflate::Extensions;
pub use encode::{MAX_REASON, close, frame};
pub use message::{MessageReader, Peer, SocketEvent};

/// Why one direction of a socket cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketError {
    /// The peer violates the protocol or uses an unknown extension.
    Protocol,
    /// A compressed message is not valid deflate.
    Corrupt,
    /// A decompressed message is too large.
    Bomb,
    /// There is no memory for a decoder.
    Memory,
}

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A continuation of a message.
    Continuation,
    /// The first frame of a text message.
    Text,
    /// The first frame of a binary message.
    Binary,
    /// The end of the connection.
    Close,
    /// A ping, which is answered with a pong.
    Ping,
    /// A pong, the answer to a ping.
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

    /// Returns whether this is a control frame, which may appear between the frames of a message.
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}
