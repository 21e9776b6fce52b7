//! raft's log lines on our own log. What raft calls info is one line a message or more, so it is
//! debug here; the driver logs what an operator needs.

use tracing::{debug, trace, warn};

/// Formats a record only when its level is enabled.
struct Forward;

impl slog::Drain for Forward {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &slog::Record, values: &slog::OwnedKVList) -> Result<(), slog::Never> {
        let _ = values;
        let message = record.msg();
        match record.level() {
            slog::Level::Critical | slog::Level::Error => warn!(target: "raft", "{message}"),
            slog::Level::Warning | slog::Level::Info => debug!(target: "raft", "{message}"),
            slog::Level::Debug | slog::Level::Trace => trace!(target: "raft", "{message}"),
        }
        Ok(())
    }
}

pub fn logger() -> slog::Logger {
    slog::Logger::root(Forward, slog::o!())
}
