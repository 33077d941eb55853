//! Writes statuses and events while this replica holds the Lease.

use super::conditions::{PolicyConditions, StatusContext};
use super::lease::{Election, LOOK_EVERY};
use super::objects::PolicyObject;
use super::rivals::{Rivals, Turn};
use super::schema::TokenRateLimitPolicy;
use super::status::PolicyStatus;
use crate::metrics::AdapterMetrics;
use crate::policies::audit::AuditRecord;
use crate::policies::filters::Filters;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Api, Client};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{mpsc, watch};

/// The installation of the adapter.
pub struct Install {
    /// The controller's name.
    pub controller: String,
    /// The replica's name.
    pub identity: String,
    /// The adapter's metrics.
    pub metrics: Arc<AdapterMetrics>,
    /// Operators' changes of counters, to publish as events.
    pub audit: mpsc::Receiver<AuditRecord>,
}

/// The state of the cluster.
#[derive(Debug, Default)]
pub struct ClusterStatuses {
    /// The outcome of each policy.
    pub statuses: Vec<PolicyConditions>,
    /// All Gateways, as NAMESPACE/NAME.
    pub gateways: BTreeSet<String>,
}

/// Writes the statuses of policies until the drain.
pub async fn tell(
    client: Client,
    install: Install,
    mut known: watch::Receiver<Arc<ClusterStatuses>>,
    filters: Arc<Filters>,
    mut drain: watch::Receiver<bool>,
) {
    let Install { controller, identity, metrics, mut audit } = install;
    let mut election = Election::new(client.clone(), &identity, &controller);
    let reporter = Reporter { controller: controller.clone(), instance: Some(identity) };
    let rivals = Rivals::new(&controller, client.default_namespace());
    let recorder = Recorder::new(client.clone(), reporter);
    let mut writer = StatusWriter { recorder, client, controller, rivals };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = filters.changes();
    let (mut following, mut strays) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let mut record = None;
        let looked = tokio::select! {
            _ = look.tick() => true,
            changed = known.changed() => match changed {
                Ok(()) => false,
                Err(_) => break,
            },
            _ = asked.changed() => true,
            Some(found) = audit.recv() => {
                record = Some(found);
                false
            }
            _ = drain.wait_for(|draining| *draining) => break,
        };
        let current = Arc::clone(&known.borrow_and_update());
        if let Some(record) = record {
            writer.audit(&current.statuses, record).await;
        }
        if looked {
            match follow(&mut election, &filters).await {
                Ok(all) => following = all,
                Err(error) => {
                    tracing::warn!(%error, "the Lease cannot be acquired; statuses may be out of date")
                }
            }
            let before = std::mem::replace(&mut strays, find_strays(&following, &current.gateways));
            for gateway in strays.difference(&before) {
                tracing::warn!(gateway, "a filter asks for the plan of a Gateway that does not exist");
            }
            metrics.unknown_gateways().set(strays.len() as f64);
        }
        if election.leads() {
            writer.tell(&current.statuses, &following, &strays).await;
            metrics.rivals().set(f64::from(u8::from(writer.rivals.rival().is_some())));
        }
    }
    if let Err(error) = election.leave().await {
        tracing::debug!(%error, "the Lease was not released");
    }
}

/// Returns the Gateways that filters name but that do not exist. The result is empty until the Gateways are
/// known.
fn find_strays(following: &BTreeSet<String>, gateways: &BTreeSet<String>) -> BTreeSet<String> {
    let names = following.iter().filter(|name| *name != "*" && !name.contains(':'));
    names.filter(|name| !gateways.contains(*name)).cloned().collect()
}

/// Renews this replica's Leases, and collects which gateways have filters.
async fn follow(election: &mut Election, filters: &Filters) -> Result<BTreeSet<String>, kube::Error> {
    let own = filters.following();
    election.tell(&own).await?;
    election.look().await?;
    if !election.leads() {
        return Ok(own);
    }
    let mut all = election.told().await?;
    all.extend(own);
    Ok(all)
}

