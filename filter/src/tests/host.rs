//! Implements Envoy's host functions on a state that tests set up and examine. Each thread has a separate
//! host, like a worker.

// The host's side of the ABI uses C linkage.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::slice;

/// An unanswered call to the adapter, or a message in a stream to it.
#[derive(Clone, Debug)]
pub struct GrpcCall {
    pub token: u32,
    pub method: String,
    /// As it is passed to the host.
    pub metadata: Vec<u8>,
    pub message: Vec<u8>,
}

/// A header map.
pub type HeaderMap = Vec<(String, Vec<u8>)>;

/// The state of one HTTP stream in Envoy.
#[derive(Debug, Default)]
pub struct HttpStream {
    pub request_headers: HeaderMap,
    pub response_headers: HeaderMap,
    /// The available part of each body, buffered or passing.
    pub request_body: Vec<u8>,
    pub response_body: Vec<u8>,
    /// Whether the module has resumed the request or the response.
    pub resumed: bool,
    /// The local reply that the module has sent.
    pub replied: Option<(u32, Vec<u8>)>,
}

/// The host of one thread.
#[derive(Debug, Default)]
pub struct Host {
    /// The time in nanoseconds.
    pub now: u64,
    pub configuration: Vec<u8>,
    pub streams: BTreeMap<u32, HttpStream>,
    /// The message that the module is about to fetch.
    pub received: Vec<u8>,
    /// Calls and stream messages in order.
    pub sent: Vec<GrpcCall>,
    /// Open streams to the adapter.
    pub open: HashSet<u32>,
    /// Whether calls and streams fail.
    pub unreachable: bool,
    /// Data that VMs share.
    pub shared: BTreeMap<String, Vec<u8>>,
    /// The filter state that the module has written, by context.
    pub filter_state: BTreeMap<u32, BTreeMap<String, String>>,
    /// Whether the root context may be deleted.
    pub done: bool,
    effective: u32,
    tokens: u32,
    metrics: u32,
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

/// Reads or changes the host of this thread.
pub fn with<T>(act: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(act)
}

/// The entry points of the module.
pub mod module {
    unsafe extern "C" {
        pub safe fn proxy_on_context_create(context: u32, root: u32);
        pub safe fn proxy_on_configure(context: u32, size: usize) -> bool;
        pub safe fn proxy_on_tick(context: u32);
        pub safe fn proxy_on_request_headers(context: u32, count: usize, end: bool) -> u32;
        pub safe fn proxy_on_request_body(context: u32, size: usize, end: bool) -> u32;
        pub safe fn proxy_on_request_trailers(context: u32, count: usize) -> u32;
        pub safe fn proxy_on_response_headers(context: u32, count: usize, end: bool) -> u32;
        pub safe fn proxy_on_response_body(context: u32, size: usize, end: bool) -> u32;
        pub safe fn proxy_on_response_trailers(context: u32, count: usize) -> u32;
        pub safe fn proxy_on_done(context: u32) -> bool;
        pub safe fn proxy_on_log(context: u32);
        pub safe fn proxy_on_delete(context: u32);
        pub safe fn proxy_on_grpc_receive(context: u32, token: u32, size: usize);
        pub safe fn proxy_on_grpc_close(context: u32, token: u32, status: u32);
        safe fn proxy_on_memory_allocate(size: usize) -> *mut u8;
    }

    /// Allocates memory of the module, filled with these bytes.
    pub fn give(bytes: &[u8]) -> *mut u8 {
        let place = proxy_on_memory_allocate(bytes.len());
        // SAFETY: the module has allocated this many bytes.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        place
    }
}

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const INTERNAL_FAILURE: u32 = 10;

const REQUEST_BODY: u32 = 0;
const RESPONSE_BODY: u32 = 1;
const GRPC_RECEIVE: u32 = 5;
const CONFIGURATION: u32 = 7;

const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;

impl Host {
    fn token(&mut self) -> u32 {
        self.tokens += 1;
        self.tokens
    }

    fn stream(&mut self) -> Option<&mut HttpStream> {
        self.streams.get_mut(&self.effective)
    }

    fn buffer(&mut self, kind: u32) -> Option<&mut Vec<u8>> {
        match kind {
            REQUEST_BODY => self.stream().map(|stream| &mut stream.request_body),
            RESPONSE_BODY => self.stream().map(|stream| &mut stream.response_body),
            GRPC_RECEIVE => Some(&mut self.received),
            CONFIGURATION => Some(&mut self.configuration),
            _ => None,
        }
    }

    fn headers(&mut self, kind: u32) -> Option<&mut HeaderMap> {
        let stream = self.stream()?;
        match kind {
            REQUEST_HEADERS => Some(&mut stream.request_headers),
            RESPONSE_HEADERS => Some(&mut stream.response_headers),
            _ => None,
        }
    }

