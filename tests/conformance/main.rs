//! Conformance: runs the same commands of etcdctl and curl, and the same gRPC calls, against a real etcd
//! and against Quorate. Output, stream and exit code must be the same, field by field. The commands are
//! data, the files in `cases`, whose rules stand at the top of `etcdctl.txt`; a difference is allowed only
//! where a file names it with its reason.
//!
//! A program of its own, because its result is a list of differences: `cargo test` runs it beside the etcd
//! that `ci/etcd` gives, `ci/conformance` beside any release. Words on the command line choose files.
//!
//! Reading order: this file (which files, which etcd), [`script`] (a file of cases), [`side`] (one
//! server and the commands sent to it), [`rpc`] (gRPC as text), [`names`] (metrics), [`fields`] (from output
//! to fields), [`report`] (the differences), [`version`].

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "these tests stand outside the server, in the real world: its clock, files and sockets"
)]

#[path = "../it/client.rs"]
#[allow(dead_code, reason = "other tests call more")]
mod client;
#[path = "../it/curl.rs"]
mod curl;
#[path = "../it/etcdctl.rs"]
#[allow(dead_code, reason = "other tests use more")]
mod etcdctl;
mod fields;
mod names;
#[path = "../it/process.rs"]
#[allow(dead_code, reason = "other tests do more to servers")]
mod process;
mod report;
mod rpc;
mod script;
mod side;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;

use self::etcdctl::Release;
use self::process::{Kind, scratch};
use self::report::{Report, Total};
use self::script::Script;
use self::side::{Side, Tool};
use self::version::Version;

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases");

/// The files, and the tool that runs their commands.
const FILES: &[(&str, Tool)] = &[
    ("etcdctl.txt", Tool::Etcdctl),
    ("rpc.txt", Tool::Rpc),
    ("gateway.txt", Tool::Curl),
    ("endpoints.txt", Tool::Curl),
];

/// Servers that run at the same time, as pairs.
const PAIRS_MAX: usize = 2;

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    if options.list {
        FILES.iter().for_each(|(file, _)| println!("{file}: test"));
        return ExitCode::SUCCESS;
    }
    let release = options.release();
    println!("beside etcd {}", Version::of(&release.etcd));
    let todo = FILES.iter().copied().filter(|(file, _)| options.wants(file)).collect();
    let total = run(todo, &release);
    println!("{total}");
    match total.is_clean() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// The command line. Other options that cargo gives to tests are ignored.
#[derive(Default)]
struct Options {
    /// Where the etcd and the etcdctl to compare with are.
    folder: Option<PathBuf>,
    list: bool,
    files: Vec<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--etcd" => options.folder = words.next().map(PathBuf::from),
                "--list" => options.list = true,
                other if other.starts_with('-') => {}
                _ => options.files.push(word),
            }
        }
        options
    }

    fn wants(&self, file: &str) -> bool {
        self.files.is_empty() || self.files.iter().any(|wanted| file.contains(wanted))
    }

    fn release(&self) -> Release {
        self.folder.as_deref().map_or_else(Release::real, Release::in_folder)
    }
}

/// Runs every file and prints what it found, in the order of the list.
fn run(todo: Vec<(&str, Tool)>, release: &Release) -> Total {
    let next = Mutex::new(todo.iter().enumerate());
    let mut reports: Vec<Option<Report>> = todo.iter().map(|_| None).collect();
    let done = Mutex::new(&mut reports);
    std::thread::scope(|scope| {
        for _ in 0..PAIRS_MAX {
            scope.spawn(|| {
                let take = || next.lock().expect("taking does not panic").next();
                while let Some((i, (file, tool))) = take() {
                    let report = compare(file, *tool, release);
                    done.lock().expect("no comparison panics with it in hand")[i] = Some(report);
                }
            });
        }
    });
    let mut total = Total::default();
    for report in reports.into_iter().flatten() {
        println!("{report}");
        total.add(&report);
    }
    total
}

/// Runs a file on both.
fn compare(file: &str, tool: Tool, release: &Release) -> Report {
    let text = std::fs::read_to_string(format!("{CASES}/{file}")).expect("the file is there");
    let script = Script::parse(&text).unwrap_or_else(|why| panic!("{file}, {why}"));
    let version = Version::of(&release.etcd);
    let subject = match Kind::subject() {
        Kind::Etcd(_) => Kind::Etcd(release.etcd.clone()),
        Kind::Quorate => Kind::Quorate,
    };
    let mut report = Report::new(file, tool, &version);
    for section in &script.sections {
        let dir = scratch();
        let start = |kind: Kind, sub: &str| {
            Side::start(tool, kind, &dir.path().join(sub), section, release)
        };
        let mut reference = start(Kind::Etcd(release.etcd.clone()), "reference");
        let mut subject = start(subject.clone(), "subject");
        for command in section.commands.iter().filter(|command| command.runs_on(&version)) {
            let (got, expected) = std::thread::scope(|scope| {
                let expected = scope.spawn(|| reference.run(command, &script));
                let got = scope.spawn(|| subject.run(command, &script));
                (got.join(), expected.join())
            });
            let (Ok(got), Ok(expected)) = (got, expected) else {
                report.add_broken(command);
                return report;
            };
            report.add(command, &script, &expected, &got);
        }
    }
    if subject == Kind::Quorate {
        report.add_stale(&script);
    }
    report
}
