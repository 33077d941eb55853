//! The connection to Redis. It is opened when it is first needed. If it fails, it is dropped and opened
//! again. A new connection is used once the server has executed the probe, which calls every command that
//! Weir needs, so that a server that supports only some of them is not used at all.
//!
//! While there is no connection, calls fail instead of queueing, so that each policy's `failureMode` applies.
//! A call without a reply may have been executed.

use super::channel;
use super::connect::{self, Connection};
use super::credentials::CredentialFiles;
use super::errors::{error_of_call, unavailable};
use super::key_name::{KeyNames, ONLY_TAG, SHARD_TAGS};
use super::library::Function;
use super::sentinels::{self, Failover};
use super::url::{RedisUrl, Topology};
use crate::ledger::recalls::Recalls;
use crate::ledger::{StorageFault, Unavailable};
use futures::future::join_all;
use redis::{FromRedisValue, RedisError, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// The timeout for replies and connection attempts.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The pause between two connection attempts.
const BACKOFF: Duration = Duration::from_millis(200);

/// How long calls are held back if nobody announces the end of a failover.
const FAILOVER: Duration = Duration::from_secs(10);

/// Returns a key for the probe of each shard.
fn probe_keys(of: &Topology, prefix: &str) -> Arc<[String]> {
    let tags = match of {
        Topology::Cluster => SHARD_TAGS.as_slice(),
        Topology::One | Topology::Sentinel(_) => &[ONLY_TAG],
    };
    tags.iter().map(|tag| KeyNames::new(prefix, tag).own("probe")).collect()
}

/// A connection that is opened again after it fails.
pub struct Link {
    place: RedisUrl,
    files: CredentialFiles,
    probe_keys: Arc<[String]>,
    timeout: Duration,
    /// The channel for recalls, and what arrives there.
    channel: String,
    recalls: Arc<Recalls>,
    state: Arc<LinkState>,
    /// Held while a connection is opened. Contains the tasks that follow the sentinels and the channel.
    connecting: tokio::sync::Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct LinkState(Mutex<Links>);

#[derive(Default)]
struct Links {
    open: Option<OpenConnection>,
    opened: u64,
    /// The time and the error of the last failed attempt to connect.
    failed: Option<(Instant, Unavailable)>,
    /// Until when no call is sent, because another server is becoming the master.
    held_back: Option<Instant>,
    /// The number of events of failovers.
    failovers: u64,
}

#[derive(Clone)]
struct OpenConnection {
    connection: Connection,
    number: u64,
}

impl LinkState {
    /// A panic cannot leave the state half changed.
    fn lock(&self) -> MutexGuard<'_, Links> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failover(&self, event: Failover) {
        let mut links = self.lock();
        links.open = None;
        links.failovers = links.failovers.wrapping_add(1);
        links.held_back = match event {
            Failover::Begins => Some(Instant::now() + FAILOVER),
            Failover::Ends => None,
        };
    }
}

impl Links {
    /// Returns the open connection. `None` if there is none, and an error if none may be opened now.
    fn usable(&mut self) -> Result<Option<OpenConnection>, Unavailable> {
        if self.held_back.take_if(|until| Instant::now() >= *until).is_none() && self.held_back.is_some() {
            return Err(another_master());
        }
        if let Some(open) = &self.open {
            return Ok(Some(open.clone()));
        }
        match &self.failed {
            Some((when, error)) if when.elapsed() < BACKOFF => Err(error.clone()),
            _ => Ok(None),
        }
    }
}

/// Returns the name of the channel for recalls.
fn channel_with(prefix: &str) -> String {
    format!("{prefix}weir:recalls")
}

fn reply_to_call(reply: Value) -> Result<Vec<i64>, RedisError> {
    match reply {
        Value::BulkString(error) => Err(error_of_call(&String::from_utf8_lossy(&error))),
        numbers => Ok(redis::from_redis_value(numbers)?),
    }
}

fn another_master() -> Unavailable {
    Unavailable::new(StorageFault::Unreachable, "another server is becoming the master")
}

impl Link {
    /// Creates a connection to this server, which is opened on first use. Fails if the URL is unusable.
    pub fn new(place: RedisUrl) -> Result<Self, String> {
        connect::check(&place).map_err(|error| unavailable(&place, &error).message)?;
        let recalls = Recalls::default();
        recalls.set_reach(false);
        Ok(Self {
            probe_keys: probe_keys(&place.kind, ""),
            place,
            files: CredentialFiles::default(),
            timeout: TIMEOUT,
            channel: channel_with(""),
            recalls: Arc::new(recalls),
            state: Arc::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Sets the prefix of the probe's keys and of the channel.
    pub fn with_prefix(self, prefix: &str) -> Self {
        let probe_keys = probe_keys(&self.place.kind, prefix);
        Self { probe_keys, channel: channel_with(prefix), ..self }
    }

    /// Sets the files with credentials.
    pub fn with_credentials(self, files: CredentialFiles) -> Self {
        Self { files, ..self }
    }

    pub fn is_cluster(&self) -> bool {
        self.place.kind == Topology::Cluster
    }

    /// Creates another connection to the same server.
    pub fn another(&self) -> Self {
        Self {
            place: self.place.clone(),
            files: self.files.clone(),
            probe_keys: Arc::clone(&self.probe_keys),
            timeout: self.timeout,
            channel: self.channel.clone(),
            recalls: Arc::clone(&self.recalls),
            state: Arc::default(),
            connecting: tokio::sync::Mutex::default(),
        }
    }

    /// Sets the timeout of a reply and of a connection attempt.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Calls a function.
    pub async fn run<T: FromRedisValue>(
        &self,
        function: Function,
        keys: &[String],
        arguments: &[String],
    ) -> Result<T, Unavailable> {
        let mut open = self.open().await?;
        let answered = open.connection.call(function, keys, arguments).await;
        answered.map_err(|error| self.failed(&open, &error))
    }

    /// Calls a function that replies to several calls, each with numbers or with a text that is its error.
    pub async fn run_batch(
        &self,
        function: Function,
        keys: &[String],
        arguments: &[String],
    ) -> Result<Vec<Result<Vec<i64>, Unavailable>>, Unavailable> {
        let mut open = self.open().await?;
        let answered = open.connection.call::<Vec<Value>>(function, keys, arguments).await;
        let replies = answered.map_err(|error| self.failed(&open, &error))?;
        let reply = |reply| reply_to_call(reply).map_err(|error| self.failed(&open, &error));
        Ok(replies.into_iter().map(reply).collect())
    }

    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> Result<T, Unavailable> {
        let mut open = self.open().await?;
        let mut words = command.iter();
        let mut asked = redis::cmd(words.next().copied().unwrap_or_default());
        for word in words {
            asked.arg(*word);
        }
        let answered = open.connection.ask(&asked).await;
        answered.map_err(|error| self.failed(&open, &error))
    }

    /// Classifies a failure. Drops the connection if it is broken, or if the server cannot be used any more,
    /// so that the next one is probed. Keeps a connection that was opened after the failed one.
    fn failed(&self, used: &OpenConnection, error: &RedisError) -> Unavailable {
        let unavailable = unavailable(&self.place, error);
        let is_unusable = match unavailable.fault {
            StorageFault::ReadOnly | StorageFault::Denied | StorageFault::Unsupported => true,
            StorageFault::Unreachable => {
                error.is_io_error() || error.is_unrecoverable_error() || error.code() == Some("MASTERDOWN")
            }
            StorageFault::Full | StorageFault::Failed => false,
        };
        if is_unusable {
            self.state.lock().open.take_if(|open| open.number == used.number);
        }
        unavailable
    }

    async fn open(&self) -> Result<OpenConnection, Unavailable> {
        if let Some(open) = self.state.lock().usable()? {
            return Ok(open);
        }
        // One task connects, and the others wait for its result.
        let mut followers = self.connecting.lock().await;
        if let Some(open) = self.state.lock().usable()? {
            return Ok(open);
        }
        if followers.is_empty() {
            self.follow_sentinels(&mut followers);
            self.follow_channel(&mut followers);
        }
        let failovers = self.state.lock().failovers;
        let opened = match tokio::time::timeout(3 * self.timeout, self.opened()).await {
            Ok(opened) => opened,
            Err(_) => Err(Unavailable::new(StorageFault::Unreachable, "connecting to Redis timed out")),
        };
        let mut links = self.state.lock();
        match opened {
            // The connection may lead to the old master.
            Ok(_) if links.failovers != failovers => Err(another_master()),
            Ok(connection) => {
                tracing::info!(place = ?self.place, "connected to Redis");
                links.opened = links.opened.wrapping_add(1);
                links.failed = None;
                let open = OpenConnection { connection, number: links.opened };
                links.open = Some(open.clone());
                Ok(open)
            }
            Err(error) => {
                links.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Opens a connection and runs the probe in all shards.
    async fn opened(&self) -> Result<Connection, Unavailable> {
        let mut connection = Connection::open(&self.place, &self.files.read()?, self.timeout).await?;
        let probes = join_all(self.probe_keys.iter().map(|key| self.probed(connection.clone(), key))).await;
        probes.into_iter().collect::<Result<(), _>>()?;
        if let Some(policy) = connection.evicts().await {
            tracing::warn!(
                policy,
                "this Redis evicts counters when its memory is full: set maxmemory-policy to noeviction"
            );
        }
        Ok(connection)
    }

    /// Runs the probe in one shard. A full server is used, because charges and releases still work. A cluster is
    /// used without the masters that do not answer.
    async fn probed(&self, mut connection: Connection, key: &String) -> Result<(), Unavailable> {
        let probe = connection.call::<Vec<i64>>(Function::Probe, std::slice::from_ref(key), &[]);
        let answer = tokio::time::timeout(self.timeout, probe).await;
        let unavailable = match answer {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => unavailable(&self.place, &error),
            Err(_) => Unavailable::new(StorageFault::Unreachable, "Redis does not answer in time"),
        };
        match unavailable.fault {
            StorageFault::Full => Ok(()),
            StorageFault::Unreachable if self.is_cluster() => Ok(()),
            _ => Err(unavailable),
        }
    }

    /// What adapters recall.
    pub fn recalls(&self) -> Arc<Recalls> {
        Arc::clone(&self.recalls)
    }

    /// Passes recalls on to all adapters. If this fails, workers of other adapters may keep their leases until they
    /// expire.
    pub async fn recall(&self, buckets: &[u64]) {
        self.recalls.pass_on(buckets);
        let Ok(mut open) = self.open().await else { return };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&self.channel).arg(channel::message(buckets));
        if let Err(error) = open.connection.ask::<i64>(&publish).await {
            tracing::debug!(%error, "a recall reaches only the workers of this adapter");
        }
    }

    fn follow_channel(&self, followers: &mut JoinSet<()>) {
        let (place, files, name) = (self.place.clone(), self.files.clone(), self.channel.clone());
        let recalls = self.recalls();
        followers.spawn(async move { channel::follow(&place, &files, &name, &recalls).await });
    }

    fn follow_sentinels(&self, followers: &mut JoinSet<()>) {
        let Topology::Sentinel(name) = &self.place.kind else { return };
        for node in &self.place.nodes {
            let (place, node, name) = (self.place.clone(), node.clone(), name.clone());
            let (files, state) = (self.files.clone(), Arc::clone(&self.state));
            followers.spawn(async move {
                sentinels::follow(&place, &node, &name, &files, |event| state.failover(event)).await;
            });
        }
    }
}
