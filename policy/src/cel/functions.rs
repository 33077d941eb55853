//! The functions an expression may call: CEL's own, the string extensions, and the operators that the policy
//! language defines more generously than CEL. Names that start with `@` are written by [`super::rewrite`] only.

use super::budget;
use super::pattern::Pattern;
use super::time;
use cel_interpreter::common::functions::Function;
use cel_interpreter::common::types::{CelBool, CelDouble, CelInt, CelString, CelUInt, DYN_TYPE};
use cel_interpreter::common::value::{CowVal, Val};
use cel_interpreter::{DeclarationError, Env, ExecutionError, extensions};
use std::sync::{Arc, LazyLock};

pub(super) const CHARGE: &str = "@charge";
pub(super) const SEARCH: &str = "@search";
pub(super) const ADD: &str = "@add";
pub(super) const SUBTRACT: &str = "@subtract";
pub(super) const MULTIPLY: &str = "@multiply";
pub(super) const DIVIDE: &str = "@divide";
pub(super) const MODULO: &str = "@modulo";
pub(super) const REPLACE: &str = "@replace";
pub(super) const JOIN: &str = "@join";
pub(super) const MATCHES: &str = "@matches";

type Args<'b, 'v> = Vec<CowVal<'b, 'v>>;
type Outcome<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// One for all expressions: building it costs as much as hundreds of evaluations.
pub(super) fn environment() -> Result<Arc<Env>, String> {
    static ENVIRONMENT: LazyLock<Result<Arc<Env>, String>> =
        LazyLock::new(|| declare().map(Arc::new).map_err(|error| error.to_string()));
    ENVIRONMENT.clone()
}

fn declare() -> Result<Env, DeclarationError> {
    let mut env = Env::stdlib();
    env.add_extension(extensions::strings)?;
    time::declare(&mut env)?;
    let global: [(&str, &str, usize, Function); 12] = [
        (CHARGE, "@charge", 2, charge),
        (SEARCH, "@search", 3, search),
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
    ];
    for (name, id, arguments, function) in global {
        env.add_overload(name, id, (0..arguments).map(|_| DYN_TYPE).collect(), function)?;
    }
    Ok(env)
}

/// `@charge(value, @budget)`: the value, once it is paid for.
fn charge<'b, 'v>(mut args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    if let [value, budget] = args.as_slice() {
        budget::of(Some(budget))?.spend(budget::weight(value.as_ref()))?;
    }
    args.pop();
    args.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

/// `@search(text, needle, @budget)`: the text, once a search that tries the needle at each place is paid for.
fn search<'b, 'v>(mut args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    if let [text, needle, budget] = args.as_slice()
        && let (Some(text), Some(needle)) = (text.downcast_ref::<CelString<'_>>(), needle.downcast_ref())
    {
        let needle: &CelString<'_> = needle;
        let comparisons = text.inner().len().saturating_mul(needle.inner().len());
        budget::of(Some(budget))?.spend(budget::bytes(comparisons / budget::BYTES_PER_UNIT))?;
    }
    args.truncate(1);
    args.pop().ok_or_else(ExecutionError::missing_argument_or_target)
}

/// `@add(left, right, @budget)`: numbers, or texts and lists, whose sum is paid for before it is made.
fn add<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    if let [left, right, budget] = args.as_slice()
        && Number::of(left.as_ref()).is_none()
    {
        let units = budget::weight(left.as_ref()).saturating_add(budget::weight(right.as_ref()));
        budget::of(Some(budget))?.spend(units)?;
    }
    arithmetic("+", &args, plus)
}

/// `None`: the left value knows no such operator.
type Computed<'v> = Option<Result<Box<dyn Val + 'v>, ExecutionError>>;
type Operation = for<'a, 'v> fn(&'a (dyn Val + 'v), &'a (dyn Val + 'v)) -> Computed<'v>;

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

/// An operator on two values. CEL refuses to mix kinds of numbers; here an int with a uint is an int, and either with a
/// double is a double.
fn arithmetic<'b, 'v>(operator: &str, args: &[CowVal<'b, 'v>], operation: Operation) -> Outcome<'b, 'v> {
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

    /// Two numbers as the same kind; `None` if one is no number.
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

/// `@replace(text, from, to[, most], @budget)`: the one string function whose result can be as long as its
/// arguments' product.
fn replace<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let (texts, rest) = args.split_at_checked(3).ok_or_else(ExecutionError::missing_argument_or_target)?;
    let mut words = texts.iter().map_while(|value| value.downcast_ref::<CelString<'_>>());
    let (Some(text), Some(from), Some(to)) = (words.next(), words.next(), words.next()) else {
        return Err(refused("replace", args.split_last().map_or(&[], |(_, args)| args)));
    };
    let most = match rest {
        [most, _] => match most.downcast_ref::<CelInt>() {
            // CEL: a negative number means all.
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
fn join<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
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

/// `@matches(text, pattern)`: the pattern was compiled with the expression.
fn matches<'b, 'v>(args: Args<'b, 'v>) -> Outcome<'b, 'v> {
    let [text, pattern] = args.as_slice() else { return Err(ExecutionError::missing_argument_or_target()) };
    match (text.downcast_ref::<CelString<'_>>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(pattern)) => Ok(CowVal::owned(CelBool::from(pattern.matches(text.inner())))),
        _ => Err(refused("matches", std::slice::from_ref(text))),
    }
}

fn refused(function: &str, args: &[CowVal<'_, '_>]) -> ExecutionError {
    let types = args.iter().map(|value| value.get_type().name().to_owned()).collect();
    ExecutionError::no_such_overload(function, types)
}
