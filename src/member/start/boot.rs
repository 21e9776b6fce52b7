//! The start of a member: a table decides, by what is found on disk, whether it begins a cluster, joins one
//! or restarts. The rest is the same for all: the entries of the log go through the applier.

use std::io;
use std::path::Path;
use std::sync::Arc;

use quorate_proto::etcdserverpb::Metadata;
use quorate_proto::raftpb::{ConfState, HardState, SnapshotMetadata};
use quorate_proto::walpb;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::alone;
use super::first::NewCluster;
use super::folders;
use super::identity::RequestIds;
use super::join::{self, Joining};
use super::owner::{Found, Owner};
use crate::apply::{self, StateMachine};
use crate::codec;
use crate::engine::{self, Engine};
use crate::env::{Disk, Env, Lock};
use crate::error::{Fatal, Removed};
use crate::limits;
use crate::mark;
use crate::member::applier::Applier;
use crate::member::lessor::{self, Lessor};
use crate::member::links::{self, Links, LocalMember, Outgoing, parse_version};
use crate::member::propose::{Admission, Waiter};
use crate::member::requests::budget_of;
use crate::member::signals::Signals;
use crate::member::snapshot;
use crate::member::tokens::{Passwords, Tokens};
use crate::member::upkeep::{self, Hashes, Quota};
use crate::member::{InitialState, Inner, Member, Options};
use crate::metrics::{ApplySeconds, Metrics};
use crate::mvcc::Store;
use crate::peer;
use crate::replica::{self, ReplicaConfig};
use crate::types::{ClusterId, Index, MemberId, Term};
use crate::wal::{self, Save, Wal};
use crate::watch;

/// How to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Nothing was found: begin a cluster with the other initial members.
    Bootstrap,
    /// There is a log: go on, whatever the flags about the initial cluster.
    Restart,
    /// Nothing was found, and the cluster exists.
    Join,
    /// A directory that was used before, without its log.
    Orphan,
}

/// The table: is there a log, was the directory used before, how does the cluster begin.
fn decide(log: bool, used: bool, state: InitialState) -> Plan {
    match (log, used, state) {
        (true, _, _) => Plan::Restart,
        (false, true, _) => Plan::Orphan,
        (false, _, InitialState::New) => Plan::Bootstrap,
        (false, _, InitialState::Existing) => Plan::Join,
    }
}

/// The state recovered from disk.
struct Ground {
    lock: Box<dyn Lock>,
    store: Store,
    id: MemberId,
    cluster: ClusterId,
    start: replica::Start,
}

