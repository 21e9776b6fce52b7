//! A database of etcd's, restored on a real disk: what the files hold then, bucket by bucket and record by
//! record, and what is refused. That servers take the files in is tested with whole processes.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::raftpb::{ConfChange, Entry};
use tempfile::TempDir;

use super::*;
use crate::engine::Cf;

/// A member's own file, without a hash: see its README.
const ETCD: &[u8] = include_bytes!("../../bbolt/testdata/etcd.db");
const URL: &str = "http://localhost:2380";
const CLUSTER: &str = "a=http://a:2380,b=http://localhost:2380,c=http://c:2380,c=http://d:2380";

/// A folder with the database in it, as a client has saved it.
struct Place {
    dir: TempDir,
    disk: Arc<dyn Disk>,
    /// Holds what the disk's blocking calls belong to.
    _runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let disk = runtime.block_on(async { crate::env::tokio::env().disk });
        let place = Self { dir: tempfile::tempdir().expect("a folder"), disk, _runtime: runtime };
        let sealed = bbolt::seal([Ok(Bytes::from_static(ETCD))].into_iter());
        place.write("backup", &sealed.collect::<io::Result<Vec<_>>>().expect("no errors").concat());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        if self.disk.exists(&path).expect("a disk that works") {
            self.disk.remove(&path).expect("a disk that works");
        }
        let file = self.disk.open(&path, Open::CreateNew).expect("a disk that works");
        file.write_all_at(bytes, 0).expect("a disk that works");
    }

    fn restore(&self) -> Restore {
        Restore {
            name: "b".into(),
            data_dir: Some(self.path("data")),
            initial_cluster: CLUSTER.into(),
            initial_cluster_token: "again".into(),
            ..Restore::new(self.path("backup"))
        }
    }

    fn refusal(&self, change: impl FnOnce(&mut Restore)) -> String {
        let mut restore = self.restore();
        change(&mut restore);
        let why = restore.run(&self.disk).expect_err("this must be refused").to_string();
        why.replace(&*self.dir.path().to_string_lossy(), "DIR")
    }

    fn database(&self, name: &str) -> Database {
        Database::open(self.disk.open(&self.path(name), Open::Read).expect("it is there"))
            .expect("it is a database")
    }
}

type Buckets = BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>;

fn contents(database: &Database) -> Buckets {
    let rows = |bucket: &Bytes| database.iter(bucket).expect("readable").expect("it is there");
    let names = database.buckets().expect("readable").into_iter();
    names
        .map(|name| (name.clone(), rows(&name).collect::<io::Result<_>>().expect("readable")))
        .collect()
}

fn bucket(cf: Cf) -> Bytes {
    Bytes::from_static(cf.name().as_bytes())
}

