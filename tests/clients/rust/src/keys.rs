//! Keys and their past: put, get, delete, txn, compaction, watches.

use etcd_client::{
    CompactionOptions, Compare, CompareOp, DeleteOptions, EventType, GetOptions, KeyValue,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};

use crate::{World, events, refused};

pub async fn put_and_get(world: World) {
    let mut ann = world.user("ann").await;
    let mut other = world.user_at(1, "ann").await;
    let first = ann.put("ann/kv/a", "1", None).await.expect("ann may");
    assert!(first.prev_key().is_none());
    let previous = Some(PutOptions::new().with_prev_key());
    let second = ann.put("ann/kv/a", [0, 255], previous).await.expect("ann may");
    assert_eq!(revision!(second), revision!(first) + 1);
    assert_eq!(second.prev_key().expect("it was asked for").value(), b"1");
    let found = other.get("ann/kv/a", None).await.expect("ann may");
    let [kv] = found.kvs() else { panic!("one key: {found:?}") };
    assert_eq!((kv.key(), kv.value()), (&b"ann/kv/a"[..], &[0, 255][..]));
    assert_eq!((kv.create_revision(), kv.mod_revision()), (revision!(first), revision!(second)));
    assert_eq!((kv.version(), kv.lease()), (2, 0));
    let none = other.get("ann/kv/none", None).await.expect("ann may");
    assert_eq!((none.count(), none.kvs().len()), (0, 0));
    refused(ann.put("", "1", None).await, "InvalidArgument", "etcdserver: key is not provided");
}

pub async fn ranges(world: World) {
    let mut ann = world.user("ann").await;
    for (name, value) in [("a", "3"), ("b", "2"), ("c", "1")] {
        ann.put(format!("ann/range/{name}"), value, None).await.expect("ann may");
    }
    let below = || GetOptions::new().with_prefix();
    let cases = [
        (below(), &["3", "2", "1"][..], false, 3),
        (below().with_sort(SortTarget::Value, SortOrder::Ascend), &["1", "2", "3"], false, 3),
        (below().with_sort(SortTarget::Mod, SortOrder::Descend), &["1", "2", "3"], false, 3),
        (below().with_limit(2), &["3", "2"], true, 3),
        (below().with_keys_only(), &["", "", ""], false, 3),
        (below().with_count_only(), &[], false, 3),
        (GetOptions::new().with_range("ann/range/c"), &["3", "2"], false, 2),
        (below().with_serializable(), &["3", "2", "1"], false, 3),
    ];
    // Of one member: what is serializable may be older at another.
    let mut ann = world.user_at(0, "ann").await;
    for (options, values, more, count) in cases {
        let shown = format!("{options:?}");
        let answer = ann.get("ann/range/", Some(options)).await.expect("ann may");
        let found: Vec<_> = answer.kvs().iter().map(|kv| kv.value_str().expect("text")).collect();
        assert_eq!((&found[..], answer.more(), answer.count()), (values, more, count), "{shown}");
    }
}

pub async fn delete(world: World) {
    let mut ann = world.user("ann").await;
    for name in ["a", "b", "c"] {
        ann.put(format!("ann/delete/{name}"), name, None).await.expect("ann may");
    }
    let previous = Some(DeleteOptions::new().with_prev_key());
    let gone = ann.delete("ann/delete/a", previous).await.expect("ann may");
    let kvs: Vec<_> = gone.prev_kvs().iter().map(|kv| (kv.key(), kv.value())).collect();
    assert_eq!((gone.deleted(), kvs), (1, vec![(&b"ann/delete/a"[..], &b"a"[..])]));
    let again = ann.delete("ann/delete/a", None).await.expect("ann may");
    assert_eq!((again.deleted(), revision!(again)), (0, revision!(gone)));
    let prefix = Some(DeleteOptions::new().with_prefix());
    assert_eq!(ann.delete("ann/delete/", prefix).await.expect("ann may").deleted(), 2);
    let left = ann.get("ann/delete/", Some(GetOptions::new().with_prefix())).await;
    assert_eq!(left.expect("ann may").count(), 0);
}

pub async fn txn(world: World) {
    let mut ann = world.user("ann").await;
    let put = ann.put("ann/txn/a", "1", None).await.expect("ann may");
    let written = revision!(put);
    let holds = || {
        [
            Compare::value("ann/txn/a", CompareOp::Equal, "1"),
            Compare::version("ann/txn/a", CompareOp::Equal, 1),
            Compare::create_revision("ann/txn/a", CompareOp::Equal, written),
            Compare::mod_revision("ann/txn/a", CompareOp::Greater, written - 1),
            Compare::lease("ann/txn/a", CompareOp::NotEqual, 1),
            Compare::version("ann/txn/none", CompareOp::Less, 1),
        ]
    };
    let nested = Txn::new().when([Compare::value("ann/txn/b", CompareOp::Equal, "2")]);
    let nested = nested.and_then([TxnOp::get("ann/txn/b", None)]);
    let all = Txn::new().when(holds()).and_then([
        TxnOp::put("ann/txn/b", "2", None),
        TxnOp::get("ann/txn/b", None),
        TxnOp::delete("ann/txn/a", None),
        TxnOp::get("ann/txn/a", None),
    ]);
    let all = all.or_else([TxnOp::put("ann/txn/c", "3", None)]);
    let done = ann.txn(all).await.expect("ann may");
    assert!(done.succeeded());
    assert_eq!(revision!(done), written + 1);
    let answers = done.op_responses();
    let [
        TxnOpResponse::Put(_),
        TxnOpResponse::Get(found),
        TxnOpResponse::Delete(gone),
        TxnOpResponse::Get(none),
    ] = &answers[..]
    else {
        panic!("an answer for every operation, in order: {answers:?}")
    };
    let kv: &KeyValue = &found.kvs()[0];
    assert_eq!((kv.value(), kv.mod_revision()), (&b"2"[..], written + 1));
    assert_eq!((gone.deleted(), none.count()), (1, 0));

    let fails = Txn::new().when(holds()).and_then([TxnOp::put("ann/txn/b", "4", None)]);
    let failed = ann.txn(fails.or_else([TxnOp::txn(nested)])).await.expect("ann may");
    assert!(!failed.succeeded());
    let [TxnOpResponse::Txn(inner)] = &failed.op_responses()[..] else { panic!("{failed:?}") };
    let [TxnOpResponse::Get(found)] = &inner.op_responses()[..] else { panic!("{inner:?}") };
    assert_eq!((inner.succeeded(), found.kvs()[0].value()), (true, &b"2"[..]));

    let twice = ["5", "6"].map(|value| TxnOp::put("ann/txn/b", value, None));
    refused(
        ann.txn(Txn::new().and_then(twice)).await,
        "InvalidArgument",
        "etcdserver: duplicate key given in txn request",
    );
}

