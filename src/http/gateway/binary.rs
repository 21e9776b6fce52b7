//! Headers of a call whose content is binary: their names end with `-bin`, and they are base64. One that is
//! not is refused with the text of Go's library. Decodes nothing.

use http::header::{HeaderName, HeaderValue};
use tonic::Status;

const SUFFIX: &str = "-bin";

/// Refuses a header that should be base64 and is not; any other one passes.
pub(super) fn check(name: &HeaderName, value: &HeaderValue) -> Result<bool, Status> {
    let fault = name.as_str().ends_with(SUFFIX).then(|| fault(value.as_bytes())).flatten();
    match fault {
        None => Ok(true),
        Some(at) => Err(Status::invalid_argument(format!(
            "invalid binary header {}: illegal base64 data at input byte {at}",
            canonical(name)
        ))),
    }
}

/// Returns the name as Go spells it.
fn canonical(name: &HeaderName) -> String {
    let mut is_first = true;
    let spell = |letter: char| {
        let spelled = if is_first { letter.to_ascii_uppercase() } else { letter };
        is_first = letter == '-';
        spelled
    };
    name.as_str().chars().map(spell).collect()
}

/// Returns where Go's decoder finds that this is not base64. It is padded only if its length is one of padded
/// base64, and the bits that padding leaves over may be any.
fn fault(text: &[u8]) -> Option<usize> {
    let is_padded = text.len().is_multiple_of(4);
    for (group, digits) in text.chunks(4).enumerate() {
        let at = |digit: usize| Some(4 * group + digit);
        for (digit, byte) in digits.iter().enumerate() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => {}
                b'=' if is_padded && digit >= 2 => {
                    return match digits[digit..] {
                        [b'=', other] if other != b'=' => at(digit + 1),
                        _ if 4 * (group + 1) < text.len() => at(4),
                        _ => None,
                    };
                }
                _ => return at(digit),
            }
        }
        // A part of a byte.
        if digits.len() == 1 {
            return at(0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_base64_is_found_where_go_finds_it() {
        for text in ["", "YQ==", "YQ", "YWI=", "YWI", "YR==", "YWJj", "YWJjYQ"] {
            assert_eq!(fault(text.as_bytes()), None, "{text}");
        }
        for (text, at) in [
            ("!!!", 0),
            ("a b", 1),
            ("_-8=", 0),
            ("Y", 0),
            ("YWI=YQ", 3),
            ("YQ=a", 3),
            ("Y===", 1),
            ("====", 0),
            ("YWJj!WJj", 4),
            ("YQ==YQ==", 4),
            ("YWJjY", 4),
            ("YWI=\u{fc}", 3),
        ] {
            assert_eq!(fault(text.as_bytes()), Some(at), "{text}");
        }
    }

    #[test]
    fn a_refusal_names_the_header_as_go_spells_it() {
        let value = HeaderValue::from_static("!!!");
        let of = |name: &'static str| check(&HeaderName::from_static(name), &value);
        assert!(of("grpc-metadata-foo").expect("it is text"));
        let refused = of("grpc-metadata-foo-bin").expect_err("it is no base64");
        let text =
            "invalid binary header Grpc-Metadata-Foo-Bin: illegal base64 data at input byte 0";
        assert_eq!(refused.message(), text);
        assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    }
}
