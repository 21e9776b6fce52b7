//! Proxies as members of the cluster: MemberList returns the registered proxies, so that clients stay with
//! them. A proxy registers below a prefix, in the form of etcd's resolvers (`client/v3/naming/endpoints`),
//! with a lease that it keeps alive.

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, Member, MemberListRequest, MemberListResponse,
    PutRequest, RangeRequest,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::namespace::Namespace;
use super::{Options, Resolver};
use crate::client::Client;
use crate::env::Env;

/// Pause between two attempts to register.
const RETRY: Duration = Duration::from_secs(1);
/// Timeout of MemberList, etcd's.
const SYNC_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Cluster {
    env: Env,
    client: Client,
    namespace: Namespace,
    host_name: String,
    advertise: String,
    resolver: Option<Resolver>,
}

impl Cluster {
    pub fn new(env: &Env, options: &Options, client: &Client, namespace: &Namespace) -> Self {
        Self {
            env: env.clone(),
            client: client.clone(),
            namespace: namespace.clone(),
            host_name: options.host_name.clone(),
            advertise: options.advertise.clone(),
            resolver: options.resolver.clone(),
        }
    }

    /// Returns whether MemberList returns proxies.
    pub fn is_proxies(&self) -> bool {
        !self.advertise.is_empty()
    }

    /// Returns the registered proxies, or this one.
    pub async fn list(&self) -> Result<MemberListResponse, Status> {
        let mut members = Vec::new();
        if let Some(resolver) = &self.resolver {
            members = self.registered(&resolver.prefix).await?;
        }
        if members.is_empty() {
            members.push(member(&self.host_name, &self.advertise));
        }
        Ok(MemberListResponse { members, ..MemberListResponse::default() })
    }

    async fn registered(&self, prefix: &str) -> Result<Vec<Member>, Status> {
        let (mut key, mut range_end) = (format!("{prefix}/").into(), format!("{prefix}0").into());
        self.namespace.enter_span(&mut key, &mut range_end);
        let range = RangeRequest { key, range_end, serializable: true, ..RangeRequest::default() };
        let found = self.client.kv().range(range).await?.into_inner();
        Ok(found.kvs.iter().filter_map(|kv| read(&kv.value)).collect())
    }

    /// Updates the endpoints from the member list at an interval; voting members become endpoints.
    pub fn follow(&self, every: Option<Duration>) {
        let Some(every) = every else { return };
        let cluster = self.clone();
        self.env.spawn("proxy endpoints", async move {
            let mut known = Vec::new();
            loop {
                cluster.env.sleep(every).await;
                let sync = cluster.sync(&mut known);
                let synced = match cluster.env.timeout(SYNC_LIMIT, sync).await {
                    Ok(synced) => synced,
                    Err(_) => Err("context deadline exceeded".to_owned()),
                };
                if let Err(error) = synced {
                    info!(error, "Auto sync endpoints failed.");
                }
            }
        });
    }

    /// Sets the endpoints; `known` are those of the time before.
    async fn sync(&self, known: &mut Vec<String>) -> Result<(), String> {
        let request = MemberListRequest { linearizable: true };
        let members = self.client.cluster().member_list(request).await;
        let members = members.map_err(|status| status.message().to_owned())?.into_inner().members;
        // A member without a name has not started yet.
        let voters = members.into_iter().filter(|m| !m.name.is_empty() && !m.is_learner);
        let endpoints: Vec<_> = voters.flat_map(|member| member.client_urls).collect();
        let set = self.client.channel().set_endpoints(&endpoints).await;
        set.map_err(|bad| bad.to_string())?;
        if endpoints != *known {
            info!(?endpoints, "set etcd endpoints by autoSync");
            *known = endpoints;
        }
        Ok(())
    }

    /// Registers this proxy for as long as it runs.
    pub fn register(&self) {
        let Some(resolver) = self.resolver.clone() else { return };
        let cluster = self.clone();
        self.env.spawn("proxy registration", async move {
            loop {
                match cluster.session(&resolver).await {
                    Ok(()) => {
                        warn!("session expired; possible network partition or server restart");
                        warn!("creating a new session to rejoin");
                    }
                    Err(status) => {
                        warn!(error = status.message(), "failed to create a session");
                    }
                }
                cluster.env.sleep(RETRY).await;
            }
        });
    }

    /// Registers once; returns when the lease has ended.
    async fn session(&self, resolver: &Resolver) -> Result<(), Status> {
        let grant = LeaseGrantRequest { ttl: resolver.ttl_s, ..LeaseGrantRequest::default() };
        let lease = self.client.lease().lease_grant(grant).await?.into_inner().id;
        let mut key = format!("{}/{}", resolver.prefix, self.advertise).into();
        self.namespace.enter_key(&mut key);
        let value = written(&self.host_name, &self.advertise).into();
        let put = PutRequest { key, value, lease, ..PutRequest::default() };
        self.client.kv().put(put).await?;
        info!(addr = self.advertise, lease_ttl = resolver.ttl_s, "registered session with lease");
        let third = Duration::from_secs(u64::try_from(resolver.ttl_s).unwrap_or(1)) / 3;
        let (requests, stream) = mpsc::channel(1);
        let stream = ReceiverStream::new(stream);
        let request = LeaseKeepAliveRequest { id: lease };
        requests.try_send(request).expect("it is empty");
        let mut answers = self.client.lease().lease_keep_alive(stream).await?.into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            if answer.ttl <= 0 {
                break;
            }
            self.env.sleep(third).await;
            if requests.send(request).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

fn member(name: &str, url: &str) -> Member {
    Member { name: name.into(), client_urls: vec![url.into()], ..Member::default() }
}

/// An entry in the form of etcd's resolvers, whose metadata is JSON in a string.
fn written(name: &str, address: &str) -> String {
    let metadata = json!({ "name": name }).to_string();
    json!({ "Op": 0, "Addr": address, "Metadata": metadata }).to_string()
}

/// Parses an entry; foreign ones are skipped.
fn read(value: &[u8]) -> Option<Member> {
    let value: Value = serde_json::from_slice(value).ok()?;
    let metadata: Value = serde_json::from_str(value.get("Metadata")?.as_str()?).ok()?;
    Some(member(metadata.get("name")?.as_str()?, value.get("Addr")?.as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_both() {
        let text = written("m1", "10.0.0.1:23790");
        assert_eq!(read(text.as_bytes()), Some(member("m1", "10.0.0.1:23790")));
        let etcds = br#"{"Op":0,"Addr":"127.0.0.1:1","Metadata":"{\"name\":\"host\"}"}"#;
        assert_eq!(read(etcds), Some(member("host", "127.0.0.1:1")));
        for junk in [&b""[..], b"1", b"{\"Addr\":\"a\"}", b"{\"Addr\":\"a\",\"Metadata\":\"\"}"] {
            assert_eq!(read(junk), None);
        }
    }
}
