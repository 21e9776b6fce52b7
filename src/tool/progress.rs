//! One line on standard error with the progress of a long command, its speed and the remaining time. Drawn
//! on a terminal only, and at a limited rate.

use std::time::{Duration, Instant};

use super::Output;
use crate::codec::humanize;

/// Time between two drawings.
const REDRAWN_EVERY: Duration = Duration::from_millis(200);
/// Cells of the bar.
const CELLS: u64 = 24;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    /// Things of this name.
    Number(&'static str),
}

/// How far a command is.
pub struct Progress<'a> {
    output: &'a dyn Output,
    unit: Unit,
    began: Instant,
    shown: Option<Instant>,
}

impl<'a> Progress<'a> {
    pub fn new(output: &'a dyn Output, unit: Unit, now: Instant) -> Self {
        Self { output, unit, began: now, shown: None }
    }

    /// Draws, if it is time: `done` of `total`, 0 where that is not known.
    pub fn show(&mut self, done: u64, total: u64, now: Instant) {
        let due = now - self.shown.unwrap_or(self.began) >= REDRAWN_EVERY;
        if !due || !self.output.is_terminal() {
            return;
        }
        self.shown = Some(now);
        // The rest of a longer line before it is erased.
        let line = line(self.unit, done, total, now - self.began);
        self.output.err(&format!("\r{line}\x1b[K"));
    }

    /// Erases the line, so that what is written next stands alone.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            self.output.err("\r\x1b[K");
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn line(unit: Unit, done: u64, total: u64, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let size = |count: u64| match unit {
        Unit::Bytes => humanize(count),
        Unit::Number(_) => count.to_string(),
    };
    let name = match unit {
        Unit::Bytes => String::new(),
        Unit::Number(name) => format!(" {name}"),
    };
    let speed = size(rate as u64);
    if total == 0 {
        return format!("{}{name}, {speed}/s", size(done));
    }
    let done = done.min(total);
    let percent = done * 100 / total;
    let full = done * CELLS / total;
    let bar = "#".repeat(full as usize) + &"-".repeat((CELLS - full) as usize);
    let left = rest((total - done) as f64 / rate.max(0.001));
    format!("{percent:3}% [{bar}] {} of {}{name}, {speed}/s, {left} left", size(done), size(total))
}

/// Seconds as minutes and seconds, or hours and minutes.
fn rest(seconds: f64) -> String {
    let seconds = seconds.ceil().min(359_999.0) as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Screen {
        terminal: bool,
        text: Mutex<String>,
    }

    impl Output for Screen {
        fn out(&self, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }

        fn err(&self, text: &str) {
            self.text.lock().expect("no test panics while it writes").push_str(text);
        }

        fn variables(&self) -> Vec<(String, String)> {
            Vec::new()
        }

        fn is_terminal(&self) -> bool {
            self.terminal
        }

        fn size(&self) -> Option<(u16, u16)> {
            None
        }
    }

    #[test]
    fn a_line_has_share_rate_and_rest() {
        let seconds = Duration::from_secs;
        assert_eq!(
            line(Unit::Bytes, 50_000_000, 200_000_000, seconds(5)),
            " 25% [######------------------] 50 MB of 200 MB, 10 MB/s, 15s left"
        );
        assert_eq!(line(Unit::Number("keys"), 300, 0, seconds(3)), "300 keys, 100/s");
        assert_eq!(
            line(Unit::Number("puts"), 9, 9, seconds(3)),
            "100% [########################] 9 of 9 puts, 3/s, 0s left"
        );
        assert_eq!([rest(59.1), rest(61.0), rest(7_260.0)], ["1m00s", "1m01s", "2h01m"]);
    }

    #[test]
    fn progress_is_drawn_on_a_terminal_only_and_not_too_often() {
        let began = Instant::now();
        let drawn = |terminal| {
            let screen = Screen { terminal, ..Screen::default() };
            let mut progress = Progress::new(&screen, Unit::Bytes, began);
            for ms in [0, 100, 250, 300, 500] {
                progress.show(ms, 500, began + Duration::from_millis(ms));
            }
            drop(progress);
            screen.text.into_inner().expect("nothing panicked")
        };
        assert_eq!(drawn(false), "");
        let text = drawn(true);
        assert_eq!(text.matches('%').count(), 2, "{text:?}");
        assert!(text.ends_with("\r\x1b[K"), "{text:?}");
    }
}
