//! Clients of etcd 3.4 that are given `http://host:port` call Maintenance with just that as their
//! HTTP/2 `:authority`, and over a unix socket they call everything with its path. Neither is one: a
//! slash cannot be part of it, and our HTTP/2 library refuses the request before anybody could look at
//! it. etcd serves it. So `/` in an authority becomes `-`, and `://` becomes `j--`, which may stand in
//! one, have the same length and even the same number of bits in HPACK's Huffman code (RFC 7541,
//! appendix B): no other byte moves and both ends' tables stay alike.
//!
//! A client names its authority in the first request of a connection and refers to it afterwards, so
//! only the first HEADERS frame is looked at; after it this is a plain pipe. Nobody reads the authority.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::BoxConn;

/// How a client of HTTP/2 begins (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that a client may send before it has been told otherwise; a larger one is the
/// library's to refuse.
const FRAME_MAX: usize = 16 << 10;

/// A connection whose first HEADERS frame is made acceptable.
pub(super) struct Lenient {
    conn: BoxConn,
    reading: Reading,
    /// Read and looked at, not yet handed on.
    pub ready: Vec<u8>,
}

/// Where in the stream the next byte is.
enum Reading {
    /// So many bytes of the preface have been seen.
    Preface(usize),
    /// The head of a frame, or a HEADERS frame, as far as it has come; not handed on yet.
    Frame(Vec<u8>),
    /// So many bytes of another frame are still to come.
    Skip(usize),
    /// Nothing more is looked at.
    Rest,
}

impl Lenient {
    pub fn new(conn: BoxConn) -> Self {
        Self { conn, reading: Reading::Preface(0), ready: Vec::new() }
    }

    /// Takes in what was read; what may be handed on is in `ready` then.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = match &mut self.reading {
                Reading::Preface(seen) => {
                    let used = bytes.len().min(PREFACE.len() - *seen);
                    let fits = bytes[..used] == PREFACE[*seen..*seen + used];
                    *seen += used;
                    match (fits, *seen == PREFACE.len()) {
                        (false, _) => self.reading = Reading::Rest,
                        (true, true) => self.reading = Reading::Frame(Vec::new()),
                        (true, false) => {}
                    }
                    self.ready.extend_from_slice(&bytes[..used]);
                    used
                }
                Reading::Frame(frame) => {
                    frame.push(bytes[0]);
                    self.look_at_frame();
                    1
                }
                Reading::Skip(left) => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        self.reading = Reading::Frame(Vec::new());
                    }
                    self.ready.extend_from_slice(&bytes[..used]);
                    used
                }
                Reading::Rest => {
                    self.ready.extend_from_slice(bytes);
                    bytes.len()
                }
            };
            bytes = &bytes[used..];
        }
    }

    /// Decides what to do with a frame as soon as enough of it is there.
    fn look_at_frame(&mut self) {
        let Reading::Frame(frame) = &mut self.reading else { return };
        if frame.len() < FRAME_HEAD {
            return;
        }
        let len = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
        if frame[3] != HEADERS || len > FRAME_MAX {
            self.ready.append(frame);
            self.reading = match len {
                0 => Reading::Frame(Vec::new()),
                len if len > FRAME_MAX => Reading::Rest,
                len => Reading::Skip(len),
            };
        } else if frame.len() == FRAME_HEAD + len {
            let flags = frame[4];
            let padding = usize::from(flags & PADDED != 0);
            let priority = if flags & PRIORITY != 0 { 5 } else { 0 };
            if let Some(block) = frame.get_mut(FRAME_HEAD + padding + priority..) {
                // A block that cannot be read is the library's to refuse.
                let _ = mend_block(block);
            }
            self.ready.append(frame);
            self.reading = Reading::Rest;
        }
    }
}

impl AsyncRead for Lenient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            if !self.ready.is_empty() {
                let len = self.ready.len().min(buf.remaining());
                buf.put_slice(&self.ready[..len]);
                self.ready.drain(..len);
                return Poll::Ready(Ok(()));
            }
            if matches!(self.reading, Reading::Rest) {
                return Pin::new(&mut self.conn).poll_read(cx, buf);
            }
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.conn).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.take(read.filled());
        }
    }
}

