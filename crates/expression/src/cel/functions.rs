//! The functions that an expression may call: CEL's own, the string extensions, and operators that accept
//! more than CEL's. Names that start with `@` are used only by [`super::rewrite`].

use super::budget;
use super::pattern::Pattern;
use super::time;
use cel_interpreter::common::functions::Function;
use cel_interpreter::common::types::{CelBool, CelDouble, CelInt, CelString, CelUInt, DYN_TYPE};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::{DeclarationError, Env, ExecutionError, extensions};
use std::sync::{Arc, LazyLock};

pub(super) const CHARGE: &str = "@charge";
pub(super) const INDEX_OF: &str = "@index_of";
pub(super) const LAST_INDEX_OF: &str = "@last_index_of";
pub(super) const ADD: &str = "@add";
pub(super) const SUBTRACT: &str = "@subtract";
pub(super) const MULTIPLY: &str = "@multiply";
pub(super) const DIVIDE: &str = "@divide";
pub(super) const MODULO: &str = "@modulo";
pub(super) const REPLACE: &str = "@replace";
pub(super) const JOIN: &str = "@join";
pub(super) const MATCHES: &str = "@matches";
pub(super) const COMPARABLE: &str = "@comparable";

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type FunctionResult<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// The environment is shared by all expressions, because building it costs as much as hundreds of
/// evaluations.
pub(super) fn environment() -> Result<Arc<Env>, String> {
    static ENVIRONMENT: LazyLock<Result<Arc<Env>, String>> =
        LazyLock::new(|| declare().map(Arc::new).map_err(|error| error.to_string()));
    ENVIRONMENT.clone()
}

fn declare() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    time::declare(&mut env)?;
    let global: [(&str, &str, usize, Function); 16] = [
        (CHARGE, "@charge", 2, charge),
        (INDEX_OF, "@index_of", 2, index_of),
        (INDEX_OF, "@index_of_from", 3, index_of),
        (LAST_INDEX_OF, "@last_index_of", 2, last_index_of),
        (LAST_INDEX_OF, "@last_index_of_from", 3, last_index_of),
        (ADD, "@add", 3, add),
        (SUBTRACT, "@subtract", 2, |args| arithmetic("-", &args, subtract)),
        (MULTIPLY, "@multiply", 2, |args| arithmetic("*", &args, multiply)),
        (DIVIDE, "@divide", 2, |args| arithmetic("/", &args, divide)),
        (MODULO, "@modulo", 2, |args| arithmetic("%", &args, modulo)),
        (REPLACE, "@replace_all", 4, replace),
        (REPLACE, "@replace_some", 5, replace),
        (JOIN, "@join_plain", 2, join),
        (JOIN, "@join_with", 3, join),
        (MATCHES, "@matches", 2, matches),
        (COMPARABLE, "@comparable", 2, comparable),
    ];
    for (name, id, arguments, function) in global {
        env.add_overload(name, id, (0..arguments).map(|_| DYN_TYPE).collect(), function)?;
    }
    Ok(env)
}

/// `@charge(value, @budget)`: charges the cost of the value and returns it.
fn charge<'b, 'v>(mut args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    if let [value, budget] = args.as_slice() {
        budget::of(Some(budget))?.spend(budget::weight(value.as_ref()))?;
    }
    args.pop();
    args.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

/// `@add(left, right, @budget)`: adds numbers, texts or lists. The cost is charged before the sum is
/// computed.
fn add<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    if let [left, right, budget] = args.as_slice()
        && Number::of(left.as_ref()).is_none()
    {
        let units = budget::weight(left.as_ref()).saturating_add(budget::weight(right.as_ref()));
        budget::of(Some(budget))?.spend(units)?;
    }
    arithmetic("+", &args, plus)
}

/// Returns `None` if the left value has no such operator.
type Computed<'v> = Option<Result<Box<dyn Val + 'v>, ExecutionError>>;
type BinaryOperation = for<'a, 'v> fn(&'a (dyn Val + 'v), &'a (dyn Val + 'v)) -> Computed<'v>;

fn plus<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Computed<'v> {
    Some(left.as_adder()?.add(right).map(CowVal::into_owned))
}

fn subtract<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Computed<'v> {
    Some(left.as_subtractor()?.sub(right).map(CowVal::into_owned))
}

fn multiply<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Computed<'v> {
    Some(left.as_multiplier()?.mul(right).map(CowVal::into_owned))
}

fn divide<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Computed<'v> {
    Some(left.as_divider()?.div(right).map(CowVal::into_owned))
}

