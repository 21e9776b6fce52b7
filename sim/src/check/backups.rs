//! A backup is one moment of the history, and all of it: what a server that was restored from it serves is
//! what the log has at its revision, leases and their keys included; and that moment is not before what
//! its member had reported already. Checked by the replay of the log alone.

use std::collections::{BTreeMap, BTreeSet};

use super::bounded;
use super::model::{COMPACTED, Misfit, Trial};
use super::space::Space;
use crate::facts::evidence::{Backup, Read, Record};
use crate::facts::history::Call;
use crate::facts::verdict::{Proof, Violation};

pub const CHECKER: &str = "backups";
/// Shared with the nemesis, which takes backups.
pub const SERVES: &str = "a backup can be restored and served";
const MOMENT: &str = "a backup is a moment of the history";
const PRESENT: &str = "a backup is not older than its member's last report";
const LEASES: &str = "leases are restored with their keys";

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let checked = record.backups.iter().flat_map(|backup| {
        let checker = Checker { record, space: &space, backup };
        checker.run()
    });
    bounded(checked.collect())
}

struct Checker<'a> {
    record: &'a Record,
    space: &'a Space,
    backup: &'a Backup,
}

impl Checker<'_> {
    fn run(&self) -> Vec<Violation> {
        let Some(revision) = self.revision() else {
            return vec![self.fault(SERVES, "its content cannot be read".to_owned())];
        };
        if revision > self.space.last {
            // A log that was broken off does not have what came later.
            let known = self.record.whole;
            let text = format!("it is at {revision}, there is no more than {}", self.space.last);
            return known.then(|| self.fault(MOMENT, text)).into_iter().collect();
        }
        let mut faults: Vec<_> =
            self.backup.reads.iter().filter_map(|it| self.read(revision, it)).collect();
        faults.extend(self.late(revision));
        faults.extend(self.leases(revision));
        faults
    }

    /// Of the first answer; there is none where nothing was answered.
    fn revision(&self) -> Option<i64> {
        let (_, answer) = self.backup.reads.first()?;
        Some(answer.as_ref().ok()?.header.as_ref()?.revision)
    }

    fn read(&self, revision: i64, (request, answer): &Read) -> Option<Violation> {
        let trial = Trial::new(self.space, revision);
        let answer = match answer {
            Ok(answer) => answer,
            // What was compacted is gone, if a compaction may have reached that far.
            Err(failure) if failure.text == COMPACTED && request.revision > 0 => {
                let furthest = self.record.compacted_at_most();
                let text =
                    format!("{} was refused, {furthest} at most is compacted", request.revision);
                return (request.revision >= furthest).then(|| self.fault(MOMENT, text));
            }
            Err(failure) => {
                return Some(
                    self.fault(SERVES, format!("at {}: {}", request.revision, failure.text)),
                );
            }
        };
        let why = match trial.range(request, Some(answer)).err()? {
            Misfit::Refused(text) => format!("it should have been refused: {text}"),
            Misfit::Differs(text) => text,
        };
        Some(
            self.fault(
                MOMENT,
                format!("restored at {revision}, read at {}: {why}", request.revision),
            ),
        )
    }

    /// The same process had reported a later revision before the backup was requested.
    fn late(&self, revision: i64) -> Option<Violation> {
        let Backup { source, process, began, .. } = self.backup;
        let before = self.record.samples.iter().filter(|sample| {
            sample.host == *source && sample.process == *process && sample.at < *began
        });
        let said =
            before.filter_map(|sample| Some(sample.status.header.as_ref()?.revision)).max()?;
        let text = format!("it is at {revision}, its member was at {said}");
        (revision < said).then(|| self.fault(PRESENT, text))
    }

    /// Every lease that has keys is there, every one that is there has its keys, and some call has asked
    /// for it.
    fn leases(&self, revision: i64) -> Vec<Violation> {
        let everything = self.space.select(&[0], &[0], revision);
        let needed: BTreeSet<i64> =
            everything.map(|kv| kv.lease).filter(|lease| *lease != 0).collect();
        let listed: BTreeMap<i64, _> =
            self.backup.leases.iter().map(|(id, answer)| (*id, answer)).collect();
        let granted = granted(self.record);
        let mut faults = Vec::new();
        for id in needed.iter().filter(|id| !listed.contains_key(id)) {
            faults.push(format!("lease {id} is gone, and keys hang on it at {revision}"));
        }
        for (id, answer) in listed {
            let answer = match answer {
                Ok(answer) => answer,
                Err(failure) => {
                    faults.push(format!("lease {id} is listed, and not there: {}", failure.text));
                    continue;
                }
            };
            let keys = self.space.attached(id, revision);
            if !answer.keys.iter().eq(keys.iter().map(|kv| &kv.key)) {
                let keys: Vec<_> = keys.iter().map(|kv| &kv.key).collect();
                let told = &answer.keys;
                faults.push(format!("on lease {id} hang {told:?}, at {revision} it was {keys:?}"));
            }
            match granted.get(&id) {
                // A grant without an answer, whose number was left to the server, may have got it.
                None if granted.contains_key(&0) => {}
                None => faults.push(format!("lease {id} was never granted")),
                // A number may be used again, and for another time.
                Some(ttls) if !ttls.is_empty() && !ttls.contains(&answer.granted_ttl) => {
                    let ttl = answer.granted_ttl;
                    faults.push(format!("lease {id} is of {ttl} s, granted were {ttls:?}"));
                }
                Some(_) => {}
            }
        }
        faults.into_iter().map(|text| self.fault(LEASES, text)).collect()
    }

    fn fault(&self, property: &'static str, text: String) -> Violation {
        let Backup { source, began, .. } = self.backup;
        let at_us = self.record.at(*began).as_micros() as u64;
        let violation =
            Violation::new(CHECKER, property, format!("the backup of {source}: {text}"));
        violation.proved_by(Proof::Member { host: source.clone(), at_us })
    }
}

