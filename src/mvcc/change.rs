//! What one change of one key writes: the same for a request and for a history that is installed.

use quorate_proto::mvccpb::KeyValue;

use super::counts::Chunks;
use super::keys::{Rev, RevKey, attached_key, version_key};
use super::overlay::Overlay;
use super::record::{Head, tombstone};
use crate::engine::Cf;
use crate::plant;
use crate::types::LeaseId;

/// Records a change: in history, as the newest state, the state it supersedes among the versions, its
/// lease, and the count of keys. `newest` is the state so far; a `kv` of version 0 is a deletion, with
/// key and mod revision only. Returns how many bytes of history that is.
pub(super) fn record(
    overlay: &mut Overlay,
    chunks: &mut Chunks,
    rev: Rev,
    newest: Option<&Head>,
    kv: &KeyValue,
) -> u64 {
    let lives = kv.version != 0;
    let (head, at) = Head::encode(rev.sub, kv);
    let record = if lives { head[at..].to_vec() } else { tombstone(&kv.key) };
    let key = RevKey::new(rev, !lives);
    let bytes = (key.as_bytes().len() + record.len()) as u64;
    overlay.set(Cf::Key, key.as_bytes(), record);
    overlay.set(Cf::Head, &kv.key[..], head);
    if let Some(old) = newest {
        assert!(old.rev < rev, "{rev:?} of {:?} comes after {:?}", kv.key, old.rev);
        overlay.set(Cf::Versions, version_key(&kv.key, old.rev), old.outline().encode());
    }
    let before = newest.filter(|head| !head.is_tombstone());
    attach(overlay, &kv.key, before.map_or(0, |head| head.kv.lease), kv.lease);
    match (before.is_some(), lives) {
        (false, true) => chunks.adjust(overlay, &kv.key, 1),
        (true, false) if plant::COUNT_FORGETS_DELETES.is_planted() => {}
        (true, false) => chunks.adjust(overlay, &kv.key, -1),
        (true, true) | (false, false) => {}
    }
    bytes
}

/// Moves a key from one lease to another; 0 is no lease.
fn attach(overlay: &mut Overlay, key: &[u8], from: i64, to: i64) {
    if from == to {
        return;
    }
    let stays = plant::LEASE_DETACH_FORGOTTEN.is_planted() && to == 0;
    if from != 0 && !stays {
        overlay.delete(Cf::Attached, attached_key(LeaseId(from), key));
    }
    if to != 0 {
        overlay.set(Cf::Attached, attached_key(LeaseId(to), key), []);
    }
}
