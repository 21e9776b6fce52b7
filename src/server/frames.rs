//! HTTP/2 frames in a stream of bytes (RFC 9113, section 4.1), wherever reads and writes cut it. Their
//! heads are reported as they pass; small DATA frames of one stream that arrive together are made one
//! frame. Their meaning is handled elsewhere: [`super::pings`], [`super::authority`].

/// How an HTTP/2 client begins (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const HEAD_BYTES: usize = 9;
/// The largest frame that a client may send: the protocol's default, which the server leaves as it is.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 10;

/// Kinds of frames.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// Flags of frames.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const PRIORITY: u8 = 0x20;

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub len: usize,
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

impl Frame {
    fn read(head: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { len, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }

    pub fn head(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = u32::try_from(self.len).expect("24 bits").to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// DATA without padding that does not end its stream.
    fn can_grow(self) -> bool {
        self.kind == DATA && self.flags & (END_STREAM | PADDED) == 0
    }

    /// Appends a frame of the same stream, if that makes a frame which is not too large.
    fn grow(&mut self, by: Self) -> bool {
        let fits = by.kind == DATA
            && by.stream == self.stream
            && by.flags & PADDED == 0
            // The library counts empty frames, which do nothing but end a stream.
            && (by.len > 0 || by.flags & END_STREAM != 0)
            && self.len + by.len <= FRAME_BYTES_MAX;
        if fits {
            self.len += by.len;
            self.flags |= by.flags & END_STREAM;
        }
        fits
    }
}

/// Where in one direction of a connection the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    /// So many bytes of the client's preface have passed.
    Preface(usize),
    /// So many bytes of a frame's head.
    Head([u8; HEAD_BYTES], usize),
    /// So many bytes of a frame are still to come.
    Skip(usize),
    /// This is not HTTP/2.
    None,
}

impl Frames {
    pub const BETWEEN: Self = Self::Head([0; HEAD_BYTES], 0);

    pub fn is_between(&self) -> bool {
        matches!(self, Self::Head(_, 0))
    }

    /// Passes over bytes up to the end of the next frame's head, and returns how many and that head;
    /// none when there is no such end in `bytes`.
    pub fn step(&mut self, bytes: &[u8]) -> (usize, Option<Frame>) {
        match self {
            Self::None => (bytes.len(), None),
            Self::Preface(seen) => {
                let used = bytes.len().min(PREFACE.len() - *seen);
                let fits = bytes[..used] == PREFACE[*seen..*seen + used];
                *seen += used;
                match (fits, *seen == PREFACE.len()) {
                    (false, _) => *self = Self::None,
                    (true, true) => *self = Self::BETWEEN,
                    (true, false) => {}
                }
                (used, None)
            }
            Self::Head(head, seen) => {
                let used = bytes.len().min(HEAD_BYTES - *seen);
                head[*seen..*seen + used].copy_from_slice(&bytes[..used]);
                *seen += used;
                if *seen < HEAD_BYTES {
                    return (used, None);
                }
                let frame = Frame::read(*head);
                *self = Self::behind_head(frame.len);
                (used, Some(frame))
            }
            Self::Skip(left) => {
                let used = bytes.len().min(*left);
                *self = Self::behind_head(*left - used);
                (used, None)
            }
        }
    }

    fn behind_head(left: usize) -> Self {
        if left == 0 { Self::BETWEEN } else { Self::Skip(left) }
    }

    /// Reports each frame whose head ends in `bytes`.
    pub fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let (used, frame) = self.step(bytes);
            frame.into_iter().for_each(&mut each);
            bytes = &bytes[used..];
        }
    }

    /// As [`Self::follow`]; successive DATA frames of one stream that are there as a whole become one
    /// frame. Returns how many bytes are left. The HTTP/2 library bounds the number of small frames that
    /// it holds, and ends the connection of a client that sends many messages at once.
    pub fn follow_and_merge(&mut self, bytes: &mut [u8], mut each: impl FnMut(Frame)) -> usize {
        let (mut from, mut to) = (0, 0);
        // The frame that ends at `to`, and where it begins, if more may be appended to it.
        let mut last: Option<(usize, Frame)> = None;
        while from < bytes.len() {
            let starts = self.is_between();
            let (used, frame) = self.step(&bytes[from..]);
            frame.into_iter().for_each(&mut each);
            let whole = frame
                .filter(|frame| starts && frame.kind == DATA)
                .filter(|frame| from + used + frame.len <= bytes.len());
            let Some(frame) = whole else {
                shift(bytes, from..from + used, to);
                (from, to, last) = (from + used, to + used, None);
                continue;
            };
            *self = Self::BETWEEN;
            let (body, end) = (from + HEAD_BYTES, from + HEAD_BYTES + frame.len);
            if let Some((at, grown)) = &mut last
                && grown.grow(frame)
            {
                bytes[*at..*at + HEAD_BYTES].copy_from_slice(&grown.head());
                shift(bytes, body..end, to);
                to += frame.len;
                last = last.filter(|(_, grown)| grown.can_grow());
            } else {
                shift(bytes, from..end, to);
                last = frame.can_grow().then_some((to, frame));
                to += end - from;
            }
            from = end;
        }
        to
    }
}

