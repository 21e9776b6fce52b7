//! The same commands of etcdctl, and of curl, against a real etcd and against ours: what is printed, where,
//! and the exit code must be the same, field by field. The commands are data, see `compare.txt` and
//! `gateway.txt`; a difference is allowed only where these files say which and why.
//!
//! Reading order: this file (running), [`script`] (the data file), [`fields`] (from output to fields).

mod fields;
mod script;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use self::fields::Fields;
use self::script::{Command, Explained, Script, Section, Until};
use super::curl::Curl;
use super::etcdctl::{Etcdctl, Output, Release, Running};
use super::process::{Kind, Server, scratch};

/// Who asks, and what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suite {
    Etcdctl,
    Curl,
}

impl Suite {
    fn text(self) -> &'static str {
        match self {
            Self::Etcdctl => include_str!("../compare.txt"),
            Self::Curl => include_str!("../gateway.txt"),
        }
    }

    fn tool(self) -> &'static str {
        match self {
            Self::Etcdctl => "etcdctl",
            Self::Curl => "curl",
        }
    }
}

/// For a command that is repeated until its output is empty.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn etcdctl_3_4_sees_no_difference() {
    compare(Suite::Etcdctl, &Release::v3_4());
}

#[test]
fn etcdctl_3_5_sees_no_difference() {
    if let Some(release) = Release::v3_5() {
        compare(Suite::Etcdctl, &release);
    }
}

#[test]
fn curl_sees_no_difference_to_3_4() {
    compare(Suite::Curl, &Release::v3_4());
}

#[test]
fn curl_sees_no_difference_to_3_5() {
    if let Some(release) = Release::v3_5() {
        compare(Suite::Curl, &release);
    }
}

/// Runs all scripts on both and fails with every difference that is not explained.
fn compare(suite: Suite, release: &Release) {
    let script = Script::parse(suite.text()).expect("the file follows its own rules");
    let subject = match Kind::subject() {
        Kind::Etcd(_) => Kind::Etcd(release.etcd.clone()),
        Kind::Quorate => Kind::Quorate,
    };
    let mut report = Report { tool: suite.tool(), ..Report::default() };
    let mut commands = 0;
    for section in &script.sections {
        let dir = scratch();
        let start = |kind: Kind, sub: &str| {
            Side::start(suite, kind, &dir.path().join(sub), section, release)
        };
        let mut reference = start(Kind::Etcd(release.etcd.clone()), "reference");
        let mut subject = start(subject.clone(), "subject");
        for command in section.commands.iter().filter(|command| command.runs_on(release.name)) {
            let (got, expected) = std::thread::scope(|scope| {
                let expected = scope.spawn(|| reference.run(command, &script));
                (subject.run(command, &script), expected.join())
            });
            let expected = expected.expect("the real etcd answers");
            report.add(command, release, &script, &expected, &got);
            commands += 1;
        }
    }
    assert!(commands > 0, "there is something to compare");
    if subject == Kind::Quorate {
        report.add_stale(&script, release);
    }
    assert!(
        report.findings == 0,
        "{} of {commands} commands differ from etcd {}:\n{}",
        report.findings,
        release.name,
        report.text
    );
}

/// One of the two servers, and what the commands so far have named.
struct Side {
    suite: Suite,
    etcdctl: Etcdctl,
    curl: Curl,
    /// Names for values which differ from server to server.
    names: BTreeMap<String, Value>,
    server: Server,
}

enum Value {
    /// Ids, printed in hexadecimal and in decimal.
    Id(u64),
    Text(String),
    Revision(i64),
}

impl Side {
    fn start(suite: Suite, kind: Kind, dir: &Path, section: &Section, release: &Release) -> Self {
        std::fs::create_dir_all(dir).expect("the scratch directory is writable");
        let flags: Vec<&str> = section.flags.iter().map(String::as_str).collect();
        let mut server = Server::single(kind, dir, &flags);
        server.start();
        let etcdctl = Etcdctl::new(release, &[server.endpoint()]);
        let curl = Curl::new(server.client_url());
        let mut side = Self { suite, etcdctl, curl, names: BTreeMap::new(), server };
        side.learn_ids();
        let text = |text: String| Value::Text(text);
        side.names.insert("dir".into(), text(dir.display().to_string()));
        side.names.insert("client".into(), text(side.server.endpoint()));
        side.names.insert("peer".into(), text(format!("127.0.0.1:{}", side.server.peer_port)));
        side
    }

    fn learn_ids(&mut self) {
        let header = self.header();
        for (name, key) in [("cluster", "cluster_id"), ("member", "member_id")] {
            let id = header[key].as_u64().expect("a header has both ids");
            self.names.insert(name.into(), Value::Id(id));
        }
    }

