//! The changes of a batch that is not committed yet, in key order, and a cursor that shows them over
//! the engine's state. Last write wins; nothing here knows what the bytes mean.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use crate::engine::{Batch, Cf, Cursor as EngineCursor, EngineError, Pair, Snapshot};

/// What a batch changes: a new value, or none for a deletion.
#[derive(Default)]
pub(super) struct Overlay {
    families: [Family; Cf::COUNT],
    bytes: usize,
}

/// Of a deletion of many keys all is here: each piece takes as little as it can.
type Family = BTreeMap<Box<[u8]>, Option<Box<[u8]>>>;

impl Overlay {
    pub fn set(&mut self, cf: Cf, key: impl Into<Box<[u8]>>, value: impl Into<Box<[u8]>>) {
        self.change(cf, key.into(), Some(value.into()));
    }

    pub fn delete(&mut self, cf: Cf, key: impl Into<Box<[u8]>>) {
        self.change(cf, key.into(), None);
    }

    fn change(&mut self, cf: Cf, key: Box<[u8]>, value: Option<Box<[u8]>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
        self.families[cf as usize].insert(key, value);
    }

    /// The value this batch gives to `key`; `None` if it does not touch it.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Option<Option<&[u8]>> {
        self.families[cf as usize].get(key).map(Option::as_deref)
    }

    /// Bytes set so far, overwritten ones included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Moves everything into the engine's batch, so that it is not there twice.
    pub fn write_to(self, batch: &mut Batch) {
        for (cf, family) in Cf::ALL.into_iter().zip(self.families) {
            for (key, value) in family {
                match value {
                    Some(value) => batch.put(cf, &key, &value),
                    None => batch.delete(cf, &key),
                }
            }
        }
    }
}

/// A forward cursor over a snapshot with, perhaps, an overlay above it.
pub(super) struct Cursor<'a> {
    base: EngineCursor,
    over: Option<Over<'a>>,
    at: At,
}

struct Over<'a> {
    family: &'a Family,
    upper: Option<Vec<u8>>,
    rest: btree_map::Range<'a, Box<[u8]>, Option<Box<[u8]>>>,
    next: Option<(&'a [u8], Option<&'a [u8]>)>,
}

/// Which side the current pair is on.
#[derive(Clone, Copy, PartialEq)]
enum At {
    Base,
    Over,
    /// The same key on both sides: the overlay's value counts.
    Both,
}

impl<'a> Cursor<'a> {
    pub fn new(
        snapshot: &Snapshot,
        overlay: Option<&'a Overlay>,
        cf: Cf,
        upper: Option<&[u8]>,
    ) -> Self {
        let over = overlay.map(|o| &o.families[cf as usize]).filter(|f| !f.is_empty());
        let over = over.map(|family| Over {
            family,
            upper: upper.map(<[u8]>::to_vec),
            rest: family.range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&[][..]))),
            next: None,
        });
        Self { base: snapshot.cursor(cf, upper), over, at: At::Base }
    }

    /// Goes to the first pair at or after `key`.
    pub fn seek(&mut self, key: &[u8]) -> Result<(), EngineError> {
        self.base.seek(key);
        if let Some(over) = &mut self.over {
            over.rest = over.family.range::<[u8], _>((Bound::Included(key), Bound::Unbounded));
            over.advance();
        }
        self.settle()
    }

    /// Goes to the next pair.
    pub fn next(&mut self) -> Result<(), EngineError> {
        if self.at != At::Over {
            self.base.next();
        }
        if let (Some(over), true) = (&mut self.over, self.at != At::Base) {
            over.advance();
        }
        self.settle()
    }

    /// The pair at the position; none at the end.
    pub fn entry(&self) -> Result<Option<Pair<'_>>, EngineError> {
        if self.at == At::Base {
            return self.base.entry();
        }
        let next = self.over.as_ref().and_then(|over| over.next);
        Ok(next.and_then(|(key, value)| value.map(|value| (key, value))))
    }

    /// Decides which side is next, passing over what the overlay deletes.
    fn settle(&mut self) -> Result<(), EngineError> {
        let Some(over) = &mut self.over else { return Ok(()) };
        while let Some((key, value)) = over.next {
            let order = self.base.entry()?.map(|(base, _)| base.cmp(key));
            self.at = match order {
                Some(std::cmp::Ordering::Less) => At::Base,
                Some(std::cmp::Ordering::Equal) => At::Both,
                Some(std::cmp::Ordering::Greater) | None => At::Over,
            };
            if self.at == At::Base || value.is_some() {
                return Ok(());
            }
            if self.at == At::Both {
                self.base.next();
            }
            over.advance();
        }
        self.at = At::Base;
        Ok(())
    }
}

impl Over<'_> {
    fn advance(&mut self) {
        self.next = self.rest.next().map(|(key, value)| (&key[..], value.as_deref()));
        if let (Some((key, _)), Some(upper)) = (self.next, &self.upper)
            && *key >= upper[..]
        {
            self.next = None;
        }
    }
}
