//! One of the two servers, and the commands sent to it. Values that differ from server to server, such as
//! ids, get a name here: commands can refer to them, and they do not count as differences.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::curl::Curl;
use crate::etcdctl::{Etcdctl, Output, Release};
use crate::fields::Fields;
use crate::names;
use crate::process::{Kind, Server};
use crate::rpc::Rpc;
use crate::script::{Command, LeftOut, Script, Section, Until};

/// The program that sends a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Etcdctl,
    Curl,
    Rpc,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcdctl => "etcdctl",
            Self::Curl => "curl",
            Self::Rpc => "gRPC",
        }
    }
}

/// For a command that is repeated until its output is empty.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two servers, and what the commands so far have named.
pub struct Side {
    tool: Tool,
    etcdctl: Etcdctl,
    etcdutl: Etcdctl,
    curl: Curl,
    rpc: Option<Rpc>,
    /// Names for values which differ from server to server.
    names: BTreeMap<String, Value>,
    /// Runs until it is dropped; `None` where only files are looked at.
    _server: Option<Server>,
}

/// What a name stands for.
enum Value {
    /// Ids, printed in hexadecimal and in decimal.
    Id(u64),
    Text(String),
    Revision(i64),
}

impl Side {
    /// A server of its own in `dir`, started.
    pub fn start(tool: Tool, kind: Kind, dir: &Path, section: &Section, release: &Release) -> Self {
        std::fs::create_dir_all(dir).expect("the scratch directory is writable");
        let fill = |flag: &String| flag.replace("{source}", env!("CARGO_MANIFEST_DIR"));
        let flags: Vec<String> = section.flags.iter().map(fill).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut server = Server::single(kind, dir, &flags);
        server.start();
        let etcdctl = Etcdctl::new(release, &[server.endpoint()]);
        let etcdutl = Etcdctl::utility(release);
        let curl = Curl::new(server.client_url());
        let rpc = Rpc::new(server.endpoint());
        let names = BTreeMap::from([
            ("dir".into(), Value::Text(dir.display().to_string())),
            ("client".into(), Value::Text(server.endpoint())),
            ("peer".into(), Value::Text(format!("127.0.0.1:{}", server.peer_port))),
        ]);
        let (rpc, _server) = (Some(rpc), Some(server));
        let mut side = Self { tool, etcdctl, etcdutl, curl, rpc, names, _server };
        side.learn_ids();
        side
    }

    /// Only the files in `dir`.
    pub fn of_files(tool: Tool, dir: &Path, release: &Release) -> Self {
        let nowhere = ["127.0.0.1:1".to_owned()];
        let names = BTreeMap::from([("dir".into(), Value::Text(dir.display().to_string()))]);
        Self {
            tool,
            etcdctl: Etcdctl::new(release, &nowhere),
            etcdutl: Etcdctl::utility(release),
            curl: Curl::new("http://127.0.0.1:1".into()),
            rpc: None,
            names,
            _server: None,
        }
    }

    /// The files that an etcd has left after the section's setup, in a folder of their own: its data
    /// directory `etcd`, and what the commands have saved in `{dir}`.
    pub fn leave_files(dir: &Path, section: &Section, release: &Release) {
        std::fs::create_dir_all(dir).expect("the scratch directory is writable");
        let kind = Kind::Etcd(release.etcd.clone());
        let flags: Vec<&str> = section.flags.iter().map(String::as_str).collect();
        let mut server = Server::single(kind, dir, &flags);
        server.data_dir = dir.join("etcd");
        server.start();
        let etcdctl = Etcdctl::new(release, &[server.endpoint()]);
        for args in &section.setup {
            let fill = |word: &String| word.replace("{dir}", &dir.display().to_string());
            let output = etcdctl.run(&args.iter().map(fill).collect::<Vec<_>>(), "");
            assert_eq!(output.code, Some(0), "{args:?}: {output:?}");
        }
        server.terminate();
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

    /// Runs a command and captures the values that it names.
    /// `left_out` of standard error does not count; the lines of those that occurred are returned.
    pub fn run(
        &mut self,
        command: &Command,
        script: &Script,
        left_out: &[LeftOut],
    ) -> (Output, Fields, Vec<usize>) {
        if let Some(name) = &command.mark {
            let revision = self.revision();
            self.names.insert(name.clone(), Value::Revision(revision));
        }
        let args: Vec<String> = command.args.iter().map(|arg| self.fill_in(arg)).collect();
        let stdin = self.fill_in(&command.stdin);
        if args.iter().any(|arg| is_of_members(arg)) {
            self.settle();
        }
        let output = match command.until {
            Until::End => self.ask(&args, &stdin),
            Until::Names => {
                let page = self.ask(&args, &stdin);
                Output { stdout: names::of(&page.stdout), ..page }
            }
            Until::Lines(n) => self.ask_for(&args, &stdin, n),
            Until::Silent => self.repeat_until_silent(&args),
        };
        if let Some(name) = &command.capture {
            let token = token(&output.stdout).map(Value::Text);
            let found = token.or_else(|| first_id(&output.stdout).map(Value::Id));
            let found = found
                .unwrap_or_else(|| panic!("no id in the output of {}: {output:?}", command.line));
            self.names.insert(name.clone(), found);
        }
        let (mut output, mut used) = (output, Vec::new());
        for left_out in left_out {
            if let Some(shorter) = without(&output.stderr, left_out) {
                output.stderr = shorter;
                used.push(left_out.line);
            }
        }
        let fields = Fields::new(&output, &script.masks, &|text| self.rename(text));
        (output, fields, used)
    }

    /// Raft drops a change of members proposed before it counts the last one as applied, and etcd never
    /// answers it then. A linearizable read waits for that; where it is not permitted, neither is a change.
    fn settle(&self) {
        if let Some(rpc) = &self.rpc {
            rpc.run(&["KV/Range".into(), r#"{"key":"/none"}"#.into()], None);
        }
    }

    fn ask(&self, args: &[String], stdin: &str) -> Output {
        match self.tool {
            Tool::Etcdctl if args.first().is_some_and(|word| word == "etcdutl") => {
                self.etcdutl.run(&args[1..], stdin)
            }
            Tool::Etcdctl => self.etcdctl.run(args, stdin),
            Tool::Curl => self.curl.run(args),
            Tool::Rpc => self.rpc().run(args, None),
        }
    }

    /// Stops when there are so many lines.
    fn ask_for(&self, args: &[String], stdin: &str, lines: usize) -> Output {
        match self.tool {
            Tool::Etcdctl => self.etcdctl.start(args, stdin).stop_after(lines),
            Tool::Curl => self.curl.start(args).stop_after(lines),
            Tool::Rpc => self.rpc().run(args, Some(lines)),
        }
    }

    fn rpc(&self) -> &Rpc {
        self.rpc.as_ref().expect("calls are sent to a server")
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

/// The text without what is left out; `None` when that does not occur.
fn without(text: &str, left_out: &LeftOut) -> Option<String> {
    let at = text.find(&left_out.text)?;
    Some(match left_out.to_end {
        true => text[..at].to_owned(),
        false => {
            let lines = text.split_inclusive('\n').filter(|line| !line.contains(&left_out.text));
            lines.collect()
        }
    })
}

/// Whether a word of a command names a change of members.
fn is_of_members(word: &str) -> bool {
    word == "member" || word.starts_with("Cluster/Member") || word.starts_with("/v3/cluster/member")
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
