//! Where a Redis is, as `--storage` spells it. Pure; [`super::link`] goes there.

use std::fmt;
use std::str::FromStr;

/// One Redis, a cluster, or one that sentinels watch.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// Which of them.
    pub kind: Kind,
    /// Over TLS.
    pub tls: bool,
    /// "HOST:PORT", at least one.
    pub nodes: Vec<String>,
    /// "USER:PASSWORD" or ":PASSWORD", as in a URL.
    pub credentials: Option<String>,
    /// The database's number.
    pub database: u16,
}

/// What is at the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The Redis itself.
    One,
    /// Nodes of a cluster.
    Cluster,
    /// Sentinels that know the master of this name.
    Sentinel(String),
}

/// What is wrong with a place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not one of ours.
    #[error(
        "is no Redis: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], redis+cluster://HOST:PORT,HOST:PORT or \
         redis+sentinel://HOST:PORT,HOST:PORT/MASTER[/DATABASE]; rediss for TLS"
    )]
    Scheme,
    /// No host.
    #[error("names no host")]
    NoHost,
    /// What comes after the hosts.
    #[error("{0:?} is no database number")]
    Database(String),
    /// Sentinels need to know which.
    #[error("names no master: redis+sentinel://HOST:PORT/MASTER")]
    NoMaster,
    /// Several nodes of something that has one.
    #[error("names several hosts, which only redis+cluster and redis+sentinel have")]
    Several,
    /// A cluster has one database.
    #[error("names a database, which a cluster has not")]
    NoDatabases,
    /// Options.
    #[error("has options after `?`, of which there are none")]
    Options,
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (scheme, rest) = text.split_once("://").ok_or(PlaceError::Scheme)?;
        let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
        let tls = match base {
            "redis" => false,
            "rediss" => true,
            _ => return Err(PlaceError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(PlaceError::Options);
        }
        let (credentials, rest) =
            rest.rsplit_once('@').map_or((None, rest), |(who, rest)| (Some(who.to_owned()), rest));
        let mut path = rest.split('/');
        let nodes: Vec<_> = path.next().unwrap_or_default().split(',').map(str::to_owned).collect();
        let kind = match kind {
            "" if nodes.len() > 1 => return Err(PlaceError::Several),
            "" => Kind::One,
            "cluster" => Kind::Cluster,
            "sentinel" => {
                let master = path.next().filter(|master| !master.is_empty()).ok_or(PlaceError::NoMaster)?;
                Kind::Sentinel(master.to_owned())
            }
            _ => return Err(PlaceError::Scheme),
        };
        let path: Vec<_> = path.collect();
        let database = match path.as_slice() {
            [] | [""] => 0,
            _ if kind == Kind::Cluster => return Err(PlaceError::NoDatabases),
            [number] => number.parse().map_err(|_| PlaceError::Database((*number).to_owned()))?,
            more => return Err(PlaceError::Database(more.join("/"))),
        };
        let port = if matches!(kind, Kind::Sentinel(_)) { 26379 } else { 6379 };
        let nodes = nodes.into_iter().map(|node| with_port(node, port)).collect::<Result<_, _>>()?;
        Ok(Self { kind, tls, nodes, credentials, database })
    }
}

fn with_port(node: String, port: u16) -> Result<String, PlaceError> {
    let host = node.rsplit_once(':').filter(|_| !node.ends_with(']'));
    match host {
        _ if node.is_empty() => Err(PlaceError::NoHost),
        Some(("", _)) => Err(PlaceError::NoHost),
        Some(_) => Ok(node),
        None => Ok(format!("{node}:{port}")),
    }
}

impl fmt::Debug for Place {
    /// Without the password: configurations are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, tls, nodes, credentials, database } = self;
        let known = credentials.as_ref().map(|_| "...");
        write!(f, "Place({kind:?}, tls {tls}, {}, {known:?}, {database})", nodes.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match text.parse::<Place>() {
            Ok(Place { kind, tls, nodes, credentials, database }) => {
                format!("{kind:?} {tls} {} {} {database}", nodes.join(","), credentials.unwrap_or_default())
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
            ("redis://", "names no host"),
            ("redis://:6379", "names no host"),
            ("redis://a,b", "names several hosts, which only redis+cluster and redis+sentinel have"),
            ("redis://a/b", "\"b\" is no database number"),
            ("redis://a/1/2", "\"1/2\" is no database number"),
            ("redis+cluster://a/1", "names a database, which a cluster has not"),
            ("redis+sentinel://a", "names no master: redis+sentinel://HOST:PORT/MASTER"),
            ("redis://a?b=c", "has options after `?`, of which there are none"),
        ] {
            assert_eq!(told(text), wanted, "{text}");
        }
        for text in ["redis", "http://a", "redis+socket://a", "redis+://a/b/c"] {
            assert!(told(text).starts_with("is no Redis") || text.contains("+:"), "{text}: {}", told(text));
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let place: Place = "redis://user:secret@host".parse().unwrap();
        assert!(!format!("{place:?}").contains("secret"));
    }
}
