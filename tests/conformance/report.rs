//! The result in words: how many cases, which differences are explained and why, which are not.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::etcdctl::Output;
use crate::fields::Fields;
use crate::script::{Command, Pair, Script};
use crate::side::Tool;
use crate::version::Version;

/// About one file and one release.
pub struct Report {
    file: String,
    tool: Tool,
    version: Version,
    pair: Pair,
    cases: usize,
    /// By the line of the explanation: why, and in how many cases it was needed.
    explained: BTreeMap<usize, (String, usize)>,
    /// Cases with an unexplained difference, and explanations that match no difference.
    unexplained: usize,
    text: String,
}

impl Report {
    pub fn new(file: &str, tool: Tool, version: &Version, pair: Pair) -> Self {
        let (file, version) = (file.to_owned(), version.clone());
        let (explained, text) = (BTreeMap::new(), String::new());
        Self { file, tool, version, pair, cases: 0, explained, unexplained: 0, text }
    }

    /// Adds a case.
    pub fn add(
        &mut self,
        command: &Command,
        script: &Script,
        expected: &(Output, Fields),
        got: &(Output, Fields),
    ) {
        self.cases += 1;
        let mut used: Vec<usize> = Vec::new();
        let mut differs = false;
        for (path, ours, theirs) in got.1.differences(&expected.1) {
            if command.left_out(&self.version, &path) {
                continue;
            }
            let mut explains = script.explained.iter();
            if let Some(why) =
                explains.find(|e| e.explains(command, &self.version, &path, self.pair))
            {
                used.push(why.line);
                self.explained.entry(why.line).or_insert_with(|| (why.reason.clone(), 0));
                continue;
            }
            if !differs {
                let (tool, args) = (self.tool.name(), shorten(&command.args.join(" ")));
                let _ = writeln!(self.text, "  line {}: {tool} {args}", command.line);
            }
            differs = true;
            let show = |value: &Option<String>| match value {
                Some(value) => format!("{:?}", shorten(value)),
                None => "nothing".into(),
            };
            let (theirs, ours) = (show(&theirs), show(&ours));
            let _ = writeln!(self.text, "    {path}: etcd {theirs}, ours {ours}");
        }
        self.unexplained += usize::from(differs);
        used.sort_unstable();
        used.dedup();
        for line in used {
            self.explained.entry(line).and_modify(|(_, cases)| *cases += 1);
        }
    }

    /// Notes what was not compared on standard error.
    pub fn add_left_out(&mut self, script: &Script, lines: &[usize]) {
        for left_out in script.left_out.iter().filter(|left| lines.contains(&left.line)) {
            let reason = || (left_out.reason.clone(), 0);
            self.explained.entry(left_out.line).or_insert_with(reason).1 += 1;
        }
    }

    /// Adds a case at which a server or a tool has broken down: no further one can be run.
    pub fn add_broken(&mut self, command: &Command) {
        self.cases += 1;
        self.unexplained += 1;
        let (tool, args) = (self.tool.name(), shorten(&command.args.join(" ")));
        let _ = writeln!(self.text, "  line {}: {tool} {args}\n    breaks down", command.line);
    }

    /// Counts explanations of differences that no longer exist.
    pub fn add_stale(&mut self, script: &Script) {
        let concern = |e: &&crate::script::Explained| {
            e.versions.contain(&self.version) && e.concerns(self.pair)
        };
        for explained in script.explained.iter().filter(concern) {
            if !self.explained.contains_key(&explained.line) {
                self.unexplained += 1;
                let _ = writeln!(self.text, "  line {}: explains no difference", explained.line);
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.pair {
            Pair::Server => "",
            Pair::Tools => ", our tools beside etcd",
            Pair::Both => ", our tools beside Quorate",
        };
        writeln!(f, "{}, etcd {}{of}: {} cases", self.file, self.version, self.cases)?;
        let mut reasons: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for (line, (reason, cases)) in &self.explained {
            let (first, sum) = reasons.entry(reason).or_insert((*line, 0));
            *first = (*first).min(*line);
            *sum += cases;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (line, _))| *line);
        for (reason, (line, cases)) in reasons {
            writeln!(f, "  explained in {cases} (line {line}): {reason}")?;
        }
        match self.unexplained {
            0 => write!(f, "  unexplained: none"),
            n => write!(f, "  unexplained: {n}\n{}", self.text.trim_end()),
        }
    }
}

/// Of all files and releases.
#[derive(Default)]
pub struct Total {
    reports: usize,
    cases: usize,
    explained: usize,
    unexplained: usize,
}

impl Total {
    pub fn add(&mut self, report: &Report) {
        self.reports += 1;
        self.cases += report.cases;
        self.explained += report.explained.values().map(|(_, cases)| cases).sum::<usize>();
        self.unexplained += report.unexplained;
    }

    /// Whether there is no unexplained difference. No case at all is a failure where files were chosen.
    pub fn is_clean(&self) -> bool {
        self.unexplained == 0 && (self.reports == 0 || self.cases > 0)
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cases, explained, unexplained, .. } = self;
        write!(f, "total: {cases} cases, {explained} explained, {unexplained} unexplained")
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}... ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}
