//! A stand-in for Envoy AI Gateway's external processor, which runs only in a Kubernetes cluster. Like that processor,
//! it translates chats between OpenAI's API, which the client uses, and Anthropic's API, which the provider uses.
//!
//! Envoy calls it in two places. The filter in the listener stores the client's body and sets a header to the model. The
//! filter in the cluster replaces the body with a translation of the stored body. The filter in the listener translates
//! the response.

use crate::envoy::Config;
use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::ProcessingMode;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::processing_mode::BodySendMode;
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::common_response::ResponseStatus;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{
    ExternalProcessor, ExternalProcessorServer,
};
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Asked;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Told;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    BodyMutation, BodyResponse, CommonResponse, HeaderMutation, HeadersResponse, ProcessingRequest,
    ProcessingResponse, TrailersResponse,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

/// The header that names the model, for routes and for the filters after the processor.
pub const MODEL: &str = "x-ai-eg-model";

/// The header that identifies the stored body for the cluster's filter.
const ID: &str = "x-ai-eg-internal-req-id";

/// The metadata that distinguishes the cluster's filter from the listener's filter.
const PLACE: &str = "x-place";

/// A running processor. It stops when it is dropped.
pub struct AiGateway {
    address: SocketAddr,
    kept: Arc<KeptBodies>,
    end: Option<oneshot::Sender<()>>,
}

/// The bodies of all chats so far, indexed by chat number.
#[derive(Default)]
struct KeptBodies(Mutex<HashMap<usize, Value>>);

impl KeptBodies {
    fn bodies(&self) -> std::sync::MutexGuard<'_, HashMap<usize, Value>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AiGateway {
    /// Starts a processor on a free port.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("the listener has an address");
        listener.set_nonblocking(true).expect("the listener can be asynchronous");
        let kept = Arc::new(KeptBodies::default());
        let processor = Processor(kept.clone());
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be built").block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime runs");
                let server = Server::builder().add_service(ExternalProcessorServer::new(processor));
                let until = async { drop(ended.await) };
                server.serve_with_incoming_shutdown(TcpIncoming::from(listener), until).await
            })
        });
        Self { address, kept, end: Some(end) }
    }

    /// Returns how many chats the listener's filter has read.
    pub fn chats(&self) -> usize {
        self.kept.bodies().len()
    }

    /// Adds both filters and their cluster, before or after Weir's filter.
    pub fn install(&self, config: &mut Config, before_weir: bool) {
        let filter = |name: &str, place: &str, mode: Value| {
            json!({ "name": name, "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                "grpc_service": {
                    "envoy_grpc": { "cluster_name": "ai-gateway" },
                    "initial_metadata": [{ "key": PLACE, "value": place }],
                },
                "allow_mode_override": true, "message_timeout": "10s", "processing_mode": mode,
            } })
        };
        let listener = filter(
            "envoy.filters.http.ext_proc/aigateway",
            "listener",
            json!({
                "request_header_mode": "SEND", "response_header_mode": "SEND",
                "request_body_mode": "BUFFERED", "response_body_mode": "BUFFERED",
            }),
        );
        let cluster = filter(
            "envoy.filters.http.ext_proc/aigateway",
            "cluster",
            json!({
                "request_header_mode": "SEND", "response_header_mode": "SKIP",
            }),
        );
        let codec = json!({ "name": "envoy.filters.http.upstream_codec", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        } });

        let filters = config.filters();
        let weir =
            filters.iter().position(|filter| filter["name"] == "weir").expect("there is Weir's filter");
        filters.insert(if before_weir { weir } else { weir + 1 }, listener);
        config.edit_cluster("llm", |llm| {
            let options = &mut llm["typed_extension_protocol_options"]
                ["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
            options["http_filters"] = json!([cluster, codec]);
        });
        let mut processor = config.named_cluster("limitador-adapter");
        processor["name"] = "ai-gateway".into();
        processor["load_assignment"]["cluster_name"] = "ai-gateway".into();
        config.add_cluster(processor);
        config.cluster("ai-gateway", self.address);
    }
}

