//! Probes one peer every few seconds: reachability, round-trip time and clock difference. Raft
//! does not use the answers; operators do.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tracing::{debug, warn};

use super::link::Link;
use super::rfc3339;
use super::stats::ROUND_TRIP_FIRST;
use crate::limits::{PEER_IO_TIMEOUT, PEER_PROBE_INTERVAL};

/// A peer's clock may differ by this before it is mentioned.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(1);
/// Probes between two mentions.
const QUIET_PROBES: u32 = 8;

/// The answer to a probe.
#[derive(Deserialize)]
struct Health {
    #[serde(rename = "OK")]
    ok: bool,
    #[serde(rename = "Now")]
    now: String,
}

/// What we answer to a probe.
pub(super) fn health_json(now: SystemTime) -> String {
    format!("{{\"OK\":true,\"Now\":\"{}\"}}\n", rfc3339::format(now))
}

/// Probes until the task is aborted.
pub(super) async fn run(link: Arc<Link>) {
    let env = link.context.env.clone();
    let mut quiet = 0;
    loop {
        env.sleep(PEER_PROBE_INTERVAL).await;
        quiet = u32::saturating_sub(quiet, 1);
        match probe(&link).await {
            Ok((difference, rtt)) if difference > CLOCK_DIFFERENCE_MAX && quiet == 0 => {
                warn!(
                    remote_peer_id = %link.id, clock_drift = ?difference, ?rtt,
                    "prober found high clock drift"
                );
                quiet = QUIET_PROBES;
            }
            Ok(_) => {}
            Err(error) => {
                debug!(remote_peer_id = %link.id, %error, "prober detected unhealthy status");
            }
        }
    }
}

/// One probe; the difference of the clocks, and the round-trip time.
async fn probe(link: &Link) -> io::Result<(Duration, Duration)> {
    let context = &link.context;
    let url = link.url().ok_or_else(|| io::Error::other("the peer has no URL"))?;
    let began = context.env.now();
    let answer = context.client.get(&url, "/raft/probing", PEER_IO_TIMEOUT).await?;
    let round_trip = context.env.now() - began;
    let health: Health = serde_json::from_slice(&answer.body)?;
    let theirs = rfc3339::parse(&health.now).filter(|_| health.ok);
    let theirs = theirs.ok_or_else(|| io::Error::other("the peer is not well"))?;
    link.stats.round_trip.observe(ROUND_TRIP_FIRST, round_trip);

    // They looked at their clock about half-way.
    let ours = context.env.wall() - round_trip / 2;
    let difference = ours.duration_since(theirs).or_else(|_| theirs.duration_since(ours));
    Ok((difference.unwrap_or_default(), round_trip))
}
