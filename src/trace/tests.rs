//! What callers' words come to, which share of calls is traced, and how spans hang together.

use std::sync::Arc;

use proptest::prelude::*;
use quorate_proto::otlp::trace::v1::Span as Ended;
use tokio::sync::mpsc;

use super::context::{Parent, SpanId, TraceId};
use super::sampler::Sampler;
use super::span::{number, text};
use super::{Settings, Tracer};
use crate::env;
use crate::limits;
use crate::metrics::Metrics;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn parent(text: &str) -> Option<Parent> {
    Parent::read(text, "")
}

#[test]
fn parents_are_read_as_w3c_writes_them() {
    let read = parent(PARENT).expect("it is one");
    assert_eq!(read.trace.0[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(read.span, Some(SpanId([0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31])));
    assert!(read.is_sampled());
    let [trace, span] = ["0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"];
    let flags = |flags: &str| parent(&format!("00-{trace}-{span}-{flags}")).map(|it| it.flags);
    assert_eq!(flags("00"), Some(0));
    assert_eq!(flags("03"), Some(3));
    assert_eq!(flags("04"), None, "nobody knows what it means");
    let later = parent(&format!("01-{trace}-{span}-05-more")).expect("a later version says more");
    assert_eq!(later.flags, 1, "of which what is known counts");
    for wrong in [
        String::new(),
        format!("00-{trace}-{span}"),
        format!("00-{trace}-{span}-01-more"),
        format!("ff-{trace}-{span}-01"),
        format!("0-{trace}-{span}-01"),
        format!("00-{}-{span}-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{}-{span}-01", trace.to_uppercase()),
        format!("00-{trace}-{span}-1"),
        format!("00-{trace}00-{span}-01"),
        format!("00-{}é-{span}-01", &trace[2..]),
    ] {
        assert_eq!(parent(&wrong), None, "{wrong}");
    }
}

#[test]
fn a_state_is_kept_or_left_out_whole() {
    let state = |text: &str| Parent::read(PARENT, text).expect("the parent is one").state;
    assert_eq!(state(" a=1\t,,t@v=x y,b/c=! "), "a=1,t@v=x y,b/c=!");
    for wrong in ["a", "a=", "=1", "A=1", "1=1", "a=1,a=2", "a=1=2", "a=\u{e9}", "@v=1", "t@1=1"] {
        assert_eq!(state(wrong), "", "{wrong}");
    }
    let many = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!("k{n}=v")).collect();
        members.join(",")
    };
    assert_eq!(state(&many(32)), many(32));
    assert_eq!(state(&many(33)), "");
    assert_eq!(state(&format!("a={}", "x".repeat(256))).len(), 258);
    assert_eq!(state(&format!("a={}", "x".repeat(257))), "");
}

/// Texts of which many are nearly parents, and some are.
fn strange_parents() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,80}", "0[0-2]-[0-9a-f]{32}-[0-9a-f]{16}-0[0-7]-?[a-z]{0,2}"]
}

proptest! {
    /// Whatever the text, and what is read reads the same again.
    #[test]
    fn no_text_is_too_strange(
        text in strange_parents(),
        state in prop_oneof!["\\PC{0,80}", "([ab]@?[c-e]=[f-h ,]{1,3}){0,3}"],
    ) {
        if let Some(read) = Parent::read(&text, &state) {
            let SpanId(span) = read.span.expect("a parent has a span");
            let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            let again = format!("00-{}-{}-{:02x}", hex(&read.trace.0), hex(&span), read.flags);
            prop_assert_eq!(Parent::read(&again, &read.state), Some(read));
        }
    }

    #[test]
    fn parents_are_read_back(trace in 1..=u128::MAX, span in 1..=u64::MAX, flags in 0..4_u8) {
        let read = parent(&format!("00-{trace:032x}-{span:016x}-{flags:02x}"));
        let (trace, span) = (TraceId(trace.to_be_bytes()), Some(SpanId(span.to_be_bytes())));
        prop_assert_eq!(read, Some(Parent { trace, span, flags, state: String::new() }));
    }

    /// The share is met, one id has one answer, and a larger share keeps all that a smaller one keeps.
    #[test]
    fn a_share_of_all_traces_is_kept(per_million in 0..=1_000_000_u32, more in 0..1_000_u32, seed: u64) {
        const COUNT: u64 = 20_000;
        let sampler = Sampler::new(per_million);
        let larger = Sampler::new((per_million + more).min(1_000_000));
        let mut kept = 0;
        for n in 0..COUNT {
            // Ids that are spread evenly, the first half being of no account.
            let low = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let trace = TraceId((u128::from(low) | u128::from(seed) << 64).to_be_bytes());
            kept += u64::from(sampler.keeps(trace));
            prop_assert!(larger.keeps(trace) || !sampler.keeps(trace));
        }
        let expected = u64::from(per_million) * COUNT / 1_000_000;
        prop_assert!(kept.abs_diff(expected) <= 20, "{kept} instead of {expected}");
        prop_assert_eq!(sampler.keeps_none(), per_million == 0);
    }
}

