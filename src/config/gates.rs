//! `--feature-gates`: names and what they are set to, in the syntax and with the texts of etcd's
//! `pkg/featuregate`. Which gates this version serves stands here, too; what they do does not.

use std::collections::BTreeMap;

use super::go;

/// What was set, by name. What was not is as etcd 3.7 has it by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gates(BTreeMap<&'static str, bool>);

/// One of etcd's gates.
struct Gate {
    name: &'static str,
    /// Whether it is on by default, as etcd's gates of stage beta are.
    beta: bool,
    serves: Serves,
}

enum Serves {
    Both,
    /// Only what it is by default.
    Default,
}

const fn gate(name: &'static str, beta: bool, serves: Serves) -> Gate {
    Gate { name, beta, serves }
}

const ALL_ALPHA: &str = "AllAlpha";
const ALL_BETA: &str = "AllBeta";

const GATES: &[Gate] = &[
    // There is no defragmentation during which anything could stop.
    gate("StopGRPCServiceOnDefrag", false, Serves::Both),
    gate("InitialCorruptCheck", false, Serves::Both),
    gate("CompactHashCheck", false, Serves::Both),
    // About etcd's backend.
    gate("TxnModeWriteWithSharedBuffer", true, Serves::Both),
    gate("LeaseCheckpoint", false, Serves::Both),
    gate("LeaseCheckpointPersist", false, Serves::Both),
    gate("SetMemberLocalAddr", false, Serves::Default),
    // About how long a keep-alive waits; ours is confirmed by a quorum either way.
    gate("FastLeaseKeepAlive", true, Serves::Both),
    gate("PriorityRequest", false, Serves::Default),
];

impl Gates {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut set = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", part.trim())),
            };
            let value = go::bool(value).map_err(|_| {
                let why =
                    format!("strconv.ParseBool: parsing {}: invalid syntax", go::quote(value));
                format!("invalid value of {name}={value}, err: {why}")
            })?;
            let known = [ALL_ALPHA, ALL_BETA].into_iter().chain(GATES.iter().map(|gate| gate.name));
            let known = known.into_iter().find(|known| *known == name);
            let name = known.ok_or_else(|| format!("unrecognized feature gate: {name}"))?;
            set.insert(name, value);
        }
        Ok(Self(set))
    }

    /// Whether the gate of that name is on.
    pub fn is_on(&self, name: &str) -> bool {
        let gate = GATES.iter().find(|gate| gate.name == name);
        gate.is_some_and(|gate| self.state(gate))
    }

    /// Every gate with its stage and whether it is on, for the metric.
    pub fn list(&self) -> Vec<(&'static str, &'static str, bool)> {
        let listed = GATES.iter();
        listed.map(|gate| (gate.name, stage(gate), self.state(gate))).collect()
    }

    /// The first that is set to what this version does not serve.
    pub fn unserved(&self) -> Option<&'static str> {
        let serves = |gate: &&Gate| match gate.serves {
            Serves::Both => true,
            Serves::Default => self.state(gate) == gate.beta,
        };
        GATES.iter().find(|gate| !serves(gate)).map(|gate| gate.name)
    }

    fn state(&self, gate: &Gate) -> bool {
        let all = if gate.beta { ALL_BETA } else { ALL_ALPHA };
        let set = self.0.get(gate.name).or_else(|| self.0.get(all));
        set.copied().unwrap_or(gate.beta)
    }
}

fn stage(gate: &Gate) -> &'static str {
    if gate.beta { "BETA" } else { "ALPHA" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_as_etcd_reads_them() {
        let on = |text: &str, name| Gates::parse(text).map(|gates| gates.is_on(name));
        assert_eq!(on("", "InitialCorruptCheck"), Ok(false));
        assert_eq!(on("", "FastLeaseKeepAlive"), Ok(true));
        assert_eq!(on(" InitialCorruptCheck = 1 ,", "InitialCorruptCheck"), Ok(true));
        assert_eq!(on("AllAlpha=true,CompactHashCheck=false", "CompactHashCheck"), Ok(false));
        assert_eq!(on("AllAlpha=true", "LeaseCheckpoint"), Ok(true));
        assert_eq!(on("AllBeta=false", "FastLeaseKeepAlive"), Ok(false));
        let refused = |text: &str| Gates::parse(text).expect_err("it is refused");
        assert_eq!(refused("What=true"), "unrecognized feature gate: What");
        assert_eq!(refused("LeaseCheckpoint"), "missing bool value for LeaseCheckpoint");
        assert_eq!(
            refused("LeaseCheckpoint=yes"),
            "invalid value of LeaseCheckpoint=yes, err: strconv.ParseBool: parsing \"yes\": \
             invalid syntax"
        );
    }

    #[test]
    fn what_is_not_served_is_named() {
        let unserved = |text: &str| Gates::parse(text).expect("it parses").unserved();
        assert_eq!(unserved("SetMemberLocalAddr=false,StopGRPCServiceOnDefrag=true"), None);
        assert_eq!(unserved("PriorityRequest=true"), Some("PriorityRequest"));
        assert_eq!(unserved("AllAlpha=true"), Some("SetMemberLocalAddr"));
        assert_eq!(unserved("AllAlpha=true,SetMemberLocalAddr=false"), Some("PriorityRequest"));
    }
}
