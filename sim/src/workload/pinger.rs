//! A client that pings without end and calls nothing: its connection is closed with a reason. All other
//! clients ping too, as often as they may, and are not.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use quorate::env::hyper::{Exec, Timer};
use tonic::body::Body;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

const NAME: &str = "pinger";
/// Much more often than members allow.
const EVERY: Duration = Duration::from_millis(100);
/// A member has had enough by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// Its frames.
const WHY: &str = "too_many_pings";

pub struct Pinger;

impl Workload for Pinger {
    fn name(&self) -> &'static str {
        NAME
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            match client.env.timeout(PATIENCE, ping(client)).await {
                Ok(Some(why)) if why.contains(WHY) => {}
                Ok(Some(why)) if client.evidence.record().steady => {
                    client.complain("a connection is closed with the reason", why);
                }
                // The member is not there, or has ended meanwhile.
                Ok(_) => client.channel.next_endpoint().await,
                Err(_) => {
                    let text = format!("{PATIENCE:?} of pings, one in {EVERY:?}");
                    client.complain("a connection that pings without end is closed", text);
                }
            }
            client.pause(1_000).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// How the connection ended, if there was one.
async fn ping(client: &Client) -> Option<String> {
    let (env, host) = (&client.env, client.channel.endpoint());
    let stream = client.cluster.connect(env, &host).await.ok()?;
    let mut http = http2::Builder::new(Exec(Arc::clone(&env.rt)));
    http.timer(Timer(Arc::clone(&env.rt)))
        .keep_alive_interval(EVERY)
        .keep_alive_timeout(PATIENCE)
        .keep_alive_while_idle(true);
    let (sender, connection) = http.handshake::<_, Body>(TokioIo::new(stream)).await.ok()?;
    let ended = connection.await.err()?;
    drop(sender);
    Some(said(&ended))
}

/// An error, with all that it stands on.
fn said(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
