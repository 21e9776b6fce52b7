//! Queries for SRV records to the machine's name servers; the system's own resolver has no call for them.
//! Reads `/etc/resolv.conf` anew for every question; keeps nothing, follows no search list, and takes
//! the answers for true, as every stub resolver does (RFC 1035, RFC 2782).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the doors lead here")]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::Service;

const FILE: &str = "/etc/resolv.conf";
const PORT: u16 = 53;
/// As much as a datagram holds.
const ANSWER_BYTES_MAX: usize = 65_535;

/// The servers, how often each is queried, and the time for each query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameServers {
    servers: Vec<SocketAddr>,
    timeout: Duration,
    attempts: u32,
}

impl NameServers {
    pub fn of_the_system() -> Self {
        // Without the file there is one on this machine (resolv.conf(5)).
        Self::parse(&fs::read_to_string(FILE).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut all = Self { servers: Vec::new(), timeout: Duration::from_secs(5), attempts: 2 };
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                    all.servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
                }
                Some("options") => words.for_each(|option| all.set(option)),
                _ => {}
            }
        }
        if all.servers.is_empty() {
            all.servers.push((Ipv4Addr::LOCALHOST, PORT).into());
        }
        all
    }

    fn set(&mut self, option: &str) {
        let number = |text: &str| text.parse::<u32>().ok().map(|number| number.max(1));
        match option.split_once(':') {
            Some(("timeout", seconds)) => {
                let seconds = number(seconds).unwrap_or(5).min(30);
                self.timeout = Duration::from_secs(seconds.into());
            }
            Some(("attempts", times)) => self.attempts = number(times).unwrap_or(2).min(5),
            _ => {}
        }
    }

    /// The records at `name`. Errors have the texts of Go's resolver.
    pub async fn services_of(&self, name: &str) -> io::Result<Vec<Service>> {
        let mut failure = io::Error::other(format!("lookup {name}: no answer"));
        for _ in 0..self.attempts {
            for server in &self.servers {
                let failed = |kind, why: &dyn std::fmt::Display| {
                    io::Error::new(kind, format!("lookup {name} on {server}: {why}"))
                };
                let answer = tokio::time::timeout(self.timeout, ask(*server, name)).await;
                match answer {
                    Ok(Ok(Lookup::Services(services))) => return Ok(services),
                    Ok(Ok(Lookup::Nothing)) => {
                        return Err(failed(io::ErrorKind::NotFound, &"no such host"));
                    }
                    // The next one may know better.
                    Ok(Ok(Lookup::Trouble)) => {
                        failure = failed(io::ErrorKind::Other, &"server misbehaving");
                    }
                    Ok(Err(error)) => failure = failed(error.kind(), &error),
                    Err(_) => failure = failed(io::ErrorKind::TimedOut, &"i/o timeout"),
                }
            }
        }
        Err(failure)
    }
}

/// A server's answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lookup {
    Services(Vec<Service>),
    /// There is no such name, or none with such a record.
    Nothing,
    /// It does not know.
    Trouble,
}

/// By a datagram; by a stream when the answer does not fit one.
async fn ask(server: SocketAddr, name: &str) -> io::Result<Lookup> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let id = u16::from_be_bytes(id);
    let query = query(id, name)?;
    let datagram = by_datagram(server, id, &query).await?;
    if packet(&datagram, id).is_some_and(|packet| packet.has_flags(PacketFlag::TRUNCATION)) {
        return Ok(read(&by_stream(server, &query).await?, id));
    }
    Ok(read(&datagram, id))
}

async fn by_datagram(server: SocketAddr, id: u16, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Late answers to other queries, and forgeries.
        if packet(&answer[..length], id).is_some() {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn query(id: u16, name: &str) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name.trim_end_matches('.')).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, TYPE::SRV.into(), CLASS::IN.into(), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// The answer to the question of that number.
fn packet(bytes: &[u8], id: u16) -> Option<Packet<'_>> {
    let packet = Packet::parse(bytes).ok()?;
    (packet.id() == id && packet.has_flags(PacketFlag::RESPONSE)).then_some(packet)
}

pub(super) fn read(bytes: &[u8], id: u16) -> Lookup {
    let Some(packet) = packet(bytes, id) else { return Lookup::Trouble };
    match packet.rcode() {
        RCODE::NoError => {}
        RCODE::NameError => return Lookup::Nothing,
        _ => return Lookup::Trouble,
    }
    let services = packet.answers.iter().filter_map(|record| match &record.rdata {
        RData::SRV(srv) => Some(Service {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: srv.target.to_string(),
        }),
        _ => None,
    });
    let services: Vec<Service> = services.collect();
    if services.is_empty() { Lookup::Nothing } else { Lookup::Services(services) }
}

