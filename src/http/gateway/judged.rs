//! What a client sends over WebSocket (RFC 6455), judged frame by frame before the library reads it, as
//! etcd's library does it: what breaks the protocol, and a Close, are answered by a Close and not passed on.
//! The library has other answers, none of which is sent when the connection is dropped; and of text, which is
//! JSON, it would require that it is UTF-8, so text is passed on as bytes. Does not send anything.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
/// The reserved bits, in the order in which they are named.
const RESERVED: [(u8, &str); 3] = [(0x40, "RSV1 set"), (0x20, "RSV2 set"), (0x10, "RSV3 set")];

/// The largest payload of a frame that controls the connection.
const CONTROL_BYTES_MAX: u8 = 125;
/// Two bytes, eight for the length, and the mask.
const HEAD_BYTES_MAX: usize = 14;
const PROTOCOL_ERROR: u16 = 1002;

/// The content of the Close that ends a connection; none for an empty one.
pub(super) type Farewell = Option<CloseFrame>;

/// The reading half of a connection whose client is judged. Once the library has read all that is to be
/// passed on, the farewell is sent to the channel, and nothing more is ever read.
pub(super) struct Judged<R> {
    conn: R,
    frames: Frames,
    farewell: Option<oneshot::Sender<Farewell>>,
}

impl<R> Judged<R> {
    pub fn new(conn: R, farewell: oneshot::Sender<Farewell>) -> Self {
        Self { conn, frames: Frames::default(), farewell: Some(farewell) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Judged<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if let At::Over(farewell) = &mut this.frames.at {
                if let Some(sender) = this.farewell.take() {
                    // The receiver is gone if the call has ended before.
                    let _ = sender.send(farewell.take());
                }
                return Poll::Pending;
            }
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.conn).poll_read(cx, buf))?;
            let read = &mut buf.filled_mut()[before..];
            let is_end = read.is_empty();
            let passed = this.frames.follow(read);
            buf.set_filled(before + passed);
            if passed > 0 || is_end {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Where in the stream of a client's frames the next byte is.
enum At {
    /// So many bytes of a head have come.
    Head([u8; HEAD_BYTES_MAX], usize),
    /// So many bytes of a payload are to come.
    Payload(u64),
    /// The payload of a Close with this mask, of which so many bytes are to come.
    Close { mask: [u8; 4], payload: Vec<u8>, rest: usize },
    /// Nothing more is read.
    Over(Farewell),
}

impl At {
    const BETWEEN: Self = Self::Head([0; HEAD_BYTES_MAX], 0);
}

/// The frames of a client.
struct Frames {
    at: At,
    /// A message has begun whose last frame has not come.
    in_message: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { at: At::BETWEEN, in_message: false }
    }
}

impl Frames {
    /// Follows what was read, and returns how many bytes of it, from the first on, are for the library.
    fn follow(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut passed) = (0, 0);
        while at < bytes.len() {
            match &mut self.at {
                At::Over(_) => break,
                At::Payload(rest) => {
                    let skip = usize::try_from(*rest).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *rest -= skip as u64;
                    at += skip;
                    passed = at;
                    if *rest == 0 {
                        self.at = At::BETWEEN;
                    }
                }
                At::Close { mask, payload, rest } => {
                    payload.push(bytes[at] ^ mask[payload.len() % mask.len()]);
                    (*rest, at) = (*rest - 1, at + 1);
                    if *rest == 0 {
                        self.at = At::Over(reply(payload));
                    }
                }
                At::Head(head, seen) => {
                    let byte = &mut bytes[at];
                    head[*seen] = *byte;
                    if *seen == 0 && kind(*byte) == TEXT {
                        *byte = *byte & 0xf0 | BINARY;
                    }
                    (*seen, at) = (*seen + 1, at + 1);
                    let (head, seen) = (*head, *seen);
                    if seen == 2
                        && let Err(why) = self.judge(head[0], head[1])
                    {
                        self.at = At::Over(Some(refusal(why)));
                        break;
                    }
                    if seen < 2 || kind(head[0]) != CLOSE {
                        passed = at;
                    }
                    if seen >= 2 && seen == head_bytes(head[1]) {
                        self.at = behind(&head[..seen]);
                    }
                }
            }
        }
        passed
    }

