//! Parsers of foreign bytes, for fuzzing.

use super::authority::Mending;
use super::frames::Frames;

/// The bytes that are passed on of a client's bytes cut into pieces, and the frames in them, by type, flags
/// and stream.
pub fn walk(bytes: &[u8], piece: usize) -> (Vec<u8>, Vec<(u8, u8, u32)>) {
    let (mut mending, mut ready) = (Mending::new(), Vec::new());
    let (mut frames, mut seen) = (Frames::Preface(0), Vec::new());
    for part in bytes.chunks(piece) {
        mending.take(part, &mut ready);
        frames.follow(part, |frame| seen.push((frame.kind, frame.flags, frame.stream)));
    }
    (ready, seen)
}
