//! Output in etcdctl's formats. A command hands over its response; the format decides what is written.
//!
//! Reading order: this file, [`simple`], [`fields`], [`json`], [`table`].

pub(super) mod fields;
pub(super) mod json;
pub(super) mod simple;
pub(super) mod table;

use std::fmt::Write as _;
use std::sync::Arc;

use prost::Message;
use quorate_proto::etcdserverpb::{
    AlarmResponse, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse,
    AuthUserGetResponse, AuthUserListResponse, DeleteRangeResponse, DowngradeResponse,
    HashKvResponse, LeaseGrantResponse, LeaseKeepAliveResponse, LeaseLeasesResponse,
    LeaseRevokeResponse, LeaseTimeToLiveResponse, MemberAddResponse, MemberListResponse,
    MoveLeaderResponse, PutResponse, RangeResponse, StatusResponse, TxnResponse, WatchResponse,
};

use super::shell::Shell;
use crate::tool::exit::Exit;
use crate::tool::raw;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Simple,
    Fields,
    Json,
    Protobuf,
    Table,
}

impl Format {
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "simple" => Self::Simple,
            "fields" => Self::Fields,
            "json" => Self::Json,
            "protobuf" => Self::Protobuf,
            "table" => Self::Table,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Fields => "fields",
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Table => "table",
        }
    }
}

/// Writes responses to standard output.
#[derive(Clone)]
pub(super) struct Printer {
    pub shell: Arc<dyn Shell>,
    pub format: Format,
    /// Keys and values in hexadecimal.
    pub hex: bool,
    /// Values without their keys, in the simple format.
    pub value_only: bool,
}

/// The health of an endpoint.
pub(super) struct Health {
    pub endpoint: String,
    pub healthy: bool,
    pub took: String,
    pub error: String,
}

/// The state of an endpoint: `StatusResponse` or `HashKvResponse`.
pub(super) struct At<T> {
    pub endpoint: String,
    pub response: T,
}

type Printed = Result<(), Exit>;

impl Printer {
    pub fn put(&self, response: &PutResponse) -> Printed {
        self.message("PutResponse", response, simple::put, fields::put)
    }

    pub fn get(&self, response: &RangeResponse) -> Printed {
        self.message("RangeResponse", response, simple::get, fields::get)
    }

    pub fn del(&self, response: &DeleteRangeResponse) -> Printed {
        self.message("DeleteRangeResponse", response, simple::del, fields::del)
    }

    pub fn txn(&self, response: &TxnResponse) -> Printed {
        self.message("TxnResponse", response, simple::txn, fields::txn)
    }

    pub fn watch(&self, response: &WatchResponse) -> Printed {
        match self.format {
            Format::Json => self.line(&json::watch(response)),
            _ => self.message("WatchResponse", response, simple::watch, fields::watch),
        }
    }

    pub fn lease_grant(&self, response: &LeaseGrantResponse) -> Printed {
        match self.format {
            Format::Json => self.line(&json::lease_grant(response)),
            Format::Protobuf => self.header_bytes(response.header.as_ref()),
            _ => self.message("LeaseGrantResponse", response, simple::grant, fields::grant),
        }
    }

    pub fn lease_revoke(&self, id: i64, response: &LeaseRevokeResponse) -> Printed {
        let text = move |_: &Self, _: &_| format!("lease {id:016x} revoked\n");
        let fields = |printer: &Self, response: &LeaseRevokeResponse| {
            fields::header(printer, response.header.as_ref())
        };
        match self.format {
            Format::Protobuf => Err(no_protobuf("LeaseRevokeResponse")),
            _ => self.message("LeaseRevokeResponse", response, text, fields),
        }
    }

    pub fn keep_alive(&self, response: &LeaseKeepAliveResponse) -> Printed {
        match self.format {
            Format::Json => self.line(&json::keep_alive(response)),
            Format::Protobuf => self.header_bytes(response.header.as_ref()),
            _ => {
                let name = "LeaseKeepAliveResponse";
                self.message(name, response, simple::keep_alive, fields::keep_alive)
            }
        }
    }

    pub fn time_to_live(&self, response: &LeaseTimeToLiveResponse, keys: bool) -> Printed {
        match self.format {
            Format::Json => self.line(&json::time_to_live(response)),
            Format::Protobuf => self.header_bytes(response.header.as_ref()),
            _ => {
                let simple = move |_: &Self, response: &_| simple::time_to_live(response, keys);
                self.message("LeaseTimeToLiveResponse", response, simple, fields::time_to_live)
            }
        }
    }

