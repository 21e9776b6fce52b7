//! Answers to ranges, kept for those who ask for a serializable one: etcd's cache (3.7,
//! `server/proxy/grpcproxy/cache`), with a bound on bytes. Such an answer may be as old as it likes, but
//! not older than what was written through this proxy. Pure: no clock, no connection.
//!
//! What differs from etcd: an answer is for the token that it was given to, and an answer that was on its
//! way while its keys were written is not kept.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::limits::{PROXY_CACHE_ANSWERS, PROXY_CACHE_BYTES};

/// Who asks, for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    token: Option<Bytes>,
    /// Encoded, as a serializable one.
    range: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    answer: RangeResponse,
    bytes: usize,
    used: u64,
    /// Key and end, where a write may change the answer.
    span: Option<(Bytes, Bytes)>,
}

/// What the cache knows about a question.
#[derive(Debug, PartialEq)]
pub enum Found {
    Answer(RangeResponse),
    /// The revision is known to be gone.
    Compacted,
    Nothing,
}

#[derive(Debug, Default)]
pub struct Cache {
    kept: BTreeMap<Question, Kept>,
    /// By when they were used last.
    order: BTreeMap<u64, Question>,
    uses: u64,
    bytes: usize,
    compacted: i64,
    /// The newest revision that was written through this proxy. Older answers may lack it.
    written: i64,
}

impl Cache {
    /// How many there are.
    pub fn answers(&self) -> usize {
        self.kept.len()
    }

    pub fn get(&mut self, token: Option<&Bytes>, range: &RangeRequest) -> Found {
        let question = question(token, range);
        if range.revision > 0 && range.revision < self.compacted {
            self.remove(&question);
            return Found::Compacted;
        }
        let Some(kept) = self.kept.get_mut(&question) else { return Found::Nothing };
        self.uses += 1;
        self.order.remove(&kept.used);
        kept.used = self.uses;
        self.order.insert(self.uses, question);
        Found::Answer(kept.answer.clone())
    }

