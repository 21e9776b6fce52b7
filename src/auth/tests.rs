//! The tables over a real store: what each request does, what it is refused for, what a restart finds,
//! and permission checks, also against a naive model under random work.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use quorate_proto::authpb::UserAddOptions;
use quorate_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest, request_op::Request as Op,
};

use super::*;
use crate::engine::{Engine, Options, Place};
use crate::mvcc::Write;
use crate::types::{Index, LeaseId, Term};

/// The tables and the store they are in.
struct Tables {
    place: Place,
    store: Option<Store>,
    auth: Auth,
}

impl Tables {
    fn new() -> Self {
        let place = Place::mem_env().expect("an environment");
        let store = open(&place);
        let auth = Auth::load(&store).expect("loads");
        Self { place, store: Some(store), auth }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is open")
    }

    /// Applies one change; what is stored afterwards is what is known, and a refusal changes nothing.
    fn entry<T: PartialEq + std::fmt::Debug>(
        &mut self,
        change: impl FnOnce(&mut Auth, &mut Write<'_>) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let before = self.auth.clone();
        let store = self.store().clone();
        let mut write = store.begin();
        write.start_entry(Index(write.applied().0 + 1), Term(1));
        let done = change(&mut self.auth, &mut write);
        write.commit().expect("commits");
        if done.is_err() {
            assert_eq!(self.auth, before, "a refusal changes nothing");
        }
        assert_eq!(
            Auth::load(&store).expect("loads"),
            self.auth,
            "what is stored is what is known"
        );
        let stored = Auth::revision_in(&store.view()).expect("loads");
        assert_eq!(stored, self.auth.revision());
        done
    }

    fn user(&mut self, name: &str) -> Result<(), Refused> {
        let hashed_password = STANDARD.encode(format!("hash of {name}"));
        let request =
            AuthUserAddRequest { name: name.into(), hashed_password, ..Default::default() };
        self.entry(|auth, write| auth.user_add(write, &request))
    }

    fn role(&mut self, name: &str) -> Result<(), Refused> {
        self.entry(|auth, write| auth.role_add(write, name))
    }

    fn have(&mut self, user: &str, role: &str) -> Result<(), Refused> {
        self.entry(|auth, write| auth.user_grant_role(write, user, role))
    }

    fn grant(&mut self, role: &str, kind: Type, key: &str, end: &str) -> Result<(), Refused> {
        let perm = Some(permission(kind, key, end));
        let request = AuthRoleGrantPermissionRequest { name: role.into(), perm };
        self.entry(|auth, write| auth.role_grant_permission(write, &request))
    }

    fn take(&mut self, role: &str, key: &str, end: &str) -> Result<(), Refused> {
        let request = AuthRoleRevokePermissionRequest {
            role: role.into(),
            key: bytes(key),
            range_end: bytes(end),
        };
        self.entry(|auth, write| auth.role_revoke_permission(write, &request))
    }

    fn enable(&mut self) {
        self.user("root").expect("a new user");
        self.have("root", "root").expect("granted");
        self.entry(Auth::enable).expect("enabled");
    }
}

fn open(place: &Place) -> Store {
    let engine = Engine::open(Path::new("/db"), &Options::in_memory(place.clone()));
    Store::open(engine.expect("opens")).expect("loads")
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn permission(kind: Type, key: &str, end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: bytes(key), range_end: bytes(end) }
}

/// No lease has keys.
fn unattached(_: LeaseId) -> Result<Vec<Bytes>, Fatal> {
    Ok(Vec::new())
}

const DENIED: Result<(), Refused> = Err(Refused::PermissionDenied);

#[test]
fn the_revision_counts_changes() {
    let mut it = Tables::new();
    assert_eq!(it.auth.revision(), 1);
    it.user("root").expect("new");
    assert_eq!(it.auth.revision(), 2);
    it.have("root", "root").expect("granted");
    it.have("root", "root").expect("granted again");
    assert_eq!(it.auth.revision(), 3, "what is had already is no change");
    it.entry(Auth::enable).expect("enabled");
    it.entry(Auth::enable).expect("enabled again");
    assert_eq!(it.auth.revision(), 3, "switching on is none");
    assert_eq!(it.entry(|auth, write| Ok(auth.disable(write))), Ok(true));
    assert_eq!(it.entry(|auth, write| Ok(auth.disable(write))), Ok(false));
    assert_eq!(it.auth.revision(), 4, "switching off is one");
}

#[test]
fn requests_are_refused_as_etcd_refuses() {
    let mut it = Tables::new();
    assert_eq!(it.entry(Auth::enable), Err(Refused::RootUserNotExist));
    it.user("root").expect("new");
    assert_eq!(it.entry(Auth::enable), Err(Refused::RootRoleNotExist));
    assert_eq!(it.user("root"), Err(Refused::UserAlreadyExists));
    assert_eq!(it.user(""), Err(Refused::UserEmpty));
    assert_eq!(it.role(""), Err(Refused::RoleEmpty));
    it.role("r").expect("new");
    assert_eq!(it.role("r"), Err(Refused::RoleAlreadyExists));
    assert_eq!(it.have("nobody", "r"), Err(Refused::UserNotFound));
    assert_eq!(it.have("root", "no"), Err(Refused::RoleNotFound));
    let revoke = |it: &mut Tables, user: &str, role: &str| {
        it.entry(|auth, write| auth.user_revoke_role(write, user, role))
    };
    assert_eq!(revoke(&mut it, "root", "r"), Err(Refused::RoleNotGranted));
    assert_eq!(revoke(&mut it, "nobody", "r"), Err(Refused::UserNotFound));
    assert_eq!(it.grant("no", Type::Read, "a", ""), Err(Refused::RoleNotFound));
    assert_eq!(it.grant("r", Type::Read, "b", "a"), Err(Refused::InvalidAuthMgmt));
    assert_eq!(it.grant("r", Type::Read, "a", "a"), Err(Refused::InvalidAuthMgmt));
    assert_eq!(it.grant("r", Type::Read, "", "b"), Err(Refused::InvalidAuthMgmt));
    let without = AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    let refused = it.entry(|auth, write| auth.role_grant_permission(write, &without));
    assert_eq!(refused, Err(Refused::PermissionNotGiven));
    it.grant("r", Type::Read, "a", "b").expect("granted");
    assert_eq!(it.take("r", "a", ""), Err(Refused::PermissionNotGranted));
    assert_eq!(it.take("no", "a", ""), Err(Refused::RoleNotFound));
    it.take("r", "a", "b").expect("taken");
    it.have("root", "root").expect("granted");
    it.role("root").expect("new");
    it.entry(Auth::enable).expect("enabled");
    let managed = Err(Refused::InvalidAuthMgmt);
    assert_eq!(revoke(&mut it, "root", "root"), managed);
    assert_eq!(it.entry(|auth, write| auth.user_delete(write, "root")), managed);
    assert_eq!(it.entry(|auth, write| auth.role_delete(write, "root")), managed);
    let unknown = it.entry(|auth, write| auth.user_delete(write, "nobody"));
    assert_eq!(unknown, Err(Refused::UserNotFound));
    let unknown = it.entry(|auth, write| auth.role_delete(write, "no"));
    assert_eq!(unknown, Err(Refused::RoleNotFound));
    // Not base64.
    let change = AuthUserChangePasswordRequest {
        name: "root".into(),
        hashed_password: "!".into(),
        ..Default::default()
    };
    let refused = it.entry(|auth, write| auth.user_change_password(write, &change));
    assert_eq!(refused, Err(Refused::NoPasswordUser));
}

#[test]
fn a_restart_finds_everything_and_the_bytes_are_etcds() {
    let mut it = Tables::new();
    it.enable();
    it.user("ann").expect("new");
    it.role("reader").expect("new");
    it.grant("reader", Type::Readwrite, "k", "l").expect("granted");
    it.have("ann", "reader").expect("granted");
    let (view, before) = (it.store().view(), it.auth.clone());
    let stored = |cf, key: &[u8]| view.get(cf, key).expect("works").expect("is there");
    assert_eq!(&stored(Cf::Auth, b"authEnabled")[..], &[1]);
    assert_eq!(&stored(Cf::Auth, b"authRevision")[..], &[0, 0, 0, 0, 0, 0, 0, 7]);
    // As etcd 3.5 has it: name, hash, roles, empty options.
    let ann = b"\x0a\x03ann\x12\x0bhash of ann\x1a\x06reader\x22\x00";
    assert_eq!(&stored(Cf::AuthUsers, b"ann")[..], ann);
    let reader = b"\x0a\x06reader\x12\x08\x08\x02\x12\x01k\x1a\x01l";
    assert_eq!(&stored(Cf::AuthRoles, b"reader")[..], reader);
    drop(view);
    it.store().flush().expect("flushes");
    it.store = None;
    let store = open(&it.place);
    assert_eq!(Auth::load(&store).expect("loads"), before);
}

#[test]
fn roles_are_sorted_and_permissions_are_by_key() {
    let mut it = Tables::new();
    it.user("ann").expect("new");
    for role in ["c", "a", "b"] {
        it.role(role).expect("new");
        it.have("ann", role).expect("granted");
    }
    assert_eq!(it.auth.user_roles("ann"), Ok(["a", "b", "c"].map(String::from).into()));
    for (key, end) in [("m", ""), ("b", "d"), ("m", "q")] {
        it.grant("a", Type::Read, key, end).expect("granted");
    }
    it.grant("a", Type::Write, "b", "d").expect("changed");
    let expected = vec![
        permission(Type::Write, "b", "d"),
        permission(Type::Read, "m", ""),
        permission(Type::Read, "m", "q"),
    ];
    assert_eq!(it.auth.role_permissions("a"), Ok(expected));
    it.entry(|auth, write| auth.role_delete(write, "b")).expect("deleted");
    assert_eq!(it.auth.user_roles("ann"), Ok(["a", "c"].map(String::from).into()));
    it.role("root").expect("new");
    let all = vec![permission(Type::Readwrite, "", "\0")];
    assert_eq!(it.auth.role_permissions("root"), Ok(all));
}

#[test]
fn a_user_without_a_password_cannot_log_in() {
    let mut it = Tables::new();
    assert_eq!(it.auth.password_hash("root"), Err(Refused::AuthNotEnabled));
    assert_eq!(it.auth.authenticate("root"), Err(Refused::AuthNotEnabled));
    it.enable();
    let options = Some(UserAddOptions { no_password: true });
    let request = AuthUserAddRequest { name: "cert".into(), options, ..Default::default() };
    it.entry(|auth, write| auth.user_add(write, &request)).expect("new");
    assert_eq!(it.auth.password_hash("root"), Ok(bytes("hash of root")));
    assert_eq!(it.auth.password_hash("nobody"), Err(Refused::AuthFailed));
    assert_eq!(it.auth.password_hash("cert"), Err(Refused::NoPasswordUser));
    assert_eq!(it.auth.authenticate("cert"), Err(Refused::AuthFailed));
    let change = AuthUserChangePasswordRequest {
        name: "root".into(),
        hashed_password: STANDARD.encode("another"),
        ..Default::default()
    };
    it.entry(|auth, write| auth.user_change_password(write, &change)).expect("changed");
    assert_eq!(it.auth.password_hash("root"), Ok(bytes("another")));
    assert_eq!(it.auth.user_roles("root"), Ok(vec!["root".into()]));
}

#[test]
fn judgements_are_of_their_revision() {
    let mut it = Tables::new();
    let nobody = Principal::default();
    assert_eq!(it.auth.may_read(&nobody, b"k", b""), Ok(()), "nobody judges yet");
    it.enable();
    it.user("ann").expect("new");
    it.role("r").expect("new");
    it.grant("r", Type::Read, "k", "").expect("granted");
    it.have("ann", "r").expect("granted");
    let ann = it.auth.principal("ann");
    assert_eq!(it.auth.may_read(&ann, b"k", b""), Ok(()));
    assert_eq!(it.auth.may_write(&ann, b"k", b""), DENIED);
    assert_eq!(it.auth.may_read(&nobody, b"k", b""), Err(Refused::UserEmpty));
    let gone = it.auth.principal("gone");
    assert_eq!(it.auth.may_read(&gone, b"k", b""), DENIED);
    it.role("other").expect("new");
    assert_eq!(it.auth.may_read(&ann, b"k", b""), Err(Refused::AuthOldRevision));
    let old_root = Principal { user: "root".into(), revision: 1 };
    assert_eq!(it.auth.may_read(&old_root, b"k", b""), Err(Refused::AuthOldRevision));
    assert_eq!(it.auth.is_admin(&old_root), Ok(()), "an admin is one at any revision");
    assert_eq!(it.auth.may_read(&it.auth.root(), b"", b"\0"), Ok(()));
    let ann = it.auth.principal("ann");
    assert_eq!(it.auth.is_admin(&ann), DENIED);
    assert_eq!(it.auth.is_admin(&gone), Err(Refused::UserNotFound));
    assert_eq!(it.auth.is_admin(&nobody), Err(Refused::UserEmpty));
    assert_eq!(it.auth.may_see_user(&ann, "ann"), Ok(()));
    assert_eq!(it.auth.may_see_user(&ann, "root"), DENIED);
    assert_eq!(it.auth.may_see_role(&ann, "r"), Ok(()));
    assert_eq!(it.auth.may_see_role(&ann, "other"), DENIED);
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn get(key: &str, end: &str) -> Op {
    Op::RequestRange(RangeRequest { key: bytes(key), range_end: bytes(end), ..Default::default() })
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: bytes(key), ..Default::default() }
}

fn txn(compare: &[&str], success: Vec<Op>, failure: Vec<Op>) -> TxnRequest {
    let compare =
        compare.iter().map(|key| Compare { key: bytes(key), ..Default::default() }).collect();
    let ops = |ops: Vec<Op>| ops.into_iter().map(op).collect();
    TxnRequest { compare, success: ops(success), failure: ops(failure) }
}

/// Ann reads `r*`, writes `w*` and does both with `b*`.
fn ann() -> (Tables, Principal) {
    let mut it = Tables::new();
    it.enable();
    it.user("ann").expect("new");
    it.role("r").expect("new");
    it.grant("r", Type::Read, "r", "s").expect("granted");
    it.grant("r", Type::Write, "w", "x").expect("granted");
    it.grant("r", Type::Readwrite, "b", "c").expect("granted");
    it.have("ann", "r").expect("granted");
    let ann = it.auth.principal("ann");
    (it, ann)
}

#[test]
fn every_part_of_a_txn_is_judged() {
    let (it, ann) = ann();
    let may = |txn: &TxnRequest| it.auth.may_txn(&ann, txn, &unattached).expect("works");
    let nested = |txn| Op::RequestTxn(txn);
    let write = |key| Op::RequestPut(put(key));
    let delete = |key: &str, prev_kv| {
        Op::RequestDeleteRange(DeleteRangeRequest {
            key: bytes(key),
            prev_kv,
            ..Default::default()
        })
    };
    let inside = txn(&["r1", "b1"], vec![get("r", "s"), write("w1")], vec![delete("w1", false)]);
    assert_eq!(may(&inside), Ok(()));
    assert_eq!(may(&txn(&[], vec![nested(inside.clone())], vec![])), Ok(()));
    assert_eq!(may(&txn(&[], vec![delete("b1", true)], vec![])), Ok(()));
    let outside = [
        txn(&["w1"], vec![], vec![]),
        txn(&[], vec![get("w1", "")], vec![]),
        txn(&[], vec![], vec![get("w1", "")]),
        txn(&[], vec![write("r1")], vec![]),
        txn(&[], vec![], vec![delete("r1", false)]),
        // The state before is read.
        txn(&[], vec![delete("w1", true)], vec![]),
        txn(&[], vec![Op::RequestPut(PutRequest { prev_kv: true, ..put("w1") })], vec![]),
    ];
    for txn_outside in outside {
        assert_eq!(may(&txn_outside), DENIED, "{txn_outside:?}");
        let deep = txn(&[], vec![], vec![nested(txn_outside.clone())]);
        assert_eq!(may(&deep), DENIED, "nested: {txn_outside:?}");
        let deeper = txn(&[], vec![nested(deep)], vec![]);
        assert_eq!(may(&deeper), DENIED, "nested twice: {txn_outside:?}");
    }
}

#[test]
fn a_lease_is_for_those_who_may_write_all_its_keys() {
    let (it, ann) = ann();
    let asked = Cell::new(0);
    let attached = |id: LeaseId| {
        asked.set(asked.get() + 1);
        Ok(match id.0 {
            7 => vec![bytes("w1"), bytes("b1")],
            8 => vec![bytes("w1"), bytes("r1")],
            _ => vec![],
        })
    };
    let may_put = |lease| {
        let put = PutRequest { lease, ..put("w2") };
        it.auth.may_put(&ann, &put, &attached).expect("works")
    };
    assert_eq!([0, 6, 7, 8].map(may_put), [Ok(()), Ok(()), Ok(()), DENIED]);
    let may_end = |lease| it.auth.may_end_lease(&ann, lease, &attached).expect("works");
    assert_eq!([6, 7, 8].map(may_end), [Ok(()), Ok(()), DENIED]);
    let asked_before = asked.get();
    let root = it.auth.root();
    assert_eq!(it.auth.may_end_lease(&root, 8, &attached).expect("works"), Ok(()));
    assert_eq!(asked.get(), asked_before, "an admin's leases are not looked at");
}

/// A change, as the model and the tables take it.
#[derive(Clone, Debug)]
enum Change {
    Grant(usize, Type, u8, Option<u8>),
    Take(usize, u8, Option<u8>),
    Have(usize, usize),
    Lose(usize, usize),
    DeleteRole(usize),
    AddRole(usize),
}

const USERS: [&str; 2] = ["ann", "bob"];
const ROLES: [&str; 3] = ["a", "b", "c"];

fn change() -> impl Strategy<Value = Change> {
    let key = || b'a'..=b'e';
    let end = || prop_oneof![Just(None), (b'a'..=b'f').prop_map(Some)];
    let kind = prop_oneof![Just(Type::Read), Just(Type::Write), Just(Type::Readwrite)];
    prop_oneof![
        4 => (0..3_usize, kind, key(), end()).prop_map(|(r, t, k, e)| Change::Grant(r, t, k, e)),
        2 => (0..3_usize, key(), end()).prop_map(|(r, k, e)| Change::Take(r, k, e)),
        3 => (0..2_usize, 0..3_usize).prop_map(|(u, r)| Change::Have(u, r)),
        1 => (0..2_usize, 0..3_usize).prop_map(|(u, r)| Change::Lose(u, r)),
        1 => (0..3_usize).prop_map(Change::DeleteRole),
        1 => (0..3_usize).prop_map(Change::AddRole),
    ]
}

/// What is granted, without any of the cleverness.
#[derive(Default)]
struct Model {
    roles: BTreeMap<&'static str, BTreeMap<(String, String), Type>>,
    users: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

fn range(key: u8, end: Option<u8>) -> (String, String) {
    let end = end.map(|end| char::from(end).to_string()).unwrap_or_default();
    (char::from(key).to_string(), end)
}

impl Model {
    /// Whether the change is one.
    fn apply(&mut self, change: &Change) -> bool {
        match *change {
            Change::Grant(role, kind, key, end) => {
                let valid = end.is_none_or(|end| key < end);
                let Some(rows) = self.roles.get_mut(ROLES[role]).filter(|_| valid) else {
                    return false;
                };
                rows.insert(range(key, end), kind);
                true
            }
            Change::Take(role, key, end) => {
                let rows = self.roles.get_mut(ROLES[role]);
                rows.is_some_and(|rows| rows.remove(&range(key, end)).is_some())
            }
            Change::Have(user, role) => {
                let known = self.roles.contains_key(ROLES[role]);
                known && self.users.entry(USERS[user]).or_default().insert(ROLES[role])
            }
            Change::Lose(user, role) => {
                self.users.entry(USERS[user]).or_default().remove(ROLES[role])
            }
            Change::DeleteRole(role) => {
                for roles in self.users.values_mut() {
                    roles.remove(ROLES[role]);
                }
                self.roles.remove(ROLES[role]).is_some()
            }
            Change::AddRole(role) => {
                let new = !self.roles.contains_key(ROLES[role]);
                self.roles.entry(ROLES[role]).or_default();
                new
            }
        }
    }

