//! Assigns the messages of a socket to calls of an LLM API: where a call begins, what belongs to it, and
//! where it ends. The path of the upgrade determines the API.

use crate::request::{Operation, Route};
use crate::spelling::{percent_decoded, query_name};
use serde::Deserialize;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// An API over WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketApi {
    /// OpenAI's Responses API. The server sends one response at a time, in the same events as in HTTP
    /// streams.
    Responses,
    /// OpenAI's Realtime API. The server may begin a response on its own when it detects the end of speech.
    Realtime,
    /// Gemini Live, which exchanges turns.
    GeminiLive,
}

/// The kind of a client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// Begins a call. Unknown and unreadable messages count as this kind.
    Call,
    /// Prepares a call and requests no output (`generate: false`), so a reported zero is correct.
    WarmUp,
    /// Belongs to the current call, or begins one if there is none.
    Input,
    /// Requests nothing from the model.
    Other,
}

/// The kind of a server's message. `id` identifies the response that the message belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The model begins a response.
    Begins { id: Option<String> },
    /// A part of a response.
    Part { id: Option<String> },
    /// The end of a response, with its usage.
    Ends { id: Option<String> },
    /// The client's last request failed before its response began.
    Failed,
    /// The usage of something other than a response, for example a transcription.
    Aside,
    /// A part of a turn. `complete` is true for the last part, and `usage` if it contains the turn's usage.
    Turn { complete: bool, usage: bool },
    /// Belongs to no call.
    Other,
}

impl SocketApi {
    /// Returns the API of an upgrade with this path.
    pub fn of(path: &str) -> Option<Self> {
        let path = path.split('?').next().unwrap_or_default();
        let path = percent_decoded(path);
        let last = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if last.eq_ignore_ascii_case("realtime") {
            Some(Self::Realtime)
        } else if last.ends_with("BidiGenerateContent") {
            Some(Self::GeminiLive)
        } else if Route::of(&path).operation == Some(Operation::Response) {
            Some(Self::Responses)
        } else {
            None
        }
    }

    /// Returns the model that the path of the upgrade names. Two different names are joined, so that they are no
    /// model's name: servers differ in which one they use.
    pub fn model_of(path: &str) -> Option<String> {
        query_name(path, &["model", "deployment"])
    }

    /// Returns the kind of a client's message, and the model that it names. `whole` is true if the message is
    /// complete.
    pub fn client(self, text: &[u8], whole: bool) -> (ClientEvent, Option<String>) {
        let mut members = EventMembers::default();
        let read = members.read(text);
        let model = members.model.take().map(Cow::into_owned);
        let known = read && whole && !members.ambiguous;
        let event = match (self, members.kind.as_deref()) {
            _ if !known => ClientEvent::Call,
            (Self::GeminiLive, _) if members.setup && members.count == 1 => ClientEvent::Other,
            (Self::GeminiLive, _) => ClientEvent::Input,
            (Self::Responses, Some("response.create")) if members.generate.as_deref() == Some("false") => {
                ClientEvent::WarmUp
            }
            (_, Some("response.create")) => ClientEvent::Call,
            (_, Some("response.cancel" | "response.processed")) => ClientEvent::Other,
            (Self::Responses, Some("response.steer" | "response.append")) => ClientEvent::Input,
            (
                Self::Realtime,
                Some(
                    "session.update"
                    | "transcription_session.update"
                    | "input_audio_buffer.append"
                    | "input_audio_buffer.commit"
                    | "input_audio_buffer.clear"
                    | "output_audio_buffer.clear"
                    | "conversation.item.create"
                    | "conversation.item.retrieve"
                    | "conversation.item.truncate"
                    | "conversation.item.delete",
                ),
            ) => ClientEvent::Other,
            _ => ClientEvent::Call,
        };
        (event, model)
    }

    /// Returns whether the server keeps a conversation, which is input of each response.
    pub fn keeps_conversation(self) -> bool {
        match self {
            Self::Realtime | Self::GeminiLive => true,
            Self::Responses => false,
        }
    }

