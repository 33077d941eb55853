//! Collects the policies of all files. If a policy has an error, its last valid version stays in force. If a
//! file cannot be read or parsed, all of its policies stay in force. Pure: [`super::sources`] reads the
//! files.

use crate::policies::{read, yaml};
use policy::model::Policy;
use policy::validation_error::ValidationError;
use protocol::wire::weir::v1::{Listener, Placement};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Policies by file.
#[derive(Default)]
pub struct Collection {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Default)]
struct File {
    valid: Vec<ValidPolicy>,
    invalid: Vec<InvalidPolicy>,
}

/// A policy without errors.
#[derive(Clone, Debug)]
pub struct ValidPolicy {
    /// "NAMESPACE/NAME".
    pub name: Arc<str>,
    /// The number of its document in the file, starting at 1.
    pub document: usize,
    pub policy: Arc<Policy>,
    /// The original document as JSON.
    pub json: Arc<[u8]>,
}

/// A document with errors.
#[derive(Clone, Debug)]
struct InvalidPolicy {
    /// `None` means the whole file.
    document: Option<usize>,
    /// `None` if the document has no usable name.
    name: Option<Arc<str>>,
    mistakes: Vec<ValidationError>,
}

/// The report about one policy, or about a part of a file that is not a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyReport {
    /// "NAMESPACE/NAME", if it has a usable name.
    pub policy: Option<Arc<str>>,
    pub file: PathBuf,
    /// The number of its document in the file, starting at 1. `None` means the whole file.
    pub document: Option<usize>,
    /// Whether this version or an earlier one is in force.
    pub in_force: bool,
    /// The errors in the current version.
    pub mistakes: Vec<ValidationError>,
    /// Parts that are valid but may not be intended.
    pub warnings: Vec<ValidationError>,
}

impl PolicyReport {
    /// Returns each error as `FILE: document N: path: what is wrong`.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.mistakes.iter().map(|mistake| self.at(mistake))
    }

    /// Returns each warning in the same form.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().map(|warning| self.at(warning))
    }

    fn at(&self, told: &ValidationError) -> String {
        let file = self.file.display();
        match self.document {
            Some(document) => format!("{file}: document {document}: {told}"),
            None => format!("{file}: {told}"),
        }
    }
}

/// The plan of one Gateway.
#[derive(Clone, Debug, Default)]
pub struct GatewayPlan {
    /// The policies in the plan, by their position in the collection.
    pub policies: Vec<usize>,
    /// The requests that each policy applies to.
    pub placement: Placement,
    /// The Gateway's listeners, without policies.
    pub hosts: Vec<Listener>,
}

/// The result of a collection.
#[derive(Clone, Debug, Default)]
pub struct CollectedPolicies {
    /// Sorted by name.
    pub policies: Vec<ValidPolicy>,
    /// Sorted by file and document.
    pub entries: Vec<PolicyReport>,
    /// The plan of each gateway, by "NAMESPACE/NAME". `None` without a cluster, where each policy names its
    /// own gateway.
    pub plans: Option<HashMap<String, GatewayPlan>>,
}

impl CollectedPolicies {
    /// Returns each error as `FILE: document N: path: what is wrong`.
    pub fn mistakes(&self) -> Vec<String> {
        self.entries.iter().flat_map(PolicyReport::messages).collect()
    }
}

impl Collection {
    /// Records that a file was added or changed. `content` is an error if the file cannot be read.
    pub fn update(&mut self, path: &Path, content: Result<&[u8], String>) {
        let file = self.files.entry(path.to_owned()).or_default();
        match content.and_then(yaml::parse) {
            Ok(documents) => file.update(&documents),
            Err(message) => {
                let mistakes = vec![ValidationError { path: String::new(), message }];
                file.invalid = vec![InvalidPolicy { document: None, name: None, mistakes }];
            }
        }
    }

    /// Records that a file was deleted on purpose, and removes its policies.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// Combines all files.
    pub fn collect(&self) -> CollectedPolicies {
        let mut collected = CollectedPolicies::default();
        let mut first: HashMap<Arc<str>, (&Path, usize)> = HashMap::new();
        for (path, file) in &self.files {
            let mut entries = file.entries(path);
            for valid in &file.valid {
                if let Some((elsewhere, document)) = first.get(&valid.name) {
                    let message = format!(
                        "{} is written in {}, document {document}, too, and that one is in force",
                        valid.name,
                        elsewhere.display()
                    );
                    let mistake = ValidationError { path: "metadata.name".to_owned(), message };
                    for entry in entries.iter_mut().filter(|entry| entry.document == Some(valid.document)) {
                        entry.in_force = false;
                        entry.mistakes.push(mistake.clone());
                    }
                } else {
                    first.insert(Arc::clone(&valid.name), (path, valid.document));
                    collected.policies.push(valid.clone());
                }
            }
            collected.entries.append(&mut entries);
        }
        collected.policies.sort_by(|a, b| a.name.cmp(&b.name));
        collected
    }
}

impl File {
    fn update(&mut self, documents: &[Value]) {
        let earlier = std::mem::take(&mut self.valid);
        self.invalid.clear();
        for (index, document) in documents.iter().enumerate() {
            match read::policy(document) {
                Ok(policy) => self.valid.push(ValidPolicy::new(index + 1, policy, document)),
                Err(mistakes) => self.invalid.push(InvalidPolicy {
                    document: Some(index + 1),
                    name: name(document),
                    mistakes,
                }),
            }
        }
        // A document without a usable name could be any policy, so no policy counts as removed.
        let nameless = self.invalid.iter().any(|invalid| invalid.name.is_none());
        for policy in earlier {
            let is_bad = self.invalid.iter().any(|invalid| invalid.name.as_ref() == Some(&policy.name));
            let is_good = self.valid.iter().any(|valid| valid.name == policy.name);
            if !is_good && (is_bad || nameless) {
                self.valid.push(policy);
            }
        }
    }

    fn entries(&self, path: &Path) -> Vec<PolicyReport> {
        let is_bad = |valid: &&ValidPolicy| {
            !self.invalid.iter().any(|invalid| invalid.name.as_ref() == Some(&valid.name))
        };
        let valid = self.valid.iter().filter(is_bad).map(|valid| PolicyReport {
            policy: Some(Arc::clone(&valid.name)),
            file: path.to_owned(),
            document: Some(valid.document),
            in_force: true,
            mistakes: Vec::new(),
            warnings: valid.policy.warnings(),
        });
        let invalid = self.invalid.iter().map(|invalid| PolicyReport {
            policy: invalid.name.clone(),
            file: path.to_owned(),
            document: invalid.document,
            in_force: self.valid.iter().any(|valid| Some(&valid.name) == invalid.name.as_ref()),
            mistakes: invalid.mistakes.clone(),
            warnings: Vec::new(),
        });
        let mut entries: Vec<_> = valid.chain(invalid).collect();
        entries.sort_by_key(|entry| entry.document);
        entries
    }
}

impl ValidPolicy {
    fn new(document: usize, policy: Policy, written: &Value) -> Self {
        let name = format!("{}/{}", policy.namespace, policy.name).into();
        let json = written.to_string().into_bytes().into();
        Self { name, document, policy: Arc::new(policy), json }
    }
}

/// Returns the name of a policy that has errors elsewhere.
fn name(document: &Value) -> Option<Arc<str>> {
    let metadata = document.get("metadata")?;
    let namespace = metadata.get("namespace").map_or(Some("default"), Value::as_str)?;
    Some(format!("{namespace}/{}", metadata.get("name")?.as_str()?).into())
}
