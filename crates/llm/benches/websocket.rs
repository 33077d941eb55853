//! Measures how fast a socket's messages are read, by frame size: the frames only, and with the assignment of
//! messages to calls. Reports the best of several rounds. Run `cargo bench -p llm --bench websocket`.

mod timer;

use flate2::{Compress, Compression, FlushCompress};
use llm::memory::MemoryBudget;
use llm::websocket::{Extensions, MessageReader, Opcode, Peer, SocketApi, SocketEvent, frame};
use std::hint::black_box;

/// The size of the chunks that Envoy delivers.
const CHUNK: usize = 16 << 10;
/// The number of bytes in a round.
const ALL: usize = 8 << 20;

fn main() {
    println!("{:32} {:>10} {:>16}", "", "GB/s", "with its events");
    for (name, length) in
        [("deltas of 200 bytes", 200), ("messages of 4 kB", 4 << 10), ("messages of 256 kB", 256 << 10)]
    {
        let text = message(length);
        for (peer, key) in [(Peer::Server, None), (Peer::Client, Some([1, 2, 3, 4]))] {
            let bytes = frame(Opcode::Text, &text, key).repeat(ALL.div_ceil(length));
            let masked = if key.is_some() { ", masked" } else { "" };
            row(&format!("{name}{masked}"), peer, Extensions::default(), &bytes, bytes.len());
        }
    }
    let (bytes, plain) = compressed(&message(4 << 10));
    let extensions = Extensions { deflate: true, client_takeover: true, server_takeover: true };
    row("messages of 4 kB, compressed", Peer::Server, extensions, &bytes, plain);
}

fn row(name: &str, peer: Peer, extensions: Extensions, bytes: &[u8], plain: usize) {
    let frames = plain as f64 / timer::best(1, || read(peer, extensions, bytes, |_| {}));
    let events = plain as f64
        / timer::best(1, || {
            read(peer, extensions, bytes, |text| drop(black_box(SocketApi::Responses.server(text))));
        });
    println!("{name:32} {frames:10.2} {events:16.2}");
}

fn read(peer: Peer, extensions: Extensions, bytes: &[u8], hear: impl Fn(&[u8])) {
    let mut reader = MessageReader::new(peer, extensions, 1 << 20, &MemoryBudget::default());
    for mut chunk in bytes.chunks(CHUNK) {
        while let Ok(Some(event)) = reader.next(&mut chunk) {
            assert!(event == SocketEvent::Message);
            hear(reader.message());
        }
    }
    assert!(reader.is_between_messages());
}

fn message(length: usize) -> Vec<u8> {
    let begin =
        r#"{"type":"response.output_text.delta","item_id":"msg_68af4030592c81938ec0a5fbab4a3e9f","delta":""#;
    let mut text = begin.as_bytes().to_vec();
    let words = "The quick brown fox jumps over the lazy dog, and then it sleeps. ";
    text.extend(words.bytes().cycle().take(length.saturating_sub(begin.len() + 2)));
    text.extend(b"\"}");
    text
}

fn compressed(text: &[u8]) -> (Vec<u8>, usize) {
    let (mut compress, mut bytes, mut plain) = (Compress::new(Compression::fast(), false), Vec::new(), 0);
    while plain < ALL {
        let mut payload = Vec::with_capacity(text.len() + 1024);
        let done = compress.compress_vec(text, &mut payload, FlushCompress::Sync);
        assert!(done.is_ok());
        payload.truncate(payload.len() - 4);
        let mut message = frame(Opcode::Text, &payload, None);
        message.iter_mut().take(1).for_each(|first| *first |= 0x40);
        bytes.extend(message);
        plain += text.len();
    }
    (bytes, plain)
}
