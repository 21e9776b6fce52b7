//! Service Maintenance: status, alarms, hashes, snapshots, leadership and downgrades.

use quorate_proto::etcdserverpb::maintenance_server;
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeRequest,
    DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse, MoveLeaderRequest,
    MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::caller;
use super::status::status;
use crate::member::Member;
use crate::metrics::observe;
use crate::types::MemberId;

pub struct Maintenance {
    pub member: Member,
}

#[tonic::async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let (caller, request) = caller::of(request);
        self.member.alarm(&caller, request).await.map(Response::new).map_err(status)
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.member.status()))
    }

    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        self.member.defragment().await.map_err(status)?;
        Ok(Response::new(DefragmentResponse::default()))
    }

    async fn hash(&self, _request: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        self.member.hash().await.map(Response::new).map_err(status)
    }

    async fn hash_kv(
        &self,
        request: Request<HashKvRequest>,
    ) -> Result<Response<HashKvResponse>, Status> {
        self.member.hash_kv(request.into_inner()).await.map(Response::new).map_err(status)
    }

    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn snapshot(
        &self,
        _request: Request<SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        let broken = |error| Status::internal(format!("snapshot: {error}"));
        let (mut remaining, mut pieces) = self.member.backup().await.map_err(broken)?;
        let (sender, stream) = mpsc::channel(1);
        let stored = self.member.storage_version();
        let (env, metrics) = (self.member.env().clone(), self.member.metrics().clone());
        self.member.env().spawn("snapshot stream", async move {
            let began = env.now();
            while let Some(piece) = pieces.recv().await {
                let response = piece.map_err(broken).map(|blob| {
                    // The hash comes after the database and is not counted.
                    remaining = remaining.saturating_sub(blob.len() as u64);
                    let version = stored.clone();
                    SnapshotResponse { header: None, remaining_bytes: remaining, blob, version }
                });
                if sender.send(response).await.is_err() {
                    return;
                }
            }
            observe(&metrics.snapshot_seconds, env.now() - began);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        let to = MemberId(request.into_inner().target_id);
        self.member.move_leader(to).await.map_err(status)?;
        // etcd's answer has no header.
        Ok(Response::new(MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        self.member.downgrade(request.into_inner()).await.map(Response::new).map_err(status)
    }
}