pub async fn past(world: World) {
    let mut ann = world.user_at(0, "ann").await;
    let mut root = world.user("root").await;
    let put = ann.put("ann/past", "1", None).await.expect("ann may");
    let then = revision!(put);
    ann.put("ann/past", "2", None).await.expect("ann may");
    let at = |revision| Some(GetOptions::new().with_revision(revision));
    let found = ann.get("ann/past", at(then)).await.expect("it is not compacted");
    assert_eq!(found.kvs()[0].value(), b"1");
    refused(
        ann.get("ann/past", at(then + 1000)).await,
        "OutOfRange",
        "etcdserver: mvcc: required revision is a future revision",
    );
    let physical = Some(CompactionOptions::new().with_physical());
    root.compact(then + 1, physical).await.expect("root may");
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(ann.get("ann/past", at(then)).await, "OutOfRange", compacted);
    refused(root.compact(then + 1, None).await, "OutOfRange", compacted);
    let options = WatchOptions::new().with_start_revision(then);
    let mut stream = ann.watch("ann/past", Some(options)).await.expect("a stream is opened");
    loop {
        let answer = stream.message().await.expect("the stream lives").expect("the stream is open");
        if answer.canceled() {
            assert_eq!(answer.compact_revision(), then + 1);
            break;
        }
        assert!(answer.created(), "what is compacted is not seen: {answer:?}");
    }
}

pub async fn watch_live_and_past(world: World) {
    let mut ann = world.user("ann").await;
    let mut other = world.user_at(1, "ann").await;
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = other.watch("ann/watch/", Some(options)).await.expect("ann may");
    let created = stream.message().await.expect("ann may").expect("the stream is open");
    assert!(created.created() && !created.canceled(), "{created:?}");
    let put = ann.put("ann/watch/a", "1", None).await.expect("ann may");
    let first = revision!(put);
    ann.put("ann/watch/a", "2", None).await.expect("ann may");
    ann.put("ann/elsewhere", "0", None).await.expect("ann may");
    ann.delete("ann/watch/a", None).await.expect("ann may");
    let seen = events(&mut stream, 3).await;
    let (put, delete) = (EventType::Put, EventType::Delete);
    let kinds: Vec<_> = seen.iter().map(|event| event.event_type()).collect();
    assert_eq!(kinds, [put, put, delete]);
    let kvs: Vec<_> = seen.iter().map(|event| event.kv().expect("every event has a key")).collect();
    let values: Vec<_> = kvs.iter().map(|kv| kv.value_str().expect("text")).collect();
    assert_eq!(values, ["1", "2", ""]);
    let revisions: Vec<_> = kvs.iter().map(|kv| kv.mod_revision()).collect();
    assert_eq!(revisions, [first, first + 1, first + 3]);
    let previous: Vec<_> = seen.iter().map(|event| event.prev_kv().map(|kv| kv.value())).collect();
    assert_eq!(previous, [None, Some(&b"1"[..]), Some(&b"2"[..])]);

    // A second watch of the stream, of what has been; and the end of the first.
    let options = WatchOptions::new().with_start_revision(first + 1).with_watch_id(77);
    stream.watch("ann/watch/a", Some(options)).await.expect("the stream is open");
    let mut again = Vec::new();
    while again.len() < 2 {
        let answer = stream.message().await.expect("ann may").expect("the stream is open");
        assert_eq!(answer.watch_id(), 77, "{answer:?}");
        let kvs = answer.events().iter().map(|event| event.kv().expect("every event has a key"));
        again.extend(kvs.map(|kv| kv.mod_revision()));
    }
    assert_eq!(again, revisions[1..]);
    stream.cancel(created.watch_id()).await.expect("the stream is open");
    let answer = stream.message().await.expect("ann may").expect("the stream is open");
    assert_eq!((answer.canceled(), answer.watch_id()), (true, created.watch_id()));
}

pub async fn watch_denied(world: World) {
    let mut ann = world.user("ann").await;
    let mut stream = ann.watch("bob", None).await.expect("a stream is opened");
    let answer = stream.message().await.expect("the watch is refused, not the stream");
    let answer = answer.expect("the stream is open");
    assert_eq!((answer.created(), answer.canceled(), answer.watch_id()), (true, true, -1));
    let why = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    assert_eq!(answer.cancel_reason(), why);
}
