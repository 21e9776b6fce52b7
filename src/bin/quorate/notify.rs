//! Notifies systemd that the member serves (`sd_notify(3)`, `READY=1`), as etcd does. Silent where there
//! is no systemd.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

pub fn ready() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&address) {
        warn!(%error, "failed to notify systemd for readiness");
    }
}

fn send(address: &OsStr) -> io::Result<()> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)?
        }
        _ => SocketAddr::from_pathname(address)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).map(drop)
}