impl Member {
    /// Opens the data directory and starts the member's tasks. [`Member::ready`] is ready when the member is
    /// published in its cluster.
    pub async fn start(env: Env, options: Options) -> Result<Self, Fatal> {
        let Ground { lock, store, id, cluster, start } = Ground::open(&env, &options).await?;
        let lease_ttl_min_s = options.lease_ttl_min_s();
        let machine = StateMachine::load(&store)?
            .with_lease_ttl_min(lease_ttl_min_s)
            .with_learners_max(options.learners_max)
            .with_release(options.release);
        check_membership(&machine, id, &options)?;
        if options.initial_corrupt_check && store.applied() > Index(0) {
            let whose = (id, cluster);
            upkeep::check_first(&env, &options, &store, &machine.members, whose).await?;
        }
        let conf_state = start.conf_state.clone();
        let applied = store.applied();

        let metrics = Arc::new(Metrics::new());
        let (members, alarms) = (machine.members.clone(), machine.alarms.clone());
        let signals = Arc::new(Signals::new(applied, members, alarms, machine.auth.clone()));
        let lessor = Arc::new(Lessor::default());
        let tokens = Arc::new(Tokens::open(&env, &options.tokens).await?);
        let known_commit = Index(start.hard_state.commit);
        let outgoing = Arc::new(Outgoing::default());
        let config = ReplicaConfig {
            boot_seed: env.random_u64(),
            applied,
            heartbeat: options.heartbeat,
            election_ticks: options.election_ticks(),
            pre_vote: options.pre_vote,
            initial_election_tick_advance: options.initial_election_tick_advance,
            catchup_entries: options.catchup_entries,
            metrics: metrics.clone(),
            check_proposed: |entry| apply::check::proposed(entry).map_err(|why| why.to_string()),
            check_appended: |entry| apply::check::appended(entry).map_err(|why| why.to_string()),
            ..ReplicaConfig::new(id)
        };
        let (replica, committed) = replica::start(env.clone(), config, start, outgoing.clone())?;
        let hashes = Hashes::default();
        let hub = watch::start(&env, store.revision(), options.watch_bounds);
        let applier = Applier {
            env: env.clone(),
            machine,
            store: store.clone(),
            replica: replica.clone(),
            hub: hub.clone(),
            signals: signals.clone(),
            lessor: lessor.clone(),
            tokens: tokens.clone(),
            known_commit,
            metrics: metrics.clone(),
            apply_seconds: ApplySeconds::default(),
            snap_dir: options.snap_dir(),
            conf_state,
            term: store.position().term,
            lease_ttl_min_s,
            learners_max: options.learners_max,
            release: options.release,
            quota: Quota::new(&options),
            hashes: hashes.clone(),
            member: id,
            cluster,
            flush_every: options.snapshot_count,
            catchup_entries: options.catchup_entries,
            warning: options.apply_warning,
            compaction_step: options.compaction_step,
            compaction_pause: options.compaction_pause,
            compacting_since: None,
            compacted_keys: 0,
            flushed: applied,
            has_installed: false,
        };
        let member = Self(Arc::new(Inner {
            ids: RequestIds::new(id, env.wall()),
            links: Links::new(outgoing),
            proposals: Admission::new(options.proposals),
            readers: Semaphore::new(limits::READERS_MAX - limits::READERS_RESERVED),
            response_memory: budget_of(&options.response_memory),
            env,
            options,
            id,
            cluster,
            store,
            replica,
            hub,
            hashes,
            signals,
            lessor,
            tokens,
            passwords: Passwords::new(),
            metrics,
            times: upkeep::Times::default(),
            _lock: lock,
        }));
        member.spawn_tasks(applier, committed).await?;
        info!(%id, %cluster, %applied, "member started");
        Ok(member)
    }

    async fn spawn_tasks(
        &self,
        applier: Applier,
        committed: tokio::sync::mpsc::Receiver<replica::ToApply<Waiter>>,
    ) -> Result<(), Fatal> {
        let env = &self.0.env;
        let local = Arc::new(LocalMember::new(&self.0));
        self.0.links.start(self, local).await?;
        let signals = self.0.signals.clone();
        env.spawn("applier", async move {
            if let Err(fatal) = applier.run(committed).await {
                signals.stop_with(fatal);
            }
        });
        let (signals, replica) = (self.0.signals.clone(), self.0.replica.clone());
        env.spawn("replica watch", async move { signals.stop_with(replica.fatal().await) });
        env.spawn("peers", links::follow_members(self.clone()));
        lessor::start(self);
        upkeep::start(self);
        Ok(())
    }
}

