//! `lock` and `elect`, by the keys that etcd's client library uses: under the name's prefix, a key that
//! is bound to the session's lease; the oldest one holds the lock or leads.

use std::time::Duration;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    compare::{CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op::Request,
    response_op::Response,
    watch_request::RequestUnion,
};
use quorate_proto::mvccpb::{KeyValue, event::EventType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{lease, prefix_end};
use crate::client::Client;
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed, may_reconnect, text};
use crate::ctl::log;
use crate::ctl::shell::{Ended, not_started};
use crate::env::Env;
use crate::tool::exit::Exit;

/// etcd's default for a session.
const SESSION_TTL_S: i64 = 60;
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// A lease that is kept alive, and the client that it belongs to.
struct Session {
    env: Env,
    cluster: Cluster,
    lease: i64,
    /// Resolves when the lease has ended.
    ended: mpsc::Receiver<()>,
}

impl Session {
    async fn open(context: &Context, ttl: i64) -> Result<Self, Exit> {
        let cluster = context.cluster().await?;
        let request = LeaseGrantRequest { id: 0, ttl };
        let call = async |client: Client| client.lease().lease_grant(request).await;
        let granted = cluster.call_unlimited(call).await?;
        let (alive, ended) = mpsc::channel(1);
        let (env, keeper, lease) = (context.env.clone(), cluster.clone(), granted.id);
        drop(context.env.spawn("session", async move {
            let _alive = alive;
            let ttl = lease::time_to_live(granted.ttl);
            // Failures end nothing but the lease.
            let _ = lease::keep(&env, &keeper.client, lease, ttl, |_| Ok(())).await;
        }));
        Ok(Self { env: context.env.clone(), cluster, lease, ended })
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failed> {
        self.cluster
            .call_unlimited(async |client: Client| client.kv().txn(request.clone()).await)
            .await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failed> {
        self.cluster
            .call_unlimited(async |client: Client| client.kv().range(request.clone()).await)
            .await
    }

    async fn get(&self, key: &[u8]) -> Result<RangeResponse, Failed> {
        let key = Bytes::copy_from_slice(key);
        self.range(RangeRequest { key, ..RangeRequest::default() }).await
    }

    /// Puts this session's key below `prefix`, unless it is there.
    async fn enter(&self, prefix: &str, value: &str) -> Result<Place, Failed> {
        let key = Bytes::from(format!("{prefix}{:x}", self.lease));
        let put = PutRequest {
            key: key.clone(),
            value: value.to_owned().into(),
            lease: self.lease,
            ..PutRequest::default()
        };
        let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let response = self
            .txn(TxnRequest {
                compare: vec![created_at(&key, 0)],
                success: vec![op(Request::RequestPut(put))],
                failure: vec![op(Request::RequestRange(get))],
            })
            .await?;
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        let found = response.responses.iter().find_map(|op| match &op.response {
            Some(Response::ResponseRange(range)) => range.kvs.first(),
            _ => None,
        });
        Ok(Place { key, created: found.map_or(revision, |kv| kv.create_revision) })
    }

    /// Waits until no key below `prefix` is older than `place`.
    async fn wait_for_older(&self, prefix: &str, place: &Place) -> Result<(), Failed> {
        loop {
            let request = RangeRequest {
                key: prefix.to_owned().into(),
                range_end: prefix_end(prefix.as_bytes()).into(),
                limit: 1,
                sort_order: SortOrder::Descend as i32,
                sort_target: SortTarget::Create as i32,
                max_create_revision: place.created - 1,
                ..RangeRequest::default()
            };
            let response = self.range(request).await?;
            let Some(older) = response.kvs.first() else { return Ok(()) };
            let revision = response.header.as_ref().map_or(0, |header| header.revision);
            self.wait_for_deletion(&older.key, revision).await?;
        }
    }

    async fn wait_for_deletion(&self, key: &Bytes, revision: i64) -> Result<(), Failed> {
        let mut events = Events::new(self, key.clone(), Bytes::new(), revision);
        while let Some((kind, _)) = events.next().await? {
            if kind == EventType::Delete {
                break;
            }
        }
        Ok(())
    }

    /// Deletes this session's key if it is still its own.
    async fn leave(&self, place: &Place) -> Result<(), Failed> {
        let delete = DeleteRangeRequest { key: place.key.clone(), ..DeleteRangeRequest::default() };
        self.txn(TxnRequest {
            compare: vec![created_at(&place.key, place.created)],
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        })
        .await?;
        Ok(())
    }

    /// Ends the lease, and with it every key of the session.
    async fn close(&self) -> Result<(), Failed> {
        let request = LeaseRevokeRequest { id: self.lease };
        let call = async |client: Client| client.lease().lease_revoke(request).await;
        self.cluster.call(call).await.map(drop)
    }
}

/// The key of a session below a name, and the revision that created it.
struct Place {
    key: Bytes,
    created: i64,
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

/// Events of a range of keys from a revision on, whichever member serves them.
struct Events<'a> {
    session: &'a Session,
    create: WatchCreateRequest,
    open: Option<Open>,
    ready: std::collections::VecDeque<(EventType, KeyValue)>,
}

struct Open {
    responses: crate::client::Streaming<quorate_proto::etcdserverpb::WatchResponse>,
    /// The stream lasts as long as its requests may come.
    _requests: mpsc::Sender<WatchRequest>,
}

impl<'a> Events<'a> {
    fn new(session: &'a Session, key: Bytes, range_end: Bytes, start_revision: i64) -> Self {
        let create =
            WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        Self { session, create, open: None, ready: Default::default() }
    }

    /// The next event; `None` when the server has canceled the watch.
    async fn next(&mut self) -> Result<Option<(EventType, KeyValue)>, Failed> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let response = match self.response().await {
                Ok(Some(response)) => response,
                Ok(None) => {
                    self.open = None;
                    self.session.env.sleep(RECONNECT_PAUSE).await;
                    continue;
                }
                Err(status) if may_reconnect(&status) => {
                    self.open = None;
                    self.session.env.sleep(RECONNECT_PAUSE).await;
                    continue;
                }
                Err(status) => return Err(Failed { text: text(&status) }),
            };
            if response.canceled {
                return Ok(None);
            }
            for event in response.events {
                let (kind, kv) = (event.r#type(), event.kv.unwrap_or_default());
                self.create.start_revision = kv.mod_revision + 1;
                self.ready.push_back((kind, kv));
            }
        }
    }

    async fn response(
        &mut self,
    ) -> Result<Option<quorate_proto::etcdserverpb::WatchResponse>, crate::client::Status> {
        if self.open.is_none() {
            let (requests, stream) = mpsc::channel(1);
            let create = RequestUnion::CreateRequest(self.create.clone());
            let first = WatchRequest { request_union: Some(create) };
            requests.try_send(first).expect("the queue is empty");
            let mut client = self.session.cluster.client.watch();
            let responses = client.watch(ReceiverStream::new(stream)).await?.into_inner();
            self.open = Some(Open { responses, _requests: requests });
        }
        let open = self.open.as_mut().expect("it was opened above");
        open.responses.message().await
    }
}

pub async fn lock(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let Some((name, program)) = words.split_first() else {
        let why = "lock takes a lock name argument and an optional command to execute";
        return Err(Exit::arguments(why));
    };
    let ttl = match context.arguments.int("ttl") {
        ttl if ttl > 0 => ttl,
        _ => {
            let message = "WithTTL(): TTL should be > 0, preserving current TTL";
            let current = ("current-session-ttl", SESSION_TTL_S.into());
            context.warn(Some(log::LOGGER), message, &[current]);
            SESSION_TTL_S
        }
    };
    let mut session = Session::open(context, ttl).await?;
    let interrupted = context.shell.interrupted();
    let prefix = format!("{name}/");
    let place = session.enter(&prefix, "").await?;
    let held = tokio::select! {
        biased; // A lock that is held counts before the signal that interrupts the wait for it.
        held = session.wait_for_older(&prefix, &place) => held,
        () = context.shell.interrupted() => Err(Failed { text: "context canceled".into() }),
    };
    if let Err(failed) = held {
        release(&session, &place).await;
        return Err(failed.into());
    }
    let owned = session.get(&place.key).await?;
    if owned.kvs.is_empty() {
        return Err(Exit::error("mutex: session is expired"));
    }
    if !program.is_empty() {
        let revision = owned.header.as_ref().map_or(0, |header| header.revision);
        let key = String::from_utf8_lossy(&place.key).into_owned();
        let variables =
            [("ETCD_LOCK_KEY".to_owned(), key), ("ETCD_LOCK_REV".to_owned(), revision.to_string())];
        let ended = context.shell.run(program, &variables).await;
        release(&session, &place).await;
        return match ended {
            Ok(Ended::Exited(0)) => Ok(()),
            Ok(ended) => {
                let code = match ended {
                    Ended::Exited(code) => u8::try_from(code).unwrap_or(Exit::ERROR),
                    Ended::Signaled { .. } => u8::MAX,
                };
                Err(Exit::new(code, ended.to_string()))
            }
            Err(error) => Err(Exit::error(not_started(&program[0], &error))),
        };
    }
    context.printer.get(&owned)?;
    tokio::select! {
        biased; // An ordinary end releases the lock even when the lease ends at the same moment.
        () = interrupted => {
            release(&session, &place).await;
            Ok(())
        }
        _ = session.ended.recv() => Err(Exit::error("session expired")),
    }
}

/// Deletes the key and ends the lease, so that the next session need not wait for it to expire.
async fn release(session: &Session, place: &Place) {
    // Both end with the lease when the cluster cannot be reached.
    let _ = session.leave(place).await;
    let _ = session.close().await;
}

pub async fn elect(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let listen = context.arguments.bool("listen");
    match (&words[..], listen) {
        ([name], true) => observe(context, name).await,
        ([_], false) => Err(Exit::arguments("no proposal argument but -l not set")),
        ([name, proposal], false) => campaign(context, name, proposal).await,
        ([_, _], true) => Err(Exit::arguments("proposal given but -l is set")),
        _ => {
            let why = "elect takes one election name argument and an optional proposal argument";
            Err(Exit::arguments(why))
        }
    }
}

async fn campaign(context: &Context, name: &str, proposal: &str) -> Result<(), Exit> {
    let mut session = Session::open(context, SESSION_TTL_S).await?;
    let interrupted = context.shell.interrupted();
    let prefix = format!("{name}/");
    let place = session.enter(&prefix, proposal).await?;
    let elected = tokio::select! {
        biased; // A campaign that was won counts before the signal that interrupts it.
        elected = session.wait_for_older(&prefix, &place) => elected,
        () = context.shell.interrupted() => Err(Failed { text: "context canceled".into() }),
    };
    if let Err(failed) = elected {
        release(&session, &place).await;
        return Err(failed.into());
    }
    context.printer.get(&session.get(&place.key).await?)?;
    tokio::select! {
        biased; // An ordinary end resigns even when the lease ends at the same moment.
        () = interrupted => {
            release(&session, &place).await;
            Ok(())
        }
        _ = session.ended.recv() => Err(Exit::error("elect: session expired")),
    }
}

/// Prints the leader, and each later one.
async fn observe(context: &Context, name: &str) -> Result<(), Exit> {
    let session = Session::open(context, SESSION_TTL_S).await?;
    let interrupted = context.shell.interrupted();
    let prefix = format!("{name}/");
    let observed = tokio::select! {
        biased; // Leaders are printed before the observer ends.
        observed = leaders(context, &session, &prefix) => observed,
        () = interrupted => Ok(()),
    };
    let _ = session.close().await;
    observed
}

async fn leaders(context: &Context, session: &Session, prefix: &str) -> Result<(), Exit> {
    let (key, range_end) =
        (Bytes::from(prefix.to_owned()), Bytes::from(prefix_end(prefix.as_bytes())));
    loop {
        let request = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit: 1,
            sort_order: SortOrder::Ascend as i32,
            sort_target: SortTarget::Create as i32,
            ..RangeRequest::default()
        };
        let mut response = session.range(request).await?;
        let next = response.header.as_ref().map_or(0, |header| header.revision) + 1;
        let leader = match response.kvs.first() {
            Some(leader) => leader.clone(),
            None => {
                let mut events = Events::new(session, key.clone(), range_end.clone(), next);
                loop {
                    match events.next().await? {
                        Some((EventType::Put, kv)) => break kv,
                        Some(_) => {}
                        None => return Err(Exit::error("elect: observer lost")),
                    }
                }
            }
        };
        response.kvs = vec![leader.clone()];
        response.count = 1;
        context.printer.get(&response)?;
        // New values of the same leader are printed; its key's end makes the next one due.
        let mut events = Events::new(session, leader.key, Bytes::new(), next);
        loop {
            match events.next().await? {
                Some((EventType::Put, kv)) => {
                    response.kvs = vec![kv];
                    context.printer.get(&response)?;
                }
                Some((EventType::Delete, _)) => break,
                None => return Err(Exit::error("elect: observer lost")),
            }
        }
    }
}
