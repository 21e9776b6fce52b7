//! The table of commands and flags, after etcdctl 3.7.

use crate::tool::table::{
    Flag, Kind, SHELLS, Spec, Tool, WRITE_OUT, flag, group, leaf, one_of, short, switch, taking,
};
use Kind::{Bool, Duration, Int, List, Text, Uint};

/// The tool.
pub const TOOL: Tool = Tool {
    names: ["quoratectl", "etcdctl"],
    about: "A simple command line client for etcd3.",
    flags: GLOBAL,
    commands: COMMANDS,
    variables: "ETCDCTL_",
    other_variables: &[("watch", "ETCDCTL_WATCH_KEY"), ("watch", "ETCDCTL_WATCH_RANGE_END")],
};

const GLOBAL: &[Flag] = &[
    flag("endpoints", List, "127.0.0.1:2379", "gRPC endpoints, separated by commas"),
    switch("debug", "enable client-side debug logging"),
    WRITE_OUT,
    switch("hex", "print byte strings as hex encoded strings"),
    flag("dial-timeout", Duration, "2s", "dial timeout for client connections"),
    flag("command-timeout", Duration, "5s", "timeout of short commands, without the dial timeout"),
    flag("keepalive-time", Duration, "2s", "keepalive time for client connections"),
    flag("keepalive-timeout", Duration, "6s", "keepalive timeout for client connections"),
    flag("max-request-bytes", Int, "0", "limit of a request, bytes (0: 2 MiB)"),
    flag("max-recv-bytes", Int, "0", "limit of a response, bytes (0: 2 GiB - 1)"),
    flag("insecure-transport", Bool, "true", "disable transport security"),
    flag("insecure-discovery", Bool, "true", "accept insecure SRV records of cluster endpoints"),
    switch("insecure-skip-tls-verify", "skip server certificate verification (only for tests)"),
    flag("cert", Text, "", "TLS certificate file of the client"),
    flag("key", Text, "", "TLS key file of the client"),
    flag("cacert", Text, "", "CA bundle that server certificates are verified with"),
    flag("auth-jwt-token", Text, "", "JWT token for authentication, without --user and --password"),
    flag("user", Text, "", "username[:password] for authentication (prompt without a password)"),
    flag("password", Text, "", "password for authentication, when --user has none"),
    short(flag("discovery-srv", Text, "", "domain to query for SRV records of endpoints"), 'd'),
    flag("discovery-srv-name", Text, "", "service name to query with DNS discovery"),
];

/// The requests of `txn`, which have no global flags.
pub const REQUESTS: Tool = Tool {
    flags: &[],
    commands: COMMANDS.split_at(3).0,
    variables: "",
    other_variables: &[],
    ..TOOL
};

/// The lines of `watch -i`.
pub const WATCHES: Tool = Tool { commands: COMMANDS.split_at(5).1.split_at(1).0, ..REQUESTS };

const KEYS_OF_PREFIX: Flag = switch("prefix", "all keys with this prefix");
const CONSISTENCY: Flag =
    one_of(flag("consistency", Text, "l", "Linearizable(l) or Serializable(s)"), &["l", "s"]);
const LOAD: Flag = one_of(
    flag("load", Text, "s", "The workload: s(small), m(medium), l(large), xl(xLarge)"),
    &["s", "m", "l", "xl"],
);
const KEYS_FROM: Flag = switch("from-key", "all keys from this one on, in byte order");
const CLUSTER: Flag = switch("cluster", "use all endpoints of the cluster's member list");
const PEER_URLS: Flag = flag("peer-urls", Text, "", "peer URLs of the member, separated by commas");
const CHECK_AFTER: [Flag; 2] = [
    switch("auto-compact", "compact storage at the last revision after the test"),
    switch("auto-defrag", "defragment storage after the test"),
];
const PASSWORD_PROMPT: Flag =
    flag("interactive", Bool, "true", "read the password from the terminal, not from stdin");

