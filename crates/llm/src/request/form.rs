//! Reads `multipart/form-data`, the format for uploading audio and images. It extracts short fields and the
//! sizes of files from a body, which may be incomplete. Unknown parts count as text or as a file.

use super::gather::{Gather, is_true};
use super::maximum::{is_completions, is_maximum};
use crate::response::count;
use crate::spelling::percent_decoded;
use memchr::memmem;

/// The longest boundary, in bytes. RFC 2046 allows 70.
const MAX_BOUNDARY: usize = 256;

/// The longest name and number in a form without parts, in bytes.
const MAX_PAIR: usize = 96;

/// The maximum length of a part's head in bytes. A longer head also counts as text.
const MAX_HEAD: usize = 1024;

/// Returns whether the content type declares a form.
pub(super) fn is_said_by(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    media_type.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/"))
}

/// Returns the delimiter of the parts, from the content type or else from the beginning of the body.
pub(super) fn boundary(content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let said =
        is_said_by(content_type).then(|| parameter(content_type.split(';').skip(1), "boundary")).flatten();
    let said = said.filter(|boundary| !boundary.is_empty()).map(|boundary| delimiter(boundary.as_bytes()));
    if let Some(said) = said.filter(|said| memmem::find(body, said).is_some()) {
        return Some(said);
    }
    let first_line = body.trim_ascii_start().strip_prefix(b"--")?;
    let line = first_line
        .get(..MAX_BOUNDARY.min(first_line.len()))?
        .split(|byte| *byte == b'\n')
        .next()?
        .trim_ascii_end();
    (!line.is_empty()).then(|| delimiter(line))
}

fn delimiter(boundary: &[u8]) -> Vec<u8> {
    [b"--", boundary].concat()
}

/// Reads the parts after this delimiter.
pub(super) fn read(delimiter: &[u8], body: &[u8]) -> Gather {
    let mut to = Gather::default();
    let finder = memmem::Finder::new(delimiter);
    let (outside, mut rest) = body.split_at(finder.find(body).unwrap_or(body.len()));
    // Form parsers ignore everything outside of the parts. A server that does not parse forms may read it.
    to.read(outside.trim_ascii());
    while let Some(after) = rest.get(delimiter.len()..) {
        let end = finder.find(after).unwrap_or(after.len());
        let (part, next) = after.split_at(end);
        read_part(part, &mut to);
        rest = next;
    }
    to
}

/// Reads the numbers in a form without parts: `model=m&max_tokens=100`. They can only increase a hold.
pub(super) fn read_pairs(body: &[u8], to: &mut Gather) {
    for pair in body.split(|byte| *byte == b'&').filter(|pair| pair.len() <= MAX_PAIR) {
        let Some((name, value)) = std::str::from_utf8(pair).ok().and_then(|pair| pair.split_once('=')) else {
            continue;
        };
        let (name, value) = (percent_decoded(name.trim()), percent_decoded(value.trim()));
        if is_maximum(name.as_bytes()) {
            to.maxima.add_possible(count(value.as_bytes()));
        } else if is_completions(name.as_bytes()) {
            to.add_completions(value.as_bytes());
        }
    }
}

fn parameter<'a>(mut parameters: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

/// Returns the names of a part.
fn names(disposition: &str) -> impl Iterator<Item = &str> {
    let pairs = disposition.split(';').filter_map(|parameter| parameter.split_once('='));
    pairs
        .map(|(name, _)| name.trim())
        .filter(|name| ["name", "name*"].iter().any(|known| name.eq_ignore_ascii_case(known)))
}

/// Reads one part: headers, a blank line, its content, and the line end that belongs to the next delimiter.
fn read_part(part: &[u8], to: &mut Gather) {
    // Servers in Go accept lines without a carriage return.
    let blank = [&b"\r\n\r\n"[..], b"\n\n"].into_iter();
    let blank = blank.filter_map(|blank| Some((memmem::find(part, blank)?, blank.len()))).min();
    let Some((at, length)) = blank else {
        to.read(part.strip_prefix(b"--").unwrap_or(part).trim_ascii());
        return;
    };
    let (head, content) = part.split_at(at);
    if head.len() > MAX_HEAD {
        to.read(head);
    }
    let content = content.get(length..).unwrap_or_default();
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    let head = String::from_utf8_lossy(head);
    let headers = |wanted: &'static str| {
        head.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            name.trim().eq_ignore_ascii_case(wanted).then_some(value.trim())
        })
    };
    let header = |wanted| headers(wanted).next();
    if header("content-transfer-encoding").is_some_and(is_transformed) {
        // Some servers decode the content, others do not.
        to.malformed = true;
    }
    let disposition = header("content-disposition").unwrap_or_default();
    let parameter = |name| parameter(disposition.split(';'), name);
    // Servers may read another of several names, or JSON in a part without a name.
    to.malformed |= headers("content-disposition").flat_map(names).count() != 1;
    let name = parameter("name").or_else(|| parameter("name*")?.rsplit('\'').next()).unwrap_or_default();
    let file = parameter("filename").or_else(|| parameter("filename*"));
    let is_file = file.is_some();
    match name.trim_end_matches("[]") {
        "model" => to.model.set(content),
        "user" => to.user.set(content),
        "litellm_session_id" => to.sessions.iter_mut().take(1).for_each(|session| session.set(content)),
        "stream" => to.stream.set(is_true(content)),
        "image" | "mask" => to.images = to.images.saturating_add(1),
        "file" if is_text(header("content-type"), file) => to.read(content),
        _ if is_file && is_text(header("content-type"), file) => to.read(content),
        "file" => to.add_file(u64::try_from(content.len()).unwrap_or(u64::MAX)),
        _ if is_file => to.add_file(u64::try_from(content.len()).unwrap_or(u64::MAX)),
        name if is_setting(name) => {}
        name if is_maximum(name.as_bytes()) => to.maxima.add_possible(count(content)),
        name if is_completions(name.as_bytes()) => to.add_completions(content),
        _ => to.read(content),
    }
}

