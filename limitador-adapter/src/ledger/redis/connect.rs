//! Opens connections to Redis.

use super::credentials::{Credentials, with_password};
use super::errors::unavailable;
use super::library::{self, Function};
use super::sentinels;
use super::url::{RedisUrl, Topology};
use crate::ledger::Unavailable;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisResult};
use std::collections::HashMap;
use std::time::Duration;

/// The number of calls that may be in flight. Further calls wait.
const AT_ONCE: usize = 1024;

#[derive(Clone)]
pub enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects to the server, to the cluster, or to the master that the sentinels know.
    pub async fn open(
        place: &RedisUrl,
        credentials: &Credentials,
        timeout: Duration,
    ) -> Result<Self, Unavailable> {
        // Another part of this process may have installed the same TLS provider already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let opened = match &place.kind {
            Topology::One => {
                one(place, place.nodes.first().map_or("", String::as_str), credentials, timeout).await
            }
            Topology::Cluster => cluster(place, credentials, timeout).await,
            Topology::Sentinel(name) => {
                let master = sentinels::master(place, name, credentials, timeout).await?;
                one(place, &master, credentials, timeout).await
            }
        };
        opened.map_err(|error| unavailable(place, &error))
    }

    pub async fn ask<T: FromRedisValue>(&mut self, command: &redis::Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => command.query_async(connection).await,
            Self::Cluster(connection) => command.query_async(connection).await,
        }
    }

    /// Calls a function in one round trip, or in three if the server does not have the library yet.
    pub async fn call<T: FromRedisValue>(
        &mut self,
        function: Function,
        keys: &[String],
        arguments: &[String],
    ) -> RedisResult<T> {
        let call = library::call(function, keys, arguments);
        match self.ask(&call).await {
            Err(error) if library::is_missing(&error) => {}
            answer => return answer,
        }
        // A cluster that lacks one of its masters still loads it into the others.
        let loaded = self.ask::<String>(&library::load()).await;
        match (self.ask(&call).await, loaded) {
            (Err(error), Err(unloaded)) if library::is_missing(&error) => Err(unloaded),
            (answer, _) => answer,
        }
    }

    /// Returns the eviction policy if Redis drops keys when its memory is full. If the server does not allow
    /// the query, it is assumed not to.
    pub async fn evicts(&mut self) -> Option<String> {
        let told: RedisResult<HashMap<String, String>> =
            self.ask(redis::cmd("CONFIG").arg("GET").arg("maxmemory*")).await;
        let told = told.ok()?;
        let limited = told.get("maxmemory").is_some_and(|bytes| bytes != "0");
        told.get("maxmemory-policy").filter(|policy| limited && *policy != "noeviction").cloned()
    }
}

/// Checks that the URL is usable.
pub fn check(place: &RedisUrl) -> RedisResult<()> {
    place.nodes.iter().try_for_each(|node| node_of(place, node).map(drop))
}

async fn one(
    place: &RedisUrl,
    node: &str,
    credentials: &Credentials,
    timeout: Duration,
) -> RedisResult<Connection> {
    let node = node_of(place, node)?;
    let settings = with_password(node.redis_settings().clone(), credentials.password.as_ref());
    let client = client(node.set_redis_settings(settings), credentials)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(AT_ONCE);
    client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
}

async fn cluster(place: &RedisUrl, credentials: &Credentials, timeout: Duration) -> RedisResult<Connection> {
    let nodes: RedisResult<Vec<_>> = place.nodes.iter().map(|node| node_of(place, node)).collect();
    let mut client = ClusterClient::builder(nodes?)
        .connection_timeout(timeout)
        .response_timeout(timeout)
        .connection_concurrency_limit(AT_ONCE)
        .retries(2);
    if let Some(password) = &credentials.password {
        client = client.password(password.expose());
    }
    if let Some(certificates) = &credentials.certificates {
        client = client.certs(certificates.clone());
    }
    client.build()?.get_async_connection().await.map(Connection::Cluster)
}

/// Returns a client for a node.
pub fn client(node: ConnectionInfo, credentials: &Credentials) -> RedisResult<Client> {
    match &credentials.certificates {
        Some(certificates) => Client::build_with_tls(node, certificates.clone()),
        None => Client::open(node),
    }
}

/// Converts a node ("HOST:PORT") to the crate's type, with the user and the password of the URL.
pub fn node_of(place: &RedisUrl, node: &str) -> RedisResult<ConnectionInfo> {
    let scheme = if place.tls { "rediss" } else { "redis" };
    let credentials = place.credentials.as_ref().map(|who| format!("{}@", who.expose())).unwrap_or_default();
    let url = format!("{scheme}://{credentials}{node}/{}", place.database);
    let info = url.into_connection_info()?;
    let settings = info.tcp_settings().clone().set_nodelay(true);
    Ok(info.set_tcp_settings(settings))
}
