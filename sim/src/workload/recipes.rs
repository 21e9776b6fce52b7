//! Locks and elections as the members' own services give them: the call waits at a member, which may die
//! over it, while the caller's lease may end. What the service does in the caller's name stands on
//! record as calls whose outcome is not known.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{CampaignRequest, LeaderKey, ResignRequest};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, UnlockRequest};

use super::queue::{Lease, Place, examine, first};
use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::history::{Call, Failure};
use crate::facts::request::{Op, created, delete, put, txn};
use crate::facts::verdict::Violation;

/// Longer than leases last, so that some end while their holders wait.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at a lease.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone, Copy)]
pub enum Recipe {
    Lock,
    Election,
}

/// What was answered.
enum Given {
    /// The lock's key is there at this revision, and none is older.
    At(i64),
    /// The token of the leader.
    Leader(i64),
}

impl Workload for Recipe {
    fn name(&self) -> &'static str {
        match self {
            Self::Lock => "lock-service",
            Self::Election => "election-service",
        }
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            if let Some(mut place) = self.queue(client).await {
                if place.lease.sure(client) {
                    let from = client.env.now();
                    place.write(client, self.guarded()).await;
                    place.had(client, from);
                }
                self.leave(client, place).await;
            }
            client.pause(300).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        examine(evidence, self.name(), self.guarded().as_bytes())
    }
}

impl Recipe {
    fn prefix(self) -> String {
        format!("{}/", self.name())
    }

    /// What is written by turns.
    fn guarded(self) -> &'static str {
        match self {
            Self::Lock => "guarded/lock-service",
            Self::Election => "guarded/election-service",
        }
    }

    /// Waits for a turn, with a lease that is kept alive meanwhile or not.
    async fn queue(self, client: &Client) -> Option<Place> {
        let mut lease = Lease::new(client).await?;
        let key = Bytes::from(format!("{}{:x}", self.prefix(), lease.id));
        let value = match self {
            Self::Lock => Bytes::new(),
            Self::Election => client.value(),
        };
        let own = PutRequest { lease: lease.id, ..put(key.clone(), value.clone()) };
        let queues = txn(vec![created(key.clone(), 0)], vec![own.op()], vec![]);
        let queues = client.implied(Call::Txn(queues, Err(Failure::silence())));
        let withdraws = client.implied(Call::Delete(delete(key.clone()), Err(Failure::silence())));
        let careless = client.chance(1, 3);
        let given = {
            let asked = pin!(client.env.timeout(PATIENCE, self.ask(client, lease.id, value)));
            let kept = pin!(async {
                while careless || lease.keep(client).await {
                    client.env.sleep(LOOK).await;
                }
            });
            match select(asked, kept).await {
                Either::Left((given, _)) => given.ok().flatten(),
                Either::Right(((), _)) => None,
            }
        };
        queues.unanswered();
        let Some(given) = given else {
            withdraws.unanswered();
            return None;
        };
        withdraws.dropped();
        let token = match given {
            Given::Leader(token) => token,
            Given::At(revision) => self.token(client, &key, revision).await?,
        };
        Some(Place { key, lease, token })
    }

    async fn ask(self, client: &Client, lease: i64, value: Bytes) -> Option<Given> {
        let (channel, name) = (client.channel.clone(), self.name().into());
        match self {
            Self::Lock => {
                let request = LockRequest { name, lease };
                let answer = LockClient::new(channel).lock(request).await.ok()?;
                Some(Given::At(answer.into_inner().header?.revision))
            }
            Self::Election => {
                let request = CampaignRequest { name, lease, value };
                let answer = ElectionClient::new(channel).campaign(request).await.ok()?;
                Some(Given::Leader(answer.into_inner().leader?.rev))
            }
        }
    }

    /// Since when the lock's key is there: a lock that is given is held at the revision of the answer.
    /// `None` when that cannot be seen any more.
    async fn token(self, client: &Client, key: &Bytes, revision: i64) -> Option<i64> {
        let then = RangeRequest { revision, ..first(&self.prefix()) };
        let found = client.range(then).await.ok()?;
        match found.kvs.first() {
            Some(kv) if kv.key == *key => Some(kv.create_revision),
            other => {
                let holder = other.map(|kv| String::from_utf8_lossy(&kv.key));
                let own = String::from_utf8_lossy(key);
                let text = format!("granted to {own} at revision {revision}, held by {holder:?}");
                client.complain("a granted lock is held", text);
                None
            }
        }
    }

    /// Gives the turn up, by the service's own call or without it.
    async fn leave(self, client: &Client, place: Place) {
        if client.chance(1, 3) {
            return place.leave(client).await;
        }
        let Place { key, lease, token: rev } = place;
        let leaves = client.implied(Call::Delete(delete(key.clone()), Err(Failure::silence())));
        let channel = client.channel.clone();
        let call = async {
            match self {
                Self::Lock => {
                    let request = UnlockRequest { key };
                    LockClient::new(channel).unlock(request).await.map(drop)
                }
                Self::Election => {
                    let leader = LeaderKey { name: self.name().into(), key, rev, lease: lease.id };
                    let request = ResignRequest { leader: Some(leader) };
                    ElectionClient::new(channel).resign(request).await.map(drop)
                }
            }
        };
        let _ = client.env.timeout(PATIENCE, call).await;
        leaves.unanswered();
    }
}
