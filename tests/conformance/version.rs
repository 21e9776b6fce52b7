//! Versions of etcd, and the ranges of versions that files of cases use. Nothing else about releases.

use std::fmt;
use std::path::Path;
use std::process::Command;

/// `3.5.30` is three numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(Vec<u32>);

impl Version {
    /// The version that `etcd --version` prints.
    pub fn of(program: &Path) -> Self {
        let output = Command::new(program).arg("--version").output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = text.lines().find_map(|line| line.strip_prefix("etcd Version: "));
        Self::parse(version.unwrap_or_else(|| panic!("{} says {text}", program.display())))
            .expect("etcd's version is made of numbers")
    }

    fn parse(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.parse().map_err(|e| format!("{text}: {e}"));
        text.trim().split('.').map(number).collect::<Result<_, _>>().map(Self)
    }

    fn starts_with(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// Some versions: `*` all, `3.5` those that begin so, `3.5.2..` from that one on, `..3.5.1` up to that
/// one or those that begin so, `3.4,3.6..` several of these.
#[derive(Clone, Debug)]
pub enum Versions {
    All,
    Like(Version),
    From(Version),
    UpTo(Version),
    Several(Vec<Self>),
}

impl Versions {
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        if text.contains(',') {
            return text.split(',').map(Self::parse).collect::<Result<_, _>>().map(Self::Several);
        }
        if let Some(last) = text.strip_prefix("..") {
            return Version::parse(last).map(Self::UpTo);
        }
        match text.strip_suffix("..") {
            Some(first) => Version::parse(first).map(Self::From),
            None => Version::parse(text).map(Self::Like),
        }
    }

    pub fn contain(&self, version: &Version) -> bool {
        match self {
            Self::All => true,
            Self::Like(start) => version.starts_with(start),
            Self::From(first) => version.0 >= first.0,
            Self::Several(versions) => versions.iter().any(|some| some.contain(version)),
            Self::UpTo(last) => version.0 <= last.0 || version.starts_with(last),
        }
    }
}
