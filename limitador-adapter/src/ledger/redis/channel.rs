//! The channel through which adapters recall leases, because a worker may be at any of them.

use super::connect::{client, node_of};
use super::credentials::{CredentialFiles, Credentials, with_password};
use super::errors::unavailable;
use super::sentinels;
use super::url::{RedisUrl, Topology};
use crate::ledger::recalls::Recalls;
use crate::ledger::{StorageFault, Unavailable};
use futures::StreamExt;
use redis::{Client, RedisResult};
use std::time::Duration;

/// The pause between two connections.
const AGAIN: Duration = Duration::from_secs(1);

/// The timeout for finding the master.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Formats recalled buckets as a message.
pub fn message(buckets: &[u64]) -> String {
    let numbers: Vec<String> = buckets.iter().map(|bucket| format!("{bucket:x}")).collect();
    numbers.join(" ")
}

/// Passes the recalls of all adapters on. Never returns.
pub async fn follow(place: &RedisUrl, files: &CredentialFiles, channel: &str, recalls: &Recalls) {
    let mut is_told = false;
    for node in place.nodes.iter().cycle() {
        let followed = match files.read() {
            Ok(credentials) => events(place, node, &credentials, channel, recalls).await,
            Err(error) => Err(error),
        };
        // Other faults concern all calls, and are logged with them.
        if let Err(error) = followed
            && error.fault == StorageFault::Denied
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::warn!(%error, channel, "this user of Redis may not use the channel, so leases (--lease-percent) are not recalled at other adapters");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Passes the messages of one connection on.
async fn events(
    place: &RedisUrl,
    node: &str,
    credentials: &Credentials,
    channel: &str,
    recalls: &Recalls,
) -> Result<(), Unavailable> {
    let node = match &place.kind {
        Topology::Sentinel(name) => sentinels::master(place, name, credentials, TIMEOUT).await?,
        Topology::One | Topology::Cluster => node.to_owned(),
    };
    let failed = |error| unavailable(place, &error);
    let subscriber = subscriber(place, &node, credentials).map_err(failed)?;
    let mut events = subscriber.get_async_pubsub().await.map_err(failed)?;
    events.subscribe(channel).await.map_err(failed)?;
    let mut messages = events.on_message();
    while let Some(message) = messages.next().await {
        let payload: String = message.get_payload().map_err(failed)?;
        let buckets: Vec<u64> =
            payload.split(' ').filter_map(|number| u64::from_str_radix(number, 16).ok()).collect();
        recalls.pass_on(&buckets);
    }
    Ok(())
}

fn subscriber(place: &RedisUrl, node: &str, credentials: &Credentials) -> RedisResult<Client> {
    let node = node_of(place, node)?;
    let settings = with_password(node.redis_settings().clone(), credentials.password.as_ref());
    client(node.set_redis_settings(settings), credentials)
}
