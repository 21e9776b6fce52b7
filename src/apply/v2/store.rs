//! The membership as etcd's v2 store writes itself into a snapshot message. etcd 3.6 and older recover
//! their v2 store from it and end when it does not parse; 3.7 writes it and reads it no more (etcd 3.7,
//! `etcdserver/cluster_util.go`, `membership/storev2.go`, `v2store/store.go`).
//!
//! The shape is that of a v2 store which was made for this purpose: two namespaces, one of them empty,
//! and one operation for each member's raft attributes, attributes, each removed id and the version.
//! The event history, which nothing reads after a recovery, is that of a store without operations.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::apply::membership::{MemberRecord, Membership};

/// How many events the history has room for; etcd indexes into it without a check.
const HISTORY: usize = 1_000;
/// The v2 store's own version.
const VERSION: u32 = 2;
/// Go's zero time: the node does not expire.
const PERMANENT: &str = "0001-01-01T00:00:00Z";

/// The v2 store that holds `members`, as JSON.
pub fn json(members: &Membership) -> Bytes {
    let store = Store::of(members);
    serde_json::to_vec(&store).expect("names, numbers and lists are plain JSON").into()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Store {
    root: Node,
    watcher_hub: WatcherHub,
    current_index: u64,
    stats: Stats,
    current_version: u32,
}

/// A directory has children, a key has `null` for them.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WatcherHub {
    event_history: EventHistory,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EventHistory {
    queue: Queue,
    start_index: u64,
    last_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Queue {
    events: Vec<Option<()>>,
    size: usize,
    front: usize,
    back: usize,
    capacity: usize,
}

/// Counters of operations by kind; a new store's.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    gets_success: u64,
    gets_fail: u64,
    sets_success: u64,
    sets_fail: u64,
    delete_success: u64,
    delete_fail: u64,
    update_success: u64,
    update_fail: u64,
    create_success: u64,
    create_fail: u64,
    compare_and_swap_success: u64,
    compare_and_swap_fail: u64,
    compare_and_delete_success: u64,
    compare_and_delete_fail: u64,
    expire_count: u64,
    watchers: u64,
}

/// The value at `raftAttributes`.
#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

/// The value at `attributes`.
#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl Store {
    fn of(members: &Membership) -> Self {
        let events = std::iter::repeat_with(|| None).take(HISTORY).collect();
        let queue = Queue { events, size: 0, front: 0, back: 0, capacity: HISTORY };
        let mut root = Node::directory("/", 0);
        for namespace in ["0", "1"] {
            root.child(namespace, 0);
        }
        let mut store = Self {
            root,
            watcher_hub: WatcherHub {
                event_history: EventHistory { queue, start_index: 0, last_index: 0 },
            },
            current_index: 0,
            stats: Stats::default(),
            current_version: VERSION,
        };
        for member in members.members.values() {
            store.add(member);
        }
        for id in &members.removed {
            store.stats.create_success += 1;
            store.put(&["0", "removed_members", &id.to_string()], String::new());
        }
        if let Some(version) = &members.cluster_version {
            store.stats.sets_success += 1;
            store.put(&["0", "version"], version.clone());
        }
        store
    }

    fn add(&mut self, member: &MemberRecord) {
        let id = format!("{:x}", member.id);
        let MemberRecord { peer_urls, is_learner, name, client_urls, .. } = member;
        let raft_attributes = RaftAttributes { peer_urls, is_learner: *is_learner };
        self.stats.create_success += 1;
        self.put(&["0", "members", &id, "raftAttributes"], text(&raft_attributes));
        // A member that has not published itself yet has none.
        if member.is_started() || !client_urls.is_empty() {
            self.stats.sets_success += 1;
            self.put(&["0", "members", &id, "attributes"], text(&Attributes { name, client_urls }));
        }
    }

    /// One operation: directories on the way are made with it.
    fn put(&mut self, path: &[&str], value: String) {
        self.current_index += 1;
        let (name, directories) = path.split_last().expect("a key has a name");
        let mut node = &mut self.root;
        for directory in directories {
            node = node.child(directory, self.current_index);
        }
        let key = Node {
            path: node.path_of(name),
            value,
            children: None,
            ..Node::directory("", self.current_index)
        };
        node.children.get_or_insert_default().insert((*name).to_owned(), key);
    }
}

impl Node {
    fn directory(path: &str, index: u64) -> Self {
        Self {
            path: path.to_owned(),
            created_index: index,
            modified_index: index,
            expire_time: PERMANENT,
            value: String::new(),
            children: Some(BTreeMap::new()),
        }
    }

