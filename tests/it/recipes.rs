//! The services Lock and Election, call by call, of a real etcd and of ours: the same keys, revisions,
//! codes and texts.

use std::fmt::Write as _;
use std::time::Duration;

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest, ResponseHeader};
use quorate_proto::v3electionpb::election_client::ElectionClient;
use quorate_proto::v3electionpb::{
    CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest,
};
use quorate_proto::v3lockpb::lock_client::LockClient;
use quorate_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use tokio::task::JoinHandle;
use tonic::{Response, Status};

use super::client::{Channel, Client, origin};
use super::crash::runtime;
use super::process::{Kind, Server, etcd_program, scratch};

/// Long enough for a call that waits for nothing.
const AT_ONCE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn locks_are_etcds() {
    assert_same(|story| Box::pin(locks(story)));
}

#[test]
fn elections_are_etcds() {
    assert_same(|story| Box::pin(elections(story)));
}

type Telling<'a> = std::pin::Pin<Box<dyn Future<Output = ()> + 'a>>;

fn assert_same(tell: impl for<'a> Fn(&'a mut Story) -> Telling<'a>) {
    let reference = etcd_program();
    let tell = |kind: Kind| {
        runtime().block_on(async {
            let dir = scratch();
            let mut server = Server::single(kind, dir.path(), &[]);
            server.start();
            let mut story = Story::begin(&server).await;
            tell(&mut story).await;
            story.text
        })
    };
    let expected = tell(Kind::Etcd(reference));
    assert!(!expected.is_empty());
    assert_eq!(tell(Kind::subject()), expected);
}

async fn locks(story: &mut Story) {
    for lease in 0x1001..=0x1004 {
        story.grant(lease).await;
    }
    story.lock("taken at once", 0x1001).await;
    story.lock("taken again by its holder", 0x1001).await;
    story.lock("no such lease", 0x99).await;
    let second = story.wait_for_lock(0x1002).await;
    let third = story.wait_for_lock(0x1003).await;
    let fourth = story.wait_for_lock(0x1004).await;
    story.revoke(0x1003).await;
    story.unlock("the holder", "l/1001").await;
    story.tell_lock("the second gets it", second).await;
    story.unlock("the second", "l/1002").await;
    story.tell_lock("the third's lease has ended", third).await;
    story.tell_lock("the fourth gets it", fourth).await;
    story.unlock("nobody", "l/none").await;
    story.unlock("nothing", "").await;
    let gives_up = story.wait_for_lock(0x1001).await;
    gives_up.abort();
    let _ = gives_up.await;
    story.until_left("l/", 1).await;
}

async fn elections(story: &mut Story) {
    for lease in 0x1001..=0x1002 {
        story.grant(lease).await;
    }
    let of = |name: &'static str| LeaderRequest { name: name.into() };
    let stands = |lease, value: &'static str| CampaignRequest {
        name: "e".into(),
        lease,
        value: value.into(),
    };
    let nobody = story.election.clone().leader(of("e")).await;
    story.tell("nobody leads", nobody, |answer| format!("{:?}", answer.kv));
    let won = story.election.clone().campaign(stands(0x1001, "one")).await;
    let leader = won.as_ref().ok().and_then(|won| won.get_ref().leader.clone());
    story.tell("elected", won, |won| header_and(won.header, won.leader));
    let again = story.election.clone().campaign(stands(0x1001, "uno")).await;
    story.tell("elected again", again, |won| header_and(won.header, won.leader));
    let led = story.election.clone().leader(of("e")).await;
    story.tell("leads", led, |led| header_and(led.header, led.kv));

    let mut observed =
        story.election.clone().observe(of("e")).await.expect("it opens").into_inner();
    let first = observed.message().await.expect("an answer").expect("a leader");
    story.line("observed", &header_and(first.header, first.kv));
    let mut election = story.election.clone();
    let waits = tokio::spawn(async move { election.campaign(stands(0x1002, "two")).await });
    story.until_left("e/", 2).await;
    assert!(!waits.is_finished());

    let proclaim = |leader, value: &'static str| ProclaimRequest { leader, value: value.into() };
    let said = story.election.clone().proclaim(proclaim(leader.clone(), "eins")).await;
    story.tell("proclaimed", said, |said| header_and(said.header, ()));
    let second = observed.message().await.expect("an answer").expect("a leader");
    story.line("observed", &header_and(second.header, second.kv));
    let other = leader.clone().map(|leader| LeaderKey { rev: 1, ..leader });
    let refused = story.election.clone().proclaim(proclaim(other.clone(), "zwei")).await;
    story.tell("proclaimed by another", refused, |said| header_and(said.header, ()));
    let refused = story.election.clone().proclaim(proclaim(None, "drei")).await;
    story.tell("proclaimed by nobody", refused, |said| header_and(said.header, ()));
    let refused = story.election.clone().resign(ResignRequest { leader: None }).await;
    story.tell("resigned by nobody", refused, |said| header_and(said.header, ()));
    let ignored = story.election.clone().resign(ResignRequest { leader: other }).await;
    story.tell("resigned by another", ignored, |said| header_and(said.header, ()));
    let resigned = story.election.clone().resign(ResignRequest { leader }).await;
    story.tell("resigned", resigned, |said| header_and(said.header, ()));
    let won = tokio::time::timeout(PATIENCE, waits).await.expect("its turn has come");
    story.tell("the next", won.expect("no panic"), |won| header_and(won.header, won.leader));
    let third = observed.message().await.expect("an answer").expect("a leader");
    story.line("observed", &header_and(third.header, third.kv));
}

