# What the scripts here share; sourced, not run. Sets the folder for build products and goes to the
# repository's root.

set -eu
cd "$(dirname "$0")/$ROOT"
export HOME="${HOME:-/root}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/quorate/target}"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# Fetches the package lists when there are none yet.
apt_lists() {
    if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
        as_root apt-get update -q
    fi
}

apt_install() {
    apt_lists
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

# Lets tests compare with a real etcd: `ci/etcd`'s, unless another one was chosen.
real_etcd() {
    if [ -z "${ETCD:-}" ]; then
        ETCD="$(ci/etcd)/etcd"
    fi
    export ETCD
}

# Lets cargo link RocksDB as `ci/rocksdb` has compiled it.
rocksdb_once() {
    ROCKSDB_LIB_DIR="$(ci/rocksdb)"
    export ROCKSDB_LIB_DIR ROCKSDB_STATIC=1
}

# The server's tests, `cargo test` with arguments: as the programs are shipped, but for doors to some parsers,
# which the fuzz targets need. Every script that compiles tests does it with these, so that it happens once.
cargo_test() {
    cargo test --workspace --features quorate/fuzz --locked "$@"
}
