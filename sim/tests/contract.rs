//! One contract for both worlds: what the real environment does, the simulated one does too. What
//! only a simulated machine suffers is in `disk.rs` and `net.rs`.

#[path = "contract/disk.rs"]
mod disk;
#[path = "contract/net.rs"]
mod net;
#[path = "contract/rt.rs"]
mod rt;

use std::future::Future;
use std::path::{Path, PathBuf};

use quorate::env::Env;

/// Runs `check` on this machine, with a folder that is removed afterwards.
fn really<F: Future<Output = ()>>(check: impl FnOnce(Env, PathBuf) -> F) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async { check(quorate::env::tokio::env(), folder.path().to_owned()).await });
}

/// Runs `check` on one host of several worlds.
fn simulated<F>(check: impl FnOnce(Env, PathBuf) -> F + Send + Copy + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    for seed in 0..5 {
        sim::run(seed, move |world| async move {
            world.add_host("alone");
            let run = move |env: Env| async move {
                let root = Path::new("/data");
                env.disk.create_dir_all(root).expect("an empty disk");
                check(env, root.to_owned()).await;
            };
            world.start("alone", run).await.join().await.expect("nobody kills it");
        });
    }
}

async fn check_disk(env: Env, root: PathBuf) {
    let disk = env.disk.clone();
    env.blocking("contract", move || disk::check(&*disk, &root)).await;
}

#[test]
fn disk_on_this_machine() {
    really(check_disk);
}

#[test]
fn disk_in_the_simulation() {
    simulated(check_disk);
}

#[test]
fn files_belong_to_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    really(|env, root| async move {
        let folder = root.join("member");
        env.disk.create_dir_all(&folder).expect("space");
        let file = folder.join("log");
        drop(env.disk.open(&file, quorate::env::Open::CreateNew).expect("a new name"));
        for (path, mode) in [(folder, 0o700), (file, 0o600)] {
            let found = std::fs::metadata(path).expect("it exists").permissions().mode();
            assert_eq!(found & 0o777, mode);
        }
    });
}

#[test]
fn net_on_this_machine() {
    really(|env, _| net::check(env));
}

#[test]
fn net_in_the_simulation() {
    simulated(|env, _| net::check(env));
}

#[test]
fn runtime_on_this_machine() {
    really(|env, _| rt::check(env));
}

#[test]
fn runtime_in_the_simulation() {
    simulated(|env, _| rt::check(env));
}
