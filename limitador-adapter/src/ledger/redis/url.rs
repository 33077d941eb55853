//! Parses the URL of a Redis, as given to `--storage`. Pure; [`super::connection`] opens the connection.
//!
//! A password may be in the wrong part of the URL, so errors and `Debug` never repeat any part of it.

use crate::secret::Secret;
use llm::spelling::percent_decoded;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// A single Redis, a cluster, or a Redis that sentinels watch.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub kind: Topology,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// "HOST:PORT" for each node. There is at least one.
    pub nodes: Vec<String>,
    /// "USER:PASSWORD" or ":PASSWORD", as in a URL.
    pub credentials: Option<Secret>,
    /// The number of the database.
    pub database: u16,
}

/// The kind of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A single Redis.
    One,
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels, and the name of the master that they know.
    Sentinel(String),
}

/// Why a URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisUrlError {
    /// An unknown scheme.
    #[error(
        "is not the URL of a Redis; use redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], \
         redis+cluster://HOST:PORT,HOST:PORT or redis+sentinel://HOST:PORT,HOST:PORT/MASTER[/DATABASE]; rediss for TLS"
    )]
    Scheme,
    #[error("has no host")]
    NoHost,
    /// A node that cannot be parsed.
    #[error("has a node that is not HOST[:PORT]")]
    Node,
    /// A path that cannot be parsed.
    #[error("has a database that is not a number")]
    Database,
    /// Sentinels without a master's name.
    #[error("has no master; use redis+sentinel://HOST:PORT/MASTER")]
    NoMaster,
    /// Several nodes for a single Redis.
    #[error("has several hosts; use redis+cluster or redis+sentinel")]
    Several,
    /// A database for a cluster, which has only one.
    #[error("has a database, but a cluster has only one")]
    NoDatabases,
    /// A query string.
    #[error("has options after `?`, but none are supported")]
    Options,
}

impl FromStr for RedisUrl {
    type Err = RedisUrlError;

    fn from_str(text: &str) -> Result<Self, RedisUrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(RedisUrlError::Scheme)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return Err(RedisUrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(RedisUrlError::Options);
        }
        let (credentials, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(who, rest)| (Some(Secret::new(who)), rest));
        let mut path = rest.split('/');
        let nodes: Vec<_> = path.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        let kind = match kind {
            "" if nodes.len() > 1 => return Err(RedisUrlError::Several),
            "" => Topology::One,
            "cluster" => Topology::Cluster,
            "sentinel" => {
                let master =
                    path.next().filter(|master| !master.is_empty()).ok_or(RedisUrlError::NoMaster)?;
                Topology::Sentinel(master.to_owned())
            }
            _ => return Err(RedisUrlError::Scheme),
        };
        let path: Vec<_> = path.collect();
        let database = match path.as_slice() {
            [] | [""] => 0,
            _ if kind == Topology::Cluster => return Err(RedisUrlError::NoDatabases),
            [number] => number.parse().map_err(|_| RedisUrlError::Database)?,
            _ => return Err(RedisUrlError::Database),
        };
        let port = if matches!(kind, Topology::Sentinel(_)) { 26379 } else { 6379 };
        let nodes = nodes.into_iter().map(|node| with_port(node, port)).collect::<Result<_, _>>()?;
        Ok(Self { kind, tls, nodes, credentials, database })
    }
}

fn with_port(node: String, port: u16) -> Result<String, RedisUrlError> {
    let (host, written) = match node.rsplit_once(':').filter(|_| !node.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (node.as_str(), None),
    };
    if host.is_empty() {
        return Err(RedisUrlError::NoHost);
    }
    let is_port = written.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    match written {
        _ if !is_host(host) || !is_port => Err(RedisUrlError::Node),
        Some(_) => Ok(node),
        None => Ok(format!("{node}:{port}")),
    }
}

fn is_host(host: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => host.bytes().all(of_name),
    }
}

impl RedisUrl {
    pub fn has_password(&self) -> bool {
        self.credentials.as_ref().is_some_and(|who| who.expose().contains(':'))
    }

