//! The end of the load: everything is read at every member, and the scribe is given time to
//! receive the last of it. What the members answer is evidence like any other call.

use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::RangeRequest;

use super::Client;
use crate::facts::request;
use crate::facts::verdict::Violation;

const PAUSE: Duration = Duration::from_millis(200);

/// Reads all keys from every member and waits until the log has the newest revision of them. All of it
/// has to be done `within`.
pub async fn read(client: &Client, within: Duration) -> Result<i64, Violation> {
    let deadline = client.env.now() + within;
    let voters = client.cluster.voters();
    let mut newest = 1;
    for name in &voters {
        newest = newest.max(whole(client, name, false, 1, deadline).await?);
    }
    // Learners answer from what they have, so the read is repeated until that is everything.
    for name in client.cluster.names().iter().filter(|name| !voters.contains(name)) {
        whole(client, name, true, newest, deadline).await?;
    }
    while client.evidence.record().last_revision() < newest {
        if client.env.now() >= deadline {
            let last = client.evidence.record().last_revision();
            let text = format!("the scribe has events up to {last}, there is {newest}");
            return Err(Violation::new("closing", "watchers receive every event", text));
        }
        client.env.sleep(PAUSE).await;
    }
    Ok(newest)
}

/// Reads all keys of one member, once it is at `least`; the revision that they are of.
async fn whole(
    client: &Client,
    name: &str,
    serializable: bool,
    least: i64,
    deadline: Instant,
) -> Result<i64, Violation> {
    let everything =
        RangeRequest { serializable, range_end: vec![0].into(), ..request::get(vec![0]) };
    loop {
        let member = client.on(client.cluster.channel(&client.env, Some(name)));
        let answer = member.range(everything.clone()).await;
        let header = answer.as_ref().ok().and_then(|answer| answer.header);
        if let Some(header) = header.filter(|header| header.revision >= least) {
            return Ok(header.revision);
        }
        if answer.is_err() {
            client.cluster.log_in_again(&client.env).await;
        }
        if client.env.now() >= deadline {
            let answer = answer.map(|answer| answer.header);
            let text = format!("{name}, that is to be at {least}, answers {answer:?}");
            return Err(Violation::new("closing", "a whole cluster answers", text));
        }
        client.env.sleep(PAUSE).await;
    }
}
