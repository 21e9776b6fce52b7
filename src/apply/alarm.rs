//! Alarms as replicated state: which member has raised which. Raising and clearing are decided elsewhere.

use std::collections::BTreeSet;

use prost::Message;
use quorate_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmType, alarm_request::AlarmAction,
};

use crate::engine::Cf;
use crate::error::Fatal;
use crate::mvcc::{Store, Write};
use crate::types::MemberId;

/// The active alarms, as `(member, type)`: the rows of etcd's bucket `alarm`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms(BTreeSet<(MemberId, i32)>);

impl Alarms {
    pub fn load(store: &Store) -> Result<Self, Fatal> {
        let mut alarms = Self::default();
        for row in store.view().scan(Cf::Alarm) {
            let (key, _) = row?;
            let alarm = AlarmMember::decode(key)
                .map_err(|e| Fatal::new("an alarm record does not decode", e))?;
            alarms.0.insert((MemberId(alarm.member_id), alarm.alarm));
        }
        Ok(alarms)
    }

    /// Whether any member has raised `kind`.
    pub fn stands(&self, kind: AlarmType) -> bool {
        self.0.iter().any(|(_, k)| *k == kind as i32)
    }

    /// Whether `member` has raised `kind`.
    pub fn raised_by(&self, member: MemberId, kind: AlarmType) -> bool {
        self.0.contains(&(member, kind as i32))
    }

    pub fn list(&self) -> Vec<AlarmMember> {
        self.0.iter().map(|(member, kind)| row(*member, *kind)).collect()
    }

    /// Carries out the request and answers the alarms it concerns, as etcd does: what is found for
    /// GET, what was raised or cleared otherwise.
    pub fn apply(&mut self, write: &mut Write<'_>, request: &AlarmRequest) -> Vec<AlarmMember> {
        let one = (MemberId(request.member_id), request.alarm);
        match request.action() {
            AlarmAction::Get => {
                let all = request.alarm() == AlarmType::None;
                let wanted = |row: &AlarmMember| all || row.alarm == request.alarm;
                self.list().into_iter().filter(wanted).collect()
            }
            AlarmAction::Activate if request.alarm() == AlarmType::None => Vec::new(),
            AlarmAction::Activate => {
                if self.0.insert(one) {
                    write.put_raw(Cf::Alarm, &row(one.0, one.1).encode_to_vec(), &[]);
                }
                vec![row(one.0, one.1)]
            }
            AlarmAction::Deactivate if self.0.remove(&one) => {
                write.delete_raw(Cf::Alarm, &row(one.0, one.1).encode_to_vec());
                vec![row(one.0, one.1)]
            }
            AlarmAction::Deactivate => Vec::new(),
        }
    }
}

fn row(member: MemberId, kind: i32) -> AlarmMember {
    AlarmMember { member_id: member.0, alarm: kind }
}
