//! The facts about a background result that the meter reads from a response, at every split.

use llm::memory::MemoryBudget;
use llm::response::{Meter, ResponseHead, StoredAnswer};

fn read(content_type: &str, body: &str, size: usize) -> StoredAnswer {
    let head = ResponseHead { status: 200, content_type: content_type.to_owned(), ..ResponseHead::default() };
    let mut meter = Meter::looking_for_stored(&head, &MemoryBudget::default());
    body.as_bytes().chunks(size).for_each(|chunk| meter.feed(chunk));
    meter.stored()
}

#[test]
fn the_id_and_the_status_are_found_at_every_split() {
    let long = "x".repeat(1024);
    let json = "application/json";
    let created = r#"{"id":"resp_0123456789abcdef0123456789abcdef0123456789abcdef","object":"response","status":"queued","background":true,"output":[{"id":"msg_1","status":"completed"}],"metadata":{"id":"x","status":"done"},"usage":null}"#;
    let later = r#"{"id":"1","status":"COMPLETED","response":{"id":"2","status":"IN_PROGRESS"},"id":"3"}"#;
    let stream = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_1\",\"status\":\"in_progress\",\"background\":true}}\n\ndata: {\"type\":\"response.output_item.added\",\"item\":{\"id\":\"msg_1\",\"status\":\"completed\"}}\n\ndata: {\"type\":\"response.in_progress\",\"response\":{\"id\":\"resp_2\",\"status\":\"in_progress\"}}\n\n";
    let interaction = "data: {\"event_type\":\"interaction.created\",\"interaction\":{\"id\":\"v1_1\",\"status\":\"in_progress\"}}\n\ndata: {\"interaction\":{\"id\":\"v1_1\",\"status\":\"completed\"}}\n\n";
    let table: [(&str, &str, Option<&str>, bool, bool); 10] = [
        (json, created, Some("resp_0123456789abcdef0123456789abcdef0123456789abcdef"), true, true),
        (json, later, Some("1"), true, false),
        ("text/event-stream", stream, Some("resp_1"), true, true),
        ("text/event-stream", interaction, Some("v1_1"), false, false),
        (json, r#"{"id":"r\u00e9sp\n1","background":"true"}"#, Some("résp\n1"), false, false),
        (json, r#"{"id":17,"status":["queued"],"background":null}"#, None, false, false),
        (json, r#"{"error":{"id":"x","status":"queued"}}"#, None, false, false),
        (json, &format!(r#"{{"id":"{long}"}}"#), Some(&long), false, false),
        (json, &format!(r#"{{"id":"{long}x","status":"queued"}}"#), None, true, false),
        (json, "", None, false, false),
    ];
    for (content_type, body, id, pending, background) in table {
        for size in [1, 2, 3, 7, 64, body.len().max(1)] {
            let found = read(content_type, body, size);
            let is = (found.id(), found.is_pending(), found.is_in_background());
            assert_eq!(is, (id, pending, background), "{body} by {size}");
        }
    }
}
