//! One host's disk, and everything that can be done to it from outside: faults, power cuts, bit rot.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use madsim::rand::Rng;

use super::tree::{Contents, Order, Side, Tree};
use crate::dice::Dice;
use crate::facts::seen::Harm;

/// Shares of calls that fail, 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    /// `sync_data` fails with an I/O error and forgets the writes.
    pub sync: f64,
    /// `write_all_at` fails with an I/O error after some of the bytes.
    pub write: f64,
    /// `read_at` fails with an I/O error.
    pub read: f64,
}

/// A host's disk as a nemesis sees it. It outlives every process of the host.
#[derive(Clone)]
pub struct SimDisk(pub(super) Arc<Mutex<Platter>>);

pub(super) struct Platter {
    pub(super) tree: Tree,
    pub(super) dice: Dice,
    pub(super) faults: DiskFaults,
    pub(super) capacity: u64,
    /// The process whose handles work; `None` while the power is off.
    pub(super) process: Option<u64>,
    pub(super) processes: u64,
    /// Held locks, by path.
    pub(super) locks: std::collections::BTreeSet<Vec<String>>,
    operations: u64,
    armed: Option<Armed>,
    /// Before the last power cut, if that took anything.
    before_cut: Option<Tree>,
    pub(super) harm: Harm,
}

struct Armed {
    at: u64,
    hook: Box<dyn FnOnce() + Send>,
}

/// How an operation goes.
pub(super) enum Verdict {
    Go,
    /// The power goes during it: it is begun, and nothing after it happens.
    Last(Box<dyn FnOnce() + Send>),
}

/// Single sectors that are left out, one at a time.
const SECTORS_LEFT_OUT: usize = 6;
/// What fits on a disk that nothing is done to.
const BYTES: u64 = 1 << 40;

