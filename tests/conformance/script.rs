//! Reads a file of cases. The rules are written down at the top of `etcdctl.txt`.

use crate::fields::Masks;
use crate::version::{Version, Versions};

#[derive(Debug, Default)]
pub struct Script {
    pub masks: Masks,
    pub explained: Vec<Explained>,
    /// What our tools do not write on standard error: lines with a text, and all from a text on.
    pub left_out: Vec<LeftOut>,
    pub sections: Vec<Section>,
}

/// A part of standard error that is not compared between the tools.
#[derive(Debug)]
pub struct LeftOut {
    pub line: usize,
    /// The text, and what is left out: to the end where `to_end`, else the lines that have it.
    pub text: String,
    pub to_end: bool,
    pub reason: String,
}

/// A pair of fresh servers and the commands sent to them, in order.
#[derive(Debug)]
pub struct Section {
    pub flags: Vec<String>,
    /// No servers: two copies of the files that one etcd has left after [`Section::setup`].
    pub files: bool,
    /// Commands of etcdctl for that etcd.
    pub setup: Vec<Vec<String>>,
    pub commands: Vec<Command>,
}

/// What is compared with etcdctl beside etcd: etcdctl beside Quorate, our tools beside etcd, or both of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pair {
    Server,
    Tools,
    Both,
}

#[derive(Debug)]
pub struct Command {
    /// In the file, counted from 1.
    pub line: usize,
    pub args: Vec<String>,
    pub stdin: String,
    /// Gets the first id in the output as this name.
    pub capture: Option<String>,
    /// Gets the revision before the command as this name.
    pub mark: Option<String>,
    pub until: Until,
    /// Only with these releases.
    only: Option<Versions>,
    /// Paths of fields that are not compared with these releases.
    left_out: Vec<(Versions, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    End,
    /// Stopped when so many lines are on standard output.
    Lines(usize),
    /// Repeated until it prints nothing.
    Silent,
    /// A page of metrics, of which the names count.
    Names,
}

/// An intended difference.
#[derive(Debug)]
pub struct Explained {
    pub line: usize,
    /// Of our tools, not of our server.
    pub of_tools: bool,
    /// `None` for every command.
    command: Option<usize>,
    pub versions: Versions,
    path: String,
    pub reason: String,
}

impl Command {
    pub fn runs_on(&self, version: &Version) -> bool {
        self.only.as_ref().is_none_or(|only| only.contain(version))
    }

    pub fn left_out(&self, version: &Version, path: &str) -> bool {
        let mut patterns = self.left_out.iter();
        patterns.any(|(versions, pattern)| versions.contain(version) && matches(pattern, path))
    }
}

impl Explained {
    pub fn explains(&self, command: &Command, version: &Version, path: &str, pair: Pair) -> bool {
        self.concerns(pair)
            && self.command.is_none_or(|line| line == command.line)
            && self.versions.contain(version)
            && matches(&self.path, path)
    }
}

impl Explained {
    /// Whether the difference can occur in such a pair.
    pub fn concerns(&self, pair: Pair) -> bool {
        match pair {
            Pair::Server => !self.of_tools,
            Pair::Tools => self.of_tools,
            Pair::Both => true,
        }
    }
}

/// `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|i| rest.is_char_boundary(i) && matches(after, &rest[i..]))
        }),
    }
}

