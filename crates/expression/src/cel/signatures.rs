//! What an expression may call, and how: so that a wrong name or a wrong number of arguments is known at load.

use super::types::Type::{self, Any, Bool, List, Number, Text};
use crate::facts;
use crate::suggest::nearest;
use Style::{Both, Global, Member};

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// `f(x)`.
    Global,
    /// `x.f()`.
    Member,
    /// Either.
    Both,
}

/// One function. The arguments are counted without the `x` of `x.f()`.
pub(super) struct Signature {
    pub(super) name: &'static str,
    style: Style,
    least: usize,
    most: usize,
    /// Of which type its value is, if always of the same.
    pub(super) gives: Type,
}

const fn function(name: &'static str, style: Style, least: usize, most: usize, gives: Type) -> Signature {
    Signature { name, style, least, most, gives }
}

/// In the order in which an error lists them.
pub(super) static FUNCTIONS: [Signature; 45] = [
    function("bool", Global, 1, 1, Bool),
    function("bytes", Global, 1, 1, Any),
    function("charAt", Member, 1, 1, Text),
    function("contains", Member, 1, 1, Bool),
    function("double", Global, 1, 1, Number),
    function("duration", Global, 1, 1, Any),
    function("dyn", Global, 1, 1, Any),
    function("endsWith", Member, 1, 1, Bool),
    function("getDate", Member, 0, 1, Number),
    function("getDayOfMonth", Member, 0, 1, Number),
    function("getDayOfWeek", Member, 0, 1, Number),
    function("getDayOfYear", Member, 0, 1, Number),
    function("getFullYear", Member, 0, 1, Number),
    function("getHours", Member, 0, 1, Number),
    function("getMilliseconds", Member, 0, 1, Number),
    function("getMinutes", Member, 0, 1, Number),
    function("getMonth", Member, 0, 1, Number),
    function("getSeconds", Member, 0, 1, Number),
    function("hasValue", Member, 0, 0, Bool),
    function("indexOf", Member, 1, 2, Number),
    function("int", Global, 1, 1, Number),
    function("join", Member, 0, 1, Text),
    function("lastIndexOf", Member, 1, 2, Number),
    function("lowerAscii", Member, 0, 0, Text),
    function("matches", Both, 1, 1, Bool),
    function("optional.none", Global, 0, 0, Any),
    function("optional.of", Global, 1, 1, Any),
    function("optional.ofNonZeroValue", Global, 1, 1, Any),
    function("or", Member, 1, 1, Any),
    function("orValue", Member, 1, 1, Any),
    function("replace", Member, 2, 3, Text),
    function(REQUEST_BODY, Global, 1, 1, Any),
    function(RESPONSE_BODY, Global, 1, 1, Any),
    function("reverse", Member, 0, 0, Text),
    function("size", Both, 0, 0, Number),
    function("split", Member, 1, 2, List),
    function("startsWith", Member, 1, 1, Bool),
    function("string", Global, 1, 1, Text),
    function("substring", Member, 1, 2, Text),
    function("timestamp", Global, 1, 1, Any),
    function("trim", Member, 0, 0, Text),
    function("type", Global, 1, 1, Any),
    function("uint", Global, 1, 1, Number),
    function("upperAscii", Member, 0, 0, Text),
    function("value", Member, 0, 0, Any),
];

/// What the parser expands when it is written right, and how that is.
static MACROS: [(&str, &str); 7] = [
    ("all", "LIST.all(NAME, CONDITION)"),
    ("exists", "LIST.exists(NAME, CONDITION)"),
    ("existsOne", "LIST.existsOne(NAME, CONDITION)"),
    ("exists_one", "LIST.exists_one(NAME, CONDITION)"),
    ("filter", "LIST.filter(NAME, CONDITION)"),
    ("has", "has(FACT.NAME)"),
    ("map", "LIST.map(NAME, VALUE)"),
];

/// The function that looks into the request's body. It is a fact with another name, and looked up like one.
pub(super) const REQUEST_BODY: &str = facts::POINTED;
/// The function that looks into the response's.
pub(super) const RESPONSE_BODY: &str = facts::ANSWERED;

/// The function of a call, or what is wrong with it.
pub(super) fn find(name: &str, member: bool, args: usize) -> Result<&'static Signature, String> {
    if let Some((_, right)) = MACROS.iter().find(|(known, _)| *known == name) {
        return Err(format!("`{name}` is written `{right}`"));
    }
    let Some(found) = FUNCTIONS.iter().find(|known| known.name == name) else {
        return Err(unknown(name));
    };
    match (found.style, member) {
        (Global, true) => return Err(format!("`{name}` is called as `{name}(..)`, not as `x.{name}(..)`")),
        (Member, false) => return Err(format!("`{name}` is called as `x.{name}(..)`, not as `{name}(..)`")),
        _ => {}
    }
    // Called either way, the first argument of the one is the target of the other.
    let own = usize::from(found.style == Both && !member);
    let (least, most) = (found.least.saturating_add(own), found.most.saturating_add(own));
    if (least..=most).contains(&args) {
        return Ok(found);
    }
    let expected = match (least, most) {
        (0, 0) => "no arguments".to_owned(),
        (1, 1) => "one argument".to_owned(),
        (least, most) if least == most => format!("{least} arguments"),
        (least, most) => format!("{least} or {most} arguments"),
    };
    Err(format!("`{name}` takes {expected}, not {args}"))
}

fn unknown(name: &str) -> String {
    let mut known: Vec<&str> =
        FUNCTIONS.iter().map(|function| function.name).chain(MACROS.iter().map(|(name, _)| *name)).collect();
    crate::order::sort(&mut known);
    match nearest(name, known.iter().copied()) {
        Some(candidate) => format!("unknown function `{name}`; did you mean `{candidate}`?"),
        None => format!("unknown function `{name}`; known: {}", known.join(", ")),
    }
}
