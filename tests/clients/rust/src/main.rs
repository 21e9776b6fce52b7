//! What the Rust client etcd-client does, of a cluster with TLS, client certificates and users.
//!
//! The command line: the files of the authority, of a certificate that names no user and of its key,
//! then the endpoints (host:port each). The cluster is empty and without users; the first case makes
//! them. One line a case; the first wrong result ends it with 1. tests/it/clients.rs starts the
//! cluster.
#![allow(clippy::disallowed_methods, reason = "a program is of the real world")]

/// The revision of an answer's header.
macro_rules! revision {
    ($answer:expr) => {
        $answer.header().expect("every answer has a header").revision()
    };
}

mod keys;
mod leases;
mod upkeep;
mod users;

use std::fmt::Debug;
use std::process::ExitCode;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Event, Identity, TlsOptions, WatchStream,
};

/// Longer than any case takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What clients must know of the cluster.
#[derive(Clone)]
struct World {
    endpoints: Vec<String>,
    ca: Certificate,
    identity: Identity,
}

impl World {
    fn from_arguments() -> Self {
        let mut arguments = std::env::args().skip(1);
        let mut file = || {
            let path = arguments.next().expect("the arguments are CA CERT KEY ENDPOINT...");
            std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let ca = Certificate::from_pem(file());
        let identity = Identity::from_pem(file(), file());
        let endpoints: Vec<String> = arguments.collect();
        assert!(!endpoints.is_empty(), "the arguments are CA CERT KEY ENDPOINT...");
        Self { endpoints, ca, identity }
    }

    fn tls(&self) -> TlsOptions {
        TlsOptions::new().ca_certificate(self.ca.clone())
    }

    /// A client of every member; a user's password is the name with pw behind.
    async fn user(&self, name: &str) -> Client {
        self.connect(&self.endpoints, name, &format!("{name}pw")).await.expect("the user is let in")
    }

    /// As [`Self::user`], of one member.
    async fn user_at(&self, member: usize, name: &str) -> Client {
        let endpoint = &self.endpoints[member % self.endpoints.len()];
        let connected =
            self.connect(std::slice::from_ref(endpoint), name, &format!("{name}pw")).await;
        connected.expect("the user is let in")
    }

    async fn connect(
        &self,
        endpoints: &[String],
        name: &str,
        password: &str,
    ) -> Result<Client, Error> {
        let options = ConnectOptions::new()
            .with_tls(self.tls().identity(self.identity.clone()))
            .with_user(name, password);
        Client::connect(endpoints, Some(options)).await
    }

    /// A client without a user.
    async fn nobody(&self) -> Client {
        let options = ConnectOptions::new().with_tls(self.tls().identity(self.identity.clone()));
        Client::connect(&self.endpoints, Some(options)).await.expect("nobody is asked for")
    }
}

/// The call fails with this code and text, exactly.
fn refused<T: Debug>(answer: Result<T, Error>, code: &str, text: &str) {
    match answer {
        Err(Error::GRpcStatus(status)) => {
            let found = format!("{:?}: {}", status.code(), status.message());
            assert_eq!(found, format!("{code}: {text}"));
        }
        other => panic!("not refused with {code}: {text}, but {other:?}"),
    }
}

fn denied<T: Debug>(answer: Result<T, Error>) {
    refused(answer, "PermissionDenied", "etcdserver: permission denied");
}

/// The next `count` events of a stream with one watch.
async fn events(stream: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut seen: Vec<Event> = Vec::new();
    while seen.len() < count {
        let answer = stream.message().await.expect("the watch lives").expect("the stream is open");
        assert!(!answer.canceled(), "canceled: {}", answer.cancel_reason());
        seen.extend_from_slice(answer.events());
    }
    assert_eq!(seen.len(), count, "more than was written: {seen:?}");
    seen
}

/// Runs the cases in order, on a task each, so that a panic is that case's.
macro_rules! run {
    ($world:expr, $($module:ident::$case:ident),+ $(,)?) => {
        $(
            let case = tokio::spawn(tokio::time::timeout(PATIENCE, $module::$case($world.clone())));
            let name = concat!(stringify!($module), " ", stringify!($case));
            match case.await {
                Ok(Ok(())) => println!("ok {name}"),
                Ok(Err(_)) => {
                    println!("FAILED {name}: not done after {PATIENCE:?}");
                    return ExitCode::FAILURE;
                }
                Err(_) => {
                    println!("FAILED {name}");
                    return ExitCode::FAILURE;
                }
            }
        )+
    };
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let world = World::from_arguments();
    run!(
        world,
        users::are_made,
        users::who_is_let_in,
        users::permissions,
        users::certificates,
        users::changes,
        keys::put_and_get,
        keys::ranges,
        keys::delete,
        keys::txn,
        keys::past,
        keys::watch_live_and_past,
        keys::watch_denied,
        leases::life,
        leases::kept_alive,
        leases::lock,
        leases::election,
        upkeep::members,
        upkeep::a_learner_comes_and_goes,
        upkeep::status,
        upkeep::alarm,
        upkeep::hash_and_defragment,
        upkeep::snapshot,
        upkeep::leader_moves,
    );
    ExitCode::SUCCESS
}
