//! Every known behaviour of a provider has a body in the corpus.

use crate::corpus::cases;
use llm::response::MeterReading;

/// The behaviours, and the bodies that show them.
const LIST: &[(&str, &[&str])] = &[
    // OpenAI's chat completions.
    ("an answer, with all its details", &["openai-chat.json", "openai-chat-tools.json"]),
    ("several choices, reasoning and rejected predictions, all in the output", &["openai-chat-n.json"]),
    ("a stream whose every chunk has a null but the last", &["openai-chat-stream.sse"]),
    ("a stream that never tells", &["openai-chat-stream-no-usage.sse"]),
    ("obfuscation beside the deltas", &["openai-chat-stream.sse"]),
    ("a first chunk without choices that is none about usage", &["azure-chat-stream.sse"]),
    ("usage on the last chunk with content", &["mistral-stream.sse", "deepseek-stream.sse"]),
    ("usage on every chunk", &["vllm-continuous.sse", "tensorrt-llm-stream.sse"]),
    ("no total", &["no-total.sse"]),
    ("an empty usage", &["empty-usage-then-usage.sse"]),
    // Completions, embeddings and others.
    ("completions", &["openai-completion.json", "openai-completion-stream.sse"]),
    ("embeddings", &["openai-embeddings.json"]),
    ("images", &["openai-image.json"]),
    ("audio in tokens", &["openai-transcription.json", "openai-transcription-stream.sse"]),
    ("audio in seconds", &["openai-transcription-duration.json"]),
    ("what uses no tokens", &["openai-moderation.json", "openai-models.json", "openai-files.json"]),
    // OpenAI's responses.
    ("a response", &["responses.json"]),
    (
        "its three ends",
        &["responses-stream.sse", "responses-stream-incomplete.sse", "responses-stream-failed.sse"],
    ),
    ("an end that repeats the whole output", &["responses-stream.sse", "large-event.sse"]),
    ("one in the background", &["responses-background.json"]),
    // Anthropic.
    ("a message, whose input is without caches", &["anthropic.json", "litellm-anthropic.json"]),
    ("usage at both ends of a stream", &["anthropic-stream.sse", "anthropic-stream-cache.sse"]),
    ("several cumulative deltas", &["anthropic-stream-two-deltas.sse"]),
    (
        "a delta that repeats the input",
        &["anthropic-stream-repeated-input.sse", "anthropic-stream-two-deltas.sse"],
    ),
    ("an error amid a stream", &["anthropic-stream-overloaded.sse"]),
    ("iterations, speed and credit beside the counts", &["anthropic-beta.json"]),
    ("counting", &["anthropic-count-tokens.json"]),
    // Gemini and Vertex.
    ("an answer", &["gemini.json", "gemini-tool-use.json"]),
    ("thoughts in the candidates' count", &["gemini-thoughts-included.json"]),
    ("a snapshot with every chunk, the first without counts", &["gemini-stream.sse"]),
    ("a maximum reached in thinking", &["gemini-max-tokens-in-thinking.json"]),
    ("a stream that is one array", &["gemini-stream-array.json", "gemini-stream-array-error.json"]),
    ("counting, too", &["gemini-count-tokens.json"]),
    ("embeddings with and without statistics", &["gemini-embed.json", "vertex-predict-embeddings.json"]),
    ("the live API's name", &["gemini-live.json"]),
    ("functions called", &["gemini-stream-function-call.sse"]),
    // Bedrock.
    ("converse", &["bedrock-converse.json"]),
    ("its frames", &["bedrock-converse-stream.frames", "bedrock-converse-stream-exception.frames"]),
    ("headers", &["bedrock-invoke-headers.json", "bedrock-invoke-mistral-headers.json"]),
    ("no headers", &["bedrock-invoke-cohere.json", "bedrock-invoke-titan.json"]),
    (
        "frames around the vendors' streams, metrics last",
        &[
            "bedrock-invoke-anthropic-stream.frames",
            "bedrock-invoke-llama-stream.frames",
            "bedrock-invoke-nova-stream.frames",
        ],
    ),
    // Cohere.
    ("floats, and tokens beside billed units", &["cohere.json"]),
    ("a stream's end", &["cohere-stream.sse", "cohere-v1-stream.ndjson"]),
    (
        "what is billed in other units",
        &["cohere-embed.json", "cohere-rerank.json", "cohere-billed-only.json"],
    ),
    // The compatible servers.
    ("Mistral", &["mistral-stream.sse", "mistral-magistral.json"]),
    ("vLLM", &["vllm-continuous.sse", "vllm-reasoning-stream.sse", "vllm-null-details.json"]),
    ("TensorRT-LLM", &["tensorrt-llm-stream.sse"]),
    ("SGLang", &["sglang-stream.sse"]),
    (
        "llama.cpp",
        &[
            "llamacpp-chat.json",
            "llamacpp-completion.json",
            "llamacpp-completion-stream.sse",
            "llamacpp-timings-only.sse",
        ],
    ),
    (
        "Ollama",
        &[
            "ollama-chat.ndjson",
            "ollama-chat.json",
            "ollama-generate.ndjson",
            "ollama-embed.json",
            "ollama-error.ndjson",
            "ollama-chat-tools.ndjson",
        ],
    ),
    ("DeepSeek, with comments that keep alive", &["deepseek-stream.sse"]),
    ("Groq", &["groq-stream.sse", "groq-stream-both.sse"]),
    ("OpenRouter, with a cost in USD", &["openrouter-stream.sse"]),
    ("xAI, whose total tells of the reasoning", &["xai.json"]),
    // The formats of streams.
    ("CR", &["openai-chat-stream-cr.sse"]),
    ("CRLF", &["openai-chat-stream-crlf.sse"]),
    ("a byte order mark", &["openai-chat-stream-bom.sse"]),
    ("data of several lines", &["openai-chat-stream-multi-line-data.sse"]),
    ("comments", &["openrouter-stream.sse", "deepseek-stream.sse"]),
    ("no last line", &["openai-chat-stream-no-last-line.sse"]),
    ("no [DONE]", &["openai-chat-stream-no-last-line.sse", "gemini-stream.sse"]),
    ("a null after the usage", &["openai-chat-stream-usage-in-the-middle.sse"]),
    ("JSON on a streaming request", &["openai-error-on-a-stream.sse"]),
    ("an error after 200", &["openai-chat-stream-error.sse", "responses-stream-error.sse"]),
    ("errors", &["openai-error.json", "anthropic-error.json", "bedrock-throttled.json"]),
    (
        "arguments in pieces",
        &[
            "openai-chat-stream-tools.sse",
            "responses-stream-arguments.sse",
            "anthropic-stream-thinking-and-tools.sse",
        ],
    ),
    ("usage before the choices", &["openai-chat-usage-first.json"]),
];

