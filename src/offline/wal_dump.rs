//! `wal dump`: the records of a log as lines, one a record, while they are read: term, index, kind, content.
//! Of values only the size is shown, and no password or token.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use prost::Message as _;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType};
use serde_json::json;

use super::Context;
use super::print::Format;
use crate::apply::{Request, v2};
use crate::member::loggable;
use crate::tool::exit::Exit;
use crate::wal::{self, Item, WalError};

pub fn run(context: &Context) -> Result<(), Exit> {
    let dir = context.argument()?;
    let json = match context.format()? {
        Format::Simple => false,
        Format::Json => true,
        _ => {
            let name = context.arguments.text("write-out");
            let why = format!("{name} not supported as output format");
            return Err(Exit::new(Exit::FEATURE, why));
        }
    };
    let dir = log_dir(context, Path::new(&dir))?;
    let (from, limit) = (context.arguments.uint("from"), context.arguments.uint("limit"));
    let (mut entries, mut failed) = (0, None);
    if !json {
        context.output.out(b"term\tindex\ttype\tdata\n")?;
    }
    let torn = wal::read(&*context.env.disk, &dir, wal::Options::default(), &mut |found| {
        if let Item::Entry(entry) = &found.item {
            if entry.index < from {
                return ControlFlow::Continue(());
            }
            if limit > 0 && entries == limit {
                return ControlFlow::Break(());
            }
            entries += 1;
        }
        let Some(line) = line(&found.item, json) else { return ControlFlow::Continue(()) };
        match context.output.out(format!("{line}\n").as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    match torn.map_err(|error| Exit::error(error.to_string()))? {
        None => Ok(()),
        Some(torn) => {
            let (file, offset) = (torn.file.display(), torn.offset);
            let what = torn.what;
            let text = format!("{file} ends with an unfinished write at offset {offset}: {what}\n");
            context.output.err(&text);
            Ok(())
        }
    }
}

/// The folder of the log: `dir` itself, or the log of the data directory `dir`.
pub fn log_dir(context: &Context, dir: &Path) -> Result<PathBuf, Exit> {
    let inside = dir.join("member").join("wal");
    let disk = &*context.env.disk;
    for folder in [inside, dir.to_owned()] {
        if wal::Wal::exists(disk, &folder).map_err(|error| Exit::error(error.to_string()))? {
            return Ok(folder);
        }
    }
    Err(Exit::error(WalError::Absent(dir.to_owned()).to_string()))
}

/// Nothing for a record that is only the log's own.
fn line(item: &Item, json: bool) -> Option<String> {
    let (term, index, kind, data) = match item {
        Item::Crc(_) => return None,
        Item::Metadata(metadata) => {
            let (member, cluster) = (metadata.node_id, metadata.cluster_id);
            (0, 0, "metadata", format!("member={member:x} cluster={cluster:x}"))
        }
        Item::State(state) => {
            let data = format!("vote={:x} commit={}", state.vote, state.commit);
            (state.term, 0, "state", data)
        }
        Item::Snapshot(mark) => {
            let voters = mark.conf_state.as_ref().map_or(&[][..], |state| &state.voters);
            let voters: Vec<_> = voters.iter().map(|id| format!("{id:x}")).collect();
            (mark.term, mark.index, "snapshot", format!("voters=[{}]", voters.join(",")))
        }
        Item::Entry(entry) => {
            let (kind, data) = content(entry);
            (entry.term, entry.index, kind, data)
        }
    };
    Some(match json {
        true => json!({"term": term, "index": index, "type": kind, "data": data}).to_string(),
        false => format!("{term}\t{index}\t{kind}\t{data}"),
    })
}

fn content(entry: &Entry) -> (&'static str, String) {
    match entry.r#type() {
        EntryType::EntryNormal if entry.data.is_empty() => ("norm", String::new()),
        EntryType::EntryNormal => ("norm", request(entry)),
        EntryType::EntryConfChange => {
            let data = ConfChange::decode(&entry.data[..]).map(|change| {
                let kind = change.r#type();
                let name = ConfChangeType::as_str_name(&kind);
                format!("method={name} id={:x}", change.node_id)
            });
            ("conf", data.unwrap_or_else(undecodable))
        }
        EntryType::EntryConfChangeV2 => {
            let data = ConfChangeV2::decode(&entry.data[..]);
            let changes = data.map(|change| format!("changes={}", change.changes.len()));
            ("confv2", changes.unwrap_or_else(undecodable))
        }
    }
}

fn undecodable(error: prost::DecodeError) -> String {
    format!("(not decodable: {error})")
}

fn request(entry: &Entry) -> String {
    if let Some(old) = v2::decode(&entry.data) {
        return match old {
            v2::Meaning::Request(header, request) => loggable::entry(&header, &request),
            v2::Meaning::Nothing => "(a request of the v2 store)".to_owned(),
        };
    }
    match Request::decode(entry.data.clone()) {
        Ok((header, Some(request))) => loggable::entry(&header, &request),
        Ok((header, None)) => format!("header:<ID:{}> (an unknown request)", header.id),
        Err(error) => undecodable(error),
    }
}
