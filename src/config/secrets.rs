//! Secrets on the command line and in variables: replaced before anything is logged or shown on
//! `/debug/vars`. A file that holds one is named, never shown.

use super::{PREFIX, variable_of};

/// Shown in place of a secret.
const HIDDEN: &str = "***";
/// Flags whose whole value is a secret.
const SECRET: &[&str] = &["discovery-password"];
/// Flags whose value may be `name:secret`.
const WITH_SECRET: &[&str] = &["discovery-user"];

/// The words of a command line without the secrets among them, in any of Go's forms of a flag.
pub fn hide(arguments: &[String]) -> Vec<String> {
    let mut shown = Vec::with_capacity(arguments.len());
    let mut before = None;
    for word in arguments {
        if let Some(flag) = before.take() {
            shown.push(value(flag, word));
            continue;
        }
        let bare = word.strip_prefix("--").or_else(|| word.strip_prefix('-'));
        let parts = bare.map(|bare| bare.split_once('=').unwrap_or((bare, "")));
        let (name, given) = parts.unwrap_or_default();
        let secret = [SECRET, WITH_SECRET].concat().into_iter().find(|flag| *flag == name);
        match secret {
            Some(flag) if word.contains('=') => {
                let head = &word[..word.len() - given.len()];
                shown.push(format!("{head}{}", value(flag, given)));
            }
            _ => {
                before = secret;
                shown.push(word.clone());
            }
        }
    }
    shown
}

/// The value of a variable. Those of no flag are judged by their names: images of containers have
/// `ETCD_ROOT_PASSWORD`, for example.
pub(super) fn variable(name: &str, given: &str) -> String {
    let mut flags = SECRET.iter().chain(WITH_SECRET);
    match flags.find(|flag| variable_of(flag) == name) {
        Some(flag) => value(flag, given),
        None if name.starts_with(PREFIX) && name.contains("PASSWORD") => HIDDEN.to_owned(),
        None => given.to_owned(),
    }
}

/// The value of a flag that is, or may hold, a secret.
pub(super) fn value(flag: &str, given: &str) -> String {
    match given.split_once(':') {
        _ if SECRET.contains(&flag) => HIDDEN.to_owned(),
        Some((name, _)) => format!("{name}:{HIDDEN}"),
        None => given.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_command_line_are_hidden_in_every_form() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for (line, shown) in [
            (
                "--name a --discovery-password x --force",
                "--name a --discovery-password *** --force",
            ),
            ("-discovery-password=x=y -name=a", "-discovery-password=*** -name=a"),
            (
                "--discovery-user=a:x --discovery-user b:y",
                "--discovery-user=a:*** --discovery-user b:***",
            ),
            ("--discovery-user a --discovery-token t", "--discovery-user a --discovery-token t"),
            ("discovery-password x", "discovery-password x"),
            ("--discovery-password", "--discovery-password"),
        ] {
            assert_eq!(hide(&words(line)), words(shown), "{line}");
        }
    }

    #[test]
    fn secrets_of_variables_are_hidden() {
        assert_eq!(variable("ETCD_DISCOVERY_PASSWORD", "x"), "***");
        assert_eq!(variable("ETCD_DISCOVERY_USER", "a:x"), "a:***");
        assert_eq!(variable("ETCD_ROOT_PASSWORD", "x"), "***");
        assert_eq!(variable("ETCD_DISCOVERY_TOKEN", "t"), "t");
    }
}
