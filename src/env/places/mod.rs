//! Bounded numbers of connections: a new connection takes a place, and when there is none left another
//! connection gives way, so that connections that do nothing cannot keep others out. Sockets and
//! protocols are elsewhere; a listener reports what its connections do.
//!
//! Three groups of connections are kept apart. *Strangers* have not shown that a client uses them; there
//! are few places for them, and they give way first. *Known* connections give way only while they are
//! idle. Those of them that *switched* protocols never are idle, and need not send anything again; they give
//! way where they are more than the others. Within a group the address with the most connections loses the
//! oldest one: of strangers that which has made no request for the longest time.

mod groups;
mod streams;

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::tokio::sync::Notify;

use self::groups::{Groups, Origin, Slot};
pub use self::streams::Streams;
use crate::limits::{CONNECTIONS_LEAVING_MAX, STRANGERS_MAX};
use crate::plant;

/// The places of one or more listeners; clones share them.
#[derive(Clone)]
pub struct Places(Arc<Shared>);

struct Shared {
    /// Connections, and those of strangers among them.
    max: usize,
    strangers_max: usize,
    held: Mutex<Groups>,
    /// Open streams of all strangers.
    streams: AtomicUsize,
    /// Bytes of metadata on its way.
    metadata: AtomicUsize,
    /// A connection that gave way has ended.
    left: Notify,
}

/// The place of one connection, which is free again when this is dropped.
pub struct Place(Standing);

/// What is known about a connection; its requests share it.
#[derive(Clone)]
pub struct Standing {
    shared: Arc<Shared>,
    origin: Origin,
    slot: Arc<Slot>,
}

/// A request that is being answered: its connection is not idle while this is held.
pub struct Open(Arc<Slot>);

impl Places {
    /// For `max` connections.
    pub fn new(max: usize) -> Self {
        Self(Arc::new(Shared {
            max,
            strangers_max: STRANGERS_MAX.min(max),
            held: Mutex::default(),
            streams: AtomicUsize::new(0),
            metadata: AtomicUsize::new(0),
            left: Notify::new(),
        }))
    }

    /// The place of a new connection, for which another one may have to give way; `None` if no other one
    /// can. Waits while many connections that gave way have not ended yet.
    pub async fn enter(&self, from: Option<IpAddr>) -> Option<Place> {
        loop {
            let left = self.0.left.notified();
            if self.0.held().leaving < CONNECTIONS_LEAVING_MAX {
                break;
            }
            left.await;
        }
        let origin = Origin::of(from);
        let slot = self.0.held().admit(origin, self.0.max, self.0.strangers_max)?;
        Some(Place(Standing { shared: self.0.clone(), origin, slot }))
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Groups> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Ready when the connection must end.
    pub async fn gives_way(&self) {
        let slot = &self.0.slot;
        while !slot.gives_way.load(Ordering::Relaxed) {
            slot.notify.notified().await;
        }
    }

    pub fn standing(&self) -> &Standing {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Standing { shared, origin, slot } = &self.0;
        let mut held = shared.held();
        if !held.remove(*origin, slot) && !plant::PLACE_NOT_RETURNED.is_planted() {
            held.leaving -= 1;
            shared.left.notify_one();
        }
    }
}

impl Standing {
    /// Whether the connection is known to be a client's or a member's.
    pub fn is_known(&self) -> bool {
        self.slot.known.load(Ordering::Relaxed)
    }

    /// The connection is a client's or a member's.
    pub fn make_known(&self) {
        if self.slot.known.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut held = self.shared.held();
        // It may have had to give way in the meantime.
        if held.strangers.remove(self.origin, &self.slot) {
            held.known.insert(self.origin, self.slot.clone());
        }
    }

    /// The connection has switched protocols: it will not be idle again. A stranger's stays one.
    pub fn switch(&self) {
        let mut held = self.shared.held();
        if held.known.remove(self.origin, &self.slot) {
            held.switched.insert(self.origin, self.slot.clone());
        }
    }

