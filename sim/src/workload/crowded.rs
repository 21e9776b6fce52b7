//! Connections with many HTTP/2 streams of a stranger, each a request whose body does not come. As many as
//! strangers may have are left alone, again and again; of more the oldest are ended. Only for plans with one
//! such client at a member.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate::env::BoxConn;
use quorate::limits::STRANGER_STREAMS_MAX;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const HEAD_BYTES: usize = 9;
/// The time in which those that are too many end, and in which the others do not.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Crowded;

impl Workload for Crowded {
    fn name(&self) -> &'static str {
        "crowded"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let steady = || client.evidence.record().steady;
            let streams = match client.chance(1, 3) {
                true => STRANGER_STREAMS_MAX + 100,
                false => STRANGER_STREAMS_MAX / 2,
            };
            let too_many = streams.saturating_sub(STRANGER_STREAMS_MAX);
            let began = steady();
            let (mut ended, mut lasts) = (BTreeSet::new(), true);
            let crowd = crowd(client, streams, &mut ended);
            if let Ok(over) = client.env.timeout(PATIENCE, crowd).await {
                // It could not be opened, or the member has closed it.
                lasts = over.is_none();
            }
            let bounded = if too_many == 0 { ended.is_empty() } else { ended.len() >= too_many };
            if !(lasts && bounded) && began && steady() {
                let text = format!("of {streams} streams {} ended, lasts: {lasts}", ended.len());
                client.complain("open streams of strangers are bounded", text);
            }
            client.pause(500).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Opens so many streams and takes note of those that end. Returns when the connection ends, if ever; nothing
/// when there was none.
async fn crowd(client: &Client, streams: usize, ended: &mut BTreeSet<u32>) -> Option<()> {
    let endpoint = client.channel.endpoint();
    let mut conn: BoxConn = client.cluster.connect(&client.env, &endpoint).await.ok()?;
    let mut sent = BytesMut::from(PREFACE);
    frame(&mut sent, SETTINGS, 0, 0, &[]);
    // RFC 7541: three fields of the static table, and a path.
    let mut block = BytesMut::from(&[0x83, 0x86, 0x41, 1, b'm', 0x04][..]);
    let path = b"/v3/kv/range";
    block.put_u8(path.len() as u8);
    block.put_slice(path);
    for n in 0..streams {
        frame(&mut sent, HEADERS, END_HEADERS, 2 * n as u32 + 1, &block);
    }
    conn.write_all(&sent).await.ok()?;
    conn.flush().await.ok()?;
    let mut received = BytesMut::new();
    loop {
        while let Some((kind, flags, stream)) = next(&mut received) {
            let last = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            if last || kind == RST_STREAM {
                ended.insert(stream);
            }
        }
        if conn.read_buf(&mut received).await.unwrap_or(0) == 0 {
            return Some(());
        }
    }
}

/// RFC 9113, section 4.1.
fn frame(to: &mut BytesMut, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    to.put_uint(payload.len() as u64, 3);
    to.put_u8(kind);
    to.put_u8(flags);
    to.put_u32(stream);
    to.put_slice(payload);
}

/// Takes the next whole frame: its kind, flags and stream.
fn next(from: &mut BytesMut) -> Option<(u8, u8, u32)> {
    let head = from.get(..HEAD_BYTES)?;
    let mut head = Bytes::copy_from_slice(head);
    let len = head.get_uint(3) as usize;
    if from.len() < HEAD_BYTES + len {
        return None;
    }
    from.advance(HEAD_BYTES + len);
    Some((head.get_u8(), head.get_u8(), head.get_u32()))
}