impl Ground {
    async fn open(env: &Env, options: &Options) -> Result<Self, Fatal> {
        let (disk, chosen) = (env.disk.clone(), options.clone());
        let lock = env.blocking("lock data directory", move || prepare(&*disk, &chosen)).await?;
        let (disk, dir, chosen) = (env.disk.clone(), options.store_dir(), options.engine.clone());
        let engine = env
            .blocking_outside("open store", move || {
                if chosen.mem.is_none() {
                    let failed =
                        |e| Fatal::new(format!("beginning the store {}", dir.display()), e);
                    engine::begin(&*disk, &dir).map_err(failed)?;
                }
                Engine::open(&dir, &chosen).map_err(Fatal::from)
            })
            .await?;
        let store = Store::open(engine)?;
        let (disk, wal_dir) = (env.disk.clone(), options.wal_dir());
        let log = env.blocking("look for a log", move || Wal::exists(&*disk, &wal_dir)).await;
        let log = log.map_err(|e| Fatal::new("looking for a log", e))?;
        let (disk, chosen) = (env.disk.clone(), options.clone());
        let owner = env.blocking("look for an owner", move || Owner::find(&*disk, &chosen)).await?;
        let (disk, chosen, found) = (env.disk.clone(), options.clone(), owner.clone());
        env.blocking("look for a second log", move || refuse_second_log(&*disk, &chosen, &found))
            .await?;
        let used = owner.is_something() || store.applied() > Index(0);
        let plan = decide(log, used, options.initial_state);
        let joining = match plan {
            Plan::Join => Some(join::find(env, options).await?),
            Plan::Bootstrap => {
                let own = new_cluster(options)?.id;
                join::refuse_again(env, options, own).await?;
                None
            }
            Plan::Restart | Plan::Orphan => None,
        };
        let (disk, chosen) = (env.disk.clone(), options.clone());
        env.blocking("open log", move || {
            let ground = Self::on(plan, joining, &owner, &disk, &chosen, lock, store)?;
            let (member, cluster) = (ground.id, ground.cluster);
            Owner { member, cluster, wal_dir: chosen.wal_dir() }.record(&*disk, &chosen)?;
            Ok(ground)
        })
        .await
    }

    /// Carries out the plan. Blocks.
    fn on(
        plan: Plan,
        joining: Option<Joining>,
        owner: &Found,
        disk: &Arc<dyn Disk>,
        options: &Options,
        lock: Box<dyn Lock>,
        store: Store,
    ) -> Result<Self, Fatal> {
        match plan {
            Plan::Restart => {
                let ground = Self::restart(disk, options, lock, store)?;
                check_owner(owner, &ground, options)?;
                Ok(ground)
            }
            Plan::Bootstrap => Self::bootstrap(disk, options, lock, store),
            Plan::Join => {
                let joining = joining.expect("the peers were asked when this was planned");
                Self::join(disk, options, joining, lock, store)
            }
            Plan::Orphan => Err(orphan(owner, options)),
        }
    }

    fn bootstrap(
        disk: &Arc<dyn Disk>,
        options: &Options,
        lock: Box<dyn Lock>,
        store: Store,
    ) -> Result<Self, Fatal> {
        let first = new_cluster(options)?;
        let metadata = Metadata { node_id: first.id.0, cluster_id: first.cluster.0 };
        let dir = options.wal_dir();
        let wal = Wal::create(disk.clone(), &dir, &metadata, wal_options(options))?;
        Self::begin(first, wal, lock, store)
    }

    /// Creates an empty log with the id that the cluster has assigned. The members, like all other state,
    /// come with the leader's entries or snapshot.
    fn join(
        disk: &Arc<dyn Disk>,
        options: &Options,
        Joining { id, cluster }: Joining,
        lock: Box<dyn Lock>,
        store: Store,
    ) -> Result<Self, Fatal> {
        let metadata = Metadata { node_id: id.0, cluster_id: cluster.0 };
        let dir = options.wal_dir();
        let wal = Wal::create(disk.clone(), &dir, &metadata, wal_options(options))?;
        info!(local_member_id = %id, cluster_id = %cluster, joins = true, "starting local member");
        let start = replica::Start {
            hard_state: HardState::default(),
            conf_state: ConfState::default(),
            snapshot: (Index(0), Term(0)),
            entries: Vec::new(),
            wal,
        };
        Ok(Self { lock, store, id, cluster, start })
    }

