//! Golden scripts over [`super::harness`]: every file in `testscripts/` is a story, run command by
//! command, whose output is compared with the file. `UPDATE_GOLDENFILES=1` rewrites them.
//!
//! `cluster voters=N [learners=N] [pre-vote=false]` makes members 1, 2, ..; `manual` and `auto` choose
//! whether a write is durable at once. `deliver`, `drop` and `duplicate` take `from= to= type= count=`;
//! `cut A B` loses everything between two members, `isolate A` between one and the others, `heal`
//! undoes both. `forge TYPE FROM TO` delivers a message that no member has sent.

use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{ArgumentConsumer, Command, Context};
use quorate_proto::raftpb;

use super::harness::{Cluster, describe, name};
use crate::replica::core::Role;

struct Script {
    cluster: Cluster,
}

type Output = Result<String, Box<dyn Error>>;

impl goldenscript::Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Output {
        let mut args = command.consume_args();
        let answer = self.command(&command.name, &mut args)?;
        args.reject_next()?;
        self.cluster.check_logs();
        let mut output =
            self.cluster.trace.drain(..).fold(String::new(), |text, line| text + &line + "\n");
        output += &answer;
        Ok(output)
    }
}

impl Script {
    fn command(&mut self, command: &str, args: &mut ArgumentConsumer) -> Output {
        let cluster = &mut self.cluster;
        match command {
            "cluster" => return self.make_cluster(args),
            "spawn" => cluster.create(id(args)?),
            "manual" => cluster.auto_persist = false,
            "auto" => cluster.auto_persist = true,
            "tick" => return self.tick(args),
            "campaign" => return self.campaign(args),
            "deliver" => return self.deliver(args),
            "drop" => return self.drop_messages(args),
            "duplicate" => {
                let matches = selection(args)?;
                let copies: Vec<_> =
                    cluster.network.iter().filter(|m| matches(m)).cloned().collect();
                cluster.network.extend(copies);
            }
            "unreachable" => {
                let (at, who) = (id(args)?, id(args)?);
                cluster.act(at, |core| core.report_unreachable(who));
            }
            "forge" => return self.forge(args),
            "persist" => cluster.persist(id(args)?),
            "stabilize" => cluster.stabilize(),
            "crash" => cluster.crash(id(args)?),
            "start" => cluster.start(id(args)?),
            "cut" => self.cut(args)?,
            "isolate" => self.isolate(args)?,
            "heal" => cluster.cut.clear(),
            "propose" => return self.propose(args),
            "change" => return self.change(args),
            "read" => {
                let id = id(args)?;
                cluster.read(id, args.next_pos().ok_or("read MEMBER NAME")?);
            }
            "transfer" => {
                let (from, to) = (id(args)?, id(args)?);
                cluster.act(from, |core| core.transfer_leader(to));
            }
            "step-down" => {
                cluster.act(id(args)?, |core| core.step_down());
            }
            "flush" => {
                let id = id(args)?;
                let keep = args.take_key("keep").unwrap_or("0").parse()?;
                cluster.flush(id, keep);
            }
            "status" => return Ok(self.status()),
            "network" => return Ok(self.network()),
            other => return Err(format!("no command {other}").into()),
        }
        Ok(String::new())
    }

    fn make_cluster(&mut self, args: &mut ArgumentConsumer) -> Output {
        let voters: u64 = args.take_key("voters").unwrap_or("3").parse()?;
        let learners: u64 = args.take_key("learners").unwrap_or("0").parse()?;
        let voters: Vec<u64> = (1..=voters).collect();
        let learners: Vec<u64> = (1..=learners).map(|id| voters.len() as u64 + id).collect();
        self.cluster = Cluster::new(&voters, &learners);
        Ok(String::new())
    }

    /// `tick [MEMBER..] [count=N]`: all members when none is named.
    fn tick(&mut self, args: &mut ArgumentConsumer) -> Output {
        let count: usize = args.take_key("count").unwrap_or("1").parse()?;
        let mut ids = Vec::new();
        while let Some(id) = args.next_pos() {
            ids.push(id.parse()?);
        }
        if ids.is_empty() {
            ids = self.cluster.nodes.keys().copied().collect();
        }
        for _ in 0..count {
            for id in &ids {
                self.cluster.act(*id, |core| core.tick());
            }
        }
        Ok(String::new())
    }

