//! Resets HTTP/2 streams whose clients do not read an answer that is ready: flow control (RFC 9113, section
//! 5.2) lets a client keep any number of answers pending, and the HTTP library does not poll a body while
//! the window is too small for the data it has. A stream stalls at most until its call's deadline. Without
//! a deadline, streams of events, which may be silent for days, are not limited; other answers are.
//!
//! A stream's task polls the answer that it sends, so what the answer did last is noted per thread while the
//! task is polled. The library forwards a piece of an answer when the client takes the first byte of it, and
//! drops the stream after the last piece; so the last byte of an answer that may have to wait is a piece of
//! its own ([`whole_bytes_max`]).

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::env::{BoxFuture, Env};
use crate::limits;
use crate::rpc::{Flow, Rpc};

/// The last step of an answer.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Whether it returned data that is to be sent; otherwise it has none at present.
    has_given: bool,
    /// Whether its stream is reset when nothing of it is taken.
    is_bounded: bool,
    /// How often it returned data.
    steps: u32,
    deadline: Option<Instant>,
}

impl Mark {
    const NONE: Self = Self { has_given: false, is_bounded: false, steps: 0, deadline: None };
}

thread_local! {
    static MARK: Cell<Mark> = const { Cell::new(Mark::NONE) };
    /// A stream is dropped because of its deadline.
    static LATE: Cell<bool> = const { Cell::new(false) };
}

/// Whether the stream of this RPC is reset when its client takes nothing of the answer.
pub(super) fn is_bounded(rpc: &Rpc) -> bool {
    rpc.flow == Flow::Unary || rpc.method == "RangeStream"
}

/// The size up to which an answer's data is given as a whole. Larger data is [`split`]. Most answers are
/// small, and save a frame.
pub(super) fn whole_bytes_max(rpc: &Rpc, has_deadline: bool) -> usize {
    match rpc.flow {
        Flow::Unary => limits::ANSWER_WHOLE_BYTES,
        _ if has_deadline => 1,
        _ if is_bounded(rpc) => limits::ANSWER_WHOLE_BYTES,
        _ => usize::MAX,
    }
}

/// Takes the rest from data that is given in pieces, of which each shows that the client takes something. The
/// last byte comes alone: when that is taken, all before it was.
pub(super) fn split(data: &mut Bytes) -> Bytes {
    let last = data.len().saturating_sub(1).max(1);
    data.split_off(last.min(limits::ANSWER_PIECE_BYTES).min(data.len()))
}

/// Notes that there is something to send, and what ends the wait until it is taken.
pub(super) fn given(is_bounded: bool, deadline: Option<Instant>) {
    if is_bounded || deadline.is_some() {
        let steps = MARK.get().steps.wrapping_add(1);
        MARK.set(Mark { has_given: true, is_bounded, steps, deadline });
    }
}

/// Notes that there is nothing to send at present.
pub(super) fn waits() {
    MARK.set(Mark { has_given: false, ..MARK.get() });
}

/// Whether the stream of a call that is dropped just now ends at its deadline.
pub(super) fn is_late() -> bool {
    LATE.get()
}

/// Runs the task of a stream. Drops it, which resets the stream, when it could send nothing for `patience`
/// or the deadline of its call has passed.
pub async fn bounded(env: Env, task: impl Future<Output = ()>, patience: Duration) {
    let mut task = pin!(Some(task));
    let (mut mark, mut stall) = (Mark::NONE, Stall::default());
    poll_fn(|cx| {
        let Some(running) = task.as_mut().as_pin_mut() else { return Poll::Ready(()) };
        MARK.set(mark);
        let polled = running.poll(cx);
        mark = MARK.get();
        match polled {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending if !mark.has_given => Poll::Pending,
            Poll::Pending if stall.poll_late(&env, mark, cx).is_ready() => {
                LATE.set(true);
                task.set(None);
                LATE.set(false);
                Poll::Ready(())
            }
            Poll::Pending if !mark.is_bounded => Poll::Pending,
            Poll::Pending => stall.poll_unread(&env, mark, patience, cx),
        }
    })
    .await;
}

/// Timers of an answer that waits to be taken.
#[derive(Default)]
struct Stall {
    /// The steps at the beginning of a wait, and its end.
    unread: Option<(u32, BoxFuture<'static, ()>)>,
    /// The deadline of the call.
    late: Option<BoxFuture<'static, ()>>,
}

impl Stall {
    /// Ready at the deadline of the call, if there is one.
    fn poll_late(&mut self, env: &Env, mark: Mark, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = mark.deadline else { return Poll::Pending };
        self.late.get_or_insert_with(|| env.sleep_until(at)).as_mut().poll(cx)
    }

