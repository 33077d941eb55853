//! Counts of tokens in unlisted places are found by their names, but never in generated text.

use llm::response::{Meter, MeterReading, ResponseHead};
use serde_json::{Value, json};
use std::ops::Range;

fn read(body: &str) -> MeterReading {
    let mut meter = Meter::new(&ResponseHead { status: 200, ..ResponseHead::default() });
    meter.feed(body.as_bytes());
    meter.finish()
}

fn input_and_output(body: &Value) -> Option<(u64, u64)> {
    read(&body.to_string()).usage.map(|usage| (usage.input, usage.output))
}

#[test]
fn counts_are_found_wherever_a_provider_puts_them() {
    let tokens = json!({"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46});
    let table = [
        // Envelopes.
        json!({"code": 0, "data": {"choices": [{"message": {"content": "hi"}}], "usage": tokens}}),
        json!({"method": "turn/completed", "params": {"usage": tokens}}),
        json!({"result": {"response": "hi", "usage": tokens}, "success": true, "errors": [], "messages": []}),
        json!({"response": {"choices": [], "usage": tokens}, "status": "COMPLETED"}),
        json!({"Response": {"Choices": [{"Message": {"Content": "hi"}}],
            "Usage": {"PromptTokens": 12, "CompletionTokens": 34, "TotalTokens": 46}}}),
        json!({"response": {"candidates": [],
            "usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 30, "thoughtsTokenCount": 4, "totalTokenCount": 46}}}),
        json!({"header": {"code": 0}, "payload": {"usage": {"text":
            {"question_tokens": 4, "prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}}}}),
        json!({"modelId": "m", "chatResponse": {"usage": {"promptTokens": 12, "completionTokens": 34}}}),
        json!({"intermediate_results": {"llm": {"id": "a", "usage": tokens}}, "final_result": {"id": "a", "usage": tokens}}),
        json!({"result": {"alternatives": [{"message": {"text": "hi"}}],
            "usage": {"inputTextTokens": "12", "completionTokens": "34", "totalTokens": "46"}}}),
        // Names.
        json!({"metrics": {"input_token_count": 12, "output_token_count": 34, "tokens_per_second": 8}}),
        json!({"metrics": [
            {"metric": "num_completion_tokens", "value": 34, "unit": "tokens"},
            {"metric": "num_prompt_tokens", "value": 12, "unit": "tokens"}]}),
        json!({"num_tokens_prompt_total": 12, "num_tokens_generated": 34, "completions": [{"completion": "hi"}]}),
        json!({"generated_text": "hi", "nb_input_tokens": 12, "nb_generated_tokens": 34}),
        json!({"stats": {"input_tokens": 12, "total_output_tokens": 34, "reasoning_output_tokens": 0}}),
        json!({"inference_status": {"tokens_input": 12, "tokens_generated": 34}, "num_tokens": 34, "num_input_tokens": 12}),
        json!({"metadata": {"usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_price": "0.5"}}}),
        json!({"output": [{"choices": [{"tokens": ["hi"]}], "usage": {"input": 12, "output": 34}}], "status": "COMPLETED"}),
        json!({"usage": {"prompt_tokens": "12", "completion_tokens": 34.0}}),
        json!({"usage": {"input": 12, "output": 34, "cost": {"input": 1.0, "output": 2.0}}}),
        json!({"token_usage": {"prompttokens": 12, "completiontokens": 34}}),
        json!({"usage": {"query_tokens": 12, "answer_tokens": 34, "request": 1}}),
        json!({"usage": {"tokens_sent": 12, "tokens_received": 34}}),
        json!({"usageMetadata": {"input_tokens": 12, "output_tokens": 34}}),
        json!({"metadata": {"tokenMetadata": {
            "inputTokenCount": {"totalTokens": 12, "totalBillableCharacters": 40},
            "outputTokenCount": {"totalTokens": 34, "totalBillableCharacters": 90}}}}),
        json!({"candidates": [{"content": {"parts": [{"text": "hi"}]}, "tokenUsage": {"input": 12, "output": 34}}]}),
        json!({"usage": {"input": {"count": "12"}, "output": {"value": 34.0}}}),
        // A count with its parts.
        json!({"usage": {"inputTokens": {"total": 12, "noCache": 2, "cacheRead": 10}, "outputTokens": {"total": 34, "text": 30}}}),
        json!({"stats": {"prompt_tokens": {"total": 12}, "completion_tokens": {"total": 34, "reasoning": 30}}}),
        json!({"usage": {"inputTokens": {"noCache": 2, "cacheRead": 10}, "outputTokens": {"text": 30, "reasoning": 4}}}),
        json!({"usage": {"inputTokens": {"total": null, "cacheRead": 12, "share": 0.5}, "outputTokens": {"text": 30, "audio": 4}}}),
        json!({"stats": {"prompt_tokens": {"text": 5, "image": 7}, "completion_tokens": {"text": "34", "per_second": 8.5}}}),
        json!({"prompt_tokens": {"text": 5, "image": 7}, "completion_tokens": {"text": 34}}),
        // A count as an object with one number.
        json!({"usage": {"input": {"tokens": 12}, "output": {"tokens": 34}}}),
        json!({"usage": {"prompt": {"count": 12}, "completion": {"count": 34, "seconds": 2}}}),
        json!({"usage": {"tokens": {"prompt": 12, "completion": 34}}}),
        json!({"usage": {"tokens": {"prompt": {"total": 12}, "completion": 34, "total": 46}}}),
        json!({"usage": {"total": {"input": 12, "output": 34}}}),
        // Counts by the kind of content.
        json!({"usage": {"input_text_tokens": 5, "input_image_tokens": 7, "output_text_tokens": 30, "output_audio_tokens": 4}}),
        json!({"usage": {"input_text_tokens": 5, "input_tokens": 12, "output_tokens": 34, "output_audio_tokens": 4}}),
        json!({"stats": {"textInputTokens": 5, "audioInputTokens": 7, "textOutputTokens": 34}}),
        json!({"input_text_tokens": 5, "input_video_tokens": 7, "output_tokens": 34}),
        json!({"type": "token_usage", "value": {"input": 12, "output": 34}}),
        // A count with its name in another member.
        json!({"usage": [{"type": "input", "tokens": 12}, {"type": "output", "tokens": 34}]}),
        json!({"usage": [{"name": "prompt_tokens", "value": 12}, {"name": "completion_tokens", "value": "34"}]}),
        json!({"data": {"token_usage": [{"count": 12, "kind": "prompt"}, {"count": 34, "kind": "completion"}]}}),
        // Counts in an object that the server builds around text.
        json!({"message": {"role": "assistant", "content": "hi", "usage": tokens}}),
        json!({"choices": [{"message": {"content": "hi", "usage": tokens}}]}),
        json!({"choices": [{"text": "hi", "token_usage": {"input": 12, "output": 34}}]}),
        json!({"generations": [{"text": "hi", "usage": tokens}]}),
        json!({"output": {"text": "hi", "usageInfo": {"input": 12, "output": 34}}}),
        json!({"billing": {"input_tokens": 12, "output_tokens": 34}}),
        // Several results.
        json!({"generations": [
            {"text": "a", "usage": {"prompt_tokens": 5, "completion_tokens": 14}},
            {"text": "b", "usage": {"prompt_tokens": 7, "completion_tokens": 20}}]}),
        json!({"data": [
            {"embedding": [0.5], "usage": {"prompt_tokens": 5, "completion_tokens": 14}},
            {"embedding": [0.5], "usage": {"prompt_tokens": 7, "completion_tokens": 20}}]}),
        json!({"steps": [
            {"text": "a", "usage": {"input_tokens": 5, "output_tokens": 14}},
            {"text": "b", "usage": {"input_tokens": 7, "output_tokens": 20}}]}),
        json!({"usage": [
            {"model": "a", "input_tokens": 5, "output_tokens": 14},
            {"model": "b", "input_tokens": 7, "output_tokens": 20}]}),
        json!({"results": [
            {"text": "a", "prompt_tokens": {"text": 5}, "completion_tokens": {"text": 14}},
            {"text": "b", "prompt_tokens": {"text": 7}, "completion_tokens": {"text": 16, "audio": 4}}]}),
        json!({"results": [
            {"generated_text": "a", "generated_token_count": 14, "input_token_count": 5},
            {"generated_text": "b", "generated_token_count": 20, "input_token_count": 7}]}),
        json!([
            {"text": "a", "meta_info": {"prompt_tokens": 5, "completion_tokens": 14}},
            {"text": "b", "meta_info": {"prompt_tokens": 7, "completion_tokens": 20}}]),
        json!([
            {"content": "a", "tokens_evaluated": 5, "tokens_predicted": 14},
            {"content": "b", "tokens_evaluated": 7, "tokens_predicted": 20}]),
    ];
    for body in &table {
        assert_eq!(input_and_output(body), Some((12, 34)), "{body}");
    }
}

#[test]
fn a_total_of_several_calls_counts_once() {
    let (last, all) = (
        json!({"inputTokens": 30, "outputTokens": 5, "totalTokens": 35}),
        json!({"inputTokens": 100, "outputTokens": 25, "totalTokens": 125}),
    );
    for body in [
        json!({"text": "hi", "usage": last, "totalUsage": all}),
        json!({"text": "hi", "a_first": 1, "total_usage": all, "usage": last}),
        json!({"text": "hi", "info": {"total_token_usage": all, "last_token_usage": last}}),
        json!({"text": "hi", "info": {"last_token_usage": last, "total_token_usage": all}}),
        json!({"text": "hi", "metrics": {"cycle_count": 2, "accumulated_usage": all}}),
        json!({"text": "hi", "metrics": {"tokens": {"input": 100, "output": 25}}}),
        json!({"text": "hi", "modelUsage": {"a": last, "b": {"inputTokens": 70, "outputTokens": 20}}}),
    ] {
        assert_eq!(input_and_output(&body), Some((100, 25)), "{body}");
    }
    let step = |usage: &Value| json!({"type": "finish-step", "usage": usage});
    let events = [step(&all), step(&last), json!({"type": "finish", "totalUsage": all})];
    assert_eq!(sum_of_events(&events), Some((100, 25, 125)));
}

#[test]
fn details_in_an_unlisted_place_are_parts_of_their_count() {
    let openai = json!({"prompt_tokens": 30, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 10},
        "completion_tokens_details": {"reasoning_tokens": 4}});
    let ai_sdk = json!({"inputTokenDetails": {"cacheReadTokens": 10, "cacheWriteTokens": 3, "noCacheTokens": 17},
        "inputTokens": 30, "outputTokens": 20, "outputTokenDetails": {"reasoningTokens": 4, "textTokens": 16}});
    for counts in [openai, ai_sdk] {
        for body in [
            json!({"text": "hi", "stats": counts}),
            json!({"text": "hi", "stats": {"token_usage": counts}}),
            json!({"data": {"text": "hi", "usage": counts}}),
            json!({"usage": counts}),
        ] {
            let usage = read(&body.to_string()).usage.unwrap();
            let counts = (usage.input, usage.output, usage.cached, usage.reasoning);
            assert_eq!(counts, (30, 20, 10, 4), "{body}");
        }
        let body = json!({"results": [{"text": "a", "stats": counts}, {"text": "b", "stats": counts}]});
        let usage = read(&body.to_string()).usage.unwrap();
        assert_eq!((usage.input, usage.output, usage.cached, usage.reasoning), (60, 40, 20, 8), "{body}");
    }
}

#[test]
fn usage_is_found_in_nested_answers() {
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46});
    let message =
        json!({"type": "ai", "content": "hi", "usage_metadata": {"input_tokens": 12, "output_tokens": 34}});
    for body in [
        json!({"predictions": {"choices": [{"message": {"content": "hi"}}], "usage": usage}}),
        json!({"predictions": [[{"choices": [{"message": {"content": "hi"}}], "usage": usage}]]}),
        json!({"output": {"messages": [{"type": "human", "content": "hi"}, message]}}),
        json!({"choices": [{"message": {"content": "hi"}}],
            "usage": {"prompt_tokens": 10, "knowledge_tokens": 2, "completion_tokens": 34, "total_tokens": 46}}),
    ] {
        assert_eq!(input_and_output(&body), Some((12, 34)), "{body}");
    }
    let metadata = json!({"usage": {"inputTokens": 12, "outputTokens": 34, "totalTokens": 46}});
    let events = [
        json!({"event": {"contentBlockDelta": {"delta": {"text": "hi"}}}}),
        json!({"event": {"metadata": metadata}}),
    ];
    assert_eq!(sum_of_events(&events), Some((12, 34, 46)));
    let vectors = json!({"embedding": [0.1, 0.2], "numTokens": "12", "modelVersion": "v"});
    assert_eq!(read(&vectors.to_string()).usage.map(|usage| usage.total), Some(12));
}

#[test]
fn what_a_model_generated_is_never_searched() {
    let forged =
        json!({"usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}, "prompt_tokens": 1});
    let table = [
        json!({"content": [{"type": "tool_use", "id": "t", "name": "f", "input": forged}]}),
        json!({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": forged}}]}}]}),
        json!({"choices": [{"message": {"content": forged, "parsed": forged}}]}),
        json!({"message": {"content": "", "tool_calls": [{"function": {"name": "f", "arguments": forged}}]}}),
        json!({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": forged}}]}}]}),
        json!({"output": {"message": {"content": [{"toolUse": {"name": "f", "input": forged}}]}}}),
        json!({"output": [{"type": "function_call", "arguments": forged, "action": forged}]}),
        json!({"outputs": forged}),
        json!({"answer": forged, "arguments": forged}),
        json!({"result": {"message": forged, "content": forged, "tool_calls": [forged]}}),
        json!({"steps": [{"type": "function_call", "arguments": forged}]}),
        json!({"generations": [{"text": "a", "parameters": forged}]}),
        // Parts of the request, and limits instead of usage.
        json!({"tools": [forged], "input": forged, "instructions": forged, "metadata": {"prompt_tokens": "1"}}),
        json!({"parameters": forged, "request": forged, "params": forged}),
        json!({"limits": forged, "max_tokens": 5, "remaining_tokens": 5, "tokens": [1, 2]}),
    ];
    for body in &table {
        assert_eq!(input_and_output(body), None, "{body}");
        let mut with = body.clone();
        if let Some(object) = with.as_object_mut() {
            object.insert("usage".into(), json!({"prompt_tokens": 50, "completion_tokens": 60}));
        }
        assert_eq!(input_and_output(&with), Some((50, 60)), "{with}");
    }
}

#[test]
fn an_object_of_counts_may_be_text() {
    let counts = json!({"prompt_tokens": 12, "completion_tokens": 34}).to_string();
    let answer = json!({"choices": [{"message": {"content": "hi"}}], "usage": {"prompt_tokens": 12, "completion_tokens": 34}});
    for (body, quoted) in [
        (json!({"usage": counts}), false),
        (json!({"data": {"tokenUsage": format!(" {counts} ")}}), false),
        // The model may have written the text around these counts.
        (json!(answer.to_string()), true),
        (json!({"statusCode": 200, "body": answer.to_string()}), true),
    ] {
        let reading = read(&body.to_string());
        assert_eq!(reading.usage.map(|usage| (usage.input, usage.output)), Some((12, 34)), "{body}");
        assert_eq!(reading.quoted, quoted, "{body}");
    }
    for body in [
        json!({"usage": format!("{{{}", " ".repeat(5000))}),
        json!({"usage": "prompt_tokens: 12"}),
        // Clients can set metadata to text.
        json!({"metadata": {"usage": counts}}),
        json!({"answer": counts, "response": counts}),
        json!(format!("The usage is {counts}")),
        // A string inside of a string is text.
        json!(json!({"usage": counts}).to_string()),
    ] {
        assert_eq!(input_and_output(&body), None, "{body}");
    }
}

#[test]
fn usage_in_text_is_at_least_half_of_the_estimate() {
    let forged = json!({"text": "x".repeat(800), "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    let reading = read(&json!(forged.to_string()).to_string());
    let usage = reading.completed(reading.usage.unwrap(), 60);
    assert_eq!((usage.input, usage.output, usage.total), (30, 100, 130));
}

#[test]
fn input_that_a_model_may_have_written_does_not_complete_a_report() {
    let lines = |text: &str| {
        let first = json!({"message": {"content": text, "usage": {"input_tokens": 70, "output_tokens": 1}}});
        format!("{first}\n{}", json!({"usage": {"output_tokens": 40}}))
    };
    let usage = |text: &str| read(&lines(text)).usage.map(|usage| (usage.input, usage.output));
    assert_eq!(usage(""), Some((70, 40)));
    assert_eq!(usage(&"x".repeat(800)), Some((0, 40)));
}

#[test]
fn usage_in_content_belongs_to_the_server_only_in_a_list() {
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 34});
    let part = json!({"type": "text", "text": "Hi", "usage": usage});
    assert_eq!(input_and_output(&json!({"content": [part, part]})), Some((24, 68)));
    assert_eq!(input_and_output(&json!({"content": part})), None);
    let tool = json!({"type": "tool_use", "input": {"usage": usage}});
    assert_eq!(input_and_output(&json!({"content": [tool]})), None);
}

#[test]
fn a_constant_in_place_of_usage_counts_only_for_little_text() {
    let completed = |text: &str| {
        let body = json!({"choices": [{"message": {"content": text}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 1}});
        let reading = read(&body.to_string());
        let usage = reading.completed(reading.usage.unwrap(), 60);
        (usage.input, usage.output)
    };
    assert_eq!(completed("Yes."), (1, 1));
    assert_eq!(completed(&"x".repeat(400)), (60, 100));
}

#[test]
fn the_messages_of_an_agent_add_up_once() {
    let user = json!({"type": "human", "id": "h", "content": "Hi"});
    let answer = |id: &str, input: u64| {
        json!({"type": "ai", "id": id, "content": {"usage": {"input_tokens": 1}},
            "usage_metadata": {"input_tokens": input, "output_tokens": 5, "input_token_details": {"cache_read": 2}}})
    };
    let earlier = json!([user, answer("a", 100), user, answer("b", 10), answer("c", 20)]);
    assert_eq!(input_and_output(&json!({"messages": earlier})), Some((30, 10)));
    let events = [
        json!({"agent": {"messages": [answer("b", 10)]}}),
        json!({"messages": [user, answer("b", 10)]}),
        json!({"agent": {"messages": [answer("c", 20)]}}),
        json!([answer("d", 40), {"langgraph_step": 1}]),
        json!([answer("d", 40)]),
    ];
    let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let usage = read(&body).usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.cached), (70, 15, 6));
    // What the provider says of the whole response counts.
    let whole = json!({"messages": earlier, "usage": {"prompt_tokens": 33, "completion_tokens": 11}});
    assert_eq!(input_and_output(&whole), Some((33, 11)));
}

#[test]
fn many_messages_of_an_agent_add_up() {
    let answer = |id: u64| {
        json!({"type": "ai", "id": format!("run-{id}"), "content": "x",
            "usage_metadata": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}})
    };
    let messages = |ids: Range<u64>| ids.map(answer).collect::<Vec<_>>();
    assert_eq!(input_and_output(&json!({"messages": messages(0..200)})), Some((2000, 1000)));
    let events: String =
        (0..200).map(|id| format!("data: {}\n\n", json!({"messages": messages(id..id + 1)}))).collect();
    let usage = read(&events).usage.unwrap();
    assert_eq!((usage.input, usage.output, usage.total), (2000, 1000, 3000));
    // Earlier responses are in the same list.
    let user = json!({"type": "human", "id": "h", "content": "Hi"});
    let history = [messages(0..200), vec![user], messages(200..205)].concat();
    assert_eq!(input_and_output(&json!({"messages": history})), Some((50, 25)));
}

fn sum_of_events(events: &[Value]) -> Option<(u64, u64, u64)> {
    let body: String = events.iter().map(|event| format!("event: data\ndata: {event}\n\n")).collect();
    read(&body).usage.map(|usage| (usage.input, usage.output, usage.total))
}

fn message_chunk(id: &str, input: u64, output: u64) -> Value {
    let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    json!({"type": "AIMessageChunk", "id": id, "content": "x", "usage_metadata": usage})
}

#[test]
fn the_chunks_of_a_message_add_up() {
    let chunk = message_chunk;
    let alone = [chunk("a", 10, 1), chunk("a", 0, 1), chunk("a", 0, 3)];
    assert_eq!(sum_of_events(&alone), Some((10, 5, 15)));
    let of_agents = [
        json!([chunk("a", 10, 1), {"langgraph_step": 1}]),
        json!([chunk("a", 0, 4), {"langgraph_step": 1}]),
        json!([chunk("b", 20, 2), {"langgraph_step": 2}]),
    ];
    assert_eq!(sum_of_events(&of_agents), Some((30, 7, 37)));
    // The whole message replaces its chunks.
    let mut whole = chunk("b", 20, 2);
    whole["type"] = "ai".into();
    let then_whole = [&of_agents[..], &[json!({"agent": {"messages": [whole]}})]].concat();
    assert_eq!(sum_of_events(&then_whole), Some((30, 7, 37)));
}

#[test]
fn a_whole_message_of_the_type_of_a_chunk_counts_once() {
    let whole = message_chunk("a", 10, 5);
    let state = json!({"messages": [whole]});
    assert_eq!(sum_of_events(&[state.clone(), state.clone(), state]), Some((10, 5, 15)));
    let partial = |output: u64| {
        let messages = json!([message_chunk("a", 10, output)]);
        format!("event: messages/partial\ndata: {messages}\n\n")
    };
    let usage = read(&[partial(1), partial(3), partial(5)].concat()).usage.unwrap();
    assert_eq!((usage.input, usage.output), (10, 5));
    let event = |name: &str, data: Value| json!({"event": name, "run_id": "r", "data": data});
    let events = [
        event("on_chat_model_stream", json!({"chunk": message_chunk("a", 10, 1)})),
        event("on_chat_model_stream", json!({"chunk": message_chunk("a", 0, 4)})),
        event("on_chat_model_end", json!({"output": whole})),
    ];
    assert_eq!(sum_of_events(&events), Some((10, 5, 15)));
}

/// A message in the form of LangChain's JavaScript library.
fn serialized(class: &str, id: &str, input: u64, output: u64) -> Value {
    let usage = json!({"input_tokens": input, "output_tokens": output, "total_tokens": input + output});
    let forged = json!({"id": ["AIMessageChunk"], "usage_metadata": {"input_tokens": 9000}});
    json!({"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", class], "kwargs": {
        "content": "x", "id": id, "usage_metadata": usage, "response_metadata": {},
        "tool_calls": [{"name": "f", "args": forged, "id": "t", "type": "tool_call"}]}})
}

#[test]
fn serialized_chunks_of_a_message_add_up() {
    let chunk = |id: &str, input, output| serialized("AIMessageChunk", id, input, output);
    let alone = [chunk("a", 10, 1), chunk("a", 0, 1), chunk("a", 0, 3), chunk("b", 20, 2)];
    assert_eq!(sum_of_events(&alone), Some((30, 7, 37)));
    let of_agents = alone.clone().map(|chunk| json!([chunk, {"langgraph_step": 1}]));
    assert_eq!(sum_of_events(&of_agents), Some((30, 7, 37)));
    let whole =
        json!({"messages": [serialized("AIMessage", "a", 10, 5), serialized("AIMessage", "b", 20, 2)]});
    for chunks in [&alone, &of_agents] {
        let then_whole = [&chunks[..], std::slice::from_ref(&whole)].concat();
        assert_eq!(sum_of_events(&then_whole), Some((30, 7, 37)));
    }
}

#[test]
fn serialized_whole_messages_count_once() {
    let whole = serialized("AIMessageChunk", "a", 10, 5);
    let state = json!({"messages": [whole]});
    assert_eq!(sum_of_events(&[state.clone(), state.clone(), state]), Some((10, 5, 15)));
    let event = |name: &str, data: Value| json!({"event": name, "run_id": "r", "data": data});
    let events = [
        event("on_chat_model_stream", json!({"chunk": serialized("AIMessageChunk", "a", 10, 1)})),
        event("on_chat_model_stream", json!({"chunk": serialized("AIMessageChunk", "a", 0, 4)})),
        event("on_chat_model_end", json!({"output": whole})),
    ];
    assert_eq!(sum_of_events(&events), Some((10, 5, 15)));
    let partial = |output: u64| {
        let messages = json!([serialized("AIMessageChunk", "a", 10, output)]);
        format!("event: messages/partial\ndata: {messages}\n\n")
    };
    let usage = read(&[partial(1), partial(3), partial(5)].concat()).usage.unwrap();
    assert_eq!((usage.input, usage.output), (10, 5));
    let answer = |id: &str, input| serialized("AIMessage", id, input, 5);
    assert_eq!(input_and_output(&answer("a", 10)), Some((10, 5)));
    assert_eq!(input_and_output(&json!({"output": answer("a", 10)})), Some((10, 5)));
    // Messages before the user's last one belong to earlier responses.
    let user = json!({"lc": 1, "type": "constructor", "id": ["langchain_core", "messages", "HumanMessage"],
        "kwargs": {"content": "Hi", "id": "h"}});
    let history = json!([user, answer("a", 100), user, answer("b", 10), answer("c", 20)]);
    assert_eq!(input_and_output(&json!({"messages": history})), Some((30, 10)));
}

#[test]
fn many_events_of_an_agent_add_up() {
    let event = |id: u64| {
        json!({"id": format!("e-{id}"), "author": "writer", "invocationId": "i",
            "content": {"role": "model", "parts": [{"text": "x"}]},
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}})
    };
    let events: String = (0..200).map(|id| format!("data: {}\n\n", event(id))).collect();
    let usage = read(&events).usage.unwrap();
    assert_eq!((usage.input, usage.output), (2000, 1000));
}

#[test]
fn a_source_is_no_author() {
    let message = |source: &str, usage: Value| json!({"source": source, "models_usage": usage, "content": "x", "type": "TextMessage"});
    let call = || json!({"prompt_tokens": 100, "completion_tokens": 20});
    let run = [
        message("user", json!(null)),
        message("a", call()),
        message("user", json!(null)),
        message("b", call()),
    ];
    assert_eq!(input_and_output(&json!({"messages": run, "stop_reason": "done"})), Some((200, 40)));
}

#[test]
fn zeros_erase_nothing_and_totals_are_explained() {
    type Row = (Value, (u64, u64), u64);
    let table: [Row; 8] = [
        (
            json!({"prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 10923, "cache_read_input_tokens": 10536}),
            (10904, 19),
            10536,
        ),
        (
            json!({"prompt_tokens": 100, "completion_tokens": 19, "cache_read_input_tokens": 10536}),
            (10636, 19),
            10536,
        ),
        (
            json!({"prompt_tokens": 11000, "completion_tokens": 19, "cache_read_input_tokens": 10536}),
            (11000, 19),
            10536,
        ),
        (
            json!({"inputTokens": 18, "outputTokens": 386, "totalTokens": 7906, "cacheReadInputTokenCount": 7502}),
            (7520, 386),
            7502,
        ),
        (
            json!({"prompt_tokens": 188, "completion_tokens": 55, "total_tokens": 7355, "connector_tokens": 7112}),
            (7300, 55),
            0,
        ),
        (json!({"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623}), (20, 603), 0),
        (
            json!({"total_input_tokens": 100, "total_output_tokens": 10, "total_thought_tokens": 7, "total_tool_use_tokens": 5, "total_tokens": 122}),
            (105, 17),
            0,
        ),
        (
            json!({"input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 50, "total_tokens": 110}),
            (150, 10),
            50,
        ),
    ];
    for (usage, expected, cached) in &table {
        let read = read(&json!({"usage": usage}).to_string()).usage.unwrap();
        assert_eq!(((read.input, read.output), read.cached), (*expected, *cached), "{usage}");
        assert_eq!(read.total, read.input + read.output);
    }
    let stream = |events: &[Value]| {
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        read(&body).usage.map(|usage| (usage.input, usage.output))
    };
    let zeros = json!({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0});
    let real = json!({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12});
    assert_eq!(stream(&[json!({"usage": real}), json!({"usage": zeros})]), Some((7, 5)));
    assert_eq!(stream(&[json!({"usage": zeros}), json!({"usage": real})]), Some((7, 5)));
    assert_eq!(stream(&[json!({"usage": zeros}), json!({"x_groq": {"usage": real}})]), Some((7, 5)));
}

#[test]
fn tokens_without_a_further_name_are_a_total() {
    for body in [
        json!({"usage": {"tokens": 46}}),
        json!({"usage": {"used_tokens": "46"}}),
        json!({"usage": {"model": "m", "token_count": 46}}),
        json!({"data": {"usage": {"tokens_used": 46}}}),
    ] {
        assert_eq!(read(&body.to_string()).usage.map(|usage| usage.total), Some(46), "{body}");
    }
    for body in [
        json!({"usage": {"max_tokens": 46}}),
        json!({"tokens": 46}),
        json!({"usage": {"remaining_tokens": 46}}),
    ] {
        assert_eq!(read(&body.to_string()).usage, None, "{body}");
    }
}

#[test]
fn an_event_that_is_named_after_usage_is_usage() {
    let usage = read(r#"{"type": "usage", "prompt": 12, "completion": 34}"#).usage.unwrap();
    assert_eq!((usage.input, usage.output), (12, 34));
    let head =
        ResponseHead { status: 200, content_type: "text/event-stream".into(), ..ResponseHead::default() };
    for events in [
        "event: text\ndata: {\"delta\": \"hi\"}\n\nevent: usage\ndata: {\"input\": 12, \"output\": 34}\n\n",
        "event: message_usage\ndata: {\"data\": {\"prompt\": 12, \"completion\": 34}}\n\nevent: done\ndata: {\"input\": 1}\n\n",
    ] {
        let mut meter = Meter::new(&head);
        meter.feed(events.as_bytes());
        let usage = meter.finish().usage.unwrap();
        assert_eq!((usage.input, usage.output), (12, 34), "{events}");
    }
}

#[test]
fn token_ids_are_output_unless_they_repeat_the_text() {
    let ids: Vec<u32> = (0..50).collect();
    let text = "x".repeat(400);
    let table = [
        (json!({"choices": [{"index": 0, "token_ids": ids}], "prompt_logprobs": null}), 50),
        (json!({"choices": [{"token_ids": ids}, {"token_ids": ids}]}), 100),
        (json!({"choices": [{"text": text, "token_ids": ids, "prompt_token_ids": ids}]}), 100),
        (json!({"output_ids": ids, "text": "hi"}), 50),
        (
            json!({"model_name": "m", "outputs": [{"name": "output_ids", "datatype": "INT32", "data": [[ids]]}]}),
            50,
        ),
        (json!({"outputs": [{"name": "text_output", "data": [text]}]}), 100),
        // Numbers that are no integers are vectors.
        (json!({"outputs": [{"name": "logits", "data": [0.5, -1.25, 1e-3]}]}), 0),
    ];
    for (body, tokens) in table {
        assert_eq!(read(&body.to_string()).delivered / 4, tokens, "{body}");
    }
}

#[test]
fn media_count_by_their_size_under_any_name_for_media() {
    let audio = "SUQzBAAAAAAAI1RTU0U/".repeat(1280);
    let table = [
        json!({"audio_base64": audio}),
        json!({"audios": [audio]}),
        json!({"data": {"audio": audio, "status": 2}}),
        json!({"result": {"image": {"data": audio}}}),
        json!({"artifacts": [{"base64": audio, "seed": 1, "finishReason": "SUCCESS"}]}),
        json!({"generated_video": format!("data:video/mp4;base64,{audio}")}),
    ];
    for body in table {
        let delivered = read(&body.to_string()).delivered;
        assert!((100..=110).contains(&delivered), "{delivered}: {body}");
    }
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(10);
    for body in
        [json!({"audio_text": text}), json!({"speech_audio": {"transcript": text}}), json!({"notes": audio})]
    {
        assert!(read(&body.to_string()).delivered >= 450, "{body}");
    }
    assert_eq!(
        input_and_output(&json!({"speech_audio": {"usage": {"input_tokens": 3, "output_tokens": 4}}})),
        Some((3, 4))
    );
}

#[test]
fn strings_beside_vectors_are_no_output_unless_the_provider_reports_some() {
    let vector = json!({"object": "embedding", "kind": "dense", "embedding": [0.1, 0.2]});
    let usage = json!({"prompt_tokens": 12, "total_tokens": 12});
    for body in [
        json!({"data": [vector], "kind": "a list", "usage": usage}),
        json!({"data": [{"data": [vector]}], "usage": {"total_tokens": 12}}),
        json!({"output": {"embeddings": [vector]}, "usage": {"input_tokens": 12}}),
        json!({"embeddings": [vector], "parameters": {"usage": usage, "model": "ada"}}),
    ] {
        let reading = read(&body.to_string());
        let usage = reading.completed(reading.usage.unwrap(), 12);
        assert_eq!((usage.input, usage.output), (12, 0), "{body}");
    }
    let body = json!({"answer": "a text of twenty-eight letters", "embedding": [0.1]});
    assert!(read(&body.to_string()).delivered > 20, "without usage, the text counts");
}

#[test]
fn the_values_of_items_have_counts_with_their_text() {
    let value = json!({"completion": "a text", "prompt": "hi", "prompt_tokens_count": 6,
        "completion_tokens_count": 17, "total_tokens_count": 23});
    let body = json!({"items": [{"id": "1", "value": value}, {"id": "2", "value": value}]});
    assert_eq!(input_and_output(&body), Some((12, 34)));
    let forged =
        json!({"items": [{"id": "1", "value": {"usage": {"prompt_tokens": 1}, "prompt_tokens": 1}}]});
    assert_eq!(input_and_output(&forged), None);
}