/// What happened, line by line.
struct Story {
    text: String,
    client: Client,
    lease: LeaseClient<Channel>,
    lock: LockClient<Channel>,
    election: ElectionClient<Channel>,
}

impl Story {
    async fn begin(server: &Server) -> Self {
        let endpoint = server.endpoint();
        let channel = Channel::connect_within(&endpoint, PATIENCE).await.expect("it listens");
        let origin = origin(&endpoint);
        Self {
            text: String::new(),
            client: Client::new(&channel, &endpoint),
            lease: LeaseClient::with_origin(channel.clone(), origin.clone()),
            lock: LockClient::with_origin(channel.clone(), origin.clone()),
            election: ElectionClient::with_origin(channel, origin),
        }
    }

    async fn grant(&mut self, id: i64) {
        self.lease.lease_grant(LeaseGrantRequest { id, ttl: 60 }).await.expect("a new lease");
    }

    async fn revoke(&mut self, id: i64) {
        self.lease.lease_revoke(LeaseRevokeRequest { id }).await.expect("a lease that is there");
    }

    async fn lock(&mut self, what: &str, lease: i64) {
        let answer = self.lock.lock(LockRequest { name: "l".into(), lease }).await;
        self.tell(what, answer, told_lock);
    }

    /// A lock that others hold; it stands in the queue when this returns.
    async fn wait_for_lock(
        &mut self,
        lease: i64,
    ) -> JoinHandle<Result<Response<LockResponse>, Status>> {
        let before = self.left("l/").await;
        let mut lock = self.lock.clone();
        let waits =
            tokio::spawn(async move { lock.lock(LockRequest { name: "l".into(), lease }).await });
        self.until_left("l/", before + 1).await;
        tokio::time::sleep(AT_ONCE).await;
        assert!(!waits.is_finished(), "a lock that is held was given away");
        waits
    }

    async fn tell_lock(
        &mut self,
        what: &str,
        waits: JoinHandle<Result<Response<LockResponse>, Status>>,
    ) {
        let answer = tokio::time::timeout(PATIENCE, waits).await.expect("its turn has come");
        self.tell(what, answer.expect("no panic"), told_lock);
    }

    async fn unlock(&mut self, what: &str, key: &str) {
        let answer = self.lock.unlock(UnlockRequest { key: key.to_owned().into() }).await;
        self.tell(what, answer, |answer| header_and(answer.header, ()));
    }

    async fn left(&mut self, prefix: &str) -> i64 {
        self.client.scan(prefix.as_bytes()).await.expect("a read").count
    }

    async fn until_left(&mut self, prefix: &str, count: i64) {
        let done = async {
            while self.left(prefix).await != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.expect("as many keys as there should be");
    }

    fn tell<T>(
        &mut self,
        what: &str,
        answer: Result<Response<T>, Status>,
        show: impl FnOnce(T) -> String,
    ) {
        let text = match answer {
            Ok(answer) => show(answer.into_inner()),
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        };
        self.line(what, &text);
    }

    fn line(&mut self, what: &str, text: &str) {
        writeln!(self.text, "{what}: {text}").expect("writing to memory does not fail");
    }
}

fn told_lock(answer: LockResponse) -> String {
    header_and(answer.header, answer.key)
}

fn header_and(header: Option<ResponseHeader>, more: impl std::fmt::Debug) -> String {
    format!("at revision {:?}, {more:?}", header.map(|header| header.revision))
}
