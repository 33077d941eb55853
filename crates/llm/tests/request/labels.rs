//! Bodies with wrong headers. The hold covers all text that a lenient server would read.

use crate::CHAT;
use crate::compressed::compressed;
use llm::request::{self, Condition, Extent, ParsedBody, RequestBody, Wire, edit};
use proptest::prelude::*;
use serde_json::json;

const MOST: usize = 1 << 20;

fn wire<'a>(content_type: &'a str, content_encoding: &'a str, body: &'a [u8]) -> Wire<'a, 'a> {
    Wire { method: "", path: CHAT, content_type, content_encoding, body, extent: Extent::Whole, most: MOST }
}

fn chat() -> String {
    let text = "x".repeat(4000);
    json!({ "model": "dear", "stream": true, "user": "u", "messages": [{ "role": "user", "content": text }] })
        .to_string()
}

fn with(mut body: RequestBody, condition: Condition) -> RequestBody {
    body.condition = condition;
    body
}

#[test]
fn a_body_that_is_not_encoded_as_it_says_is_read_all_the_same() {
    let text = chat();
    let plain = crate::read(CHAT, &text);
    assert!(plain.input >= 1000 && plain.model.as_deref() == Some("dear"));
    let labels = [
        "gzip",
        "br",
        "zstd",
        "deflate",
        "x-gzip",
        "GZIP",
        " Br ",
        "snappy",
        "gzip, br",
        "identity, gzip",
        "gzip,gzip",
        "gzip,,identity",
        "\"gzip\"",
        "utf-8",
        "gzip;q=1",
        "a,b,c,d,e,f,g,h",
    ];
    for label in labels {
        for body in [text.clone(), format!("\u{feff}{text}"), format!("\r\n {text}")] {
            let ParsedBody { body: read, text, cause } =
                wire("application/json", label, body.as_bytes()).read();
            assert_eq!((&read, cause), (&with(plain.clone(), Condition::Mislabeled), None), "{label}");
            let asked = edit::ask_for_usage(&read, &text).unwrap();
            assert!(asked.unasked && asked.body.is_some(), "{label}");
        }
    }
    for label in ["", "identity", "IDENTITY, identity", " , "] {
        assert_eq!(wire("application/json", label, text.as_bytes()).read().body, plain, "{label}");
    }
}

#[test]
fn a_body_that_is_encoded_otherwise_than_it_says_is_decoded() {
    let text = chat();
    let plain = crate::read(CHAT, &text);
    let packed = |encodings: &[&str]| {
        encodings.iter().fold(text.clone().into_bytes(), |body, encoding| compressed(encoding, &body))
    };
    let table: &[(&[&str], &str, Condition)] = &[
        (&["gzip"], "gzip", Condition::Read),
        (&["gzip"], "", Condition::Mislabeled),
        (&["gzip"], "br", Condition::Mislabeled),
        (&["gzip"], "gzip, gzip", Condition::Mislabeled),
        (&["gzip"], "identity", Condition::Mislabeled),
        (&["zstd"], "", Condition::Mislabeled),
        (&["zstd"], "deflate", Condition::Mislabeled),
        (&["deflate"], "", Condition::Mislabeled),
        (&["br"], "br", Condition::Read),
        (&["br"], "br, gzip", Condition::Undecoded),
        (&["gzip", "gzip"], "gzip, gzip", Condition::Read),
        (&["gzip", "gzip"], "gzip", Condition::Mislabeled),
        (&["gzip", "br"], "gzip, br", Condition::Read),
        (&["br", "gzip"], "br,gzip", Condition::Read),
        (&["gzip", "zstd", "deflate"], "", Condition::Mislabeled),
        (&["gzip", "gzip", "gzip", "gzip"], "gzip,gzip,gzip,gzip", Condition::Undecoded),
        (&["gzip", "gzip", "gzip", "gzip"], "", Condition::Foreign),
        (&["br"], "", Condition::Foreign),
        (&["br"], "snappy", Condition::Undecoded),
    ];
    for (encodings, label, condition) in table {
        let body = packed(encodings);
        let read = wire("application/json", label, &body).read();
        assert_eq!(read.body.condition, *condition, "{encodings:?} as {label}");
        if condition.hides_facts() {
            assert!(read.body.input >= body.len() as u64 / 4, "{encodings:?} as {label}");
        } else {
            assert_eq!(read.body, with(plain.clone(), *condition), "{encodings:?} as {label}");
            assert_eq!(read.text, text.as_bytes(), "{encodings:?} as {label}");
        }
    }
}

