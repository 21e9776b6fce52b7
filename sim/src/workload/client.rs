//! What a workload works with: a client of the cluster that records every call and adds it to
//! the story, and dice of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use madsim::rand::RngCore;
use quorate::client::Channel;
use quorate::env::Env;
use quorate_proto::etcdserverpb::kv_client::KvClient;
use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, TxnRequest, TxnResponse,
};
use tonic::{Code, Response, Status};

use super::gzip::Gzip;
use super::json::Json;
use super::outside::Outside;
use super::stop::Stop;
use crate::cluster::Cluster;
use crate::dice::Dice;
use crate::facts::addresses::proxy_number;
use crate::facts::evidence::Evidence;
use crate::facts::history::{Answer, Call, Failure, Operation};
use crate::facts::shape::Speaks;
use crate::facts::story::{Outcome, Story, What};
use crate::facts::verdict::Violation;

/// A call that has not been answered by then is given up.
const PATIENCE: Duration = Duration::from_secs(4);
/// What a client does after a call that failed.
const BACK_OFF_MS: u64 = 100;
/// Pauses are as much longer. An answer costs a run more than the time between two: with fewer a run is
/// over sooner, and an hour meets more faults.
const PACE: u32 = 2;

/// A client: cheap to clone, clones are the same client.
#[derive(Clone)]
pub struct Client {
    /// Its number, unlike any other client's of the run.
    pub number: usize,
    /// The workload it is busy with.
    pub workload: &'static str,
    pub env: Env,
    /// To one member, or to any that answers.
    pub channel: Channel,
    pub cluster: Cluster,
    /// What all clients did so far; add to it.
    pub evidence: Evidence,
    pub story: Story,
    pub stop: Stop,
    /// After which a call is given up.
    patience: Duration,
    /// Streams and what is not in [`super::json`] go over gRPC all the same.
    speaks: Speaks,
    own: Arc<Mutex<Own>>,
}

/// What clones of a client share.
struct Own {
    dice: Dice,
    serial: u64,
}

/// What a client is made of beside its number and its dice.
#[derive(Clone)]
pub struct Surroundings {
    pub env: Env,
    pub channel: Channel,
    pub cluster: Cluster,
    pub evidence: Evidence,
    pub story: Story,
    pub stop: Stop,
}

/// Calls, waits, records.
macro_rules! call {
    ($self:ident, $service:ident, $method:ident, $kind:ident, $request:expr) => {{
        let request = $request;
        let asked = PendingCall::new($self, Call::$kind(request.clone(), Err(Failure::silence())));
        let answer = match $self.speaks {
            Speaks::Plain => {
                let service = $service::new($self.channel.clone());
                let mut service = service.max_decoding_message_size(usize::MAX);
                $self.answer(service.$method(request.clone())).await
            }
            Speaks::Json => {
                let service = $service::new($self.json());
                let mut service = service.max_decoding_message_size(usize::MAX);
                $self.answer(service.$method(request.clone())).await
            }
            Speaks::Gzip => {
                let service = $service::new(Gzip($self.channel.clone()));
                let mut service = service.max_decoding_message_size(usize::MAX);
                $self.answer(service.$method(request.clone())).await
            }
        };
        asked.answered(Call::$kind(request, answer.clone()));
        answer
    }};
}

impl Client {
    pub fn new(
        number: usize,
        workload: &'static str,
        dice: Dice,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings { env, channel, cluster, evidence, story, stop } = surroundings;
        let own = Arc::new(Mutex::new(Own { dice, serial: 0 }));
        Self {
            number,
            workload,
            env,
            channel,
            cluster,
            evidence,
            story,
            stop,
            patience: PATIENCE,
            speaks: Speaks::Plain,
            own,
        }
    }

    /// The same client, which waits so long for an answer.
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same client, which writes its calls in another way.
    pub fn speaking(self, speaks: Speaks) -> Self {
        Self { speaks, ..self }
    }

    pub fn speaks(&self) -> Speaks {
        self.speaks
    }

    fn json(&self) -> Json {
        Json { env: self.env.clone(), channel: self.channel.clone(), cluster: self.cluster.clone() }
    }
}

/// Calls.
impl Client {
    pub async fn range(&self, request: RangeRequest) -> Answer<RangeResponse> {
        call!(self, KvClient, range, Range, request)
    }

