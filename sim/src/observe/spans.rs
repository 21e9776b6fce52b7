//! The collector of the spans that members export, on a host of its own: accepts and acknowledges all.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use quorate::env::{BoxFuture, Env};
use quorate::latest;
use quorate::server::port::{self, Handler, Port};
use quorate_proto::otlp::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use quorate_proto::otlp::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::facts::addresses::{COLLECTOR, COLLECTOR_PORT};
use crate::facts::evidence::Evidence;
use crate::world::World;

/// Begins to collect, until the run ends.
pub async fn start(world: &World, evidence: &Evidence) {
    world.add_host(COLLECTOR);
    let evidence = evidence.clone();
    drop(world.start(COLLECTOR, |env| collect(env, evidence)).await);
}

async fn collect(env: Env, evidence: Evidence) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, COLLECTOR_PORT));
    let opened = port::open(&env, &[address.into()], "members").await;
    let opened = opened.expect("nothing else listens here").remove(0);
    let settings = port::Settings {
        concurrent_streams_max: u32::MAX,
        keep_alive_interval: Duration::from_secs(7200),
        keep_alive_timeout: Duration::from_secs(20),
        ping_time_min: Duration::from_secs(1),
        http2_only: true,
        places: port::places(&env),
    };
    let collector = Collector(TraceServiceServer::new(Takes { env: env.clone(), evidence }));
    // It is never stopped.
    let (_stop, stopped) = latest::channel(false);
    Port::new(&env, &settings, &opened, None, collector, stopped).accept(opened.listener).await;
}

#[derive(Clone)]
struct Collector(TraceServiceServer<Takes>);

impl Handler for Collector {
    fn secured(self) -> Self {
        self
    }

    fn handle(&self, request: Request<Incoming>, _: bool) -> BoxFuture<'static, Response<Body>> {
        let Self(mut service) = self.clone();
        Box::pin(async move { service.call(request).await.unwrap_or_else(|never| match never {}) })
    }
}

struct Takes {
    env: Env,
    evidence: Evidence,
}

#[tonic::async_trait]
impl TraceService for Takes {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|of| of.scope_spans);
        let at = self.env.now();
        let spans = scopes.flat_map(|scope| scope.spans).map(|span| (at, span));
        self.evidence.record().seen.spans.extend(spans);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
