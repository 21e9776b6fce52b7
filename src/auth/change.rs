//! The requests that change the tables, with etcd's refusals in etcd's order (3.7,
//! `server/auth/store.go`). Permissions are checked before. A refusal changes nothing.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;
use quorate_proto::authpb::{Permission, Role, User, UserAddOptions};
use quorate_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest,
};

use super::{Auth, ENABLED, REVISION, ROOT, has_password};
use crate::engine::Cf;
use crate::error::Refused;
use crate::mvcc::Write;
use crate::plant;

impl Auth {
    /// Enables authentication; does nothing when it is enabled.
    pub fn enable(&mut self, write: &mut Write<'_>) -> Result<(), Refused> {
        if self.enabled {
            return Ok(());
        }
        let root = self.users.get(ROOT).ok_or(Refused::RootUserNotExist)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(Refused::RootRoleNotExist);
        }
        self.enabled = true;
        write.put_raw(Cf::Auth, ENABLED, &[1]);
        Ok(())
    }

    /// Disables authentication; does nothing when it is disabled. Returns whether it was enabled.
    pub fn disable(&mut self, write: &mut Write<'_>) -> bool {
        let was = std::mem::replace(&mut self.enabled, false);
        if was {
            write.put_raw(Cf::Auth, ENABLED, &[0]);
            self.changed(write);
        }
        was
    }

    pub fn user_add(
        &mut self,
        write: &mut Write<'_>,
        request: &AuthUserAddRequest,
    ) -> Result<(), Refused> {
        if request.name.is_empty() {
            return Err(Refused::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(Refused::UserAlreadyExists);
        }
        let options = request.options.unwrap_or(UserAddOptions { no_password: false });
        let password = match options.no_password {
            true => Bytes::new(),
            false => hash_of(&request.hashed_password)?,
        };
        let user = User {
            name: Bytes::copy_from_slice(request.name.as_bytes()),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        self.put_user(write, &request.name, user);
        self.changed(write);
        Ok(())
    }

    pub fn user_delete(&mut self, write: &mut Write<'_>, name: &str) -> Result<(), Refused> {
        if self.enabled && name == ROOT {
            return Err(Refused::InvalidAuthMgmt);
        }
        self.users.remove(name).ok_or(Refused::UserNotFound)?;
        write.delete_raw(Cf::AuthUsers, name.as_bytes());
        self.changed(write);
        Ok(())
    }

    pub fn user_change_password(
        &mut self,
        write: &mut Write<'_>,
        request: &AuthUserChangePasswordRequest,
    ) -> Result<(), Refused> {
        let user = self.users.get(&request.name).ok_or(Refused::UserNotFound)?;
        let password = match has_password(user) {
            true => hash_of(&request.hashed_password)?,
            false => Bytes::new(),
        };
        let user = User { password, ..User::clone(user) };
        self.put_user(write, &request.name, user);
        self.changed(write);
        Ok(())
    }

    /// Grants a role. The root role need not exist; granting a role again changes nothing.
    pub fn user_grant_role(
        &mut self,
        write: &mut Write<'_>,
        name: &str,
        role: &str,
    ) -> Result<(), Refused> {
        let user = self.users.get(name).ok_or(Refused::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Refused::RoleNotFound);
        }
        let mut user = User::clone(user);
        match user.roles.binary_search_by(|it| it.as_str().cmp(role)) {
            Ok(_) => return Ok(()),
            Err(at) => user.roles.insert(at, role.into()),
        }
        self.put_user(write, name, user);
        self.changed(write);
        Ok(())
    }

    pub fn user_revoke_role(
        &mut self,
        write: &mut Write<'_>,
        name: &str,
        role: &str,
    ) -> Result<(), Refused> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(Refused::InvalidAuthMgmt);
        }
        let user = self.users.get(name).ok_or(Refused::UserNotFound)?;
        if !self.take_role(write, name, User::clone(user), role) {
            return Err(Refused::RoleNotGranted);
        }
        self.changed(write);
        Ok(())
    }

    pub fn role_add(&mut self, write: &mut Write<'_>, name: &str) -> Result<(), Refused> {
        if name.is_empty() {
            return Err(Refused::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Refused::RoleAlreadyExists);
        }
        let role =
            Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        self.put_role(write, name, role);
        self.changed(write);
        Ok(())
    }

    /// Deletes a role and revokes it from all users that have it.
    pub fn role_delete(&mut self, write: &mut Write<'_>, name: &str) -> Result<(), Refused> {
        if self.enabled && name == ROOT {
            return Err(Refused::InvalidAuthMgmt);
        }
        self.roles.remove(name).ok_or(Refused::RoleNotFound)?;
        write.delete_raw(Cf::AuthRoles, name.as_bytes());
        for (user, row) in self.users.clone() {
            self.take_role(write, &user, User::clone(&row), name);
        }
        self.changed(write);
        Ok(())
    }

    /// Grants a permission, or changes the kind of the one on exactly this range.
    pub fn role_grant_permission(
        &mut self,
        write: &mut Write<'_>,
        request: &AuthRoleGrantPermissionRequest,
    ) -> Result<(), Refused> {
        let grant = request.perm.as_ref().ok_or(Refused::PermissionNotGiven)?;
        if !is_range(&grant.key, &grant.range_end) {
            return Err(Refused::InvalidAuthMgmt);
        }
        let role = self.roles.get(&request.name).ok_or(Refused::RoleNotFound)?;
        let mut role = Role::clone(role);
        let rows = &mut role.key_permission;
        // Only the first of several ranges from one key is looked at, as in etcd.
        let at = rows.partition_point(|row| row.key < grant.key);
        match rows.get_mut(at).filter(|row| same_range(row, &grant.key, &grant.range_end)) {
            Some(row) => row.perm_type = grant.perm_type,
            None => {
                let behind = rows.partition_point(|row| row.key <= grant.key);
                rows.insert(behind, grant.clone());
            }
        }
        self.put_role(write, &request.name, role);
        self.changed(write);
        Ok(())
    }

    pub fn role_revoke_permission(
        &mut self,
        write: &mut Write<'_>,
        request: &AuthRoleRevokePermissionRequest,
    ) -> Result<(), Refused> {
        let role = self.roles.get(&request.role).ok_or(Refused::RoleNotFound)?;
        let mut role = Role::clone(role);
        let before = role.key_permission.len();
        role.key_permission.retain(|row| !same_range(row, &request.key, &request.range_end));
        if role.key_permission.len() == before {
            return Err(Refused::PermissionNotGranted);
        }
        self.put_role(write, &request.role, role);
        self.changed(write);
        Ok(())
    }

    /// Revokes a role from a user; returns whether the user had it.
    fn take_role(&mut self, write: &mut Write<'_>, name: &str, mut user: User, role: &str) -> bool {
        let before = user.roles.len();
        user.roles.retain(|it| it != role);
        let had = user.roles.len() < before;
        if had {
            self.put_user(write, name, user);
        }
        had
    }

    fn put_user(&mut self, write: &mut Write<'_>, name: &str, user: User) {
        write.put_raw(Cf::AuthUsers, name.as_bytes(), &user.encode_to_vec());
        self.users.insert(name.into(), Arc::new(user));
    }

    fn put_role(&mut self, write: &mut Write<'_>, name: &str, role: Role) {
        write.put_raw(Cf::AuthRoles, name.as_bytes(), &role.encode_to_vec());
        self.roles.insert(name.into(), Arc::new(role));
    }

    fn changed(&mut self, write: &mut Write<'_>) {
        self.revision += 1;
        write.put_raw(Cf::Auth, REVISION, &self.revision.to_be_bytes());
        if !plant::PERMISSIONS_NOT_REFRESHED.is_planted() {
            self.refresh();
        }
    }
}

/// The hash that the proposer made. (Releases before 3.5 proposed the password itself; no cluster that
/// this version can be in has one of those.)
fn hash_of(base64: &str) -> Result<Bytes, Refused> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|_| Refused::NoPasswordUser)
}

/// A permission is for one key, for keys up to a larger one, or for all from a key on.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (range_end.is_empty() || range_end == [0] || key < range_end)
}

fn same_range(row: &Permission, key: &Bytes, range_end: &Bytes) -> bool {
    (&row.key, &row.range_end) == (key, range_end)
}
