//! What is done to a cluster, as data that prints: a [`Step`] is a [`Fault`], when it begins and how
//! long it lasts. [`Nemesis`] carries a plan's steps out beside the load and undoes them.
//!
//! ```text
//! at 2.5s partition m0 | m1 m2 for 6s
//! at 4s kill leader for 3s
//! at 9s power m1 at 37 for 2s          # during the 37th disk operation from then
//! ```
//!
//! Steps may overlap: what is in force is the sum of all steps that last ([`force::Force`]), and the end
//! of one takes back only what no other holds. A step without `for` lasts until the heal.
//!
//! Reading order: [`fault`] (what there is and how it is written), [`force`] (what is in force),
//! [`acts`] (carrying out), [`backup`] (one that takes a server of its own), `odd` (starts with a flag left
//! out), `addresses` (members at other URLs), `promotions` (that must be refused), [`changes`] (of the
//! membership, which members must agree to, and rotten data, which leads to such a change).

pub mod acts;
mod addresses;
pub mod backup;
pub mod changes;
pub mod fault;
pub mod force;
mod odd;
mod pending;
mod promotions;

pub use acts::Nemesis;
pub use fault::{Fault, Step, Target};
