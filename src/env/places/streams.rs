//! The open streams of connections, and the metadata that is on its way in them.

use std::sync::atomic::Ordering;

use super::Standing;
use crate::limits::{METADATA_ARRIVING_BYTES_MAX, STRANGER_STREAMS_MAX, STRANGER_STREAMS_MIN};

/// The open streams of one HTTP/2 connection, as its frames show them.
pub struct Streams {
    standing: Standing,
    open: usize,
    /// Those of them that count among the streams of strangers.
    charged: usize,
    /// Bytes of metadata on its way.
    metadata: usize,
}

impl Streams {
    pub fn of(standing: Standing) -> Self {
        Self { standing, open: 0, charged: 0, metadata: 0 }
    }

    #[cfg(test)]
    pub fn make_known(&self) {
        self.standing.make_known();
    }

    /// So many are open now. Returns whether the connection may have that many.
    pub fn set(&mut self, open: usize) -> bool {
        if open == self.open {
            return true;
        }
        // Wraps around for a difference below zero.
        let more = open.wrapping_sub(self.open);
        self.standing.slot.open.fetch_add(more, Ordering::Relaxed);
        self.open = open;
        let charged = if self.standing.is_known() { 0 } else { open };
        if charged == self.charged {
            return true;
        }
        let all = &self.standing.shared.streams;
        let more = charged.wrapping_sub(self.charged);
        let all = all.fetch_add(more, Ordering::Relaxed).wrapping_add(more);
        let grew = charged > self.charged;
        self.charged = charged;
        !grew || charged <= STRANGER_STREAMS_MIN || all <= STRANGER_STREAMS_MAX
    }

    /// So many bytes of a request's metadata have come, whose end has not. Returns whether there is room
    /// for more.
    pub fn set_metadata(&mut self, bytes: usize) -> bool {
        if bytes == self.metadata {
            return true;
        }
        let more = bytes.wrapping_sub(self.metadata);
        let all = self.standing.shared.metadata.fetch_add(more, Ordering::Relaxed);
        let grew = bytes > std::mem::replace(&mut self.metadata, bytes);
        !grew || all.wrapping_add(more) <= METADATA_ARRIVING_BYTES_MAX
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.set(0);
        self.set_metadata(0);
    }
}
