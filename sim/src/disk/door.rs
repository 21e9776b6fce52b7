//! The [`Disk`] and the [`File`]s of one process: each call is one operation, which a power cut can
//! strike in the middle. What the calls do to the platter is in `tree`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use madsim::rand::Rng;
use quorate::env::{Disk, File, Lock, Open};

use super::faults::{Platter, SimDisk, Verdict};
use super::tree::{FileNode, Ino, names};

pub(super) struct ProcessDisk {
    pub(super) disk: SimDisk,
    pub(super) process: u64,
}

impl SimDisk {
    /// The disk of a new process; the handles of the one before stop working.
    pub(crate) fn open_process(&self) -> Arc<dyn Disk> {
        let mut platter = self.lock();
        platter.processes += 1;
        let process = platter.processes;
        platter.end_process();
        platter.process = Some(process);
        Arc::new(ProcessDisk { disk: self.clone(), process })
    }
}

impl ProcessDisk {
    /// One operation. When it is the one during which the power goes, it is done as far as the
    /// unsynced state goes, and then the power is cut.
    fn operate<T>(&self, act: impl FnOnce(&mut Platter) -> io::Result<T>) -> io::Result<T> {
        operate(&self.disk, self.process, act)
    }
}

fn operate<T>(
    disk: &SimDisk,
    process: u64,
    act: impl FnOnce(&mut Platter) -> io::Result<T>,
) -> io::Result<T> {
    let mut platter = disk.lock();
    let verdict = platter.begin(process)?;
    let Verdict::Last(hook) = verdict else { return act(&mut platter) };
    // What it changes is unsynced, so the cut decides what is left of it.
    let _ = act(&mut platter);
    drop(platter);
    cut(disk, hook)
}

/// As [`operate`] for syncs: one that the cut strikes has brought nothing down yet, and the cut
/// decides sector by sector what is left of what it was about.
fn sync(
    disk: &SimDisk,
    process: u64,
    act: impl FnOnce(&mut Platter) -> io::Result<()>,
) -> io::Result<()> {
    let mut platter = disk.lock();
    let verdict = platter.begin(process)?;
    let Verdict::Last(hook) = verdict else { return act(&mut platter) };
    drop(platter);
    cut(disk, hook)
}

fn cut<T>(disk: &SimDisk, hook: Box<dyn FnOnce() + Send>) -> io::Result<T> {
    disk.power_cut();
    hook();
    Err(io::Error::other("the power went"))
}

impl Disk for ProcessDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let ino = self.operate(|platter| {
            let ino = match how {
                Open::Read | Open::Write => platter.tree.find(path)?,
                Open::CreateNew => platter.tree.create_file(path)?,
            };
            platter.tree.file(ino)?.handles += 1;
            Ok(ino)
        })?;
        let writable = how != Open::Read;
        Ok(Box::new(OpenFile { disk: self.disk.clone(), process: self.process, ino, writable }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(|platter| platter.tree.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(|platter| platter.tree.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.operate(|platter| platter.tree.list(dir))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.operate(|platter| match platter.tree.find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut path = PathBuf::from("/");
        for name in names(dir)? {
            let parent = path.clone();
            path.push(name);
            let created = self.operate(|platter| match platter.tree.create_folder(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    platter.tree.list(&path).map(|_| false)
                }
                created => created.map(|_| true),
            })?;
            if created {
                self.sync_dir(&parent)?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync(&self.disk, self.process, |platter| platter.tree.sync_folder(dir))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let key = names(path)?;
        self.operate(|platter| {
            if platter.tree.find(path).is_err() {
                platter.tree.create_file(path)?;
            }
            match platter.locks.insert(key.clone()) {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            }
        })?;
        Ok(Box::new(Locked { disk: self.disk.clone(), process: self.process, key }))
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.operate(|platter| platter.tree.find(dir).map(|_| platter.room()))
    }
}

struct Locked {
    disk: SimDisk,
    process: u64,
    key: Vec<String>,
}

impl Lock for Locked {}

impl Drop for Locked {
    fn drop(&mut self) {
        let mut platter = self.disk.lock();
        // The kernel has released the locks of a process that is gone; the next one may hold it.
        if platter.is_current(self.process) {
            platter.locks.remove(&self.key);
        }
    }
}

struct OpenFile {
    disk: SimDisk,
    process: u64,
    ino: Ino,
    writable: bool,
}

impl OpenFile {
    fn operate<T>(&self, act: impl FnOnce(&mut Platter, Ino) -> io::Result<T>) -> io::Result<T> {
        operate(&self.disk, self.process, |platter| act(platter, self.ino))
    }

    fn change<T>(&self, act: impl FnOnce(&mut Platter, Ino) -> io::Result<T>) -> io::Result<T> {
        match self.writable {
            true => self.operate(act),
            // EBADF
            false => Err(io::Error::from_raw_os_error(9)),
        }
    }
}

impl File for OpenFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.operate(|platter, ino| match platter.strikes(platter.faults.read) {
            true => Err(io::Error::other("injected: read failed")),
            false => Ok(platter.tree.file(ino)?.read(buf, offset)),
        })
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.change(|platter, ino| {
            let room = platter.room();
            let fails = platter.strikes(platter.faults.write);
            let fails_after = platter.dice.gen_range(0..=buf.len());
            let file = platter.tree.file(ino)?;
            let fits = file.len().saturating_add(room).saturating_sub(offset);
            let mut written = usize::try_from(fits).map_or(buf.len(), |fits| fits.min(buf.len()));
            if fails {
                written = written.min(fails_after);
            }
            write(file, &buf[..written], offset);
            match (fails, written == buf.len()) {
                (true, _) => Err(io::Error::other("injected: write failed")),
                (false, true) => Ok(()),
                (false, false) => Err(platter.full()),
            }
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(|platter, ino| resize(platter, ino, len))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.change(|platter, ino| match platter.tree.file(ino)?.len() < len {
            true => resize(platter, ino, len),
            false => Ok(()),
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.operate(|platter, ino| Ok(platter.tree.file(ino)?.len()))
    }

    fn sync_data(&self) -> io::Result<()> {
        sync(&self.disk, self.process, |platter| {
            let fails = platter.strikes(platter.faults.sync);
            let file = platter.tree.file(self.ino)?;
            if fails {
                file.forget_pending();
                return Err(io::Error::other("injected: sync failed"));
            }
            file.sync();
            Ok(())
        })
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let mut platter = self.disk.lock();
        if !platter.is_current(self.process) {
            return;
        }
        if let Ok(file) = platter.tree.file(self.ino) {
            file.handles -= 1;
            if file.handles == 0 {
                platter.tree.forget_unreachable();
            }
        }
    }
}

fn write(file: &mut FileNode, bytes: &[u8], offset: u64) {
    if !bytes.is_empty() {
        file.write(bytes, offset);
    }
}

fn resize(platter: &mut Platter, ino: Ino, len: u64) -> io::Result<()> {
    let room = platter.room();
    let file = platter.tree.file(ino)?;
    if len > file.len().saturating_add(room) {
        return Err(platter.full());
    }
    file.set_len(len);
    Ok(())
}
