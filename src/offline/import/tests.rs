//! Directories of etcd's on a real disk, brought in and out again: a real database with logs made for it,
//! what is corrected, and what is refused with nothing changed. That servers of both kinds start on the
//! results is tested with whole processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message as _;
use quorate_proto::raftpb::{self, ConfChange, ConfState, Entry, EntryType, HardState};
use quorate_proto::{etcdserverpb as pb, snappb, walpb};
use tempfile::TempDir;

use super::*;
use crate::apply::membership::{MemberRecord, add_change, promote_change, remove_change};
use crate::apply::{Request, v2};
use crate::bbolt::{self, Database, Source};
use crate::env::Open;
use crate::offline::Export;
use crate::wal::{self, Save, Wal};

/// A member's own file, see its README: the state at entry 10.
const ETCD: &[u8] = include_bytes!("../../bbolt/testdata/etcd.db");
const MEMBER: u64 = 0x0628_170c_800d_bcee;
const APPLIED: u64 = 10;

type Buckets = BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>;

/// A database from rows.
struct Made(Buckets);

impl Source for Made {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(self.0.keys().cloned().collect())
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<bbolt::Scan> {
        Ok(Box::new(self.0[bucket].clone().into_iter().map(Ok)))
    }
}

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
        Self { dir: tempfile::tempdir().expect("a folder"), disk, _runtime: runtime }
    }

    /// A member's directory with that database and a log of these entries, marked at one of them.
    fn etcd(database: &[u8], entries: &[Entry], mark: Option<walpb::Snapshot>) -> Self {
        let place = Self::new();
        let snap = place.path("etcd/member/snap");
        place.disk.create_dir_all(&snap).expect("a disk that works");
        place.write("etcd/member/snap/db", database);
        let metadata = pb::Metadata { node_id: MEMBER, cluster_id: 7 };
        let dir = place.path("etcd/member/wal");
        let options = wal::Options::default();
        let mut log =
            Wal::create(place.disk.clone(), &dir, &metadata, options).expect("no log yet");
        let commit = entries.len() as u64 - 1;
        let hard_state = Some(HardState { term: 3, vote: MEMBER, commit });
        let mut saves = vec![Save::Entries { hard_state, entries: entries.to_vec() }];
        saves.extend(mark.map(Save::Snapshot));
        log.save(&saves).expect("a disk that works");
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

    fn read(&self, path: &Path) -> Vec<u8> {
        let file = self.disk.open(path, Open::Read).expect("it is there");
        let mut bytes = vec![0; file.len().expect("a disk that works") as usize];
        file.read_at(&mut bytes, 0).expect("a disk that works");
        bytes
    }

    /// Every file of etcd's directory.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in ["etcd/member/snap", "etcd/member/wal"] {
            for name in self.disk.list(&self.path(folder)).expect("it is there") {
                let path = self.path(folder).join(&name);
                files.insert(name, self.read(&path));
            }
        }
        files
    }

    fn import(&self) -> Result<Moved, RestoreError> {
        let (from, to) = (self.path("etcd"), self.path("ours"));
        Import { from, wal_dir: None, to }.run(&self.disk)
    }

    fn export(&self, cluster_version: Option<&str>) -> Result<Moved, RestoreError> {
        let cluster_version = cluster_version.map(str::to_owned);
        let (from, to) = (self.path("ours"), self.path("back"));
        Export { from, wal_dir: None, to, cluster_version }.run(&self.disk)
    }

    /// The refusal of an import, after which all is as before.
    fn refusal(&self) -> String {
        let before = self.files();
        let why = self.import().expect_err("this must be refused").to_string();
        assert!(before == self.files(), "nothing changes: {why}");
        for name in ["ours", "ours.unfinished"] {
            assert!(!self.disk.exists(&self.path(name)).expect("a disk that works"), "{why}");
        }
        why.replace(&*self.dir.path().to_string_lossy(), "DIR")
    }

    fn database(&self, name: &str) -> Buckets {
        let file = self.disk.open(&self.path(name), Open::Read).expect("it is there");
        contents(&Database::open(file).expect("it is a database"))
    }
}

