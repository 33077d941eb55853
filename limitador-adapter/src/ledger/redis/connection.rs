//! The connection to Redis. It is opened when it is first needed. If it fails, it is dropped and opened
//! again. No other file uses the `redis` crate.
//!
//! While there is no connection, calls fail instead of queueing, so that each policy's `failureMode` applies.
//! A call without a reply may have been executed.

use super::url::{RedisUrl, Topology};
use crate::ledger::Unavailable;
use crate::secret::without;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, IntoConnectionInfo, RedisError,
    RedisResult, TlsMode,
};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The timeout for replies and connection attempts.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The pause between two connection attempts.
const BACKOFF: Duration = Duration::from_millis(200);

/// The number of calls that may be in flight. Further calls wait.
const AT_ONCE: usize = 1024;

/// The error code that Redis returns when it is out of memory.
const FULL: &str = "OOM";

/// A Lua script.
pub struct Script(redis::Script);

impl Script {
    pub fn new(source: &str) -> Self {
        Self(redis::Script::new(source))
    }
}

/// A connection that is opened again after it fails.
pub struct Link {
    place: RedisUrl,
    timeout: Duration,
    state: Mutex<LinkState>,
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct LinkState {
    open: Option<OpenConnection>,
    opened: u64,
    /// The time and the error of the last failed attempt to connect.
    failed: Option<(Instant, String)>,
}

#[derive(Clone)]
struct OpenConnection {
    connection: Connection,
    number: u64,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Creates a connection to this server, which is opened on first use. Fails if the URL is unusable.
    pub fn new(place: RedisUrl) -> Result<Self, String> {
        let checked = nodes(&place).map(drop).map_err(|error| told(&place, &error));
        let connecting = tokio::sync::Mutex::default();
        checked.map(|()| Self { place, timeout: TIMEOUT, state: Mutex::default(), connecting })
    }

    pub fn is_cluster(&self) -> bool {
        self.place.kind == Topology::Cluster
    }

    /// Creates another connection to the same server.
    pub fn another(&self) -> Self {
        let (place, timeout) = (self.place.clone(), self.timeout);
        Self { place, timeout, state: Mutex::default(), connecting: tokio::sync::Mutex::default() }
    }

    /// Sets the timeout of a reply and of a connection attempt.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Runs a script in one round trip, or in two if the server does not have the script yet.
    pub async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
    ) -> Result<T, Unavailable> {
        let mut open = self.open().await?;
        let mut invocation = script.0.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        let answered = match &mut open.connection {
            Connection::One(connection) => invocation.invoke_async(connection).await,
            Connection::Cluster(connection) => invocation.invoke_async(connection).await,
        };
        answered.map_err(|error| match error.code() {
            Some(FULL) => Unavailable::Full(error.to_string()),
            _ => self.failed(&open, &error),
        })
    }

    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T, Unavailable> {
        let mut open = self.open().await?;
        let mut words = command.iter();
        let mut asked = redis::cmd(words.next().copied().unwrap_or_default());
        for word in words {
            asked.arg(*word);
        }
        let answered = match &mut open.connection {
            Connection::One(connection) => asked.query_async(connection).await,
            Connection::Cluster(connection) => asked.query_async(connection).await,
        };
        answered.map_err(|error| self.failed(&open, &error))
    }

    /// Classifies a failure. Drops the connection if it is broken, does not reply, or leads to a server that
    /// is no longer the master. Keeps a connection that was opened after the failed one.
    fn failed(&self, used: &OpenConnection, error: &RedisError) -> Unavailable {
        let replaced = matches!(error.code(), Some("READONLY" | "MASTERDOWN"));
        if replaced || error.is_io_error() || error.is_unrecoverable_error() {
            let mut state = self.state();
            if state.open.take_if(|open| open.number == used.number).is_some() {
                let error = told(&self.place, error);
                tracing::error!(error, place = ?self.place, "the connection to Redis was lost");
            }
        }
        let is_alone = matches!(used.connection, Connection::One(_));
        let hint = if is_alone && matches!(error.code(), Some("MOVED" | "ASK" | "CLUSTERDOWN")) {
            ": this Redis is a node of a cluster; use redis+cluster://HOST:PORT"
        } else {
            ""
        };
        Unavailable::Storage(format!("{}{hint}", told(&self.place, error)))
    }

