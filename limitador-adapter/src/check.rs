//! `check`: every mistake in policies, without serving them.

use crate::sources::{Missing, Sources};
use std::path::PathBuf;

/// What a check found.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    /// How many policies are good.
    pub policies: usize,
    /// `FILE: document N: path: what is wrong`.
    pub mistakes: Vec<String>,
}

/// Checks files and folders.
pub fn check(paths: &[PathBuf]) -> Result<Checked, Missing> {
    let collected = Sources::open(paths)?.collection.collect();
    let mistakes = collected.entries.iter().flat_map(|entry| entry.messages().collect::<Vec<_>>()).collect();
    Ok(Checked { policies: collected.policies.len(), mistakes })
}
