//! Service grpc.health.v1.Health, for the server as a whole (service name ""), as etcd serves it.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate_proto::health::health_check_response::ServingStatus;
use quorate_proto::health::health_server;
use quorate_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::gate;
use super::status::status;
use crate::member::Member;

/// Interval at which a watched status is checked.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub struct Health {
    pub member: Member,
}

impl Health {
    fn answer(member: &Member) -> HealthCheckResponse {
        let status =
            if member.is_stopping() { ServingStatus::NotServing } else { ServingStatus::Serving };
        HealthCheckResponse { status: status as i32 }
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(Self::answer(&self.member)))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = BTreeMap::from([(String::new(), Self::answer(&self.member))]);
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = gate::needs_leader(request.metadata());
        let known = request.get_ref().service.is_empty();
        let (sender, stream) = mpsc::channel(1);
        let member = self.member.clone();
        let env = self.member.env().clone();
        self.member.env().spawn("health watch", async move {
            let mut last = None;
            loop {
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown as i32 };
                let now = if known { Self::answer(&member) } else { unknown };
                if last.as_ref() != Some(&now) {
                    last = Some(now);
                    if sender.send(Ok(now)).await.is_err() {
                        return;
                    }
                }
                tokio::select! {
                    biased; // A client that has gone needs no word of the end.
                    () = sender.closed() => return,
                    error = member.cut_off(needs_leader) => {
                        let _ = sender.send(Ok(Self::answer(&member))).await;
                        let _ = sender.send(Err(status(error))).await;
                        return;
                    }
                    () = env.sleep(WATCH_INTERVAL) => {}
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
