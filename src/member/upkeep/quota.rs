//! The quota. When live bytes pass it, the member raises the alarm NOSPACE, under which apply refuses to
//! grow; when they are well below again it clears its alarm, which etcd leaves to an operator.
//!
//! As in etcd, the quota is checked twice: before a request is proposed, by its cost, and after it was
//! applied, because requests that were admitted together may pass the quota together. An applied request is
//! answered as applied, where etcd answers that there was no space.

use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, alarm_request::AlarmAction,
};
use tracing::{info, warn};

use crate::member::propose::Origin;
use crate::member::{Member, Options};

use crate::error::{Error, Refused};
use crate::plant;
use crate::replica::Role;

/// The cost of a put besides key and value, as in etcd.
const PUT_OVERHEAD_BYTES: u64 = 256;
/// The part of the quota that must be free before the alarm is cleared.
const FREE_SHARE: u64 = 10;

/// Bounds on live bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::member) struct Quota {
    bytes: u64,
    /// Below this there is room again.
    room: u64,
}

/// The level of live bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::member) enum Level {
    /// Any request fits.
    Room,
    /// An alarm is neither raised nor cleared.
    Tight,
    Full,
}

impl Quota {
    /// `None` without a bound. There is room when the most expensive request fits and a share of the quota is
    /// free, so that the next request does not raise the alarm again.
    pub fn new(options: &Options) -> Option<Self> {
        let bytes = options.quota_bytes?;
        let dearest = options.request_bytes_max as u64
            + PUT_OVERHEAD_BYTES.saturating_mul(options.txn_ops_max as u64);
        Some(Self { bytes, room: bytes.saturating_sub(dearest.max(bytes / FREE_SHARE)) })
    }

    pub fn level(self, live_bytes: u64) -> Level {
        if live_bytes >= self.bytes {
            Level::Full
        } else if live_bytes < self.room {
            Level::Room
        } else {
            Level::Tight
        }
    }
}

/// Raises and clears this member's alarm for as long as it runs.
pub(in crate::member) async fn run(member: Member) {
    let signals = &member.0.signals;
    // Before that, what the log holds beyond the state is not applied: level and alarms are those of some
    // time ago.
    if signals.ready.subscribe().wait_for(|ready| *ready).await.is_err() {
        return;
    }
    if member.alarms().raised_by(member.id(), AlarmType::Nospace) {
        // Raised before this start.
        signals.own_alarm(true);
    }
    let (mut space, mut alarms) = (signals.space.subscribe(), signals.alarms.subscribe());
    // As a rule the other members are as full as the leader: one alarm is enough.
    let mut waited = false;
    while !member.is_stopping() {
        let level = *space.borrow_and_update();
        let wanted = member.wanted(level, &alarms.borrow_and_update());
        let Some(action) = wanted else {
            waited = false;
            let changed = tokio::select! {
                biased; // The order does not matter.
                changed = space.changed() => changed,
                changed = alarms.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
            continue;
        };
        let raises = action == AlarmAction::Activate;
        if raises && !waited && member.raft().role != Role::Leader {
            waited = true;
            member.0.env.sleep(member.0.options.election_timeout).await;
            continue;
        }
        match member.carry_own_alarm(action).await {
            Ok(_) if raises => warn!("message exceeded backend quota; raising alarm"),
            Ok(_) => info!("there is room again; alarm cleared"),
            Err(error) => {
                warn!(%error, raises, "could not change the alarm about space");
                signals.own_alarm(true);
                member.0.env.sleep(Member::RETRY_PAUSE).await;
            }
        }
    }
}

impl Member {
    /// Refuses a request that would pass the quota, and raises the alarm.
    pub(in crate::member) async fn check_quota(&self, cost: u64) -> Result<(), Error> {
        let Some(quota) = self.0.options.quota_bytes.filter(|_| cost > 0) else { return Ok(()) };
        if self.0.store.live_bytes() + cost < quota || plant::QUOTA_NOT_ENFORCED.is_planted() {
            return Ok(());
        }
        if !self.alarms().stands(AlarmType::Nospace) {
            // As in etcd the answer is the same when the alarm cannot be raised now.
            let _ = self.carry_own_alarm(AlarmAction::Activate).await;
        }
        Err(Refused::NoSpace.into())
    }

    /// The action on this member's alarm. An alarm that another party raised in its name while it ran is left
    /// alone.
    fn wanted(&self, level: Level, alarms: &crate::apply::alarm::Alarms) -> Option<AlarmAction> {
        let own = alarms.raised_by(self.id(), AlarmType::Nospace);
        match level {
            Level::Full if !alarms.stands(AlarmType::Nospace) => Some(AlarmAction::Activate),
            Level::Room if own && self.0.signals.has_own_alarm() => {
                Some(AlarmAction::Deactivate).filter(|_| !plant::ALARM_NOT_CLEARED.is_planted())
            }
            _ => None,
        }
    }

    async fn carry_own_alarm(&self, action: AlarmAction) -> Result<AlarmResponse, Error> {
        self.0.signals.own_alarm(action == AlarmAction::Activate);
        let request = AlarmRequest {
            action: action as i32,
            member_id: self.id().0,
            alarm: AlarmType::Nospace as i32,
        };
        self.propose(Origin::own(), request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(bytes: u64, request_bytes_max: usize) -> Quota {
        let mut options = Options::single("m", "/data", ([127, 0, 0, 1], 0).into());
        options.quota_bytes = Some(bytes);
        options.request_bytes_max = request_bytes_max;
        options.txn_ops_max = 4;
        Quota::new(&options).expect("there is a quota")
    }

    #[test]
    fn room_is_less_than_full() {
        let quota = quota(1_000_000, 1_000);
        let levels = [0, 899_999, 900_000, 999_999, 1_000_000, u64::MAX];
        let levels = levels.map(|live| quota.level(live));
        use Level::{Full, Room, Tight};
        assert_eq!(levels, [Room, Room, Tight, Tight, Full, Full]);
    }

    /// An alarm that was raised because a request did not fit is not cleared while that one would not.
    #[test]
    fn where_there_is_room_any_request_fits() {
        for (bytes, request) in
            [(1_u64, 1_000_usize), (5_000, 1_000), (50_000, 1_000), (1 << 40, 1)]
        {
            let quota = quota(bytes, request);
            let dearest = request as u64 + 4 * PUT_OVERHEAD_BYTES;
            for live in [0, bytes / 2, bytes.saturating_sub(dearest), bytes - 1, bytes] {
                let fits = live + dearest <= bytes;
                assert!(fits || quota.level(live) != Level::Room, "{bytes} {request} {live}");
            }
        }
    }

    #[test]
    fn no_quota_is_no_bound() {
        let mut options = Options::single("m", "/data", ([127, 0, 0, 1], 0).into());
        options.quota_bytes = None;
        assert_eq!(Quota::new(&options), None);
    }
}