/// Every lease that may have been granted, with the times in the answers; none where an answer
/// is missing, as then another time may have been granted.
fn granted(record: &Record) -> BTreeMap<i64, BTreeSet<i64>> {
    let mut granted: BTreeMap<i64, BTreeSet<i64>> = BTreeMap::new();
    let mut unknown = BTreeSet::new();
    for operation in &record.operations {
        match &operation.call {
            Call::Grant(_, Ok(answer)) => {
                granted.entry(answer.id).or_default().insert(answer.ttl);
            }
            Call::Grant(request, Err(failure)) if !failure.never => {
                unknown.insert(request.id);
            }
            _ => {}
        }
    }
    for id in unknown {
        granted.insert(id, BTreeSet::new());
    }
    granted
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseTimeToLiveResponse, RangeRequest,
        RangeResponse, ResponseHeader, StatusResponse,
    };
    use quorate_proto::mvccpb::{KeyValue, event::EventType};
    use tonic::Code;

    use super::*;
    use crate::check::fixture::{Fixture, event, failed, header, kv, texts};
    use crate::facts::evidence::{Lease, Sample};
    use crate::facts::history::Answer;
    use crate::facts::request;

    const ID: i64 = 7;

    fn leased() -> KeyValue {
        KeyValue { lease: ID, ..kv(3, "b", "2") }
    }

    /// Two keys, the second of which hangs on a lease, and a third one later.
    fn history() -> Fixture {
        let request = LeaseGrantRequest { id: ID, ttl: 5 };
        let answer = LeaseGrantResponse { id: ID, ttl: 5, header: header(1), ..Default::default() };
        let fixture = Fixture::default().call(0, 1, Call::Grant(request, Ok(answer)));
        fixture.wrote(2, "a", "1").event(3, event(EventType::Put, leased())).wrote(4, "c", "3")
    }

    fn everything(revision: i64) -> RangeRequest {
        RangeRequest { range_end: vec![0].into(), revision, ..request::get(vec![0]) }
    }

    fn answer(at: i64, kvs: Vec<KeyValue>) -> Answer<RangeResponse> {
        let count = kvs.len() as i64;
        Ok(RangeResponse { header: header(at), kvs, more: false, count })
    }

    fn lease(keys: &[&'static str]) -> Lease {
        let keys = keys.iter().map(|key| (*key).into()).collect();
        (
            ID,
            Ok(LeaseTimeToLiveResponse { id: ID, ttl: 5, granted_ttl: 5, keys, header: header(3) }),
        )
    }

    /// At revision 3, read as it should be.
    fn sound(fixture: &Fixture) -> Backup {
        let now = vec![kv(2, "a", "1"), leased()];
        Backup {
            source: "m1".into(),
            process: 1,
            began: fixture.at(10.0),
            reads: vec![
                (everything(0), answer(3, now)),
                (everything(2), answer(3, vec![kv(2, "a", "1")])),
            ],
            leases: vec![lease(&["b"])],
        }
    }

    /// The violations of a backup that is not quite as it should be.
    fn said(change: impl FnOnce(&mut Backup, &mut Record)) -> String {
        let mut fixture = history();
        let mut backup = sound(&fixture);
        change(&mut backup, &mut fixture.record);
        fixture.record.backups.push(backup);
        texts(&check(&fixture.record))
    }

    #[test]
    fn what_is_right_passes() {
        assert_eq!(said(|_, _| {}), "");
    }

    #[test]
    fn every_key_is_as_it_was() {
        let with = |kvs: Vec<KeyValue>| said(|backup, _| backup.reads[0].1 = answer(3, kvs));
        assert!(with(vec![leased()]).contains("counted 1, there are 2"));
        assert!(with(vec![kv(2, "a", "9"), leased()]).contains(MOMENT));
        let older = KeyValue { version: 2, ..kv(2, "a", "1") };
        assert!(with(vec![older, leased()]).contains(MOMENT));
        let later = vec![kv(2, "a", "1"), leased(), kv(4, "c", "3")];
        assert!(with(later).contains("counted 3, there are 2"));
        let moved = said(|backup, _| {
            backup.reads[0].1 = answer(4, vec![kv(2, "a", "1"), leased(), kv(4, "c", "3")]);
        });
        assert!(moved.contains("its header has Some(3), not 4"), "another moment: {moved}");
    }

    #[test]
    fn the_past_is_there_unless_it_was_compacted() {
        let past = |record: &mut Record, backup: &mut Backup, compacted: Option<i64>| {
            backup.reads[1].1 = failed(Code::OutOfRange, COMPACTED);
            let request = |revision| quorate_proto::etcdserverpb::CompactionRequest {
                revision,
                physical: false,
            };
            if let Some(revision) = compacted {
                let call = Call::Compact(request(revision), Ok(Default::default()));
                let of = crate::facts::history::Operation { call, ..record.operations[0].clone() };
                record.operations.push(of);
            }
        };
        assert!(
            said(|backup, record| past(record, backup, None)).contains("0 at most is compacted")
        );
        assert!(
            said(|backup, record| past(record, backup, Some(2))).contains("2 at most is compacted")
        );
        assert_eq!(said(|backup, record| past(record, backup, Some(3))), "");
        let hole = said(|backup, _| backup.reads[1].1 = answer(3, vec![]));
        assert!(hole.contains("read at 2: counted 0, there are 1"), "{hole}");
        let refused = said(|backup, _| backup.reads[1].1 = failed(Code::DataLoss, "corrupt"));
        assert!(refused.contains(SERVES), "{refused}");
    }

    #[test]
    fn it_is_of_this_history() {
        let ahead = |whole: bool| {
            said(|backup, record| {
                record.whole = whole;
                backup.reads.truncate(1);
                backup.reads[0].1 = answer(9, Vec::new());
            })
        };
        assert!(ahead(true).contains("it is at 9, there is no more than 4"));
        assert_eq!(ahead(false), "");
        let silent = said(|backup, _| backup.reads[0].1 = failed(Code::DataLoss, "corrupt"));
        assert!(silent.contains("its content cannot be read"));
    }

    #[test]
    fn it_is_not_of_the_past() {
        let told = |process: u64, at: f64| {
            said(|backup, record| {
                let header = Some(ResponseHeader { revision: 4, ..Default::default() });
                let status = StatusResponse { header, ..Default::default() };
                let at = record.start.expect("set") + std::time::Duration::from_secs_f64(at);
                let host = backup.source.clone();
                record.samples.push(Sample { at, host, process, disk: 0, status });
            })
        };
        assert!(told(1, 9.0).contains("it is at 3, its member was at 4"));
        assert_eq!(told(1, 11.0), "", "it came on meanwhile");
        assert_eq!(told(0, 9.0), "", "it was started again since");
    }

    #[test]
    fn leases_have_their_keys() {
        assert!(said(|backup, _| backup.leases.clear()).contains("lease 7 is gone"));
        assert!(said(|backup, _| backup.leases[0] = lease(&[])).contains("on lease 7 hang []"));
        assert!(
            said(|backup, _| backup.leases[0] = lease(&["a", "b"])).contains("on lease 7 hang")
        );
        let gone = said(|backup, _| backup.leases[0].1 = failed(Code::NotFound, "no"));
        assert!(gone.contains("is listed, and not there"));
        let foreign = said(|backup, _| backup.leases.push((8, lease(&[]).1)));
        assert!(foreign.contains("lease 8 was never granted"), "{foreign}");
        let silent = said(|backup, record| {
            backup.leases.push((8, lease(&[]).1));
            let call =
                Call::Grant(Default::default(), Err(crate::facts::history::Failure::silence()));
            let of = crate::facts::history::Operation { call, ..record.operations[0].clone() };
            record.operations.push(of);
        });
        assert_eq!(silent, "", "a number that the server chose, in a lost answer");
        let longer = said(|backup, _| {
            if let Ok(answer) = &mut backup.leases[0].1 {
                answer.granted_ttl = 60;
            }
        });
        assert!(longer.contains("lease 7 is of 60 s, granted were {5}"), "{longer}");
    }
}
