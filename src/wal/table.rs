//! What is done where the reading of a segment stops: the decision table. Pure; the reader finds the
//! case, the opener acts on it.
//!
//! A power cut may lose any of the sectors of the one write that had not been synced, and leaves
//! zeroes in their place: the space was preallocated. So a lost sector at the end of the log explains
//! a bad record there, and what follows was never promised to anyone: it is cut. Everything else was
//! durable once, and a log that lost durable records must not take part in elections as if it had not.

/// How a segment's readable part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// The file ends where a record ends.
    End,
    /// Only zeroes up to the end of the file: preallocated space.
    Blank,
    /// A sector is zero from where the next record should start, but not the rest of the file.
    Lost,
    /// A bad record, and a sector that starts inside it is zero.
    Torn,
    /// The file ends inside a record.
    Short,
    /// A bad record which no lost sector explains.
    Corrupt,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A newer segment exists, which is made only after this one is durable.
    Earlier,
    /// In the only segment, before its checksum and metadata records are complete.
    OnlyHead,
    /// The same in the last of several segments.
    LastHead,
    /// In the last segment, after these two.
    LastBody,
}

/// What can be proved about the bytes after that point: two neighbouring records whose checksums fit
/// are no accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Nothing,
    /// Sound records, but near enough to be of the same unsynced write.
    Near,
    /// Sound records so far behind that they were written after this point had been synced.
    Far,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The segment ends here as it should.
    Clean,
    /// The rest never became durable: keep a copy, truncate.
    Cut,
    /// The segment never came to life: set it aside, the log ends with the segment before.
    Drop,
    /// Durable records are damaged: do not start.
    Refuse,
}

type Row = (&'static [Tail], &'static [Place], &'static [After], Action);

const ANY: &[After] = &[After::Nothing, After::Near, After::Far];
const CLOSE: &[After] = &[After::Nothing, After::Near];

use Action::{Clean, Cut, Drop, Refuse};
use Place::{Earlier, LastBody, LastHead, OnlyHead};
use Tail::{Blank, Corrupt, End, Lost, Short, Torn};

/// Every case is in exactly one row; the test below proves it.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    (&[End, Blank],               &[Earlier, LastBody],                      ANY,               Clean),
    // A cut renames the new segment into place only when its head is durable; a file system that
    // keeps names better than contents may leave it empty all the same.
    (&[End, Blank],               &[LastHead],                               ANY,               Drop),
    (&[Short],                    &[LastHead],                               &[After::Nothing], Drop),
    (&[Short],                    &[LastHead],                               &[After::Near, After::Far], Refuse),
    // Records are appended only after the head is durable, so bytes behind a lost head are records.
    (&[Lost, Torn],               &[LastHead],                               ANY,               Refuse),
    // A log is created under another name and renamed when its head is durable.
    (&[End, Blank, Lost, Torn, Short], &[OnlyHead],                          ANY,               Refuse),
    (&[Lost, Torn],               &[LastBody],                               CLOSE,             Cut),
    (&[Lost, Torn],               &[LastBody],                               &[After::Far],     Refuse),
    // The file ends inside this record, so nothing can follow it: its length is wrong if something does.
    (&[Short],                    &[LastBody],                               &[After::Nothing], Cut),
    (&[Short],                    &[LastBody],                               &[After::Near, After::Far], Refuse),
    (&[Lost, Torn, Short],        &[Earlier],                                ANY,               Refuse),
    (&[Corrupt],                  &[Earlier, OnlyHead, LastHead, LastBody],  ANY,               Refuse),
];

pub(super) fn decide(tail: Tail, place: Place, after: After) -> Action {
    rows(tail, place, after).next().expect("the table has a row for every case")
}

fn rows(tail: Tail, place: Place, after: After) -> impl Iterator<Item = Action> {
    TABLE
        .iter()
        .filter(move |(tails, places, afters, _)| {
            tails.contains(&tail) && places.contains(&place) && afters.contains(&after)
        })
        .map(|(.., action)| *action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_exactly_one_row() {
        for tail in [End, Blank, Lost, Torn, Short, Corrupt] {
            for place in [Earlier, OnlyHead, LastHead, LastBody] {
                for after in [After::Nothing, After::Near, After::Far] {
                    let found: Vec<_> = rows(tail, place, after).collect();
                    assert_eq!(found.len(), 1, "{tail:?} {place:?} {after:?}: {found:?}");
                }
            }
        }
    }

    #[test]
    fn only_the_last_segment_is_ever_changed() {
        for tail in [End, Blank, Lost, Torn, Short, Corrupt] {
            for after in [After::Nothing, After::Near, After::Far] {
                for place in [Earlier, OnlyHead] {
                    assert!(matches!(decide(tail, place, after), Clean | Refuse));
                }
                assert_ne!(decide(tail, LastHead, after), Cut);
                assert_ne!(decide(tail, LastBody, after), Drop);
            }
        }
    }
}
