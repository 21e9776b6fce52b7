//! Files and folders, twice each: as processes see them and as they are on the platter, with the
//! unsynced writes and the journal between. The caller, and which faults strike, are not known here.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use madsim::rand::Rng;

use super::sparse::Sparse;
use crate::dice::Dice;

const SECTOR: u64 = 512;

/// A file's or folder's identity, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ino(u64);

const ROOT: Ino = Ino(0);

/// Which of the two things a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What processes see.
    View,
    /// What is on the platter: what would be left if the power went now, at worst.
    Durable,
}

/// Which of the unsynced changes a power cut leaves. All are legal, as nothing was promised of any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As the dice fall, sector by sector.
    Any,
    None,
    All,
    /// The changes of folders, none of what was written to files: names of files without their contents.
    FoldersOnly,
    /// What was written to files, no change of folders.
    FilesOnly,
    /// All but one sector of each file: the n-th that was written.
    Without(usize),
}

/// A file, read from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub name: String,
    pub len: u64,
    /// As far as anything was ever written; zeroes follow up to `len`.
    pub bytes: Vec<u8>,
}

#[derive(Clone)]
pub(super) enum Node {
    File(FileNode),
    Folder(FolderNode),
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    view: Sparse,
    durable: Sparse,
    pending: Vec<Pending>,
    /// Open handles keep a removed file readable.
    pub(super) handles: usize,
}