fn contents(database: &Database) -> Buckets {
    let rows = |bucket: &Bytes| database.iter(bucket).expect("readable").expect("it is there");
    let names = database.buckets().expect("readable").into_iter();
    names
        .map(|name| (name.clone(), rows(&name).collect::<io::Result<_>>().expect("readable")))
        .collect()
}

/// The real database with other rows.
fn changed(change: impl FnOnce(&mut Buckets)) -> Vec<u8> {
    let place = Place::new();
    place.write("db", ETCD);
    let mut made = Made(place.database("db"));
    change(&mut made.0);
    let plan = bbolt::plan(&made).expect("it can be laid out");
    plan.emit(&made).collect::<io::Result<Vec<_>>>().expect("no errors").concat()
}

fn set(buckets: &mut Buckets, cf: Cf, key: &str, value: impl Into<Bytes>) {
    let bucket = buckets.get_mut(cf.name().as_bytes()).expect("etcd has it");
    bucket.insert(Bytes::copy_from_slice(key.as_bytes()), value.into());
}

fn entry(index: u64, kind: EntryType, data: Vec<u8>) -> Entry {
    Entry { r#type: kind as i32, term: 2, index, data: data.into() }
}

fn change(index: u64, change: &ConfChange) -> Entry {
    entry(index, EntryType::EntryConfChange, change.encode_to_vec())
}

fn member(id: u64, is_learner: bool) -> MemberRecord {
    let peer_urls = vec![format!("http://m{id}:2380")];
    MemberRecord { id, peer_urls, is_learner, ..MemberRecord::default() }
}

/// The log of the database: the member, entries without effect up to its index, a put, and one more that
/// is not committed.
fn entries() -> Vec<Entry> {
    let mut entries = vec![change(1, &add_change(&member(MEMBER, false)))];
    entries.extend((2..=APPLIED).map(|index| entry(index, EntryType::EntryNormal, Vec::new())));
    let put = |key: &'static str| {
        let put = pb::PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        let header = Some(pb::RequestHeader { id: 100, ..Default::default() });
        let request = pb::InternalRaftRequest { header, put: Some(put), ..Default::default() };
        request.encode_to_vec()
    };
    entries.push(entry(APPLIED + 1, EntryType::EntryNormal, put("committed")));
    entries.push(entry(APPLIED + 2, EntryType::EntryNormal, put("open")));
    entries
}

fn voter() -> ConfState {
    ConfState { voters: vec![MEMBER], ..ConfState::default() }
}

#[test]
fn a_directory_is_brought_in_and_back() {
    let place = Place::etcd(ETCD, &entries(), None);
    let before = place.files();
    let moved = place.import().expect("it can be brought in");
    assert!(before == place.files(), "etcd's directory stays as it was");
    assert_eq!((moved.member, moved.cluster), (MemberId(MEMBER), ClusterId(7)));
    assert_eq!((moved.applied, moved.entries), (Index(APPLIED), 2));
    let shown = moved.to_string();
    assert!(shown.contains("state at entry 10, 2 entries of the log after it"), "{shown}");

    let dir = place.path("ours/member/wal");
    let at = walpb::Snapshot { index: APPLIED, ..walpb::Snapshot::default() };
    let log = Wal::read(&*place.disk, &dir, at, wal::Options::default()).expect("a sound log");
    assert_eq!(log.snapshot, walpb::Snapshot { index: 10, term: 2, conf_state: Some(voter()) });
    assert_eq!(log.entries, entries()[10..]);
    assert_eq!(log.hard_state, HardState { term: 3, vote: MEMBER, commit: 11 });

    let out = place.export(None).expect("it can be brought back");
    assert_eq!((out.applied, out.entries), (Index(APPLIED + 1), 1), "what is committed is applied");
    assert_eq!(out.fingerprint.hash_revision.0, moved.fingerprint.hash_revision.0 + 1);
    let (mut was, mut is) =
        (place.database("etcd/member/snap/db"), place.database("back/member/snap/db"));
    let key = Bytes::from_static(Cf::Key.name().as_bytes());
    let meta = Bytes::from_static(Cf::Meta.name().as_bytes());
    let (_, record) = is.get_mut(&key).expect("a bucket").pop_last().expect("the put");
    assert!(record.windows(9).any(|part| part == b"committed"));
    let row = is[&meta][&b"consistent_index"[..]].clone();
    assert_eq!(row[..], (APPLIED + 1).to_be_bytes());
    for buckets in [&mut was, &mut is] {
        buckets.remove(&meta);
    }
    assert!(was == is, "all else is as etcd had it");

    let snap = place.read(&place.path("back/member/snap/0000000000000002-000000000000000b.snap"));
    let sealed = snappb::Snapshot::decode(&snap[..]).expect("a snapshot file");
    assert_eq!(sealed.crc, crc32c::crc32c(&sealed.data));
    let snapshot = raftpb::Snapshot::decode(sealed.data).expect("a snapshot");
    let metadata = snapshot.metadata.expect("it has metadata");
    assert_eq!((metadata.index, metadata.conf_state), (APPLIED + 1, Some(voter())));
    assert!(snapshot.data.starts_with(b"{\"Root\""), "the v2 store");

    // And in again, from what was written.
    let again = Import { from: place.path("back"), wal_dir: None, to: place.path("again") };
    let again = again.run(&place.disk).expect("it can be brought in");
    assert_eq!((again.fingerprint, again.entries), (out.fingerprint, 1));
}

