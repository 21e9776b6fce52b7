//! Many calls at once that hash a password of one user, all given up at once: what is left of them does not
//! delay the next one. Only for plans whose blocking jobs take a while (`disk`).

use std::time::Duration;

use futures::future::join_all;
use quorate_proto::etcdserverpb::AuthUserChangePasswordRequest;
use quorate_proto::etcdserverpb::auth_client::AuthClient;

use super::{Client, Work, Workload};
use crate::facts::evidence::Evidence;
use crate::facts::verdict::Violation;

/// Fewer than may wait for their turn.
const AT_ONCE: usize = 200;
const GIVEN_UP: Duration = Duration::from_millis(60);
/// What the next call may take: the time of a few jobs, not of all of them.
const PATIENCE: Duration = Duration::from_millis(1_500);

pub struct Passwords;

impl Workload for Passwords {
    fn name(&self) -> &'static str {
        "passwords"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let steady = || client.evidence.record().steady;
            let began = steady();
            let burst = (0..AT_ONCE).map(|_| client.env.timeout(GIVEN_UP, change(client)));
            join_all(burst).await;
            let answered = client.env.timeout(PATIENCE, change(client)).await;
            if answered.is_err() && began && steady() {
                let text = format!("no answer within {PATIENCE:?}, after {AT_ONCE} given up");
                client.complain("calls that were given up delay no others", text);
            }
            client.pause(1_000).await;
        })
    }

    fn check(&self, _evidence: &Evidence) -> Vec<Violation> {
        Vec::new()
    }
}

/// Of a user that there is not: the password is hashed, and nothing changes.
async fn change(client: &Client) {
    let request = AuthUserChangePasswordRequest {
        name: format!("nobody-{}", client.number),
        password: "p".to_owned(),
        ..Default::default()
    };
    // A refusal, or none at all.
    let _ = AuthClient::new(client.channel.clone()).user_change_password(request).await;
}
