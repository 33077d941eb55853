//! Reads a body. Its bytes take precedence over its headers. If two servers could read two different
//! requests, both are read. The hold covers the larger one, and values that differ count as unknown.

use super::gather::Gather;
use super::{Condition, Decoded, Extent, Label, RequestBody, Route};
use super::{conclude, decode, form, length, lenient, unicode};
use crate::json::Scanner;
use crate::response::{CHARACTERS_PER_TOKEN, Cause};
use std::borrow::Cow;

/// A body as it came over the wire, with its headers.
#[derive(Clone, Copy, Debug)]
pub struct Wire<'h, 'b> {
    /// `:method`. If it is unknown, this is empty, and the presence of a body decides.
    pub method: &'h str,
    /// `:path`.
    pub path: &'h str,
    /// Empty if there is none.
    pub content_type: &'h str,
    /// The header's values, joined with commas. Empty if there is none.
    pub content_encoding: &'h str,
    /// The body or its beginning.
    pub body: &'b [u8],
    /// Whether it is the whole body.
    pub extent: Extent,
    /// The maximum number of decoded bytes.
    pub most: usize,
}

/// The result of reading.
#[derive(Clone, Debug)]
pub struct ParsedBody<'a> {
    /// The facts.
    pub body: RequestBody,
    /// The text that was read, without `content-encoding`, and in UTF-8 if it is text.
    pub text: Cow<'a, [u8]>,
    /// Why the body could not be decoded completely.
    pub cause: Option<Cause>,
}

impl<'b> Wire<'_, 'b> {
    /// Reads the body.
    pub fn read(self) -> ParsedBody<'b> {
        let Decoded { body: text, extent, cause, label, trusting } =
            decode(self.content_encoding, self.body, self.extent, self.most);
        let wire = length(self.body);
        let route = Route::of_request(self.method, self.path, wire > 0);
        let mut body = read_text(&route, self.content_type, &text, extent, wire);
        match label {
            Label::False if body.condition == Condition::Read => body.condition = Condition::Mislabeled,
            Label::Undecoded => body.condition = Condition::Undecoded,
            Label::True | Label::False => {}
        }
        if let Some(other) = trusting {
            body = body.or(read_text(&route, self.content_type, &other, extent, wire));
        }
        // A body in UTF-16 or UTF-32 is never edited, so only the converted text is kept.
        let text = if body.wide { Cow::Owned(unicode::to_utf8(&text).into_owned()) } else { text };
        ParsedBody { body, text, cause }
    }
}

/// Reads a body that is not compressed.
pub fn read(path: &str, content_type: &str, body: &[u8], extent: Extent) -> RequestBody {
    read_text(&Route::of_request("", path, !body.is_empty()), content_type, body, extent, 0)
}

/// Reads decoded text. `wire` is its length on the wire.
fn read_text(route: &Route, content_type: &str, body: &[u8], extent: Extent, wire: u64) -> RequestBody {
    let length = length(body).max(wire);
    let cut = match extent {
        Extent::Whole => None,
        Extent::Cut(length_of_all) => Some(length_of_all.unwrap_or_default().max(length)),
    };
    let concluded = |gathered: &Gather, condition: Condition| match cut {
        Some(length) => conclude(route.clone(), gathered, Condition::Cut, length),
        None if gathered.malformed => conclude(route.clone(), gathered, Condition::Malformed, length),
        None => conclude(route.clone(), gathered, condition, length),
    };
    let utf8 = unicode::to_utf8(body);
    let (mut gathered, condition) = scan(&utf8, route);
    let is_form = form::is_said_by(content_type);
    let form = form::boundary(content_type, body);
    if condition == Condition::Foreign && form.is_none() {
        form::read_pairs(&utf8, &mut gathered);
    }
    let mut read = match (condition, &form) {
        (Condition::Foreign, Some(boundary)) => {
            let condition = if is_form { Condition::Read } else { Condition::Mislabeled };
            concluded(&form::read(boundary, body), condition)
        }
        // JSON that contains a form, or is followed by one.
        (_, Some(boundary)) => {
            let of_form = concluded(&form::read(boundary, body), Condition::Read);
            concluded(&gathered, condition).or(of_form)
        }
        (Condition::Read, None) if is_form && length > 0 => concluded(&gathered, Condition::Mislabeled),
        (_, None) => concluded(&gathered, condition),
    };
    read.wide = matches!(utf8, Cow::Owned(_)) && condition != Condition::Foreign;
    if is_in_doubt(content_type) {
        read.forget(length);
    }
    read
}