#[test]
fn an_older_etcd_finds_no_version_above_its_own() {
    let database = changed(|rows| {
        set(rows, Cf::Cluster, "clusterVersion", "3.7.0");
        set(rows, Cf::Cluster, "downgrade", r#"{"target-version":"3.6.0","enabled":true}"#);
        set(rows, Cf::Meta, "storageVersion", "3.7.0");
    });
    let place = Place::etcd(&database, &entries(), None);
    place.import().expect("it can be brought in");
    let refused = |version| place.export(Some(version)).expect_err("refused").to_string();
    assert_eq!(refused("3.8"), "--cluster-version 3.8.0 is above that of the cluster, 3.7.0");
    assert_eq!(refused("3.4"), "--cluster-version 3.4 is no version from 3.5 on");
    place.export(Some("3.5")).expect("it can be brought back");
    let is = place.database("back/member/snap/db");
    let cluster = &is[&b"cluster"[..]];
    assert_eq!(cluster[&b"clusterVersion"[..]], "3.5.0");
    assert_eq!(cluster[&b"downgrade"[..]], r#"{"target-version":"","enabled":false}"#);
    assert!(!is[&b"meta"[..]].contains_key(&b"storageVersion"[..]), "which 3.5 does not know");
}

#[test]
fn members_are_those_of_the_configuration() {
    let database = changed(|rows| {
        // Promoted and removed, of which releases up to 3.5 wrote nothing into this bucket.
        for (id, is_learner) in [(0xa1, true), (0xb2, false)] {
            let (key, value) = member(id, is_learner).row();
            set(rows, Cf::Members, &String::from_utf8_lossy(&key), value);
        }
    });
    let mut log = entries();
    log[1] = change(2, &add_change(&member(0xa1, true)));
    log[2] = change(3, &add_change(&member(0xb2, false)));
    log[3] = change(4, &promote_change(MemberId(0xa1)));
    log[4] = change(5, &remove_change(MemberId(0xb2)));
    let place = Place::etcd(&database, &log, None);
    place.import().expect("it can be brought in");
    place.export(None).expect("and back");
    let is = place.database("back/member/snap/db");
    let members: Vec<MemberRecord> = is[&b"members"[..]]
        .values()
        .map(|json| serde_json::from_slice(json).expect("a member"))
        .collect();
    let shown: BTreeSet<_> = members.iter().map(|one| (one.id, one.is_learner)).collect();
    assert_eq!(shown, BTreeSet::from([(MEMBER, false), (0xa1, false)]));
    assert!(is[&b"members_removed"[..]].contains_key(&b"b2"[..]), "and it never returns");
}

/// 3.4 has carried them out in its bucket before its index counts them; the server applies them again.
#[test]
fn changes_of_members_after_the_state_are_left_to_the_log() {
    let database = changed(|rows| {
        let (key, value) = member(0xc3, false).row();
        set(rows, Cf::Members, &String::from_utf8_lossy(&key), value);
        set(rows, Cf::MembersRemoved, "b2", "removed");
    });
    let mut log = entries();
    log[2] = change(3, &add_change(&member(0xb2, false)));
    log.insert(10, change(11, &add_change(&member(0xc3, false))));
    log.insert(11, change(12, &remove_change(MemberId(0xb2))));
    for (entry, index) in log.iter_mut().zip(1..) {
        entry.index = index;
    }
    let place = Place::etcd(&database, &log, None);
    place.import().expect("it can be brought in");
    let engine = Engine::open(&place.path("ours/member/store"), &engine::Options::default());
    let store = Store::open(engine.expect("it is whole")).expect("it is whole");
    let machine = StateMachine::load(&store).expect("it is whole");
    let listed = machine.members.members.values();
    let ids: Vec<_> = listed.map(|one| (one.id, one.peer_urls.len())).collect();
    assert_eq!(ids, [(0xb2, 1), (MEMBER, 1)]);
    assert!(machine.members.removed.is_empty(), "{:?}", machine.members.removed);
    drop((machine, store));
    // What is committed is applied on the way back.
    place.export(None).expect("and back");
    let is = place.database("back/member/snap/db");
    let listed: Vec<_> = is[&b"members"[..]].keys().collect();
    assert_eq!(listed, [&*format!("{MEMBER:x}"), "c3"]);
    assert_eq!(is[&b"members_removed"[..]].keys().collect::<Vec<_>>(), ["b2"]);
}

/// As a shell completes a folder's name.
#[test]
fn the_new_folder_may_be_named_with_a_slash_and_is_not_in_the_old_one() {
    let place = Place::etcd(ETCD, &entries(), None);
    place.disk.create_dir_all(&place.path("ours")).expect("a disk that works");
    let into = |to: &str| Import { from: place.path("etcd"), wal_dir: None, to: place.path(to) };
    let why = into("etcd/ours/").run(&place.disk).expect_err("it changes").to_string();
    assert!(why.ends_with("/etcd, which must not change"), "{why}");
    into("ours/").run(&place.disk).expect("it can be brought in");
    let names = place.disk.list(&place.path("ours")).expect("it is there");
    assert_eq!(names, ["member"]);
}

/// 3.4 writes no configuration into its marks, and none into its database.
#[test]
fn the_configuration_may_be_in_a_file_of_its_own() {
    let mark = walpb::Snapshot { index: 4, term: 2, conf_state: None };
    let place = Place::etcd(ETCD, &entries(), None);
    let dir = place.path("etcd/member/wal");
    let at = walpb::Snapshot::default();
    let options = wal::Options::default();
    let (mut log, _) = Wal::open(place.disk.clone(), &dir, at, options).expect("a sound log");
    log.save(&[Save::Snapshot(walpb::Snapshot { conf_state: Some(voter()), ..mark.clone() })])
        .expect("a disk that works");
    drop(log);
    let metadata =
        raftpb::SnapshotMetadata { conf_state: Some(voter()), index: mark.index, term: mark.term };
    let data = raftpb::Snapshot { metadata: Some(metadata), ..Default::default() }.encode_to_vec();
    let file = "etcd/member/snap/0000000000000002-0000000000000004.snap";
    let sealed = snappb::Snapshot { crc: crc32c::crc32c(&data), data: data.into() };
    place.write(file, &sealed.encode_to_vec());
    let read = super::super::etcd::parse_snap(sealed.encode_to_vec().into());
    assert_eq!(read, Some((voter(), Bytes::new())));
    let broken = snappb::Snapshot { crc: sealed.crc ^ 1, ..sealed };
    assert_eq!(super::super::etcd::parse_snap(broken.encode_to_vec().into()), None);
    place.import().expect("it can be brought in");
}

/// Keys of the API v2 in a snapshot file, and requests of it in the log behind that; on one of them both the
/// snapshot and the log agree.
fn with_v2_keys() -> Place {
    let old = |method: &str, path: &str| v2::payload(1, method, path, "v");
    let inside = |request: Vec<u8>| {
        let mut payload = vec![2 << 3 | 2, request.len() as u8];
        payload.extend(request);
        payload
    };
    let mut entries = entries();
    for (at, data) in [
        old("PUT", "/1/app/new"),
        inside(old("PUT", "/1/inside")),
        old("DELETE", "/1/gone"),
        old("POST", "/1/queue"),
        old("PUT", "/0/version"),
        old("SYNC", ""),
    ]
    .into_iter()
    .enumerate()
    {
        entries[4 + at].data = data.into();
    }
    let mark = walpb::Snapshot { index: 4, term: 2, conf_state: Some(voter()) };
    let place = Place::etcd(ETCD, &entries, Some(mark));
    let metadata = raftpb::SnapshotMetadata { conf_state: Some(voter()), index: 4, term: 2 };
    let store = r#"{"Root": {"Path": "/", "Children": {
        "0": {"Path": "/0", "Children": {"version": {"Path": "/0/version", "Value": "3.4.0"}}},
        "1": {"Path": "/1", "Children": {
            "app": {"Path": "/1/app", "Children": {"old": {"Value": "v", "Children": null}}},
            "empty": {"Path": "/1/empty", "Children": {}},
            "gone": {"Path": "/1/gone", "Children": {"k": {"Value": "v", "Children": null}}}
        }}
    }}, "CurrentIndex": 9}"#;
    let data =
        raftpb::Snapshot { metadata: Some(metadata), data: Bytes::from_static(store.as_bytes()) };
    let data = data.encode_to_vec();
    let sealed = snappb::Snapshot { crc: crc32c::crc32c(&data), data: data.into() };
    place.write("etcd/member/snap/0000000000000002-0000000000000004.snap", &sealed.encode_to_vec());
    place
}

