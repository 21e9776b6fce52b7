//! The commands of the log: one enum, converted from and to etcd's `InternalRaftRequest` here and nowhere
//! else, and everything that has to be judged of a command besides carrying it out. Every judgement is a
//! `match` without a wildcard: a new row in the table of `commands!` does not compile until it is judged.
//!
//! The wire form is that of the generated message: the command's field and the header, in the order of
//! their numbers. It is written and read here without that message, which has room for all commands at
//! once: 1.3 KB for a put.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, decode_key, message, skip_field};
use prost::{DecodeError, Message};
use quorate_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AuthDisableRequest, AuthDisableResponse, AuthEnableRequest,
    AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest,
    AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest,
    AuthRoleListResponse, AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse,
    AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
    AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest,
    AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateResponse, CompactionRequest,
    CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, DowngradeVersionTestRequest,
    InternalAuthenticateRequest, LeaseCheckpointRequest, LeaseCheckpointResponse,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestHeader, RequestOp, ResponseHeader, TxnRequest,
    TxnResponse, request_op::Request as Op,
};
use quorate_proto::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use quorate_proto::raftpb::ConfChange;

use super::membership::MemberRecord;
use crate::codec::HEADER;

/// What something that is proposed is answered with.
pub trait Proposable {
    type Response;
    /// For messages about it.
    const KIND: &'static str;

    /// The answer in `reply`, under `header`; the reply itself if it is that of something else.
    fn answer(reply: Reply, header: ResponseHeader) -> Result<Self::Response, Box<Reply>>;
}

/// The table of commands: name (etcd's label for metrics), message, its field in `InternalRaftRequest`, and
/// the message that answers it.
macro_rules! commands {
    ($($name:ident($message:ty) = $number:literal => $answer:ty;)*) => {
        /// A command of the log. Small: it is moved.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($name($message),)*
        }

        /// The answer to a command that was carried out, its header not yet set.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Reply {
            $($name($answer),)*
            /// The members after a configuration change.
            Members(Vec<MemberRecord>),
            /// Of an entry without a command.
            Nothing,
        }

        impl Request {
            /// The name of the command, as etcd labels it in metrics.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            fn number(&self) -> u32 {
                match self { $(Self::$name(_) => $number,)* }
            }

            fn field_len(&self) -> usize {
                match self { $(Self::$name(message) => message::encoded_len($number, message),)* }
            }

            fn encode_field(&self, buf: &mut Vec<u8>) {
                match self { $(Self::$name(message) => message::encode($number, message, buf),)* }
            }

            /// The empty command of a field; `None` when the field is that of no command.
            fn empty(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name(Default::default())),)*
                    _ => None,
                }
            }

            fn merge_field(
                &mut self,
                wire_type: prost::encoding::WireType,
                buf: &mut Bytes,
            ) -> Result<(), DecodeError> {
                let context = DecodeContext::default();
                match self {
                    $(Self::$name(message) => message::merge(wire_type, message, buf, context),)*
                }
            }

            /// The fields in the order of the table.
            const NUMBERS: &[u32] = &[$($number),*];
        }

        impl Reply {
            /// The size of the response's message without its header, bytes; `None` where there is no
            /// message.
            pub fn response_len(&self) -> Option<usize> {
                match self {
                    $(Self::$name(answer) => answer.message_len(),)*
                    Self::Members(_) | Self::Nothing => None,
                }
            }
        }

        $(
            impl From<$message> for Request {
                fn from(message: $message) -> Self {
                    Self::$name(message)
                }
            }

            impl Proposable for $message {
                type Response = $answer;
                const KIND: &'static str = stringify!($name);

                fn answer(reply: Reply, header: ResponseHeader) -> Result<$answer, Box<Reply>> {
                    match reply {
                        Reply::$name(mut answer) => {
                            answer.header = Some(header);
                            Ok(answer)
                        }
                        other => Err(Box::new(other)),
                    }
                }
            }
        )*
    };
}

