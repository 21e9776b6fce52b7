//! `quorate::client` against a small server on simulated hosts: real gRPC over simulated TCP. What a
//! real member answers is not looked at here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use quorate::client::{BadEndpoint, Channel, Client, Options, is_unsent};
use quorate::env::Env;
use quorate::env::hyper::{Exec, Timer};
use quorate_proto::health::health_server::{Health, HealthServer};
use quorate_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use sim::World;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Request, Response, Status};

const OPTIONS: Options = Options {
    connect_timeout: seconds(2),
    keep_alive_interval: seconds(2),
    keep_alive_timeout: seconds(2),
    keep_alive_while_idle: false,
    tls: None,
    any_endpoint: false,
    request_bytes_max: usize::MAX,
    response_bytes_max: usize::MAX,
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Answers with its number; asked for "slow", only after a minute.
struct Numbered {
    env: Env,
    number: i32,
}

#[tonic::async_trait]
impl Health for Numbered {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service == "slow" {
            self.env.sleep(seconds(60)).await;
        }
        Ok(Response::new(HealthCheckResponse { status: self.number }))
    }

    async fn list(
        &self,
        _request: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn watch(
        &self,
        _request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let once = tokio_stream::once(Ok(HealthCheckResponse { status: self.number }));
        Ok(Response::new(Box::pin(once.chain(tokio_stream::pending()))))
    }
}

async fn serve(env: Env, number: i32) {
    let health = HealthServer::new(Numbered { env: env.clone(), number });
    let routes = tonic::service::Routes::new(health).prepare();
    let mut listener = env.net.listen(([0, 0, 0, 0], 2379).into()).await.expect("a free port");
    while let Ok((connection, _)) = listener.accept().await {
        let service = TowerToHyperService::new(routes.clone());
        let rt = Arc::clone(&env.rt);
        let mut http = hyper::server::conn::http2::Builder::new(Exec(Arc::clone(&rt)));
        http.timer(Timer(rt));
        drop(env.spawn("connection", async move {
            // Its end, good or bad, is the client's to check.
            let _ = http.serve_connection(TokioIo::new(connection), service).await;
        }));
    }
}

/// Servers `a`, which answers 1, and `b`, which answers 2; and a client that knows both.
fn each_seed<F>(scenario: impl Fn(World) -> F + Send + Copy + 'static)
where
    F: Future<Output = ()> + 'static,
{
    for seed in 0..5 {
        sim::run(seed, move |world| async move {
            for name in ["a", "b", "client"] {
                world.add_host(name);
            }
            start(&world, "a", 1).await;
            start(&world, "b", 2).await;
            scenario(world).await;
        });
    }
}

async fn start(world: &World, host: &str, number: i32) {
    world.start(host, move |env| serve(env, number)).await;
}

fn connect(env: Env) -> Client {
    Client::new(env, ["http://a:2379", "b:2379"], OPTIONS).expect("good endpoints")
}

async fn ask(client: &Client, service: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(client.health().check(request).await?.into_inner().status)
}

#[test]
fn a_lost_endpoint_is_followed_by_the_next() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let client = connect(env.clone());
            assert_eq!(ask(&client, "").await.expect("a is up"), 1);
            env.sleep(seconds(2)).await;
            assert_eq!(ask(&client, "").await.expect("b is up"), 2);
            assert_eq!(client.channel().endpoint(), "b:2379");
            client.channel().next_endpoint().await;
            env.sleep(seconds(2)).await;
            assert_eq!(ask(&client, "").await.expect("a is up again"), 1);
        };
        let client = world.start("client", client).await;
        world.sleep(seconds(1)).await;
        world.kill("a");
        world.sleep(Duration::from_millis(1500)).await;
        start(&world, "a", 1).await;
        client.join().await.expect("nobody kills the client");
    });
}

#[test]
fn endpoints_may_become_others() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let client = Client::new(env, ["a:2379"], OPTIONS).expect("a good endpoint");
            let channel = client.channel();
            assert_eq!(ask(&client, "").await.expect("a is up"), 1);
            channel.set_endpoints(["b:2379", "a:2379"]).await.expect("good endpoints");
            assert_eq!(ask(&client, "").await.expect("a is still there"), 1);
            channel.set_endpoints(["b:2379"]).await.expect("a good endpoint");
            assert_eq!((channel.endpoint(), channel.endpoint_count()), ("b:2379".to_owned(), 1));
            assert_eq!(ask(&client, "").await.expect("b is up"), 2);
            for bad in [&["b"][..], &[]] {
                channel.set_endpoints(bad).await.expect_err("nothing to connect to");
            }
            assert_eq!(ask(&client, "").await.expect("nothing has changed"), 2);
        };
        let client = world.start("client", client).await;
        client.join().await.expect("nobody kills the client");
    });
}