/// They are gone with 3.6; an import that did not report them would lose them silently.
#[test]
fn keys_of_the_api_v2_that_are_left_behind_are_named() {
    let place = with_v2_keys();
    let moved = place.import().expect("they are no reason to refuse");
    let names = ["/app/new", "/app/old", "/inside", "/queue/(entry 8)"];
    assert_eq!(moved.v2_keys, names.map(str::to_owned).into());
    let shown = moved.to_string();
    let warning = "warning: 4 keys of the API v2 are not taken over: /app/new, /app/old, /inside, \
                   /queue/(entry 8)\n";
    assert!(shown.ends_with(warning), "{shown}");

    // Without its file what is in the log still counts; damage to what is not needed is none.
    for damage in [true, false] {
        let place = with_v2_keys();
        let file = "etcd/member/snap/0000000000000002-0000000000000004.snap";
        match damage {
            true => place.write(file, b"damaged"),
            false => place.disk.remove(&place.path(file)).expect("a disk that works"),
        }
        let moved = place.import().expect("the file is not needed");
        assert_eq!(moved.v2_keys.len(), 3, "{moved}");
    }
    let moved = Place::etcd(ETCD, &entries(), None).import().expect("it can be brought in");
    assert_eq!(moved.v2_keys, BTreeSet::new());
    assert!(!moved.to_string().contains("API v2"), "{moved}");
}

