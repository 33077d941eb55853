//! The path of a SQLite file, as given to `--storage` and `--usage`: `sqlite:PATH`.

use std::path::PathBuf;

/// Why a path cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlitePathError {
    #[error("has no path")]
    Missing,
    #[error("needs a file; a database in memory would lose everything")]
    InMemory,
}

/// Returns the path. `None` if this is something else than `sqlite:PATH`.
pub fn parse(text: &str) -> Option<Result<PathBuf, SqlitePathError>> {
    let path = text.strip_prefix("sqlite:")?;
    Some(match path.strip_prefix("//").unwrap_or(path) {
        "" => Err(SqlitePathError::Missing),
        path if path.starts_with(":memory:") => Err(SqlitePathError::InMemory),
        path => Ok(PathBuf::from(path)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for (text, path) in [
            ("sqlite:/var/lib/weir/usage.db", "/var/lib/weir/usage.db"),
            ("sqlite:///var/lib/usage.db", "/var/lib/usage.db"),
            ("sqlite:usage.db", "usage.db"),
        ] {
            assert_eq!(parse(text), Some(Ok(PathBuf::from(path))), "{text}");
        }
        assert_eq!(parse("sqlite:"), Some(Err(SqlitePathError::Missing)));
        assert_eq!(parse("sqlite::memory:"), Some(Err(SqlitePathError::InMemory)));
        assert_eq!(parse("redis://host"), None);
    }
}