    pub fn leases(&self, response: &LeaseLeasesResponse) -> Printed {
        match self.format {
            Format::Json => self.line(&json::leases(response)),
            Format::Protobuf => self.header_bytes(response.header.as_ref()),
            _ => self.message("LeaseLeasesResponse", response, simple::leases, fields::leases),
        }
    }

    pub fn alarms(&self, response: &AlarmResponse) -> Printed {
        self.message("AlarmResponse", response, simple::alarms, fields::alarms)
    }

    pub fn member_add(&self, response: &MemberAddResponse) -> Printed {
        if self.format == Format::Json && self.hex {
            return self.line(&json::members(
                response.header.as_ref(),
                response.member.as_ref(),
                &response.members,
            ));
        }
        self.unless_fields("MemberAddResponse", response, |_, r| simple::member_add(r))
    }

    /// The response to another change of the members, with the text of the simple format.
    pub fn member_change<T: Message>(
        &self,
        name: &str,
        response: &T,
        (header, members): MemberParts<'_>,
        did: &str,
        id: u64,
    ) -> Printed {
        if self.format == Format::Json && self.hex {
            return self.line(&json::members(header, None, members));
        }
        let cluster = header.map_or(0, |header| header.cluster_id);
        let text = format!("Member {id:16x} {did} cluster {cluster:16x}\n");
        self.unless_fields(name, response, move |_, _| text.clone())
    }

    pub fn member_list(&self, response: &MemberListResponse) -> Printed {
        match self.format {
            Format::Json if self.hex => {
                self.line(&json::members(response.header.as_ref(), None, &response.members))
            }
            Format::Table => self.text(&table::members(response).grid()),
            _ => {
                let simple = |_: &Self, r: &_| raw::text(table::members(r).lines().as_bytes());
                self.message("MemberListResponse", response, simple, fields::members)
            }
        }
    }

    pub fn health(&self, all: &[Health]) -> Printed {
        match self.format {
            Format::Simple => {
                for one in all {
                    let (endpoint, took, error) = (&one.endpoint, &one.took, &one.error);
                    if error.is_empty() {
                        let did = "is healthy: successfully committed proposal";
                        self.text(&format!("{endpoint} {did}: took = {took}\n"))?;
                    } else {
                        let did = "is unhealthy: failed to commit proposal";
                        self.shell.err(&format!("{endpoint} {did}: {error}\n"));
                    }
                }
                Ok(())
            }
            Format::Fields => self.text(&fields::health(all)),
            Format::Json => self.line(&json::health(all)),
            Format::Table => self.text(&table::health(all).grid()),
            Format::Protobuf => Err(self.unsupported()),
        }
    }

    pub fn status(&self, all: &[At<StatusResponse>]) -> Printed {
        match self.format {
            Format::Simple => self.text(&table::status(all).lines()),
            Format::Fields => self.text(&fields::status(self, all)),
            Format::Json => self.line(&json::at("Status", "StatusResponse", all)),
            Format::Table => self.text(&table::status(all).grid()),
            Format::Protobuf => Err(self.unsupported()),
        }
    }

    pub fn hash_kv(&self, all: &[At<HashKvResponse>]) -> Printed {
        match self.format {
            Format::Simple => self.text(&table::hash_kv(all).lines()),
            Format::Fields => self.text(&fields::hash_kv(self, all)),
            Format::Json => self.line(&json::at("HashKV", "HashKVResponse", all)),
            Format::Table => self.text(&table::hash_kv(all).grid()),
            Format::Protobuf => Err(self.unsupported()),
        }
    }

    pub fn move_leader(&self, from: u64, to: u64, response: &MoveLeaderResponse) -> Printed {
        let text = format!("Leadership transferred from {from:x} to {to:x}\n");
        self.unless_fields("MoveLeaderResponse", response, move |_, _| text.clone())
    }

    pub fn downgrade(&self, action: &str, response: &DowngradeResponse) -> Printed {
        let version = &response.version;
        let text = format!("Downgrade {action} success, cluster version {version}\n");
        self.unless_fields("DowngradeResponse", response, move |_, _| text.clone())
    }

    pub fn auth_status(&self, response: &AuthStatusResponse) -> Printed {
        let (enabled, revision) = (response.enabled, response.auth_revision);
        let text = format!("Authentication Status: {enabled}\nAuthRevision: {revision}\n");
        self.unless_fields("AuthStatusResponse", response, move |_, _| text.clone())
    }

    /// A response that has a header and nothing else, with the text of the simple format.
    pub fn done<T: Message>(
        &self,
        name: &str,
        response: &T,
        header: impl Fn(&T) -> Header<'_>,
        text: &str,
    ) -> Printed {
        let simple = |_: &Self, _: &T| raw::text(text.as_bytes());
        let fields = |printer: &Self, response: &T| fields::header(printer, header(response));
        self.message(name, response, simple, fields)
    }