    fn may(&self, user: &str, key: &str, not: Type) -> bool {
        let roles = self.users.get(user).into_iter().flatten();
        let mut rows = roles.filter_map(|role| self.roles.get(role)).flatten();
        rows.any(|((from, end), kind)| {
            let inside =
                if end.is_empty() { key == from } else { key >= &from[..] && key < &end[..] };
            inside && *kind != not
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Ranges from one key on are granted twice under one key where etcd would have them twice: the
    /// model has no such rows, so ends are given as they are.
    #[test]
    fn keys_are_judged_as_a_naive_model_judges_them(
        changes in proptest::collection::vec(change(), 1..40),
    ) {
        let (mut it, mut model) = (Tables::new(), Model::default());
        it.enable();
        for user in USERS {
            it.user(user).expect("new");
        }
        for (at, change) in changes.iter().enumerate() {
            // A range granted again behind another one from the same key would stand twice, as in
            // etcd; take the old one away first.
            if let Change::Grant(role, _, key, end) = change {
                let (key, end) = range(*key, *end);
                let _ = it.take(ROLES[*role], &key, &end);
            }
            let done = match change.clone() {
                Change::Grant(role, kind, key, end) => {
                    let (key, end) = range(key, end);
                    it.grant(ROLES[role], kind, &key, &end).is_ok()
                }
                Change::Take(role, key, end) => {
                    let (key, end) = range(key, end);
                    it.take(ROLES[role], &key, &end).is_ok()
                }
                Change::Have(user, role) => {
                    let before = it.auth.revision();
                    it.have(USERS[user], ROLES[role]).is_ok() && it.auth.revision() > before
                }
                Change::Lose(user, role) => it
                    .entry(|auth, write| auth.user_revoke_role(write, USERS[user], ROLES[role]))
                    .is_ok(),
                Change::DeleteRole(role) => {
                    it.entry(|auth, write| auth.role_delete(write, ROLES[role])).is_ok()
                }
                Change::AddRole(role) => it.role(ROLES[role]).is_ok(),
            };
            prop_assert_eq!(model.apply(change), done, "change {}: {:?}", at, change);
            for user in USERS {
                let principal = it.auth.principal(user);
                for key in ["a", "b", "c", "d", "e", "f", "ab", "cz"] {
                    let read = it.auth.may_read(&principal, key.as_bytes(), b"").is_ok();
                    prop_assert_eq!(read, model.may(user, key, Type::Write), "{} reads {}", user, key);
                    let write = it.auth.may_write(&principal, key.as_bytes(), b"").is_ok();
                    prop_assert_eq!(write, model.may(user, key, Type::Read), "{} writes {}", user, key);
                }
            }
        }
    }
}