    /// Returns whether a call that begins with this message continues from earlier calls of the socket, so
    /// that they are part of its input. An unreadable message may continue.
    pub fn continues(self, text: &[u8]) -> bool {
        let mut members = EventMembers::default();
        self.keeps_conversation() || !members.read(text) || members.continues
    }

    /// Returns the kind of a server's message. `text` may be only its beginning.
    pub fn server(self, text: &[u8]) -> ServerEvent {
        let mut members = EventMembers::default();
        members.read(text);
        if self == Self::GeminiLive {
            let EventMembers { turn, complete, usage, .. } = members;
            return if turn || usage { ServerEvent::Turn { complete, usage } } else { ServerEvent::Other };
        }
        let id = members.id.take().map(Cow::into_owned);
        match members.kind.as_deref() {
            Some("response.created") => ServerEvent::Begins { id },
            Some(
                "response.completed"
                | "response.incomplete"
                | "response.failed"
                | "response.done"
                | "response.cancelled",
            ) => ServerEvent::Ends { id },
            Some("error") => ServerEvent::Failed,
            Some(kind) if kind.starts_with("response.") => ServerEvent::Part { id },
            _ if members.usage => ServerEvent::Aside,
            _ => ServerEvent::Other,
        }
    }
}

/// The relevant members of a message. Strings without escape sequences are borrowed from it.
#[derive(Debug, Default)]
struct EventMembers<'t> {
    /// The number of members.
    count: usize,
    kind: Option<Cow<'t, str>>,
    /// Whether two servers might read different messages.
    ambiguous: bool,
    generate: Option<Cow<'t, str>>,
    /// Whether it names an earlier response or a stored conversation.
    continues: bool,
    /// The response's id.
    id: Option<Cow<'t, str>>,
    model: Option<Cow<'t, str>>,
    usage: bool,
    setup: bool,
    turn: bool,
    complete: bool,
}

/// The name of a member.
#[derive(Deserialize)]
struct MemberName<'t>(#[serde(borrow)] Cow<'t, str>);

/// The object that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Message,
    Response,
    Session,
    Content,
}

impl<'t> EventMembers<'t> {
    /// Reads a message. Returns `false` if it is not a complete JSON object. The members before the error are
    /// kept.
    fn read(&mut self, text: &'t [u8]) -> bool {
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = EventObject { scope: Scope::Message, members: self }.deserialize(&mut json);
        read.is_ok_and(|object| object) && json.end().is_ok()
    }

