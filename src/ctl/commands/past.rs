//! The revision of a moment in the past, from the times that members of Quorate keep of their revisions; an
//! etcd keeps none.

use std::time::Duration;

use crate::client;
use crate::config::go;
use crate::ctl::Context;
use crate::ctl::cluster::Target;
use crate::ctl::print::quoted;
use crate::tool::exit::Exit;

/// Where a member answers.
const PAGE: &str = "/debug/revision";

/// A moment: a revision, or a time before now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    Revision(i64),
    Ago(Duration),
}

impl At {
    /// Reads a revision, or `10m ago`.
    ///
    /// # Errors
    /// What is wanted instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(revision) = text.parse::<i64>().ok().filter(|revision| *revision > 0) {
            return Ok(Self::Revision(revision));
        }
        let ago = text.strip_suffix("ago").map(|length| length.replace(' ', ""));
        let ago = ago.filter(|length| !length.starts_with('-'));
        ago.and_then(|length| go::delay(&length).ok()).map(Self::Ago).ok_or_else(|| {
            let text = quoted(text.as_bytes());
            format!("{text}: want a revision above 0, or a time like \"10m ago\"")
        })
    }

    /// The newest revision that was there then.
    ///
    /// # Errors
    /// When no endpoint knows it: it is of etcd, was not running then, or too much has happened since.
    pub async fn revision(self, context: &Context) -> Result<i64, Exit> {
        match self {
            Self::Revision(revision) => Ok(revision),
            Self::Ago(ago) => find(context, ago).await,
        }
    }
}

async fn find(context: &Context, ago: Duration) -> Result<i64, Exit> {
    let target = Target::without_login(context).await?;
    let page = format!("{PAGE}?ago={}", ago.as_secs());
    let mut why = String::new();
    for endpoint in &target.endpoints {
        match client::get(&context.env, endpoint, &target.options(), &page).await {
            Ok(body) => match String::from_utf8_lossy(&body).trim().parse() {
                Ok(revision) => return Ok(revision),
                Err(_) => why = format!("{endpoint} does not know its revision of that time"),
            },
            Err(error) if error.contains("404") => {
                why = format!(
                    "{endpoint} knows no revision of that time: a member keeps the times of its \
                     revisions from its last start on, and an etcd keeps none. Give a revision \
                     (`history KEY` lists a key's)"
                );
            }
            Err(error) => why = format!("{endpoint}: {error}"),
        }
    }
    Err(Exit::error(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_revisions_or_times() {
        assert_eq!(At::parse("5"), Ok(At::Revision(5)));
        assert_eq!(At::parse(" 10m ago"), Ok(At::Ago(Duration::from_secs(600))));
        assert_eq!(At::parse("1h 2s ago"), Ok(At::Ago(Duration::from_secs(3_602))));
        // Revision 0 and those below are the present for a server.
        for text in ["", "0", "-1", "-5m ago", "ago", "10m", "5 ago", "yesterday"] {
            let why = format!("\"{text}\": want a revision above 0, or a time like \"10m ago\"");
            assert_eq!(At::parse(text), Err(why));
        }
    }
}