/// Bounds that OpenTelemetry's Go library comes to.
#[test]
fn the_bound_is_that_of_other_programs() {
    let trace = |low: u64| TraceId(u128::from(low).to_be_bytes());
    let half = Sampler::new(500_000);
    assert!(half.keeps(trace((1 << 63) - 1)) && !half.keeps(trace(1 << 63)));
    assert!(Sampler::new(1_000_000).keeps(trace(u64::MAX)));
    let one = Sampler::new(1);
    let bound = (0.000_001 * 9_223_372_036_854_775_808.0) as u64;
    assert!(one.keeps(trace((bound - 1) << 1)) && !one.keeps(trace(bound << 1)));
}

struct Traced {
    tracer: Tracer,
    queue: mpsc::Receiver<Ended>,
    metrics: Arc<Metrics>,
}

fn traced(per_million: u32) -> Traced {
    let (collector, name) = (String::new(), String::new());
    let settings =
        Settings { collector, service_name: name.clone(), instance_id: name, per_million };
    let metrics = Arc::new(Metrics::new());
    let (tracer, queue) = Tracer::new(&env::tokio::env(), &settings, metrics.clone());
    Traced { tracer, queue, metrics }
}

#[tokio::test]
async fn callers_decide_and_a_share_of_the_others_is_traced() {
    let unsampled = PARENT.replace("-01", "-00");
    for (per_million, alone) in [(0, false), (1_000_000, true)] {
        let Traced { tracer, .. } = traced(per_million);
        assert!(tracer.serve("a/B", Some(PARENT), None).is_some());
        assert!(tracer.serve("a/B", Some(&unsampled), None).is_none());
        assert_eq!(tracer.serve("a/B", None, None).is_some(), alone);
        assert_eq!(tracer.serve("a/B", Some("nonsense"), None).is_some(), alone);
    }
}

#[tokio::test]
async fn spans_hang_together_and_end_once() {
    let Traced { tracer, mut queue, .. } = traced(0);
    let call = tracer.serve("etcdserverpb.KV/Put", Some(PARENT), Some("v=1")).expect("sampled");
    let part = call.within("put", vec![text("key", b"k\xff"), number("rev", 3)]);
    part.event("Send raft proposal", Vec::new());
    drop(part.clone());
    assert!(queue.try_recv().is_err(), "a clone of it goes on");
    drop(part);
    call.fail("because");
    call.end();
    call.event("too late", Vec::new());
    drop(call);
    let (part, call) = (queue.try_recv().expect("ended"), queue.try_recv().expect("ended"));
    assert!(queue.try_recv().is_err(), "two spans, each once");
    assert_eq!((&*call.name, call.kind, call.flags), ("etcdserverpb.KV/Put", 2, 0x301));
    assert_eq!((&*part.name, part.kind, part.flags), ("put", 1, 0x101));
    assert_eq!(call.trace_id, part.trace_id);
    assert_eq!(call.trace_id[..2], [0x0a, 0xf7]);
    assert_eq!(call.parent_span_id[..2], [0xb7, 0xad]);
    assert_eq!(part.parent_span_id, call.span_id);
    assert_ne!(part.span_id, call.span_id);
    assert_eq!((&*call.trace_state, &*part.trace_state), ("v=1", "v=1"));
    assert_eq!(call.status.map(|status| status.message), Some("because".into()));
    assert!(call.events.is_empty() && part.events.len() == 1);
    assert!(call.start_time_unix_nano <= part.start_time_unix_nano);
    assert!(part.start_time_unix_nano <= part.events[0].time_unix_nano);
    assert!(part.events[0].time_unix_nano <= part.end_time_unix_nano);
    assert!(part.end_time_unix_nano <= call.end_time_unix_nano);
    assert_eq!(part.attributes, [text("key", "k\u{fffd}".as_bytes()), number("rev", 3)]);
}

#[tokio::test]
async fn what_finds_no_room_is_dropped_and_counted() {
    let Traced { tracer, mut queue, metrics } = traced(1_000_000);
    for _ in 0..limits::SPANS_WAITING_MAX + 3 {
        drop(tracer.serve("a/B", None, None).expect("all are traced"));
    }
    let dropped = metrics.spans_dropped.with_label_values(&["queue"]);
    assert_eq!(dropped.get(), 3);
    assert!(queue.try_recv().is_ok());
    drop(tracer.serve("a/B", None, None));
    assert_eq!(dropped.get(), 3, "there is room again");
}

#[tokio::test]
async fn a_span_is_bounded() {
    let Traced { tracer, mut queue, .. } = traced(1_000_000);
    let call = tracer.serve("a/B", None, None).expect("all are traced");
    call.add([text("key", &vec![b'x'; 2 * limits::SPAN_TEXT_BYTES_MAX])]);
    call.fail(&"y".repeat(2 * limits::SPAN_TEXT_BYTES_MAX));
    for _ in 0..2 * limits::SPAN_EVENTS_MAX {
        call.event("again", Vec::new());
    }
    drop(call);
    let span = queue.try_recv().expect("it has ended");
    assert_eq!(span.events.len(), limits::SPAN_EVENTS_MAX);
    assert_eq!(span.attributes, [text("key", &vec![b'x'; limits::SPAN_TEXT_BYTES_MAX])]);
    let status = span.status.expect("it failed");
    assert_eq!(status.message, "y".repeat(limits::SPAN_TEXT_BYTES_MAX));
    assert!(span.parent_span_id.is_empty() && span.flags == 0x101);
}
