//! The raft log in memory, as raft reads it: entries since the last compaction and what was true at
//! its start. It holds nothing that is not also in the WAL or on its way there; it does no I/O.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// What an entry costs beyond its data when sizes are added up.
const ENTRY_OVERHEAD_BYTES: usize = 64;

pub struct Log {
    hard_state: HardState,
    /// Position before the first entry.
    start: (u64, u64),
    /// `entries[i]` has index `start.0 + 1 + i`.
    entries: VecDeque<Entry>,
    /// Data bytes of `entries`, with overhead.
    bytes: usize,
    /// Position of the state machine.
    applied: (u64, u64),
    /// Configurations by the index they hold from, rising; never empty. Those above the applied index
    /// are not the state machine's yet, and a snapshot of it must not name them.
    configurations: VecDeque<(u64, ConfState)>,
}

impl Log {
    /// A log that begins after `start` (index, term) with the configuration in force at `applied`.
    pub fn new(
        hard_state: HardState,
        conf_state: ConfState,
        start: (u64, u64),
        entries: Vec<Entry>,
        applied: u64,
    ) -> Self {
        let bytes = entries.iter().map(cost).sum();
        let mut log = Self {
            hard_state,
            start,
            entries: entries.into(),
            bytes,
            applied: start,
            configurations: VecDeque::from([(0, conf_state)]),
        };
        log.set_applied(applied.max(start.0));
        log
    }

    pub fn first_index(&self) -> u64 {
        self.start.0 + 1
    }

    pub fn last_index(&self) -> u64 {
        self.start.0 + self.entries.len() as u64
    }

    pub fn applied(&self) -> u64 {
        self.applied.0
    }