#[test]
fn a_stream_whose_end_is_missing_is_read_as_far_as_it_goes() {
    let text = chat();
    let plain = crate::read(CHAT, &text);
    for encoding in ["gzip", "deflate"] {
        let body = compressed(encoding, text.as_bytes());
        let read = wire("", encoding, &body[..body.len() - 3]).read();
        assert_eq!(read.body, plain, "{encoding}");
        let half = wire("", encoding, &body[..body.len() / 2]).read();
        assert!(half.body.condition.hides_facts() && half.body.input >= body.len() as u64 / 8, "{encoding}");
    }
}

/// A server in Go reads this body as JSON, and a server that inflates it reads other JSON. The first byte is
/// followed by the length of an uncompressed block and its complement, which also begin a key.
fn in_two_ways() -> Vec<u8> {
    let mut body = b" {\"\x84\xdd{\":\":\",\"}".to_vec();
    body.resize(5 + 0x227b, b' ');
    body.extend_from_slice(br#"":0,"model":"dear","stream":true,"messages":"hello"}"#);
    body
}

#[test]
fn a_body_that_can_be_read_in_two_ways_is_known_only_where_they_agree() {
    let body = in_two_ways();
    let alone = wire("", "", &body).read().body;
    assert_eq!((alone.model.as_deref(), alone.condition), (Some("dear"), Condition::Read));
    let read = wire("", "deflate", &body).read().body;
    assert_eq!((read.model.as_deref(), read.condition), (None, Condition::Ambiguous));
    assert!(read.stream && read.input >= alone.input);
    assert_eq!(edit::cap_output(&read, &body, 9), Err(edit::Unchangeable::Ambiguous));

    let form = "multipart/form-data; boundary=b";
    let json = r#"{"model":"cheap","stream":true,"messages":"hi"}"#;
    let part = |model: &str| {
        format!("\r\n--b\r\nContent-Disposition: form-data; name=model\r\n\r\n{model}\r\n--b--")
    };
    let behind = format!("{json}{}", part("dear"));
    let inside = json!({ "model": "cheap", "messages": part("dear") }).to_string().replace("\\r\\n", "\r\n");
    for body in [&behind, &inside] {
        let read = wire(form, "", body.as_bytes()).read().body;
        assert_eq!((read.model, read.condition), (None, Condition::Ambiguous), "{body}");
    }
    let same = wire(form, "", behind.replace("dear", "cheap").as_bytes()).read().body;
    assert_eq!(same.model.as_deref(), Some("cheap"));
}

#[test]
fn the_bytes_say_what_a_body_is_and_not_its_type() {
    let text = chat();
    let plain = crate::read(CHAT, &text);
    let types = [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "text/html; charset=utf-8",
        "application/json; charset=\"UTF-8\"",
        "nonsense",
        "application/json; charset=latin1",
    ];
    for content_type in types {
        assert_eq!(wire(content_type, "", text.as_bytes()).read().body, plain, "{content_type}");
    }
    for content_type in
        ["multipart/form-data", "Multipart/Mixed; boundary=b", "multipart/form-data; boundary="]
    {
        let read = wire(content_type, "", text.as_bytes()).read().body;
        assert_eq!(read, with(plain.clone(), Condition::Mislabeled), "{content_type}");
    }
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--b\r\nContent-Disposition: form-data; \
                name=\"prompt\"\r\n\r\n12345678\r\n--b--\r\n";
    for content_type in
        ["multipart/form-data; boundary=b", "multipart/form-data; boundary=c", "application/json", ""]
    {
        let read = wire(content_type, "", form.as_bytes()).read().body;
        assert_eq!((read.model.as_deref(), read.input), (Some("m"), 2), "{content_type}");
    }
    let urlencoded = format!("model=m&prompt={}", "x".repeat(400));
    let read = wire("application/x-www-form-urlencoded", "", urlencoded.as_bytes()).read().body;
    assert!(read.condition.hides_facts() && read.input >= 100);
}

#[test]
fn a_charset_in_which_the_bytes_are_another_text_leaves_nothing_known() {
    for charset in ["utf-7", "UTF-7-IMAP", "gbk", "shift_jis", "'x'"] {
        let content_type = format!("application/json; a=b; Charset={charset}");
        let text = chat();
        let read = wire(&content_type, "", text.as_bytes()).read().body;
        assert_eq!((read.model, read.user, read.condition), (None, None, Condition::Ambiguous), "{charset}");
        assert!(read.stream && read.input >= 1000);
        assert!(edit::ask_for_usage(&crate::read(CHAT, &text), text.as_bytes()).is_ok());
    }
}

#[test]
fn what_only_a_lenient_server_reads_is_read_and_edited() {
    let table = [
        r#"{"model":"m","stream":true,"x":NaN,"messages":"12345678"}"#,
        r#"{"model":"m","stream":true,"x":[-Infinity,Infinity,01,1e3,.5,+1],"messages":"12345678",}"#,
        "{\"model\":\"m\",\"stream\":true,\"x\":\"\n\t\x01\\ud800\",\"messages\":\"12345678\"}",
        r#"{"model":"m","stream":true,"messages":"12345678"}} and more"#,
        r#"{"model":"m","stream":true,"messages":"12345678"}{"stream":false}"#,
        "\u{feff}{\"model\":\"m\",\"stream\":true,\"messages\":\"12345678\"}",
        r#"{"x":[1/*"*/],"model":"m",/*"]*/"stream":true,"messages":"12345678"}"#,
        "// comment\n{'x':['\"'],'model':'m',stream:true,'messages':\"12345678\"}",
    ];
    for text in table {
        let body = crate::read(CHAT, text);
        assert_eq!((body.model.as_deref(), body.stream), (Some("m"), true), "{text}");
        assert!(body.input >= 2, "{text}");
        let asked = edit::ask_for_usage(&body, text.as_bytes()).unwrap();
        let edited = String::from_utf8(asked.body.expect(text)).unwrap();
        assert_eq!(edited.replacen("\"stream_options\":{\"include_usage\":true},", "", 1), text);
        let capped = edit::cap_output(&body, text.as_bytes(), 9).unwrap();
        assert!(String::from_utf8(capped.expect(text)).unwrap().contains("{\"max_tokens\":9,"), "{text}");
    }
    let raw = b"{\"model\":\"m\",\"stream\":true,\"messages\":\"\xff\xfe123456\"}";
    let body = crate::read(CHAT, raw);
    assert!(edit::ask_for_usage(&body, raw).unwrap().body.is_some());
}

#[test]
fn a_key_in_a_case_that_only_go_takes_does_not_take_back_what_was_asked() {
    let text = r#"{"stream":true,"Stream_Options":{"INCLUDE_USAGE":false}}"#;
    let asked = edit::ask_for_usage(&crate::read(CHAT, text), text.as_bytes()).unwrap();
    let edited = String::from_utf8(asked.body.unwrap()).unwrap();
    assert_eq!(
        edited,
        r#"{"stream_options":{"include_usage":true},"stream":true,"Stream_Options":{"include_usage":true,"INCLUDE_USAGE":true}}"#
    );
}

#[test]
fn utf_16_is_read_and_cannot_be_changed() {
    let text = chat();
    let plain = crate::read(CHAT, &text);
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let read = wire("application/json", "", &utf16).read();
    assert_eq!(
        (&read.body.model, read.body.input, read.body.condition),
        (&plain.model, plain.input, Condition::Read)
    );
    assert_eq!(read.text, text.as_bytes());
    assert_eq!(edit::ask_for_usage(&read.body, &read.text), Err(edit::Unchangeable::NotUtf8));
    assert_eq!(edit::cap_output(&read.body, &read.text, 9), Err(edit::Unchangeable::NotUtf8));
}

#[test]
fn half_a_body_goes_on_without_its_usage_and_not_without_its_cap() {
    let text = br#"{"model":"m","stream":true,"messages":"hi"#;
    let body = request::read(CHAT, "", text, Extent::Cut(None));
    assert_eq!(edit::ask_for_usage(&body, text), Ok(edit::UsageRequest::default()));
    assert_eq!(edit::cap_output(&body, text, 9), Err(edit::Unchangeable::Incomplete));
    let capped = br#"{"model":"m","max_tokens":5,"stream":true,"messages":"hi"#;
    let body = request::read(CHAT, "", capped, Extent::Cut(None));
    assert_eq!(edit::cap_output(&body, capped, 9), Ok(None));
}

#[test]
fn a_comment_or_another_quote_hides_nothing_behind_it() {
    for text in [
        r#"{"model":"cheap","id":[1/*"*/],"model":"dear","id":[/*"*/]}"#,
        r#"{"model":"cheap","id":['"'],"model":"dear","id":['"']}"#,
        "{\"model\":\"cheap\",\"id\":[1#\"\n],\"model\":\"dear\",\"id\":[1#\"\n]}",
        r#"{"model":"cheap","id":1/*"*/,"model":"dear","id":2/*"*/}"#,
        r#"{"model":"cheap","seed":1/*"*/,"model":"dear","seed":2/*"*/}"#,
        r#"{"model":"cheap","id":'"',"model":"dear","id":'"'}"#,
        r#"{"model":"cheap","id":/*,"model":"cheap","id":*/1,"model":"dear"}"#,
    ] {
        let read = crate::read("/elsewhere", text);
        assert_eq!((read.model.as_deref(), read.condition), (Some("dear"), Condition::Malformed), "{text}");
    }
}

fn label() -> impl Strategy<Value = String> {
    let names = ["", "gzip", "br", "zstd", "deflate", "identity", "snappy", "GZIP", " ", "x-gzip", ";"];
    prop::collection::vec(prop::sample::select(names.to_vec()), 0..5).prop_map(|names| names.join(","))
}

fn content_type() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "application/json",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "text/plain; charset=utf-7",
        "application/json; charset=utf-16",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_with_any_labels_are_held_for(
        bytes in prop::collection::vec(any::<u8>(), 0..400), label in label(), content_type in content_type(),
        most in 1usize..500, whole in any::<bool>(),
    ) {
        let extent = if whole { Extent::Whole } else { Extent::Cut(None) };
        let wire = Wire { method: "", path: CHAT, content_type, content_encoding: &label, body: &bytes, extent, most };
        let read = wire.read();
        if read.body.condition.hides_facts() {
            prop_assert!(read.body.input >= bytes.len() as u64 / 4);
        }
        let _ = (edit::ask_for_usage(&read.body, &read.text), edit::cap_output(&read.body, &read.text, 9));
    }

    #[test]
    fn a_request_is_held_for_however_it_is_packed_and_labelled(
        text in "[a-z \u{e4}\u{6c34}]{0,300}", max in prop::option::of(1u64..100_000), label in label(),
        content_type in content_type(), layers in prop::collection::vec(prop::sample::select(vec!["gzip", "deflate", "br", "zstd"]), 0..4),
        form in 0..4u8,
    ) {
        let mut value = json!({ "model": "m", "stream": true, "messages": [{ "content": text }] });
        if let Some(max) = max {
            value["max_tokens"] = max.into();
        }
        let honest = crate::read(CHAT, value.to_string());
        let mut body = match form {
            0 => value.to_string().into_bytes(),
            1 => value.to_string().encode_utf16().flat_map(u16::to_be_bytes).collect(),
            2 => format!("\u{feff}{value}").into_bytes(),
            _ => value.to_string().replacen('{', "{\"temperature\":NaN,", 1).into_bytes(),
        };
        for layer in &layers {
            body = compressed(layer, &body);
        }
        let read = wire(content_type, &label, &body).read().body;
        if !read.condition.hides_facts() {
            prop_assert_eq!((&read.model, read.input, read.max_output), (&honest.model, honest.input, honest.max_output));
            prop_assert!(read.stream);
        } else {
            // If no server can decode the body, the hold is based on the length on the wire, which is all
            // that a server receives.
            prop_assert!(read.input >= body.len() as u64 / 4);
            prop_assert!(read.model.is_none() || read.model == honest.model);
        }
    }
}
