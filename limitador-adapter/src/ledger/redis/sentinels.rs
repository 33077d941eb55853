//! Asks sentinels for the master, and follows their failovers.
//!
//! During a failover, the old master continues to accept writes for seconds, and then discards them. So no
//! call is sent from the moment when a sentinel decides on the new master until it has taken over. Filters
//! keep their charges meanwhile.

use super::connect::{client, node_of};
use super::credentials::{CredentialFiles, Credentials, with_password};
use super::errors::unavailable;
use super::url::RedisUrl;
use crate::ledger::{StorageFault, Unavailable};
use futures::StreamExt;
use futures::future::join_all;
use redis::{AsyncConnectionConfig, Client, RedisConnectionInfo, RedisError, RedisResult};
use std::collections::HashMap;
use std::time::Duration;

/// The pause before the events of a sentinel are requested again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a failover means for calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failover {
    /// A sentinel has chosen a replica, and makes it the master now.
    Begins,
    /// The failover is complete, or was aborted.
    Ends,
}

impl Failover {
    /// The events of sentinels that matter, with their meaning.
    const EVENTS: [(&'static str, Self); 5] = [
        ("+failover-state-send-slaveof-noone", Self::Begins),
        ("+switch-master", Self::Ends),
        ("-failover-abort-no-good-slave", Self::Ends),
        ("-failover-abort-slave-timeout", Self::Ends),
        ("-failover-abort-not-elected", Self::Ends),
    ];

    /// Reads an event. `None` if it concerns another master.
    fn read(event: &str, payload: &str, master: &str) -> Option<Self> {
        // "MASTER ...", "master MASTER ..." or "slave NAME IP PORT @ MASTER ...".
        let of = match payload.split_once(" @ ") {
            Some((_, of)) => of,
            None => payload.strip_prefix("master ").unwrap_or(payload),
        };
        let (_, meaning) = Self::EVENTS.iter().find(|(name, _)| *name == event)?;
        (of.split(' ').next() == Some(master)).then_some(*meaning)
    }
}

/// Returns the master's address as "HOST:PORT". Sentinels disagree during a failover, and the one with the
/// newest configuration is right.
pub async fn master(
    place: &RedisUrl,
    name: &str,
    credentials: &Credentials,
    timeout: Duration,
) -> Result<String, Unavailable> {
    let answers =
        join_all(place.nodes.iter().map(|node| view(place, node, name, credentials, timeout))).await;
    let (mut newest, mut problem) = (None::<MasterView>, None);
    for answer in answers {
        match answer {
            Ok(view) if newest.as_ref().is_none_or(|newest| newest.epoch < view.epoch) => newest = Some(view),
            Ok(_) => {}
            Err(error) => problem = Some(error),
        }
    }
    match (newest, problem) {
        (Some(newest), _) => Ok(newest.address),
        (None, Some(error)) => Err(unavailable(place, &error)),
        (None, None) => Err(Unavailable::new(StorageFault::Unreachable, "there are no sentinels")),
    }
}

/// The master according to one sentinel.
struct MasterView {
    address: String,
    /// The version of the sentinel's configuration.
    epoch: u64,
}

async fn view(
    place: &RedisUrl,
    node: &str,
    name: &str,
    credentials: &Credentials,
    timeout: Duration,
) -> RedisResult<MasterView> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    let sentinel = sentinel(place, node, credentials)?;
    let mut connection = sentinel.get_multiplexed_async_connection_with_config(&config).await?;
    let told: HashMap<String, String> =
        redis::cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await?;
    let field = |field: &str| {
        let missing = || {
            RedisError::from((redis::ErrorKind::UnexpectedReturnType, "the sentinel's answer is incomplete"))
        };
        told.get(field).ok_or_else(missing)
    };
    let (ip, port) = (field("ip")?, field("port")?);
    let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    Ok(MasterView { address, epoch: field("config-epoch")?.parse().unwrap_or_default() })
}

/// Returns a client for a sentinel. The user and the password in the URL belong to the master.
fn sentinel(place: &RedisUrl, node: &str, credentials: &Credentials) -> RedisResult<Client> {
    let settings = with_password(RedisConnectionInfo::default(), credentials.sentinel_password.as_ref());
    client(node_of(place, node)?.set_redis_settings(settings), credentials)
}

/// Reports the failovers of a master that one sentinel announces. Never returns.
pub async fn follow(
    place: &RedisUrl,
    node: &str,
    name: &str,
    files: &CredentialFiles,
    report: impl Fn(Failover) + Sync,
) {
    loop {
        if let Ok(credentials) = files.read()
            && let Ok(client) = sentinel(place, node, &credentials)
        {
            // Whether the sentinel is away does not matter while another one answers.
            drop(events(&client, name, &report).await);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Reports the events of one connection.
async fn events(client: &Client, name: &str, report: impl Fn(Failover)) -> RedisResult<()> {
    let mut events = client.get_async_pubsub().await?;
    for (event, _) in Failover::EVENTS {
        events.subscribe(event).await?;
    }
    let mut messages = events.on_message();
    while let Some(message) = messages.next().await {
        let payload: String = message.get_payload()?;
        Failover::read(message.get_channel_name(), &payload, name).into_iter().for_each(&report);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_one_master() {
        for (event, payload, meaning) in [
            (
                "+failover-state-send-slaveof-noone",
                "slave 10.0.0.2:6379 10.0.0.2 6379 @ main 10.0.0.1 6379",
                Some(Failover::Begins),
            ),
            ("+switch-master", "main 10.0.0.1 6379 10.0.0.2 6379", Some(Failover::Ends)),
            ("-failover-abort-slave-timeout", "master main 10.0.0.1 6379", Some(Failover::Ends)),
            ("+switch-master", "other 10.0.0.1 6379 10.0.0.2 6379", None),
            ("+failover-state-send-slaveof-noone", "slave main 10.0.0.2 6379 @ other 10.0.0.1 6379", None),
            ("+sdown", "master main 10.0.0.1 6379", None),
            ("+switch-master", "", None),
        ] {
            assert_eq!(Failover::read(event, payload, "main"), meaning, "{event} {payload}");
        }
    }
}
