//! A cluster of [`Core`]s in one thread, for tests: the network, the disks and time move only by
//! command. Every change of position is checked against what consensus promises.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;

use crate::replica::core::{Boot, Core, CoreConfig, NotTaken, Output, Role, Save};

pub const ELECTION_TICKS: usize = 5;

/// What one member has written, and what of it survives a crash.
#[derive(Clone, Default)]
struct Disk {
    hard_state: raftpb::HardState,
    /// Start of the log.
    start: (u64, u64),
    entries: Vec<raftpb::Entry>,
    /// A snapshot recorded but perhaps not taken over.
    recorded: Option<State>,
    /// The state machine at its last flush.
    flushed: State,
}

/// A state machine: what was applied, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub index: u64,
    term: u64,
    conf_state: raftpb::ConfState,
    pub applied: Vec<(u64, Bytes)>,
}

pub struct Node {
    pub core: Option<Core>,
    disk: Disk,
    saves: VecDeque<Save>,
    pub state: State,
    /// Snapshots received from peers, by index.
    received: BTreeMap<u64, State>,
    pub reads: Vec<(String, u64)>,
    was: (Role, u64),
}

#[derive(Default)]
pub struct Cluster {
    pub nodes: BTreeMap<u64, Node>,
    /// Messages on their way, in the order sent.
    pub network: Vec<raftpb::Message>,
    /// Links that lose everything.
    pub cut: BTreeSet<(u64, u64)>,
    pub pre_vote: bool,
    /// A saved batch is durable at once.
    pub auto_persist: bool,
    pub trace: Vec<String>,
    /// The checks: the leader of each term, and what was committed at each index.
    leaders: BTreeMap<u64, u64>,
    committed: BTreeMap<u64, (u64, Bytes)>,
    boots: u64,
    /// What a member knows that has nothing on disk.
    initial: raftpb::ConfState,
    /// The lowest index that a pending read may return: the last entry applied anywhere at its request.
    floors: BTreeMap<String, u64>,
}

