//! SRV records in DNS: the members of a new cluster, and the addresses where the members of a cluster
//! serve clients. The names of the services, the order of the queries and the texts are etcd's
//! (3.7, `client/pkg/srv`, `server/embed`). Makes no connection, but for the check of an endpoint's
//! certificate that etcd's proxies make.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tracing::{info, warn};

use crate::config::cluster::InitialCluster;
use crate::config::urls::{Url, join};
use crate::config::{Config, Srv};
use crate::env::{Env, Service};
use crate::member::InitialState;
use crate::tls::{self, Dialer, Target};

/// For one endpoint whose certificate is looked at.
const VALIDATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster that is to be, and what else of the configuration it changes.
pub(super) async fn bootstrap(env: &Env, srv: &Srv, config: &mut Config) -> Result<(), String> {
    let found = members(env, srv, &config.server.member.name, &config.advertise_peer).await?;
    for node in &found {
        info!(node, "got bootstrap from DNS for etcd-server");
    }
    let cluster = InitialCluster::parse(&found.join(","))?;
    check(&cluster, config)?;
    let secured = cluster.members().any(|(_, urls)| urls.iter().any(|url| url.scheme() == "https"));
    // Without a configured CA, the members' certificates must name the domain.
    if secured && config.server.member.peer_tls.trusted_ca_file.as_os_str().is_empty() {
        config.server.member.peer_tls.server_name = srv.domain.clone();
    }
    config.initial_cluster = cluster;
    Ok(())
}

/// The checks of a list of members, by which the own entry is found: addresses have
/// been compared by then, so a name of this member's is as good as its address.
fn check(cluster: &InitialCluster, config: &Config) -> Result<(), String> {
    let own = cluster.members().find(|(name, _)| *name == config.server.member.name);
    let Some((_, listed)) = own else {
        return Err(format!(
            "cannot find local etcd member {:?} in SRV records",
            config.server.member.name
        ));
    };
    if config.server.member.initial_state == InitialState::New
        && listed.len() != config.advertise_peer.len()
    {
        return cluster.check_new(&config.server.member.name, &config.advertise_peer);
    }
    cluster.check_joining(&config.server.member.name)
}

/// All members as `name=url`. Those that are not this one are called 0, 1 and so on until they publish
/// their names.
async fn members(
    env: &Env,
    srv: &Srv,
    name: &str,
    advertised: &[Url],
) -> Result<Vec<String>, String> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for scheme in ["https", "http"] {
        let service = service_name("etcd-server", scheme, &srv.suffix);
        let members = members_of(env, &service, scheme, &srv.domain, name, advertised).await;
        info!(
            service_scheme = scheme,
            service_name = service,
            server_name = name,
            discovery_srv = srv.domain,
            advertise_peer_urls = join(advertised),
            found_cluster = ?members.as_ref().unwrap_or(&Vec::new()),
            error = members.as_ref().err(),
            "get cluster for {} SRV",
            service_name("etcd-server", scheme, ""),
        );
        match members {
            Ok(members) => found.extend(members),
            Err(why) => failures.push(why),
        }
    }
    match found.is_empty() {
        true => Err(failures.join("\n")),
        false => Ok(found),
    }
}

/// The members that one service names. A record that leads nowhere is passed over as long as there is
/// another.
async fn members_of(
    env: &Env,
    service: &str,
    scheme: &str,
    domain: &str,
    name: &str,
    advertised: &[Url],
) -> Result<Vec<String>, String> {
    let mut own = BTreeMap::new();
    for url in advertised {
        let port = url.port().parse().map_err(|_| format!("address {url}: no port"))?;
        own.insert(address(env, url.host(), port).await?, url);
    }
    let mut found = Vec::new();
    let (mut others, mut failure) = (0, String::new());
    for record in lookup(env, service, domain).await.map_err(|why| in_context(service, &why))? {
        let host_port = host_port(&record);
        let own = match address(env, &record.target, record.port).await {
            Ok(address) => own.get(&address),
            Err(why) => {
                failure = why;
                continue;
            }
        };
        match own {
            Some(url) if url.scheme() != scheme => {
                failure = format!(
                    "bootstrap at {scheme}://{host_port} from DNS for {service} has scheme \
                     mismatch with expected peer {url}"
                );
            }
            Some(_) => found.push(format!("{name}={scheme}://{host_port}")),
            None => {
                found.push(format!("{others}={scheme}://{host_port}"));
                others += 1;
            }
        }
    }
    match found.is_empty() {
        true => Err(in_context(service, &failure)),
        false => Ok(found),
    }
}

