//! Users, roles and permissions: which requests are permitted and which are refused.

use etcd_client::{Client, ConnectOptions, Error, Permission, PermissionType, Txn, TxnOp};

use crate::{World, denied, refused};

const WRONG: &str = "etcdserver: authentication failed, invalid user ID or password";

/// root; ann, with every permission below ann/ and reading below shared/; bob, without any.
pub async fn are_made(world: World) {
    let mut client = world.nobody().await;
    for name in ["root", "ann", "bob"] {
        client.user_add(name, format!("{name}pw"), None).await.expect("a user is added");
    }
    refused(
        client.user_add("ann", "x", None).await,
        "FailedPrecondition",
        "etcdserver: user name already exists",
    );
    for name in ["root", "writer"] {
        client.role_add(name).await.expect("a role is added");
    }
    for permission in [Permission::read_write("ann/"), Permission::read("shared/")] {
        let granted = client.role_grant_permission("writer", permission.with_prefix()).await;
        granted.expect("a permission is granted");
    }
    refused(
        client.auth_enable().await,
        "FailedPrecondition",
        "etcdserver: root user does not have root role",
    );
    for (user, role) in [("root", "root"), ("ann", "writer")] {
        client.user_grant_role(user, role).await.expect("a role is granted");
    }
    client.auth_enable().await.expect("there is a root");
    denied(client.get("ann/a", None).await);

    let mut root = world.user("root").await;
    assert_eq!(root.user_list().await.expect("root may").users(), ["ann", "bob", "root"]);
    assert_eq!(root.role_list().await.expect("root may").roles(), ["root", "writer"]);
    assert_eq!(root.user_get("ann").await.expect("root may").roles(), ["writer"]);
    let permissions = root.role_get("writer").await.expect("root may").permissions();
    let shown: Vec<_> =
        permissions.iter().map(|p| (p.get_type(), p.key(), p.range_end())).collect();
    let read = PermissionType::Read as i32;
    let both = PermissionType::Readwrite as i32;
    let wanted: [(i32, &[u8], &[u8]); 2] =
        [(both, b"ann/", b"ann0"), (read, b"shared/", b"shared0")];
    assert_eq!(shown, wanted);
}

pub async fn who_is_let_in(world: World) {
    for (user, password) in [("ann", "wrong"), ("nobody", "annpw"), ("ann", "")] {
        let client = world.connect(&world.endpoints, user, password).await;
        refused(client.map(|_| ()), "InvalidArgument", WRONG);
    }
    // A token is good at every member, whichever gave it.
    let mut ann = world.user("ann").await;
    for i in 0..4 * world.endpoints.len() {
        ann.put(format!("ann/token/{i}"), "1", None).await.expect("ann may");
    }
}

pub async fn permissions(world: World) {
    let mut root = world.user("root").await;
    let mut ann = world.user("ann").await;
    let mut bob = world.user("bob").await;
    root.put("shared/a", "1", None).await.expect("root may");
    let answer = ann.get("shared/a", None).await.expect("ann may read");
    assert_eq!(answer.kvs()[0].value(), b"1");
    denied(ann.put("shared/a", "2", None).await);
    denied(ann.delete("shared/a", None).await);
    let put = Txn::new().or_else([TxnOp::put("shared/a", "2", None)]);
    denied(ann.txn(put).await);
    denied(bob.get("shared/a", None).await);
    denied(ann.compact(1, None).await);
    denied(ann.user_list().await);
    denied(ann.user_add("eve", "evepw", None).await);
    denied(ann.auth_disable().await);
    let answer = root.get("shared/a", None).await.expect("root may");
    assert_eq!((answer.kvs()[0].value(), answer.kvs()[0].version()), (&b"1"[..], 1));
}

/// Without a certificate of the authority nothing is served.
pub async fn certificates(world: World) {
    let without = ConnectOptions::new().with_tls(world.tls());
    let client = Client::connect(&world.endpoints[..1], Some(without)).await;
    let mut client = client.expect("it connects with the first call");
    not_connected(client.get("ann/a", None).await);

    let plain = Client::connect([format!("http://{}", world.endpoints[0])], None).await;
    not_connected(plain.expect("it connects with the first call").get("ann/a", None).await);
}

/// Not the answer of a server: a status of one has an `etcdserver: ` text, or another code.
fn not_connected<T: std::fmt::Debug>(answer: Result<T, Error>) {
    match answer {
        Err(Error::GRpcStatus(status)) => {
            assert!(!status.message().contains("etcdserver"), "{status:?}");
        }
        Err(Error::TransportError(_)) => {}
        other => panic!("served: {other:?}"),
    }
}

pub async fn changes(world: World) {
    let mut root = world.user("root").await;
    root.user_add("eve", "evepw", None).await.expect("root may");
    root.role_add("eves").await.expect("root may");
    root.role_grant_permission("eves", Permission::read_write("eve")).await.expect("root may");
    let mut eve = world.user_at(1, "eve").await;
    denied(eve.put("eve", "1", None).await);
    root.user_grant_role("eve", "eves").await.expect("root may");
    eve.put("eve", "1", None).await.expect("eve may now");
    denied(eve.put("eve2", "1", None).await);
    let answer = root.get("eve", None).await.expect("root may");
    assert_eq!(answer.kvs()[0].value(), b"1");
    root.role_revoke_permission("eves", "eve", None).await.expect("root may");
    denied(eve.get("eve", None).await);
    refused(
        root.role_revoke_permission("eves", "eve", None).await,
        "FailedPrecondition",
        "etcdserver: permission is not granted to the role",
    );
    root.user_change_password("eve", "other").await.expect("root may");
    let before = world.connect(&world.endpoints, "eve", "evepw").await;
    refused(before.map(|_| ()), "InvalidArgument", WRONG);
    let after = world.connect(&world.endpoints, "eve", "other").await;
    denied(after.expect("the new password counts").get("eve", None).await);
    root.user_revoke_role("eve", "eves").await.expect("root may");
    assert!(root.user_get("eve").await.expect("root may").roles().is_empty());
    root.role_delete("eves").await.expect("root may");
    root.user_delete("eve").await.expect("root may");
    assert_eq!(root.user_list().await.expect("root may").users(), ["ann", "bob", "root"]);
    refused(root.user_get("eve").await, "FailedPrecondition", "etcdserver: user name not found");
    refused(root.role_get("eves").await, "FailedPrecondition", "etcdserver: role name not found");
    refused(
        root.user_delete("root").await,
        "InvalidArgument",
        "etcdserver: invalid auth management",
    );
}
