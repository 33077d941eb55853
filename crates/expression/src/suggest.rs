//! Suggestions for mistyped names.

/// Returns the known name that a mistyped one most likely means.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |candidate: &str| strsim::osa_distance(&name.to_lowercase(), &candidate.to_lowercase());
    let (distance, candidate) = known.into_iter().map(|candidate| (distance(candidate), candidate)).min()?;
    (distance <= candidate.len().div_ceil(4)).then_some(candidate)
}
