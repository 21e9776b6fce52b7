//! Log settings, and log lines in the shape that etcd's (zap's) have, so that what reads etcd's logs
//! reads ours. Which writer and which clock is the caller's business; nothing is installed here.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::file::kind;
use super::{Values, go};
use crate::codec::timestamp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Console,
}

/// Where lines go, in this order: a line that stands on the terminal is in the file already.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    File(PathBuf),
    /// systemd's journal.
    Journal,
    Stdout,
    Stderr,
}

/// When a log file is put aside for a new one, and how long it is kept (lumberjack's rules).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub bytes_max: u64,
    /// How old a file that was put aside may get; `None` for any age.
    pub days_max: Option<u64>,
    /// How many of them are kept; `None` for all.
    pub files_max: Option<usize>,
    /// Whether what was put aside is compressed (gzip).
    pub compress: bool,
    /// Whether the time in the names of files put aside is that of the machine's zone, not UTC.
    pub local_time: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub level: Level,
    pub format: Format,
    /// Sorted, without repetitions; empty where lines are dropped.
    pub outputs: Vec<Output>,
    /// Of the one file among the outputs.
    pub rotation: Option<Rotation>,
}

impl Default for Settings {
    /// What is logged with before the configuration is known.
    fn default() -> Self {
        let outputs = vec![Output::Stderr];
        Self { level: Level::INFO, format: Format::Json, outputs, rotation: None }
    }
}

impl Settings {
    pub(super) fn new(values: &Values) -> Result<Self, String> {
        match values.logger.as_str() {
            "zap" => {}
            "capnslog" => return Err("--logger=capnslog is removed in v3.5".into()),
            other => return Err(format!("unknown logger option {}", go::quote(other))),
        }
        let names = &values.log_outputs;
        if names.len() > 1 && names.iter().any(|name| name == "default") {
            return Err("multi logoutput for \"default\" is not supported yet".into());
        }
        let rotation = match values.log_rotation {
            true => Some(rotation(names, &values.log_rotation_config)?),
            false => None,
        };
        let level = match values.log_level.to_ascii_lowercase().as_str() {
            "debug" => Level::DEBUG,
            "" | "info" => Level::INFO,
            "warn" => Level::WARN,
            "error" | "dpanic" | "panic" | "fatal" => Level::ERROR,
            _ => return Err(format!("unrecognized level: {}", go::quote(&values.log_level))),
        };
        let format = match values.log_format.as_str() {
            "" | "json" => Format::Json,
            "console" => Format::Console,
            other => {
                return Err(format!("unknown log format: {other}, supported values json, console"));
            }
        };
        Ok(Self { level, format, outputs: outputs(names)?, rotation })
    }

    /// Which events are logged: ours from the level on, those of libraries only when they warn.
    pub fn filter(&self) -> Targets {
        let ours = LevelFilter::from_level(self.level);
        Targets::new().with_default(ours.min(LevelFilter::WARN)).with_target("quorate", ours)
    }
}

/// Names of outputs as zap reads them: what has no scheme is a file.
fn outputs(names: &[String]) -> Result<Vec<Output>, String> {
    if names.len() > 1 && names.iter().any(|name| name == "systemd/journal") {
        let names: Vec<_> = names.iter().map(|name| go::quote(name)).collect();
        return Err(format!(
            "running with systemd/journal but other '--log-outputs' values ([{}]) are configured \
             with 'default'; override 'default' value with something else",
            names.join(" ")
        ));
    }
    if names.iter().any(|name| name == "/dev/null") {
        return Ok(Vec::new());
    }
    let mut outputs = names.iter().map(|name| output(name)).collect::<Result<Vec<_>, _>>()?;
    outputs.sort();
    outputs.dedup();
    Ok(outputs)
}

fn output(name: &str) -> Result<Output, String> {
    let refuse = |why: String| Err(format!("couldn't open sink {}: {why}", go::quote(name)));
    match name {
        "default" | "stderr" => Ok(Output::Stderr),
        "stdout" => Ok(Output::Stdout),
        "systemd/journal" => Ok(Output::Journal),
        "" => refuse("open : no such file or directory".into()),
        _ => match name.split_once("://") {
            None => Ok(Output::File(name.into())),
            Some(("file", path)) => Ok(Output::File(path.into())),
            Some((scheme, _)) => refuse(format!("no sink found for scheme {}", go::quote(scheme))),
        },
    }
}

