//! Hosts, links, connection ends and the packets between them: what arrives when, and what it does.
//! What processes call is in `kernel`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use madsim::rand::Rng;

use crate::dice::Dice;
use crate::rt::{SimSleep, sim_now};
use crate::trace::Digest;

/// Connections that wait for `accept`.
const BACKLOG: usize = 128;
const LOOPBACK: (Duration, Duration) = (Duration::from_micros(10), Duration::from_micros(50));
/// What a lost packet is late by.
const RETRANSMISSION: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_millis(600));
/// When a connection that waited for the end of a partition sends again, at the latest.
const RESEND_LONGEST: Duration = Duration::from_millis(500);
/// A host's own ports, as Linux has them.
pub(super) const EPHEMERAL: std::ops::RangeInclusive<u16> = 32_768..=60_999;

/// One end of a connection, whose host and port the [`End`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndId {
    pub(super) connection: u64,
    pub(super) dialed: bool,
}

impl EndId {
    fn peer(self) -> Self {
        Self { dialed: !self.dialed, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Dialing,
    Refused,
    Open,
}

/// What a host's kernel knows about its end of a connection.
pub(super) struct End {
    pub(super) host: IpAddr,
    pub(super) peer_host: IpAddr,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) phase: Phase,
    pub(super) received: VecDeque<Bytes>,
    /// Bytes read and not yet acknowledged.
    pub(super) consumed: usize,
    /// Bytes sent and not yet acknowledged.
    pub(super) in_flight: usize,
    pub(super) fin_sent: bool,
    pub(super) fin_received: bool,
    pub(super) reset: bool,
    /// When the newest packet of this direction arrives: the next one does not overtake it.
    pub(super) last_arrival: Instant,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
}

#[derive(Debug)]
pub(super) enum Body {
    Syn { from: SocketAddr, to: SocketAddr },
    SynAck,
    Data(Bytes),
    Ack(usize),
    Fin,
    Rst,
}

struct Packet {
    to: EndId,
    from_host: IpAddr,
    to_host: IpAddr,
    body: Body,
}

struct Flying {
    at: Instant,
    number: u64,
    packet: Packet,
}

impl PartialEq for Flying {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}
impl Eq for Flying {}
impl PartialOrd for Flying {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Flying {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) struct Host {
    pub(super) name: String,
    powered: bool,
    pub(super) listeners: BTreeMap<u16, Bound>,
    pub(super) next_port: u16,
}

/// A listening socket.
pub(super) struct Bound {
    pub(super) number: u64,
    pub(super) ip: IpAddr,
    pub(super) backlog: VecDeque<EndId>,
    pub(super) acceptor: Option<Waker>,
}

impl Bound {
    fn hears(&self, ip: IpAddr, from_self: bool) -> bool {
        self.ip.is_unspecified() || self.ip == ip || (self.ip.is_loopback() && from_self)
    }
}

/// Everything between the hosts.
pub(crate) struct Wire(Mutex<State>);

pub(crate) struct State {
    pub(super) hosts: BTreeMap<IpAddr, Host>,
    pub(super) names: BTreeMap<String, IpAddr>,
    pub(super) swaps: BTreeSet<(String, String)>,
    pub(super) ends: BTreeMap<EndId, End>,
    /// The last arrival from ends that are closed: what a partition held back of theirs keeps its order.
    pub(super) gone: BTreeMap<EndId, Instant>,
    flying: BinaryHeap<Reverse<Flying>>,
    /// Stopped by a partition, oldest first.
    held: Vec<Packet>,
    /// Arrived where there was no power: the sender goes on sending them.
    dark: Vec<Packet>,
    cut: BTreeSet<(IpAddr, IpAddr)>,
    delay: BTreeMap<(IpAddr, IpAddr), Duration>,
    host_delays: BTreeMap<IpAddr, Duration>,
    latency: (Duration, Duration),
    loss: f64,
    pub(super) numbers: u64,
    seed: u64,
    /// Of each link that was used.
    dice: BTreeMap<(IpAddr, IpAddr), Dice>,
    /// Woken when a packet arrives earlier than the pump expects.
    pump: Option<Waker>,
    pump_until: Option<Instant>,
    /// Woken when the lock is free again.
    pub(super) wakes: Vec<Waker>,
    pub(crate) digest: Digest,
    /// The simulation has ended: sockets that are dropped now send nothing.
    over: bool,
}

impl Wire {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            hosts: BTreeMap::new(),
            names: BTreeMap::new(),
            swaps: BTreeSet::new(),
            ends: BTreeMap::new(),
            gone: BTreeMap::new(),
            flying: BinaryHeap::new(),
            held: Vec::new(),
            dark: Vec::new(),
            cut: BTreeSet::new(),
            delay: BTreeMap::new(),
            host_delays: BTreeMap::new(),
            latency: (Duration::from_micros(50), Duration::from_millis(1)),
            loss: 0.0,
            numbers: 0,
            seed,
            dice: BTreeMap::new(),
            pump: None,
            pump_until: None,
            wakes: Vec::new(),
            digest: Digest::new(sim_now()),
            over: false,
        })))
    }

    /// The only way to the state. Wakers run after the lock is released: what they wake, or drop,
    /// may come back here.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        let wakes = std::mem::take(&mut state.wakes);
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
        result
    }

    /// For `Drop`: nothing, when the simulation has ended or is dying of a panic.
    pub(crate) fn with_if_running(&self, act: impl FnOnce(&mut State)) {
        if std::thread::panicking() || madsim::runtime::Handle::try_current().is_err() {
            return;
        }
        self.with(|state| {
            if !state.over {
                act(state)
            }
        });
    }
}