    fn property(&mut self, path: &[&str]) -> Option<Vec<u8>> {
        match path {
            ["request", "total_size"] => {
                let stream = self.stream()?;
                Some((stream.request_body.len() as u64).to_le_bytes().to_vec())
            }
            ["request", "headers", name] => {
                let headers = self.headers(REQUEST_HEADERS)?;
                headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }
            _ => None,
        }
    }
}

unsafe fn bytes<'a>(data: *const u8, size: usize) -> &'a [u8] {
    if size == 0 {
        return &[];
    }
    // SAFETY: the module guarantees that there are this many bytes.
    unsafe { slice::from_raw_parts(data, size) }
}

unsafe fn text(data: *const u8, size: usize) -> String {
    // SAFETY: same as above.
    String::from_utf8_lossy(unsafe { bytes(data, size) }).into_owned()
}

unsafe fn put(bytes: Option<&[u8]>, data: *mut *mut u8, size: *mut usize) -> u32 {
    let Some(bytes) = bytes else { return NOT_FOUND };
    // SAFETY: the module owns both places.
    unsafe {
        *data = module::give(bytes);
        *size = bytes.len();
    }
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_log(_level: u32, _data: *const u8, _size: usize) -> u32 {
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32 {
    // SAFETY: the module owns this place.
    unsafe { *time = with(|host| host.now) };
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_tick_period_milliseconds(_period: u32) -> u32 {
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_buffer_bytes(
    kind: u32,
    start: usize,
    most: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    let found = with(|host| {
        let buffer = host.buffer(kind)?;
        let end = start.saturating_add(most).min(buffer.len());
        buffer.get(start..end).map(<[u8]>::to_vec)
    });
    // SAFETY: the module owns these places.
    unsafe { put(found.as_deref(), data, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_buffer_bytes(
    kind: u32,
    start: usize,
    size: usize,
    data: *const u8,
    length: usize,
) -> u32 {
    // SAFETY: the module owns these bytes.
    let new = unsafe { bytes(data, length) };
    with(|host| {
        let Some(buffer) = host.buffer(kind) else { return NOT_FOUND };
        let start = start.min(buffer.len());
        let end = start.saturating_add(size).min(buffer.len());
        buffer.splice(start..end, new.iter().copied());
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32 {
    let map = with(|host| host.headers(kind).cloned()).unwrap_or_default();
    let mut bytes = (map.len() as u32).to_le_bytes().to_vec();
    for (name, value) in &map {
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend((value.len() as u32).to_le_bytes());
    }
    for (name, value) in &map {
        bytes.extend([name.as_bytes(), b"\0", value, b"\0"].concat());
    }
    // SAFETY: the module owns these places.
    unsafe { put(Some(&bytes), data, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_header_map_value(
    kind: u32,
    key: *const u8,
    key_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    // SAFETY: the module owns these bytes and places.
    unsafe {
        let name = text(key, key_size);
        let value = with(|host| {
            let found = host.headers(kind)?.iter().find(|(known, _)| *known == name)?;
            Some(found.1.clone())
        });
        put(value.as_deref(), data, size)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_remove_header_map_value(kind: u32, key: *const u8, key_size: usize) -> u32 {
    // SAFETY: the module owns these bytes.
    let name = unsafe { text(key, key_size) };
    with(|host| host.headers(kind).map(|headers| headers.retain(|(known, _)| *known != name)));
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_replace_header_map_value(
    kind: u32,
    key: *const u8,
    key_size: usize,
    data: *const u8,
    size: usize,
) -> u32 {
    // SAFETY: the module owns these bytes.
    let (name, value) = unsafe { (text(key, key_size), bytes(data, size).to_vec()) };
    with(|host| {
        if let Some(headers) = host.headers(kind) {
            headers.retain(|(known, _)| *known != name);
            headers.push((name, value));
        }
    });
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_property(
    path: *const u8,
    path_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
) -> u32 {
    // SAFETY: the module owns these bytes and places.
    unsafe {
        let path = text(path, path_size);
        let path: Vec<&str> = path.split('\0').collect();
        put(with(|host| host.property(&path)).as_deref(), data, size)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_property(
    path: *const u8,
    path_size: usize,
    value: *const u8,
    value_size: usize,
) -> u32 {
    // SAFETY: the module owns these bytes.
    let (path, value) = unsafe { (text(path, path_size), text(value, value_size)) };
    with(|host| {
        host.filter_state.entry(host.effective).or_default().insert(path, value);
    });
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_get_shared_data(
    name: *const u8,
    name_size: usize,
    data: *mut *mut u8,
    size: *mut usize,
    _cas: *mut u32,
) -> u32 {
    // SAFETY: the module owns these bytes and places.
    unsafe {
        let name = text(name, name_size);
        put(with(|host| host.shared.get(&name).cloned()).as_deref(), data, size)
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_set_shared_data(
    name: *const u8,
    name_size: usize,
    data: *const u8,
    size: usize,
    _cas: u32,
) -> u32 {
    // SAFETY: the module owns these bytes.
    let (name, data) = unsafe { (text(name, name_size), bytes(data, size).to_vec()) };
    with(|host| host.shared.insert(name, data));
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_send_local_response(
    status: u32,
    _details: *const u8,
    _details_size: usize,
    body: *const u8,
    body_size: usize,
    _headers: *const u8,
    _headers_size: usize,
    _grpc_status: i32,
) -> u32 {
    // SAFETY: the module owns these bytes.
    let body = unsafe { bytes(body, body_size) }.to_vec();
    with(|host| {
        if let Some(stream) = host.stream() {
            stream.replied = Some((status, body));
        }
    });
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_continue_stream(_kind: u32) -> u32 {
    with(|host| {
        if let Some(stream) = host.stream() {
            stream.resumed = true;
        }
    });
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_call(
    _upstream: *const u8,
    _upstream_size: usize,
    _service: *const u8,
    _service_size: usize,
    method: *const u8,
    method_size: usize,
    metadata: *const u8,
    metadata_size: usize,
    message: *const u8,
    message_size: usize,
    _timeout: u32,
    token: *mut u32,
) -> u32 {
    // SAFETY: the module owns these bytes and places.
    unsafe {
        let (method, message) = (text(method, method_size), bytes(message, message_size).to_vec());
        let metadata = bytes(metadata, metadata_size).to_vec();
        with(|host| {
            if host.unreachable {
                return INTERNAL_FAILURE;
            }
            *token = host.token();
            host.sent.push(GrpcCall { token: *token, method, metadata, message });
            OK
        })
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_stream(
    _upstream: *const u8,
    _upstream_size: usize,
    _service: *const u8,
    _service_size: usize,
    _method: *const u8,
    _method_size: usize,
    _metadata: *const u8,
    _metadata_size: usize,
    token: *mut u32,
) -> u32 {
    with(|host| {
        if host.unreachable {
            return INTERNAL_FAILURE;
        }
        // SAFETY: the module owns this place.
        unsafe { *token = host.token() };
        host.open.insert(host.tokens);
        OK
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_grpc_send(token: u32, message: *const u8, size: usize, _end: bool) -> u32 {
    // SAFETY: the module owns these bytes.
    let message = unsafe { bytes(message, size) }.to_vec();
    with(|host| {
        if host.open.contains(&token) {
            let (method, metadata) = ("ReserveAndCommit".to_owned(), Vec::new());
            host.sent.push(GrpcCall { token, method, metadata, message });
        }
    });
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_grpc_cancel(token: u32) -> u32 {
    with(|host| host.open.remove(&token));
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_set_effective_context(context: u32) -> u32 {
    with(|host| {
        if context != super::play::ROOT && !host.streams.contains_key(&context) {
            return BAD_ARGUMENT;
        }
        host.effective = context;
        OK
    })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_done() -> u32 {
    with(|host| host.done = true);
    OK
}

#[unsafe(no_mangle)]
unsafe extern "C" fn proxy_define_metric(_kind: u32, _name: *const u8, _size: usize, id: *mut u32) -> u32 {
    // SAFETY: the module owns this place.
    with(|host| unsafe {
        host.metrics += 1;
        *id = host.metrics;
    });
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_increment_metric(_id: u32, _offset: i64) -> u32 {
    OK
}

#[unsafe(no_mangle)]
extern "C" fn proxy_record_metric(_id: u32, _value: u64) -> u32 {
    OK
}

impl Host {
    /// Installs a new host. The SDK outlives it, so tokens are never reused.
    pub fn reset(&mut self) {
        *self = Self { tokens: self.tokens, ..Self::default() };
    }

    /// The context of the next host call, as Envoy sets it for each callback.
    pub fn enter(&mut self, context: u32) {
        self.effective = context;
    }
}

/// Functions that the SDK links and the filter never calls.
macro_rules! uncalled {
    ($($name:ident)*) => { $(
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> u32 {
            INTERNAL_FAILURE
        }
    )* };
}

uncalled! {
    proxy_add_header_map_value proxy_set_header_map_pairs proxy_get_status
    proxy_grpc_close proxy_http_call proxy_close_stream
    proxy_dequeue_shared_queue proxy_enqueue_shared_queue proxy_resolve_shared_queue
    proxy_register_shared_queue proxy_call_foreign_function
}
