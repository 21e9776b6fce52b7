//! Clients that others wrote, against one member and three, with TLS everywhere, client certificates and
//! users. What they do and check is in `tests/clients`; here are the clusters.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::json;

use super::pki::{Authority, Issued, Subject};
use super::process::{Cluster, Kind, loudly, scratch};

const LOCAL: &[&str] = &["localhost", "127.0.0.1"];
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn python_is_served_by_one_member() {
    python(1);
}

#[test]
fn python_is_served_by_three_members() {
    python(3);
}

#[test]
fn rust_is_served_by_one_member() {
    rust(1);
}

#[test]
fn rust_is_served_by_three_members() {
    rust(3);
}

fn python(members: usize) {
    let Some(programs) = programs() else { return };
    let dir = scratch();
    let world = World::new(members, dir.path());
    let suite = format!("{ROOT}/tests/clients/suite.py");
    let output = Command::new(&programs.python).args([suite, world.json()]).output();
    let output = output.expect("Python starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // A suite in which nothing runs succeeds, too.
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let ran: usize = ran.and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(ran >= 20, "only {ran} tests ran: {text}");
}

fn rust(members: usize) {
    let Some(programs) = programs() else { return };
    let dir = scratch();
    let world = World::new(members, dir.path());
    let mut suite = Command::new(&programs.rust);
    suite.arg(&world.ca).args([&world.client.cert, &world.client.key]);
    let output = suite.args(world.cluster.endpoints()).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{why}");
    let ran = text.lines().filter(|line| line.starts_with("ok ")).count();
    assert!(ran >= 20, "only {ran} cases ran: {text}");
}

/// What runs the clients.
struct Programs {
    python: String,
    rust: String,
}

/// What `ci/clients` has made, which runs once; `None`, loudly, where it cannot be had.
fn programs() -> Option<&'static Programs> {
    static MADE: LazyLock<Option<Programs>> = LazyLock::new(|| {
        let made =
            Command::new(format!("{ROOT}/ci/clients")).output().expect("the script is there");
        if !made.status.success() {
            let why = String::from_utf8_lossy(&made.stderr).into_owned();
            loudly(&format!("SKIPPED: the clients of others: {why}"));
            return None;
        }
        let paths = String::from_utf8(made.stdout).expect("paths are text");
        let (python, rust) = paths.trim().split_once('\n').expect("it prints two paths");
        Some(Programs { python: python.to_owned(), rust: rust.to_owned() })
    });
    MADE.as_ref()
}

/// A running cluster, and what clients must know of it.
struct World {
    cluster: Cluster,
    ca: PathBuf,
    /// Names no user.
    client: Issued,
    /// Names the user ann.
    ann: Issued,
    /// Of another authority.
    stranger: Issued,
}

impl World {
    fn new(members: usize, dir: &Path) -> Self {
        let ca = Authority::new(dir, "ca");
        let issue = |ca: &Authority, name: &str, serial: u64| {
            ca.issue(dir, name, Subject::new(name, LOCAL, serial))
        };
        let server = issue(&ca, "server", 1);
        let mut cluster = Cluster::new(&Kind::Quorate, dir, members, &["--bcrypt-cost=4"]);
        for member in &mut cluster.servers {
            member.secure_clients();
            for prefix in ["", "peer-"] {
                let client_auth = format!("--{prefix}client-cert-auth");
                let ca = format!("--{prefix}trusted-ca-file={}", ca.file.display());
                let cert = format!("--{prefix}cert-file={}", server.cert.display());
                let key = format!("--{prefix}key-file={}", server.key.display());
                member.flags.extend([client_auth, ca, cert, key]);
            }
        }
        cluster.secure_peers();
        cluster.start();
        Self {
            cluster,
            client: issue(&ca, "client", 3),
            ann: issue(&ca, "ann", 4),
            stranger: issue(&Authority::new(dir, "other-ca"), "stranger", 2),
            ca: ca.file,
        }
    }

    /// As `suite.py` wants it.
    fn json(&self) -> String {
        let pair = |issued: &Issued| json!([issued.cert, issued.key]);
        let certs = json!({
            "client": pair(&self.client),
            "ann": pair(&self.ann),
            "stranger": pair(&self.stranger),
        });
        let endpoints = self.cluster.endpoints();
        json!({"endpoints": endpoints, "ca": self.ca, "certs": certs}).to_string()
    }
}
