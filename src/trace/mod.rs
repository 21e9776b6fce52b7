//! Spans: what a call did and when, as OpenTelemetry has it, for operators that follow requests through
//! many programs. Not the log, and nothing is sent from here: ended spans wait in a bounded queue, from
//! which `server` takes them to a collector.
//!
//! The meaning is etcd's (3.7, `server/embed/config_tracing.go`, otelgrpc 0.68):
//! * A caller that is in a trace decides whether its call is traced.
//! * Of the other calls a share is traced, decided by the trace's id alone, so that all programs which
//!   have the same share come to the same.
//! * A call's span has the gRPC method's name; what a member does for it stands in spans within.
//!
//! A call that is not traced costs a look at one header, and no random number unless a share is kept. A span
//! that finds no room is dropped and counted: tracing never makes a call wait.
//!
//! Reading order: [`context`] (what callers send), `sampler`, [`span`].

pub mod context;
mod sampler;
pub mod span;

use std::sync::Arc;

use quorate_proto::otlp::trace::v1::Span as Ended;
use tokio::sync::mpsc;

use self::context::{Parent, TraceId};
use self::sampler::Sampler;
pub use self::span::Span;
use crate::env::Env;
use crate::limits;
use crate::metrics::Metrics;

/// Which calls are traced, and where their spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The collector, `host:port`.
    pub collector: String,
    pub service_name: String,
    /// Of this member alone; empty for none.
    pub instance_id: String,
    /// Calls traced of a million that no caller has decided about; at most a million.
    pub per_million: u32,
}

/// Begins spans; clones share the queue of those that have ended.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

struct Shared {
    env: Env,
    sampler: Sampler,
    ended: mpsc::Sender<Ended>,
    metrics: Arc<Metrics>,
}

impl Tracer {
    /// A tracer, and what becomes of its spans.
    pub fn new(
        env: &Env,
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> (Self, mpsc::Receiver<Ended>) {
        let (ended, queue) = mpsc::channel(limits::SPANS_WAITING_MAX);
        let sampler = Sampler::new(settings.per_million);
        (Self(Arc::new(Shared { env: env.clone(), sampler, ended, metrics })), queue)
    }

    /// The span of a call with these headers, if it is to be traced.
    pub fn serve(&self, name: &str, parent: Option<&str>, state: Option<&str>) -> Option<Span> {
        match parent.and_then(|parent| Parent::read(parent, state.unwrap_or_default())) {
            Some(parent) => parent.is_sampled().then(|| Span::serve(self, name, &parent)),
            None if self.0.sampler.keeps_none() => None,
            None => {
                let trace = self.new_trace();
                let keeps = self.0.sampler.keeps(trace);
                keeps.then(|| Span::serve(self, name, &Parent::none(trace)))
            }
        }
    }

    fn new_trace(&self) -> TraceId {
        TraceId(self.random())
    }

    /// Not all zero, which stands for nothing.
    fn random<const N: usize>(&self) -> [u8; N] {
        loop {
            let mut bytes = [0; N];
            self.0.env.rt.fill_random(&mut bytes);
            if bytes != [0; N] {
                return bytes;
            }
        }
    }

    fn take(&self, ended: Ended) {
        if self.0.ended.try_send(ended).is_err() {
            self.0.metrics.spans_dropped.with_label_values(&["queue"]).inc();
        }
    }
}

#[cfg(test)]
mod tests;
