//! What to try when a command has failed: a line on standard error, on a terminal only. Some failures have
//! a remedy of their own; where the cluster was not reached, the endpoints are looked at once more, with and
//! without TLS, to find out why. Changes nothing.

use std::time::Duration;

use super::Context;
use super::cluster::Target;
use crate::client;
use crate::tls;
use crate::tool::exit::Exit;

/// How long one look at an endpoint may take.
const LOOK_MAX: Duration = Duration::from_secs(2);

/// By a part of the failure's text.
const REMEDIES: &[(&str, &str)] = &[
    ("user name is empty", "authentication is enabled: give --user NAME[:PASSWORD]"),
    (
        "authentication failed",
        "name or password is wrong: `user passwd NAME`, as root, sets another one",
    ),
    ("permission denied", "the user's roles do not permit it: `user get NAME --detail` shows them"),
    (
        "database space exceeded",
        "compact and defragment, then `alarm disarm`; or raise --quota-backend-bytes",
    ),
    (
        "certificate not valid yet",
        "the certificate is not valid yet: are this machine's clock and the server's right?",
    ),
    ("certificate expired", "the certificate has expired, or this machine's clock is wrong"),
    ("has been compacted", "`endpoint status` shows the present revision; older ones are gone"),
];

/// Failures that mean that no endpoint has answered in time.
const UNREACHED: &[&str] =
    &["context deadline exceeded", "Unavailable", "no leader", "request timed out", "connect"];

/// Writes the failure and what to try, if anything is known: the same failure, less what was written.
pub(super) async fn give(context: &Context, exit: Exit) -> Exit {
    if !context.shell.is_terminal() || exit.why.is_empty() {
        return exit;
    }
    let remedy = REMEDIES.iter().find(|(part, _)| exit.why.contains(part));
    let unreached = UNREACHED.iter().any(|part| exit.why.contains(part));
    if remedy.is_none() && !unreached {
        return exit;
    }
    context.shell.err(&format!("Error: {}\n", exit.why));
    if let Some((_, remedy)) = remedy {
        context.shell.err(&format!("hint: {remedy}\n"));
    } else if let Ok(target) = Target::without_login(context).await {
        for endpoint in &target.endpoints {
            let hint = advise(endpoint, &look(context, &target, endpoint).await);
            context.shell.err(&format!("hint: {hint}\n"));
        }
    }
    Exit::silent(exit.code)
}

/// What a look at an endpoint has shown.
#[derive(Debug)]
struct Look {
    /// The page `/health` as the flags have it: its text, or why it was not read.
    health: Result<String, String>,
    /// Whether the endpoint responds when TLS is used where it was not, or the other way round.
    secure: bool,
    otherwise: bool,
    /// Whether it serves the list of members that members read from each other.
    is_peer: bool,
}

async fn look(context: &Context, target: &Target, endpoint: &str) -> Look {
    let mut options = target.options();
    options.connect_timeout = options.connect_timeout.min(LOOK_MAX);
    let get = async |endpoint: &str, options: &client::Options, path: &str| {
        let page = client::get(&context.env, endpoint, options, path);
        match context.env.timeout(LOOK_MAX, page).await {
            Ok(page) => page.map(|page| String::from_utf8_lossy(&page).into_owned()),
            Err(_) => Err("no response in time".to_owned()),
        }
    };
    let health = get(endpoint, &options, "/health").await;
    let secure = options.tls.is_some() || endpoint.starts_with("https://");
    let mut look = Look { health, secure, otherwise: false, is_peer: false };
    if look.health.is_ok() {
        return look;
    }
    look.is_peer = get(endpoint, &options, "/members").await.is_ok();
    let host = endpoint.rsplit("://").next().unwrap_or(endpoint);
    let other = match secure {
        true => {
            options.tls = None;
            format!("http://{host}")
        }
        false => {
            let trusting = tls::Settings { insecure_skip_verify: true, ..tls::Settings::default() };
            options.tls = Some(trusting);
            format!("https://{host}")
        }
    };
    let page = get(&other, &options, "/version").await;
    look.otherwise = page.is_ok() || page.is_err_and(|why| why.contains("certificate"));
    look
}

fn advise(endpoint: &str, look: &Look) -> String {
    let why = match &look.health {
        Ok(page) if page.contains("\"true\"") => {
            return format!("{endpoint} is healthy now: try again, or a longer --command-timeout");
        }
        Ok(page) => page,
        Err(why) => why,
    };
    if look.is_peer {
        return format!("{endpoint} is a port for members: use the client port, 2379 by default");
    }
    if look.otherwise {
        return match look.secure {
            true => format!("{endpoint} serves without TLS: use http:// and no certificates"),
            false => {
                format!("{endpoint} serves TLS: use https:// and --cacert (and --cert, --key)")
            }
        };
    }
    if why.contains("refused") {
        return format!(
            "nothing listens at {endpoint}: does the server run, and is it the client port (2379 by \
             default)?"
        );
    }
    if why.contains("503") || why.contains("LEADER") {
        return format!(
            "{endpoint} responds, but the cluster has no leader: a majority of its members must run and \
             reach each other"
        );
    }
    format!("{endpoint}: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_advice() {
        let check = |look: Look, wanted: &str| {
            let hint = advise("h:1", &look);
            assert!(hint.contains(wanted), "{hint}");
        };
        let seen = |health| Look { health, secure: false, otherwise: false, is_peer: false };
        let failed = |why: &str| seen(Err(why.to_owned()));
        check(failed("Connection refused (os error 111)"), "nothing listens at h:1");
        check(failed("/health: 503 Service Unavailable"), "no leader");
        check(Look { otherwise: true, ..failed("/health: 400 Bad Request") }, "serves TLS");
        check(Look { otherwise: true, secure: true, ..failed("corrupt") }, "without TLS");
        check(Look { is_peer: true, ..failed("/health: 404 Not Found") }, "port for members");
        check(failed("no such host"), "h:1: no such host");
        let healthy = Ok("{\"health\":\"true\",\"reason\":\"\"}".to_owned());
        check(seen(healthy), "longer --command-timeout");
    }
}
