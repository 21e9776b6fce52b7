//! What foreign bytes reach here, for fuzzing.

use super::dns;

/// An answer of a name server, to the question with the number that it names.
pub fn answer(bytes: &[u8]) {
    let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    drop(dns::read(bytes, id));
}
