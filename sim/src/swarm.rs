//! Plans from seeds: each seed turns some options up, some down and some off, so that together the
//! seeds meet combinations that no single distribution would (Groce et al.: Swarm Testing, 2012).
//! Shape, weather, clients and nemesis draw from dice of their own.

use std::time::Duration;

use quorate::limits;

use crate::dice::Dice;
use crate::facts::shape::{FRESH_MAX, Flag, Proxies, Shape, Speaks};
use crate::nemesis::fault::{Fault, Place, Step, Target};
use crate::plan::{ClientPlan, Clock, HOSTS_MAX, Plan, Weather};
use crate::workload;

/// What a plan's clients are at least and at most.
const CLIENTS: std::ops::RangeInclusive<u64> = 4..=9;
/// Kinds of work that one plan has.
const WORKLOADS: std::ops::RangeInclusive<u64> = 2..=6;
/// Backups of one plan at most: each takes a server of its own.
const BACKUPS_MAX: usize = 2;
/// Plans whose cluster need not survive, in percent.
const UNSURVIVABLE: u64 = 6;
/// Clients that use JSON, or compress, in percent.
const JSON: u64 = 12;
const GZIP: u64 = 8;
/// Plans whose members keep their logs apart from their data, in percent.
const WAL_APART: u64 = 15;
/// Events that wait for a slow watch stream, with their weights: where there are few, watchers fall behind
/// all the time.
const WATCH_BUFFERS: &[(u64, usize)] = &[(4, limits::WATCH_BUFFER_EVENTS), (1, 1), (1, 4), (2, 32)];
/// Plans with a client that reads much at once, in percent.
const FLOODS: u64 = 8;
/// Plans that are about permissions, and so about nothing else, in percent.
const PERMISSIONS: u64 = 6;
/// Plans with a proxy before the cluster, and clients there that are behind it, in percent.
const PROXIES: u64 = 10;
const BEHIND: u64 = 60;
/// Plans in which everything is TLS, in percent: handshakes take time, and few faults are about them.
const TLS: u64 = 5;

/// The plan of a seed.
pub fn draw(seed: u64) -> Plan {
    let of = |name| Dice::of(seed, name);
    let mut shape = shape(&mut of("shape"));
    guard(&mut of("guards"), &mut shape);
    shape.wal_apart = of("wal-apart").chance(WAL_APART);
    shape.watch_buffer = weighted(&mut of("watch-buffer"), WATCH_BUFFERS);
    let lasts = Duration::from_secs(of("lasts").between(20..=40));
    let weather = weather(&mut of("weather"), shape.members);
    let mut clients = clients(&mut of("clients"), shape.members);
    let mut speech = of("json");
    clients.iter_mut().for_each(|client| client.speaks = speaks(&mut speech));
    if of("permissions").chance(PERMISSIONS) {
        for client in &mut clients {
            client.workload = workload::ALONE.to_owned();
            // Users come over gRPC, where they log in.
            client.speaks = Speaks::Plain;
        }
    } else if of("flood").chance(FLOODS) {
        clients.push(ClientPlan::new(clients.len(), workload::RARE));
    }
    let survivable = !of("mercy").chance(UNSURVIVABLE);
    let mut steps = Steps::new(of("nemesis"), &shape, clients.len(), lasts, survivable).draw();
    let mut proxy = of("proxy");
    let alone = clients.iter().any(|client| client.workload == workload::ALONE);
    if proxy.chance(PROXIES) && !alone {
        shape.proxies = proxies(&mut proxy);
        clients.iter_mut().for_each(|client| hide(&mut proxy, client));
        harm(&mut proxy, &mut steps, shape.members, lasts);
    }
    let mut stranded = of("stranded");
    if stranded.chance(STRANDED) && shape.members > 2 {
        strand(&mut stranded, &mut shape, &mut clients, &mut steps, lasts);
    }
    let mut crowded = of("crowded");
    if crowded.chance(CROWDED) && !alone {
        shape.descriptors = Some(crowded.between(230..=330) as usize);
        (0..crowded.between(1..=2)).for_each(|_| add(&mut clients, "idlers"));
    }
    if of("hostile").chance(HOSTILE) && !alone {
        add(&mut clients, "hostile");
    }
    let mut secure = of("secure");
    if secure.chance(TLS) {
        shape.tls = true;
        rotate(&mut secure, &mut steps, shape.members, lasts);
        if !alone {
            clients.push(ClientPlan::new(clients.len(), workload::SECURED));
        }
    }
    Plan { seed, shape, weather, clients, steps, lasts, survivable, branch: None }
}

