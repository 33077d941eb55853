use super::super::{close, frame};
use super::*;
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

/// Encodes a message as a peer may send it: in frames, possibly compressed, with pings in between.
fn encoded(text: &[u8], fragments: usize, key: Option<[u8; 4]>, compress: Option<&mut Compress>) -> Vec<u8> {
    let compressed = compress.is_some();
    let payload = compress.map_or_else(|| text.to_vec(), |compress| deflated(compress, text));
    let size = payload.len().div_ceil(fragments.max(1)).max(1);
    let mut pieces: Vec<&[u8]> = payload.chunks(size).collect();
    if pieces.is_empty() {
        pieces.push(&[]);
    }
    let mut bytes = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let begin = bytes.len();
        bytes.extend(frame(if index == 0 { Opcode::Text } else { Opcode::Continuation }, piece, key));
        if index + 1 < pieces.len() {
            bytes[begin] &= 0x7f;
        }
        if index == 0 && compressed {
            bytes[begin] |= 0x40;
        }
        if index + 1 < pieces.len() {
            bytes.extend(frame(Opcode::Ping, b"still there?", key));
        }
    }
    bytes
}

fn deflated(compress: &mut Compress, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 1024);
    let before = compress.total_in();
    loop {
        let at = usize::try_from(compress.total_in() - before).unwrap();
        bytes.reserve(1024);
        compress.compress_vec(&text[at..], &mut bytes, FlushCompress::Sync).unwrap();
        let read = usize::try_from(compress.total_in() - before).unwrap();
        if read == text.len() && bytes.len() < bytes.capacity() {
            break;
        }
    }
    assert!(bytes.ends_with(&[0, 0, 0xff, 0xff]));
    bytes.truncate(bytes.len() - 4);
    bytes
}

fn read(reader: &mut MessageReader, bytes: &[u8], size: usize) -> Result<Vec<Vec<u8>>, SocketError> {
    let mut messages = Vec::new();
    for mut chunk in bytes.chunks(size.max(1)) {
        while let Some(event) = reader.next(&mut chunk)? {
            if matches!(event, SocketEvent::Message | SocketEvent::Truncated) {
                messages.push(reader.message().to_vec());
            }
        }
    }
    Ok(messages)
}

fn reader(peer: Peer, extensions: Extensions) -> MessageReader {
    MessageReader::new(peer, extensions, usize::MAX, &MemoryBudget::default())
}

const DEFLATE: Extensions = Extensions { deflate: true, client_takeover: true, server_takeover: true };

#[test]
fn what_violates_the_protocol_is_not_read() {
    let table: &[(&str, Vec<u8>)] = &[
        ("a mask", frame(Opcode::Text, b"x", Some([1; 4]))),
        ("an unknown opcode", vec![0x83, 0]),
        ("an unknown extension", vec![0xa1, 0]),
        ("compression that was not negotiated", vec![0xc1, 0]),
        ("a continuation of nothing", vec![0x80, 0]),
        ("a control frame in parts", vec![0x09, 0]),
        ("a control frame that is too long", vec![0x89, 126, 0, 126]),
        ("a message in a message", [vec![0x01, 0], vec![0x81, 0]].concat()),
    ];
    for (what, bytes) in table {
        let mut reader = reader(Peer::Server, Extensions::default());
        assert_eq!(read(&mut reader, bytes, 1), Err(SocketError::Protocol), "{what}");
        assert_eq!(read(&mut reader, b"\x81\x01x", 3), Err(SocketError::Protocol), "{what}: for good");
    }
}

#[test]
fn of_a_message_that_is_too_long_the_beginning_is_kept() {
    let memory = MemoryBudget::new(1 << 20);
    let mut reader = MessageReader::new(Peer::Server, Extensions::default(), 1000, &memory);
    let bytes = [frame(Opcode::Text, &[b'x'; 5000], None), frame(Opcode::Text, b"next", None)].concat();
    let messages = read(&mut reader, &bytes, 77).unwrap();
    assert_eq!(messages, [vec![b'x'; 1000], b"next".to_vec()]);
    drop(reader);
    assert_eq!(memory.used(), 0);
}

