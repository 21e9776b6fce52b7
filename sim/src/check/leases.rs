//! Leases end neither early nor much too late, judged by clients' clocks: a key must not be gone
//! before its lease's last confirmed renewal has run out, nor be there long after its last possible
//! one has.

use std::time::{Duration, Instant};

use quorate_proto::mvccpb::event::EventType;

use crate::workload::leases::Held;
use crate::workload::watch::Told;

/// What does not fit, in words. `healthy` is since when the cluster has been whole, `now` the end of
/// the run, `grace` what an expiry may take then.
pub fn check(
    seen: &[Told],
    held: &[Held],
    healthy: Instant,
    now: Instant,
    grace: Duration,
) -> Vec<String> {
    let mut faults = Vec::new();
    for lease in held {
        let deleted = seen.iter().find(|(_, events)| {
            events.iter().any(|event| {
                event.r#type() == EventType::Delete
                    && event.kv.as_ref().is_some_and(|kv| kv.key == lease.key)
            })
        });
        match deleted {
            // Seen is later than done, so what is seen early was done early.
            Some((at, _)) if *at < lease.renewed + lease.ttl => {
                faults.push(format!(
                    "{:?} ended {:?} early",
                    lease,
                    lease.renewed + lease.ttl - *at
                ));
            }
            Some(_) => {}
            None if now > (lease.last_try + lease.ttl).max(healthy + lease.ttl) + grace => {
                faults.push(format!("{lease:?} is still there"));
            }
            None => {}
        }
    }
    faults
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use quorate_proto::mvccpb::{Event, KeyValue};

    use super::*;

    #[test]
    fn faults_are_found() {
        let (start, s) = (Instant::now(), Duration::from_secs(1));
        let held =
            Held { key: "l".into(), ttl: 5 * s, renewed: start, last_try: start + s, lost: false };
        let gone = |at| {
            let kv = KeyValue { key: "l".into(), ..Default::default() };
            let event = Event { r#type: EventType::Delete as i32, kv: Some(kv), prev_kv: None };
            vec![(start + at, vec![event])]
        };
        let said = |seen: &[(Instant, Vec<Event>)], now| {
            check(seen, std::slice::from_ref(&held), start, start + now, 2 * s).len()
        };
        assert_eq!(said(&gone(6 * s), 9 * s), 0);
        assert_eq!(said(&gone(4 * s), 9 * s), 1, "early");
        assert_eq!(said(&[], 7 * s), 0, "may still end");
        assert_eq!(said(&[], 9 * s), 1, "late");
    }
}
