//! The [`Net`] of one process: polls and errors over `wire`. It decides nothing about packets.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use quorate::env::{BoxConn, BoxFuture, Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::wire::{EndId, Phase, Wire};
use crate::rt::{SimSleep, sim_now};

/// Waits between handshakes, in seconds; after the last one the dialer gives up, as Linux does.
const SYN_WAITS_S: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// A process's sockets. Those of a killed process fail or wait for ever: they are not polled any more.
pub(crate) struct SimNet {
    pub(crate) wire: Arc<Wire>,
    pub(crate) host: IpAddr,
    /// Sockets that the process may have open, where that is bounded.
    pub(crate) descriptors: Option<usize>,
}

impl SimNet {
    /// A program that keeps to the bound never comes to it, as there are files, too.
    fn expect_room(&self) {
        let Some(max) = self.descriptors else { return };
        let open = self.wire.with(|state| state.open_sockets(self.host));
        assert!(open < max, "{} has {open} sockets open, of {max} descriptors", self.host);
    }
}

impl Net for SimNet {
    fn listen(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        let bound = self.wire.with(|state| state.bind(self.host, addr));
        Box::pin(std::future::ready(match bound {
            None => Err(io::ErrorKind::AddrInUse.into()),
            Some((addr, number)) => {
                let (wire, host) = (Arc::clone(&self.wire), self.host);
                Ok(Box::new(SimListener { wire, host, addr, number }) as Box<dyn Listener>)
            }
        }))
    }

    fn descriptors_max(&self) -> usize {
        self.descriptors.unwrap_or(usize::MAX)
    }

    fn connect(&self, host_port: String) -> BoxFuture<'_, io::Result<BoxConn>> {
        Box::pin(async move {
            self.expect_room();
            let remote = self.wire.with(|state| state.resolve(self.host, &host_port));
            let remote = remote.ok_or_else(|| {
                io::Error::other(format!("failed to lookup address information: {host_port}"))
            })?;
            let id = self.wire.with(|state| state.dial(self.host, remote));
            // From here on, dropping the connection takes the dialing back.
            let connection = SimConn { wire: Arc::clone(&self.wire), id };
            for wait in SYN_WAITS_S {
                self.wire.with(|state| state.send_syn(id));
                let deadline = sim_now() + Duration::from_secs(wait);
                match (Dialing { connection: &connection, sleep: SimSleep::until(deadline) }).await
                {
                    Some(Phase::Open) => return Ok(Box::new(connection) as BoxConn),
                    Some(Phase::Refused) => return Err(io::ErrorKind::ConnectionRefused.into()),
                    Some(Phase::Dialing) => {}
                    None => return Err(io::ErrorKind::NetworkDown.into()),
                }
            }
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    fn addresses_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
        let found = self.wire.with(|state| state.resolve(self.host, &format!("{name}:0")));
        Box::pin(std::future::ready(match found {
            Some(address) => Ok(vec![address.ip()]),
            None => Err(io::Error::other(format!("failed to lookup address information: {name}"))),
        }))
    }

    fn names_of(&self, address: IpAddr) -> BoxFuture<'_, io::Result<Vec<String>>> {
        let names = self.wire.with(|state| state.names_of(address));
        Box::pin(std::future::ready(Ok(names)))
    }
}

/// Ready when the dialing has ended, or with [`Phase::Dialing`] when the time has.
struct Dialing<'a> {
    connection: &'a SimConn,
    sleep: SimSleep,
}

impl Future for Dialing<'_> {
    type Output = Option<Phase>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let SimConn { wire, id } = self.connection;
        match wire.with(|state| state.dialing(*id, cx)) {
            Some(Phase::Dialing) => {
                Pin::new(&mut self.sleep).poll(cx).map(|()| Some(Phase::Dialing))
            }
            ended => Poll::Ready(ended),
        }
    }
}

struct SimListener {
    wire: Arc<Wire>,
    host: IpAddr,
    addr: SocketAddr,
    number: u64,
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(BoxConn, Option<SocketAddr>)>> {
        Box::pin(std::future::poll_fn(move |cx| {
            let accepted =
                self.wire.with(|state| state.accept(self.host, self.addr.port(), self.number, cx));
            accepted.map(|accepted| match accepted {
                Ok((id, remote)) => {
                    let connection = SimConn { wire: Arc::clone(&self.wire), id };
                    Ok((Box::new(connection) as BoxConn, Some(remote)))
                }
                Err(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            })
        }))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.addr)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        let (host, port, number) = (self.host, self.addr.port(), self.number);
        self.wire.with_if_running(|state| state.unbind(host, port, number));
    }
}

struct SimConn {
    wire: Arc<Wire>,
    id: EndId,
}

impl AsyncRead for SimConn {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining();
        let read =
            self.wire.with(|state| state.read(self.id, room, cx, |bytes| buf.put_slice(bytes)));
        read.map(|read| read.map(|_| ()).map_err(|()| io::ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for SimConn {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.wire.with(|state| state.write(self.id, buf, cx));
        written.map(|written| written.map_err(|()| io::ErrorKind::BrokenPipe.into()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(|state| state.shut_down(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimConn {
    fn drop(&mut self) {
        let id = self.id;
        self.wire.with_if_running(|state| state.close(id));
    }
}