#[test]
fn an_endpoint_that_is_named_twice_hides_no_other() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let client = Client::new(env.clone(), ["a:2379"], OPTIONS).expect("a good endpoint");
            let channel = client.channel();
            channel.set_endpoints(["a:2379", "a:2379", "b:2379"]).await.expect("good endpoints");
            assert_eq!(channel.endpoint_count(), 2);
            assert_eq!(ask(&client, "").await.expect("a is up"), 1);
            env.sleep(seconds(2)).await;
            assert_eq!(ask(&client, "").await.expect("b is up"), 2);
        };
        let client = world.start("client", client).await;
        world.sleep(seconds(1)).await;
        world.kill("a");
        client.join().await.expect("nobody kills the client");
    });
}

#[test]
fn a_request_that_nobody_could_get_is_known_as_unsent() {
    each_seed(|world| async move {
        world.kill("a");
        world.power_off("b");
        let client = |env: Env| async move {
            let start = env.now();
            let error = ask(&connect(env.clone()), "").await.expect_err("nobody is there");
            assert_eq!(error.code(), Code::Unavailable);
            assert!(is_unsent(&error), "{error:?}");
            assert!((seconds(2)..seconds(3)).contains(&(env.now() - start)), "b's time to connect");
        };
        world.start("client", client).await.join().await.expect("nobody kills the client");
    });
}

#[test]
fn a_request_without_a_deadline_ends_with_the_keep_alive() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let client = connect(env.clone());
            let start = env.now();
            let error = ask(&client, "slow").await.expect_err("nothing comes back");
            assert_eq!(error.code(), Code::Unavailable);
            assert!(!is_unsent(&error), "it may have been done: {error:?}");
            assert!((seconds(4)..seconds(7)).contains(&(env.now() - start)));
            assert_eq!(ask(&client, "").await.expect("the next endpoint"), 2);
        };
        let client = world.start("client", client).await;
        world.sleep(seconds(1)).await;
        world.one_way("a", "client");
        client.join().await.expect("nobody kills the client");
    });
}

#[test]
fn a_deadline_is_kept_on_this_side_too() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let start = env.now();
            let mut request = Request::new(HealthCheckRequest { service: "slow".to_owned() });
            request.set_timeout(Duration::from_millis(700));
            let error = connect(env.clone()).health().check(request).await.expect_err("too slow");
            assert_eq!(error.code(), Code::DeadlineExceeded);
            let took = (env.now() - start).as_millis();
            assert!((700..=701).contains(&took), "{took}");
        };
        world.start("client", client).await.join().await.expect("nobody kills the client");
    });
}

#[test]
fn a_stream_ends_as_unavailable_when_its_server_dies() {
    each_seed(|world| async move {
        let client = |env: Env| async move {
            let client = connect(env);
            let stream = client.health().watch(HealthCheckRequest::default()).await;
            let mut stream = stream.expect("a is up").into_inner();
            let first = stream.message().await.expect("one comes").expect("no end yet");
            assert_eq!(first.status, 1);
            let error = stream.message().await.expect_err("the server dies");
            assert_eq!(error.code(), Code::Unavailable);
        };
        let client = world.start("client", client).await;
        world.sleep(seconds(5)).await;
        world.kill("a");
        client.join().await.expect("nobody kills the client");
    });
}

#[test]
fn endpoints_are_hosts_and_ports() {
    sim::run(1, |world| async move {
        world.add_host("client");
        let client = |env: Env| async move {
            for bad in ["", "host", "ftp://host:1", "host:port", "host:1/path"] {
                let made = Channel::with_options(env.clone(), [bad], OPTIONS);
                assert_eq!(made.err(), Some(BadEndpoint(bad.to_owned())));
            }
            assert!(Channel::with_options(env, [""; 0], OPTIONS).is_err());
        };
        world.start("client", client).await.join().await.expect("nobody kills the client");
    });
}

#[test]
fn calls_are_the_same_bytes_at_the_same_times() {
    let digest = |seed| {
        sim::run(seed, |world| async move {
            for name in ["a", "b", "client"] {
                world.add_host(name);
            }
            start(&world, "a", 1).await;
            start(&world, "b", 2).await;
            let client = |env: Env| async move {
                let client = connect(env.clone());
                for _ in 0..200 {
                    let _ = ask(&client, "").await;
                    env.sleep(Duration::from_millis(env.random_u64() % 20)).await;
                }
            };
            let client = world.start("client", client).await;
            world.sleep(seconds(1)).await;
            world.kill("a");
            client.join().await.expect("nobody kills the client");
            world.digest()
        })
    };
    for seed in 0..4 {
        assert_eq!(digest(seed), digest(seed));
    }
}
