//! A file's bytes, in pages of which only written ones exist: preallocated logs cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// Pages are shared between copies until one of them is written.
#[derive(Clone, Default)]
pub(super) struct Sparse {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Sparse {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes read; fewer than requested only at the end.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let readable = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, from, range) in pieces(offset, readable) {
            let to = &mut buf[range];
            match self.pages.get(&page) {
                Some(bytes) => to.copy_from_slice(&bytes[from..from + to.len()]),
                None => to.fill(0),
            }
        }
        readable
    }

    /// The bytes up to the end of the last page that was ever written; zeroes follow.
    pub(super) fn written(&self) -> Vec<u8> {
        let end = self.pages.keys().next_back().map_or(0, |page| (page + 1) * PAGE as u64);
        let mut bytes = vec![0; end.min(self.len) as usize];
        self.read(&mut bytes, 0);
        bytes
    }

    /// Extends if need be.
    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        for (page, at, range) in pieces(offset, bytes.len()) {
            let from = &bytes[range];
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[at..at + from.len()].copy_from_slice(from);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    /// Truncates or extends with zeroes.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let whole = len / PAGE as u64;
            let rest = (len % PAGE as u64) as usize;
            self.pages.split_off(&(whole + u64::from(rest > 0)));
            if let Some(page) = self.pages.get_mut(&whole).filter(|_| rest > 0) {
                Arc::make_mut(page)[rest..].fill(0);
            }
        }
        self.len = len;
    }
}

/// Page number, offset in it and range of the buffer, for each page that `len` bytes at `offset` touch.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let size = (PAGE - within).min(len - done);
        done += size;
        Some((at / PAGE as u64, within, done - size..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_and_zeroes_between() {
        let mut file = Sparse::default();
        file.write(b"first", 4094);
        file.write(b"second", 20_000);
        let mut all = vec![1; 30_000];
        assert_eq!(file.read(&mut all, 0), 20_006);
        assert_eq!(&all[4094..4099], b"first");
        assert_eq!(&all[20_000..20_006], b"second");
        assert!(all[4099..20_000].iter().all(|byte| *byte == 0));
        assert_eq!(file.read(&mut all, 20_006), 0);
        file.set_len(1 << 40);
        let written = file.written();
        assert_eq!(written.len(), 5 * PAGE);
        assert_eq!(&written[20_000..20_006], b"second");
    }

    #[test]
    fn what_was_cut_off_does_not_come_back() {
        let mut file = Sparse::default();
        file.write(&[7; 10_000], 0);
        file.set_len(5_000);
        file.set_len(10_000);
        let mut tail = vec![1; 5_000];
        assert_eq!(file.read(&mut tail, 5_000), 5_000);
        assert!(tail.iter().all(|byte| *byte == 0));
        assert_eq!(file.read(&mut tail[..1], 4_999), 1);
        assert_eq!(tail[0], 7);
    }
}
