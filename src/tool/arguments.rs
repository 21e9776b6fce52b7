//! The command line: a tool's table as a clap command, flags of the environment, and the values that a
//! command reads. Mistakes are reported in the words of the library under etcd's tools.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser, ValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, ValueHint, parser::ValueSource};

use super::exit::Exit;
use super::raw;
use super::table::{Flag, Kind, Spec, Tool};
use crate::config::go;

/// Positional arguments before `--`, and those behind it.
const WORDS: &str = "arguments";
const BEHIND: &str = "behind";

/// A command line that was parsed.
#[derive(Clone, Debug)]
pub struct Arguments {
    /// The names of the command and its subcommands.
    pub path: Vec<&'static str>,
    /// Whether the line ends in `--`.
    pub separated: bool,
    matches: ArgMatches,
}

/// What is to be done for a command line.
#[derive(Debug)]
pub enum Wanted {
    Run(Arguments),
    /// Text for standard output.
    Help(String),
}

/// The tool as a clap command named `program`.
pub fn command(tool: &Tool, program: &'static str) -> Command {
    let root = Command::new(program)
        .about(tool.about)
        .infer_subcommands(true)
        .args_override_self(true)
        .disable_version_flag(true)
        .subcommands(tool.commands.iter().map(|spec| of_spec(program, spec)));
    root.args(
        tool.flags.iter().map(|flag| of_flag(flag).global(true).help_heading("Global options")),
    )
}

/// A command whose name stands behind `path`.
fn of_spec(path: &str, spec: &Spec) -> Command {
    let path = format!("{path} {}", spec.name);
    let command = Command::new(spec.name)
        .about(spec.about)
        .args_override_self(true)
        .infer_subcommands(true)
        .disable_version_flag(true)
        .override_usage(format!("{path} {}", spec.usage).trim_end().to_owned());
    let is_group = !spec.subcommands.is_empty();
    let command = command.args(spec.flags.iter().map(|flag| of_flag(flag).global(is_group)));
    if is_group {
        return command
            .subcommands(spec.subcommands.iter().map(|spec| of_spec(&path, spec)))
            .subcommand_value_name("COMMAND");
    }
    let check = |text: &str| Ok::<_, String>(text.to_owned());
    let values = spec.values.first().map_or(&[][..], |(_, values)| *values);
    let hint = if spec.takes_files() { ValueHint::AnyPath } else { ValueHint::Other };
    command
        .arg(
            Arg::new(WORDS)
                .action(ArgAction::Append)
                .num_args(0..)
                .hide(true)
                .value_parser(ValueParser::new(Offering { check, values }))
                .value_hint(hint)
                .hide_possible_values(true),
        )
        .arg(Arg::new(BEHIND).action(ArgAction::Append).num_args(0..).last(true).hide(true))
}

fn of_flag(flag: &Flag) -> Arg {
    let kind = flag.kind;
    let check = move |text: &str| check(kind, text).map(|()| text.to_owned());
    let parser = Offering { check, values: flag.values };
    let hint = if flag.takes_files() { ValueHint::AnyPath } else { ValueHint::Other };
    let arg = Arg::new(flag.name)
        .long(flag.name)
        .help(flag.help)
        .action(ArgAction::Set)
        .value_parser(ValueParser::new(parser))
        .value_hint(hint)
        .hide_possible_values(true)
        .default_value(flag.default)
        .hide_default_value(flag.default.is_empty())
        .allow_hyphen_values(kind != Kind::Bool)
        .value_name(match kind {
            Kind::Text => "string",
            Kind::List => "strings",
            Kind::Bool => "bool",
            Kind::Int => "int",
            Kind::Uint => "uint",
            Kind::Duration => "duration",
        });
    let arg = match flag.short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    match kind {
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}

/// Reads a value by a function, and offers some values to completion scripts: others are not refused.
#[derive(Clone)]
struct Offering<F> {
    check: F,
    values: &'static [&'static str],
}

impl<F> TypedValueParser for Offering<F>
where
    F: Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static,
{
    type Value = String;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> Result<String, clap::Error> {
        self.check.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        match self.values {
            [] => None,
            values => Some(Box::new(values.iter().map(PossibleValue::new))),
        }
    }
}

