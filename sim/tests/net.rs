//! What a simulated network does when things go wrong. What any network does is in `contract`.

use std::future::Future;
use std::io::ErrorKind;
use std::time::Duration;

use quorate::env::{BoxConn, Env};
use sim::{Process, World};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Runs `scenario` with the hosts `server` and `client`, for some seeds.
fn each_seed<F: Future<Output = ()> + 'static>(
    scenario: impl Fn(World) -> F + Send + Copy + 'static,
) {
    for seed in 0..20 {
        sim::run(seed, move |world| async move {
            world.add_host("server");
            world.add_host("client");
            scenario(world).await;
        });
    }
}

/// Sends back what it reads, on every connection, and ends a connection when its peer does.
async fn echo(env: Env) {
    let mut listener = env.net.listen(([0, 0, 0, 0], 7).into()).await.expect("a free port");
    loop {
        let (mut connection, _) = listener.accept().await.expect("the listener lives");
        drop(env.spawn("echo", async move {
            let mut buf = [0; 1024];
            while let Ok(n @ 1..) = connection.read(&mut buf).await {
                if connection.write_all(&buf[..n]).await.is_err() {
                    return;
                }
            }
        }));
    }
}

async fn dial(env: &Env) -> BoxConn {
    env.net.connect("server:7".to_owned()).await.expect("the server runs")
}

/// One byte there and back, and how long it took.
async fn ping(env: &Env, connection: &mut BoxConn) -> std::io::Result<Duration> {
    let start = env.now();
    connection.write_all(b"x").await?;
    connection.read_exact(&mut [0]).await?;
    Ok(env.now() - start)
}

