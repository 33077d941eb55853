//! The minimum work of a token limiter in Wasm. The filter makes a call with constant bytes while the request waits,
//! reads the usage in the response with `serde_json`, and makes a second call with constant bytes before the response
//! ends.
//!
//! The configuration has three lines: the cluster, a `Reserve` in hexadecimal, and a `Commit` in hexadecimal.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::rc::Rc;
use std::time::Duration;

const SERVICE: &str = "kuadrant.service.ratelimit.v1.RateLimitService";
const TIMEOUT: Duration = Duration::from_secs(1);

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

#[derive(Default)]
struct Calls {
    cluster: String,
    reserve: Vec<u8>,
    commit: Vec<u8>,
}

#[derive(Default)]
struct Root(Rc<Calls>);

struct Http {
    calls: Rc<Calls>,
    committed: bool,
    seen: usize,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self
            .get_plugin_configuration()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .unwrap_or_default();
        let mut lines = text.lines();
        let mut bytes = || lines.next().map(str::to_owned).unwrap_or_default();
        let cluster = bytes();
        let (Some(reserve), Some(commit)) = (unhex(&bytes()), unhex(&bytes())) else { return false };
        self.0 = Rc::new(Calls { cluster, reserve, commit });
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Http { calls: self.0.clone(), committed: false, seen: 0 }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Http {
    fn call(&self, method: &str, message: &[u8]) -> Action {
        match self.dispatch_grpc_call(
            &self.calls.cluster,
            SERVICE,
            method,
            Vec::new(),
            Some(message),
            TIMEOUT,
        ) {
            Ok(_) => Action::Pause,
            Err(_) => Action::Continue,
        }
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, _: u32, status: u32, _: usize) {
        if status != 0 {
            self.send_http_response(500, Vec::new(), None);
        } else if self.committed {
            self.resume_http_response();
        } else {
            self.resume_http_request();
        }
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.call("Reserve", &self.calls.reserve)
    }

    fn on_http_response_body(&mut self, size: usize, end: bool) -> Action {
        if self.committed {
            return Action::Continue;
        }
        self.seen = self.seen.max(size);
        if !end {
            return Action::Pause;
        }
        let body = self.get_http_response_body(0, self.seen).unwrap_or_default();
        let total = serde_json::from_slice::<serde_json::Value>(&body).ok();
        if total.and_then(|answer| answer.get("usage")?.get("total_tokens")?.as_u64()).is_none() {
            return Action::Continue;
        }
        self.committed = true;
        self.call("Commit", &self.calls.commit)
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.as_bytes().chunks(2).map(pair).collect()
}