    fn member<A: MapAccess<'t>>(&mut self, scope: Scope, key: &str, map: &mut A) -> Result<(), A::Error> {
        let inner = |scope| Some(scope);
        let nested = match (scope, key) {
            (Scope::Message, "response") => inner(Scope::Response),
            (Scope::Message, "session" | "setup") => inner(Scope::Session),
            (Scope::Message, "serverContent" | "server_content") => inner(Scope::Content),
            _ => None,
        };
        if scope == Scope::Message {
            self.count = self.count.saturating_add(1);
            self.setup |= key == "setup";
            self.turn |= matches!(
                key,
                "serverContent"
                    | "server_content"
                    | "toolCall"
                    | "tool_call"
                    | "usageMetadata"
                    | "usage_metadata"
            );
            self.usage |= matches!(key, "usage" | "usageMetadata" | "usage_metadata");
        }
        if let Some(scope) = nested {
            return map.next_value_seed(EventObject { scope, members: self }).map(drop);
        }
        match (scope, key) {
            (Scope::Message, _) if key.eq_ignore_ascii_case("type") => {
                let kind = map.next_value_seed(Text)?;
                self.ambiguous |= self.kind.is_some() || key != "type";
                self.kind = kind.or(self.kind.take());
            }
            (Scope::Message, _) if key.eq_ignore_ascii_case("generate") => {
                self.ambiguous |= self.generate.is_some() || key != "generate";
                self.generate = map.next_value_seed(Text)?;
            }
            (Scope::Message | Scope::Response, _)
                if key.eq_ignore_ascii_case("previous_response_id")
                    || key.eq_ignore_ascii_case("conversation") =>
            {
                self.continues |= map.next_value::<Option<IgnoredAny>>()?.is_some();
            }
            (Scope::Message | Scope::Response | Scope::Session, "model") => {
                let model = map.next_value_seed(Text)?;
                self.model = match (self.model.take(), model) {
                    (Some(first), Some(other)) if first != other => Some(format!("{first},{other}").into()),
                    (first, other) => first.or(other),
                };
            }
            (Scope::Response, "id") | (Scope::Message, "response_id") => {
                self.id = map.next_value_seed(Text)?.or(self.id.take());
            }
            (Scope::Content, "turnComplete" | "turn_complete") => {
                map.next_value::<IgnoredAny>()?;
                self.complete = true;
            }
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Reads an object. Skips any other value and returns `false`.
struct EventObject<'m, 't> {
    scope: Scope,
    members: &'m mut EventMembers<'t>,
}

impl<'de> DeserializeSeed<'de> for EventObject<'_, 'de> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for EventObject<'_, 'de> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        while let Some(MemberName(key)) = map.next_key()? {
            self.members.member(self.scope, &key, &mut map)?;
        }
        Ok(true)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_str<E>(self, _: &str) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(false)
    }
}

/// The maximum length of an id, a model or a type in bytes.
const MAX_TEXT: usize = 512;