struct StatusWriter {
    client: Client,
    recorder: Recorder,
    controller: String,
    rivals: Rivals,
}

impl StatusWriter {
    async fn tell(
        &mut self,
        statuses: &[PolicyConditions],
        filters: &BTreeSet<String>,
        strays: &BTreeSet<String>,
    ) {
        for conditions in statuses {
            let object = &conditions.object;
            let turn = self.rivals.look(object, Instant::now());
            if turn == Turn::Leave {
                continue;
            }
            let context = StatusContext {
                controller: &self.controller,
                filters,
                strays,
                rival: self.rivals.rival(),
                ancestors_alone: turn == Turn::Ancestors,
            };
            let Some(status) = conditions.status(context, &Time(Timestamp::now())) else { continue };
            match self.write(conditions, &status).await {
                Ok(after) => after.iter().for_each(|after| self.rivals.wrote(&status, after)),
                // The write is retried at the next interval.
                Err(error) => {
                    tracing::warn!(policy = %object.name, %error, "the status cannot be written");
                }
            }
        }
        self.rivals.keep(|uid| statuses.iter().any(|conditions| conditions.object.uid == uid));
    }

    /// Writes an event about an operator's change of counters. Each replica writes the events of its own
    /// calls.
    async fn audit(&self, statuses: &[PolicyConditions], record: AuditRecord) {
        let AuditRecord { policy, reason, note } = record;
        let mut objects = statuses.iter().map(|conditions| &conditions.object);
        let Some(object) = objects.find(|object| object.name.to_string() == policy) else { return };
        let event = Event {
            type_: EventType::Normal,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Counters".to_owned(),
            secondary: None,
        };
        self.publish(&event, object).await;
    }

    async fn publish(&self, event: &Event, object: &PolicyObject) {
        let resource = resource(object);
        let about = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(object.name.namespace.clone()),
            name: Some(object.name.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        if let Err(error) = self.recorder.publish(event, &about).await {
            tracing::warn!(policy = %object.name, %error, "the event cannot be written");
        }
    }

    /// Returns the policy after the write, or `None` if it was deleted.
    async fn write(
        &self,
        conditions: &PolicyConditions,
        status: &PolicyStatus,
    ) -> Result<Option<PolicyObject>, kube::Error> {
        let object = &conditions.object;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &object.name.namespace, &resource(object));
        let patch = Patch::Merge(json!({ "status": status }));
        let parameters =
            PatchParams { field_manager: Some(self.rivals.own().to_owned()), ..PatchParams::default() };
        let after = match api.patch_status(&object.name.name, &parameters, &patch).await {
            Err(kube::Error::Api(error)) if error.code == 404 => return Ok(None),
            after => PolicyObject::new(object.group, &after?),
        };
        // The status is written even if an event cannot be written.
        for event in events(object.status.get("conditions"), status) {
            self.publish(&event, object).await;
        }
        Ok(Some(after))
    }
}

/// The resource of a policy, by its group.
fn resource(object: &PolicyObject) -> ApiResource {
    let mut resource = ApiResource::erase::<TokenRateLimitPolicy>(&());
    resource.group = object.group.name().to_owned();
    resource.api_version = format!("{}/{}", resource.group, resource.version);
    resource
}

/// Returns one event for each condition that has changed.
fn events(before: Option<&serde_json::Value>, status: &PolicyStatus) -> Vec<Event> {
    let known = |kind: &str, reason: &str| {
        let conditions = before.and_then(serde_json::Value::as_array).into_iter().flatten();
        conditions.into_iter().any(|condition| {
            condition.get("type").is_some_and(|value| value == kind)
                && condition.get("reason").is_some_and(|value| value == reason)
        })
    };
    let news = status.conditions.iter().filter(|condition| !known(&condition.type_, &condition.reason));
    news.map(|condition| Event {
        type_: if condition.status == "True" { EventType::Normal } else { EventType::Warning },
        reason: condition.reason.clone(),
        // The API server accepts at most this many characters.
        note: Some(condition.message.chars().take(1000).collect()),
        action: condition.type_.clone(),
        secondary: None,
    })
    .collect()
}