impl Cluster {
    pub fn new(voters: &[u64], learners: &[u64]) -> Self {
        let mut cluster = Self { pre_vote: true, auto_persist: true, ..Default::default() };
        let conf_state = raftpb::ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..Default::default()
        };
        cluster.initial = conf_state;
        for id in voters.iter().chain(learners) {
            cluster.create(*id);
        }
        cluster
    }

    /// A new member with an empty log.
    pub fn create(&mut self, id: u64) {
        let flushed = State { conf_state: self.initial.clone(), ..Default::default() };
        let disk = Disk { flushed, ..Default::default() };
        self.nodes.insert(
            id,
            Node {
                core: None,
                disk,
                saves: VecDeque::new(),
                state: State::default(),
                received: BTreeMap::new(),
                reads: Vec::new(),
                was: (Role::Follower, 0),
            },
        );
        self.start(id);
    }

    /// Starts a member from what its disk holds.
    pub fn start(&mut self, id: u64) {
        self.boots += 1;
        let node = self.nodes.get_mut(&id).expect("a known member");
        let disk = &mut node.disk;
        if let Some(recorded) = disk.recorded.take().filter(|s| s.index > disk.flushed.index) {
            disk.flushed = recorded;
        }
        node.state = disk.flushed.clone();
        let config = CoreConfig {
            id,
            election_ticks: ELECTION_TICKS,
            pre_vote: self.pre_vote,
            boot_seed: self.boots,
            applied: node.state.index,
        };
        let boot = Boot {
            hard_state: disk.hard_state,
            conf_state: node.state.conf_state.clone(),
            snapshot: disk.start,
            entries: disk.entries.clone(),
        };
        node.was = (Role::Follower, disk.hard_state.term);
        node.core = Some(Core::new(&config, boot).expect("the disk is consistent"));
        self.turn(id);
    }

    /// Everything that was not durable is gone.
    pub fn crash(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a known member");
        node.core = None;
        node.saves.clear();
    }

    /// Acts on a running member and handles what comes of it.
    pub fn act<T>(&mut self, id: u64, act: impl FnOnce(&mut Core) -> T) -> Option<T> {
        let core = self.nodes.get_mut(&id)?.core.as_mut()?;
        let result = act(core);
        self.turn(id);
        Some(result)
    }

    /// Requests a read index that may not be older than anything applied by now.
    pub fn read(&mut self, id: u64, name: &str) {
        self.floors.insert(name.to_owned(), self.committed_index());
        self.act(id, |core| core.read_index(Bytes::copy_from_slice(name.as_bytes())));
    }

    /// The last entry that was applied anywhere.
    pub fn committed_index(&self) -> u64 {
        self.committed.last_key_value().map_or(0, |(index, _)| *index)
    }

    pub fn is_running(&self, id: u64) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.core.is_some())
    }

    pub fn core(&self, id: u64) -> &Core {
        self.nodes[&id].core.as_ref().expect("a running member")
    }

    pub fn propose(&mut self, id: u64, data: &str, term: Option<u64>) -> Result<(), NotTaken> {
        let data = Bytes::copy_from_slice(data.as_bytes());
        let entry = raftpb::Entry { data, ..Default::default() };
        self.act(id, |core| core.propose(entry, term)).unwrap_or(Err(NotTaken::NotNow))
    }

    pub fn propose_change(
        &mut self,
        id: u64,
        r#type: raftpb::ConfChangeType,
        node_id: u64,
    ) -> Result<(), NotTaken> {
        let change = raftpb::ConfChange { r#type: r#type.into(), node_id, ..Default::default() };
        let entry = raftpb::Entry {
            r#type: raftpb::EntryType::EntryConfChange.into(),
            data: change.encode_to_vec().into(),
            ..Default::default()
        };
        self.act(id, |core| core.propose(entry, None)).unwrap_or(Err(NotTaken::NotNow))
    }

    /// Handles all that a member has ready.
    fn turn(&mut self, id: u64) {
        loop {
            let node = self.nodes.get_mut(&id).expect("a known member");
            let Some(output) = node.core.as_mut().and_then(Core::ready) else { break };
            self.handle(id, output);
        }
        self.note_role(id);
    }

    fn handle(&mut self, id: u64, output: Output) {
        for message in output.messages {
            self.trace.push(format!("{id} sends {}", describe(&message)));
            self.network.push(message);
        }
        if let Some(save) = output.save {
            self.trace.push(format!("{id} writes {}", describe_save(&save)));
            self.nodes.get_mut(&id).expect("a known member").saves.push_back(save);
        }
        if let Some(metadata) = output.snapshot {
            self.install(id, &metadata);
        }
        for entry in output.committed {
            self.apply(id, &entry);
        }
        for read in output.reads {
            let name = String::from_utf8_lossy(&read.context).into_owned();
            let floor = self.floors.get(&name).copied().unwrap_or(0);
            assert!(read.index >= floor, "{id} reads {name} at {}, below {floor}", read.index);
            self.trace.push(format!("{id} may read {name} at {}", read.index));
            self.nodes.get_mut(&id).expect("a known member").reads.push((name, read.index));
        }
        if self.auto_persist {
            self.persist(id);
        }
    }

    /// The oldest write of a member, or all, become durable.
    pub fn persist(&mut self, id: u64) {
        while self.persist_one(id) {}
    }

    pub fn persist_one(&mut self, id: u64) -> bool {
        let node = self.nodes.get_mut(&id).expect("a known member");
        let Some(save) = node.saves.pop_front() else { return false };
        let (number, must_sync) = (save.number, save.must_sync);
        node.write(save);
        if must_sync {
            self.act(id, |core| core.persisted(number));
        }
        true
    }

    fn install(&mut self, id: u64, metadata: &raftpb::SnapshotMetadata) {
        let node = self.nodes.get_mut(&id).expect("a known member");
        let state = node.received.remove(&metadata.index).expect("received before it is stepped");
        assert!(state.index > node.state.index, "{id} installs an older state");
        self.trace.push(format!("{id} installs the snapshot at {}", state.index));
        node.disk.flushed = state.clone();
        node.state = state;
        let index = node.state.index;
        node.core.as_mut().expect("running").applied(index);
    }

    fn apply(&mut self, id: u64, entry: &raftpb::Entry) {
        let agreed = self.committed.entry(entry.index).or_insert((entry.term, entry.data.clone()));
        assert_eq!(*agreed, (entry.term, entry.data.clone()), "{id} applies another entry");
        let node = self.nodes.get_mut(&id).expect("a known member");
        assert_eq!(entry.index, node.state.index + 1, "{id} applies in order, each entry once");
        self.trace.push(format!("{id} applies {}", describe_entry(entry)));
        node.state.index = entry.index;
        node.state.term = entry.term;
        let core = node.core.as_mut().expect("running");
        if entry.r#type() == raftpb::EntryType::EntryConfChange {
            let change = raftpb::ConfChange::decode(entry.data.clone()).expect("a conf change");
            let applied = core.apply_conf_change(entry.index, &change);
            node.state.conf_state = applied.expect("a change that can be made");
        } else if !entry.data.is_empty() {
            node.state.applied.push((entry.index, entry.data.clone()));
        }
        core.applied(entry.index);
    }

    /// Makes the state machine durable, lets the log on disk go below it, and the one in memory up to
    /// `keep` entries below.
    pub fn flush(&mut self, id: u64, keep: u64) {
        let node = self.nodes.get_mut(&id).expect("a known member");
        node.disk.flushed = node.state.clone();
        let (index, term) = (node.state.index, node.state.term);
        // While a snapshot is on its way to the disk, the log on disk is still the old one.
        if index > node.disk.start.0 && index <= node.durable_index() {
            node.disk.start = (index, term);
            node.disk.entries.retain(|entry| entry.index > index);
        }
        node.core.as_mut().expect("running").compact(keep, usize::MAX);
    }

    /// Takes the message at `position` from the network and gives it to its receiver.
    pub fn deliver(&mut self, position: usize) {
        let message = &self.network[position];
        let (from, to) = (message.from, message.to);
        let is_snapshot = message.r#type() == raftpb::MessageType::MsgSnap;
        if self.cut.contains(&(from, to)) || !self.is_running(to) {
            return self.lose(position);
        }
        if is_snapshot && !self.transfer_state(position) {
            return self.lose(position);
        }
        let message = self.network.remove(position);
        self.act(to, |core| core.step(message));
        if is_snapshot {
            self.act(from, |core| core.report_snapshot(to, true));
        }
    }

    /// Loses the message at `position`; the transport reports a lost snapshot to its sender, whose
    /// progress would stand still otherwise, and may report any other.
    pub fn lose(&mut self, position: usize) {
        let message = self.network.remove(position);
        let (from, to) = (message.from, message.to);
        if message.r#type() == raftpb::MessageType::MsgSnap {
            self.act(from, |core| core.report_snapshot(to, false));
        } else {
            self.act(from, |core| core.report_unreachable(to));
        }
    }

    /// The bytes of a snapshot travel beside its message.
    fn transfer_state(&mut self, position: usize) -> bool {
        let message = &self.network[position];
        let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
        let index = metadata.expect("a snapshot has a position").index;
        let sender = &self.nodes[&message.from];
        if sender.core.is_none() || sender.state.index < index {
            return false;
        }
        let state = sender.state_at(index, metadata);
        let to = message.to;
        self.nodes.get_mut(&to).expect("running").received.insert(index, state);
        true
    }

    /// Delivers, and persists, until nothing is left.
    pub fn stabilize(&mut self) {
        loop {
            let ids: Vec<_> = self.nodes.keys().copied().collect();
            for id in ids {
                self.persist(id);
            }
            if self.network.is_empty() {
                break;
            }
            self.deliver(0);
        }
    }

    fn note_role(&mut self, id: u64) {
        let node = self.nodes.get_mut(&id).expect("a known member");
        let Some(core) = &node.core else { return };
        let (role, term) = (core.role(), core.term());
        assert!(term >= node.was.1, "{id} falls back from term {} to {term}", node.was.1);
        if (role, term) == node.was {
            return;
        }
        node.was = (role, term);
        self.trace.push(format!("{id} is {} in term {term}", name(role)));
        if role == Role::Leader {
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
        }
    }

    /// Log matching: where two logs have the same index and term, they are equal up to there; and
    /// what is committed is in the log of every member that has applied or persisted that far.
    pub fn check_logs(&self) {
        let logs: Vec<(u64, Vec<raftpb::Entry>)> = self
            .nodes
            .iter()
            .filter_map(|(id, node)| node.core.as_ref().map(|core| (*id, core)))
            .map(|(id, core)| (id, core.entries(core.first_index() - 1)))
            .collect();
        for (a, left) in &logs {
            for (b, right) in logs.iter().filter(|(b, _)| a < b) {
                check_matching((*a, left), (*b, right));
            }
        }
    }
}

