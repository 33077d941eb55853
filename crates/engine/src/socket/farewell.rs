//! The messages that end a socket when a call inside it is refused.

use crate::refusal::Denial;
use llm::websocket::{Opcode, SocketApi, close, frame};
use serde_json::{Map, Value, json};

/// A message violates the gateway's policy.
const POLICY_VIOLATION: u16 = 1008;
/// The gateway cannot check the limits now.
const TRY_AGAIN_LATER: u16 = 1013;
/// The upstream did nothing wrong.
const NORMAL: u16 = 1000;

/// For the upstream: a ping, so that it sends something, and a close frame.
pub(super) fn to_server(mask: [u8; 4]) -> Vec<u8> {
    [frame(Opcode::Ping, b"", Some(mask)), close(NORMAL, "", Some(mask))].concat()
}

/// For the client: an error event in the API's own form, if it has one, and a close frame with a reason that
/// names the limit.
pub(super) fn to_client(api: SocketApi, denial: &Denial) -> Vec<u8> {
    let error = error(denial);
    let reason = error.get("message").and_then(Value::as_str).unwrap_or("Rate limit exceeded.").to_owned();
    let event = match api {
        SocketApi::Responses => {
            let headers: Map<String, Value> = denial
                .headers
                .iter()
                .filter(|(name, _)| name != "content-type")
                .map(|(name, value)| (name.to_string(), value.as_str().into()))
                .collect();
            Some(json!({ "type": "error", "status": denial.status, "error": error, "headers": headers }))
        }
        SocketApi::Realtime => Some(json!({ "type": "error", "event_id": "event_weir", "error": error })),
        // The servers of this API give the reason only in the close frame.
        SocketApi::GeminiLive => None,
    };
    let mut bytes =
        event.map(|event| frame(Opcode::Text, event.to_string().as_bytes(), None)).unwrap_or_default();
    let code = if denial.status == 503 { TRY_AGAIN_LATER } else { POLICY_VIOLATION };
    bytes.extend(close(code, &reason, None));
    bytes
}

/// Returns the error in a refusal's body. A policy's own body may have any form.
fn error(denial: &Denial) -> Value {
    let body: Option<Value> = serde_json::from_slice(&denial.body).ok();
    let error = body.as_ref().and_then(|body| body.get("error")).filter(|error| error.is_object());
    error.cloned().unwrap_or_else(|| {
        let message = String::from_utf8_lossy(&denial.body);
        json!({ "type": "rate_limit_error", "code": "rate_limit_exceeded", "message": message })
    })
}
