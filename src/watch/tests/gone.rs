//! Clients that go at any moment: their streams are dropped where they are, and nothing of them stays
//! in the figures.

use std::sync::Arc;

use futures::future::select;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::memory::Memory;
use super::world::World;
use crate::watch::hub::start;
use crate::watch::{Bounds, Counters, History as _, Options, run};

#[test]
fn a_client_that_goes_at_any_moment_leaves_no_count_behind() {
    for turns in 0..60 {
        let (world, store) = (World::new(turns), Memory::default());
        let hub = start(world.env(), store.current(), Bounds::default());
        let (requests, stream) = mpsc::unbounded_channel();
        let (sender, responses) = mpsc::channel(1);
        let header = Arc::new(ResponseHeader::default);
        let session = run(
            world.env().clone(),
            hub.clone(),
            Arc::new(store.clone()),
            UnboundedReceiverStream::new(stream),
            sender,
            Options::new(header),
        );
        let (connection, gone) = oneshot::channel::<()>();
        let session = select(Box::pin(session), gone);
        world.env().spawn("watch stream", async move { drop(session.await) });
        for key in ["a", "b"] {
            let create = WatchCreateRequest { key: key.into(), ..<_>::default() };
            let request_union = Some(RequestUnion::CreateRequest(create));
            requests.send(WatchRequest { request_union }).expect("the stream is open");
        }
        world.turn(turns as usize);
        let written = store.write(&[("a".to_owned(), Some("x".to_owned()))]).expect("a change");
        let publisher = hub.clone();
        let publish = async move { publisher.publish(vec![written]).await };
        world.env().spawn("applier", publish);
        world.turn(turns as usize / 2);
        // Its connection is gone: the task is dropped, wherever it waits.
        drop((connection, responses));
        world.settle();
        let Counters { streams, watchers, hub_watchers, slow_watchers, pending_events, .. } =
            &**hub.counters();
        let gauges = [streams, watchers, hub_watchers, slow_watchers, pending_events];
        assert_eq!(gauges.map(|gauge| gauge.get()), [0; 5], "after {turns} turns");
    }
}