/// Every command, grouped as etcdctl groups them.
#[rustfmt::skip]
const COMMANDS: &[Spec] = &[
    // Keys.
    leaf("get", "[options] <key> [range_end]", "Gets the key or a range of keys", &[
        CONSISTENCY,
        one_of(flag("order", Text, "", "Order of results; ASCEND or DESCEND (ASCEND by default)"), &["ASCEND", "DESCEND"]),
        one_of(flag("sort-by", Text, "", "Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION"), &["CREATE", "KEY", "MODIFY", "VALUE", "VERSION"]),
        flag("limit", Int, "0", "Maximum number of results"),
        KEYS_OF_PREFIX,
        KEYS_FROM,
        flag("rev", Int, "0", "Specify the kv revision"),
        flag("at", Text, "", "As of a revision, or as of a time: \"10m ago\" (not in etcdctl)"),
        switch("keys-only", "Get only the keys"),
        switch("count-only", "Get only the count"),
        switch("print-value-only", "Only write values when using the \"simple\" output format"),
        flag("min-create-rev", Int, "0", "Minimum create revision"),
        flag("max-create-rev", Int, "0", "Maximum create revision"),
        flag("min-mod-rev", Int, "0", "Minimum modification revision"),
        flag("max-mod-rev", Int, "0", "Maximum modification revision"),
        switch("stream", "Use the RangeStream RPC"),
    ]),
    leaf("put", "[options] <key> <value> (<value> can also be given from stdin)", "Puts the given key into the store", &[
        flag("lease", Text, "0", "lease ID (in hexadecimal) to attach to the key"),
        switch("prev-kv", "return the previous key-value pair before modification"),
        switch("ignore-value", "updates the key using its current value"),
        switch("ignore-lease", "updates the key using its current lease"),
    ]),
    leaf("del", "[options] <key> [range_end]", "Removes the specified key or range of keys [key, range_end)", &[
        KEYS_OF_PREFIX,
        switch("prev-kv", "return deleted key-value pairs"),
        KEYS_FROM,
        switch("range", "delete range of keys without a delay"),
    ]),
    leaf("txn", "[options]", "Txn processes all the requests in one transaction", &[
        short(switch("interactive", "Input transaction in interactive mode"), 'i'),
    ]),
    leaf("compaction", "[options] <revision>", "Compacts the event history in etcd", &[
        switch("physical", "wait for compaction to physically remove all old revisions"),
    ]),
    leaf("watch", "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]", "Watches events stream on keys or prefixes", &[
        short(switch("interactive", "Interactive mode"), 'i'),
        KEYS_OF_PREFIX,
        flag("rev", Int, "0", "Revision to start watching"),
        switch("prev-kv", "get the previous key-value pair before the event happens"),
        switch("progress-notify", "get periodic watch progress notification from server"),
    ]),
    leaf("history", "<key>", "Lists the changes of a key, newest first (not in etcdctl)", &[
        flag("limit", Int, "0", "Maximum number of changes"),
    ]),
    leaf("diff", "[options] <rev1 or time> [rev2 or time]", "Lists the keys that differ between two moments, such as 5 or \"10m ago\", or one and now (not in etcdctl)", &[
        flag("prefix", Text, "", "only keys with this prefix"),
    ]),
    leaf("top", "[options]", "Shows members, requests, prefixes, watchers and leases, refreshed (not in etcdctl)", &[
        flag("interval", Duration, "2s", "Time between two screens"),
        flag("count", Int, "0", "Number of screens (0: until interrupted; 1 where the output is no terminal)"),
        flag("watch", Bool, "true", "Count changes by prefix, for which all changes are watched"),
    ]),
    group("lease", "Lease related commands", &[], &[
        leaf("grant", "<ttl>", "Creates leases", &[]),
        leaf("revoke", "<leaseID>", "Revokes leases", &[]),
        leaf("timetolive", "<leaseID> [options]", "Get lease information", &[
            switch("keys", "Get keys attached to this lease"),
        ]),
        leaf("list", "", "List all active leases", &[]),
        leaf("keep-alive", "[options] <leaseID>", "Keeps leases alive (renew)", &[
            switch("once", "Resets the keep-alive time to its original value and exits immediately"),
        ]),
    ]),
    // Cluster maintenance.
    group("alarm", "Alarm related commands", &[], &[
        leaf("disarm", "", "Disarms all alarms", &[]),
        leaf("list", "", "Lists all alarms", &[]),
    ]),
    leaf("defrag", "", "Defragments the storage of the etcd members with given endpoints", &[CLUSTER]),
    group("downgrade", "Downgrade related commands", &[], &[
        leaf("validate", "<TARGET_VERSION>", "Validate downgrade capability before starting downgrade", &[]),
        leaf("enable", "<TARGET_VERSION>", "Start a downgrade action to cluster", &[]),
        leaf("cancel", "", "Cancel the ongoing downgrade action to cluster", &[]),
    ]),
    group("endpoint", "Endpoint related commands", &[CLUSTER], &[
        leaf("health", "", "Checks the healthiness of endpoints specified in `--endpoints` flag", &[]),
        leaf("status", "", "Prints out the status of endpoints specified in `--endpoints` flag", &[]),
        leaf("hashkv", "", "Prints the KV history hash for each endpoint in --endpoints", &[
            flag("rev", Int, "0", "maximum revision to hash (default: latest revision)"),
        ]),
    ]),
    leaf("move-leader", "<transferee-member-id>", "Transfers leadership to another etcd cluster member.", &[]),
    group("member", "Membership related commands", &[], &[
        leaf("add", "<memberName> [options]", "Adds a member into the cluster", &[
            PEER_URLS,
            switch("learner", "indicates if the new member is raft learner"),
        ]),
        leaf("remove", "<memberID>", "Removes a member from the cluster", &[]),
        leaf("update", "<memberID> [options]", "Updates a member in the cluster", &[PEER_URLS]),
        leaf("list", "", "Lists all members in the cluster", &[
            CONSISTENCY,
        ]),
        leaf("promote", "<memberID>", "Promotes a non-voting member in the cluster", &[]),
    ]),
    group("snapshot", "Manages etcd node snapshots", &[], &[
        leaf("save", "<filename>", "Stores an etcd node backend snapshot to a given file", &[]),
    ]),
    // Concurrency.
    leaf("lock", "<lockname> [exec-command arg1 arg2 ...]", "Acquires a named lock", &[
        flag("ttl", Int, "10", "timeout for session"),
    ]),
    leaf("elect", "<election-name> [proposal]", "Observes and participates in leader election", &[
        short(switch("listen", "observation mode"), 'l'),
    ]),
    // Authentication.
    group("auth", "Enable or disable authentication", &[], &[
        leaf("enable", "", "Enables authentication", &[]),
        leaf("disable", "", "Disables authentication", &[]),
        leaf("status", "", "Returns authentication status", &[]),
    ]),
    group("user", "User related commands", &[], &[
        leaf("add", "<user name or user:password> [options]", "Adds a new user", &[
            PASSWORD_PROMPT,
            flag("new-user-password", Text, "", "Supply password from the command line flag"),
            switch("no-password", "Create a user without password (CN based auth only)"),
        ]),
        leaf("delete", "<user name>", "Deletes a user", &[]),
        leaf("get", "<user name> [options]", "Gets detailed information of a user", &[
            switch("detail", "Show permissions of roles granted to the user"),
        ]),
        leaf("list", "", "Lists all users", &[]),
        leaf("passwd", "<user name> [options]", "Changes password of user", &[PASSWORD_PROMPT]),
        leaf("grant-role", "<user name> <role name>", "Grants a role to a user", &[]),
        leaf("revoke-role", "<user name> <role name>", "Revokes a role from a user", &[]),
    ]),
    group("role", "Role related commands", &[], &[
        leaf("add", "<role name>", "Adds a new role", &[]),
        leaf("delete", "<role name>", "Deletes a role", &[]),
        leaf("get", "<role name>", "Gets detailed information of a role", &[]),
        leaf("list", "", "Lists all roles", &[]),
        taking(
            leaf("grant-permission", "[options] <role name> <permission type> <key> [endkey]", "Grants a key to a role", &[
                KEYS_OF_PREFIX,
                KEYS_FROM,
            ]),
            &[(1, &["read", "write", "readwrite"])],
        ),
        leaf("revoke-permission", "<role name> <key> [endkey]", "Revokes a key from a role", &[
            KEYS_OF_PREFIX,
            KEYS_FROM,
        ]),
    ]),
    // Utilities.
    leaf("make-mirror", "[options] <destination>", "Makes a mirror at the destination etcd cluster", &[
        flag("prefix", Text, "", "Key-value prefix to mirror"),
        flag("rev", Int, "0", "Specify the kv revision to start to mirror"),
        flag("max-txn-ops", Uint, "128", "Maximum number of operations in a transaction while updates are synced"),
        flag("dest-prefix", Text, "", "prefix in the destination cluster"),
        switch("no-dest-prefix", "mirror key-values to the root of the destination cluster"),
        flag("dest-cert", Text, "", "TLS certificate file of the client for the destination cluster"),
        flag("dest-key", Text, "", "TLS key file of the client for the destination cluster"),
        flag("dest-cacert", Text, "", "CA bundle that the destination's certificates are verified with"),
        flag("dest-insecure-transport", Bool, "true", "Disable transport security to the destination"),
        flag("dest-user", Text, "", "Destination username[:password] (prompt without a password)"),
        flag("dest-password", Text, "", "Destination password, when --dest-user has none"),
    ]),
    group("check", "commands for checking properties of the etcd cluster", &[], &[
        leaf("perf", "[options]", "Check the performance of the etcd cluster", &[
            LOAD,
            flag("prefix", Text, "/etcdctl-check-perf/", "The prefix of the keys that are written"),
            CHECK_AFTER[0],
            CHECK_AFTER[1],
        ]),
        leaf("datascale", "[options]", "Check the memory that the first endpoint uses to hold data", &[
            LOAD,
            flag("prefix", Text, "/etcdctl-check-datascale/", "The prefix of the keys that are written"),
            CHECK_AFTER[0],
            CHECK_AFTER[1],
        ]),
    ]),
    taking(leaf("completion", "[bash|zsh|fish|powershell]", "Generate completion script", &[]), &[(0, SHELLS)]),
    leaf("manual", "[command [subcommand]]", "Prints a manual page, for man (not in etcdctl)", &[]),
    leaf("options", "", "Show the global command-line flags", &[]),
    leaf("version", "", "Prints the version of etcdctl", &[]),
];
