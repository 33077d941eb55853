//! How much one evaluation may do. Without a bound, a macro inside a macro over a list that a client can make long,
//! or a chain of macros that doubles a string, would stop a worker of the gateway or take all its memory.

use cel_interpreter::ExecutionError;
use cel_interpreter::common::types::{CelBytes, CelList, CelMap, CelOptional, CelString, Type};
use cel_interpreter::common::value::{CowVal, StaticVal, Val};
use std::any::Any;
use std::sync::atomic::{AtomicU32, Ordering};

/// In elements that are looked at by macros, or as many times [`BYTES_PER_UNIT`] of text that is made.
pub(super) const BUDGET: u32 = 10_000;

/// Text that costs as much as an element.
pub(super) const BYTES_PER_UNIT: usize = 64;

/// The function of a failure for want of budget.
pub(super) const EXHAUSTED: &str = "@budget";

/// What is left. A CEL value, so that functions get it as an argument: they have no other state.
#[derive(Debug)]
pub(super) struct EvaluationBudget(AtomicU32);

impl EvaluationBudget {
    pub(super) fn new() -> Self {
        Self(AtomicU32::new(BUDGET))
    }

    pub(super) fn spend(&self, units: u64) -> Result<(), ExecutionError> {
        // One evaluation runs on one thread; the atomic is there because CEL values must be `Sync`.
        let left = self.0.load(Ordering::Relaxed);
        let after = u32::try_from(units).ok().and_then(|units| left.checked_sub(units));
        // Once it is spent nothing more is free: `exists` goes on after an error, looking for a true.
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

/// What a function's last argument is, if the expression was rewritten by us.
pub(super) fn of<'a>(argument: Option<&'a CowVal<'_, '_>>) -> Result<&'a EvaluationBudget, ExecutionError> {
    argument
        .and_then(|value| value.downcast_ref::<EvaluationBudget>())
        .ok_or_else(|| ExecutionError::function_error(EXHAUSTED, "no budget was given"))
}

/// What copying a value costs, in units.
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
    // A view of a fact is copied as a reference; going over its names is what costs.
    let count = value.as_sizer().map_or(0, |sizer| *sizer.size().inner());
    u64::try_from(count).unwrap_or(0).saturating_add(1)
}

/// What a text of this length costs, in units.
pub(super) fn bytes(length: usize) -> u64 {
    (length / BYTES_PER_UNIT) as u64 + 1
}
