//! What every `Disk` must do, real or simulated, while nothing goes wrong. Blocking.

use std::io::ErrorKind;
use std::path::Path;

use quorate::env::{Disk, Open};

/// `root` exists and is empty.
pub fn check(disk: &dyn Disk, root: &Path) {
    offsets_and_lengths(disk, root);
    open_modes(disk, root);
    folders(disk, root);
    renames(disk, root);
    locks(disk, root);
    assert!(disk.free_bytes(root).expect("the folder exists") > 0);
}

fn offsets_and_lengths(disk: &dyn Disk, root: &Path) {
    let file = disk.open(&root.join("bytes"), Open::CreateNew).expect("a new name");
    assert!(file.is_empty().expect("open"));
    file.write_all_at(b"world", 10_000).expect("space");
    file.write_all_at(b"hello", 0).expect("space");
    assert_eq!(file.len().expect("open"), 10_005);
    let mut buf = [9; 8];
    assert_eq!(file.read_at(&mut buf, 10_000).expect("readable"), 5, "short only at the end");
    assert_eq!(&buf[..5], b"world");
    assert_eq!(file.read_at(&mut buf, 4).expect("readable"), 8);
    assert_eq!(&buf, b"o\0\0\0\0\0\0\0", "a hole reads as zeroes");
    assert_eq!(file.read_at(&mut buf, 10_005).expect("past the end is no error"), 0);

    file.set_len(3).expect("truncates");
    file.set_len(6).expect("extends");
    assert_eq!(file.read_at(&mut buf, 0).expect("readable"), 6);
    assert_eq!(&buf[..6], b"hel\0\0\0");
    file.allocate(100_000).expect("space");
    assert_eq!(file.len().expect("open"), 100_000);
    file.allocate(10).expect("less than there is");
    assert_eq!(file.len().expect("open"), 100_000, "allocate never shortens");
    file.sync_data().expect("a sound disk");
    disk.remove(&root.join("bytes")).expect("it exists");
    assert_eq!(file.read_at(&mut buf[..3], 0).expect("a removed file stays readable"), 3);
}

fn open_modes(disk: &dyn Disk, root: &Path) {
    let path = root.join("modes");
    for how in [Open::Read, Open::Write] {
        assert_eq!(error(disk.open(&path, how)), ErrorKind::NotFound);
    }
    drop(disk.open(&path, Open::CreateNew).expect("a new name"));
    assert_eq!(error(disk.open(&path, Open::CreateNew)), ErrorKind::AlreadyExists);
    let reader = disk.open(&path, Open::Read).expect("it exists");
    assert!(reader.write_all_at(b"x", 0).is_err(), "opened for reading");
    let writer = disk.open(&path, Open::Write).expect("it exists");
    writer.write_all_at(b"seen", 0).expect("opened for writing");
    assert_eq!(reader.len().expect("open"), 4, "all handles see one file");
    disk.remove(&path).expect("it exists");
    assert_eq!(error(disk.remove(&path)), ErrorKind::NotFound);
}

fn folders(disk: &dyn Disk, root: &Path) {
    let deep = root.join("a").join("b");
    assert!(!disk.exists(&deep).expect("readable"));
    disk.create_dir_all(&deep).expect("space");
    disk.create_dir_all(&deep).expect("again is no error");
    assert!(disk.exists(&deep).expect("readable"));
    for name in ["z", "x", "y"] {
        drop(disk.open(&deep.join(name), Open::CreateNew).expect("a new name"));
    }
    assert_eq!(disk.list(&deep).expect("a folder"), ["x", "y", "z"], "sorted");
    assert_eq!(disk.list(&root.join("a")).expect("a folder"), ["b"]);
    assert_eq!(error(disk.list(&root.join("none"))), ErrorKind::NotFound);
    let through_a_file = disk.create_dir_all(&deep.join("x").join("y"));
    assert!(through_a_file.is_err(), "a file is no folder");
    disk.sync_dir(&deep).expect("a sound disk");
    assert_eq!(error(disk.remove(&deep)), ErrorKind::DirectoryNotEmpty);
    for name in ["x", "y", "z"] {
        disk.remove(&deep.join(name)).expect("it exists");
    }
    disk.remove(&deep).expect("an empty folder");
    assert!(!disk.exists(&deep).expect("readable"));
}

fn renames(disk: &dyn Disk, root: &Path) {
    let (old, new) = (root.join("old"), root.join("new"));
    for (path, bytes) in [(&old, b"1"), (&new, b"2")] {
        let file = disk.open(path, Open::CreateNew).expect("a new name");
        file.write_all_at(bytes, 0).expect("space");
    }
    disk.rename(&old, &new).expect("replaces");
    let mut buf = [0];
    let file = disk.open(&new, Open::Read).expect("it exists");
    file.read_at(&mut buf, 0).expect("readable");
    assert_eq!(&buf, b"1");
    assert!(!disk.exists(&old).expect("readable"));
    assert_eq!(error(disk.rename(&old, &new)), ErrorKind::NotFound);

    let (building, built) = (root.join("log.tmp"), root.join("log"));
    disk.create_dir_all(&building).expect("space");
    drop(disk.open(&building.join("0"), Open::CreateNew).expect("a new name"));
    disk.rename(&building, &built).expect("a folder moves with what is in it");
    assert_eq!(disk.list(&built).expect("a folder"), ["0"]);
    disk.sync_dir(root).expect("a sound disk");
}

fn locks(disk: &dyn Disk, root: &Path) {
    let path = root.join("lock");
    let held = disk.lock(&path).expect("free");
    assert_eq!(error(disk.lock(&path)), ErrorKind::WouldBlock);
    drop(held);
    drop(disk.lock(&path).expect("free again"));
}

fn error<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().expect("it must fail").kind()
}
