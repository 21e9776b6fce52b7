//! Users, roles and permissions as replicated state: pure, no clock, no random numbers. Passwords arrive
//! hashed and tokens as user names; both are handled by the member that the client is connected to.
//!
//! The tables in memory repeat etcd's buckets (3.7, `server/storage/schema/auth*.go`) and change in the
//! batch of the entry that changes them:
//!
//! | bucket | key | value |
//! |---|---|---|
//! | `auth` | `authEnabled` | one byte, 1 or 0 |
//! | `auth` | `authRevision` | big-endian u64; a store without it is at 1 |
//! | `authUsers` | user name | `authpb.User` |
//! | `authRoles` | role name | `authpb.Role` |
//!
//! Invariants:
//! * Every change of users, roles and permissions, and disabling authentication, increments the revision;
//!   enabling does not.
//! * A permission is checked for a [`Principal`] at a revision. An older revision than the present one is
//!   refused, so that a proposal is applied under the rules under which it was admitted, or not at all.
//! * Roles of a user and permissions of a role are sorted; the root role permits everything and need
//!   not exist as a role.
//!
//! Reading order: this file (the tables), [`intervals`], `permit` (permission checks), `change` (the requests
//! that change the tables). What each RPC requires is in [`crate::rpc`].

mod change;
mod intervals;
mod permit;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use quorate_proto::authpb::{Permission, Role, User, permission::Type};

use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::mvcc::{Store, View};
use crate::plant;
use intervals::Intervals;

pub use crate::rpc::Rule;

/// The user and the role with all permissions.
pub const ROOT: &str = "root";

const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";
/// The revision of a store whose tables were never changed.
const FIRST_REVISION: u64 = 1;

/// A user, and the auth revision at which it was authenticated. The default is no user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    pub user: String,
    /// 0 for no user.
    pub revision: u64,
}

/// The permissions of all roles of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Permitted {
    read: Intervals,
    write: Intervals,
}

/// The tables. A copy shares its rows with the original.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    roles: BTreeMap<String, Arc<Role>>,
    /// By user; follows from the two tables above.
    permitted: BTreeMap<String, Arc<Permitted>>,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: FIRST_REVISION,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            permitted: BTreeMap::new(),
        }
    }
}

impl Auth {
    /// Reads the tables from their buckets.
    pub fn load(store: &Store) -> Result<Self, Fatal> {
        if plant::AUTH_NOT_LOADED.is_planted() {
            return Ok(Self::default());
        }
        let view = store.view();
        let enabled = view.get(Cf::Auth, ENABLED)?.is_some_and(|value| value[..] == [1]);
        let mut auth = Self { enabled, revision: Self::revision_in(&view)?, ..Self::default() };
        for row in view.scan(Cf::AuthUsers) {
            let (name, value) = row?;
            let user = User::decode(value).map_err(|e| broken("user", &name, e))?;
            auth.users.insert(text("user", &name)?, Arc::new(user));
        }
        for row in view.scan(Cf::AuthRoles) {
            let (name, value) = row?;
            let role = Role::decode(value).map_err(|e| broken("role", &name, e))?;
            auth.roles.insert(text("role", &name)?, Arc::new(role));
        }
        auth.refresh();
        Ok(auth)
    }

    /// The revision that belongs to the data of `view`.
    pub fn revision_in(view: &View) -> Result<u64, Fatal> {
        let Some(value) = view.get(Cf::Auth, REVISION)? else { return Ok(FIRST_REVISION) };
        let bytes = <[u8; 8]>::try_from(&value[..]).map_err(|e| broken("revision", &value, e))?;
        Ok(u64::from_be_bytes(bytes).max(FIRST_REVISION))
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The principal of the member's own proposals.
    pub fn root(&self) -> Principal {
        self.principal(ROOT)
    }

    /// A user that has just been authenticated.
    pub fn principal(&self, user: &str) -> Principal {
        Principal { user: user.into(), revision: self.revision }
    }

    /// The bcrypt hash of a user's password, with etcd's refusals.
    pub fn password_hash(&self, user: &str) -> Result<Bytes, Refused> {
        if !self.enabled {
            return Err(Refused::AuthNotEnabled);
        }
        let user = self.users.get(user).ok_or(Refused::AuthFailed)?;
        match has_password(user) {
            true => Ok(user.password.clone()),
            false => Err(Refused::NoPasswordUser),
        }
    }

    /// Whether a user whose password was correct may be given a token.
    pub fn authenticate(&self, user: &str) -> Result<(), Refused> {
        if !self.enabled {
            return Err(Refused::AuthNotEnabled);
        }
        let user = self.users.get(user).ok_or(Refused::AuthFailed)?;
        has_password(user).then_some(()).ok_or(Refused::AuthFailed)
    }

    /// The roles of a user.
    pub fn user_roles(&self, user: &str) -> Result<Vec<String>, Refused> {
        self.users.get(user).map(|user| user.roles.clone()).ok_or(Refused::UserNotFound)
    }

    /// The permissions of a role. Those of the root role are everything, whatever is stored.
    pub fn role_permissions(&self, role: &str) -> Result<Vec<Permission>, Refused> {
        let stored = self.roles.get(role).ok_or(Refused::RoleNotFound)?;
        match role {
            ROOT => Ok(vec![Permission {
                perm_type: Type::Readwrite as i32,
                key: Bytes::new(),
                range_end: Bytes::from_static(b"\0"),
            }]),
            _ => Ok(stored.key_permission.clone()),
        }
    }

    /// All users, in order.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// All roles, in order.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Recomputes the permissions of all users.
    fn refresh(&mut self) {
        let permitted = |user: &User| Arc::new(self.permitted_to(user));
        let rows = self.users.iter().map(|(name, user)| (name.clone(), permitted(user)));
        self.permitted = rows.collect();
    }

    fn permitted_to(&self, user: &User) -> Permitted {
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        let grants: Vec<&Permission> = roles.flat_map(|role| &role.key_permission).collect();
        let of = |not: Type| {
            let kind = grants
                .iter()
                .filter(move |grant| Type::try_from(grant.perm_type).is_ok_and(|kind| kind != not));
            Intervals::union(kind.map(|grant| (&grant.key, &grant.range_end)))
        };
        Permitted { read: of(Type::Write), write: of(Type::Read) }
    }
}

/// Users that authenticate by certificate only have none.
fn has_password(user: &User) -> bool {
    !user.options.is_some_and(|options| options.no_password)
}

fn text(what: &str, name: &Bytes) -> Result<String, Fatal> {
    String::from_utf8(name.to_vec()).map_err(|e| broken(what, name, e))
}

fn broken(
    what: &str,
    key: &[u8],
    why: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Fatal {
    Fatal::new(format!("auth {what} {}", key.escape_ascii()), why)
}
