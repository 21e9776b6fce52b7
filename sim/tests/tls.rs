//! TLS in the simulated world: real handshakes over simulated TCP, by simulated clocks, with
//! certificates on simulated disks.

use std::net::SocketAddr;
use std::time::Duration;

use quorate::client::{Client, Options};
use quorate::engine;
use quorate::env::{Env, Place};
use quorate::member;
use quorate::server::{self, Server};
use quorate::tls::{self, Acceptor, Generate, Listen};
use quorate_proto::etcdserverpb::{PutRequest, RangeRequest};
use sim::World;

const HOSTS: [&str; 3] = ["a", "b", "c"];

fn listen(port: u16) -> Listen {
    let everywhere: SocketAddr = ([0, 0, 0, 0], port).into();
    Listen { place: Place::Tcp(everywhere), secure: true }
}

/// A certificate that the host makes for itself.
fn own(side: &str, host: &str) -> tls::Settings {
    let dir = format!("/data/fixtures/{side}").into();
    let generate = Generate { dir, hosts: vec![host.into()], years: 1 };
    tls::Settings { generate: Some(generate), ..tls::Settings::default() }
}

fn options(world: &World, host: &str) -> server::Options {
    let url = |host: &str| vec![format!("https://{host}:2380")];
    let mut member = member::Options::single(host, "/data", ([0, 0, 0, 0], 2380).into());
    member.listen_peer = vec![listen(2380)];
    member.peer_tls = own("peer", host);
    member.advertise_peer_urls = url(host);
    member.advertise_client_urls = vec![format!("https://{host}:2379")];
    member.initial_cluster = HOSTS.map(|host| (host.to_owned(), url(host))).to_vec();
    member.engine = engine::Options::in_memory(world.mem_env(host));
    let mut options = server::Options::new(member, [listen(2379)]);
    options.tls = own("client", host);
    options
}

async fn start(world: &World, host: &'static str) {
    let options = options(world, host);
    let serve = |env: Env| async move {
        let server = Server::start(env, options).await.expect("a server");
        panic!("{}", server.fatal().await);
    };
    drop(world.start(host, serve).await);
}

/// Writes through a cluster in which everything is TLS, while one member is killed and comes back.
async fn cluster(world: World) -> (String, u64) {
    for host in HOSTS {
        world.add_host(host);
        start(&world, host).await;
    }
    world.add_host("client");
    let chaos = world.clone();
    let writes = move |env: Env| async move {
        let blind = tls::Settings { insecure_skip_verify: true, ..tls::Settings::default() };
        let options = Options { tls: Some(blind), ..Options::default() };
        let endpoints = HOSTS.map(|host| format!("https://{host}:2379"));
        let client = Client::new(env.clone(), endpoints, options).expect("good endpoints");
        for round in 0..40_u32 {
            let value = round.to_string().into_bytes();
            let put = PutRequest {
                key: b"k".as_slice().into(),
                value: value.into(),
                ..PutRequest::default()
            };
            while client.kv().put(put.clone()).await.is_err() {
                env.sleep(Duration::from_millis(100)).await;
            }
            match round {
                10 => chaos.kill("b"),
                20 => start(&chaos, "b").await,
                _ => {}
            }
        }
        let range = RangeRequest { key: b"k".as_slice().into(), ..RangeRequest::default() };
        let read = client.kv().range(range).await.expect("two members of three").into_inner();
        String::from_utf8_lossy(&read.kvs[0].value).into_owned()
    };
    let client = world.start("client", writes).await;
    let read = client.join().await.expect("nobody kills the client");
    (read, world.digest())
}

#[test]
fn members_form_a_cluster_over_tls() {
    let (read, _) = sim::run(1, cluster);
    assert_eq!(read, "39");
}

/// `ring` takes its randomness from the system, in whose place the simulation answers.
#[test]
fn the_same_seed_is_the_same_bytes_over_tls() {
    let runs: Vec<_> = (2..5).map(|seed| sim::run(seed, cluster).1).collect();
    let again: Vec<_> = (2..5).map(|seed| sim::run(seed, cluster).1).collect();
    assert_eq!(runs, again);
    assert!(runs[0] != runs[1] && runs[1] != runs[2], "seeds differ: {runs:?}");
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    sim::run(1, |world| async move {
        world.add_host("a");
        let accept = |env: Env| async move {
            let mut settings = own("client", "a");
            settings.prepare(&env).await.expect("a certificate");
            let acceptor = Acceptor::new(&env, &settings, tls::Port::Client).await;
            let acceptor = acceptor.expect("good settings");
            let (_silent, conn) = tokio::io::duplex(64);
            let began = env.now();
            assert!(acceptor.accept(Box::new(conn), None).await.is_err());
            env.now() - began
        };
        let waited = world.start("a", accept).await.join().await.expect("nobody kills it");
        assert!(
            waited >= Duration::from_secs(10) && waited < Duration::from_secs(11),
            "{waited:?}"
        );
    });
}
