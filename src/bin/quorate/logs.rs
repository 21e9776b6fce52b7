//! Outputs of log lines: standard error and output, files with rotation by size, and systemd's journal. The
//! library formats the lines.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use quorate::config::log::{Output, Rotation, Settings};
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// The extension of compressed files.
const COMPRESSED: &str = ".gz";
const JOURNAL: &str = "/run/systemd/journal/socket";

/// All outputs; every line goes to each.
#[derive(Clone)]
pub struct Outputs(Arc<Mutex<Vec<Sink>>>);

enum Sink {
    Stderr,
    Stdout,
    Journal(UnixDatagram),
    File(File),
    Rotated(Rotated),
}

impl Outputs {
    /// Opens all outputs; errors have zap's texts.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let sinks = settings.outputs.iter().map(|output| open(output, settings.rotation));
        Ok(Self(Arc::new(Mutex::new(sinks.collect::<Result<Vec<_>, _>>()?))))
    }
}

fn open(output: &Output, rotation: Option<Rotation>) -> Result<Sink, String> {
    match (output, rotation) {
        (Output::Stderr, _) => Ok(Sink::Stderr),
        (Output::Stdout, _) => Ok(Sink::Stdout),
        (Output::Journal, _) => {
            let socket = UnixDatagram::unbound().and_then(|socket| {
                socket.connect(JOURNAL)?;
                Ok(socket)
            });
            let why =
                |error| format!("can't find journal (dial unixgram {JOURNAL}: connect: {error})");
            socket.map(Sink::Journal).map_err(|error| why(plain(&error)))
        }
        // The file is opened with the first line, as lumberjack does.
        (Output::File(path), Some(rotation)) => {
            Ok(Sink::Rotated(Rotated::new(path.clone(), rotation)))
        }
        (Output::File(path), None) => append(path, 0o644).map(Sink::File).map_err(|error| {
            let (path, why) = (path.display().to_string(), plain(&error));
            format!("couldn't open sink {path:?}: open {path}: {why}")
        }),
    }
}

fn append(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(mode).open(path)
}

/// A system error in Go's words.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

impl<'a> MakeWriter<'a> for Outputs {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { outputs: self.clone(), level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        Line { outputs: self.clone(), level: *meta.level() }
    }
}

/// Writes one whole line.
pub struct Line {
    outputs: Outputs,
    level: Level,
}

impl io::Write for Line {
    /// An output that fails does not stop the others.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut sinks = self.outputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sink in sinks.iter_mut() {
            let written = match sink {
                Sink::Stderr => io::stderr().write_all(line),
                Sink::Stdout => io::stdout().write_all(line),
                Sink::Journal(socket) => {
                    let sent = socket.send(&journal_entry(line, self.level)).map(drop);
                    sent.or_else(|_| io::stderr().write_all(line))
                }
                Sink::File(file) => file.write_all(line),
                Sink::Rotated(file) => file.write(line, SystemTime::now()),
            };
            // The error cannot be logged anywhere; serving goes on without a log.
            let _ = written;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// systemd's native protocol, with syslog's priorities.
fn journal_entry(line: &[u8], level: Level) -> Vec<u8> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let head = format!("PRIORITY={priority}\nSYSLOG_IDENTIFIER=quorate\nMESSAGE\n");
    let length = (line.len() as u64).to_le_bytes();
    [head.as_bytes(), &length, line, b"\n"].concat()
}

/// A file that is rotated before it exceeds its size: renamed to its name and the time.
struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    /// The clock for the times in names.
    zone: TimeZone,
    /// The open file and its length.
    open: Option<(File, u64)>,
    /// Locked while rotated files are compressed.
    compressing: Arc<Mutex<()>>,
}

impl Rotated {
    fn new(path: PathBuf, rotation: Rotation) -> Self {
        let zone = if rotation.local_time { TimeZone::system() } else { TimeZone::UTC };
        Self { path, rotation, zone, open: None, compressing: Arc::default() }
    }

    fn write(&mut self, line: &[u8], now: SystemTime) -> io::Result<()> {
        let length = line.len() as u64;
        let full = |open: &(File, u64)| open.1 + length > self.rotation.bytes_max;
        if self.open.is_none() {
            self.open = Some(self.open_file()?);
        }
        if self.open.as_ref().is_some_and(full) {
            self.open = None;
            fs::rename(&self.path, self.aside(now))?;
            self.open = Some(self.open_file()?);
            let kept = self.forget(now)?;
            if self.rotation.compress {
                let turn = self.compressing.clone();
                // No task waits for it; the next run completes unfinished work.
                std::thread::spawn(move || {
                    let Ok(_turn) = turn.try_lock() else { return Ok(()) };
                    kept.iter().try_for_each(|file| compress(file))
                });
            }
        }
        let Some((file, written)) = &mut self.open else { return Ok(()) };
        file.write_all(line)?;
        *written += length;
        Ok(())
    }

