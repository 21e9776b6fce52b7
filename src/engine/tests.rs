//! The engine's guarantees: atomic batches, stable snapshots, loss of a suffix only.

use std::path::Path;

use super::{Cf, Engine, Options};

fn open(env: &rocksdb::Env) -> Engine {
    Engine::open(Path::new("/db"), &Options::in_memory(env.clone())).expect("opens")
}

fn env() -> rocksdb::Env {
    rocksdb::Env::mem_env().expect("an environment")
}

fn put(engine: &Engine, cf: Cf, key: &[u8], value: &[u8]) {
    let mut batch = engine.batch();
    batch.put(cf, key, value);
    engine.write(batch).expect("writes");
}

#[test]
fn a_snapshot_does_not_move_and_outlives_the_engine_handle() {
    let engine = open(&env());
    put(&engine, Cf::Head, b"a", b"1");
    put(&engine, Cf::Head, b"b", b"1");
    let snapshot = engine.snapshot();
    put(&engine, Cf::Head, b"a", b"2");
    let later = engine.snapshot();
    drop(engine);
    assert_eq!(snapshot.get(Cf::Head, b"a").expect("reads").as_deref(), Some(&b"1"[..]));
    assert_eq!(later.get(Cf::Head, b"a").expect("reads").as_deref(), Some(&b"2"[..]));
    let mut pairs = snapshot.scan(Cf::Head, b"", Some(b"b"));
    drop(snapshot);
    drop(later);
    let (key, value) = pairs.next().expect("one").expect("reads");
    assert_eq!((&key[..], &value[..]), (&b"a"[..], &b"1"[..]));
    assert!(pairs.next().is_none());
}

#[test]
fn closing_without_a_flush_loses_what_came_after_the_last_one() {
    let env = env();
    let engine = open(&env);
    put(&engine, Cf::Key, b"a", b"1");
    put(&engine, Cf::Meta, b"m", b"1");
    engine.flush().expect("flushes");
    put(&engine, Cf::Key, b"b", b"1");
    drop(engine);
    let snapshot = open(&env).snapshot();
    assert!(snapshot.get(Cf::Key, b"a").expect("reads").is_some());
    assert!(snapshot.get(Cf::Meta, b"m").expect("reads").is_some());
    assert!(snapshot.get(Cf::Key, b"b").expect("reads").is_none());
}

#[test]
fn clear_removes_the_last_key_too() {
    let engine = open(&env());
    for key in [&b"a"[..], b"b", &[0xff; 40]] {
        put(&engine, Cf::Key, key, b"1");
    }
    let mut batch = engine.batch();
    batch.clear(Cf::Key, &engine.snapshot()).expect("reads");
    batch.clear(Cf::Lease, &engine.snapshot()).expect("reads");
    engine.write(batch).expect("writes");
    assert_eq!(engine.snapshot().last_key(Cf::Key).expect("reads"), None);
}

#[test]
fn sizes_grow_with_content() {
    let engine = open(&env());
    let before = engine.live_bytes();
    for i in 0..1_000_u32 {
        put(&engine, Cf::Key, &i.to_be_bytes(), &[7; 1000]);
    }
    assert!(engine.live_bytes() > before + 500_000);
    engine.flush().expect("flushes");
    assert!(engine.total_bytes() > 500_000);
}

#[test]
fn production_options_open_on_a_real_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let engine = Engine::open(dir.path(), &Options::default()).expect("opens");
    put(&engine, Cf::Head, b"a", b"1");
    engine.flush().expect("flushes");
    drop(engine);
    let engine = Engine::open(dir.path(), &Options::default()).expect("opens again");
    assert!(engine.snapshot().get(Cf::Head, b"a").expect("reads").is_some());
}

/// How many marks of deleted entries the reads of `work`, which stays on this thread, pass.
pub(crate) fn marks_passed(work: impl FnOnce()) -> u64 {
    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::EnableCount);
    let mut perf = rocksdb::perf::PerfContext::default();
    perf.reset();
    work();
    let passed = perf.metric(rocksdb::perf::PerfMetric::InternalDeleteSkippedCount);
    rocksdb::perf::set_perf_stats(rocksdb::perf::PerfStatsLevel::Disable);
    passed
}
