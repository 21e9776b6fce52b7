//! Conformance: runs the same commands of etcdctl and curl, and the same gRPC calls, against a real etcd
//! and against Quorate. Output, stream and exit code must be the same, field by field. The commands are
//! data, the files in `cases`, whose rules stand at the top of `etcdctl.txt`; a difference is allowed only
//! where a file names it with its reason. Commands of etcdctl and etcdutl also run with our tools, which
//! are called by etcd's names, beside etcd (the pair `tools`) and beside Quorate (`both`).
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

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;

use self::etcdctl::Release;
use self::process::{Kind, scratch};
use self::report::{Report, Total};
use self::script::{Pair, Script};
use self::side::{Side, Tool};
use self::version::{Version, Versions};

const CASES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases");

/// The files, and the tool that runs their commands.
const FILES: &[(&str, Tool)] = &[
    ("etcdctl.txt", Tool::Etcdctl),
    ("rpc.txt", Tool::Rpc),
    ("gateway.txt", Tool::Curl),
    ("endpoints.txt", Tool::Curl),
    ("tools.txt", Tool::Etcdctl),
    ("etcdutl.txt", Tool::Etcdctl),
];

/// Where our tools are, under etcd's names.
struct OurTools {
    links: tempfile::TempDir,
}

impl OurTools {
    fn new() -> Self {
        let links = scratch();
        // Other builds of them, as with the server.
        let folder = std::env::var_os("QUORATE_TOOLS").map(PathBuf::from);
        let program = |name: &str, built: &str| match &folder {
            Some(folder) => folder.join(name),
            None => PathBuf::from(built),
        };
        for (name, program) in [
            ("etcdctl", program("quoratectl", env!("CARGO_BIN_EXE_quoratectl"))),
            ("etcdutl", program("quorateutl", env!("CARGO_BIN_EXE_quorateutl"))),
        ] {
            std::os::unix::fs::symlink(program, links.path().join(name))
                .expect("the scratch directory is writable");
        }
        Self { links }
    }

    /// The release with our tools in place of etcd's.
    fn in_place(&self, release: &Release) -> Release {
        let program = |name| self.links.path().join(name);
        let (etcdctl, etcdutl) = (program("etcdctl"), program("etcdutl"));
        Release { etcdctl, etcdutl, ..release.clone() }
    }
}

/// Servers that run at the same time, as pairs.
const PAIRS_MAX: usize = 2;

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1));
    if options.list {
        FILES.iter().for_each(|(file, _)| println!("{file}: test"));
        return ExitCode::SUCCESS;
    }
    let release = options.release();
    let version = Version::of(&release.etcd);
    println!("beside etcd {version}");
    let files = FILES.iter().copied().filter(|(file, _)| options.wants(file, &version));
    let pairs = |(file, tool)| {
        let tools = [Pair::Tools, Pair::Both].into_iter().filter(move |_| tool == Tool::Etcdctl);
        [Pair::Server].into_iter().chain(tools).map(move |pair| (file, tool, pair))
    };
    let wanted = |pair: &Pair| options.wants_pair(*pair, &version);
    let todo = files.flat_map(pairs).filter(|(.., pair)| wanted(pair)).collect();
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
    /// Only this pair.
    pair: Option<String>,
    files: Vec<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Self {
        let mut options = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--etcd" => options.folder = words.next().map(PathBuf::from),
                "--list" => options.list = true,
                "--pair" => options.pair = words.next(),
                other if other.starts_with('-') => {}
                _ => options.files.push(word),
            }
        }
        options
    }

    fn wants(&self, file: &str, version: &Version) -> bool {
        if file == "tools.txt" && self.pair.is_none() && !is_tools_release(version) {
            return false;
        }
        self.files.is_empty() || self.files.iter().any(|wanted| file.contains(wanted))
    }

    fn wants_pair(&self, pair: Pair, version: &Version) -> bool {
        let name = match pair {
            Pair::Server => "server",
            Pair::Tools => "tools",
            Pair::Both => "both",
        };
        match self.pair.as_deref() {
            Some(wanted) => wanted == name || wanted == "all",
            None => pair == Pair::Server || is_tools_release(version),
        }
    }

    fn release(&self) -> Release {
        self.folder.as_deref().map_or_else(Release::real, Release::in_folder)
    }
}

