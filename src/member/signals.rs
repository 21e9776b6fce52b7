//! State that a member's tasks share with each other and with the edge: latest values and one-time events.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::Notify;

use crate::apply::alarm::Alarms;
use crate::apply::membership::Membership;
use crate::auth::Auth;
use crate::error::Fatal;
use crate::latest;
use crate::member::upkeep::Level;
use crate::types::Index;

pub(in crate::member) struct Signals {
    pub applied: latest::Sender<Index>,
    pub members: latest::Sender<Arc<Membership>>,
    pub alarms: latest::Sender<Arc<Alarms>>,
    pub auth: latest::Sender<Arc<Auth>>,
    pub stopping: latest::Sender<bool>,
    pub ready: latest::Sender<bool>,
    /// This member has applied its own removal.
    pub removed: latest::Sender<bool>,
    /// How full the store is; never changes without a quota. Between full and empty until the applier has
    /// looked.
    pub space: latest::Sender<Level>,
    /// Whether this member raised the alarm NOSPACE in its name itself.
    own_alarm: AtomicBool,
    elected: Mutex<Option<Instant>>,
    fatal: Mutex<Option<Fatal>>,
    failed: Notify,
}

impl Signals {
    pub fn new(applied: Index, members: Membership, alarms: Alarms, auth: Auth) -> Self {
        Self {
            applied: latest::Sender::new(applied),
            members: latest::Sender::new(Arc::new(members)),
            alarms: latest::Sender::new(Arc::new(alarms)),
            auth: latest::Sender::new(Arc::new(auth)),
            stopping: latest::Sender::new(false),
            ready: latest::Sender::new(false),
            removed: latest::Sender::new(false),
            space: latest::Sender::new(Level::Tight),
            own_alarm: AtomicBool::new(false),
            elected: Mutex::default(),
            fatal: Mutex::default(),
            failed: Notify::new(),
        }
    }

    pub fn own_alarm(&self, own: bool) {
        self.own_alarm.store(own, Ordering::Relaxed);
    }

    pub fn has_own_alarm(&self) -> bool {
        self.own_alarm.load(Ordering::Relaxed)
    }

    /// Publishes how full the store is, if that has changed.
    pub fn publish_space(&self, level: Level) {
        self.space.send_if_modified(|before| std::mem::replace(before, level) != level);
    }

    pub fn leader_elected(&self, now: Instant) {
        *self.elected.lock().expect("nothing panics while it holds the lock") = Some(now);
    }

    /// When this member learned of the present leader.
    pub fn led_since(&self) -> Option<Instant> {
        *self.elected.lock().expect("nothing panics while it holds the lock")
    }

    /// Reports that the member must stop. The first report counts.
    pub fn stop_with(&self, fatal: Fatal) {
        self.fatal.lock().expect("nothing panics while it holds the lock").get_or_insert(fatal);
        self.failed.notify_one();
    }

    /// Waits for a report, which is returned once.
    pub async fn fatal(&self) -> Fatal {
        loop {
            let failed = self.failed.notified();
            if let Some(fatal) =
                self.fatal.lock().expect("nothing panics while it holds the lock").take()
            {
                return fatal;
            }
            failed.await;
        }
    }
}
