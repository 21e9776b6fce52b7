//! Tokenizes JSON that is received in parts, with the error texts of Go's JSON scanner. Knows no messages,
//! and keeps only the current token.

use bytes::{Buf, Bytes};

use super::reader::Position;

/// The meaning of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    BeginObject,
    BeginList,
    /// End of the innermost object or list.
    End,
    /// Name of the next value.
    Name,
    /// A string, a number or a word.
    Scalar,
}

/// Tokenizes one value after the other.
pub(super) struct Scanner {
    state: State,
    /// For each open container, whether it is an object.
    objects: Vec<bool>,
    token: Vec<u8>,
    /// Whether tokens are kept, or only checked.
    keep: bool,
    is_name: bool,
    at: Position,
    token_at: Position,
    bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the outermost value.
    Start,
    Value,
    /// Behind `[`.
    FirstElement,
    /// Behind `{`.
    FirstName,
    /// Behind a comma in an object.
    NextName,
    /// Behind a name.
    Colon,
    /// Behind a value in a container.
    After,
    Text,
    Escape,
    /// Hexadecimal digits left.
    Hex(u8),
    Number(Number),
    /// A word and the number of its bytes read.
    Word(&'static str, usize),
}

/// The last part of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

/// The role of a byte.
enum Step {
    /// White space or punctuation.
    Skip,
    /// Part of the token.
    Take,
    /// The last byte of the event's token.
    End(Event),
    /// The first byte after a token.
    EndedBefore,
}

const START: Position = Position { line: 1, column: 1 };

impl Scanner {
    pub fn new() -> Self {
        Self {
            state: State::Start,
            objects: Vec::new(),
            token: Vec::new(),
            keep: true,
            is_name: false,
            at: START,
            token_at: START,
            bytes: 0,
        }
    }

    /// Starts with another value.
    pub fn restart(&mut self) {
        *self = Self::new();
    }

    /// Returns the bytes read of the current value.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the memory of the token, bytes.
    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.token.capacity() + self.objects.len()
    }

    /// Sets whether the next token is kept.
    pub fn keep(&mut self, keep: bool) {
        self.keep = keep;
    }

    /// Returns the last token, as written.
    pub fn token(&self) -> &[u8] {
        &self.token
    }

    /// Returns the position of the last token, or of the last opened container.
    pub fn token_at(&self) -> Position {
        self.token_at
    }

    /// Reads up to the next event; none if more input is needed.
    pub fn next(&mut self, json: &mut Bytes) -> Result<Option<Event>, String> {
        while let Some(&byte) = json.first() {
            if self.state == State::Text {
                let ends = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                let plain = json.iter().position(ends).unwrap_or(json.len());
                if plain > 0 {
                    self.advance(&json[..plain], true);
                    json.advance(plain);
                    continue;
                }
            }
            let event = match self.step(byte)? {
                Step::Skip => {
                    // Leading white space does not count.
                    if self.state != State::Start {
                        self.advance(&[byte], false);
                    }
                    None
                }
                Step::Take => {
                    self.advance(&[byte], true);
                    None
                }
                Step::End(event) => {
                    self.advance(&[byte], true);
                    Some(event)
                }
                Step::EndedBefore => {
                    self.state = State::After;
                    return Ok(Some(Event::Scalar));
                }
            };
            json.advance(1);
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Handles the end of the input, which may end a number.
    pub fn finish(&mut self) -> Option<Event> {
        match self.state {
            State::Number(number) if number.may_end() => Some(Event::Scalar),
            _ => None,
        }
    }

    fn advance(&mut self, bytes: &[u8], is_token: bool) {
        self.bytes += bytes.len();
        if is_token && self.keep {
            self.token.extend_from_slice(bytes);
        }
        if bytes == b"\n" {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            // Continuation bytes of UTF-8 are no columns.
            self.at.column += bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        }
    }

    fn step(&mut self, byte: u8) -> Result<Step, String> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            State::Text | State::Escape | State::Hex(_) => self.in_text(byte),
            State::Number(number) => match number.next(byte) {
                Ok(Some(next)) => self.go(State::Number(next), Step::Take),
                Ok(None) => Ok(Step::EndedBefore),
                Err(place) => Err(invalid(byte, place)),
            },
            State::Word(word, seen) => {
                let expected = word.as_bytes()[seen];
                if byte != expected {
                    let place = format!("in literal {word} (expecting {})", quote(expected));
                    return Err(invalid(byte, &place));
                }
                if seen + 1 < word.len() {
                    return self.go(State::Word(word, seen + 1), Step::Take);
                }
                self.go(State::After, Step::End(Event::Scalar))
            }
            _ if is_space => Ok(Step::Skip),
            State::FirstElement if byte == b']' => Ok(self.end()),
            State::Start | State::Value | State::FirstElement => self.begin(byte),
            State::FirstName if byte == b'}' => Ok(self.end()),
            State::FirstName | State::NextName if byte == b'"' => self.begin_text(true),
            State::FirstName | State::NextName => {
                Err(invalid(byte, "looking for beginning of object key string"))
            }
            State::Colon if byte == b':' => self.go(State::Value, Step::Skip),
            State::Colon => Err(invalid(byte, "after object key")),
            State::After => match (self.objects.last(), byte) {
                (Some(true), b',') => self.go(State::NextName, Step::Skip),
                (Some(false), b',') => self.go(State::Value, Step::Skip),
                (Some(true), b'}') | (Some(false), b']') => Ok(self.end()),
                (Some(false), _) => Err(invalid(byte, "after array element")),
                _ => Err(invalid(byte, "after object key:value pair")),
            },
        }
    }

