//! The input of `explain`: the policies, the messages and the facts of the request, read from files.

use crate::cli::ExplainArgs;
use crate::explain::message::Message;
use crate::policies::collection::CollectedPolicies;
use crate::policies::sources::Sources;
use expression::facts::{Facts, Need};
use expression::identity;
use expression::identity::IdentityEncoding;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The input.
#[derive(Debug, Default)]
pub struct ExplainInput {
    /// The policies.
    pub collected: CollectedPolicies,
    pub request: Message,
    /// The response, if its charges are to be explained.
    pub response: Option<Message>,
    /// The whole value of the `auth` root.
    pub auth: Option<Value>,
    /// The name of Envoy's route for the request.
    pub route: Option<String>,
    /// Whether the filter reads request bodies.
    pub reads_bodies: bool,
}

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unexplained(pub String);

impl ExplainInput {
    /// Reads the files that the command line names.
    pub fn read(asked: &ExplainArgs) -> Result<Self, Unexplained> {
        let unexplained = |path: &Path, told: String| Unexplained(format!("{}: {told}", path.display()));
        let read = |path: &Path| fs::read(path).map_err(|error| unexplained(path, error.to_string()));
        let parsed = |path: &Path, parse: fn(&[u8]) -> Result<Message, String>| {
            parse(&read(path)?).map_err(|told| unexplained(path, told))
        };
        let auth = |path: &PathBuf| {
            let auth = identity::from_header(&read(path)?, IdentityEncoding::Json);
            auth.map_err(|error| unexplained(path, error.to_string()))
        };
        let sources = Sources::open(&asked.policies).map_err(|missing| Unexplained(missing.to_string()))?;
        Ok(Self {
            collected: sources.collection.collect(),
            request: asked
                .request
                .as_ref()
                .map(|path| parsed(path, Message::request))
                .transpose()?
                .unwrap_or_default(),
            response: asked.response.as_ref().map(|path| parsed(path, Message::response)).transpose()?,
            auth: asked.identity.as_ref().map(auth).transpose()?,
            route: asked.route.clone(),
            reads_bodies: asked.reads_bodies,
        })
    }

    /// Returns the required facts that the files provide, and the names of those that they do not provide.
    pub fn facts(&self, needs: &[Need]) -> (Facts, Vec<String>) {
        let (mut facts, mut unknown) = (Facts::default(), Vec::new());
        self.request.pseudo.iter().for_each(|(name, value)| facts.header(name, value.as_bytes()));
        self.request.headers.iter().for_each(|(name, value)| facts.header(name, value));
        if !self.request.body.is_empty() {
            facts.header("content-length", self.request.body.len().to_string().as_bytes());
        }
        for need in needs {
            match need {
                // The files do not contain upstream failures.
                Need::Header(_) | Need::Headers | Need::Failures => {}
                Need::Identity => match &self.auth {
                    Some(auth) => facts.auth(auth.clone()),
                    None => unknown.push("auth (see --identity)".to_owned()),
                },
                Need::Property(path) => match self.property(path) {
                    Some(value) => facts.property(path, &value),
                    None if path.as_slice() == Facts::ROUTE_NAME => {
                        unknown.push("the route's name (see --route)".to_owned());
                    }
                    None => unknown.push(path.join(".")),
                },
            }
        }
        (facts, unknown)
    }

    /// Returns an attribute in Envoy's encoding.
    fn property(&self, path: &[String]) -> Option<Vec<u8>> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            path if path == Facts::ROUTE_NAME => self.route.clone().map(String::into_bytes),
            ["request", "protocol"] => Some(b"HTTP/1.1".to_vec()),
            ["request", "time"] => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_nanos();
                Some(i64::try_from(now).ok()?.to_le_bytes().to_vec())
            }
            _ => None,
        }
    }
}
