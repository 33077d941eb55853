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

/// The pause between two connections, and if this user of Redis may not use the channel.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_IF_DENIED: Duration = Duration::from_secs(60);

/// The timeout for finding the master.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What to log if this user of Redis may not use the channel.
const DENIED: &str = "this user of Redis may not use the channel, so there are no leases (--lease-percent)";

/// Formats recalled buckets as a message.
pub fn message(buckets: &[u64]) -> String {
    let numbers: Vec<String> = buckets.iter().map(|bucket| format!("{bucket:x}")).collect();
    numbers.join(" ")
}

/// Passes the recalls of all adapters on. Never returns. There are no leases before they arrive. If they stop arriving,
/// leases last until they do again: workers can then admit requests while Redis is unreachable.
pub async fn follow(place: &RedisUrl, files: &CredentialFiles, channel: &str, recalls: &Recalls) {
    let (mut is_told, mut was_subscribed) = (false, false);
    for node in place.nodes.iter().cycle() {
        let followed = match files.read() {
            Ok(credentials) => events(place, node, &credentials, channel, recalls, &mut was_subscribed).await,
            Err(error) => Err(error),
        };
        recalls.set_reach(false);
        // Other faults concern all calls, and are logged with them.
        let denied = followed.err().filter(|error| error.fault == StorageFault::Denied);
        let pause = if denied.is_some() { AGAIN_IF_DENIED } else { AGAIN };
        if let Some(error) = denied
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::warn!(%error, channel, "{DENIED}");
        }
        tokio::time::sleep(pause).await;
    }
}

/// Passes the messages of one connection on.
async fn events(
    place: &RedisUrl,
    node: &str,
    credentials: &Credentials,
    channel: &str,
    recalls: &Recalls,
    was_subscribed: &mut bool,
) -> Result<(), Unavailable> {
    let node = match &place.kind {
        Topology::Sentinel(name) => sentinels::master(place, name, credentials, TIMEOUT).await?,
        Topology::One | Topology::Cluster => node.to_owned(),
    };
    let failed = |error| unavailable(place, &error);
    let subscriber = subscriber(place, &node, credentials).map_err(failed)?;
    // An empty message shows whether this user of Redis may also recall.
    let mut publisher = subscriber.get_multiplexed_async_connection().await.map_err(failed)?;
    let publish = redis::cmd("PUBLISH").arg(channel).arg("").to_owned();
    publish.query_async::<i64>(&mut publisher).await.map_err(failed)?;
    drop(publisher);
    let mut events = subscriber.get_async_pubsub().await.map_err(failed)?;
    events.subscribe(channel).await.map_err(failed)?;
    // Recalls may have been missed. The first time, there are no leases yet.
    if std::mem::replace(was_subscribed, true) {
        recalls.pass_on_all();
    }
    recalls.set_reach(true);
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
