//! The paths of the peer port that do not carry raft: decode, call the member, encode with etcd's
//! status codes and texts (etcd 3.7, `etcdhttp/peer.go`, `leasehttp/http.go`, `corrupt.go`).

use bytes::Bytes;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use prost::Message as _;
use quorate_proto::etcdserverpb::{HashKvResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use quorate_proto::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use serde::Deserialize;

use super::body::{ReadError, read_whole};
use super::calls::store_text;
use super::identity::{self, CLUSTER, Mismatch};
use super::server::{Answered, allow, answer, error};
use super::transport::Transport;
use crate::codec;
use crate::error::{Error, Refused, Unavailable};
use crate::limits::PEER_REQUEST_BYTES_MAX;
use crate::types::{LeaseId, MemberId, Revision};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/protobuf";
const TEXT: &str = "text/plain";
const PROMOTE: &str = "/members/promote/";

/// The body of `/members/hashkv`.
#[derive(Deserialize)]
struct HashKvQuery {
    #[serde(default)]
    revision: i64,
}

impl Transport {
    /// The answer on any path outside of `/raft`.
    pub(super) async fn route(&self, request: Request<Incoming>) -> Answered {
        let path = request.uri().path();
        let method = match path {
            "/version" | "/members" | "/members/hashkv" | "/downgrade/enabled" => Method::GET,
            "/leases" | "/leases/internal" => Method::POST,
            _ if path.starts_with(PROMOTE) => Method::POST,
            _ if PROMOTE.strip_suffix('/') == Some(path) => return to_folder(&request),
            _ => return error(StatusCode::NOT_FOUND, "404 page not found"),
        };
        if let Some(mut refused) = allow(&request, &method) {
            if path.starts_with("/leases") {
                // The only ones that do not name the method.
                refused.headers_mut().remove(ALLOW);
            }
            return refused;
        }
        match path {
            "/version" => answer(StatusCode::OK, JSON, self.local().version_json()),
            "/members" => {
                self.signed(answer(StatusCode::OK, JSON, self.local().members_json() + "\n"))
            }
            "/members/hashkv" => self.hash_kv(request).await.unwrap_or_else(|refused| refused),
            "/downgrade/enabled" => self.signed(self.downgrade_enabled().await),
            "/leases" => self.renew(request).await.unwrap_or_else(|refused| refused),
            "/leases/internal" => {
                self.time_to_live(request).await.unwrap_or_else(|refused| refused)
            }
            _ => self.signed(self.promote(&request).await),
        }
    }

    async fn promote(&self, request: &Request<Incoming>) -> Answered {
        let id = request.uri().path().trim_start_matches(PROMOTE);
        let Ok(number) = id.parse() else {
            return error(StatusCode::NOT_FOUND, &format!("member {id} not found in cluster"));
        };
        let token = identity::header(request.headers(), &AUTHORIZATION).map(str::to_owned);
        match self.local().promote(MemberId(number), token).await {
            Ok(members) => answer(StatusCode::OK, JSON, members + "\n"),
            // The texts by which the calling member distinguishes the two 412.
            Err(Error::Refused(Refused::MemberNotFound)) => {
                error(StatusCode::NOT_FOUND, "membership: ID not found")
            }
            Err(Error::Refused(Refused::MemberNotLearner)) => error(
                StatusCode::PRECONDITION_FAILED,
                "membership: can only promote a learner member",
            ),
            Err(Error::Refused(not_ready @ Refused::LearnerNotReady)) => {
                error(StatusCode::PRECONDITION_FAILED, not_ready.text())
            }
            Err(_) => answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                JSON,
                "{\"message\":\"Internal Server Error\"}",
            ),
        }
    }

    async fn hash_kv(&self, mut request: Request<Incoming>) -> Result<Answered, Answered> {
        let own_cluster = self.context().identity.cluster.to_string();
        if identity::header(request.headers(), &CLUSTER)
            .is_some_and(|cluster| cluster != own_cluster)
        {
            return Err(error(StatusCode::PRECONDITION_FAILED, &Mismatch::Cluster.to_string()));
        }
        let body = self.small_body(&mut request).await?;
        let query: HashKvQuery = serde_json::from_slice(&body).map_err(|_| malformed())?;
        match self.local().hash_kv(Revision(query.revision)).await {
            Ok(hash) => Ok(self.signed(answer(StatusCode::OK, JSON, hash_kv_json(&hash)))),
            Err(failed) => Err(error(StatusCode::BAD_REQUEST, store_text(failed))),
        }
    }

    async fn downgrade_enabled(&self) -> Answered {
        match self.local().downgrade_enabled().await {
            Ok(enabled) => answer(StatusCode::OK, TEXT, enabled.to_string()),
            Err(failed) => error(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("failed linearized read: {}", failed.text()),
            ),
        }
    }

    async fn renew(&self, mut request: Request<Incoming>) -> Result<Answered, Answered> {
        let body = self.small_body(&mut request).await?;
        let LeaseKeepAliveRequest { id } =
            LeaseKeepAliveRequest::decode(body).map_err(|_| malformed())?;
        let renewed = self.local().renew(LeaseId(id)).await;
        let ttl = renewed.map_err(|failed| refuse_lease(&failed, StatusCode::BAD_REQUEST))?;
        let response = LeaseKeepAliveResponse { header: None, id, ttl };
        Ok(answer(StatusCode::OK, PROTOBUF, codec::encode(&response)))
    }

    async fn time_to_live(&self, mut request: Request<Incoming>) -> Result<Answered, Answered> {
        let body = self.small_body(&mut request).await?;
        let query = LeaseInternalRequest::decode(body).map_err(|_| malformed())?;
        let query = query.lease_time_to_live_request.ok_or_else(malformed)?;
        let found = self.local().time_to_live(query).await;
        let found =
            found.map_err(|failed| refuse_lease(&failed, StatusCode::INTERNAL_SERVER_ERROR))?;
        let response = LeaseInternalResponse { lease_time_to_live_response: Some(found) };
        Ok(answer(StatusCode::OK, PROTOBUF, codec::encode(&response)))
    }

    async fn small_body(&self, request: &mut Request<Incoming>) -> Result<Bytes, Answered> {
        let body = read_whole(
            self.env(),
            self.patience().read,
            request.body_mut(),
            PEER_REQUEST_BYTES_MAX,
        )
        .await;
        body.map_err(|failed| match failed {
            ReadError::TooLarge => error(StatusCode::PAYLOAD_TOO_LARGE, "request body too large"),
            ReadError::Io(_) => error(StatusCode::BAD_REQUEST, "error reading body"),
        })
    }
}