    /// `campaign MEMBER`: ticks it until its election timeout.
    fn campaign(&mut self, args: &mut ArgumentConsumer) -> Output {
        let id = id(args)?;
        let was = (self.cluster.core(id).role(), self.cluster.core(id).term());
        for _ in 0..2 * super::harness::ELECTION_TICKS {
            self.cluster.act(id, |core| core.tick());
            let core = self.cluster.core(id);
            if (core.role(), core.term()) != was && core.role() != Role::Follower {
                break;
            }
        }
        Ok(String::new())
    }

    fn deliver(&mut self, args: &mut ArgumentConsumer) -> Output {
        let (matches, mut count) = (selection(args)?, count(args)?);
        let mut position = 0;
        // What is sent in answer waits for the next command.
        let mut present = self.cluster.network.len();
        while count > 0 && position < present {
            if matches(&self.cluster.network[position]) {
                self.cluster.deliver(position);
                count -= 1;
                present -= 1;
            } else {
                position += 1;
            }
        }
        Ok(String::new())
    }

    /// `forge TYPE FROM TO [term= log= index= commit= hint=] [reject=true] [entry=TERM]`
    fn forge(&mut self, args: &mut ArgumentConsumer) -> Output {
        let kind = format!("Msg{}", args.next_pos().ok_or("forge TYPE FROM TO")?);
        let kind = raftpb::MessageType::from_str_name(&kind).ok_or("no such type")?;
        let (from, to) = (id(args)?, id(args)?);
        let mut number = |key| {
            args.take_key(key).map_or(Ok(0), str::parse::<u64>).map_err(Box::<dyn Error>::from)
        };
        let (term, log_term, index) = (number("term")?, number("log")?, number("index")?);
        let (commit, reject_hint) = (number("commit")?, number("hint")?);
        let entry_term = number("entry")?;
        let reject = args.take_key("reject").is_some();
        let entry = raftpb::Entry {
            index: if term > 0 { index + 1 } else { 0 },
            term: entry_term,
            data: "forged".into(),
            ..Default::default()
        };
        let conf_state = self.cluster.core(to).conf_state();
        let metadata =
            raftpb::SnapshotMetadata { index, term: log_term, conf_state: Some(conf_state) };
        let is_snapshot = kind == raftpb::MessageType::MsgSnap;
        let message = raftpb::Message {
            r#type: kind.into(),
            from,
            to,
            term,
            log_term,
            index,
            commit,
            reject,
            reject_hint,
            entries: if entry_term > 0 { vec![entry] } else { Vec::new() },
            snapshot: is_snapshot
                .then(|| raftpb::Snapshot { metadata: Some(metadata), ..Default::default() }),
            ..Default::default()
        };
        let before = self.cluster.core(to).refused();
        self.cluster.act(to, |core| core.step(message));
        let refused = self.cluster.core(to).refused() > before;
        Ok(if refused { "refused\n".to_owned() } else { String::new() })
    }

    fn drop_messages(&mut self, args: &mut ArgumentConsumer) -> Output {
        let (matches, mut count) = (selection(args)?, count(args)?);
        let mut dropped = String::new();
        self.cluster.network.retain(|message| {
            let lost = count > 0 && matches(message);
            if lost {
                count -= 1;
                writeln!(dropped, "lost: {} {}", message.from, describe(message))
                    .expect("a string");
            }
            !lost
        });
        Ok(dropped)
    }

    fn cut(&mut self, args: &mut ArgumentConsumer) -> Result<(), Box<dyn Error>> {
        let (a, b) = (id(args)?, id(args)?);
        self.cluster.cut.extend([(a, b), (b, a)]);
        Ok(())
    }

    fn isolate(&mut self, args: &mut ArgumentConsumer) -> Result<(), Box<dyn Error>> {
        let id = id(args)?;
        for other in self.cluster.nodes.keys().filter(|other| **other != id) {
            self.cluster.cut.extend([(id, *other), (*other, id)]);
        }
        Ok(())
    }

