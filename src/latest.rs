//! A value that one task changes and other tasks wait for; only the latest state counts. Equivalent to
//! `tokio::sync::watch`, except for the order in which waiters are woken: tokio's depends on a
//! process-wide counter, this one's is the order in which they began to wait, so that a simulated run
//! depends on nothing but its seed.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// The other side is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side of a latest value is gone")]
pub struct Closed;

/// Changes the value. Dropping it closes the channel.
pub struct Sender<T>(Arc<Shared<T>>);

/// Reads the value and waits for the next one. A clone counts as seen what the original has seen.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
    receivers: AtomicUsize,
    deserted: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    closed: bool,
}

/// A read guard of the value. It must be short-lived and not held across an await.
pub struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

/// Creates a channel with an initial value, which counts as seen by the first receiver.
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().expect("nothing panics while it holds the lock")
    }
}

impl<T> Sender<T> {
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            state: RwLock::new(State { value, version: 0, closed: false }),
            changed: Notify::new(),
            receivers: AtomicUsize::new(0),
            deserted: Notify::new(),
        }))
    }

    /// A receiver that has seen the present value.
    pub fn subscribe(&self) -> Receiver<T> {
        self.0.receivers.fetch_add(1, Ordering::AcqRel);
        Receiver { seen: self.0.read().version, shared: self.0.clone() }
    }

    /// Sets the value and returns the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_if_modified(|now| {
            std::mem::swap(now, &mut before);
            true
        });
        before
    }

    /// Changes the value in place; wakes the waiters if `modify` returns true, and returns the same.
    pub fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
        let mut state = self.0.state.write().expect("nothing panics while it holds the lock");
        let modified = modify(&mut state.value);
        state.version += u64::from(modified);
        drop(state);
        if modified {
            self.0.changed.notify_waiters();
        }
        modified
    }

    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Ready when there is no receiver.
    pub async fn closed(&self) {
        loop {
            let deserted = self.0.deserted.notified();
            if self.0.receivers.load(Ordering::Acquire) == 0 {
                return;
            }
            deserted.await;
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.state.write().expect("nothing panics while it holds the lock").closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    pub fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// The value, which counts as seen from now on.
    pub fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.read();
        self.seen = state.version;
        Ref(state)
    }

    /// Whether there is a value that was not seen.
    pub fn has_changed(&self) -> Result<bool, Closed> {
        let state = self.shared.read();
        match (state.version != self.seen, state.closed) {
            (true, _) => Ok(true),
            (false, true) => Err(Closed),
            (false, false) => Ok(false),
        }
    }

    /// Counts the present value as seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.read().version;
    }

    /// Waits for a value that was not seen, and counts it as seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Registered before the check: a change between the check and the await is not missed.
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.read();
                if state.version != self.seen {
                    self.seen = state.version;
                    return Ok(());
                }
                if state.closed {
                    return Err(Closed);
                }
            }
            changed.await;
        }
    }

    /// Waits until the value satisfies the predicate; returns at once if it already does.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        loop {
            if wanted(&self.borrow_and_update()) {
                return Ok(());
            }
            self.changed().await?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.receivers.fetch_add(1, Ordering::AcqRel);
        Self { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        if self.shared.receivers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.deserted.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Wake, Waker};

    use super::*;

    /// Records its number when it is woken.
    struct Woken(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.lock().expect("a list of numbers").push(self.0);
        }
    }

    #[test]
    fn waiters_are_woken_in_the_order_in_which_they_came() {
        let (sender, receiver) = channel(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut receivers: Vec<_> = (0..20).map(|_| receiver.clone()).collect();
        let mut waiting: Vec<_> = receivers.iter_mut().map(|it| Box::pin(it.changed())).collect();
        for (number, waiting) in waiting.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Woken(number, order.clone())));
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        sender.send_replace(1);
        assert_eq!(*order.lock().expect("a list of numbers"), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn changes_and_ends_are_seen_once() {
        let (sender, mut receiver) = channel(1);
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(receiver.changed()).poll(&mut context).is_pending());
        assert_eq!(sender.send_replace(2), 1);
        assert_eq!(receiver.has_changed(), Ok(true));
        assert_eq!(pin!(receiver.changed()).poll(&mut context), Poll::Ready(Ok(())));
        assert!(pin!(receiver.changed()).poll(&mut context).is_pending());
        assert_eq!(
            pin!(receiver.wait_for(|now| *now == 2)).poll(&mut context),
            Poll::Ready(Ok(()))
        );
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.has_changed(), Ok(false));
        drop(sender);
        assert_eq!(pin!(receiver.changed()).poll(&mut context), Poll::Ready(Err(Closed)));
    }

    #[test]
    fn a_sender_learns_that_all_receivers_are_gone() {
        let (sender, receiver) = channel(());
        let mut context = Context::from_waker(Waker::noop());
        let mut closed = pin!(sender.closed());
        assert!(closed.as_mut().poll(&mut context).is_pending());
        let other = receiver.clone();
        drop(receiver);
        assert!(closed.as_mut().poll(&mut context).is_pending());
        drop(other);
        assert!(closed.as_mut().poll(&mut context).is_ready());
    }
}
