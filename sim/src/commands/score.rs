//! Planted faults and how soon each is caught: one of them, or all, as a table.

use std::collections::BTreeMap;
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

const HEADER: [&str; 6] =
    ["fault", "what the server does wrong", "like", "caught by", "seeds", "hours"];
/// Stands in the place of seeds and hours.
const NOT_CAUGHT: &str = "-";

type Row = [String; HEADER.len()];
type Hunted = (&'static Fault, Option<Caught>);

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

/// Hunts all, or those that the README's table does not have; whether all were caught.
pub fn all(jobs: Option<usize>, seeds: u64, only_new: bool, write: bool) -> Result<bool, String> {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let mut rows = if only_new { listed(&readme()?)? } else { BTreeMap::new() };
    rows.retain(|_, row| place(row).is_some_and(|n| plant::ALL[n].does == row[1]));
    let hunted: Vec<_> = plant::ALL.iter().filter(|fault| !rows.contains_key(fault.name)).collect();
    for (fault, caught) in hunt(&hunted, jobs, seeds)? {
        rows.insert(fault.name.to_owned(), row(fault, caught.as_ref()));
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(place);
    println!("{}", table(&rows, presets::UTF8_FULL_CONDENSED));
    println!("{}", summary(&rows));
    if write {
        let text = format!("{}\n\n{}\n", table(&rows, presets::ASCII_MARKDOWN), summary(&rows));
        write_readme(&text)?;
    }
    Ok(rows.iter().all(is_caught))
}

fn hunt(faults: &[&'static Fault], jobs: usize, seeds: u64) -> Result<Vec<Hunted>, String> {
    let bar = ProgressBar::new(faults.len() as u64);
    bar.set_style(ProgressStyle::with_template(BAR).expect("a valid template"));
    let next = AtomicUsize::new(0);
    let mut rows = Vec::new();
    thread::scope(|scope| {
        let (found, hunted) = channel();
        for _ in 0..jobs {
            let (next, found) = (&next, found.clone());
            scope.spawn(move || {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _ = found.send((*fault, look_for(fault, 0..seeds)));
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
    Ok(rows)
}

fn told(by: By) -> String {
    match by {
        By::Seed(seed) => format!("seed {seed}"),
        By::Script(name) => format!("{name}.sim"),
    }
}

fn row(fault: &Fault, caught: Option<&Caught>) -> Row {
    let [by, seeds, hours] = match caught {
        Some(caught) => [
            format!("{}: {}", caught.checker, caught.property),
            match caught.by {
                By::Seed(_) => caught.seeds.to_string(),
                By::Script(_) => told(caught.by),
            },
            format!("{:.2}", caught.simulated.as_secs_f64() / 3600.0),
        ],
        None => ["none".to_owned(), NOT_CAUGHT.to_owned(), NOT_CAUGHT.to_owned()],
    };
    [fault.name.to_owned(), fault.does.to_owned(), fault.like.to_owned(), by, seeds, hours]
}

fn is_caught(row: &Row) -> bool {
    row[4] != NOT_CAUGHT
}

/// The place of a row's fault among all; none if there is no such fault any more.
fn place(row: &Row) -> Option<usize> {
    plant::ALL.iter().position(|fault| fault.name == row[0])
}

fn table(rows: &[Row], preset: &str) -> Table {
    let mut table = Table::new();
    table.load_preset(preset).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(HEADER);
    rows.iter().for_each(|row| {
        table.add_row(row);
    });
    table
}

/// The rows of the README's table by the names of their faults.
fn listed(readme: &str) -> Result<BTreeMap<String, Row>, String> {
    let (_, table, _) = around(readme)?;
    let rows = table.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()));
    let rows = cells.filter_map(|cells| Row::try_from(cells.collect::<Vec<_>>()).ok());
    Ok(rows.map(|row| (row[0].clone(), row)).collect())
}

fn summary(rows: &[Row]) -> String {
    let mut seeds: Vec<u64> = rows.iter().filter_map(|row| row[4].parse().ok()).collect();
    seeds.sort_unstable();
    let median = seeds.get(seeds.len() / 2).copied().unwrap_or(0);
    format!(
        "{} of {} faults caught, {} by seeds, the median within {median}.",
        rows.iter().filter(|row| is_caught(row)).count(),
        rows.len(),
        seeds.len()
    )
}

fn readme() -> Result<String, String> {
    fs::read_to_string(README).map_err(|error| format!("{README}: {error}"))
}

/// What stands before the table, the table, and what stands behind it.
fn around(readme: &str) -> Result<(&str, &str, &str), String> {
    let (before, rest) =
        readme.split_once(MARKS.0).ok_or("the README has no place for the table")?;
    let (table, after) =
        rest.split_once(MARKS.1).ok_or("the table's place in the README has no end")?;
    Ok((before, table, after))
}

fn write_readme(table: &str) -> Result<(), String> {
    let text = readme()?;
    let (before, _, after) = around(&text)?;
    let text = format!("{before}{}{table}{}{after}", MARKS.0, MARKS.1);
    fs::write(README, text).map_err(|error| format!("{README}: {error}"))
}