/// What `world` does to the network.
impl State {
    pub(crate) fn add_host(&mut self, name: &str, ip: IpAddr) {
        let host = Host {
            name: name.to_owned(),
            powered: true,
            listeners: BTreeMap::new(),
            next_port: *EPHEMERAL.start(),
        };
        assert!(self.hosts.insert(ip, host).is_none(), "one host per address");
        self.names.insert(name.to_owned(), ip);
    }

    pub(crate) fn end(&mut self) {
        self.over = true;
        self.ends.clear();
        self.hosts.clear();
        // The pump ends when it sees that everything has.
        self.wakes.extend(self.pump.take());
    }

    pub(crate) fn set_latency(&mut self, shortest: Duration, longest: Duration) {
        assert!(shortest <= longest, "a range of times");
        self.latency = (shortest, longest);
    }

    pub(crate) fn set_delay(&mut self, from: IpAddr, to: IpAddr, delay: Duration) {
        self.delay.insert((from, to), delay);
    }

    pub(crate) fn set_host_delays(&mut self, delays: BTreeMap<IpAddr, Duration>) {
        self.host_delays = delays;
    }

    pub(crate) fn set_loss(&mut self, share: f64) {
        assert!((0.0..1.0).contains(&share), "some packets must pass");
        self.loss = share;
    }

    pub(crate) fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.cut.insert((from, to));
    }

    /// Lets `from` reach `to` again. What waited goes out when its connection's retransmission timer
    /// fires next.
    pub(crate) fn heal(&mut self, from: IpAddr, to: IpAddr) {
        if !self.cut.remove(&(from, to)) {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let (released, held): (Vec<_>, Vec<_>) =
            held.into_iter().partition(|packet| (packet.from_host, packet.to_host) == (from, to));
        self.held = held;
        self.resend(released);
    }

    pub(crate) fn set_cuts(&mut self, cuts: BTreeSet<(IpAddr, IpAddr)>) {
        for (from, to) in self.cut.difference(&cuts).copied().collect::<Vec<_>>() {
            self.heal(from, to);
        }
        self.cut = cuts;
    }

    pub(crate) fn heal_all(&mut self) {
        for (from, to) in self.cut.clone() {
            self.heal(from, to);
        }
    }

    /// Each connection's packets keep their order and share one timer.
    fn resend(&mut self, packets: Vec<Packet>) {
        let mut timers = BTreeMap::new();
        for packet in packets {
            let link = (packet.from_host, packet.to_host);
            let timer = *timers
                .entry(packet.to)
                .or_insert_with(|| self.dice(link).time((Duration::ZERO, RESEND_LONGEST)));
            let sender = packet.to.peer();
            self.launch(packet, Some(sender), timer);
        }
    }

    /// The kernel of `host` closes what its process had open.
    pub(crate) fn crash(&mut self, host: IpAddr) {
        for id in self.ends_of(host) {
            self.close(id);
        }
        self.unbind_all(host);
    }

    /// Something between the hosts answers for both ends of every open connection of `host`: RST.
    pub(crate) fn reset(&mut self, host: IpAddr) {
        let open = self.ends.iter().filter(|(_, end)| {
            end.phase == Phase::Open && (end.host == host || end.peer_host == host)
        });
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            let end = self.ends.get_mut(&id).expect("it was listed above");
            end.reset = true;
            self.wakes.extend(end.reader.take());
            self.wakes.extend(end.writer.take());
        }
    }

    /// The kernel is gone: no end is notified, and nothing is sent again.
    pub(crate) fn power_off(&mut self, host: IpAddr) {
        for id in self.ends_of(host) {
            self.remove_end(id);
        }
        self.unbind_all(host);
        self.held.retain(|packet| packet.from_host != host);
        self.dark.retain(|packet| packet.from_host != host);
        self.host(host).powered = false;
    }

    /// The new kernel answers what is still being sent to the old one.
    pub(crate) fn power_on(&mut self, host: IpAddr) {
        self.host(host).powered = true;
        let dark = std::mem::take(&mut self.dark);
        let (waiting, dark): (Vec<_>, Vec<_>) =
            dark.into_iter().partition(|packet| packet.to_host == host);
        self.dark = dark;
        let mut answered = BTreeSet::new();
        for packet in waiting {
            if answered.insert(packet.to) {
                let timer = self.dice((packet.to_host, packet.from_host)).time(RETRANSMISSION);
                self.refuse(&packet, timer);
            }
        }
    }

    fn ends_of(&self, host: IpAddr) -> Vec<EndId> {
        let own = self.ends.iter().filter(|(_, end)| end.host == host);
        own.map(|(id, _)| *id).collect()
    }

    fn unbind_all(&mut self, host: IpAddr) {
        for (_, bound) in std::mem::take(&mut self.host(host).listeners) {
            self.wakes.extend(bound.acceptor);
        }
    }

    pub(super) fn host(&mut self, ip: IpAddr) -> &mut Host {
        self.hosts.get_mut(&ip).expect("the host was added to the world")
    }
}