/// As Go's `strconv` and `time` check a flag's value.
fn check(kind: Kind, text: &str) -> Result<(), String> {
    let parsing = |function: &str, why: String| {
        let why = if why == go::SYNTAX { "invalid syntax".to_owned() } else { why };
        format!("strconv.{function}: parsing {}: {why}", go::quote(text))
    };
    match kind {
        Kind::Text | Kind::List => Ok(()),
        Kind::Bool => go::bool(text).map(drop).map_err(|why| parsing("ParseBool", why)),
        Kind::Int => go::int(text).map(drop).map_err(|why| parsing("ParseInt", why)),
        Kind::Uint => go::uint(text).map(drop).map_err(|why| parsing("ParseUint", why)),
        Kind::Duration => go::parse_delay(text).map(drop),
    }
}

/// Parses `words`, the first of which is the program's name.
///
/// # Errors
/// etcd's text and exit code 1.
pub fn parse(tool: &Tool, program: &'static str, words: &[String]) -> Result<Wanted, Exit> {
    let mut root = command(tool, program);
    let matches = match root.try_get_matches_from_mut(with_lists_joined(tool, words)) {
        Ok(matches) => matches,
        Err(error) => {
            return match error.kind() {
                // A group of commands takes a word that is none of them for a request of help, as in etcd.
                ErrorKind::InvalidSubcommand if group(tool, words).is_some() => {
                    let name = group(tool, words).expect("it was found just now").name;
                    let group = root.find_subcommand_mut(name).expect("it is in the table");
                    Ok(Wanted::Help(group.render_help().to_string()))
                }
                ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    Ok(Wanted::Help(error.render().to_string()))
                }
                _ => Err(Exit::error(text_of(tool, program, words, &error))),
            };
        }
    };
    let (mut path, mut specs, mut leaf) = (Vec::new(), tool.commands, &matches);
    let mut shown = &mut root;
    while let Some((name, inner)) = leaf.subcommand() {
        let spec = specs.iter().find(|spec| spec.name == name);
        // clap's own command.
        let Some(spec) = spec else { break };
        path.push(spec.name);
        (specs, leaf) = (spec.subcommands, inner);
        shown = shown.find_subcommand_mut(name).expect("clap has matched it");
    }
    if !specs.is_empty() {
        return Ok(Wanted::Help(shown.render_help().to_string()));
    }
    let separated = words.iter().position(|word| word == "--") == Some(words.len() - 1);
    Ok(Wanted::Run(Arguments { path, separated, matches: leaf.clone() }))
}

/// The words with each [`Kind::List`] once, in front, its values joined. clap takes the last of those that
/// stand before and behind a subcommand's name.
fn with_lists_joined(tool: &Tool, words: &[String]) -> Vec<String> {
    let is_list =
        |name: &str| tool.flags.iter().any(|flag| flag.kind == Kind::List && flag.name == name);
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let (mut rest, mut words) = (Vec::new(), words.iter());
    let program = words.next();
    while let Some(word) = words.next() {
        let flag = word.strip_prefix("--").unwrap_or_default();
        let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v)));
        if !is_list(name) {
            rest.push(word.clone());
            if word == "--" {
                break;
            }
            continue;
        }
        match value.or_else(|| words.next().map(String::as_str)) {
            Some(value) => {
                lists.entry(name).or_default().extend(Some(value).filter(|v| !v.is_empty()))
            }
            // A mistake that clap reports.
            None => rest.push(word.clone()),
        }
    }
    let lists = lists.iter().map(|(name, values)| format!("--{name}={}", values.join(",")));
    program.cloned().into_iter().chain(lists).chain(rest).chain(words.cloned()).collect()
}

/// The group of commands that the words name.
fn group(tool: &Tool, words: &[String]) -> Option<&'static Spec> {
    let groups = || tool.commands.iter().filter(|spec| !spec.subcommands.is_empty());
    words.iter().skip(1).find_map(|word| groups().find(|group| group.name == word))
}

/// The lines of an `options` command.
pub fn options_help(tool: &Tool) -> String {
    let mut text = String::from("The following options can be passed to any command:\n\n");
    for flag in tool.flags {
        let letter = flag.short.map_or("    ".to_owned(), |letter| format!("-{letter}, "));
        let default = match (flag.kind, flag.default) {
            (_, "") | (Kind::Bool, "false") | (Kind::Int | Kind::Uint, "0") => String::new(),
            (Kind::Text, default) => format!(" (default \"{default}\")"),
            (Kind::List, default) => format!(" (default [{default}])"),
            (_, default) => format!(" (default {default})"),
        };
        text.push_str(&format!("  {letter}--{:<28}{}{default}\n", flag.name, flag.help));
    }
    text
}

