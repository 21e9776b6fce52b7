//! Compiles the .proto texts to Rust types and to a descriptor set. Needs no
//! protoc and reads nothing outside `proto/`.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use tonic_prost_build::FileDescriptorSet;

const ROOT: &str = "proto";

const FILES: [&str; 14] = [
    "etcdserverpb/rpc.proto",
    "etcdserverpb/raft_internal.proto",
    "etcdserverpb/etcdserver.proto",
    "mvccpb/kv.proto",
    "authpb/auth.proto",
    "leasepb/lease.proto",
    "membershippb/membership.proto",
    "v3lockpb/v3lock.proto",
    "v3electionpb/v3election.proto",
    "raftpb/raft.proto",
    "walpb/record.proto",
    "snappb/snap.proto",
    "versionpb/version.proto",
    "grpc/health/v1/health.proto",
];

/// OpenTelemetry's, which are no part of etcd's API: a set of their own, without descriptors.
const TELEMETRY: [&str; 1] = ["opentelemetry/proto/collector/trace/v1/trace_service.proto"];

/// Field names whose snake case is unreadable (`peer_ur_ls`), with the name the
/// Rust field gets instead.
const RUST_NAMES: [(&str, &str); 2] = [("peerURLs", "peer_urls"), ("clientURLs", "client_urls")];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={ROOT}");

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true);
    compiler.open_files(FILES)?;

    // Encoded by the compiler itself: the typed form below drops the version
    // options, and is renamed.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("descriptors.bin"), encoded)?;

    // Source info carries the comments, which become the doc comments.
    let mut descriptors = compiler.include_source_info(true).file_descriptor_set();
    let messages = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.flat_map(|message| &mut message.field) {
        if let Some((_, rust)) = RUST_NAMES.iter().find(|(proto, _)| *proto == field.name()) {
            field.name = Some((*rust).to_owned());
        }
        // Any option at all, such as a version, makes prost-build forget that
        // proto3 packs by default. Every text here is proto3.
        if let Some(options) = &mut field.options {
            options.packed.get_or_insert(true);
        }
    }

    generate(descriptors)?;

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true).open_files(TELEMETRY)?;
    generate(compiler.file_descriptor_set())
}

fn generate(descriptors: FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        // Iteration order must not depend on a hash seed.
        .btree_map(".")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
