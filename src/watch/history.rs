//! The interface to past revisions, which a watcher reads until it is live. Implemented by the store.

use std::sync::Arc;

use super::Publication;
use crate::error::Fatal;
use crate::types::Revision;

/// Committed revisions, readable from any task at any time.
///
/// History is never behind the hub: a revision is readable before it is published.
pub trait History: Send + Sync + 'static {
    /// The newest committed revision.
    fn current(&self) -> Revision;

    /// Events from `ask.from` on, of whole revisions, in order; of one revision at least, if there
    /// is one. May block.
    fn read(&self, ask: &HistoryRange) -> Result<Page, ReadError>;
}

/// Which keys a read is about.
pub type Wanted = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// One bounded read.
#[derive(Clone)]
pub struct HistoryRange {
    pub from: Revision,
    pub wanted: Wanted,
    /// Whether events need the state before them.
    pub prev_kv: bool,
    /// Revisions looked at, wanted or not.
    pub revisions_max: usize,
    /// Bytes of keys and values after which no further revision is added.
    pub bytes_max: usize,
}

/// What was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Wanted events by revision, ascending; revisions without any are left out.
    pub publications: Vec<Publication>,
    /// The first revision not read: everything wanted in `from..next` is here.
    pub next: Revision,
    /// The newest revision of the view that was read; `next` is at most one above it, unless `from` was.
    pub head: Revision,
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// `from` is below this revision, up to which history is gone.
    #[error("history below revision {0} has been compacted")]
    Compacted(Revision),
    #[error(transparent)]
    Failed(#[from] Fatal),
}