fn modulo<'v>(left: &(dyn Val + 'v), right: &(dyn Val + 'v)) -> Computed<'v> {
    Some(left.as_modder()?.modulo(right).map(CowVal::into_owned))
}

/// Applies an operator to two values. CEL does not mix kinds of numbers. Here, an int and a uint are computed
/// as ints, and either of them and a double as doubles.
fn arithmetic<'b, 'v>(
    operator: &str,
    args: &[CowVal<'b, 'v>],
    operation: BinaryOperation,
) -> FunctionResult<'b, 'v> {
    let [left, right, ..] = args else { return Err(ExecutionError::missing_argument_or_target()) };
    let outcome = match Number::pair(left.as_ref(), right.as_ref()) {
        Some((Number::Int(left), Number::Int(right))) => operation(&CelInt::from(left), &CelInt::from(right)),
        Some((Number::Uint(left), Number::Uint(right))) => {
            operation(&CelUInt::from(left), &CelUInt::from(right))
        }
        Some((left, right)) => operation(&CelDouble::from(left.double()), &CelDouble::from(right.double())),
        None => operation(left.as_ref(), right.as_ref()),
    };
    let refused = || {
        let types = [left, right].map(|value| value.get_type().name().to_owned());
        ExecutionError::no_such_overload(operator, types.to_vec())
    };
    match outcome {
        Some(Ok(value)) => Ok(CowVal::Owned(value)),
        Some(Err(ExecutionError::UnsupportedBinaryOperator(..))) | None => Err(refused()),
        Some(Err(error)) => Err(error),
    }
}

/// A number of any kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Uint(u64),
    Double(f64),
}

impl Number {
    pub(super) fn of(value: &dyn Val) -> Option<Self> {
        if let Some(value) = value.downcast_ref::<CelInt>() {
            return Some(Self::Int(*value.inner()));
        }
        if let Some(value) = value.downcast_ref::<CelDouble>() {
            return Some(Self::Double(*value.inner()));
        }
        value.downcast_ref::<CelUInt>().map(|value| Self::Uint(*value.inner()))
    }

    /// Converts two numbers to the same kind. `None` if one is not a number.
    fn pair(left: &dyn Val, right: &dyn Val) -> Option<(Self, Self)> {
        Some(match (Self::of(left)?, Self::of(right)?) {
            (Self::Int(left), Self::Uint(right)) => match i64::try_from(right) {
                Ok(right) => (Self::Int(left), Self::Int(right)),
                Err(_) => (Self::Double(left as f64), Self::Double(right as f64)),
            },
            (Self::Uint(left), Self::Int(right)) => match i64::try_from(left) {
                Ok(left) => (Self::Int(left), Self::Int(right)),
                Err(_) => (Self::Double(left as f64), Self::Double(right as f64)),
            },
            pair => pair,
        })
    }

    pub(super) fn double(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Uint(value) => value as f64,
            Self::Double(value) => value,
        }
    }
}

/// `@replace(text, from, to[, most], @budget)`: the only string function with a result that can be as long as
/// the product of its arguments.
fn replace<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    let (texts, rest) = args.split_at_checked(3).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let mut words = texts.iter().map_while(|value| value.downcast_ref::<CelString<'_>>());
    let (Some(text), Some(from), Some(to)) = (words.next(), words.next(), words.next()) else {
        return Err(refused("replace", args.split_last().map_or(&[], |(_, args)| args)));
    };
    let most = match rest {
        [most, _] => match most.downcast_ref::<CelInt>() {
            // In CEL, a negative number means that all occurrences are replaced.
            Some(most) => usize::try_from(*most.inner()).unwrap_or(usize::MAX),
            None => return Err(refused("replace", args.split_last().map_or(&[], |(_, args)| args))),
        },
        _ => usize::MAX,
    };
    let (text, from, to) = (text.inner(), from.inner(), to.inner());
    let places = text.matches(from).take(most).count();
    let length = text.len().saturating_add(places.saturating_mul(to.len()));
    budget::of(args.last())?.spend(budget::bytes(length))?;
    Ok(CowVal::owned(CelString::from(text.replacen(from, to, most))))
}

