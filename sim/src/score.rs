//! Do the checkers detect anything at all? A planted fault is hunted through the seeds of every sweep
//! until a checker complains, and the same seed without the fault must pass.

use std::ops::Range;
use std::time::Duration;

use quorate::plant::Fault;

use crate::plan::Plan;
use crate::play::{play, play_with};
use crate::swarm;

/// Seeds in which every planted fault must have been caught.
pub const SEEDS_MAX: u64 = 200;

/// A scenario aims at a moment, and what else its random numbers do may hide the fault: it is played with its
/// own seed, and with so many in all. Each change of what the server does first draws them anew.
const SCENARIO_SEEDS_MAX: u64 = 4;

/// Faults that few seeds bring out, if any: a scenario that does, and the checker that must see it.
pub const SCRIPTED: &[(&str, &str, &str)] = &[
    ("vote-not-synced", "power-fails-right-after-a-vote", "offline"),
    ("change-before-its-commit-is-kept", "removed-member-is-still-needed", "liveness"),
    ("removed-member-leaves-at-once", "removed-member-is-still-needed", "liveness"),
    ("watch-gap-skipped", "slow-watchers-fall-behind", "watches"),
    ("slow-watcher-skips", "slow-watchers-fall-behind", "watches"),
    ("lock-not-rechecked", "locks-outlive-their-leases", "lock-service"),
    ("keep-alive-unconfirmed", "replaced-leader-is-asked-to-keep-a-lease", "leases"),
    ("stale-leader-revokes", "sleeping-leader-ends-no-leases", "leases"),
    ("revoke-batch-takes-last", "a-crowd-of-leases-ends-at-once", "crowd"),
    ("downgrade-ignored", "version-goes-down-and-up", "versions"),
    ("downgrade-not-loaded", "version-goes-down-and-up", "versions"),
    ("old-entry-leaves-the-index", "members-migrate-from-etcd", "liveness"),
    ("snapshot-without-v2-store", "members-migrate-from-etcd", "ended"),
    ("token-names-its-login", "users-migrate-from-etcd", "auth"),
    ("lease-checkpoint-forgotten", "long-leases-under-many-leaders", "leases"),
    ("checkpoint-outlives-renewal", "long-leases-under-many-leaders", "leases"),
    ("row-silently-differs", "members-are-compared", "equal"),
    ("corrupt-check-accuses-wrong-member", "members-are-compared", "corruption"),
    ("hashes-of-other-compactions-compared", "compactions-are-compared", "corruption"),
    ("quota-not-enforced", "full-members-make-room", "quota"),
    ("alarm-not-cleared", "full-members-make-room", "quota"),
    ("backup-not-of-one-moment", "backup-is-restored", "backups"),
    ("restore-forgets-leases", "backup-is-restored", "backups"),
    ("gateway-asks-twice", "clients-speak-json", "replay"),
    ("span-ids-repeat", "calls-are-traced", "spans"),
    ("proxy-keeps-linearizable-reads", "a-proxy-forgets-what-is-written", "monotonic"),
    ("proxy-keeps-what-was-written", "a-proxy-forgets-what-is-written", "serializable"),
    ("proxy-takes-back-a-revision", "answers-through-a-proxy-stay-in-order", "serializable"),
    ("proxy-shows-its-namespace", "clients-live-in-a-namespace", "replay"),
    ("proxy-watcher-joins-late", "shared-watches-lose-their-members", "watches"),
    ("proxy-watcher-shares-too-soon", "shared-watches-lose-their-members", "watches"),
    ("proxy-watcher-told-what-was-before", "shared-watches-lose-their-members", "watches"),
    ("proxy-watch-resumes-late", "shared-watches-lose-their-members", "watches"),
    ("proxy-compaction-ends-all", "shared-watches-lose-their-members", "watches"),
    // In the end no large answer is given any more.
    ("budget-not-returned", "flood-of-large-ranges", "closing"),
    ("txn-not-weighed", "txns-read-more-than-there-is-room", "greedy"),
    ("watch-buffer-without-end", "nobody-reads-a-watch", "stalled"),
    ("age-of-the-past-ignored", "the-past-ends-by-itself", "past"),
    ("past-ends-once", "the-past-ends-by-itself", "aging"),
    ("pings-uncounted", "clients-ping-without-end", "pinger"),
    ("silent-connections-kept", "clients-send-nothing", "silent"),
    ("latecomers-let-in", "members-meet-at-another-cluster", "meeting"),
    ("reserve-not-kept", "leases-end-under-a-flood-of-proposals", "pressure"),
    ("revoke-answered-from-the-head", "leases-are-revoked-among-many-writers", "headers"),
    ("given-up-round-takes-readers", "impatient-readers-ask-a-member-cut-off", "monotonic"),
    ("head-compaction-forgotten", "the-end-of-history", "past"),
    ("install-moves-watches-on", "watchers-live-through-installs", "watches"),
    ("member-update-not-stored", "members-are-given-other-addresses", "offline"),
    ("unseen-learner-promoted", "promotions-are-asked-of-every-member", "promotions"),
    ("compressed-size-unbounded", "txns-nest-too-deep", "deep"),
    ("stalled-snapshot-kept", "power-fails-while-a-snapshot-arrives", "liveness"),
    ("arrivals-unbounded", "strangers-open-many-streams", "crowded"),
    ("password-outlives-its-call", "passwords-are-given-up", "passwords"),
    ("place-not-returned", "idle-connections-take-all-places", "liveness"),
    ("websocket-without-place", "websockets-take-all-places", "panic"),
    ("stranger-proposes", "strangers-at-the-peer-port", "hostile"),
    ("client-without-certificate-served", "strangers-knock", "stranger"),
    ("client-cert-unchecked", "strangers-knock", "stranger"),
    ("revocations-ignored", "strangers-knock", "stranger"),
    ("member-comes-from-anywhere", "strangers-knock", "stranger"),
    ("old-certificate-served", "certificates-change-under-clients", "stranger"),
    ("open-range-as-one-key", "permissions-change-under-users", "auth"),
    ("nested-txn-unjudged", "permissions-change-under-users", "auth"),
    ("old-auth-revision-accepted", "permissions-change-under-users", "auth"),
    ("auth-not-loaded", "permissions-change-under-users", "panic"),
    ("permissions-not-refreshed", "permissions-change-under-users", "panic"),
];

