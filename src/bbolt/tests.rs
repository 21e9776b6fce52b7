//! What is written is read back, a file made by etcd is read and copied, and no damage does more than
//! give an error. No bbolt code of others takes part: `testdata/README` describes how to compare with it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect_file;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::env::File;
use crate::limits::BBOLT_CHUNK_BYTES;

type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

/// The bbolt file of a real etcd.
const ETCD: &[u8] = include_bytes!("testdata/etcd.db");

/// A file that is only read.
struct Image(Bytes);

impl File for Image {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn sync_data(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}

/// Buckets in memory as a source.
struct Memory(Arc<Buckets>);

impl Source for Memory {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(self.0.keys().rev().cloned().map(Bytes::from).collect())
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<Scan> {
        let pairs: Vec<_> = self.0[&bucket[..]].iter().map(owned).map(Ok).collect();
        Ok(Box::new(pairs.into_iter()))
    }
}

fn owned((key, value): (&Vec<u8>, &Vec<u8>)) -> (Bytes, Bytes) {
    (key.clone().into(), value.clone().into())
}

/// A source of fixed rows, sorted or not.
struct Raw(Vec<(&'static str, Vec<(Bytes, Bytes)>)>);

impl Source for Raw {
    fn buckets(&self) -> io::Result<Vec<Bytes>> {
        Ok(self.0.iter().map(|(name, _)| Bytes::from_static(name.as_bytes())).collect())
    }

    fn scan(&self, bucket: &Bytes) -> io::Result<Scan> {
        let found = self.0.iter().find(|(name, _)| name.as_bytes() == bucket).expect("was listed");
        Ok(Box::new(found.1.clone().into_iter().map(Ok)))
    }
}

fn open(image: impl Into<Bytes>) -> io::Result<Database> {
    Database::open(Box::new(Image(image.into())))
}

/// Writes `source` and checks what holds for every file: its size as planned, the size of the chunks.
fn write(source: &impl Source) -> io::Result<Vec<u8>> {
    let plan = plan(source)?;
    let chunks = plan.emit(source).collect::<io::Result<Vec<_>>>()?;
    let (last, full) = chunks.split_last().expect("a file has meta pages at least");
    assert!(full.iter().all(|chunk| chunk.len() == BBOLT_CHUNK_BYTES));
    assert!(last.len() <= BBOLT_CHUNK_BYTES);
    let file = chunks.concat();
    assert_eq!(file.len() as u64, plan.total_bytes());
    Ok(file)
}

fn write_map(buckets: &Buckets) -> Vec<u8> {
    write(&Memory(Arc::new(buckets.clone()))).expect("a map is sorted")
}

fn read(database: &Database) -> io::Result<Buckets> {
    let mut buckets = Buckets::new();
    for name in database.buckets()? {
        let pairs = database.iter(&name)?.expect("the bucket was listed");
        let pairs = pairs.map(|pair| pair.map(|(key, value)| (key.into(), value.into())));
        buckets.insert(name.into(), pairs.collect::<io::Result<_>>()?);
    }
    Ok(buckets)
}

/// A bucket with `count` keys of `key_bytes`, and values of `value_bytes`.
fn uniform(count: usize, key_bytes: usize, value_bytes: usize) -> Buckets {
    let key = |n: usize| format!("{n:0key_bytes$}").into_bytes();
    let pairs = (0..count).map(|n| (key(n), vec![n as u8; value_bytes])).collect();
    Buckets::from([(b"bucket".to_vec(), pairs)])
}

/// Walks all of a file in both ways that callers can. The result does not matter.
fn exercise(image: Vec<u8>) {
    let Ok(database) = open(image) else { return };
    drop(read(&database));
    for bucket in [&b"key"[..], b"meta", b"lease", b"bucket"] {
        for key in [&b""[..], b"consistent_index", &[0; 17], &[0xff; 17], b"000000777"] {
            drop(database.get(bucket, key));
            if let Ok(Some(iter)) = database.iter_from(bucket, key) {
                iter.for_each(drop);
            }
        }
    }
}

mod round_trip {
    use super::*;

    fn check(buckets: &Buckets) {
        let database = open(write_map(buckets)).expect("it was just written");
        assert_eq!(read(&database).expect("it was just written"), *buckets);
    }

    #[test]
    fn nothing() {
        check(&Buckets::new());
        check(&uniform(0, 1, 0));
    }

    #[test]
    fn one_leaf_many_levels_and_what_is_between() {
        // 124 children fill a branch page of 17-byte keys, 2 one of 3000-byte keys: each of these
        // stands on one side of a boundary where a level begins or a last page is short.
        for count in [1, 2, 3, 123, 124, 125, 126, 127, 248, 249, 250, 251, 400] {
            check(&uniform(count, 17, 4000));
        }
        for count in 1..40 {
            check(&uniform(count, 3000, 0));
        }
        check(&uniform(20_000, 17, 8));
    }

    #[test]
    fn values_around_a_page_and_keys_of_the_greatest_length() {
        for value_bytes in [0, 1, 4030, 4047, 4048, 4049, 4096, 8192, 70_000] {
            check(&uniform(5, 17, value_bytes));
        }
        check(&uniform(30, 32_768, 10));
        check(&uniform(3, 17, 1_500_000));
    }

    #[test]
    fn more_buckets_than_fit_a_page() {
        let bucket = |n: u32| (format!("bucket {n:04}").into_bytes(), BTreeMap::new());
        check(&(0..1000).map(bucket).collect());
    }

    #[test]
    fn every_key_is_found_and_no_other() {
        let buckets = uniform(3_000, 9, 20);
        let database = open(write_map(&buckets)).expect("it was just written");
        for (key, value) in &buckets[&b"bucket"[..]] {
            let found = database.get(b"bucket", key).expect("the file is sound");
            assert_eq!(found.as_deref(), Some(&value[..]));
            let mut above = key.clone();
            above.push(0);
            assert_eq!(database.get(b"bucket", &above).expect("the file is sound"), None);
        }
        assert_eq!(database.get(b"bucket", b"").expect("the file is sound"), None);
        assert_eq!(database.get(b"other", b"000000001").expect("the file is sound"), None);
        assert!(database.iter(b"other").expect("the file is sound").is_none());
    }

    #[test]
    fn an_iterator_starts_between_keys() {
        let database = open(write_map(&uniform(3_000, 9, 20))).expect("it was just written");
        for start in [0, 1, 109, 110, 111, 2_998, 2_999] {
            let after = format!("{start:09}!");
            let iter = database.iter_from(b"bucket", after.as_bytes()).expect("the file is sound");
            assert_eq!(iter.expect("the bucket is there").count(), 2_999 - start);
        }
    }

    fn buckets() -> impl Strategy<Value = Buckets> {
        let key = prop_oneof![9 => vec(any::<u8>(), 1..24), 1 => vec(any::<u8>(), 1..6_000)];
        let value = prop_oneof![
            6 => vec(any::<u8>(), 0..40),
            3 => (0..6_000_usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
            1 => (0..50_000_usize, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        ];
        btree_map(vec(any::<u8>(), 1..20), btree_map(key, value, 0..200), 0..5)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_buckets(buckets in buckets()) {
            check(&buckets);
        }
    }
}

mod refused_input {
    use super::*;

    fn check(source: &Raw, message: &str) {
        let error = plan(source).expect_err("bbolt cannot hold it");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(error.to_string(), message);
    }

    fn keys(keys: &[&[u8]]) -> Vec<(Bytes, Bytes)> {
        keys.iter().map(|key| (Bytes::copy_from_slice(key), Bytes::new())).collect()
    }

    #[test]
    fn keys_that_bbolt_cannot_hold() {
        let long = [b'x'; 32_769];
        check(&Raw(vec![("a", keys(&[b""]))]), "bbolt cannot hold an empty key");
        check(&Raw(vec![("a", keys(&[&long]))]), "bbolt cannot hold a key over 32768 bytes");
        let unsorted = "bbolt cannot hold a key that is not above the one before";
        check(&Raw(vec![("a", keys(&[b"2", b"1"]))]), unsorted);
        check(&Raw(vec![("a", keys(&[b"2", b"2"]))]), unsorted);
        check(&Raw(vec![("a", keys(&[])), ("a", keys(&[]))]), unsorted);
    }

    #[test]
    fn a_source_that_changes_between_the_passes() {
        let few = Memory(Arc::new(uniform(100, 17, 200)));
        let many = Memory(Arc::new(uniform(2_000, 17, 200)));
        for (first, second) in [(&few, &many), (&many, &few)] {
            let mut chunks = plan(first).expect("the input is sorted").emit(second);
            let error = chunks.find_map(Result::err).expect("the change is noticed");
            assert_eq!(error.to_string(), "the source of a bbolt file changed between passes");
            assert!(chunks.next().is_none());
        }
    }
}

mod made_by_etcd {
    use super::*;

    #[test]
    fn is_read() {
        let database = open(ETCD).expect("etcd wrote it");
        let mut listing = String::new();
        for (bucket, pairs) in read(&database).expect("etcd wrote it") {
            listing += &format!("{}\n", bucket.escape_ascii());
            for (key, value) in pairs {
                let (key, shown) =
                    (key.escape_ascii(), value[..value.len().min(60)].escape_ascii());
                listing += &format!("  {key}  {}: {shown}\n", value.len());
            }
        }
        expect_file!["testdata/etcd.txt"].assert_eq(&listing);
    }

    #[test]
    fn is_copied_and_the_copy_is_the_same() {
        let original = open(ETCD).expect("etcd wrote it");
        let copy = open(write(&original).expect("etcd wrote it")).expect("it was just written");
        let content = |database| read(database).expect("both files are sound");
        assert_eq!(content(&copy), content(&original));
        // A copy of a copy has the same bytes: where a page is depends on the content only.
        assert_eq!(write(&copy).expect("sorted"), write(&original).expect("sorted"));
    }

    #[test]
    fn its_inline_and_its_paged_buckets_are_searched() {
        let database = open(ETCD).expect("etcd wrote it");
        for (bucket, pairs) in read(&database).expect("etcd wrote it") {
            for (key, value) in pairs {
                let found = database.get(&bucket, &key).expect("etcd wrote it");
                assert_eq!(found.as_deref(), Some(&value[..]));
            }
        }
    }
}

mod damage {
    use super::*;

    fn message(image: Vec<u8>) -> String {
        let result = open(image).and_then(|database| read(&database));
        let error = result.expect_err("the file is damaged");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        error.to_string()
    }

    /// A file with a branch page: leaves 3.., then the bucket's root, then the root of all.
    fn sound() -> Vec<u8> {
        write_map(&uniform(500, 9, 20))
    }

    fn patched(offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut image = sound();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        image
    }

    #[test]
    fn is_named() {
        let pages = sound().len() / 4096;
        let (root, branch) = ((pages - 1) * 4096, (pages - 2) * 4096);
        // Its first child only, which is the page itself.
        let itself = ((pages - 2) as u64).to_le_bytes();
        let mut endless = patched(branch + 24, &itself);
        endless[branch + 10..branch + 12].copy_from_slice(&[1, 0]);
        let cases: Vec<(Vec<u8>, String)> = vec![
            (Vec::new(), "not a bbolt file: neither meta page is valid: too short".into()),
            (
                vec![0; 9000],
                "not a bbolt file: neither meta page is valid: wrong magic number".into(),
            ),
            (
                sound()[..root].to_vec(),
                format!("bbolt file is cut short: {root} bytes of {}", root + 4096),
            ),
            (patched(root, &[9]), page(pages - 1, "says that it is another page")),
            (patched(root + 8, &[4]), page(pages - 1, "neither leaf nor branch")),
            (patched(root + 12, &[1]), page(pages - 1, "runs out of the file")),
            (patched(root + 10, &[0xff, 0xff]), page(pages - 1, "has more elements than room")),
            (patched(root + 16, &[0]), page(pages - 1, "a key outside of any bucket")),
            (patched(root + 24, &[0]), page(pages - 1, "a key of an impossible length")),
            (patched(root + 28, &[15]), page(pages - 1, "not a bucket header")),
            (patched(root + 30, &[15]), page(pages - 1, "an element lies outside of its page")),
            (patched(root + 38, &[0; 8]), page(pages - 1, "an inline bucket is too short")),
            (patched(branch + 10, &[0]), page(pages - 2, "a branch page without children")),
            (patched(branch + 24, &[1]), page(1, "outside of the file")),
            (patched(branch + 24, &[0xff; 8]), page(usize::MAX, "outside of the file")),
            (patched(branch + 24, &itself), page(pages - 2, "keys do not ascend")),
            (endless, page(pages - 2, "a tree that leads back to itself")),
            (patched(branch + 24 + 16, &[3]), page(3, "keys do not ascend")),
        ];
        for (image, expected) in cases {
            assert_eq!(message(image), expected);
        }
    }

    fn page(page: usize, what: &str) -> String {
        format!("bbolt file is corrupt: page {page}: {what}")
    }

    #[test]
    fn to_one_meta_page_is_survived() {
        for broken in [0, 4096] {
            let image = patched(broken + 20, &[0xff]);
            let database = open(image).expect("the other meta page is valid");
            assert_eq!(read(&database).expect("the rest is sound"), uniform(500, 9, 20));
        }
    }

    #[test]
    fn the_newer_meta_page_counts() {
        let old = sound();
        let mut image = write_map(&uniform(5, 9, 20));
        // Page 0 (newer) from a file of five keys; page 1 would need a much longer file.
        image[4096..8192].copy_from_slice(&old[4096..8192]);
        let database = open(image).expect("meta page 0 is valid");
        assert_eq!(read(&database).expect("the rest is sound"), uniform(5, 9, 20));
    }

    #[test]
    fn to_a_separator_is_found_by_a_walk_as_by_a_search() {
        // The first key of the second leaf becomes larger where its parent has it: a search for it would
        // go to the first leaf.
        let (sound, branch) = (sound(), (sound().len() / 4096 - 2) * 4096);
        let element = branch + 16 + 16;
        let word = |at: usize| u32::from_le_bytes(sound[at..at + 4].try_into().expect("four"));
        let last = element + word(element) as usize + word(element + 4) as usize - 1;
        let error = message(patched(last, &[0xff]));
        assert!(error.ends_with("keys do not ascend"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

        #[test]
        fn never_panics(
            etcd in any::<bool>(),
            flips in vec((any::<Index>(), any::<u8>()), 1..20),
            cut in proptest::option::weighted(0.2, any::<Index>()),
        ) {
            let mut image = if etcd { ETCD.to_vec() } else { sound() };
            // The meta pages have checksums; what is behind them is where damage can hide.
            let body = 8192..image.len();
            for (place, byte) in flips {
                image[body.start + place.index(body.len())] ^= byte;
            }
            if let Some(cut) = cut {
                image.truncate(cut.index(image.len()));
            }
            exercise(image);
        }

        #[test]
        fn in_page_headers_and_tables_never_panics(
            etcd in any::<bool>(),
            flips in vec((any::<Index>(), 0..200_usize, any::<u8>()), 1..6),
        ) {
            let mut image = if etcd { ETCD.to_vec() } else { sound() };
            for (page, offset, byte) in flips {
                let page = 2 + page.index(image.len() / 4096 - 2);
                image[page * 4096 + offset] = byte;
            }
            exercise(image);
        }
    }
}

mod sealing {
    use super::*;

    #[test]
    fn the_hash_is_told_from_none_and_from_a_wrong_one() {
        let bare = write_map(&uniform(3_000, 9, 20));
        let chunks = bare.chunks(1000).map(Bytes::copy_from_slice).map(Ok);
        let sealed = seal(chunks).collect::<io::Result<Vec<_>>>().expect("no chunk is an error");
        let mut sealed = sealed.concat();
        assert_eq!(sealed.len(), bare.len() + 32);

        let check = |image: &[u8]| check_seal(&Image(Bytes::copy_from_slice(image)));
        assert_eq!(check(&bare).expect("readable"), Seal::Absent);
        let intact = Seal::Intact { database_bytes: bare.len() as u64 };
        assert_eq!(check(&sealed).expect("readable"), intact);
        assert!(open(sealed.clone()).is_ok());

        for place in [0, bare.len() - 1, bare.len(), sealed.len() - 1] {
            sealed[place] ^= 1;
            assert!(matches!(check(&sealed).expect("readable"), Seal::Broken { .. }));
            sealed[place] ^= 1;
        }
    }

    #[test]
    fn nothing_follows_an_error() {
        let chunks = [Ok(Bytes::from_static(b"a")), Err(io::ErrorKind::Other.into())];
        let sealed: Vec<_> = seal(chunks.into_iter()).collect();
        assert!(matches!(sealed[..], [Ok(_), Err(_)]));
    }
}
