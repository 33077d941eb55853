//! The functions that an expression may call and their arguments, so that wrong names or argument counts are
//! found when a policy is loaded.

use super::hints;
use super::types::{
    ANY, BOOL, BYTES, DURATION, LIST, MAP, NUMBER, OPTIONAL, SCALAR, TEXT, TIME, TYPE, Types,
};
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
    /// Either form.
    Both,
}

/// One function. The number of arguments excludes the `x` of `x.f()`.
pub(super) struct Signature {
    pub(super) name: &'static str,
    style: Style,
    least: usize,
    most: usize,
    /// The types of its arguments, starting with the `x` of `x.f()`.
    pub(super) takes: &'static [Types],
    /// The types of its result.
    pub(super) gives: Types,
}

/// The minimum and maximum number of arguments, their types, and the types of the result.
const fn function(
    name: &'static str,
    style: Style,
    (least, most): (usize, usize),
    takes: &'static [Types],
    gives: Types,
) -> Signature {
    Signature { name, style, least, most, takes, gives }
}

const SIZED: Types = Types::any_of(&[TEXT, LIST, MAP, BYTES]);
const PERIOD: Types = Types::any_of(&[TEXT, DURATION]);
const CLOCK: Types = Types::any_of(&[TIME, DURATION]);
const MOMENT: Types = Types::any_of(&[TEXT, NUMBER, TIME]);

/// All functions in the order of error messages.
pub(super) static FUNCTIONS: [Signature; 45] = [
    function("bool", Global, (1, 1), &[SCALAR], BOOL),
    function("bytes", Global, (1, 1), &[SCALAR], BYTES),
    function("charAt", Member, (1, 1), &[TEXT, NUMBER], TEXT),
    function("contains", Member, (1, 1), &[TEXT, TEXT], BOOL),
    function("double", Global, (1, 1), &[SCALAR], NUMBER),
    function("duration", Global, (1, 1), &[PERIOD], DURATION),
    function("dyn", Global, (1, 1), &[ANY], ANY),
    function("endsWith", Member, (1, 1), &[TEXT, TEXT], BOOL),
    function("getDate", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getDayOfMonth", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getDayOfWeek", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getDayOfYear", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getFullYear", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getHours", Member, (0, 1), &[CLOCK, TEXT], NUMBER),
    function("getMilliseconds", Member, (0, 1), &[CLOCK, TEXT], NUMBER),
    function("getMinutes", Member, (0, 1), &[CLOCK, TEXT], NUMBER),
    function("getMonth", Member, (0, 1), &[TIME, TEXT], NUMBER),
    function("getSeconds", Member, (0, 1), &[CLOCK, TEXT], NUMBER),
    function("hasValue", Member, (0, 0), &[OPTIONAL], BOOL),
    function("indexOf", Member, (1, 2), &[TEXT, TEXT, NUMBER], NUMBER),
    function("int", Global, (1, 1), &[SCALAR], NUMBER),
    function("join", Member, (0, 1), &[LIST, TEXT], TEXT),
    function("lastIndexOf", Member, (1, 2), &[TEXT, TEXT, NUMBER], NUMBER),
    function("lowerAscii", Member, (0, 0), &[TEXT], TEXT),
    function("matches", Both, (1, 1), &[TEXT, TEXT], BOOL),
    function("optional.none", Global, (0, 0), &[], OPTIONAL),
    function("optional.of", Global, (1, 1), &[ANY], OPTIONAL),
    function("optional.ofNonZeroValue", Global, (1, 1), &[ANY], OPTIONAL),
    function("or", Member, (1, 1), &[OPTIONAL, OPTIONAL], OPTIONAL),
    function("orValue", Member, (1, 1), &[OPTIONAL, ANY], ANY),
    function("replace", Member, (2, 3), &[TEXT, TEXT, TEXT, NUMBER], TEXT),
    function(REQUEST_BODY, Global, (1, 1), &[TEXT], ANY),
    function(RESPONSE_BODY, Global, (1, 1), &[TEXT], ANY),
    function("reverse", Member, (0, 0), &[TEXT], TEXT),
    function("size", Both, (0, 0), &[SIZED], NUMBER),
    function("split", Member, (1, 2), &[TEXT, TEXT, NUMBER], LIST),
    function("startsWith", Member, (1, 1), &[TEXT, TEXT], BOOL),
    function("string", Global, (1, 1), &[SCALAR], TEXT),
    function("substring", Member, (1, 2), &[TEXT, NUMBER, NUMBER], TEXT),
    function("timestamp", Global, (1, 1), &[MOMENT], TIME),
    function("trim", Member, (0, 0), &[TEXT], TEXT),
    function("type", Global, (1, 1), &[ANY], TYPE),
    function("uint", Global, (1, 1), &[SCALAR], NUMBER),
    function("upperAscii", Member, (0, 0), &[TEXT], TEXT),
    function("value", Member, (0, 0), &[OPTIONAL], ANY),
];

/// The macros that the parser expands, and how they are written.
static MACROS: [(&str, &str); 7] = [
    ("all", "LIST.all(NAME, CONDITION)"),
    ("exists", "LIST.exists(NAME, CONDITION)"),
    ("existsOne", "LIST.existsOne(NAME, CONDITION)"),
    ("exists_one", "LIST.exists_one(NAME, CONDITION)"),
    ("filter", "LIST.filter(NAME, CONDITION)"),
    ("has", "has(FACT.NAME)"),
    ("map", "LIST.map(NAME, VALUE)"),
];

/// The function that reads the request's body. It is treated as a fact with another name.
pub(super) const REQUEST_BODY: &str = facts::POINTED;
/// The function that reads the response's body.
pub(super) const RESPONSE_BODY: &str = facts::ANSWERED;

/// Whether a function's argument is a time zone.
pub(super) fn takes_zone(name: &str) -> bool {
    name.starts_with("get")
}

/// A function or a macro, as shown in the reference documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionUsage {
    pub name: &'static str,
    /// The call, with the types of its arguments in capitals and optional arguments in brackets.
    pub usage: String,
    /// The types of its result. Empty for a macro.
    pub gives: String,
}

