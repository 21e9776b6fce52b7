//! Service Watch: carries one client stream to a watch session and back.

use futures::future::join;
use quorate_proto::etcdserverpb::watch_server;
use quorate_proto::etcdserverpb::{WatchRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::gate;
use super::status::status;
use crate::limits;
use crate::member::Member;

pub struct Watch {
    pub member: Member,
}

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchStream = ReceiverStream<Result<WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let needs_leader = gate::needs_leader(request.metadata());
        // A stream that breaks ends as one that was closed: the session goes on until its answers
        // find no reader.
        let requests = request.into_inner().filter_map(Result::ok);
        let (answers, stream) = mpsc::channel(limits::WATCH_ANSWERS);
        let member = self.member.clone();
        self.member.env().spawn("watch stream", async move {
            let cut_off = member.cut_off(needs_leader);
            let (sender, mut responses) = mpsc::channel(limits::WATCH_ANSWERS);
            let session = member.watch(Box::pin(requests), sender);
            let forward = async {
                while let Some(response) = responses.recv().await {
                    if answers.send(response.map_err(status)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased; // What is due goes out before the stream is given up.
                _ = join(forward, session) => {}
                () = answers.closed() => {}
                error = cut_off => drop(answers.send(Err(status(error))).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