/// Moves bytes to the front.
fn shift(bytes: &mut [u8], from: std::ops::Range<usize>, to: usize) {
    if from.start != to {
        bytes.copy_within(from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let frame = Frame { len: payload.len(), kind, flags, stream };
        [&frame.head()[..], payload].concat()
    }

    /// The frames of `bytes`, whole; panics where bytes are left over.
    fn frames(mut bytes: &[u8]) -> Vec<(Frame, Vec<u8>)> {
        let mut found = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<HEAD_BYTES>() {
            let frame = Frame::read(*head);
            let (payload, rest) = rest.split_at(frame.len);
            found.push((frame, payload.to_vec()));
            bytes = rest;
        }
        assert!(bytes.is_empty());
        found
    }

    /// What is left of `bytes` that are read in pieces of so many, and the number of heads reported.
    fn merged(bytes: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut walker, mut heads, mut left) = (Frames::BETWEEN, 0, Vec::new());
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let len = walker.follow_and_merge(&mut piece, |_| heads += 1);
            left.extend_from_slice(&piece[..len]);
        }
        assert!(walker.is_between());
        (left, heads)
    }

    #[test]
    fn small_messages_of_one_stream_become_one_frame() {
        let message = |n: u32| [n as u8; 17];
        let bytes: Vec<u8> = (0..300).flat_map(|n| frame(DATA, 0, 1, &message(n))).collect();
        let (left, heads) = merged(&bytes, 8 << 10);
        assert_eq!(heads, 300, "each head is reported");
        assert_eq!(frames(&left).len(), 1);
        let body: Vec<u8> = (0..300).flat_map(message).collect();
        assert_eq!(frames(&left)[0].1, body);
    }

    /// Whatever the pieces are, the payload of each stream, its end and all other frames stay as they
    /// are.
    #[test]
    fn merging_changes_nothing_but_the_cuts_between_data_frames() {
        let bytes = [
            frame(HEADERS, 4, 1, b"block"),
            frame(DATA, 0, 1, b"one"),
            frame(DATA, 0, 1, b"two"),
            frame(DATA, 0, 3, b"other"),
            frame(DATA, 0, 1, b""),
            frame(DATA, PADDED, 1, b"\x01padded-"),
            frame(DATA, 0, 1, b"three"),
            frame(PING, 0, 0, &[7; 8]),
            frame(DATA, 0, 1, b"four"),
            frame(DATA, END_STREAM, 1, b""),
            frame(DATA, 0, 3, &[3; FRAME_BYTES_MAX - 1]),
            frame(DATA, 0, 3, b"12"),
            frame(DATA, END_STREAM, 3, b"end"),
            frame(HEADERS, 5, 5, b"block"),
        ]
        .concat();
        let facts = |bytes: &[u8]| {
            let (mut bodies, mut others) = ([const { Vec::new() }; 6], Vec::new());
            for (frame, payload) in frames(bytes) {
                if frame.kind == DATA && frame.flags & PADDED == 0 {
                    bodies[frame.stream as usize].extend(payload);
                    if frame.flags & END_STREAM != 0 {
                        bodies[frame.stream as usize].push(b'.');
                    }
                } else {
                    others.push((frame, payload));
                }
            }
            (bodies, others)
        };
        for piece in [1, 2, 5, 9, 10, 30, 100, 20_000, bytes.len()] {
            let (left, heads) = merged(&bytes, piece);
            assert_eq!(facts(&left), facts(&bytes), "in pieces of {piece}");
            assert_eq!(heads, 14);
            assert!(frames(&left).iter().all(|(frame, _)| frame.len <= FRAME_BYTES_MAX));
        }
        assert_eq!(frames(&merged(&bytes, bytes.len()).0).len(), 11);
    }

    #[test]
    fn other_protocols_have_no_frames() {
        let mut walker = Frames::Preface(0);
        walker.follow(b"GET /health HTTP/1.1\r\n\r\n", |_| panic!("no frame"));
        assert_eq!(walker, Frames::None);
    }
}