#[derive(Clone)]
enum Pending {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
pub(super) struct FolderNode {
    view: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
}

/// A change of folders that no `sync_dir` has brought down yet.
#[derive(Clone)]
enum Change {
    Link { folder: Ino, name: String, node: Ino },
    Unlink { folder: Ino, name: String },
    Rename { from: Ino, from_name: String, to: Ino, to_name: String },
}

impl Change {
    fn folders(&self) -> [Ino; 2] {
        match self {
            Self::Link { folder, .. } | Self::Unlink { folder, .. } => [*folder, *folder],
            Self::Rename { from, to, .. } => [*from, *to],
        }
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    journal: Vec<Change>,
    next: u64,
}

impl Tree {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(ROOT, Node::Folder(FolderNode::default()))]);
        Self { nodes, journal: Vec::new(), next: 1 }
    }

    /// What `path` is called to processes.
    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in names(path)? {
            at = *self.folder(at)?.view.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    pub(super) fn node(&self, ino: Ino) -> &Node {
        self.nodes.get(&ino).expect("a name or a handle holds the node")
    }

    pub(super) fn file(&mut self, ino: Ino) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn folder(&self, ino: Ino) -> io::Result<&FolderNode> {
        match self.node(ino) {
            Node::Folder(folder) => Ok(folder),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn folder_mut(&mut self, ino: Ino) -> &mut FolderNode {
        match self.nodes.get_mut(&ino) {
            Some(Node::Folder(folder)) => folder,
            _ => unreachable!("callers have found the folder"),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        self.create(path, Node::File(FileNode::default()))
    }

    pub(super) fn create_folder(&mut self, path: &Path) -> io::Result<Ino> {
        self.create(path, Node::Folder(FolderNode::default()))
    }

    fn create(&mut self, path: &Path, node: Node) -> io::Result<Ino> {
        let (folder, name) = self.parent(path)?;
        if self.folder(folder)?.view.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let ino = Ino(self.next);
        self.next += 1;
        self.nodes.insert(ino, node);
        self.folder_mut(folder).view.insert(name.clone(), ino);
        self.journal.push(Change::Link { folder, name, node: ino });
        Ok(ino)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find(path)?;
        let (folder, name) = self.parent(path)?;
        if self.folder(ino).is_ok_and(|folder| !folder.view.is_empty()) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.folder_mut(folder).view.remove(&name);
        self.journal.push(Change::Unlink { folder, name });
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let moved = self.find(from)?;
        let (from, from_name) = self.parent(from)?;
        let (to, to_name) = self.parent(to)?;
        if let Some(replaced) = self.folder(to)?.view.get(&to_name).copied() {
            match (self.node(moved), self.node(replaced)) {
                _ if moved == replaced => return Ok(()),
                (Node::File(_), Node::File(_)) => {}
                (Node::Folder(_), Node::Folder(old)) if old.view.is_empty() => {}
                (Node::Folder(_), Node::Folder(_)) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                (Node::File(_), Node::Folder(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (Node::Folder(_), Node::File(_)) => {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
            }
        }
        self.folder_mut(from).view.remove(&from_name);
        self.folder_mut(to).view.insert(to_name.clone(), moved);
        self.journal.push(Change::Rename { from, from_name, to, to_name });
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.folder(self.find(path)?)?.view.keys().cloned().collect())
    }

    /// Brings down what concerns this folder, and what that depends on: a rename ties two folders.
    pub(super) fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find(path)?;
        self.folder(ino)?;
        let mut concerned = BTreeSet::from([ino]);
        let mut chosen = vec![false; self.journal.len()];
        for (change, chosen) in self.journal.iter().zip(&mut chosen).rev() {
            if change.folders().iter().any(|folder| concerned.contains(folder)) {
                concerned.extend(change.folders());
                *chosen = true;
            }
        }
        let mut kept = Vec::new();
        for (change, chosen) in std::mem::take(&mut self.journal).into_iter().zip(chosen) {
            if chosen { self.bring_down(change) } else { kept.push(change) }
        }
        self.journal = kept;
        self.forget_unreachable();
        Ok(())
    }

    /// What is left when the power has gone.
    pub(super) fn power_cut(&mut self, order: Order, dice: &mut Dice) {
        let survive = match order {
            Order::Any => dice.gen_range(0..=self.journal.len()),
            Order::None | Order::FilesOnly => 0,
            Order::All | Order::FoldersOnly | Order::Without(_) => self.journal.len(),
        };
        let mut journal = std::mem::take(&mut self.journal);
        journal.truncate(survive);
        for change in journal {
            self.bring_down(change);
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.power_cut(order, dice),
                Node::Folder(folder) => folder.view.clone_from(&folder.durable),
            }
        }
        self.close_all();
        self.forget_unreachable();
    }

    /// Whether a power cut would take anything.
    pub(super) fn has_unsynced(&self) -> bool {
        let pending = |node: &Node| matches!(node, Node::File(file) if !file.pending.is_empty());
        !self.journal.is_empty() || self.nodes.values().any(pending)
    }

    /// The process that had them open is gone.
    pub(super) fn close_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.handles = 0;
            }
        }
    }

    /// Every file with its path, as processes see it.
    pub(super) fn files(&self) -> Vec<(String, Ino)> {
        let mut found = Vec::new();
        let mut folders = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = folders.pop() {
            let Node::Folder(folder) = self.node(ino) else { continue };
            for (name, ino) in &folder.view {
                let path = format!("{path}/{name}");
                match self.node(*ino) {
                    Node::File(_) => found.push((path, *ino)),
                    Node::Folder(_) => folders.push((path, *ino)),
                }
            }
        }
        found.sort();
        found
    }

    /// The files in a folder by name, as `side` has them; none if that has no such folder.
    pub(super) fn read_folder(&self, path: &Path, side: Side) -> io::Result<Vec<Contents>> {
        let mut at = ROOT;
        for name in names(path)? {
            let folder = self.folder(at)?.side(side);
            at = *folder.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        let mut found = Vec::new();
        for (name, ino) in self.folder(at)?.side(side) {
            if let Node::File(file) = self.node(*ino) {
                let bytes = file.side(side);
                found.push(Contents {
                    name: name.clone(),
                    len: bytes.len(),
                    bytes: bytes.written(),
                });
            }
        }
        Ok(found)
    }

    /// Bytes that all files together take, whether written or only reserved.
    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.nodes.values().filter_map(|node| match node {
            Node::File(file) => Some(file.view.len()),
            Node::Folder(_) => None,
        });
        files.sum()
    }

    fn bring_down(&mut self, change: Change) {
        match change {
            Change::Link { folder, name, node } => {
                self.folder_mut(folder).durable.insert(name, node);
            }
            Change::Unlink { folder, name } => {
                self.folder_mut(folder).durable.remove(&name);
            }
            Change::Rename { from, from_name, to, to_name } => {
                // The source is there: the change that linked it is earlier and concerned `from`.
                if let Some(node) = self.folder_mut(from).durable.remove(&from_name) {
                    self.folder_mut(to).durable.insert(to_name, node);
                }
            }
        }
    }

    /// Drops nodes that have no name on either side, none in the journal and no open handle.
    pub(super) fn forget_unreachable(&mut self) {
        let mut seen = BTreeSet::new();
        let mut to_visit = vec![ROOT];
        to_visit.extend(self.journal.iter().flat_map(Change::folders));
        to_visit.extend(self.journal.iter().filter_map(|change| match change {
            Change::Link { node, .. } => Some(*node),
            Change::Unlink { .. } | Change::Rename { .. } => None,
        }));
        while let Some(ino) = to_visit.pop() {
            if !seen.insert(ino) {
                continue;
            }
            if let Some(Node::Folder(folder)) = self.nodes.get(&ino) {
                to_visit.extend(folder.view.values().chain(folder.durable.values()));
            }
        }
        self.nodes.retain(|ino, node| {
            seen.contains(ino) || matches!(node, Node::File(file) if file.handles > 0)
        });
    }

    /// The folder that holds `path`'s last name, and that name.
    fn parent(&self, path: &Path) -> io::Result<(Ino, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for name in names {
            at = *self.folder(at)?.view.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.folder(at)?;
        Ok((at, name))
    }
}

/// The names on the way down; there is one root, so absolute and relative paths are the same.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_string_lossy().into_owned()),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        }
    }
    Ok(names)
}