    fn header(&self) -> serde_json::Value {
        let output = self.etcdctl.run(&["get", "/none", "-w", "json"], "");
        let answer: serde_json::Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|e| panic!("the server does not answer ({e}): {output:?}"));
        answer["header"].clone()
    }

    fn revision(&self) -> i64 {
        self.header()["revision"].as_i64().expect("a header has a revision")
    }

    fn run(&mut self, command: &Command, script: &Script) -> (Output, Fields) {
        if let Some(name) = &command.mark {
            let revision = self.revision();
            self.names.insert(name.clone(), Value::Revision(revision));
        }
        let args: Vec<String> = command.args.iter().map(|arg| self.fill_in(arg)).collect();
        let stdin = self.fill_in(&command.stdin);
        let output = match command.until {
            Until::End => self.ask(&args, &stdin),
            Until::Lines(n) => self.begin(&args, &stdin).stop_after(n),
            Until::Silent => self.repeat_until_silent(&args),
        };
        if let Some(name) = &command.capture {
            let token = token(&output.stdout).map(Value::Text);
            let found = token.or_else(|| first_id(&output.stdout).map(Value::Id));
            let found = found
                .unwrap_or_else(|| panic!("no id in the output of {}: {output:?}", command.line));
            self.names.insert(name.clone(), found);
        }
        let fields = Fields::new(&output, &script.masks, &|text| self.rename(text));
        (output, fields)
    }

    fn ask(&self, args: &[String], stdin: &str) -> Output {
        match self.suite {
            Suite::Etcdctl => self.etcdctl.run(args, stdin),
            Suite::Curl => self.curl.run(args),
        }
    }

    fn begin(&self, args: &[String], stdin: &str) -> Running {
        match self.suite {
            Suite::Etcdctl => self.etcdctl.start(args, stdin),
            Suite::Curl => self.curl.start(args),
        }
    }

    fn repeat_until_silent(&self, args: &[String]) -> Output {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.ask(args, "");
            if output.stdout.is_empty() || Instant::now() > deadline {
                return output;
            }
        }
    }

    /// Replaces `{name}`, `{name+n}` and `{name-n}`.
    fn fill_in(&self, text: &str) -> String {
        let mut filled = text.to_owned();
        for (name, value) in &self.names {
            match value {
                Value::Id(id) => {
                    filled = filled.replace(&format!("{{{name}}}"), &format!("{id:x}"));
                    filled = filled.replace(&format!("{{{name}.d}}"), &id.to_string());
                }
                Value::Text(text) => filled = filled.replace(&format!("{{{name}}}"), text),
                Value::Revision(revision) => {
                    for delta in -9..=9 {
                        let written = match delta {
                            0 => format!("{{{name}}}"),
                            _ => format!("{{{name}{delta:+}}}"),
                        };
                        filled = filled.replace(&written, &(revision + delta).to_string());
                    }
                }
            }
        }
        filled
    }

    /// A value with names in place of what differs from server to server.
    fn rename(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.names {
            let name = format!("{{{name}}}");
            match value {
                Value::Id(id) => {
                    // etcdctl pads some ids, with zeros or with spaces behind another one.
                    text = text.replace(&format!(" {id:16x}"), &format!(" {name}"));
                    for written in [format!("{id:016x}"), format!("{id:x}"), id.to_string()] {
                        text = text.replace(&written, &name);
                    }
                }
                Value::Text(value) => text = text.replace(value, &name),
                Value::Revision(_) => {}
            }
        }
        text
    }
}

/// What is called `"token"`, of JSON.
fn token(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("\"token\":\"")?;
    rest.split('"').next().map(str::to_owned)
}

/// What is called `"ID"`, in decimal, or the first word of hexadecimal digits as long as an id.
fn first_id(text: &str) -> Option<u64> {
    if let Some((_, rest)) = text.split_once("\"ID\"") {
        let digits = rest.trim_start_matches([' ', ':', '"']);
        return digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    }
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| (12..=16).contains(&word.len()))
        .find_map(|word| u64::from_str_radix(word, 16).ok())
}

/// What was found, for people.
#[derive(Default)]
struct Report {
    tool: &'static str,
    findings: usize,
    text: String,
    used: Vec<usize>,
}

impl Report {
    fn add(
        &mut self,
        command: &Command,
        release: &Release,
        script: &Script,
        expected: &(Output, Fields),
        got: &(Output, Fields),
    ) {
        let mut differs = false;
        for (path, ours, theirs) in got.1.differences(&expected.1) {
            let explains = |e: &&Explained| e.explains(command, release.name, &path);
            if command.left_out(&path) {
                continue;
            }
            if let Some(explained) = script.explained.iter().find(explains) {
                self.used.push(explained.line);
                continue;
            }
            if !differs {
                let line = command.line;
                let (tool, args) = (self.tool, command.args.join(" "));
                let _ = write!(self.text, "\nline {line}: {tool} {args}\n");
            }
            differs = true;
            let show = |value: &Option<String>| match value {
                Some(value) => format!("{:?}", shorten(value)),
                None => "nothing".into(),
            };
            let (theirs, ours) = (show(&theirs), show(&ours));
            let _ = writeln!(self.text, "  {path}: etcd {theirs}, ours {ours}");
        }
        self.findings += usize::from(differs);
    }

    /// An explanation of what is no difference any more is a lie waiting to be believed.
    fn add_stale(&mut self, script: &Script, release: &Release) {
        for explained in script.explained.iter().filter(|e| e.release_is(release.name)) {
            if !self.used.contains(&explained.line) {
                self.findings += 1;
                let line = explained.line;
                let _ = writeln!(self.text, "\nline {line}: explains no difference");
            }
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
