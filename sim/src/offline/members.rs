//! The small buckets: that the configuration of consensus is the member table, that a removed member is
//! not in it, and that leases decode.

use std::collections::BTreeSet;

use prost::Message;
use quorate_proto::leasepb;
use serde::Deserialize;

use super::store::Store;
use crate::facts::seen::Update;

/// A row of bucket `members`.
#[derive(Deserialize)]
struct Member {
    id: u64,
    #[serde(rename = "isLearner", default)]
    learner: bool,
    #[serde(rename = "peerURLs", default)]
    urls: Vec<String>,
}

/// `confState` of bucket `meta`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
}

/// What does not fit.
pub fn inside(store: &Store) -> Vec<String> {
    let mut faults = Vec::new();
    let mut table = Configuration::default();
    for (key, value) in store.rows("members") {
        match serde_json::from_slice::<Member>(value) {
            Ok(member) if format!("{:x}", member.id).as_bytes() == key => {
                let list = if member.learner { &mut table.learners } else { &mut table.voters };
                list.insert(member.id);
            }
            Ok(member) => {
                faults.push(format!("member {:x} is filed under {}", member.id, text(key)))
            }
            Err(error) => faults.push(format!("member {}: {error}", text(key))),
        }
        if store.rows("members_removed").contains_key(key) {
            faults.push(format!("member {} is there and was removed", text(key)));
        }
    }
    match configuration(store) {
        Err(fault) => faults.push(fault),
        Ok(known) if (&known.voters, &known.learners) != (&table.voters, &table.learners) => {
            faults.push(format!(
                "consensus has voters {:x?} and learners {:x?}, the member table {:x?} and {:x?}",
                known.voters, known.learners, table.voters, table.learners
            ));
        }
        Ok(_) => {}
    }
    for (key, value) in store.rows("lease") {
        let id = leasepb::Lease::decode(&value[..]).map(|lease| lease.id.to_be_bytes());
        if id.as_ref().map(|id| &id[..]) != Ok(&key[..]) {
            faults.push(format!("lease {}: {value:02x?}", text(key)));
        }
    }
    faults
}

/// Members whose stored URLs are not those that they were given last. A call without an answer may have been
/// done at any later time.
pub fn updated(store: &Store, updates: &[Update]) -> Vec<String> {
    let mut faults = Vec::new();
    for value in store.rows("members").values() {
        let Ok(member) = serde_json::from_slice::<Member>(value) else { continue };
        let of: Vec<_> = updates.iter().filter(|update| update.id == member.id).collect();
        let Some(last) = of.iter().rev().find(|update| update.sure) else { continue };
        let may_be = of.iter().any(|update| !update.sure && update.urls == member.urls);
        if member.urls != last.urls && !may_be {
            let (id, given) = (member.id, &last.urls);
            faults.push(format!("member {id:x} is at {:?}, it was given {given:?}", member.urls));
        }
    }
    faults
}

fn configuration(store: &Store) -> Result<Configuration, String> {
    match store.rows("meta").get(&b"confState"[..]) {
        None => Ok(Configuration::default()),
        Some(json) => serde_json::from_slice(json).map_err(|error| format!("confState: {error}")),
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