fn add(clients: &mut Vec<ClientPlan>, workload: &str) {
    let number = clients.iter().map(|client| client.number + 1).max().unwrap_or(0);
    clients.push(ClientPlan::new(number, workload));
}

/// One member loses the others several times, for longer than they keep the log, while clients stay at it:
/// those that were there keep their watches, leases, locks and logins, and half of all clients are there.
fn strand(
    dice: &mut Dice,
    shape: &mut Shape,
    clients: &mut [ClientPlan],
    steps: &mut Vec<Step>,
    lasts: Duration,
) {
    shape.snapshot_count = *dice.pick(&[10, 20, 50]);
    shape.catchup_entries = *dice.pick(&[1, 5, 20]);
    let host = format!("m{}", dice.below(shape.members as u64));
    for client in clients.iter_mut().filter(|client| client.member.as_deref() != Some("p0")) {
        if dice.chance(50) {
            client.member = Some(host.clone());
        }
    }
    let mut at = ms(dice.between(500..=4_000));
    while at + ms(500) < lasts {
        let alone = vec![Target::Host(host.clone())];
        let fault = Fault::Partition(vec![alone, vec![Target::Others]]);
        let cut = ms(dice.between(1_000..=6_000));
        steps.push(Step { at, upon: None, fault, lasts: Some(cut) });
        at += cut + ms(dice.between(300..=3_000));
    }
    steps.sort_by_key(|step| step.at);
}

fn speaks(dice: &mut Dice) -> Speaks {
    match dice.below(100) {
        n if n < JSON => Speaks::Json,
        n if n < JSON + GZIP => Speaks::Gzip,
        _ => Speaks::Plain,
    }
}

fn proxies(dice: &mut Dice) -> Proxies {
    let ordered = dice.chance(30);
    let sync = dice.chance(50).then(|| ms(*dice.pick(&[500, 3_000])));
    Proxies { count: 1, ordered, sync, namespace: String::new() }
}

/// May put a client behind the proxy, which has no JSON; workloads that take much memory stay with members.
fn hide(dice: &mut Dice, client: &mut ClientPlan) {
    if dice.chance(BEHIND) && client.workload != workload::RARE {
        client.member = Some("p0".to_owned());
        client.speaks = Speaks::Plain;
    }
}

/// What happens to the proxy, beside all that happens to members.
fn harm(dice: &mut Dice, steps: &mut Vec<Step>, members: usize, lasts: Duration) {
    for _ in 0..dice.below(6) {
        let proxy = || vec![Target::Host("p0".to_owned())];
        let member = vec![Target::Host(format!("m{}", dice.below(members as u64)))];
        let fault = match dice.below(6) {
            0 | 1 => Fault::Kill(proxy()),
            2 => Fault::Partition(vec![proxy(), member]),
            3 => Fault::OneWay(member, proxy()),
            4 => Fault::Reset(proxy()),
            _ => Fault::Pause(proxy()),
        };
        let at = ms(dice.between(100..=lasts.as_millis() as u64));
        let lasts = (!fault.is_over_at_once()).then(|| ms(dice.between(100..=5_000)));
        steps.push(Step { at, upon: None, fault, lasts });
    }
    steps.sort_by_key(|step| step.at);
}

