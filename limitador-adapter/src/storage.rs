//! The storage of counters on the command line, and how to access it.

#[cfg(feature = "redis")]
use crate::ledger::redis::credentials::{ClientFiles, CredentialFiles};
#[cfg(feature = "redis")]
use crate::ledger::redis::url::{RedisUrl, RedisUrlError, Topology};
#[cfg(feature = "sqlite")]
use crate::sqlite_path::{self, SqlitePathError};
use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// The storage of counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The memory of this process.
    Memory,
    /// A SQLite file.
    #[cfg(feature = "sqlite")]
    Sqlite(PathBuf),
    /// In a Redis, which several adapters may share.
    #[cfg(feature = "redis")]
    Redis(RedisUrl),
}

/// Why a storage cannot be used. The message never repeats the value, which may contain a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// An unknown kind of storage.
    #[error("is not a storage; use `sqlite:PATH`, `memory` or `redis://HOST`")]
    Unknown,
    /// An invalid path of a SQLite file.
    #[cfg(feature = "sqlite")]
    #[error("{0}; use sqlite:PATH, or `memory`")]
    Sqlite(SqlitePathError),
    /// An invalid Redis URL.
    #[cfg(feature = "redis")]
    #[error("{0}")]
    Redis(RedisUrlError),
}

impl Storage {
    /// The default. A restart loses nothing.
    #[cfg(feature = "sqlite")]
    pub const DEFAULT: &str = "sqlite:data/counters.db";
    #[cfg(not(feature = "sqlite"))]
    pub const DEFAULT: &str = "memory";

    /// clap's errors repeat a value that its parser rejects, so this parser accepts every value.
    pub fn parse(text: &str) -> Result<Result<Self, StorageError>, Infallible> {
        Ok(text.parse())
    }
}

impl FromStr for Storage {
    type Err = StorageError;

    fn from_str(text: &str) -> Result<Self, StorageError> {
        #[cfg(feature = "sqlite")]
        if let Some(path) = sqlite_path::parse(text) {
            return path.map(Self::Sqlite).map_err(StorageError::Sqlite);
        }
        match text {
            "memory" => Ok(Self::Memory),
            #[cfg(feature = "redis")]
            _ if text.starts_with("redis") => text.parse().map(Self::Redis).map_err(StorageError::Redis),
            _ => Err(StorageError::Unknown),
        }
    }
}

/// How to access a Redis. Files are read again for each connection, so that they can be rotated.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StorageAccessArgs {
    /// A file with the password for Redis, in place of the one in the URL. It is read for each connection. It may contain a
    /// token that expires, such as one for AWS IAM.
    #[arg(long, env = "WEIR_STORAGE_PASSWORD_FILE", value_name = "FILE")]
    pub storage_password_file: Option<PathBuf>,
    /// A file with the password for the sentinels. It is read for each connection.
    #[arg(long, env = "WEIR_STORAGE_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub storage_sentinel_password_file: Option<PathBuf>,
    /// The certificates of the authorities that may sign the certificate of Redis, as PEM, instead of the system's. The file
    /// is read for each connection.
    #[arg(long, env = "WEIR_STORAGE_CA", value_name = "FILE")]
    pub storage_ca: Option<PathBuf>,
    /// The client certificate for Redis with its chain, as PEM. The file is read for each connection.
    #[arg(long, env = "WEIR_STORAGE_CERT", value_name = "FILE", requires = "storage_key")]
    pub storage_cert: Option<PathBuf>,
    /// The private key of the client certificate, as PEM. The file is read for each connection.
    #[arg(long, env = "WEIR_STORAGE_KEY", value_name = "FILE", requires = "storage_cert")]
    pub storage_key: Option<PathBuf>,
    /// The prefix of all keys in Redis, such as `staging`. Installations with different prefixes can share a Redis.
    #[arg(long, env = "WEIR_STORAGE_PREFIX", value_name = "NAME", value_parser = prefix)]
    pub storage_prefix: Option<String>,
}

