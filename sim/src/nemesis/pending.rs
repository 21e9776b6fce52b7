//! Changes of members that are under way, lost members and failed changes: the state that steps share.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of changes; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Changes(Arc<Mutex<State>>);

#[derive(Default)]
pub(super) struct State {
    /// The change under way, and those that wait for it.
    pub(super) pending: Vec<String>,
    /// Members whose disks have rotted and that have not come back yet.
    pub(super) lost: BTreeSet<String>,
    /// Changes that did not come to an end, and why.
    pub(super) failed: Vec<String>,
}

impl Changes {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the disk there has rotted and has not been replaced.
    pub(super) fn is_lost(&self, host: &str) -> bool {
        self.state().lost.contains(host)
    }

    pub(super) fn pending(&self) -> bool {
        !self.state().pending.is_empty()
    }

    pub(super) fn ended(&self, label: &str, outcome: Result<(), String>) {
        let mut state = self.state();
        state.pending.retain(|pending| pending != label);
        if let Err(why) = outcome {
            state.failed.push(format!("{label}: {why}"));
        }
    }
}
