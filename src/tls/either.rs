//! One address for TLS and for plain streams, where there are URLs of both: the first byte decides, as in
//! etcd. The protocols above are not known here.

use std::io::Cursor;

use tokio::io::{self, AsyncReadExt};

use crate::env::{BoxConn, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// How a TLS stream begins: with a record of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Whether a connection begins as TLS does, and the connection with the first byte put back. `None` when
/// nothing arrives in time.
pub async fn is_tls(env: &Env, mut conn: BoxConn) -> Option<(bool, BoxConn)> {
    let first = env.timeout(TLS_HANDSHAKE_TIMEOUT, conn.read_u8()).await.ok()?.ok()?;
    let (rest, writer) = io::split(conn);
    let reader = Cursor::new([first]).chain(rest);
    Some((first == HANDSHAKE, Box::new(io::join(reader, writer))))
}