impl StorageAccessArgs {
    /// Checks that the storage uses what was given. The message begins with the option.
    pub fn check(&self, storage: &Storage) -> Result<(), String> {
        let sentinel = &self.storage_sentinel_password_file;
        let of_tls = [
            ("--storage-ca", &self.storage_ca),
            ("--storage-cert", &self.storage_cert),
            ("--storage-key", &self.storage_key),
        ];
        let all = [
            ("--storage-password-file", &self.storage_password_file),
            ("--storage-sentinel-password-file", sentinel),
        ];
        let given = |(name, file): (&'static str, &Option<PathBuf>)| file.as_ref().map(|_| name);
        let problem = match storage {
            #[cfg(feature = "redis")]
            Storage::Redis(place) => {
                let has_password = place.has_password() && self.storage_password_file.is_some();
                let tls = of_tls.into_iter().find_map(given).filter(|_| !place.tls);
                let not_sentinel = !matches!(place.kind, Topology::Sentinel(_)) && sentinel.is_some();
                has_password
                    .then(|| {
                        "--storage-password-file: the URL of the storage has a password as well".to_owned()
                    })
                    .or_else(|| {
                        tls.map(|name| format!("{name}: requires a storage with TLS, such as rediss://HOST"))
                    })
                    .or_else(|| {
                        not_sentinel.then(|| {
                            "--storage-sentinel-password-file: requires redis+sentinel://".to_owned()
                        })
                    })
            }
            _ => {
                let name = all.into_iter().chain(of_tls).find_map(given);
                let name = name.or_else(|| self.storage_prefix.as_ref().map(|_| "--storage-prefix"));
                name.map(|name| format!("{name}: requires a storage in Redis"))
            }
        };
        problem.map_or(Ok(()), Err)
    }

    /// Returns the beginning of every key, before the hash tag.
    #[cfg(feature = "redis")]
    pub fn prefix(&self) -> String {
        self.storage_prefix.as_ref().map(|prefix| format!("{prefix}:")).unwrap_or_default()
    }

    #[cfg(feature = "redis")]
    pub fn files(&self) -> CredentialFiles {
        let client = self.storage_cert.clone().zip(self.storage_key.clone());
        CredentialFiles {
            password: self.storage_password_file.clone(),
            sentinel_password: self.storage_sentinel_password_file.clone(),
            authorities: self.storage_ca.clone(),
            client: client.map(|(certificate, key)| ClientFiles { certificate, key }),
        }
    }
}

/// Rejects characters that have a meaning in keys or in patterns of keys.
fn prefix(text: &str) -> Result<String, String> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(is_good) {
        return Err("must consist of letters, digits, `-`, `_` and `.`".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn files_that_the_storage_does_not_use_are_rejected() {
        let file = || Some(PathBuf::from("file"));
        let password = StorageAccessArgs { storage_password_file: file(), ..StorageAccessArgs::default() };
        let sentinel =
            StorageAccessArgs { storage_sentinel_password_file: file(), ..StorageAccessArgs::default() };
        let authorities = StorageAccessArgs { storage_ca: file(), ..StorageAccessArgs::default() };
        let staging =
            StorageAccessArgs { storage_prefix: Some("staging".to_owned()), ..StorageAccessArgs::default() };
        for (access, storage, wanted) in [
            (&password, "redis://weir@a", Ok(())),
            (&password, "redis+sentinel://a/main", Ok(())),
            (&password, "memory", Err("--storage-password-file: requires a storage in Redis")),
            (
                &password,
                "redis://:pw@a",
                Err("--storage-password-file: the URL of the storage has a password as well"),
            ),
            (&sentinel, "redis+sentinel://a/main", Ok(())),
            (&sentinel, "redis://a", Err("--storage-sentinel-password-file: requires redis+sentinel://")),
            (&authorities, "rediss+cluster://a", Ok(())),
            (
                &authorities,
                "redis://a",
                Err("--storage-ca: requires a storage with TLS, such as rediss://HOST"),
            ),
            (&StorageAccessArgs::default(), "memory", Ok(())),
            (&staging, "redis://a", Ok(())),
            (&staging, "sqlite:a.db", Err("--storage-prefix: requires a storage in Redis")),
        ] {
            let checked = access.check(&storage.parse().unwrap());
            assert_eq!(checked, wanted.map_err(str::to_owned), "{storage}");
        }
    }
}