    fn open_file(&self) -> io::Result<(File, u64)> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(&self.path, 0o600)?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// `etcd.log` is renamed to `etcd-2024-02-29T00-00-00.000.log`.
    fn aside(&self, now: SystemTime) -> PathBuf {
        let (prefix, ending) = self.parts();
        let time = self.time(now).into();
        self.path.with_file_name([prefix, time, ending].into_iter().collect::<OsString>())
    }

    /// The time to the millisecond, without characters that file names should not have. A clock out of range
    /// counts as the first representable time.
    fn time(&self, at: SystemTime) -> String {
        let at = Timestamp::try_from(at).unwrap_or(Timestamp::UNIX_EPOCH);
        at.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%dT%H-%M-%S%.3f").to_string()
    }

    /// Prefix and suffix of the names of rotated files.
    fn parts(&self) -> (OsString, OsString) {
        let mut prefix = self.path.file_stem().unwrap_or_default().to_owned();
        prefix.push("-");
        let mut ending = OsString::new();
        if let Some(extension) = self.path.extension() {
            ending.push(".");
            ending.push(extension);
        }
        (prefix, ending)
    }

    /// Removes rotated files that are too old or too many, the oldest first, and returns the others,
    /// compressed or not.
    fn forget(&self, now: SystemTime) -> io::Result<Vec<PathBuf>> {
        let (prefix, ending) = self.parts();
        let (prefix, ending) = (prefix.to_string_lossy(), ending.to_string_lossy());
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let mut names: Vec<String> = fs::read_dir(folder)?
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                let rest = uncompressed(name).strip_prefix(&*prefix);
                rest.and_then(|rest| rest.strip_suffix(&*ending)).is_some_and(is_time)
            })
            .collect();
        // The name holds the time of rotation.
        names.sort_unstable_by(|a, b| b.cmp(a));
        let oldest = self.rotation.days_max.and_then(|days| {
            let age = Duration::from_secs(days.saturating_mul(86_400));
            Some(format!("{prefix}{}{ending}", self.time(now.checked_sub(age)?)))
        });
        let mut kept = Vec::new();
        // A file under compression exists in both forms.
        let forms = names.chunk_by(|a, b| uncompressed(a) == uncompressed(b));
        for (count, forms) in forms.enumerate() {
            let too_many = self.rotation.files_max.is_some_and(|max| count >= max);
            for name in forms {
                if too_many || oldest.as_ref().is_some_and(|oldest| name < oldest) {
                    remove(&folder.join(name))?;
                } else {
                    kept.push(folder.join(name));
                }
            }
        }
        Ok(kept)
    }
}

/// The name of a file before compression.
fn uncompressed(name: &str) -> &str {
    name.strip_suffix(COMPRESSED).unwrap_or(name)
}

/// Replaces a file by its compressed form, unless it is compressed already.
fn compress(path: &Path) -> io::Result<()> {
    if path.extension().is_some_and(|ending| ending == &COMPRESSED[1..]) {
        return Ok(());
    }
    // A missing file was compressed or removed after it was listed.
    let Some(mut file) = unless_gone(File::open(path))? else { return Ok(()) };
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    // An existing one is incomplete: the process that wrote it has ended.
    let smaller = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(name);
    let mut smaller = GzEncoder::new(smaller?, Compression::default());
    io::copy(&mut file, &mut smaller)?;
    smaller.finish()?;
    remove(path)
}

/// Another process may have removed it.
fn remove(path: &Path) -> io::Result<()> {
    unless_gone(fs::remove_file(path)).map(drop)
}

fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// `2024-02-29T00-00-00.000`.
fn is_time(text: &str) -> bool {
    const PATTERN: &[u8] = b"0000-00-00T00-00-00.000";
    let fits = |(byte, wanted): (u8, &u8)| match wanted {
        b'0' => byte.is_ascii_digit(),
        other => byte == *other,
    };
    text.len() == PATTERN.len() && text.bytes().zip(PATTERN).all(fits)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    fn day(day: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_709_164_800 + day * 86_400)
    }

    /// Rotation at so many bytes that removes nothing.
    fn at(bytes_max: u64) -> Rotation {
        let (days_max, files_max) = (None, None);
        Rotation { bytes_max, days_max, files_max, compress: false, local_time: false }
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder is there").flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_full_file_is_put_aside_and_few_are_kept() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("logs/etcd.log");
        let mut file = Rotated::new(path.clone(), Rotation { files_max: Some(2), ..at(10) });
        for number in 0..4 {
            file.write(b"123456\n", day(number)).expect("the disk takes it");
        }
        fs::write(path.with_file_name("etcd-other.log"), "").expect("the disk takes it");
        file.write(b"1\n", day(9)).expect("the disk takes it");
        file.write(b"12\n", day(9)).expect("the disk takes it");
        let wanted = [
            "etcd-2024-03-03T00-00-00.000.log",
            "etcd-2024-03-09T00-00-00.000.log",
            "etcd-other.log",
            "etcd.log",
        ];
        assert_eq!(files(&folder.path().join("logs")), wanted);
        assert_eq!(fs::read(&path).expect("it is there"), b"12\n");
    }

    #[test]
    fn what_is_too_old_goes() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("etcd");
        let mut file = Rotated::new(path, Rotation { days_max: Some(3), ..at(1) });
        for number in [0, 1, 2, 6] {
            file.write(b"x", day(number)).expect("the disk takes it");
        }
        assert_eq!(files(folder.path()), ["etcd", "etcd-2024-03-06T00-00-00.000"]);
    }

    #[test]
    fn names_and_ages_are_of_the_zone() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let rotation = Rotation { days_max: Some(1), local_time: true, ..at(1) };
        let mut file = Rotated::new(folder.path().join("etcd"), rotation);
        file.zone = TimeZone::fixed(jiff::tz::offset(-5));
        for hours in [0, 12, 33] {
            let now = day(0) + Duration::from_secs(hours * 3600);
            file.write(b"x", now).expect("the disk takes it");
        }
        let wanted = ["etcd", "etcd-2024-02-29T07-00-00.000", "etcd-2024-03-01T04-00-00.000"];
        assert_eq!(files(folder.path()), wanted);
    }

    #[test]
    fn what_is_put_aside_is_compressed_and_still_counts() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("etcd.log");
        let mut file = Rotated::new(path, Rotation { files_max: Some(1), ..at(2) });
        file.write(b"a\n", day(0)).expect("the disk takes it");
        file.write(b"b\n", day(1)).expect("the disk takes it");
        let kept = file.forget(day(1)).expect("the folder can be read");
        kept.iter().try_for_each(|file| compress(file)).expect("the disk takes it");
        let aside = "etcd-2024-03-01T00-00-00.000.log.gz";
        assert_eq!(files(folder.path()), [aside, "etcd.log"]);
        let smaller = File::open(folder.path().join(aside)).expect("it is there");
        let mut text = String::new();
        GzDecoder::new(smaller).read_to_string(&mut text).expect("it is gzip");
        assert_eq!(text, "a\n");
        // Compressed files count among those kept and are not compressed again.
        let kept = file.forget(day(1)).expect("the folder can be read");
        kept.iter().try_for_each(|file| compress(file)).expect("there is nothing to do");
        assert_eq!(files(folder.path()), [aside, "etcd.log"]);
        file.write(b"c\n", day(2)).expect("the disk takes it");
        assert_eq!(files(folder.path()), ["etcd-2024-03-02T00-00-00.000.log", "etcd.log"]);
    }

    /// Files are rotated, and listed, while an earlier one is under compression.
    #[test]
    fn what_was_seen_before_it_was_compressed_is_whole() {
        let folder = tempfile::tempdir().expect("a scratch directory");
        let path = folder.path().join("etcd.log");
        let mut file = Rotated::new(path, Rotation { files_max: Some(2), ..at(2) });
        for (number, line) in [b"a\n", b"b\n", b"c\n"].into_iter().enumerate() {
            file.write(line, day(number as u64)).expect("the disk takes it");
        }
        let seen = file.forget(day(2)).expect("the folder can be read");
        let half = folder.path().join("etcd-2024-03-02T00-00-00.000.log.gz");
        fs::write(&half, b"ha").expect("the disk takes it");
        assert_eq!(file.forget(day(2)).expect("the folder can be read").len(), 3, "of two files");
        for _ in 0..2 {
            seen.iter().try_for_each(|file| compress(file)).expect("the disk takes it");
        }
        let mut text = String::new();
        let whole = File::open(half).expect("it is there");
        GzDecoder::new(whole).read_to_string(&mut text).expect("it is gzip");
        assert_eq!(text, "b\n");
        assert_eq!(files(folder.path()).len(), 3);
    }

    #[test]
    fn journal_entries_have_length_and_priority() {
        let entry = journal_entry(b"{}\n", Level::WARN);
        let wanted = b"PRIORITY=4\nSYSLOG_IDENTIFIER=quorate\nMESSAGE\n\x02\0\0\0\0\0\0\0{}\n";
        assert_eq!(entry, wanted);
    }
}
