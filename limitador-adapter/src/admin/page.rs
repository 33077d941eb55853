//! The page: static files that are part of the program. They contain no data, so nobody needs a token to load them.

use crate::digest::half_sha256;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

/// A file, and its type.
struct PageFile {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";
const TEXT: &str = "text/plain; charset=utf-8";

macro_rules! files {
    ($($name:literal: $media_type:ident,)*) => {
        /// All files. `/` is the first one, and the others are under `/page/`.
        static FILES: &[PageFile] = &[$(PageFile {
            name: $name,
            media_type: $media_type,
            bytes: include_bytes!(concat!("page/", $name)),
        },)*];
    };
}

files! {
    "index.html": HTML,
    "style.css": CSS,
    "icon.svg": SVG,
    "app.js": SCRIPT,
    "api.js": SCRIPT,
    "format.js": SCRIPT,
    "links.js": SCRIPT,
    "parts.js": SCRIPT,
    "charts.js": SCRIPT,
    "overview.js": SCRIPT,
    "buckets.js": SCRIPT,
    "dialogs.js": SCRIPT,
    "usage.js": SCRIPT,
    "refusals.js": SCRIPT,
    "warnings.js": SCRIPT,
    "policies.js": SCRIPT,
    "vendor/preact.js": SCRIPT,
    "vendor/hooks.js": SCRIPT,
    "vendor/htm.js": SCRIPT,
    "vendor/uplot.js": SCRIPT,
    "vendor/uplot.css": CSS,
    "vendor/eventsource-errors.js": SCRIPT,
    "vendor/eventsource-parser.js": SCRIPT,
    "vendor/LICENSES.txt": TEXT,
}

/// The entity tag of each file.
static TAGS: LazyLock<Vec<String>> =
    LazyLock::new(|| FILES.iter().map(|file| format!("\"{}\"", half_sha256(file.bytes))).collect());

/// Headers of every file. The policy allows no script, style or connection that is not the adapter's, and no frame
/// around the page, in which a click could be misled.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    // The browser asks whether a file has changed, so that a new adapter's page is used at once.
    (header::CACHE_CONTROL, "no-cache"),
];

/// `GET /`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    serve("index.html", &headers)
}

/// `GET /page/...`.
pub(super) async fn file(name: Path<String>, headers: HeaderMap) -> Response {
    serve(&name, &headers)
}

fn serve(name: &str, headers: &HeaderMap) -> Response {
    let Some((file, tag)) = FILES.iter().zip(TAGS.iter()).find(|(file, _)| file.name == name) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let is_known = is_known(headers, tag);
    let tag = [(header::ETAG, tag.as_str())];
    if is_known {
        return (StatusCode::NOT_MODIFIED, HEADERS, tag).into_response();
    }
    (HEADERS, tag, [(header::CONTENT_TYPE, file.media_type)], file.bytes).into_response()
}

/// Returns whether the browser has this version of the file.
fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|value| value.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag)
}
