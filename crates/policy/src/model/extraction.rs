//! Kuadrant's `dataExtraction` and `tokenCompute`: named counts at JSON pointers into a response, and an
//! expression over them that computes the charged tokens. In a policy, they are on the same level as the
//! limits.

use super::reader::expression_in;
use super::usage::pointer;
use crate::document::{DocumentNode, DocumentObject, KnownFields, Reported, all};
use expression::cel::{Expression, Phase, ResultType};
use llm::response::{PointedCount, UsagePointers};
use std::sync::Arc;

/// The count that is charged unless there is a `tokenCompute`.
const TOTAL: &str = "totalTokens";
const MAX_COUNTS: usize = 16;
const MAX_POINTERS: usize = 8;
const MAX_NAME: usize = 63;

const DATA_EXTRACTION: KnownFields = KnownFields { known: &["response"], later: &[], ignored: &[] };

/// `dataExtraction`: where responses report their counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataExtraction {
    counts: Vec<PointedCount>,
    /// The pointers of `totalTokens`.
    total: Option<Arc<UsagePointers>>,
}

impl DataExtraction {
    /// Returns the pointers of the total.
    pub fn total(&self) -> Option<&Arc<UsagePointers>> {
        self.total.as_ref()
    }

    /// Returns the count with this name.
    pub fn count(&self, name: &str) -> Option<&PointedCount> {
        self.counts.iter().find(|count| count.name == name)
    }
}

/// Returns whether `tokens.NAME` exists even without a count of this name.
pub fn is_built_in(name: &str) -> bool {
    name == TOTAL
}

/// `dataExtraction` and `tokenCompute` of a block.
pub(super) struct Extraction {
    pub(super) data: Option<Arc<DataExtraction>>,
    pub(super) token_compute: Option<Arc<Expression>>,
}

/// Reads `dataExtraction` and `tokenCompute`. If the rules `merge`, the counts may come from another policy.
pub(super) fn extraction(beside: &DocumentObject<'_>, merge: bool) -> Result<Extraction, Reported> {
    let extraction = beside.optional("dataExtraction").map(data_extraction).transpose();
    let compute = beside.optional("tokenCompute");
    let expression = compute.as_ref().map(|node| expression_in(node, Phase::Counts, ResultType::Tokens));
    let (extraction, expression) = (extraction?.flatten(), expression.transpose()?);
    let is_known = |name: &&str| {
        is_built_in(name)
            || extraction.as_ref().is_some_and(|known: &DataExtraction| known.count(name).is_some())
    };
    let unknown = expression.as_ref().and_then(|it| it.counts().find(|name| !is_known(name)));
    match (compute, unknown) {
        (Some(node), Some(name)) if !merge => Err(node.refuse(format!(
            "`tokens.{name}` is neither `tokens.{TOTAL}` nor a count in `dataExtraction.response`"
        ))),
        _ => Ok(Extraction { data: extraction.map(Arc::new), token_compute: expression.map(Arc::new) }),
    }
}

fn data_extraction(node: DocumentNode<'_>) -> Result<Option<DataExtraction>, Reported> {
    let Some(response) = node.object(&DATA_EXTRACTION)?.optional("response") else { return Ok(None) };
    let entries = response.entries()?;
    if entries.len() > MAX_COUNTS {
        return Err(response.refuse(format!("must have at most {MAX_COUNTS} counts")));
    }
    let counts = all(entries.into_iter().map(|(name, node)| count(name, &node)))?;
    let mut total = None;
    for pointer in counts.iter().filter(|count| count.name == TOTAL).flat_map(|count| &count.pointers) {
        total.get_or_insert_with(UsagePointers::default).add("total", pointer);
    }
    Ok(Some(DataExtraction { counts, total: total.map(Arc::new) }))
}

fn count(name: &str, node: &DocumentNode<'_>) -> Result<PointedCount, Reported> {
    let is_named = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|first: char| first.is_ascii_digit());
    if !is_named || name.is_empty() || name.len() > MAX_NAME {
        return Err(node.refuse(format!(
            "the name must have 1 to {MAX_NAME} letters, digits and `_`, and must not begin with a digit"
        )));
    }
    let items = node.items()?;
    if items.is_empty() || items.len() > MAX_POINTERS {
        return Err(node.refuse(format!("must have 1 to {MAX_POINTERS} pointers")));
    }
    let pointers = all(items.iter().map(|item| pointer(item).map(str::to_owned)))?;
    Ok(PointedCount { name: name.to_owned(), pointers })
}
