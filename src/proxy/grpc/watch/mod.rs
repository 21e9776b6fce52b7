//! Service Watch of the proxy: watchers of the same keys share one watch of the cluster, a *broadcast*.
//! The cluster sends each event to a proxy once, however many clients watch the key.
//!
//! ```text
//!  client --- session ---.                        .--- broadcast === cluster
//!  client --- session ----+--- hub: deliveries ----+
//!  client --- session ---'                        `--- broadcast === cluster
//! ```
//!
//! Rules, etcd's but for the last two (3.7, `server/proxy/grpcproxy`):
//! * Watchers share if key, end, token and the requirement of a leader are equal.
//! * A watcher joins a broadcast that has not passed the revision it begins at; otherwise it gets one of
//!   its own, which ends as soon as it has caught up with another.
//! * Every broadcast requests previous values and progress; each watcher receives what it requested.
//! * A new watcher is answered only when its client may read the keys.
//! * A client that does not read ends its own stream and delays others for a bounded time.
//! * A broadcast is resumed after its connection is lost, unnoticed by clients.
//! * A watcher without a revision begins after the revision of that check, so that it can share as well.
//!
//! Requests for progress are not answered, as in etcd.
//!
//! Reading order: [`hub`] (sharing and deliveries; pure), [`broadcast`] (a watch of the cluster), [`session`]
//! (a client's stream).

mod broadcast;
mod hub;
mod session;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use quorate_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_server};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use self::hub::{Caller, Hub};
use self::session::Session;
use super::metrics::Counters;
use super::namespace::Namespace;
use super::upstream::Upstream;
use crate::env::Env;
use crate::limits::{PROXY_WATCH_INBOX, WATCH_ANSWERS};

/// Clones share the broadcasts.
#[derive(Clone)]
pub(super) struct Watch(Arc<Shared>);

struct Shared {
    env: Env,
    upstream: Upstream,
    namespace: Namespace,
    counters: Arc<Counters>,
    bounds: Bounds,
    hub: Mutex<Hub>,
}

/// Bounds of the queues for a slow client.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Responses of one stream before and after their conversion.
    pub inbox: usize,
    pub answers: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { inbox: PROXY_WATCH_INBOX, answers: WATCH_ANSWERS }
    }
}

impl Watch {
    pub fn new(
        env: Env,
        upstream: Upstream,
        namespace: Namespace,
        counters: Arc<Counters>,
        bounds: Bounds,
    ) -> Self {
        let hub = Mutex::default();
        Self(Arc::new(Shared { env, upstream, namespace, counters, bounds, hub }))
    }

    /// Returns the number of watchers without a watch of their own.
    pub fn sharing(&self) -> usize {
        self.0.hub().sharing()
    }
}

impl Shared {
    /// No code panics while the lock is held.
    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the connection with the credentials of a caller.
    fn upstream(&self, caller: &Caller) -> Upstream {
        let mut upstream = self.upstream.clone();
        for (name, value) in [("token", &caller.token), ("authorization", &caller.authorization)] {
            let value = value.as_ref().and_then(|value| HeaderValue::from_bytes(value).ok());
            if let Some(value) = value {
                upstream = upstream.with_header(name, value);
            }
        }
        match caller.needs_leader {
            true => upstream.with_header("hasleader", HeaderValue::from_static("true")),
            false => upstream,
        }
    }
}

impl Caller {
    fn of(metadata: &MetadataMap) -> Self {
        let value = |name| metadata.get(name).map(|value| value.as_encoded_bytes().to_vec());
        Self {
            token: value("token"),
            authorization: value("authorization"),
            needs_leader: crate::grpc::gate::needs_leader(metadata),
        }
    }
}

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (metadata, _, requests) = request.into_parts();
        let (answers, stream) = mpsc::channel(self.0.bounds.answers);
        let session = Session::new(self.0.clone(), Caller::of(&metadata), answers);
        self.0.env.spawn("proxy watch session", session.run(requests));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
