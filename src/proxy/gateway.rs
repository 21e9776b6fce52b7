//! `gateway start`: forwards each client connection to a member that can be reached, byte by byte in both
//! directions. TLS is between client and member.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tracing::{debug, info, warn};

use super::remotes::Remotes;
use crate::config::urls::split_host_port;
use crate::config::{Srv, go};
use crate::discovery::srv;
use crate::env::{BoxConn, Env, Listener, Service};
use crate::limits::GATEWAY_CONNECT_TIMEOUT;

/// After a failed accept, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The delay that zero stands for.
const RETRY_DELAY: Duration = Duration::from_secs(5 * 60);

/// Options of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Host and port.
    pub listen: String,
    /// Endpoints if DNS has none.
    pub endpoints: Vec<String>,
    pub srv: Option<Srv>,
    pub trusted_ca_file: String,
    pub insecure_discovery: bool,
    /// Delay before an endpoint that failed is tried again.
    pub retry_delay: Duration,
}

/// A gateway that listens.
pub struct Gateway {
    env: Env,
    listener: Box<dyn Listener>,
    remotes: Arc<Mutex<Remotes>>,
    retry_delay: Duration,
}

impl Gateway {
    /// Resolves the endpoints and listens. Errors have etcd's texts.
    pub async fn start(env: Env, options: &Options) -> Result<Self, String> {
        let services = services(&env, options).await?;
        let (own, listen) = super::listen_address(&env, &options.listen).await?;
        for service in &services {
            check_not_own(&env, service, &own, listen.port(), &options.listen).await?;
        }
        if services.is_empty() {
            return Err("no endpoints found".into());
        }
        let listener = env.net.listen(listen).await;
        let listener = listener.map_err(|error| format!("listen tcp {listen}: {error}"))?;
        let remotes = Arc::new(Mutex::new(Remotes::new(services)));
        let retry_delay = Some(options.retry_delay).filter(|delay| !delay.is_zero());
        let retry_delay = retry_delay.unwrap_or(RETRY_DELAY);
        Ok(Self { env, listener, remotes, retry_delay })
    }

    /// Serves until the future is dropped.
    pub async fn run(mut self) {
        info!(endpoints = ?self.remotes().addresses(), "ready to proxy client requests");
        let mut retry_at = self.env.now() + self.retry_delay;
        loop {
            tokio::select! {
                biased; // A retry is due at most once an interval; it must not wait for a pause of clients.
                () = self.env.sleep_until(retry_at) => {
                    retry_at = self.env.now() + self.retry_delay;
                    self.retry();
                }
                accepted = self.listener.accept() => match accepted {
                    Ok((conn, from)) => {
                        debug!(?from, "client connected");
                        let serving = Self::serve(
                            self.env.clone(), self.remotes.clone(), self.retry_delay, conn,
                        );
                        self.env.spawn("gateway connection", serving);
                    }
                    Err(error) => {
                        warn!(%error, "accepting a client connection failed");
                        self.env.sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }

    async fn serve(
        env: Env,
        remotes: Arc<Mutex<Remotes>>,
        interval: Duration,
        mut incoming: BoxConn,
    ) {
        loop {
            let Some(address) = lock(&remotes).pick(|below| env.random_u64() % below) else {
                return;
            };
            match connect(&env, &address).await {
                Ok(mut outgoing) => {
                    if let Err(error) = copy_bidirectional(&mut incoming, &mut outgoing).await {
                        debug!(address, %error, "connection ended");
                    }
                    return;
                }
                Err(error) => {
                    lock(&remotes).set_active(&address, false);
                    warn!(address, ?interval, error, "deactivated endpoint");
                }
            }
        }
    }

    /// Tries the endpoints that failed.
    fn retry(&self) {
        for address in self.remotes().inactive() {
            let (env, remotes, interval) =
                (self.env.clone(), self.remotes.clone(), self.retry_delay);
            self.env.spawn("gateway retry", async move {
                match connect(&env, &address).await {
                    Ok(_) => {
                        lock(&remotes).set_active(&address, true);
                        info!(address, "activated");
                    }
                    Err(error) => warn!(
                        address,
                        ?interval,
                        error,
                        "failed to activate endpoint (stay inactive for another interval)"
                    ),
                }
            });
        }
    }

    fn remotes(&self) -> MutexGuard<'_, Remotes> {
        lock(&self.remotes)
    }
}

/// No code panics while the lock is held.
fn lock(remotes: &Mutex<Remotes>) -> MutexGuard<'_, Remotes> {
    remotes.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn connect(env: &Env, address: &str) -> Result<BoxConn, String> {
    match env.timeout(GATEWAY_CONNECT_TIMEOUT, env.net.connect(address.to_owned())).await {
        Ok(connected) => connected.map_err(|error| error.to_string()),
        Err(elapsed) => Err(elapsed.to_string()),
    }
}

/// Returns the endpoints of DNS, with priorities and weights, or those of the flag.
async fn services(env: &Env, options: &Options) -> Result<Vec<Service>, String> {
    if let Some(srv) = &options.srv {
        let ca = &options.trusted_ca_file;
        let found = srv::clients(env, srv, ca, options.insecure_discovery).await?;
        if !found.is_empty() {
            return Ok(found.into_iter().map(|endpoint| endpoint.record).collect());
        }
    }
    options.endpoints.iter().map(|endpoint| service(endpoint)).collect()
}

/// Parses an endpoint; its scheme is ignored.
fn service(endpoint: &str) -> Result<Service, String> {
    let bad = || format!("error parsing endpoint {}", go::quote(endpoint));
    let place = endpoint.split_once("://").map_or(endpoint, |(_, place)| place);
    let place = place.split('/').next().unwrap_or_default();
    let (host, port) = split_host_port(place).ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    Ok(Service { priority: 0, weight: 0, port, target: host.to_owned() })
}

async fn check_not_own(
    env: &Env,
    service: &Service,
    own: &[IpAddr],
    own_port: u16,
    listen: &str,
) -> Result<(), String> {
    let Service { target, port, .. } = service;
    let found = env.net.addresses_of(target.clone()).await;
    let found = found.map_err(|_| format!("failed to resolve endpoint host: {target}"))?;
    if *port != own_port {
        return Ok(());
    }
    match found.iter().find(|address| own.contains(address)) {
        None => Ok(()),
        Some(address) => Err(format!(
            "SRV or endpoint ({target}:{port}->{address}:{port}) should not resolve to the gateway \
             listen addr ({listen})"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_hosts_and_ports() {
        let read = |text| service(text).map(|service| (service.target, service.port));
        assert_eq!(read("a:1"), Ok(("a".into(), 1)));
        assert_eq!(read("https://a:1/x"), Ok(("a".into(), 1)));
        assert_eq!(read("http://[::1]:1"), Ok(("::1".into(), 1)));
        assert_eq!(read("a"), Err("error parsing endpoint \"a\"".into()));
    }
}