fn check_matching((a, left): (u64, &[raftpb::Entry]), (b, right): (u64, &[raftpb::Entry])) {
    let mut same = false;
    for entry in left.iter().rev() {
        let Some(other) = right.iter().find(|other| other.index == entry.index) else { continue };
        same |= entry.term == other.term;
        assert!(!same || entry == other, "{a} and {b} differ at {} below a match", entry.index);
    }
}

impl Node {
    fn write(&mut self, save: Save) {
        let disk = &mut self.disk;
        if let Some(metadata) = save.snapshot {
            let state = self.received.get(&metadata.index).expect("received").clone();
            disk.recorded = Some(state);
            disk.start = (metadata.index, metadata.term);
            disk.entries.clear();
        }
        if let Some(first) = save.entries.first() {
            disk.entries.retain(|e| e.index < first.index);
            disk.entries.extend(save.entries);
        }
        if let Some(hard_state) = save.hard_state {
            disk.hard_state = hard_state;
        }
    }

    pub fn durable_index(&self) -> u64 {
        self.disk.start.0 + self.disk.entries.len() as u64
    }

    fn state_at(&self, index: u64, metadata: Option<&raftpb::SnapshotMetadata>) -> State {
        let metadata = metadata.expect("a snapshot has a position");
        let applied = self.state.applied.iter().filter(|(at, _)| *at <= index).cloned().collect();
        let conf_state = metadata.conf_state.clone().unwrap_or_default();
        State { index, term: metadata.term, conf_state, applied }
    }
}

