//! Whether all that is derived from history agrees with it, row by row: newest states, superseded ones,
//! attachments to leases, counted chunks and sums. Changes nothing; memory grows with the counted chunks
//! only, that is with a few hundredths of the keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::View;
use super::counts::parse;
use super::foreign::Rows;
use super::keys::{RevKey, attached_key, version_key};
use super::record::{Head, KvRef, shared_kv};
use crate::engine::Cf;
use crate::error::Fatal;
use crate::types::LeaseId;

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Changes in the history.
    pub changes: u64,
    /// Keys that are alive at its end.
    pub keys: u64,
    /// Keys attached to leases.
    pub attached: u64,
}

impl View {
    /// Reads everything and passes each disagreement to `problem`; `progress` gets how many changes were
    /// compared.
    ///
    /// # Errors
    /// When rows cannot be read at all.
    pub fn verify(
        &self,
        progress: &mut dyn FnMut(u64),
        problem: &mut dyn FnMut(String),
    ) -> Result<Verified, Fatal> {
        let mut verified = Verified::default();
        let expected = self.verify_changes(&mut verified, progress, problem)?;
        let heads = self.verify_heads(&mut verified, problem)?;
        let stored = [heads, count(self, Cf::Versions)?, count(self, Cf::Attached)?];
        let expected = [expected.newest, expected.superseded, verified.attached];
        for ((cf, stored), expected) in
            [Cf::Head, Cf::Versions, Cf::Attached].into_iter().zip(stored).zip(expected)
        {
            if stored != expected {
                let name = cf.name();
                problem(format!("{name} has {stored} rows, history accounts for {expected}"));
            }
        }
        Ok(verified)
    }

    /// Every change is its key's newest state, or one of the superseded ones.
    fn verify_changes(
        &self,
        verified: &mut Verified,
        progress: &mut dyn FnMut(u64),
        problem: &mut dyn FnMut(String),
    ) -> Result<Expected, Fatal> {
        let (mut rows, mut bytes, mut last) = (Rows::default(), 0, 0);
        let mut expected = Expected::default();
        for row in self.scan(Cf::Key) {
            let (key, record) = row?;
            verified.changes += 1;
            progress(verified.changes);
            bytes += (key.len() + record.len()) as u64;
            if let Err(why) = rows.check(Cf::Key, &key, &record) {
                problem(why.to_string());
                continue;
            }
            let (rev, tombstone) = RevKey::parse(&key)?;
            last = rev.main;
            if record.is_empty() {
                continue;
            }
            let kv = KeyValue { mod_revision: rev.main, ..shared_kv(&record)? };
            let state = Head { rev, kv };
            let user_key = &state.kv.key;
            let what = || format!("key {:?} at revision {}.{}", user_key, rev.main, rev.sub);
            let newest = self.get(Cf::Head, user_key)?;
            let newest_rev = newest.as_ref().map(Head::parse).transpose()?.map(|head| head.rev);
            if newest_rev == Some(rev) {
                expected.newest += 1;
                if state.is_tombstone() != tombstone {
                    problem(format!("{} is a deletion with a version", what()));
                }
                if newest != Some(Head::encode(rev.sub, &state.kv).0.into()) {
                    problem(format!("{} is another one than its newest state", what()));
                }
                continue;
            }
            if newest_rev.is_none_or(|newest| newest < rev) {
                problem(format!("{} is newer than its newest state", what()));
                continue;
            }
            let outline = self.get(Cf::Versions, &version_key(user_key, rev))?;
            match outline {
                Some(outline) if *outline == *state.outline().encode() => expected.superseded += 1,
                Some(_) => {
                    expected.superseded += 1;
                    problem(format!("{} is another one than its outline", what()));
                }
                None => problem(format!("{} is not among the superseded states", what())),
            }
        }
        if bytes != self.live_bytes() {
            let counted = self.live_bytes();
            problem(format!("history takes {bytes} bytes, {counted} were counted"));
        }
        if last > self.revision().0 {
            let newest = self.revision();
            problem(format!("the last change is of revision {last}, the newest is {newest}"));
        }
        Ok(expected)
    }

    /// Attachments and counts, by a walk over the newest states. Returns how many of these there are.
    fn verify_heads(
        &self,
        verified: &mut Verified,
        problem: &mut dyn FnMut(String),
    ) -> Result<u64, Fatal> {
        let mut pieces = Vec::new();
        for cf in [Cf::Counts, Cf::Sums] {
            // The first piece begins before every key.
            let mut stored = BTreeMap::from([(Bytes::new(), 0)]);
            for row in self.scan(cf) {
                let (start, keys) = row?;
                stored.insert(start, parse(&keys)?);
            }
            let made_before_there_were_any = stored.len() == 1 && cf == Cf::Sums;
            if !made_before_there_were_any {
                let stored: Vec<(Bytes, i64)> = stored.into_iter().collect();
                pieces.push(Pieces { cf, found: vec![0; stored.len()], stored, at: 0 });
            }
        }
        let mut heads = 0;
        for row in self.scan(Cf::Head) {
            let (key, record) = row?;
            heads += 1;
            let (_, kv) = KvRef::parse_head(&record)?;
            if *kv.key != *key {
                problem(format!("the newest state of key {key:?} is that of another key"));
            }
            if kv.version == 0 {
                continue;
            }
            verified.keys += 1;
            pieces.iter_mut().for_each(|pieces| pieces.pass(&key));
            if kv.lease == 0 {
                continue;
            }
            verified.attached += 1;
            let lease = LeaseId(kv.lease);
            if self.get(Cf::Attached, &attached_key(lease, &key))?.is_none() {
                problem(format!("key {key:?} is not attached to its lease {:x}", kv.lease));
            }
            if self.get(Cf::Lease, &kv.lease.to_be_bytes())?.is_none() {
                problem(format!("key {key:?} is attached to lease {:x}, which is gone", kv.lease));
            }
        }
        for pieces in &pieces {
            pieces.compare(problem);
        }
        Ok(heads)
    }
}

/// Rows that history accounts for.
#[derive(Default)]
struct Expected {
    newest: u64,
    superseded: u64,
}

/// Pieces of the key space with the number of keys that each should have.
struct Pieces {
    cf: Cf,
    stored: Vec<(Bytes, i64)>,
    found: Vec<i64>,
    at: usize,
}

impl Pieces {
    /// Counts the next key in key order.
    fn pass(&mut self, key: &Bytes) {
        while self.stored.get(self.at + 1).is_some_and(|(start, _)| start <= key) {
            self.at += 1;
        }
        self.found[self.at] += 1;
    }

    fn compare(&self, problem: &mut dyn FnMut(String)) {
        for ((start, stored), found) in self.stored.iter().zip(&self.found) {
            if stored != found {
                let name = self.cf.name();
                problem(format!("{name} has {stored} keys from {start:?} on, there are {found}"));
            }
        }
    }
}

fn count(view: &View, cf: Cf) -> Result<u64, Fatal> {
    let mut count = 0;
    for row in view.scan(cf) {
        row?;
        count += 1;
    }
    Ok(count)
}
