//! Profiles of a server at work, read back as the tool `pprof` would: the messages of its `profile.proto`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use prost::Message;

use super::crash::runtime;
use super::curl::Curl;
use super::load::Load;
use super::process::{Kind, Server, scratch};

#[test]
fn profiles_name_what_the_server_does() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--enable-pprof"]);
    server.start();
    let curl = Curl::new(server.client_url());
    runtime().block_on(async {
        let mut load = Load::start(8, &[server.endpoint()]);
        let profiles = tokio::task::block_in_place(|| {
            let asked = Instant::now();
            let cpu = fetch(&curl, "/debug/pprof/profile?seconds=2", &dir.path().join("cpu"));
            assert!(
                asked.elapsed() >= Duration::from_secs(2),
                "it looked for as long as the query wants"
            );
            [cpu, fetch(&curl, "/debug/pprof/heap", &dir.path().join("heap"))]
        });
        load.stop().await;
        for (profile, (kind, unit)) in
            profiles.iter().zip([("cpu", "nanoseconds"), ("inuse_space", "bytes")])
        {
            let [measured] = &profile.sample_type[..] else { panic!("one value a sample") };
            assert_eq!((profile.text(measured.kind), profile.text(measured.unit)), (kind, unit));
            let sum: i64 = profile.sample.iter().flat_map(|sample| &sample.value).sum();
            assert!(sum > 0, "{kind}: nothing was seen");
            let names = profile.functions().collect::<Vec<_>>();
            assert!(names.iter().any(|name| name.contains("quorate::")), "{kind}: {names:?}");
            let timers = names.iter().filter(|name| name.contains("perf_signal_handler"));
            assert_eq!(timers.count(), 0, "the timer itself is left out");
        }
    });
    let text = curl.run(&["/debug/pprof/heap?debug=1"]).stdout;
    assert!(text.starts_with("heap_v2/524288\n"), "{text:.80}");
    let symbols = curl.run(&["/debug/pprof/symbol"]).stdout;
    assert_eq!(symbols, "num_symbols: 1\n");
}

#[test]
fn profiles_are_taken_one_at_a_time() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &["--log-level=debug"]);
    server.start();
    let curl = Curl::new(server.client_url());
    let (first, refused) = loop {
        let first = curl.start(&["/debug/pprof/profile?seconds=20", "--output", "/dev/null"]);
        let second = curl.run(&["/debug/pprof/profile?seconds=1", "--output", "-"]);
        if second.stderr.contains("status 500") {
            break (first, second);
        }
        // The second came first, and the first was sent away.
    };
    assert_eq!(refused.stdout, "Could not enable CPU profiling: cpu profiling already in use\n");
    // A client that disconnects ends its profile.
    drop(first);
    let again = || curl.run(&["/debug/pprof/profile?seconds=1", "--output", "/dev/null"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !again().stderr.contains("status 200") {
        assert!(Instant::now() < deadline, "the first one goes on");
    }
}

#[test]
fn profiles_are_not_served_unless_enabled() {
    let dir = scratch();
    let mut server = Server::single(Kind::Quorate, dir.path(), &[]);
    server.start();
    let answer = Curl::new(server.client_url()).run(&["/debug/pprof/"]);
    assert_eq!(answer.stdout, "404 page not found\n");
}

fn fetch(curl: &Curl, path: &str, to: &Path) -> Profile {
    let name = to.to_str().expect("the folder's name is plain");
    let answer = curl.run(&[path, "--output", name]);
    assert!(answer.stderr.contains("content-type: application/octet-stream"), "{answer:?}");
    let mut bytes = Vec::new();
    let file = File::open(to).expect("curl has written it");
    GzDecoder::new(file).read_to_end(&mut bytes).expect("it is gzip");
    Profile::decode(&bytes[..]).expect("it is a profile")
}

/// The fields looked at here, by the numbers of `profile.proto`.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(int64, tag = "2")]
    name: i64,
}

impl Profile {
    fn text(&self, at: i64) -> &str {
        &self.string_table[usize::try_from(at).expect("an index")]
    }

    fn functions(&self) -> impl Iterator<Item = &str> {
        self.function.iter().map(|function| self.text(function.name))
    }
}
