//! The release that a member behaves as. A shipped member has only its own. In the simulator a member can
//! behave as one of an older release of etcd, in what matters to a mixed cluster: its version, the entries
//! that it writes, and what it recovers from a snapshot. Follows etcd 3.5 `etcdserver/server.go`
//! (`publish`, `updateClusterVersionV2`, `sync`, `applySnapshot`).

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// The release of this program.
    #[default]
    Own,
    /// Has no v2 store, but recovers one from every snapshot.
    #[cfg(feature = "plant")]
    Etcd3_6,
    /// Writes its attributes and the cluster's version into the v2 store.
    #[cfg(feature = "plant")]
    Etcd3_5,
}

impl Release {
    /// Whether it is the release of this program.
    pub fn is_own(self) -> bool {
        self == Self::Own
    }
}

#[cfg(not(feature = "plant"))]
mod own {
    use bytes::Bytes;
    use quorate_proto::raftpb::Snapshot;

    use super::Release;
    use crate::apply::Request;

    impl Release {
        pub fn older(self) -> Option<(&'static str, &'static str)> {
            None
        }

        pub fn entry(self, _id: u64, _request: &Request) -> Option<Bytes> {
            None
        }

        pub fn sync(self) -> Option<Bytes> {
            None
        }

        pub fn recover(self, _snapshot: &Snapshot) -> Result<(), String> {
            Ok(())
        }
    }
}

#[cfg(feature = "plant")]
mod older {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use quorate_proto::raftpb::Snapshot;
    use serde_json::{Value, json};

    use super::Release;
    use crate::apply::{Request, v2};

    impl Release {
        /// Its version and its cluster version; `None` for the release of this program.
        pub fn older(self) -> Option<(&'static str, &'static str)> {
            match self {
                Self::Own => None,
                Self::Etcd3_6 => Some(("3.6.16", "3.6.0")),
                Self::Etcd3_5 => Some(("3.5.30", "3.5.0")),
            }
        }

        /// The entry of a request for which this release has another encoding.
        pub fn entry(self, id: u64, request: &Request) -> Option<Bytes> {
            let (path, value) = match request {
                Request::ClusterMemberAttrSet(set) => {
                    let own = set.member_attributes.clone().unwrap_or_default();
                    let json = json!({"name": own.name, "clientURLs": own.client_urls});
                    (format!("/0/members/{:x}/attributes", set.member_id), json.to_string())
                }
                Request::ClusterVersionSet(set) => ("/0/version".to_owned(), set.ver.clone()),
                _ => return None,
            };
            (self == Self::Etcd3_5).then(|| v2::payload(id, "PUT", &path, &value).into())
        }

        /// The entry that a leader proposes periodically to expire keys of the v2 store.
        pub fn sync(self) -> Option<Bytes> {
            (self == Self::Etcd3_5).then(|| v2::payload(0, "SYNC", "", "").into())
        }

        /// Recovers the v2 store of a snapshot, whose members are those of its configuration. Where that
        /// fails, the older releases panic, at every further start too.
        pub fn recover(self, snapshot: &Snapshot) -> Result<(), String> {
            if self.is_own() {
                return Ok(());
            }
            let failed = |why: String| format!("failed to restore v2 store: {why}");
            let store: Value = serde_json::from_slice(&snapshot.data)
                .map_err(|error| failed(error.to_string()))?;
            let members = &store["Root"]["Children"]["0"]["Children"]["members"]["Children"];
            let members = members.as_object().ok_or_else(|| failed("no members".to_owned()))?;
            let id = |id: &String| u64::from_str_radix(id, 16).map_err(|e| failed(e.to_string()));
            let members: BTreeSet<u64> = members.keys().map(id).collect::<Result<_, _>>()?;
            let metadata = snapshot.metadata.clone().unwrap_or_default();
            let state = metadata.conf_state.unwrap_or_default();
            let wanted: BTreeSet<u64> = state.voters.into_iter().chain(state.learners).collect();
            match members == wanted {
                true => Ok(()),
                false => {
                    let listed = |ids: &BTreeSet<u64>| {
                        let ids: Vec<String> = ids.iter().map(|id| format!("{id:x}")).collect();
                        ids.join(" ")
                    };
                    let (members, wanted) = (listed(&members), listed(&wanted));
                    Err(failed(format!("it has members {members}, not {wanted}")))
                }
            }
        }
    }
}
