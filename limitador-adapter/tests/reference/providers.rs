use crate::{code, codes, head, page, table};
use llm::overview;
use llm::request::{self, Dialect, Extent, edit};

/// Returns a path and a streaming request in this dialect. Each dialect has a separate path.
fn stream_of(dialect: Dialect) -> Option<(&'static str, &'static str)> {
    match dialect {
        Dialect::OpenAi => {
            Some(("/v1/chat/completions", r#"{"model":"m","stream":true,"messages":[{"content":"Hi"}]}"#))
        }
        Dialect::Anthropic => {
            Some(("/v1/messages", r#"{"model":"m","stream":true,"messages":[{"content":"Hi"}]}"#))
        }
        Dialect::Gemini => {
            Some(("/v1beta/models/m:streamGenerateContent", r#"{"contents":[{"parts":[{"text":"Hi"}]}]}"#))
        }
        Dialect::Bedrock => {
            Some(("/model/m/converse-stream", r#"{"messages":[{"content":[{"text":"Hi"}]}]}"#))
        }
        Dialect::Cohere => Some(("/v2/chat", r#"{"model":"m","stream":true,"messages":[{"content":"Hi"}]}"#)),
        Dialect::Ollama => Some(("/api/chat", r#"{"model":"m","messages":[{"content":"Hi"}]}"#)),
        Dialect::Unknown => None,
    }
}

/// Returns which facts of a body are known, and how the usage of its stream becomes known.
fn read(dialect: Dialect) -> (String, &'static str) {
    let Some((path, body)) = stream_of(dialect) else {
        return ("as far as the body has OpenAI's names".to_owned(), "if the response reports it");
    };
    let read = request::read(path, "application/json", body.as_bytes(), Extent::Whole);
    assert_eq!((read.dialect, read.stream, read.model.as_deref()), (dialect, true, Some("m")), "{path}");
    let from_path = |known: bool| if known { "from the path" } else { "from the body" };
    let (model, stream) = (from_path(read.route.model.is_some()), from_path(read.route.stream.is_some()));
    let asked = edit::ask_for_usage(&read, body.as_bytes()).unwrap().body.is_some();
    let usage = if asked { "Weir asks for it (`stream_options`)" } else { "the provider always reports it" };
    (format!("`llm.model` {model}, `llm.stream` {stream}"), usage)
}

#[test]
fn the_page_of_providers() {
    let mut text = head(
        "Providers",
        "Weir recognises an API by the path of the request, or else by the shape of its body. No provider has to be configured.\n\n\
         ## Dialects\n\n\
         A dialect is an API with its own requests and errors. Servers that implement OpenAI's API use its dialect. A refusal has \
         the form of the caller's dialect: [Refusals](reference/refusals.md) has an example of each.\n",
    );
    text += &table(
        [
            "Dialect",
            "Request facts",
            "Streams by default",
            "Usage of streams",
            "Tokens of an image",
            "Size unknown",
            "Request too large",
        ],
        overview::dialects().iter().map(|dialect| {
            let (facts, usage) = read(dialect.dialect);
            let streams = if dialect.streams { "yes" } else { "no" };
            [
                dialect.name.into(),
                facts,
                streams.into(),
                usage.into(),
                dialect.images.into(),
                dialect.tokens_per_image.to_string(),
                dialect.too_large.to_string(),
            ]
        }),
    );
    text += "\n## Providers with fields of their own\n\n\
        A request holds the estimate of its input and the maximum output that it asks for, so a hold is exact where Weir knows the \
        field for this maximum. `max_tokens`, `max_completion_tokens` and `max_output_tokens` are known for every provider. A \
        response is charged the usage that it reports. `usage` with OpenAI's names is found for every provider, and so are counts of \
        tokens under similar names in places that no file lists. A response without usage costs the estimate of its input and of \
        the delivered text.\n\n";
    text += &table(
        [
            "Provider",
            "Own calls",
            "Own fields for the maximum output",
            "Own fields and headers with usage",
            "Calls that use no tokens",
        ],
        overview::providers().iter().map(|provider| {
            [
                provider.name.into(),
                codes(provider.operations.iter().copied()),
                codes(provider.maxima.iter().copied()),
                codes(provider.usage.iter().copied()),
                if provider.tokenless == 0 { String::new() } else { provider.tokenless.to_string() },
            ]
        }),
    );
    text += &format!(
        "\nAn empty cell means that the provider does the same as OpenAI, or that its calls have the model in their path (Bedrock, \
         Vertex, Azure), which no table lists. The fact {} has the values of the second column.\n",
        code("llm.operation"),
    );
    page("providers.md", &text);
}