    /// Writes the first entries into an empty log.
    fn begin(
        first: NewCluster,
        mut wal: Wal,
        lock: Box<dyn Lock>,
        store: Store,
    ) -> Result<Self, Fatal> {
        let NewCluster { id, cluster, .. } = first;
        let (entries, voters) = (first.entries(), first.voters());
        let hard_state = HardState { term: 1, vote: 0, commit: entries.len() as u64 };
        wal.save(&[Save::Entries { hard_state: Some(hard_state), entries: entries.clone() }])?;
        info!(
            local_member_id = %id, cluster_id = %cluster, members = voters.len(),
            "starting local member"
        );
        let start = replica::Start {
            hard_state,
            conf_state: ConfState { voters, ..ConfState::default() },
            snapshot: (Index(0), Term(0)),
            entries,
            wal,
        };
        Ok(Self { lock, store, id, cluster, start })
    }

    fn restart(
        disk: &Arc<dyn Disk>,
        options: &Options,
        lock: Box<dyn Lock>,
        store: Store,
    ) -> Result<Self, Fatal> {
        let dir = options.wal_dir();
        let received = Wal::snapshots(&**disk, &dir, wal_options(options))?;
        if let Some(newest) = not_installed(&received, store.applied()) {
            let path = peer::snapshot_path(&options.snap_dir(), Index(newest.index));
            mark::INSTALL_AT_START.reached();
            info!(path = %path.display(), "Recovering from snapshot backend");
            let walpb::Snapshot { index, term, conf_state } = newest.clone();
            let metadata = SnapshotMetadata { index, term, conf_state };
            snapshot::install(&**disk, &store, &path, &metadata)?;
        }
        peer::remove_received(&**disk, &options.snap_dir())
            .map_err(|e| Fatal::new("clearing received snapshots", e))?;
        let applied = store.applied();
        let at = walpb::Snapshot { index: applied.0, ..walpb::Snapshot::default() };
        let (wal, recovered) = Wal::open(disk.clone(), &dir, at, wal_options(options))?;
        if let Some(wal::Repair { file, offset, bytes, broken }) = &recovered.repaired {
            mark::TORN_TAIL_CUT.reached();
            let (path, copy) = (file.display(), broken.display());
            warn!(%path, offset, bytes, %copy, "repaired WAL");
        }
        let id = MemberId(recovered.metadata.node_id);
        let cluster = ClusterId(recovered.metadata.cluster_id);
        let begin = recovered.snapshot.index;
        let untouched = begin == 0 && recovered.entries.is_empty();
        if untouched && options.initial_state == InitialState::New {
            // The very first start ended before its first write to the log was durable.
            let first = new_cluster(options)?;
            if (first.id, first.cluster) != (id, cluster) {
                let found = format!("belongs to member {id} of cluster {cluster}");
                return Err(Fatal::new(format!("log in {}", dir.display()), found));
            }
            return Self::begin(first, wal, lock, store);
        }
        let last = recovered.entries.last().map_or(begin, |entry| entry.index);
        if last < applied.0 {
            return Err(Fatal::new(
                format!("log in {}", dir.display()),
                format!(
                    "ends at entry {last} but the state holds entry {applied}: the disk lost writes"
                ),
            ));
        }
        let mut hard_state = recovered.hard_state;
        // A commit index alone is not synced, so the applied index may be higher.
        hard_state.commit = hard_state.commit.max(applied.0).min(last);
        let mut start = replica::Start {
            hard_state,
            conf_state: StateMachine::conf_state(&store.view())?,
            snapshot: (Index(begin), Term(recovered.snapshot.term)),
            entries: recovered.entries,
            wal,
        };
        if options.force_new_cluster {
            alone::force(id, applied, &mut start)?;
        }
        Ok(Self { lock, store, id, cluster, start })
    }
}

/// A leader's snapshot that was accepted and whose installation was interrupted. It need not be the last mark
/// in the log: a flush of the old state may have been marked after it.
fn not_installed(marks: &[walpb::Snapshot], applied: Index) -> Option<&walpb::Snapshot> {
    let newest = marks.iter().max_by_key(|mark| mark.index);
    newest.filter(|mark| mark.index > applied.0)
}

