//! The scribe: one watcher that follows every key from revision 1 on, whatever happens to the members,
//! and writes down what each revision did. Its log is what most checkers hold everything else against.
//!
//! Compaction makes the beginning unreadable, so the log cannot be fetched at the end of a run; and no
//! compaction may pass what the scribe has ([`Record::compactable`](crate::facts::evidence::Record)).

use std::time::Duration;

use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use quorate_proto::mvccpb::Event;

use super::Client;
use super::session::{Next, Session};

/// Silence after which the scribe requests progress.
const SILENCE: Duration = Duration::from_secs(1);
/// Questions without an answer after which it tries another member.
const QUESTIONS: u32 = 3;
/// The answers to calls without a token, or with one that is not known any more.
pub(crate) const NO_USER: &str = "etcdserver: user name is empty";
const BAD_TOKEN: &str = "etcdserver: invalid auth token";
const PAUSE: Duration = Duration::from_millis(200);

/// Follows everything until it is stopped.
pub async fn run(client: Client) {
    let features = client.roll();
    let mut members = client.roll();
    while !client.stop.is_set() {
        members = members.wrapping_add(1);
        if let Some(mut session) = Session::open(&client.on_member(members)).await {
            session.create(client.number, everything(&client, features));
            follow(&client, &mut session).await;
        }
        client.env.sleep(PAUSE).await;
    }
}

/// From what comes next on; the rest must make no difference, so it is as the seed has it.
fn everything(client: &Client, features: u64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: client.evidence.record().last_revision().max(0) + 1,
        prev_kv: features & 1 != 0,
        fragment: features & 2 != 0,
        progress_notify: features & 4 != 0,
        ..Default::default()
    }
}

async fn follow(client: &Client, session: &mut Session) {
    let mut open = Vec::new();
    let mut questions = 0;
    while !client.stop.is_set() {
        match session.next(SILENCE).await {
            Next::For(_, response) if is_unknown(&response) => {
                client.cluster.log_in_again(&client.env).await;
                return;
            }
            Next::For(_, response) if response.canceled => {
                let text = format!("{}: {}", response.compact_revision, response.cancel_reason);
                client.complain("the scribe is never cancelled", text);
                return;
            }
            Next::For(_, response) => {
                questions = 0;
                write(client, &mut open, response);
            }
            Next::Progress(_) => questions = 0,
            Next::Silence if questions < QUESTIONS => {
                questions += 1;
                session.ask_progress();
            }
            Next::Silence | Next::Ended => return,
        }
    }
}

/// Whether a member does not know the scribe's token, where permissions are on.
fn is_unknown(response: &WatchResponse) -> bool {
    let reason = &response.cancel_reason;
    response.canceled && (reason.ends_with(NO_USER) || reason.ends_with(BAD_TOKEN))
}

/// Adds whole revisions to the log; `open` are events whose last fragment is still to come.
fn write(client: &Client, open: &mut Vec<Event>, response: WatchResponse) {
    open.extend(response.events);
    if response.fragment {
        return;
    }
    let mut record = client.evidence.record();
    let known = record.last_revision();
    for event in open.drain(..) {
        let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        // What came twice is for the checker of watches to check.
        if revision > known {
            record.log.entry(revision).or_default().push(event);
        }
    }
}
