//! All calls to the host. The SDK panics on statuses that it does not expect, and its trait methods panic on
//! every error. This module therefore makes each call only in callbacks in which Envoy never answers it with
//! such a status.

use engine::exchange::RequestEdit;
use engine::refusal::Denial;
use llm::response::ResponseHead;
use protocol::call::CallFailure;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType, MetricType, Status};
use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds of the wall clock.
pub fn wall_clock() -> u64 {
    let time = hostcalls::get_current_time().unwrap_or(UNIX_EPOCH);
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Calls the root context's `on_tick` at this interval, in milliseconds; 0 stops it.
pub fn tick_every(milliseconds: u64) {
    let period = Duration::from_millis(milliseconds.min(u64::from(u32::MAX)));
    told("the timer", hostcalls::set_tick_period(period));
}

/// Returns an unpredictable number, or `None` if the host provides none.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)] // The SDK does not offer this function. Clocks do not suffice, since two machines may have the same time.
pub fn random() -> Option<u128> {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(bytes: *mut u8, length: usize) -> i32;
    }
    let mut bytes = [0; 16];
    // SAFETY: the host writes `length` bytes to `bytes`, which has this length.
    let status = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    (status == 0).then_some(u128::from_ne_bytes(bytes))
}

/// Outside of Wasm, only tests provide a host.
#[cfg(not(target_arch = "wasm32"))]
pub fn random() -> Option<u128> {
    cfg!(test).then_some(0x5eed)
}

/// The plugin's configuration.
pub fn configuration(size: usize) -> Vec<u8> {
    buffer(BufferType::PluginConfiguration, size)
}

/// The first `size` bytes of the request's body, which Envoy buffers.
pub fn request_body(size: usize) -> Vec<u8> {
    buffer(BufferType::HttpRequestBody, size)
}

/// `size` bytes of the request's body, starting at an offset.
pub fn request_body_after(before: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpRequestBody, before, size).ok().flatten().unwrap_or_default()
}

/// Replaces the bytes that are passing or that Envoy buffers. If there are none, the SDK panics.
pub fn replace_request_body(bytes: &[u8]) {
    told("a message", hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, bytes));
}

/// Replaces the body and the headers, both of which Envoy holds back.
pub fn edit_request(edit: &RequestEdit) {
    let whole = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, &edit.body);
    told("editing the request", whole);
    for (name, value) in &edit.headers {
        told(name, hostcalls::set_map_value(MapType::HttpRequestHeaders, name, value.as_deref()));
    }
}

/// The bytes of the response's body that are passing, after those that Envoy buffers.
pub fn response_body(kept: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpResponseBody, kept, size).ok().flatten().unwrap_or_default()
}

/// Data that another VM of this `vm_id` has stored under this name. It may be on another worker or run another
/// version of the module.
pub fn shared(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(name).ok().and_then(|(bytes, _)| bytes)
}

/// Stores data for [`shared`]. Envoy keeps it until no VM of this `vm_id` is left.
pub fn share(name: &str, bytes: &[u8]) {
    told("sharing", hostcalls::set_shared_data(name, Some(bytes), None));
}

/// The reply to a gRPC call, or a message of a gRPC stream.
pub fn reply(size: usize) -> Vec<u8> {
    buffer(BufferType::GrpcReceiveBuffer, size)
}

fn buffer(buffer: BufferType, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer, 0, size).ok().flatten().unwrap_or_default()
}

/// An attribute of the request. Envoy omits empty ones.
pub fn property(path: Vec<&str>) -> Option<Vec<u8>> {
    hostcalls::get_property(path).ok().flatten()
}

/// Envoy's flag for a client that disconnected before the end of the response.
const DOWNSTREAM_CONNECTION_TERMINATION: u64 = 1 << 14;

/// Whether the client disconnected before the end of the response. Known when the request is logged.
pub fn has_client_left() -> bool {
    let flags = property(vec!["response", "flags"]).and_then(|value| value.try_into().ok());
    flags.map_or(0, u64::from_le_bytes) & DOWNSTREAM_CONNECTION_TERMINATION != 0
}

