//! A name server of SRV records, and processes that use it. Which records there are is the test's
//! business; hosts are resolved by the machine.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

use simple_dns::rdata::{RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, RCODE, ResourceRecord};

use super::process::loudly;

pub const DOMAIN: &str = "quorate.test";

/// One record: a service's name without the domain, and where it is.
#[derive(Clone, Debug)]
pub struct Record {
    pub service: &'static str,
    pub priority: u16,
    pub weight: u16,
    pub target: &'static str,
    pub port: u16,
}

impl Record {
    /// At this machine, as good as any other.
    pub fn local(service: &'static str, port: u16) -> Self {
        Self { service, priority: 0, weight: 0, target: "localhost", port }
    }
}

/// Serves until the tests end.
pub struct NameServer {
    pub resolv_conf: PathBuf,
}

impl NameServer {
    /// `None`, loudly, where it may not take the port that resolv.conf cannot name another for, or
    /// where processes cannot be given a file of their own.
    pub fn start(dir: &Path, records: Vec<Record>) -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high | 1, low, NEXT.fetch_add(1, Ordering::Relaxed));
        let may_mount = Command::new("unshare").args(["-m", "true"]).output();
        let may_mount = may_mount.is_ok_and(|output| output.status.success());
        let socket = match UdpSocket::bind((address, 53)) {
            Ok(socket) if may_mount => socket,
            _ => {
                loudly("SKIPPED: what needs a name server, for want of root's rights");
                return None;
            }
        };
        std::thread::spawn(move || answer(&socket, &records));
        let resolv_conf = dir.join("resolv.conf");
        std::fs::write(&resolv_conf, format!("nameserver {address}\n")).expect("it is writable");
        Some(Self { resolv_conf })
    }
}

fn answer(socket: &UdpSocket, records: &[Record]) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let Ok(asked) = Packet::parse(&query[..length]) else { continue };
        let Some(question) = asked.questions.first() else { continue };
        let name = question.qname.to_string();
        let mut packet = Packet::new_reply(asked.id());
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE | PacketFlag::RECURSION_DESIRED);
        packet.questions.push(question.clone());
        for record in records.iter().filter(|r| format!("{}.{DOMAIN}", r.service) == name) {
            let Record { priority, weight, port, target, .. } = *record;
            let srv = SRV { priority, weight, port, target: Name::new_unchecked(target) };
            let owner = question.qname.clone();
            packet.answers.push(ResourceRecord::new(owner, CLASS::IN, 60, RData::SRV(srv)));
        }
        if packet.answers.is_empty() {
            *packet.rcode_mut() = RCODE::NameError;
        }
        let answer = packet.build_bytes_vec().expect("it fits");
        // The client may have gone.
        let _ = socket.send_to(&answer, from);
    }
}
