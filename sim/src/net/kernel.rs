//! What a kernel does for a process: sockets, bytes, ends. Polling is in `socket`, what the
//! packets do in `wire`.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;
use madsim::rand::Rng;

use super::wire::{Body, Bound, EPHEMERAL, End, EndId, Phase, State};

/// Bytes sent and not yet acknowledged at which a writer has to wait.
const WINDOW_BYTES: usize = 256 * 1024;
/// Bytes read before the reader acknowledges them: a part of the window, so that it never closes
/// for good, and large, so that small messages cost no packet back.
const ACK_BYTES: usize = WINDOW_BYTES / 4;

impl State {
    /// The address for `name:port`, as `host` sees it.
    pub(crate) fn resolve(&self, host: IpAddr, host_port: &str) -> Option<SocketAddr> {
        let (name, port) = host_port.rsplit_once(':')?;
        let port = port.parse().ok()?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let ip = match name.parse::<IpAddr>() {
            Ok(ip) => ip,
            Err(_) if name == "localhost" => host,
            Err(_) => *self.names.get(self.meant(host, name))?,
        };
        let own = ip.is_loopback() || ip.is_unspecified();
        Some(SocketAddr::new(if own { host } else { ip }, port))
    }

    /// The name that the resolver of `host` takes for `name`.
    fn meant<'a>(&'a self, host: IpAddr, name: &'a str) -> &'a str {
        let asks = self.hosts.get(&host).is_some_and(|host| host.name.starts_with('m'));
        let other = self.swaps.iter().find_map(|(one, other)| match () {
            () if one == name => Some(other),
            () if other == name => Some(one),
            () => None,
        });
        other.filter(|_| asks).map_or(name, String::as_str)
    }

    /// From now on members are led to the other one's address by each name of a pair.
    pub(crate) fn set_swaps(&mut self, swaps: BTreeSet<(String, String)>) {
        let changed: Vec<_> = self.swaps.symmetric_difference(&swaps).cloned().collect();
        self.swaps = swaps;
        for name in changed.iter().flat_map(|(one, other)| [one, other]) {
            // Streams that are open would stay where they lead.
            if let Some(ip) = self.names.get(name).copied() {
                self.reset(ip);
            }
        }
    }

    /// How many connections processes of `host` hold.
    pub(crate) fn open_sockets(&self, host: IpAddr) -> usize {
        self.ends.values().filter(|end| end.host == host).count()
    }

    pub(crate) fn names_of(&self, address: IpAddr) -> Vec<String> {
        let named = self.names.iter().filter(|(_, ip)| **ip == address);
        named.map(|(name, _)| name.clone()).collect()
    }

    /// The bound address and the listener's number; `None` when the port is taken.
    pub(crate) fn bind(&mut self, host: IpAddr, addr: SocketAddr) -> Option<(SocketAddr, u64)> {
        let number = self.number();
        let mut port = addr.port();
        if port == 0 {
            port = self.ephemeral_port(host);
        }
        let listeners = &mut self.host(host).listeners;
        if listeners.contains_key(&port) {
            return None;
        }
        let ip = addr.ip();
        let bound = Bound { number, ip, backlog: VecDeque::new(), acceptor: None };
        listeners.insert(port, bound);
        Some((SocketAddr::new(addr.ip(), port), number))
    }

