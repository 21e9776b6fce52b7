//! One run and its report.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use sim::facts::verdict::Verdict;
use sim::plan::Plan;
use sim::play::play;
use sim::report;

/// Whether it passed.
pub fn run(plan: &Plan, html: Option<&Path>, brief: bool) -> Result<bool, String> {
    let verdict = play(plan);
    if brief {
        print!("{}", verdict.plan);
        print(&verdict);
    } else if let Err(error) = io::stdout().write_all(report::text(&verdict).as_bytes()) {
        // The reader of the output may be gone.
        let wanted = error.kind() == io::ErrorKind::BrokenPipe && html.is_none();
        return if wanted { Ok(verdict.passed()) } else { Err(error.to_string()) };
    }
    if let Some(file) = html {
        let name = file.display();
        let written = fs::write(file, report::html(&verdict));
        written.map_err(|error| format!("{name}: {error}"))?;
        println!("the page is in {name}");
    }
    Ok(verdict.passed())
}

/// The verdict in a few lines.
pub fn print(verdict: &Verdict) {
    let Verdict { seed, violations, answered, revision, simulated, digest, .. } = verdict;
    for violation in violations {
        println!("VIOLATION {violation}");
    }
    let outcome = if violations.is_empty() { "passed" } else { "FAILED" };
    let seconds = simulated.as_secs_f64();
    println!(
        "seed {seed} {outcome}: {answered} answers, revision {revision}, {seconds:.1} simulated \
         seconds, digest {digest:016x}"
    );
}
