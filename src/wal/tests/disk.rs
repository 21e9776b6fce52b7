//! A disk in memory that loses power: what was not synced survives sector by sector, or not; names
//! survive up to some point of their history.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::env::{Disk, File, Lock, Open};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: Names,
    /// Every version of the names since the last sync of a folder, oldest first.
    unsynced_names: Vec<Names>,
    /// Changing operations still possible before everything fails.
    operations_left: Option<usize>,
    pub operations: usize,
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, usize>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone, Default)]
struct Inode {
    data: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Len(usize),
}

struct MemFile(MemDisk, usize);

impl MemDisk {
    /// Everything fails from the `n`-th changing operation on.
    pub fn fail_after(&self, n: usize) {
        self.state(|state| state.operations_left = Some(n));
    }

    pub fn operations(&self) -> usize {
        self.state(|state| state.operations)
    }

    /// The power goes and comes back. `coin(n)` picks a number below `n`.
    pub fn crash(&self, mut coin: impl FnMut(usize) -> usize) {
        self.state(|state| {
            state.operations_left = None;
            state.inodes.iter_mut().for_each(|inode| inode.crash(&mut coin));
            let mut versions = std::mem::take(&mut state.unsynced_names);
            versions.push(state.names.clone());
            state.names = versions.swap_remove(coin(versions.len()));
        });
    }

    /// An fsync has failed: what was not durable is in the kernel's memory, and never gets to the disk
    /// unless it is written again. The disk works again.
    pub fn forget_unsynced(&self) {
        self.state(|state| {
            state.operations_left = None;
            state.inodes.iter_mut().for_each(|inode| inode.pending.clear());
        });
    }

    pub fn read(&self, path: &Path) -> Vec<u8> {
        self.state(|state| state.inodes[state.names.files[path]].data.clone())
    }

    /// Puts a file in place, durably.
    pub fn put(&self, path: &Path, data: Vec<u8>) {
        self.state(|state| {
            state.inodes.push(Inode { durable: data.clone(), data, pending: Vec::new() });
            state.names.files.insert(path.to_owned(), state.inodes.len() - 1);
            state.names.dirs.insert(path.parent().expect("it has a folder").to_owned());
        });
    }

    /// Another disk with the same durable contents.
    pub fn fork(&self) -> Self {
        self.state(|state| {
            let inodes = state.inodes.clone();
            let names = state.names.clone();
            Self(Arc::new(Mutex::new(State { inodes, names, ..State::default() })))
        })
    }

    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics while it holds the lock"))
    }

    fn change<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        self.state(|state| {
            match &mut state.operations_left {
                Some(0) => return Err(io::Error::other("the disk is gone")),
                Some(left) => *left -= 1,
                None => {}
            }
            state.operations += 1;
            work(state)
        })
    }

    fn change_names(&self, work: impl FnOnce(&mut State) -> io::Result<()>) -> io::Result<()> {
        self.change(|state| {
            state.unsynced_names.push(state.names.clone());
            work(state)
        })
    }
}

impl Inode {
    fn crash(&mut self, coin: &mut impl FnMut(usize) -> usize) {
        // Lengths are metadata: an ordered journal keeps a prefix of their changes.
        let lens = self.pending.iter().filter(|change| matches!(change, Change::Len(_))).count();
        let mut lens_kept = coin(lens + 1);
        let mut data = std::mem::take(&mut self.durable);
        for change in self.pending.drain(..) {
            match change {
                Change::Len(len) if lens_kept > 0 => {
                    lens_kept -= 1;
                    data.resize(len, 0);
                }
                Change::Len(_) => {}
                Change::Write(offset, bytes) => {
                    let mut at = offset;
                    while at < offset + bytes.len() {
                        let end = ((at / SECTOR + 1) * SECTOR).min(offset + bytes.len());
                        if coin(2) == 0 && end <= data.len() {
                            data[at..end].copy_from_slice(&bytes[at - offset..end - offset]);
                        }
                        at = end;
                    }
                }
            }
        }
        (self.durable, self.data) = (data.clone(), data);
    }

    fn resize(&mut self, len: usize) {
        self.data.resize(len, 0);
        self.pending.push(Change::Len(len));
    }
}

impl File for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.state(|state| {
            let data = state.inodes[self.1].data.get(offset as usize..).unwrap_or_default();
            let count = data.len().min(buf.len());
            buf[..count].copy_from_slice(&data[..count]);
            Ok(count)
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.change(|state| {
            let inode = &mut state.inodes[self.1];
            let (start, end) = (offset as usize, offset as usize + buf.len());
            if end > inode.data.len() {
                inode.resize(end);
            }
            inode.data[start..end].copy_from_slice(buf);
            inode.pending.push(Change::Write(start, buf.to_vec()));
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|state| {
            state.inodes[self.1].resize(len as usize);
            Ok(())
        })
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let longer = len.max(self.len()?);
        self.set_len(longer)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.state(|state| Ok(state.inodes[self.1].data.len() as u64))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(|state| {
            let inode = &mut state.inodes[self.1];
            inode.pending.clear();
            inode.durable = inode.data.clone();
            Ok(())
        })
    }
}

struct NoLock;
impl Lock for NoLock {}

impl Disk for MemDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let found = self.state(|state| state.names.files.get(path).copied());
        let inode = match (how, found) {
            (Open::CreateNew, Some(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Open::CreateNew, None) => {
                self.change_names(|state| {
                    state.inodes.push(Inode::default());
                    state.names.files.insert(path.to_owned(), state.inodes.len() - 1);
                    Ok(())
                })?;
                self.state(|state| state.inodes.len() - 1)
            }
            (_, Some(inode)) => inode,
            (_, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Box::new(MemFile(self.clone(), inode)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change_names(|state| {
            let names = &mut state.names;
            let moved = |path: &Path| Some(to.join(path.strip_prefix(from).ok()?));
            if let Some(inode) = names.files.remove(from) {
                names.files.insert(to.to_owned(), inode);
            } else if names.dirs.remove(from) {
                names.dirs.insert(to.to_owned());
                let files = std::mem::take(&mut names.files).into_iter();
                names.files = files.map(|(path, i)| (moved(&path).unwrap_or(path), i)).collect();
            } else {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change_names(|state| {
            state.names.files.remove(path).map(drop).ok_or(io::ErrorKind::NotFound.into())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.state(|state| {
            if !state.names.dirs.contains(dir) {
                return Err(io::ErrorKind::NotFound.into());
            }
            let inside = state.names.files.keys().filter(|path| path.parent() == Some(dir));
            let name = |path: &PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
            Ok(inside.filter_map(name).collect())
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.state(|state| {
            Ok(state.names.files.contains_key(path) || state.names.dirs.contains(path))
        })
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.change_names(|state| {
            state.names.dirs.extend(dir.ancestors().map(Path::to_owned));
            Ok(())
        })
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        self.change(|state| {
            state.unsynced_names.clear();
            Ok(())
        })
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn Lock>> {
        Ok(Box::new(NoLock))
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
