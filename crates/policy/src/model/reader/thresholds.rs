//! Reads `warnAt`.

use crate::document::{DocumentNode, Reported, distinct, shortened};
use crate::model::{Rate, Threshold, Unit};
use expression::small_sort;
use std::sync::Arc;

/// The maximum number of thresholds of a limit.
const MAX_THRESHOLDS: usize = 8;

/// Requests in flight are never charged, so `concurrency` has no thresholds.
pub(super) fn warn_at(
    node: &DocumentNode<'_>,
    rates: Result<&[Rate], &Reported>,
) -> Result<Arc<[Threshold]>, Reported> {
    let items = node.items()?;
    if items.is_empty() || items.len() > MAX_THRESHOLDS {
        return Err(node.refuse(format!("must have 1 to {MAX_THRESHOLDS} thresholds")));
    }
    let mut thresholds = distinct(
        items.into_iter().map(|item| (item.clone(), threshold(&item))),
        |threshold, other| threshold == other,
        |_, first| format!("is the same as warnAt[{first}]"),
    )?;
    if rates.is_ok_and(|rates| rates.iter().all(|rate| rate.unit == Unit::Concurrency)) {
        return Err(node.refuse("needs a rate other than `concurrency`, which counts requests in flight"));
    }
    small_sort::sort_by(&mut thresholds, Ord::cmp);
    Ok(thresholds.into())
}

fn threshold(node: &DocumentNode<'_>) -> Result<Threshold, Reported> {
    let text = node.text()?;
    Threshold::parse(text).ok_or_else(|| {
        let told = shortened(text);
        node.refuse(format!("`{told}` is not a threshold such as `80%`: use a whole number from 1% to 100%"))
    })
}
