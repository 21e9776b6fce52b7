//! Ends HTTP/2 streams whose clients take nothing of an answer that is there: flow control (RFC 9113, section
//! 5.2) lets a client keep any number of answers waiting, and the HTTP library asks a body for no more as
//! long as there is no window for what it has given. Streams of events, of which there may be none for days,
//! are left alone.
//!
//! A stream's task polls the answer that it sends, so what the answer did last is noted per thread while the
//! task is polled.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::env::{BoxFuture, Env};
use crate::rpc::{Flow, Rpc};

/// What an answer did last.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// It gave something that is to be sent; else it has nothing at present.
    has_given: bool,
    /// How often it did.
    steps: u32,
}

thread_local! {
    static MARK: Cell<Mark> = const { Cell::new(Mark { has_given: false, steps: 0 }) };
}

/// Whether an answer of this RPC is given up when its client takes nothing of it.
pub(super) fn is_bounded(rpc: &Rpc) -> bool {
    rpc.flow == Flow::Unary || rpc.method == "RangeStream"
}

/// Notes that there is something to send.
pub(super) fn given() {
    MARK.set(Mark { has_given: true, steps: MARK.get().steps.wrapping_add(1) });
}

/// Notes that there is nothing to send at present.
pub(super) fn waits() {
    MARK.set(Mark { has_given: false, ..MARK.get() });
}

/// Runs the task of a stream, and drops it, which resets the stream, when it can send nothing for `patience`.
pub async fn bounded(env: Env, task: impl Future<Output = ()>, patience: Duration) {
    let mut task = pin!(task);
    let mut mark = Mark::default();
    // The steps at the beginning of a wait, and its end.
    let mut stall: Option<(u32, BoxFuture<'static, ()>)> = None;
    poll_fn(|cx| {
        MARK.set(mark);
        let polled = task.as_mut().poll(cx);
        mark = MARK.get();
        match polled {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending if !mark.has_given => Poll::Pending,
            Poll::Pending => poll_stall(&env, &mut stall, mark, patience, cx),
        }
    })
    .await;
}

/// Ready when nothing has been taken for `patience`. A wait that has begun goes on over later ones, so that an
/// answer of many pieces needs few timers.
fn poll_stall(
    env: &Env,
    stall: &mut Option<(u32, BoxFuture<'static, ()>)>,
    mark: Mark,
    patience: Duration,
    cx: &mut Context<'_>,
) -> Poll<()> {
    loop {
        let (steps, end) = stall.get_or_insert_with(|| (mark.steps, env.sleep(patience)));
        if end.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if *steps == mark.steps {
            tracing::info!("a client reads nothing of its response; its stream is reset");
            return Poll::Ready(());
        }
        *stall = None;
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
            given();
            Poll::Pending
        });
        // What is given again and again is taken.
        assert!(env.timeout(DAY, bounded(env.clone(), task, DAY)).await.is_err());
        let mut first = true;
        let task = poll_fn(|_| {
            if std::mem::take(&mut first) {
                given();
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
                given();
                waits();
            }
            Poll::Pending
        });
        assert!(env.timeout(DAY, bounded(env.clone(), task, DAY)).await.is_err());
        // Nor does another answer on the same thread count.
        given();
        let mut silent = pin!(bounded(env, poll_fn(|_| Poll::Pending), DAY));
        for _ in 0..1_000 {
            assert!(poll!(&mut silent).is_pending());
        }
    }
}
