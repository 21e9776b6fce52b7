//! Simulated TCP. It knows hosts, addresses and bytes, and nothing about the protocols over it.
//!
//! Everything between two hosts is a packet on the [`wire`]: the handshake, data, the receiver's
//! acknowledgement, FIN and RST. A packet arrives after the link's latency, in order per direction.
//! What follows from that, as on real machines:
//!
//! * A partition is reported to no end. Data, FIN and RST sent meanwhile wait and arrive after the
//!   heal, late by a retransmission time; a handshake is lost and tried again after 1, 2, 4.. s.
//! * A partition may be one-way: then data arrive, but what acknowledges them does not, and the
//!   sender stops once its window is full.
//! * A killed process is noticed at once, a host without power not at all: its kernel is gone. When
//!   it is back it answers RST to connections that it does not know.
//! * A reader that does not read stops its writer after 256 KiB.
//!
//! Reading order: [`wire`] (packets and what they do), [`kernel`] (what it does for a process),
//! [`socket`] (which implements `Net`).

mod kernel;
pub(crate) mod socket;
pub(crate) mod wire;
