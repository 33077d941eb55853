//! Parses raw HTTP messages, written by hand or saved with `curl -i`.

const MAX_HEADERS: usize = 256;

/// A request or a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// A request's method, path and `:authority` under their HTTP/2 names. Empty for a response.
    pub pseudo: Vec<(&'static str, String)>,
    /// A response's status; 0 for a request.
    pub status: u16,
    /// The headers in order, with names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body without its transfer encoding.
    pub body: Vec<u8>,
}

impl Message {
    /// Parses a request: `POST /v1/chat/completions HTTP/1.1`, headers, an empty line, the body.
    pub fn request(bytes: &[u8]) -> Result<Self, String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Request::new(&mut headers);
        let text = with_end_of_headers(bytes);
        let start = complete(parsed.parse(&text))?;
        let mut message = Self::of(parsed.headers, text.get(start..).unwrap_or_default());
        let authority = message.header("host");
        message.pseudo = vec![
            (":method", parsed.method.unwrap_or_default().to_owned()),
            (":path", parsed.path.unwrap_or_default().to_owned()),
            (":scheme", "http".to_owned()),
            (":authority", authority),
        ];
        Ok(message)
    }

    /// Parses a response: `HTTP/1.1 200 OK` (or HTTP/2, as curl prints it), headers, an empty line, the body.
    pub fn response(bytes: &[u8]) -> Result<Self, String> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let text = with_end_of_headers(bytes);
        // httparse does not know these versions. The rest of the message is the same.
        let text = match text.strip_prefix(b"HTTP/2 ").or_else(|| text.strip_prefix(b"HTTP/3 ")) {
            Some(rest) => [b"HTTP/1.1 ", rest].concat(),
            None => text,
        };
        let start = complete(parsed.parse(&text))?;
        let message = Self::of(parsed.headers, text.get(start..).unwrap_or_default());
        Ok(Self { status: parsed.code.unwrap_or_default(), ..message })
    }

    /// Returns a header's values, joined with `,`. The result is empty if the header is missing.
    pub fn header(&self, name: &str) -> String {
        let values = self.headers.iter().filter(|(known, _)| known == name);
        let values = values.map(|(_, value)| String::from_utf8_lossy(value).into_owned());
        values.collect::<Vec<_>>().join(",")
    }

    fn of(headers: &[httparse::Header<'_>], body: &[u8]) -> Self {
        let lower = |header: &httparse::Header<'_>| (header.name.to_ascii_lowercase(), header.value.to_vec());
        let headers = headers.iter().map(lower).collect();
        let mut message = Self { headers, ..Self::default() };
        let chunked = message.header("transfer-encoding").contains("chunked");
        // curl keeps this header but prints the body without chunked framing.
        let whole = chunked.then(|| unchunked(body)).flatten();
        message.body = whole.unwrap_or_else(|| body.to_vec());
        message
    }
}

/// Adds the empty line that ends the headers. A file with only headers often lacks it.
fn with_end_of_headers(bytes: &[u8]) -> Vec<u8> {
    let ends = bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n");
    if ends { bytes.to_vec() } else { [bytes, b"\r\n\r\n"].concat() }
}

fn complete(parsed: httparse::Result<usize>) -> Result<usize, String> {
    match parsed {
        Ok(httparse::Status::Complete(start)) => Ok(start),
        Ok(httparse::Status::Partial) => {
            Err("is not a complete HTTP message: its headers do not end".to_owned())
        }
        Err(error) => Err(format!("is not an HTTP message (start line, headers, empty line, body): {error}")),
    }
}

/// Decodes chunked framing. Returns `None` if the body is not chunked.
fn unchunked(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((start, size))) = httparse::parse_chunk_size(body) else {
            return None;
        };
        if size == 0 {
            return Some(whole);
        }
        let end = start.checked_add(usize::try_from(size).ok()?)?;
        whole.extend_from_slice(body.get(start..end)?);
        body = body.get(end..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_by_hand() {
        let text = b"POST /v1/chat/completions?a=1 HTTP/1.1\nHost: llm.example\nX-Tenant: a\nx-tenant: b\n\n{\"a\":\n\n1}";
        let message = Message::request(text).unwrap();
        let pseudo: Vec<_> = message.pseudo.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(pseudo, ["POST", "/v1/chat/completions?a=1", "http", "llm.example"]);
        assert_eq!((message.header("x-tenant"), message.header("none")), ("a,b".into(), "".into()));
        assert_eq!(message.body, b"{\"a\":\n\n1}");
        assert_eq!(Message::request(b"GET / HTTP/1.1\r\nHost: a\r\n").unwrap().header("host"), "a");
    }

    #[test]
    fn a_response_with_and_without_its_chunks() {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = |text: &str| Message::response(format!("{head}{text}").as_bytes()).unwrap().body;
        assert_eq!(body("5\r\nhello\r\n3;x=1\r\n wo\r\n0\r\n\r\n"), b"hello wo");
        assert_eq!(body("{\"usage\": {}}"), b"{\"usage\": {}}");
        assert_eq!(body("ff\r\nshort"), b"ff\r\nshort");
        assert_eq!(Message::response(b"HTTP/2 404 \r\n\r\n").unwrap().status, 404);
    }

    #[test]
    fn what_is_no_message_is_told() {
        let told = [
            Message::request(b"").unwrap_err(),
            Message::request(b"{}").unwrap_err(),
            Message::request(b"GET /\n\n").unwrap_err(),
            Message::response(b"GET / HTTP/1.1\n\n").unwrap_err(),
        ];
        insta::assert_snapshot!(told.join("\n"));
    }
}