/// Whether a response with this status comes from Envoy, because it stopped waiting for the upstream.
pub fn has_timed_out(status: u16) -> bool {
    // Such as `response_timeout`, `stream_idle_timeout` and `upstream_max_stream_duration_reached`.
    let is_timeout = |details: Vec<u8>| {
        let details = String::from_utf8_lossy(&details);
        details.contains("timeout") || details.contains("duration")
    };
    matches!(status, 408 | 504) && property(vec!["response", "code_details"]).is_some_and(is_timeout)
}

/// Sets `wasm.NAME` in the request's filter state, unless another filter has made it read-only.
#[allow(unsafe_code)] // The SDK's function panics if the host refuses.
pub fn set_filter_state(name: &str, value: &str) {
    unsafe extern "C" {
        fn proxy_set_property(path: *const u8, length: usize, value: *const u8, size: usize) -> u32;
    }
    // SAFETY: the host reads both strings during the call.
    let status = unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) };
    if status != 0 {
        log::error!("the filter state {name}: the host answered {status}");
    }
}

/// The number of bytes of the request, including headers, that Envoy has received. The filter may not have
/// seen all of them.
pub fn request_size() -> Option<u64> {
    let size = property(vec!["request", "total_size"])?;
    <[u8; 8]>::try_from(size.as_slice()).ok().map(u64::from_le_bytes)
}

/// A request header. Repeated values are joined with commas, as in Envoy's own attributes, so that none is
/// lost. Envoy rejects repeats of headers that HTTP allows only once, so for those a cheaper direct look-up
/// suffices.
pub fn request_header(name: &str) -> Option<Vec<u8>> {
    if name.starts_with(':') || name == "content-length" {
        return header(MapType::HttpRequestHeaders, name);
    }
    let joined = property(vec!["request", "headers", name]);
    // The attribute also omits an empty header.
    joined.or_else(|| {
        if EMPTY_IS_NONE.contains(&name) { None } else { header(MapType::HttpRequestHeaders, name) }
    })
}

/// Headers that have no meaning if they are empty.
const EMPTY_IS_NONE: [&str; 3] = ["accept-encoding", "content-encoding", "content-type"];

/// Whether the request has this header.
pub fn has_request_header(name: &str) -> bool {
    header(MapType::HttpRequestHeaders, name).is_some()
}

/// Sets a request header and replaces all its values.
pub fn set_request_header(name: &str, value: &str) {
    told(name, hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value)));
}

/// All request headers, with one pair for each value.
pub fn request_headers() -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
}

/// Removes every value of a request header.
pub fn remove_request_header(name: &str) {
    told(name, hostcalls::remove_map_value(MapType::HttpRequestHeaders, name));
}

/// The response headers that the meter needs.
pub fn response_head(further: &[String]) -> ResponseHead {
    // All headers are fetched at once: fetching a single header takes half as long, and five are needed.
    let headers = hostcalls::get_map_bytes(MapType::HttpResponseHeaders).unwrap_or_default();
    let text = |name: &str| {
        let (_, value) = headers.iter().find(|(known, _)| known == name)?;
        String::from_utf8(value.clone()).ok()
    };
    let status = text(":status").and_then(|status| status.parse().ok()).unwrap_or_default();
    ResponseHead::from_headers(status, further, text)
}

/// A response header.
pub fn response_header(name: &str) -> Option<String> {
    let value = header(MapType::HttpResponseHeaders, name)?;
    Some(String::from_utf8_lossy(&value).into_owned())
}

/// Sets a response header.
pub fn set_response_header(name: &str, value: &str) {
    told(name, hostcalls::set_map_value(MapType::HttpResponseHeaders, name, Some(value)));
}

/// Removes every value of a response header.
pub fn remove_response_header(name: &str) {
    told(name, hostcalls::remove_map_value(MapType::HttpResponseHeaders, name));
}

