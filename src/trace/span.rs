//! One span: begun, filled with events, ended once. It is kept in the form in which it is sent.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use quorate_proto::otlp::common::v1::{AnyValue, KeyValue, any_value::Value};
use quorate_proto::otlp::trace::v1::span::{Event, SpanKind};
use quorate_proto::otlp::trace::v1::{Span as Ended, Status, status::StatusCode};

use super::Tracer;
use super::context::{Parent, SAMPLED, SpanId, TraceId};
use crate::codec;
use crate::env::Env;
use crate::limits;
use crate::plant;

/// What OTLP adds to W3C's flags: it is known whether the parent is another program's, and it is.
const PARENT_KNOWN: u32 = 0x100;
const PARENT_REMOTE: u32 = 0x200;

/// An open span; clones are the same span. It ends by a call, or with its last clone.
#[derive(Clone)]
pub struct Span(Arc<Inner>);

struct Inner {
    tracer: Tracer,
    trace: TraceId,
    id: SpanId,
    flags: u8,
    state: String,
    clock: Clock,
    open: Mutex<Option<Ended>>,
}

/// What both clocks showed when the call began. All its times are measured by the one that does not
/// jump, so that what comes later is later.
#[derive(Clone)]
struct Clock {
    env: Env,
    wall: SystemTime,
    began: Instant,
}

impl Clock {
    fn start(env: &Env) -> Self {
        Self { env: env.clone(), wall: env.wall(), began: env.now() }
    }

    fn now(&self) -> u64 {
        let passed = self.env.now().saturating_duration_since(self.began);
        codec::unix_nanos(self.wall + passed)
    }
}

impl Span {
    /// Of a call.
    pub(super) fn serve(tracer: &Tracer, name: &str, parent: &Parent) -> Self {
        let (from, remote) = match parent.span {
            Some(SpanId(span)) => (Bytes::copy_from_slice(&span), PARENT_REMOTE),
            None => (Bytes::new(), 0),
        };
        let flags = u32::from(parent.flags | SAMPLED) | PARENT_KNOWN | remote;
        let span = Ended {
            name: name.to_owned(),
            kind: SpanKind::Server.into(),
            parent_span_id: from,
            flags,
            ..Ended::default()
        };
        let clock = Clock::start(&tracer.0.env);
        Self::begin(tracer.clone(), clock, parent.clone(), span)
    }

    /// Of a part of what this one is of.
    pub fn within(&self, name: &'static str, attributes: Vec<KeyValue>) -> Self {
        let Inner { tracer, trace, id, flags, state, clock, .. } = &*self.0;
        let span = Ended {
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            parent_span_id: Bytes::copy_from_slice(&id.0),
            flags: u32::from(flags | SAMPLED) | PARENT_KNOWN,
            attributes,
            ..Ended::default()
        };
        let (span_id, state) = (Some(*id), state.clone());
        let parent = Parent { trace: *trace, span: span_id, flags: *flags, state };
        Self::begin(tracer.clone(), clock.clone(), parent, span)
    }

    fn begin(tracer: Tracer, clock: Clock, parent: Parent, span: Ended) -> Self {
        let Parent { trace, flags, state, .. } = parent;
        let mut id: [u8; 8] = tracer.random();
        if plant::SPAN_IDS_REPEAT.is_planted() {
            id[1..].fill(1);
        }
        let id = SpanId(id);
        let open = Ended {
            trace_id: Bytes::copy_from_slice(&trace.0),
            span_id: Bytes::copy_from_slice(&id.0),
            trace_state: state.clone(),
            start_time_unix_nano: clock.now(),
            ..span
        };
        let open = Mutex::new(Some(open));
        Self(Arc::new(Inner { tracer, trace, id, flags, state, clock, open }))
    }

    /// Adds attributes.
    pub fn add(&self, attributes: impl IntoIterator<Item = KeyValue>) {
        self.0.change(|span| span.attributes.extend(attributes));
    }

    /// Something happened, just now.
    pub fn event(&self, name: &'static str, attributes: Vec<KeyValue>) {
        let time_unix_nano = self.0.clock.now();
        let event = Event { time_unix_nano, name: name.to_owned(), attributes };
        self.0.change(|span| {
            if span.events.len() < limits::SPAN_EVENTS_MAX {
                span.events.push(event);
            }
        });
    }

    /// The work failed, and this is why.
    pub fn fail(&self, why: &str) {
        let message = cut(why.as_bytes());
        let status = Status { message, code: StatusCode::Error.into() };
        self.0.change(|span| span.status = Some(status));
    }

    /// Only the first end counts.
    pub fn end(&self) {
        self.0.end();
    }
}

impl Inner {
    fn change(&self, change: impl FnOnce(&mut Ended)) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(span) = open.as_mut() {
            change(span);
        }
    }

    fn end(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(span) = open {
            self.tracer.take(Ended { end_time_unix_nano: self.clock.now(), ..span });
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("trace", &self.0.trace).field("id", &self.0.id).finish()
    }
}

/// An attribute. What is no text is made one, and what is long is cut: keys can be either.
pub fn text(key: &'static str, value: &[u8]) -> KeyValue {
    attribute(key, Value::StringValue(cut(value)))
}

fn cut(text: &[u8]) -> String {
    let text = &text[..text.len().min(limits::SPAN_TEXT_BYTES_MAX)];
    String::from_utf8_lossy(text).into_owned()
}

pub fn number(key: &'static str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

pub fn truth(key: &'static str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn attribute(key: &'static str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