/// Reads a string or a boolean. Skips any other value.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((text.len() <= MAX_TEXT).then_some(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok((text.len() <= MAX_TEXT).then(|| Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Self::Value, E> {
        Ok(Some(Cow::Borrowed(if truth { "true" } else { "false" })))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SocketApi::{GeminiLive, Realtime, Responses};

    #[test]
    fn the_path_says_what_is_spoken() {
        let table = [
            ("/v1/responses", Some(Responses)),
            ("/openai/v1/Responses/?x=1", Some(Responses)),
            ("/v1/realtime?model=gpt-realtime", Some(Realtime)),
            ("/openai/realtime?deployment=d", Some(Realtime)),
            (
                "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k",
                Some(GeminiLive),
            ),
            ("/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent", Some(GeminiLive)),
            ("/v1/chat/completions", None),
            ("/socket.io/", None),
            ("", None),
        ];
        for (path, api) in table {
            assert_eq!(SocketApi::of(path), api, "{path}");
        }
        assert_eq!(
            SocketApi::model_of("/v1/realtime?a=b&model=gpt%2Drealtime").as_deref(),
            Some("gpt-realtime")
        );
    }

    #[test]
    fn whatever_may_ask_the_model_is_a_call() {
        let table = [
            (Responses, r#"{"type": "response.create", "model": "m"}"#, ClientEvent::Call),
            (Responses, r#"{"type": "response\u002ecreate"}"#, ClientEvent::Call),
            (Responses, r#"{"type": "response.create", "generate": false}"#, ClientEvent::WarmUp),
            (Responses, r#"{"type": "response.create", "generate": true}"#, ClientEvent::Call),
            (
                Responses,
                r#"{"type": "response.create", "generate": false, "Generate": true}"#,
                ClientEvent::Call,
            ),
            (Responses, r#"{"type": "response.cancel"}"#, ClientEvent::Other),
            (Responses, r#"{"type": "response.cancel", "type": "response.create"}"#, ClientEvent::Call),
            (Responses, r#"{"type": "response.cancel", "Type": "response.create"}"#, ClientEvent::Call),
            (Responses, r#"{"type": "response.cancel"} {"#, ClientEvent::Call),
            (Responses, r#"{"type": "brand.new"}"#, ClientEvent::Call),
            (Responses, "[]", ClientEvent::Call),
            (Responses, "", ClientEvent::Call),
            (Realtime, r#"{"type": "input_audio_buffer.append", "audio": "AAAA"}"#, ClientEvent::Other),
            (Realtime, r#"{"type": "response.create"}"#, ClientEvent::Call),
            (GeminiLive, r#"{"setup": {"model": "models/m"}}"#, ClientEvent::Other),
            (GeminiLive, r#"{"setup": {}, "clientContent": {}}"#, ClientEvent::Input),
            (GeminiLive, r#"{"realtimeInput": {}}"#, ClientEvent::Input),
        ];
        for (api, text, event) in table {
            assert_eq!(api.client(text.as_bytes(), true).0, event, "{text}");
        }
        let cut = Responses.client(br#"{"type": "response.cancel"}"#, false);
        assert_eq!(cut.0, ClientEvent::Call);
        let (_, model) = GeminiLive.client(br#"{"setup": {"model": "models/m"}}"#, true);
        assert_eq!(model.as_deref(), Some("models/m"));
    }

    #[test]
    fn a_call_continues_from_earlier_ones_if_it_says_so() {
        let table = [
            (Realtime, r#"{"type": "response.create"}"#, true),
            (GeminiLive, r#"{"clientContent": {}}"#, true),
            (Responses, r#"{"type": "response.create", "input": "x"}"#, false),
            (Responses, r#"{"type": "response.create", "previous_response_id": null}"#, false),
            (Responses, r#"{"type": "response.create", "previous_response_id": "r"}"#, true),
            (Responses, r#"{"type": "response.create", "Previous_Response_Id": "r"}"#, true),
            (Responses, r#"{"type": "response.create", "conversation": {"id": "c"}}"#, true),
            (Responses, r#"{"type": "response.create", "response": {"previous_response_id": "r"}}"#, true),
            (Responses, r#"{"type": "response.create""#, true),
        ];
        for (api, text, continues) in table {
            assert_eq!(api.continues(text.as_bytes()), continues, "{text}");
        }
    }

    #[test]
    fn a_server_says_where_an_answer_begins_and_ends() {
        let id = |id: &str| Some(id.to_owned());
        let table = [
            (
                Responses,
                r#"{"type":"response.created","response":{"id":"r1"}}"#,
                ServerEvent::Begins { id: id("r1") },
            ),
            (
                Responses,
                r#"{"type":"response.output_text.delta","delta":"x"}"#,
                ServerEvent::Part { id: None },
            ),
            (
                Responses,
                r#"{"type":"response.completed","response":{"id":"r1"}}"#,
                ServerEvent::Ends { id: id("r1") },
            ),
            // The message is truncated, so only the members that have arrived are known.
            (
                Responses,
                r#"{"type":"response.completed","response":{"id":"r1","out"#,
                ServerEvent::Ends { id: id("r1") },
            ),
            (Responses, r#"{"type":"error","status":400}"#, ServerEvent::Failed),
            (
                Realtime,
                r#"{"type":"response.done","response":{"id":"r2"}}"#,
                ServerEvent::Ends { id: id("r2") },
            ),
            (
                Realtime,
                r#"{"type":"conversation.item.input_audio_transcription.completed","usage":{}}"#,
                ServerEvent::Aside,
            ),
            (Realtime, r#"{"type":"session.created","session":{"id":"s"}}"#, ServerEvent::Other),
            (GeminiLive, r#"{"setupComplete":{}}"#, ServerEvent::Other),
            (
                GeminiLive,
                r#"{"serverContent":{"modelTurn":{}}}"#,
                ServerEvent::Turn { complete: false, usage: false },
            ),
            (
                GeminiLive,
                r#"{"serverContent":{"turnComplete":true},"usageMetadata":{}}"#,
                ServerEvent::Turn { complete: true, usage: true },
            ),
        ];
        for (api, text, event) in table {
            assert_eq!(api.server(text.as_bytes()), event, "{text}");
        }
    }
}