    fn go(&mut self, state: State, step: Step) -> Result<Step, String> {
        self.state = state;
        Ok(step)
    }

    fn end(&mut self) -> Step {
        self.objects.pop();
        self.state = State::After;
        self.token.clear();
        Step::End(Event::End)
    }

    fn begin(&mut self, byte: u8) -> Result<Step, String> {
        self.token_at = self.at;
        self.token.clear();
        let state = match byte {
            b'{' => {
                self.objects.push(true);
                return self.go(State::FirstName, Step::End(Event::BeginObject));
            }
            b'[' => {
                self.objects.push(false);
                return self.go(State::FirstElement, Step::End(Event::BeginList));
            }
            b'"' => return self.begin_text(false),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Digits),
            b't' => State::Word("true", 1),
            b'f' => State::Word("false", 1),
            b'n' => State::Word("null", 1),
            _ => return Err(invalid(byte, "looking for beginning of value")),
        };
        self.go(state, Step::Take)
    }

    fn begin_text(&mut self, is_name: bool) -> Result<Step, String> {
        self.token_at = self.at;
        self.token.clear();
        self.is_name = is_name;
        self.go(State::Text, Step::Take)
    }

    fn in_text(&mut self, byte: u8) -> Result<Step, String> {
        match (self.state, byte) {
            (State::Text, b'"') if self.is_name => self.go(State::Colon, Step::End(Event::Name)),
            (State::Text, b'"') => self.go(State::After, Step::End(Event::Scalar)),
            (State::Text, b'\\') => self.go(State::Escape, Step::Take),
            (State::Text, 0..0x20) => Err(invalid(byte, "in string literal")),
            (State::Escape, b'u') => self.go(State::Hex(4), Step::Take),
            (State::Escape, b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => {
                self.go(State::Text, Step::Take)
            }
            (State::Escape, _) => Err(invalid(byte, "in string escape code")),
            (State::Hex(left), _) if byte.is_ascii_hexdigit() => {
                let next = if left > 1 { State::Hex(left - 1) } else { State::Text };
                self.go(next, Step::Take)
            }
            (State::Hex(_), _) => Err(invalid(byte, "in \\u hexadecimal character escape")),
            _ => Ok(Step::Take),
        }
    }
}

impl Number {
    /// Returns the part after `byte`; none if the number ended before; the place if it must not end there.
    fn next(self, byte: u8) -> Result<Option<Self>, &'static str> {
        use Number::{
            Digits, Exponent, ExponentDigits, ExponentSign, Fraction, Minus, Point, Zero,
        };
        Ok(Some(match (self, byte) {
            (Minus, b'0') => Zero,
            (Minus, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Minus, _) => return Err("in numeric literal"),
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Point, _) => return Err("after decimal point in numeric literal"),
            (Zero | Digits | Fraction, b'e' | b'E') => Exponent,
            (Exponent, b'+' | b'-') => ExponentSign,
            (Exponent | ExponentSign | ExponentDigits, b'0'..=b'9') => ExponentDigits,
            (Exponent | ExponentSign, _) => return Err("in exponent of numeric literal"),
            _ => return Ok(None),
        }))
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits)
    }
}

fn invalid(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quote(byte))
}

/// Quotes a character like Go.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        _ => format!("'{}'", char::from(byte)),
    }
}
