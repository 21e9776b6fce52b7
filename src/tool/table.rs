//! How a tool's commands and flags are written down: one constant table for each tool, from which parsing,
//! help, completion scripts and manual pages follow. No tool's own commands.

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// Texts separated by commas; given several times, they add up.
    List,
    /// Without a value it means `true`.
    Bool,
    Int,
    Uint,
    Duration,
}

impl Kind {
    /// The value that every variable of Go begins with.
    pub fn zero(self) -> &'static str {
        match self {
            Self::Text | Self::List => "",
            Self::Bool => "false",
            Self::Int | Self::Uint => "0",
            Self::Duration => "0s",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Flag {
    pub name: &'static str,
    pub short: Option<char>,
    pub kind: Kind,
    pub default: &'static str,
    pub help: &'static str,
    /// The values that are offered when a command line is completed; empty where there are too many.
    pub values: &'static [&'static str],
}

impl Flag {
    /// Whether the value is the name of a file or a folder.
    pub fn takes_files(&self) -> bool {
        const FILES: [&str; 7] = ["cert", "key", "cacert", "-cert", "-key", "-cacert", "-dir"];
        const OWN: [&str; 2] = ["from", "to"];
        let name = self.name;
        let is_file = FILES.iter().any(|end| match end.starts_with('-') {
            true => name.ends_with(end),
            false => name == *end,
        });
        self.kind == Kind::Text && (is_file && name != "from-key" || OWN.contains(&name))
    }
}

/// A command: a leaf that runs, or a group of subcommands.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    /// The positional arguments, as help shows them.
    pub usage: &'static str,
    pub about: &'static str,
    pub flags: &'static [Flag],
    pub subcommands: &'static [Spec],
    /// Positional arguments with few values: the position and the values.
    pub values: &'static [(usize, &'static [&'static str])],
}

impl Spec {
    /// Whether positional arguments are names of files, folders or programs.
    pub fn takes_files(&self) -> bool {
        ["filename", "-dir", "exec-command"].iter().any(|part| self.usage.contains(part))
    }
}

/// A tool: its names, its global flags, its commands.
#[derive(Debug)]
pub struct Tool {
    /// Its own name, then that of the tool of etcd's that it stands in for. Called by another name than
    /// these, it takes itself for the first.
    pub names: [&'static str; 2],
    pub about: &'static str,
    /// Flags of every command, before or behind its name.
    pub flags: &'static [Flag],
    pub commands: &'static [Spec],
    /// What the environment variables that set its global flags, and those of groups of commands, begin with;
    /// empty for none.
    pub variables: &'static str,
    /// Variables of that beginning with a meaning of their own: of which command, and the name.
    pub other_variables: &'static [(&'static str, &'static str)],
}

impl Tool {
    /// The name that the program was called by.
    pub fn called(&self, words: &[String]) -> &'static str {
        let called = words.first().map(|path| path.rsplit('/').next().unwrap_or(path));
        self.names.into_iter().find(|name| called == Some(name)).unwrap_or(self.names[0])
    }
}

pub const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    help: &'static str,
) -> Flag {
    Flag { name, short: None, kind, default, help, values: &[] }
}

/// A flag with few values.
pub const fn one_of(flag: Flag, values: &'static [&'static str]) -> Flag {
    Flag { values, ..flag }
}

pub const fn switch(name: &'static str, help: &'static str) -> Flag {
    flag(name, Kind::Bool, "false", help)
}

pub const fn short(flag: Flag, letter: char) -> Flag {
    Flag { short: Some(letter), ..flag }
}

/// The flag of both tools for the form of their output.
pub const WRITE_OUT: Flag = short(
    one_of(
        flag(
            "write-out",
            Kind::Text,
            "simple",
            "output format: fields, json, protobuf, simple, table",
        ),
        &["fields", "json", "protobuf", "simple", "table"],
    ),
    'w',
);

pub const fn leaf(
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
) -> Spec {
    Spec { name, usage, about, flags, subcommands: &[], values: &[] }
}

/// A leaf with few values for some of its positional arguments.
pub const fn taking(leaf: Spec, values: &'static [(usize, &'static [&'static str])]) -> Spec {
    Spec { values, ..leaf }
}

pub const SHELLS: &[&str] = &["bash", "fish", "powershell", "zsh"];

pub const fn group(
    name: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    subcommands: &'static [Spec],
) -> Spec {
    Spec { name, usage: "<subcommand>", about, flags, subcommands, values: &[] }
}

/// The commands and flags of a tool that no line of `cases` has: `$ words`, as tests/conformance reads
/// them. Those that etcd's tool does not have are passed over.
#[cfg(test)]
pub fn without_case(tool: &Tool, cases: &[&str], program: &str) -> Vec<String> {
    let lines: Vec<Vec<&str>> = cases
        .iter()
        .flat_map(|text| text.lines())
        .filter(|line| line.starts_with('$'))
        .map(|line| {
            let words = line.split_whitespace().skip(1);
            words.skip_while(|word| *word == program).collect()
        })
        .collect();
    let has_flag = |line: &[&str], flag: &Flag| {
        let long = format!("--{}", flag.name);
        let short = flag.short.map(|letter| format!("-{letter}"));
        line.iter().any(|word| {
            word.split('=').next() == Some(long.as_str())
                || short.as_ref().is_some_and(|short| word.starts_with(short.as_str()))
        })
    };
    let mut missing = Vec::new();
    for flag in tool.flags.iter().filter(|flag| !lines.iter().any(|line| has_flag(line, flag))) {
        missing.push(format!("--{}", flag.name));
    }
    let mut todo: Vec<(Vec<&str>, &Spec, Vec<Flag>)> =
        tool.commands.iter().map(|spec| (vec![spec.name], spec, Vec::new())).collect();
    while let Some((path, spec, inherited)) = todo.pop() {
        if spec.about.contains("(not in etcd") {
            continue;
        }
        let flags = [&inherited[..], spec.flags].concat();
        for inner in spec.subcommands {
            let path = [&path[..], &[inner.name]].concat();
            todo.push((path, inner, flags.clone()));
        }
        if !spec.subcommands.is_empty() {
            continue;
        }
        // A name may be cut short as long as it is the only one that begins so.
        let is_of = |line: &&Vec<&str>| {
            let mut words = line.iter().filter(|word| !word.starts_with('-'));
            path.iter().all(|name| {
                words.any(|word| word.len() > 3 && name.starts_with(word) || word == name)
            })
        };
        let of: Vec<&Vec<&str>> = lines.iter().filter(is_of).collect();
        if of.is_empty() {
            missing.push(path.join(" "));
        }
        let own = flags.iter().filter(|flag| !flag.help.contains("(not in etcd"));
        for flag in own.filter(|flag| !of.iter().any(|line| has_flag(line, flag))) {
            missing.push(format!("{} --{}", path.join(" "), flag.name));
        }
    }
    missing.sort();
    missing
}
