//! A line at error level means an unexpected failure: the run has failed, unless the nemesis made the disk of
//! that member fail.

use tracing::Level;

use super::bounded;
use crate::facts::evidence::Record;
use crate::facts::verdict::{Proof, Violation};

/// Every error that no fault explains.
pub fn check(record: &Record) -> Vec<Violation> {
    let errors = record.seen.lines.iter().filter(|line| line.level == Level::ERROR);
    let told = errors.filter(|line| !record.seen.harm.contains_key(&line.host)).map(|line| {
        let proof = Proof::Member { host: line.host.clone(), at_us: line.at.as_micros() as u64 };
        let text = format!("{}: {}", line.host, line.text);
        Violation::new("logs", "nothing is logged as an error", text).proved_by(proof)
    });
    bounded(told.collect())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Harm;
    use crate::facts::seen::LogLine;

    #[test]
    fn errors_are_told_unless_the_disk_was_harmed() {
        let line = |level| {
            let (at, text) = (Duration::from_secs(1), "history cannot be read".to_owned());
            LogLine { at, host: "m0".into(), level, text }
        };
        let mut record = Record::default();
        record.seen.lines.push(line(Level::WARN));
        assert!(check(&record).is_empty());
        record.seen.lines.push(line(Level::ERROR));
        assert_eq!(check(&record).len(), 1);
        record.seen.harm.insert("m0".into(), Harm { failed: 1, ..Harm::default() });
        assert!(check(&record).is_empty());
    }
}
