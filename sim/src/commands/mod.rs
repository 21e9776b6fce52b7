//! What each command does; they share how a plan is found and where a failed one is kept.

pub mod branch;
pub mod coverage;
pub mod load;
pub mod replay;
pub mod score;
pub mod shrink;
pub mod sweep;
pub mod why;

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

use sim::plan::{Branch, Plan};
use sim::swarm;
use sim::units::{read_time, show_time};

/// A run by its seed, as `42`, or as `42@12.5s:7`: the run of seed 42, in which all random numbers are those
/// of seed 7 from that moment on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    pub seed: u64,
    pub branch: Option<Branch>,
}

impl Seed {
    pub fn plan(self) -> Plan {
        Plan { branch: self.branch, ..swarm::draw(self.seed) }
    }
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no seed"));
        let Some((seed, rest)) = text.split_once('@') else {
            return Ok(Self { seed: number(text)?, branch: None });
        };
        let (at, of) = rest.split_once(':').ok_or("SEED@MOMENT:SEED, as in 42@12.5s:7")?;
        let branch = Branch { at: read_time(at)?, seed: number(of)? };
        Ok(Self { seed: number(seed)?, branch: Some(branch) })
    }
}

/// As [`Seed`] is read.
pub fn name_of(plan: &Plan) -> String {
    match plan.branch {
        None => plan.seed.to_string(),
        Some(Branch { at, seed }) => format!("{}@{}:{seed}", plan.seed, show_time(at)),
    }
}

/// The plan of a seed or of a file.
pub fn plan_of(seed: Option<Seed>, script: Option<PathBuf>) -> Result<Plan, String> {
    match (seed, script) {
        (Some(seed), _) => Ok(seed.plan()),
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
