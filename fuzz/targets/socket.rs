//! Reads arbitrary bytes as WebSocket frames, from either side, with or without compression. Splitting them
//! does not change the messages or the error, no message exceeds the maximum, and all memory is returned. The
//! only difference is that the reader may report more events before an error if the input is in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llm::memory::MemoryBudget;
use llm::websocket::{Extensions, MessageReader, Peer, SocketError, SocketEvent};

/// The maximum length of a message that the reader keeps.
const MAX: usize = 1 << 14;
/// The maximum memory of both directions' decoders and both messages.
const MEMORY: usize = 1 << 20;

type Messages = (Vec<(SocketEvent, Vec<u8>)>, Option<SocketError>);

fn messages<'b>(mut reader: MessageReader, pieces: impl Iterator<Item = &'b [u8]>) -> Messages {
    let mut messages = Vec::new();
    for mut piece in pieces {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(event)) => messages.push((event, reader.message().to_vec())),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(piece.is_empty(), "what needs more has read all that is there");
    }
    (messages, None)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([kind, size], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let peer = if kind & 1 == 0 { Peer::Client } else { Peer::Server };
    let takeover = kind & 4 == 0;
    let extensions =
        Extensions { deflate: kind & 2 == 0, client_takeover: takeover, server_takeover: takeover };
    let memory = MemoryBudget::new(MEMORY);
    let reader = || MessageReader::new(peer, extensions, MAX, &memory);
    let whole = messages(reader(), std::iter::once(bytes));
    let pieces = messages(reader(), bytes.chunks(usize::from(*size).max(1)));
    let told_sooner = whole.1.is_some() && pieces.0.starts_with(&whole.0);
    assert!(whole.1 == pieces.1 && (told_sooner || whole.0 == pieces.0), "{:?} {:?}", whole.1, pieces.1);
    assert!(whole.0.iter().all(|(_, message)| message.len() <= MAX));
    assert_eq!(memory.used(), 0);
});
