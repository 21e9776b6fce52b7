//! What foreign bytes reach here, for fuzzing.

use super::authority::Lenient;
use super::pings::Frames;

/// What two walkers over a client's bytes make of them, cut into pieces: the bytes that are handed on,
/// and the frames, by type, flags and stream.
pub fn walk(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<(u8, u8, u32)>) {
    let mut lenient = Lenient::new(Box::new(tokio::io::empty()));
    let (mut frames, mut seen) = (Frames::Preface(0), Vec::new());
    for part in bytes.chunks(piece) {
        lenient.take(part);
        frames.follow(part, |frame| seen.push((frame.kind, frame.flags, frame.stream)));
    }
    (lenient.ready, seen)
}
