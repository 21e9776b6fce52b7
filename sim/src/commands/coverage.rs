//! What a sweep makes use of: RPCs, fields and values at which roles, steps of the nemesis, workloads, marks;
//! and what of all that it never does.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use sim::coverage::Uses;
use sim::facts::marks;
use sim::nemesis::Fault;
use sim::play::play_covered;
use sim::swarm;
use sim::workload;

use super::sweep::Counts;

/// Whether every RPC and every field was used, every step taken and every mark reached.
pub fn run(seeds: Range<u64>, jobs: Option<usize>) -> Result<bool, String> {
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let next = AtomicU64::new(seeds.start);
    let (mut uses, mut counts) = (Uses::default(), Counts::default());
    let mut workloads = BTreeSet::new();
    thread::scope(|scope| {
        let (sender, played) = channel();
        for _ in 0..jobs {
            let (next, sender, end) = (&next, sender.clone(), seeds.end);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    let plan = swarm::draw(seed);
                    let names: Vec<_> =
                        plan.clients.iter().map(|client| client.workload.clone()).collect();
                    let _ = sender.send((names, play_covered(&plan)));
                }
            });
        }
        drop(sender);
        for (names, (verdict, used)) in played {
            workloads.extend(names);
            counts.add(&verdict.marks);
            uses.extend(used);
        }
    });
    print!("{}", uses.table());
    counts.print();
    let missing = uses.missing();
    let steps = Fault::NAMES.iter().map(|name| format!("step {name}"));
    let steps: Vec<_> = steps.filter(|name| !counts.has(name)).collect();
    let unmarked: Vec<_> =
        marks::known().map(|(name, _)| name).filter(|name| !counts.has(name)).collect();
    let idle: Vec<_> = workload::NAMES.iter().filter(|name| !workloads.contains(**name)).collect();
    println!("RPCs never called: {:?}", missing.rpcs);
    println!("fields never set: {:?}", missing.fields);
    println!("edges never passed: {:?}", missing.edges);
    println!("steps never taken: {steps:?}");
    println!("marks never reached: {unmarked:?}");
    println!("workloads never at work: {idle:?}");
    Ok([missing.rpcs.len(), missing.fields.len(), steps.len(), unmarked.len()] == [0; 4])
}
