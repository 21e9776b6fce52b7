//! The style of comments and of the texts of logs, as far as it can be counted: plain technical English
//! names parts, not persons, and parts do not speak to each other.

use proc_macro2::{TokenStream, TokenTree};

use super::Source;

/// Words for persons, where a comment means a caller, a client, a task.
const PERSONS: &[&str] = &[
    "who",
    "whoever",
    "whom",
    "nobody",
    "somebody",
    "everybody",
    "anybody",
    "someone",
    "everyone",
];
/// Words for speech, where a comment means that something is sent, published, reported or logged.
const SPEECH: &[&str] = &[
    "tell", "tells", "told", "telling", "hear", "hears", "heard", "hearing", "say", "says", "said",
    "saying", "ask", "asks", "asked", "asking",
];
/// Of each of these kinds of words in a folder, for 1000 words of comments.
const PER_THOUSAND_MAX: f64 = 1.5;
/// Folders that are counted, each by itself.
const FOLDERS: &[&str] = &["src/", "sim/"];

/// Macros whose texts are read by operators.
const LOGS: &[&str] = &["trace", "debug", "info", "warn", "error"];

/// Complains of a folder with too many such words in comments, and of each in the text of a log.
pub fn plain(files: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        let files = files.iter().filter(|file| file.path.starts_with(folder));
        let words: Vec<String> = files.flat_map(|file| words(&file.text)).collect();
        for (kind, listed) in [("persons", PERSONS), ("speech", SPEECH)] {
            let found = words.iter().filter(|word| listed.contains(&word.as_str())).count();
            let rate = found as f64 * 1000.0 / words.len().max(1) as f64;
            if rate > PER_THOUSAND_MAX {
                let total = words.len();
                complaints.push(format!(
                    "{folder}: {rate:.1} words for {kind} in 1000 of comments ({found} of {total})"
                ));
            }
        }
    }
    complaints.extend(files.iter().filter(|file| file.path.starts_with("src/")).flat_map(logged));
    complaints
}

/// Complains of each such word in the texts of a file's logs.
fn logged(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    logs(source.tokens.clone(), false, &mut |text, line| {
        let listed = |word: &String| PERSONS.iter().chain(SPEECH).any(|listed| listed == word);
        for word in split(text).filter(listed) {
            let what = format!("`{word}` in the text of a log: name the part and what it does");
            complaints.push(source.complain(line, what));
        }
    });
    complaints
}

/// Visits the texts in calls of macros that log.
fn logs(tokens: TokenStream, inside: bool, visit: &mut impl FnMut(&str, usize)) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) => {
                let is_call = at >= 2
                    && tokens[at - 1].to_string() == "!"
                    && LOGS.contains(&tokens[at - 2].to_string().as_str());
                logs(group.stream(), inside || is_call, visit);
            }
            TokenTree::Literal(literal) if inside => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    visit(&text.value(), literal.span().start().line);
                }
            }
            _ => {}
        }
    }
}

/// The words of all comments of a file, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let comments = text.lines().filter_map(|line| {
        let (before, comment) = line.split_once("//")?;
        // `http://` in a text is no comment.
        before.chars().next_back().is_none_or(char::is_whitespace).then_some(comment)
    });
    comments.flat_map(split)
}

/// The words of a text, in lower case.
fn split(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphabetic() && c != '\'');
    words.filter(|word| !word.is_empty()).map(str::to_ascii_lowercase)
}

#[test]
fn words_for_persons_and_speech_are_counted() {
    let count = |text: &str| plain(&[Source::new("src/a.rs", text)]);
    let thousand = "// A caller that is gone.\n".repeat(200);
    // One in a thousand is no complaint, two are; texts of code are not counted.
    let one = "//! Nobody waits.\nconst A: &str = \"http://who\";\n";
    assert_eq!(count(&format!("{one}{thousand}")), [""; 0]);
    let found = count(&format!("{one}{thousand}fn f() {{}} // Told to whom?\n"));
    assert_eq!(found, ["src/: 2.0 words for persons in 1000 of comments (2 of 1005)"]);
    assert!(plain(&[Source::new("tests/a.rs", one)]).is_empty());
}

#[test]
fn words_for_persons_and_speech_in_logs_are_found() {
    let found = |path: &str, text: &str| plain(&[Source::new(path, text)]);
    let why = "in the text of a log: name the part and what it does";
    let telling = "fn f() {\n    if a { tracing::warn!(%error, \"telling systemd failed\") }\n}";
    assert_eq!(found("src/a.rs", telling), [format!("src/a.rs:2: `telling` {why}")]);
    let nobody = "fn f() { match a { _ => info!(\n    a = b(),\n    \"Nobody is let in\",\n) } }";
    assert_eq!(found("src/a.rs", nobody), [format!("src/a.rs:3: `nobody` {why}")]);
    assert_eq!(found("src/a.rs", "fn f() { debug!(a = c(\"who\"), \"{a}\") }").len(), 1);
    for good in [
        "fn f() { info!(who, told = ask(), \"peer became active\") }",
        "fn f() { a(\"who\"); format!(\"nobody\"); warn(\"told\") }",
        "#[error(\"who\")] struct Error;",
    ] {
        assert_eq!(found("src/a.rs", good), [""; 0], "{good}");
    }
    assert_eq!(found("sim/src/a.rs", telling), [""; 0], "operators do not read it");
}

/// The words of the longest cell of the compatibility table.
const CELL_WORDS_MAX: usize = 40;

/// The cells of the tables of a page that have more words.
fn long_cells(page: &str) -> Vec<&str> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split(" | "))
        .filter(|cell| cell.split_whitespace().count() > CELL_WORDS_MAX)
        .collect()
}

#[test]
fn cells_of_the_compatibility_table_are_short() {
    let long = format!("|{} | b |", " a".repeat(CELL_WORDS_MAX + 1));
    assert_eq!(long_cells(&format!("{long}\n{}", &long[1..])).len(), 1);
    let table = include_str!("../conformance/README.md");
    assert!(table.contains("\n| "), "there is a table");
    assert_eq!(long_cells(table), [""; 0]);
}
