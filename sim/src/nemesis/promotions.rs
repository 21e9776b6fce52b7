//! Promotions that must be refused, called for at every member, whatever it is and knows: of a learner that
//! was never started, which can have nothing of the log, of a member that votes already, and of none.

use std::time::Duration;

use super::acts::Nemesis;
use crate::facts::verdict::{Proof, Violation};

/// What one change gets, faults included.
const LIMIT: Duration = Duration::from_secs(100);
/// An id that no member has.
const NO_MEMBER: u64 = 0x0123_4567_89ab_cdef;
/// The host of the learner that is never started; no name leads there.
const PHANTOM: &str = "phantom";

impl Nemesis {
    /// A change as others are: one at a time, and the heal waits for it.
    pub(super) async fn ask_promotions(&self) {
        if !self.may_change() {
            return;
        }
        let (cluster, env, evidence) =
            (self.cluster.clone(), self.env.clone(), self.evidence.clone());
        self.begin_change("ask-promotions".to_owned(), async move {
            let phantom = cluster.add_phantom(&env, PHANTOM, LIMIT).await?;
            let members = cluster.members(&env).await.unwrap_or_default();
            let voter = members.iter().find(|member| !member.is_learner).map(|member| member.id);
            for host in cluster.names() {
                let asked = [
                    ("a learner that was never started", Some(phantom)),
                    ("a member that votes", voter),
                    ("no member", Some(NO_MEMBER)),
                ];
                for (what, id) in asked.iter().filter_map(|(what, id)| Some((what, (*id)?))) {
                    if cluster.ask_promotion(&env, &host, id).await.is_ok() {
                        let text = format!("{host} has promoted {what}, {id:x}");
                        let at_us = cluster.world().elapsed().as_micros() as u64;
                        let proof = Proof::Member { host: host.clone(), at_us };
                        let property = "only a learner that has caught up becomes a voter";
                        let violation = Violation::new("promotions", property, text);
                        evidence.record().violations.push(violation.proved_by(proof));
                    }
                }
            }
            cluster.remove_id(&env, phantom, LIMIT).await
        });
        self.until_changed().await;
    }
}
