//! Every call to the host. The SDK panics on a status that it does not expect of a call, and its trait methods on
//! every error: here is only what Envoy never answers so, from the callbacks in which this crate makes it.

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

/// Calls the root context's `on_tick` again and again after this many milliseconds; 0: not any more.
pub fn tick_every(milliseconds: u64) {
    let period = Duration::from_millis(milliseconds.min(u64::from(u32::MAX)));
    told("the timer", hostcalls::set_tick_period(period));
}

/// A number that nobody can foresee; `None`: the host gives none.
#[cfg(target_arch = "wasm32")]
#[allow(unsafe_code)] // The SDK does not offer it, and clocks can show two machines the same time.
pub fn random() -> Option<u128> {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        fn random_get(bytes: *mut u8, length: usize) -> i32;
    }
    let mut bytes = [0; 16];
    // SAFETY: the host writes `length` bytes from where `bytes` points, which has that many.
    let status = unsafe { random_get(bytes.as_mut_ptr(), bytes.len()) };
    (status == 0).then_some(u128::from_ne_bytes(bytes))
}

/// Outside WebAssembly there is no host but the one of the tests.
#[cfg(not(target_arch = "wasm32"))]
pub fn random() -> Option<u128> {
    cfg!(test).then_some(0x5eed)
}

/// The plugin's configuration.
pub fn configuration(size: usize) -> Vec<u8> {
    buffer(BufferType::PluginConfiguration, size)
}

/// So much of the request's body, which Envoy keeps.
pub fn request_body(size: usize) -> Vec<u8> {
    buffer(BufferType::HttpRequestBody, size)
}

/// This many bytes of the request's body, behind so many.
pub fn request_body_after(before: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpRequestBody, before, size).ok().flatten().unwrap_or_default()
}

/// Puts this in the place of the bytes that are just passing, or that Envoy keeps. With neither the SDK panics.
pub fn replace_request_body(bytes: &[u8]) {
    told("a message", hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, bytes));
}

/// Sends this on in the place of the body that Envoy keeps, and of the headers, which it keeps too.
pub fn edit_request(edit: &RequestEdit) {
    let whole = hostcalls::set_buffer(BufferType::HttpRequestBody, 0, usize::MAX, &edit.body);
    told("editing the request", whole);
    for (name, value) in &edit.headers {
        told(name, hostcalls::set_map_value(MapType::HttpRequestHeaders, name, value.as_deref()));
    }
}

/// This many bytes of the response's body that are just passing, behind those that Envoy keeps.
pub fn response_body(kept: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(BufferType::HttpResponseBody, kept, size).ok().flatten().unwrap_or_default()
}

/// What another VM of this `vm_id` has left under this name, on another worker or with another version of the module.
pub fn shared(name: &str) -> Option<Vec<u8>> {
    hostcalls::get_shared_data(name).ok().and_then(|(bytes, _)| bytes)
}

/// Leaves something for [`shared`]. Envoy keeps it until no VM of this `vm_id` is left.
pub fn share(name: &str, bytes: &[u8]) {
    told("sharing", hostcalls::set_shared_data(name, Some(bytes), None));
}

/// The answer to a gRPC call, or a message of a gRPC stream.
pub fn reply(size: usize) -> Vec<u8> {
    buffer(BufferType::GrpcReceiveBuffer, size)
}

fn buffer(buffer: BufferType, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer, 0, size).ok().flatten().unwrap_or_default()
}

/// An attribute of the request; Envoy leaves out an empty one.
pub fn property(path: Vec<&str>) -> Option<Vec<u8>> {
    hostcalls::get_property(path).ok().flatten()
}

/// How much of the request has come so far, its headers included, whether the filter has seen it or not.
pub fn request_size() -> Option<u64> {
    let size = property(vec!["request", "total_size"])?;
    <[u8; 8]>::try_from(size.as_slice()).ok().map(u64::from_le_bytes)
}

/// A request header. One that is repeated is joined with commas, as Envoy's own attributes have it: none of its
/// values is lost, or taken for the only one. Of the headers that HTTP knows once only, Envoy lets no second through,
/// and asking for them is cheaper without.
pub fn request_header(name: &str) -> Option<Vec<u8>> {
    if name.starts_with(':') || name == "content-length" {
        return header(MapType::HttpRequestHeaders, name);
    }
    let joined = property(vec!["request", "headers", name]);
    // The attribute leaves out an empty header, too.
    joined.or_else(|| {
        if EMPTY_IS_NONE.contains(&name) { None } else { header(MapType::HttpRequestHeaders, name) }
    })
}

/// Headers that say nothing if they are empty.
const EMPTY_IS_NONE: [&str; 3] = ["accept-encoding", "content-encoding", "content-type"];