/// Certificates change, beside all that happens to members.
fn rotate(dice: &mut Dice, steps: &mut Vec<Step>, members: usize, lasts: Duration) {
    for _ in 0..dice.below(4) {
        let member = Target::Host(format!("m{}", dice.below(members as u64)));
        let at = ms(dice.between(100..=lasts.as_millis() as u64));
        let fault = Fault::RotateCerts(vec![member]);
        steps.push(Step { at, upon: None, fault, lasts: None });
    }
    steps.sort_by_key(|step| step.at);
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// One of the choices, by their weights.
fn weighted<T: Copy>(dice: &mut Dice, choices: &[(u64, T)]) -> T {
    let mut rest = dice.below(choices.iter().map(|(weight, _)| weight).sum());
    for (weight, choice) in choices {
        if rest < *weight {
            return *choice;
        }
        rest -= weight;
    }
    choices[0].1
}

fn shape(dice: &mut Dice) -> Shape {
    let members = weighted(dice, &[(10, 1), (5, 2), (50, 3), (5, 4), (20, 5), (3, 6), (7, 7)]);
    let (heartbeat, election_timeout) =
        weighted(dice, &[(6, (100, 1_000)), (2, (50, 500)), (1, (100, 2_000)), (1, (200, 1_000))]);
    Shape {
        members,
        learners: if members < HOSTS_MAX && dice.chance(15) { 1 } else { 0 },
        heartbeat: ms(heartbeat),
        election_timeout: ms(election_timeout),
        pre_vote: dice.chance(80),
        snapshot_count: *dice.pick(&[20, 50, 100, 200, 500, 2_000]),
        catchup_entries: *dice.pick(&[5, 10, 50, 100, 500]),
        wal_apart: false,
        descriptors: None,
        wal_segment_bytes: *dice.pick(&[16 << 10, 64 << 10, 256 << 10, 1 << 20]),
        request_bytes_max: *dice.pick(&[64 << 10, 256 << 10, 1 << 20, 3 << 19]),
        txn_ops_max: *dice.pick(&[32, 64, 128]),
        quota_bytes: None,
        proposals: None,
        corrupt_check: None,
        lease_checkpoint: None,
        auto_compaction: None,
        watch_progress_interval: ms(*dice.pick(&[200, 1_000, 5_000, 600_000])),
        watch_buffer: limits::WATCH_BUFFER_EVENTS,
        traced: 0,
        tls: false,
        proxies: Proxies::default(),
        etcd: None,
    }
}

/// What members do to guard themselves; from dice of its own, and rarely: it costs time.
fn guard(dice: &mut Dice, shape: &mut Shape) {
    shape.corrupt_check = dice.chance(10).then(|| ms(*dice.pick(&[2_000, 7_000])));
    shape.lease_checkpoint = dice.chance(20).then(|| ms(1_000));
}

fn weather(dice: &mut Dice, members: usize) -> Weather {
    let latency = *dice.pick(&[(10, 100), (50, 1_000), (500, 3_000), (2_000, 15_000)]);
    let disk = *dice.pick(&[(10, 200), (30, 2_000), (500, 10_000), (100, 60_000)]);
    let loss = weighted(dice, &[(6, 0.0), (2, 0.001), (1, 0.01), (1, 0.03)]);
    let skewed = dice.chance(50);
    let mut clock = |number| Clock {
        host: format!("m{number}"),
        drift_ppm: dice.between(0..=400) as i64 - 200,
        ahead_ms: dice.between(0..=20_000) as i64 - 10_000,
    };
    let clocks = if skewed { (0..members).map(&mut clock).collect() } else { Vec::new() };
    let range = |(shortest, longest)| (us(shortest), us(longest));
    Weather { latency: range(latency), loss, disk: range(disk), clocks }
}

fn clients(dice: &mut Dice, members: usize) -> Vec<ClientPlan> {
    let mut workloads = workload::NAMES.to_vec();
    let apart = [workload::ALONE, workload::RARE];
    workloads.retain(|name| !apart.contains(name) && !workload::SCRIPTED.contains(name));
    dice.shuffle(&mut workloads);
    workloads.truncate(dice.between(WORKLOADS) as usize);
    if workloads.is_empty() {
        return Vec::new();
    }
    let mut client = |number: usize| {
        let workload = workloads[number % workloads.len()];
        let member = dice.chance(50).then(|| format!("m{}", dice.below(members as u64)));
        ClientPlan { member, ..ClientPlan::new(number, workload) }
    };
    let first: Vec<_> = (0..workloads.len()).map(&mut client).collect();
    let count = dice.between(CLIENTS) as usize;
    let mut more = |number: usize| {
        let workload = *dice.pick(&workloads);
        let member = dice.chance(50).then(|| format!("m{}", dice.below(members as u64)));
        ClientPlan { member, ..ClientPlan::new(number, workload) }
    };
    let more: Vec<_> = (first.len()..count).map(&mut more).collect();
    first.into_iter().chain(more).collect()
}

/// Draws the nemesis's part.
struct Steps {
    dice: Dice,
    members: usize,
    clients: usize,
    lasts: Duration,
    survivable: bool,
    wal_apart: bool,
    /// Hosts that vote and that do not, as far as changes are drawn; what comes of them is not known.
    voters: Vec<String>,
    learners: Vec<String>,
    /// The number of the next new host.
    next: usize,
    /// So far.
    backups: usize,
}

/// Draws one fault; none where the cluster has no place for it.
type Kind = fn(&mut Steps) -> Option<Fault>;

/// The kinds of faults by what they are about: a plan has a family or has it not, so that each is missing
/// from about half of them.
const FAMILIES: &[&[Kind]] = &[
    // Links.
    &[
        Steps::partition,
        Steps::partition,
        Steps::one_way,
        Steps::flaky,
        Steps::slow_link,
        Steps::loss,
        Steps::reset,
    ],
    // Processes.
    &[Steps::kill, Steps::kill, Steps::pause, Steps::restart],
    // Power.
    &[Steps::power, Steps::power_at, Steps::power_at, Steps::blackout],
    // Clocks.
    &[Steps::clock, Steps::drift],
    // Disks.
    &[Steps::slow_disk, Steps::stall_log, Steps::fail_sync, Steps::full_disk, Steps::rot],
    // Members that come and go.
    &[Steps::replace, Steps::come_and_go, Steps::come_and_go, Steps::ask_promotions],
    // Addresses.
    &[Steps::update, Steps::swap],
    // What an operator does.
    &[Steps::move_leader, Steps::compact, Steps::defrag, Steps::backup],
    // Starts.
    &[Steps::forget],
];
/// Families that a plan has, in percent, and kinds of one that it has.
const FAMILY_ON: u64 = 50;
const KIND_ON: u64 = 60;
/// Of steps, those that wait for a mark, in percent of plans that have any such, and of their steps.
const AIMED: u64 = 35;
const AIMED_STEPS: u64 = 30;
/// Marks at which a fault can be aimed: what happens there is not over in a moment.
const AIMS: &[&str] = &[
    "snapshot-arrives",
    "snapshot-received",
    "install-begins",
    "install-with-watches",
    "install-ends",
    "member-updated",
    "promotion-forwarded",
    "keep-alive-forwarded",
    "read-round-fails",
];
/// Plans in which one member is cut off from the others, not from clients, again and again, and catches up by
/// snapshots under them, in percent.
const STRANDED: u64 = 15;
/// Plans with a bound on descriptors, and a client that uses them up, in percent; with a stranger at the peer
/// port.
const CROWDED: u64 = 8;
const HOSTILE: u64 = 12;

impl Steps {
    fn new(dice: Dice, shape: &Shape, clients: usize, lasts: Duration, survivable: bool) -> Self {
        let members = shape.members;
        let next = members + shape.learners;
        let voters = (0..members).map(|number| format!("m{number}")).collect();
        let learners = (members..next).map(|number| format!("m{number}")).collect();
        Self {
            dice,
            members,
            clients,
            lasts,
            survivable,
            wal_apart: shape.wal_apart,
            voters,
            learners,
            next,
            backups: 0,
        }
    }

    fn draw(mut self) -> Vec<Step> {
        if self.dice.chance(4) {
            return Vec::new();
        }
        let mut kinds = Vec::new();
        for family in FAMILIES {
            if self.dice.chance(FAMILY_ON) {
                kinds.extend(family.iter().filter(|_| self.dice.chance(KIND_ON)));
            }
        }
        if kinds.is_empty() {
            let family = *self.dice.pick(FAMILIES);
            kinds.push(*self.dice.pick(family));
        }
        if !self.survivable {
            kinds.push(Steps::rot);
        }
        let aimed = self.dice.chance(AIMED);
        let pause = *self.dice.pick(&[700, 1_500, 3_000, 6_000]);
        let mut steps = Vec::new();
        let mut at = ms(self.dice.between(200..=pause));
        while at + ms(500) < self.lasts {
            let kind = *self.dice.pick(&kinds);
            if let Some(fault) = kind(&mut self) {
                let lasts = self.duration(&fault);
                steps.push(Step { at, upon: None, fault, lasts });
            }
            if aimed && self.dice.chance(AIMED_STEPS) {
                let step = self.aimed(at);
                steps.push(step);
            }
            at += ms(self.dice.between(pause / 4..=pause * 7 / 4));
        }
        steps
    }

    /// What befalls a member at the moment at which it reaches a mark.
    fn aimed(&mut self, at: Duration) -> Step {
        let there = || vec![Target::There];
        let fault = match self.dice.below(7) {
            0 | 1 => Fault::Kill(there()),
            2 => Fault::Power(there(), None),
            3 => Fault::Power(there(), Some(self.dice.between(1..=12))),
            4 => Fault::Pause(there()),
            5 => Fault::Partition(vec![there(), vec![Target::Others]]),
            _ => Fault::Reset(there()),
        };
        let upon = Some((*self.dice.pick(AIMS)).to_owned());
        let lasts = self.duration(&fault);
        Step { at, upon, fault, lasts }
    }

    /// How long a fault lasts where it does: most are short, a few outlast an election or two.
    fn duration(&mut self, fault: &Fault) -> Option<Duration> {
        if fault.is_over_at_once() {
            return None;
        }
        let longest = *self.dice.pick(&[500, 2_000, 4_000, 8_000, 12_000]);
        Some(ms(self.dice.between(100..=longest)))
    }

    fn member(&mut self) -> Target {
        Target::Host(format!("m{}", self.dice.below(self.members as u64)))
    }

    /// One member, quite often the leader.
    fn victim(&mut self) -> Target {
        if self.dice.chance(40) { Target::Leader } else { self.member() }
    }

    /// One member, now and then more.
    fn victims(&mut self) -> Vec<Target> {
        match self.dice.below(10) {
            0..7 => vec![self.victim()],
            7..9 => {
                let members = self.members_shuffled();
                let count = self.dice.between(1..=self.members as u64) as usize;
                members.into_iter().take(count).collect()
            }
            _ => vec![Target::All],
        }
    }

    fn members_shuffled(&mut self) -> Vec<Target> {
        let mut members: Vec<_> =
            (0..self.members).map(|number| Target::Host(format!("m{number}"))).collect();
        self.dice.shuffle(&mut members);
        members
    }

    /// Two groups: one against all others, any two parts, or two parts with a bridge between them.
    fn groups(&mut self) -> Option<Vec<Vec<Target>>> {
        if self.members < 2 {
            return None;
        }
        let mut groups = match self.dice.below(4) {
            0 => vec![vec![Target::Leader], vec![Target::Others]],
            1 => vec![vec![self.member()], vec![Target::Others]],
            2 if self.members > 2 => self.halves(1),
            _ => self.halves(0),
        };
        if self.dice.chance(30) {
            for number in 0..self.clients {
                let group = self.dice.below(3) as usize;
                if let Some(group) = groups.get_mut(group) {
                    group.push(Target::Host(format!("c{number}")));
                }
            }
        }
        Some(groups)
    }

    /// The members in two parts, `bridges` of them in none.
    fn halves(&mut self, bridges: usize) -> Vec<Vec<Target>> {
        let mut members = self.members_shuffled();
        members.truncate(self.members - bridges);
        let cut = self.dice.between(1..=members.len() as u64 - 1) as usize;
        let other = members.split_off(cut);
        vec![members, other]
    }
}

/// The kinds.
impl Steps {
    fn partition(&mut self) -> Option<Fault> {
        self.groups().map(Fault::Partition)
    }

    fn one_way(&mut self) -> Option<Fault> {
        let mut groups = self.groups()?;
        let (to, from) = (groups.pop()?, groups.pop()?);
        Some(if self.dice.chance(50) { Fault::OneWay(from, to) } else { Fault::OneWay(to, from) })
    }

    fn flaky(&mut self) -> Option<Fault> {
        let every = ms(*self.dice.pick(&[100, 300, 1_000]));
        self.groups().map(|groups| Fault::Flaky(groups, every))
    }

    fn slow_link(&mut self) -> Option<Fault> {
        let by = ms(*self.dice.pick(&[20, 80, 300, 1_200]));
        Some(Fault::Delay(self.victims(), by))
    }

    fn loss(&mut self) -> Option<Fault> {
        Some(Fault::Loss(*self.dice.pick(&[0.01, 0.05, 0.2])))
    }

    fn reset(&mut self) -> Option<Fault> {
        Some(Fault::Reset(self.victims()))
    }

    fn kill(&mut self) -> Option<Fault> {
        Some(Fault::Kill(self.victims()))
    }

    fn power(&mut self) -> Option<Fault> {
        Some(Fault::Power(self.victims(), None))
    }

    fn power_at(&mut self) -> Option<Fault> {
        let operation = self.dice.between(1..=120);
        Some(Fault::Power(self.victims(), Some(operation)))
    }

    fn blackout(&mut self) -> Option<Fault> {
        let operation = self.dice.chance(50).then(|| self.dice.between(1..=60));
        Some(Fault::Power(vec![Target::All], operation))
    }

    fn pause(&mut self) -> Option<Fault> {
        Some(Fault::Pause(self.victims()))
    }

    fn clock(&mut self) -> Option<Fault> {
        let by = self.dice.between(1..=60_000) as i64 - 30_000;
        Some(Fault::Jump(self.victims(), by))
    }

    fn drift(&mut self) -> Option<Fault> {
        let ppm = self.dice.between(0..=800) as i64 - 400;
        Some(Fault::Drift(self.victims(), ppm))
    }

    fn update(&mut self) -> Option<Fault> {
        Some(Fault::Update(self.member()))
    }

    fn ask_promotions(&mut self) -> Option<Fault> {
        Some(Fault::AskPromotions)
    }

    fn swap(&mut self) -> Option<Fault> {
        let mut members = self.members_shuffled();
        Some(Fault::Swap(members.pop()?, members.pop()?))
    }

    fn slow_disk(&mut self) -> Option<Fault> {
        let longest = *self.dice.pick(&[20, 100, 400]);
        Some(Fault::SlowDisk(self.victims(), (ms(1), ms(longest))))
    }

    fn stall_log(&mut self) -> Option<Fault> {
        let longest = *self.dice.pick(&[300, 1_500, 4_000]);
        Some(Fault::StallLog(self.victims(), (ms(longest / 4), ms(longest))))
    }

    fn fail_sync(&mut self) -> Option<Fault> {
        Some(Fault::FailSync(self.victims()))
    }

    fn full_disk(&mut self) -> Option<Fault> {
        Some(Fault::FullDisk(self.victims()))
    }

    fn rot(&mut self) -> Option<Fault> {
        let mut place = *self.dice.pick(&[Place::Tail, Place::Middle, Place::Snapshot]);
        if !self.survivable && place == Place::Tail {
            // What the last write looks like when it is torn: on too many disks it cannot be distinguished.
            place = Place::Middle;
        }
        Some(Fault::Rot(self.victim(), place))
    }

    fn replace(&mut self) -> Option<Fault> {
        let at = self.dice.below(self.voters.len() as u64) as usize;
        let fresh = self.fresh()?;
        let old = std::mem::replace(&mut self.voters[at], fresh.clone());
        Some(Fault::Replace(old, fresh))
    }

    /// One more member or one fewer, or a learner that becomes a voter.
    fn come_and_go(&mut self) -> Option<Fault> {
        match self.dice.below(5) {
            0 if self.voters.len() > 1 => {
                let at = self.dice.below(self.voters.len() as u64) as usize;
                Some(Fault::Remove(self.voters.remove(at)))
            }
            1 | 2 if !self.learners.is_empty() => {
                let host = self.learners.remove(0);
                self.voters.push(host.clone());
                Some(Fault::Promote(host))
            }
            3 if !self.learners.is_empty() => Some(Fault::Remove(self.learners.remove(0))),
            _ if self.voters.len() + self.learners.len() >= HOSTS_MAX => None,
            _ => {
                let host = self.fresh()?;
                // A member has place for one learner more than the plan begins with.
                let learner = self.learners.is_empty() && self.dice.chance(50);
                let list = if learner { &mut self.learners } else { &mut self.voters };
                list.push(host.clone());
                Some(Fault::Add(host, learner))
            }
        }
    }

    fn fresh(&mut self) -> Option<String> {
        self.next += 1;
        Some(format!("m{}", self.next - 1)).filter(|_| self.next <= FRESH_MAX)
    }

    fn move_leader(&mut self) -> Option<Fault> {
        (self.members > 1).then(|| Fault::MoveLeader(self.member()))
    }

    fn compact(&mut self) -> Option<Fault> {
        Some(Fault::Compact)
    }

    fn defrag(&mut self) -> Option<Fault> {
        Some(Fault::Defrag(self.victims()))
    }

    fn restart(&mut self) -> Option<Fault> {
        Some(Fault::Restart(ms(*self.dice.pick(&[100, 500, 2_000]))))
    }

    fn forget(&mut self) -> Option<Fault> {
        self.wal_apart.then(|| Fault::Forget(vec![self.victim()], Flag::WalDir))
    }

    fn backup(&mut self) -> Option<Fault> {
        self.backups += 1;
        (self.backups <= BACKUPS_MAX).then(|| Fault::Backup(self.victim()))
    }
}