impl FolderNode {
    fn side(&self, side: Side) -> &BTreeMap<String, Ino> {
        match side {
            Side::View => &self.view,
            Side::Durable => &self.durable,
        }
    }
}

impl FileNode {
    fn side(&self, side: Side) -> &Sparse {
        match side {
            Side::View => &self.view,
            Side::Durable => &self.durable,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.view.len()
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        self.view.read(buf, offset)
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.view.write(bytes, offset);
        self.pending.push(Pending::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        self.view.set_len(len);
        self.pending.push(Pending::SetLen(len));
    }

    pub(super) fn sync(&mut self) {
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Write { offset, bytes } => self.durable.write(&bytes, offset),
                Pending::SetLen(len) => self.durable.set_len(len),
            }
        }
    }

    /// The kernel has marked the writes as done although they are not.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Changes one bit on both sides, as a medium that rots.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        for side in [&mut self.view, &mut self.durable] {
            let mut byte = [0];
            if side.read(&mut byte, offset) == 1 {
                side.write(&[byte[0] ^ (1 << (bit % 8))], offset);
            }
        }
    }

    /// Each sector is as it was after some of the writes to it: one that was brought down holds all that
    /// was written to it before.
    fn power_cut(&mut self, order: Order, dice: &mut Dice) {
        let mut left = self.writes_by_sector();
        for (at, writes) in left.values_mut().enumerate() {
            *writes = match order {
                Order::Any => dice.gen_range(0..=*writes),
                Order::None | Order::FoldersOnly => 0,
                Order::Without(sector) if sector == at => 0,
                Order::All | Order::FilesOnly | Order::Without(_) => *writes,
            };
        }
        for pending in self.pending.drain(..) {
            match pending {
                Pending::Write { offset, bytes } => {
                    for (at, piece) in sectors(offset, &bytes) {
                        let writes = left.get_mut(&(at / SECTOR)).expect("it was counted above");
                        if *writes > 0 {
                            *writes -= 1;
                            self.durable.write(piece, at);
                        }
                    }
                }
                Pending::SetLen(len) => {
                    let kept = match order {
                        Order::Any => dice.gen_bool(0.5),
                        Order::None | Order::FoldersOnly => false,
                        Order::All | Order::FilesOnly | Order::Without(_) => true,
                    };
                    if kept {
                        self.durable.set_len(len);
                    }
                }
            }
        }
        self.view = self.durable.clone();
    }
}

impl FileNode {
    fn writes_by_sector(&self) -> BTreeMap<u64, usize> {
        let mut writes = BTreeMap::new();
        for pending in &self.pending {
            let Pending::Write { offset, bytes } = pending else { continue };
            for (at, _) in sectors(*offset, bytes) {
                *writes.entry(at / SECTOR).or_default() += 1;
            }
        }
        writes
    }
}

/// The parts of a write that reach the medium each as a whole.
fn sectors(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let size = ((SECTOR - at % SECTOR) as usize).min(bytes.len() - done);
        done += size;
        (size > 0).then(|| (at, &bytes[done - size..done]))
    })
}
