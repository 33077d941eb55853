//! Places whose strings nobody generated: names, ids, what repeats the request, what stands in for it. What is not
//! listed here counts as generated text. A place that holds a name or an id is only one as long as it is short.

use super::dialect::Node;

/// A member of an object that is known, and is none of those that mean something.
pub(super) fn known(node: Node, key: &[u8]) -> Node {
    match (node, key) {
        // Images, audio and vectors are no text.
        (Node::Data, b"b64_json" | b"embedding" | b"url")
        | (Node::Audio, b"data")
        | (Node::Output, b"result" | b"tools")
        | (Node::Content, b"inlineData" | b"inline_data" | b"image_url" | b"input_audio" | b"source")
        | (Node::ChoiceMessage | Node::Message, b"images")
        | (Node::Predictions, b"bytesBase64Encoded")
        // Encrypted, or signed.
        | (Node::Content | Node::Block, b"data")
        | (Node::Content, b"redactedContent")
        | (Node::ReasoningDetails, b"data" | b"signature")
        // What tools and searches found was not generated here.
        | (Node::Content, b"toolResult" | b"functionResponse" | b"fileData")
        | (Node::Delta, b"citation")
        | (Node::ChoiceMessage, b"provider_specific_fields" | b"context")
        | (Node::Results, b"document")
        // The same text again, token by token.
        | (Node::Details, b"tokens" | b"prefill" | b"top_tokens" | b"best_of_sequences")
        // How the answer was to look.
        | (Node::Text, b"format" | b"verbosity") => Node::Other,
        // How it was to think, and lists of models and files.
        (Node::Thinking, b"effort" | b"summary" | b"generate_summary")
        | (Node::Data, b"owned_by" | b"filename" | b"purpose" | b"root" | b"parent") => Node::Label,
        _ => anywhere(key),
    }
}

/// A member of the document itself.
pub(super) fn whole(key: &[u8]) -> Node {
    match key {
        // The request, repeated.
        b"instructions" | b"tools" | b"tool_choice" | b"input" | b"prompt" | b"documents"
        | b"texts" | b"chat_history" | b"generation_settings" | b"include" | b"stop"
        // Vectors, images and audio.
        | b"embedding" | b"embeddings" | b"b64_json" | b"partial_image_b64" | b"images" | b"audio"
        // The same text again, word by word.
        | b"words" | b"completion_probabilities"
        // What was counted, by kind.
        | b"promptTokensDetails"
        // What was searched and found, and what guards say.
        | b"search_results" | b"prompt_filter_results" | b"promptFeedback" | b"trace" | b"warnings"
        => Node::Other,
        b"stopping_word" | b"stop_type" | b"done_reason" | b"remote_host" | b"remote_model" | b"background"
        | b"quality" | b"size" | b"output_format" | b"truncation" | b"language" | b"task" | b"user"
        | b"safety_identifier" | b"prompt_cache_key" | b"prompt_cache_retention" | b"billing" => Node::Label,
        _ => anywhere(key),
    }
}

/// A member that means the same wherever the object is known.
fn anywhere(key: &[u8]) -> Node {
    match key {
        b"logprobs"
        | b"prompt_logprobs"
        | b"annotation"
        | b"container"
        | b"__verbose"
        | b"annotations"
        | b"citations"
        | b"sources"
        | b"signature"
        | b"thoughtSignature"
        | b"thought_signature"
        | b"encrypted_content"
        | b"url"
        | b"urls"
        | b"token_ids"
        | b"prompt_token_ids"
        | b"content_filter_results"
        | b"content_filter_offsets"
        | b"safetyRatings"
        | b"safetyAttributes"
        | b"citationMetadata"
        | b"groundingMetadata"
        | b"urlContextMetadata"
        | b"url_context_metadata"
        | b"logprobsResult"
        | b"logprobs_result"
        | b"incomplete_details"
        | b"context_management" => Node::Other,
        b"id"
        | b"p"
        | b"obfuscation"
        | b"object"
        | b"model"
        | b"type"
        | b"event"
        | b"role"
        | b"name"
        | b"status"
        | b"phase"
        | b"format"
        | b"index"
        | b"created"
        | b"created_at"
        | b"createTime"
        | b"create_time"
        | b"provider"
        | b"finish_reason"
        | b"native_finish_reason"
        | b"finishReason"
        | b"finishMessage"
        | b"stop_reason"
        | b"stopReason"
        | b"stop_sequence"
        | b"stopSequence"
        | b"completionReason"
        | b"matched_stop"
        | b"system_fingerprint"
        | b"service_tier"
        | b"serviceTier"
        | b"modelVersion"
        | b"version"
        | b"mimeType"
        | b"mime_type"
        | b"language"
        | b"outcome" => Node::Label,
        _ if key.ends_with(b"_id") || key.ends_with(b"Id") => Node::Label,
        _ => Node::Unknown,
    }
}
