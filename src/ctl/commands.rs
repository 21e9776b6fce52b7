//! The commands: one request each, with etcdctl's time limit and simple output (`endpoint status` has
//! fewer columns).

use std::time::Duration;

use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest, StatusResponse,
};

use super::Failure;
use super::connection::Connection;
use crate::env::Env;

const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

pub async fn put(
    env: Env,
    cluster: &Connection,
    key: &str,
    value: &str,
) -> Result<String, Failure> {
    let put = PutRequest {
        key: key.as_bytes().to_vec().into(),
        value: value.as_bytes().to_vec().into(),
        ..PutRequest::default()
    };
    let mut kv = cluster.client(&env)?.kv();
    within(&env, kv.put(put), |error| error.message().to_owned()).await?;
    Ok("OK\n".into())
}

pub async fn get(env: Env, cluster: &Connection, key: &str) -> Result<String, Failure> {
    let range = RangeRequest { key: key.as_bytes().to_vec().into(), ..RangeRequest::default() };
    let mut kv = cluster.client(&env)?.kv();
    let response = within(&env, kv.range(range), |error| error.message().to_owned()).await?;
    let response = response.into_inner();
    let lines = response.kvs.iter().map(|kv| {
        let (key, value) = (String::from_utf8_lossy(&kv.key), String::from_utf8_lossy(&kv.value));
        format!("{key}\n{value}\n")
    });
    Ok(lines.collect())
}

pub async fn del(env: Env, cluster: &Connection, key: &str) -> Result<String, Failure> {
    let key = key.as_bytes().to_vec().into();
    let delete = DeleteRangeRequest { key, ..DeleteRangeRequest::default() };
    let mut kv = cluster.client(&env)?.kv();
    let response =
        within(&env, kv.delete_range(delete), |error| error.message().to_owned()).await?;
    Ok(format!("{}\n", response.into_inner().deleted))
}

/// A read that needs the cluster, from each endpoint; etcdctl reads the same key.
pub async fn health(env: Env, cluster: &Connection) -> Result<String, Failure> {
    let (mut found, mut why) = (String::new(), String::new());
    for endpoint in &cluster.endpoints {
        let began = env.now();
        let mut kv = cluster.client_of(&env, endpoint)?.kv();
        let key = b"health".to_vec().into();
        let range = RangeRequest { key, ..RangeRequest::default() };
        match within(&env, kv.range(range), |error| error.message().to_owned()).await {
            Ok(_) => {
                let took = env.now() - began;
                let text = "is healthy: successfully committed proposal: took";
                found.push_str(&format!("{endpoint} {text} = {took:?}\n"));
            }
            Err(error) => {
                let text = "is unhealthy: failed to commit proposal";
                why.push_str(&format!("{endpoint} {text}: {error}\n"));
            }
        }
    }
    match why.is_empty() {
        true => Ok(found),
        false => Err(Failure { found, why: format!("unhealthy cluster\n{}", why.trim_end()) }),
    }
}

/// One line for each endpoint: endpoint, id, version, bytes, leader, learner, term, index, applied.
pub async fn status(env: Env, cluster: &Connection) -> Result<String, Failure> {
    let mut found = String::new();
    for endpoint in &cluster.endpoints {
        let mut maintenance = cluster.client_of(&env, endpoint)?.maintenance();
        let call = maintenance.status(StatusRequest::default());
        match within(&env, call, |error| error.message().to_owned()).await {
            Ok(status) => found.push_str(&line(endpoint, &status.into_inner())),
            Err(error) => return Err(Failure { found, why: format!("{endpoint}: {error}") }),
        }
    }
    Ok(found)
}

fn line(endpoint: &str, status: &StatusResponse) -> String {
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    format!(
        "{endpoint}, {id:x}, {}, {}, {}, {}, {}, {}, {}, {}\n",
        status.version,
        status.db_size,
        status.leader == id,
        status.is_learner,
        status.raft_term,
        status.raft_index,
        status.raft_applied_index,
        status.errors.join("; "),
    )
}

/// What `call` answers within etcdctl's time limit; `text` is what a failed call says.
async fn within<T, E>(
    env: &Env,
    call: impl Future<Output = Result<T, E>>,
    text: impl FnOnce(&E) -> String,
) -> Result<T, String> {
    match env.timeout(COMMAND_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| text(&error)),
        Err(_) => Err("context deadline exceeded".into()),
    }
}