    /// Judges a frame by its first two bytes.
    fn judge(&mut self, first: u8, second: u8) -> Result<(), String> {
        let mut wrong = Vec::new();
        for (bit, text) in RESERVED {
            if first & bit != 0 {
                wrong.push(text.to_owned());
            }
        }
        let is_final = first & FINAL != 0;
        match kind(first) {
            CLOSE..=PONG => {
                if second & !MASKED > CONTROL_BYTES_MAX {
                    wrong.push("len > 125 for control".to_owned());
                }
                if !is_final {
                    wrong.push("FIN not set on control".to_owned());
                }
            }
            CONTINUATION => {
                if !self.in_message {
                    wrong.push("continuation after FIN".to_owned());
                }
                self.in_message = !is_final;
            }
            TEXT | BINARY => {
                if self.in_message {
                    wrong.push("data before FIN".to_owned());
                }
                self.in_message = !is_final;
            }
            other => wrong.push(format!("bad opcode {other}")),
        }
        if second & MASKED == 0 {
            wrong.push("bad MASK".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
    }
}

fn kind(first: u8) -> u8 {
    first & 0x0f
}

/// The size of a masked frame's head.
fn head_bytes(second: u8) -> usize {
    match second & !MASKED {
        126 => 2 + 2 + 4,
        127 => 2 + 8 + 4,
        _ => 2 + 4,
    }
}

/// What follows a head.
fn behind(head: &[u8]) -> At {
    let (lengths, mask) = head[2..].split_at(head.len() - 6);
    let length = match lengths {
        [] => u64::from(head[1] & !MASKED),
        _ => lengths.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if kind(head[0]) != CLOSE {
        return if length == 0 { At::BETWEEN } else { At::Payload(length) };
    }
    match length {
        0 => At::Over(None),
        _ => At::Close {
            mask: mask.try_into().expect("four bytes are left"),
            payload: Vec::new(),
            rest: usize::try_from(length).expect("a Close is short"),
        },
    }
}

/// The answer to a Close with this payload: its code.
fn reply(payload: &[u8]) -> Farewell {
    let (code, text) = payload.split_first_chunk()?;
    let code = u16::from_be_bytes(*code);
    Some(match code {
        // Those that the RFC defines for the wire, up to the registry of today, and those of applications.
        1000..=1003 | 1007..=1013 | 3000..=4999 => match std::str::from_utf8(text) {
            Ok(_) => CloseFrame { code: code.into(), reason: "".into() },
            Err(_) => refusal("invalid utf8 payload in close frame".to_owned()),
        },
        _ => refusal(format!("bad close code {code}")),
    })
}

fn refusal(why: String) -> CloseFrame {
    CloseFrame { code: PROTOCOL_ERROR.into(), reason: why.into() }
}

/// What is passed on of bytes that come in pieces of so many, and the code and the reason of the farewell; an
/// empty one has no code.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn in_pieces(bytes: &[u8], piece: usize) -> (Vec<u8>, Option<(u16, String)>) {
    let (mut frames, mut passed) = (Frames::default(), Vec::new());
    for part in bytes.chunks(piece) {
        let mut part = part.to_vec();
        let used = frames.follow(&mut part);
        passed.extend_from_slice(&part[..used]);
    }
    let farewell = match frames.at {
        At::Over(None) => Some((0, String::new())),
        At::Over(Some(close)) => Some((close.code.into(), close.reason.to_string())),
        _ => None,
    };
    (passed, farewell)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A frame whose first byte is this.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).expect("short");
        let mut frame = vec![first];
        match length {
            ..126 => frame.push(MASKED | length as u8),
            _ => frame.extend([&[MASKED | 126][..], &length.to_be_bytes()].concat()),
        }
        frame.extend(MASK);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ MASK[at % 4]));
        frame
    }

    /// What is passed on of these bytes, wherever they are cut, and the farewell.
    fn judged(bytes: &[u8]) -> (Vec<u8>, Option<(u16, String)>) {
        let (whole, farewell) = in_pieces(bytes, bytes.len());
        for piece in [1, 2, 3, 7] {
            let (passed, same) = in_pieces(bytes, piece);
            assert_eq!(same, farewell, "in pieces of {piece}");
            // The first byte of a frame may be passed on before the second shows what it is.
            assert!(passed.starts_with(&whole) && passed.len() <= whole.len() + 1);
        }
        (whole, farewell)
    }

    #[test]
    fn messages_pass_and_text_becomes_bytes() {
        let long = frame(0x81, &[b' '; 300]);
        let frames = [
            frame(0x81, b"\xff\xfe"),
            frame(0x01, b"{"),
            frame(0x89, b"hi"),
            frame(0x80, b"}"),
            frame(0x82, b""),
            frame(0x8a, &[7; 125]),
            long,
        ];
        let (passed, farewell) = judged(&frames.concat());
        assert_eq!(farewell, None);
        let mut expected = frames.concat();
        let starts = frames.iter().scan(0, |at, frame| {
            *at += frame.len();
            Some(*at - frame.len())
        });
        for start in starts {
            if kind(expected[start]) == TEXT {
                expected[start] += BINARY - TEXT;
            }
        }
        assert_eq!(passed, expected);
    }

    #[test]
    fn a_close_is_answered_with_its_code() {
        let before = frame(0x82, b"{}");
        let answer = |payload: &[u8]| {
            let bytes = [&before[..], &frame(0x88, payload), b"behind it"].concat();
            let (passed, farewell) = judged(&bytes);
            // With the first byte of the Close.
            assert_eq!(passed[..before.len()], before);
            assert!(passed.len() <= before.len() + 1);
            farewell.expect("it is answered")
        };
        assert_eq!(answer(b"\x03\xe8bye"), (1000, String::new()));
        assert_eq!(answer(b""), (0, String::new()));
        assert_eq!(answer(b"\x03"), (0, String::new()));
        assert_eq!(answer(b"\x13\x87"), (4999, String::new()));
        assert_eq!(answer(b"\x03\xee"), (1002, "bad close code 1006".to_owned()));
        assert_eq!(answer(b"\x00\x00"), (1002, "bad close code 0".to_owned()));
        let text = "invalid utf8 payload in close frame";
        assert_eq!(answer(b"\x03\xe8\xff"), (1002, text.to_owned()));
    }

    #[test]
    fn violations_are_named_as_by_gos_library() {
        let unmasked = |first| vec![first, 2, b'{', b'}'];
        for (bytes, why) in [
            (unmasked(0x81), "bad MASK"),
            (unmasked(0xc1), "RSV1 set, bad MASK"),
            (frame(0xf1, b"a"), "RSV1 set, RSV2 set, RSV3 set"),
            (frame(0x83, b"a"), "bad opcode 3"),
            (frame(0x9f, b"a"), "RSV3 set, bad opcode 15"),
            (frame(0x09, b"a"), "FIN not set on control"),
            (frame(0x89, &[7; 126]), "len > 125 for control"),
            (vec![0x88, 0xff], "len > 125 for control"),
            (frame(0x80, b"a"), "continuation after FIN"),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), "data before FIN"),
        ] {
            assert_eq!(judged(&bytes).1, Some((1002, why.to_owned())));
        }
    }

    #[tokio::test]
    async fn the_farewell_comes_behind_what_is_read() {
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let (sender, mut farewell) = oneshot::channel();
        let mut judged = Judged::new(near, sender);
        let message = frame(0x82, b"{}");
        let bytes = [&message[..], &frame(0x88, b"\x03\xe8")].concat();
        tokio::io::AsyncWriteExt::write_all(&mut far, &bytes).await.expect("there is room");
        let mut read = vec![0; message.len()];
        judged.read_exact(&mut read).await.expect("a message");
        assert_eq!(read, message);
        assert!(farewell.try_recv().is_err());
        // At most the first byte of the Close, and no end.
        while let Poll::Ready(read) = futures::poll!(Box::pin(judged.read_u8())) {
            assert_eq!(read.expect("no end"), 0x88);
        }
        let close = farewell.try_recv().expect("it is read").expect("it has a code");
        assert_eq!(u16::from(close.code), 1000);
    }
}