#[cfg(test)]
mod tests {
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::SRV;
    use tokio::net::TcpListener;

    use super::*;

    const NAME: &str = "_etcd-server._tcp.example.com";

    /// An answer of one record, or of none.
    fn answer(query: &[u8], rcode: RCODE, records: u16, flags: PacketFlag) -> Vec<u8> {
        let asked = Packet::parse(query).expect("a question");
        assert_eq!(asked.questions[0].qname.to_string(), NAME);
        let mut packet = Packet::new_reply(asked.id());
        packet.set_flags(flags);
        *packet.rcode_mut() = rcode;
        for port in 1..=records {
            let target = Name::new_unchecked("m1.example.com");
            let srv = SRV { priority: 1, weight: 2, port, target };
            let name = Name::new_unchecked(NAME);
            packet.answers.push(ResourceRecord::new(name, CLASS::IN, 60, RData::SRV(srv)));
        }
        packet.build_bytes_vec().expect("it fits")
    }

    /// A name server that answers datagrams with `answers`, one after the other.
    async fn server(answers: Vec<(RCODE, u16, PacketFlag)>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("it has one");
        tokio::spawn(async move {
            for (rcode, records, flags) in answers {
                let mut query = [0; 512];
                let (length, from) = socket.recv_from(&mut query).await.expect("a question");
                let answer = answer(&query[..length], rcode, records, flags);
                // The answer to another query is ignored.
                let mut other = answer.clone();
                other[0] ^= 1;
                socket.send_to(&other, from).await.expect("sent");
                socket.send_to(&answer, from).await.expect("sent");
            }
        });
        address
    }

    async fn ask(servers: &[SocketAddr]) -> Result<Vec<u16>, String> {
        let timeout = Duration::from_secs(20);
        let servers = NameServers { servers: servers.to_vec(), timeout, attempts: 1 };
        let services = servers.services_of(NAME).await.map_err(|error| error.to_string())?;
        let expected =
            |port| Service { priority: 1, weight: 2, port, target: "m1.example.com".into() };
        assert!(services.iter().all(|service| *service == expected(service.port)), "{services:?}");
        Ok(services.iter().map(|service| service.port).collect())
    }

    #[tokio::test]
    async fn records_are_found() {
        let none = PacketFlag::empty();
        let good = server(vec![(RCODE::NoError, 2, none)]).await;
        assert_eq!(ask(&[good]).await, Ok(vec![1, 2]));
        let (bad, good) = (
            server(vec![(RCODE::ServerFailure, 0, none), (RCODE::ServerFailure, 0, none)]).await,
            server(vec![(RCODE::NoError, 1, none)]).await,
        );
        assert_eq!(ask(&[bad, good]).await, Ok(vec![1]), "the second is asked");
        assert_eq!(ask(&[bad]).await, Err(format!("lookup {NAME} on {bad}: server misbehaving")));
        for (rcode, records) in [(RCODE::NameError, 0), (RCODE::NoError, 0)] {
            let nobody = server(vec![(rcode, records, none)]).await;
            let why = format!("lookup {NAME} on {nobody}: no such host");
            assert_eq!(ask(&[nobody]).await, Err(why));
        }
    }

    #[tokio::test]
    async fn long_answers_come_by_stream() {
        let address = server(vec![(RCODE::NoError, 0, PacketFlag::TRUNCATION)]).await;
        let listener = TcpListener::bind(address).await.expect("the port of the other kind");
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("somebody comes");
            let length = stream.read_u16().await.expect("a length");
            let mut query = vec![0; length.into()];
            stream.read_exact(&mut query).await.expect("a question");
            let answer = answer(&query, RCODE::NoError, 300, PacketFlag::empty());
            let length = u16::try_from(answer.len()).expect("it fits").to_be_bytes();
            stream.write_all(&[&length, &answer[..]].concat()).await.expect("sent");
        });
        assert_eq!(ask(&[address]).await.map(|ports| ports.len()), Ok(300));
        answering.await.expect("it was asked");
    }

    #[test]
    fn the_systems_file_is_read() {
        let text = "# x\nsearch a.b\nnameserver 10.0.0.1\nnameserver ::1\nnameserver x\n\
                    options ndots:5 timeout:1 attempts:9\n";
        let read = NameServers::parse(text);
        let servers: Vec<String> = read.servers.iter().map(ToString::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[::1]:53"]);
        assert_eq!((read.timeout, read.attempts), (Duration::from_secs(1), 5));
        assert_eq!(NameServers::parse("").servers, ["127.0.0.1:53".parse().expect("an address")]);
    }
}