impl Script {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let mut mark = None;
        for (number, line) in (1..).zip(text.lines()) {
            let read = script.line(number, line, &mut mark);
            read.map_err(|why| format!("line {number}: {why}: {line}"))?;
        }
        Ok(script)
    }

    fn line(&mut self, number: usize, line: &str, mark: &mut Option<String>) -> Result<(), String> {
        let (sign, rest) = line.split_once(' ').unwrap_or((line, ""));
        match sign {
            "" | "#" | "##" => {}
            "mask" => {
                let (names, _) = rest.split_once(": ").ok_or("wants `: reason`")?;
                self.masks.names.extend(names.split(',').map(|name| name.trim().to_owned()));
            }
            "hide" => match words(rest)?.as_slice() {
                [start, end, _reason, ..] => {
                    self.masks.between.push((start.clone(), end.clone()));
                }
                _ => return Err("wants start, end and a reason".into()),
            },
            "[server]" | "[files]" => self.sections.push(Section {
                flags: words(rest)?,
                files: sign == "[files]",
                setup: Vec::new(),
                commands: Vec::new(),
            }),
            "+" => {
                let section = self.sections.last_mut().filter(|section| section.files);
                section.ok_or("no [files] above")?.setup.push(words(rest)?);
            }
            "drop" | "cut" => match words(rest)?.as_slice() {
                [text, reason @ ..] if !reason.is_empty() => self.left_out.push(LeftOut {
                    line: number,
                    text: text.clone(),
                    to_end: sign == "cut",
                    reason: reason.join(" "),
                }),
                _ => return Err("wants a text and a reason".into()),
            },
            "@" => *mark = Some(rest.trim().to_owned()),
            "~" => self.explain(number, rest, false)?,
            "~tool" => self.explain(number, rest, true)?,
            sign if sign.starts_with('!') => {
                let (path, _) = rest.split_once(": ").ok_or("wants `: reason`")?;
                let only = match sign {
                    "!" => Versions::All,
                    _ => Versions::parse(&sign[1..])?,
                };
                let command = self.last().ok_or("no command above")?;
                command.left_out.push((only, path.trim().to_owned()));
            }
            "<" => {
                let command = self.last().ok_or("no command above")?;
                command.stdin.push_str(&repeated(rest)?);
                command.stdin.push('\n');
            }
            _ if sign.starts_with('$') => {
                let mut command = command(number, &sign[1..], rest)?;
                command.mark = mark.take();
                let section = self.sections.last_mut().ok_or("no [server] above")?;
                section.commands.push(command);
            }
            _ => return Err("not understood".into()),
        }
        Ok(())
    }

    fn last(&mut self) -> Option<&mut Command> {
        self.sections.last_mut()?.commands.last_mut()
    }

    fn explain(&mut self, line: usize, rest: &str, of_tools: bool) -> Result<(), String> {
        let (what, reason) = rest.split_once(": ").ok_or("wants `: reason`")?;
        if reason.trim().is_empty() {
            return Err("wants a reason".into());
        }
        let (versions, path) = what.trim().split_once(' ').ok_or("wants a release and a path")?;
        let command = self.last().map(|command| command.line);
        let (path, reason) = (path.trim().to_owned(), reason.trim().to_owned());
        let versions = Versions::parse(versions)?;
        self.explained.push(Explained { line, of_tools, command, versions, path, reason });
        Ok(())
    }
}

fn command(line: usize, sign: &str, rest: &str) -> Result<Command, String> {
    let mut args = words(rest)?;
    let mut take_last = |arrow: &str| match args.iter().position(|word| word == arrow) {
        Some(at) if at + 2 == args.len() => {
            let value = args.pop();
            args.pop();
            Ok(value)
        }
        Some(_) => Err(format!("one word follows {arrow}")),
        None => Ok(None),
    };
    let capture = take_last("=>")?;
    let lines = take_last("|")?;
    let (silent, only) = match sign.strip_prefix('?') {
        Some(only) => (true, only),
        None => (false, sign),
    };
    let until = match (silent, lines) {
        (true, _) => Until::Silent,
        (false, Some(names)) if names == "names" => Until::Names,
        (false, Some(lines)) => Until::Lines(lines.parse().map_err(|e| format!("{e}"))?),
        (false, None) => Until::End,
    };
    let only = match only {
        "" => None,
        only => Some(Versions::parse(only)?),
    };
    let (stdin, left_out) = (String::new(), Vec::new());
    Ok(Command { line, args, stdin, capture, mark: None, until, only, left_out })
}

/// Splits at spaces as a shell does: `'as it is'`, `"with \n \t \xff"`.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.trim().chars().peekable();
    while chars.peek().is_some() {
        let mut word = String::new();
        while let Some(c) = chars.next() {
            match c {
                ' ' => break,
                '\'' => word.extend(chars.by_ref().take_while(|&c| c != '\'')),
                '"' => loop {
                    match chars.next().ok_or("a quote is open")? {
                        '"' => break,
                        '\\' => word.push(escaped(&mut chars)?),
                        c => word.push(c),
                    }
                },
                c => word.push(c),
            }
        }
        while chars.next_if_eq(&' ').is_some() {}
        words.push(repeated(&word)?);
    }
    Ok(words)
}

fn escaped(chars: &mut impl Iterator<Item = char>) -> Result<char, String> {
    match chars.next() {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('x') => {
            let digits: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&digits, 16).map_err(|e| e.to_string())?;
            Ok(char::from(byte))
        }
        Some(c @ ('"' | '\\')) => Ok(c),
        other => Err(format!("unknown escape {other:?}")),
    }
}

/// `@repeat(n,text)` is long without filling the file.
fn repeated(word: &str) -> Result<String, String> {
    let Some((before, rest)) = word.split_once("@repeat(") else { return Ok(word.to_owned()) };
    let (inside, after) = rest.split_once(')').ok_or("wants a closing parenthesis")?;
    let (times, text) = inside.split_once(',').ok_or("wants @repeat(n,text)")?;
    let times: usize = times.parse().map_err(|e| format!("{e}"))?;
    Ok(format!("{before}{}{}", text.repeat(times), repeated(after)?))
}