/// Replaces the bytes that are passing or that Envoy buffers. If there are none, the SDK panics.
pub fn replace_response_body(bytes: &[u8]) {
    told("a chunk", hostcalls::set_buffer(BufferType::HttpResponseBody, 0, usize::MAX, bytes));
}

fn header(map: MapType, name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

/// Resumes a request that a callback of its context has paused.
pub fn resume() {
    told("resuming", hostcalls::resume_http_request());
}

/// Resets the stream after the callback has returned.
pub fn reset_response() {
    told("resetting the response", hostcalls::reset_http_response());
}

/// Answers the request locally.
pub fn respond(denial: &Denial) {
    let headers = denial.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
    told("refusing", hostcalls::send_http_response(denial.status.into(), headers, Some(&denial.body)));
}

/// A method of the adapter: its service and its name.
pub type Method = (&'static str, &'static str);

/// Calls the adapter. The reply arrives at the calling context's `on_grpc_call_response` with this token.
pub fn call(to: &str, method: Method, message: &[u8], timeout: Duration) -> Result<u32, CallFailure> {
    call_with(to, method, Vec::new(), message, timeout)
}

/// The same, with metadata.
pub fn call_with(
    to: &str,
    (service, name): Method,
    metadata: Vec<(&str, &[u8])>,
    message: &[u8],
    timeout: Duration,
) -> Result<u32, CallFailure> {
    hostcalls::dispatch_grpc_call(to, service, name, metadata, Some(message), timeout)
        .map_err(|_| CallFailure::Unavailable)
}

/// Opens a stream to the adapter. Its messages arrive at the calling context's `on_grpc_stream_message`.
pub fn open_stream(to: &str, method: Method) -> Result<u32, CallFailure> {
    let (service, name) = method;
    hostcalls::open_grpc_stream(to, service, name, Vec::new()).map_err(|_| CallFailure::Unavailable)
}

/// Sends a message on a stream of the current context.
pub fn send(stream: u32, message: &[u8]) {
    told("the stream to the adapter", hostcalls::send_grpc_stream_message(stream, Some(message), false));
}

/// Cancels a stream. The adapter's further messages are dropped.
pub fn cancel_stream(stream: u32) {
    told("cancelling the stream", hostcalls::cancel_grpc_stream(stream));
}

/// Makes host calls in another context. A call that an HTTP context makes as its root context continues when
/// the client disconnects, and its reply still arrives at the HTTP context. Envoy would silently cancel the
/// HTTP context's own call; the SDK would then keep its token forever and panic when Envoy reuses it.
pub fn as_context<T>(other: u32, own: u32, act: impl FnOnce() -> T) -> T {
    told("entering a context", hostcalls::set_effective_context(other));
    let done = act();
    told("leaving a context", hostcalls::set_effective_context(own));
    done
}

/// Tells Envoy that this root context, which had asked for more time, can be deleted.
pub fn done() {
    told("leaving", hostcalls::done());
}

/// Defines a counter or gauge by name. Each call creates a new number in Envoy that is never freed, so call it
/// once.
pub fn metric(name: &str, kind: MetricType) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

/// Adds to a counter. Envoy rejects 0.
pub fn increment(metric: u32, amount: u64) {
    told("counting", hostcalls::increment_metric(metric, i64::try_from(amount).unwrap_or(i64::MAX)));
}

/// Adds to a gauge or subtracts from it. Envoy rejects 0.
pub fn change(metric: u32, difference: i64) {
    told("gauging", hostcalls::increment_metric(metric, difference));
}

/// Sets a gauge.
pub fn set(metric: u32, value: u64) {
    told("gauging", hostcalls::record_metric(metric, value));
}

/// Logs an error that cannot be handled.
fn told(what: &str, outcome: Result<(), Status>) {
    if let Err(status) = outcome {
        log::error!("{what}: the host answered {status:?}");
    }
}
