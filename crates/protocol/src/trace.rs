//! The trace that a request belongs to (W3C Trace Context).

use crate::wire::weir::v1;

/// The length of a `traceparent` of version 00.
const PARENT_LENGTH: usize = 55;

/// The maximum length of a `tracestate` in bytes. A longer one is dropped. The standard asks for at least this.
const MAX_STATE: usize = 512;

/// A valid trace context. Its size is bounded, because clients choose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: String,
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl TraceContext {
    /// The header with the trace's id, the caller's span and the flags.
    pub const PARENT: &str = "traceparent";
    /// The header with what tracing systems add.
    pub const STATE: &str = "tracestate";

    /// Reads a `traceparent`. `None` if it is malformed. Of a later version, only what version 00 has is kept.
    pub fn parse(parent: &[u8]) -> Option<Self> {
        let (known, rest) = parent.split_at_checked(PARENT_LENGTH)?;
        let mut parts = std::str::from_utf8(known).ok()?.split('-');
        let (version, trace_id) = (hex::<2>(parts.next()?)?, hex::<32>(parts.next()?)?);
        let (span_id, flags) = (hex::<16>(parts.next()?)?, hex::<2>(parts.next()?)?);
        let is_extended = version > 0 && rest.starts_with(b"-");
        let is_valid = version != 0xff && trace_id != 0 && span_id != 0 && (rest.is_empty() || is_extended);
        if !is_valid || parts.next().is_some() {
            return None;
        }
        let (span_id, flags) = (u64::try_from(span_id).ok()?, u8::try_from(flags).ok()?);
        let parent = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
        Some(Self { parent, state: String::new(), trace_id, span_id, flags })
    }

    /// Adds a `tracestate`. One that is too long, or that is not printable ASCII, is dropped.
    pub fn with_state(self, state: &[u8]) -> Self {
        let is_printable = state.iter().all(|byte| matches!(byte, b' '..=b'~'));
        let state = std::str::from_utf8(state).ok().filter(|_| is_printable && state.len() <= MAX_STATE);
        Self { state: state.unwrap_or_default().to_owned(), ..self }
    }

    /// Reads a message. `None` if it is malformed.
    pub fn from_message(message: &v1::TraceContext) -> Option<Self> {
        Some(Self::parse(message.parent.as_bytes())?.with_state(message.state.as_bytes()))
    }

    pub fn message(&self) -> v1::TraceContext {
        v1::TraceContext { parent: self.parent.clone(), state: self.state.clone() }
    }

    /// The value of `traceparent`.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The value of `tracestate`. It may be empty.
    pub fn state(&self) -> &str {
        &self.state
    }

    pub fn trace_id(&self) -> u128 {
        self.trace_id
    }

    /// The id of the caller's span.
    pub fn span_id(&self) -> u64 {
        self.span_id
    }

    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 != 0
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> usize {
        size_of::<Self>().saturating_add(self.parent.len()).saturating_add(self.state.len())
    }
}

/// Parses exactly `LENGTH` lower-case hexadecimal digits.
fn hex<const LENGTH: usize>(digits: &str) -> Option<u128> {
    let is_hex = digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    (digits.len() == LENGTH && is_hex).then(|| u128::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_and_written_as_it_came() {
        let trace = TraceContext::parse(PARENT.as_bytes()).unwrap().with_state(b"a=1,b=2");
        assert_eq!((trace.parent(), trace.state()), (PARENT, "a=1,b=2"));
        assert_eq!(trace.trace_id(), 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((trace.span_id(), trace.flags()), (0xb7ad_6b71_6920_3331, 1));
        assert_eq!(TraceContext::from_message(&trace.message()), Some(trace));
    }

    #[test]
    fn only_the_sampled_flag_decides_whether_it_is_sampled() {
        let sampled = |flags: &str| {
            let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            TraceContext::parse(parent.as_bytes()).unwrap().is_sampled()
        };
        assert_eq!(["00", "01", "02", "03", "ff"].map(sampled), [false, true, false, true, true]);
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00", "cc", 1);
        for text in [later.clone(), format!("{later}-what-the-future-will-be-like")] {
            assert_eq!(TraceContext::parse(text.as_bytes()).unwrap().parent(), PARENT, "{text}");
        }
    }

    #[test]
    fn a_malformed_parent_is_dropped() {
        let malformed = [
            String::new(),
            "00".to_owned(),
            PARENT.to_uppercase(),
            format!("{PARENT}-00"),
            format!("{PARENT},{PARENT}"),
            format!(" {PARENT}"),
            PARENT.replacen("00", "ff", 1),
            PARENT.replacen("00", "cc", 1) + ".x",
            PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            PARENT.replace("0af7", "+af7"),
            PARENT.replace("0af7", "0ag7"),
            PARENT.replacen('-', "0", 1),
            PARENT.replace("31-01", "-3101"),
            "é".repeat(28),
        ];
        for text in malformed {
            assert_eq!(TraceContext::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(TraceContext::parse(&[0xff; 55]), None);
    }

    #[test]
    fn a_state_is_bounded_and_printable() {
        let with = |state: &[u8]| TraceContext::parse(PARENT.as_bytes()).unwrap().with_state(state);
        assert_eq!(with(&[b'x'; MAX_STATE]).state().len(), MAX_STATE);
        assert_eq!(with(&[b'x'; MAX_STATE + 1]).state(), "");
        assert_eq!(with(b"a=1\r\nb: 2").state(), "");
        assert_eq!(with(&[0xff]).state(), "");
        assert!(with(&[b'x'; MAX_STATE]).size() < 1024);
    }
}