    /// `propose MEMBER DATA.. [term=N]`
    fn propose(&mut self, args: &mut ArgumentConsumer) -> Output {
        let term = args.take_key("term").map(str::parse).transpose()?;
        let id = id(args)?;
        while let Some(data) = args.next_pos() {
            self.cluster.propose(id, data, term).map_err(|why| format!("{why:?}"))?;
        }
        Ok(String::new())
    }

    /// `change MEMBER add|remove|update|learner NODE`
    fn change(&mut self, args: &mut ArgumentConsumer) -> Output {
        use raftpb::ConfChangeType as Type;
        let id_proposer = id(args)?;
        let r#type = match args.next_pos().ok_or("change MEMBER KIND NODE")? {
            "add" => Type::ConfChangeAddNode,
            "remove" => Type::ConfChangeRemoveNode,
            "update" => Type::ConfChangeUpdateNode,
            "learner" => Type::ConfChangeAddLearnerNode,
            other => return Err(format!("no change {other}").into()),
        };
        let node = id(args)?;
        let taken = self.cluster.propose_change(id_proposer, r#type, node);
        taken.map_err(|why| format!("{why:?}"))?;
        Ok(String::new())
    }

    fn status(&self) -> String {
        let mut text = String::new();
        for (id, node) in &self.cluster.nodes {
            let Some(core) = &node.core else {
                writeln!(text, "{id}: down, durable {}", node.durable_index()).expect("a string");
                continue;
            };
            let conf = core.conf_state();
            let applied: Vec<_> =
                node.state.applied.iter().map(|(_, data)| String::from_utf8_lossy(data)).collect();
            writeln!(
                text,
                "{id}: {} term {} leader {} log {}..{} durable {} commit {} voters {:?}{} applied [{}]",
                name(core.role()), core.term(), core.leader(), core.first_index(), core.last_index(),
                node.durable_index(), core.commit(), conf.voters,
                if conf.learners.is_empty() { String::new() } else { format!(" learners {:?}", conf.learners) },
                applied.join(", "),
            )
            .expect("a string");
        }
        text
    }

    fn network(&self) -> String {
        let lines = self.cluster.network.iter().map(|m| format!("{} {}\n", m.from, describe(m)));
        lines.collect()
    }
}

fn id(args: &mut ArgumentConsumer) -> Result<u64, Box<dyn Error>> {
    Ok(args.next_pos().ok_or("a member is to be named")?.parse()?)
}

fn count(args: &mut ArgumentConsumer) -> Result<usize, Box<dyn Error>> {
    Ok(args.take_key("count").map(str::parse).transpose()?.unwrap_or(usize::MAX))
}

fn selection(
    args: &mut ArgumentConsumer,
) -> Result<impl Fn(&raftpb::Message) -> bool + use<>, Box<dyn Error>> {
    let from: Option<u64> = args.take_key("from").map(str::parse).transpose()?;
    let to: Option<u64> = args.take_key("to").map(str::parse).transpose()?;
    let kind = args.take_key("type").map(|kind| format!("Msg{kind}"));
    Ok(move |m: &raftpb::Message| {
        from.is_none_or(|from| from == m.from)
            && to.is_none_or(|to| to == m.to)
            && kind.as_ref().is_none_or(|kind| kind == m.r#type().as_str_name())
    })
}

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/replica/tests/testscripts/");
            let file = format!("{folder}{}", stringify!($name));
            let mut script = Script { cluster: Cluster::default() };
            goldenscript::run(&mut script, &file).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
    )*};
}

stories! {
    election
    pre_vote
    replication
    lone_voter_waits_for_its_disk
    lone_voter_with_learner_waits_for_its_term
    leader_counts_itself_only_when_durable
    follower_answers_when_durable
    uncommitted_tail_is_replaced
    partition
    read_index
    read_before_first_commit
    snapshot
    snapshot_and_election
    conf_change
    conf_change_forwarded
    conf_change_waits_for_its_commit
    leader_removes_itself
    forwarding
    only_in_term
    transfer
    transfer_while_others_write
    election_while_others_write
    forged_messages
    slow_disk_answers_heartbeats
    flushed_ahead_of_commit
}
