//! A command's flags in the syntax that etcd's tools and sub-commands have (the Go package `pflag`), with
//! its error texts. Knows no flag by name but `help`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::go;

/// What a flag's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    /// The value may be left out, and then stands for `true`.
    Bool,
    Uint,
    Int,
    Duration,
    /// Separated by commas; a flag that comes again adds to its list.
    List,
}

/// A command line, split and checked value by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    /// Arguments that are no flags.
    pub arguments: Vec<String>,
    /// `-h` or `--help` was met.
    pub help: bool,
}

impl Flags {
    /// Flags and arguments may stand in any order; after `--` there are arguments only.
    pub fn parse(words: &[&str], known: &[(&'static str, Kind)]) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if *word == "--" {
                flags.arguments.extend(words.map(|word| (*word).to_owned()));
                break;
            }
            let Some(flag) = word.strip_prefix("--") else {
                match word.strip_prefix('-').and_then(|rest| rest.chars().next()) {
                    None => flags.arguments.push((*word).to_owned()),
                    Some('h') => flags.help = true,
                    Some(letter) => {
                        return Err(format!("unknown shorthand flag: '{letter}' in {word}"));
                    }
                }
                continue;
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (flag, None),
            };
            let Some(&(name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                if name == "help" {
                    flags.help = true;
                    continue;
                }
                return Err(format!("unknown flag: --{name}"));
            };
            let value = match (value, kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true",
                (None, _) => {
                    words.next().ok_or_else(|| format!("flag needs an argument: --{name}"))?
                }
            };
            check(kind, value).map_err(|why| {
                format!("invalid argument {} for \"--{name}\" flag: {why}", go::quote(value))
            })?;
            let value = match flags.values.get(name) {
                Some(before) if kind == Kind::List => format!("{before},{value}"),
                _ => value.to_owned(),
            };
            flags.values.insert(name, value);
        }
        Ok(flags)
    }

    /// As given, or `None`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    pub fn bool(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| go::bool(value) == Ok(true))
    }

    /// 0 when not given.
    pub fn uint(&self, name: &str) -> u64 {
        self.text(name).and_then(|value| go::uint(value).ok()).unwrap_or(0)
    }

    /// 0 when not given.
    pub fn int(&self, name: &str) -> i64 {
        self.text(name).and_then(|value| go::int(value).ok()).unwrap_or(0)
    }

    /// `default` when not given; none for a negative one.
    pub fn duration(&self, name: &str, default: Duration) -> Duration {
        self.text(name).and_then(|value| go::delay(value).ok()).unwrap_or(default)
    }

    /// Empty when not given.
    pub fn list(&self, name: &str) -> Vec<String> {
        let parts = self.text(name).into_iter().flat_map(|value| value.split(','));
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }
}

/// Go's package `strconv` has longer texts than its package `flag`.
fn check(kind: Kind, value: &str) -> Result<(), String> {
    let (function, checked) = match kind {
        Kind::Text | Kind::List => return Ok(()),
        Kind::Duration => {
            return go::parse_delay(value).map(drop);
        }
        Kind::Bool => ("ParseBool", go::bool(value).map(drop)),
        Kind::Uint => ("ParseUint", go::uint(value).map(drop)),
        Kind::Int => ("ParseInt", go::int(value).map(drop)),
    };
    checked.map_err(|why| {
        let why = if why == go::SYNTAX { "invalid syntax" } else { &why };
        format!("strconv.{function}: parsing {}: {why}", go::quote(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[(&str, Kind)] = &[
        ("name", Kind::Text),
        ("skip", Kind::Bool),
        ("bump", Kind::Uint),
        ("ttl", Kind::Int),
        ("delay", Kind::Duration),
        ("endpoints", Kind::List),
    ];

    #[test]
    fn flags_stand_anywhere() {
        let flags = Flags::parse(&["a", "--skip", "--name=x", "-", "--bump", "0x10"], KNOWN);
        let flags = flags.expect("valid");
        assert_eq!(flags.arguments, ["a", "-"]);
        assert_eq!(
            (flags.text("name"), flags.bool("skip"), flags.uint("bump")),
            (Some("x"), true, 16)
        );
        let flags = Flags::parse(&["--skip=false", "--", "--name"], KNOWN).expect("valid");
        assert_eq!((flags.arguments, flags.values.len()), (vec!["--name".to_owned()], 1));
        assert!(!Flags::parse(&["--skip=false"], KNOWN).expect("valid").bool("skip"));
        assert!(Flags::parse(&["a", "--help"], KNOWN).expect("valid").help);
    }

    #[test]
    fn values_are_gos() {
        let line = ["--ttl=-1", "--delay", "1m30s", "--endpoints=a,b", "--endpoints", "c"];
        let flags = Flags::parse(&line, KNOWN).expect("valid");
        assert_eq!((flags.int("ttl"), flags.list("endpoints").join(" ")), (-1, "a b c".into()));
        assert_eq!(flags.duration("delay", Duration::ZERO), Duration::from_secs(90));
        let second = Duration::from_secs(1);
        assert_eq!(Flags::default().duration("delay", second), second);
        assert!(Flags::default().list("endpoints").is_empty());
    }

    #[test]
    fn errors_are_pflags() {
        let error = |words: &[&str]| Flags::parse(words, KNOWN).expect_err("refused");
        assert_eq!(error(&["--nam", "x"]), "unknown flag: --nam");
        assert_eq!(error(&["-x"]), "unknown shorthand flag: 'x' in -x");
        let text = "invalid argument \"x\" for \"--delay\" flag: time: invalid duration \"x\"";
        assert_eq!(error(&["--delay=x"]), text);
        assert_eq!(error(&["--name"]), "flag needs an argument: --name");
        let text = "invalid argument \"-1\" for \"--bump\" flag: strconv.ParseUint: parsing \"-1\": invalid syntax";
        assert_eq!(error(&["--bump=-1"]), text);
        let text = "invalid argument \"2\" for \"--skip\" flag: strconv.ParseBool: parsing \"2\": invalid syntax";
        assert_eq!(error(&["--skip=2"]), text);
    }
}