/// A client that pings once, waits a second and pings again; returns the result of the second ping.
async fn ping_around_a_fault(world: &World) -> Process<std::io::Result<Duration>> {
    world.start("server", echo).await;
    world.sleep(seconds(1)).await;
    let client = |env: Env| async move {
        let mut connection = dial(&env).await;
        ping(&env, &mut connection).await.expect("all is well");
        env.sleep(seconds(1)).await;
        ping(&env, &mut connection).await
    };
    let client = world.start("client", client).await;
    world.sleep(Duration::from_millis(500)).await;
    client
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn answer(client: Process<std::io::Result<Duration>>) -> std::io::Result<Duration> {
    client.join().await.expect("nobody kills the client")
}

#[test]
fn a_partition_stalls_and_the_heal_resumes() {
    each_seed(|world| async move {
        let client = ping_around_a_fault(&world).await;
        world.partition("client", "server");
        world.sleep(seconds(10)).await;
        world.heal("client", "server");
        let took = answer(client).await.expect("no error: only late");
        assert!((seconds(9)..seconds(11)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_one_way_partition_stalls_whichever_way_it_is() {
    each_seed(|world| async move {
        let (from, to) =
            if world.chance(0.5) { ("client", "server") } else { ("server", "client") };
        let client = ping_around_a_fault(&world).await;
        world.one_way(from, to);
        world.sleep(seconds(10)).await;
        world.heal_all();
        let took = answer(client).await.expect("no error: only late");
        assert!((seconds(9)..seconds(11)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_killed_process_is_noticed_at_once() {
    each_seed(|world| async move {
        let client = ping_around_a_fault(&world).await;
        world.kill("server");
        answer(client).await.expect_err("its kernel closed the connection");
        let refused = world.start("client", |env| async move {
            let start = env.now();
            let error = env.net.connect("server:7".to_owned()).await.err().expect("nobody listens");
            (error.kind(), env.now() - start)
        });
        let (kind, took) = refused.await.join().await.expect("nobody kills the client");
        assert_eq!(kind, ErrorKind::ConnectionRefused);
        assert!(took < Duration::from_millis(10), "{took:?}");
    });
}

#[test]
fn a_kill_behind_a_partition_is_noticed_after_the_heal() {
    each_seed(|world| async move {
        let client = ping_around_a_fault(&world).await;
        world.partition("client", "server");
        world.kill("server");
        world.sleep(seconds(5)).await;
        let healed = world.elapsed();
        world.heal_all();
        answer(client).await.expect_err("the connection is closed");
        assert!(world.elapsed() - healed < seconds(1) && world.elapsed() > healed);
    });
}

#[test]
fn a_power_off_is_silent_until_the_reboot_resets() {
    each_seed(|world| async move {
        let client = ping_around_a_fault(&world).await;
        world.power_off("server");
        world.sleep(seconds(20)).await;
        let rebooted = world.elapsed();
        world.power_on("server");
        let error = answer(client).await.expect_err("the new kernel does not know the connection");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        assert!(world.elapsed() - rebooted < seconds(2), "when the next retransmission arrives");
    });
}

#[test]
fn a_quiet_connection_learns_of_a_reboot_when_it_speaks() {
    each_seed(|world| async move {
        let client = ping_around_a_fault(&world).await;
        world.power_off("server");
        world.start("server", echo).await;
        let error = answer(client).await.expect_err("the new kernel does not know the connection");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn dialing_a_host_without_power_is_tried_again_until_it_answers() {
    each_seed(|world| async move {
        world.power_off("server");
        let client = |env: Env| async move {
            let early = env.timeout(seconds(2), env.net.connect("server:7".to_owned())).await;
            assert!(early.is_err(), "no answer, so no error either");
            let start = env.now();
            ping(&env, &mut dial(&env).await).await.expect("all is well again");
            env.now() - start
        };
        let client = world.start("client", client).await;
        world.sleep(seconds(4)).await;
        world.start("server", echo).await;
        let took = client.join().await.expect("nobody kills the client");
        // Tried at 0, 1 and 3 seconds; up after 2.
        assert!((seconds(3)..Duration::from_millis(3100)).contains(&took), "{took:?}");
    });
}

#[test]
fn dialing_through_a_partition_gives_up_in_the_end() {
    each_seed(|world| async move {
        world.start("server", echo).await;
        world.one_way("server", "client");
        let client = world.start("client", |env| async move {
            env.net.connect("server:7".to_owned()).await.err().expect("no answer").kind()
        });
        assert_eq!(client.await.join().await, Some(ErrorKind::TimedOut));
        assert!(world.elapsed() > seconds(120));
    });
}

#[test]
fn a_writer_to_a_paused_process_stops_at_the_window() {
    each_seed(|world| async move {
        world
            .start("server", |env| async move {
                let mut listener = env.net.listen(([0, 0, 0, 0], 7).into()).await.expect("free");
                let (mut connection, _) = listener.accept().await.expect("a client");
                let mut all = Vec::new();
                connection.read_to_end(&mut all).await.expect("open");
                connection.write_all(&(all.len() as u64).to_le_bytes()).await.expect("open");
            })
            .await;
        world.sleep(seconds(1)).await;
        let client = |env: Env| async move {
            let mut connection = dial(&env).await;
            env.sleep(seconds(1)).await;
            let mut written = 0;
            let chunk = [0; 1000];
            while let Ok(n) = env.timeout(seconds(1), connection.write(&chunk)).await {
                written += n.expect("open");
                if written > 10_000_000 {
                    break;
                }
            }
            let stopped_at = written;
            written += connection.write(&chunk).await.expect("resumed");
            connection.shutdown().await.expect("open");
            let mut len = [0; 8];
            connection.read_exact(&mut len).await.expect("it answers");
            assert_eq!(u64::from_le_bytes(len) as usize, written);
            stopped_at
        };
        let client = world.start("client", client).await;
        world.sleep(Duration::from_millis(500)).await;
        world.pause("server");
        world.sleep(seconds(5)).await;
        world.resume("server");
        let stopped_at = client.join().await.expect("nobody kills the client");
        assert!((200_000..=262_144).contains(&stopped_at), "{stopped_at}");
    });
}

#[test]
fn a_process_that_returns_has_closed_its_sockets() {
    each_seed(|world| async move {
        world
            .start("server", |env| async move {
                let forgotten = env.clone();
                drop(env.spawn("listener", echo(forgotten)));
                env.sleep(seconds(1)).await;
            })
            .await;
        world.sleep(Duration::from_millis(500)).await;
        let client = world.start("client", |env| async move {
            let mut connection = dial(&env).await;
            connection.read(&mut [0]).await.expect("an end, no error")
        });
        assert_eq!(client.await.join().await, Some(0));
        world.start("server", echo).await;
    });
}

/// What a process wrote before it was killed arrives in order, if at all: the kernel sends it.
#[test]
fn what_a_partition_held_back_of_a_killed_process_keeps_its_order() {
    each_seed(|world| async move {
        let server = world
            .start("server", |env| async move {
                let mut listener = env.net.listen(([0, 0, 0, 0], 7).into()).await.expect("free");
                let (mut connection, _) = listener.accept().await.expect("the listener lives");
                let mut read = Vec::new();
                connection.read_to_end(&mut read).await.map(|_| read)
            })
            .await;
        let client = |env: Env| async move {
            let mut connection = dial(&env).await;
            for byte in 0..200 {
                env.sleep(Duration::from_millis(10)).await;
                connection.write_all(&[byte]).await.expect("the window is open");
            }
            std::future::pending::<()>().await;
        };
        drop(world.start("client", client).await);
        world.sleep(seconds(1)).await;
        world.partition("server", "client");
        world.sleep(seconds(2)).await;
        world.kill("client");
        world.heal_all();
        let read = server.join().await.expect("nobody stops it").expect("a proper end");
        assert_eq!(read, (0..200).collect::<Vec<u8>>());
    });
}
