//! Connections that are there and do nothing: as many as come, more than a member has places for, held until
//! the member closes them. Clients that do something are served beside them: where they are not, their own
//! workloads and the liveness of the whole show it.

use std::time::Duration;

use quorate::env::BoxConn;
use tokio::io::AsyncWriteExt as _;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

/// Of one client.
const HELD_MAX: usize = 150;
const AT_ONCE: u64 = 30;
/// What a connection begins with: nothing, half a preface, a request that stays without an end.
const BEGINNINGS: [&[u8]; 4] =
    [b"", b"PRI * HTTP/2.0\r\n", b"GET /health HTTP/1.1\r\n", b"POST /v3/kv/range HTTP/1.1\r\n"];
/// One that switches protocols, and lasts as long as its client likes.
const SOCKET: &[u8] = b"GET /v3/watch HTTP/1.1\r\nHost: m\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Default)]
pub struct Idlers {
    held: Vec<BoxConn>,
    /// All of them switch protocols.
    sockets: bool,
}

impl Idlers {
    pub fn of_sockets() -> Self {
        Self { sockets: true, ..Self::default() }
    }
}

impl Workload for Idlers {
    fn name(&self) -> &'static str {
        if self.sockets { "sockets" } else { "idlers" }
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            for _ in 0..client.below(AT_ONCE) {
                let connecting = client.env.net.connect(client.channel.endpoint());
                let Ok(Ok(mut conn)) = client.env.timeout(PATIENCE, connecting).await else {
                    break;
                };
                let sent = match self.sockets {
                    true => SOCKET,
                    false => BEGINNINGS[client.below(BEGINNINGS.len() as u64) as usize],
                };
                if conn.write_all(sent).await.is_ok() {
                    self.held.push(conn);
                }
            }
            if self.held.len() > HELD_MAX || client.chance(1, 20) {
                let kept = client.below(self.held.len() as u64 + 1) as usize;
                self.held.truncate(kept);
            }
            client.channel.next_endpoint().await;
            client.pause(400).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}