// In the order in which etcd looks at them (3.7, `etcdserver/apply`): of an entry with several, which no
// member proposes, the first one counts.
commands! {
    ClusterVersionSet(ClusterVersionSetRequest) = 1300 => Done;
    ClusterMemberAttrSet(ClusterMemberAttrSetRequest) = 1301 => Done;
    DowngradeInfoSet(DowngradeInfoSetRequest) = 1302 => Done;
    DowngradeVersionTest(DowngradeVersionTestRequest) = 9900 => Done;
    Range(Box<RangeRequest>) = 3 => RangeResponse;
    Put(PutRequest) = 4 => PutResponse;
    DeleteRange(DeleteRangeRequest) = 5 => DeleteRangeResponse;
    Txn(TxnRequest) = 6 => TxnResponse;
    Compaction(CompactionRequest) = 7 => CompactionResponse;
    LeaseGrant(LeaseGrantRequest) = 8 => LeaseGrantResponse;
    LeaseRevoke(LeaseRevokeRequest) = 9 => LeaseRevokeResponse;
    LeaseCheckpoint(LeaseCheckpointRequest) = 11 => LeaseCheckpointResponse;
    Alarm(AlarmRequest) = 10 => AlarmResponse;
    Authenticate(InternalAuthenticateRequest) = 1012 => Login;
    AuthEnable(AuthEnableRequest) = 1000 => AuthEnableResponse;
    AuthDisable(AuthDisableRequest) = 1011 => AuthDisableResponse;
    AuthStatus(AuthStatusRequest) = 1013 => AuthStatusResponse;
    AuthUserAdd(AuthUserAddRequest) = 1100 => AuthUserAddResponse;
    AuthUserDelete(AuthUserDeleteRequest) = 1101 => AuthUserDeleteResponse;
    AuthUserChangePassword(AuthUserChangePasswordRequest) = 1103 => AuthUserChangePasswordResponse;
    AuthUserGrantRole(AuthUserGrantRoleRequest) = 1104 => AuthUserGrantRoleResponse;
    AuthUserGet(AuthUserGetRequest) = 1102 => AuthUserGetResponse;
    AuthUserRevokeRole(AuthUserRevokeRoleRequest) = 1105 => AuthUserRevokeRoleResponse;
    AuthRoleAdd(AuthRoleAddRequest) = 1200 => AuthRoleAddResponse;
    AuthRoleGrantPermission(Box<AuthRoleGrantPermissionRequest>) = 1203 =>
        AuthRoleGrantPermissionResponse;
    AuthRoleGet(AuthRoleGetRequest) = 1202 => AuthRoleGetResponse;
    AuthRoleRevokePermission(AuthRoleRevokePermissionRequest) = 1204 =>
        AuthRoleRevokePermissionResponse;
    AuthRoleDelete(AuthRoleDeleteRequest) = 1201 => AuthRoleDeleteResponse;
    AuthUserList(AuthUserListRequest) = 1106 => AuthUserListResponse;
    AuthRoleList(AuthRoleListRequest) = 1107 => AuthRoleListResponse;
}

const _: () = assert!(size_of::<Request>() <= 96, "a command is moved, so a large one is boxed");

/// An answer that may be a message on the wire.
trait MessageLen {
    fn message_len(&self) -> Option<usize>;
}

impl<M: Message> MessageLen for M {
    fn message_len(&self) -> Option<usize> {
        Some(self.encoded_len())
    }
}

impl MessageLen for Done {
    fn message_len(&self) -> Option<usize> {
        None
    }
}

impl MessageLen for Login {
    fn message_len(&self) -> Option<usize> {
        AuthenticateResponse { header: None, token: self.token.clone() }.message_len()
    }
}

/// The answer to a command that only the member itself proposes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Done {
    pub header: Option<ResponseHeader>,
}

/// A login at this auth revision.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Login {
    pub header: Option<ResponseHeader>,
    pub revision: u64,
    /// Empty when tokens are not stored but signed.
    pub token: String,
}

/// The members after a configuration change.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconfigured {
    pub header: ResponseHeader,
    pub members: Vec<MemberRecord>,
}

impl Proposable for ConfChange {
    type Response = Reconfigured;
    const KIND: &'static str = "ConfChange";

    fn answer(reply: Reply, header: ResponseHeader) -> Result<Reconfigured, Box<Reply>> {
        match reply {
            Reply::Members(members) => Ok(Reconfigured { header, members }),
            other => Err(Box::new(other)),
        }
    }
}

/// How much depends on a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Common,
    /// Has places that a flood of common proposals cannot take.
    Vital,
}