/// The commands that a word may be meant for, as etcd's library finds them: those that begin with it, and
/// those that at most two letters make of it.
fn suggestions(tool: &Tool, word: &str) -> String {
    let word = word.to_lowercase();
    let names = tool.commands.iter().map(|spec| spec.name);
    let meant = |name: &&str| name.starts_with(&word) || distance(&word, name) <= 2;
    let lines: String = names.filter(meant).map(|name| format!("\t{name}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nDid you mean this?\n{lines}\n") }
}

/// The number of bytes that are inserted, removed or replaced between two words (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (at, left) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, right) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn text_of(tool: &Tool, program: &str, words: &[String], error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let flag = context(ContextKind::InvalidArg);
    let flag = flag.split([' ', '=', '[']).next().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand);
            let meant = suggestions(tool, &name);
            format!(
                "unknown command \"{name}\" for \"{program}\"\n{meant}\
                 Run '{program} --help' for usage."
            )
        }
        ErrorKind::UnknownArgument if flag.starts_with("--") => format!("unknown flag: {flag}"),
        ErrorKind::UnknownArgument => match flag.strip_prefix('-').and_then(|f| f.chars().next()) {
            Some(letter) => format!("unknown shorthand flag: '{letter}' in {flag}"),
            None => format!("unknown command \"{flag}\" for \"{program}\""),
        },
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            // clap knows a flag by its long name only.
            let last = words.last().filter(|word| !word.starts_with("--"));
            match last.and_then(|word| word.strip_prefix('-')?.chars().next_back()) {
                Some(letter) => format!("flag needs an argument: '{letter}' in -{letter}"),
                None => format!("flag needs an argument: {flag}"),
            }
        }
        ErrorKind::ValueValidation => {
            let value = context(ContextKind::InvalidValue);
            let why = std::error::Error::source(error).map(ToString::to_string);
            let why = why.unwrap_or_default();
            format!("invalid argument {} for \"{flag}\" flag: {why}", go::quote(&value))
        }
        _ => error.render().to_string().trim_start_matches("error: ").trim_end().to_owned(),
    }
}

impl Arguments {
    /// The positional arguments, those behind `--` last.
    pub fn words(&self) -> Vec<String> {
        let mut words = self.before();
        words.extend(self.behind().unwrap_or_default());
        words
    }

    /// The positional arguments before `--`.
    pub fn before(&self) -> Vec<String> {
        self.strings(WORDS).unwrap_or_default()
    }

    /// The arguments behind `--`; `None` when there are none.
    pub fn behind(&self) -> Option<Vec<String>> {
        self.strings(BEHIND)
    }

    /// # Errors
    /// When a flag's value is not UTF-8, or a word, unless these may be any bytes.
    pub fn check_text(&self, any_words: bool) -> Result<(), Exit> {
        let ids = self.matches.ids().map(clap::Id::as_str);
        for id in ids.filter(|id| !any_words || ![WORDS, BEHIND].contains(id)) {
            for value in self.strings(id).unwrap_or_default() {
                check_text(&value)?;
            }
        }
        Ok(())
    }

    fn strings(&self, id: &str) -> Option<Vec<String>> {
        Some(self.matches.try_get_many::<String>(id).ok()??.cloned().collect())
    }

    pub fn text(&self, flag: &str) -> &str {
        let value = self.matches.try_get_one::<String>(flag);
        value.ok().flatten().map_or("", String::as_str)
    }

    pub fn bool(&self, flag: &str) -> bool {
        go::bool(self.text(flag)) == Ok(true)
    }

    pub fn int(&self, flag: &str) -> i64 {
        go::int(self.text(flag)).unwrap_or(0)
    }

    pub fn uint(&self, flag: &str) -> u64 {
        go::uint(self.text(flag)).unwrap_or(0)
    }

    pub fn duration(&self, flag: &str) -> Duration {
        go::delay(self.text(flag)).unwrap_or_default()
    }

    /// Whether the flag stands on the command line.
    pub fn is_given(&self, flag: &str) -> bool {
        self.matches.value_source(flag) == Some(ValueSource::CommandLine)
    }
}