#[test]
fn only_what_is_the_clusters_own_changes() {
    let place = Place::new();
    place.restore().run(&place.disk).expect("it can be restored");
    let before = contents(&place.database("backup"));
    let mut after = contents(&place.database("data/member/snap/0000000000000003.snap.db"));
    assert_eq!(after.len(), Cf::BUCKETS.len());

    let members = after.insert(bucket(Cf::Members), before[&bucket(Cf::Members)].clone());
    let removed = after.insert(bucket(Cf::MembersRemoved), BTreeMap::new());
    let meta = after.get_mut(&bucket(Cf::Meta)).expect("there is a meta bucket");
    let mut own = |key: &str| meta.remove(key.as_bytes()).expect(key);
    assert_eq!(own("consistent_index")[..], 3_u64.to_be_bytes());
    assert_eq!(own("term")[..], 1_u64.to_be_bytes());
    let cluster = place.restore().cluster().expect("it is a cluster");
    let voters: Vec<_> = cluster.voters().iter().map(u64::to_string).collect();
    assert_eq!(own("confState"), format!("{{\"voters\":[{}]}}", voters.join(",")));
    let mut before = before;
    for key in ["consistent_index", "term", "confState"] {
        before.get_mut(&bucket(Cf::Meta)).expect("it is there").remove(key.as_bytes());
    }
    before.entry(bucket(Cf::MembersRemoved)).or_default();
    assert_eq!(before, after);

    assert_eq!(removed, Some(BTreeMap::new()));
    let expected: BTreeMap<Bytes, Bytes> = [
        ("a", r#""http://a:2380""#),
        ("b", r#""http://localhost:2380""#),
        ("c", r#""http://c:2380","http://d:2380""#),
    ]
    .into_iter()
    .map(|(name, urls)| {
        let record = cluster.members.iter().find(|member| member.name == name).expect(name);
        let id = record.id;
        let json = format!(r#"{{"id":{id},"peerURLs":[{urls}],"name":"{name}"}}"#);
        (format!("{id:x}").into(), json.into())
    })
    .collect();
    assert_eq!(members, Some(expected));
}

/// `etcdctl 3.4 snapshot restore` gives these ids for this name, URL and token.
#[test]
fn the_log_adds_the_members_and_says_that_the_state_has_them() {
    let place = Place::new();
    let restore = place.restore();
    restore.run(&place.disk).expect("it can be restored");
    let dir = place.path("data/member/wal");
    let options = wal::Options::default();
    let marks = Wal::snapshots(&*place.disk, &dir, options).expect("a sound log");
    let cluster = restore.cluster().expect("it is a cluster");
    let mark = walpb::Snapshot { index: 3, term: 1, conf_state: Some(cluster.conf_state()) };
    assert_eq!(marks, [walpb::Snapshot::default(), mark.clone()]);

    let whole = Wal::open(place.disk.clone(), &dir, walpb::Snapshot::default(), options);
    let (_, whole) = whole.expect("a sound log");
    assert_eq!(whole.entries, cluster.entries());
    let nodes: Vec<_> = whole.entries.iter().map(added).collect();
    assert_eq!(nodes, cluster.voters());
    assert!(nodes.is_sorted() && nodes.len() == 3);
    let state = HardState { term: 1, vote: nodes[0], commit: 3 };
    assert_eq!(whole.hard_state, state);
    let metadata = Metadata { node_id: cluster.id.0, cluster_id: cluster.cluster.0 };
    assert_eq!(whole.metadata, metadata);

    let (log, covered) = Wal::open(place.disk.clone(), &dir, mark.clone(), options).expect("sound");
    assert_eq!((covered.snapshot, covered.entries), (mark, Vec::new()));
    assert_eq!(log.last_index(), Index(3));
}

fn added(entry: &Entry) -> u64 {
    let change = <ConfChange as prost::Message>::decode(&entry.data[..]).expect("a change");
    assert_eq!(entry.term, 1);
    assert!(String::from_utf8_lossy(&change.context).contains("\"name\""), "{change:?}");
    change.node_id
}

#[test]
fn revisions_are_passed_over() {
    let place = Place::new();
    let restore = Restore { bump_revision: Some(1000), ..place.restore() };
    restore.run(&place.disk).expect("it can be restored");
    let before = contents(&place.database("backup"));
    let after = contents(&place.database("data/member/snap/0000000000000003.snap.db"));
    let (last, _) = before[&bucket(Cf::Key)].last_key_value().expect("it has keys");
    let main = i64::from_be_bytes(last[..8].try_into().expect("eight bytes"));
    let raised = [&(main + 1000).to_be_bytes()[..], b"_", &[0; 8]].concat();
    let (newest, empty) = after[&bucket(Cf::Key)].last_key_value().expect("it has keys");
    assert_eq!((&newest[..], empty.len()), (&raised[..], 0));
    assert_eq!(after[&bucket(Cf::Key)].len(), before[&bucket(Cf::Key)].len() + 1);
    assert_eq!(after[&bucket(Cf::Meta)][&b"scheduledCompactRev"[..]], raised);

    let why = place.refusal(|it| {
        it.data_dir = Some(place.path("other"));
        it.bump_revision = Some(u64::MAX);
    });
    assert!(why.starts_with("--bump-revision: "), "{why}");
}

#[test]
fn refusals_are_etcds() {
    let place = Place::new();
    assert_eq!(
        place.refusal(|it| it.name = "x".into()),
        "couldn't find local name \"x\" in the initial cluster configuration"
    );
    assert_eq!(
        place.refusal(|it| it.initial_cluster = format!("b={URL},c={URL}")),
        format!("initial cluster b={URL},c={URL} has duplicate url")
    );
    assert_eq!(
        place.refusal(|it| it.advertise_peer_urls = "http://x:1".into()),
        format!(
            "--initial-cluster has b={URL} but missing from --initial-advertise-peer-urls=http://x:1 \
             (resolved urls: \"http://x:1\" != \"{URL}\")"
        )
    );
    assert_eq!(
        place.refusal(|it| it.initial_cluster = "b=localhost".into()),
        "URL scheme must be http, https, unix, or unixs: localhost"
    );
    assert_eq!(
        place.refusal(|it| it.file = place.path("none")),
        "open DIR/none: no such file or directory"
    );
    place.write("bare", ETCD);
    assert_eq!(
        place.refusal(|it| it.file = place.path("bare")),
        "snapshot missing hash but --skip-hash-check=false"
    );
    let computed = <sha2::Sha256 as sha2::Digest>::digest(ETCD);
    place.write("broken", &[ETCD, &[7; 32]].concat());
    assert_eq!(
        place.refusal(|it| it.file = place.path("broken")),
        format!("expected sha256 [{}], got {}", ["7"; 32].join(" "), numbers(&computed))
    );
    assert!(!place.disk.exists(&place.path("data")).expect("a disk that works"), "nothing is left");

    for (file, data) in [("bare", "one"), ("broken", "two")] {
        let restore = Restore {
            file: place.path(file),
            data_dir: Some(place.path(data)),
            skip_hash_check: true,
            ..place.restore()
        };
        restore.run(&place.disk).expect("the hash is not looked at");
    }
    assert_eq!(
        place.refusal(|it| it.data_dir = Some(place.path("one"))),
        "data-dir \"DIR/one\" not empty or could not be read"
    );
    assert_eq!(
        place.refusal(|it| it.wal_dir = Some(place.path("one/member/wal"))),
        "wal-dir \"DIR/one/member/wal\" exists"
    );
}
