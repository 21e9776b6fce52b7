//! Flags that are taken and checked as etcd does and change nothing: what they tune is not there (bbolt,
//! snapshot files, the store of API v2), or is switched off. A flag with an effect
//! that matters does not belong here; it is served or refused.

use super::flags::{Flag, one_of, served, set, text};
use super::{Notice, Values, go};

/// etcd's own texts about flags that it will drop.
const DEPRECATED: &[(&str, &str)] = &[
    ("max-snapshots", "--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8."),
    (
        "v2-deprecation",
        "--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is \
         enforced, ignoring user input.",
    ),
];

/// Why the others are without effect.
const REASONS: &[(&str, &str)] = &[
    ("max-wals", "a file of the log is removed as soon as it is not needed"),
    ("backend-bbolt-freelist-type", "the store is not bbolt and has no freelist"),
    ("backend-batch-interval", "entries are written in the batches in which they are committed"),
    ("backend-batch-limit", "entries are written in the batches in which they are committed"),
    ("bootstrap-defrag-threshold-megabytes", "the store needs no defragmentation"),
    ("downgrade-check-time", "a downgrade has no end while this member is of the cluster"),
];

/// One notice for each such flag that was given.
pub(super) fn notices(values: &Values) -> Vec<Notice> {
    let given = |name: &str| values.given.contains(name);
    let deprecated = DEPRECATED.iter().filter(|(name, _)| given(name));
    let deprecated = deprecated.map(|(_, text)| Notice::Deprecated(text));
    let others = REASONS.iter().filter(|(name, _)| given(name));
    let others = others.map(|(flag, why)| Notice::WithoutEffect { flag, why });
    deprecated.chain(others).collect()
}

fn stage(value: &str) -> Result<(), String> {
    const STAGES: &[&str] =
        &["write-only", "write-only-skip-check", "write-only-drop-data", "gone"];
    let all = value.split(',').try_for_each(|stage| {
        one_of(STAGES, stage).map(drop).map_err(|why| format!("{why} {}", go::quote(stage)))
    });
    // A file may leave it empty; etcd takes anything there.
    if value.is_empty() { Ok(()) } else { all }
}

/// Any bound is kept. That there is none means in etcd that nothing is ever removed.
fn files(value: &str) -> Result<u64, String> {
    match go::uint(value)? {
        0 => Err("keeping every file of the log is not served by this version".into()),
        number => Ok(number),
    }
}

pub(super) const FLAGS: &[Flag] = &[
    served!(
        Member,
        "max-wals",
        uint,
        "5",
        set!(wals_max, files),
        "Files of the log kept at most; those that are not needed go at once."
    ),
    served!(
        Member,
        "socket-reuse-address",
        bool,
        "false",
        |_, value| go::bool(value).map(drop),
        "SO_REUSEADDR is always set, as Go does."
    ),
    served!(
        Member,
        "max-snapshots",
        uint,
        "5",
        set!(snapshots_max, go::uint),
        "Deprecated; snapshot files of etcd's kind are not kept at all."
    ),
    served!(
        Member,
        "backend-bbolt-freelist-type",
        "",
        |_, value| text(value).map(drop),
        "Without effect: the store is not bbolt."
    ),
    served!(
        Member,
        "backend-batch-interval",
        duration,
        "0",
        |_, value| go::delay(value).map(drop),
        "Without effect: entries are written in the batches in which they are committed."
    ),
    served!(
        Member,
        "backend-batch-limit",
        int,
        "0",
        |_, value| go::int(value).map(drop),
        "Without effect, like --backend-batch-interval."
    ),
    served!(
        Clustering,
        "v2-deprecation",
        "write-only",
        |_, value| stage(value),
        "Deprecated; there is no store of API v2."
    ),
    served!(
        Features,
        "bootstrap-defrag-threshold-megabytes",
        uint,
        "0",
        |_, value| go::uint(value).map(drop),
        "Without effect: the store needs no defragmentation."
    ),
    // etcd's leader looks whether all members are of the lower release, and this one never is.
    served!(
        Features,
        "downgrade-check-time",
        duration,
        "5s",
        set!(downgrade_check_time, go::delay),
        "Without effect: a downgrade has no end while this member is of the cluster."
    ),
];

/// Whether all reasons are those of flags that there are.
#[cfg(test)]
pub(super) fn is_consistent() -> bool {
    let names = DEPRECATED.iter().chain(REASONS).map(|(name, _)| name);
    names.into_iter().all(|name| super::flags::find(name).is_some())
}
