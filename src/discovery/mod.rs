//! How the members of a new cluster find each other: by SRV records in DNS (`srv`, which also finds
//! proxies where the members are), or at an etcd that they all know (etcd's "v3 discovery"), which
//! is here. The operator has written their number there; each writes its name and peer URLs, and
//! waits until there are as many. A member that is too late gets the error that the cluster is full.
//!
//! ```text
//! /_etcd/registry/TOKEN/_config/size       3
//! /_etcd/registry/TOKEN/members/ID         m1=http://10.0.0.1:2380
//! ```
//!
//! Keys, texts and the order in which members count are etcd's, so that members of both kinds can meet.
//! Nothing is stored here, and a member that has a log is not to come here.

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod registry;
pub mod srv;

use std::time::Duration;

use http::HeaderValue;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    AuthenticateRequest, PutRequest, RangeRequest, RangeResponse, WatchCreateRequest, WatchRequest,
};
use tonic::Status;
use tracing::{info, warn};

use self::registry::{Registry, Standing};
use crate::client::{self, Client};
use crate::config::cluster::InitialCluster;
use crate::config::{Config, Discovery};
use crate::env::Env;
use crate::member::identity;
use crate::types::MemberId;

/// The waits between attempts double up to two to the power of this, seconds.
const BACKOFF_MAX: u32 = 8;

/// Why there is no cluster to take part in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: size key not found")]
    NoSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    #[error("discovery cluster {0} has duplicate url")]
    Duplicates(String),
    #[error("{0}")]
    Endpoint(String),
    #[error("error setting up initial cluster: {0}")]
    Srv(String),
}

/// Puts the cluster that is found in the place of the one of this member alone.
pub async fn bootstrap(env: &Env, config: &mut Config) -> Result<(), DiscoveryError> {
    if let Some(srv) = config.srv.clone() {
        return srv::bootstrap(env, &srv, config).await.map_err(DiscoveryError::Srv);
    }
    let Some(settings) = &config.discovery else { return Ok(()) };
    info!("Bootstrapping cluster using v3 discovery.");
    let urls: Vec<_> = config.advertise_peer.iter().map(ToString::to_string).collect();
    let member = identity::member_id(&urls, &config.server.member.initial_cluster_token);
    let found = join(env, settings, member, &config.initial_cluster.to_string()).await?;
    let cluster = InitialCluster::parse(&found).map_err(|_| DiscoveryError::InvalidUrl)?;
    if cluster.has_duplicates() {
        return Err(DiscoveryError::Duplicates(cluster.to_string()));
    }
    config.initial_cluster = cluster;
    Ok(())
}

/// Registers `member` as `name=url,name=url...` and waits for the others: all of them in the same form.
pub async fn join(
    env: &Env,
    settings: &Discovery,
    member: MemberId,
    own: &str,
) -> Result<String, DiscoveryError> {
    let options = client::Options {
        connect_timeout: settings.dial_timeout,
        keep_alive_interval: settings.keep_alive_interval,
        keep_alive_timeout: settings.keep_alive_timeout,
        keep_alive_while_idle: false,
        tls: settings.tls.clone(),
        ..client::Options::default()
    };
    let client = Client::new(env.clone(), &settings.endpoints, options);
    let client = client.map_err(|error| DiscoveryError::Endpoint(error.to_string()))?;
    let registry = Registry::new(&settings.token, &member.to_string());
    let mut meeting = Meeting { env, settings, client, registry, retries: 0 };
    meeting.check().await?;
    meeting.register(own).await;
    let (mut standing, revision) = meeting.check().await?;
    if standing.missing() > 0 {
        meeting.wait(&mut standing, revision).await;
    }
    info!(cluster = standing.cluster(), "discovery joined cluster successfully");
    Ok(standing.cluster())
}

struct Meeting<'a> {
    env: &'a Env,
    settings: &'a Discovery,
    client: Client,
    registry: Registry,
    retries: u32,
}