    /// Ready when nothing has been taken for `patience`. A timer that was started also serves later waits, so
    /// that an answer of many pieces needs few timers.
    fn poll_unread(
        &mut self,
        env: &Env,
        mark: Mark,
        patience: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let begin = || (mark.steps, env.sleep(patience));
            let (steps, end) = self.unread.get_or_insert_with(begin);
            if end.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if *steps == mark.steps {
                tracing::info!("a client reads nothing of its response; its stream is reset");
                return Poll::Ready(());
            }
            self.unread = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::poll;

    use super::*;
    use crate::env::clocks::Ahead;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn an_answer_of_which_nothing_is_taken_is_given_up() {
        let env = Ahead::hurried();
        let task = poll_fn(|_| {
            given(true, None);
            Poll::Pending
        });
        // An answer that returns more and more data is being read.
        assert!(env.timeout(DAY, bounded(env.clone(), task, DAY)).await.is_err());
        let mut first = true;
        let task = poll_fn(|_| {
            if std::mem::take(&mut first) {
                given(true, None);
            }
            Poll::Pending
        });
        bounded(env, task, DAY).await;
    }

    #[tokio::test]
    async fn a_stream_without_events_is_left_alone() {
        let env = Ahead::hurried();
        let mut first = true;
        let task = poll_fn(|_| {
            if std::mem::take(&mut first) {
                given(true, None);
                waits();
            }
            Poll::Pending
        });
        assert!(env.timeout(DAY, bounded(env.clone(), task, DAY)).await.is_err());
        // Nor does another answer on the same thread count.
        given(true, None);
        let mut silent = pin!(bounded(env, poll_fn(|_| Poll::Pending), DAY));
        for _ in 0..1_000 {
            assert!(poll!(&mut silent).is_pending());
        }
    }

    /// An answer that is given at once and never taken. When it is dropped, it notes whether it is late.
    async fn never_taken(
        is_bounded: bool,
        deadline: Option<Instant>,
        was_late: &Cell<Option<bool>>,
    ) {
        struct Dropped<'a>(&'a Cell<Option<bool>>);

        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(Some(is_late()));
            }
        }

        let _dropped = Dropped(was_late);
        let mut first = true;
        poll_fn(|_| {
            if std::mem::take(&mut first) {
                given(is_bounded, deadline);
            }
            Poll::Pending
        })
        .await
    }

    #[test]
    fn the_last_byte_of_data_in_pieces_comes_alone() {
        const PIECE: usize = limits::ANSWER_PIECE_BYTES;
        for (bytes, pieces) in [
            (1, vec![1]),
            (2, vec![1, 1]),
            (PIECE, vec![PIECE - 1, 1]),
            (PIECE + 1, vec![PIECE, 1]),
            (2 * PIECE + 9, vec![PIECE, PIECE, 8, 1]),
        ] {
            let (mut rest, mut split_into) = (Bytes::from(vec![7; bytes]), Vec::new());
            while !rest.is_empty() {
                let mut piece = rest;
                rest = split(&mut piece);
                split_into.push(piece.len());
            }
            assert_eq!(split_into, pieces);
        }
    }

    #[tokio::test]
    async fn no_answer_waits_beyond_the_deadline_of_its_call() {
        let env = Ahead::hurried();
        for is_bounded in [true, false] {
            let late = Cell::new(None);
            let task = never_taken(is_bounded, Some(env.now() + DAY), &late);
            bounded(env.clone(), task, 2 * DAY).await;
            assert_eq!(late.get(), Some(true));
            assert!(!is_late());
        }
        // What ends it without a deadline is no lateness.
        let late = Cell::new(None);
        bounded(env, never_taken(true, None, &late), DAY).await;
        assert_eq!(late.get(), Some(false));
    }

    #[tokio::test]
    async fn a_stream_that_waits_for_events_has_its_own_deadline() {
        let env = Ahead::hurried();
        let mut first = true;
        let task = poll_fn(|_| {
            if std::mem::take(&mut first) {
                given(false, Some(env.now() + DAY));
                waits();
            }
            Poll::Pending
        });
        assert!(env.timeout(2 * DAY, bounded(env.clone(), task, DAY)).await.is_err());
    }
}