/// `--log-rotation-config-json`, for the one file among the outputs.
fn rotation(names: &[String], json: &str) -> Result<Rotation, String> {
    let is_file = |name: &&String| !matches!(name.as_str(), "default" | "stderr" | "stdout");
    match names.iter().filter(is_file).count() {
        0 if names.len() > 1 => {}
        1 => {}
        _ => {
            return Err("--log-outputs requires a single file path when \
                        --log-rotate-config-json is defined"
                .into());
        }
    }
    let config: Value = serde_json::from_str(json).map_err(|error| {
        let why = match error.is_eof() {
            true => "unexpected end of JSON input".to_owned(),
            false => error.to_string(),
        };
        format!("improperly formatted log rotation config: {why}")
    })?;
    let invalid = |found: &str, into: &str| {
        format!("invalid log rotation config: json: cannot unmarshal {found} into Go {into}")
    };
    let Some(config) = config.as_object() else {
        return Err(invalid(kind(&config), "value of type embed.logRotationConfig"));
    };
    let number = |key: &str, value: &Value| {
        let found = match value {
            Value::Number(number) => match number.as_i64() {
                // A negative limit counts as none.
                Some(number) => return Ok(u64::try_from(number).unwrap_or(0)),
                None => format!("number {number}"),
            },
            other => kind(other).to_owned(),
        };
        Err(invalid(&found, &format!("struct field logRotationConfig.Logger.{key} of type int")))
    };
    let flag = |key: &str, value: &Value| {
        let into = || format!("struct field logRotationConfig.Logger.{key} of type bool");
        value.as_bool().ok_or_else(|| invalid(kind(value), &into()))
    };
    let (mut megabytes, mut days, mut files) = (0, 0, 0);
    let (mut compress, mut local_time) = (false, false);
    for (name, value) in config.iter().filter(|(_, value)| !value.is_null()) {
        let key = name.to_ascii_lowercase();
        match &*key {
            "maxsize" => megabytes = number(&key, value)?,
            "maxage" => days = number(&key, value)?,
            "maxbackups" => files = number(&key, value)?,
            "compress" => compress = flag(&key, value)?,
            "localtime" => local_time = flag(&key, value)?,
            _ => {}
        }
    }
    let some = |count: u64| Some(count).filter(|count| *count > 0);
    Ok(Rotation {
        bytes_max: some(megabytes).unwrap_or(100).saturating_mul(1 << 20),
        days_max: some(days),
        files_max: some(files).map(|files| usize::try_from(files).unwrap_or(usize::MAX)),
        compress,
        local_time,
    })
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
            let pairs = fields.others.into_iter();
            let pairs: Vec<_> = pairs
                .map(|(name, value)| format!("{}: {}", Value::from(name), spaced(&value)))
                .collect();
            let _ = write!(line, "\t{{{}}}", pairs.join(", "));
        }
        line
    }
}