    /// The same as a stream; the answer is what its chunks come to.
    pub async fn range_stream(&self, request: RangeRequest) -> Answer<RangeResponse> {
        let mut asked =
            PendingCall::new(self, Call::Range(request.clone(), Err(Failure::silence())));
        asked.streamed = true;
        let service = KvClient::new(self.channel.clone());
        let mut service = service.max_decoding_message_size(usize::MAX);
        let chunks = async {
            let mut chunks = service.range_stream(request.clone()).await?.into_inner();
            let mut kvs = Vec::new();
            while let Some(chunk) = chunks.message().await? {
                let chunk = chunk.range_response.unwrap_or_default();
                kvs.extend(chunk.kvs.iter().cloned());
                if chunk.header.is_some() {
                    let behind = chunks.message().await?;
                    self.expect(behind.is_none(), || format!("a chunk after the last: {behind:?}"));
                    return Ok(Response::new(RangeResponse { kvs, ..chunk }));
                }
                let told = chunk.more || chunk.count != 0 || chunk.kvs.is_empty();
                self.expect(!told, || format!("not the last chunk: {chunk:?}"));
            }
            Err(Status::unavailable("the stream ended without a last chunk"))
        };
        let answer = self.answer(chunks).await;
        asked.answered(Call::Range(request, answer.clone()));
        answer
    }

    fn expect(&self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.complain("the last chunk of a stream has the header, and only that", text());
        }
    }

    pub async fn put(&self, request: PutRequest) -> Answer<PutResponse> {
        call!(self, KvClient, put, Put, request)
    }

    pub async fn delete(&self, request: DeleteRangeRequest) -> Answer<DeleteRangeResponse> {
        call!(self, KvClient, delete_range, Delete, request)
    }

    pub async fn txn(&self, request: TxnRequest) -> Answer<TxnResponse> {
        call!(self, KvClient, txn, Txn, request)
    }

    pub async fn compact(&self, request: CompactionRequest) -> Answer<CompactionResponse> {
        call!(self, KvClient, compact, Compact, request)
    }

    pub async fn grant(&self, request: LeaseGrantRequest) -> Answer<LeaseGrantResponse> {
        call!(self, LeaseClient, lease_grant, Grant, request)
    }

    pub async fn revoke(&self, id: i64) -> Answer<LeaseRevokeResponse> {
        call!(self, LeaseClient, lease_revoke, Revoke, LeaseRevokeRequest { id })
    }

    pub async fn time_to_live(&self, id: i64, keys: bool) -> Answer<LeaseTimeToLiveResponse> {
        let request = LeaseTimeToLiveRequest { id, keys };
        call!(self, LeaseClient, lease_time_to_live, TimeToLive, request)
    }

    pub async fn leases(&self) -> Answer<LeaseLeasesResponse> {
        call!(self, LeaseClient, lease_leases, Leases, LeaseLeasesRequest {})
    }

    /// One renewal, on a stream of its own.
    pub async fn keep_alive(&self, id: i64) -> Answer<LeaseKeepAliveResponse> {
        let request = LeaseKeepAliveRequest { id };
        let asked = PendingCall::new(self, Call::KeepAlive(request, Err(Failure::silence())));
        let mut service = LeaseClient::new(self.channel.clone());
        let renewal = async {
            let mut answers = service.lease_keep_alive(stream::iter([request])).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(Response::new).ok_or_else(|| Status::unavailable("the stream ended"))
        };
        let answer = self.answer(renewal).await;
        asked.answered(Call::KeepAlive(request, answer.clone()));
        answer
    }

    /// What a member may do from now on in this client's name, as part of another call.
    pub fn implied(&self, call: Call) -> PendingCall<'_> {
        PendingCall::new(self, call)
    }

    async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Answer<T> {
        match self.env.timeout(self.patience, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::new(&status)),
            Err(_) => Err(Failure::silence()),
        }
    }

    fn record(&self, began: Instant, ended: Instant, mut call: Call, streamed: bool) {
        if let Some(outside) = self.outside() {
            outside.call(&mut call);
        }
        let mut record = self.evidence.record();
        let (since, until) = (record.at(began), record.at(ended));
        let operation = Operation {
            client: self.number,
            workload: self.workload,
            began,
            ended,
            began_us: since.as_micros() as u64,
            call,
            streamed,
            proxy: self.proxy(),
        };
        let told = What::Operation {
            client: self.number,
            began: since,
            workload: self.workload.to_owned(),
            call: operation.call.to_string(),
            outcome: outcome(&operation),
        };
        record.operations.push(operation);
        drop(record);
        self.story.note(until, told);
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serial(&self) -> u64 {
        let mut own = self.own();
        own.serial += 1;
        own.serial
    }
}

