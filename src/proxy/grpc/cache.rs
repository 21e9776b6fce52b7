//! Cache of responses to serializable ranges: etcd's cache (3.7, `server/proxy/grpcproxy/cache`) with a
//! bound on bytes. A cached response may be stale, but not older than writes through this proxy. Pure: no
//! clock, no connection.
//!
//! Differences from etcd: responses are cached for each token, and a response that was in flight while its
//! keys were written is not cached.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};

use crate::limits::{PROXY_CACHE_ANSWERS, PROXY_CACHE_BYTES};

/// Key of a cached response: token and request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    token: Option<Bytes>,
    /// The encoded request, made serializable.
    range: Vec<u8>,
}

#[derive(Debug)]
struct Kept {
    answer: RangeResponse,
    bytes: usize,
    used: u64,
    /// Key and end, if a write may change the response.
    span: Option<(Bytes, Bytes)>,
}

/// The state of a request in the cache.
#[derive(Debug, PartialEq)]
pub enum Found {
    Answer(RangeResponse),
    /// The revision is compacted.
    Compacted,
    Nothing,
}

#[derive(Debug, Default)]
pub struct Cache {
    kept: BTreeMap<Question, Kept>,
    /// Keys by last use.
    order: BTreeMap<u64, Question>,
    uses: u64,
    bytes: usize,
    compacted: i64,
    /// The newest revision written through this proxy. Older responses may lack it.
    written: i64,
}

impl Cache {
    /// Returns the number of cached responses.
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

    /// Invalidates keys before a write.
    pub fn invalidate(&mut self, key: &[u8], end: &[u8]) {
        let meets = |kept: &Kept| {
            kept.span.as_ref().is_some_and(|(from, to)| overlap((from, to), (key, end)))
        };
        let changed = self.kept.iter().filter(|(_, kept)| meets(kept));
        let changed: BTreeSet<Question> = changed.map(|(question, _)| question.clone()).collect();
        changed.iter().for_each(|question| self.remove(question));
    }

    /// Invalidates keys after a write at this revision.
    pub fn written(&mut self, key: &[u8], end: &[u8], revision: i64) {
        self.written = self.written.max(revision);
        self.invalidate(key, end);
    }

    /// Marks older revisions as compacted.
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

/// Returns whether two spans overlap. An empty end is that of one key, a zero byte that of all.
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