/// A fault that was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// What did it.
    pub by: By,
    /// The checker that complained first, and of what.
    pub checker: &'static str,
    pub property: &'static str,
    /// How many seeds that took, and the time they simulated.
    pub seeds: u64,
    pub simulated: Duration,
}

/// What brings a fault out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Seed(u64),
    Script(&'static str),
}

/// Plays the fault's own scenario if there is one, seed after seed if not.
pub fn look_for(fault: &Fault, seeds: Range<u64>) -> Result<Option<Caught>, String> {
    match SCRIPTED.iter().find(|(scripted, ..)| *scripted == fault.name) {
        Some((_, name, checker)) => in_scenario(fault, name, checker),
        None => Ok(hunt(fault, seeds)),
    }
}

/// Plays the fault's own scenario until its checker complains.
pub fn in_scenario(
    fault: &Fault,
    name: &'static str,
    checker: &str,
) -> Result<Option<Caught>, String> {
    let mut plan = script(name)?;
    let mut simulated = Duration::ZERO;
    for seeds in 1..=SCENARIO_SEEDS_MAX {
        let verdict = play_with(&plan, Some(fault.name));
        simulated += verdict.simulated;
        let complaint = verdict.violations.iter().find(|violation| violation.checker == checker);
        // With its own seed each scenario passes without a fault: see the test `chaos`.
        if let Some(violation) = complaint.filter(|_| seeds == 1 || play(&plan).passed()) {
            let (by, property) = (By::Script(name), violation.property);
            let checker = violation.checker;
            return Ok(Some(Caught { by, checker, property, seeds, simulated }));
        }
        plan.seed += 1;
    }
    Ok(None)
}

/// The scenario of that name.
#[allow(clippy::disallowed_methods, reason = "scripts are files of this machine")]
pub fn script(name: &str) -> Result<Plan, String> {
    let file = format!("{}/scripts/{name}.sim", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    text.parse().map_err(|error| format!("{file}: {error}"))
}

/// Plays a plan with the fault planted: how long that was, and what was seen. A plan that fails without
/// the fault proves nothing.
fn caught(plan: &Plan, fault: &Fault, by: By) -> (Duration, Option<Caught>) {
    let verdict = play_with(plan, Some(fault.name));
    let simulated = verdict.simulated;
    let Some(violation) = verdict.violations.first() else { return (simulated, None) };
    if !play(plan).passed() {
        return (simulated, None);
    }
    let (checker, property) = (violation.checker, violation.property);
    (simulated, Some(Caught { by, checker, property, seeds: 1, simulated }))
}

/// Plays seed after seed with the fault planted; `None` when none of them brings it out. A seed that
/// fails without the fault proves nothing and is passed over.
pub fn hunt(fault: &Fault, seeds: Range<u64>) -> Option<Caught> {
    let first = seeds.start;
    let mut before = Duration::ZERO;
    for seed in seeds {
        let (simulated, found) = caught(&swarm::draw(seed), fault, By::Seed(seed));
        if let Some(found) = found {
            return Some(Caught {
                seeds: seed - first + 1,
                simulated: before + simulated,
                ..found
            });
        }
        before += simulated;
    }
    None
}
