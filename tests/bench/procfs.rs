//! What the system knows about a process: CPU time used and memory resident.

use std::fs;
use std::time::Duration;

/// User and system time since the process began, over all its threads.
pub fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // The name in parentheses may hold spaces; what follows it does not. utime and stime are fields 14
    // and 15 of proc(5), so 11 and 12 after the name.
    let (_, after_name) = stat.rsplit_once(") ").expect("stat has a name in parentheses");
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks: u64 = fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap_or(0)).sum();
    // USER_HZ is 100 on every Linux that has it in user space.
    Duration::from_millis(ticks * 10)
}

/// Bytes resident now.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the server runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("in kB");
    kib.parse::<u64>().expect("a number") * 1024
}
