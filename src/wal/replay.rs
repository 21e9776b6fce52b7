//! What the records amount to: the log as raft had it when the last of them was written. Pure; the
//! reader has checked the checksums.

use bytes::Bytes;
use prost::Message;
use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use super::record::{Kind, Record, decode_entry, decode_state};

/// What the log holds for a state that has applied up to `at`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replayed {
    pub metadata: Metadata,
    pub metadata_bytes: Bytes,
    pub hard_state: raftpb::HardState,
    pub snapshot: walpb::Snapshot,
    pub entries: Vec<raftpb::Entry>,
    /// The newest snapshot that is known to be committed, whether the state has reached it or not.
    pub newest_snapshot: walpb::Snapshot,
    /// Where the log ends: the last entry, or the snapshot if there is none after it.
    pub last_index: u64,
}

/// The records so far. Entries are kept from `base` on, without gaps.
pub(super) struct Replay {
    at: walpb::Snapshot,
    metadata: Option<Bytes>,
    hard_state: raftpb::HardState,
    /// All snapshot records, in the order written.
    snapshots: Vec<walpb::Snapshot>,
    base: Base,
    entries: Vec<raftpb::Entry>,
    /// The log before a snapshot that replaced it, until a hard state shows that it did.
    replaced: Option<Replaced>,
}

struct Replaced {
    base: Base,
    entries: Vec<raftpb::Entry>,
    /// How many snapshot records there were.
    marks: usize,
}

/// The position before the first entry kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// Nothing read yet of a log whose beginning was released.
    Unknown,
    /// Before the first entry that the remaining segments hold.
    Released(u64),
    /// A snapshot, or the beginning of the log.
    Snapshot(u64),
}

impl Replay {
    /// `whole`: the first record to come is the first ever written to this log.
    pub(super) fn new(at: walpb::Snapshot, whole: bool) -> Self {
        Self {
            at,
            metadata: None,
            hard_state: raftpb::HardState::default(),
            snapshots: Vec::new(),
            base: if whole { Base::Snapshot(0) } else { Base::Unknown },
            entries: Vec::new(),
            replaced: None,
        }
    }

    /// Takes the next record; the error gives the reason why it cannot be part of this log.
    pub(super) fn record(&mut self, record: &Record) -> Result<(), String> {
        match record.kind {
            Kind::Crc => Ok(()),
            Kind::Metadata => self.metadata(record.data),
            Kind::State => self.state(decode_state(record.data)?),
            Kind::Entry => self.entry(decode_entry(record.data)?),
            Kind::Snapshot => self.snapshot(
                walpb::Snapshot::decode(record.data)
                    .map_err(|error| format!("not a snapshot record: {error}"))?,
            ),
        }
    }

    fn metadata(&mut self, data: &[u8]) -> Result<(), String> {
        match &self.metadata {
            Some(known) if known != data => Err("metadata differ from those before".into()),
            Some(_) => Ok(()),
            None => {
                self.metadata = Some(Bytes::copy_from_slice(data));
                Ok(())
            }
        }
    }

    fn state(&mut self, state: raftpb::HardState) -> Result<(), String> {
        if state.term == 0 || state.term < self.hard_state.term {
            return Err(format!("term {} after term {}", state.term, self.hard_state.term));
        }
        if self.base.index().is_some_and(|base| state.commit >= base) {
            self.replaced = None;
        }
        self.hard_state = state;
        Ok(())
    }

    /// An entry drops all that the log had from its index on (raft paper, figure 7).
    fn entry(&mut self, entry: raftpb::Entry) -> Result<(), String> {
        if self.base == Base::Unknown {
            self.base = Base::Released(entry.index - 1);
        }
        if entry.index <= self.first_missing() {
            // Raft writes nothing at or below a snapshot that it has taken over. So it had not: the
            // process ended in between, and went on from the log before.
            self.undo_replacement();
        }
        if entry.index <= self.first_missing() {
            match self.base {
                Base::Released(_) => {
                    self.base = Base::Released(entry.index - 1);
                    self.entries.clear();
                }
                // Covered by a snapshot of the state.
                _ => return Ok(()),
            }
        }
        let keep = entry.index - self.first_missing() - 1;
        if keep > self.entries.len() as u64 {
            let last = self.first_missing() + self.entries.len() as u64;
            return Err(format!("entry {} follows entry {last}", entry.index));
        }
        self.entries.truncate(keep as usize);
        self.entries.push(entry);
        Ok(())
    }