impl Request {
    /// Reads an entry's payload. The command is `None` when there is none that this version knows.
    pub fn decode(mut data: Bytes) -> Result<(RequestHeader, Option<Self>), DecodeError> {
        let mut header = RequestHeader::default();
        let mut held: Option<Self> = None;
        while data.has_remaining() {
            let (number, wire_type) = decode_key(&mut data)?;
            if number == HEADER {
                message::merge(wire_type, &mut header, &mut data, DecodeContext::default())?;
                continue;
            }
            let Some(mut next) = Self::empty(number) else {
                skip_field(wire_type, number, &mut data, DecodeContext::default())?;
                continue;
            };
            match &mut held {
                // A field that is there twice is merged, as protobuf has it.
                Some(request) if request.number() == number => {
                    request.merge_field(wire_type, &mut data)?;
                }
                _ => {
                    next.merge_field(wire_type, &mut data)?;
                    if held.as_ref().is_none_or(|held| next.rank() < held.rank()) {
                        held = Some(next);
                    }
                }
            }
        }
        Ok((header, held))
    }

    fn rank(&self) -> Option<usize> {
        let number = self.number();
        Self::NUMBERS.iter().position(|known| *known == number)
    }

    /// The payload of an entry.
    pub fn encode(&self, header: &RequestHeader) -> Bytes {
        let length = message::encoded_len(HEADER, header) + self.field_len();
        let mut buf = Vec::with_capacity(length);
        if self.number() < HEADER {
            self.encode_field(&mut buf);
            message::encode(HEADER, header, &mut buf);
        } else {
            message::encode(HEADER, header, &mut buf);
            self.encode_field(&mut buf);
        }
        buf.into()
    }

