//! What the shell adds to usage records: times, and names that only the host knows.

use crate::host;
use crate::shared::Shared;
use engine::exchange::{ExchangeEnd, RecordStamp, SettledRecord};
use engine::socket::CallTimes;
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
    /// Called when the request's headers arrive. Later, Envoy no longer shows them.
    pub fn start(shared: &Shared) -> Self {
        Self { start: shared.now(), first_byte: None, route: String::new(), request_id: request_id() }
    }

    /// Called when the response arrives.
    pub fn responded(&mut self, shared: &Shared) {
        self.first_byte = Some(shared.now().saturating_sub(self.start));
        self.route = route();
    }

    /// Called when the exchange has ended, before it is settled. Other filters may change the route until the
    /// request is forwarded, so it is fetched late. It needs the context of the request.
    pub fn ended(&mut self) {
        if self.first_byte.is_none() {
            self.route = route();
        }
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

/// Sends the record of a call inside a WebSocket.
pub fn send_call(shared: &Shared, request_id: &str, record: SettledRecord, times: CallTimes) {
    let CallTimes { begun, answered } = times;
    let stamp = RecordStamp {
        end: end(record.is_finished()),
        time: host::wall_clock(),
        gateway: shared.gateway.clone(),
        route: route(),
        request_id: request_id.to_owned(),
        first_byte: answered.map(|answered| answered.saturating_sub(begun)),
        duration: Some(shared.now().saturating_sub(begun)),
    };
    shared.record(record, stamp);
}

/// How an exchange ended. Whether the client has left is known when the request is logged.
pub fn end(is_complete: bool) -> ExchangeEnd {
    match is_complete {
        true => ExchangeEnd::Complete,
        false if host::has_client_left() => ExchangeEnd::ClientLeft,
        false => ExchangeEnd::Cut,
    }
}

/// Writes values for the access log into Envoy's filter state.
pub fn write(fields: Vec<(&'static str, String)>) {
    for (name, value) in fields {
        host::set_filter_state(&format!("weir.usage.{name}"), &value);
    }
}

fn route() -> String {
    text(host::property(Facts::ROUTE_NAME.to_vec()))
}

/// The id of the request. Called when its headers arrive.
pub fn request_id() -> String {
    text(host::property(vec!["request", "id"]))
}

fn text(value: Option<Vec<u8>>) -> String {
    value.map(|value| String::from_utf8_lossy(&value).into_owned()).unwrap_or_default()
}
