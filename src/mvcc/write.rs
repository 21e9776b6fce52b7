//! A batch of committed entries on its way into the store: later operations see earlier ones, and
//! nothing is visible to readers before [`Write::commit`]. Decides nothing about time or order.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RangeResponse,
    ResponseHeader, TxnRequest, TxnResponse,
};
use quorate_proto::mvccpb::{KeyValue, event::EventType};

use super::changed::Changed;
use super::counts::Chunks;
use super::interval::KeyRange;
use super::keys::{Rev, attached_prefix};
use super::overlay::Overlay;
use super::range::{self, Total, after};
use super::reader::Reader;
use super::record::Head;
use super::store::{Position, Writer};
use super::{Halt, Outcome, change, settle, txn};
use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::limits;
use crate::plant;
use crate::types::{Index, LeaseId, Revision, Term};

/// What is read at a time of the keys that are to be deleted; tests have few.
const DELETE_STEP_BYTES: usize = if cfg!(test) { 300 } else { limits::ANSWER_PAGE_BYTES };

/// An open batch. Dropped without a commit, it leaves no trace.
pub struct Write<'a> {
    writer: Writer<'a>,
    overlay: Overlay,
    /// Fetched with the first change.
    chunks: Option<Chunks>,
    position: Position,
    /// Changes made so far under the main revision that follows the current one.
    changes: i64,
    /// Whether a caller waits for the answer to the entry.
    answered: bool,
    changed: Changed,
}

impl<'a> Write<'a> {
    pub(super) fn new(writer: Writer<'a>) -> Self {
        let (position, overlay) = (writer.base.position, Overlay::default());
        let changed = Changed::default();
        Self { writer, overlay, chunks: None, position, changes: 0, answered: true, changed }
    }

    /// Keeps the events of an entry while they take no more than about so many bytes.
    pub fn with_events_max(self, bytes_max: usize) -> Self {
        Self { changed: Changed::up_to(bytes_max), ..self }
    }

    /// Begins the effects of a raft entry. Every entry begins, whatever comes of it, so that the
    /// applied index moves with it.
    pub fn start_entry(&mut self, index: Index, term: Term) {
        let Position { applied, term: before, .. } = self.position;
        assert!(
            index > applied,
            "entry {index} after {applied}: entries are applied once, in order"
        );
        assert!(term >= before, "entry {index} has term {term}, the one before it {before}");
        self.position.applied = index;
        self.position.term = term;
        self.answered = true;
    }

    /// Notes that no caller waits for the answer to this entry: what a txn reads, and what was deleted, is
    /// left out of it.
    pub fn without_answer(&mut self) {
        self.answered = false;
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Answers a Range in the state as of here.
    pub fn range(&mut self, request: &RangeRequest) -> Outcome<RangeResponse> {
        settle(range::whole(self.reader(), request, Total::Counted))
    }

    /// Carries out a Put.
    pub fn put(&mut self, request: &PutRequest) -> Outcome<PutResponse> {
        let done = self.check_put(request).and_then(|()| Ok(self.put_op(request)?));
        settle(self.finish(done))
    }

    /// Carries out a DeleteRange.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Outcome<DeleteRangeResponse> {
        let done = self.delete_op(request).map_err(Halt::from);
        settle(self.finish(done))
    }

    /// Carries out a Txn: all or nothing.
    pub fn txn(&mut self, request: &TxnRequest) -> Outcome<TxnResponse> {
        let done = txn::write(self, request);
        settle(self.finish(done))
    }

    /// Deletes every key attached to the lease, in key order, under one main revision. Returns how many.
    pub fn delete_attached(&mut self, lease: LeaseId) -> Result<usize, Fatal> {
        let keys = self.attached(lease)?;
        for key in
            keys.iter().skip(usize::from(plant::LEASE_LEAVES_A_KEY.is_planted() && keys.len() > 1))
        {
            if let Some(head) = self.reader().head(key)?.filter(|head| !head.is_tombstone()) {
                self.delete_one(key, head)?;
            }
        }
        self.end_revision();
        Ok(keys.len())
    }

    /// The keys attached to a lease, in order.
    pub fn attached(&self, lease: LeaseId) -> Result<Vec<Bytes>, Fatal> {
        attached(self.reader(), lease)
    }

    /// Schedules the deletion of history below `revision`; history is gone for readers at once, space
    /// comes back in [`Store::compact_step`](super::Store::compact_step)s.
    pub fn compact(&mut self, revision: i64) -> Outcome<()> {
        if revision <= self.position.compacted.0 {
            return Ok(Err(Refused::Compacted));
        }
        if revision > self.position.revision.0 {
            return Ok(Err(Refused::FutureRevision));
        }
        self.position.compacted = Revision(revision);
        Ok(Ok(()))
    }

    /// Reads a bucket of another part, this batch's changes included.
    pub fn get_raw(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        self.reader().get(cf, key)
    }

