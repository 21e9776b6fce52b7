//! Words of any bytes as text, and back without a loss: a byte that is not part of UTF-8 becomes a character
//! at the end of the last private plane, which stands for nothing else. A character from there that was in
//! the text already is taken for its bytes.

use std::borrow::Cow;

/// The character of byte 0: those below 0x80 never need one.
const FIRST: u32 = 0x0010_FF00;

fn of_byte(byte: u8) -> char {
    char::from_u32(FIRST + u32::from(byte)).expect("it is below the last character")
}

/// The byte that a character stands for.
pub fn byte(letter: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(letter).checked_sub(FIRST)?).ok()?;
    (byte >= 0x80).then_some(byte)
}

/// Any bytes as text.
pub fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match byte(letter) {
                None => text.push(letter),
                Some(_) => {
                    text.extend(letter.encode_utf8(&mut [0; 4]).bytes().map(of_byte));
                }
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| of_byte(*byte)));
    }
    text
}

/// The bytes of what [`text`] has made.
pub fn bytes(text: &str) -> Cow<'_, [u8]> {
    if is_text(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match byte(letter) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(bytes)
}

/// Whether no character stands for a byte.
pub fn is_text(text: &str) -> bool {
    !text.chars().any(|letter| byte(letter).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_come_back(any: Vec<u8>) {
            let as_text = text(&any);
            assert_eq!(bytes(&as_text), any);
            assert_eq!(is_text(&as_text), as_text.as_bytes() == any);
        }
    }

    #[test]
    fn text_stays_as_it_is() {
        assert_eq!(text("a\u{e9}\u{10fffd}\u{1f600}".as_bytes()), {
            let private: String = "\u{10fffd}".bytes().map(of_byte).collect();
            format!("a\u{e9}{private}\u{1f600}")
        });
        assert!(is_text("a\u{e9}\u{10feff}") && !is_text(&text(b"a\xff")));
        assert_eq!(bytes(&text(b"\xff\x80a")), &b"\xff\x80a"[..]);
        assert_eq!(bytes(&text("\u{10ff80}".as_bytes())), "\u{10ff80}".as_bytes());
    }
}
