//! Clients that others wrote, against one member and three, with TLS everywhere, client certificates and
//! users. What they do and check is in `tests/clients`; here are the clusters.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, json};

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

fn python(members: usize) {
    let Some(program) = python_program() else { return };
    let dir = scratch();
    let (cluster, world) = secured(members, dir.path());
    let suite = format!("{ROOT}/tests/clients/suite.py");
    let output = Command::new(program).args([suite, world]).output().expect("Python starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    // A suite in which nothing runs succeeds, too.
    let ran = text.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next());
    let ran: usize = ran.and_then(|n| n.parse().ok()).unwrap_or(0);
    assert!(ran >= 20, "only {ran} tests ran: {text}");
    drop(cluster);
}

/// The Python that `ci/clients` has made; `None`, loudly, where it cannot be had.
fn python_program() -> Option<String> {
    let made = Command::new(format!("{ROOT}/ci/clients")).output().expect("the script is there");
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr).into_owned();
        loudly(&format!("SKIPPED: the clients of others: {why}"));
        return None;
    }
    Some(String::from_utf8_lossy(&made.stdout).trim().to_owned())
}

/// A running cluster, and what clients must know of it, as `suite.py` wants it.
fn secured(members: usize, dir: &Path) -> (Cluster, String) {
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
    let stranger = issue(&Authority::new(dir, "other-ca"), "stranger", 2);
    let shown = [issue(&ca, "client", 3), issue(&ca, "ann", 4), stranger];
    let pair = |issued: &Issued| json!([issued.cert, issued.key]);
    let certs: Map<String, _> = ["client", "ann", "stranger"]
        .into_iter()
        .map(String::from)
        .zip(shown.iter().map(pair))
        .collect();
    let world = json!({"endpoints": cluster.endpoints(), "ca": ca.file, "certs": certs});
    (cluster, world.to_string())
}
