//! The style of comments, as far as it can be counted: plain technical English names parts, not persons,
//! and parts do not speak to each other.

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

/// Complains of a folder with too many such words.
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
    complaints
}

/// The words of all comments of a file, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let comments = text.lines().filter_map(|line| {
        let (before, comment) = line.split_once("//")?;
        // `http://` in a text is no comment.
        before.chars().next_back().is_none_or(char::is_whitespace).then_some(comment)
    });
    let words =
        comments.flat_map(|comment| comment.split(|c: char| !c.is_ascii_alphabetic() && c != '\''));
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
