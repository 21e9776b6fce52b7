//! Steps that the members themselves must agree to: changes of the membership. They go on until they are
//! done, whatever else happens meanwhile, one at a time, and the heal waits for them. A member whose files
//! are rotten is removed and comes back on a new disk in the same way, while a quorum of others is sound.

use std::time::Duration;

use super::acts::Nemesis;
use super::fault::{Fault, Place};
use crate::certificates;
use crate::cluster::Cluster;
use crate::dice::Dice;

/// What one change gets, faults included.
const CHANGE_LIMIT: Duration = Duration::from_secs(100);
/// What all changes get once the cluster is healed: more than is left to the last one.
const FINISH_LIMIT: Duration = Duration::from_secs(120);
/// What a member with a rotten file gets to notice.
const ROT_LIMIT: Duration = Duration::from_secs(4);
const LOOK: Duration = Duration::from_millis(100);

impl Nemesis {
    /// Makes a change, where there is none under way and no member is lost: what is left must always
    /// be able to agree.
    pub(super) async fn change(&self, fault: &Fault) {
        if !self.may_change() || !makes_sense(&self.cluster, fault) {
            return;
        }
        let label = fault.to_string();
        let (cluster, env, fault) = (self.cluster.clone(), self.env.clone(), fault.clone());
        self.begin_change(label, async move {
            let limit = CHANGE_LIMIT;
            match &fault {
                Fault::Add(host, learner) => cluster.add_member(&env, host, *learner, limit).await,
                Fault::Promote(host) => cluster.promote(&env, host, limit).await,
                Fault::Remove(host) => cluster.remove_member(&env, host, limit).await,
                Fault::Replace(old, fresh) => cluster.replace(&env, old, fresh, limit).await,
                _ => Ok(()),
            }
        });
        self.until_changed().await;
    }

    /// Whether no change is under way, and no member lost.
    pub(super) fn may_change(&self) -> bool {
        let state = self.changes.state();
        state.pending.is_empty() && state.lost.is_empty()
    }

    /// A task of its own, so that the end of the faults does not leave it half done.
    pub(super) fn begin_change(
        &self,
        label: String,
        change: impl Future<Output = Result<(), String>> + Send + 'static,
    ) {
        let changes = self.changes.clone();
        changes.state().pending.push(label.clone());
        drop(self.env.spawn("change of members", async move {
            let outcome = change.await;
            changes.ended(&label, outcome);
        }));
    }

    pub(super) async fn until_changed(&self) {
        while self.changes.pending() {
            self.env.sleep(LOOK).await;
        }
    }

    pub(super) async fn finish_changes(&self) -> Result<(), String> {
        let done = self.env.timeout(FINISH_LIMIT, self.until_changed()).await;
        let state = self.changes.state();
        match (done, state.failed.first()) {
            (Ok(()), None) => Ok(()),
            (_, Some(failed)) => Err(failed.clone()),
            (Err(_), None) => Err(format!("{} is not done", state.pending.join(", "))),
        }
    }

    /// Kills the member, changes one bit of its files and starts it again. It should refuse to serve
    /// from them; whether it does or not, its disk is replaced, if the plan is to be survived.
    pub(super) async fn rot(&self, number: usize, host: &str, place: Place) {
        if self.survivable && !self.may_lose(host) {
            return;
        }
        let world = self.cluster.world();
        world.kill(host);
        let mut dice = Dice::of(world.seed(), &format!("rot {number}"));
        let contents = |path: &str| world.disk(host).contents(path).unwrap_or_default();
        let Some((file, offset)) = rotten(&world.disk(host).files(), place, &mut dice, contents)
        else {
            return self.cluster.start(host).await;
        };
        self.changes.state().lost.insert(host.to_owned());
        let flipped = world.disk(host).flip_bit(&file, offset, dice.below(8) as u8);
        flipped.expect("the file was listed just now");
        self.cluster.excuse(host);
        if !self.survivable {
            return self.cluster.start(host).await;
        }
        let (cluster, env, changes) =
            (self.cluster.clone(), self.env.clone(), self.changes.clone());
        let name = host.to_owned();
        self.begin_change(format!("readmit {host}"), async move {
            cluster.start(&name).await;
            let ended = || !cluster.world().is_running(&name);
            cluster.world().wait_until(ROT_LIMIT, ended).await;
            cluster.retire(&name);
            cluster.remove_member(&env, &name, CHANGE_LIMIT).await?;
            cluster.add_member(&env, &name, true, CHANGE_LIMIT).await?;
            changes.state().lost.remove(&name);
            cluster.promote(&env, &name, CHANGE_LIMIT).await
        });
        self.until_changed().await;
    }

    /// Whether the sound voters are a quorum without `host`, and stay one.
    fn may_lose(&self, host: &str) -> bool {
        let voters = self.cluster.voters();
        !self.changes.pending()
            && voters.iter().any(|voter| voter == host)
            && (voters.len() - 1) * 2 > voters.len()
    }
}

/// Whether the step is about members that there are, or are not, as it takes them to be.
fn makes_sense(cluster: &Cluster, fault: &Fault) -> bool {
    let is_there = |host: &String| cluster.names().contains(host);
    let votes = |host: &String| cluster.voters().contains(host);
    match fault {
        Fault::Add(host, _) => !is_there(host),
        Fault::Promote(host) => is_there(host) && !votes(host),
        Fault::Remove(host) => is_there(host) && (!votes(host) || cluster.voters().len() > 1),
        Fault::Replace(old, fresh) => votes(old) && !is_there(fresh),
        _ => false,
    }
}

/// Which bit of which file: path and offset.
fn rotten(
    files: &[(String, u64)],
    place: Place,
    dice: &mut Dice,
    contents: impl Fn(&str) -> Vec<u8>,
) -> Option<(String, u64)> {
    let is_log = |path: &str| path.ends_with(".wal");
    let is_own = |path: &str| !path.starts_with(certificates::FOLDER);
    let wanted = |path: &&str| is_own(path) && is_log(path) == (place != Place::Snapshot);
    let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).filter(wanted).collect();
    let path = match place {
        Place::Tail | Place::Snapshot => *paths.last()?,
        Place::Middle if paths.is_empty() => return None,
        // Far from the last write, of which a damaged record might be a torn part.
        Place::Middle => *dice.pick(&paths[..(paths.len() - 1).max(1)]),
    };
    let bytes = contents(path);
    // Segments are longer than what is written in them.
    let end = bytes.iter().rposition(|byte| *byte != 0)? as u64 + 1;
    let offset = match place {
        Place::Tail => dice.between(end.saturating_sub(64)..=end - 1),
        Place::Middle => dice.between(0..=end / 2),
        Place::Snapshot => dice.between(0..=end - 1),
    };
    Some((path.to_owned(), offset))
}
