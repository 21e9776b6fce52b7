//! The hidden command `__complete` of etcd's tools, which their completion scripts call with the words of a
//! line: candidates for the last of them, one a line, then a number that forbids to complete files where none
//! fit.

use super::exit::Exit;
use super::table::{Flag, Kind, Spec, Tool};

/// With descriptions behind a tab, and without.
const NAMES: [&str; 2] = ["__complete", "__completeNoDesc"];

/// The words behind the hidden command, and whether candidates are described; `None` when the line is another
/// command.
pub fn wanted(words: &[String]) -> Option<(&[String], bool)> {
    let at = words.iter().skip(1).position(|word| !word.starts_with('-'))? + 1;
    let name = NAMES.iter().position(|name| words[at] == *name)?;
    Some((&words[at + 1..], name == 0))
}

/// What the hidden command writes to standard output, and to standard error.
///
/// # Errors
/// When there is no word to complete.
pub fn complete(
    tool: &Tool,
    words: &[String],
    described: bool,
) -> Result<(String, &'static str), Exit> {
    let Some((last, before)) = words.split_last() else {
        return Err(Exit::error("requires at least 1 arg(s), only received 0"));
    };
    let Candidates { mut list, files } = candidates(tool, before, last);
    list.sort();
    let line = |(name, about): &(String, &str)| match described && !about.is_empty() {
        true => format!("{name}\t{about}\n"),
        false => format!("{name}\n"),
    };
    let mut text: String = list.iter().map(line).collect();
    let (number, directive) = match files {
        true => (":0\n", "Completion ended with directive: ShellCompDirectiveDefault\n"),
        false => (":4\n", "Completion ended with directive: ShellCompDirectiveNoFileComp\n"),
    };
    text.push_str(number);
    Ok((text, directive))
}

#[derive(Default)]
struct Candidates {
    list: Vec<(String, &'static str)>,
    /// Whether the word may be a file's name.
    files: bool,
}

fn candidates(tool: &Tool, before: &[String], last: &str) -> Candidates {
    let mut line = Line { tool, path: Vec::new(), positional: 0, behind: false };
    let mut words = before.iter();
    while let Some(word) = words.next() {
        if word == "--" && !line.behind {
            line.behind = true;
        } else if word.starts_with('-') && !line.behind {
            let takes_next = line.flag(word).filter(|flag| flag.kind != Kind::Bool);
            if let (Some(flag), false) = (takes_next, word.contains('='))
                && words.next().is_none()
            {
                return values(flag, last);
            }
        } else if !line.enter(word) {
            return Candidates::default();
        }
    }
    if last.starts_with('-') && !line.behind {
        return match last.split_once('=') {
            Some((name, value)) => {
                line.flag(name).map_or_else(Candidates::default, |flag| values(flag, value))
            }
            None => line.flags(last),
        };
    }
    line.words(last)
}

/// What stands before the word.
struct Line<'a> {
    tool: &'a Tool,
    path: Vec<&'static Spec>,
    positional: usize,
    /// Behind `--`.
    behind: bool,
}

impl Line<'_> {
    fn subcommands(&self) -> &'static [Spec] {
        self.path.last().map_or(self.tool.commands, |spec| spec.subcommands)
    }

    /// Goes on behind a word that is no flag. False when it names no command where one is wanted.
    fn enter(&mut self, word: &str) -> bool {
        let specs = self.subcommands();
        if specs.is_empty() {
            self.positional += 1;
            return true;
        }
        let mut begin = specs.iter().filter(|spec| spec.name.starts_with(word));
        let found = match (begin.next(), begin.next()) {
            (Some(only), None) => Some(only),
            _ => specs.iter().find(|spec| spec.name == word),
        };
        self.path.extend(found);
        found.is_some()
    }

    /// The flag that a word such as `--rev`, `--rev=5` or `-w` names.
    fn flag(&self, word: &str) -> Option<&Flag> {
        let all = self.path.iter().flat_map(|spec| spec.flags).chain(self.tool.flags);
        let name = word.split('=').next().unwrap_or_default();
        let is_it = |flag: &&Flag| match name.strip_prefix("--") {
            Some(long) => flag.name == long,
            None => flag.short.is_some_and(|letter| name.ends_with(letter)),
        };
        all.into_iter().find(is_it)
    }

    /// The command's own flags; the global ones where none of them begins so.
    fn flags(&self, last: &str) -> Candidates {
        let of = |flags: &mut dyn Iterator<Item = &Flag>| {
            let long = |flag: &Flag| (format!("--{}", flag.name), flag.help);
            let mut list: Vec<_> = flags.map(long).collect();
            list.retain(|(name, _)| name.starts_with(last));
            list
        };
        let mut list = of(&mut self.path.iter().flat_map(|spec| spec.flags));
        if list.is_empty() {
            list = of(&mut self.tool.flags.iter());
        }
        Candidates { list, files: false }
    }

    fn words(&self, last: &str) -> Candidates {
        let specs = self.subcommands();
        if !specs.is_empty() {
            let list = specs.iter().map(|spec| (spec.name.to_owned(), spec.about));
            let list = list.filter(|(name, _)| name.starts_with(last)).collect();
            return Candidates { list, files: false };
        }
        let Some(spec) = self.path.last() else { return Candidates::default() };
        let of_position = spec.values.iter().filter(|(position, _)| *position == self.positional);
        let list = of_position.flat_map(|(_, values)| fitting(values, last)).collect();
        Candidates { list, files: self.behind || spec.takes_files() }
    }
}

