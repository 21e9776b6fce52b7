//! `auth`, `user` and `role`.

use quorate_proto::authpb::{Permission, UserAddOptions, permission::Type};
use quorate_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGetRequest, AuthRoleGrantPermissionRequest, AuthRoleListRequest,
    AuthRoleRevokePermissionRequest, AuthStatusRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use super::{bytes, prefix_end};
use crate::client::{Client, Response, Status};
use crate::ctl::Context;
use crate::ctl::cluster::{Cluster, Failed};
use crate::tool::arguments::check_text;
use crate::tool::exit::Exit;

pub async fn auth(context: &Context, leaf: &str) -> Result<(), Exit> {
    if !context.arguments.words().is_empty() {
        let why = format!("auth {leaf} command does not accept any arguments");
        return Err(Exit::arguments(why));
    }
    let cluster = context.cluster().await?;
    match leaf {
        "enable" => {
            enable(&cluster).await?;
            context.printer.text("Authentication Enabled\n")
        }
        "disable" => {
            let call =
                async |client: Client| client.auth().auth_disable(AuthDisableRequest {}).await;
            cluster.call(call).await?;
            context.printer.text("Authentication Disabled\n")
        }
        _ => {
            let call = async |client: Client| client.auth().auth_status(AuthStatusRequest {}).await;
            context.printer.auth_status(&cluster.call(call).await?)
        }
    }
}

/// Makes the role `root` and grants it to the user `root` where only that is missing.
async fn enable(cluster: &Cluster) -> Result<(), Failed> {
    loop {
        let call = async |client: Client| client.auth().auth_enable(AuthEnableRequest {}).await;
        match cluster.call(call).await {
            Ok(_) => return Ok(()),
            Err(failed) if failed.text == "etcdserver: root user does not have root role" => {}
            Err(failed) => return Err(failed),
        }
        let role = AuthRoleAddRequest { name: "root".into() };
        let call = async |client: Client| client.auth().role_add(role.clone()).await;
        match cluster.call(call).await {
            Ok(_) => {}
            Err(failed) if failed.text == "etcdserver: role name already exists" => {}
            Err(failed) => return Err(failed),
        }
        let grant = AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
        let call = async |client: Client| client.auth().user_grant_role(grant.clone()).await;
        cluster.call(call).await?;
    }
}

/// A call without a time limit of its own, as etcdctl makes those about users and roles.
async fn call<A>(
    context: &Context,
    call: impl AsyncFn(Client) -> Result<Response<A>, Status>,
) -> Result<A, Exit> {
    Ok(context.cluster().await?.call_unlimited(call).await?)
}

pub async fn user(context: &Context, leaf: &str) -> Result<(), Exit> {
    let (words, printer) = (context.arguments.words(), &context.printer);
    let needs = |what: &str| Err(Exit::arguments(format!("user {leaf} command requires {what}")));
    match (leaf, &words[..]) {
        ("add", [argument]) => user_add(context, argument).await,
        ("delete", [name]) => {
            let request = AuthUserDeleteRequest { name: name.clone() };
            let call = call(context, async |c: Client| c.auth().user_delete(request.clone()).await);
            let text = format!("User {name} deleted\n");
            printer.done("AuthUserDeleteResponse", &call.await?, |r| r.header.as_ref(), &text)
        }
        ("get", [name]) => user_get(context, name).await,
        ("list", []) => {
            let request = AuthUserListRequest {};
            printer.user_list(
                &call(context, async |c: Client| c.auth().user_list(request).await).await?,
            )
        }
        ("list", _) => Err(Exit::arguments("user list command requires no arguments")),
        ("passwd", [name]) => {
            let password = match context.arguments.bool("interactive") {
                true => password(context, name)?,
                false => first_word(context)?,
            };
            let request = AuthUserChangePasswordRequest {
                name: name.clone(),
                password,
                ..AuthUserChangePasswordRequest::default()
            };
            let call = call(context, async |c: Client| {
                c.auth().user_change_password(request.clone()).await
            });
            let (name, text) = ("AuthUserChangePasswordResponse", "Password updated\n");
            printer.done(name, &call.await?, |r| r.header.as_ref(), text)
        }
        ("grant-role", [user, role]) => {
            let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
            let call =
                call(context, async |c: Client| c.auth().user_grant_role(request.clone()).await);
            let text = format!("Role {role} is granted to user {user}\n");
            printer.done("AuthUserGrantRoleResponse", &call.await?, |r| r.header.as_ref(), &text)
        }
        ("grant-role", _) => Err(Exit::arguments(
            "user grant command requires user name and role name as its argument",
        )),
        ("revoke-role", [user, role]) => {
            let request = AuthUserRevokeRoleRequest { name: user.clone(), role: role.clone() };
            let call =
                call(context, async |c: Client| c.auth().user_revoke_role(request.clone()).await);
            let text = format!("Role {role} is revoked from user {user}\n");
            printer.done("AuthUserRevokeRoleResponse", &call.await?, |r| r.header.as_ref(), &text)
        }
        ("revoke-role", _) => Err(Exit::arguments(
            "user revoke-role requires user name and role name as its argument",
        )),
        _ => needs("user name as its argument"),
    }
}

