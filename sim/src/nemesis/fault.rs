//! Faults as data: what there is, how it is written and read. Carrying them out is in [`super::acts`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::facts::addresses::COLLECTOR;
use crate::facts::shape::Flag;
use crate::units::{read_share, read_time, read_times, show_share, show_time, show_times};

/// A line of a plan: `at 2.5s kill m0 for 6s`, or `at 2.5s upon install-begins kill there for 1s`.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Since the load began.
    pub at: Duration,
    /// The mark to wait for from then on; the fault begins the moment it is reached.
    pub upon: Option<String>,
    pub fault: Fault,
    /// None: until the heal, or over at once where there is nothing to undo.
    pub lasts: Option<Duration>,
}

/// The target of a fault; roles are looked up when it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Host(String),
    /// The member that reports that it leads; `m0` if there is none.
    Leader,
    /// The first member that runs and does not lead.
    Follower,
    /// Every member that is not named in the same step.
    Others,
    All,
    /// The host where the mark of this step was reached.
    There,
}

/// What can be done. Where several hosts stand, it is done to each at the same time.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// `partition m0 | m1 m2`: no host of one group reaches another group. A host in none reaches all,
    /// and so is a bridge; clients are in none unless they are named.
    Partition(Vec<Vec<Target>>),
    /// `one-way m0 -> m1 m2`: nothing arrives that way.
    OneWay(Vec<Target>, Vec<Target>),
    /// `flaky m0 | m1 m2 every 300ms`: a partition that comes and goes.
    Flaky(Vec<Vec<Target>>, Duration),
    /// `delay m0 by 80ms`: packets from and to these hosts.
    Delay(Vec<Target>, Duration),
    /// `loss 5%`: of all packets.
    Loss(f64),
    /// `reset m0`: all its connections.
    Reset(Vec<Target>),
    /// `kill m0`: as by SIGKILL; started again when the time is over.
    Kill(Vec<Target>),
    /// `power m0`, or `power m0 at 37`: during the 37th disk operation from now.
    Power(Vec<Target>, Option<u64>),
    /// `pause m0`: as by SIGSTOP.
    Pause(Vec<Target>),
    /// `jump m0 by -3s`: its wall clock.
    Jump(Vec<Target>, i64),
    /// `drift m0 by 400ppm`: how much too fast its monotonic clock runs.
    Drift(Vec<Target>, i64),
    /// `slow-disk m0 by 20ms..200ms`: what each blocking job takes.
    SlowDisk(Vec<Target>, (Duration, Duration)),
    /// `stall-log m0 by 2s..3s`: what each write and sync of the log takes.
    StallLog(Vec<Target>, (Duration, Duration)),
    /// `fail-sync m0`: the next sync fails, and its writes are lost; the member stops, and the machine is
    /// started anew: until then its cache shows writes that are on no disk, which no program can know.
    FailSync(Vec<Target>),
    /// `full-disk m0`: nothing more fits.
    FullDisk(Vec<Target>),
    /// `rot m0 tail`: killed, a bit of its files is not what it was, started. It must not serve from
    /// that file, and its disk is replaced.
    Rot(Target, Place),
    /// `move-leader m1`.
    MoveLeader(Target),
    /// `compact`: all but the newest few revisions.
    Compact,
    /// `defrag m0`.
    Defrag(Vec<Target>),
    /// `add m3`, `add m3 learner`: a new member on a new host.
    Add(String, bool),
    /// `promote m3`: the learner there becomes a voter.
    Promote(String),
    /// `remove m1`.
    Remove(String),
    /// `update m1`: a member is given one more peer URL, or only its own again.
    Update(Target),
    /// `ask-promotions`: every member is requested to promote voters, unknown ids, and a learner that was
    /// never started; all of it must be refused.
    AskPromotions,
    /// `swap m0 m1`: to other members each name leads to the other's address, and connections are made anew.
    Swap(Target, Target),
    /// `replace m1 by m3`: the new one joins before the old one goes.
    Replace(String, String),
    /// `restart every 2s`: one member after the other, in good order.
    Restart(Duration),
    /// `rotate-certs m0`: new certificates and keys lie there.
    RotateCerts(Vec<Target>),
    /// `forget wal-dir m0`: started without that flag for a while.
    Forget(Vec<Target>, Flag),
    /// `migrate m0`, `migrate m0 back`: stopped in good order, and started as a member of ours, or of etcd's
    /// again.
    Migrate(Vec<Target>, bool),
    /// `backup m1`: taken there, restored as a cluster of its own on a new host, and read.
    Backup(Target),
}

/// Where bits rot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The last records of the log.
    Tail,
    /// Some record of the log.
    Middle,
    /// The newest file beside the log.
    Snapshot,
}

