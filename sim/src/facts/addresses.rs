//! Names and ports of the hosts of a run: `m0`.. members, `p0`.. proxies, `c0`.. clients, and one for the
//! collector of traces.

/// Ports of members; a proxy listens on the first.
pub const CLIENT_PORT: u16 = 2379;
pub const PEER_PORT: u16 = 2380;
/// The host of the collector of traces, and its port.
pub const COLLECTOR: &str = "spans";
pub const COLLECTOR_PORT: u16 = 4317;
/// The header that carries a client's token.
pub const TOKEN: &str = "token";

/// Where clients of a member or a proxy connect.
pub fn endpoint(host: &str) -> String {
    format!("{host}:{CLIENT_PORT}")
}

/// The host of an endpoint.
pub fn host_of(endpoint: &str) -> &str {
    endpoint.split(':').next().unwrap_or(endpoint)
}

/// The number of a proxy, from its host or an endpoint on it.
pub fn proxy_number(host: &str) -> Option<usize> {
    host_of(host).strip_prefix('p')?.parse().ok()
}
