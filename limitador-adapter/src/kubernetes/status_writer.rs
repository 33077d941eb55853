//! Writes statuses and events, while this replica holds the Lease.

use super::conditions::PolicyConditions;
use super::lease::{Election, LOOK_EVERY};
use super::schema::TokenRateLimitPolicy;
use super::status::PolicyStatus;
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
use tokio::sync::watch;

/// Tells what has become of policies, for ever or until the drain.
pub async fn tell(
    client: Client,
    identity: String,
    mut statuses: watch::Receiver<Arc<Vec<PolicyConditions>>>,
    filters: Arc<Filters>,
    mut drain: watch::Receiver<bool>,
) {
    let mut election = Election::new(client.clone(), &identity);
    let reporter = Reporter { controller: "weir.dev/limitador-adapter".to_owned(), instance: Some(identity) };
    let teller = StatusWriter { recorder: Recorder::new(client.clone(), reporter), client };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = filters.changes();
    let mut known = BTreeSet::new();
    loop {
        let looked = tokio::select! {
            _ = look.tick() => true,
            changed = statuses.changed() => match changed {
                Ok(()) => false,
                Err(_) => break,
            },
            _ = asked.changed() => true,
            _ = drain.wait_for(|draining| *draining) => break,
        };
        if looked {
            match follow(&mut election, &filters).await {
                Ok(told) => known = told,
                Err(error) => tracing::warn!(%error, "the Lease cannot be had; statuses may be old"),
            }
        }
        if election.leads() {
            let current = Arc::clone(&statuses.borrow_and_update());
            teller.tell(&current, &known).await;
        }
    }
    if let Err(error) = election.leave().await {
        tracing::debug!(%error, "the Lease was not given back");
    }
}

/// Keeps this replica's Leases, and hears which gateways have filters.
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
}

impl StatusWriter {
    async fn tell(&self, statuses: &[PolicyConditions], filters: &BTreeSet<String>) {
        for conditions in statuses {
            let Some(status) = conditions.status(filters, &Time(Timestamp::now())) else { continue };
            if let Err(error) = self.write(conditions, &status).await {
                // It is tried again at the next look.
                tracing::warn!(policy = %conditions.object.name, %error, "the status cannot be written");
            }
        }
    }

    async fn write(&self, conditions: &PolicyConditions, status: &PolicyStatus) -> Result<(), kube::Error> {
        let object = &conditions.object;
        let mut resource = ApiResource::erase::<TokenRateLimitPolicy>(&());
        resource.group = object.group.name().to_owned();
        resource.api_version = format!("{}/{}", resource.group, resource.version);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &object.name.namespace, &resource);
        let patch = Patch::Merge(json!({ "status": status }));
        match api.patch_status(&object.name.name, &PatchParams::default(), &patch).await {
            // It is gone by now.
            Err(kube::Error::Api(error)) if error.code == 404 => return Ok(()),
            object => object.map(drop)?,
        }
        let about = ObjectReference {
            api_version: Some(resource.api_version),
            kind: Some(resource.kind),
            namespace: Some(object.name.namespace.clone()),
            name: Some(object.name.name.clone()),
            uid: Some(object.uid.clone()),
            ..ObjectReference::default()
        };
        for event in events(object.status.get("conditions"), status) {
            self.recorder.publish(&event, &about).await?;
        }
        Ok(())
    }
}

/// One for each condition that says something else than before.
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
        // The API takes this much of it.
        note: Some(condition.message.chars().take(1000).collect()),
        action: condition.type_.clone(),
        secondary: None,
    })
    .collect()
}
