//! Limits the work of one evaluation. Without a limit, nested macros over a client's long list, or a chain of
//! macros that keeps doubling a string, could block a worker of the gateway or exhaust its memory.

use cel_interpreter::ExecutionError;
use cel_interpreter::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString, Type};
use cel_interpreter::common::value::{CowVal, StaticVal, Val};
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};

/// The budget in units. A unit is one element that a macro visits, or [`BYTES_PER_UNIT`] bytes of text.
pub(super) const BUDGET: u32 = 10_000;

/// The number of bytes of text that cost as much as one element.
pub(super) const BYTES_PER_UNIT: usize = 64;

/// The function name in errors about an exhausted budget.
pub(super) const EXHAUSTED: &str = "@budget";

/// The remaining budget. It is a CEL value and is passed to functions as an argument, since they have no
/// other state.
#[derive(Debug)]
pub(super) struct EvaluationBudget(AtomicU32);

impl EvaluationBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(BUDGET))
    }

    pub(super) fn spend(&self, units: u64) -> Result<(), ExecutionError> {
        // One evaluation runs on one thread. The value is atomic because CEL values must be `Sync`.
        let left = self.0.load(Ordering::Relaxed);
        let after = u32::try_from(units).ok().and_then(|units| left.checked_sub(units));
        // Once the budget is exhausted, it stays exhausted, because `exists` continues after an error in
        // search of a true element.
        self.0.store(after.unwrap_or(0), Ordering::Relaxed);
        after.map(drop).ok_or_else(|| ExecutionError::function_error(EXHAUSTED, ""))
    }
}

impl Val for EvaluationBudget {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = Type::new_unspecified_type("@budget");
        &TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(AtomicU32::new(self.0.load(Ordering::Relaxed))))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for EvaluationBudget {}

/// Returns the budget from a function's last argument, where the rewritten expression passes it.
pub(super) fn of<'a>(argument: Option<&'a CowVal<'_, '_>>) -> Result<&'a EvaluationBudget, ExecutionError> {
    argument
        .and_then(|value| value.downcast_ref::<EvaluationBudget>())
        .ok_or_else(|| ExecutionError::function_error(EXHAUSTED, "no budget was given"))
}

/// Returns the cost of copying a value, in units.
pub(super) fn weight(value: &dyn Val) -> u64 {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        return bytes(text.inner().len());
    }
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return list.inner().iter().fold(1, |sum, item| sum.saturating_add(weight(item.as_ref())));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        return map.inner().values().fold(1, |sum, item| sum.saturating_add(weight(item.as_ref())));
    }
    if let Some(data) = value.downcast_ref::<CelBytes<'_>>() {
        return bytes(data.inner().len());
    }
    if let Some(inner) = value.downcast_ref::<CelOptional<'_>>().and_then(CelOptional::option) {
        return weight(inner).saturating_add(1);
    }
    // A fact is copied as a reference, so only the iteration over its names costs something.
    let count = value.as_sizer().map_or(0, |sizer| *sizer.size().inner());
    u64::try_from(count).unwrap_or(0).saturating_add(1)
}

/// Returns the cost of a text of this length, in units.
pub(super) fn bytes(length: usize) -> u64 {
    (length / BYTES_PER_UNIT) as u64 + 1
}
