//! The store behind the calls: its directory, its quota, its version.

use quorate::bbolt::Database;
use quorate::env::Open;

use super::*;

/// Runs a member for a moment.
fn start_and_stop(dir: &Path, wal_dir: Option<&Path>) -> Result<(), String> {
    // A runtime each: the directory is locked until the last task of a server has ended.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let port = "127.0.0.1:0".parse().expect("an address");
        let mut member = MemberOptions::single("edge", dir, port);
        member.wal_segment_bytes = 8 << 20;
        member.wal_dir = wal_dir.map(Path::to_owned);
        let server = Server::start(env(), Options::new(member, vec![port])).await;
        server.map_err(|fatal| fatal.to_string())?.shutdown().await;
        Ok(())
    })
}

/// The flag was forgotten, or a disk is not mounted: an empty store would serve as a new cluster.
#[test]
fn a_used_data_directory_without_its_log_is_not_begun_anew() {
    let (dir, logs) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let run = |wal_dir: Option<&Path>| start_and_stop(dir.path(), wal_dir);
    let apart = logs.path().join("wal");
    assert_eq!(run(Some(&apart)), Ok(()));
    let refused = run(None).expect_err("it is refused");
    let wanted = format!("whose log was in {}, and there is no log in", apart.display());
    assert!(refused.contains(&wanted) && refused.contains("--wal-dir"), "{refused}");
    assert_eq!(run(Some(&apart)), Ok(()), "nothing was changed by the refused start");
    std::fs::remove_dir_all(&apart).expect("it can be removed");
    let refused = run(Some(&apart)).expect_err("it is refused");
    assert!(refused.contains("its log is gone"), "{refused}");
}

/// Which one has what the member has acknowledged is not known, and the other lacks it.
#[test]
fn a_member_with_two_logs_does_not_choose() {
    let (dir, logs) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
    let (inside, apart) = (dir.path().join("member/wal"), logs.path().join("wal"));
    let run = |wal_dir: Option<&Path>| start_and_stop(dir.path(), wal_dir);
    let copy = |from: &Path, to: &Path| {
        std::fs::create_dir_all(to).expect("a folder");
        for file in std::fs::read_dir(from).expect("a log") {
            let file = file.expect("a file").path();
            std::fs::copy(&file, to.join(file.file_name().expect("a name"))).expect("a copy");
        }
    };
    assert_eq!(run(None), Ok(()));
    copy(&inside, &apart);
    let refused = run(Some(&apart)).expect_err("there are two");
    assert!(refused.contains("and another one in") && refused.contains("--wal-dir"), "{refused}");
    // As it is when the directory was brought in from elsewhere.
    std::fs::remove_file(dir.path().join("member/owner")).expect("it is there");
    assert_eq!(run(Some(&apart)).expect_err("there are two"), refused);
    // Another data directory's.
    let other = logs.path().join("other/member/wal");
    copy(&inside, &other);
    let refused = run(Some(&other)).expect_err("there are two");
    assert!(refused.contains("and another one in"), "{refused}");
    assert_eq!(run(Some(&inside)), Ok(()), "the same folder");
    std::fs::remove_file(dir.path().join("member/owner")).expect("it is there");
    std::fs::remove_dir_all(&inside).expect("it can be removed");
    assert_eq!(run(Some(&apart)), Ok(()), "moved");
    copy(&apart, &inside);
    let refused = run(None).expect_err("there are two");
    assert!(refused.contains("and another one in"), "{refused}");
    std::fs::remove_dir_all(&inside).expect("it can be removed");
    assert_eq!(run(Some(&apart)), Ok(()));
}

/// What RocksDB writes into it is in the manifest, too: two syncs less before a new member serves.
#[tokio::test]
async fn a_new_store_has_no_identity_file() {
    let dir = TempDir::new().expect("a folder");
    let world = World::new(|member| member.data_dir = dir.path().into()).await;
    let listed = std::fs::read_dir(dir.path().join("member/store")).expect("the store is there");
    let names: Vec<_> = listed.map(|file| file.expect("a name").file_name()).collect();
    assert!(names.iter().any(|name| name == "CURRENT"), "{names:?}");
    assert!(!names.iter().any(|name| name == "IDENTITY"), "{names:?}");
    drop(world);
}

