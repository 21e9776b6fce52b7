//! The spans that members export: an id is one span's, what is done for a call does not begin before
//! it, by whatever clocks, and a whole cluster's spans arrive. That some are lost on the way is no fault,
//! nor that some come twice.

use std::collections::BTreeMap;

use quorate_proto::otlp::common::v1::any_value::Value;
use quorate_proto::otlp::trace::v1::Span;
use quorate_proto::otlp::trace::v1::span::SpanKind;

use super::bounded;
use crate::facts::evidence::Record;
use crate::facts::verdict::Violation;

const CHECKER: &str = "spans";

/// What is done for calls, and for which.
const PARTS: [(&str, &str); 10] = [
    ("range", "etcdserverpb.KV/Range"),
    ("range_streaming", "etcdserverpb.KV/RangeStream"),
    ("put", "etcdserverpb.KV/Put"),
    ("delete_range", "etcdserverpb.KV/DeleteRange"),
    ("txn", "etcdserverpb.KV/Txn"),
    ("compact", "etcdserverpb.KV/Compact"),
    ("lease_grant", "etcdserverpb.Lease/LeaseGrant"),
    ("lease_revoke", "etcdserverpb.Lease/LeaseRevoke"),
    ("lease_renew", "etcdserverpb.Lease/LeaseKeepAlive"),
    ("watch", "etcdserverpb.Watch/Watch"),
];
/// Services that are made of the others.
const MADE: &str = "v3";

/// What does not fit.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut complain = |property, text| violations.push(Violation::new(CHECKER, property, text));
    let mut told: BTreeMap<&[u8], &Span> = BTreeMap::new();
    for (_, span) in &record.seen.spans {
        let first = *told.entry(&span.span_id).or_insert(span);
        if first != span {
            let text = format!("{first:?} and {span:?}");
            complain("a span is exported once", text);
        }
    }
    for span in told.values() {
        let parent = told.get(&span.parent_span_id[..]).copied();
        if let Some(text) = fault(span, parent) {
            complain("a call's span is of one piece", format!("{text}: {span:?} in {parent:?}"));
        }
    }
    let late = record.healthy.zip(record.ended).is_some_and(|(healthy, _)| {
        record.traced && !record.seen.spans.iter().any(|(at, _)| *at > healthy)
    });
    if late {
        complain("spans of a whole cluster arrive", "none has since it was healed".to_owned());
    }
    bounded(violations)
}

fn fault(span: &Span, parent: Option<&Span>) -> Option<&'static str> {
    let (begin, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let mut times = vec![begin];
    times.extend(span.events.iter().map(|event| event.time_unix_nano));
    times.push(end);
    if !times.is_sorted() {
        return Some("it ends before it begins");
    }
    if span.kind() == SpanKind::Server {
        let method = text(span, "rpc.method");
        let known = !span.name.contains(' ') && method == Some(&span.name);
        return (!known || text(span, "rpc.response.status_code").is_none())
            .then_some("its method or its status is missing");
    }
    let Some((_, of)) = PARTS.iter().find(|(name, _)| *name == span.name) else {
        return Some("no part of a call has this name");
    };
    // The call may have been going on when its member was killed.
    let parent = parent?;
    if parent.kind() != SpanKind::Server || parent.trace_id != span.trace_id {
        return Some("it is no part of a call");
    }
    if parent.name != *of && !parent.name.starts_with(MADE) {
        return Some("no such call is made of it");
    }
    (parent.start_time_unix_nano > begin).then_some("it begins before its call")
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a String> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::time::{Duration, Instant};

    use quorate_proto::otlp::common::v1::{AnyValue, KeyValue};

    use super::*;

    fn call(id: u8) -> Span {
        let attribute = |key: &str, value: &str| {
            let value = AnyValue { value: Some(Value::StringValue(value.into())) };
            KeyValue { key: key.into(), value: Some(value) }
        };
        Span {
            trace_id: vec![1; 16].into(),
            span_id: vec![id; 8].into(),
            name: "etcdserverpb.KV/Put".into(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            attributes: vec![
                attribute("rpc.method", "etcdserverpb.KV/Put"),
                attribute("rpc.response.status_code", "OK"),
            ],
            ..Span::default()
        }
    }

    fn part(id: u8, of: u8) -> Span {
        Span {
            parent_span_id: vec![of; 8].into(),
            name: "put".into(),
            kind: SpanKind::Internal.into(),
            start_time_unix_nano: 6,
            attributes: Vec::new(),
            ..call(id)
        }
    }

    fn said(spans: Vec<Span>) -> String {
        let now = Instant::now();
        let (healthy, ended) = (Some(now), Some(now + Duration::from_secs(9)));
        let mut record = Record { traced: true, healthy, ended, ..Record::default() };
        let at = now + Duration::from_secs(1);
        record.seen.spans = spans.into_iter().map(|span| (at, span)).collect();
        check(&record).iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn spans_apart_from_their_call_are_violations() {
        assert_eq!(said(vec![part(2, 1), call(1), part(3, 9), call(1)]), "");
        assert!(said(Vec::new()).contains("none has since it was healed"));
        assert!(said(vec![part(1, 9), call(1)]).contains("exported once"));
        let early = Span { start_time_unix_nano: 4, ..part(2, 1) };
        assert!(said(vec![early, call(1)]).contains("before its call"));
        let backwards = Span { end_time_unix_nano: 4, ..call(1) };
        assert!(said(vec![backwards]).contains("ends before it begins"));
        let other = Span { trace_id: vec![2; 16].into(), ..part(2, 1) };
        assert!(said(vec![other, call(1)]).contains("no part of a call"));
        let name = |name: &str| Span { name: name.into(), ..part(2, 1) };
        assert!(said(vec![name("range"), call(1)]).contains("no such call is made of it"));
        assert!(said(vec![name("nothing")]).contains("no part of a call has this name"));
        let silent = Span { attributes: Vec::new(), ..call(1) };
        assert!(said(vec![silent]).contains("is missing"));
    }
}