/// Returns whether a file is declared as text, which costs more than a recording or an image.
fn is_text(content_type: Option<&str>, file: Option<&str>) -> bool {
    const ENDINGS: [&str; 8] = ["txt", "md", "csv", "json", "jsonl", "html", "xml", "yaml"];
    let says = |content_type: &str| {
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        media_type.starts_with("text/")
            || ["json", "xml", "yaml"].iter().any(|kind| media_type.ends_with(kind))
    };
    let ends = |file: &str| {
        let ending = file.rsplit_once('.').map_or("", |(_, ending)| ending);
        ENDINGS.iter().any(|text| ending.eq_ignore_ascii_case(text))
    };
    content_type.is_some_and(says) || file.is_some_and(ends)
}

/// Returns whether a field is a setting that the model does not read.
fn is_setting(name: &str) -> bool {
    const SETTINGS: [&str; 17] = [
        "background",
        "chunking_strategy",
        "include",
        "input_fidelity",
        "language",
        "moderation",
        "output_compression",
        "output_format",
        "partial_images",
        "purpose",
        "quality",
        "response_format",
        "seconds",
        "size",
        "style",
        "temperature",
        "timestamp_granularities",
    ];
    SETTINGS.contains(&name)
}

fn is_transformed(encoding: &str) -> bool {
    !["7bit", "8bit", "binary"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(body: &str) -> Gather {
        let boundary = boundary("Multipart/Form-Data; charset=utf-8; boundary=\"x y\"", body.as_bytes());
        read(&boundary.unwrap(), body.as_bytes())
    }

    #[test]
    fn an_upload_tells_its_model_and_its_size() {
        let audio = "a".repeat(5000);
        let to = gathered(&format!(
            "--x y\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\
             Content-Type: audio/mpeg\r\n\r\n{audio}\r\n\
             --x y\r\ncontent-disposition: form-data; name=model\r\n\r\nwhisper-1\r\n\
             --x y\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\nnämlich\r\n\
             --x y\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n\
             --x y\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n2\r\n--x y--\r\n"
        ));
        assert_eq!(to.model.text().as_deref(), Some("whisper-1"));
        let stream = to.stream.value();
        assert_eq!((to.tally.text, to.tokens, stream, to.completions), (8, 10, Some(true), Some(2)));
    }

    #[test]
    fn an_upload_that_is_cut_tells_what_came() {
        let to = gathered(
            "preamble --x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y\r\nCon",
        );
        assert_eq!(to.model.text().as_deref(), Some("m"));
        for content_type in ["application/json", "multipart/form-data", "multipart/form-data; boundary=x"] {
            assert_eq!(boundary(content_type, b"{}"), None);
            assert_eq!(boundary(content_type, b"\r\n--y z\nContent").as_deref(), Some(&b"--y z"[..]));
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_text_and_one_with_a_name_of_a_file_is_a_file() {
        let to = gathered(
            "--x y\nContent-Disposition: form-data; name=instruction\n\n1234\n--x y\ncontent-disposition: \
             form-data; name*=UTF-8''model\n\nm\n--x y\r\nContent-Disposition: form-data; name=\"a\"; \
             filename=\"b\"\r\n\r\n0123456789\r\n--x y\r\nContent-Disposition: form-data; name=size\r\n\r\n\
             1024x1024\r\n--x y--",
        );
        assert_eq!((to.tally.text, to.tokens, to.model.text().as_deref()), (4, 1, Some("m")));
    }

    #[test]
    fn a_part_with_several_names_or_none_is_in_doubt() {
        for (head, wanted) in [
            ("Content-Disposition: form-data; name=\"model\"", false),
            ("content-disposition: form-data; name*=UTF-8''model; filename=name", false),
            ("Content-Disposition: form-data; name=\"x\"; name=\"model\"", true),
            ("Content-Disposition: form-data; name=x; Name*=UTF-8''model", true),
            ("Content-Disposition: form-data; name=x\r\nContent-Disposition: form-data; name=model", true),
            ("Content-Disposition: form-data", true),
            ("Content-Type: application/json", true),
        ] {
            let body = format!("--x y\r\n{head}\r\n\r\n{{\"model\": \"m\"}}\r\n--x y--");
            assert_eq!(gathered(&body).malformed, wanted, "{head}");
        }
    }

    #[test]
    fn what_is_outside_of_the_parts_or_beside_their_content_is_text() {
        let part = |head: &str, content: &str| {
            format!("--x y\r\nContent-Disposition: form-data; {head}\r\n\r\n{content}\r\n")
        };
        let text = "a".repeat(2000);
        let file = part("name=file; filename=a.md", &text);
        let typed = part("name=a; filename=b\r\nContent-Type: Text/Plain; charset=utf-8", &text);
        let model = part("name=model", "m");
        for (body, least) in [
            (format!("{text}{model}--x y--"), 2000),
            (format!("{model}--x y--\r\n{text}"), 2000),
            (format!("{}--x y--", part(&format!("name={text}"), "a")), 2000),
            (format!("{file}{typed}--x y--"), 4000),
        ] {
            let read = gathered(&body).tally.text;
            assert!((least..least + 100).contains(&read), "{read} of {least}");
        }
        assert_eq!(gathered(&format!("\r\n{model}--x y--\r\n")).tally.text, 0);
    }
}
