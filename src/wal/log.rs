//! The open log: creating, opening, appending, cutting segments, releasing them. What bytes mean is
//! with `record`, what damage means is with `recover`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use super::error::{Context, WalError};
use super::record::{Encoder, encode_metadata};
use super::recover::{Scan, scan, sweep};
use super::segment::{self, Name, SPARE};
use super::table::Action;
use super::{Options, Recovered, Save, SaveStats};
use crate::env::{Disk, File, Open, Runtime};
use crate::plant;
use crate::types::Index;

/// A log positioned at its end. Blocking: it is used on the log's own thread.
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    /// As the first segment has it: repeated at the head of every segment, byte for byte.
    metadata: Bytes,
    hard_state: raftpb::HardState,
    /// Oldest first; never empty.
    segments: VecDeque<Name>,
    /// The last segment, and where its written bytes end.
    file: Box<dyn File>,
    offset: u64,
    /// Records that follow `offset`. Those that need no fsync wait here for the next that does, so that
    /// the disk never holds more than one write that is not durable.
    encoder: Encoder,
    last_index: u64,
    /// Indexes of durable snapshot marks, oldest first: one of them stays when segments go.
    marks: Vec<u64>,
    /// The next segment's file, allocated ahead of need.
    spare: Option<Box<dyn File>>,
    /// The clock of [`SaveStats`].
    clock: Option<Arc<dyn Runtime>>,
    poisoned: bool,
}

