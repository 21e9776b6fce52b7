//! The recipe under locks and elections, as etcd's package `concurrency` has it: a client that wants a turn
//! puts a key that hangs on a lease, and has it when no key of the same name is older. The revision at which
//! the key was created is the token that fences off the holder of the turn before.

use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, LeaseGrantRequest, PutRequest, RangeRequest, range_request::SortOrder,
    range_request::SortTarget, response_op::Response,
};

use super::Client;
use crate::facts::evidence::{Evidence, Tenure};
use crate::facts::request::{Op, created, delete, get, list, put, txn};
use crate::facts::verdict::{Proof, Violation};

const TTL_S: i64 = 3;
const POLL: Duration = Duration::from_millis(150);
/// Looks after which a client gives its place up.
const LOOKS: u32 = 60;

/// What a client's place hangs on.
pub struct Lease {
    pub id: i64,
    /// When the last renewal that was answered began.
    renewed: Instant,
    ttl: Duration,
}

impl Lease {
    pub async fn new(client: &Client) -> Option<Self> {
        let renewed = client.env.now();
        let request = LeaseGrantRequest { id: client.unique(), ttl: TTL_S };
        let granted = client.grant(request).await.ok()?;
        let ttl = Duration::from_secs(granted.ttl.max(0) as u64);
        Some(Self { id: granted.id, renewed, ttl })
    }

    /// Renews it when a third of its time is over; false when it is over.
    pub async fn keep(&mut self, client: &Client) -> bool {
        if client.env.now() < self.renewed + self.ttl / 3 {
            return true;
        }
        let began = client.env.now();
        match client.keep_alive(self.id).await {
            Ok(answer) if answer.ttl > 0 => self.renewed = began,
            Ok(_) => return false,
            // No answer: what was promised before still holds.
            Err(_) => {}
        }
        self.sure(client)
    }

    /// Whether it lives, for certain.
    pub fn sure(&self, client: &Client) -> bool {
        client.env.now() < self.until()
    }

    /// Until when it lives, for certain.
    pub fn until(&self) -> Instant {
        self.renewed + self.ttl
    }
}

/// A place in the queue.
pub struct Place {
    pub key: Bytes,
    pub lease: Lease,
    /// The token.
    pub token: i64,
}

impl Place {
    /// Joins the queue below `prefix`.
    pub async fn join(client: &Client, prefix: &str) -> Option<Self> {
        let lease = Lease::new(client).await?;
        let key = Bytes::from(format!("{prefix}{:x}", lease.id));
        let mine = PutRequest { lease: lease.id, ..put(key.clone(), client.value()) };
        let absent = vec![created(key.clone(), 0)];
        let request = txn(absent, vec![mine.op()], vec![get(key.clone()).op()]);
        let answer = client.txn(request).await.ok()?;
        let token = match &answer.responses.first()?.response {
            Some(Response::ResponseRange(found)) => found.kvs.first()?.create_revision,
            _ => answer.header?.revision,
        };
        Some(Self { key, lease, token })
    }

    /// Waits for the turn; whether it came.
    pub async fn wait(&mut self, client: &Client, prefix: &str) -> bool {
        for _ in 0..LOOKS {
            if client.stop.is_set() || !self.lease.keep(client).await {
                return false;
            }
            if let Ok(found) = client.range(first(prefix)).await {
                match found.kvs.first() {
                    Some(kv) if kv.key == self.key => return kv.create_revision == self.token,
                    Some(kv) if kv.create_revision < self.token => {}
                    // Its own key is gone: the lease is over.
                    _ => return false,
                }
            }
            client.env.sleep(POLL).await;
        }
        false
    }

    /// Holds as long as the turn is this client's.
    pub fn fence(&self) -> Compare {
        created(self.key.clone(), self.token)
    }

    /// Records since when, and until now at most, the turn was this client's for certain.
    pub fn had(&self, client: &Client, from: Instant) {
        client.evidence.record().tenures.push(Tenure {
            workload: client.workload,
            client: client.number,
            token: self.token,
            from,
            until: client.env.now().min(self.lease.until()),
        });
    }

    /// Gives the turn up.
    pub async fn leave(self, client: &Client) {
        match client.below(4) {
            // Left to its end.
            0 => {}
            1 => drop(client.revoke(self.lease.id).await),
            _ => drop(client.delete(delete(self.key)).await),
        }
    }

    /// Writes `key` under the token, now and then for so long that the turn is lost meanwhile.
    pub async fn write(&mut self, client: &Client, key: &'static str) {
        let forgets = client.chance(1, 5);
        for _ in 0..1 + client.below(6) {
            let value = format!("{} {}", self.token, String::from_utf8_lossy(&client.value()));
            let guarded = txn(vec![self.fence()], vec![put(key, value).op()], vec![]);
            let lost = matches!(client.txn(guarded).await, Ok(answer) if !answer.succeeded);
            let over = !forgets && !self.lease.keep(client).await;
            if lost || over || client.stop.is_set() {
                return;
            }
            client.env.sleep(Duration::from_millis(client.below(800))).await;
        }
    }
}

/// The client that has its turn below `prefix`.
pub fn first(prefix: &str) -> RangeRequest {
    RangeRequest {
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        limit: 1,
        ..list(Bytes::copy_from_slice(prefix.as_bytes()))
    }
}

/// No two clients have the turn at the same time, tokens rise, and what was written under an older
/// token never follows what was written under a newer one.
pub fn examine(evidence: &Evidence, workload: &'static str, fenced: &[u8]) -> Vec<Violation> {
    let record = evidence.record();
    let slack = |tenure: &Tenure| {
        // A lease may end early by as much as a member's clock runs too fast.
        (tenure.until - tenure.from.min(tenure.until)) * record.clock_rate_ppm / 1_000_000
    };
    let mut tenures: Vec<_> =
        record.tenures.iter().filter(|tenure| tenure.workload == workload).collect();
    tenures.sort_by_key(|tenure| (tenure.from, tenure.token));
    let mut violations = Vec::new();
    for pair in tenures.windows(2) {
        let (first, second) = (pair[0], pair[1]);
        if second.from < first.until - slack(first) {
            let text = format!(
                "clients {} and {} at once, for {:?}",
                first.client,
                second.client,
                first.until.min(second.until) - second.from
            );
            let proof = Proof::Operation {
                client: second.client,
                began_us: record.at(second.from).as_micros() as u64,
            };
            let violation = Violation::new(workload, "one at a time", text);
            violations.push(violation.proved_by(proof));
        }
        if second.token <= first.token {
            let text = format!("{} after {}", second.token, first.token);
            violations.push(Violation::new(workload, "tokens rise", text));
        }
    }
    let mut newest = 0;
    for (revision, events) in &record.log {
        let written = events.iter().filter_map(|event| event.kv.as_ref());
        for kv in written.filter(|kv| kv.key == fenced && !kv.value.is_empty()) {
            let token = token_of(&kv.value);
            if token < newest {
                let text = format!("revision {revision} writes under {token} after {newest}");
                violations.push(Violation::new(workload, "old tokens are fenced off", text));
            }
            newest = newest.max(token);
        }
    }
    violations
}

fn token_of(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0)
}