/// The refusal of a directory without its log.
fn orphan(owner: &Found, options: &Options) -> Fatal {
    let what = format!("data directory {}", options.data_dir.display());
    let here = options.wal_dir();
    let why = match owner {
        Found::Owner(Owner { member, cluster, wal_dir }) if *wal_dir != here => format!(
            "it belongs to member {member} of cluster {cluster}, whose log was in {}, and there is no log in {}: is --wal-dir missing or wrong?",
            wal_dir.display(),
            here.display()
        ),
        Found::Owner(Owner { member, cluster, .. }) => format!(
            "it belongs to member {member} of cluster {cluster}, and its log is gone from {}; a member that has lost its log must be removed and added again, with an empty data directory",
            here.display()
        ),
        Found::Unreadable | Found::Nothing => format!(
            "there is a state but no log in {}; the log directory is missing or another one was meant",
            here.display()
        ),
    };
    Fatal::new(what, why)
}

/// A directory that was brought in has its log in it; with another one by `--wal-dir`, or without that flag
/// later, a member would go on from a log that lacks what it has acknowledged. A folder may be spelled in
/// several ways, and a data directory may have been copied or have another name now.
fn refuse_second_log(disk: &dyn Disk, options: &Options, owner: &Found) -> Result<(), Fatal> {
    const INSIDE: &str = "member/wal";
    let here = options.wal_dir();
    let own = Path::new(options.data_dir.file_name().unwrap_or_default()).join(INSIDE);
    let is_inside = options.wal_dir.is_none() || here.ends_with(own);
    let there = match owner {
        Found::Owner(Owner { wal_dir, .. }) if !wal_dir.ends_with(INSIDE) => wal_dir.clone(),
        _ => options.data_dir.join(INSIDE),
    };
    if is_inside == there.ends_with(INSIDE) {
        return Ok(());
    }
    let exists = |dir: &Path| {
        Wal::exists(disk, dir)
            .map_err(|e| Fatal::new(format!("looking for a log in {}", dir.display()), e))
    };
    if !exists(&here)? || !exists(&there)? {
        return Ok(());
    }
    let (here, there) = (here.display(), there.display());
    Err(Fatal::new(
        format!("data directory {}", options.data_dir.display()),
        format!(
            "there is a log in {here} and another one in {there}, and a member has one: move the older away, and \
             let --wal-dir name the folder of the other if it is not in the data directory"
        ),
    ))
}

/// The log must be that of the member whose state it is.
fn check_owner(owner: &Found, ground: &Ground, options: &Options) -> Result<(), Fatal> {
    let Found::Owner(Owner { member, cluster, .. }) = owner else { return Ok(()) };
    if (*member, *cluster) == (ground.id, ground.cluster) {
        return Ok(());
    }
    Err(Fatal::new(
        format!("log in {}", options.wal_dir().display()),
        format!(
            "it is that of member {} of cluster {}, but data directory {} belongs to member {member} of cluster {cluster}",
            ground.id,
            ground.cluster,
            options.data_dir.display()
        ),
    ))
}

/// Checks that the member table allows this member to go on.
fn check_membership(machine: &StateMachine, id: MemberId, options: &Options) -> Result<(), Fatal> {
    let members = &machine.members;
    if members.removed.contains(&id) {
        return Err(Fatal::new(format!("data directory {}", options.data_dir.display()), Removed));
    }
    let decided = members.cluster_version.as_deref().and_then(parse_version);
    if decided > parse_version(options.serves_in()) {
        let why = "invalid downgrade; server version is lower than determined cluster version";
        let version = members.cluster_version.as_deref().unwrap_or_default();
        return Err(Fatal::new(format!("cluster version {version}"), why));
    }
    if members.learners() > members.learners_max {
        let why = "membership: too many learner members in cluster";
        return Err(Fatal::new(format!("--max-learners={}", members.learners_max), why));
    }
    Ok(())
}

