//! Compares the zstd decoder with the reference decoder.

use llm::request::{Extent, decode};
use proptest::prelude::*;

/// Returns the output if it is complete.
fn decoded(body: &[u8]) -> Option<Vec<u8>> {
    let decoded = decode("zstd", body, Extent::Whole, usize::MAX);
    (decoded.extent == Extent::Whole).then(|| decoded.body.into_owned())
}

/// Generates text with recurring words in pseudo-random order.
fn prose(length: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut text = Vec::with_capacity(length + 40);
    while text.len() < length {
        let word = next() % 3000;
        text.extend_from_slice(format!("{:x}{} ", word.wrapping_mul(2_654_435_761), word % 7).as_bytes());
    }
    text.truncate(length);
    text
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = 7u64;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}

#[test]
fn what_the_reference_encodes_is_decoded() {
    let mut bodies = vec![Vec::new(), b"x".to_vec(), vec![b'a'; 700_000], noise(150_000), prose(600_000)];
    bodies.push([prose(100_000), noise(1_000), vec![0; 200_000], prose(100_000)].concat());
    bodies.extend((1..150).map(prose));
    bodies.extend([1 << 10, 1 << 17, (1 << 17) + 1, 70_000].map(|length| noise(length / 2).repeat(2)));
    for body in &bodies {
        let levels: &[i32] = if body.len() > 1000 { &[-5, 1, 3, 7, 19] } else { &[1, 9, 19] };
        for level in levels {
            let whole = libzstd::bulk::compress(body, *level).unwrap();
            assert!(decoded(&whole).as_ref() == Some(body), "{} bytes, level {level}", body.len());
        }
    }
}

/// A window that is smaller than the body wraps around, and matches cross its end.
#[test]
fn windows_of_every_size_are_decoded() {
    let body = [prose(350_000), noise(50_000), prose(350_000), vec![7; 100_000]].concat();
    for log in [10, 11, 13, 15, 16, 17, 18, 19, 23] {
        for level in [1, 12] {
            let mut encoder = libzstd::Encoder::new(Vec::new(), level).unwrap();
            encoder.window_log(log).unwrap();
            encoder.long_distance_matching(log > 20).unwrap();
            for piece in body.chunks(77_777) {
                std::io::Write::write_all(&mut encoder, piece).unwrap();
            }
            let encoded = encoder.finish().unwrap();
            assert!(decoded(&encoded).as_ref() == Some(&body), "window 2^{log}, level {level}");
        }
    }
}

#[test]
fn a_frame_with_a_dictionary_cannot_be_read() {
    let dictionary = prose(5_000);
    let mut encoder = libzstd::bulk::Compressor::with_dictionary(3, &dictionary).unwrap();
    // A raw dictionary has no id, so its frames look like others until they refer to it.
    assert_eq!(decoded(&encoder.compress(&prose(4_000)).unwrap()), None);
    assert_eq!(decoded(b"\x28\xb5\x2f\xfd\x21\x05\x01\x09\0\0x"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// For damaged frames, the result is the same as the reference decoder's, or there is none.
    #[test]
    fn damaged_frames_are_judged_like_the_reference_does(
        length in 1..6000usize,
        level in 1..20,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut frame = libzstd::bulk::compress(&prose(length), level).unwrap();
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let reference = libzstd::decode_all(&frame[..]).ok();
        if let (Some(ours), Some(theirs)) = (decoded(&frame), reference) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
