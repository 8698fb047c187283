//! A shelf on disk, for one partition: drawers -> keyspaces of two small databases.
//!
//! ```text
//! <state directory>/<commands topic>/<partition>/<slot>/answers   index and drawers of answers
//!                                               /streams   a cache, made anew at every start
//!                                               /<slot>.lock
//! ```
//!
//! A process takes the first slot that no other one holds, so that an owner that does not know yet
//! that it is out never shares files with its successor. Nothing is created before there is
//! something to write. A batch has reached the system when `write` returns: it outlives the
//! process; after a power cut the answers may lack their end, with the index that says so.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::trouble::{Failure, guarded};
use crate::engine::shelf::{Batch, Drawer, Shelf, ShelfError};

/// The databases' directories in a slot.
const ANSWERS: &str = "answers";
const STREAMS: &str = "streams";
/// How many processes on one machine may have files for the same partition.
const SLOTS: u32 = 16;
/// The bounds of one database's memory and journal.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// A write waits while so much is to be flushed or merged first, and at most so long at a time.
const SEALED_MAX: usize = 3;
const UNMERGED_MAX: usize = 24;
const STALL_MAX: Duration = Duration::from_secs(20);
const STALL_NAP: Duration = Duration::from_millis(2);
/// What must fit on the disk before a database that failed is opened again.
const PROBE_BYTES: usize = 4 * 1024 * 1024;
/// A database that fails so often in a row on a disk that has room is taken for damaged.
const FAILURES_MAX: u32 = 5;

/// A shelf on disk.
pub struct DiskShelf {
    /// The partition's directory.
    directory: PathBuf,
    slot: Option<Slot>,
    answers: RefCell<Place>,
    streams: RefCell<Place>,
    /// Failures of the databases since the last write that went well.
    failures: u32,
}

/// A place that is ours as long as its lock is held.
struct Slot {
    path: PathBuf,
    _lock: File,
}

/// Where a database is. One that failed is closed, and opened again when it is needed.
#[derive(Default)]
struct Place {
    /// Where it was made; `None` if there is nothing.
    path: Option<PathBuf>,
    store: Option<Store>,
}

impl Place {
    /// The database that was made there.
    fn reopened(&mut self) -> Result<Option<&mut Store>, Failure> {
        let Some(path) = &self.path else { return Ok(None) };
        if self.store.is_none() {
            if !path.try_exists()? {
                return Err(Failure::Damaged("it is gone".to_owned()));
            }
            self.store = Some(guarded(|| Store::open(path))?);
        }
        Ok(self.store.as_mut())
    }

    /// The database, made if there is none.
    fn made(&mut self, path: &Path) -> Result<&mut Store, Failure> {
        if self.path.is_none() {
            remove(path)?;
            fs::create_dir_all(path)?;
            self.path = Some(path.to_owned());
        }
        let gone = || Failure::Damaged("it is gone".to_owned());
        self.reopened()?.ok_or_else(gone)
    }
}

/// One database and its keyspaces.
struct Store {
    database: Database,
    keyspaces: BTreeMap<Drawer, Keyspace>,
}

impl Store {
    fn open(path: &Path) -> Result<Self, Failure> {
        fs::create_dir_all(path)?;
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let mut keyspaces = BTreeMap::new();
        for name in database.list_keyspace_names() {
            if let Some(drawer) = parse_name(&name) {
                keyspaces.insert(drawer, database.keyspace(&name, options)?);
            }
        }
        Ok(Self { database, keyspaces })
    }

    fn keyspace(&mut self, drawer: Drawer) -> Result<Keyspace, Failure> {
        if let Some(keyspace) = self.keyspaces.get(&drawer) {
            return Ok(keyspace.clone());
        }
        let keyspace = self.database.keyspace(&name(drawer), options)?;
        self.keyspaces.insert(drawer, keyspace.clone());
        Ok(keyspace)
    }

    fn get(&self, drawer: Drawer, key: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let Some(keyspace) = self.keyspaces.get(&drawer) else { return Ok(None) };
        Ok(keyspace.get(key)?.map(|value| value.to_vec()))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.wait_for_room()?;
        let mut writing = self.database.batch();
        for (drawer, key, value) in &batch.0 {
            let keyspace = self.keyspace(*drawer)?;
            writing.insert(&keyspace, key.as_slice(), value.as_slice());
        }
        writing.commit()?;
        Ok(())
    }

    /// Waits until what was written before is flushed and merged far enough. The database would
    /// wait in its own way, for ever if its worker has met a full disk.
    fn wait_for_room(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let is_full = |keyspace: &Keyspace| {
            keyspace.sealed_memtable_count() >= SEALED_MAX
                || keyspace.l0_table_count() >= UNMERGED_MAX
        };
        while self.keyspaces.values().any(is_full) {
            // Says so if the worker has failed.
            self.database.persist(PersistMode::Buffer)?;
            if started.elapsed() > STALL_MAX {
                return Err(Failure::Slow);
            }
            std::thread::sleep(STALL_NAP);
        }
        Ok(())
    }

