//! `explain --watch`: shows the next request that reaches a running adapter.

use crate::cli::ExplainArgs;
use crate::explain::input::Unexplained;
use crate::observed::{ObservedRate, ObservedReserve};
use policy::model::Unit;
use std::fmt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The maximum length of an adapter's response.
const MAX_ANSWER: u64 = 64 << 20;

/// Waits for the next request.
pub async fn next(asked: &ExplainArgs) -> Result<ObservedReserve, Unexplained> {
    let server = asked.server.trim_end_matches('/');
    let unexplained = |told: &dyn fmt::Display| Unexplained(format!("{server}: {told}"));
    let address = server.strip_prefix("http://").ok_or_else(|| {
        unexplained(&"must be an http:// URL; forward the port if the adapter is elsewhere")
    })?;
    let token = asked.token_file.as_ref().map(std::fs::read_to_string).transpose();
    let token = token.map_err(|error| Unexplained(format!("--token-file: {error}")))?;
    loop {
        let request = request(asked, address, token.as_deref());
        let (status, body) = exchange(address, &request).await.map_err(|error| unexplained(&error))?;
        match status {
            200 => return serde_json::from_slice(&body).map_err(|error| unexplained(&error)),
            // There was no request for a while, so the call is repeated.
            204 => {}
            401 | 403 => {
                return Err(unexplained(&format!(
                    "answered {status}: use --token-file FILE with the admin token"
                )));
            }
            404 => return Err(unexplained(&"answered 404; is it an adapter of this version?")),
            status => return Err(unexplained(&format!("answers {status}"))),
        }
    }
}

fn request(asked: &ExplainArgs, address: &str, token: Option<&str>) -> String {
    let filters = [("policy", &asked.policy), ("limit", &asked.limit)];
    let filters = filters.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)));
    let query = filters.collect::<Vec<_>>().join("&");
    let authorization = token.map(|token| format!("authorization: Bearer {}\r\n", token.trim()));
    format!("GET /api/watch?{query} HTTP/1.0\r\nhost: {address}\r\n{}\r\n", authorization.unwrap_or_default())
}

/// Sends a raw request and returns the status and the body of the response.
pub async fn exchange(address: &str, request: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let address = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, body.get(4..).unwrap_or_default().to_vec()))
}

impl fmt::Display for ObservedReserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the request was {}", if self.admitted { "admitted" } else { "refused" })?;
        let mut policy = "";
        for rate in &self.rates {
            if rate.policy != policy {
                writeln!(f, "\n{}", rate.policy)?;
                policy = &rate.policy;
            }
            write!(f, "{rate}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ObservedRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quantity = |amount: u64| {
            Unit::named(&self.unit).map_or_else(|| amount.to_string(), |unit| unit.quantity(amount))
        };
        let per =
            if self.window.is_empty() { " at a time".to_owned() } else { format!(" per {}", self.window) };
        let room = match (self.has_room, self.enforced) {
            (true, _) => "has room",
            (false, true) => "has no room",
            (false, false) => "has no room, and is not enforced",
        };
        writeln!(
            f,
            "  {}: {room}: {} asked of {}{per}",
            self.limit,
            quantity(self.hold),
            quantity(self.max)
        )?;
        for (counter, value) in &self.counters {
            writeln!(f, "    counts for {counter} = {value}")?;
        }
        let (used, remaining) = (quantity(self.used), quantity(self.remaining));
        let resets = self.resets_in_seconds.map(|seconds| format!(", resets in {seconds} s"));
        writeln!(f, "    {used} used, {remaining} remaining{}", resets.unwrap_or_default())
    }
}
