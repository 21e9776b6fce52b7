//! What a member's history and everything derived from it must be: bucket `key` as the log of events
//! has it, and `head`, `versions`, `attached`, `counts`, `sums` and the count of bytes follow from `key`.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::store::{Rows, Store};
use crate::facts::history::Log;

/// A change's place: main revision, and its number within that.
type Rev = (i64, i64);

/// One row of bucket `key`.
#[derive(Clone, Debug, PartialEq)]
struct Change {
    rev: Rev,
    deletes: bool,
    kv: KeyValue,
    /// What the value takes.
    bytes: usize,
}

/// What does not fit within the state itself.
pub fn inside(store: &Store) -> Vec<String> {
    let mut faults = Vec::new();
    let changes = changes(store, &mut faults);
    if !faults.is_empty() {
        return faults;
    }
    let mut by_key: BTreeMap<&[u8], Vec<&Change>> = BTreeMap::new();
    for change in &changes {
        by_key.entry(&change.kv.key).or_default().push(change);
    }
    heads(store, &by_key, &mut faults);
    versions(store, &by_key, &mut faults);
    attached(store, &by_key, &mut faults);
    for (name, rows) in [("counts", "quorate.counts"), ("sums", "quorate.sums")] {
        counts(name, store.rows(rows), &by_key, &mut faults);
    }
    figures(store, &changes, &mut faults);
    faults
}

/// Whether the state's history is what the log of events has at the state's revision, less
/// what its compactions have taken away.
pub fn against(store: &Store, log: &Log) -> Vec<String> {
    let mut faults = Vec::new();
    let (compacted, cleaned) = store.compacted();
    let revision = store.revision();
    let last = log.keys().next_back().copied().unwrap_or(1);
    if revision > last {
        return vec![format!("it is at revision {revision}, the last one is {last}")];
    }
    let kept = |at| survivors(log, revision, at);
    let (wanted, allowed) = (kept(compacted), kept(cleaned));
    let there = changes(store, &mut faults);
    let there: BTreeMap<Rev, &Change> = there.iter().map(|change| (change.rev, change)).collect();
    for (rev, event) in &wanted {
        match there.get(rev) {
            None => faults.push(format!("revision {rev:?} is missing: {event:?}")),
            Some(change) if !same(change, event) => {
                faults.push(format!("revision {rev:?} is {change:?}, it was {event:?}"));
            }
            Some(_) => {}
        }
    }
    for rev in there.keys().filter(|rev| !allowed.contains_key(rev)) {
        faults.push(format!("revision {rev:?} is there, and should not be"));
    }
    faults
}

/// The changes up to `revision` that a compaction at `compacted` leaves: all after it, and of each key
/// the newest up to it, unless that is a deletion before it.
fn survivors(log: &Log, revision: i64, compacted: i64) -> BTreeMap<Rev, &Event> {
    let mut kept = BTreeMap::new();
    let mut newest: BTreeMap<&[u8], Rev> = BTreeMap::new();
    for (main, events) in log.range(..=revision) {
        for (sub, event) in events.iter().enumerate() {
            let rev = (*main, sub as i64);
            let Some(kv) = &event.kv else { continue };
            kept.insert(rev, event);
            if *main <= compacted
                && let Some(old) = newest.insert(&kv.key, rev)
            {
                kept.remove(&old);
            }
        }
    }
    for rev in newest.into_values() {
        if rev.0 < compacted && kept[&rev].r#type() == EventType::Delete {
            kept.remove(&rev);
        }
    }
    kept
}

fn same(change: &Change, event: &Event) -> bool {
    let Some(kv) = &event.kv else { return false };
    match event.r#type() {
        EventType::Put => !change.deletes && change.kv == *kv,
        EventType::Delete => change.deletes && change.kv.key == kv.key,
    }
}

/// Bucket `key`, decoded.
fn changes(store: &Store, faults: &mut Vec<String>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (key, value) in store.rows("key") {
        match change(key, value) {
            Some(change) => changes.push(change),
            None => faults.push(format!("bucket key: {key:02x?} -> {value:02x?} is no change")),
        }
    }
    changes
}

fn change(key: &[u8], value: &[u8]) -> Option<Change> {
    let deletes = match key.len() {
        17 => false,
        18 if key[17] == b't' => true,
        _ => return None,
    };
    let number = |from: usize| key[from..from + 8].try_into().ok().map(i64::from_be_bytes);
    let rev = (number(0)?, number(9)?);
    let kv = KeyValue::decode(value).ok()?;
    let bare = KeyValue { key: kv.key.clone(), ..KeyValue::default() };
    let fits = if deletes { kv == bare } else { kv.mod_revision == rev.0 && kv.version > 0 };
    (key[8] == b'_' && fits).then_some(Change { rev, deletes, kv, bytes: value.len() })
}

type ByKey<'a> = BTreeMap<&'a [u8], Vec<&'a Change>>;