impl Fault {
    /// Whether there is nothing to undo when it has been done.
    pub fn is_over_at_once(&self) -> bool {
        use Fault::{
            AskPromotions, Backup, Compact, Defrag, Forget, Migrate, MoveLeader, Reset, Restart,
            Rot, RotateCerts, Update,
        };
        match self {
            AskPromotions | Update(_) | Backup(_) | Forget(..) | Compact | Defrag(_)
            | Migrate(..) | MoveLeader(_) | Reset(_) | Restart(_) | Rot(..) | RotateCerts(_) => {
                true
            }
            _ => self.changes_members(),
        }
    }

    /// Its name in a plan.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition(_) => "partition",
            Self::OneWay(..) => "one-way",
            Self::Flaky(..) => "flaky",
            Self::Delay(..) => "delay",
            Self::Loss(_) => "loss",
            Self::Reset(_) => "reset",
            Self::Kill(_) => "kill",
            Self::Power(..) => "power",
            Self::Pause(_) => "pause",
            Self::Jump(..) => "jump",
            Self::Drift(..) => "drift",
            Self::SlowDisk(..) => "slow-disk",
            Self::StallLog(..) => "stall-log",
            Self::FailSync(_) => "fail-sync",
            Self::FullDisk(_) => "full-disk",
            Self::Rot(..) => "rot",
            Self::MoveLeader(_) => "move-leader",
            Self::Compact => "compact",
            Self::Defrag(_) => "defrag",
            Self::Add(..) => "add",
            Self::Promote(_) => "promote",
            Self::Remove(_) => "remove",
            Self::Replace(..) => "replace",
            Self::Update(_) => "update",
            Self::AskPromotions => "ask-promotions",
            Self::Swap(..) => "swap",
            Self::Restart(_) => "restart",
            Self::RotateCerts(_) => "rotate-certs",
            Self::Forget(..) => "forget",
            Self::Migrate(..) => "migrate",
            Self::Backup(_) => "backup",
        }
    }

    /// All of them.
    pub const NAMES: &[&str] = &[
        "partition",
        "one-way",
        "flaky",
        "delay",
        "loss",
        "reset",
        "kill",
        "power",
        "pause",
        "jump",
        "drift",
        "slow-disk",
        "stall-log",
        "fail-sync",
        "full-disk",
        "rot",
        "move-leader",
        "compact",
        "defrag",
        "add",
        "promote",
        "remove",
        "replace",
        "update",
        "ask-promotions",
        "swap",
        "restart",
        "rotate-certs",
        "forget",
        "migrate",
        "backup",
    ];

    /// Whether it is done where a mark was reached.
    pub fn is_there(&self) -> bool {
        let there = |targets: &[Target]| targets.contains(&Target::There);
        match self {
            Self::Partition(groups) | Self::Flaky(groups, _) => groups.iter().any(|it| there(it)),
            Self::OneWay(from, to) => there(from) || there(to),
            Self::Delay(hosts, _)
            | Self::Reset(hosts)
            | Self::Kill(hosts)
            | Self::Power(hosts, _)
            | Self::Pause(hosts)
            | Self::Jump(hosts, _)
            | Self::Drift(hosts, _)
            | Self::SlowDisk(hosts, _)
            | Self::StallLog(hosts, _)
            | Self::FailSync(hosts)
            | Self::FullDisk(hosts)
            | Self::Defrag(hosts)
            | Self::RotateCerts(hosts)
            | Self::Migrate(hosts, _)
            | Self::Forget(hosts, _) => there(hosts),
            Self::Rot(host, _)
            | Self::MoveLeader(host)
            | Self::Update(host)
            | Self::Backup(host) => *host == Target::There,
            Self::Swap(one, other) => *one == Target::There || *other == Target::There,
            Self::Loss(_) | Self::Compact | Self::AskPromotions | Self::Restart(_) => false,
            Self::Add(..) | Self::Promote(_) | Self::Remove(_) | Self::Replace(..) => false,
        }
    }

    /// Whether it is a change of the membership.
    pub fn changes_members(&self) -> bool {
        matches!(self, Self::Add(..) | Self::Promote(_) | Self::Remove(_) | Self::Replace(..))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ", show_time(self.at))?;
        if let Some(mark) = &self.upon {
            write!(f, "upon {mark} ")?;
        }
        write!(f, "{}", self.fault)?;
        self.lasts.map_or(Ok(()), |lasts| write!(f, " for {}", show_time(lasts)))
    }
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix("at ").ok_or("a step begins with `at TIME`")?.trim();
        let (at, text) = text.split_once(' ').ok_or("a step without a fault")?;
        let (upon, text) = match text.trim().strip_prefix("upon ") {
            Some(rest) => {
                let (mark, rest) = rest.trim().split_once(' ').ok_or("upon MARK what?")?;
                (Some(mark.to_owned()), rest)
            }
            None => (None, text),
        };
        let (text, lasts) = match text.rsplit_once(" for ") {
            Some((fault, lasts)) => (fault, Some(read_time(lasts.trim())?)),
            None => (text, None),
        };
        Ok(Self { at: read_time(at)?, upon, fault: text.parse()?, lasts })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host(name) => name,
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Others => "others",
            Self::All => "all",
            Self::There => "there",
        })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix(['m', 'c', 'p']).unwrap_or_default();
        match text {
            "leader" => Ok(Self::Leader),
            "follower" => Ok(Self::Follower),
            "others" => Ok(Self::Others),
            "all" => Ok(Self::All),
            "there" => Ok(Self::There),
            _ if number.parse::<usize>().is_ok() || text == COLLECTOR => {
                Ok(Self::Host(text.to_owned()))
            }
            _ => Err(format!(
                "{text:?} is no host: m0, c0, p0, leader, follower, others, all, there"
            )),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tail => "tail",
            Self::Middle => "middle",
            Self::Snapshot => "snapshot",
        })
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tail" => Ok(Self::Tail),
            "middle" => Ok(Self::Middle),
            "snapshot" => Ok(Self::Snapshot),
            _ => Err(format!("{text:?} does not rot: tail, middle, snapshot")),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(groups) => write!(f, "partition {}", show_groups(groups)),
            Self::OneWay(from, to) => write!(f, "one-way {} -> {}", show(from), show(to)),
            Self::Flaky(groups, every) => {
                write!(f, "flaky {} every {}", show_groups(groups), show_time(*every))
            }
            Self::Delay(hosts, by) => write!(f, "delay {} by {}", show(hosts), show_time(*by)),
            Self::Loss(share) => write!(f, "loss {}", show_share(*share)),
            Self::Reset(hosts) => write!(f, "reset {}", show(hosts)),
            Self::Kill(hosts) => write!(f, "kill {}", show(hosts)),
            Self::Power(hosts, None) => write!(f, "power {}", show(hosts)),
            Self::Power(hosts, Some(n)) => write!(f, "power {} at {n}", show(hosts)),
            Self::Pause(hosts) => write!(f, "pause {}", show(hosts)),
            Self::Jump(hosts, ms) => write!(f, "jump {} by {}", show(hosts), show_jump(*ms)),
            Self::Drift(hosts, ppm) => write!(f, "drift {} by {ppm}ppm", show(hosts)),
            Self::SlowDisk(hosts, by) => {
                write!(f, "slow-disk {} by {}", show(hosts), show_times(*by))
            }
            Self::StallLog(hosts, by) => {
                write!(f, "stall-log {} by {}", show(hosts), show_times(*by))
            }
            Self::FailSync(hosts) => write!(f, "fail-sync {}", show(hosts)),
            Self::FullDisk(hosts) => write!(f, "full-disk {}", show(hosts)),
            Self::Rot(host, place) => write!(f, "rot {host} {place}"),
            Self::MoveLeader(to) => write!(f, "move-leader {to}"),
            Self::Compact => f.write_str("compact"),
            Self::Defrag(hosts) => write!(f, "defrag {}", show(hosts)),
            Self::Add(host, false) => write!(f, "add {host}"),
            Self::Add(host, true) => write!(f, "add {host} learner"),
            Self::Promote(host) => write!(f, "promote {host}"),
            Self::Remove(host) => write!(f, "remove {host}"),
            Self::Replace(old, fresh) => write!(f, "replace {old} by {fresh}"),
            Self::Update(of) => write!(f, "update {of}"),
            Self::AskPromotions => f.write_str("ask-promotions"),
            Self::Swap(one, other) => write!(f, "swap {one} {other}"),
            Self::Restart(every) => write!(f, "restart every {}", show_time(*every)),
            Self::RotateCerts(hosts) => write!(f, "rotate-certs {}", show(hosts)),
            Self::Forget(hosts, flag) => write!(f, "forget {flag} {}", show(hosts)),
            Self::Migrate(hosts, false) => write!(f, "migrate {}", show(hosts)),
            Self::Migrate(hosts, true) => write!(f, "migrate {} back", show(hosts)),
            Self::Backup(of) => write!(f, "backup {of}"),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let by = || rest.split_once(" by ").ok_or_else(|| format!("{name} by how much?"));
        Ok(match name {
            "partition" => Self::Partition(read_groups(rest)?),
            "one-way" => {
                let (from, to) = rest.split_once("->").ok_or("one-way FROM -> TO")?;
                Self::OneWay(read(from)?, read(to)?)
            }
            "flaky" => {
                let (groups, every) = rest.split_once(" every ").ok_or("flaky every how long?")?;
                Self::Flaky(read_groups(groups)?, read_time(every.trim())?)
            }
            "delay" => {
                by().and_then(|(hosts, by)| Ok(Self::Delay(read(hosts)?, read_time(by)?)))?
            }
            "loss" => Self::Loss(read_share(rest)?),
            "reset" => Self::Reset(read(rest)?),
            "kill" => Self::Kill(read(rest)?),
            "power" => match rest.split_once(" at ") {
                Some((hosts, n)) => Self::Power(read(hosts)?, Some(count(n)?)),
                None => Self::Power(read(rest)?, None),
            },
            "pause" => Self::Pause(read(rest)?),
            "jump" => by().and_then(|(hosts, by)| Ok(Self::Jump(read(hosts)?, read_jump(by)?)))?,
            "drift" => by().and_then(|(hosts, by)| {
                Ok(Self::Drift(read(hosts)?, count(by.strip_suffix("ppm").unwrap_or(by))?))
            })?,
            "slow-disk" => {
                by().and_then(|(hosts, by)| Ok(Self::SlowDisk(read(hosts)?, read_times(by)?)))?
            }
            "stall-log" => {
                by().and_then(|(hosts, by)| Ok(Self::StallLog(read(hosts)?, read_times(by)?)))?
            }
            "fail-sync" => Self::FailSync(read(rest)?),
            "full-disk" => Self::FullDisk(read(rest)?),
            "rot" => {
                let (host, place) = rest.split_once(' ').ok_or("rot HOST PLACE")?;
                Self::Rot(host.parse()?, place.trim().parse()?)
            }
            "move-leader" => Self::MoveLeader(rest.trim().parse()?),
            "compact" => Self::Compact,
            "defrag" => Self::Defrag(read(rest)?),
            "add" => match rest.strip_suffix("learner") {
                Some(host) => Self::Add(member(host)?, true),
                None => Self::Add(member(rest)?, false),
            },
            "promote" => Self::Promote(member(rest)?),
            "remove" => Self::Remove(member(rest)?),
            "replace" => {
                by().and_then(|(old, fresh)| Ok(Self::Replace(member(old)?, member(fresh)?)))?
            }
            "update" => Self::Update(rest.trim().parse()?),
            "ask-promotions" => Self::AskPromotions,
            "swap" => {
                let (one, other) = rest.trim().split_once(' ').ok_or("swap HOST HOST")?;
                Self::Swap(one.parse()?, other.trim().parse()?)
            }
            "restart" => {
                Self::Restart(read_time(rest.strip_prefix("every ").unwrap_or(rest).trim())?)
            }
            "rotate-certs" => Self::RotateCerts(read(rest)?),
            "forget" => {
                let (flag, hosts) = rest.split_once(' ').ok_or("forget FLAG HOST")?;
                Self::Forget(read(hosts)?, flag.parse()?)
            }
            "migrate" => match rest.strip_suffix("back") {
                Some(hosts) => Self::Migrate(read(hosts)?, true),
                None => Self::Migrate(read(rest)?, false),
            },
            "backup" => Self::Backup(rest.trim().parse()?),
            _ => return Err(format!("no fault is called {name:?}")),
        })
    }
}

