//! The collector of the spans that members tell of, on a host of its own: takes everything and says so.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use quorate::env::{BoxFuture, Env};
use quorate::latest;
use quorate::server::port::{self, Handler, Port};
use quorate::trace::Settings;
use quorate_proto::otlp::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use quorate_proto::otlp::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;

use crate::evidence::Evidence;
use crate::world::World;

pub const HOST: &str = "spans";
const PORT: u16 = 4317;

/// What a member is told, of whose calls so many of a million are traced.
pub fn settings(host: &str, per_million: u32) -> Settings {
    Settings {
        collector: format!("{HOST}:{PORT}"),
        service_name: "cluster".to_owned(),
        instance_id: host.to_owned(),
        per_million,
    }
}

/// Begins to collect, until the run ends.
pub async fn start(world: &World, evidence: &Evidence) {
    world.add_host(HOST);
    let evidence = evidence.clone();
    drop(world.start(HOST, |env| collect(env, evidence)).await);
}

async fn collect(env: Env, evidence: Evidence) {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
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
    // Nobody tells it to stop.
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
