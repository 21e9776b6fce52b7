//! The queue of password hashes. bcrypt is slow by design and any client can call `Authenticate`, so the
//! number of concurrent hashes is bounded, calls wait for them in a queue of their own, and a call that ends
//! leaves the queue.
//!
//! The queue is fair between users: wrong passwords for one user do not delay the login of another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::env::{Env, Work};
use crate::error::Unavailable;
use crate::limits::{PASSWORDS_AT_ONCE, PASSWORDS_WAITING_MAX};
use crate::plant;

pub(in crate::member) struct Passwords {
    places: Arc<Semaphore>,
    /// The queue of each user with pending work. One user may use all places, but not queue for them ahead of
    /// another user.
    users: Arc<Mutex<Users>>,
}

type Users = BTreeMap<String, Row>;

struct Row {
    user: Arc<User>,
    /// Counted under the lock: of two entries that end at once, one is the last.
    entries: usize,
}

struct User {
    turn: Arc<Semaphore>,
    room: Semaphore,
}

/// A reference to a user in the table; the last one removes the user. It moves from the call to the work,
/// which may outlast the call: a new row would allow the user further work meanwhile.
struct Entry {
    users: Arc<Mutex<Users>>,
    name: String,
    user: Arc<User>,
}

impl Passwords {
    pub fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(PASSWORDS_AT_ONCE)), users: Arc::default() }
    }

    /// Runs `work` on a password of `user` when a place is free. Work that has begun keeps its place until it
    /// ends, even when the call is cancelled.
    pub async fn work<T: Send + 'static>(
        &self,
        env: &Env,
        user: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (entry, places, inner) = (self.entry(user), self.places.clone(), env.clone());
        let done = async move {
            let held = {
                let room = entry.user.room.try_acquire();
                let _room = room.map_err(|_| Unavailable::TooManyRequests)?;
                let turn = acquire(&entry.user.turn).await;
                (acquire(&places).await, turn)
            };
            // In the order of dropping: the entry is removed before the place is free.
            let held = (entry, held);
            let done = inner.blocking_for(Work::Passwords, "password", move || {
                let done = work();
                drop(held);
                done
            });
            Ok(done.await)
        };
        if plant::PASSWORD_OUTLIVES_ITS_CALL.is_planted() {
            let (reply, answer) = oneshot::channel();
            env.spawn("password", async move { drop(reply.send(done.await)) });
            return answer.await.expect("the work is done");
        }
        done.await
    }

    fn entry(&self, name: &str) -> Entry {
        let mut users = lock(&self.users);
        let row = users.entry(name.to_owned()).or_insert_with(|| {
            let turn = Arc::new(Semaphore::new(PASSWORDS_AT_ONCE));
            let user = Arc::new(User { turn, room: Semaphore::new(PASSWORDS_WAITING_MAX) });
            Row { user, entries: 0 }
        });
        row.entries += 1;
        Entry { users: self.users.clone(), name: name.to_owned(), user: row.user.clone() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut users = lock(&self.users);
        let row = users.get_mut(&self.name).expect("it is there as long as an entry");
        row.entries -= 1;
        if row.entries == 0 {
            users.remove(&self.name);
        }
    }
}

fn lock(users: &Mutex<Users>) -> MutexGuard<'_, Users> {
    users.lock().expect("nothing panics while it holds the lock")
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect("it is never closed")
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use std::sync::mpsc;

    use super::*;
    use crate::env::tokio::env;

    /// Work that ends when `end` is dropped; `ended` fails when its call has returned.
    struct Busy {
        end: mpsc::Sender<()>,
        ended: oneshot::Receiver<()>,
    }

    impl Busy {
        fn new(passwords: &Arc<Passwords>, env: &Env, user: &'static str) -> Self {
            let ((end, wait), (returned, ended)) = (mpsc::channel::<()>(), oneshot::channel());
            let (passwords, inner) = (passwords.clone(), env.clone());
            let work = async move {
                let _ = passwords.work(&inner, user, move || wait.recv()).await;
                drop(returned);
            };
            env.spawn("work", work);
            Self { end, ended }
        }
    }

    /// Lets the spawned tasks run until they wait.
    async fn settle() {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_flood_for_one_user_leaves_a_place_for_another() {
        let (passwords, env) = (Arc::new(Passwords::new()), env());
        let mut flood: Vec<_> = (0..10).map(|_| Busy::new(&passwords, &env, "ann")).collect();
        settle().await;
        assert_eq!(passwords.places.available_permits(), 0);
        let mut bob = Box::pin(passwords.work(&env, "bob", || 7));
        assert!((&mut bob).now_or_never().is_none());
        flood.remove(0);
        assert_eq!(bob.await, Ok(7), "before the rest of the flood");
        for Busy { end, ended } in flood {
            drop(end);
            let _ = ended.await;
        }
        assert_eq!(passwords.work(&env, "ann", || 8).await, Ok(8));
        assert!(lock(&passwords.users).is_empty(), "no user is remembered without work");
    }

    #[tokio::test]
    async fn a_user_is_remembered_while_work_runs_whose_caller_has_gone() {
        let (passwords, env) = (Arc::new(Passwords::new()), env());
        let (end, wait) = mpsc::channel::<()>();
        let mut call = Box::pin(passwords.work(&env, "ann", move || wait.recv()));
        assert!((&mut call).now_or_never().is_none());
        drop(call);
        let turns = |users: &Users| users["ann"].user.turn.available_permits();
        assert_eq!(turns(&lock(&passwords.users)), PASSWORDS_AT_ONCE - 1);
        drop(end);
        let all = u32::try_from(PASSWORDS_AT_ONCE).expect("few");
        let _free = passwords.places.acquire_many(all).await.expect("it is never closed");
        assert!(lock(&passwords.users).is_empty(), "no user is remembered without work");
    }

    #[tokio::test]
    async fn a_caller_that_goes_leaves_the_queue() {
        let (passwords, env) = (Arc::new(Passwords::new()), env());
        let running: Vec<_> =
            (0..PASSWORDS_AT_ONCE).map(|_| Busy::new(&passwords, &env, "ann")).collect();
        settle().await;
        let mut waits = Box::pin(passwords.work(&env, "ann", || panic!("the caller has gone")));
        assert!((&mut waits).now_or_never().is_none());
        drop(waits);
        drop(running);
        assert_eq!(passwords.work(&env, "ann", || 1).await, Ok(1));
    }

    #[tokio::test]
    async fn a_caller_that_finds_the_queue_full_is_refused() {
        let (passwords, env) = (Arc::new(Passwords::new()), env());
        let running: Vec<_> =
            (0..PASSWORDS_AT_ONCE).map(|_| Busy::new(&passwords, &env, "ann")).collect();
        settle().await;
        let queue: Vec<_> = (0..PASSWORDS_WAITING_MAX)
            .map(|_| {
                let mut waits = Box::pin(passwords.work(&env, "ann", || 0));
                assert!((&mut waits).now_or_never().is_none());
                waits
            })
            .collect();
        let refused = passwords.work(&env, "ann", || 0).await;
        assert_eq!(refused, Err(Unavailable::TooManyRequests));
        drop(queue);
        drop(running);
        assert_eq!(passwords.work(&env, "ann", || 1).await, Ok(1));
    }
}
