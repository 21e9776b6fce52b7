//! Permissions that change while they are used. Each client is a user with a role of its own, and root,
//! that changes that role: so it knows for certain what it may do, except while it is being changed. What
//! it certainly may not do must not be done, and what it certainly may must not be denied. Any other
//! refusal, such as that users and roles have changed meanwhile, is good.
//!
//! No other workload has a user, so a plan with this one has no other ([`super::ALONE`]).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join;
use http::HeaderValue;
use quorate::client::Channel;
use quorate_proto::authpb::{Permission, permission::Type};
use quorate_proto::etcdserverpb::auth_client::AuthClient;
use quorate_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserGrantRoleRequest, PutRequest,
    RangeRequest,
};
use tonic::{Code, Response, Status};

use super::{Client, Work, Workload};
use crate::cluster::ROOT;
use crate::facts::addresses::TOKEN;
use crate::facts::evidence::Evidence;
use crate::facts::history::Answer;
use crate::facts::request::{Op, delete, get, list, put, txn};
use crate::facts::verdict::Violation;

const PATIENCE: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(200);
/// Attempts to prepare, each a while after the one before.
const ATTEMPTS: u32 = 60;

const DENIED: &str = "what a user may not do is not done";
const ALLOWED: &str = "what a user may do is not denied";
const KNOWN: &str = "a token is valid at every member";
/// New tokens that one member must have refused in a row: it may be restarted between login and use.
const REFUSED_MAX: u32 = 3;

/// What is known of the permission that comes and goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    Open,
    #[default]
    Shut,
    /// A change was not answered: it may take effect at any later time.
    Unknown,
}

#[derive(Default)]
pub struct Auth {
    root: Option<HeaderValue>,
    own: Option<HeaderValue>,
    door: Door,
    /// Its number: one of which nothing is certain is left for a new one.
    doors: u64,
    /// Tokens that were not known at a member, since one was.
    refused: BTreeMap<String, u32>,
}

impl Workload for Auth {
    fn name(&self) -> &'static str {
        "auth"
    }

    fn setup<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            for _ in 0..ATTEMPTS {
                if self.prepare(client).await.is_some() {
                    return;
                }
                client.env.sleep(PAUSE).await;
            }
        })
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            // A member that was started again knows none of the tokens.
            if self.own.is_none() || client.chance(1, 12) {
                self.own = client.cluster.log_in(&client.channel, &client.env, &user(client)).await;
            }
            if self.root.is_none() || client.chance(1, 12) {
                self.log_root_in(client).await;
            }
            if self.root.is_none() || self.own.is_none() {
                return client.env.sleep(PAUSE).await;
            }
            if client.cluster.shape().etcd.is_some() && client.chance(1, 3) {
                return self.elsewhere(client).await;
            }
            match client.below(12) {
                0..3 => self.move_door(client).await,
                3..5 => self.at_door(client, self.door).await,
                5..8 => self.inside(client).await,
                8..11 => self.outside(client).await,
                _ => self.nameless(client).await,
            }
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

fn user(client: &Client) -> String {
    format!("u{}", client.number)
}

fn role(client: &Client) -> String {
    format!("r{}", client.number)
}

/// Where all keys of this client are.
fn own(client: &Client, rest: &str) -> Bytes {
    format!("auth/{}/{rest}", client.number).into()
}

/// Root's part.
impl Auth {
    /// Users, roles, permissions. All clients do it, so what is there already is well.
    async fn prepare(&mut self, client: &Client) -> Option<()> {
        if self.root.is_none() {
            // Another client may have switched permissions on.
            self.log_root_in(client).await;
        }
        let mut auth = self.service(client);
        for name in [ROOT.to_owned(), user(client)] {
            let password = name.clone();
            let add = AuthUserAddRequest { name, password, ..Default::default() };
            done(client, auth.user_add(add)).await?;
        }
        for name in [ROOT.to_owned(), role(client)] {
            done(client, auth.role_add(AuthRoleAddRequest { name })).await?;
        }
        for (user, role) in [(ROOT.to_owned(), ROOT.to_owned()), (user(client), role(client))] {
            done(client, auth.user_grant_role(AuthUserGrantRoleRequest { user, role })).await?;
        }
        // Its home in two pieces that touch, and one key to read.
        for (kind, key, end) in [
            (Type::Readwrite, own(client, "home/"), own(client, "home/5")),
            (Type::Readwrite, own(client, "home/5"), own(client, "home0")),
            (Type::Read, own(client, "one"), Bytes::new()),
        ] {
            let grant = grant(client, kind, key, end);
            done(client, auth.role_grant_permission(grant)).await?;
        }
        done(client, auth.auth_enable(AuthEnableRequest {})).await?;
        self.log_root_in(client).await;
        self.own = client.cluster.log_in(&client.channel, &client.env, &user(client)).await;
        (self.root.is_some() && self.own.is_some()).then_some(())
    }