    fn snapshot(&mut self, snapshot: walpb::Snapshot) -> Result<(), String> {
        let index = snapshot.index;
        // Raft keeps its log when it has the snapshot's last entry, and starts a new one otherwise.
        let known = match self.base.index() {
            Some(base) if index <= base => true,
            Some(base) => {
                let entry = self.entries.get((index - base - 1) as usize);
                entry.is_some_and(|entry| entry.term == snapshot.term)
            }
            // Its entry may be among those released.
            None => true,
        };
        if !known {
            let entries = std::mem::take(&mut self.entries);
            let before = Replaced { base: self.base, entries, marks: self.snapshots.len() };
            self.replaced.get_or_insert(before);
            self.base = Base::Snapshot(index);
        }
        self.snapshots.push(snapshot);
        self.forget(index);
        Ok(())
    }

    /// The log as it was before a snapshot of which no more than the record has become durable.
    fn undo_replacement(&mut self) {
        if let Some(Replaced { base, entries, marks }) = self.replaced.take() {
            (self.base, self.entries) = (base, entries);
            self.snapshots.truncate(marks);
        }
    }

    /// Lets go of the entries up to `index` when the state certainly covers them.
    fn forget(&mut self, index: u64) {
        let Some(base) = self.base.index() else { return };
        let certain = index <= self.at.index && index <= self.hard_state.commit;
        if certain && self.replaced.is_none() && index > base {
            self.entries.drain(..(index - base) as usize);
            self.base = Base::Snapshot(index);
        }
    }

    fn first_missing(&self) -> u64 {
        self.base.index().unwrap_or_default()
    }

    /// All snapshots that a hard state shows to be committed, in the order written.
    pub(super) fn into_committed_snapshots(mut self) -> Vec<walpb::Snapshot> {
        let commit = self.hard_state.commit;
        if self.first_missing() > commit {
            self.undo_replacement();
        }
        self.snapshots.into_iter().filter(|snapshot| snapshot.index <= commit).collect()
    }

    /// The log from the newest snapshot on which the state has reached; the error names what is missing.
    pub(super) fn finish(mut self) -> Result<Replayed, String> {
        let at = self.at.clone();
        let known = at.index.max(self.hard_state.commit);
        if self.first_missing() > known {
            self.undo_replacement();
        }
        let newest = |bound| {
            let below = self.snapshots.iter().filter(move |snapshot| snapshot.index <= bound);
            below.max_by_key(|snapshot| snapshot.index).cloned()
        };
        let snapshot = newest(at.index)
            .ok_or_else(|| format!("it has no snapshot at or below index {}", at.index))?;
        let newest_snapshot = newest(known).expect("there is one at a lower index");
        if snapshot.index == at.index && at.term != 0 && snapshot.term != at.term {
            return Err(format!(
                "snapshot {} has term {}, not {}",
                at.index, snapshot.term, at.term
            ));
        }
        let base = self.first_missing();
        if base > snapshot.index {
            return Err(format!(
                "the state has applied {}, with a snapshot at {}, but the log begins after {base}",
                at.index, snapshot.index
            ));
        }
        let last_index = newest_snapshot.index.max(base + self.entries.len() as u64);
        let covered = (snapshot.index - base).min(self.entries.len() as u64);
        let entries = self.entries.split_off(covered as usize);
        self.check_terms(&snapshot, &entries)?;
        Ok(Replayed {
            metadata: self.decode_metadata()?,
            metadata_bytes: self.metadata.expect("it was decoded just now"),
            hard_state: self.hard_state,
            snapshot,
            entries,
            newest_snapshot,
            last_index,
        })
    }

    /// The hard state must fit the log. What a snapshot implies is added: the hard state that followed
    /// it may not have become durable, while the state did.
    fn check_terms(
        &mut self,
        snapshot: &walpb::Snapshot,
        entries: &[raftpb::Entry],
    ) -> Result<(), String> {
        let state = &mut self.hard_state;
        if state.term < snapshot.term {
            *state = raftpb::HardState { term: snapshot.term, vote: 0, commit: state.commit };
        }
        state.commit = state.commit.max(snapshot.index);
        let last = snapshot.index + entries.len() as u64;
        if state.commit > last {
            return Err(format!("entries up to {} are committed, it ends at {last}", state.commit));
        }
        let mut term = snapshot.term;
        for entry in entries {
            if entry.term < term {
                return Err(format!(
                    "entry {} of term {} follows term {term}",
                    entry.index, entry.term
                ));
            }
            term = entry.term;
        }
        if term > state.term {
            // The entries' own save was cut before its hard state. Nothing of it was promised, and
            // a vote of that term cannot have been given: votes are synced before they are sent.
            *state = raftpb::HardState { term, vote: 0, commit: state.commit };
        }
        Ok(())
    }

    fn decode_metadata(&self) -> Result<Metadata, String> {
        let bytes = self.metadata.clone().ok_or("it has no metadata")?;
        Metadata::decode(bytes).map_err(|error| format!("not metadata: {error}"))
    }
}

impl Base {
    fn index(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Released(index) | Self::Snapshot(index) => Some(index),
        }
    }
}