/// `head`: of every key the newest change, with its number within the revision before it.
fn heads(store: &Store, by_key: &ByKey<'_>, faults: &mut Vec<String>) {
    let mut wanted = Rows::new();
    for (key, changes) in by_key {
        let newest = changes.last().expect("a key is there for its changes");
        let kv = if newest.deletes {
            KeyValue { mod_revision: newest.rev.0, ..newest.kv.clone() }
        } else {
            newest.kv.clone()
        };
        let mut row = Vec::new();
        varint(&mut row, newest.rev.1 as u64);
        kv.encode(&mut row).expect("a vector grows");
        wanted.insert(key.to_vec(), row);
    }
    compare("head", &wanted, store.rows("quorate.head"), faults);
}

/// `versions`: every change that is not its key's newest, by key and from new to old, with create
/// revision, version and size.
fn versions(store: &Store, by_key: &ByKey<'_>, faults: &mut Vec<String>) {
    let mut wanted = Rows::new();
    for (key, changes) in by_key {
        for change in &changes[..changes.len() - 1] {
            let mut row_key = Vec::new();
            for byte in *key {
                row_key.push(*byte);
                if *byte == 0 {
                    row_key.push(0xff);
                }
            }
            row_key.extend_from_slice(&[0, 0]);
            row_key.extend_from_slice(&(!change.rev.0).to_be_bytes());
            row_key.extend_from_slice(&(!change.rev.1).to_be_bytes());
            let mut row = Vec::new();
            varint(&mut row, change.kv.create_revision as u64);
            varint(&mut row, change.kv.version as u64);
            varint(&mut row, change.bytes as u64);
            wanted.insert(row_key, row);
        }
    }
    compare("versions", &wanted, store.rows("quorate.versions"), faults);
}

/// `attached`: every key that is alive and has a lease; and that lease exists.
fn attached(store: &Store, by_key: &ByKey<'_>, faults: &mut Vec<String>) {
    let mut wanted = Rows::new();
    for (key, newest) in alive(by_key) {
        let lease = newest.kv.lease;
        if lease == 0 {
            continue;
        }
        wanted.insert([&lease.to_be_bytes()[..], key].concat(), Vec::new());
        if !store.rows("lease").contains_key(&lease.to_be_bytes()[..]) {
            faults.push(format!("{} has lease {lease}, which is gone", key.escape_ascii()));
        }
    }
    compare("attached", &wanted, store.rows("quorate.attached"), faults);
}

/// `counts` and `sums`: how many keys are alive in each piece, from its first key to the next piece's.
fn counts(name: &str, rows: &Rows, by_key: &ByKey<'_>, faults: &mut Vec<String>) {
    let mut starts: BTreeMap<&[u8], i64> = BTreeMap::from([(&b""[..], 0)]);
    starts.extend(rows.keys().map(|start| (&start[..], 0)));
    for (key, _) in alive(by_key) {
        let chunk = starts.range_mut(..=key).next_back().expect("the first begins before all keys");
        *chunk.1 += 1;
    }
    for (start, keys) in starts {
        let stored =
            rows.get(start).map_or(Some(0), |row| row[..].try_into().ok().map(i64::from_be_bytes));
        if stored != Some(keys) {
            let start = start.escape_ascii();
            faults.push(format!("{name}: {stored:?} keys from \"{start}\" on, there are {keys}"));
        }
    }
}

fn alive<'a>(by_key: &'a ByKey<'a>) -> impl Iterator<Item = (&'a [u8], &'a Change)> {
    let newest = by_key.iter().filter_map(|(key, changes)| Some((*key, *changes.last()?)));
    newest.filter(|(_, change)| !change.deletes)
}

/// Revision, compaction and bytes.
fn figures(store: &Store, changes: &[Change], faults: &mut Vec<String>) {
    let bytes: usize = changes.iter().map(|c| c.bytes + if c.deletes { 18 } else { 17 }).sum();
    if store.live_bytes() != bytes as i64 {
        faults.push(format!("it counts {} live bytes, there are {bytes}", store.live_bytes()));
    }
    let last = changes.last().map_or(1, |change| change.rev.0);
    if last > store.revision() {
        faults.push(format!("it is at revision {}, but holds {last}", store.revision()));
    }
    let (compacted, cleaned) = store.compacted();
    if cleaned > compacted || compacted > store.revision() {
        let revision = store.revision();
        faults.push(format!("compacted {compacted}, cleaned {cleaned}, at revision {revision}"));
    }
    let subs: BTreeSet<Rev> = changes.iter().map(|change| change.rev).collect();
    for (main, sub) in &subs {
        if *main > compacted && *sub > 0 && !subs.contains(&(*main, sub - 1)) {
            faults.push(format!("revision {main} has change {sub}, not the one before"));
        }
    }
}

/// How many differences of one kind are reported.
const SHOWN: usize = 3;

pub(super) fn compare(what: &str, wanted: &Rows, there: &Rows, faults: &mut Vec<String>) {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let missing = wanted.iter().filter(|(key, value)| there.get(*key) != Some(value));
    for (key, value) in missing.take(SHOWN) {
        let found = there.get(key).map_or("nothing".to_owned(), |found| text(found));
        faults.push(format!("{what}: {} is {found}, should be {}", text(key), text(value)));
    }
    let more = there.keys().filter(|key| !wanted.contains_key(*key));
    for key in more.take(SHOWN) {
        faults.push(format!("{what}: {} should not be there", text(key)));
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
