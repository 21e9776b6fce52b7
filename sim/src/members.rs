//! How members come and go while a cluster runs, by the calls that an operator makes: add the member,
//! start the new server with the list of members in the answer, wait. Calls are made again until
//! they are known to have been done, because an answer may be lost.

use std::time::{Duration, Instant};

use quorate::client::Channel;
use quorate::env::Env;
use quorate::error::Fatal;
use quorate::member::InitialState;
use quorate::server::{self, Server};
use quorate_proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};
use tokio::sync::mpsc;
use tonic::Status;

use crate::cluster::{Cluster, Order, until_stopped};

/// What one call gets.
const CALL_LIMIT: Duration = Duration::from_secs(8);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
/// What a removed member gets to learn of it and to end.
const END_LIMIT: Duration = Duration::from_secs(10);

impl Cluster {
    /// The members as the cluster knows them, by a quorum's word.
    pub async fn members(&self, env: &Env) -> Result<Vec<Member>, String> {
        self.list(env, true).await
    }

    async fn list(&self, env: &Env, linearizable: bool) -> Result<Vec<Member>, String> {
        let mut client = self.operator(env);
        let list = client.member_list(MemberListRequest { linearizable });
        answered(env, list).await.map(|answer| answer.members)
    }

    /// Adds a member on `host` and starts it there; it is new, or its last member was removed. Done
    /// when the member takes part. The error names what was missing when `limit` had passed.
    pub async fn add_member(
        &self,
        env: &Env,
        host: &str,
        learner: bool,
        limit: Duration,
    ) -> Result<(), String> {
        let deadline = env.now() + limit;
        self.prepare_host(host);
        let members = self.until(env, deadline, || self.ask_for_place(env, host, learner)).await?;
        self.admit(host, learner, &members);
        self.start(host).await;
        self.until(env, deadline, || async {
            if self.status(env, host).await.is_some() {
                return Ok(());
            }
            // It may be that root's token is older than the state that the member was sent.
            self.log_in_again(env).await;
            Err(format!("{host} does not serve yet"))
        })
        .await
    }

    /// Makes the learner on `host` a voter, as soon as it is ready for it.
    pub async fn promote(&self, env: &Env, host: &str, limit: Duration) -> Result<(), String> {
        let deadline = env.now() + limit;
        self.until(env, deadline, || async {
            let member = self.member(env, host).await?.ok_or("no such member")?;
            if !member.is_learner {
                self.state().learners.remove(host);
                return Ok(());
            }
            let mut client = self.operator(env);
            let request = MemberPromoteRequest { id: member.id };
            answered(env, client.member_promote(request)).await?;
            self.state().learners.remove(host);
            Ok(())
        })
        .await
    }

    /// Removes the member on `host`, waits until its process has ended, and retires the host. A member
    /// that cannot learn of it is killed, as an operator would do.
    pub async fn remove_member(
        &self,
        env: &Env,
        host: &str,
        limit: Duration,
    ) -> Result<(), String> {
        self.ask_to_remove(env, host, limit).await?;
        let world = self.world();
        world.wait_until(END_LIMIT, || !world.is_running(host)).await;
        self.retire(host);
        Ok(())
    }

    /// As [`Self::remove_member`], but leaves it to the member to end.
    pub async fn ask_to_remove(
        &self,
        env: &Env,
        host: &str,
        limit: Duration,
    ) -> Result<(), String> {
        let deadline = env.now() + limit;
        self.state().leaving.insert(host.to_owned());
        self.until(env, deadline, || async {
            let Some(member) = self.member(env, host).await? else { return Ok(()) };
            self.state().removed.insert(member.id);
            let mut client = self.operator(env);
            let request = MemberRemoveRequest { id: member.id };
            answered(env, client.member_remove(request)).await.map(drop)
        })
        .await
    }

    /// Gives the member on `host` other peer URLs. Each try is noted: the member's id, and whether its effect
    /// is sure.
    pub async fn update_urls(
        &self,
        env: &Env,
        host: &str,
        urls: &[String],
        limit: Duration,
        note: impl Fn(u64, bool),
    ) -> Result<(), String> {
        let deadline = env.now() + limit;
        self.until(env, deadline, || async {
            // A member that is gone needs none.
            let Some(member) = self.member(env, host).await? else { return Ok(()) };
            let request = MemberUpdateRequest { id: member.id, peer_urls: urls.to_vec() };
            let mut client = self.operator(env);
            let answer = answered(env, client.member_update(request)).await;
            note(member.id, answer.is_ok());
            answer.map(drop)
        })
        .await
    }

    /// Adds a learner that is never started, at a host that there is not; its id.
    pub async fn add_phantom(&self, env: &Env, host: &str, limit: Duration) -> Result<u64, String> {
        let deadline = env.now() + limit;
        let members = self.until(env, deadline, || self.ask_for_place(env, host, true)).await?;
        let phantom = self.on(host, &members).ok_or("it is not among the members")?;
        Ok(phantom.id)
    }

    /// Removes a member that never ran.
    pub async fn remove_id(&self, env: &Env, id: u64, limit: Duration) -> Result<(), String> {
        let deadline = env.now() + limit;
        self.until(env, deadline, || async {
            self.state().removed.insert(id);
            let there = self.members(env).await?.iter().any(|member| member.id == id);
            if !there {
                return Ok(());
            }
            let mut client = self.operator(env);
            answered(env, client.member_remove(MemberRemoveRequest { id })).await.map(drop)
        })
        .await
    }

