//! Reads policies from files and folders, and watches them.
//!
//! It polls, because polling detects every kind of edit: in place, atomic renames, the symbolic links of a
//! Kubernetes ConfigMap, and network file systems. A change takes effect when two consecutive polls agree, so
//! that a file is not read while it is being written.

use crate::policies::collection::Collection;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The polling interval. A change is in force after two intervals.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Two writes within a clock tick of the file system are indistinguishable, so recently changed files are
/// always read.
const YOUNG: Duration = Duration::from_secs(2);

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The files under some paths, and their policies.
pub struct Sources {
    paths: Vec<PathBuf>,
    files: BTreeMap<PathBuf, SeenFile>,
    /// The policies of the files.
    pub collection: Collection,
}

/// The state of a file.
#[derive(Default)]
struct SeenFile {
    stamp: Option<Stamp>,
    content: Option<FileContent>,
    /// What the last poll read, if it is not in force yet.
    next: Option<FileContent>,
}

/// A file's bytes, the error that prevented reading it, or the fact that it is gone.
#[derive(Clone, PartialEq)]
enum FileContent {
    Bytes(Vec<u8>),
    Unreadable(String),
    Gone,
}

#[derive(Clone, Copy, PartialEq)]
struct Stamp {
    length: u64,
    modified: SystemTime,
    inode: (u64, u64),
}

/// A path that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct Missing {
    path: PathBuf,
    error: io::Error,
}

impl Sources {
    /// Reads all files once. A missing path is an error here. Later, it is only reported.
    pub fn open(paths: &[PathBuf]) -> Result<Self, Missing> {
        for path in paths {
            std::fs::metadata(path).map_err(|error| Missing { path: path.clone(), error })?;
        }
        let (files, collection) = (BTreeMap::new(), Collection::default());
        let mut sources = Self { paths: paths.to_vec(), files, collection };
        sources.look();
        sources.look();
        Ok(sources)
    }

    /// Polls every file. Returns true if anything has changed.
    pub fn look(&mut self) -> bool {
        let mut there = BTreeSet::new();
        let mut unreadable = BTreeMap::new();
        for path in &self.paths {
            match list(path) {
                Ok(files) => there.extend(files),
                Err(error) => {
                    unreadable.insert(path.clone(), error.to_string());
                }
            }
        }
        for path in self.files.keys() {
            // If a whole folder is gone, its files were probably not deleted on purpose, so their policies
            // stay in force.
            if !unreadable.keys().any(|gone| path.starts_with(gone)) {
                there.insert(path.clone());
            }
        }
        let mut changed = false;
        for path in there {
            let named = self.paths.contains(&path);
            changed |= self.look_at(&path, named, None);
        }
        for (path, error) in unreadable {
            changed |= self.look_at(&path, true, Some(error));
        }
        changed
    }

    fn look_at(&mut self, path: &Path, named: bool, error: Option<String>) -> bool {
        let seen = self.files.entry(path.to_owned()).or_default();
        let stamp = Stamp::of(path);
        if error.is_none() && seen.is_settled(stamp) {
            return false;
        }
        let content = error.map_or_else(|| read(path, named), FileContent::Unreadable);
        if !seen.agree(stamp, content) {
            return false;
        }
        match &seen.content {
            Some(FileContent::Bytes(bytes)) => self.collection.update(path, Ok(bytes)),
            Some(FileContent::Unreadable(error)) => self.collection.update(path, Err(error.clone())),
            Some(FileContent::Gone) | None => {
                self.collection.remove(path);
                self.files.remove(path);
            }
        }
        true
    }
}

impl SeenFile {
    /// Returns whether the file looks as it did when the content in force was read.
    fn is_settled(&self, stamp: Option<Stamp>) -> bool {
        let Some(now) = stamp else { return false };
        let age = SystemTime::now().duration_since(now.modified).unwrap_or_default();
        self.next.is_none() && self.stamp == stamp && age > YOUNG
    }

    /// Returns whether this content takes effect: it is new, and the previous poll read the same content.
    fn agree(&mut self, stamp: Option<Stamp>, content: FileContent) -> bool {
        self.stamp = stamp;
        if self.content.as_ref() == Some(&content) {
            self.next = None;
            return false;
        }
        let agreed = self.next.as_ref() == Some(&content);
        if agreed {
            (self.next, self.content) = (None, Some(content));
        } else {
            self.next = Some(content);
        }
        agreed
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified = metadata.modified().ok()?;
        Some(Self { length: metadata.len(), modified, inode: (metadata.dev(), metadata.ino()) })
    }
}

/// Reads a file. A file on the command line must exist. A file in a folder may have been deleted. If the path
/// is a folder, its files are read instead.
fn read(path: &Path, named: bool) -> FileContent {
    if path.is_dir() {
        return FileContent::Gone;
    }
    match std::fs::read(path) {
        Ok(bytes) => FileContent::Bytes(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !named => FileContent::Gone,
        Err(error) => FileContent::Unreadable(error.to_string()),
    }
}

/// Returns the file itself, or the policy files in a folder. Hidden files are skipped, because they belong to
/// editors and Kubernetes.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| is_policy_file(file));
    Ok(files)
}

fn is_policy_file(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str);
    !hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension)) && !path.is_dir()
}
