//! The buckets of a member's state, read from its RocksDB as it lies on the host, without the server's
//! code and without changing anything. Knows the names of the buckets and of the rows of `meta`, not
//! what they should hold.

use std::collections::BTreeMap;

use crate::World;

/// Where a member keeps its state.
const DIR: &str = "/data/member/store";

/// etcd's buckets, and what is derived from them.
pub const BUCKETS: [&str; 10] = [
    "alarm",
    "auth",
    "authRoles",
    "authUsers",
    "cluster",
    "key",
    "lease",
    "members",
    "members_removed",
    "meta",
];
const DERIVED: [&str; 5] =
    ["quorate.head", "quorate.versions", "quorate.attached", "quorate.counts", "quorate.sums"];

/// Rows of one bucket, by key.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// A member's state as of its last flush.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store(pub BTreeMap<&'static str, Rows>);

impl Store {
    /// Reads the state of a host on which no process runs; none when there never was one.
    pub fn read(world: &World, host: &str) -> Result<Option<Self>, String> {
        let place = world.mem_env(host);
        world.outside(move || open(&place)).map_err(|error| error.to_string())
    }

    pub fn rows(&self, bucket: &str) -> &Rows {
        static NONE: Rows = Rows::new();
        self.0.get(bucket).unwrap_or(&NONE)
    }

    /// The index of the last entry whose effects are in.
    pub fn applied(&self) -> u64 {
        self.number("consistent_index").unwrap_or(0) as u64
    }

    pub fn term(&self) -> u64 {
        self.number("term").unwrap_or(0) as u64
    }

    pub fn revision(&self) -> i64 {
        self.number("quorate.revision").unwrap_or(1)
    }

    /// The size of the history by the state's own count, bytes.
    pub fn live_bytes(&self) -> i64 {
        self.number("quorate.live_bytes").unwrap_or(0)
    }

    /// The newest compaction, and the newest whose deletions are all done; -1 for none.
    pub fn compacted(&self) -> (i64, i64) {
        let main = |name: &str| {
            let row = self.rows("meta").get(name.as_bytes())?;
            row.get(..8)?.try_into().ok().map(i64::from_be_bytes)
        };
        let (scheduled, finished) = (main("scheduledCompactRev"), main("finishedCompactRev"));
        (scheduled.max(finished).unwrap_or(-1), finished.unwrap_or(-1))
    }

    fn number(&self, name: &str) -> Option<i64> {
        let row = self.rows("meta").get(name.as_bytes())?;
        row[..].try_into().ok().map(i64::from_be_bytes)
    }
}

fn open(place: &rocksdb::Env) -> Result<Option<Store>, rocksdb::Error> {
    let mut options = rocksdb::Options::default();
    options.set_env(place);
    let names = BUCKETS.iter().chain(&DERIVED);
    let all = names.clone().copied().chain(["default"]);
    if rocksdb::DB::list_cf(&options, DIR).is_err() {
        return Ok(None);
    }
    let db = rocksdb::DB::open_cf_for_read_only(&options, DIR, all, false)?;
    let mut store = Store::default();
    for name in names {
        let family = db.cf_handle(name).expect("it was opened with all of them");
        let mut rows = Rows::new();
        for row in db.iterator_cf(family, rocksdb::IteratorMode::Start) {
            let (key, value) = row?;
            rows.insert(key.into_vec(), value.into_vec());
        }
        store.0.insert(name, rows);
    }
    Ok(Some(store))
}
