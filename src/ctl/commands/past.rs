//! The revision of a moment in the past, from the times that members of Quorate keep of their revisions; an
//! etcd keeps none.

use std::time::Duration;

use crate::client;
use crate::ctl::Context;
use crate::ctl::cluster::Target;
use crate::tool::exit::Exit;

/// Where a member answers.
const PAGE: &str = "/debug/revision";

/// The newest revision that was there `ago`.
///
/// # Errors
/// When no endpoint knows it: it is of etcd, was not running then, or too much has happened since.
pub async fn revision(context: &Context, ago: Duration) -> Result<i64, Exit> {
    let target = Target::of_flags(context).await?;
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
                    "{endpoint} keeps no times of revisions, or none of that time: give a revision \
                     (`history KEY` lists a key's)"
                );
            }
            Err(error) => why = format!("{endpoint}: {error}"),
        }
    }
    Err(Exit::error(why))
}
