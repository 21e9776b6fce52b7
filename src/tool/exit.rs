//! How a command fails: the exit codes of etcd's tools, and the text behind `Error: `.

/// A command that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: u8,
    /// Written to standard error behind `Error: `; nothing when empty.
    pub why: String,
}

impl Exit {
    /// The request failed.
    pub const ERROR: u8 = 1;
    /// The cluster was not reached, or did not let the client in.
    pub const CONNECTION: u8 = 2;
    /// Standard input was not understood.
    pub const INPUT: u8 = 3;
    /// A flag has a value that is not supported.
    pub const FEATURE: u8 = 4;
    pub const INTERRUPTED: u8 = 5;
    pub const ARGUMENTS: u8 = 128;

    pub fn new(code: u8, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    pub fn error(why: impl Into<String>) -> Self {
        Self::new(Self::ERROR, why)
    }

    pub fn arguments(why: impl Into<String>) -> Self {
        Self::new(Self::ARGUMENTS, why)
    }

    /// A failure whose text was written already.
    pub fn silent(code: u8) -> Self {
        Self::new(code, "")
    }
}

impl From<std::io::Error> for Exit {
    /// A closed pipe ends the command without a word.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::silent(Self::ERROR),
            _ => Self::error(error.to_string()),
        }
    }
}