impl SimDisk {
    pub(crate) fn new(dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            tree: Tree::new(),
            dice,
            faults: DiskFaults::default(),
            capacity: BYTES,
            process: None,
            processes: 0,
            locks: Default::default(),
            operations: 0,
            armed: None,
            before_cut: None,
            harm: Harm::default(),
        })))
    }

    /// The process is gone; what it wrote is not.
    pub(crate) fn close_process(&self) {
        self.lock().end_process();
    }

    /// The power goes: what was not synced is lost in part.
    pub(crate) fn power_cut(&self) {
        let mut platter = self.lock();
        platter.end_process();
        platter.armed = None;
        let Platter { tree, dice, before_cut, .. } = &mut *platter;
        *before_cut = tree.has_unsynced().then(|| tree.clone());
        tree.power_cut(Order::Any, dice);
    }

    /// Disks as the last power cut might have left this one instead, each with which of the unsynced changes
    /// it has; none when there were no such changes. The next call returns none.
    pub(crate) fn other_cuts(&self) -> Vec<(Order, SimDisk)> {
        let Some(before) = self.lock().before_cut.take() else { return Vec::new() };
        let fixed = [Order::None, Order::All, Order::FoldersOnly, Order::FilesOnly];
        let orders = fixed.into_iter().chain((0..SECTORS_LEFT_OUT).map(Order::Without));
        let cut = |order| {
            let other = Self::new(Dice::new(0));
            let mut tree = before.clone();
            tree.power_cut(order, &mut other.lock().dice);
            other.lock().tree = tree;
            (order, other)
        };
        orders.map(cut).collect()
    }

    /// The power goes during the `n`-th operation from now (1 is the next), which fails, as does
    /// every call of the process after it. `hook` runs then, to stop the rest of the host.
    pub(crate) fn arm(&self, n: u64, hook: impl FnOnce() + Send + 'static) {
        let mut platter = self.lock();
        let at = platter.operations + n.max(1);
        platter.armed = Some(Armed { at, hook: Box::new(hook) });
    }

    /// Takes back what would have cut the power.
    pub fn disarm(&self) {
        self.lock().armed = None;
    }

    pub fn set_faults(&self, faults: DiskFaults) {
        self.lock().faults = faults;
    }

    /// What all files together may take, bytes. Below what they take now, nothing more fits.
    /// Whether syncs fail or the disk is made to be full.
    pub fn is_broken(&self) -> bool {
        let platter = self.lock();
        platter.faults.sync > 0.0 || platter.capacity < BYTES
    }

    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    pub fn used_bytes(&self) -> u64 {
        self.lock().tree.used_bytes()
    }

    /// Operations so far, of all processes.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Paths and lengths of all files, sorted.
    pub fn files(&self) -> Vec<(String, u64)> {
        let mut platter = self.lock();
        let files = platter.tree.files();
        let with_len = files.into_iter().map(|(path, ino)| {
            let len = platter.tree.file(ino).map_or(0, |file| file.len());
            (path, len)
        });
        with_len.collect()
    }

    /// The bytes of a file, as processes see it.
    pub fn contents(&self, path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
        let mut platter = self.lock();
        let ino = platter.tree.find(path.as_ref())?;
        let file = platter.tree.file(ino)?;
        let mut bytes = vec![0; file.len() as usize];
        file.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// The files of a folder by name, as one side has them.
    pub fn read_folder(&self, dir: impl AsRef<Path>, side: Side) -> io::Result<Vec<Contents>> {
        self.lock().tree.read_folder(dir.as_ref(), side)
    }

    /// Puts a file there from outside, whole and synced, in place of one of that name; its
    /// folder is made if there is none.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8]) -> io::Result<()> {
        let tree = &mut self.lock().tree;
        let path = path.as_ref();
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        if tree.find(folder).is_err() {
            tree.create_folder(folder)?;
            tree.sync_folder(folder.parent().ok_or(io::ErrorKind::InvalidInput)?)?;
        }
        if tree.find(path).is_ok() {
            tree.remove(path)?;
        }
        let ino = tree.create_file(path)?;
        let file = tree.file(ino)?;
        file.write(bytes, 0);
        file.sync();
        tree.sync_folder(folder)
    }

    /// What was done to it so far.
    pub fn harm(&self) -> Harm {
        self.lock().harm
    }

    /// The medium rots: one bit of the file changes, for good.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) -> io::Result<()> {
        let mut platter = self.lock();
        let ino = platter.tree.find(path.as_ref())?;
        platter.tree.file(ino)?.flip_bit(offset, bit);
        platter.harm.rotten += 1;
        Ok(())
    }

    /// Everything is gone: a new disk in the old host.
    pub fn wipe(&self) {
        let mut platter = self.lock();
        assert!(platter.process.is_none(), "a disk is replaced while no process runs");
        platter.tree = Tree::new();
        platter.harm.wiped += 1;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platter {
    /// Counts an operation of `process` and decides how it goes.
    pub(super) fn begin(&mut self, process: u64) -> io::Result<Verdict> {
        if !self.is_current(process) {
            return Err(io::Error::other("the process or its power is gone"));
        }
        self.operations += 1;
        match self.armed.take_if(|armed| armed.at <= self.operations) {
            Some(armed) => Ok(Verdict::Last(armed.hook)),
            None => Ok(Verdict::Go),
        }
    }

    pub(super) fn is_current(&self, process: u64) -> bool {
        self.process == Some(process)
    }

    pub(super) fn strikes(&mut self, share: f64) -> bool {
        let strikes = share > 0.0 && self.dice.gen_bool(share);
        self.harm.failed += u64::from(strikes);
        strikes
    }

    /// The error of a call that no longer fits.
    pub(super) fn full(&mut self) -> io::Error {
        self.harm.failed += 1;
        io::ErrorKind::StorageFull.into()
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> u64 {
        self.capacity.saturating_sub(self.tree.used_bytes())
    }

    pub(super) fn end_process(&mut self) {
        self.process = None;
        self.locks.clear();
        self.tree.close_all();
        self.tree.forget_unreachable();
    }
}