fn values(flag: &Flag, begin: &str) -> Candidates {
    let values = if flag.kind == Kind::Bool { &["true", "false"][..] } else { flag.values };
    let list = fitting(values, begin).collect();
    Candidates { list, files: flag.takes_files() }
}

fn fitting<'a>(
    values: &'a [&'static str],
    begin: &'a str,
) -> impl Iterator<Item = (String, &'static str)> + 'a {
    let fit = values.iter().filter(move |value| value.starts_with(begin));
    fit.map(|value| ((*value).to_owned(), ""))
}

#[cfg(test)]
mod tests {
    use super::super::table::{flag, group, leaf, one_of, short, switch, taking};
    use super::*;

    const FORMAT: Flag =
        short(one_of(flag("write-out", Kind::Text, "simple", "format"), &["json", "simple"]), 'w');
    const TOOL: Tool = Tool {
        names: ["ours", "theirs"],
        about: "",
        flags: &[FORMAT, flag("cert", Kind::Text, "", "a file"), switch("hex", "hex")],
        commands: &[
            leaf(
                "get",
                "<key>",
                "Gets",
                &[flag("rev", Kind::Int, "0", "a revision"), switch("prefix", "all")],
            ),
            group("snapshot", "Snapshots", &[], &[leaf("save", "<filename>", "Saves", &[])]),
            taking(leaf("completion", "[shell]", "Scripts", &[]), &[(0, &["bash", "zsh"])]),
        ],
        variables: "",
        other_variables: &[],
    };

    fn shown(line: &str) -> String {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        complete(&TOOL, &words, false).expect("there is a word").0.replace('\n', " ")
    }

    #[test]
    fn the_last_word_has_candidates() {
        for (line, wanted) in [
            ("", "completion get snapshot :4 "),
            ("g", "get :4 "),
            ("snapshot ", "save :4 "),
            ("sn sa", "save :4 "),
            ("nothing ", ":4 "),
            ("get ", ":4 "),
            ("get -", "--prefix --rev :4 "),
            ("get --r", "--rev :4 "),
            ("get --w", "--write-out :4 "),
            ("get k -w ", "json simple :4 "),
            ("get k -w j", "json :4 "),
            ("-w json get --write-out=s", "simple :4 "),
            ("get --hex=", "false true :4 "),
            ("get --hex ", ":4 "),
            ("--cert ", ":0 "),
            ("get --rev ", ":4 "),
            ("snapshot save ", ":0 "),
            ("completion ", "bash zsh :4 "),
            ("completion b", "bash :4 "),
            ("completion bash ", ":4 "),
            ("get -- --", ":0 "),
        ] {
            assert_eq!(shown(line), wanted, "{line:?}");
        }
        let words = ["get".to_owned(), "--p".to_owned()];
        let (out, err) = complete(&TOOL, &words, true).expect("there is a word");
        assert_eq!(out, "--prefix\tall\n:4\n");
        assert_eq!(err, "Completion ended with directive: ShellCompDirectiveNoFileComp\n");
        assert!(complete(&TOOL, &[], true).is_err());
    }

    #[test]
    fn the_command_is_hidden_behind_global_flags() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = words("ours --hex=true __complete get ");
        assert_eq!(wanted(&line), Some((&words("get ")[..], true)));
        assert_eq!(wanted(&words("ours __completeNoDesc")), Some((&[][..], false)));
        assert_eq!(wanted(&words("ours get __complete")), None);
        assert_eq!(wanted(&words("ours")), None);
    }
}