    async fn log_root_in(&mut self, client: &Client) {
        self.root = client.cluster.log_in(&client.channel, &client.env, ROOT).await;
        if let Some(token) = &self.root {
            client.cluster.show(token.clone());
        }
    }

    fn service(&self, client: &Client) -> AuthClient<Channel> {
        AuthClient::new(match &self.root {
            Some(token) => client.channel.with_header(TOKEN, token.clone()),
            None => client.channel.without_header(TOKEN),
        })
    }

    fn door(&self, client: &Client) -> Bytes {
        own(client, &format!("door{}", self.doors))
    }

    /// Grants a permission, or takes it back; often it is used meanwhile.
    async fn move_door(&mut self, client: &Client) {
        if self.door == Door::Unknown {
            self.doors += 1;
            self.door = Door::Shut;
        }
        let (mut auth, key) = (self.service(client), self.door(client));
        let opens = self.door == Door::Shut;
        let change = async {
            if opens {
                let grant = grant(client, Type::Readwrite, key, Bytes::new());
                let answer = ask(client, auth.role_grant_permission(grant)).await;
                answer.map(drop)
            } else {
                let role = role(client);
                let revoke = AuthRoleRevokePermissionRequest { role, key, range_end: Bytes::new() };
                let answer = ask(client, auth.role_revoke_permission(revoke)).await;
                answer.map(drop)
            }
        };
        let moved = match client.chance(1, 2) {
            true => {
                let walk = self.at_door(client, Door::Unknown);
                join(change, walk).await.0
            }
            false => change.await,
        };
        self.door = match moved {
            Ok(()) if opens => Door::Open,
            Ok(()) => Door::Shut,
            Err(status) => {
                if status.is_none_or(|status| status.code() == Code::Unauthenticated) {
                    self.root = None;
                }
                Door::Unknown
            }
        };
        client.pause(20).await;
    }
}

/// The user's part.
impl Auth {
    /// The same client as the user that it is.
    fn named(&self, client: &Client) -> Option<Client> {
        let token = self.own.clone()?;
        Some(client.on(client.channel.with_header(TOKEN, token)))
    }

    async fn at_door(&self, client: &Client, door: Door) {
        let Some(named) = self.named(client) else { return };
        let key = self.door(client);
        match client.chance(1, 2) {
            true => examine(client, door, &named.put(put(key, client.value())).await, "put").await,
            false => examine(client, door, &named.range(get(key)).await, "get").await,
        }
    }

    async fn inside(&mut self, client: &Client) {
        let Some(named) = self.named(client) else { return };
        let key = own(client, &format!("home/{}", client.below(10)));
        let lost = match client.below(5) {
            0 => {
                let put = PutRequest { prev_kv: true, ..put(key, client.value()) };
                let answer = named.put(put).await;
                examine(client, Door::Open, &answer, "put at home").await;
                is_lost(&answer)
            }
            1 => {
                let answer = named.range(list(own(client, "home/"))).await;
                examine(client, Door::Open, &answer, "list of the home").await;
                is_lost(&answer)
            }
            2 => {
                let answer = named.delete(delete(key)).await;
                examine(client, Door::Open, &answer, "delete at home").await;
                is_lost(&answer)
            }
            3 => {
                let answer = named.range(get(own(client, "one"))).await;
                examine(client, Door::Open, &answer, "get of one key").await;
                is_lost(&answer)
            }
            _ => {
                let nested = txn(vec![], vec![put(key, client.value()).op()], vec![]);
                let reads = get(own(client, "one")).op();
                let answer = named.txn(txn(vec![], vec![nested.op(), reads], vec![])).await;
                examine(client, Door::Open, &answer, "txn at home").await;
                is_lost(&answer)
            }
        };
        if lost {
            self.own = None;
        }
    }