    pub fn add(&mut self, token: Option<&Bytes>, range: &RangeRequest, answer: &RangeResponse) {
        let past = range.revision != 0;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        let old = if past { range.revision <= self.compacted } else { revision < self.written };
        let bytes = answer.encoded_len();
        if old || bytes > PROXY_CACHE_BYTES {
            return;
        }
        let question = question(token, range);
        self.remove(&question);
        self.uses += 1;
        let span = (!past).then(|| (range.key.clone(), range.range_end.clone()));
        let kept = Kept { answer: answer.clone(), bytes, used: self.uses, span };
        self.bytes += bytes;
        self.order.insert(self.uses, question.clone());
        self.kept.insert(question, kept);
        while self.kept.len() > PROXY_CACHE_ANSWERS || self.bytes > PROXY_CACHE_BYTES {
            let (_, oldest) = self.order.first_key_value().expect("there is one more than allowed");
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    /// Keys are about to change.
    pub fn invalidate(&mut self, key: &[u8], end: &[u8]) {
        let meets = |kept: &Kept| {
            kept.span.as_ref().is_some_and(|(from, to)| overlap((from, to), (key, end)))
        };
        let changed = self.kept.iter().filter(|(_, kept)| meets(kept));
        let changed: BTreeSet<Question> = changed.map(|(question, _)| question.clone()).collect();
        changed.iter().for_each(|question| self.remove(question));
    }

    /// Keys have changed, at this revision.
    pub fn written(&mut self, key: &[u8], end: &[u8], revision: i64) {
        self.written = self.written.max(revision);
        self.invalidate(key, end);
    }

    /// What is older than this revision is gone.
    pub fn compact(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision);
    }

    fn remove(&mut self, question: &Question) {
        if let Some(kept) = self.kept.remove(question) {
            self.order.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }
}

fn question(token: Option<&Bytes>, range: &RangeRequest) -> Question {
    let range = RangeRequest { serializable: true, ..range.clone() };
    Question { token: token.cloned(), range: range.encode_to_vec() }
}

/// Whether two spans have a key in common. An empty end is that of one key, a zero byte that of all.
fn overlap(one: (&[u8], &[u8]), other: (&[u8], &[u8])) -> bool {
    let before = |(from, to): (&[u8], &[u8]), key: &[u8]| match to {
        [] => from < key,
        [0] => false,
        to => to <= key,
    };
    !before(one, other.0) && !before(other, one.0)
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::ResponseHeader;

    use super::*;

    fn range(key: &'static str, end: &'static str) -> RangeRequest {
        RangeRequest { key: key.into(), range_end: end.into(), ..Default::default() }
    }

    fn answer(revision: i64) -> RangeResponse {
        let header = Some(ResponseHeader { revision, ..Default::default() });
        RangeResponse { header, count: revision, ..Default::default() }
    }

    #[test]
    fn answers_are_kept_until_their_keys_are_written() {
        let mut cache = Cache::default();
        cache.add(None, &range("a", ""), &answer(1));
        cache.add(None, &range("a", "c"), &answer(1));
        cache.add(None, &range("c", "\0"), &answer(1));
        let asked = RangeRequest { serializable: true, ..range("a", "") };
        assert_eq!(cache.get(None, &asked), Found::Answer(answer(1)));
        cache.written(b"b", b"", 2);
        assert_eq!(cache.get(None, &range("a", "")), Found::Answer(answer(1)));
        assert_eq!(cache.get(None, &range("a", "c")), Found::Nothing);
        assert_eq!(cache.get(None, &range("c", "\0")), Found::Answer(answer(1)));
        cache.written(b"x", b"z", 3);
        assert_eq!(cache.get(None, &range("c", "\0")), Found::Nothing);
        assert_eq!(cache.answers(), 1);
    }

    #[test]
    fn what_was_read_before_a_write_is_not_kept_after_it() {
        let mut cache = Cache::default();
        cache.written(b"a", b"", 7);
        cache.add(None, &range("a", ""), &answer(6));
        assert_eq!(cache.get(None, &range("a", "")), Found::Nothing);
        cache.add(None, &range("a", ""), &answer(7));
        assert_eq!(cache.get(None, &range("a", "")), Found::Answer(answer(7)));
    }

    #[test]
    fn answers_are_for_who_got_them() {
        let mut cache = Cache::default();
        let token = Bytes::from_static(b"alice");
        cache.add(Some(&token), &range("a", ""), &answer(1));
        assert_eq!(cache.get(None, &range("a", "")), Found::Nothing);
        assert_eq!(cache.get(Some(&token), &range("a", "")), Found::Answer(answer(1)));
    }

    #[test]
    fn the_past_stays_until_it_is_compacted() {
        let mut cache = Cache::default();
        let past = RangeRequest { revision: 3, ..range("a", "") };
        cache.add(None, &past, &answer(9));
        cache.written(b"a", b"", 10);
        assert_eq!(cache.get(None, &past), Found::Answer(answer(9)));
        cache.compact(3);
        assert_eq!(cache.get(None, &past), Found::Answer(answer(9)), "3 itself is there");
        cache.compact(4);
        assert_eq!(cache.get(None, &past), Found::Compacted);
        cache.add(None, &past, &answer(11));
        assert_eq!(cache.answers(), 0);
    }

    #[test]
    fn those_that_are_not_used_make_room() {
        let mut cache = Cache::default();
        let numbered = |limit| RangeRequest { limit, ..range("a", "") };
        for limit in 0..PROXY_CACHE_ANSWERS as i64 {
            cache.add(None, &numbered(limit), &answer(1));
        }
        assert_eq!(cache.get(None, &numbered(0)), Found::Answer(answer(1)));
        cache.add(None, &numbered(-1), &answer(1));
        assert_eq!(cache.answers(), PROXY_CACHE_ANSWERS);
        assert_eq!(cache.get(None, &numbered(1)), Found::Nothing);
        assert_eq!(cache.get(None, &numbered(0)), Found::Answer(answer(1)));
        assert_eq!(cache.order.len(), cache.kept.len());
    }

    #[test]
    fn spans_meet_where_they_share_a_key() {
        let meet = |a: [&[u8]; 2], b: [&[u8]; 2]| {
            let (one, other) =
                (overlap((a[0], a[1]), (b[0], b[1])), overlap((b[0], b[1]), (a[0], a[1])));
            assert_eq!(one, other);
            one
        };
        assert!(meet([b"a", b""], [b"a", b""]) && !meet([b"a", b""], [b"b", b""]));
        assert!(meet([b"a", b""], [b"a", b"b"]) && !meet([b"b", b""], [b"a", b"b"]));
        assert!(meet([b"a", b"\0"], [b"z", b""]) && !meet([b"b", b"\0"], [b"a", b""]));
        assert!(meet([b"a", b"c"], [b"b", b"d"]) && !meet([b"a", b"b"], [b"b", b"c"]));
    }
}