impl Wal {
    /// Makes a new log in `dir`. It is built under another name, so that there never is half a log.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        metadata: &Metadata,
        options: Options,
    ) -> Result<Self, WalError> {
        if Self::exists(&*disk, dir)? {
            return Err(WalError::Exists(dir.to_owned()));
        }
        let building = with_suffix(dir, ".tmp");
        disk.create_dir_all(&building).context("create", &building)?;
        for left in disk.list(&building).context("list", &building)? {
            let left = building.join(left);
            disk.remove(&left).context("remove", &left)?;
        }
        let name = Name { seq: 0, index: 0 };
        let metadata = encode_metadata(metadata);
        let mut encoder = Encoder::new(0);
        encoder.crc();
        encoder.metadata(&metadata);
        encoder.snapshot(&walpb::Snapshot::default());
        let path = name.path(&building);
        let file = new_segment(&*disk, &path, &options)?;
        file.write_all_at(&encoder.buf, 0).context("write", &path)?;
        file.sync_data().context("sync", &path)?;
        disk.sync_dir(&building).context("sync", &building)?;
        disk.rename(&building, dir).context("rename the new log to", dir)?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).context("sync", parent)?;
        }
        drop(file);
        let path = name.path(dir);
        let file = disk.open(&path, Open::Write).context("open", &path)?;
        let offset = encoder.buf.len() as u64;
        encoder.buf.clear();
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata,
            hard_state: raftpb::HardState::default(),
            segments: VecDeque::from([name]),
            file,
            offset,
            encoder,
            last_index: 0,
            marks: vec![0],
            spare: None,
            clock: None,
            poisoned: false,
        })
    }

    /// Whether there is a log in `dir`, sound or not.
    pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, WalError> {
        Ok(!segment::all(disk, dir)?.is_empty())
    }

    /// Reads the log, mends its end if a power cut explains what is wrong with it, makes sure that what
    /// it has read is durable, and positions at the end. `at` is what the state has applied.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        at: walpb::Snapshot,
        options: Options,
    ) -> Result<(Self, Recovered), WalError> {
        let Scan { replay, mut segments, end, mend } = scan(&*disk, dir, at, &options)?;
        let replayed = replay.finish().map_err(|what| unfit(dir, what))?;
        let repaired = mend.as_ref().map(|mend| mend.apply(&*disk, dir, &options)).transpose()?;
        if mend.is_some_and(|mend| mend.action == Action::Drop) {
            segments.pop();
        }
        sweep(&*disk, dir, &segments)?;
        let tail = segments.last().expect("a log keeps at least one segment").path(dir);
        let file = disk.open(&tail, Open::Write).context("open", &tail)?;
        reaffirm(&*file, end.offset, options.write_bytes_max).context("sync", &tail)?;
        disk.sync_dir(dir).context("sync", dir)?;
        let wal = Self {
            disk,
            dir: dir.to_owned(),
            options,
            metadata: replayed.metadata_bytes.clone(),
            hard_state: replayed.hard_state,
            segments: segments.into(),
            file,
            offset: end.offset,
            encoder: Encoder::new(end.crc),
            last_index: replayed.last_index,
            marks: vec![replayed.snapshot.index, replayed.newest_snapshot.index],
            spare: None,
            clock: None,
            poisoned: false,
        };
        let recovered = Recovered {
            metadata: replayed.metadata,
            hard_state: replayed.hard_state,
            snapshot: replayed.snapshot,
            entries: replayed.entries,
            repaired,
        };
        Ok((wal, recovered))
    }

    /// Makes saves report how long they took.
    pub fn timed_by(mut self, clock: Arc<dyn Runtime>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The snapshots that the log records and shows to be committed, oldest first. One that is newer
    /// than what the state has applied was received, but not installed before the process ended: it
    /// has to be installed before [`Wal::open`]. Changes nothing on disk.
    pub fn snapshots(
        disk: &dyn Disk,
        dir: &Path,
        options: Options,
    ) -> Result<Vec<walpb::Snapshot>, WalError> {
        let scan = scan(disk, dir, walpb::Snapshot::default(), &options)?;
        Ok(scan.replay.into_committed_snapshots())
    }

    /// What [`Wal::open`] would recover, of a log that is not to be written: that of a stopped member, or
    /// another program's. Nothing on disk changes; a torn end that would be cut is passed over.
    pub fn read(
        disk: &dyn Disk,
        dir: &Path,
        at: walpb::Snapshot,
        options: Options,
    ) -> Result<Recovered, WalError> {
        let replayed = scan(disk, dir, at, &options)?.replay.finish();
        let replayed = replayed.map_err(|what| unfit(dir, what))?;
        Ok(Recovered {
            metadata: replayed.metadata,
            hard_state: replayed.hard_state,
            snapshot: replayed.snapshot,
            entries: replayed.entries,
            repaired: None,
        })
    }

    /// Appends `batch`, in order, with one write and one fsync: none when it changes no more than the
    /// commit index, more when it passes the end of a segment or `write_bytes_max`. After an error
    /// nothing more can be appended: what reached the disk is unknown (PostgreSQL's fsync lesson, 2018).
    pub fn save(&mut self, batch: &[Save]) -> Result<SaveStats, WalError> {
        self.guard(|wal| wal.append(batch))
    }

    /// Makes durable what waits for the next fsync. For an orderly end.
    pub fn sync(&mut self) -> Result<SaveStats, WalError> {
        self.guard(|wal| {
            let mut stats = SaveStats::default();
            wal.commit(&mut stats)?;
            Ok(stats)
        })
    }

    /// Allocates the next segment now, when there is time, so that cutting need not. Does nothing when
    /// that is done already. Not synced: there is nothing in it, it is made anew after a restart, and its
    /// head is synced before it gets the name of a segment.
    pub fn prepare(&mut self) -> Result<(), WalError> {
        self.guard(|wal| {
            if wal.spare.is_none() {
                let path = wal.dir.join(SPARE);
                wal.spare = Some(new_segment(&*wal.disk, &path, &wal.options)?);
            }
            Ok(())
        })
    }

    /// Deletes the segments that a state durable up to `up_to` will not need: those wholly below the
    /// newest snapshot mark that it has reached. Returns how many.
    pub fn release(&mut self, up_to: Index) -> Result<usize, WalError> {
        self.guard(|wal| {
            let reached = wal.marks.iter().copied().filter(|mark| *mark <= up_to.0);
            let Some(up_to) = reached.max() else { return Ok(0) };
            wal.marks.retain(|mark| *mark >= up_to);
            wal.remove_below(up_to)
        })
    }

    /// Deletes the segments that hold nothing above `index`; how many.
    fn remove_below(&mut self, index: u64) -> Result<usize, WalError> {
        let mut removed = 0;
        while self.segments.get(1).is_some_and(|next| next.index <= index) {
            let path = self.segments[0].path(&self.dir);
            self.disk.remove(&path).context("remove", &path)?;
            self.segments.pop_front();
            removed += 1;
        }
        if removed > 0 {
            self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
        }
        Ok(removed)
    }

    /// The index of the last entry, or of the snapshot after which there is none yet.
    pub fn last_index(&self) -> Index {
        Index(self.last_index)
    }

    /// Lets nothing happen any more once something has failed.
    fn guard<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, WalError>,
    ) -> Result<T, WalError> {
        if self.poisoned {
            return Err(WalError::Poisoned(self.dir.clone()));
        }
        // Also when `work` panics.
        self.poisoned = true;
        let result = work(self);
        self.poisoned = result.is_err();
        result
    }

    fn append(&mut self, batch: &[Save]) -> Result<SaveStats, WalError> {
        let mut stats = SaveStats::default();
        let mut must_sync = false;
        let mut marks = Vec::new();
        for save in batch {
            match save {
                Save::Snapshot(snapshot) => {
                    self.append_snapshot(snapshot, &mut stats)?;
                    marks.push(snapshot.index);
                    must_sync = true;
                }
                Save::Entries { hard_state, entries } => {
                    must_sync |= !entries.is_empty();
                    for entry in entries {
                        self.append_entry(entry, &mut stats)?;
                    }
                    if let Some(state) = hard_state {
                        must_sync |= self.append_state(state, &mut stats)?;
                    }
                    if self.offset + self.encoder.buf.len() as u64 >= self.options.segment_bytes {
                        self.cut(&mut stats)?;
                        must_sync = false;
                    }
                }
            }
        }
        if must_sync {
            self.commit(&mut stats)?;
        }
        self.marks.append(&mut marks);
        Ok(stats)
    }

    fn append_entry(
        &mut self,
        entry: &raftpb::Entry,
        stats: &mut SaveStats,
    ) -> Result<(), WalError> {
        assert!(
            0 < entry.index && entry.index <= self.last_index + 1,
            "entry {} must continue or overwrite a log that ends at {}",
            entry.index,
            self.last_index
        );
        self.make_room(entry.data.len(), stats)?;
        self.encoder.entry(entry);
        self.last_index = entry.index;
        Ok(())
    }

    /// Whether it has to become durable before anything is sent that relies on it: etcd's MustSync.
    fn append_state(
        &mut self,
        state: &raftpb::HardState,
        stats: &mut SaveStats,
    ) -> Result<bool, WalError> {
        if *state == raftpb::HardState::default() {
            return Ok(false);
        }
        assert!(state.term >= self.hard_state.term, "terms only grow");
        assert!(state.commit <= self.last_index, "what is committed is in the log");
        self.make_room(0, stats)?;
        self.encoder.state(state);
        let before = std::mem::replace(&mut self.hard_state, *state);
        let promised = (before.term, before.vote) != (state.term, state.vote);
        Ok(promised && !plant::VOTE_NOT_SYNCED.is_planted())
    }

    fn append_snapshot(
        &mut self,
        snapshot: &walpb::Snapshot,
        stats: &mut SaveStats,
    ) -> Result<(), WalError> {
        assert!(
            snapshot.index == 0 || snapshot.conf_state.is_some(),
            "a snapshot has a configuration"
        );
        self.make_room(0, stats)?;
        self.encoder.snapshot(snapshot);
        self.last_index = self.last_index.max(snapshot.index);
        Ok(())
    }

    /// Makes durable what waits if a record with that much data would make the next write too large:
    /// recovery relies on the bound to distinguish one torn write from damage.
    fn make_room(&mut self, data: usize, stats: &mut SaveStats) -> Result<(), WalError> {
        let waiting = self.encoder.buf.len() as u64;
        if waiting > 0 && waiting + data as u64 + RECORD_OVERHEAD_MAX > self.options.write_bytes_max
        {
            self.commit(stats)?;
        }
        Ok(())
    }

    /// Writes what waits, and waits until it is durable.
    fn commit(&mut self, stats: &mut SaveStats) -> Result<(), WalError> {
        self.write(stats)?;
        self.fsync(stats)
    }

    fn fsync(&self, stats: &mut SaveStats) -> Result<(), WalError> {
        let (synced, took) = self.timed(|| self.file.sync_data());
        if !plant::FAILED_FSYNC_IGNORED.is_planted() {
            synced.map_err(|source| self.io("sync", source))?;
        }
        stats.fsync = true;
        stats.syncing += took;
        Ok(())
    }

    /// What `work` returns, and how long it took.
    fn timed<T>(&self, work: impl FnOnce() -> T) -> (T, Duration) {
        let now = || self.clock.as_ref().map(|clock| clock.now());
        let began = now();
        let done = work();
        let took = now().zip(began).map(|(now, began)| now.saturating_duration_since(began));
        (done, took.unwrap_or_default())
    }

    fn write(&mut self, stats: &mut SaveStats) -> Result<(), WalError> {
        let (written, took) = self.timed(|| self.file.write_all_at(&self.encoder.buf, self.offset));
        written.map_err(|source| self.io("write", source))?;
        stats.writing += took;
        let written = self.encoder.buf.len() as u64;
        self.offset += written;
        stats.bytes += written;
        self.encoder.buf.clear();
        self.encoder.buf.shrink_to(BUFFER_KEPT_BYTES);
        Ok(())
    }

    /// Ends this segment and goes on in a new one, which gets its name when its head is durable.
    fn cut(&mut self, stats: &mut SaveStats) -> Result<(), WalError> {
        self.write(stats)?;
        self.file.set_len(self.offset).map_err(|source| self.io("truncate", source))?;
        if !plant::SEGMENT_CUT_UNSYNCED.is_planted() {
            self.fsync(stats)?;
        }

        let spare = self.dir.join(SPARE);
        let file = match self.spare.take() {
            Some(file) => file,
            None => new_segment(&*self.disk, &spare, &self.options)?,
        };
        self.encoder.crc();
        self.encoder.metadata(&self.metadata);
        if self.hard_state != raftpb::HardState::default() {
            self.encoder.state(&self.hard_state);
        }
        let tail = self.segments.back().expect("a log keeps at least one segment");
        let next = Name { seq: tail.seq + 1, index: self.last_index + 1 };
        (self.file, self.offset) = (file, 0);
        self.commit(stats)?;
        let path = next.path(&self.dir);
        self.disk.rename(&spare, &path).context("rename the new segment to", &path)?;
        self.disk.sync_dir(&self.dir).context("sync", &self.dir)?;
        self.segments.push_back(next);
        if plant::LOG_RELEASED_TOO_FAR.is_planted() {
            self.remove_below(self.last_index + 1)?;
        }
        Ok(())
    }

    fn io(&self, what: &'static str, source: std::io::Error) -> WalError {
        let tail = self.segments.back().expect("a log keeps at least one segment");
        WalError::Io { what, path: tail.path(&self.dir), source }
    }
}