    /// Counts one more request under way, and makes a stranger as young as a new connection: otherwise one
    /// with short requests would give way before connections that are always busy.
    pub fn open(&self) -> Open {
        self.slot.open.fetch_add(1, Ordering::Relaxed);
        if !self.is_known() {
            self.shared.held().renew(self.origin, &self.slot);
        }
        Open(self.slot.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{
        IDLE_LOOKED_AT, METADATA_ARRIVING_BYTES_MAX, STRANGER_STREAMS_MAX, STRANGER_STREAMS_MIN,
    };

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    async fn enter(places: &Places, last: u8) -> Place {
        places.enter(address(last)).await.expect("another one gives way")
    }

    fn gives_way(place: &Place) -> bool {
        place.0.slot.gives_way.load(Ordering::Relaxed)
    }

    #[tokio::test]
    async fn silent_connections_give_way_to_new_ones() {
        let places = Places::new(8);
        let silent = [enter(&places, 1).await, enter(&places, 1).await, enter(&places, 1).await];
        let quiet = enter(&places, 2).await;
        let known = [enter(&places, 2).await, enter(&places, 3).await, enter(&places, 3).await];
        known.iter().for_each(|place| place.standing().make_known());
        let last = enter(&places, 4).await;
        assert!(!silent.iter().any(gives_way), "there were eight places");
        let newest = enter(&places, 5).await;
        assert!(gives_way(&silent[0]), "the oldest of the address with the most");
        silent[0].gives_way().await;
        assert!(!known.iter().chain([&last, &newest, &quiet]).any(gives_way));
        drop(silent);
        let _two_more = (enter(&places, 6).await, enter(&places, 6).await);
        assert!(!known.iter().chain([&last, &newest, &quiet]).any(gives_way), "places were free");
    }

    #[tokio::test]
    async fn known_connections_give_way_only_while_idle() {
        let places = Places::new(3);
        let (busy, idle, other) =
            (enter(&places, 1).await, enter(&places, 2).await, enter(&places, 3).await);
        for place in [&busy, &idle, &other] {
            place.standing().make_known();
        }
        let (open, second) = (busy.standing().open(), other.standing().open());
        let new = enter(&places, 4).await;
        assert!(gives_way(&idle) && !gives_way(&busy) && !gives_way(&other));
        new.standing().make_known();
        let _third = new.standing().open();
        assert!(places.enter(address(5)).await.is_none(), "all are busy");
        drop(open);
        let _newest = enter(&places, 5).await;
        assert!(gives_way(&busy) && !gives_way(&other));
        drop(second);
    }

    #[tokio::test]
    async fn a_stranger_that_makes_requests_stays_while_busy_connections_come() {
        let places = Places::new(2 * IDLE_LOOKED_AT);
        let client = enter(&places, 1).await;
        let mut busy = Vec::new();
        for _ in 0..6 * IDLE_LOOKED_AT {
            let place = enter(&places, 1).await;
            busy.push((place.standing().open(), place));
            busy.retain(|(_, place)| !gives_way(place));
            drop(client.standing().open());
            assert!(!gives_way(&client), "after {} others", busy.len());
        }
        let held = places.0.held();
        assert_eq!(held.strangers.count, busy.len() + 1);
        assert_eq!(
            held.strangers.ranks.iter().map(|(count, _)| count).sum::<usize>(),
            busy.len() + 1
        );
    }

    #[tokio::test]
    async fn a_new_connection_has_time_to_make_a_request() {
        let places = Places::new(2 * IDLE_LOOKED_AT);
        let mut busy = Vec::new();
        let mut more = async |count: usize| {
            for _ in 0..count {
                let place = enter(&places, 1).await;
                busy.push((place.standing().open(), place));
                busy.retain(|(_, place)| !gives_way(place));
            }
        };
        more(4 * IDLE_LOOKED_AT).await;
        let (new, silent) = (enter(&places, 1).await, enter(&places, 1).await);
        more(IDLE_LOOKED_AT).await;
        assert!(!gives_way(&new) && !gives_way(&silent));
        drop(new.standing().open());
        more(IDLE_LOOKED_AT).await;
        assert!(!gives_way(&new) && gives_way(&silent));
    }

    #[tokio::test]
    async fn connections_that_switched_leave_room_for_others() {
        let places = Places::new(16);
        let client = enter(&places, 1).await;
        client.standing().make_known();
        let mut switched = Vec::new();
        // First from the client's address, up to its share, and then from another one, too.
        for last in std::iter::repeat_n(1, 50).chain((1..3).cycle().take(100)) {
            let place = enter(&places, last).await;
            place.standing().make_known();
            place.standing().switch();
            switched.push((place.standing().open(), place));
            switched.retain(|(_, place)| !gives_way(place));
            let probe = enter(&places, 1).await;
            assert!(!gives_way(&client) && !gives_way(&probe), "after {}", switched.len());
            switched.retain(|(_, place)| !gives_way(place));
        }
        // Nor do connections that do nothing drive them out where they are few.
        let kept = switched.len();
        drop(switched.drain(2..));
        let mut silent = Vec::new();
        for _ in 0..4 * kept {
            silent.push(enter(&places, 1).await);
            silent.retain(|place| !gives_way(place));
        }
        assert!(!switched.iter().any(|(_, place)| gives_way(place)) && !gives_way(&client));
    }

    #[tokio::test]
    async fn one_address_does_not_take_all_places() {
        let places = Places::new(8);
        let mut busy = Vec::new();
        for _ in 0..6 {
            let place = enter(&places, 1).await;
            place.standing().make_known();
            busy.push((place.standing().open(), place));
        }
        assert!(places.enter(address(1)).await.is_none(), "three of four are its share");
        let other = (enter(&places, 2).await, enter(&places, 2).await);
        assert!(!gives_way(&other.0));
        let network = |last| Some(IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, 0, last]));
        assert_eq!(Origin::of(network(1)), Origin::of(network(2)));
        let mapped = std::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped();
        assert_eq!(Origin::of(Some(mapped.into())), Origin::of(address(1)));
    }