/// Whether our tools have the commands and texts of this release's.
fn is_tools_release(version: &Version) -> bool {
    Versions::parse("3.7").is_ok_and(|versions| versions.contain(version))
}

/// Runs every file and prints what it found, in the order of the list.
fn run(todo: Vec<(&str, Tool, Pair)>, release: &Release) -> Total {
    let tools = OurTools::new();
    let ours = tools.in_place(release);
    let next = Mutex::new(todo.iter().enumerate());
    let mut reports: Vec<Option<Report>> = todo.iter().map(|_| None).collect();
    let done = Mutex::new(&mut reports);
    std::thread::scope(|scope| {
        for _ in 0..PAIRS_MAX {
            scope.spawn(|| {
                let take = || next.lock().expect("taking does not panic").next();
                while let Some((i, (file, tool, pair))) = take() {
                    let report = compare(file, *tool, *pair, release, &ours);
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

/// Runs a file on both; `ours` is the release with our tools.
fn compare(file: &str, tool: Tool, pair: Pair, release: &Release, ours: &Release) -> Report {
    let text = std::fs::read_to_string(format!("{CASES}/{file}")).expect("the file is there");
    let script = Script::parse(&text).unwrap_or_else(|why| panic!("{file}, {why}"));
    let version = Version::of(&release.etcd);
    let kind = match (pair, Kind::subject()) {
        (Pair::Tools, _) | (_, Kind::Etcd(_)) => Kind::Etcd(release.etcd.clone()),
        (_, Kind::Quorate) => Kind::Quorate,
    };
    let (tools, left_out) = match pair {
        Pair::Server => (release, &[][..]),
        Pair::Tools | Pair::Both => (ours, &script.left_out[..]),
    };
    let mut report = Report::new(file, tool, &version, pair);
    for section in &script.sections {
        // Files are the same for every server.
        if section.files && pair != Pair::Tools {
            continue;
        }
        let dir = scratch();
        let places = ["reference", "subject"].map(|name| dir.path().join(name));
        let [mut reference, mut subject] = if section.files {
            let files = dir.path().join("files");
            Side::leave_files(&files, section, release);
            places.iter().for_each(|place| copy(&files, place));
            [Side::of_files(tool, &places[0], release), Side::of_files(tool, &places[1], tools)]
        } else {
            [
                Side::start(tool, Kind::Etcd(release.etcd.clone()), &places[0], section, release),
                Side::start(tool, kind.clone(), &places[1], section, tools),
            ]
        };
        for command in section.commands.iter().filter(|command| command.runs_on(&version)) {
            let (got, expected) = std::thread::scope(|scope| {
                let expected = scope.spawn(|| reference.run(command, &script, left_out));
                let got = scope.spawn(|| subject.run(command, &script, left_out));
                (got.join(), expected.join())
            });
            let (Ok(got), Ok(expected)) = (got, expected) else {
                report.add_broken(command);
                return report;
            };
            report.add_left_out(&script, &[&got.2[..], &expected.2[..]].concat());
            report.add(command, &script, &(expected.0, expected.1), &(got.0, got.1));
        }
    }
    if kind == Kind::Quorate && pair == Pair::Server || pair == Pair::Tools {
        report.add_stale(&script);
    }
    report
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("the scratch directory is writable");
    for entry in std::fs::read_dir(from).expect("a folder can be listed") {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).expect("it can be listed");
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => {
                std::fs::copy(&path, to.join(name)).expect("a file can be copied");
            }
        }
    }
}