async fn user_add(context: &Context, argument: &str) -> Result<(), Exit> {
    let arguments = &context.arguments;
    let no_password = arguments.bool("no-password");
    let (name, password) = match (no_password, arguments.text("new-user-password")) {
        (true, _) => (argument, String::new()),
        (_, "") => match argument.split_once(':') {
            Some(("", _)) => return Err(Exit::arguments("empty user name is not allowed")),
            Some((name, password)) => (name, password.to_owned()),
            None if arguments.bool("interactive") => (argument, password(context, argument)?),
            None => (argument, first_word(context)?),
        },
        (_, password) => (argument, password.to_owned()),
    };
    let request = AuthUserAddRequest {
        name: name.to_owned(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    };
    let call = call(context, async |c: Client| c.auth().user_add(request.clone()).await);
    let text = format!("User {name} created\n");
    context.printer.done("AuthUserAddResponse", &call.await?, |r| r.header.as_ref(), &text)
}

async fn user_get(context: &Context, name: &str) -> Result<(), Exit> {
    let cluster = context.cluster().await?;
    let request = AuthUserGetRequest { name: name.to_owned() };
    let call = async |client: Client| client.auth().user_get(request.clone()).await;
    let user = cluster.call_unlimited(call).await?;
    if !context.arguments.bool("detail") {
        return context.printer.user_get(name, &user);
    }
    context.printer.text(&format!("User: {name}\n"))?;
    for role in user.roles {
        context.printer.text("\n")?;
        let request = AuthRoleGetRequest { role: role.clone() };
        let call = async |client: Client| client.auth().role_get(request.clone()).await;
        context.printer.role_get(&role, &cluster.call_unlimited(call).await?)?;
    }
    Ok(())
}

/// The first word of a line of standard input: a password that is not asked for.
fn first_word(context: &Context) -> Result<String, Exit> {
    let line = context.shell.read_line()?;
    let word = line.split_whitespace().next().unwrap_or_default();
    check_text(word)?;
    Ok(word.to_owned())
}

/// A password that was typed twice.
fn password(context: &Context, name: &str) -> Result<String, Exit> {
    let ask = |prompt: &str| {
        let refused = |error| Exit::arguments(format!("failed to ask password: {error}"));
        context.shell.read_password(prompt).map_err(refused)
    };
    let password = ask(&format!("Password of {name}: "))?;
    if password.is_empty() {
        return Err(Exit::arguments("empty password"));
    }
    match ask(&format!("Type password of {name} again for confirmation: "))? == password {
        true => Ok(password),
        false => Err(Exit::arguments("given passwords are different")),
    }
}

pub async fn role(context: &Context, leaf: &str) -> Result<(), Exit> {
    let (words, printer) = (context.arguments.words(), &context.printer);
    match (leaf, &words[..]) {
        ("add", [name]) => {
            let request = AuthRoleAddRequest { name: name.clone() };
            let call = call(context, async |c: Client| c.auth().role_add(request.clone()).await);
            let text = format!("Role {name} created\n");
            printer.done("AuthRoleAddResponse", &call.await?, |r| r.header.as_ref(), &text)
        }
        ("delete", [name]) => {
            let request = AuthRoleDeleteRequest { role: name.clone() };
            let call = call(context, async |c: Client| c.auth().role_delete(request.clone()).await);
            let text = format!("Role {name} deleted\n");
            printer.done("AuthRoleDeleteResponse", &call.await?, |r| r.header.as_ref(), &text)
        }
        ("get", [name]) => {
            let request = AuthRoleGetRequest { role: name.clone() };
            let call = call(context, async |c: Client| c.auth().role_get(request.clone()).await);
            printer.role_get(name, &call.await?)
        }
        ("list", []) => {
            let request = AuthRoleListRequest {};
            printer.role_list(
                &call(context, async |c: Client| c.auth().role_list(request).await).await?,
            )
        }
        ("list", _) => Err(Exit::arguments("role list command requires no arguments")),
        ("grant-permission", [role, kind, range @ ..]) if !range.is_empty() => {
            check_text(role)?;
            let perm_type = permission_type(kind)?;
            let (key, range_end) = permission_range(context, range)?;
            let perm = Permission {
                perm_type: perm_type as i32,
                key: key.into(),
                range_end: range_end.into(),
            };
            let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
            let call = call(context, async |c: Client| {
                c.auth().role_grant_permission(request.clone()).await
            });
            let (name, text) =
                ("AuthRoleGrantPermissionResponse", format!("Role {role} updated\n"));
            printer.done(name, &call.await?, |r| r.header.as_ref(), &text)
        }
        ("grant-permission", _) => Err(Exit::arguments(
            "role grant command requires role name, permission type, and key [endkey] as its argument",
        )),
        ("revoke-permission", [role, range @ ..]) if !range.is_empty() => {
            check_text(role)?;
            let (key, range_end) = permission_range(context, range)?;
            let text = revoked(role, &range[0], &range_end);
            let request = AuthRoleRevokePermissionRequest {
                role: role.clone(),
                key: key.into(),
                range_end: range_end.into(),
            };
            let call = call(context, async |c: Client| {
                c.auth().role_revoke_permission(request.clone()).await
            });
            let name = "AuthRoleRevokePermissionResponse";
            printer.done(name, &call.await?, |r| r.header.as_ref(), &text)
        }
        ("revoke-permission", _) => Err(Exit::arguments(
            "role revoke-permission command requires role name and key [endkey] as its argument",
        )),
        _ => {
            let why = format!("role {leaf} command requires role name as its argument");
            Err(Exit::arguments(why))
        }
    }
}

fn permission_type(text: &str) -> Result<Type, Exit> {
    match text.to_uppercase().as_str() {
        "READ" => Ok(Type::Read),
        "WRITE" => Ok(Type::Write),
        "READWRITE" => Ok(Type::Readwrite),
        _ => Err(Exit::arguments(format!("invalid permission type: {text}"))),
    }
}

fn revoked(role: &str, key: &str, range_end: &[u8]) -> String {
    let key = bytes(key);
    let (key, end) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(range_end));
    match range_end {
        [] => format!("Permission of key {key} is revoked from role {role}\n"),
        [0] => {
            format!("Permission of range [{key}, <open ended> is revoked from role {role}\n")
        }
        _ => format!("Permission of range [{key}, {end}) is revoked from role {role}\n"),
    }
}

/// A key, with its end; an empty key stands for the first one.
fn permission_range(context: &Context, words: &[String]) -> Result<(Vec<u8>, Vec<u8>), Exit> {
    let prefix = context.arguments.bool("prefix");
    let from_key = context.arguments.bool("from-key");
    let key = bytes(&words[0]);
    if prefix && from_key && (key.is_empty() || words.len() == 1) {
        return Err(Exit::arguments("--from-key and --prefix flags are mutually exclusive"));
    }
    if key.is_empty() {
        let end = if prefix || from_key { vec![0] } else { Vec::new() };
        return Ok((vec![0], end));
    }
    let end = match words.get(1) {
        Some(_) if prefix => {
            return Err(Exit::arguments("unexpected endkey argument with --prefix flag"));
        }
        Some(_) if from_key => {
            return Err(Exit::arguments("unexpected endkey argument with --from-key flag"));
        }
        Some(end) => bytes(end),
        None if prefix => prefix_end(&key),
        None if from_key => vec![0],
        None => Vec::new(),
    };
    Ok((key, end))
}
