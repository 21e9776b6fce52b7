//! What each command does; they share how a plan is found and where a failed one is kept.

pub mod replay;
pub mod score;
pub mod shrink;
pub mod sweep;

use std::fs;
use std::path::PathBuf;

use sim::plan::Plan;
use sim::swarm;

/// The plan of a seed or of a file.
pub fn plan_of(seed: Option<u64>, script: Option<PathBuf>) -> Result<Plan, String> {
    match (seed, script) {
        (Some(seed), _) => Ok(swarm::draw(seed)),
        (None, Some(file)) => {
            let name = file.display();
            let text = fs::read_to_string(&file).map_err(|error| format!("{name}: {error}"))?;
            text.parse().map_err(|error| format!("{name}: {error}"))
        }
        (None, None) => Err("a seed or a script is needed".to_owned()),
    }
}

/// Writes a plan to a file, and prints its path.
pub fn keep(plan: &str, name: &str) -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join("quorate-sim");
    let file = folder.join(format!("{name}.sim"));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, plan));
    written.map(|()| file.clone()).map_err(|error| format!("{}: {error}", file.display()))
}
