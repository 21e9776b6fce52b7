//! Planted faults and how soon each is caught: one of them, or all, as a table.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use quorate::plant::{self, Fault};
use sim::plan::Plan;
use sim::play::{play, play_with};
use sim::score::{By, Caught, look_for};

const BAR: &str = "{bar:30} {pos}/{len} faults, {elapsed}, {msg}";
/// Between these lines of the README stands the table.
const MARKS: (&str, &str) = ("<!-- score: begin -->\n", "<!-- score: end -->\n");
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");

type Row = (&'static Fault, Option<Caught>);

/// Hunts one fault, in a plan or in its own scenario or seeds; whether it was caught.
pub fn one(name: &str, seeds: u64, plan: Option<&Plan>) -> Result<bool, String> {
    let fault = plant::ALL.iter().find(|fault| fault.name == name).ok_or_else(|| {
        let names: Vec<_> = plant::ALL.iter().map(|fault| fault.name).collect();
        format!("no planted fault is called {name}; there are {}", names.join(" "))
    })?;
    println!("{}: {}", fault.name, fault.does);
    if let Some(plan) = plan {
        return Ok(scenario(plan, fault));
    }
    let caught = look_for(fault, 0..seeds)?;
    match &caught {
        Some(caught) => println!(
            "caught with {} after {} simulated seconds by {}: {}",
            told(caught.by),
            caught.simulated.as_secs(),
            caught.checker,
            caught.property
        ),
        None => println!("not caught"),
    }
    Ok(caught.is_some())
}

/// Prints all violations of one plan; returns whether there are more than without the fault.
fn scenario(plan: &Plan, fault: &Fault) -> bool {
    let verdict = play_with(plan, Some(fault.name));
    verdict.violations.iter().for_each(|violation| println!("VIOLATION {violation}"));
    let proves = play(plan).passed();
    if !proves {
        println!("the scenario fails without the fault");
    }
    proves && !verdict.passed()
}

/// Hunts all; whether all were caught.
pub fn all(jobs: Option<usize>, seeds: u64, write: bool) -> Result<bool, String> {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let rows = hunt_all(jobs, seeds)?;
    println!("{}", table(&rows, presets::UTF8_FULL_CONDENSED));
    println!("{}", summary(&rows));
    if write {
        let text = format!("{}\n\n{}\n", table(&rows, presets::ASCII_MARKDOWN), summary(&rows));
        write_readme(&text)?;
    }
    Ok(rows.iter().all(|(_, caught)| caught.is_some()))
}

fn hunt_all(jobs: usize, seeds: u64) -> Result<Vec<Row>, String> {
    let bar = ProgressBar::new(plant::ALL.len() as u64);
    bar.set_style(ProgressStyle::with_template(BAR).expect("a valid template"));
    let next = AtomicUsize::new(0);
    let mut rows: Vec<Row> = Vec::new();
    thread::scope(|scope| {
        let (found, hunted) = channel();
        for _ in 0..jobs {
            let (next, found) = (&next, found.clone());
            scope.spawn(move || {
                while let Some(fault) = plant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _ = found.send((fault, look_for(fault, 0..seeds)));
                }
            });
        }
        drop(found);
        for (fault, caught) in hunted {
            let caught = caught?;
            bar.inc(1);
            bar.set_message(fault.name);
            match &caught {
                Some(caught) if bar.is_hidden() => println!("{}: {}", fault.name, told(caught.by)),
                Some(_) => {}
                None => bar.suspend(|| println!("{} was not caught", fault.name)),
            }
            rows.push((fault, caught));
        }
        Ok::<_, String>(())
    })?;
    bar.finish_and_clear();
    let place = |fault: &Fault| plant::ALL.iter().position(|one| one.name == fault.name);
    rows.sort_by_key(|(fault, _)| place(fault));
    Ok(rows)
}

fn told(by: By) -> String {
    match by {
        By::Seed(seed) => format!("seed {seed}"),
        By::Script(name) => format!("{name}.sim"),
    }
}

fn table(rows: &[Row], preset: &str) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header([
        "fault",
        "what the server does wrong",
        "like",
        "caught by",
        "seeds",
        "hours",
    ]);
    for (fault, caught) in rows {
        let (by, seeds, hours) = match caught {
            Some(caught) => (
                format!("{}: {}", caught.checker, caught.property),
                match caught.by {
                    By::Seed(_) => caught.seeds.to_string(),
                    By::Script(_) => told(caught.by),
                },
                format!("{:.2}", caught.simulated.as_secs_f64() / 3600.0),
            ),
            None => ("nobody".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        table.add_row([fault.name, fault.does, fault.like, &by, &seeds, &hours]);
    }
    table
}

fn summary(rows: &[Row]) -> String {
    let caught = || rows.iter().filter_map(|(_, caught)| caught.as_ref());
    let mut seeds: Vec<_> =
        caught().filter(|caught| matches!(caught.by, By::Seed(_))).map(|one| one.seeds).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    format!(
        "{} of {} faults caught, {} by seeds, the median within {median}.",
        caught().count(),
        rows.len(),
        seeds.len()
    )
}

fn write_readme(table: &str) -> Result<(), String> {
    let text = fs::read_to_string(README).map_err(|error| format!("{README}: {error}"))?;
    let (before, rest) = text.split_once(MARKS.0).ok_or("the README has no place for the table")?;
    let (_, after) =
        rest.split_once(MARKS.1).ok_or("the table's place in the README has no end")?;
    let text = format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1);
    fs::write(README, text).map_err(|error| format!("{README}: {error}"))
}
