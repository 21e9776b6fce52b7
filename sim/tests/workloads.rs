//! Each workload on a cluster without faults: its requests are valid, they are answered, and the checkers
//! find no violation. Behaviour under faults is tested by the plans of seeds.

use std::time::Duration;

use sim::plan::{ClientPlan, Plan};
use sim::play::play;
use sim::workload::{NAMES, SCRIPTED};

/// Fewer answers than this and a run has shown nothing.
const ANSWERS_MIN: usize = 40;

fn alone(workload: &str) -> Plan {
    let clients = (0..3).map(|number| ClientPlan::new(number, workload)).collect();
    Plan { clients, lasts: Duration::from_secs(8), ..Plan::calm(1) }
}

/// Those that need a cluster made for them have a script.
#[test]
fn nothing_is_found_in_calm() {
    for workload in NAMES.iter().filter(|name| !SCRIPTED.contains(name)) {
        let verdict = play(&alone(workload));
        let found: Vec<_> = verdict.violations.iter().map(ToString::to_string).collect();
        assert!(found.is_empty(), "{workload}:\n{}", found.join("\n"));
        assert!(verdict.answered >= ANSWERS_MIN, "{workload}: {} answers", verdict.answered);
    }
}