/// `@join(list[, separator], @budget)`.
fn join<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    let Some((budget, arguments)) = args.split_last() else {
        return Err(ExecutionError::missing_argument_or_target());
    };
    let mismatch = || refused("join", arguments);
    let separator = match arguments {
        [_, separator] => separator.downcast_ref::<CelString<'_>>().ok_or_else(mismatch)?.inner(),
        _ => "",
    };
    let list = arguments.first().and_then(|list| list.as_iterable()).ok_or_else(mismatch)?;
    let budget = budget::of(Some(budget))?;
    let mut joined = String::new();
    let mut items = list.iter();
    let mut first = true;
    while let Some(item) = items.next() {
        let text = item.downcast_ref::<CelString<'_>>().ok_or_else(mismatch)?.inner();
        budget.spend(budget::bytes(separator.len().saturating_add(text.len())))?;
        if !first {
            joined.push_str(separator);
        }
        joined.push_str(text);
        first = false;
    }
    Ok(CowVal::owned(CelString::from(joined)))
}

/// `@matches(text, pattern)`: the pattern is compiled with the expression.
fn matches<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    let [text, pattern] = args.as_slice() else { return Err(ExecutionError::missing_argument_or_target()) };
    match (text.downcast_ref::<CelString<'_>>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(pattern.matches(text.inner())))),
        _ => Err(refused("matches", std::slice::from_ref(text))),
    }
}

/// `@comparable(value, literal)`: a value of a client's body that is compared with a number or boolean. Many servers
/// accept `"true"`, `1` and `"5"` for `true` and `5`, so a value of another kind fails the test.
fn comparable<'b, 'v>(mut args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    if let [value, literal] = args.as_slice() {
        let kinds =
            [value, literal].map(|value| (is_boolean(value.as_ref()), Number::of(value.as_ref()).is_some()));
        let [(is_boolean, is_number), literal] = kinds;
        let is_scalar = is_boolean || is_number || value.downcast_ref::<CelString<'_>>().is_some();
        if is_scalar && (is_boolean, is_number) != literal {
            let kind = value.get_type().name();
            return Err(ExecutionError::function_error(
                "==",
                format!("servers may convert the {kind} in the body"),
            ));
        }
    }
    args.truncate(1);
    args.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

fn is_boolean(value: &dyn Val) -> bool {
    value.downcast_ref::<CelBool>().is_some()
}

/// `@index_of(text, needle[, from])`: the first match, in characters. The crate's own function tries the
/// needle at each position, which is slow if a client chooses both arguments.
fn index_of<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    let Search { text, needle, from } = Search::of("indexOf", &args)?;
    let start = from.unwrap_or(0);
    let found = text.get(start..).and_then(|rest| rest.find(needle)).map(|at| start.saturating_add(at));
    Ok(position(text, found))
}

/// `@last_index_of(text, needle[, from])`: the last match that starts at `from` or earlier.
fn last_index_of<'b, 'v>(args: Args<'b, 'v>) -> FunctionResult<'b, 'v> {
    let Search { text, needle, from } = Search::of("lastIndexOf", &args)?;
    let mut end = from.map_or(text.len(), |from| from.saturating_add(needle.len()).min(text.len()));
    // A match that starts at `from` ends at a character boundary. If there is none here, matches can only end
    // earlier.
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    Ok(position(text, text.get(..end).and_then(|before| before.rfind(needle))))
}

struct Search<'a> {
    text: &'a str,
    needle: &'a str,
    /// The position in bytes at which the search starts.
    from: Option<usize>,
}

impl<'a> Search<'a> {
    fn of(function: &str, args: &'a [CowVal<'_, '_>]) -> Result<Self, ExecutionError> {
        let mut texts = args.iter().map_while(|value| value.downcast_ref::<CelString<'_>>());
        let (Some(text), Some(needle)) = (texts.next(), texts.next()) else {
            return Err(refused(function, args));
        };
        let (text, needle) = (text.inner(), needle.inner());
        let from = match args.get(2) {
            None => None,
            Some(from) => {
                let from = from.downcast_ref::<CelInt>().ok_or_else(|| refused(function, args))?;
                let out = || ExecutionError::function_error(function, "the offset is out of range");
                let from = usize::try_from(*from.inner()).map_err(|_| out())?;
                match text.char_indices().nth(from) {
                    Some((at, _)) => Some(at),
                    None if needle.is_empty() => Some(text.len()),
                    None => return Err(out()),
                }
            }
        };
        Ok(Self { text, needle, from })
    }
}

/// Converts a position in bytes to CEL's position in characters. `None` becomes -1.
fn position<'b, 'v>(text: &str, place: Option<usize>) -> CowVal<'b, 'v> {
    let characters = place.and_then(|place| text.get(..place)).map(|before| before.chars().count());
    CowVal::owned(CelInt::from(characters.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1)))
}

fn refused(function: &str, args: &[CowVal<'_, '_>]) -> ExecutionError {
    let types = args.iter().map(|value| value.get_type().name().to_owned()).collect();
    ExecutionError::no_such_overload(function, types)
}
