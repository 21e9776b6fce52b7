//! `snapshot save`: a member's state as a bbolt file. It is written under a temporary name and renamed
//! once it is complete and synced, so that a file under the final name is never a partial snapshot.

use std::io;
use std::path::Path;

use quorate_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};

use crate::client::{Client, Response, Status, Streaming, is_unsent};
use crate::codec::{go_duration, go_error, humanize};
use crate::config::go;
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Target, raw, text};
use crate::env::Open;
use crate::tool::exit::Exit;
use crate::tool::progress::{Progress, Unit};

/// A snapshot is a number of sectors and a SHA-256 of them.
const SECTOR: u64 = 512;
const SHA256_BYTES: u64 = 32;
/// The logger of etcd's client library.
const CLIENT: Option<&str> = Some("client");

pub async fn save(context: &Context) -> Result<(), Exit> {
    let words = context.arguments.words();
    let [file] = &words[..] else {
        return Err(Exit::arguments("snapshot save expects one argument <filename>"));
    };
    let target = Target::of_flags(context).await?;
    let limit = context.arguments.duration("command-timeout");
    let interrupted = context.shell.interrupted();
    let fetched = async {
        if !context.arguments.is_given("command-timeout") {
            return fetch(context, &target, file).await;
        }
        let fetched = context.env.timeout(limit, fetch(context, &target, file)).await;
        fetched.unwrap_or(Err("context deadline exceeded".to_owned()))
    };
    let saved = tokio::select! {
        biased; // An interrupt ends it at once, and the partial file is removed.
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
            // The reason is reported, not whether there was a file to remove.
            let _ = context.env.disk.remove(Path::new(&part(file)));
            Err(Exit::new(Exit::INTERRUPTED, why))
        }
    }
}

fn part(file: &str) -> String {
    format!("{file}.part")
}

/// Writes the snapshot and returns the server's version.
async fn fetch(context: &Context, target: &Target, file: &str) -> Result<String, String> {
    if target.endpoints.len() != 1 {
        let endpoints = target.endpoints.join(" ");
        let what = "snapshot must be requested to one selected node, not multiple";
        return Err(format!("{what} [{endpoints}]"));
    }
    let cluster = target.connect(context).await.map_err(|exit| exit.why)?;
    let disk = &*context.env.disk;
    let part = part(file);
    let failed = |what: &str, error: &io::Error| go::file_error(what, &part, error);
    let opened = |error| format!("could not open {part} ({})", failed("open", &error));
    // Left over from an interrupted snapshot.
    let _ = disk.remove(Path::new(&part));
    let output = disk.open(Path::new(&part), Open::CreateNew).map_err(opened)?;
    context.info(None, "created temporary db file", &[("path", part.as_str().into())]);
    let began = context.env.now();
    let mut pieces = open(context, &cluster).await?;
    let first = pieces.message().await.map_err(|status| lost(context, &status));
    let mut piece = first.map_err(|status| raw(&status))?;
    let endpoint = &*target.endpoints[0];
    context.info(None, "fetching snapshot", &[("endpoint", endpoint.into())]);
    let version = piece.as_ref().map_or(String::new(), |piece| piece.version.clone());
    let (mut size, mut progress) = (0, Progress::new(&*context.shell, Unit::Bytes, began));
    while let Some(SnapshotResponse { blob, remaining_bytes, .. }) = piece {
        let written = |error| format!("could not write snapshot: {}", failed("write", &error));
        output.write_all_at(&blob, size).map_err(written)?;
        size += blob.len() as u64;
        progress.show(size, size + remaining_bytes, context.env.now());
        let next = pieces.message().await.map_err(|status| {
            progress.clear();
            lost(context, &status)
        });
        piece = next.map_err(|status| format!("could not write snapshot: {}", text(&status)))?;
    }
    drop(progress);
    context.info(CLIENT, "completed snapshot read; closing", &[]);
    if size % SECTOR != SHA256_BYTES {
        return Err(format!("sha256 checksum not found [bytes: {size}]"));
    }
    let synced = |error| format!("could not fsync snapshot: {}", failed("sync", &error));
    output.sync_data().map_err(synced)?;
    drop(output);
    let took = go_duration(context.env.now() - began);
    let fields = [
        ("endpoint", endpoint.into()),
        ("size", humanize(size).into()),
        ("took", took.into()),
        ("etcd-version", version.as_str().into()),
    ];
    context.info(None, "fetched snapshot", &fields);
    disk.rename(Path::new(&part), Path::new(file))
        .and_then(|()| disk.sync_dir(folder(file)))
        .map_err(|error| {
            let why = go_error(&error);
            format!("could not rename {part} to {file} (rename {part} {file}: {why})")
        })?;
    context.info(None, "saved", &[("path", file.into())]);
    Ok(version)
}

/// Opens the stream of a snapshot. A refusal by the server is reported as an error of the stream.
async fn open(context: &Context, cluster: &Cluster) -> Result<Streaming<SnapshotResponse>, String> {
    let call = async |client: Client| match client.maintenance().snapshot(SnapshotRequest {}).await
    {
        Err(status) if !is_unsent(&status) => Ok(Response::new(Err(status))),
        answer => answer.map(|stream| stream.map(Ok)),
    };
    let stream = cluster.call_unlimited(call).await.map_err(|failed| failed.text)?;
    context.info(CLIENT, "opened snapshot stream; downloading", &[]);
    stream.map_err(|status| raw(&lost(context, &status)))
}

/// Logs that the stream has failed.
fn lost(context: &Context, status: &Status) -> Status {
    let message = "failed to receive from snapshot stream; closing";
    context.warn(CLIENT, message, &[("error", raw(status).into())]);
    status.clone()
}

fn folder(file: &str) -> &Path {
    match Path::new(file).parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}