    fn clear(&mut self, drawer: Drawer) -> Result<(), Failure> {
        if let Some(keyspace) = self.keyspaces.remove(&drawer) {
            self.database.delete_keyspace(keyspace)?;
        }
        Ok(())
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

fn name(drawer: Drawer) -> String {
    match drawer {
        Drawer::Index => "index".to_owned(),
        Drawer::Answers(span) => format!("answers{span}"),
        Drawer::Streams => "streams".to_owned(),
    }
}

fn parse_name(name: &str) -> Option<Drawer> {
    match name {
        "index" => Some(Drawer::Index),
        "streams" => Some(Drawer::Streams),
        _ => name.strip_prefix("answers")?.parse().ok().map(Drawer::Answers),
    }
}

impl DiskShelf {
    /// Makes a shelf in that directory, which need not exist yet.
    #[must_use]
    pub fn new(directory: PathBuf) -> Self {
        let (answers, streams) = (RefCell::default(), RefCell::default());
        Self { directory, slot: None, answers, streams, failures: 0 }
    }

    const fn place(&self, drawer: Drawer) -> &RefCell<Place> {
        match drawer {
            Drawer::Streams => &self.streams,
            Drawer::Index | Drawer::Answers(_) => &self.answers,
        }
    }

    /// The slot's directory, taken if none is held; `None` if there is nothing there and nothing is
    /// to be made.
    fn slot(&mut self, make: bool) -> Result<Option<PathBuf>, Failure> {
        if self.slot.is_none() {
            if !make && !self.directory.try_exists()? {
                return Ok(None);
            }
            fs::create_dir_all(&self.directory)?;
            self.slot = Some(take_slot(&self.directory)?);
        }
        Ok(self.slot.as_ref().map(|slot| slot.path.clone()))
    }

    fn try_open(&mut self) -> Result<(), Failure> {
        self.streams = RefCell::default();
        let Some(slot) = self.slot(false)? else { return Ok(()) };
        remove(&slot.join(STREAMS))?;
        let path = slot.join(ANSWERS);
        let answers = self.answers.get_mut();
        if answers.path.is_none() && path.try_exists()? {
            answers.path = Some(path);
        }
        answers.reopened().map(drop)
    }

    fn try_write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let Some((drawer, ..)) = batch.0.first() else { return Ok(()) };
        let slot = self.slot(true)?.unwrap_or_default();
        let (place, name) = match drawer {
            Drawer::Streams => (&mut self.streams, STREAMS),
            Drawer::Index | Drawer::Answers(_) => (&mut self.answers, ANSWERS),
        };
        let store = place.get_mut().made(&slot.join(name))?;
        guarded(|| store.write(batch))
    }

    fn try_clear(&mut self, drawer: Drawer) -> Result<(), Failure> {
        let mut place = self.place(drawer).borrow_mut();
        let Some(store) = place.reopened()? else { return Ok(()) };
        guarded(|| store.clear(drawer))
    }

    fn try_reset(&mut self) -> Result<(), Failure> {
        self.answers = RefCell::default();
        self.streams = RefCell::default();
        let Some(slot) = self.slot(false)? else { return Ok(()) };
        remove(&slot)
    }

    /// Says what went wrong. A database that failed is closed: it takes nothing any more, but what
    /// it has taken before is there when it is opened again.
    fn failed(&mut self, drawer: Drawer, failure: Failure) -> ShelfError {
        let directory = self.slot.as_ref().map_or(&self.directory, |slot| &slot.path).clone();
        if !matches!(failure, Failure::Slow) {
            self.place(drawer).borrow_mut().store = None;
            self.failures += 1;
        }
        if !matches!(failure, Failure::Poisoned) {
            return failure.told(&directory);
        }
        let cause = match probe(&directory) {
            Err(cause) => cause,
            Ok(()) if self.failures > FAILURES_MAX => {
                Failure::Damaged("it fails again and again".to_owned())
            }
            Ok(()) => Failure::Poisoned,
        };
        cause.told(&directory)
    }
}

impl Shelf for DiskShelf {
    fn open(&mut self) -> Result<(), ShelfError> {
        self.try_open().map_err(|failure| self.failed(Drawer::Index, failure))
    }

    fn get(&self, drawer: Drawer, key: &[u8]) -> Result<Option<Vec<u8>>, ShelfError> {
        let mut place = self.place(drawer).borrow_mut();
        let found = place.reopened().and_then(|store| match store {
            Some(store) => guarded(|| store.get(drawer, key)),
            None => Ok(None),
        });
        found.map_err(|failure| failure.told(&self.directory))
    }

    fn write(&mut self, batch: Batch) -> Result<(), ShelfError> {
        let drawer = batch.0.first().map_or(Drawer::Index, |(drawer, ..)| *drawer);
        self.try_write(&batch).map_err(|failure| self.failed(drawer, failure))?;
        self.failures = 0;
        Ok(())
    }

    fn clear(&mut self, drawer: Drawer) -> Result<(), ShelfError> {
        self.try_clear(drawer).map_err(|failure| self.failed(drawer, failure))
    }

    fn reset(&mut self) -> Result<(), ShelfError> {
        self.try_reset().map_err(|failure| self.failed(Drawer::Index, failure))
    }
}

/// Takes the first slot that nobody holds. The system gives a lock back when its process ends.
fn take_slot(directory: &Path) -> Result<Slot, Failure> {
    for number in 0..SLOTS {
        let lock = File::create(directory.join(format!("{number}.lock")))?;
        match lock.try_lock() {
            Ok(()) => {
                return Ok(Slot { path: directory.join(number.to_string()), _lock: lock });
            }
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
    Err(Failure::Locked)
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::Io(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Finds out why a write failed, by writing.
fn probe(directory: &Path) -> Result<(), Failure> {
    let path = directory.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0x5a; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    Ok(written.and(removed)?)
}

#[cfg(test)]
mod tests;
