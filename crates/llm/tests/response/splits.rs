//! Bodies that are split in all kinds of ways, and that end in all kinds of ways.

use crate::corpus::{Case, cases};
use crate::in_pieces;
use llm::response::{Meter, MeterReading, ResponseHead};
use proptest::prelude::*;
use std::fmt::Write;

#[test]
fn every_body_is_read_as_its_provider_means_it() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|case| {
            let read = in_pieces(&case.head, &case.body, usize::MAX);
            (read != case.expected).then(|| format!("{}:\n {read:?}\n {:?}", case.name, case.expected))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pieces_of_any_one_size_make_no_difference() {
    for case in cases() {
        for size in [1, 2, 3, 5, 16, 61, 1021] {
            assert_eq!(in_pieces(&case.head, &case.body, size), case.expected, "{}, {size}", case.name);
        }
    }
}

#[test]
fn a_split_at_any_byte_makes_no_difference() {
    for case in cases() {
        for at in 0..case.body.len() {
            let (one, other) = case.body.split_at(at);
            let mut meter = Meter::new(&case.head);
            meter.feed(one);
            meter.feed(&[]);
            meter.feed(other);
            assert_eq!(meter.finish(), case.expected, "{} at {at}", case.name);
        }
    }
}

#[test]
fn the_content_type_is_not_needed() {
    for case in cases() {
        let head = ResponseHead { content_type: String::new(), ..case.head.clone() };
        assert_eq!(in_pieces(&head, &case.body, usize::MAX), case.expected, "{}", case.name);
    }
}

#[test]
fn what_is_read_at_the_end_was_read_before_it() {
    for case in cases() {
        let mut meter = Meter::new(&case.head);
        meter.feed(&case.body);
        assert_eq!(meter.reading(), meter.finish(), "{}", case.name);
    }
}

/// Shows the charge if the client leaves after each event.
#[test]
fn a_stream_that_is_cut_tells_what_was_reported_until_then() {
    let mut story = String::new();
    for Case { name, head, body, ends, .. } in cases().iter().filter(|case| case.ends.len() > 1) {
        writeln!(story, "{name}").unwrap();
        for end in ends {
            let reading = in_pieces(head, &body[..*end], usize::MAX);
            writeln!(story, "  {end:5}: {}", line(&reading)).unwrap();
        }
    }
    insta::assert_snapshot!(story);
}

#[test]
fn text_after_the_last_report_is_estimated_when_the_stream_is_cut() {
    let case = cases().iter().find(|case| case.name == "anthropic-stream-cache.sse").unwrap();
    let cut = in_pieces(&case.head, &case.body[..case.ends[6]], usize::MAX);
    assert_eq!((cut.usage.unwrap().total, cut.uncovered), (1126, 25));
    let used = cut.usage_if_cut().unwrap();
    assert_eq!((used.input, used.output, used.total), (1125, 1 + 7, 1133));
    assert_eq!(case.expected.usage_if_cut(), case.expected.usage);
}

fn line(reading: &MeterReading) -> String {
    let usage = reading.usage.map_or("nothing reported".to_owned(), |usage| {
        format!("{} + {} = {}", usage.input, usage.output, usage.total)
    });
    let error = if reading.ended_in_error { ", error" } else { "" };
    let broken = reading.broken.map_or("", |cause| cause.name());
    format!("{usage}, {} of {} characters uncovered{error}{broken}", reading.uncovered, reading.delivered)
}

proptest! {
    #[test]
    fn random_pieces_make_no_difference(seed in any::<prop::sample::Index>(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let case = seed.get(cases());
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(case.body.len())).collect();
        at.sort_unstable();
        let mut meter = Meter::new(&case.head);
        let mut rest = &case.body[..];
        let mut begin = 0;
        for end in at {
            let (piece, after) = rest.split_at(end - begin);
            meter.feed(piece);
            rest = after;
            begin = end;
        }
        meter.feed(rest);
        prop_assert_eq!(meter.finish(), case.expected, "{}", &case.name);
    }

    #[test]
    fn arbitrary_bytes_never_trap(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0..4usize, size in 1..50usize) {
        let content_type = ["", "text/event-stream", "application/vnd.amazon.eventstream", "application/json"][kind];
        let head = ResponseHead { content_type: content_type.to_owned(), ..ResponseHead::default() };
        prop_assert_eq!(in_pieces(&head, &bytes, size), in_pieces(&head, &bytes, usize::MAX));
    }

    /// Generates a valid body with some changed bytes.
    #[test]
    fn damaged_bodies_never_trap(
        seed in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        size in 1..200usize,
    ) {
        let case = seed.get(cases());
        let mut body = case.body.clone();
        for (at, byte) in damage {
            let at = at.index(body.len());
            body[at] = byte;
        }
        prop_assert_eq!(in_pieces(&case.head, &body, size), in_pieces(&case.head, &body, usize::MAX));
    }
}