    /// The directory `name` below this one, made if it is missing.
    fn child(&mut self, name: &str, index: u64) -> &mut Self {
        let path = self.path_of(name);
        let children = self.children.get_or_insert_default();
        children.entry(name.to_owned()).or_insert_with(|| Self::directory(&path, index))
    }

    fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.path.trim_end_matches('/'))
    }
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("names and lists are plain JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::types::MemberId;

    fn members() -> Membership {
        let started = MemberRecord {
            id: 0x8e9e_05c5_2164_694d,
            peer_urls: vec!["http://a:2380".into(), "http://b:2380".into()],
            name: "m1".into(),
            client_urls: vec!["http://a:2379".into()],
            ..MemberRecord::default()
        };
        let learner = MemberRecord {
            id: 0xa1,
            peer_urls: vec!["http://c:2380".into()],
            is_learner: true,
            ..MemberRecord::default()
        };
        let members = [learner, started].map(|member| (MemberId(member.id), member));
        Membership {
            members: members.into(),
            removed: [MemberId(0xff)].into(),
            cluster_version: Some("3.6.0".into()),
            ..Membership::default()
        }
    }

    /// Byte for byte what etcd's own store writes after the same operations, but for its history and
    /// statistics.
    #[test]
    fn the_json_is_that_of_etcds_v2_store() {
        let node = |path: &str, index: u64, value: &str, children: &str| {
            format!(
                "{{\"Path\":\"{path}\",\"CreatedIndex\":{index},\"ModifiedIndex\":{index},\
                 \"ExpireTime\":\"0001-01-01T00:00:00Z\",\"Value\":\"{value}\",\"Children\":{children}}}"
            )
        };
        let directory = |path: &str, index, children: &[(&str, String)]| {
            let children = children.iter().map(|(name, node)| format!("\"{name}\":{node}"));
            let children = children.collect::<Vec<_>>().join(",");
            node(path, index, "", &format!("{{{children}}}"))
        };
        let key =
            |path: &str, index, value: &str| node(path, index, &value.replace('"', "\\\""), "null");
        let (learner, voter) = ("/0/members/a1", "/0/members/8e9e05c52164694d");
        let (of_learner, of_voter) =
            (format!("{learner}/raftAttributes"), format!("{voter}/raftAttributes"));
        let learner_raft =
            key(&of_learner, 1, r#"{"peerURLs":["http://c:2380"],"isLearner":true}"#);
        let voter_raft = key(&of_voter, 2, r#"{"peerURLs":["http://a:2380","http://b:2380"]}"#);
        let attributes = key(
            &format!("{voter}/attributes"),
            3,
            r#"{"name":"m1","clientURLs":["http://a:2379"]}"#,
        );
        let voter =
            directory(voter, 2, &[("attributes", attributes), ("raftAttributes", voter_raft)]);
        let learner = directory(learner, 1, &[("raftAttributes", learner_raft)]);
        let members_at =
            directory("/0/members", 1, &[("8e9e05c52164694d", voter), ("a1", learner)]);
        let removed = [("ff", key("/0/removed_members/ff", 4, ""))];
        let removed = directory("/0/removed_members", 4, &removed);
        let version = key("/0/version", 5, "3.6.0");
        let cluster = [("members", members_at), ("removed_members", removed), ("version", version)];
        let cluster = directory("/0", 0, &cluster);
        let root = directory("/", 0, &[("0", cluster), ("1", directory("/1", 0, &[]))]);
        let json = json(&members());
        let json = std::str::from_utf8(&json).expect("text");
        let expected = format!(
            "{{\"Root\":{root},\"WatcherHub\":{{\"EventHistory\":{{\"Queue\":{{\"Events\":[null,"
        );
        assert!(json.starts_with(&expected), "{json}\n{expected}");
        let rest = "null],\"Size\":0,\"Front\":0,\"Back\":0,\"Capacity\":1000},\"StartIndex\":0,\"LastIndex\":0}},\
                    \"CurrentIndex\":5,\"Stats\":{\"getsSuccess\":0,\"getsFail\":0,\"setsSuccess\":2,\"setsFail\":0,";
        assert!(json.contains(rest), "{json}");
        assert!(json.ends_with("\"watchers\":0},\"CurrentVersion\":2}"), "{json}");
        assert_eq!(json.matches("null,").count() + json.matches("null]").count(), HISTORY);
    }
}
