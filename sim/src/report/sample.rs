//! Two verdicts made by hand, with every kind of event: one that passed, one that did not.

use std::time::Duration;

use crate::facts::marks::Marks;
use crate::facts::story::{Change, Event, News, Outcome, Role, Story, What};
use crate::facts::verdict::{Proof, Verdict, Violation};

const PLAN: &str = "\
seed 7
members 3
client c0 kv at any
at 1s kill leader for 2s
";

/// A leader is killed, another takes over, all answers are right.
pub(super) fn passed() -> Verdict {
    Verdict {
        plan: PLAN.to_owned(),
        seed: 7,
        violations: Vec::new(),
        story: story().events(),
        answered: 3,
        revision: 3,
        simulated: Duration::from_millis(9_000),
        digest: 0xfeed_0000_0000_0007,
        marks: Marks::new(),
    }
}

/// The same, only that a read missed a write; the key read is one that breaks lines and pages.
pub(super) fn violated() -> Verdict {
    let stale = "get </script><!--\n -> 2 of them: revision 2, but 3 had been answered";
    let violations = vec![
        Violation::new("replay", "reads see the newest write", stale)
            .proved_by(Proof::Operation { client: 0, began_us: 2_100_000 })
            .proved_by(Proof::Operation { client: 1, began_us: 6_000_250 })
            .proved_by(Proof::Operation { client: 9, began_us: 1 }),
        Violation::new("watches", "no event is left out", "revision 3 is missing")
            .proved_by(Proof::Watch { stream: 0, revision: 3 })
            .proved_by(Proof::Member { host: "m1".into(), at_us: 5_000_000 }),
    ];
    let story = story();
    told(&story, 6_001_000, call(1, 6_000_250, "get </script><!--\n", answered(2)));
    Verdict { violations, story: story.events(), answered: 4, ..passed() }
}

fn story() -> Story {
    let story = Story::default();
    told(&story, 0, What::Phase { name: "setup".into() });
    told(&story, 0, host("m0", Change::Started));
    told(&story, 0, host("m1", Change::Started));
    told(&story, 900_000, member("m0", Role::Leader, (2, 3), "m0"));
    told(&story, 900_000, member("m1", Role::Follower, (2, 3), "m0"));
    told(&story, 1_000_000, What::Phase { name: "faults".into() });
    told(&story, 1_400_000, call(0, 1_380_000, "put k = 1", answered(2)));
    told(&story, 1_500_000, watch(News::Created { from: 1 }));
    told(&story, 1_500_800, watch(News::Events { first: 2, last: 2, events: 1 }));
    let label = "at 1s kill leader for 2s".to_owned();
    told(&story, 2_000_000, What::FaultBegan { step: 0, label, hosts: vec!["m0".into()] });
    told(&story, 2_000_000, host("m0", Change::Killed));
    told(&story, 2_100_000, member("m0", Role::Silent, (2, 3), ""));
    let text = "no answer".to_owned();
    told(&story, 3_100_000, call(0, 2_100_000, "put k = 2", Outcome::Unknown { text }));
    let text = "role role=Leader term=3".to_owned();
    told(&story, 3_200_000, What::Log { host: "m1".into(), level: "info".into(), text });
    told(&story, 3_250_000, member("m1", Role::Leader, (3, 4), "m1"));
    told(&story, 4_000_000, What::FaultEnded { step: 0 });
    told(&story, 4_000_000, host("m0", Change::Started));
    told(&story, 4_300_000, member("m0", Role::Follower, (3, 4), ""));
    let text = "etcdserver: mvcc: required revision is a future revision".to_owned();
    told(&story, 4_500_100, call(1, 4_500_000, "get k at 9", Outcome::Refused { text }));
    told(&story, 5_000_000, watch(News::Progress { revision: 3 }));
    told(&story, 5_500_000, watch(News::Ended { text: "cancelled".into() }));
    told(&story, 6_000_000, What::Phase { name: "verify".into() });
    story
}

fn told(story: &Story, at_us: u64, what: What) {
    story.note(Duration::from_micros(at_us), what);
}

fn host(host: &str, change: Change) -> What {
    What::Host { host: host.to_owned(), change }
}

fn member(host: &str, role: Role, (term, commit): (u64, u64), leader: &str) -> What {
    let (host, leader) = (host.to_owned(), leader.to_owned());
    What::Member { host, role, term, commit, applied: commit, leader }
}

fn call(client: usize, began_us: u64, call: &str, outcome: Outcome) -> What {
    let (began, call) = (Duration::from_micros(began_us), call.to_owned());
    What::Operation { client, began, workload: "kv".to_owned(), call, outcome }
}

fn answered(revision: i64) -> Outcome {
    Outcome::Answered { revision }
}

fn watch(news: News) -> What {
    What::Watch { stream: 0, host: "m1".to_owned(), news }
}

/// The events of a story by their words.
pub(super) fn at(story: &[Event], index: usize) -> String {
    super::line::Lines::new(story).what(&story[index])
}
