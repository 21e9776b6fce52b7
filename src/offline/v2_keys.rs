//! The keys of etcd's API v2 (`--enable-v2`, 3.5 and older) in a data directory: names to warn of, because
//! nothing of that store is taken over. What a `.snap` file holds and what the log does after it; a key that
//! has expired, or whose conditional deletion has succeeded, may be among them.

use std::collections::{BTreeMap, BTreeSet};

use quorate_proto::raftpb::Entry;
use serde::Deserialize;

use crate::apply::v2::{self, KeyChange};

/// How many names a warning has.
const SHOWN: usize = 5;
/// Where the v2 store has clients' keys; `/0` is etcd's own.
const CLIENTS: &str = "/1";

/// A node of the v2 store as a `.snap` file has it.
#[derive(Deserialize)]
struct Node {
    /// Of a directory only.
    #[serde(rename = "Children", default)]
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Deserialize)]
struct Store {
    #[serde(rename = "Root")]
    root: Node,
}

/// The names of the keys. `store` is the data of a `.snap` file, `entries` the log after it.
pub(super) fn find<'a>(store: &[u8], entries: impl Iterator<Item = &'a Entry>) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    if let Ok(store) = serde_json::from_slice::<Store>(store) {
        let clients = store.root.children.into_iter().flatten();
        for (_, node) in clients.filter(|(name, _)| *name == CLIENTS[1..]) {
            collect(String::new(), node, &mut keys);
        }
    }
    for entry in entries {
        let Some(change) = v2::key_change(&entry.data) else { continue };
        let name = |path: String| path.strip_prefix(CLIENTS).map(str::to_owned);
        match change {
            KeyChange::Set(path) => keys.extend(name(path)),
            // The name is a number that etcd draws.
            KeyChange::Queued(path) => {
                keys.extend(name(path).map(|path| format!("{path}/(entry {})", entry.index)));
            }
            KeyChange::Deleted(path) => {
                if let Some(path) = name(path) {
                    let below = format!("{path}/");
                    keys.retain(|key| *key != path && !key.starts_with(&below));
                }
            }
        }
    }
    keys.retain(|key| key.starts_with('/'));
    keys
}

fn collect(path: String, node: Node, keys: &mut BTreeSet<String>) {
    match node.children {
        None => drop(keys.insert(path)),
        Some(children) => {
            for (name, child) in children {
                collect(format!("{path}/{name}"), child, keys);
            }
        }
    }
}

/// Some of the names, for people.
pub(super) fn shown(keys: &BTreeSet<String>) -> String {
    let names: Vec<_> = keys.iter().take(SHOWN).map(String::as_str).collect();
    let more = if keys.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", names.join(", "))
}
