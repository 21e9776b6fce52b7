//! hyper's executor and timer over [`Runtime`], for our servers, our client and the peer transport.
//! It opens no connection and knows no protocol.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sync_wrapper::SyncWrapper;

use super::{BoxFuture, Runtime};

/// Where hyper's own tasks (one per HTTP/2 connection and stream) run.
#[derive(Clone)]
pub struct Exec(pub Arc<dyn Runtime>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Exec {
    fn execute(&self, task: F) {
        drop(self.0.spawn("hyper", Box::pin(task)));
    }
}

/// The clock behind hyper's keep-alive and header timeouts.
#[derive(Clone)]
pub struct Timer(pub Arc<dyn Runtime>);

impl hyper::rt::Timer for Timer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(self.0.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Sleep(SyncWrapper::new(self.0.sleep_until(deadline))))
    }

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn hyper::rt::Sleep>>, deadline: Instant) {
        *sleep = self.sleep_until(deadline);
    }
}

/// hyper requires `Sync` of its sleeps; a boxed future is not, but it is never polled through `&`.
struct Sleep(SyncWrapper<BoxFuture<'static, ()>>);

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.get_mut().as_mut().poll(cx)
    }
}

impl hyper::rt::Sleep for Sleep {}