impl Drop for AiGateway {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

struct Processor(Arc<KeptBodies>);

#[tonic::async_trait]
impl ExternalProcessor for Processor {
    type ProcessStream = ReceiverStream<Result<ProcessingResponse, Status>>;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let is_cluster = request.metadata().get(PLACE).is_some_and(|place| place == "cluster");
        let mut asked = request.into_inner();
        let (tell, told) = mpsc::channel(1);
        let mut chat = Chat { kept: self.0.clone(), number: None, translation: Translation::None };
        tokio::spawn(async move {
            while let Ok(Some(ProcessingRequest { request: Some(message), .. })) = asked.message().await {
                let answer = if is_cluster { chat.at_cluster(message) } else { chat.at_listener(message) };
                if tell.send(answer).await.is_err() {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(told)))
    }
}

/// One exchange at one of the two filters.
struct Chat {
    kept: Arc<KeptBodies>,
    number: Option<usize>,
    translation: Translation,
}

/// How to translate the body of the response.
enum Translation {
    None,
    Whole,
    Stream(TranslatedEvents),
}

impl Chat {
    fn at_listener(&mut self, message: Asked) -> Result<ProcessingResponse, Status> {
        Ok(match message {
            Asked::RequestHeaders(_) => headers(Told::RequestHeaders, CommonResponse::default()),
            Asked::RequestBody(body) => {
                let body: Value = serde_json::from_slice(&body.body)
                    .map_err(|error| Status::invalid_argument(error.to_string()))?;
                let model = body["model"].as_str().unwrap_or_default().to_owned();
                let mut bodies = self.kept.bodies();
                let number = bodies.len();
                bodies.insert(number, body);
                drop(bodies);
                self.number = Some(number);
                let header_mutation = set(&[(MODEL, &model), (ID, &number.to_string())]);
                let common = CommonResponse {
                    header_mutation: Some(header_mutation),
                    clear_route_cache: true,
                    ..CommonResponse::default()
                };
                of(Told::RequestBody(BodyResponse { response: Some(common) }))
            }
            Asked::ResponseHeaders(headers_of) => {
                let given = headers_of.headers.unwrap_or_default();
                self.translation = match (self.body(), value(&given, ":status").as_str()) {
                    (Some(body), "200") if body["stream"] == true => Translation::Stream(TranslatedEvents {
                        asks: body["stream_options"]["include_usage"] == true,
                        ..TranslatedEvents::default()
                    }),
                    (Some(_), "200") => Translation::Whole,
                    _ => Translation::None,
                };
                let header_mutation = HeaderMutation {
                    remove_headers: vec!["content-length".into()],
                    ..HeaderMutation::default()
                };
                let common =
                    CommonResponse { header_mutation: Some(header_mutation), ..CommonResponse::default() };
                let mut answer = headers(Told::ResponseHeaders, common);
                if let Translation::Stream(_) = self.translation {
                    let mode = ProcessingMode {
                        response_body_mode: BodySendMode::Streamed.into(),
                        ..ProcessingMode::default()
                    };
                    answer.mode_override = Some(mode);
                }
                answer
            }
            Asked::ResponseBody(body) => {
                let translated = match &mut self.translation {
                    Translation::None => None,
                    Translation::Whole => Some(whole(&body.body)),
                    Translation::Stream(events) => Some(events.translated(&body.body)),
                };
                let common =
                    CommonResponse { body_mutation: translated.map(replaced), ..CommonResponse::default() };
                of(Told::ResponseBody(BodyResponse { response: Some(common) }))
            }
            Asked::RequestTrailers(_) => of(Told::RequestTrailers(TrailersResponse::default())),
            Asked::ResponseTrailers(_) => of(Told::ResponseTrailers(TrailersResponse::default())),
        })
    }

    fn at_cluster(&mut self, message: Asked) -> Result<ProcessingResponse, Status> {
        let Asked::RequestHeaders(given) = message else {
            return Err(Status::internal("the filter of the cluster sees the headers alone"));
        };
        let given = given.headers.unwrap_or_default();
        self.number = value(&given, ID).parse().ok();
        let body = self.body().ok_or_else(|| Status::not_found("a chat that the listener has not seen"))?;
        let translated = translated(&body).to_string().into_bytes();
        let common = CommonResponse {
            status: ResponseStatus::ContinueAndReplace.into(),
            header_mutation: Some(set(&[(":path", "/v1/messages")])),
            body_mutation: Some(replaced(translated)),
            ..CommonResponse::default()
        };
        Ok(headers(Told::RequestHeaders, common))
    }