/// Bytes of a record besides its data, with room to spare.
const RECORD_OVERHEAD_MAX: u64 = 128;
/// Memory of the write buffer that is kept between writes.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

/// An empty file with all its space.
fn new_segment(disk: &dyn Disk, path: &Path, options: &Options) -> Result<Box<dyn File>, WalError> {
    let file = disk.open(path, Open::CreateNew).context("create", path)?;
    file.allocate(options.segment_bytes).context("allocate", path)?;
    Ok(file)
}

/// Makes durable what was read of a segment that ends at `end`. The last write of the process before
/// may have reached the kernel's memory only: that process was killed before its fsync, or its fsync
/// failed, after which the kernel considers the pages clean and a second fsync does nothing. So they are
/// written again; at most one write is concerned.
fn reaffirm(file: &dyn File, end: u64, write_bytes_max: u64) -> std::io::Result<()> {
    let from = end.saturating_sub(write_bytes_max);
    let mut bytes = vec![0; (end - from) as usize];
    if file.read_at(&mut bytes, from)? < bytes.len() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    file.write_all_at(&bytes, from)?;
    file.sync_data()
}

fn unfit(dir: &Path, what: String) -> WalError {
    WalError::Unfit { dir: dir.to_owned(), what }
}

fn with_suffix(dir: &Path, suffix: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