impl Meeting<'_> {
    /// The registered members, once they are known or cannot be; with the etcd's revision.
    async fn check(&mut self) -> Result<(Standing, i64), DiscoveryError> {
        loop {
            match self.look().await {
                Ok(found) => {
                    self.retries = 0;
                    let (size, members) = found;
                    let size = size.kvs.first().ok_or(DiscoveryError::NoSize)?;
                    let size = registry::size(&size.value).ok_or(DiscoveryError::BadSize)?;
                    let mut standing = Standing::new(size);
                    for kv in &members.kvs {
                        self.note(&mut standing, &kv.key, &kv.value, kv.create_revision);
                    }
                    if standing.excludes(&self.registry) {
                        return Err(DiscoveryError::Full);
                    }
                    let revision = members.header.map_or(0, |header| header.revision);
                    return Ok((standing, revision));
                }
                Err(status) => self.back_off("cluster status check", &status).await,
            }
        }
    }

    async fn look(&mut self) -> Result<(RangeResponse, RangeResponse), Status> {
        let client = self.client().await?;
        let (size, members) = (self.registry.size_key(), self.registry.members_prefix());
        let size = RangeRequest { key: size.into(), ..Default::default() };
        let end = registry::end_of(&members);
        let members = RangeRequest { key: members.into(), range_end: end, ..Default::default() };
        let size = self.within(client.kv().range(size)).await?;
        Ok((size, self.within(client.kv().range(members)).await?))
    }

    async fn register(&mut self, own: &str) {
        loop {
            let put = async {
                let client = self.client().await?;
                let (key, value) = (self.registry.own_key().into(), own.to_owned().into());
                let put = PutRequest { key, value, ..Default::default() };
                self.within(client.kv().put(put)).await
            };
            match put.await {
                Ok(_) => break,
                Err(status) => self.back_off("register member itself", &status).await,
            }
        }
        self.retries = 0;
        info!(member_info = own, "register member itself successfully");
    }

    /// Watches from the revision after `revision` until all members are registered. A watch that breaks is
    /// resumed where it ended, because the members found so far are kept.
    async fn wait(&mut self, standing: &mut Standing, revision: i64) {
        info!(missing = standing.missing(), "waiting for peers from discovery service");
        let mut next = revision + 1;
        while standing.missing() > 0 {
            if let Err(status) = self.watch(standing, &mut next).await {
                self.back_off("watch of members", &status).await;
            }
        }
        info!("found all needed peers from discovery service");
    }

    async fn watch(&mut self, standing: &mut Standing, next: &mut i64) -> Result<(), Status> {
        let prefix = self.registry.members_prefix();
        let create = WatchCreateRequest {
            range_end: registry::end_of(&prefix),
            key: prefix.into(),
            start_revision: *next,
            ..Default::default()
        };
        let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // The stream of requests must stay open for as long as the watch.
        let (open, requests) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        open.send(request).await.map_err(|_| Status::cancelled("the watch has ended"))?;
        let mut answers = self.client().await?.watch().watch(requests).await?.into_inner();
        while standing.missing() > 0 {
            let Some(answer) = answers.message().await? else { return Ok(()) };
            if answer.canceled {
                return Err(Status::cancelled(answer.cancel_reason));
            }
            for kv in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
                self.note(standing, &kv.key, &kv.value, kv.create_revision);
                *next = (*next).max(kv.mod_revision + 1);
            }
        }
        Ok(())
    }

    fn note(&self, standing: &mut Standing, key: &[u8], value: &[u8], revision: i64) {
        let (key, value) = (String::from_utf8_lossy(key), String::from_utf8_lossy(value));
        match standing.add(&self.registry, key.trim(), value.trim(), revision) {
            Ok(()) => {
                let (member_key, member_info) = (key.trim(), value.trim());
                info!(member_key, member_info, "found peer from discovery service");
            }
            Err(why) => warn!(member_key = key.trim(), member_info = value.trim(), "{why}"),
        }
    }

    /// Logged in, if there is a user.
    async fn client(&self) -> Result<Client, Status> {
        let Some((name, password)) = self.settings.user.clone() else {
            return Ok(self.client.clone());
        };
        let login = AuthenticateRequest { name, password };
        let token = self.within(self.client.auth().authenticate(login)).await?.token;
        let token = HeaderValue::from_str(&token)
            .map_err(|_| Status::internal("the token is no header's value"))?;
        Ok(self.client.with_token(token))
    }

    async fn within<T>(
        &self,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, Status> {
        let answer = self.env.timeout(self.settings.request_timeout, call).await;
        let late = |_| Status::deadline_exceeded("context deadline exceeded");
        Ok(answer.map_err(late)??.into_inner())
    }

    async fn back_off(&mut self, reason: &str, status: &Status) {
        self.retries = (self.retries + 1).min(BACKOFF_MAX);
        let backoff = Duration::from_secs(1 << self.retries);
        warn!(reason, ?backoff, error = status.message(), "retry connecting to discovery service");
        self.env.sleep(backoff).await;
    }
}
