//! The run as data, put into the page that draws it. What the page shows and how is the page's own
//! matter; this has only what there is.

use serde::Serialize;

use super::line::{Lines, who};
use super::proof::{find, name};
use crate::facts::story::Event;
use crate::facts::verdict::{Proof, Verdict, Violation};
use crate::swarm;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = concat!(
    include_str!("page/model.js"),
    include_str!("page/view.js"),
    include_str!("page/draw.js"),
    include_str!("page/panel.js"),
    include_str!("page/main.js"),
);

/// A page that shows the run, for any browser; it loads nothing.
pub fn html(verdict: &Verdict) -> String {
    // The data comes last: it may hold anything, also what stands for the other parts.
    PAGE.replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT)
        .replace("{{run}}", &data(verdict))
}

/// JSON that may stand in a `script` element: there, only `<` can begin something that ends it.
fn data(verdict: &Verdict) -> String {
    let json = serde_json::to_string(&Run::new(verdict)).expect("a story has no maps");
    json.replace('<', "\\u003c")
}

#[derive(Serialize)]
struct Run<'a> {
    /// As text, because the numbers of a page have 53 bits.
    seed: String,
    digest: String,
    plan: &'a str,
    /// Whether the seed alone plays it again.
    drawn: bool,
    answered: usize,
    revision: i64,
    simulated_us: u64,
    violations: Vec<Explained<'a>>,
    events: Vec<StoryLine<'a>>,
}

#[derive(Serialize)]
struct Explained<'a> {
    checker: &'a str,
    property: &'a str,
    text: &'a str,
    proof: Vec<Shown>,
}

#[derive(Serialize)]
struct Shown {
    /// Which of the events it is; none if the story does not have it.
    event: Option<usize>,
    name: String,
}

#[derive(Serialize)]
struct StoryLine<'a> {
    #[serde(flatten)]
    event: &'a Event,
    who: String,
    /// The event in words.
    says: String,
}

impl<'a> Run<'a> {
    fn new(verdict: &'a Verdict) -> Self {
        let Verdict {
            plan, seed, violations, story, answered, revision, simulated, digest, ..
        } = verdict;
        let lines = Lines::new(story);
        let told =
            |event: &'a Event| StoryLine { event, who: who(&event.what), says: lines.what(event) };
        Self {
            seed: seed.to_string(),
            digest: format!("{digest:016x}"),
            plan,
            drawn: swarm::draw(*seed).to_string() == *plan,
            answered: *answered,
            revision: *revision,
            simulated_us: simulated.as_micros() as u64,
            violations: violations
                .iter()
                .map(|violation| Explained::new(violation, story))
                .collect(),
            events: story.iter().map(told).collect(),
        }
    }
}

impl<'a> Explained<'a> {
    fn new(violation: &'a Violation, story: &[Event]) -> Self {
        let Violation { checker, property, text, proof } = violation;
        let shown = |proof: &Proof| Shown { event: find(story, proof), name: name(proof) };
        Self { checker, property, text, proof: proof.iter().map(shown).collect() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::sample;
    use super::html;

    /// What a browser takes for the content of the element `run`.
    fn embedded(page: &str) -> Value {
        let (_, from) = page.split_once("id=\"run\">").expect("the page has its data");
        let (json, _) = from.split_once("</script").expect("the element ends");
        serde_json::from_str(json).expect("it is JSON")
    }

    #[test]
    fn the_page_holds_the_run_whatever_is_in_its_values() {
        let verdict = sample::violated();
        let run = embedded(&html(&verdict));
        let events = run["events"].as_array().expect("a list");
        assert_eq!(events.len(), verdict.story.len());
        assert!(events.iter().any(|event| event["call"] == "get </script><!--\n"));
        assert_eq!(run["digest"], "feed000000000007");
    }

    #[test]
    fn violations_point_at_the_events_that_prove_them() {
        let verdict = sample::violated();
        let run = embedded(&html(&verdict));
        let proved = |violation: usize| {
            let proof = run["violations"][violation]["proof"].as_array().expect("a list");
            let shown = proof.iter().map(|proof| match proof["event"].as_u64() {
                Some(event) => sample::at(&verdict.story, event as usize),
                None => proof["name"].to_string(),
            });
            shown.collect::<Vec<_>>().join("\n")
        };
        expect_test::expect![[r#"
            put k = 2 -> unknown: no answer  (kv, 1000.0 ms)
            get </script><!--\n -> revision 2  (kv, 0.7 ms)
            "the call of c9 that began at 0.000001 s""#]]
        .assert_eq(&proved(0));
        expect_test::expect![[r#"
            m1: progress to 3
            leader           term 3, commit 4, applied 4"#]]
        .assert_eq(&proved(1));
    }

    #[test]
    fn the_page_stands_alone() {
        let page = html(&sample::passed());
        assert!(!page.contains("{{"), "every part is put in");
        for loads in ["src=", "<link", "@import", "url(", "fetch(", "http:", "https:"] {
            assert!(!page.contains(loads), "the page names something outside: {loads}");
        }
    }
}
