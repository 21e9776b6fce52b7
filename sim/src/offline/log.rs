//! A member's log, from the records of its WAL in the order in which they were written: an
//! entry takes away all from its index on, a snapshot mark that the log does not reach begins a new
//! one. Checks what one log alone can be wrong in; comparing members is for the checkers.

use std::hash::{DefaultHasher, Hash, Hasher};

use quorate_proto::{raftpb, walpb};

use super::wal::{Record, Records};
use crate::facts::seen::Line;

/// One member's log.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub member: u64,
    pub cluster: u64,
    pub state: raftpb::HardState,
    /// The index before the first entry.
    pub base: u64,
    /// Whether what was before `base` has been deleted, and not replaced by a snapshot.
    released: bool,
    /// Without gaps.
    pub entries: Vec<raftpb::Entry>,
    /// Snapshot marks, in the order written.
    pub marks: Vec<walpb::Snapshot>,
    /// The member's votes, by term, as they were written.
    pub votes: Vec<(u64, u64)>,
    /// What the log was before a snapshot that was received replaced it, until a hard state shows
    /// that the snapshot was taken over.
    replaced: Option<Box<(u64, Vec<raftpb::Entry>, usize)>>,
    /// What cannot be.
    pub faults: Vec<String>,
}

impl Log {
    /// `applied` is what the member's state holds: a snapshot that it has reached counts.
    pub fn new(records: Records, applied: u64) -> Self {
        let mut log = Self::default();
        let mut began = records.first == 0;
        for record in records.records {
            match record {
                Record::Metadata(metadata) => log.metadata(metadata.node_id, metadata.cluster_id),
                Record::State(state) => log.state(state),
                Record::Snapshot(mark) => {
                    // What came before it may have been released.
                    if began {
                        log.mark(mark);
                    } else {
                        log.marks.push(mark);
                    }
                }
                Record::Entry(entry) => {
                    if !began {
                        log.base = entry.index.saturating_sub(1);
                        (log.released, began) = (true, true);
                    }
                    log.entry(entry);
                }
            }
        }
        if !began {
            log.base = log.marks.iter().map(|mark| mark.index).max().unwrap_or(0);
        }
        if log.base > log.state.commit.max(applied) {
            log.undo();
        }
        log.finish();
        log
    }

