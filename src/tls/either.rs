//! One address for TLS and for plain streams, where the URLs ask for both: the first byte tells, as in
//! etcd. What is spoken then is not known here.

use std::io::Cursor;

use tokio::io::{self, AsyncReadExt};

use crate::env::{BoxConn, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// How a TLS stream begins: with a record of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Whether a connection begins as TLS does, and the connection, of which nothing has been read as far
/// as others can see. `None` when nothing comes.
pub async fn is_tls(env: &Env, mut conn: BoxConn) -> Option<(bool, BoxConn)> {
    let first = env.timeout(TLS_HANDSHAKE_TIMEOUT, conn.read_u8()).await.ok()?.ok()?;
    let (rest, writer) = io::split(conn);
    let reader = Cursor::new([first]).chain(rest);
    Some((first == HANDSHAKE, Box::new(io::join(reader, writer))))
}
