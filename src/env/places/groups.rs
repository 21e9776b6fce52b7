//! Which connections hold places, by group, origin and age, and which of them gives way to a new one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ::tokio::sync::Notify;

use crate::limits::{ADDRESS_SHARE, IDLE_LOOKED_AT};
use crate::mark;

/// What one connection does, and whether it must end.
pub(super) struct Slot {
    /// Its age in its group, or since its last request; changed under the lock only.
    key: AtomicU64,
    pub known: AtomicBool,
    /// Requests that are being answered.
    pub open: AtomicUsize,
    pub gives_way: AtomicBool,
    pub notify: Notify,
}

/// Where connections come from; an IPv6 network counts as one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    Here,
    V4(Ipv4Addr),
    V6([u8; 8]),
}

impl Origin {
    pub fn of(from: Option<IpAddr>) -> Self {
        match from.map(|from| from.to_canonical()) {
            None => Self::Here,
            Some(IpAddr::V4(address)) => Self::V4(address),
            Some(IpAddr::V6(address)) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// All connections.
#[derive(Default)]
pub(super) struct Groups {
    next: u64,
    pub strangers: Group,
    pub known: Group,
    pub switched: Group,
    per_origin: BTreeMap<Origin, usize>,
    /// Connections that gave way and have not ended.
    pub leaving: usize,
}

/// Connections by where they come from and by age.
#[derive(Default)]
pub(super) struct Group {
    pub count: usize,
    by_origin: BTreeMap<Origin, BTreeMap<u64, Arc<Slot>>>,
    /// The origins by their numbers of connections.
    pub ranks: BTreeSet<(usize, Origin)>,
}

impl Slot {
    fn key(&self) -> u64 {
        self.key.load(Ordering::Relaxed)
    }

    pub fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    fn give_way(&self) {
        mark::CONNECTION_GIVES_WAY.reached();
        self.gives_way.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }
}

impl Groups {
    /// The place of a new connection, a stranger's at first; makes others give way until there is room.
    pub fn admit(&mut self, origin: Origin, max: usize, strangers_max: usize) -> Option<Arc<Slot>> {
        let share = (max * ADDRESS_SHARE.0 / ADDRESS_SHARE.1).max(1);
        loop {
            let of_origin = self.per_origin.get(&origin).copied().unwrap_or(0);
            let victim = if of_origin >= share {
                let lesser = self.lesser(origin);
                lesser.or_else(|| self.known.idle(Some(origin), &mut self.next))
            } else if self.strangers.count >= strangers_max {
                self.strangers.victim(None)
            } else if self.strangers.count + self.known.count + self.switched.count < max {
                break;
            } else if self.strangers.count > max / 8 {
                self.strangers.victim(None)
            } else if self.switched.count > self.known.count {
                self.switched.victim(None)
            } else {
                // A few strangers are new connections that had no time to send anything.
                let idle = self.known.idle(None, &mut self.next);
                let switched = idle.or_else(|| self.switched.victim(None));
                switched.or_else(|| self.strangers.victim(None))
            };
            let (origin, slot) = victim?;
            self.remove(origin, &slot);
            self.leaving += 1;
            slot.give_way();
        }
        self.next += 1;
        let slot = Arc::new(Slot {
            key: AtomicU64::new(self.next),
            known: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            gives_way: AtomicBool::new(false),
            notify: Notify::new(),
        });
        self.strangers.insert(origin, slot.clone());
        *self.per_origin.entry(origin).or_default() += 1;
        Some(slot)
    }

    /// The victim among strangers and switched connections, taken from the larger group: neither silent
    /// connections nor those that are always busy displace the few of the other group.
    fn lesser(&self, origin: Origin) -> Option<(Origin, Arc<Slot>)> {
        if self.switched.of(origin) > self.strangers.of(origin) {
            return self.switched.victim(Some(origin));
        }
        self.strangers.victim(Some(origin))
    }

    /// Makes a stranger as young as a new connection. Does nothing for one that gave way.
    pub fn renew(&mut self, origin: Origin, slot: &Arc<Slot>) {
        if self.strangers.remove(origin, slot) {
            self.next += 1;
            slot.key.store(self.next, Ordering::Relaxed);
            self.strangers.insert(origin, slot.clone());
        }
    }

    /// Whether it was there: a connection that gave way is not.
    pub fn remove(&mut self, origin: Origin, slot: &Arc<Slot>) -> bool {
        let mut groups = [&mut self.strangers, &mut self.known, &mut self.switched].into_iter();
        if !groups.any(|group| group.remove(origin, slot)) {
            return false;
        }
        if let Some(count) = self.per_origin.get_mut(&origin) {
            *count -= 1;
            if *count == 0 {
                self.per_origin.remove(&origin);
            }
        }
        true
    }
}

impl Group {
    pub fn insert(&mut self, origin: Origin, slot: Arc<Slot>) {
        let of_origin = self.by_origin.entry(origin).or_default();
        self.ranks.remove(&(of_origin.len(), origin));
        of_origin.insert(slot.key(), slot);
        self.ranks.insert((of_origin.len(), origin));
        self.count += 1;
    }

    pub fn remove(&mut self, origin: Origin, slot: &Arc<Slot>) -> bool {
        let Some(of_origin) = self.by_origin.get_mut(&origin) else { return false };
        let before = of_origin.len();
        if of_origin.remove(&slot.key()).is_none() {
            return false;
        }
        self.ranks.remove(&(before, origin));
        self.count -= 1;
        match of_origin.len() {
            0 => drop(self.by_origin.remove(&origin)),
            left => drop(self.ranks.insert((left, origin))),
        }
        true
    }

    /// How many are from there.
    fn of(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeMap::len)
    }

    /// The given origin, or the one with the most connections.
    fn origin(&self, of: Option<Origin>) -> Option<Origin> {
        of.or_else(|| self.ranks.last().map(|(_, origin)| *origin))
    }

    /// An old idle connection, else the oldest one. A new one is idle until its first request has come,
    /// which takes a client on a busy machine some time: it is not among the old ones yet.
    fn victim(&self, of: Option<Origin>) -> Option<(Origin, Arc<Slot>)> {
        let origin = self.origin(of)?;
        let of_origin = self.by_origin.get(&origin)?;
        let old = IDLE_LOOKED_AT.min(of_origin.len().div_ceil(4));
        let idle = of_origin.values().take(old).find(|slot| slot.is_idle());
        let slot = idle.or_else(|| of_origin.values().next())?;
        Some((origin, slot.clone()))
    }

    /// An idle connection, of the given origin or of those with the most connections. Connections that
    /// are found busy are looked at last the next time.
    fn idle(&mut self, of: Option<Origin>, next: &mut u64) -> Option<(Origin, Arc<Slot>)> {
        let most = self.ranks.iter().rev().map(|(_, origin)| *origin);
        let origins: Vec<Origin> = match of {
            Some(origin) => vec![origin],
            None => most.take(IDLE_LOOKED_AT).collect(),
        };
        let mut left = IDLE_LOOKED_AT;
        for origin in origins {
            let Some(of_origin) = self.by_origin.get_mut(&origin) else { continue };
            let looked_at = left.min(of_origin.len());
            left -= looked_at;
            for _ in 0..looked_at {
                let (_, slot) = of_origin.pop_first()?;
                let idle = slot.is_idle();
                if !idle {
                    *next += 1;
                    slot.key.store(*next, Ordering::Relaxed);
                }
                of_origin.insert(slot.key(), slot.clone());
                if idle {
                    return Some((origin, slot));
                }
            }
        }
        None
    }
}
