//! Detects several installations of the adapter in one cluster. If their controller names differ, each one
//! has separate `ancestors`, and one of them writes the conditions of the policy as a whole. If their
//! controller names are the same, they would keep overwriting each other's statuses. So one of them, chosen
//! by name, stops writing, and both report the conflict.

use super::objects::{MANAGER, PolicyObject, StatusManager};
use super::status::PolicyStatus;
use serde::Deserialize;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// An installation that has stopped writing tries again after this time, in case the other one is gone.
const GIVE_WAY: Duration = Duration::from_secs(300);
/// An installation that has not written for this long is no longer a rival.
const MEMORY: Duration = Duration::from_secs(600);

/// The parts of a policy's status that this installation may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The whole status.
    Whole,
    /// Only its own `ancestors`.
    Ancestors,
    /// Nothing may be written for now.
    Leave,
}

/// What this installation has written, and what it knows about others.
pub struct Rivals {
    own: String,
    /// The prefix of the names of installations with the same controller name.
    namesakes: String,
    /// The last status of each policy by UID, and when it was written by the API server's clock.
    written: HashMap<String, (PolicyStatus, i64)>,
    /// An installation with the same controller name, and when it was last seen writing.
    rival: Option<(String, Instant)>,
    gave_way: Option<Instant>,
}

impl Rivals {
    /// Creates the state of the installation in this namespace.
    pub fn new(controller: &str, namespace: &str) -> Self {
        let namesakes = format!("{MANAGER}{controller}/");
        let own = format!("{namesakes}{namespace}");
        Self { own, namesakes, written: HashMap::new(), rival: None, gave_way: None }
    }

    /// This installation's field manager.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The namespace of an installation with the same controller name.
    pub fn rival(&self) -> Option<&str> {
        self.rival.as_ref().map(|(name, _)| name.as_str())
    }

    /// Decides which parts of a policy's status may be written.
    pub fn look(&mut self, object: &PolicyObject, now: Instant) -> Turn {
        let is_over = |since: &Instant, time| now.saturating_duration_since(*since) >= time;
        self.rival.take_if(|(_, seen)| is_over(seen, MEMORY));
        self.gave_way.take_if(|since| is_over(since, GIVE_WAY));
        let status = PolicyStatus::deserialize(&object.status).unwrap_or_default();
        // The watch may lag behind the last write.
        let written = self.written.get(&object.uid).filter(|(written, _)| *written != status);
        let rival = object.writers.iter().find(|writer| {
            let is_later = written.is_some_and(|(_, time)| writer.time >= *time);
            is_later && writer.name != self.own && writer.name.starts_with(&self.namesakes)
        });
        if let Some(StatusManager { name, .. }) = rival.cloned() {
            // Each overwritten status is reported once.
            self.written.remove(&object.uid);
            let gives_way = self.own > name;
            let namespace = name.strip_prefix(&self.namesakes).unwrap_or_default().to_owned();
            if self.rival.is_none() {
                tracing::error!(
                    install = namespace,
                    gives_way,
                    "another install writes statuses under the same controller name; give it another --controller-name"
                );
            }
            self.rival = Some((namespace, now));
            if gives_way {
                self.gave_way = Some(now);
            }
        }
        let is_told = status.observed_generation == Some(object.generation);
        let mut others = object.writers.iter().filter(|writer| writer.name != self.own);
        if self.gave_way.is_some() {
            Turn::Leave
        } else if is_told
            && others.any(|other| {
                other.has_conditions && !other.name.starts_with(&self.namesakes) && other.name < self.own
            })
        {
            Turn::Ancestors
        } else {
            Turn::Whole
        }
    }

    /// Records that a status was written. `after` is the policy after the write.
    pub fn wrote(&mut self, status: &PolicyStatus, after: &PolicyObject) {
        let own = after.writers.iter().find(|writer| writer.name == self.own);
        if let Some(own) = own {
            self.written.insert(after.uid.clone(), (status.clone(), own.time));
        }
    }

    /// Forgets deleted policies.
    pub fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        if self.written.len() > 16 {
            self.written.retain(|uid, _| is_there(uid));
        }
    }
}
