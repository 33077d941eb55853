//! Request bodies of about 300 kB: honest ones for each API, like those of agents, and hostile ones that are
//! slow to read.

/// A name, a path, and the body.
pub type Body = (&'static str, &'static str, String);

const CHAT: &str = "/v1/chat/completions";
const SIZE: usize = 300_000;
const PROSE: &str = r#"A weir is a low wall across a river.\nIt holds the flow back, lets through \"what may pass\", and measures it, said naïvely. "#;

/// One body per API: a system prompt, tools, and turns with calls and their results.
pub fn honest() -> Vec<Body> {
    let schema = r#"{"type":"object","properties":{"path":{"type":"string","description":"The file to read, by its path in the repository."},"limit":{"type":"integer","description":"At most so many lines of it."}},"required":["path"]}"#;
    let list = |item: String| filled(&item, SIZE);
    let text = PROSE.repeat(12);
    let openai_tool = format!(
        r#"{{"type":"function","function":{{"name":"read_file","description":"{PROSE}","parameters":{schema}}}}}"#
    );
    let openai_turns = list(format!(
        r#"{{"role":"user","content":"{text}"}},{{"role":"assistant","content":null,"tool_calls":[{{"id":"call_1","type":"function","function":{{"name":"read_file","arguments":"{{\"path\":\"a\"}}"}}}}]}},{{"role":"tool","tool_call_id":"call_1","content":"{text}"}}"#
    ));
    let openai = format!(
        r#"{{"model":"gpt-4o","stream":true,"max_tokens":4096,"tools":[{}],"messages":[{openai_turns}]}}"#,
        [openai_tool.as_str(); 20].join(",")
    );
    let responses = format!(
        r#"{{"model":"gpt-4o","instructions":"{text}","max_output_tokens":4096,"input":[{}]}}"#,
        list(format!(
            r#"{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{text}"}}]}},{{"type":"function_call_output","call_id":"1","output":"{text}"}}"#
        ))
    );
    let anthropic = format!(
        r#"{{"model":"claude-sonnet-4","max_tokens":4096,"system":[{{"type":"text","text":"{text}"}}],"tools":[{{"name":"read_file","description":"{PROSE}","input_schema":{schema}}}],"messages":[{}]}}"#,
        list(format!(
            r#"{{"role":"user","content":[{{"type":"text","text":"{text}"}}]}},{{"role":"assistant","content":[{{"type":"tool_use","id":"1","name":"read_file","input":{{"path":"a"}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"1","content":"{text}"}}]}}"#
        ))
    );
    let gemini = format!(
        r#"{{"systemInstruction":{{"parts":[{{"text":"{text}"}}]}},"generationConfig":{{"maxOutputTokens":4096}},"contents":[{}]}}"#,
        list(format!(
            r#"{{"role":"user","parts":[{{"text":"{text}"}}]}},{{"role":"model","parts":[{{"functionCall":{{"name":"f","args":{{"path":"a"}}}}}}]}}"#
        ))
    );
    let bedrock = format!(
        r#"{{"system":[{{"text":"{text}"}}],"inferenceConfig":{{"maxTokens":4096}},"messages":[{}]}}"#,
        list(format!(r#"{{"role":"user","content":[{{"text":"{text}"}}]}}"#))
    );
    let cohere = format!(
        r#"{{"model":"command-r","max_tokens":4096,"messages":[{{"role":"user","content":"hello"}}],"documents":[{}]}}"#,
        list(format!(r#"{{"id":"1","data":{{"title":"a","snippet":"{text}"}}}}"#))
    );
    let ollama = format!(
        r#"{{"model":"llama3","options":{{"num_predict":4096}},"messages":[{}]}}"#,
        list(format!(r#"{{"role":"user","content":"{text}"}}"#))
    );
    let image = format!(
        r#"{{"model":"gpt-4o","messages":[{{"role":"user","content":[{{"type":"text","text":"What is this?"}},{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}]}}"#,
        "iVBORw0KGgoA".repeat(SIZE / 12)
    );
    vec![
        ("OpenAI chat with tools", CHAT, openai),
        ("OpenAI chat with an image", CHAT, image),
        ("OpenAI responses", "/v1/responses", responses),
        ("Anthropic messages", "/v1/messages", anthropic),
        ("Gemini", "/v1beta/models/gemini-2.5-pro:generateContent", gemini),
        ("Bedrock Converse", "/model/anthropic.claude-3/converse", bedrock),
        ("Cohere chat with documents", "/v2/chat", cohere),
        ("Ollama chat", "/api/chat", ollama),
    ]
}

/// Bodies that require as much work per byte as possible, each in a different way.
pub fn hostile() -> Vec<Body> {
    let content =
        |value: String| format!(r#"{{"model":"m","messages":[{{"role":"user","content":{value}}}]}}"#);
    let nested = |open: &str, close: &str| {
        let times = SIZE / (open.len() + close.len());
        format!("{}1{}", open.repeat(times), close.repeat(times))
    };
    let string = |piece: &str| format!("\"{}\"", piece.repeat(SIZE / piece.len()));
    let root = |members: String| format!(r#"{{"model":"m",{members}}}"#);
    let list = |item: &str| format!("[{}]", filled(item, SIZE));
    vec![
        ("lists in lists", CHAT, content(nested("[", "]"))),
        ("objects in objects", CHAT, content(nested(r#"{"a":"#, "}"))),
        ("lists in lists in an unknown place", CHAT, root(format!(r#""x":{}"#, nested("[", "]")))),
        ("tiny keys at the root", CHAT, root(filled(r#""":0"#, SIZE))),
        ("tiny keys in a message", CHAT, content(format!("{{{}}}", filled(r#""":0"#, SIZE)))),
        ("tiny keys in metadata", CHAT, root(format!(r#""metadata":{{{}}}"#, filled(r#""a":0"#, SIZE)))),
        ("tiny objects in a message", CHAT, content(list(r#"{"":0}"#))),
        ("escaped keys", CHAT, content(format!("{{{}}}", filled(r#""\u006do":0"#, SIZE)))),
        ("escaped text", CHAT, content(string(r"\u0061"))),
        ("short escapes", CHAT, content(string(r"\n"))),
        ("surrogate pairs", CHAT, content(string(r"\ud83d\ude00"))),
        ("quotes", CHAT, content(string("\\\""))),
        ("text that is not ASCII", CHAT, content(string("ä"))),
        ("one key again and again", CHAT, root(filled(r#""n":1"#, SIZE))),
        ("models again and again", CHAT, root(filled(r#""model":"m""#, SIZE))),
        ("spaces", CHAT, root(format!("{}\"a\":1", " ".repeat(SIZE)))),
        ("spaces between tokens", CHAT, content(list("\n\t 1 "))),
        ("token ids", "/v1/completions", root(format!(r#""prompt":{}"#, list("1")))),
        ("lists of a token id", "/v1/embeddings", root(format!(r#""input":{}"#, list("[1]")))),
        ("empty texts", CHAT, content(list(r#""""#))),
        ("texts of one character", CHAT, content(list(r#""a""#))),
        ("parts of one character", CHAT, content(list(r#"{"text":"a"}"#))),
        ("long numbers", CHAT, content(list("123456789012345678901234567890"))),
        ("no JSON", CHAT, "a,b;".repeat(SIZE / 4)),
    ]
}

/// Repeats the text, separated by commas, up to this size.
fn filled(item: &str, size: usize) -> String {
    vec![item; size / (item.len() + 1) + 1].join(",")
}
