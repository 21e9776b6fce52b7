//! Leases that are granted, hold a key, are kept alive for a while and then left to end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use quorate::client::Channel;
use quorate::env::Env;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveRequest, PutRequest};

use super::{Stop, below};
use crate::history::{Call, History, Operation};

const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(500);

/// What a client knows of one lease and its key.
#[derive(Clone, Debug)]
pub struct Held {
    pub key: Bytes,
    pub ttl: Duration,
    /// When the last renewal (or the grant) that was answered began: the server gave its full time
    /// no earlier.
    pub renewed: Instant,
    /// When the last renewal that may have reached the server ended, answered or not: it gave none
    /// later.
    pub last_try: Instant,
    /// Whether the server said that the lease was over while it was being kept alive.
    pub lost: bool,
}

#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Held>>>);

impl Ledger {
    pub fn held(&self) -> Vec<Held> {
        self.0.lock().expect("a list of leases").clone()
    }
}

/// One client, one lease after the other, until told to stop.
pub async fn run(
    env: Env,
    channel: Channel,
    client: usize,
    ledger: Ledger,
    history: History,
    stop: Stop,
) {
    let mut leases = LeaseClient::new(channel.clone());
    let mut kv = KvClient::new(channel);
    let mut serial = 0_u64;
    while !stop.is_set() {
        serial += 1;
        let key = Bytes::from(format!("lease/{client}/{serial}"));
        let ttl = 2 + below(&env, 4);
        let Some((id, mut held)) = grant(&env, &mut leases, &key, ttl as i64).await else {
            env.sleep(PAUSE).await;
            continue;
        };
        if attach(&env, &mut kv, client, key, id, &history).await {
            for _ in 0..below(&env, 6) {
                env.sleep(held.ttl / 3).await;
                keep_alive(&env, &mut leases, id, &mut held).await;
            }
            ledger.0.lock().expect("a list of leases").push(held);
        }
        env.sleep(PAUSE).await;
    }
}

async fn grant(
    env: &Env,
    leases: &mut LeaseClient<Channel>,
    key: &Bytes,
    ttl: i64,
) -> Option<(i64, Held)> {
    let renewed = env.now();
    let grant = leases.lease_grant(LeaseGrantRequest { ttl, id: 0 });
    let granted = env.timeout(PATIENCE, grant).await.ok()?.ok()?.into_inner();
    let ttl = Duration::from_secs(u64::try_from(granted.ttl).ok()?);
    let held = Held { key: key.clone(), ttl, renewed, last_try: env.now(), lost: false };
    Some((granted.id, held))
}

/// Puts a key that hangs on the lease; whether that was acknowledged.
async fn attach(
    env: &Env,
    kv: &mut KvClient<Channel>,
    client: usize,
    key: Bytes,
    lease: i64,
    history: &History,
) -> bool {
    let put = PutRequest { key: key.clone(), value: key, lease, ..Default::default() };
    let began = env.now();
    let answer = env.timeout(PATIENCE, kv.put(put.clone())).await;
    let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
    let acknowledged = answer.is_some();
    history.record(Operation { client, began, ended: env.now(), call: Call::Put(put, answer) });
    acknowledged
}

async fn keep_alive(env: &Env, leases: &mut LeaseClient<Channel>, id: i64, held: &mut Held) {
    let began = env.now();
    let requests = stream::iter([LeaseKeepAliveRequest { id }]);
    let renewal = async {
        let mut answers = leases.lease_keep_alive(requests).await.ok()?.into_inner();
        answers.message().await.ok()?
    };
    let answer = env.timeout(PATIENCE, renewal).await.ok().flatten();
    held.last_try = env.now();
    match answer {
        Some(answer) if answer.ttl > 0 => held.renewed = began,
        Some(_) => held.lost = true,
        None => {}
    }
}
