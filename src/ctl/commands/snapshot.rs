//! `snapshot save`: a member's state as a bbolt file. It is written under a temporary name and gets its
//! own when it is whole and synced, so that a file under that name is never half a snapshot.

use std::path::Path;

use quorate_proto::etcdserverpb::SnapshotRequest;

use crate::client::Client;
use crate::codec::{go_duration, humanize};
use crate::ctl::Context;
use crate::ctl::cluster::{Target, text};
use crate::env::Open;
use crate::tool::exit::Exit;
use crate::tool::progress::{Progress, Unit};

/// A snapshot is a number of sectors and a SHA-256 of them.
const SECTOR: u64 = 512;
const SHA256_BYTES: u64 = 32;

pub async fn save(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [file] = &words[..] else {
        return Err(Exit::arguments("snapshot save expects one argument <filename>"));
    };
    let limit = context.arguments.duration("command-timeout");
    let interrupted = context.shell.interrupted();
    let fetched = async {
        if !context.arguments.is_given("command-timeout") {
            return fetch(context, file).await;
        }
        let fetched = context.env.timeout(limit, fetch(context, file)).await;
        fetched.unwrap_or(Err("context deadline exceeded".to_owned()))
    };
    let saved = tokio::select! {
        biased; // An interrupt ends it at once, and the part of the file goes.
        () = interrupted => Err("interrupted".to_owned()),
        fetched = fetched => fetched,
    };
    match saved {
        Ok(version) => {
            context.printer.text(&format!("Snapshot saved at {file}\n"))?;
            match version.as_str() {
                "" => Ok(()),
                version => context.printer.text(&format!("Server version {version}\n")),
            }
        }
        Err(why) => {
            // The reason counts, not whether there was a file to remove.
            let _ = context.env.disk.remove(Path::new(&part(file)));
            Err(Exit::new(Exit::INTERRUPTED, why))
        }
    }
}

fn part(file: &str) -> String {
    format!("{file}.part")
}

/// Writes the snapshot and returns the server's version.
async fn fetch(context: &Context, file: &str) -> Result<String, String> {
    let target = Target::of_flags(context).await.map_err(|exit| exit.why)?;
    if target.endpoints.len() != 1 {
        let endpoints = target.endpoints.join(" ");
        let what = "snapshot must be requested to one selected node, not multiple";
        return Err(format!("{what} [{endpoints}]"));
    }
    let cluster = target.connect(context).await.map_err(|exit| exit.why)?;
    let disk = &*context.env.disk;
    let part = part(file);
    let opened = |error| format!("could not open {part} ({error})");
    // Left over from a snapshot that was interrupted.
    let _ = disk.remove(Path::new(&part));
    let output = disk.open(Path::new(&part), Open::CreateNew).map_err(opened)?;
    let began = context.env.now();
    let call = async |client: Client| client.maintenance().snapshot(SnapshotRequest {}).await;
    let mut pieces = cluster.call_unlimited(call).await.map_err(|failed| failed.text)?;
    let (mut size, mut version) = (0_u64, String::new());
    let mut progress = Progress::new(&*context.shell, Unit::Bytes, began);
    loop {
        let piece = match pieces.message().await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(status) => return Err(format!("could not write snapshot: {}", text(&status))),
        };
        let written = |error| format!("could not write snapshot: write {part}: {error}");
        output.write_all_at(&piece.blob, size).map_err(written)?;
        size += piece.blob.len() as u64;
        if version.is_empty() {
            version = piece.version;
        }
        progress.show(size, size + piece.remaining_bytes, context.env.now());
    }
    drop(progress);
    if size % SECTOR != SHA256_BYTES {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    output.sync_data().map_err(|error| format!("could not fsync snapshot: {error}"))?;
    drop(output);
    disk.rename(Path::new(&part), Path::new(file))
        .and_then(|()| disk.sync_dir(folder(file)))
        .map_err(|error| format!("could not rename {part} to {file} ({error})"))?;
    let line = serde_json::json!({
        "level": "info",
        "ts": crate::codec::timestamp(context.env.wall()),
        "msg": "fetched snapshot",
        "endpoint": target.endpoints[0],
        "size": humanize(size),
        "took": go_duration(context.env.now() - began),
        "etcd-version": version,
    });
    context.shell.err(&format!("{line}\n"));
    Ok(version)
}

fn folder(file: &str) -> &Path {
    match Path::new(file).parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
