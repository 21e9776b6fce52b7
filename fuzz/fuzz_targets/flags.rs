//! Any command line and any variables are parsed or refused. Lines of the input are words, and behind
//! an empty line variables.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quorate::config::{self, Command};

fuzz_target!(|input: &str| {
    let (words, variables) = input.split_once("\n\n").unwrap_or((input, ""));
    let words: Vec<String> = words.lines().map(str::to_owned).collect();
    let variables: Vec<(String, String)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("ETCD_{name}"), value.to_owned()))
        .collect();
    if let Ok((Command::Run(config), _)) = config::parse(&words, &variables) {
        assert!(config.election_timeout >= 5 * config.heartbeat);
        assert!(!config.heartbeat.is_zero());
        let _ = config.check_first_start();
    }
});