    /// The weight of a proposal, which is the member's `own` or a client's. A client cannot choose the
    /// places that are kept for the end of leases: it could fill them.
    pub fn weight(&self, own: bool) -> Weight {
        let vital = match self {
            Self::LeaseRevoke(_)
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_) => own,
            Self::Range(_)
            | Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compaction(_)
            | Self::LeaseGrant(_)
            | Self::Authenticate(_)
            | Self::AuthEnable(_)
            | Self::AuthDisable(_)
            | Self::AuthStatus(_)
            | Self::AuthUserAdd(_)
            | Self::AuthUserDelete(_)
            | Self::AuthUserChangePassword(_)
            | Self::AuthUserGrantRole(_)
            | Self::AuthUserGet(_)
            | Self::AuthUserRevokeRole(_)
            | Self::AuthUserList(_)
            | Self::AuthRoleAdd(_)
            | Self::AuthRoleGrantPermission(_)
            | Self::AuthRoleGet(_)
            | Self::AuthRoleRevokePermission(_)
            | Self::AuthRoleDelete(_)
            | Self::AuthRoleList(_)
            | Self::DowngradeInfoSet(_)
            | Self::DowngradeVersionTest(_) => false,
        };
        if vital { Weight::Vital } else { Weight::Common }
    }

    /// Whether the command reads or writes keys or leases, which it must not while an alarm CORRUPT stands.
    pub(super) fn touches_keys(&self) -> bool {
        match self {
            Self::Range(_)
            | Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compaction(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke(_) => true,
            Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::Authenticate(_)
            | Self::AuthEnable(_)
            | Self::AuthDisable(_)
            | Self::AuthStatus(_)
            | Self::AuthUserAdd(_)
            | Self::AuthUserDelete(_)
            | Self::AuthUserChangePassword(_)
            | Self::AuthUserGrantRole(_)
            | Self::AuthUserGet(_)
            | Self::AuthUserRevokeRole(_)
            | Self::AuthUserList(_)
            | Self::AuthRoleAdd(_)
            | Self::AuthRoleGrantPermission(_)
            | Self::AuthRoleGet(_)
            | Self::AuthRoleRevokePermission(_)
            | Self::AuthRoleDelete(_)
            | Self::AuthRoleList(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::DowngradeInfoSet(_)
            | Self::DowngradeVersionTest(_) => false,
        }
    }

    /// Whether the command needs space, which there is none of while an alarm NOSPACE stands. A txn counts
    /// by both its branches.
    pub(super) fn grows(&self) -> bool {
        match self {
            Self::Put(_) | Self::LeaseGrant(_) => true,
            Self::Txn(txn) => puts(txn),
            Self::Range(_)
            | Self::DeleteRange(_)
            | Self::Compaction(_)
            | Self::LeaseRevoke(_)
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::Authenticate(_)
            | Self::AuthEnable(_)
            | Self::AuthDisable(_)
            | Self::AuthStatus(_)
            | Self::AuthUserAdd(_)
            | Self::AuthUserDelete(_)
            | Self::AuthUserChangePassword(_)
            | Self::AuthUserGrantRole(_)
            | Self::AuthUserGet(_)
            | Self::AuthUserRevokeRole(_)
            | Self::AuthUserList(_)
            | Self::AuthRoleAdd(_)
            | Self::AuthRoleGrantPermission(_)
            | Self::AuthRoleGet(_)
            | Self::AuthRoleRevokePermission(_)
            | Self::AuthRoleDelete(_)
            | Self::AuthRoleList(_)
            | Self::ClusterVersionSet(_)
            | Self::ClusterMemberAttrSet(_)
            | Self::DowngradeInfoSet(_)
            | Self::DowngradeVersionTest(_) => false,
        }
    }
}

/// Whether any branch of the tree puts, taken or not.
fn puts(txn: &TxnRequest) -> bool {
    let op_puts = |op: &RequestOp| match &op.request {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(nested)) => puts(nested),
        Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => false,
    };
    txn.success.iter().chain(&txn.failure).any(op_puts)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use quorate_proto::etcdserverpb::InternalRaftRequest;

    use super::*;

    fn header() -> RequestHeader {
        RequestHeader { id: 7, username: "u".into(), auth_revision: 3 }
    }

    /// The bytes are those of the generated message, for fields on both sides of the header.
    #[test]
    fn payloads_are_etcds() {
        let check = |request: Request, message: InternalRaftRequest| {
            let message = InternalRaftRequest { header: Some(header()), ..message };
            let bytes = request.encode(&header());
            assert_eq!(bytes, message.encode_to_vec());
            assert_eq!(Request::decode(bytes), Ok((header(), Some(request))));
        };
        let put = PutRequest { key: "k".into(), value: "v".into(), lease: 5, ..Default::default() };
        let message = InternalRaftRequest { put: Some(put.clone()), ..Default::default() };
        check(put.into(), message);
        let get = AuthUserGetRequest { name: "n".into() };
        let message =
            InternalRaftRequest { auth_user_get: Some(get.clone()), ..Default::default() };
        check(get.into(), message);
        let set = ClusterVersionSetRequest { ver: "3.7.0".into() };
        let message =
            InternalRaftRequest { cluster_version_set: Some(set.clone()), ..Default::default() };
        check(set.into(), message);
        let range = RangeRequest { key: "r".into(), limit: 3, ..Default::default() };
        let message = InternalRaftRequest { range: Some(range.clone()), ..Default::default() };
        check(Box::new(range).into(), message);
    }

    /// Each field of the generated message is a command, and the other way round.
    #[test]
    fn every_field_is_a_command() {
        assert_eq!(Request::NUMBERS.len(), 30);
        for number in Request::NUMBERS {
            let empty = Request::empty(*number).expect("it is in the table");
            let bytes = empty.encode(&header());
            let message = InternalRaftRequest::decode(bytes.clone()).expect("decodes");
            assert_eq!(message.encode_to_vec(), bytes, "{} = {number}", empty.kind());
            assert_eq!(Request::decode(bytes), Ok((header(), Some(empty))));
        }
    }

    #[test]
    fn of_several_commands_the_first_that_etcd_looks_at_counts() {
        let put = PutRequest { key: "k".into(), ..Default::default() };
        let set = ClusterVersionSetRequest { ver: "3.7.0".into() };
        let enable = Some(AuthEnableRequest {});
        let message = InternalRaftRequest {
            put: Some(put.clone()),
            auth_enable: enable,
            ..InternalRaftRequest::default()
        };
        let decoded = Request::decode(message.encode_to_vec().into()).expect("decodes");
        assert_eq!(decoded.1, Some(put.into()));
        let message = InternalRaftRequest { cluster_version_set: Some(set.clone()), ..message };
        let decoded = Request::decode(message.encode_to_vec().into()).expect("decodes");
        assert_eq!(decoded.1, Some(set.into()));
    }

    #[test]
    fn a_payload_without_a_known_command_has_none() {
        let header_only = InternalRaftRequest { header: Some(header()), ..Default::default() };
        assert_eq!(Request::decode(header_only.encode_to_vec().into()), Ok((header(), None)));
        // Field 2000, a message of one byte.
        let unknown = Bytes::from_static(&[0x82, 0x7d, 1, 0]);
        assert_eq!(Request::decode(unknown), Ok((RequestHeader::default(), None)));
        assert!(Request::decode(Bytes::from_static(b"\x22\x05k")).is_err(), "cut off");
    }

    #[test]
    fn a_clients_revocation_does_not_weigh_what_the_members_own_does() {
        let revoke = Request::from(LeaseRevokeRequest { id: 1 });
        assert_eq!((revoke.weight(true), revoke.weight(false)), (Weight::Vital, Weight::Common));
        let put = Request::from(PutRequest::default());
        assert_eq!(put.weight(true), Weight::Common);
    }
}
