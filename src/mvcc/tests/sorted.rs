//! Answers sorted by value whose values have much in common, are prefixes of each other, empty or equal,
//! with room for a few keys only: compared with the answer of a simple model.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_proto::etcdserverpb::{
    PutRequest, RangeRequest, RangeResponse,
    range_request::{SortOrder, SortTarget},
};
use quorate_proto::mvccpb::KeyValue;

use super::{entry, open, place};
use crate::mvcc::sorted::LOOKS;
use crate::mvcc::{Ranged, Share, Store};

/// Of few letters, so that many begin alike, and one of the long ones is frequent.
fn value() -> impl Strategy<Value = String> {
    let tail = prop::collection::vec(prop::sample::select(vec!["a", "b"]), 0..6);
    let beginning = prop::sample::select(vec!["", "", "aaaaaaa", "aaaabaaaa", "bbbbbbbbb", "aaaa"]);
    prop_oneof![
        5 => (beginning, tail).prop_map(|(beginning, tail)| format!("{beginning}{}", tail.concat())),
        2 => Just("aaaaaaaaaaaaaaab".to_owned()),
        1 => Just(String::new()),
    ]
}

#[derive(Clone, Debug)]
struct Question {
    down: bool,
    limit: usize,
    keys_only: bool,
    /// So many of the writes have happened.
    back: usize,
    sort: usize,
    page: usize,
}

fn question() -> impl Strategy<Value = Question> {
    let limit = prop_oneof![2 => Just(0_usize), 3 => 1..30_usize];
    (any::<bool>(), limit, any::<bool>(), 0..20_usize, 300..3_000_usize, 1..200_usize).prop_map(
        |(down, limit, keys_only, back, sort, page)| Question {
            down,
            limit,
            keys_only,
            back,
            sort,
            page,
        },
    )
}

fn name(n: usize) -> Bytes {
    format!("k{n:02}").into()
}

fn put(store: &Store, n: usize, value: &str) {
    let request =
        PutRequest { key: name(n), value: value.to_owned().into(), ..PutRequest::default() };
    entry(store, |write| drop(write.put(&request).expect("works").expect("valid")));
}

/// What the writes up to one come to: by key, then in the requested order.
fn model(writes: &[(usize, String)], question: &Question) -> (Vec<(Bytes, Bytes)>, bool) {
    let mut state = std::collections::BTreeMap::new();
    for (n, value) in writes {
        state.insert(name(*n), Bytes::from(value.clone()));
    }
    let mut pairs: Vec<_> = state.into_iter().collect();
    // Equals stay in the order of their keys.
    pairs.sort_by(|(_, a), (_, b)| if question.down { b.cmp(a) } else { a.cmp(b) });
    let more = question.limit > 0 && pairs.len() > question.limit;
    if more {
        pairs.truncate(question.limit);
    }
    (pairs, more)
}

fn ask(store: &Store, revision: i64, question: &Question) -> RangeResponse {
    let order = if question.down { SortOrder::Descend } else { SortOrder::Ascend };
    let request = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        sort_order: order as i32,
        sort_target: SortTarget::Value as i32,
        limit: question.limit as i64,
        keys_only: question.keys_only,
        revision,
        ..RangeRequest::default()
    };
    let share = Share { page: question.page, sort: question.sort };
    match store.view().range_paged(&request, share).expect("works").expect("valid") {
        Ranged::Whole(answer) => answer,
        Ranged::Paged(mut pages) => {
            let mut kvs: Vec<KeyValue> = Vec::new();
            loop {
                let page = pages.next(question.page).expect("works");
                if page.is_empty() {
                    return RangeResponse { kvs, ..pages.frame().clone() };
                }
                kvs.extend(page);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn values_with_much_in_common_are_in_order(
        writes in prop::collection::vec((0..50_usize, value()), 1..120),
        questions in prop::collection::vec(question(), 1..8),
    ) {
        let store = open(&place());
        for (n, value) in &writes {
            put(&store, *n, value);
        }
        for question in &questions {
            let seen = writes.len() - question.back.min(writes.len() - 1);
            // The first write makes revision 2.
            let answer = ask(&store, seen as i64 + 1, question);
            let (expected, more) = model(&writes[..seen], question);
            let keys = |pairs: &[(Bytes, Bytes)]| {
                pairs.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>()
            };
            let told = |kv: &KeyValue| (kv.key.clone(), kv.value.clone());
            let found: Vec<_> = answer.kvs.iter().map(told).collect();
            prop_assert_eq!(keys(&found), keys(&expected), "{:?}", question);
            prop_assert_eq!(answer.more, more);
            let mut values = found.iter().zip(&expected);
            let right = |(found, expected): (&(Bytes, Bytes), &(Bytes, Bytes))| {
                found.1 == expected.1 || (question.keys_only && found.1.is_empty())
            };
            prop_assert!(values.all(right));
        }
    }
}

/// Far more keys with one value, or with a long beginning in common, than there is room for: a run gets
/// on all the same, and looks at the range a few times only.
#[test]
fn many_equal_values_come_once() {
    let store = open(&place());
    let common = "x".repeat(40);
    for n in 0..60 {
        let value = if n % 3 == 0 { common.clone() } else { format!("{common}{:02}", 60 - n) };
        put(&store, n, &value);
    }
    for down in [false, true] {
        let question = Question { down, limit: 0, keys_only: false, back: 0, sort: 900, page: 100 };
        let answer = looking(LOOKS_MAX, || ask(&store, 0, &question));
        let mut expected: Vec<_> = (0..60).collect();
        let rank = |n: &usize| if n.is_multiple_of(3) { 0 } else { 60 - n };
        expected.sort_by_key(|n| (if down { 60 - rank(n) } else { rank(n) }, *n));
        let expected: Vec<_> = expected.into_iter().map(name).collect();
        assert_eq!(answer.kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), expected);
    }
}

/// Each value begins with the one before it, the one before that, and so on.
#[test]
fn values_that_begin_with_each_other_come_soon() {
    let store = open(&place());
    (0..60).for_each(|n| put(&store, n, &"x".repeat(2 * n + 2)));
    for down in [false, true] {
        let question =
            Question { down, limit: 0, keys_only: false, back: 0, sort: 3_000, page: 100 };
        let answer = looking(LOOKS_MAX, || ask(&store, 0, &question));
        let mut expected: Vec<_> = (0..60).map(name).collect();
        if down {
            expected.reverse();
        }
        assert_eq!(answer.kvs.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), expected);
    }
}

/// For sixty keys of which there is room for a few.
const LOOKS_MAX: usize = 30;

/// What comes of it, while the range is looked through a few times only.
fn looking<T>(looks_max: usize, ask: impl FnOnce() -> T) -> T {
    let before = LOOKS.get();
    let answer = ask();
    let looks = LOOKS.get() - before;
    assert!((2..=looks_max).contains(&looks), "looked through {looks} times");
    answer
}