#[test]
fn every_case_of_the_list_has_a_body_and_every_body_is_on_the_list() {
    let listed: Vec<&str> = LIST.iter().flat_map(|(_, bodies)| bodies.iter().copied()).collect();
    let there: Vec<&str> = cases().iter().map(|case| case.name.as_str()).collect();
    let missing: Vec<_> = listed.iter().filter(|name| !there.contains(name)).collect();
    let unlisted: Vec<_> = there.iter().filter(|name| !listed.contains(name)).collect();
    assert!(missing.is_empty() && unlisted.is_empty(), "missing {missing:?}, unlisted {unlisted:?}");
}

#[test]
fn the_bodies_have_what_the_list_says_of_how_they_are_written() {
    let body = |name: &str| &cases().iter().find(|case| case.name == name).unwrap().body[..];
    let has = |name, part: &str| body(name).windows(part.len()).any(|found| found == part.as_bytes());
    assert!(body("openai-chat-stream-bom.sse").starts_with(b"\xef\xbb\xbf"));
    assert!(!has("openai-chat-stream-cr.sse", "\n") && has("openai-chat-stream-crlf.sse", "\r\n\r\n"));
    assert!(!body("openai-chat-stream-no-last-line.sse").ends_with(b"\n"));
    assert!(
        has("openai-chat-stream.sse", "obfuscation") && has("azure-chat-stream.sse", "prompt_filter_results")
    );
    assert!(
        has("deepseek-stream.sse", ": keep-alive") && has("openrouter-stream.sse", ": OPENROUTER PROCESSING")
    );
    assert!(has("vllm-null-details.json", "\"prompt_tokens_details\":null"));
    assert!(has("empty-usage-then-usage.sse", "\"usage\":{}"));
}

#[test]
fn what_uses_no_tokens_reports_none() {
    for name in ["openai-moderation.json", "openai-models.json", "openai-files.json"] {
        let case = cases().iter().find(|case| case.name == name).unwrap();
        assert_eq!(case.expected, MeterReading::default(), "{name}");
    }
}
