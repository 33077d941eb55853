//! A filter that sees every header and body and does nothing: what Wasm itself costs. If its configuration names a
//! request header, it asks for it, and no more: the least that a filter pays to know which requests are its own.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType};
use std::hint::black_box;
use std::rc::Rc;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::<Root>::default());
}}

#[derive(Default)]
struct Root {
    header: Option<Rc<str>>,
}

struct Empty {
    header: Option<Rc<str>>,
}

impl Context for Root {}

impl Context for Empty {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let name = self.get_plugin_configuration().and_then(|name| String::from_utf8(name).ok());
        self.header = name.filter(|name| !name.is_empty()).map(Rc::from);
        true
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Empty { header: self.header.clone() }))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl HttpContext for Empty {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        if let Some(name) = &self.header {
            black_box(self.get_http_request_header(name));
        }
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, _: bool) -> Action {
        Action::Continue
    }

    fn on_http_response_body(&mut self, _: usize, _: bool) -> Action {
        Action::Continue
    }
}
