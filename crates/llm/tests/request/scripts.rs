//! Compares the estimates for texts in twelve languages with the counts of real tokenizers (`scripts.json`:
//! OpenAI's o200k and the older cl100k, as counted by js-tiktoken 1.0.21).

use crate::read;
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Sample {
    language: String,
    o200k: u64,
    cl100k: u64,
    text: String,
}

#[test]
fn an_estimate_is_near_what_tokenizers_count_in_any_script() {
    let samples: Vec<Sample> = serde_json::from_str(include_str!("scripts.json")).unwrap();
    assert!(samples.len() >= 10);
    for Sample { language, o200k, cl100k, text } in samples {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}]});
        let estimate = read("/v1/chat/completions", body.to_string()).input;
        let (least, most) = (o200k.min(cl100k), o200k.max(cl100k));
        // Tokenizers differ by a factor of two or more. The estimate should be in their range or close to it.
        let bounds = least * 9 / 10..=most * 5 / 4;
        println!("{language}: {estimate}, {o200k} and {cl100k} counted");
        assert!(bounds.contains(&estimate), "{language}: {estimate}, {o200k} and {cl100k} counted");
    }
}