    fn body(&self) -> Option<Value> {
        self.kept.bodies().get(&self.number?).cloned()
    }
}

fn of(response: Told) -> ProcessingResponse {
    ProcessingResponse { response: Some(response), ..ProcessingResponse::default() }
}

fn headers(told: fn(HeadersResponse) -> Told, common: CommonResponse) -> ProcessingResponse {
    of(told(HeadersResponse { response: Some(common) }))
}

fn replaced(body: Vec<u8>) -> BodyMutation {
    BodyMutation { mutation: Some(Mutation::Body(body)) }
}

fn set(headers: &[(&str, &str)]) -> HeaderMutation {
    let option = |(key, value): &(&str, &str)| HeaderValueOption {
        header: Some(HeaderValue {
            key: (*key).to_owned(),
            raw_value: value.as_bytes().to_vec(),
            ..HeaderValue::default()
        }),
        append_action: 2,
        ..HeaderValueOption::default()
    };
    HeaderMutation { set_headers: headers.iter().map(option).collect(), ..HeaderMutation::default() }
}

fn value(headers: &HeaderMap, name: &str) -> String {
    let found = headers.headers.iter().find(|header| header.key == name);
    found.map_or(String::new(), |header| match header.raw_value.as_slice() {
        [] => header.value.clone(),
        raw => String::from_utf8_lossy(raw).into_owned(),
    })
}

/// Translates a request from OpenAI's API to Anthropic's.
fn translated(body: &Value) -> Value {
    let maximum = body.get("max_completion_tokens").or_else(|| body.get("max_tokens")).cloned();
    json!({
        "model": body["model"], "messages": body["messages"], "stream": body["stream"] == true,
        "max_tokens": maximum.unwrap_or_else(|| 4096.into()),
    })
}

fn usage(input: &Value, output: &Value) -> Value {
    let count = |of: &Value, name: &str| of[name].as_u64().unwrap_or_default();
    let cached = count(input, "cache_read_input_tokens");
    let input = count(input, "input_tokens") + cached + count(input, "cache_creation_input_tokens");
    let output = count(output, "output_tokens");
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": { "cached_tokens": cached },
    })
}

/// Translates a complete response from Anthropic's API to OpenAI's.
fn whole(body: &[u8]) -> Vec<u8> {
    let message: Value = serde_json::from_slice(body).unwrap_or_default();
    let choice = json!({
        "index": 0, "finish_reason": "stop",
        "message": { "role": "assistant", "content": message["content"][0]["text"] },
    });
    let usage = usage(&message["usage"], &message["usage"]);
    let chat = json!({
        "id": message["id"], "object": "chat.completion", "created": 1_790_000_000, "model": message["model"],
        "choices": [choice], "usage": usage,
    });
    chat.to_string().into_bytes()
}

/// Translates the events of a stream from Anthropic's API to OpenAI's.
#[derive(Default)]
struct TranslatedEvents {
    /// Whether the stored body requests usage.
    asks: bool,
    rest: Vec<u8>,
    input: Value,
    output: Value,
}

impl TranslatedEvents {
    fn translated(&mut self, piece: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(piece);
        let mut translated = Vec::new();
        while let Some(end) = self.rest.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = self.rest.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event);
            let data = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or("null");
            let event = serde_json::from_str(data).unwrap_or_default();
            self.chunks(&event).iter().for_each(|chunk| {
                translated.extend_from_slice(format!("data: {chunk}\n\n").as_bytes());
            });
        }
        translated
    }

    fn chunks(&mut self, event: &Value) -> Vec<String> {
        let chunk = |choices: Value, usage: Value| {
            let mut chunk = json!({
                "id": "msg_1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "claude",
                "choices": choices,
            });
            if !usage.is_null() {
                chunk["usage"] = usage;
            }
            chunk.to_string()
        };
        let choice =
            |delta: Value, reason: Value| json!([{ "index": 0, "delta": delta, "finish_reason": reason }]);
        match event["type"].as_str() {
            Some("message_start") => {
                self.input = event["message"]["usage"].clone();
                vec![chunk(choice(json!({ "role": "assistant", "content": "" }), Value::Null), Value::Null)]
            }
            Some("content_block_delta") => {
                let delta = json!({ "content": event["delta"]["text"] });
                vec![chunk(choice(delta, Value::Null), Value::Null)]
            }
            Some("message_delta") => {
                self.output = event["usage"].clone();
                vec![chunk(choice(json!({}), "stop".into()), Value::Null)]
            }
            Some("message_stop") => {
                let usage = self.asks.then(|| chunk(json!([]), usage(&self.input, &self.output)));
                usage.into_iter().chain(["[DONE]".to_owned()]).collect()
            }
            _ => Vec::new(),
        }
    }
}