    /// Writes to a bucket of another part.
    pub fn put_raw(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        assert_foreign(cf);
        self.overlay.set(cf, key, value);
    }

    /// Deletes from a bucket of another part.
    pub fn delete_raw(&mut self, cf: Cf, key: &[u8]) {
        assert_foreign(cf);
        self.overlay.delete(cf, key);
    }

    /// What changed since the last call.
    pub fn take_changed(&mut self) -> Changed {
        self.changed.take()
    }

    /// The newest main revision, this batch's included.
    pub fn revision(&self) -> Revision {
        self.position.revision
    }

    pub fn compact_revision(&self) -> Revision {
        self.position.compacted
    }

    pub fn applied(&self) -> Index {
        self.position.applied
    }

    /// Bytes that the batch writes so far, roughly.
    pub fn bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Writes everything, the applied index with it, as one engine batch, then shows it to readers.
    pub fn commit(mut self) -> Result<Committed, Fatal> {
        assert_eq!(self.changes, 0, "a revision is under construction");
        if let Some(mut chunks) = self.chunks.take() {
            let cuts = chunks.cuts(self.reader())?;
            chunks.settle(&mut self.overlay, cuts);
            self.chunks = Some(chunks);
        }
        let mut batch = self.writer.batch();
        std::mem::take(&mut self.overlay).write_to(&mut batch);
        self.writer.commit(batch, self.position)?;
        self.writer.keep_chunks(self.chunks);
        Ok(Committed { position: self.position })
    }

    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            snapshot: &self.writer.base.snapshot,
            overlay: Some(&self.overlay),
            revision: self.position.revision.0 + i64::from(self.changes > 0),
            compacted: self.position.compacted.0,
        }
    }

    pub(super) fn lease_exists(&self, lease: i64) -> Result<bool, Fatal> {
        Ok(self.reader().get(Cf::Lease, &lease.to_be_bytes())?.is_some())
    }

    /// What can refuse a Put, checked before anything of its request is done.
    pub(super) fn check_put(&self, request: &PutRequest) -> Result<(), Halt> {
        if request.lease != 0 && !self.lease_exists(request.lease)? {
            return Err(Refused::LeaseNotFound.into());
        }
        let needs_key = request.ignore_value || request.ignore_lease;
        if needs_key && self.reader().head(&request.key)?.is_none_or(|head| head.is_tombstone()) {
            return Err(Refused::KeyNotFound.into());
        }
        Ok(())
    }

    pub(super) fn put_op(&mut self, request: &PutRequest) -> Result<PutResponse, Fatal> {
        let newest = self.reader().head(&request.key)?;
        let alive = newest.as_ref().filter(|head| !head.is_tombstone()).map(|head| &head.kv);
        let inherited = |wanted: bool| -> Result<Option<&KeyValue>, Fatal> {
            if !wanted {
                return Ok(None);
            }
            let lost = || Fatal::new("put", "the key to inherit from vanished after the check");
            alive.ok_or_else(lost).map(Some)
        };
        let value = inherited(request.ignore_value)?.map_or(&request.value, |kv| &kv.value);
        let lease = inherited(request.ignore_lease)?.map_or(request.lease, |kv| kv.lease);
        let main = self.position.revision.0 + 1;
        let reborn = plant::VERSION_NOT_RESET.is_planted() && alive.is_none() && newest.is_some();
        let recreated = plant::CREATE_REVISION_FORGOTTEN.is_planted() && main % 16 == 0;
        let kv = KeyValue {
            key: request.key.clone(),
            create_revision: alive.filter(|_| !recreated).map_or(main, |kv| kv.create_revision),
            mod_revision: main,
            version: alive.map_or(i64::from(reborn), |kv| kv.version) + 1,
            value: value.clone(),
            lease,
        };
        let prev_kv = alive.filter(|_| request.prev_kv).cloned();
        if plant::LOST_WRITE.is_planted() && main % 50 == 0 {
            return Ok(PutResponse { header: self.header(), prev_kv });
        }
        self.change(newest, kv)?;
        Ok(PutResponse { header: self.header(), prev_kv })
    }

    pub(super) fn delete_op(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Fatal> {
        let mut keys = KeyRange::new(&request.key, &request.range_end);
        let wanted = request.prev_kv && self.answered;
        let (mut deleted, mut prev_kvs) = (0, Vec::new());
        loop {
            let (mut doomed, more) = self.alive(&keys)?;
            if plant::DELETE_RANGE_LEAVES_LAST.is_planted() && !more && deleted + doomed.len() > 1 {
                doomed.pop();
            }
            let next = doomed.last().map(|head| after(&head.kv.key));
            deleted += doomed.len();
            for head in doomed {
                // Not a part of what it was read as, which is freed when no answer needs it.
                let key = Bytes::copy_from_slice(&head.kv.key);
                if wanted {
                    prev_kvs.push(head.kv.clone());
                }
                self.delete_one(&key, head)?;
            }
            match next {
                Some(next) if more => keys = keys.from(next),
                _ => break,
            }
        }
        let deleted = i64::try_from(deleted).expect("they were counted one by one");
        Ok(DeleteRangeResponse { header: self.header(), deleted, prev_kvs })
    }

    /// The first keys of a range that are alive here, with their newest states, and whether there may
    /// be more: they take about as much memory at a time as a page.
    fn alive(&self, keys: &KeyRange) -> Result<(Vec<Head>, bool), Fatal> {
        let reader = self.reader();
        if let Some(key) = keys.single() {
            let head = reader.head(key)?.filter(|head| !head.is_tombstone());
            return Ok((head.into_iter().collect(), false));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut cursor = reader.cursor(Cf::Head, keys.upper());
        cursor.seek(keys.lower())?;
        while let Some((_, record)) = cursor.entry()? {
            if bytes >= DELETE_STEP_BYTES {
                return Ok((found, true));
            }
            let head = Head::parse(&Bytes::copy_from_slice(record))?;
            if !head.is_tombstone() {
                bytes += size_of::<Head>() + record.len();
                found.push(head);
            }
            cursor.next()?;
        }
        Ok((found, false))
    }

    fn delete_one(&mut self, key: &Bytes, head: Head) -> Result<(), Fatal> {
        let main = self.position.revision.0 + 1;
        let kv = KeyValue { key: key.clone(), mod_revision: main, ..KeyValue::default() };
        self.change(Some(head), kv)
    }

    /// Makes one change of one key, and its event. A `kv` of version 0 is a deletion.
    fn change(&mut self, newest: Option<Head>, kv: KeyValue) -> Result<(), Fatal> {
        let rev = Rev { main: self.position.revision.0 + 1, sub: self.changes };
        let chunks = match &mut self.chunks {
            Some(chunks) => chunks,
            none => none.insert(self.writer.take_chunks()?),
        };
        self.position.live_bytes +=
            change::record(&mut self.overlay, chunks, rev, newest.as_ref(), &kv);
        self.changes += 1;
        let kind = if kv.version == 0 { EventType::Delete } else { EventType::Put };
        let published = !self.changed.is_cut();
        let prev_kv = if published { self.before_revision(newest, &kv, rev.main)? } else { None };
        self.changed.add(kind, kv, prev_kv);
        Ok(())
    }

    /// The state of a key before the main revision under construction, for the event's `prev_kv`.
    fn before_revision(
        &self,
        newest: Option<Head>,
        kv: &KeyValue,
        main: i64,
    ) -> Result<Option<KeyValue>, Fatal> {
        match newest {
            // The same revision changed the key before: what watchers call previous is older.
            Some(head) if head.rev.main == main => {
                if kv.version != 0 && kv.create_revision == main {
                    return Ok(None);
                }
                self.reader().at(&kv.key, main - 1)
            }
            Some(_) if plant::WATCH_PREV_KV_LOST.is_planted() && main % 8 == 0 => Ok(None),
            Some(head) => Ok((!head.is_tombstone()).then_some(head.kv)),
            None => Ok(None),
        }
    }

    /// The header of an operation's answer: the revision it left behind.
    pub(super) fn header(&self) -> Option<ResponseHeader> {
        let revision = self.position.revision.0 + i64::from(self.changes > 0);
        Some(ResponseHeader { revision, ..ResponseHeader::default() })
    }

    /// Ends a request: what it changed shares one main revision. A refusal after a change would leave
    /// half a request behind, so it is a broken invariant.
    fn finish<T>(&mut self, done: Result<T, Halt>) -> Result<T, Halt> {
        match done {
            Err(Halt::Refused(refused)) if self.changes > 0 => {
                Err(Fatal::new("a request was refused after it had begun", refused).into())
            }
            done => {
                self.end_revision();
                done
            }
        }
    }

    fn end_revision(&mut self) {
        if self.changes > 0 {
            self.position.revision = self.position.revision.next();
            self.changes = 0;
        }
    }
}

/// Where the store stands after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    pub position: Position,
}

/// The keys attached to a lease, in order.
pub(super) fn attached(reader: Reader<'_>, lease: LeaseId) -> Result<Vec<Bytes>, Fatal> {
    let prefix = attached_prefix(lease);
    let mut keys = Vec::new();
    let mut cursor = reader.cursor(Cf::Attached, None);
    cursor.seek(&prefix)?;
    while let Some((key, _)) = cursor.entry()? {
        let Some(user_key) = key.strip_prefix(&prefix) else { break };
        keys.push(Bytes::copy_from_slice(user_key));
        cursor.next()?;
    }
    Ok(keys)
}

fn assert_foreign(cf: Cf) {
    let ours = cf == Cf::Key || Cf::DERIVED.contains(&cf);
    assert!(!ours, "{} is written by the operations above only", cf.name());
}