    /// Returns the texts to hide: the user and the password, both as written and percent-decoded.
    pub fn secrets(&self) -> Vec<String> {
        let written = self.credentials.as_ref().map(Secret::expose).unwrap_or_default();
        let (user, password) = written.split_once(':').unwrap_or((written, ""));
        let mut secrets: Vec<String> = vec![written.to_owned(), password.to_owned(), user.to_owned()];
        let meant: Vec<String> = secrets.iter().map(|secret| percent_decoded(secret).into_owned()).collect();
        secrets.extend(meant);
        // Shorter texts occur in ordinary messages, so hiding them would only garble those.
        secrets.retain(|secret| secret.len() >= 3);
        secrets
    }
}

impl fmt::Debug for RedisUrl {
    /// Hides credentials, because configurations are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, tls, nodes, .. } = self;
        let tls = if *tls { " over TLS" } else { "" };
        match kind {
            Topology::One => write!(f, "a Redis{tls}"),
            Topology::Cluster => write!(f, "a Redis cluster of {} nodes{tls}", nodes.len()),
            Topology::Sentinel(_) => write!(f, "a Redis with {} sentinels{tls}", nodes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match text.parse::<RedisUrl>() {
            Ok(RedisUrl { kind, tls, nodes, credentials, database }) => {
                format!(
                    "{kind:?} {tls} {} {} {database}",
                    nodes.join(","),
                    credentials.as_ref().map(Secret::expose).unwrap_or_default()
                )
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn places_that_are_good() {
        for (text, wanted) in [
            ("redis://localhost", "One false localhost:6379  0"),
            ("redis://10.0.0.1:7000/3", "One false 10.0.0.1:7000  3"),
            ("redis://[::1]", "One false [::1]:6379  0"),
            ("redis://[::1]:7000/", "One false [::1]:7000  0"),
            ("rediss://user:p@ss@host", "One true host:6379 user:p@ss 0"),
            ("redis+cluster://a,b:7000", "Cluster false a:6379,b:7000  0"),
            ("rediss+sentinel://:pw@a,b:1/main/2", "Sentinel(\"main\") true a:26379,b:1 :pw 2"),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
    }

    #[test]
    fn places_that_are_none() {
        for (text, wanted) in [
            ("redis://", "has no host"),
            ("redis://:6379", "has no host"),
            ("redis://a,b", "has several hosts; use redis+cluster or redis+sentinel"),
            ("redis://a/b", "has a database that is not a number"),
            ("redis://a/1/2", "has a database that is not a number"),
            ("redis://user:password", "has a node that is not HOST[:PORT]"),
            ("redis://a:0", "has a node that is not HOST[:PORT]"),
            ("redis://a:65536", "has a node that is not HOST[:PORT]"),
            ("redis://[::g]", "has a node that is not HOST[:PORT]"),
            ("redis://a b", "has a node that is not HOST[:PORT]"),
            ("redis+cluster://a/1", "has a database, but a cluster has only one"),
            ("redis+sentinel://a", "has no master; use redis+sentinel://HOST:PORT/MASTER"),
            ("redis://a?b=c", "has options after `?`, but none are supported"),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
        for text in ["redis", "http://a", "redis+socket://a", "redis+://a/b/c"] {
            assert!(
                told(text).starts_with("is not the URL of a Redis") || text.contains("+:"),
                "{text}: {}",
                told(text)
            );
        }
    }

    #[test]
    fn nothing_of_a_place_is_shown() {
        for text in [
            "redis://hunter2@host",
            "redis://user:hunter2@hunter2:1/7",
            "redis+cluster://:hunter2@hunter2,b",
            "rediss+sentinel://a/hunter2",
        ] {
            let shown = format!("{:?}", text.parse::<RedisUrl>().unwrap());
            assert!(!shown.contains("hunter2") && !shown.contains("host"), "{shown}");
        }
    }

    #[test]
    fn what_must_not_be_shown_is_known_as_written_and_as_meant() {
        let place: RedisUrl = "redis://weir:hunter%322@host".parse().unwrap();
        for secret in ["weir:hunter%322", "hunter%322", "hunter22", "weir"] {
            assert!(place.secrets().iter().any(|known| known == secret), "{secret}");
        }
        let place: RedisUrl = "redis://host".parse().unwrap();
        assert!(place.secrets().is_empty());
    }
}
