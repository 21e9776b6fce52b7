//! One HTTP/2 connection of the load generator, blocking: what a gRPC client sends, and nothing a load does
//! not need (RFC 9113, RFC 7541). A library's client costs as much as the server that it measures; this
//! one costs a few microseconds a call. Header fields after the first call are one byte each, as those of
//! gRPC's Go client; a call succeeds if it has a message.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
/// The largest frame that may be sent without the server's consent.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// What the server may send in all before it needs new credit.
const CREDIT: u32 = 1 << 30;
const STREAM_CREDIT: u32 = (1 << 31) - 1;
/// A server that sends nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(30);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What came on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A part of the messages.
    Data(&'a [u8]),
    /// The stream has ended.
    End,
}

/// A connection.
pub struct Connection {
    socket: TcpStream,
    authority: String,
    /// Paths and other fields in the header table of this connection, in the order in which they came.
    table: Vec<String>,
    out: Vec<u8>,
    input: Vec<u8>,
    /// Of `input`, what was received and not processed.
    from: usize,
    to: usize,
    next_stream: u32,
    /// Bytes of messages that the server takes now.
    window: i64,
    /// Frames that wait for the window.
    waiting: VecDeque<(u32, Vec<u8>, u8)>,
    /// Bytes received that the server was given no new credit for.
    received: u32,
}

impl Connection {
    pub fn open(address: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut connection = Self {
            socket,
            authority: address.to_owned(),
            table: Vec::new(),
            out: PREFACE.to_vec(),
            input: vec![0; 256 << 10],
            from: 0,
            to: 0,
            next_stream: 1,
            window: 65_535,
            waiting: VecDeque::new(),
            received: 0,
        };
        let mut settings = Vec::new();
        for (id, value) in [(2_u16, 0_u32), (4, STREAM_CREDIT)] {
            settings.extend(id.to_be_bytes());
            settings.extend(value.to_be_bytes());
        }
        connection.frame(SETTINGS, 0, 0, &settings);
        connection.frame(WINDOW_UPDATE, 0, 0, &CREDIT.to_be_bytes());
        connection.flush()?;
        Ok(connection)
    }

    /// Begins a call with a message; `last` if it is the only one. Returns the stream.
    pub fn call(&mut self, path: &str, message: &[u8], last: bool) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        let mut block = vec![0x83, 0x86];
        self.field(&mut block, 0x44, "", path);
        let authority = self.authority.clone();
        self.field(&mut block, 0x41, "", &authority);
        self.field(&mut block, 0x5f, "", "application/grpc");
        self.field(&mut block, 0x40, "te", "trailers");
        self.field(&mut block, 0x7a, "", "quorate-bench");
        self.frame(HEADERS, END_HEADERS, stream, &block);
        self.send(stream, message, last);
        stream
    }

    /// A header field, from the table or into it. `first` is its first byte in the latter case, with the
    /// index of its name unless the `name` is given.
    fn field(&mut self, block: &mut Vec<u8>, first: u8, name: &str, value: &str) {
        let known = self.table.iter().position(|it| it == value);
        if let Some(position) = known {
            // The newest entry follows the 61 of the static table.
            let index = 62 + self.table.len() - 1 - position;
            block.push(0x80 | u8::try_from(index).expect("a table of a few fields"));
            return;
        }
        block.push(first);
        for text in [name, value].iter().filter(|text| !text.is_empty()) {
            block
                .push(u8::try_from(text.len()).ok().filter(|it| *it < 127).expect("a short field"));
            block.extend(text.bytes());
        }
        self.table.push(value.to_owned());
    }

    /// Sends another message on a stream.
    pub fn send(&mut self, stream: u32, message: &[u8], last: bool) {
        let mut data = vec![0];
        data.extend(u32::try_from(message.len()).expect("a small message").to_be_bytes());
        data.extend(message);
        let count = data.len().div_ceil(FRAME_BYTES_MAX);
        for (n, part) in data.chunks(FRAME_BYTES_MAX).enumerate() {
            let flags = if last && n + 1 == count { END_STREAM } else { 0 };
            self.waiting.push_back((stream, part.to_vec(), flags));
        }
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while let Some((_, part, _)) = self.waiting.front() {
            let bytes = i64::try_from(part.len()).expect("a frame");
            if bytes > self.window {
                return;
            }
            self.window -= bytes;
            let (stream, part, flags) = self.waiting.pop_front().expect("it was looked at");
            self.frame(DATA, flags, stream, &part);
        }
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).expect("a frame").to_be_bytes();
        self.out.extend([a, b, c, kind, flags]);
        self.out.extend(stream.to_be_bytes());
        self.out.extend(payload);
    }

    /// Writes what was queued.
    pub fn flush(&mut self) -> io::Result<()> {
        self.socket.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Waits for something to come and reports it. What the protocol itself has to answer is queued.
    pub fn receive(&mut self, mut each: impl FnMut(u32, Piece<'_>)) -> io::Result<()> {
        if self.from > 0 {
            self.input.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let count = self.socket.read(&mut self.input[self.to..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.to += count;
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[self.from..self.to];
        while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some((payload, behind)) = behind.split_at_checked(length) else { break };
            self.took(kind, flags, u32::from_be_bytes(stream), payload, &mut each)?;
            rest = behind;
        }
        self.from = self.to - rest.len();
        self.input = input;
        Ok(())
    }

    fn took(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        each: &mut impl FnMut(u32, Piece<'_>),
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += u32::try_from(payload.len()).expect("a frame");
                if self.received > CREDIT / 2 {
                    let credit = std::mem::take(&mut self.received);
                    self.frame(WINDOW_UPDATE, 0, 0, &credit.to_be_bytes());
                }
                each(stream, Piece::Data(payload));
            }
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.try_into().map_err(io::Error::other)?;
                self.window += i64::from(u32::from_be_bytes(more));
                self.send_waiting();
            }
            GOAWAY => {
                let why = String::from_utf8_lossy(payload).into_owned();
                return Err(io::Error::other(format!("the server goes away: {why}")));
            }
            _ => {}
        }
        if kind == RST_STREAM || (matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0) {
            each(stream, Piece::End);
        }
        Ok(())
    }
}

/// Cuts the data of one stream into messages.
#[derive(Default)]
pub struct Messages {
    begun: Vec<u8>,
}

impl Messages {
    /// Reports each message that ends in `data`.
    pub fn follow(&mut self, data: &[u8], mut each: impl FnMut(&[u8])) {
        let begun;
        let mut rest = data;
        if !self.begun.is_empty() {
            self.begun.extend(data);
            begun = std::mem::take(&mut self.begun);
            rest = &begun;
        }
        while let Some((prefix, behind)) = rest.split_first_chunk::<5>() {
            let [_, length @ ..] = *prefix;
            let length = u32::from_be_bytes(length) as usize;
            let Some((message, behind)) = behind.split_at_checked(length) else { break };
            each(message);
            rest = behind;
        }
        self.begun.extend(rest);
    }
}
