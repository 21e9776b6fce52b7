//! Writers that never stop, and the account of what they were promised. Each writer counts up a key
//! of its own, so that one number gives what must be there: at least the last acknowledged count, at
//! most the last one sent. After an error it goes on with another key: a write whose fate is unknown
//! may still happen, after later ones even.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::RangeResponse;

use super::client::{Channel, Client};

const PREFIX: &str = "load/";

/// What one writer was promised for one key.
#[derive(Clone, Default)]
struct Account {
    key: String,
    sent: u64,
    acknowledged: u64,
}

/// What all were promised.
#[derive(Default)]
struct Ledger {
    accounts: Mutex<Vec<Account>>,
    acknowledged: AtomicU64,
    /// The newest that was in an acknowledgement.
    revision: AtomicI64,
    /// The longest time that a put took, whatever its answer was.
    longest_ms: AtomicU64,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Account>> {
        self.accounts.lock().expect("no writer has panicked")
    }
}

/// The writers.
pub struct Load {
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    writers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// `writers` writers, each at one of `endpoints`, going on to the next one when it fails.
    pub fn start(writers: usize, endpoints: &[String]) -> Self {
        let (ledger, stop) = (Arc::<Ledger>::default(), Arc::<AtomicBool>::default());
        let start = |number| {
            let (ledger, stop) = (ledger.clone(), stop.clone());
            let endpoints = endpoints.to_vec();
            tokio::spawn(Writer { number, ledger, stop, endpoints }.run())
        };
        let writers = (0..writers).map(start).collect();
        Self { ledger, stop, writers }
    }

    pub fn acknowledged(&self) -> u64 {
        self.ledger.acknowledged.load(Ordering::SeqCst)
    }

    /// The longest time that a put took, whatever its answer was.
    pub fn longest_wait(&self) -> Duration {
        Duration::from_millis(self.ledger.longest_ms.load(Ordering::SeqCst))
    }

    /// Waits until `more` puts have been acknowledged from now on.
    pub async fn progress(&self, more: u64) {
        let aim = self.acknowledged() + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.acknowledged() < aim {
            assert!(Instant::now() < deadline, "no {more} puts within a minute");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What must be there from now on.
    pub fn promises(&self) -> Promises {
        let accounts = self.ledger.lock().clone();
        Promises { accounts, revision: self.ledger.revision.load(Ordering::SeqCst) }
    }

    /// Checks what a server holds, read after `promises` were made.
    pub fn check(&self, promises: &Promises, scan: &RangeResponse) -> Result<(), String> {
        let revision = scan.header.as_ref().map_or(0, |header| header.revision);
        if revision < promises.revision {
            return Err(format!("revision went back from {} to {revision}", promises.revision));
        }
        let found: HashMap<&[u8], &[u8]> =
            scan.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..])).collect();
        let now = self.ledger.lock();
        for (promised, now) in promises.accounts.iter().zip(now.iter()) {
            let (key, promised) = (&promised.key, promised.acknowledged);
            let there = found.get(key.as_bytes()).map_or(Ok(0), |value| {
                String::from_utf8_lossy(value).parse::<u64>().map_err(|e| format!("{key}: {e}"))
            })?;
            if there < promised {
                return Err(format!("{key}: {promised} was acknowledged, {there} is there"));
            }
            if there > now.sent {
                return Err(format!("{key}: {} was the last one sent, {there} is there", now.sent));
            }
        }
        Ok(())
    }

    pub async fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for writer in self.writers.drain(..) {
            writer.await.expect("a writer does not panic");
        }
    }
}

/// The state of the accounts at one moment.
pub struct Promises {
    accounts: Vec<Account>,
    pub revision: i64,
}

/// What the writers write, as one answer.
pub async fn scan(client: &mut Client) -> Result<RangeResponse, tonic::Status> {
    client.scan(PREFIX.as_bytes()).await
}

struct Writer {
    number: usize,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    endpoints: Vec<String>,
}

impl Writer {
    async fn run(self) {
        let mut at = self.number;
        while !self.stop.load(Ordering::SeqCst) {
            let endpoint = &self.endpoints[at % self.endpoints.len()];
            at += 1;
            match Channel::connect(endpoint).await {
                Ok(channel) => self.write(Client::new(&channel, endpoint)).await,
                // The server is down: not a busy loop, not a wait for anything.
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Until an error.
    async fn write(&self, mut client: Client) {
        let account = {
            let mut accounts = self.ledger.lock();
            let key = format!("{PREFIX}{}/{}", self.number, accounts.len());
            accounts.push(Account { key, ..Account::default() });
            accounts.len() - 1
        };
        let key = self.ledger.lock()[account].key.clone();
        let mut before = 0;
        for count in 1_u64.. {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.ledger.lock()[account].sent = count;
            let began = Instant::now();
            let answer = client.put(key.as_bytes(), count.to_string().as_bytes()).await;
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.ledger.longest_ms.fetch_max(took_ms, Ordering::SeqCst);
            let Ok(answer) = answer else { return };
            let revision = answer.header.map_or(0, |header| header.revision);
            assert!(revision > before, "{key}: revision {revision} was given after {before}");
            before = revision;
            self.ledger.lock()[account].acknowledged = count;
            self.ledger.revision.fetch_max(revision, Ordering::SeqCst);
            self.ledger.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
    }
}
