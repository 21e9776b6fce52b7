//! Gives back the pages of the program's file that only start-up needed. Each page that runs maps its
//! neighbours, too, so that after the start four fifths of the code are resident; half of it is never used
//! again. What is used later is mapped again from the page cache, and read again only after that has dropped it.

use std::ffi::c_void;
use std::fs;
use std::ops::Range;
use std::time::Duration;

use rustix::mm::{Advice, madvise};
use tracing::debug;

/// An election and what follows it belong to the start.
const START_LASTS: Duration = Duration::from_secs(3);

/// Waits until a member that now serves has started.
pub async fn give_back_later() {
    tokio::time::sleep(START_LASTS).await;
    give_back();
}

/// Unmaps the unchanged pages of the program's own file.
fn give_back() {
    let Ok(path) = std::env::current_exe() else { return };
    let Ok(mappings) = fs::read_to_string("/proc/self/smaps") else { return };
    let path = path.to_string_lossy();
    for range in unchanged(&mappings, &path) {
        let length = range.len();
        // SAFETY: the range is mapped from the program's file, which stays mapped as long as the process
        // lasts, and no page of it was changed: a page that is dropped is the same when it is read again.
        let dropped = unsafe { madvise(range.start as *mut c_void, length, Advice::LinuxDontNeed) };
        if let Err(error) = dropped {
            // Of memory that is locked, for one.
            debug!(%error, length, "pages of the program stay resident");
        }
    }
}

/// The mappings of the file that cannot be written and have no page of their own: a debugger's or a
/// probe's break point is one, and so is a relocation.
fn unchanged(mappings: &str, path: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in mappings.lines() {
        if let Some(range) = header(line) {
            current = range.filter(|_| line.ends_with(&format!(" {path}")));
        } else if let Some(anonymous) = line.strip_prefix("Anonymous:")
            && let Some(range) = current.take()
            && anonymous.trim() == "0 kB"
        {
            found.push(range);
        }
    }
    found
}

/// Of a line that begins a mapping, `ADDRESS-ADDRESS PERMISSIONS ..`, its range, if it is private and cannot be
/// written.
fn header(line: &str) -> Option<Option<Range<usize>>> {
    let mut words = line.split(' ');
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let only_read = matches!(words.next()?.as_bytes(), [b'r', b'-', _, b'p']);
    Some(only_read.then_some(start..end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPINGS: &str = "\
1000-2000 r--p 00000000 00:1b 123                /usr/local/bin/quorate
Size:                  4 kB
Rss:                   4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
2000-5000 r-xp 00001000 00:1b 123                /usr/local/bin/quorate
Rss:                  12 kB
Anonymous:             0 kB
5000-6000 r--p 00004000 00:1b 123                /usr/local/bin/quorate
Rss:                   4 kB
Anonymous:             4 kB
6000-7000 rw-p 00005000 00:1b 123                /usr/local/bin/quorate
Anonymous:             0 kB
7000-8000 r--s 00005000 00:1b 123                /usr/local/bin/quorate
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 00:1b 124 /usr/lib/libc.so.6
Anonymous:             0 kB
7f0000002000-7f0000003000 rw-p 00000000 00:00 0
Anonymous:             0 kB
";

    #[test]
    fn pages_that_were_changed_are_kept() {
        let all = unchanged(MAPPINGS, "/usr/local/bin/quorate");
        assert_eq!(all, [0x1000..0x2000, 0x2000..0x5000]);
        let probed = MAPPINGS.replacen("12 kB\nAnonymous:             0", "12 kB\nAnonymous: 4", 1);
        let kept = unchanged(&probed, "/usr/local/bin/quorate");
        assert_eq!((kept.len(), kept.first()), (1, Some(&(0x1000..0x2000))));
        assert!(unchanged(MAPPINGS, "/bin/quorate").is_empty(), "another file");
    }

    #[test]
    fn the_program_runs_on_without_its_pages() {
        give_back();
        let path = std::env::current_exe().expect("this program has a path");
        let mappings = fs::read_to_string("/proc/self/smaps").expect("this is Linux");
        assert!(!unchanged(&mappings, &path.to_string_lossy()).is_empty(), "{mappings}");
    }
}
