//! A lock on a file of counters, so that no two adapters use it. It is a file of its own, because other programs
//! may read the database meanwhile, for example to back it up. The lock ends with the process.

use super::OpenError;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "dropping the file ends the lock")] File);

impl FileLock {
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let mut name = OsString::from(path);
        name.push("-lock");
        let failed = |error| OpenError::Lock(path.to_owned(), error);
        // The file stays: if it were deleted, two adapters could lock different files of this name.
        let file = File::options().create(true).write(true).truncate(false).open(PathBuf::from(name));
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}