    /// Where it ends: the last entry, or what was released.
    pub fn last(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The entry of that index, if the log still has it.
    pub fn at(&self, index: u64) -> Option<&raftpb::Entry> {
        let place = index.checked_sub(self.base + 1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    pub fn lines(&self) -> Vec<Line> {
        self.entries.iter().map(line).collect()
    }

    fn metadata(&mut self, member: u64, cluster: u64) {
        if self.member != 0 && (self.member, self.cluster) != (member, cluster) {
            self.faults.push(format!("it belongs to member {:x} and to {member:x}", self.member));
        }
        (self.member, self.cluster) = (member, cluster);
    }

    fn state(&mut self, state: raftpb::HardState) {
        let before = self.state;
        if state.term < before.term {
            self.faults.push(format!("term {} after term {}", state.term, before.term));
        }
        if state.commit < before.commit {
            self.faults.push(format!("commit {} after commit {}", state.commit, before.commit));
        }
        if state.term == before.term && before.vote != 0 && state.vote != before.vote {
            self.faults.push(format!(
                "in term {} the vote goes from {:x} to {:x}",
                state.term, before.vote, state.vote
            ));
        }
        if state.vote != 0 && self.votes.last() != Some(&(state.term, state.vote)) {
            self.votes.push((state.term, state.vote));
        }
        if state.commit >= self.base {
            self.replaced = None;
        }
        self.state = state;
    }

    fn entry(&mut self, entry: raftpb::Entry) {
        if entry.index <= self.base && self.replaced.is_some() {
            // Nothing is written below a snapshot that was taken over: it was not.
            self.undo();
        }
        if entry.index <= self.base {
            if self.released {
                self.base = entry.index.saturating_sub(1);
                self.entries.clear();
            } else {
                let (index, base) = (entry.index, self.base);
                self.faults.push(format!("entry {index} is written below snapshot {base}"));
                return;
            }
        }
        let keep = (entry.index - self.base - 1) as usize;
        if keep > self.entries.len() {
            let last = self.last();
            self.faults.push(format!("entry {} follows entry {last}", entry.index));
            return;
        }
        if entry.index <= self.state.commit && self.at(entry.index).is_some_and(|old| *old != entry)
        {
            let (index, commit) = (entry.index, self.state.commit);
            self.faults.push(format!("entry {index} is replaced although {commit} is committed"));
        }
        self.entries.truncate(keep);
        self.entries.push(entry);
    }

    fn mark(&mut self, mark: walpb::Snapshot) {
        let index = mark.index;
        let known = index <= self.base || self.at(index).is_some_and(|e| e.term == mark.term);
        if !known {
            let entries = std::mem::take(&mut self.entries);
            let before = Box::new((self.base, entries, self.marks.len()));
            self.replaced.get_or_insert(before);
            (self.base, self.released) = (index, false);
        }
        self.marks.push(mark);
    }

    /// The log as it was before a snapshot that was received but not taken over.
    fn undo(&mut self) {
        if let Some(before) = self.replaced.take() {
            let (base, entries, marks) = *before;
            (self.base, self.entries) = (base, entries);
            self.marks.truncate(marks);
        }
    }

    fn finish(&mut self) {
        if self.member == 0 {
            self.faults.push("its metadata are missing".into());
        }
        let last = self.last();
        if self.state.commit > last {
            let commit = self.state.commit;
            self.faults.push(format!("entries up to {commit} are committed, it ends at {last}"));
        }
        let mut term = 0;
        for entry in &self.entries {
            if entry.term < term {
                self.faults.push(format!(
                    "entry {} of term {} follows one of term {term}",
                    entry.index, entry.term
                ));
            }
            term = entry.term;
        }
        // A power cut may have taken the hard state of the last save, with a higher term, and left its
        // entries: only what is committed must fit.
        let committed = self.at(self.state.commit).map_or(0, |entry| entry.term);
        if committed > self.state.term {
            let (commit, term) = (self.state.commit, self.state.term);
            self.faults.push(format!("entry {commit} is of term {committed}, the log of {term}"));
        }
    }
}

pub fn line(entry: &raftpb::Entry) -> Line {
    // Fixed keys: digests are compared within one process only.
    let mut hasher = DefaultHasher::new();
    entry.r#type.hash(&mut hasher);
    entry.data.hash(&mut hasher);
    Line { index: entry.index, term: entry.term, digest: hasher.finish() }
}

#[cfg(test)]
mod tests {
    use super::super::wal::{self, tests::Writer};
    use super::*;

    fn log(write: impl FnOnce(&mut Writer)) -> Log {
        let mut writer = Writer::segment(0, 1);
        writer.push(5, &walpb::Snapshot::default());
        write(&mut writer);
        Log::new(wal::read(&[writer.file(0)]).expect("sound"), 0)
    }

    #[test]
    fn a_sound_log_is_read_as_raft_wrote_it() {
        let log = log(|writer| {
            writer.entry(1, 1, "a");
            writer.entry(2, 1, "b");
            writer.state(1, 1, 1);
            writer.entry(2, 2, "c");
            writer.entry(3, 2, "d");
            writer.state(2, 3, 3);
        });
        assert_eq!(log.faults, Vec::<String>::new());
        assert_eq!((log.base, log.last()), (0, 3));
        assert_eq!(log.at(2).map(|entry| &entry.data[..]), Some(&b"c"[..]));
        assert_eq!(log.votes, [(1, 1), (2, 3)]);
    }

    #[test]
    fn a_snapshot_that_was_not_taken_over_is_no_gap() {
        let mark = walpb::Snapshot { index: 9, term: 2, conf_state: None };
        let taken = log(|writer| {
            writer.entry(1, 1, "a");
            writer.push(5, &mark);
            writer.state(2, 0, 9);
            writer.entry(10, 2, "b");
        });
        assert_eq!((taken.base, taken.last(), taken.faults.len()), (9, 10, 0));
        let not_taken = log(|writer| {
            writer.entry(1, 1, "a");
            writer.state(1, 0, 1);
            writer.push(5, &mark);
            writer.entry(2, 2, "b");
        });
        assert_eq!((not_taken.base, not_taken.last(), not_taken.faults.len()), (0, 2, 0));
    }

    /// Each way to be wrong is reported.
    #[test]
    fn gaps_and_steps_back_in_a_log_are_violations() {
        let said = |write: fn(&mut Writer)| log(write).faults.join("; ");
        let two = |writer: &mut Writer| {
            writer.entry(1, 1, "a");
            writer.entry(2, 1, "b");
            writer.state(3, 1, 2);
        };
        assert_eq!(said(|_| {}), "");
        type Case = (fn(&mut Writer), &'static str);
        let cases: [Case; 7] = [
            (|w| w.entry(4, 3, "x"), "entry 4 follows entry 2"),
            (|w| w.entry(2, 3, "x"), "is replaced although 2 is committed"),
            (|w| w.state(2, 1, 2), "term 2 after term 3"),
            (|w| w.state(3, 2, 2), "the vote goes from 1 to 2"),
            (|w| w.state(3, 1, 1), "commit 1 after commit 2"),
            (|w| w.state(3, 1, 7), "up to 7 are committed, it ends at 2"),
            (
                |w| {
                    w.entry(3, 3, "x");
                    w.entry(4, 2, "x");
                },
                "of term 2 follows one of term 3",
            ),
        ];
        for (write, expected) in cases {
            let log = log(|writer| {
                two(writer);
                write(writer);
            });
            let said = log.faults.join("; ");
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
}
