//! Where records are kept, as given to `--usage`. Errors and `Debug` never repeat any part of a URL.

use crate::secret::Secret;
use crate::sqlite_path::{self, SqlitePathError};
use std::path::PathBuf;
use std::str::FromStr;

/// A store of usage records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UsageLocation {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL database.
    Postgres(Secret),
}

/// A store and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageAccess {
    pub location: UsageLocation,
    /// A file with the password. It is read for each connection.
    pub password_file: Option<PathBuf>,
}

/// Why a location cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageLocationError {
    /// An unknown scheme.
    #[error("is not a store; use sqlite:PATH or postgres://USER@HOST[:PORT]/DATABASE")]
    Scheme,
    #[error("{0}; use sqlite:PATH")]
    Sqlite(SqlitePathError),
}

impl FromStr for UsageLocation {
    type Err = UsageLocationError;

    fn from_str(text: &str) -> Result<Self, UsageLocationError> {
        if let Some(path) = sqlite_path::parse(text) {
            return path.map(Self::Sqlite).map_err(UsageLocationError::Sqlite);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(Secret::new(text)));
        }
        Err(UsageLocationError::Scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        assert_eq!("sqlite:usage.db".parse(), Ok(UsageLocation::Sqlite(PathBuf::from("usage.db"))));
        let url = "postgres://weir:hunter2@db/usage";
        assert_eq!(url.parse(), Ok(UsageLocation::Postgres(Secret::new(url))));
        assert!(!format!("{:?}", url.parse::<UsageLocation>()).contains("hunter2"));
        for (wrong, error) in [
            ("sqlite:", UsageLocationError::Sqlite(SqlitePathError::Missing)),
            ("sqlite::memory:", UsageLocationError::Sqlite(SqlitePathError::InMemory)),
            ("mysql://u:hunter2@db", UsageLocationError::Scheme),
            ("", UsageLocationError::Scheme),
        ] {
            assert_eq!(wrong.parse::<UsageLocation>(), Err(error.clone()), "{wrong}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