/// Packets on their way.
impl State {
    pub(super) fn send(&mut self, from: EndId, body: Body) {
        let end = self.ends.get(&from).expect("an end sends while it exists");
        let packet = Packet { to: from.peer(), from_host: end.host, to_host: end.peer_host, body };
        self.launch(packet, Some(from), Duration::ZERO);
    }

    /// A kernel that does not know the connection answers with RST.
    fn refuse(&mut self, packet: &Packet, late: Duration) {
        let answer = Packet {
            to: packet.to.peer(),
            from_host: packet.to_host,
            to_host: packet.from_host,
            body: Body::Rst,
        };
        self.launch(answer, None, late);
    }

    /// Puts `packet` on its link, behind the other packets of `sender`.
    fn launch(&mut self, packet: Packet, sender: Option<EndId>, late: Duration) {
        let link = (packet.from_host, packet.to_host);
        // The last step of a process whose power has just gone sends nothing.
        if !self.hosts.get(&link.0).is_some_and(|host| host.powered) {
            return;
        }
        if self.cut.contains(&link) {
            // Handshakes are sent anew by the dialer; the rest by the kernel, after the heal.
            if !matches!(packet.body, Body::Syn { .. } | Body::SynAck) {
                self.held.push(packet);
            }
            return;
        }
        let mut at = sim_now() + late;
        let (latency, extra, loss) = match link.0 == link.1 {
            true => (LOOPBACK, Duration::ZERO, 0.0),
            false => (self.latency, self.extra(link), self.loss),
        };
        let dice = self.dice(link);
        at += dice.time(latency) + extra;
        if loss > 0.0 && dice.gen_bool(loss) {
            at += dice.time(RETRANSMISSION);
        }
        if let Some(sender) = sender {
            let last = match self.ends.get_mut(&sender) {
                Some(end) => &mut end.last_arrival,
                None => self.gone.entry(sender).or_insert(at),
            };
            at = at.max(*last);
            *last = at;
        }
        let number = self.number();
        self.flying.push(Reverse(Flying { at, number, packet }));
        if self.pump_until.is_none_or(|until| at < until) {
            self.wakes.extend(self.pump.take());
        }
    }

    /// A link's own, by the names of its ends.
    pub(super) fn dice(&mut self, link: (IpAddr, IpAddr)) -> &mut Dice {
        let Self { dice, hosts, seed, .. } = self;
        let name = |ip| hosts.get(&ip).map_or("nobody", |host| host.name.as_str());
        let new = || Dice::of(*seed, &format!("link {} {}", name(link.0), name(link.1)));
        dice.entry(link).or_insert_with(new)
    }

    /// What packets on `link` take longer than the common latency.
    fn extra(&self, link: (IpAddr, IpAddr)) -> Duration {
        let of = |host| self.host_delays.get(&host).copied().unwrap_or_default();
        self.delay.get(&link).copied().unwrap_or_default() + of(link.0) + of(link.1)
    }