/// The cluster of the options, with this member in it. The names are not in the log: a member publishes its
/// own when it has started.
fn new_cluster(options: &Options) -> Result<NewCluster, Fatal> {
    let (name, token) = (&options.name, &options.initial_cluster_token);
    let cluster = NewCluster::new(name, &options.initial_cluster, token).ok_or_else(|| {
        let why = format!("couldn't find local name {name:?} in the initial cluster configuration");
        Fatal::new("initial cluster", why)
    })?;
    Ok(cluster.unnamed())
}

/// Refuses a directory of etcd's, or one that `etcdutl` has restored, before anything is made in it.
fn refuse_foreign(disk: &dyn Disk, options: &Options) -> Result<(), Fatal> {
    let not_listed = |call: &str| {
        let why = format!("{call} {}: not a directory", options.data_dir.display());
        Fatal::new("failed to list data directory", why)
    };
    // A member of this server never has this file.
    let database = options.snap_dir().join("db");
    match disk.exists(&database) {
        Ok(true) => {}
        Ok(false) => return Ok(()),
        // Something on the way there is a file.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return match disk.exists(&options.data_dir) {
                Ok(true) if disk.list(&options.data_dir).is_ok() => Ok(()),
                Ok(true) => Err(not_listed("readdirent")),
                _ => Err(not_listed("open")),
            };
        }
        Err(error) => {
            let why = format!("stat {}: {}", database.display(), codec::go_error(&error));
            return Err(Fatal::new("cannot access data directory", why));
        }
    }
    let dir = options.data_dir.display();
    let log = options.wal_dir.as_ref().map(|dir| format!(" --wal-dir {}", dir.display()));
    let log = log.unwrap_or_default();
    Err(Fatal::new(
        format!("data directory {dir}"),
        format!(
            "it is a data directory of etcd, and nothing in it was changed; \
             \"quorateutl import --from {dir}{log} --to NEW\" makes one for this server of it: start with --data-dir NEW"
        ),
    ))
}

/// Creates the folders, takes the lock and removes what an interrupted transfer left.
fn prepare(disk: &dyn Disk, options: &Options) -> Result<Box<dyn Lock>, Fatal> {
    refuse_foreign(disk, options)?;
    let folders = [options.data_dir.clone(), options.member_dir(), options.snap_dir()];
    folders::create(disk, &folders, &options.wal_dir())?;
    let path = options.member_dir().join("lock");
    let lock = disk.lock(&path).map_err(|error| {
        let what = match error.kind() {
            io::ErrorKind::WouldBlock => {
                format!(
                    "data directory {} is in use by another process",
                    options.data_dir.display()
                )
            }
            _ => format!("locking {}", path.display()),
        };
        Fatal::new(what, error)
    })?;
    peer::remove_leftovers(disk, &options.snap_dir())
        .map_err(|e| Fatal::new("clearing unfinished snapshots", e))?;
    Ok(lock)
}

fn wal_options(options: &Options) -> wal::Options {
    wal::Options { segment_bytes: options.wal_segment_bytes, ..wal::Options::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination has its row; a log always wins, a used directory without a log never starts.
    #[test]
    fn the_start_table_is_complete() {
        for state in [InitialState::New, InitialState::Existing] {
            for used in [false, true] {
                assert_eq!(decide(true, used, state), Plan::Restart);
            }
            assert_eq!(decide(false, true, state), Plan::Orphan);
        }
        assert_eq!(decide(false, false, InitialState::New), Plan::Bootstrap);
        assert_eq!(decide(false, false, InitialState::Existing), Plan::Join);
    }

    #[test]
    fn a_flush_marked_behind_a_received_snapshot_does_not_hide_it() {
        let mark = |index| walpb::Snapshot { index, ..walpb::Snapshot::default() };
        let found = |marks: &[u64], applied| {
            let marks: Vec<_> = marks.iter().copied().map(mark).collect();
            not_installed(&marks, Index(applied)).map(|mark| mark.index)
        };
        assert_eq!(found(&[100, 9], 9), Some(100));
        assert_eq!(found(&[9, 100], 9), Some(100));
        assert_eq!(found(&[100, 9], 100), None);
        assert_eq!(found(&[], 0), None);
    }
}