    /// Data bytes held, with overhead.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// Appends, replacing what conflicts.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(
            self.start.0 < first.index && first.index <= self.last_index() + 1,
            "entries from {} do not fit the log [{}, {}]",
            first.index,
            self.first_index(),
            self.last_index(),
        );
        let kept = (first.index - self.first_index()) as usize;
        self.bytes -= self.entries.drain(kept..).map(|e| cost(&e)).sum::<usize>();
        self.bytes += entries.iter().map(cost).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Starts anew after a snapshot from the leader.
    pub fn restore(&mut self, metadata: &SnapshotMetadata) {
        self.start = (metadata.index, metadata.term);
        self.entries.clear();
        self.bytes = 0;
        self.configurations.push_back((metadata.index, metadata.get_conf_state().clone()));
    }

    /// The state machine has reached `index`.
    pub fn set_applied(&mut self, index: u64) {
        assert!(index >= self.applied.0, "applied falls from {} to {index}", self.applied.0);
        let term = self.term_of(index);
        let term = term.unwrap_or_else(|| panic!("applied {index} is not in the log"));
        self.applied = (index, term);
    }

    /// The configuration in force from `index` on.
    pub fn set_configuration(&mut self, index: u64, conf_state: ConfState) {
        self.configurations.push_back((index, conf_state));
    }

    /// The configuration in force at `index`, unless it was forgotten.
    pub fn configuration_at(&self, index: u64) -> &ConfState {
        let newest_first = self.configurations.iter().rev();
        let found = newest_first.clone().find(|(from, _)| *from <= index);
        &found.or(self.configurations.front()).expect("one configuration is always kept").1
    }

    /// Forgets configurations that were superseded at or below `index`.
    pub fn forget_configurations(&mut self, index: u64) {
        while self.configurations.get(1).is_some_and(|(from, _)| *from <= index) {
            self.configurations.pop_front();
        }
    }

    /// Forgets entries up to and with `index`, which must be applied.
    pub fn compact(&mut self, index: u64) {
        assert!(index <= self.applied.0, "compaction at {index} passes applied {}", self.applied.0);
        if index <= self.start.0 {
            return;
        }
        let term = self.term_of(index).expect("an applied index above the start is in the log");
        let count = (index - self.start.0) as usize;
        self.bytes -= self.entries.drain(..count).map(|e| cost(&e)).sum::<usize>();
        self.start = (index, term);
    }

    /// The largest compaction index that keeps at most `keep_bytes` of entries, applied ones only.
    pub fn index_to_fit(&self, keep_bytes: usize) -> u64 {
        let mut bytes = self.bytes;
        let mut index = self.start.0;
        for entry in &self.entries {
            if bytes <= keep_bytes || index == self.applied.0 {
                break;
            }
            bytes -= cost(entry);
            index = entry.index;
        }
        index
    }

    fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.start.0 {
            return Some(self.start.1);
        }
        let offset = index.checked_sub(self.first_index())?;
        self.entries.get(usize::try_from(offset).ok()?).map(|e| e.term)
    }
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD_BYTES
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let (_, conf_state) = self.configurations.back().expect("one configuration is always kept");
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: conf_state.clone() })
    }

    /// At least one entry when the range is not empty, then as many as fit `max_size`.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first_index() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last_index() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let from = (low - self.first_index()) as usize;
        let to = (high - self.first_index()) as usize;
        let mut size = 0_u64;
        let fitting = self.entries.range(from..to).take_while(|entry| {
            let first = size == 0;
            size = size.saturating_add(cost(entry) as u64);
            first || size <= max_size
        });
        Ok(fitting.cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_of(index).ok_or_else(|| match index < self.start.0 {
            true => StorageError::Compacted.into(),
            false => StorageError::Unavailable.into(),
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(Log::first_index(self))
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(Log::last_index(self))
    }

    /// Where the state machine stands: its bytes are read and sent by the transport, at that
    /// position or a later one.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let (index, term) = self.applied;
        if index == 0 || index < request_index || index < self.start.0 {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(self.configuration_at(index).clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![0; 100].into(), ..Default::default() }
    }

    fn log(start: (u64, u64), count: u64) -> Log {
        let entries = (start.0 + 1..=start.0 + count).map(|index| entry(index, start.1)).collect();
        Log::new(HardState::default(), conf(&[1]), start, entries, start.0)
    }

    fn conf(voters: &[u64]) -> ConfState {
        ConfState::from((voters.to_vec(), vec![]))
    }

    #[test]
    fn appending_replaces_what_conflicts() {
        let mut log = log((0, 0), 3);
        log.append(&[entry(2, 5), entry(3, 5), entry(4, 5)]);
        assert_eq!((Log::last_index(&log), log.term(1), log.term(2)), (4, Ok(0), Ok(5)));
        log.append(&[entry(2, 6)]);
        assert_eq!((Log::last_index(&log), log.bytes()), (2, 2 * 164));
    }

    #[test]
    fn compaction_keeps_the_term_of_the_boundary() {
        let mut log = log((10, 3), 5);
        log.set_applied(14);
        log.compact(12);
        assert_eq!((Log::first_index(&log), log.term(12)), (13, Ok(3)));
        assert_eq!(log.term(11), Err(StorageError::Compacted.into()));
        assert_eq!(log.term(16), Err(StorageError::Unavailable.into()));
        assert_eq!(log.index_to_fit(164), 14);
        assert_eq!(log.index_to_fit(0), 14, "what is not applied stays");
        assert_eq!(log.index_to_fit(usize::MAX), 12);
    }

    #[test]
    fn a_page_holds_at_least_one_entry() {
        let log = log((0, 0), 5);
        let page = |max: u64| {
            let context = GetEntriesContext::empty(false);
            log.entries(1, 6, max, context).expect("in range").len()
        };
        assert_eq!((page(0), page(163), page(2 * 164), page(u64::MAX)), (1, 1, 2, 5));
    }

    #[test]
    fn a_snapshot_names_the_configuration_of_its_index() {
        let mut log = log((0, 0), 9);
        log.set_configuration(4, conf(&[1, 2]));
        log.set_configuration(8, conf(&[1, 2, 3]));
        log.set_applied(7);
        let snapshot = log.snapshot(0, 2).expect("applied");
        assert_eq!(snapshot.get_metadata().get_conf_state().voters, vec![1, 2]);
        log.forget_configurations(7);
        assert_eq!(log.configuration_at(7).voters, vec![1, 2]);
        assert_eq!(log.configuration_at(8).voters, vec![1, 2, 3]);
    }
}