    /// Delivers what has arrived by now; the time of the next arrival.
    fn arrivals(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(next)) = self.flying.peek() {
            if next.at > now {
                return Some(next.at);
            }
            if let Some(Reverse(Flying { packet, .. })) = self.flying.pop() {
                self.arrive(packet, now);
            }
        }
        None
    }

    fn arrive(&mut self, packet: Packet, now: Instant) {
        self.digest_packet(&packet, now);
        // An address that no host has: the packet is gone without a word.
        let Some(host) = self.hosts.get(&packet.to_host) else { return };
        if !host.powered {
            if matches!(packet.body, Body::Data(_) | Body::Fin) {
                self.dark.push(packet);
            }
            return;
        }
        if let Body::Syn { from, to } = packet.body {
            return self.arrive_syn(&packet, from, to);
        }
        let Some(end) = self.ends.get_mut(&packet.to) else {
            if !matches!(packet.body, Body::Rst | Body::Ack(_)) {
                self.refuse(&packet, Duration::ZERO);
            }
            return;
        };
        match packet.body {
            Body::Syn { .. } => unreachable!("handled above"),
            Body::SynAck => end.phase = Phase::Open,
            Body::Data(bytes) => end.received.push_back(bytes),
            Body::Ack(bytes) => end.in_flight -= bytes,
            Body::Fin => end.fin_received = true,
            Body::Rst if end.phase == Phase::Dialing => end.phase = Phase::Refused,
            Body::Rst => end.reset = true,
        }
        self.wakes.extend(end.reader.take());
        self.wakes.extend(end.writer.take());
    }

    fn arrive_syn(&mut self, packet: &Packet, from: SocketAddr, to: SocketAddr) {
        if self.ends.contains_key(&packet.to) {
            // The answer to an earlier one was lost.
            return self.send(packet.to, Body::SynAck);
        }
        let from_self = packet.from_host == packet.to_host;
        let listeners = &mut self.host(packet.to_host).listeners;
        let bound = listeners.get_mut(&to.port()).filter(|bound| bound.hears(to.ip(), from_self));
        let Some(bound) = bound else { return self.refuse(packet, Duration::ZERO) };
        // A full backlog drops it, as Linux does: the dialer tries again.
        if bound.backlog.len() < BACKLOG {
            bound.backlog.push_back(packet.to);
            let acceptor = bound.acceptor.take();
            self.wakes.extend(acceptor);
            self.ends.insert(packet.to, End::new(to, from, Phase::Open));
            self.send(packet.to, Body::SynAck);
        }
    }

    fn digest_packet(&mut self, packet: &Packet, now: Instant) {
        let (kind, payload): (u8, &[u8]) = match &packet.body {
            Body::Syn { .. } => (0, &[]),
            Body::SynAck => (1, &[]),
            Body::Data(bytes) => (2, bytes),
            Body::Ack(_) => (3, &[]),
            Body::Fin => (4, &[]),
            Body::Rst => (5, &[]),
        };
        tracing::trace!(
            connection = packet.to.connection,
            from = %packet.from_host,
            to = %packet.to_host,
            kind,
            bytes = payload.len(),
            "packet"
        );
        let id = packet.to.connection << 4 | u64::from(packet.to.dialed) << 3 | u64::from(kind);
        self.digest.add(now, id, payload);
    }
}

impl End {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr, phase: Phase) -> Self {
        Self {
            host: local.ip(),
            peer_host: remote.ip(),
            local,
            remote,
            phase,
            received: VecDeque::new(),
            consumed: 0,
            in_flight: 0,
            fin_sent: false,
            fin_received: false,
            reset: false,
            last_arrival: sim_now(),
            reader: None,
            writer: None,
        }
    }
}

/// Moves packets to where they arrive, for as long as the simulation runs.
pub(crate) struct Pump {
    wire: Arc<Wire>,
    sleep: Option<(Instant, SimSleep)>,
}

impl Pump {
    pub(crate) fn new(wire: Arc<Wire>) -> Self {
        Self { wire, sleep: None }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let over_or_next = self.wire.with(|state| {
                let next = state.arrivals(sim_now());
                state.pump = Some(cx.waker().clone());
                state.pump_until = next;
                if state.over { Err(()) } else { Ok(next) }
            });
            let Ok(next) = over_or_next else { return Poll::Ready(()) };
            let Some(next) = next else { return Poll::Pending };
            if self.sleep.as_ref().is_none_or(|(at, _)| *at != next) {
                self.sleep = Some((next, SimSleep::until(next)));
            }
            let (_, sleep) = self.sleep.as_mut().expect("set above");
            if Pin::new(sleep).poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