fn in_context(service: &str, why: &str) -> String {
    format!("error querying DNS SRV records for _{service} {why}")
}

/// A place where a member serves clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// With the scheme that its service stands for.
    pub url: String,
    pub record: Service,
}

/// The client endpoints of a domain. Without `insecure`, only those whose certificate for the domain is
/// valid by `ca` or the system's CAs.
pub async fn clients(
    env: &Env,
    srv: &Srv,
    ca: &str,
    insecure: bool,
) -> Result<Vec<Endpoint>, String> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for scheme in ["https", "http"] {
        let service = service_name("etcd-client", scheme, &srv.suffix);
        match lookup(env, &service, &srv.domain).await {
            Ok(records) => found.extend(records.into_iter().map(|record| Endpoint {
                url: format!("{scheme}://{}", host_port(&record)),
                record,
            })),
            Err(why) => failures.push(why),
        }
    }
    if let [secure, plain] = &failures[..] {
        return Err(format!("dns lookup errors: {secure} and {plain}"));
    }
    let urls = urls_of(&found);
    info!(srv_server = srv.domain, endpoints = ?urls, "discovered cluster from SRV");
    if insecure {
        return Ok(found);
    }
    info!(srv_server = srv.domain, endpoints = ?urls, "validating discovered SRV endpoints");
    Ok(validated(env, srv, ca, found).await)
}

async fn validated(env: &Env, srv: &Srv, ca: &str, found: Vec<Endpoint>) -> Vec<Endpoint> {
    let (trusted_ca_file, server_name) = (ca.into(), srv.domain.clone());
    let tls = tls::Settings { trusted_ca_file, server_name, ..tls::Settings::default() };
    let dialer = Dialer::new(env, &tls, &[]);
    let (mut valid, mut failures) = (Vec::new(), Vec::new());
    for endpoint in found {
        match validate(env, &dialer, &endpoint.url).await {
            Ok(()) => valid.push(endpoint),
            Err(why) => failures.push(why),
        }
    }
    let endpoints = urls_of(&valid);
    match failures.is_empty() {
        true => {
            info!(srv_server = srv.domain, ?endpoints, "using validated discovered SRV endpoints")
        }
        false => warn!(
            srv_server = srv.domain,
            ?endpoints,
            error = failures.join(","),
            "failed to validate discovered endpoints"
        ),
    }
    valid
}

async fn validate(env: &Env, dialer: &Dialer, url: &str) -> Result<(), String> {
    if !url.starts_with("https://") {
        return Err(format!("{url:?} is insecure"));
    }
    let connecting = async {
        let target = Target::parse(url)?;
        let stream = target.connect(env).await.map_err(|error| error.to_string())?;
        dialer.secure(&target.name, stream).await.map_err(|error| error.to_string())
    };
    let connected = env.timeout(VALIDATION_TIMEOUT, connecting).await;
    let why = match connected {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(why)) => why,
        Err(elapsed) => elapsed.to_string(),
    };
    Err(format!("{url:?} failed to dial ({why})"))
}

fn urls_of(endpoints: &[Endpoint]) -> Vec<&str> {
    endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect()
}

/// The name of a service: `etcd-client`, `etcd-client-ssl`, either with a suffix.
fn service_name(base: &str, scheme: &str, suffix: &str) -> String {
    let secure = if scheme == "https" { "-ssl" } else { "" };
    let dash = if suffix.is_empty() { "" } else { "-" };
    format!("{base}{secure}{dash}{suffix}")
}

