//! The texts that users see: a debug form in one is a quoted text, as Go's `%q` is, and never a structure of
//! ours, whose identifiers would be decimal and whose names mean nothing to an operator.

use proc_macro2::{TokenStream, TokenTree};

use super::Source;

/// Names under which only texts, and lists of texts, are formatted so.
const TEXTS: &[&str] = &[
    "content_type",
    "data_dir",
    "digits",
    "host",
    "key",
    "line",
    "name",
    "other",
    "path",
    "scheme",
    "start",
    "text",
    "url",
    "wal_dir",
    "word",
];
/// Files whose debug forms have no name, or that of no text, with their placeholders and the reason.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("src/bin/quorate/healthcheck.rs", "PATIENCE", "a time"),
    ("src/client/mod.rs", "0", "a text"),
    ("src/config/log.rs", "value", "fields of log lines"),
    ("src/ctl/cluster.rs", "", "gRPC's name of a code, as in etcdctl"),
    ("src/discovery/srv.rs", "", "a text"),
    ("src/grpc/compression.rs", "", "a text"),
    ("src/member/requests/keys.rs", "", "gRPC's name of a code, as in etcd"),
    ("src/member/requests/loggable.rs", "", "a text"),
    ("src/member/start/folders.rs", "", "texts"),
    ("src/member/start/join.rs", "", "a text"),
    ("src/mvcc/verify.rs", "", "a key"),
    ("src/peer/calls.rs", "1", "a text"),
    ("src/peer/pipeline.rs", "1", "a text"),
    ("src/peer/stream_in.rs", "1", "a text"),
    ("src/tls/mod.rs", "", "lists of texts"),
    ("src/tls/origin.rs", "", "a list of texts"),
];
/// Macros whose texts are for developers: what they are formatted for is a fault of the program.
const NOT_SHOWN: &[&str] =
    &["assert", "debug_assert", "prop_assert", "panic", "unreachable", "debug", "trace"];

/// Complains of debug forms in texts.
pub fn without_debug_forms(source: &Source) -> Vec<String> {
    if source.module().is_none() || in_tests(&source.path) {
        return Vec::new();
    }
    let mut complaints = Vec::new();
    placeholders(source.tokens.clone(), &mut |name, line| {
        let row = |(path, placeholder, _): &(&str, &str, &str)| {
            *path == source.path && *placeholder == name
        };
        if !TEXTS.contains(&name) && !EXCEPTIONS.iter().any(row) {
            let what = format!("`{{{name}:?}}` is shown to users: format what is no text for them");
            complaints.push(source.complain(line, what));
        }
    });
    complaints
}

/// Exceptions that excuse nothing any more.
pub fn stale(files: &[Source]) -> Vec<String> {
    let needed = |(path, placeholder, _): &&(&str, &str, &str)| {
        let mut found = false;
        for source in files.iter().filter(|source| source.path == *path) {
            placeholders(source.tokens.clone(), &mut |name, _| found |= name == *placeholder);
        }
        found
    };
    let stale = EXCEPTIONS.iter().filter(|row| !needed(row));
    stale
        .map(|row| format!("tests/tidy/messages.rs: the exception {row:?} is not needed"))
        .collect()
}

fn in_tests(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs") || path.ends_with("fuzz.rs")
}

/// Visits what is formatted by `{name:?}`, outside of tests.
fn placeholders(tokens: TokenStream, visit: &mut impl FnMut(&str, usize)) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut skipped = None;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(name) if at + 2 < tokens.len() => {
                let (name, next, group) = (name.to_string(), &tokens[at + 1], &tokens[at + 2]);
                let is_test = name == "mod" && next.to_string() == "tests";
                let is_macro = next.to_string() == "!"
                    && NOT_SHOWN.iter().any(|known| {
                        let rest = name.strip_prefix(known);
                        rest.is_some_and(|rest| matches!(rest, "" | "_eq" | "_ne"))
                    });
                if (is_test || is_macro) && matches!(group, TokenTree::Group(_)) {
                    skipped = Some(at + 2);
                }
            }
            TokenTree::Group(_) if skipped == Some(at) => {}
            TokenTree::Group(group) => placeholders(group.stream(), visit),
            TokenTree::Literal(literal) => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    let line = literal.span().start().line;
                    debug_forms(&text.value()).for_each(|name| visit(name, line));
                }
            }
            _ => {}
        }
    }
}

/// The names before `:?}` and `:#?}`.
fn debug_forms(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.match_indices("?}").map(|(at, _)| &text[..at]);
    ends.filter_map(|before| {
        let (before, spec) = before.rsplit_once(':')?;
        let (escaped, name) = before.rsplit_once('{')?;
        let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        // Bytes in hex are no structure.
        (is_name && !escaped.ends_with('{') && matches!(spec, "" | "#")).then_some(name)
    })
}

#[test]
fn debug_forms_of_structures_are_found() {
    let found = |text: &str| without_debug_forms(&Source::new("src/member/mod.rs", text));
    let one = "src/member/mod.rs:1: `{members:?}` is shown to users";
    for bad in [
        "fn f() { format!(\"there are {members:?}\") }",
        "fn f() { Err(Fatal::new(format!(\"{id}: {members:?}\"), why)) }",
        "#[error(\"there are {members:?}\")] struct Error;",
        "fn f() { warn!(\"{members:#?}\") }",
    ] {
        let found = found(bad);
        assert!(found.len() == 1 && found[0].starts_with(one), "{bad}: {found:?}");
    }
    assert_eq!(found("fn f() { write!(f, \"{:?}\", id) }").len(), 1);
    for good in [
        "fn f() { format!(\"open {path:?}: {id}, {{members:?}}?, {row:02x?}\") }",
        "fn f() { assert_eq!(a, b, \"{members:?}\"); panic!(\"{members:?}\") }",
        "fn f() { debug!(?members, \"{members:?}\") }",
        "mod tests { fn f() { format!(\"{members:?}\") } }",
    ] {
        assert_eq!(found(good), [""; 0], "{good}");
    }
}
