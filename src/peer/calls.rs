//! Calls between members beside raft: the client side of `routes`. Turns etcd's statuses and texts back
//! into errors; the choice of the member and retries are the caller's.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    HashKvResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse, ResponseHeader,
};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use serde::Deserialize;

use super::body::Body;
use super::client::{Client, HttpAnswer, request};
use super::identity::{self, CLUSTER};
use crate::codec;
use crate::error::{Error, Refused, Unavailable};
use crate::types::{ClusterId, LeaseId, MemberId, Revision};

/// Why a call to a peer brought no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It is not known whether the peer got the request.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer's own answer.
    #[error(transparent)]
    Answered(#[from] Error),
    /// The peer belongs to another cluster.
    #[error("cluster ID mismatch")]
    OtherCluster,
    #[error("unexpected answer {0}: {1:?}")]
    Unexpected(StatusCode, String),
}

impl Client {
    /// Keeps a lease alive at the leader; its time to live in seconds.
    pub async fn renew(
        &self,
        url: &str,
        lease: LeaseId,
        limit: Duration,
    ) -> Result<i64, CallError> {
        let body = codec::encode(&LeaseKeepAliveRequest { id: lease.0 });
        let answer = self.post(url, "/leases", body, limit).await?;
        let answer = lease_answer(answer)?;
        let response = LeaseKeepAliveResponse::decode(answer.body.clone());
        match response {
            Ok(response) if response.id == lease.0 => Ok(response.ttl),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Queries the leader for the remaining time of a lease.
    pub async fn time_to_live(
        &self,
        url: &str,
        query: LeaseTimeToLiveRequest,
        limit: Duration,
    ) -> Result<LeaseTimeToLiveResponse, CallError> {
        let lease = query.id;
        let query = LeaseInternalRequest { lease_time_to_live_request: Some(query) };
        let answer = self.post(url, "/leases/internal", codec::encode(&query), limit).await?;
        let answer = lease_answer(answer)?;
        let response = LeaseInternalResponse::decode(answer.body.clone()).ok();
        let found = response.and_then(|response| response.lease_time_to_live_response);
        found.filter(|found| found.id == lease).ok_or_else(|| unexpected(&answer))
    }

    /// The members of the cluster as the peer at `url` knows them, as JSON, and whose cluster it is.
    pub async fn members(
        &self,
        url: &str,
        limit: Duration,
    ) -> Result<(ClusterId, Bytes), CallError> {
        let answer = self.get(url, "/members", limit).await?;
        let cluster = identity::header(&answer.headers, &CLUSTER).and_then(identity::parse_id);
        match cluster {
            Some(cluster) if answer.status == StatusCode::OK => {
                Ok((ClusterId(cluster.0), answer.body))
            }
            _ => Err(unexpected(&answer)),
        }
    }

    /// Whether a downgrade is under way. A peer answers this only when it has made sure that it holds
    /// all that is committed, so any answer shows that it is up to date (etcd 3.5 and later).
    pub async fn downgrade_enabled(&self, url: &str, limit: Duration) -> Result<bool, CallError> {
        let answer = self.get(url, "/downgrade/enabled", limit).await?;
        match (answer.status, answer.body.trim_ascii()) {
            (StatusCode::OK, b"true") => Ok(true),
            (StatusCode::OK, b"false") => Ok(false),
            _ => Err(unexpected(&answer)),
        }
    }

    /// Has the leader make a learner a voter, for the client that `token` authenticates.
    /// The members afterwards, as JSON.
    pub async fn promote(
        &self,
        url: &str,
        id: MemberId,
        token: Option<&str>,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let path = format!("/members/promote/{}", id.0);
        let mut request = request(Method::POST, &path, Body::empty())?;
        if let Some(token) = token {
            request.headers_mut().insert(AUTHORIZATION, identity::text(token));
        }
        let answer = self.call(url, request, limit).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let refused = match answer.status {
            StatusCode::OK => return Ok(answer.body),
            StatusCode::REQUEST_TIMEOUT => return Err(Error::from(Unavailable::Timeout).into()),
            StatusCode::NOT_FOUND => Refused::MemberNotFound,
            StatusCode::PRECONDITION_FAILED if text.contains(Refused::LearnerNotReady.text()) => {
                Refused::LearnerNotReady
            }
            StatusCode::PRECONDITION_FAILED => Refused::MemberNotLearner,
            _ => return Err(unexpected(&answer)),
        };
        Err(Error::from(refused).into())
    }

    /// The hash of a peer's key space at `revision`, from a peer of `cluster` only.
    pub async fn hash_kv(
        &self,
        url: &str,
        cluster: ClusterId,
        revision: Revision,
        limit: Duration,
    ) -> Result<HashKvResponse, CallError> {
        let query = Bytes::from(format!("{{\"revision\":{}}}", revision.0));
        let mut request = request(Method::GET, "/members/hashkv", Body::from(query))?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(CLUSTER, identity::text(&cluster.to_string()));
        let answer = self.call(url, request, limit).await?;
        let text = String::from_utf8_lossy(&answer.body);
        match answer.status {
            StatusCode::OK => {
                let json = serde_json::from_slice::<HashKvJson>(&answer.body);
                json.map(HashKvResponse::from).map_err(|_| unexpected(&answer))
            }
            StatusCode::PRECONDITION_FAILED => Err(CallError::OtherCluster),
            StatusCode::BAD_REQUEST => {
                let known = [Refused::Compacted, Refused::FutureRevision];
                let refused = known.into_iter().find(|refused| text.contains(store_text(*refused)));
                Err(refused
                    .map_or_else(|| unexpected(&answer), |refused| Error::from(refused).into()))
            }
            _ => Err(unexpected(&answer)),
        }
    }
}

/// The store's own text, to which only the client API adds "etcdserver: ".
pub(super) fn store_text(error: impl Into<Error>) -> &'static str {
    let text = error.into().text();
    text.strip_prefix("etcdserver: ").unwrap_or(text)
}

/// The answer to a lease call, if it is a result.
fn lease_answer(answer: HttpAnswer) -> Result<HttpAnswer, CallError> {
    let not_primary = Unavailable::NotPrimaryLessor;
    match answer.status {
        StatusCode::OK => Ok(answer),
        StatusCode::NOT_FOUND => Err(Error::from(Refused::LeaseNotFound).into()),
        StatusCode::REQUEST_TIMEOUT => Err(Error::from(Unavailable::TimeoutWaitApplied).into()),
        _ if answer.body.trim_ascii_end() == not_primary.text().as_bytes() => {
            Err(Error::from(not_primary).into())
        }
        _ => Err(unexpected(&answer)),
    }
}

fn unexpected(answer: &HttpAnswer) -> CallError {
    let text = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]);
    CallError::Unexpected(answer.status, text.trim_end().to_owned())
}

/// The JSON of `/members/hashkv`; what is zero is left out.
#[derive(Deserialize, Default)]
#[serde(default)]
struct HashKvJson {
    header: HeaderJson,
    hash: u32,
    compact_revision: i64,
    hash_revision: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct HeaderJson {
    cluster_id: u64,
    member_id: u64,
    revision: i64,
    raft_term: u64,
}

impl From<HashKvJson> for HashKvResponse {
    fn from(json: HashKvJson) -> Self {
        let HeaderJson { cluster_id, member_id, revision, raft_term } = json.header;
        Self {
            header: Some(ResponseHeader { cluster_id, member_id, revision, raft_term }),
            hash: json.hash,
            compact_revision: json.compact_revision,
            hash_revision: json.hash_revision,
        }
    }
}
