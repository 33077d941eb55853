//! A filter that receives every header and body and does nothing. It measures the cost of Wasm itself. If its
//! configuration names a request header, the filter reads that header, which is the minimum for selecting requests. If
//! the configuration has lines of the form `NAME: VALUE`, the filter sets these response headers, which is the minimum
//! for reporting quotas to clients.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::hint::black_box;
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

#[derive(Clone, Default)]
struct Root {
    header: Option<Rc<str>>,
    told: Rc<[(String, String)]>,
}

struct Empty(Root);

impl Context for Root {}

impl Context for Empty {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().and_then(|text| String::from_utf8(text).ok());
        let text = text.unwrap_or_default();
        let told = text.lines().filter_map(|line| line.split_once(": "));
        self.told = told.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        self.header = (!text.is_empty() && self.told.is_empty()).then(|| text.into());
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Empty(self.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl HttpContext for Empty {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(name) = &self.0.header {
            black_box(self.get_http_request_header(name));
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        for (name, value) in self.0.told.iter() {
            self.set_http_response_header(name, Some(value));
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        Action::Continue
    }
}
