//! A member's metrics, `GET /metrics` over HTTP/1, reduced to those that checkers use.

use std::collections::BTreeMap;
use std::io;

use quorate::env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::check::queues;
use crate::cluster::Cluster;
use crate::facts::addresses::endpoint;

/// Reads the page; values of one name with different labels are added up.
pub(super) async fn read(
    cluster: &Cluster,
    env: &Env,
    host: &str,
) -> io::Result<BTreeMap<String, f64>> {
    let mut connection = cluster.connect(env, &endpoint(host)).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    Ok(figures(&String::from_utf8_lossy(&answer)))
}

fn figures(page: &str) -> BTreeMap<String, f64> {
    let mut figures = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let name = series.split('{').next().unwrap_or(series);
        if queues::WATCHED.contains(&name)
            && let Ok(value) = value.trim().parse::<f64>()
        {
            *figures.entry(name.to_owned()).or_insert(0.0) += value;
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_added_up() {
        let page = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n# HELP x y\n\
            etcd_server_proposals_pending 7\nother_total 9\n\
            etcd_network_snapshot_send_inflights_total{To=\"a\"} 1\n\
            etcd_network_snapshot_send_inflights_total{To=\"b\"} 2\n";
        let figures = figures(page);
        assert_eq!(figures.get("etcd_server_proposals_pending"), Some(&7.0));
        assert_eq!(figures.get("etcd_network_snapshot_send_inflights_total"), Some(&3.0));
        assert_eq!(figures.len(), 2);
    }
}
