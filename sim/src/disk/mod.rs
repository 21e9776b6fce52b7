//! A simulated disk: files and folders that lose what was not synced when the power goes. It knows
//! nothing about what is stored on it.
//!
//! Every file is twice there: as processes see it, and as it is on the platter; between the two are
//! the writes that no `sync_data` has brought down yet. Folders likewise: creations, renames and
//! removals are in a journal until `sync_dir`.
//!
//! * A killed process loses nothing: the kernel keeps what was written.
//! * A power cut keeps each 512-byte sector of each write that was not synced with probability 1/2,
//!   independently, so writes tear and reorder; of the journal it keeps a prefix of random length.
//! * What else the cut might have left, and what would be legal as well, can be had as other disks
//!   (Pillai et al.: All File Systems Are Not Created Equal, 2014).
//! * `sync_dir` brings down what concerns that folder only (and what that depends on), not the whole
//!   journal: a folder that is not synced may lose its changes.
//! * A failed `sync_data` forgets the writes it was to bring down, as Linux does: a second one that
//!   succeeds proves nothing.
//! * Handles belong to the process that opened them; after its end every call on them fails.
//!
//! Reading order: [`sparse`] (a file's bytes), [`tree`] (files, folders and the journal), [`door`]
//! (the `Disk` and `File` of a process), [`faults`] (what `world` and a nemesis do to it).

pub(crate) mod door;
pub(crate) mod faults;
mod sparse;
mod tree;

pub use faults::{DiskFaults, SimDisk};
pub use tree::{Contents, Order, Side};
