//! Measures the speed of the meter for each format, compared with `serde_json`. Reports the best of several
//! rounds. Run `cargo bench -p llm --bench response`, or add a part of a name to measure fewer bodies.

mod timer;

use flate2::Compression;
use flate2::write::GzEncoder;
use llm::response::{Meter, ResponseHead};
use std::hint::black_box;
use std::io::Write;

/// The size of the chunks that Envoy delivers.
const CHUNK: usize = 16 << 10;

struct Body {
    name: &'static str,
    bytes: Vec<u8>,
    encoding: &'static str,
    /// The decoded size in bytes.
    plain: usize,
    /// The documents in it, for a parser that needs complete documents.
    documents: Vec<Vec<u8>>,
}

fn main() -> std::io::Result<()> {
    println!("{:32} {:>9} {:>10} {:>12} {:>7}", "", "bytes", "GB/s", "serde_json", "ratio");
    let name = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for body in bodies()?.into_iter().filter(|body| body.name.contains(&name)) {
        let meter = speed(body.plain, || read(&body));
        let json = speed(body.plain, || parse(&body.documents));
        let ratio = meter / json;
        println!("{:32} {:9} {meter:10.2} {json:12.2} {ratio:7.1}", body.name, body.bytes.len());
    }
    Ok(())
}

fn read(body: &Body) {
    let head = ResponseHead { content_encoding: body.encoding.to_owned(), ..ResponseHead::default() };
    let mut meter = Meter::new(&head);
    for chunk in body.bytes.chunks(CHUNK) {
        meter.feed(black_box(chunk));
    }
    let reading = meter.finish();
    assert!(reading.broken.is_none());
    black_box(reading);
}

fn parse(documents: &[Vec<u8>]) {
    for document in documents {
        black_box(serde_json::from_slice::<serde_json::Value>(black_box(document)).ok());
    }
}

/// Returns the decoded GB/s of the best of many rounds.
fn speed(bytes: usize, work: impl Fn()) -> f64 {
    bytes as f64 / timer::best(1, work)
}

