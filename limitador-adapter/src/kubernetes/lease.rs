//! Elects the replica that writes statuses: the holder of a Lease. In addition, each replica has a Lease that
//! lists the gateways that its filters serve, because a filter connects to only one replica.

use super::DEFAULT_CONTROLLER;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The Lease of the default controller, and the prefix of the names of other Leases.
const NAME: &str = "limitador-adapter";
/// The duration of a Lease. If the holder dies, another replica takes over and corrects the statuses within
/// this time.
pub const DURATION: Duration = Duration::from_secs(10);
/// The interval between checks.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The interval between renewals.
const RENEW_EVERY: Duration = Duration::from_millis(1_900);
/// A holder that has not renewed the Lease for this long stops writing, before another replica may take over.
const TRUST: Duration = Duration::from_secs(5);

/// The interval between identical reports by a replica.
const TELL_EVERY: Duration = Duration::from_secs(5);

const PRESENCE: &str = "weir.dev/presence";
const GATEWAYS: &str = "weir.dev/gateways";

/// One replica's view of the Lease.
pub struct Election {
    api: Api<Lease>,
    identity: String,
    /// The writer's Lease.
    name: String,
    /// The Lease's version and when it was first seen. Clocks of different machines are never compared.
    seen: Option<(String, Instant)>,
    renewed: Option<Instant>,
    /// The last report about this replica's filters, and when it was written.
    told: Option<(BTreeSet<String>, Instant)>,
}

/// The action that a Lease requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStep {
    /// Take or renew the Lease. No other replica holds it.
    Hold,
    /// Wait. Another replica holds the Lease.
    Wait,
}

/// Decides whether to take the Lease. Pure. `unchanged` is how long the Lease has not changed. Another
/// replica's Lease is taken after two thirds of its duration, because a change may be noticed one interval
/// late and statuses must still be written in time.
pub fn decide(spec: &LeaseSpec, me: &str, unchanged: Duration) -> LeaseStep {
    let duration = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(DURATION, Duration::from_secs);
    match spec.holder_identity.as_deref() {
        None | Some("") => LeaseStep::Hold,
        Some(holder) if holder == me => LeaseStep::Hold,
        Some(_) if unchanged >= duration * 2 / 3 => LeaseStep::Hold,
        Some(_) => LeaseStep::Wait,
    }
}

fn name(controller: &str) -> String {
    if controller == DEFAULT_CONTROLLER {
        return NAME.to_owned();
    }
    let digest: [u8; 32] = Sha256::digest(controller).into();
    let [a, b, c, d, ..] = digest;
    format!("{NAME}-{:08x}", u32::from_be_bytes([a, b, c, d]))
}

impl Election {
    /// Creates the Lease in the adapter's namespace. Installations with different controller names are
    /// independent.
    pub fn new(client: Client, identity: &str, controller: &str) -> Self {
        let api = Api::default_namespaced(client);
        let (identity, name) = (identity.to_owned(), name(controller));
        Self { api, identity, name, seen: None, renewed: None, told: None }
    }

    /// Returns whether this replica may write.
    pub fn leads(&self) -> bool {
        self.renewed.is_some_and(|renewed| renewed.elapsed() < TRUST)
    }

    /// Checks the Lease. Takes or renews it if allowed.
    pub async fn look(&mut self) -> Result<(), kube::Error> {
        if self.renewed.is_some_and(|renewed| renewed.elapsed() < RENEW_EVERY) {
            return Ok(());
        }
        let asked = Instant::now();
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.held(&LeaseSpec::default())) };
            return self.written(self.api.create(&PostParams::default(), &lease).await, asked);
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let since = match &self.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        self.seen = Some((version, since));
        let spec = lease.spec.take().unwrap_or_default();
        if decide(&spec, &self.identity, since.elapsed()) == LeaseStep::Wait {
            self.renewed = None;
            return Ok(());
        }
        lease.spec = Some(self.held(&spec));
        // The request contains the version that was read, so only one of two concurrent attempts succeeds.
        self.written(self.api.replace(&self.name, &PostParams::default(), &lease).await, asked)
    }

    /// Handles the response to a write. `asked` is a time before the server can have applied the write. So
    /// this replica never trusts its renewal longer than others do.
    fn written(&mut self, written: Result<Lease, kube::Error>, asked: Instant) -> Result<(), kube::Error> {
        match written {
            Ok(_) => {
                if !self.leads() {
                    tracing::info!(identity = self.identity, "this replica writes statuses now");
                }
                self.renewed = Some(asked);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.renewed = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn held(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if mine { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(
                before.lease_transitions.unwrap_or_default().saturating_add(i32::from(!mine)),
            ),
            ..LeaseSpec::default()
        }
    }

    /// Releases the Lease, so that the next holder does not have to wait.
    pub async fn leave(&mut self) -> Result<(), kube::Error> {
        if self.leads()
            && let Some(mut lease) = self.api.get_opt(&self.name).await?
            && let Some(spec) =
                lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        {
            spec.holder_identity = Some(String::new());
            self.api.replace(&self.name, &PostParams::default(), &lease).await?;
        }
        self.renewed = None;
        let own = self.own();
        self.api.delete(&own, &Default::default()).await.map(drop)
    }

    fn own(&self) -> String {
        format!("{}-{}", self.name, self.identity)
    }

    fn presence(&self) -> &str {
        self.name.strip_prefix(NAME).unwrap_or_default().trim_start_matches('-')
    }

    /// Reports which gateways' filters follow this replica, unless it has reported the same recently.
    pub async fn tell(&mut self, following: &BTreeSet<String>) -> Result<(), kube::Error> {
        let lately =
            |(told, when): &(BTreeSet<String>, Instant)| told == following && when.elapsed() < TELL_EVERY;
        if self.told.as_ref().is_some_and(lately) {
            return Ok(());
        }
        let gateways: Vec<_> = following.iter().map(String::as_str).collect();
        let own = self.own();
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": { "name": own, "labels": { PRESENCE: self.presence() }, "annotations": { GATEWAYS: gateways.join(" ") } },
            "spec": { "holderIdentity": self.identity, "renewTime": MicroTime(Timestamp::now()), "leaseDurationSeconds": DURATION.as_secs() },
        });
        let parameters = PatchParams::apply("limitador-adapter").force();
        self.api.patch(&own, &parameters, &Patch::Apply(lease)).await?;
        self.told = Some((following.clone(), Instant::now()));
        Ok(())
    }

    /// Returns the gateways with filters that follow any replica. Deletes reports of replicas that are long
    /// gone.
    pub async fn told(&self) -> Result<BTreeSet<String>, kube::Error> {
        let mut gateways = BTreeSet::new();
        for lease in self
            .api
            .list(&ListParams::default().labels(&format!("{PRESENCE}={}", self.presence())))
            .await?
            .items
        {
            let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
            let age = renewed.map_or(i64::MAX, |renewed| {
                Timestamp::now().as_second().saturating_sub(renewed.0.as_second())
            });
            if age < 2 * i64::try_from(DURATION.as_secs()).unwrap_or(i64::MAX) {
                let told =
                    lease.metadata.annotations.unwrap_or_default().remove(GATEWAYS).unwrap_or_default();
                gateways.extend(told.split_whitespace().map(str::to_owned));
            } else if let (Some(name), true) = (lease.metadata.name, age > 3600) {
                self.api.delete(&name, &Default::default()).await?;
            }
        }
        Ok(gateways)
    }
}
