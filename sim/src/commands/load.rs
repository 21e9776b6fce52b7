//! Load on real members, in real time, steered by standard input.

use std::io::{self, BufRead as _};

use quorate::env::tokio::env;
use sim::real::{self, Settings, Word};
use tokio::sync::mpsc;

/// Whether all that the members answered was right.
pub fn run(members: usize, seed: u64, workloads: Vec<String>) -> Result<bool, String> {
    let (words, heard) = mpsc::unbounded_channel();
    // It ends with its input, or with the process.
    let reader = std::thread::Builder::new().name("words".to_owned());
    let reader = reader.spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let Some(word) = Word::read(&line) else {
                eprintln!("not understood: {line:?}");
                continue;
            };
            if words.send(word).is_err() {
                return;
            }
        }
        // The end of the input is the end of the load.
    });
    drop(reader.map_err(|error| error.to_string())?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let report = runtime
        .block_on(async { real::load(env(), &Settings { members, seed, workloads }, heard).await });
    print!("{report}");
    Ok(report.violations.is_empty())
}