/// The words of a command line for the command at `path`, with the flags that stand in the environment
/// (`ETCDCTL_ENDPOINTS` for `--endpoints`) put in, and warnings about variables that are none or empty. They
/// are the global flags and those of the command's group. A value that is none of the flag's type sets the
/// flag to zero, as etcd's tools do without a word.
///
/// # Errors
/// When a flag stands in both places.
pub fn with_variables(
    tool: &Tool,
    path: &[&str],
    words: &[String],
    variables: &[(String, String)],
) -> Result<(Vec<String>, Vec<String>), String> {
    let command = path.first().copied().unwrap_or_default();
    let is_group = |spec: &&Spec| spec.name == command && !spec.subcommands.is_empty();
    let of_group = tool.commands.iter().find(is_group).map_or(&[][..], |group| group.flags);
    let flags = || tool.flags.iter().chain(of_group);
    let given: BTreeSet<&str> = words
        .iter()
        .skip(1)
        .take_while(|word| *word != "--")
        .filter_map(|word| word.strip_prefix('-'))
        .filter_map(|flag| {
            flags().map(|known| (known, flag)).find_map(|(known, flag)| {
                let long = flag.strip_prefix('-').map(|f| f.split('=').next().unwrap_or(f));
                let short = known.short.is_some_and(|letter| flag.starts_with(letter));
                (long == Some(known.name) || (long.is_none() && short)).then_some(known.name)
            })
        })
        .collect();
    let (mut taken, mut taken_of_group, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    let is_of_command = |name: &str| {
        tool.other_variables.iter().any(|(user, known)| *user == command && *known == name)
    };
    let variables = if tool.variables.is_empty() { &[] } else { variables };
    for (name, value) in variables {
        let Some(rest) = name.strip_prefix(tool.variables) else { continue };
        let flag = flags().find(|flag| variable(flag.name) == rest);
        match flag {
            Some(flag) if given.contains(flag.name) => return Err(name.clone()),
            Some(flag) if !value.is_empty() => {
                let value = check(flag.kind, value).map_or(flag.kind.zero(), |()| value);
                let is_global = tool.flags.iter().any(|known| known.name == flag.name);
                let taken = if is_global { &mut taken } else { &mut taken_of_group };
                taken.push(format!("--{}={value}", flag.name));
            }
            None if !value.is_empty() && is_of_command(name) => {}
            _ => warnings.push(format!("{name}={value}")),
        }
    }
    let mut all = words.iter().take(1).cloned().collect::<Vec<_>>();
    all.extend(taken);
    let rest = words.get(1..).unwrap_or_default();
    let separator = rest.iter().position(|word| word == "--").unwrap_or(rest.len());
    all.extend_from_slice(&rest[..separator]);
    // A group knows its flags behind its name only.
    all.extend(taken_of_group);
    all.extend_from_slice(&rest[separator..]);
    Ok((all, warnings))
}

fn variable(flag: &str) -> String {
    flag.to_ascii_uppercase().replace('-', "_")
}

/// # Errors
/// When a word is not UTF-8: whatever it were made to stand for would be another name, or another file.
pub fn check_text(word: &str) -> Result<(), Exit> {
    match raw::is_text(word) {
        true => Ok(()),
        false => {
            let mut shown = String::new();
            for chunk in raw::bytes(word).utf8_chunks() {
                shown.extend(chunk.valid().escape_debug());
                shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
            }
            Err(Exit::arguments(format!("the argument \"{shown}\" is not UTF-8")))
        }
    }
}

/// The completion script of a tool for the shell that the one argument names.
///
/// # Errors
/// etcd's texts for other arguments.
pub fn completion(
    tool: &Tool,
    program: &'static str,
    arguments: &Arguments,
) -> Result<Vec<u8>, Exit> {
    let words = arguments.words();
    let [shell] = &words[..] else {
        return Err(Exit::error(format!("accepts 1 arg(s), received {}", words.len())));
    };
    let shell: clap_complete::Shell = shell.parse().map_err(|_| {
        Exit::error(format!("invalid argument \"{shell}\" for \"{program} completion\""))
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(tool, program), program, &mut script);
    Ok(script)
}

/// The manual page of a tool, or of the command that the arguments name.
///
/// # Errors
/// When there is no such command.
pub fn manual(tool: &Tool, program: &'static str, arguments: &Arguments) -> Result<Vec<u8>, Exit> {
    let mut root = command(tool, program);
    root.build();
    let (mut shown, mut title) = (&root, program.to_owned());
    for word in arguments.words() {
        let found = shown.find_subcommand(&word);
        let why = || Exit::arguments(format!("unknown command \"{word}\" for \"{title}\""));
        shown = found.ok_or_else(why)?;
        title = format!("{title}-{word}");
    }
    let mut text = Vec::new();
    let source = format!("{program} {}", env!("CARGO_PKG_VERSION"));
    let page = clap_mangen::Man::new(shown.clone()).source(source).manual(tool.about);
    page.render(&mut text)?;
    Ok(text)
}