    async fn open(&self) -> Result<OpenConnection, Unavailable> {
        if let Some(open) = &self.state().open {
            return Ok(open.clone());
        }
        // One task connects, and the others wait for its result.
        let _alone = self.connecting.lock().await;
        {
            let state = self.state();
            if let Some(open) = &state.open {
                return Ok(open.clone());
            }
            if let Some((_, why)) = state.failed.as_ref().filter(|(when, _)| when.elapsed() < BACKOFF) {
                return Err(Unavailable::Storage(why.clone()));
            }
        }
        let connected = match tokio::time::timeout(2 * self.timeout, connect(&self.place, self.timeout)).await
        {
            Ok(connected) => connected.map_err(|error| told(&self.place, &error)),
            Err(_) => Err("connecting to Redis timed out".to_owned()),
        };
        let evicts = match &connected {
            Ok(connection) => evicts(connection.clone()).await,
            Err(_) => None,
        };
        let mut state = self.state();
        match connected {
            Ok(connection) => {
                if let Some(policy) = evicts {
                    tracing::warn!(
                        policy,
                        "this Redis evicts counters when its memory is full: set maxmemory-policy to noeviction"
                    );
                }
                tracing::info!(place = ?self.place, "connected to Redis");
                state.opened = state.opened.wrapping_add(1);
                let open = OpenConnection { connection, number: state.opened };
                state.open = Some(open.clone());
                state.failed = None;
                Ok(open)
            }
            Err(why) => {
                if state.failed.as_ref().is_none_or(|(_, before)| *before != why) {
                    tracing::error!(place = ?self.place, why, "no connection to Redis");
                }
                state.failed = Some((Instant::now(), why.clone()));
                Err(Unavailable::Storage(why))
            }
        }
    }

    /// A panic cannot leave the state half changed.
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Formats an error for logs. Removes the arguments of the command, including those of AUTH, which a server
/// may repeat when it rejects the command.
fn told(place: &RedisUrl, error: &RedisError) -> String {
    let error = error.to_string();
    let (message, _) = error.split_once("with args beginning with").unwrap_or((&error, ""));
    without(message.trim_end_matches([' ', ',']), place.secrets()).into_owned()
}

async fn connect(place: &RedisUrl, timeout: Duration) -> RedisResult<Connection> {
    // Another part of this process may have installed the same TLS provider already.
    drop(rustls::crypto::ring::default_provider().install_default());
    let nodes = nodes(place)?;
    if place.kind == Topology::Cluster {
        let client = ClusterClient::builder(nodes)
            .connection_timeout(timeout)
            .response_timeout(timeout)
            .connection_concurrency_limit(AT_ONCE)
            .retries(2);
        return client.build()?.get_async_connection().await.map(Connection::Cluster);
    }
    let client = match &place.kind {
        Topology::Sentinel(master) => master_of(place, nodes, master).await?,
        _ => nodes.into_iter().next().map(Client::open).transpose()?.ok_or_else(no_node)?,
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(AT_ONCE);
    client.get_multiplexed_async_connection_with_config(&config).await.map(Connection::One)
}

/// Returns the eviction policy if Redis drops keys when its memory is full. If the server does not allow the
/// query, it is assumed not to.
async fn evicts(mut connection: Connection) -> Option<String> {
    let mut asked = redis::cmd("CONFIG");
    asked.arg("GET").arg("maxmemory*");
    let told: RedisResult<HashMap<String, String>> = match &mut connection {
        Connection::One(connection) => asked.query_async(connection).await,
        Connection::Cluster(connection) => asked.query_async(connection).await,
    };
    let told = told.ok()?;
    let limited = told.get("maxmemory").is_some_and(|bytes| bytes != "0");
    told.get("maxmemory-policy").filter(|policy| limited && *policy != "noeviction").cloned()
}

/// Returns the current master according to the sentinels. The password is not sent to the sentinels, because
/// it belongs to the master.
async fn master_of(place: &RedisUrl, nodes: Vec<ConnectionInfo>, name: &str) -> RedisResult<Client> {
    let of_master = nodes.first().ok_or_else(no_node)?.redis_settings().clone();
    let sentinels = nodes.into_iter().map(|node| node.addr().clone());
    let sentinels = sentinels.map(IntoConnectionInfo::into_connection_info).collect::<RedisResult<_>>()?;
    let mut node = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(of_master)
        .set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
    if place.tls {
        node = node.set_tls_mode(TlsMode::Secure);
    }
    let client: Vec<ConnectionInfo> = sentinels;
    let mut client = SentinelClient::build(client, name, Some(node), SentinelServerType::Master)?;
    client.async_get_client().await
}

/// Converts the nodes to the crate's type.
fn nodes(place: &RedisUrl) -> RedisResult<Vec<ConnectionInfo>> {
    let scheme = if place.tls { "rediss" } else { "redis" };
    let credentials = place.credentials.as_ref().map(|who| format!("{}@", who.expose())).unwrap_or_default();
    let nodes = place.nodes.iter().map(|node| {
        let url = format!("{scheme}://{credentials}{node}/{}", place.database);
        let info = url.into_connection_info()?;
        let settings = info.tcp_settings().clone().set_nodelay(true);
        Ok(info.set_tcp_settings(settings))
    });
    nodes.collect()
}

fn no_node() -> RedisError {
    RedisError::from((redis::ErrorKind::InvalidClientConfig, "no nodes"))
}
