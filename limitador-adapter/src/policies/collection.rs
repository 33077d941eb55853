//! Files → the policies in force. A policy with a mistake keeps its last good version in force; so does every policy
//! of a file that cannot be read or parsed. Pure: [`super::sources`] reads the files.

use crate::policies::{read, yaml};
use policy::model::Policy;
use policy::validation_error::ValidationError;
use protocol::wire::weir::v1::{Listener, Placement};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Policies by the files they are written in.
#[derive(Default)]
pub struct Collection {
    files: BTreeMap<PathBuf, File>,
}

#[derive(Default)]
struct File {
    valid: Vec<ValidPolicy>,
    invalid: Vec<InvalidPolicy>,
}

/// A policy without mistakes.
#[derive(Clone, Debug)]
pub struct ValidPolicy {
    /// "NAMESPACE/NAME".
    pub name: Arc<str>,
    /// Which document of its file it is, from 1.
    pub document: usize,
    /// As it was read.
    pub policy: Arc<Policy>,
    /// As it was written, as JSON.
    pub json: Arc<[u8]>,
}

/// Something with mistakes.
#[derive(Clone, Debug)]
struct InvalidPolicy {
    /// `None`: the whole file.
    document: Option<usize>,
    /// `None`: cannot be told.
    name: Option<Arc<str>>,
    mistakes: Vec<ValidationError>,
}

/// One policy, or one part of a file that is none, as it is told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyReport {
    /// "NAMESPACE/NAME", if it can be told.
    pub policy: Option<Arc<str>>,
    /// Where it is written.
    pub file: PathBuf,
    /// Which document of the file, from 1. `None`: the whole file.
    pub document: Option<usize>,
    /// Whether it is in force, or an earlier version of it.
    pub in_force: bool,
    /// What is wrong with it as it is written now.
    pub mistakes: Vec<ValidationError>,
    /// What is not wrong, and may not be meant.
    pub warnings: Vec<ValidationError>,
}

impl PolicyReport {
    /// Each mistake as `FILE: document N: path: what is wrong`.
    pub fn messages(&self) -> impl Iterator<Item = String> {
        self.mistakes.iter().map(|mistake| self.at(mistake))
    }

    /// Each warning likewise.
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

/// The plan of a Gateway.
#[derive(Clone, Debug, Default)]
pub struct GatewayPlan {
    /// Which of the collected policies are in it, by their places.
    pub policies: Vec<usize>,
    /// What each applies to.
    pub placement: Placement,
    /// The Gateway's listeners, without policies.
    pub hosts: Vec<Listener>,
}

/// What a collection comes to.
#[derive(Clone, Debug, Default)]
pub struct CollectedPolicies {
    /// By name.
    pub policies: Vec<ValidPolicy>,
    /// By file and document.
    pub entries: Vec<PolicyReport>,
    /// The plan of each gateway, "NAMESPACE/NAME". `None`: of no cluster, so that each policy says by itself which
    /// gateway it is for.
    pub plans: Option<HashMap<String, GatewayPlan>>,
}

impl CollectedPolicies {
    /// Every mistake as `FILE: document N: path: what is wrong`.
    pub fn mistakes(&self) -> Vec<String> {
        self.entries.iter().flat_map(PolicyReport::messages).collect()
    }
}

impl Collection {
    /// A file is new or has changed. `Err`: why it cannot be read.
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

    /// A file is gone on purpose, and its policies with it.
    pub fn remove(&mut self, path: &Path) {
        self.files.remove(path);
    }

    /// All files together.
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
        // A mistake in a name could be in any policy's, so then none is taken for removed.
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

/// The name of a policy that has mistakes elsewhere.
fn name(document: &Value) -> Option<Arc<str>> {
    let metadata = document.get("metadata")?;
    let namespace = metadata.get("namespace").map_or(Some("default"), Value::as_str)?;
    Some(format!("{namespace}/{}", metadata.get("name")?.as_str()?).into())
}