/// JSON of a field with zap's spaces behind commas.
fn spaced(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(spaced).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
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
    /// The debug form of a list of texts or numbers is JSON, and logged as such.
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        let list = Some(&text).filter(|text| text.starts_with('['));
        let list = list.and_then(|list| serde_json::from_str::<Value>(list).ok());
        self.push(field, list.unwrap_or_else(|| text.into()));
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

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, UNIX_EPOCH};

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

    /// The lines that `work` logs, in the year 2024.
    pub(in crate::config) fn captured(format: Format, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let now = || UNIX_EPOCH + Duration::from_micros(1_709_164_800_000_001);
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Zap::new(format, now))
            .with_writer(move || writer.clone());
        let settings = Settings { level: Level::DEBUG, format, ..Settings::default() };
        let subscriber = tracing_subscriber::registry().with(settings.filter()).with(lines);
        tracing::subscriber::with_default(subscriber, work);
        let bytes = captured.0.lock().expect("no writer panics").clone();
        String::from_utf8(bytes).expect("lines are UTF-8")
    }

    fn logged(format: Format) -> String {
        captured(format, || {
            let args = ["-x", "\"y\""];
            tracing::info!(peer_urls = "http://a:1", tries = 3, ?args, "added \"member\"");
            tracing::trace!("below the level");
            tracing::info!(target: "hyper::proto", "a library's");
        })
    }

    #[test]
    fn json_lines_are_zaps() {
        let line = logged(Format::Json);
        let (head, tail) = line.split_once("\"caller\":\"config/log.rs:").expect("a caller");
        assert_eq!(head, r#"{"level":"info","ts":"2024-02-29T00:00:00.000001Z","#);
        let (_, tail) = tail.split_once(',').expect("a comma behind the caller");
        let wanted =
            r#""msg":"added \"member\"","peer-urls":"http://a:1","tries":3,"args":["-x","\"y\""]}"#;
        assert_eq!(tail, format!("{wanted}\n"));
    }

    #[test]
    fn console_lines_are_zaps() {
        let line = logged(Format::Console);
        assert!(line.starts_with("2024-02-29T00:00:00.000001Z\tinfo\tconfig/log.rs:"), "{line}");
        let fields = r#"{"peer-urls": "http://a:1", "tries": 3, "args": ["-x", "\"y\""]}"#;
        let wanted = format!("\tadded \"member\"\t{fields}\n");
        assert!(line.ends_with(&wanted), "{line}");
    }

    #[test]
    fn outputs_are_named_as_zap_names_them() {
        let of = |names: &str| {
            let names: Vec<String> = names.split(',').map(str::to_owned).collect();
            outputs(&names)
        };
        let file = |path: &str| Output::File(path.into());
        assert_eq!(of("default"), Ok(vec![Output::Stderr]));
        assert_eq!(of("stdout,a.log,stderr,a.log"), {
            Ok(vec![file("a.log"), Output::Stdout, Output::Stderr])
        });
        assert_eq!(of("file:///var/log/x"), Ok(vec![file("/var/log/x")]));
        assert_eq!(of("stderr,/dev/null"), Ok(Vec::new()));
        assert_eq!(of("systemd/journal"), Ok(vec![Output::Journal]));
        assert_eq!(
            of("http://x"),
            Err("couldn't open sink \"http://x\": no sink found for scheme \"http\"".into())
        );
        assert!(of("systemd/journal,stderr").is_err());
    }

    #[test]
    fn rotation_is_configured_as_in_etcd() {
        let of = |names: &str, json: &str| {
            let names: Vec<String> = names.split(',').map(str::to_owned).collect();
            rotation(&names, json)
        };
        let default = "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \
                       \"compress\": false}";
        let wanted = Rotation {
            bytes_max: 100 << 20,
            days_max: None,
            files_max: None,
            compress: false,
            local_time: false,
        };
        assert_eq!(of("a.log", default), Ok(wanted));
        let few = Rotation {
            bytes_max: 1 << 20,
            days_max: Some(7),
            files_max: Some(2),
            compress: true,
            local_time: true,
        };
        let json = r#"{"MaxSize": 1, "maxage": 7, "maxbackups": 2, "other": "x",
            "compress": true, "localtime": true}"#;
        assert_eq!(of("a.log,stderr", json), Ok(few));
        let one =
            "--log-outputs requires a single file path when --log-rotate-config-json is defined";
        assert_eq!(of("default", default), Err(one.into()));
        assert_eq!(of("a,b", default), Err(one.into()));
        assert_eq!(
            of("a", r#"{"maxsize": "a"}"#),
            Err("invalid log rotation config: json: cannot unmarshal string into Go struct field \
                 logRotationConfig.Logger.maxsize of type int"
                .into())
        );
        assert_eq!(
            of("a", "[]"),
            Err("invalid log rotation config: json: cannot unmarshal array into Go value of type \
                 embed.logRotationConfig"
                .into())
        );
        let broken = |json| of("a", json).expect_err("no JSON");
        let wanted = "improperly formatted log rotation config: ";
        assert!(broken("{x").starts_with(wanted), "{}", broken("{x"));
        assert_eq!(broken("{"), format!("{wanted}unexpected end of JSON input"));
    }
}