#[test]
fn without_memory_a_message_goes_by() {
    let memory = MemoryBudget::new(100);
    let mut reader = MessageReader::new(Peer::Server, Extensions::default(), 1 << 20, &memory);
    let bytes = frame(Opcode::Text, &[b'x'; 5000], None);
    assert_eq!(read(&mut reader, &bytes, 500).unwrap(), [b""]);
    assert!(reader.is_between_messages());
    let mut reader = MessageReader::new(Peer::Server, DEFLATE, 1 << 20, &memory);
    let mut compress = Compress::new(Compression::fast(), false);
    let bytes = encoded(b"x", 1, None, Some(&mut compress));
    assert_eq!(read(&mut reader, &bytes, 500), Err(SocketError::Memory));
}

#[test]
fn a_bomb_is_given_up() {
    let mut compress = Compress::new(Compression::best(), false);
    let zeros = vec![0; 1 << 20];
    let (mut payload, mut messages) = (Vec::new(), 0);
    for _ in 0..300 {
        payload.extend(deflated(&mut compress, &zeros));
        payload.extend([0, 0, 0xff, 0xff]);
        messages += 1;
    }
    assert_eq!(messages, 300);
    let mut bytes = frame(Opcode::Binary, &payload, None);
    bytes[0] |= 0x40;
    let mut reader = MessageReader::new(Peer::Server, DEFLATE, 1000, &MemoryBudget::default());
    assert_eq!(read(&mut reader, &bytes, 4096), Err(SocketError::Bomb));
}

#[test]
fn a_reason_is_cut_at_a_character() {
    let bytes = close(1008, &"é".repeat(100), None);
    assert_eq!(bytes[..4], [0x88, 124, 0x03, 0xf0]);
    assert!(std::str::from_utf8(&bytes[4..]).is_ok());
}

#[test]
fn what_is_undecided_is_known() {
    let mut reader = reader(Peer::Client, Extensions::default());
    let bytes = encoded(b"hello", 2, Some([1, 2, 3, 4]), None);
    assert!(reader.is_between_messages());
    for (at, byte) in bytes.iter().enumerate() {
        let mut one: &[u8] = std::slice::from_ref(byte);
        while reader.next(&mut one).unwrap().is_some() {}
        let whole = at + 1 == bytes.len();
        assert_eq!((reader.is_undecided(), reader.is_between_messages()), (!whole, whole), "{at}");
    }
}

proptest! {
    #[test]
    fn messages_are_the_same_however_they_are_sent(
        texts in prop::collection::vec(("[a-z{}\": ]{0,40}", 1..4_usize, 1..60_usize), 1..6),
        size in 1..200_usize,
        key in prop::option::of(any::<[u8; 4]>()),
        compressed in any::<bool>(),
        takeover in any::<bool>(),
    ) {
        let texts: Vec<(Vec<u8>, usize)> = texts
            .into_iter()
            .map(|(text, fragments, repeat)| (text.repeat(repeat).into_bytes(), fragments))
            .collect();
        let mut compress = Compress::new(Compression::fast(), false);
        let mut bytes = Vec::new();
        for (text, fragments) in &texts {
            if !takeover {
                compress.reset();
            }
            bytes.extend(encoded(text, *fragments, key, compressed.then_some(&mut compress)));
        }
        let extensions =
            Extensions { deflate: compressed, client_takeover: takeover, server_takeover: takeover };
        let peer = if key.is_some() { Peer::Client } else { Peer::Server };
        let memory = MemoryBudget::new(8 << 20);
        let mut reader = MessageReader::new(peer, extensions, usize::MAX, &memory);
        let expected: Vec<Vec<u8>> = texts.into_iter().map(|(text, _)| text).collect();
        prop_assert_eq!(read(&mut reader, &bytes, size), Ok(expected));
        prop_assert!(reader.is_between_messages());
        drop(reader);
        prop_assert_eq!(memory.used(), 0);
    }

    #[test]
    fn nothing_that_comes_is_more_than_is_allowed(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        size in 1..100_usize,
    ) {
        for peer in [Peer::Client, Peer::Server] {
            let memory = MemoryBudget::new(1 << 20);
            let mut reader = MessageReader::new(peer, DEFLATE, 10_000, &memory);
            let _read = read(&mut reader, &bytes, size);
            prop_assert!(reader.message().len() <= 10_000);
            drop(reader);
            prop_assert_eq!(memory.used(), 0);
        }
    }
}