#[test]
fn damage_is_refused() {
    let place = Place::etcd(ETCD, &entries(), None);
    let log = "etcd/member/wal/0000000000000000-0000000000000000.wal";
    let mut bytes = place.read(&place.path(log));
    bytes[150] ^= 1;
    place.write(log, &bytes);
    assert!(place.refusal().contains("is damaged at offset"), "{}", place.refusal());

    let place = Place::etcd(&ETCD[..ETCD.len() / 2], &entries(), None);
    assert!(place.refusal().starts_with("read DIR/etcd/member/snap/db: "), "{}", place.refusal());

    let short = entries()[..5].to_vec();
    let place = Place::etcd(ETCD, &short, None);
    let why = "the log in DIR/etcd/member/wal ends at entry 5, but the database holds entry 10";
    assert_eq!(place.refusal(), why);

    let ahead = walpb::Snapshot { index: 11, term: 2, conf_state: Some(voter()) };
    let place = Place::etcd(ETCD, &entries(), Some(ahead));
    let why = place.refusal();
    assert!(
        why.contains("state at entry 10, but the log begins at the snapshot at entry 11"),
        "{why}"
    );

    let mut foreign = entries();
    foreign[11] = entry(12, EntryType::EntryNormal, b"\xff\xff".to_vec());
    let place = Place::etcd(ETCD, &foreign, None);
    assert!(place.refusal().starts_with("log entry 12 of 2 bytes does not decode"));

    let lost = changed(|rows| rows.get_mut(&b"members"[..]).expect("a bucket").clear());
    let place = Place::etcd(&lost, &entries(), None);
    let why = format!("member {MEMBER:x} is part of the configuration, but not of the database");
    assert_eq!(place.refusal(), why);
}

