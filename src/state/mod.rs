//! What a partition's owner keeps on its own disk: answers and streams -> files -> the same again.
//!
//! It is a cache of the log. Losing it costs time at the next start and nothing else, so it may be
//! deleted whenever the process is down.

mod disk;
mod trouble;

pub use disk::DiskShelf;