fn show(targets: &[Target]) -> String {
    targets.iter().map(Target::to_string).collect::<Vec<_>>().join(" ")
}

fn read(text: &str) -> Result<Vec<Target>, String> {
    let targets: Vec<Target> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    if targets.is_empty() { Err("which hosts?".to_owned()) } else { Ok(targets) }
}

/// A host by its name, which no role can stand for.
fn member(text: &str) -> Result<String, String> {
    match text.trim().parse()? {
        Target::Host(host) if host.starts_with('m') => Ok(host),
        other => Err(format!("{other} is not the name of a member's host")),
    }
}

fn show_groups(groups: &[Vec<Target>]) -> String {
    groups.iter().map(|group| show(group)).collect::<Vec<_>>().join(" | ")
}

fn read_groups(text: &str) -> Result<Vec<Vec<Target>>, String> {
    let groups: Vec<_> = text.split('|').map(read).collect::<Result<_, _>>()?;
    if groups.len() < 2 {
        Err("two groups at least, with | between".to_owned())
    } else {
        Ok(groups)
    }
}

fn show_jump(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}", show_time(Duration::from_millis(ms.unsigned_abs())))
}

fn read_jump(text: &str) -> Result<i64, String> {
    let (sign, time) = text.strip_prefix('-').map_or((1, text), |time| (-1, time));
    Ok(sign * read_time(time)?.as_millis() as i64)
}

fn count<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("{text:?} is not a number here"))
}