    /// Where members of other releases are, a token of one is used at another at once.
    async fn elsewhere(&mut self, client: &Client) {
        let hosts = client.cluster.voters();
        let host = &hosts[client.below(hosts.len() as u64) as usize];
        let token = client.cluster.log_in(&client.channel, &client.env, &user(client)).await;
        let Some(token) = token else { return client.env.sleep(PAUSE).await };
        let channel = client.cluster.channel(&client.env, Some(host)).with_header(TOKEN, token);
        let answer = client.on(channel).range(get(own(client, "one"))).await;
        let refused = self.refused.entry(host.clone()).or_default();
        match &answer {
            Ok(_) => *refused = 0,
            Err(_) if is_lost(&answer) => *refused += 1,
            Err(_) => {}
        }
        if *refused == REFUSED_MAX {
            client.complain(KNOWN, format!("{host} has refused {refused} tokens in a row"));
        }
        client.rest(&answer, 20).await;
    }

    async fn outside(&self, client: &Client) {
        let Some(named) = self.named(client) else { return };
        let (out, value) = (own(client, "out"), client.value());
        let home = own(client, "home/1");
        let shut = Door::Shut;
        match client.below(8) {
            0 => examine(client, shut, &named.put(put(out, value)).await, "put outside").await,
            1 => examine(client, shut, &named.range(get(out)).await, "get outside").await,
            2 => {
                let one = own(client, "one");
                examine(client, shut, &named.put(put(one, value)).await, "put of a key to read")
                    .await;
            }
            3 => {
                // From a key that may be read, to all others.
                let from = own(client, if client.chance(1, 2) { "one" } else { "home/1" });
                let open = RangeRequest { range_end: vec![0].into(), ..get(from) };
                examine(client, shut, &named.range(open).await, "open range").await;
            }
            4 => {
                let wide = RangeRequest { range_end: own(client, "home1"), ..get(home) };
                examine(client, shut, &named.range(wide).await, "range beyond the home").await;
            }
            5 => {
                let nested = txn(vec![], vec![put(out, value).op()], vec![]);
                let answer = named.txn(txn(vec![], vec![nested.op()], vec![])).await;
                examine(client, shut, &answer, "put in a nested txn").await;
            }
            6 => {
                // In the branch that is not taken.
                let success = vec![put(home, value).op()];
                let answer = named.txn(txn(vec![], success, vec![get(out).op()])).await;
                examine(client, shut, &answer, "txn with a branch outside").await;
            }
            _ => {
                let next = format!("auth/{}/home/1", client.number + 1);
                let answer = named.put(put(next, value)).await;
                examine(client, shut, &answer, "put at a neighbour's").await;
            }
        }
    }

    /// Without a name nothing is permitted.
    async fn nameless(&self, client: &Client) {
        let key = own(client, "home/1");
        let nobody = client.on(client.channel.without_header(TOKEN));
        match client.chance(1, 2) {
            true => {
                let answer = nobody.put(put(key, client.value())).await;
                examine(client, Door::Shut, &answer, "put without a name").await;
            }
            false => {
                let answer = nobody.range(get(key)).await;
                examine(client, Door::Shut, &answer, "get without a name").await;
            }
        }
    }
}

/// Complains of an answer that the permission cannot have, and rests.
async fn examine<T>(client: &Client, door: Door, answer: &Answer<T>, what: &str) {
    match (door, answer) {
        (Door::Shut, Ok(_)) => client.complain(DENIED, format!("{what} by {}", user(client))),
        (Door::Open, Err(failure)) if failure.code == Code::PermissionDenied => {
            client.complain(ALLOWED, format!("{what} by {}: {}", user(client), failure.text));
        }
        _ => {}
    }
    let denied = answer.as_ref().is_err_and(|failure| failure.code == Code::PermissionDenied);
    match denied {
        true => client.pause(20).await,
        false => client.rest(answer, 20).await,
    }
}

fn is_lost<T>(answer: &Answer<T>) -> bool {
    answer.as_ref().is_err_and(|failure| failure.code == Code::Unauthenticated)
}

fn grant(client: &Client, kind: Type, key: Bytes, end: Bytes) -> AuthRoleGrantPermissionRequest {
    let perm = Some(Permission { perm_type: kind as i32, key, range_end: end });
    AuthRoleGrantPermissionRequest { name: role(client), perm }
}

/// The status of a call that failed; none when there was no answer.
async fn ask<T>(
    client: &Client,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Option<Status>> {
    match client.env.timeout(PATIENCE, call).await {
        Ok(answer) => answer.map(Response::into_inner).map_err(Some),
        Err(_) => Err(None),
    }
}

/// Whether it is done now, by this call or by another client's before.
async fn done<T>(
    client: &Client,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Option<()> {
    match ask(client, call).await {
        Ok(_) => Some(()),
        Err(Some(status)) if status.message().ends_with("already exists") => Some(()),
        Err(_) => None,
    }
}