/// Whether there is such a request header.
pub fn has_request_header(name: &str) -> bool {
    header(MapType::HttpRequestHeaders, name).is_some()
}

/// Sets a request header, in the place of all its values.
pub fn set_request_header(name: &str, value: &str) {
    told(name, hostcalls::set_map_value(MapType::HttpRequestHeaders, name, Some(value)));
}

/// All request headers, one pair for each value.
pub fn request_headers() -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(MapType::HttpRequestHeaders).unwrap_or_default()
}

/// Removes every value of a request header.
pub fn remove_request_header(name: &str) {
    told(name, hostcalls::remove_map_value(MapType::HttpRequestHeaders, name));
}

/// What the meter wants to know of the response.
pub fn response_head(further: &[String]) -> ResponseHead {
    // All at once: asking for a single header takes half as long as asking for all of them, and five are wanted.
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

/// Puts this in the place of the bytes that are just passing, or that Envoy keeps. With neither the SDK panics.
pub fn replace_response_body(bytes: &[u8]) {
    told("a chunk", hostcalls::set_buffer(BufferType::HttpResponseBody, 0, usize::MAX, bytes));
}

fn header(map: MapType, name: &str) -> Option<Vec<u8>> {
    hostcalls::get_map_value_bytes(map, name).ok().flatten()
}

/// Lets the request go on that a callback of its context has kept back.
pub fn resume() {
    told("resuming", hostcalls::resume_http_request());
}

/// Resets the stream once the callback has returned.
pub fn reset_response() {
    told("resetting the response", hostcalls::reset_http_response());
}

/// Answers the request.
pub fn respond(denial: &Denial) {
    let headers = denial.headers.iter().map(|(name, value)| (name.as_ref(), value.as_str())).collect();
    told("refusing", hostcalls::send_http_response(denial.status.into(), headers, Some(&denial.body)));
}

/// One of the adapter's methods: its service and its name.
pub type Method = (&'static str, &'static str);

/// Calls the adapter; the answer comes to the calling context's `on_grpc_call_response` with this token.
pub fn call(to: &str, method: Method, message: &[u8], timeout: Duration) -> Result<u32, CallFailure> {
    let (service, name) = method;
    hostcalls::dispatch_grpc_call(to, service, name, Vec::new(), Some(message), timeout)
        .map_err(|_| CallFailure::Unavailable)
}

/// Opens a stream to the adapter; what it sends comes to the calling context's `on_grpc_stream_message`.
pub fn open_stream(to: &str, method: Method) -> Result<u32, CallFailure> {
    let (service, name) = method;
    hostcalls::open_grpc_stream(to, service, name, Vec::new()).map_err(|_| CallFailure::Unavailable)
}

/// Sends a message in a stream of the context that is in effect.
pub fn send(stream: u32, message: &[u8]) {
    told("the stream to the adapter", hostcalls::send_grpc_stream_message(stream, Some(message), false));
}

/// Ends a stream without a further word from the adapter.
pub fn cancel_stream(stream: u32) {
    told("cancelling the stream", hostcalls::cancel_grpc_stream(stream));
}

/// Does this in the name of another context. A call that an HTTP context makes as its root context goes on when the
/// client goes away, and its answer comes to the HTTP context all the same. Its own call Envoy would cancel without
/// a word; the SDK would keep the token for ever, and panic when Envoy comes to give it out again.
pub fn as_context<T>(other: u32, own: u32, act: impl FnOnce() -> T) -> T {
    told("entering a context", hostcalls::set_effective_context(other));
    let done = act();
    told("leaving a context", hostcalls::set_effective_context(own));
    done
}

/// Tells Envoy that this root context, which had asked for time, can go.
pub fn done() {
    told("leaving", hostcalls::done());
}

/// A counter or gauge by its name. Each time makes a new number in Envoy, for good: ask once.
pub fn metric(name: &str, kind: MetricType) -> Option<u32> {
    hostcalls::define_metric(kind, name).ok()
}

/// Adds to a counter; 0 is an error for Envoy.
pub fn increment(metric: u32, amount: u64) {
    told("counting", hostcalls::increment_metric(metric, i64::try_from(amount).unwrap_or(i64::MAX)));
}

/// Adds to a gauge, or takes away from it; 0 is an error for Envoy.
pub fn change(metric: u32, difference: i64) {
    told("gauging", hostcalls::increment_metric(metric, difference));
}

/// Sets a gauge.
pub fn set(metric: u32, value: u64) {
    told("gauging", hostcalls::record_metric(metric, value));
}

/// An error that leaves nothing to do: it must be seen at least.
fn told(what: &str, outcome: Result<(), Status>) {
    if let Err(status) = outcome {
        log::error!("{what}: the host answered {status:?}");
    }
}
