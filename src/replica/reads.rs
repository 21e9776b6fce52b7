//! Read requests that share rounds: one round is on its way, all that arrive meanwhile wait for the
//! next, because a round's index is only good for reads that came before it. No I/O.

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::oneshot;

use super::core::ReadState;
use crate::error::{Error, Unavailable};
use crate::limits;
use crate::mark;
use crate::plant;
use crate::types::Index;

/// Where one reader waits.
pub type Reader = oneshot::Sender<Result<Index, Error>>;

/// Where a round was sent: leader (0 when none was known) and term.
pub type Leader = (u64, u64);

pub struct Reads {
    /// What makes a context unique in the cluster and over restarts.
    member: u64,
    boot: u64,
    rounds: u64,
    /// Ticks after which a round is retried.
    retry_ticks: u32,
    waiting: Vec<Reader>,
    round: Option<Round>,
    /// Rounds retried, and rounds that failed, since start.
    pub slow: u64,
    pub failed: u64,
}

struct Round {
    context: Bytes,
    readers: Vec<Reader>,
    asked: Leader,
    age_ticks: u32,
}

impl Reads {
    pub fn new(member: u64, boot: u64, retry_ticks: u32) -> Self {
        Self {
            member,
            boot,
            retry_ticks,
            rounds: 0,
            waiting: Vec::new(),
            round: None,
            slow: 0,
            failed: 0,
        }
    }

    pub fn push(&mut self, reader: Reader) {
        if self.waiting.len() >= limits::READERS_MAX {
            answer(reader, Err(Unavailable::TooManyRequests.into()));
        } else if let Some(round) = self.round.as_mut().filter(|round| takes_readers(round)) {
            round.readers.push(reader);
        } else {
            self.waiting.push(reader);
        }
    }

    /// Returns the context to request from raft now, if any: a new round, or the current one again because
    /// a leader has appeared. A round that was sent to another leader fails, as in etcd: the reader
    /// retries.
    pub fn ask(&mut self, leader: Leader) -> Option<Bytes> {
        if let Some(round) = &mut self.round {
            if leader.0 == 0 || leader == round.asked {
                return None;
            }
            if round.asked.0 == 0 {
                round.asked = leader;
                return Some(round.context.clone());
            }
            self.failed += 1;
            mark::READ_ROUND_FAILS.reached();
            self.finish(Err(Unavailable::LeaderChanged.into()));
        }
        self.waiting.retain(|reader| !reader.is_closed());
        if self.waiting.is_empty() {
            return None;
        }
        self.rounds += 1;
        let mut context = BytesMut::with_capacity(24);
        context.put_u64(self.member);
        context.put_u64(self.boot);
        context.put_u64(self.rounds);
        let context = context.freeze();
        let readers = std::mem::take(&mut self.waiting);
        self.round = Some(Round { context: context.clone(), readers, asked: leader, age_ticks: 0 });
        Some(context)
    }

    /// Raft's answer; answers to earlier rounds are ignored.
    pub fn answered(&mut self, state: &ReadState) {
        if self.round.as_ref().is_some_and(|round| round.context == state.context) {
            self.finish(Ok(Index(state.index)));
        }
    }

    /// Returns the context to request again: requests and answers may be lost. A round without readers
    /// ends.
    pub fn tick(&mut self) -> Option<Bytes> {
        let round = self.round.as_mut()?;
        round.readers.retain(|reader| !reader.is_closed());
        if round.readers.is_empty() && !plant::GIVEN_UP_ROUND_TAKES_READERS.is_planted() {
            mark::READ_ROUND_ABANDONED.reached();
            self.round = None;
            return None;
        }
        round.age_ticks += 1;
        let again = round.age_ticks.is_multiple_of(self.retry_ticks);
        self.slow += u64::from(again);
        again.then(|| round.context.clone())
    }

    /// Fails all readers; the replica stops.
    pub fn refuse_all(&mut self, error: &Error) {
        self.finish(Err(error.clone()));
        for reader in self.waiting.drain(..) {
            answer(reader, Err(error.clone()));
        }
    }

    fn finish(&mut self, result: Result<Index, Error>) {
        for reader in self.round.take().into_iter().flat_map(|round| round.readers) {
            answer(reader, result.clone());
        }
    }
}

/// Planted faults: a round under way takes readers that came after it was sent.
fn takes_readers(round: &Round) -> bool {
    plant::READ_JOINS_RUNNING_ROUND.is_planted()
        || plant::GIVEN_UP_ROUND_TAKES_READERS.is_planted()
            && round.readers.iter().all(|reader| reader.is_closed())
}

/// The reader may have given up.
fn answer(reader: Reader, result: Result<Index, Error>) {
    let _ = reader.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(reads: &mut Reads) -> oneshot::Receiver<Result<Index, Error>> {
        let (reader, answer) = oneshot::channel();
        reads.push(reader);
        answer
    }

    #[test]
    fn readers_that_come_during_a_round_wait_for_the_next() {
        let mut reads = Reads::new(1, 2, 5);
        let mut early = reader(&mut reads);
        let first = reads.ask((1, 1)).expect("somebody waits");
        let mut late = reader(&mut reads);
        assert_eq!(reads.ask((1, 1)), None);
        reads.answered(&ReadState { context: first, index: 7 });
        assert_eq!(early.try_recv(), Ok(Ok(Index(7))));
        assert!(late.try_recv().is_err());
        let second = reads.ask((1, 1)).expect("somebody waits");
        reads.answered(&ReadState { context: second, index: 9 });
        assert_eq!(late.try_recv(), Ok(Ok(Index(9))));
    }

    #[test]
    fn a_round_waits_for_a_leader_and_fails_with_its_leader() {
        let mut reads = Reads::new(1, 2, 5);
        let mut answer = reader(&mut reads);
        let context = reads.ask((0, 1)).expect("somebody waits");
        assert_eq!(reads.ask((0, 2)), None);
        assert_eq!(reads.ask((3, 2)), Some(context));
        assert_eq!(reads.ask((0, 2)), None, "a leader lost is no reason yet");
        assert_eq!(reads.ask((2, 3)), None);
        assert_eq!(answer.try_recv(), Ok(Err(Unavailable::LeaderChanged.into())));
    }

    #[test]
    fn a_round_is_asked_again_until_nobody_waits() {
        let mut reads = Reads::new(1, 2, 2);
        let answer = reader(&mut reads);
        let context = reads.ask((1, 1));
        assert_eq!((reads.tick(), reads.tick()), (None, context));
        drop(answer);
        assert_eq!((reads.tick(), reads.tick(), reads.slow), (None, None, 1));
    }
}