/// Scans a JSON body. Lenient JSON is first converted to strict JSON.
fn scan(body: &[u8], route: &Route) -> (Gather, Condition) {
    let mut gathered = Gather::of_route(route);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return (gathered, Condition::Read),
        Some(b'{' | b'[') => {
            let mut scanner = Scanner::default();
            scanner.feed(body, &mut gathered);
            gathered.finish();
            if !gathered.malformed && !scanner.is_open() {
                return (gathered, Condition::Read);
            }
        }
        // The start of a comment.
        Some(b'/' | b'#') => {}
        Some(_) => return (gathered, Condition::Foreign),
    }
    if let Some(strict) = lenient::to_strict(body) {
        gathered = Gather::of_route(route);
        Scanner::default().feed(strict.as_bytes(), &mut gathered);
        gathered.finish();
    } else if !matches!(body.trim_ascii_start(), [b'{' | b'[', ..]) {
        return (gathered, Condition::Foreign);
    }
    (gathered, Condition::Malformed)
}

/// Returns whether the content type names a charset in which the same bytes may be a different text: UTF-7,
/// or a charset that uses quotes and braces as second bytes of characters.
fn is_in_doubt(content_type: &str) -> bool {
    const KNOWN: [&str; 8] =
        ["utf8", "utf16", "utf32", "usascii", "ascii", "iso8859", "windows125", "latin1"];
    let names = content_type.split(';').skip(1).filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| {
            let name = value.chars().filter(char::is_ascii_alphanumeric);
            name.map(|c| c.to_ascii_lowercase()).collect::<String>()
        })
    });
    names.into_iter().any(|name| !name.is_empty() && !KNOWN.iter().any(|known| name.starts_with(known)))
}

impl RequestBody {
    /// Combines two readings if it is unknown which one the server uses. It keeps the larger estimate and
    /// only the facts on which both agree.
    fn or(mut self, other: Self) -> Self {
        let same = |one: &mut Option<String>, other: Option<String>| {
            one.take_if(|one| Some(&*one) != other.as_ref());
        };
        same(&mut self.model, other.model);
        same(&mut self.user, other.user);
        same(&mut self.session, other.session);
        self.stream |= other.stream;
        self.wide |= other.wide;
        self.completions = self.completions.max(other.completions);
        self.input = self.input.max(other.input);
        self.background |= other.background;
        self.is_kept |= other.is_kept;
        self.model_is_unreadable |= other.model_is_unreadable;
        self.conflicts = self.conflicts.or(other.conflicts);
        self.possible_max_output = self.possible_max_output.max(other.possible_max_output);
        self.elements_max_output = self.elements_max_output.max(other.elements_max_output);
        self.unsure_max_output |= other.unsure_max_output;
        // Without a maximum, the output is estimated from the input, or from the largest floor.
        let without = self.input.max(1024);
        self.max_output = match (self.max_output, other.max_output) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(without).max(other.unwrap_or(without))),
        };
        self.max_output_fields = self.max_output_fields.or(other.max_output_fields);
        if !self.operation.generates() {
            self.operation = other.operation;
        }
        self.condition = Condition::Ambiguous;
        self
    }

    /// Discards the model, user and session.
    fn forget(&mut self, length: u64) {
        if self.operation.uses_tokens() {
            self.input = self.input.max(length / CHARACTERS_PER_TOKEN);
        }
        self.model = self.route.model.clone();
        (self.user, self.session) = (None, None);
        self.condition = Condition::Ambiguous;
    }

    /// Returns the facts of a body that the filter does not wait for. Its announced length counts.
    pub fn unread(path: &str, announced: Option<u64>) -> Self {
        let route = Route::of_request("", path, announced.is_none_or(|length| length > 0));
        read_text(&route, "", &[], Extent::Cut(announced), 0).with(Condition::Unread)
    }

    fn with(mut self, condition: Condition) -> Self {
        self.condition = condition;
        self
    }
}