/// The records of a service, those that are to be tried first at the front.
async fn lookup(env: &Env, service: &str, domain: &str) -> Result<Vec<Service>, String> {
    let found = env.net.services_of(format!("_{service}._tcp.{domain}")).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(in_order(found, |below| usize::try_from(env.random_u64() % below).expect("it fits")))
}

/// By priority; within one, each place is drawn by weight from those that are left (RFC 2782, as Go
/// does it). `draw` gives a number below its argument.
fn in_order(mut records: Vec<Service>, draw: impl Fn(u64) -> usize) -> Vec<Service> {
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut ordered: Vec<Service> = Vec::new();
    while let Some(first) = records.first() {
        let same = records.iter().take_while(|other| other.priority == first.priority);
        let weights: Vec<usize> = same.map(|record| record.weight.into()).collect();
        let sum: usize = weights.iter().sum();
        let mut left = if sum == 0 { 0 } else { draw(sum as u64) };
        let chosen = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// A host's address. As Go, which takes one address only, prefers the shorter ones.
async fn address(env: &Env, host: &str, port: u16) -> Result<SocketAddr, String> {
    let found = env.net.addresses_of(host.to_owned()).await;
    let found = found.map_err(|error| format!("lookup {host}: {error}"))?;
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    let address = first.ok_or_else(|| format!("lookup {host}: no such host"))?;
    Ok(SocketAddr::new(*address, port))
}

fn host_port(record: &Service) -> String {
    let target = record.target.trim_end_matches('.');
    let bracketed = if target.contains(':') { format!("[{target}]") } else { target.to_owned() };
    format!("{bracketed}:{}", record.port)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io;
    use std::net::IpAddr;
    use std::sync::Arc;

    use super::*;
    use crate::env::{BoxConn, BoxFuture, Listener, Net, tokio as machine};

    /// A world of names: services, each with its records, and hosts that are called after the last
    /// part of their address.
    struct Names(Vec<(&'static str, Vec<Service>)>);

    impl Net for Names {
        fn listen(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
            Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
        }

        fn connect(&self, _: String) -> BoxFuture<'_, io::Result<BoxConn>> {
            Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
        }

        fn addresses_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<IpAddr>>> {
            let last = name.strip_suffix(".example.com").and_then(|host| host.parse::<u8>().ok());
            let last = last.ok_or_else(|| io::Error::other("no such host"));
            Box::pin(async { last.map(|last| vec![IpAddr::from([10, 0, 0, last])]) })
        }

        fn names_of(&self, _: IpAddr) -> BoxFuture<'_, io::Result<Vec<String>>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn services_of(&self, name: String) -> BoxFuture<'_, io::Result<Vec<Service>>> {
            let found =
                self.0.iter().find(|(service, _)| format!("{service}._tcp.example.com") == name);
            let missing = || io::Error::other(format!("lookup {name}: no such host"));
            let found = found.map(|(_, records)| records.clone()).ok_or_else(missing);
            Box::pin(async { found })
        }
    }

    fn at(host: &str) -> Service {
        Service { priority: 0, weight: 0, port: 2380, target: format!("{host}.example.com") }
    }

    fn world(names: Vec<(&'static str, Vec<Service>)>) -> (Env, Srv) {
        let env = Env { net: Arc::new(Names(names)), ..machine::env() };
        (env, Srv { domain: "example.com".into(), suffix: String::new() })
    }

    /// The members as the one at `advertised` finds them.
    async fn found(
        names: Vec<(&'static str, Vec<Service>)>,
        advertised: &str,
    ) -> Result<String, String> {
        let (env, srv) = world(names);
        let advertised = Url::parse_list(advertised).expect("URLs");
        members(&env, &srv, "me", &advertised).await.map(|members| members.join(","))
    }

    #[tokio::test]
    async fn members_are_told_apart_by_address() {
        let both = vec![("_etcd-server", vec![at("1"), at("2"), at("nobody"), at("3")])];
        assert_eq!(
            found(both.clone(), "http://2.example.com:2380").await.as_deref(),
            Ok(
                "0=http://1.example.com:2380,me=http://2.example.com:2380,1=http://3.example.com:2380"
            )
        );
        let elsewhere = found(both, "http://2.example.com:9").await.expect("three are found");
        assert!(elsewhere.starts_with("0=") && !elsewhere.contains("me="), "{elsewhere}");
        let mixed = vec![("_etcd-server-ssl", vec![at("1")]), ("_etcd-server", vec![at("2")])];
        assert_eq!(
            found(mixed, "https://1.example.com:2380").await.as_deref(),
            Ok("me=https://1.example.com:2380,0=http://2.example.com:2380")
        );
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_of_both_services() {
        let why = |service: &str| {
            format!(
                "error querying DNS SRV records for _{service} lookup _{service}._tcp.example.com: \
                 no such host"
            )
        };
        let nobody = found(Vec::new(), "http://1.example.com:2380").await;
        assert_eq!(nobody, Err(format!("{}\n{}", why("etcd-server-ssl"), why("etcd-server"))));
        let other =
            found(vec![("_etcd-server-ssl", vec![at("1")])], "http://1.example.com:2380").await;
        let other = other.expect_err("it speaks otherwise");
        let mismatch = "bootstrap at https://1.example.com:2380 from DNS for etcd-server-ssl has \
                        scheme mismatch with expected peer http://1.example.com:2380";
        assert!(other.contains(mismatch), "{other}");
    }

    #[tokio::test]
    async fn clients_are_where_somebody_vouches_for_them() {
        let names = vec![("_etcd-client-ssl", vec![at("1")]), ("_etcd-client", vec![at("2")])];
        let (env, srv) = world(names);
        let all = clients(&env, &srv, "", true).await.expect("two are found");
        let urls = ["https://1.example.com:2380", "http://2.example.com:2380"];
        assert_eq!(urls_of(&all), urls);
        let valid = clients(&env, &srv, "", false).await.expect("none is left");
        assert!(valid.is_empty(), "one refuses, the other is plain");
        let (env, srv) = world(Vec::new());
        let why = clients(&env, &srv, "", true).await.expect_err("nobody");
        assert!(why.starts_with("dns lookup errors: lookup _etcd-client-ssl"), "{why}");
    }

    fn record(priority: u16, weight: u16, port: u16) -> Service {
        Service { priority, weight, port, target: "a.example.com".into() }
    }

    #[test]
    fn services_are_called_as_in_etcd() {
        assert_eq!(service_name("etcd-client", "https", ""), "etcd-client-ssl");
        assert_eq!(service_name("etcd-client", "http", ""), "etcd-client");
        assert_eq!(service_name("etcd-server", "https", "blue"), "etcd-server-ssl-blue");
        let mut other = record(0, 0, 2);
        assert_eq!(host_port(&other), "a.example.com:2");
        other.target = "::1".into();
        assert_eq!(host_port(&other), "[::1]:2");
    }

    #[test]
    fn records_are_drawn_by_weight_within_their_priority() {
        let records = vec![record(2, 0, 9), record(1, 3, 1), record(1, 1, 2), record(1, 0, 3)];
        let ports = |draw: usize| -> Vec<u16> {
            let draw = |below: u64| draw % usize::try_from(below).expect("small");
            in_order(records.clone(), draw).iter().map(|record| record.port).collect()
        };
        // Of four shares the lighter one has the first.
        assert_eq!(ports(0), [2, 1, 3, 9]);
        assert_eq!(ports(1), [1, 2, 3, 9]);
        let drawn: BTreeSet<Vec<u16>> = (0..40).map(ports).collect();
        assert!(
            drawn.iter().all(|ports| ports[3] == 9),
            "the other priority comes last: {drawn:?}"
        );
    }
}
