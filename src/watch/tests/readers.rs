//! Places for reads of history: few streams read at a time, and one without a reader keeps no place.

use std::sync::Arc;
use std::task::Context;

use futures::task::noop_waker_ref;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::client::Client;
use super::memory::Memory;
use super::world::World;
use crate::watch::hub::{HubHandle, start};
use crate::watch::{Bounds, History, Options, run};

const SEEDS: std::ops::Range<u64> = 0..100;
const STREAMS: usize = 6;

#[test]
fn few_streams_read_history_at_a_time() {
    let jobs_max = |seed| {
        let (world, store) = (World::new(seed), history());
        let hub = hub(&world, &store, 2);
        let mut clients = clients(&world, &hub, &store);
        clients.iter_mut().for_each(|client| client.create(watch("a", 2)));
        read_all(&world, &mut clients);
        world.jobs_max()
    };
    assert_eq!(SEEDS.map(jobs_max).max(), Some(2));
}

#[test]
fn a_stream_that_nobody_reads_keeps_no_place() {
    for seed in SEEDS {
        let (world, store) = (World::new(seed), history());
        let hub = hub(&world, &store, 1);
        // Two answers and no event fit on its way.
        let mut stalled = Client::open(&world, &hub, &store, 2, |_| {});
        stalled.create(watch("b", 0));
        world.settle();
        let mut clients = clients(&world, &hub, &store);
        clients.iter_mut().for_each(|client| client.create(watch("a", 2)));
        stalled.create(watch("a", 2));
        world.turn(20);
        let written = store.write(&[("b".to_owned(), Some("live".to_owned()))]).expect("a change");
        let publisher = hub.clone();
        let publish = async move { publisher.publish(vec![written]).await };
        world.env().spawn("applier", Box::pin(publish));
        read_all(&world, &mut clients);
    }
}

#[test]
fn a_stream_that_is_polled_no_more_keeps_no_place() {
    for polls in 1..20 {
        let (world, store) = (World::new(polls), history());
        let hub = hub(&world, &store, 1);
        let (requests, stream) = mpsc::unbounded_channel();
        let (sender, _responses) = mpsc::channel(2);
        let mut session = Box::pin(run(
            world.env().clone(),
            hub.clone(),
            Arc::new(store.clone()),
            UnboundedReceiverStream::new(stream),
            sender,
            Options::new(Arc::new(ResponseHeader::default)),
        ));
        let request_union = Some(RequestUnion::CreateRequest(watch("a", 2)));
        requests.send(WatchRequest { request_union }).expect("the stream is open");
        for _ in 0..polls {
            let polled = session.as_mut().poll(&mut Context::from_waker(noop_waker_ref()));
            assert!(polled.is_pending());
            world.turn(1);
        }
        // Its client takes nothing.
        let mut clients = clients(&world, &hub, &store);
        clients.iter_mut().for_each(|client| client.create(watch("a", 2)));
        read_all(&world, &mut clients);
    }
}

fn history() -> Memory {
    let store = Memory::default();
    for n in 0..3 {
        store.write(&[("a".to_owned(), Some(n.to_string()))]);
    }
    store
}

fn hub(world: &World, store: &Memory, catchup_readers: usize) -> HubHandle {
    let bounds = Bounds { catchup_readers, ..Bounds::default() };
    start(world.env(), store.current(), bounds)
}

fn clients(world: &World, hub: &HubHandle, store: &Memory) -> Vec<Client> {
    (0..STREAMS).map(|_| Client::open(world, hub, store, 2, |_| {})).collect()
}

fn watch(key: &'static str, start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), start_revision, ..WatchCreateRequest::default() }
}

/// Until every client has everything.
fn read_all(world: &World, clients: &mut [Client]) {
    for _ in 0..10 {
        world.settle();
        for client in &mut *clients {
            while let Some(response) = client.read() {
                response.expect("the stream goes on");
            }
        }
    }
    clients.iter().for_each(Client::check_complete);
}
