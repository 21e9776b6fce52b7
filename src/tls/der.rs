//! DER (X.690), as far as certificates and revocation lists need it: values one after the other, each
//! with a tag of one byte and a definite length. What the values mean is not known here.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const OBJECT: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Values that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

/// A tag and what it stands before.
pub(super) type Value<'a> = (u8, &'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next value; `None` at the end and before what is no value.
    pub fn value(&mut self) -> Option<Value<'a>> {
        let (tag, rest) = self.0.split_first()?;
        let (first, rest) = rest.split_first()?;
        // Tags of more than one byte do not occur in what is read here.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = digits.iter().fold(0_u32, |len, digit| len << 8 | u32::from(*digit));
                (usize::try_from(len).ok()?, rest)
            }
            _ => return None,
        };
        let (contents, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((*tag, contents))
    }

    /// The next value if it has this tag.
    pub fn tagged(&mut self, tag: u8) -> Option<&'a [u8]> {
        let mut ahead = *self;
        let (found, contents) = ahead.value()?;
        if found != tag {
            return None;
        }
        *self = ahead;
        Some(contents)
    }

    /// What is inside the next value.
    pub fn inside(&mut self, tag: u8) -> Option<Self> {
        self.tagged(tag).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_cut_where_they_end() {
        let mut reader = Reader::new(&[0x30, 0x03, 0x02, 0x01, 0x07, 0x04, 0x81, 0x02, 1, 2]);
        assert_eq!(reader.tagged(OCTETS), None);
        let mut inside = reader.inside(SEQUENCE).expect("first");
        assert_eq!(inside.value(), Some((INTEGER, &[7][..])));
        assert!(inside.is_empty() && inside.value().is_none());
        assert_eq!(reader.tagged(OCTETS), Some(&[1, 2][..]));
        assert!(reader.is_empty());
        let endless: &[&[u8]] = &[&[], &[2], &[2, 1], &[2, 0x80, 0], &[0x1f, 1, 0], &[2, 0x82, 1]];
        for bad in endless {
            assert_eq!(Reader::new(bad).value(), None, "{bad:?}");
        }
        assert_eq!(Reader::new(&[2, 0x84, 0xff, 0xff, 0xff, 0xff]).value(), None);
    }
}
