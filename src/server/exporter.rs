//! Takes ended spans to a collector, a batch at a time, by OTLP over gRPC without TLS, as etcd does. What
//! is in a span is not known here.
//!
//! A collector that is not there costs spans and nothing else: a batch is tried a few times with longer
//! and longer pauses, the next ones wait in the queue meanwhile, and what finds no room there is dropped.

use std::sync::Arc;

use quorate_proto::otlp::collector::trace::v1::ExportTraceServiceRequest;
use quorate_proto::otlp::collector::trace::v1::trace_service_client::TraceServiceClient;
use quorate_proto::otlp::common::v1::InstrumentationScope;
use quorate_proto::otlp::resource::v1::Resource;
use quorate_proto::otlp::trace::v1::{ResourceSpans, ScopeSpans, Span};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status};
use tracing::{info, warn};

use super::port::stopped;
use crate::client::{self, Channel};
use crate::env::{Abort, Env};
use crate::error::Fatal;
use crate::latest;
use crate::limits;
use crate::metrics::Metrics;
use crate::trace::span::text;
use crate::trace::{Settings, Tracer};

/// The task that exports; dropped, it leaves what is still there.
pub(super) struct Exporter {
    env: Env,
    stop: latest::Sender<bool>,
    task: Box<dyn Abort>,
}

impl Exporter {
    /// Begins to take the spans of the tracer that is returned. Nothing is connected before the first.
    pub fn start(
        env: &Env,
        settings: &Settings,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Tracer), Fatal> {
        let collector = [&settings.collector];
        let channel = Channel::with_options(env.clone(), collector, client::Options::default())
            .map_err(|e| Fatal::new("starting distributed tracing", e))?;
        let (tracer, queue) = Tracer::new(env, settings, metrics.clone());
        let (stop, stopped) = latest::channel(false);
        let task = Task {
            env: env.clone(),
            client: TraceServiceClient::new(channel),
            collector: settings.collector.clone(),
            resource: resource(settings),
            queue,
            stopped,
            metrics,
            failures: 0,
        };
        let task = env.spawn("span exporter", task.run());
        Ok((Self { env: env.clone(), stop, task }, tracer))
    }

    /// Gives the collector a moment to take what is there.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        if self.env.timeout(limits::SPANS_FLUSH, self.stop.closed()).await.is_err() {
            warn!("the collector has not taken the last spans in time");
            self.task.abort();
        }
    }
}

fn resource(settings: &Settings) -> Resource {
    let mut attributes = vec![text("service.name", settings.service_name.as_bytes())];
    if !settings.instance_id.is_empty() {
        attributes.push(text("service.instance.id", settings.instance_id.as_bytes()));
    }
    Resource { attributes }
}

struct Task {
    env: Env,
    client: TraceServiceClient<Channel>,
    collector: String,
    resource: Resource,
    queue: mpsc::Receiver<Span>,
    stopped: latest::Receiver<bool>,
    metrics: Arc<Metrics>,
    /// Attempts that failed since the last one that did not.
    failures: u64,
}

impl Task {
    async fn run(mut self) {
        while let Some(spans) = self.gather().await {
            self.deliver(spans).await;
        }
    }

    /// The next spans: those of a few seconds, if they are not many. `None` when there will be no more.
    async fn gather(&mut self) -> Option<Vec<Span>> {
        let first = tokio::select! {
            biased; // A server that stops waits for no spans.
            () = stopped(&mut self.stopped) => self.queue.try_recv().ok()?,
            first = self.queue.recv() => first?,
        };
        let mut spans = vec![first];
        let mut delay = self.env.sleep(limits::SPANS_DELAY);
        while spans.len() < limits::SPANS_BATCH_MAX {
            let next = tokio::select! {
                biased; // The same, and what is there goes before the time is up.
                () = stopped(&mut self.stopped) => self.queue.try_recv().ok(),
                next = self.queue.recv() => next,
                () = &mut delay => None,
            };
            let Some(next) = next else { break };
            spans.push(next);
        }
        Some(spans)
    }

    /// Sends them until the collector has taken them, or refuses them, or has had its chances.
    async fn deliver(&mut self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = self.request(spans);
        let mut pause = limits::SPANS_RETRY_PAUSE;
        for left in (0..limits::SPANS_ATTEMPTS_MAX).rev() {
            let failure = match self.export(request.clone()).await {
                Ok(rejected) => return self.taken(count, rejected),
                Err(failure) => failure,
            };
            self.failures += 1;
            // At first each time, then ever more seldom.
            if self.failures.is_power_of_two() {
                let (collector, failures) = (&self.collector, self.failures);
                warn!(collector, failures, error = failure.message(), "exporting spans failed");
            }
            if left == 0 || !may_pass(failure.code()) || *self.stopped.borrow() {
                break;
            }
            tokio::select! {
                biased; // A server that stops tries once more and is done.
                () = stopped(&mut self.stopped) => {}
                () = self.env.sleep(pause) => {}
            }
            pause *= 2;
        }
        self.dropped(count);
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            attributes: Vec::new(),
        };
        let scope_spans = ScopeSpans { scope: Some(scope), spans, schema_url: String::new() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            schema_url: String::new(),
        };
        ExportTraceServiceRequest { resource_spans: vec![resource_spans] }
    }

    /// Exports spans; returns how many the collector rejected.
    async fn export(&mut self, request: ExportTraceServiceRequest) -> Result<u64, Status> {
        let mut request = Request::new(request);
        request.set_timeout(limits::SPANS_EXPORT_TIMEOUT);
        let answer = self.client.export(request).await?.into_inner();
        let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
        Ok(u64::try_from(rejected).unwrap_or(0))
    }

    fn taken(&mut self, count: u64, rejected: u64) {
        let rejected = rejected.min(count);
        self.metrics.spans_exported.inc_by(count - rejected);
        if rejected > 0 {
            self.dropped(rejected);
        }
        if std::mem::take(&mut self.failures) > 0 {
            info!(collector = self.collector, "spans are exported again");
        }
    }

    fn dropped(&self, count: u64) {
        self.metrics.spans_dropped.with_label_values(&["collector"]).inc_by(count);
    }
}

/// Whether the same request may have more luck later (OTLP, "Failures").
fn may_pass(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}