    pub fn role_get(&self, role: &str, response: &AuthRoleGetResponse) -> Printed {
        let simple = |_: &Self, response: &_| simple::role(role, response);
        self.message("AuthRoleGetResponse", response, simple, fields::role)
    }

    pub fn role_list(&self, response: &AuthRoleListResponse) -> Printed {
        let simple = |_: &Self, r: &AuthRoleListResponse| simple::names(&r.roles);
        self.message("AuthRoleListResponse", response, simple, fields::roles)
    }

    pub fn user_get(&self, user: &str, response: &AuthUserGetResponse) -> Printed {
        let mut text = format!("User: {user}\nRoles:");
        for role in &response.roles {
            let _ = write!(text, " {role}");
        }
        text.push('\n');
        let text = raw::text(text.as_bytes());
        self.unless_fields("AuthUserGetResponse", response, move |_, _| text.clone())
    }

    pub fn user_list(&self, response: &AuthUserListResponse) -> Printed {
        self.unless_fields("AuthUserListResponse", response, |_, r| simple::names(&r.users))
    }

    /// Writes text as it is.
    pub fn text(&self, text: &str) -> Printed {
        Ok(self.shell.out(text.as_bytes())?)
    }

    fn line(&self, text: &str) -> Printed {
        self.text(&format!("{text}\n"))
    }

    /// The protobuf form of a response in which etcd's client library embeds the header: etcdctl takes it for
    /// the header alone.
    fn header_bytes(&self, header: Header<'_>) -> Printed {
        let header = header.cloned().unwrap_or_default();
        Ok(self.shell.out(&header.encode_to_vec())?)
    }

    /// A message of package `etcdserverpb` in the formats of every message. In the simple one bytes that are
    /// no text are as [`raw`] has them.
    fn message<T: Message>(
        &self,
        name: &str,
        message: &T,
        simple: impl Fn(&Self, &T) -> String,
        fields: impl Fn(&Self, &T) -> String,
    ) -> Printed {
        match self.format {
            Format::Simple => Ok(self.shell.out(&raw::bytes(&simple(self, message)))?),
            Format::Fields => self.text(&fields(self, message)),
            Format::Json => self.line(&json::message(name, message)),
            Format::Protobuf => Ok(self.shell.out(&message.encode_to_vec())?),
            Format::Table => Err(self.unsupported()),
        }
    }

    /// The same for a message that etcdctl does not write as fields.
    fn unless_fields<T: Message>(
        &self,
        name: &str,
        message: &T,
        simple: impl Fn(&Self, &T) -> String,
    ) -> Printed {
        if self.format == Format::Fields {
            return Err(self.unsupported());
        }
        self.message(name, message, simple, |_, _| String::new())
    }

    fn unsupported(&self) -> Exit {
        let name = self.format.name();
        Exit::new(Exit::FEATURE, format!("{name} not supported as output format"))
    }
}

pub(super) type Header<'a> = Option<&'a quorate_proto::etcdserverpb::ResponseHeader>;
pub(super) type MemberParts<'a> = (Header<'a>, &'a [quorate_proto::etcdserverpb::Member]);

/// A response that etcd's client library wraps without its methods has no protobuf form in etcdctl.
fn no_protobuf(name: &str) -> Exit {
    Exit::new(Exit::FEATURE, format!("marshal unsupported for type *clientv3.{name}"))
}

/// Bytes as Go's `%q` writes them.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' => text.push_str("\\\""),
                '\\' => text.push_str("\\\\"),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                '\0'..='\x1f' | '\x7f' => {
                    let _ = write!(text, "\\x{:02x}", u32::from(letter));
                }
                letter if is_unprintable(letter) && u32::from(letter) > 0xffff => {
                    let _ = write!(text, "\\U{:08x}", u32::from(letter));
                }
                letter if is_unprintable(letter) => {
                    let _ = write!(text, "\\u{:04x}", u32::from(letter));
                }
                letter => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// Controls, and spaces other than U+0020.
fn is_unprintable(letter: char) -> bool {
    letter.is_control() || (letter.is_whitespace() && letter != ' ') || letter == '\u{ad}'
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn bytes_are_quoted_as_go_quotes_them() {
        let check = |bytes: &[u8], text: &str| assert_eq!(quoted(bytes), text);
        check(b"plain", r#""plain""#);
        check(b"a\"b\\c\n\t\x00\x1f\x7f", r#""a\"b\\c\n\t\x00\x1f\x7f""#);
        check(b"\xff\xfe", r#""\xff\xfe""#);
        check("\u{e9}\u{a0}\u{2028}".as_bytes(), "\"\u{e9}\\u00a0\\u2028\"");
    }
}
