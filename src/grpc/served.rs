//! Response streams of calls that are served by a future: the future is polled by the task that sends the
//! stream, so that an answer takes no wakeup of another task, and what is ready goes into one frame. It
//! is polled only when it was woken: what else wakes the sending task (room on the connection) is cheap.
//!
//! A client that takes no responses stops the future, which must hold nothing that others wait for.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::Stream;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use tokio::sync::mpsc;
use tonic::Status;

/// A future or a stream that is polled only after it was woken.
pub(super) struct Woken<T> {
    inner: T,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Remembers that it was rung, and wakes the task that polls.
struct Bell {
    rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<T: Unpin> Woken<T> {
    pub fn new(inner: T) -> Self {
        let bell = Arc::new(Bell { rung: AtomicBool::new(true), task: AtomicWaker::new() });
        let waker = Waker::from(bell.clone());
        Self { inner, bell, waker }
    }

    /// Calls `poll` if it was woken since that was pending.
    fn poll_woken<O>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<O>,
    ) -> Poll<O> {
        // First, so that no wakeup falls between the look and the wait.
        self.bell.task.register(cx.waker());
        if !self.bell.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let polled = poll(Pin::new(&mut self.inner), &mut Context::from_waker(&self.waker));
        if polled.is_ready() {
            // It may be ready again, and has registered nothing.
            self.bell.rung.store(true, Ordering::Release);
        }
        polled
    }
}

impl<F: Future + Unpin> Future for Woken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.poll_woken(cx, |inner, cx| inner.poll(cx))
    }
}

impl<S: Stream + Unpin> Stream for Woken<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.poll_woken(cx, |inner, cx| inner.poll_next(cx))
    }
}

/// The responses of a call: what the future sends into the channel, then the error with which it ends.
pub struct Served<T> {
    serving: Option<Woken<BoxFuture<'static, Result<(), Status>>>>,
    answers: mpsc::Receiver<T>,
    error: Option<Status>,
}

impl<T> Served<T> {
    /// The future has the sender of `answers`.
    pub fn new(
        serving: impl Future<Output = Result<(), Status>> + Send + 'static,
        answers: mpsc::Receiver<T>,
    ) -> Self {
        Self { serving: Some(Woken::new(Box::pin(serving))), answers, error: None }
    }
}

impl<T> Stream for Served<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            // Not the receiver's own wait, which would have this task wake itself for every answer.
            if let Ok(answer) = this.answers.try_recv() {
                return Poll::Ready(Some(Ok(answer)));
            }
            let Some(serving) = &mut this.serving else {
                return Poll::Ready(this.error.take().map(Err));
            };
            match Pin::new(serving).poll(cx) {
                Poll::Ready(ended) => {
                    this.serving = None;
                    this.error = ended.err();
                }
                Poll::Pending if this.answers.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures::{StreamExt as _, future::poll_fn, poll};
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn is_polled_only_when_it_was_woken() {
        let (polls, more) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (sender, answers) = mpsc::channel(2);
        let serving = {
            let (polls, more) = (polls.clone(), more.clone());
            async move {
                let work = async {
                    for answer in 0.. {
                        more.notified().await;
                        sender.send(answer).await.expect("the stream is there");
                    }
                };
                let mut work = Box::pin(work);
                poll_fn(|cx| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    work.as_mut().poll(cx)
                })
                .await;
                Ok(())
            }
        };
        let mut served = Served::new(serving, answers);
        for _ in 0..5 {
            assert!(poll!(served.next()).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        more.notify_one();
        assert!(matches!(poll!(served.next()), Poll::Ready(Some(Ok(0)))));
        for _ in 0..5 {
            assert!(poll!(served.next()).is_pending());
        }
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn more_answers_than_the_channel_holds_come_in_order_before_the_error() {
        let (sender, answers) = mpsc::channel(2);
        let serving = async move {
            for answer in 0..7 {
                sender.send(answer).await.expect("the stream is there");
            }
            Err(Status::cancelled("over"))
        };
        let all: Vec<_> = Served::new(serving, answers).collect().await;
        let numbers: Vec<_> = all.iter().map_while(|answer| answer.as_ref().ok()).collect();
        assert_eq!(numbers, [&0, &1, &2, &3, &4, &5, &6]);
        assert_eq!(all[7].as_ref().expect_err("the end").message(), "over");
        assert_eq!(all.len(), 8);
    }

    #[tokio::test]
    async fn a_stream_that_is_ready_often_is_read_to_its_end() {
        let woken = Woken::new(futures::stream::iter(0..9));
        assert_eq!(woken.collect::<Vec<_>>().await, (0..9).collect::<Vec<_>>());
    }
}
