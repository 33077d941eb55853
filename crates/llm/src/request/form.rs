//! `multipart/form-data`, in which audio and images are uploaded: its short fields and the size of its files. In:
//! the content type and the body, whole or cut. It takes any bytes; what it does not know it walks past.

use super::gather::{Gather, is_true};
use memchr::memmem;

/// Reads the parts; `false` if the content type is another or names no boundary.
pub(super) fn read(content_type: &str, body: &[u8], to: &mut Gather) -> bool {
    let Some(boundary) = boundary(content_type) else { return false };
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let mut rest = finder.find(body).and_then(|at| body.get(at..)).unwrap_or_default();
    while let Some(after) = rest.get(delimiter.len()..) {
        let end = finder.find(after).unwrap_or(after.len());
        let (part, next) = after.split_at(end);
        read_part(part, to);
        rest = next;
    }
    true
}

fn boundary(content_type: &str) -> Option<&str> {
    let mut parameters = content_type.split(';');
    let media_type = parameters.next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(parameters, "boundary").filter(|boundary| !boundary.is_empty())
}

fn parameter<'a>(mut parameters: impl Iterator<Item = &'a str>, wanted: &str) -> Option<&'a str> {
    parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

/// One part: headers, a blank line, its content, and the line end that belongs to the next delimiter.
fn read_part(part: &[u8], to: &mut Gather) {
    let Some(at) = memmem::find(part, b"\r\n\r\n") else { return };
    let (head, content) = part.split_at(at);
    let content = content.strip_prefix(b"\r\n\r\n").unwrap_or(content);
    let content = content.strip_suffix(b"\r\n").unwrap_or(content);
    let head = String::from_utf8_lossy(head);
    let disposition = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let name = parameter(disposition.unwrap_or_default().split(';'), "name").unwrap_or_default();
    match name.trim_end_matches("[]") {
        "model" => to.model.set(content),
        "user" => to.user.set(content),
        "litellm_session_id" => to.sessions.iter_mut().take(1).for_each(|session| session.set(content)),
        "stream" => to.stream = Some(is_true(content)),
        "n" => to.add_completions(content),
        "prompt" => to.read(content),
        "image" | "mask" => to.images = to.images.saturating_add(1),
        "file" => to.add_file(u64::try_from(content.len()).unwrap_or(u64::MAX)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(body: &str) -> Gather {
        let mut to = Gather::default();
        assert!(read("Multipart/Form-Data; charset=utf-8; boundary=\"x y\"", body.as_bytes(), &mut to));
        to
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
        assert_eq!((to.characters, to.tokens, to.stream, to.completions), (7, 10, Some(true), Some(2)));
    }

    #[test]
    fn an_upload_that_is_cut_tells_what_came() {
        let to = gathered(
            "preamble --x y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n--x y\r\nCon",
        );
        assert_eq!(to.model.text().as_deref(), Some("m"));
        assert!(!read("application/json", b"{}", &mut Gather::default()));
        assert!(!read("multipart/form-data", b"{}", &mut Gather::default()));
    }
}