fn bodies() -> std::io::Result<Vec<Body>> {
    let usage = r#""usage":{"prompt_tokens":19,"completion_tokens":10,"total_tokens":29,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;
    let chat = |text: &str, extra: &str| {
        format!(
            r#"{{"id":"chatcmpl-9A1","object":"chat.completion","created":1740000000,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":{extra},"finish_reason":"stop"}}],{usage},"service_tier":"default","system_fingerprint":"fp_1"}}"#
        )
    };
    // Prose like a model's, with occasional line ends and quotations, and with unescaped non-ASCII
    // characters.
    let prose = r#"A weir is a low wall across a river, and it is older than most cities.\nIt holds the flow back, lets through \"what may pass\", and measures it — naïvely said.\n\n"#;
    let logprob = r#"{"token":" weir","logprob":-0.0123,"bytes":[32,119,101,105,114],"top_logprobs":[{"token":" weir","logprob":-0.0123,"bytes":[32,119,101,105,114]}]},"#;
    let logprobs = |times: usize| format!(r#"{{"content":[{}null]}}"#, logprob.repeat(times));
    let vector = "-0.006929283495992422,0.01374,".repeat(35_000);
    let embedding = format!(
        r#"{{"object":"list","data":[{{"embedding":[{vector}0],"index":0}}],"usage":{{"prompt_tokens":8,"total_tokens":8}}}}"#
    );
    let event = |text: &str| {
        format!(
            r#"{{"id":"chatcmpl-9B1","object":"chat.completion.chunk","created":1740000000,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_1","choices":[{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":null}}]}}"#
        )
    };
    let words = [" weir", " holds", " the", " flow", ",\\n", " na\u{ef}ve", " lets", " through"];
    let events = |count: usize| words.iter().cycle().take(count).map(|word| event(word)).collect::<Vec<_>>();
    let last = format!(r#"{{"id":"chatcmpl-9B1","object":"chat.completion.chunk","choices":[],{usage}}}"#);
    let with_usage = events(200).into_iter().chain([last]).collect::<Vec<_>>();
    let long = events(4000);
    let with_usage_each = events(200)
        .iter()
        .map(|event| event.replace(r#""choices""#, &format!(r#"{usage},"choices""#)))
        .collect::<Vec<_>>();
    // The same bytes, with the usage in a place that no provider names.
    let elsewhere = |text: &String| text.replace(r#""usage""#, r#""stats""#);
    let deltas: Vec<String> = words.iter().cycle().take(4000).map(|word| format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{word}"}}}}"#)).collect();
    let responses: Vec<String> = words.iter().cycle().take(4000).enumerate().map(|(number, word)| format!(r#"{{"type":"response.output_text.delta","sequence_number":{number},"item_id":"msg_68a1b2c3d4e5f60718293a4b5c6d7e8f","output_index":0,"content_index":0,"delta":"{word}","logprobs":[],"obfuscation":"{}"}}"#, "aB3dE5gH7jK9mN".get(number % 14..).unwrap_or_default())).collect();
    let uncompressed = [
        ("1.2 kB JSON answer", vec![chat(&prose.repeat(5), "null")], false),
        ("1.2 kB JSON answer, found", vec![elsewhere(&chat(&prose.repeat(5), "null"))], false),
        ("1 MB JSON answer, prose", vec![chat(&prose.repeat(6000), "null")], false),
        ("1 MB JSON answer, logprobs", vec![chat(&prose.repeat(100), &logprobs(6600))], false),
        ("1 MB JSON answer, embeddings", vec![embedding], false),
        ("SSE, 200 chunks and usage", with_usage.clone(), true),
        ("SSE, 200 chunks, usage found", with_usage.iter().map(elsewhere).collect(), true),
        ("SSE, usage in each chunk", with_usage_each.clone(), true),
        ("SSE, usage in each chunk, found", with_usage_each.iter().map(elsewhere).collect(), true),
        ("SSE, 1 MB without usage", long, true),
        ("SSE, Anthropic deltas", deltas, true),
        ("SSE, Responses deltas", responses, true),
        ("SSE, one event of 1 MB", vec![chat(&prose.repeat(6000), "null")], true),
    ];
    let mut bodies = Vec::new();
    for (name, documents, is_stream) in uncompressed {
        let documents: Vec<Vec<u8>> = documents.into_iter().map(String::into_bytes).collect();
        let bytes = if is_stream { sse(&documents) } else { documents.concat() };
        let plain = bytes.len();
        bodies.push(Body { name, bytes, encoding: "", plain, documents });
    }
    let compressed = [
        ("1 MB JSON answer, prose", "1 MB JSON answer, prose, gzip", "gzip"),
        ("SSE, 200 chunks and usage", "SSE, 200 chunks and usage, gzip", "gzip"),
        ("SSE, 200 chunks and usage", "SSE, 200 chunks and usage, br", "br"),
        ("SSE, 200 chunks and usage", "SSE, 200 chunks and usage, zstd", "zstd"),
    ];
    for (of, name, encoding) in compressed {
        for index in 0..bodies.len() {
            if let Some(plain) = bodies.get(index).filter(|body: &&Body| body.name == of) {
                let documents = plain.documents.clone();
                let (plain, bytes) = (plain.plain, compress(&plain.bytes, encoding)?);
                bodies.push(Body { name, bytes, encoding, plain, documents });
            }
        }
    }
    Ok(bodies)
}

fn sse(documents: &[Vec<u8>]) -> Vec<u8> {
    documents.iter().flat_map(|document| [b"data: ", &document[..], b"\n\n"].concat()).collect()
}

fn compress(bytes: &[u8], encoding: &str) -> std::io::Result<Vec<u8>> {
    match encoding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        "br" => {
            let mut encoder = brotli_encoder::CompressorWriter::new(Vec::new(), 4096, 5, 22);
            encoder.write_all(bytes)?;
            Ok(encoder.into_inner())
        }
        _ => libzstd::encode_all(bytes, 3),
    }
}