/// The redirection of Go's server to a folder whose slash is missing.
fn to_folder(request: &Request<Incoming>) -> Answered {
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("{PROMOTE}{query}");
    let mut answered = match *request.method() {
        Method::GET => {
            let link = location.replace('&', "&amp;").replace('"', "&#34;").replace('<', "&lt;");
            let text = format!("<a href=\"{link}\">Temporary Redirect</a>.\n\n");
            answer(StatusCode::TEMPORARY_REDIRECT, "text/html; charset=utf-8", text)
        }
        _ => {
            let mut bare = answer(StatusCode::TEMPORARY_REDIRECT, TEXT, "");
            bare.headers_mut().remove(CONTENT_TYPE);
            bare
        }
    };
    let location = HeaderValue::try_from(location).expect("a path and a query can be a header");
    answered.headers_mut().insert(LOCATION, location);
    answered
}

fn malformed() -> Answered {
    error(StatusCode::BAD_REQUEST, "error unmarshalling request")
}

/// A lease call that failed; the calling member goes by the status.
fn refuse_lease(failed: &Error, otherwise: StatusCode) -> Answered {
    match failed {
        Error::Refused(Refused::LeaseNotFound) => error(StatusCode::NOT_FOUND, "lease not found"),
        Error::Unavailable(Unavailable::TimeoutWaitApplied | Unavailable::Timeout) => error(
            StatusCode::REQUEST_TIMEOUT,
            "waiting for node to catch up its applied index has timed out",
        ),
        failed => error(otherwise, failed.text()),
    }
}

/// As Go's `encoding/json` writes the message: numbers bare, zeroes left out.
fn hash_kv_json(response: &HashKvResponse) -> String {
    let mut fields = Vec::new();
    if let Some(header) = &response.header {
        let parts = [
            ("cluster_id", i128::from(header.cluster_id)),
            ("member_id", i128::from(header.member_id)),
            ("revision", i128::from(header.revision)),
            ("raft_term", i128::from(header.raft_term)),
        ];
        fields.push(format!("\"header\":{{{}}}", numbers(&parts)));
    }
    let parts = [
        ("hash", i128::from(response.hash)),
        ("compact_revision", i128::from(response.compact_revision)),
        ("hash_revision", i128::from(response.hash_revision)),
    ];
    fields.push(numbers(&parts));
    fields.retain(|field| !field.is_empty());
    format!("{{{}}}", fields.join(","))
}

fn numbers(parts: &[(&str, i128)]) -> String {
    let set = parts.iter().filter(|(_, value)| *value != 0);
    set.map(|(name, value)| format!("\"{name}\":{value}")).collect::<Vec<_>>().join(",")
}