    /// Requests once, of the member on `host`, that a member becomes a voter.
    pub async fn ask_promotion(&self, env: &Env, host: &str, id: u64) -> Result<(), String> {
        let mut client = ClusterClient::new(self.channel(env, Some(host)));
        answered(env, client.member_promote(MemberPromoteRequest { id })).await.map(drop)
    }

    /// Replaces the member on `old` by one on `fresh`: a learner that becomes a voter once it has
    /// caught up, so that the cluster never has fewer voters than before.
    pub async fn replace(
        &self,
        env: &Env,
        old: &str,
        fresh: &str,
        limit: Duration,
    ) -> Result<(), String> {
        let deadline = env.now() + limit;
        let left = || deadline.saturating_duration_since(env.now());
        self.add_member(env, fresh, true, left()).await?;
        self.promote(env, fresh, left()).await?;
        self.remove_member(env, old, left()).await
    }

    /// A host for a member that has no data.
    fn prepare_host(&self, host: &str) {
        let world = self.world();
        if world.has_host(host) {
            world.kill(host);
            world.replace_disk(host);
            self.furnish(host);
        } else {
            self.add_host(host);
        }
    }

    /// From now on the host counts among the members'.
    fn admit(&self, host: &str, learner: bool, members: &[Member]) {
        let mut state = self.state();
        state.joined.insert(host.to_owned(), self.initial_cluster(host, members));
        if learner {
            state.learners.insert(host.to_owned());
        } else {
            state.learners.remove(host);
        }
        if !self.world().disk(host).is_broken() {
            state.excused.remove(host);
        }
        state.hosts.retain(|known| known != host);
        state.hosts.push(host.to_owned());
        state.retired.remove(host);
        state.leaving.remove(host);
    }

    /// Tries once; a member added by an earlier try is as good. Any member's list will do for that:
    /// the second member of all may be needed for a quorum's. Returns the members there are then.
    async fn ask_for_place(
        &self,
        env: &Env,
        host: &str,
        learner: bool,
    ) -> Result<Vec<Member>, String> {
        let members = self.list(env, false).await?;
        let removed = self.state().removed.clone();
        if self.on(host, &members).is_some_and(|member| !removed.contains(&member.id)) {
            return Ok(members);
        }
        let mut client = self.operator(env);
        let request =
            MemberAddRequest { peer_urls: vec![self.peer_url(host)], is_learner: learner };
        answered(env, client.member_add(request)).await.map(|answer| answer.members)
    }

    /// Calls to one of the members that run, to another one each time: one that is cut off answers, but
    /// cannot carry the call out. Learners never can.
    fn operator(&self, env: &Env) -> ClusterClient<Channel> {
        let learners = self.state().learners.clone();
        let serves = |host: &String| self.world().is_running(host) && !learners.contains(host);
        let running: Vec<_> = self.names().into_iter().filter(serves).collect();
        let mut state = self.state();
        state.asked += 1;
        let turn = state.asked.checked_rem(running.len());
        drop(state);
        ClusterClient::new(self.channel(env, turn.map(|turn| &*running[turn])))
    }

    /// The member on `host`.
    fn on<'a>(&self, host: &str, members: &'a [Member]) -> Option<&'a Member> {
        let url = self.peer_url(host);
        members.iter().find(|member| member.peer_urls.contains(&url))
    }

    /// What an operator writes behind `--initial-cluster` of a member that joins. Names do not matter,
    /// except its own.
    fn initial_cluster(&self, host: &str, members: &[Member]) -> Vec<(String, Vec<String>)> {
        let own = self.peer_url(host);
        let named = members.iter().map(|member| {
            let name = match member.peer_urls.contains(&own) {
                true => host.to_owned(),
                false => format!("{:x}", member.id),
            };
            (name, member.peer_urls.clone())
        });
        named.collect()
    }

    async fn member(&self, env: &Env, host: &str) -> Result<Option<Member>, String> {
        Ok(self.on(host, &self.members(env).await?).cloned())
    }

    /// Tries until it is done or the time is over.
    async fn until<T, F>(
        &self,
        env: &Env,
        deadline: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<T, String>>,
    {
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(why) if env.now() >= deadline => return Err(why),
                Err(_) => env.sleep(PAUSE).await,
            }
        }
    }

    /// Starts a server that joins, with the list of members that came with its place, and again and
    /// again as a service manager would, with the list as it then is, until the peers let it in; then
    /// serves until it is stopped. One that has joined before needs no list.
    pub(crate) async fn serve_joining(
        &self,
        env: Env,
        host: &str,
        mut options: server::Options,
        mut orders: mpsc::Receiver<Order>,
    ) -> Result<(), Fatal> {
        options.member.initial_state = InitialState::Existing;
        if let Some(members) = self.state().joined.get(host) {
            options.member.initial_cluster = members.clone();
        }
        loop {
            match Server::start(env.clone(), options.clone()).await {
                Ok(server) => return until_stopped(server, orders).await,
                Err(fatal) if fatal.context.starts_with("initial-cluster-state existing") => {}
                Err(fatal) => return Err(fatal),
            }
            if matches!(orders.try_recv(), Ok(Order::Stop)) {
                return Ok(());
            }
            env.sleep(PAUSE).await;
            // Any member's word will do: the second member of all is needed for a quorum.
            if let Ok(members) = self.list(&env, false).await {
                options.member.initial_cluster = self.initial_cluster(host, &members);
            }
        }
    }
}

async fn answered<T>(
    env: &Env,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, String> {
    match env.timeout(CALL_LIMIT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(status.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}