pub fn name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn describe_entry(entry: &raftpb::Entry) -> String {
    let what = match entry.r#type() {
        raftpb::EntryType::EntryNormal if entry.data.is_empty() => "-".to_owned(),
        raftpb::EntryType::EntryNormal => String::from_utf8_lossy(&entry.data).into_owned(),
        _ => match raftpb::ConfChange::decode(entry.data.clone()) {
            Ok(change) => {
                let kind = format!("{:?}", change.r#type());
                format!("{} {}", kind.trim_start_matches("ConfChange"), change.node_id)
            }
            Err(_) => "?".to_owned(),
        },
    };
    format!("{}@{} {what}", entry.index, entry.term)
}

fn describe_entries(entries: &[raftpb::Entry]) -> String {
    let each: Vec<_> = entries.iter().map(describe_entry).collect();
    format!("[{}]", each.join(", "))
}

pub fn describe(m: &raftpb::Message) -> String {
    use raftpb::MessageType as Type;
    let kind = m.r#type().as_str_name().trim_start_matches("Msg");
    let mut text = format!("{kind} to {}", m.to);
    if m.term > 0 {
        text += &format!(" term {}", m.term);
    }
    text += &match m.r#type() {
        Type::MsgApp => {
            let entries = describe_entries(&m.entries);
            format!(" after {}@{} {entries} commit {}", m.index, m.log_term, m.commit)
        }
        Type::MsgAppResp if m.reject => {
            format!(" rejects {}, try {}@{}", m.index, m.reject_hint, m.log_term)
        }
        Type::MsgAppResp => format!(" has {}", m.index),
        Type::MsgVote | Type::MsgPreVote => format!(" log {}@{}", m.index, m.log_term),
        Type::MsgVoteResp | Type::MsgPreVoteResp if m.reject => " no".to_owned(),
        Type::MsgVoteResp | Type::MsgPreVoteResp => " yes".to_owned(),
        Type::MsgHeartbeat => format!(" commit {}", m.commit),
        Type::MsgReadIndexResp => format!(" at {}", m.index),
        Type::MsgProp => format!(" {}", describe_entries(&m.entries)),
        Type::MsgSnap => {
            let metadata = m.snapshot.clone().and_then(|s| s.metadata).unwrap_or_default();
            let voters = metadata.conf_state.unwrap_or_default().voters;
            format!(" {}@{} voters {voters:?}", metadata.index, metadata.term)
        }
        _ => String::new(),
    };
    let context = match m.entries.first() {
        Some(entry) if matches!(m.r#type(), Type::MsgReadIndex | Type::MsgReadIndexResp) => {
            &entry.data
        }
        _ => &m.context,
    };
    if !context.is_empty() {
        text += &format!(" ({})", String::from_utf8_lossy(context));
    }
    text
}

fn describe_save(save: &Save) -> String {
    let mut parts = Vec::new();
    if let Some(metadata) = &save.snapshot {
        parts.push(format!("snapshot {}@{}", metadata.index, metadata.term));
    }
    if !save.entries.is_empty() {
        parts.push(describe_entries(&save.entries));
    }
    if let Some(hs) = &save.hard_state {
        parts.push(format!("term {} vote {} commit {}", hs.term, hs.vote, hs.commit));
    }
    parts.join(", ") + if save.must_sync { "" } else { " (lazily)" }
}
