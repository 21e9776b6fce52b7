//! What each RPC asks of its caller: one row a method, every method. A method without a row is not
//! served. Which methods there are is told by the protos; a test compares.

/// What must be known of the caller before a call is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: whoever has not yet proved who it is must be able to.
    Anyone,
    /// That it is some user.
    User,
    /// That it has the root role.
    Root,
    /// It depends on what is asked for, and is judged where that is carried out: by keys when read and
    /// when applied, by the lease's keys, by the user or role that is asked about.
    Content,
}

type Methods = &'static [(&'static str, Rule)];

use Rule::{Anyone, Content, Root, User};

/// By service and method.
pub const RULES: &[(&str, Methods)] = &[
    (
        "etcdserverpb.KV",
        &[
            ("Range", Content),
            ("RangeStream", Content),
            ("Put", Content),
            ("DeleteRange", Content),
            ("Txn", Content),
            ("Compact", Root),
        ],
    ),
    ("etcdserverpb.Watch", &[("Watch", Content)]),
    (
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", User),
            ("LeaseRevoke", Content),
            ("LeaseKeepAlive", Content),
            ("LeaseTimeToLive", Content),
            ("LeaseLeases", Content),
        ],
    ),
    (
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", Root),
            ("MemberRemove", Root),
            ("MemberUpdate", Root),
            ("MemberList", User),
            ("MemberPromote", Root),
        ],
    ),
    (
        "etcdserverpb.Maintenance",
        &[
            // Any user may look at alarms.
            ("Alarm", Content),
            ("Status", User),
            ("Defragment", Root),
            ("Hash", Root),
            ("HashKV", Root),
            ("Snapshot", Root),
            ("MoveLeader", Root),
            ("Downgrade", Root),
        ],
    ),
    (
        "etcdserverpb.Auth",
        &[
            // Judged when applied: by the tables as they are then.
            ("AuthEnable", Content),
            ("AuthDisable", Content),
            ("UserAdd", Content),
            ("UserGet", Content),
            ("UserList", Content),
            ("UserDelete", Content),
            ("UserChangePassword", Content),
            ("UserGrantRole", Content),
            ("UserRevokeRole", Content),
            ("RoleAdd", Content),
            ("RoleGet", Content),
            ("RoleList", Content),
            ("RoleDelete", Content),
            ("RoleGrantPermission", Content),
            ("RoleRevokePermission", Content),
            ("AuthStatus", Anyone),
            ("Authenticate", Anyone),
        ],
    ),
    // Made of calls of the services above, on behalf of the same caller.
    ("v3lockpb.Lock", &[("Lock", Content), ("Unlock", Content)]),
    (
        "v3electionpb.Election",
        &[
            ("Campaign", Content),
            ("Proclaim", Content),
            ("Leader", Content),
            ("Observe", Content),
            ("Resign", Content),
        ],
    ),
    ("grpc.health.v1.Health", &[("Check", Anyone), ("List", Anyone), ("Watch", Anyone)]),
];

/// The rule of a method, if there is such a method.
pub fn rule(service: &str, method: &str) -> Option<Rule> {
    let (_, methods) = RULES.iter().find(|(name, _)| *name == service)?;
    methods.iter().find(|(name, _)| *name == method).map(|(_, rule)| *rule)
}
