//! What opening and writing the log fails with. Every kind is fatal to the process: none is retried.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Fatal;

#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    /// Durable bytes are not what was written. Nothing was changed on disk.
    #[error("{} is damaged at offset {offset}: {what}", path.display())]
    Damaged { path: PathBuf, offset: u64, what: String },
    /// The records are sound but do not reach from where the state is to where the log ends.
    #[error("the log in {} does not fit the state: {what}", dir.display())]
    Unfit { dir: PathBuf, what: String },
    #[error("there is no log in {}", .0.display())]
    Absent(PathBuf),
    #[error("there is a log in {} already", .0.display())]
    Exists(PathBuf),
    /// What a failed write or fsync left on disk is unknown, so nothing more is written.
    #[error("an earlier write to the log in {} failed", .0.display())]
    Poisoned(PathBuf),
}

/// Names the operation and the path that an I/O error belongs to.
pub(super) trait Context<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, WalError>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, what: &'static str, path: &Path) -> Result<T, WalError> {
        self.map_err(|source| WalError::Io { what, path: path.to_owned(), source })
    }
}

impl From<WalError> for Fatal {
    fn from(error: WalError) -> Self {
        Self::new("log", error)
    }
}
