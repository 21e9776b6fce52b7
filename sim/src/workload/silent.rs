//! A client that connects and sends nothing, or half of what a client begins with: its connection is
//! closed after a time.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const NAME: &str = "silent";
/// The time in which a connection is closed, and some time for clocks that run at other rates.
const PATIENCE: Duration = Duration::from_secs(15);
const BEGINNINGS: [&[u8]; 3] = [b"", b"PRI * HTTP/2.0\r\n", b"P"];

pub struct Silent;

impl Workload for Silent {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let began = client.evidence.record().steady;
            let ended = client.env.timeout(PATIENCE, connect(client)).await;
            if ended.is_err() && began && client.evidence.record().steady {
                let text = format!("a connection is open after {PATIENCE:?}");
                client.complain("a connection that sends nothing is closed", text);
            }
            client.pause(500).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Connects and waits for the end of the connection.
async fn connect(client: &Client) -> io::Result<()> {
    let mut conn = client.env.net.connect(client.channel.endpoint()).await?;
    let sent = BEGINNINGS[client.below(BEGINNINGS.len() as u64) as usize];
    conn.write_all(sent).await?;
    conn.read_to_end(&mut Vec::new()).await.map(drop)
}