    /// The next connection of a listener; `Err` when the listener is gone.
    pub(crate) fn accept(
        &mut self,
        host: IpAddr,
        port: u16,
        number: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(EndId, SocketAddr), ()>> {
        let listeners = self.hosts.get_mut(&host).map(|host| &mut host.listeners);
        let bound = listeners.and_then(|listeners| listeners.get_mut(&port));
        let Some(bound) = bound.filter(|bound| bound.number == number) else {
            return Poll::Ready(Err(()));
        };
        // One that was reset while it waited is still handed out: its reader finds out.
        match bound.backlog.pop_front() {
            Some(id) => {
                let remote = self.ends.get(&id).map(|end| end.remote);
                Poll::Ready(remote.map(|remote| (id, remote)).ok_or(()))
            }
            None => {
                bound.acceptor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn unbind(&mut self, host: IpAddr, port: u16, number: u64) {
        let listeners = &mut self.host(host).listeners;
        if listeners.get(&port).is_none_or(|bound| bound.number != number) {
            return;
        }
        let bound = listeners.remove(&port).expect("it was found above");
        for id in bound.backlog {
            self.abort(id);
        }
    }

    /// A new connection's own end, which has sent nothing yet.
    pub(crate) fn dial(&mut self, host: IpAddr, remote: SocketAddr) -> EndId {
        let id = EndId { connection: self.number(), dialed: true };
        let local = SocketAddr::new(host, self.ephemeral_port(host));
        self.ends.insert(id, End::new(local, remote, Phase::Dialing));
        id
    }

    pub(crate) fn send_syn(&mut self, id: EndId) {
        if let Some(end) = self.ends.get(&id) {
            let body = Body::Syn { from: end.local, to: end.remote };
            self.send(id, body);
        }
    }

    /// Where the dialing is; `None` when the host was killed meanwhile.
    pub(crate) fn dialing(&mut self, id: EndId, cx: &mut Context<'_>) -> Option<Phase> {
        let end = self.ends.get_mut(&id)?;
        end.reader = Some(cx.waker().clone());
        Some(end.phase)
    }

    /// Bytes read: 0 at the end of the stream. `Err` after a reset or a kill.
    pub(crate) fn read(
        &mut self,
        id: EndId,
        room: usize,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Poll<Result<usize, ()>> {
        let Some(end) = self.ends.get_mut(&id) else { return Poll::Ready(Err(())) };
        let mut read = 0;
        while let Some(chunk) = end.received.front_mut() {
            let n = chunk.len().min(room - read);
            take(&chunk.split_to(n));
            read += n;
            if !chunk.is_empty() {
                break;
            }
            end.received.pop_front();
        }
        if read > 0 {
            end.consumed += read;
            if end.consumed >= ACK_BYTES {
                let consumed = std::mem::take(&mut end.consumed);
                self.send(id, Body::Ack(consumed));
            }
            return Poll::Ready(Ok(read));
        }
        match (end.fin_received, end.reset) {
            (true, _) => Poll::Ready(Ok(0)),
            (false, true) => Poll::Ready(Err(())),
            (false, false) => {
                end.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Bytes taken from `buf`, at least one. `Err` after a reset, a kill or a shutdown.
    pub(crate) fn write(
        &mut self,
        id: EndId,
        buf: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<usize, ()>> {
        let Some(end) = self.ends.get_mut(&id) else { return Poll::Ready(Err(())) };
        if end.reset || end.fin_sent {
            return Poll::Ready(Err(()));
        }
        let mut room = buf.len().min(WINDOW_BYTES - end.in_flight);
        if room == 0 {
            if buf.is_empty() {
                return Poll::Ready(Ok(0));
            }
            end.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        // Streams have no message borders: now and then one write becomes two packets.
        let link = (end.host, end.peer_host);
        let dice = self.dice(link);
        if room > 1 && dice.gen_ratio(1, 16) {
            room = dice.gen_range(1..room);
        }
        if let Some(end) = self.ends.get_mut(&id) {
            end.in_flight += room;
        }
        self.send(id, Body::Data(Bytes::copy_from_slice(&buf[..room])));
        Poll::Ready(Ok(room))
    }

    /// No more bytes from this end.
    pub(crate) fn shut_down(&mut self, id: EndId) {
        if let Some(end) = self.ends.get_mut(&id).filter(|end| !end.fin_sent && !end.reset) {
            end.fin_sent = true;
            self.send(id, Body::Fin);
        }
    }

    /// As Linux closes a socket: with RST if bytes were left unread, with FIN otherwise.
    pub(crate) fn close(&mut self, id: EndId) {
        let Some(end) = self.ends.get(&id) else { return };
        if end.phase == Phase::Open && !end.received.is_empty() {
            return self.abort(id);
        }
        if end.phase == Phase::Open {
            self.shut_down(id);
        }
        self.remove_end(id);
    }

    fn abort(&mut self, id: EndId) {
        if self.ends.get(&id).is_some_and(|end| end.phase == Phase::Open && !end.reset) {
            self.send(id, Body::Rst);
        }
        self.remove_end(id);
    }

    pub(super) fn remove_end(&mut self, id: EndId) {
        if let Some(mut end) = self.ends.remove(&id) {
            self.gone.insert(id, end.last_arrival);
            self.wakes.extend(end.reader.take());
            self.wakes.extend(end.writer.take());
        }
    }

    fn ephemeral_port(&mut self, host: IpAddr) -> u16 {
        let host = self.host(host);
        loop {
            let port = host.next_port;
            host.next_port = if port == *EPHEMERAL.end() { *EPHEMERAL.start() } else { port + 1 };
            if !host.listeners.contains_key(&port) {
                return port;
            }
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}