impl AsyncWrite for Lenient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }
}

/// Walks the fields of a header block (RFC 7541, section 6) and mends the authority in place. `None`
/// when the block ends where it should not.
fn mend_block(block: &mut [u8]) -> Option<()> {
    /// The place of `:authority` in the static table.
    const AUTHORITY: usize = 1;
    let mut at = 0;
    while at < block.len() {
        let (bits, literal) = match block[at] {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let name = integer(block, &mut at, bits)?;
        if !literal {
            continue;
        }
        if name == 0 {
            string(block, &mut at)?;
        }
        let (huffman, value) = string(block, &mut at)?;
        if name == AUTHORITY {
            mend(block.get_mut(value)?, huffman);
            return Some(());
        }
    }
    Some(())
}

/// A string's place, and whether it is in Huffman's code.
fn string(block: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let len = integer(block, at, 7)?;
    let value = *at..at.checked_add(len)?;
    *at = value.end;
    (value.end <= block.len()).then_some((huffman, value))
}

/// An integer whose first byte has `bits` bits for it (RFC 7541, section 5.1).
fn integer(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & most;
    *at += 1;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A symbol's code and its number of bits.
type Code = (u32, usize);
const SLASH: Code = (0x18, 6);
const DASH: Code = (0x16, 6);
const COLON: Code = (0x5c, 7);
const J: Code = (0x74, 7);
/// The largest code of each length; what a name may hold has short ones.
const LARGEST: [Code; 4] = [(0x09, 5), (0x2d, 6), (0x7b, 7), (0xfd, 8)];

/// Replaces every slash, and the colon in front of two of them.
fn mend(value: &mut [u8], huffman: bool) {
    if huffman {
        return mend_coded(value);
    }
    for at in 0..value.len() {
        if value[at..].starts_with(b"://") {
            value[at] = b'j';
        } else if value[at] == b'/' {
            value[at] = b'-';
        }
    }
}

/// The same in Huffman's code, up to the first symbol that no name has.
fn mend_coded(value: &mut [u8]) {
    let (mut at, mut before, mut before_that) = (0, (0, 0), (0, 0));
    while let Some(symbol) = LARGEST
        .iter()
        .map(|(most, len)| (bits(value, at, *len), *most, *len))
        .find_map(|(code, most, len)| code.filter(|code| *code <= most).map(|code| (code, len)))
    {
        if symbol == SLASH {
            set_bits(value, at, DASH);
            if before == SLASH && before_that == COLON {
                set_bits(value, at - SLASH.1 - COLON.1, J);
            }
        }
        at += symbol.1;
        (before_that, before) = (before, symbol);
    }
}

/// So many bits from bit `at` on; `None` beyond the end.
fn bits(value: &[u8], at: usize, len: usize) -> Option<u32> {
    (at..at + len).try_fold(0, |bits, at| {
        let byte = u32::from(*value.get(at / 8)?);
        Some(bits << 1 | byte >> (7 - at % 8) & 1)
    })
}

fn set_bits(value: &mut [u8], at: usize, (code, len): Code) {
    for (bit, at) in (at..at + len).enumerate() {
        let set = code >> (len - 1 - bit) & 1 == 1;
        let mask = 0x80 >> (at % 8);
        value[at / 8] = if set { value[at / 8] | mask } else { value[at / 8] & !mask };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcdctl 3.4 sends for `http://127.0.0.1:9399`: `:method`, `:scheme`, `:path`, `:authority`.
    const PATH: &[u8] = &[0x83, 0x86, 0x44, 0x02, b'/', b'x'];

    fn block(authority: &[u8], huffman: bool) -> Vec<u8> {
        let len = u8::try_from(authority.len()).expect("short") | if huffman { 0x80 } else { 0 };
        [PATH, &[0x41, len], authority, &[0x40, 0x01, b'a', 0x01, b'b']].concat()
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).expect("short");
        [&[0, 0, len, kind, 4, 0, 0, 0, 1], payload].concat()
    }

    fn through(bytes: &[u8], chunk: usize) -> Vec<u8> {
        let mut lenient = Lenient::new(Box::new(tokio::io::empty()));
        for chunk in bytes.chunks(chunk) {
            lenient.take(chunk);
        }
        lenient.ready
    }

    fn stream(block: &[u8]) -> Vec<u8> {
        let (settings, data) = (frame(4, &[]), frame(0, b"data"));
        [PREFACE, &settings, &frame(8, &[0, 1, 0, 0]), &frame(HEADERS, block), &data].concat()
    }

    #[test]
    fn a_scheme_becomes_part_of_the_name() {
        for (sent, read) in [
            (&b"http://127.0.0.1:2379"[..], &b"httpj--127.0.0.1:2379"[..]),
            (b"https://etcd:2379", b"httpsj--etcd:2379"),
            (b"127.0.0.1:2379", b"127.0.0.1:2379"),
            (b"http:2379", b"http:2379"),
            (b"/run/etcd.sock", b"-run-etcd.sock"),
        ] {
            for chunk in [1, 7, 1000] {
                let got = through(&stream(&block(sent, false)), chunk);
                assert_eq!(got, stream(&block(read, false)));
            }
        }
    }

    /// As Go's HPACK encodes it; the codes are those of RFC 7541, appendix B.
    fn coded(text: &str) -> Vec<u8> {
        const CODES: &[(char, Code)] = &[
            ('/', SLASH),
            ('-', DASH),
            (':', COLON),
            ('j', J),
            ('.', (0x17, 6)),
            ('0', (0, 5)),
            ('1', (1, 5)),
            ('2', (2, 5)),
            ('7', (0x1d, 6)),
            ('c', (4, 5)),
            ('h', (0x27, 6)),
            ('k', (0x75, 7)),
            ('m', (0x29, 6)),
            ('o', (7, 5)),
            ('p', (0x2b, 6)),
            ('s', (8, 5)),
            ('t', (9, 5)),
            // More bits than a name's symbols have.
            ('~', (0x1ffd, 13)),
        ];
        let mut bits = String::new();
        for symbol in text.chars() {
            let known = CODES.iter().find(|(known, _)| *known == symbol);
            let (code, len) = known.unwrap_or_else(|| panic!("no code for {symbol}")).1;
            bits.push_str(&format!("{code:0len$b}"));
        }
        // Padded with ones to whole bytes.
        bits.extend(std::iter::repeat_n('1', (8 - bits.len() % 8) % 8));
        let byte = |bits: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(bits), 2);
        bits.as_bytes().chunks(8).map(|bits| byte(bits).expect("ones and zeroes")).collect()
    }

    #[test]
    fn a_scheme_in_huffmans_code_too() {
        for (sent, read) in [
            ("http://127.0.0.1", "httpj--127.0.0.1"),
            ("https://127.0.0.1:2", "httpsj--127.0.0.1:2"),
            ("/tmp/1/c.sock", "-tmp-1-c.sock"),
            ("0:/0", "0:-0"),
            ("/~/", "-~/"),
        ] {
            let (sent, read) = (coded(sent), coded(read));
            assert_ne!(sent, read);
            assert_eq!(through(&stream(&block(&sent, true)), 5), stream(&block(&read, true)));
        }
        // As seen on the wire for "127.0.0.1:9399": left as it is.
        let plain = [0x08, 0x9d, 0x5c, 0x0b, 0x81, 0x70, 0xdc, 0x7d, 0x97, 0xdf];
        assert_eq!(through(&stream(&block(&plain, true)), 3), stream(&block(&plain, true)));
    }

    #[test]
    fn anything_else_passes_as_it_is() {
        let http1 = b"GET /health HTTP/1.1\r\nhost: http://a\r\n\r\n";
        let cut_short = [PREFACE, &frame(HEADERS, &[0x41, 0x7f])].concat();
        let large = [PREFACE, &[1, 0, 0, HEADERS, 4, 0, 0, 0, 1], &[7; 100]].concat();
        for bytes in [&http1[..], &cut_short, &large, b"PRI * HTTP/1"] {
            assert_eq!(through(bytes, 4), bytes);
        }
    }
}
