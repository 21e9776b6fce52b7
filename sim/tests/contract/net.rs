//! What every `Net` must do, real or simulated, while nothing goes wrong; over loopback.

use std::io::ErrorKind;
use std::time::Duration;

use quorate::env::{BoxConn, Env, Listener};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub async fn check(env: Env) {
    let mut listener = listen(&env).await;
    let to = format!("localhost:{}", listener.local_addr().expect("bound").port());

    let taken = env.net.listen(listener.local_addr().expect("bound")).await;
    assert_eq!(taken.err().expect("the port is taken").kind(), ErrorKind::AddrInUse);

    half_close(&env, &mut *listener, &to).await;
    back_pressure(&env, &mut *listener, &to).await;
    unread_bytes_reset(&env, &mut *listener, &to).await;

    drop(listener);
    let refused = env.net.connect(to).await;
    assert_eq!(refused.err().expect("nobody listens").kind(), ErrorKind::ConnectionRefused);
    assert!(env.net.connect("no-such-host.invalid:1".to_owned()).await.is_err());
}

async fn listen(env: &Env) -> Box<dyn Listener> {
    env.net.listen(([127, 0, 0, 1], 0).into()).await.expect("a free port")
}

async fn pair(env: &Env, listener: &mut dyn Listener, to: &str) -> (BoxConn, BoxConn) {
    let (dialed, accepted) = futures::join!(env.net.connect(to.to_owned()), listener.accept());
    (dialed.expect("it listens"), accepted.expect("it dials").0)
}

/// The end of one direction leaves the other open.
async fn half_close(env: &Env, listener: &mut dyn Listener, to: &str) {
    let (mut client, mut server) = pair(env, listener, to).await;
    client.write_all(b"question").await.expect("open");
    client.shutdown().await.expect("open");
    let mut question = String::new();
    server.read_to_string(&mut question).await.expect("ends with the shutdown");
    server.write_all(b"answer").await.expect("this direction is open");
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("ends with the close");
    assert_eq!((question.as_str(), answer.as_str()), ("question", "answer"));
    assert!(client.write_all(b"more").await.is_err(), "after a shutdown");
}

/// A reader that does not read stops its writer, and nothing is lost when it reads again.
async fn back_pressure(env: &Env, listener: &mut dyn Listener, to: &str) {
    const BYTES: usize = 64 << 20;
    let (mut client, mut server) = pair(env, listener, to).await;
    let sent: Vec<u8> = (0..BYTES).map(|n| ((n * 31) >> 3) as u8).collect();
    let expected = sent.clone();
    let write = async move {
        client.write_all(&sent).await.expect("it is read in the end");
        client.shutdown().await.expect("open");
        client
    };
    let mut write = Box::pin(write);
    let stuck = env.timeout(Duration::from_millis(300), write.as_mut()).await;
    assert!(stuck.is_err(), "64 MiB do not fit between two sockets");
    let read = async {
        let mut received = Vec::with_capacity(BYTES);
        server.read_to_end(&mut received).await.expect("open");
        received
    };
    let (_client, received) = futures::join!(write, read);
    assert!(received == expected, "every byte, in order");
}

/// Closing with unread bytes sends a reset to the peer.
async fn unread_bytes_reset(env: &Env, listener: &mut dyn Listener, to: &str) {
    let (mut client, mut server) = pair(env, listener, to).await;
    // Many bytes, so that more than one of them is in the packet that comes first.
    client.write_all(&[b'x'; 4096]).await.expect("open");
    server.read_exact(&mut [0]).await.expect("there is one");
    drop(server);
    let read = client.read(&mut [0]).await;
    assert_eq!(read.expect_err("a reset, no end").kind(), ErrorKind::ConnectionReset);
}
