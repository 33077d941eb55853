//! What the shell adds to usage records: times, and names that only the host knows.

use crate::host;
use crate::shared::Shared;
use engine::exchange::{ExchangeEnd, RecordStamp, SettledRecord};
use expression::facts::Facts;

/// Follows one request, if the adapter keeps records.
pub struct Recording {
    /// When the request arrived.
    start: u64,
    first_byte: Option<u64>,
    route: String,
    request_id: String,
}

impl Recording {
    /// Called when the request arrives.
    pub fn start(shared: &Shared) -> Self {
        Self { start: shared.now(), first_byte: None, route: String::new(), request_id: String::new() }
    }

    /// Called when the response arrives.
    pub fn responded(&mut self, shared: &Shared) {
        self.first_byte = Some(shared.now().saturating_sub(self.start));
        self.fetch();
    }

    /// Called when the exchange has ended, before it is settled. Without a response, the names have not been
    /// fetched yet.
    pub fn ended(&mut self) {
        if self.first_byte.is_none() {
            self.fetch();
        }
    }

    /// Other filters may change the route and the id until the request is forwarded, so they are fetched as
    /// late as possible. Both need the context of the request.
    fn fetch(&mut self) {
        (self.route, self.request_id) = (route(), request_id());
    }

    /// Sends the record of an exchange that has ended.
    pub fn send(&self, shared: &Shared, record: SettledRecord, end: ExchangeEnd) {
        let stamp = RecordStamp {
            end,
            time: host::wall_clock(),
            gateway: shared.gateway.clone(),
            route: self.route.clone(),
            request_id: self.request_id.clone(),
            first_byte: self.first_byte,
            duration: Some(shared.now().saturating_sub(self.start)),
        };
        shared.record(record, stamp);
    }
}

/// Sends the record of a call inside a WebSocket. The durations of such a call are unknown.
pub fn send_call(shared: &Shared, record: SettledRecord) {
    let end = match record.is_finished() {
        true => ExchangeEnd::Complete,
        false if host::has_client_left() => ExchangeEnd::ClientLeft,
        false => ExchangeEnd::Cut,
    };
    let stamp = RecordStamp {
        end,
        time: host::wall_clock(),
        gateway: shared.gateway.clone(),
        route: route(),
        request_id: request_id(),
        first_byte: None,
        duration: None,
    };
    shared.record(record, stamp);
}

fn route() -> String {
    text(host::property(Facts::ROUTE_NAME.to_vec()))
}

fn request_id() -> String {
    text(host::request_header("x-request-id"))
}

fn text(value: Option<Vec<u8>>) -> String {
    value.map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default()
}
