//! `--feature-gates`: etcd 3.7's names, stages and texts. What a gate switches is not known here.

use std::collections::BTreeMap;

use super::go;

/// How far etcd takes a feature to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Alpha,
    Beta,
}

impl Stage {
    fn text(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
        }
    }
}

struct Gate {
    name: &'static str,
    stage: Stage,
    default: bool,
}

const fn gate(name: &'static str, stage: Stage, default: bool) -> Gate {
    Gate { name, stage, default }
}

/// In the order of their names. Each is served on and off, or both are the same here.
const GATES: &[Gate] = &[
    gate("CompactHashCheck", Stage::Alpha, false),
    // About how long a keep-alive waits; ours is confirmed by a quorum either way.
    gate("FastLeaseKeepAlive", Stage::Beta, true),
    gate("InitialCorruptCheck", Stage::Alpha, false),
    gate("LeaseCheckpoint", Stage::Alpha, false),
    // What is left of a lease is always kept.
    gate("LeaseCheckpointPersist", Stage::Alpha, false),
    // The ends of leases always have a reserve.
    gate("PriorityRequest", Stage::Alpha, false),
    gate("SetMemberLocalAddr", Stage::Alpha, false),
    // A defragmentation has nothing to do and takes no time.
    gate("StopGRPCServiceOnDefrag", Stage::Alpha, false),
    // How etcd's read transactions share memory.
    gate("TxnModeWriteWithSharedBuffer", Stage::Beta, true),
];

/// These switch all gates of their stage that are not named themselves.
const ALL: &[(&str, Stage)] = &[("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];

/// The gates as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gates(BTreeMap<&'static str, bool>);

impl Gates {
    /// `Name=true,Name=false`: an empty part is passed over, of a name that comes twice the last counts.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut given = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("missing bool value for {}", part.trim()))?;
            let (name, value) = (name.trim(), value.trim());
            let value = go::bool(value).map_err(|_| {
                let parsing = go::quote(value);
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {parsing}: \
                     invalid syntax"
                )
            })?;
            given.insert(known(name)?, value);
        }
        let named = given.clone();
        for (all, stage) in ALL {
            let Some(value) = named.get(all) else { continue };
            for gate in GATES.iter().filter(|gate| gate.stage == *stage) {
                given.entry(gate.name).or_insert(*value);
            }
        }
        Ok(Self(given))
    }

    pub fn is_on(&self, name: &str) -> bool {
        let gate = GATES.iter().find(|gate| gate.name == name);
        let gate = gate.expect("only known gates are looked up");
        self.0.get(gate.name).copied().unwrap_or(gate.default)
    }

    /// Every gate with its stage and whether it is on, for the metric.
    pub fn list(&self) -> Vec<(&'static str, &'static str, bool)> {
        let row = |gate: &Gate| (gate.name, gate.stage.text(), self.is_on(gate.name));
        GATES.iter().map(row).collect()
    }

    /// Whether they go together.
    pub fn check(&self) -> Result<(), String> {
        if self.is_on("LeaseCheckpointPersist") && !self.is_on("LeaseCheckpoint") {
            return Err("enabling feature gate LeaseCheckpointPersist requires enabling feature \
                        gate LeaseCheckpoint"
                .into());
        }
        Ok(())
    }
}

/// Those that were given, as etcd logs them.
impl std::fmt::Display for Gates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let given: Vec<_> = self.0.iter().map(|(name, on)| format!("{name}={on}")).collect();
        f.write_str(&given.join(","))
    }
}

fn known(name: &str) -> Result<&'static str, String> {
    let names = GATES.iter().map(|gate| gate.name).chain(ALL.iter().map(|(all, _)| *all));
    let found = names.into_iter().find(|known| *known == name);
    found.ok_or_else(|| format!("unrecognized feature gate: {name}"))
}

/// One line a gate, as etcd's `--help` lists them.
pub(super) fn lines() -> Vec<String> {
    let all = ALL.iter().map(|(name, stage)| (*name, *stage, false));
    let gates = GATES.iter().map(|gate| (gate.name, gate.stage, gate.default));
    let mut lines: Vec<String> = all
        .chain(gates)
        .map(|(name, stage, default)| {
            format!("{name}=true|false ({} - default={default})", stage.text())
        })
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_has_etcds_text() {
        let error = |text| Gates::parse(text).expect_err("not what etcd takes");
        assert_eq!(error("Nonsense=true"), "unrecognized feature gate: Nonsense");
        assert_eq!(error("leaseCheckpoint=true"), "unrecognized feature gate: leaseCheckpoint");
        assert_eq!(error("LeaseCheckpoint"), "missing bool value for LeaseCheckpoint");
        assert_eq!(
            error("LeaseCheckpoint=yes"),
            "invalid value of LeaseCheckpoint=yes, err: strconv.ParseBool: parsing \"yes\": \
             invalid syntax"
        );
    }

    #[test]
    fn gates_are_switched_one_by_one_and_together() {
        let gates = |text| Gates::parse(text).expect("a valid list");
        assert_eq!(gates(""), Gates::default());
        assert_eq!(gates("PriorityRequest=t,AllBeta=0").to_string(), {
            "AllBeta=false,FastLeaseKeepAlive=false,PriorityRequest=true,\
             TxnModeWriteWithSharedBuffer=false"
        });
        assert!(gates("").is_on("FastLeaseKeepAlive") && !gates("").is_on("PriorityRequest"));
        assert!(gates(" PriorityRequest = t ,").is_on("PriorityRequest"));
        let most = gates("LeaseCheckpoint=false,AllAlpha=true");
        assert!(most.is_on("PriorityRequest") && !most.is_on("LeaseCheckpoint"));
        assert!(!gates("AllBeta=false").is_on("TxnModeWriteWithSharedBuffer"));
    }

    #[test]
    fn all_gates_are_listed_with_what_they_are_set_to() {
        let listed = Gates::parse("LeaseCheckpoint=true").expect("a valid list").list();
        assert_eq!(listed.len(), GATES.len());
        assert!(listed.contains(&("LeaseCheckpoint", "ALPHA", true)), "{listed:?}");
        assert!(listed.contains(&("FastLeaseKeepAlive", "BETA", true)), "{listed:?}");
        assert!(listed.contains(&("CompactHashCheck", "ALPHA", false)), "{listed:?}");
    }

    #[test]
    fn one_gate_wants_another() {
        let check = |text| Gates::parse(text).expect("a valid list").check();
        let all = "AllBeta=false,AllAlpha=true,StopGRPCServiceOnDefrag=true";
        assert_eq!(check(all), Ok(()), "all are served on and off");
        assert_eq!(
            check("LeaseCheckpointPersist=true"),
            Err("enabling feature gate LeaseCheckpointPersist requires enabling feature gate \
                 LeaseCheckpoint"
                .into())
        );
    }
}