    #[tokio::test]
    async fn strangers_have_few_places_of_many() {
        let places = Places::new(2 * STRANGERS_MAX);
        let mut strangers = Vec::new();
        for last in 0..STRANGERS_MAX {
            strangers.push(enter(&places, (last % 2) as u8).await);
        }
        let _known = enter(&places, 9).await;
        assert_eq!(strangers.iter().filter(|place| gives_way(place)).count(), 1);
        for last in 1..CONNECTIONS_LEAVING_MAX {
            strangers.push(enter(&places, (last % 2) as u8).await);
        }
        assert_eq!(places.0.held().leaving, CONNECTIONS_LEAVING_MAX);
        let mut waiting = Box::pin(places.enter(address(9)));
        assert!(futures::poll!(&mut waiting).is_pending(), "none of those has ended yet");
        strangers.retain(|place| !gives_way(place));
        assert!(waiting.await.is_some());
    }

    #[tokio::test]
    async fn streams_of_strangers_are_bounded_in_all() {
        let places = Places::new(8);
        let (first, second) = (enter(&places, 1).await, enter(&places, 2).await);
        let mut many = Streams::of(first.standing().clone());
        let mut few = Streams::of(second.standing().clone());
        assert!(many.set(STRANGER_STREAMS_MAX));
        assert!(!many.set(STRANGER_STREAMS_MAX + 1));
        assert!(few.set(STRANGER_STREAMS_MIN), "everybody has a few");
        assert!(!few.set(STRANGER_STREAMS_MIN + 1));
        assert!(few.set(1), "fewer are never too many");
        first.standing().make_known();
        assert!(many.set(2 * STRANGER_STREAMS_MAX), "a known client has as many as it likes");
        assert!(few.set(STRANGER_STREAMS_MAX));
        assert!(many.set_metadata(METADATA_ARRIVING_BYTES_MAX) && !few.set_metadata(1));
        assert!(many.set_metadata(0) && few.set_metadata(2));
        drop((many, few));
        assert_eq!(places.0.metadata.load(Ordering::Relaxed), 0);
        assert_eq!(places.0.streams.load(Ordering::Relaxed), 0);
        assert!(first.0.slot.is_idle());
    }
}
