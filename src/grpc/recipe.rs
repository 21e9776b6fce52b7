//! The recipe of locks and elections: candidates are keys under a prefix, each attached to a lease, and
//! the key created first owns the lock. The same keys and waits as etcd's client package (3.7,
//! `client/v3/concurrency`), so that callers of the services and users of that package share a lock.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
    request_op::Request as Op,
};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

use crate::env::Abort;
use crate::error::{Error, Refused, Unavailable};
use crate::member::{Caller, Member};
use crate::plant;

/// TTL of the lease that is granted to a caller without one, seconds.
const SESSION_TTL_S: i64 = 60;

/// Returns the status of a failed inner call. etcd's services call through a client and so lose the code.
pub(super) fn inner(error: Error) -> Status {
    Status::new(Code::Unknown, error.text())
}

/// `name/`: where the candidates' keys are.
pub(super) fn prefix(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// A candidate's key: the prefix and the lease in hex.
pub(super) fn own_key(prefix: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    let mut key = BytesMut::from(prefix);
    key.put_slice(format!("{sign}{:x}", lease.unsigned_abs()).as_bytes());
    key.freeze()
}

/// The end of the range of keys that begin with `prefix`, which ends with a slash.
fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    let last = end.last_mut().expect("a prefix ends with a slash");
    *last += 1;
    end.into()
}

/// The lease to use: the caller's, or a new one.
pub(super) async fn session(member: &Member, caller: &Caller, lease: i64) -> Result<i64, Error> {
    let grant = LeaseGrantRequest { ttl: SESSION_TTL_S, id: 0 };
    match lease {
        0 => Ok(member.lease_grant(caller, grant).await?.id),
        lease => Ok(lease),
    }
}

/// The key under `prefix` that was created first.
pub(super) fn first(prefix: &Bytes) -> RangeRequest {
    sorted(prefix, SortOrder::Ascend, 0)
}

fn sorted(prefix: &Bytes, order: SortOrder, max_create_revision: i64) -> RangeRequest {
    RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        max_create_revision,
        ..RangeRequest::default()
    }
}

/// Whether `key` is the one created at `revision`; at 0: whether it is not there.
pub(super) fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

pub(super) fn get(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

pub(super) fn put(key: &Bytes, value: Bytes, lease: i64) -> PutRequest {
    PutRequest { key: key.clone(), value, lease, ..PutRequest::default() }
}

pub(super) fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Deletes `key` if it still is the one created at `revision`.
pub(super) fn delete_own(key: &Bytes, revision: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    TxnRequest {
        compare: vec![created_at(key, revision)],
        success: vec![op(Op::RequestDeleteRange(delete))],
        failure: Vec::new(),
    }
}

/// A candidate that waits for its turn. It withdraws when it is dropped before.
pub(super) struct Candidate {
    member: Member,
    caller: Caller,
    pub key: Bytes,
    /// At which its key was created.
    pub revision: i64,
    withdraws: bool,
}

impl Candidate {
    pub fn new(member: &Member, caller: &Caller, key: Bytes, revision: i64) -> Self {
        Self { member: member.clone(), caller: caller.clone(), key, revision, withdraws: true }
    }

    /// Waits until no earlier candidate is left and returns the header of the read by which this one
    /// still is in the race: its lease may have ended while it waited. `None` when it did.
    pub async fn wait(&mut self, prefix: &Bytes) -> Result<Option<ResponseHeader>, Error> {
        tokio::select! {
            biased; // The end of the server is not to be waited out.
            stopped = self.member.cut_off(false) => return Err(stopped),
            waited = earlier_gone(&self.member, &self.caller, prefix, self.revision - 1) => waited?,
        }
        let own = self.member.range(&self.caller, get(&self.key)).await?;
        let still = own.kvs.first().is_some_and(|kv| kv.create_revision == self.revision);
        let still = still || plant::LOCK_NOT_RECHECKED.is_planted();
        Ok(own.header.filter(|_| still))
    }

    /// Marks the candidate as leader, or as gone: nothing is withdrawn.
    pub fn settled(mut self) {
        self.withdraws = false;
    }
}

impl Drop for Candidate {
    fn drop(&mut self) {
        if self.withdraws {
            let (member, caller) = (self.member.clone(), self.caller.clone());
            let withdraw = delete_own(&self.key, self.revision);
            self.member.env().spawn("withdraw candidate", async move {
                // Its lease ends it otherwise.
                let _ = member.txn(&caller, withdraw).await;
            });
        }
    }
}

/// Waits until all keys under `prefix` created up to `revision` are deleted.
async fn earlier_gone(
    member: &Member,
    caller: &Caller,
    prefix: &Bytes,
    revision: i64,
) -> Result<(), Error> {
    loop {
        let earlier = sorted(prefix, SortOrder::Descend, revision);
        let earlier = member.range(caller, earlier).await?;
        let from = revision_of(&earlier);
        let Some(KeyValue { key, .. }) = earlier.kvs.into_iter().next() else { return Ok(()) };
        let mut events = Events::follow(member, caller, key, Bytes::new(), from);
        loop {
            match events.next().await {
                Ok((_, events)) if events.iter().any(is_delete) => break,
                Ok(_) => {}
                // The next read shows what was missed.
                Err(Error::Refused(Refused::Compacted)) => break,
                Err(error) => return Err(error),
            }
        }
    }
}

pub(super) fn revision_of(response: &RangeResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

pub(super) fn is_delete(event: &Event) -> bool {
    event.r#type() == EventType::Delete
}

/// The events of a key or of a range of keys, from a revision on.
pub(super) struct Events {
    responses: mpsc::Receiver<Result<crate::watch::Response, Error>>,
    session: Box<dyn Abort>,
}

impl Events {
    pub fn follow(
        member: &Member,
        caller: &Caller,
        key: Bytes,
        range_end: Bytes,
        start_revision: i64,
    ) -> Self {
        let create =
            WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let (sender, responses) = mpsc::channel(1);
        let (member_of_watch, caller) = (member.clone(), caller.clone());
        let watch = async move { member_of_watch.watch(caller, requests, sender).await };
        Self { responses, session: member.env().spawn("recipe watch", watch) }
    }

    /// Of every key under a prefix.
    pub fn follow_prefix(
        member: &Member,
        caller: &Caller,
        prefix: &Bytes,
        start_revision: i64,
    ) -> Self {
        Self::follow(member, caller, prefix.clone(), prefix_end(prefix), start_revision)
    }

    /// The next events, with the header they came with.
    pub async fn next(&mut self) -> Result<(ResponseHeader, Vec<Event>), Error> {
        loop {
            let response = self.responses.recv().await.ok_or(Unavailable::LostWatcher)??;
            let response = WatchResponse::from(response);
            if response.compact_revision > 0 {
                return Err(Refused::Compacted.into());
            }
            if response.canceled {
                return Err(Unavailable::LostWatcher.into());
            }
            if !response.events.is_empty() {
                return Ok((response.header.unwrap_or_default(), response.events));
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.session.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_etcds_client_package() {
        let prefix = prefix(b"my/lock");
        assert_eq!(&prefix[..], b"my/lock/");
        assert_eq!(&prefix_end(&prefix)[..], b"my/lock0");
        assert_eq!(&own_key(&prefix, 0x694d_8f3a)[..], b"my/lock/694d8f3a");
        assert_eq!(&own_key(&prefix, -1)[..], b"my/lock/-1");
    }
}