#[tokio::test]
async fn a_full_store_refuses_leases_and_puts_but_not_reads() {
    let world = World::new(|member| member.quota_bytes = Some(1)).await;
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(world.kv().put(PutRequest::default()).await), full, "before the empty key");
    let grant = LeaseGrantRequest { id: 1, ttl: 9_000_000_001 };
    assert_eq!(refusal(world.lease().lease_grant(grant).await), full, "before the time to live");
    let read = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    world.kv().range(read).await.expect("reads go on");
    let health = world.get("/health").await;
    assert!(health.contains(r#"{"health":"false","reason":"ALARM NOSPACE"}"#), "{health}");
}

/// As etcd counts since 3.7.1: the dearer branch, txns in it included.
#[tokio::test]
async fn what_a_txns_txns_write_counts_against_the_quota() {
    let quota = limits::STORE_BYTES_MIN + 5_000;
    let world = World::new(|member| member.quota_bytes = Some(quota)).await;
    let mut kv = world.kv();
    let txn =
        |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..Default::default() };
    let nested = |size| {
        txn(request_op::Request::RequestTxn(txn(request_op::Request::RequestPut(put(size)))))
    };
    kv.txn(nested(1_000)).await.expect("it fits");
    let full = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
    assert_eq!(refusal(kv.txn(nested(4_500)).await), full);
}