/// Returns every function and macro, sorted by name.
pub fn functions() -> Vec<FunctionUsage> {
    let of = |function: &Signature| FunctionUsage {
        name: function.name,
        usage: usage(function),
        gives: function.gives.name(),
    };
    let macros = MACROS.iter().map(|(name, usage)| FunctionUsage {
        name,
        usage: (*usage).to_owned(),
        gives: String::new(),
    });
    let mut all: Vec<_> = FUNCTIONS.iter().map(of).chain(macros).collect();
    crate::small_sort::sort_by(&mut all, |one, other| one.name.cmp(other.name));
    all
}

fn usage(function: &Signature) -> String {
    let types: Vec<String> = function.takes.iter().map(|types| types.placeholder()).collect();
    let (target, arguments) = match function.style {
        Global => (String::new(), types.as_slice()),
        Member | Both => match types.split_first() {
            Some((target, arguments)) => (format!("{target}."), arguments),
            None => (String::new(), types.as_slice()),
        },
    };
    let (least, optional) = arguments.split_at_checked(function.least).unwrap_or((arguments, &[]));
    let more = if optional.is_empty() {
        String::new()
    } else if least.is_empty() {
        format!("[{}]", optional.join(", "))
    } else {
        format!("[, {}]", optional.join(", "))
    };
    format!("{target}{}({}{more})", function.name, least.join(", "))
}

/// Returns the function of a call, or the error in the call.
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
    // If a function has both forms, the target counts as its first argument in the global form.
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
    crate::small_sort::sort(&mut known);
    match hints::of_function(name).or_else(|| nearest(name, known.iter().copied())) {
        Some(candidate) => format!("unknown function `{name}`; did you mean `{candidate}`?"),
        None => format!("unknown function `{name}`; known: {}", known.join(", ")),
    }
}