/// Choices, names and pauses.
impl Client {
    /// The same client on another channel.
    pub fn on(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }

    /// The proxy that it is behind.
    pub fn proxy(&self) -> Option<usize> {
        proxy_number(&self.channel.endpoint())
    }

    /// Where keys have other names than for this client.
    pub fn outside(&self) -> Option<Outside<'_>> {
        let namespace = &self.cluster.shape().proxies.namespace;
        self.proxy().filter(|_| !namespace.is_empty()).map(|_| Outside(namespace.as_bytes()))
    }

    /// The same client on one member, the `n`-th of those there are; behind a proxy it stays there.
    pub fn on_member(&self, n: u64) -> Self {
        if self.proxy().is_some() {
            return self.clone();
        }
        let names = self.cluster.voters();
        let name = &names[n as usize % names.len()];
        self.on(self.cluster.channel(&self.env, Some(name)))
    }

    /// A value that no other call writes.
    pub fn value(&self) -> Bytes {
        Bytes::from(format!("c{}-{}", self.number, self.serial()))
    }

    /// A number that no other client has, and this one only once.
    pub fn unique(&self) -> i64 {
        (self.number as i64 + 1) * 1_000_000 + self.serial() as i64
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&self, bound: u64) -> u64 {
        self.own().dice.below(bound)
    }

    /// Any number.
    pub fn roll(&self) -> u64 {
        self.own().dice.next_u64()
    }

    /// True `share` times of `of`.
    pub fn chance(&self, share: u64, of: u64) -> bool {
        self.below(of) < share
    }

    /// Waits a little: less than `most`, in milliseconds, at this client's pace.
    pub async fn pause(&self, most: u64) {
        let pause = Duration::from_millis(self.below(most.max(1)));
        self.env.sleep(pause * PACE).await;
    }

    /// Waits after a step: longer when it failed, so that a member that is down is not pestered.
    pub async fn rest<T>(&self, answer: &Answer<T>, most: u64) {
        match answer {
            Err(failure) if failure.code != Code::InvalidArgument => {
                self.env.sleep(Duration::from_millis(BACK_OFF_MS)).await;
            }
            _ => self.pause(most).await,
        }
    }

    /// Remembers something that must not be.
    pub fn complain(&self, property: &'static str, text: String) {
        let violation = Violation::new(self.workload, property, text);
        self.evidence.record().violations.push(violation);
    }
}

/// A call under way. One that is dropped before it is answered, as its client is, may have happened.
pub struct PendingCall<'a> {
    client: &'a Client,
    began: Instant,
    /// Without an answer.
    call: Option<Call>,
    streamed: bool,
}

impl<'a> PendingCall<'a> {
    fn new(client: &'a Client, call: Call) -> Self {
        Self { client, began: client.env.now(), call: Some(call), streamed: false }
    }

    fn answered(mut self, call: Call) {
        self.call = None;
        self.client.record(self.began, self.client.env.now(), call, self.streamed);
    }

    /// Its outcome is not known.
    pub fn unanswered(mut self) {
        if let Some(call) = self.call.take() {
            self.answered(call);
        }
    }

    /// It did not come to that.
    pub fn dropped(mut self) {
        self.call = None;
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            // There may be no clock any more.
            self.client.record(self.began, self.began + self.client.patience, call, self.streamed);
        }
    }
}

fn outcome(operation: &Operation) -> Outcome {
    match operation.failure() {
        None => Outcome::Answered { revision: operation.revision().unwrap_or(0) },
        Some(failure) if failure.never => Outcome::Refused { text: failure.text.clone() },
        Some(failure) => Outcome::Unknown { text: failure.text.clone() },
    }
}