/// etcd waits until an operator defragments and disarms.
#[tokio::test]
async fn a_full_store_that_was_emptied_takes_writes_again_by_itself() {
    let world = World::new(|member| {
        member.quota_bytes = Some(100_000);
        member.request_bytes_max = 10_000;
        member.txn_ops_max = 16;
    })
    .await;
    let mut kv = world.kv();
    let mut revision = 0;
    let full = loop {
        match kv.put(put(8_000)).await {
            Ok(answer) => revision = answer.into_inner().header.map_or(0, |header| header.revision),
            Err(status) => break (status.code(), status.message().to_owned()),
        }
        assert!(revision < 20, "more was taken than the quota allows");
    };
    assert_eq!(full.1, "etcdserver: mvcc: database space exceeded");
    let txn =
        |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..Default::default() };
    let puts = txn(request_op::Request::RequestPut(put(1)));
    assert_eq!(refusal(kv.txn(puts).await), full, "a txn with a put");
    let reads = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    kv.txn(txn(request_op::Request::RequestRange(reads))).await.expect("a txn that only reads");
    let delete = DeleteRangeRequest { key: Bytes::from_static(b"k"), ..Default::default() };
    kv.delete_range(delete).await.expect("deletes are served");
    let compact = CompactionRequest { revision: revision + 1, physical: true };
    kv.compact(compact).await.expect("compactions are served");
    let mut tries = 0;
    while let Err(status) = kv.put(put(8_000)).await {
        assert_eq!((status.code(), status.message().to_owned()), full);
        tries += 1;
        assert!(tries < 10_000, "the alarm stays");
    }
    let health = world.get("/health").await;
    assert!(health.contains(r#"{"health":"true","reason":""}"#), "{health}");
}

/// Rules that watch for stores that are nearly full, or in want of a defragmentation, compare these.
#[tokio::test]
async fn sizes_mean_the_same_and_what_was_deleted_is_in_none() {
    let quota = 64 << 20;
    let world = World::new(|member| member.quota_bytes = Some(quota)).await;
    let (mut kv, mut service) = (world.kv(), MaintenanceClient::new(world.channel.clone()));
    let mut sizes = async || {
        let status = service.status(StatusRequest {}).await.expect("a status").into_inner();
        assert_eq!(status.db_size_quota, 64 << 20);
        assert_eq!(status.db_size, status.db_size_in_use, "it is never in want of defragmentation");
        let page = world.get("/metrics").await;
        let metric = |name: &str| {
            let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.unwrap_or_else(|| panic!("{name} is not on the page")).to_owned()
        };
        let total = metric("etcd_mvcc_db_total_size_in_bytes");
        assert_eq!(total, metric("etcd_mvcc_db_total_size_in_use_in_bytes"));
        assert_eq!(metric("etcd_server_quota_backend_bytes").parse(), Ok(6.710_886_4e7));
        status.db_size
    };
    assert!(sizes().await > 0, "zero is left out of JSON");
    let mut revision = 0;
    for n in 0..12 {
        let put = PutRequest { key: vec![b'k', n].into(), ..put(1 << 20) };
        revision = kv.put(put).await.expect("it fits").into_inner().header.expect("one").revision;
    }
    let full = sizes().await;
    assert!((12 << 20..14 << 20).contains(&full), "{full}");
    let key = Bytes::from_static(b"k");
    let all = DeleteRangeRequest { key, range_end: Bytes::from_static(b"l"), ..Default::default() };
    kv.delete_range(all).await.expect("deletes are served");
    let compact = CompactionRequest { revision: revision + 1, physical: true };
    kv.compact(compact).await.expect("compactions are served");
    MaintenanceClient::new(world.channel.clone())
        .defragment(DefragmentRequest {})
        .await
        .expect("it is served");
    let empty = sizes().await;
    assert!((1..100_000).contains(&empty), "{empty}");
}

#[tokio::test]
async fn a_downgrade_is_begun_and_cancelled_in_etcds_words() {
    use DowngradeAction::{Cancel, Enable, Validate};
    let world = World::new(|_| {}).await;
    let mut service = MaintenanceClient::new(world.channel.clone());
    // The leader decides the cluster's version when it has begun.
    while world.get("/version").await.contains("not_decided") {}
    let mut ask = async |action: DowngradeAction, version: &str| {
        let request = DowngradeRequest { action: action as i32, version: version.into() };
        match service.downgrade(request).await {
            Ok(answer) => answer.into_inner().version,
            Err(status) => format!("{:?} {}", status.code(), status.message()),
        }
    };
    let format = "InvalidArgument etcdserver: wrong downgrade target version format";
    let target = "InvalidArgument etcdserver: invalid downgrade target version";
    let running = "FailedPrecondition etcdserver: cluster has a downgrade job in progress";
    assert_eq!(ask(Validate, "three").await, format);
    assert_eq!(ask(Validate, "3.5").await, target);
    assert_eq!(ask(Enable, "3.7.0").await, target);
    assert_eq!(ask(Cancel, "").await, "3.7", "there is nothing to cancel");
    assert_eq!(ask(Validate, "3.6").await, "3.7");
    assert_eq!(ask(Enable, "3.6.0").await, "3.7");
    let again = ask(Enable, "3.6").await;
    assert!(again == running || again == target, "before the version follows or after it: {again}");
    let version = |told: &str| format!("\"etcdcluster\":\"{told}\",\"storage\":\"{told}\"");
    wait_for(&world, "/version", &version("3.6.0")).await;
    assert_eq!(ask(Validate, "3.5").await, running);
    assert_eq!(ask(Cancel, "").await, "3.6");
    wait_for(&world, "/version", &version("3.7.0")).await;
}

/// A backup that is taken during a downgrade is for the release that it leads to.
#[tokio::test]
async fn a_snapshot_has_the_storage_version_of_the_cluster() {
    let world = World::new(|_| {}).await;
    let version = async || {
        let file = world._dir.path().join("snapshot.db");
        std::fs::write(&file, world.snapshot().await).expect("it is written");
        let file = env().disk.open(&file, Open::Read).expect("it is there");
        let row = Database::open(file).expect("a database").get(b"meta", b"storageVersion");
        row.expect("it is read").map(|version| String::from_utf8_lossy(&version).into_owned())
    };
    let decided =
        |version: &str| format!("\netcd_cluster_version{{cluster_version=\"{version}\"}} 1\n");
    let mut maintenance = MaintenanceClient::new(world.channel.clone());
    let mut downgrade = async |action: DowngradeAction, target: &str| {
        let request = DowngradeRequest { action: action as i32, version: target.into() };
        maintenance.downgrade(request).await.expect("it is done");
    };
    wait_for(&world, "/metrics", &decided("3.7")).await;
    assert_eq!(version().await.as_deref(), Some("3.7.0"));
    downgrade(DowngradeAction::Enable, "3.6").await;
    wait_for(&world, "/metrics", &decided("3.6")).await;
    assert_eq!(version().await.as_deref(), Some("3.6.0"));
    downgrade(DowngradeAction::Cancel, "").await;
    wait_for(&world, "/metrics", &decided("3.7")).await;
    assert_eq!(version().await.as_deref(), Some("3.7.0"));
}

/// With `--max-request-bytes` far above the default, a value travels through the log, the store and the
/// answer.
#[tokio::test]
async fn a_value_of_60_megabytes_is_stored_where_requests_may_be_so_large() {
    const VALUE: usize = 60 << 20;
    let world = World::new(|member| member.request_bytes_max = 104_857_600).await;
    let mut kv = world.kv().max_decoding_message_size(usize::MAX);
    kv.put(put(VALUE)).await.expect("it is stored");
    let request = RangeRequest { key: Bytes::from_static(b"k"), ..RangeRequest::default() };
    let answer = kv.range(request).await.expect("it is read").into_inner();
    let value = &answer.kvs[0].value;
    assert!(value.len() == VALUE && value.iter().all(|byte| *byte == b'v'), "{}", value.len());
    let (code, text) = refusal(kv.put(put(110 << 20)).await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    let world = World::new(|_| {}).await;
    let (code, text) = refusal(world.kv().put(put(VALUE)).await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
}
