//! How often the marked states of a run were reached, when first and where: those of the server
//! ([`quorate::mark`]) and those of the simulator itself ([`OWN`]). A run has a thread of its own, and so has
//! its ledger.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// What a sweep ought to bring about beside what happens inside of servers: name, and what it is.
pub const OWN: &[(&str, &str)] = &[
    ("two-leaders", "two members report at one time that they lead"),
    ("compaction-at-head", "all but the newest revision is compacted"),
    ("empty-store", "nothing is left of the key space, and it is written to again"),
    ("unknown-outcome", "a write whose outcome is unknown has happened"),
    ("crash-orders", "a power cut left unsynced writes, and several orders of them were tried"),
];

/// The ledger of a run; clones are the same.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reached: Mutex<BTreeMap<String, Reached>>,
    changed: Notify,
}

/// A mark that was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    pub times: u64,
    /// Since the world began.
    pub first: Duration,
    /// The host where it was reached last, if it was one.
    pub host: Option<String>,
}

pub type Marks = BTreeMap<String, Reached>;

/// When and where something happens, now.
pub type Here = dyn Fn() -> (Duration, Option<String>);

thread_local! {
    static RUN: RefCell<Option<(Ledger, Rc<Here>)>> = const { RefCell::new(None) };
}

impl Ledger {
    /// From now on, what is reached on this thread goes here.
    pub fn begin(&self, here: impl Fn() -> (Duration, Option<String>) + 'static) {
        RUN.set(Some((self.clone(), Rc::new(here))));
    }

    /// The end of the run on this thread.
    pub fn end(&self) {
        RUN.set(None);
    }

    pub fn marks(&self) -> Marks {
        self.reached().clone()
    }

    fn reached(&self) -> MutexGuard<'_, Marks> {
        self.0.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state was reached.
pub fn reach(name: &str) {
    let Some((ledger, here)) = RUN.with_borrow(Clone::clone) else { return };
    let (at, host) = here();
    let mut all = ledger.reached();
    let first = Reached { times: 0, first: at, host: None };
    let reached = all.entry(name.to_owned()).or_insert(first);
    reached.times += 1;
    reached.host = host;
    drop(all);
    ledger.0.changed.notify_waiters();
}

/// Waits until a mark is reached once more; the host where.
pub async fn next(name: &str) -> Option<String> {
    let (ledger, _) = RUN.with_borrow(Clone::clone)?;
    let times = |reached: &Marks| reached.get(name).map_or(0, |reached| reached.times);
    let before = times(&ledger.reached());
    loop {
        // Made before the look, so that nothing comes between.
        let changed = ledger.0.changed.notified();
        let now = ledger.reached().get(name).filter(|now| now.times > before).cloned();
        if let Some(now) = now {
            return now.host;
        }
        changed.await;
    }
}

/// Every mark that there is: name, and what it is.
pub fn known() -> impl Iterator<Item = (&'static str, &'static str)> {
    let inside = quorate::mark::ALL.iter().map(|mark| (mark.name, mark.is));
    inside.chain(OWN.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_counted_where_the_run_is() {
        let ledger = Ledger::default();
        reach("before");
        ledger.begin(|| (Duration::from_secs(3), Some("m1".to_owned())));
        reach("a");
        reach("a");
        ledger.end();
        reach("a");
        let host = Some("m1".to_owned());
        let a = Reached { times: 2, first: Duration::from_secs(3), host };
        assert_eq!(ledger.marks(), Marks::from([("a".to_owned(), a)]));
    }

    #[test]
    fn no_two_marks_have_one_name() {
        let mut names: Vec<_> = known().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