#[test]
fn what_another_release_has_written_is_refused() {
    for (version, remedy) in [("3.9.0", "newer than this release"), ("3.3.0", "to 3.4 first")] {
        let database = changed(|rows| set(rows, Cf::Cluster, "clusterVersion", version));
        let why = Place::etcd(&database, &entries(), None).refusal();
        assert!(why.contains(version) && why.contains(remedy), "{why}");
    }
    let database = changed(|rows| set(rows, Cf::Meta, "storageVersion", "3.8.0"));
    assert!(Place::etcd(&database, &entries(), None).refusal().contains("etcd 3.8.0"));
}

#[test]
fn only_a_stopped_members_directory_is_taken_and_none_is_overwritten() {
    let place = Place::etcd(ETCD, &entries(), None);
    let running = place.disk.lock(&place.path("etcd/member/snap/db")).expect("it is free");
    assert_eq!(place.refusal(), "DIR/etcd/member/snap/db is in use: stop the member first");
    drop(running);
    place
        .disk
        .remove(&place.path("etcd/member/wal/0000000000000000-0000000000000000.wal"))
        .expect("it is there");
    let why =
        "there is no log in DIR/etcd/member/wal: --wal-dir names its folder if it is elsewhere";
    assert_eq!(place.refusal(), why);

    let place = Place::etcd(ETCD, &entries(), None);
    place.import().expect("it can be brought in");
    let again = place.import().expect_err("it is there").to_string();
    assert!(again.ends_with("is not empty or could not be read"), "{again}");
    let ours = Import { from: place.path("ours"), wal_dir: None, to: place.path("third") };
    let why = ours.run(&place.disk).expect_err("not etcd's").to_string();
    assert!(why.ends_with("it is a data directory of Quorate"), "{why}");
    let etcds = Export {
        from: place.path("etcd"),
        wal_dir: None,
        to: place.path("third"),
        cluster_version: None,
    };
    let why = etcds.run(&place.disk).expect_err("not ours").to_string();
    assert!(why.ends_with("there is no member/store in it"), "{why}");
    assert!(!place.disk.exists(&place.path("third")).expect("a disk that works"));
}

/// Requests that only newer releases know stay out of an older one's log.
#[test]
fn an_open_entry_of_a_newer_release_is_refused() {
    let mut log = entries();
    let set = quorate_proto::membershippb::ClusterVersionSetRequest { ver: "3.7.0".into() };
    let header = pb::RequestHeader { id: 9, ..Default::default() };
    log[11] = entry(12, EntryType::EntryNormal, Request::from(set).encode(&header).to_vec());
    let database = changed(|rows| set_version(rows, "3.6.0"));
    let place = Place::etcd(&database, &log, None);
    place.import().expect("it can be brought in");
    let why = place.export(Some("3.5")).expect_err("refused").to_string();
    assert_eq!(why, "entry 12 is of a newer release: start the member and stop it again");
    place.export(None).expect("3.6 and newer apply it");
}

fn set_version(rows: &mut Buckets, version: &'static str) {
    set(rows, Cf::Cluster, "clusterVersion", version);
}
