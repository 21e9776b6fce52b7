//! Log settings, and log lines in the shape that etcd's (zap's) have, so that what reads etcd's logs
//! reads ours. Which writer and which clock is the caller's business; nothing is installed here.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::{Values, go};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Console,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
}

impl Default for Settings {
    /// What is logged with before the configuration is known.
    fn default() -> Self {
        Self { level: Level::INFO, format: Format::Json }
    }
}

impl Settings {
    pub(super) fn new(values: &Values) -> Result<Self, String> {
        match values.logger.as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
            other => return Err(format!("unknown logger option {}", go::quote(other))),
        }
        let several = values.log_outputs.len() > 1;
        for output in &values.log_outputs {
            match output.as_str() {
                "default" if several => {
                    return Err("multi logoutput for \"default\" is not supported yet".into());
                }
                "default" | "stderr" => {}
                other => {
                    return Err(format!(
                        "--log-outputs={other} is known to etcd but not served by this version: \
                         only default and stderr are"
                    ));
                }
            }
        }
        let level = match values.log_level.as_str() {
            "debug" => Level::DEBUG,
            "" | "info" => Level::INFO,
            "warn" => Level::WARN,
            "error" | "dpanic" | "panic" | "fatal" => Level::ERROR,
            other => return Err(format!("unrecognized level: {}", go::quote(other))),
        };
        let format = match values.log_format.as_str() {
            "" | "json" => Format::Json,
            "console" => Format::Console,
            other => {
                return Err(format!("unknown log format: {other}, supported values json, console"));
            }
        };
        Ok(Self { level, format })
    }

    /// Which events are logged: ours from the level on, those of libraries only when they warn.
    pub fn filter(&self) -> Targets {
        let ours = LevelFilter::from_level(self.level);
        Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target("quorate", ours)
    }
}

/// Formats events as zap does. Times are in UTC.
pub struct Zap {
    format: Format,
    /// The wall clock.
    now: fn() -> SystemTime,
}

impl Zap {
    pub fn new(format: Format, now: fn() -> SystemTime) -> Self {
        Self { format, now }
    }
}

impl<S, N> FormatEvent<S, N> for Zap
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let meta = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let line = Line {
            level: level(*meta.level()),
            ts: timestamp((self.now)()),
            caller: caller(meta.file().unwrap_or("unknown"), meta.line().unwrap_or(0)),
            fields,
        };
        let text = match self.format {
            Format::Json => line.json(),
            Format::Console => line.console(),
        };
        writeln!(writer, "{text}")
    }
}

struct Line {
    level: &'static str,
    ts: String,
    caller: String,
    fields: Fields,
}

impl Line {
    /// Keys in zap's order.
    fn json(self) -> String {
        let mut line = String::from("{");
        let fixed = [
            ("level", self.level.into()),
            ("ts", self.ts.into()),
            ("caller", self.caller.into()),
            ("msg", self.fields.message.into()),
        ];
        let fields = self.fields.others.into_iter();
        let fixed = fixed.into_iter().map(|(key, value): (&str, Value)| (key.to_owned(), value));
        for (at, (key, value)) in fixed.chain(fields).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            // Writing to a string does not fail.
            let _ = write!(line, "{comma}{}:{value}", Value::from(key));
        }
        line.push('}');
        line
    }

    fn console(self) -> String {
        let Self { level, ts, caller, fields } = self;
        let mut line = format!("{ts}\t{level}\t{caller}\t{}", fields.message);
        if !fields.others.is_empty() {
            let others: Map<String, Value> = fields.others.into_iter().collect();
            let _ = write!(line, "\t{}", Value::from(others));
        }
        line
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(String, Value)>,
}

impl Fields {
    /// `peer_urls` is zap's `peer-urls`.
    fn push(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            (name, value) => self.others.push((name.replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE | Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// The last folder and the file, as zap's short caller.
fn caller(file: &str, line: u32) -> String {
    let path = Path::new(file);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{folder}{slash}{name}:{line}")
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let second = since.as_secs() % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of a day counted from 1970-01-01. Years are counted from March, so that the
/// leap day is a year's last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let now = || UNIX_EPOCH + Duration::from_micros(1_709_164_800_000_001);
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Zap::new(format, now))
            .with_writer(move || writer.clone());
        let settings = Settings { level: Level::DEBUG, format };
        let subscriber = tracing_subscriber::registry().with(settings.filter()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(peer_urls = "http://a:1", tries = 3, "added \"member\"");
            tracing::trace!("below the level");
            tracing::info!(target: "hyper::proto", "a library's");
        });
        let bytes = captured.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    #[test]
    fn json_lines_are_zaps() {
        let line = logged(Format::Json);
        let (head, tail) = line.split_once("\"caller\":\"config/log.rs:").expect("a caller");
        assert_eq!(head, r#"{"level":"info","ts":"2024-02-29T00:00:00.000001Z","#);
        let (_, tail) = tail.split_once(',').expect("a comma behind the caller");
        let wanted = r#""msg":"added \"member\"","peer-urls":"http://a:1","tries":3}"#;
        assert_eq!(tail, format!("{wanted}\n"));
    }

    #[test]
    fn console_lines_are_zaps() {
        let line = logged(Format::Console);
        assert!(line.starts_with("2024-02-29T00:00:00.000001Z\tinfo\tconfig/log.rs:"), "{line}");
        let wanted = "\tadded \"member\"\t{\"peer-urls\":\"http://a:1\",\"tries\":3}\n";
        assert!(line.ends_with(wanted), "{line}");
    }

    #[test]
    fn days_are_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(10_957), (2000, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(47_541), (2100, 3, 1));
    }
}
