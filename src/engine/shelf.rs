//! What a handler puts down beside itself: answers and streams that memory has no room for.
//!
//! A shelf is a cache of the log and never the truth. What stands on it is written after the
//! transaction has committed; what a crash keeps from it is read again from the log.
//!
//! | trouble | what the handler does |
//! |---|---|
//! | away (disk full, no permission) | waits and tries again; all is in memory still |
//! | damaged | throws everything on it away and reads the log again |

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is kept together, and is thrown away together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Drawer {
    /// How far the answers go.
    Index,
    /// The answers that were decided in one span of time.
    Answers(i64),
    /// Streams that are not in memory. Empty whenever a shelf is opened.
    Streams,
}

/// Entries that are written all together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch(pub Vec<(Drawer, Vec<u8>, Vec<u8>)>);

/// Why a shelf could not do as it was told.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShelfError {
    /// It will do so once somebody has acted; what stands on it still stands.
    #[error("{0}")]
    Away(String),
    /// What stands on it cannot be trusted any more.
    #[error("{0}")]
    Damaged(String),
}

/// Keeps bytes under keys. Two owners never share one.
pub trait Shelf: Send {
    /// Makes it ready for use: what an earlier life put down is there, but for the streams.
    ///
    /// # Errors
    /// It is away or damaged.
    fn open(&mut self) -> Result<(), ShelfError>;

    /// What stands under a key.
    ///
    /// # Errors
    /// It is away or damaged.
    fn get(&self, drawer: Drawer, key: &[u8]) -> Result<Option<Vec<u8>>, ShelfError>;

    /// Writes entries, all or none; an entry replaces what stood under its key.
    ///
    /// # Errors
    /// It is away or damaged. Writing the same again later is safe.
    fn write(&mut self, batch: Batch) -> Result<(), ShelfError>;

    /// Empties a drawer.
    ///
    /// # Errors
    /// It is away or damaged.
    fn clear(&mut self, drawer: Drawer) -> Result<(), ShelfError>;

    /// Throws everything away, whatever state it is in.
    ///
    /// # Errors
    /// It is away.
    fn reset(&mut self) -> Result<(), ShelfError>;
}

type Entries = BTreeMap<(Drawer, Vec<u8>), Vec<u8>>;

/// A shelf in memory, for the simulator and for tests: its clones hold the same entries, so that
/// they outlive the handler as a disk would.
#[expect(clippy::module_name_repetitions, reason = "it is used without its module's name")]
#[derive(Clone, Debug, Default)]
pub struct MemoryShelf {
    entries: Arc<Mutex<Entries>>,
    trouble: Arc<Mutex<Option<ShelfError>>>,
}

impl MemoryShelf {
    /// Has everything but a reset fail like this from now on; `None` ends the trouble.
    pub fn set_trouble(&self, trouble: Option<ShelfError>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Another shelf with the same entries, as a copy of a disk has them.
    #[must_use]
    pub fn copied(&self) -> Self {
        let entries = self.with(|entries| entries.clone());
        Self { entries: Arc::new(Mutex::new(entries)), trouble: Arc::default() }
    }

    /// How many entries a drawer holds.
    #[must_use]
    pub fn len(&self, drawer: Drawer) -> usize {
        self.with(|entries| entries.keys().filter(|(found, _)| *found == drawer).count())
    }

    /// Whether it holds nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with(|entries| entries.is_empty())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Entries) -> T) -> T {
        work(&mut self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn check(&self) -> Result<(), ShelfError> {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().map_or(Ok(()), Err)
    }
}

impl Shelf for MemoryShelf {
    fn open(&mut self) -> Result<(), ShelfError> {
        self.clear(Drawer::Streams)
    }

    fn get(&self, drawer: Drawer, key: &[u8]) -> Result<Option<Vec<u8>>, ShelfError> {
        self.check()?;
        Ok(self.with(|entries| entries.get(&(drawer, key.to_vec())).cloned()))
    }

    fn write(&mut self, batch: Batch) -> Result<(), ShelfError> {
        self.check()?;
        self.with(|entries| {
            entries.extend(batch.0.into_iter().map(|(drawer, key, value)| ((drawer, key), value)));
        });
        Ok(())
    }

    fn clear(&mut self, drawer: Drawer) -> Result<(), ShelfError> {
        self.check()?;
        self.with(|entries| entries.retain(|(found, _), _| *found != drawer));
        Ok(())
    }

    fn reset(&mut self) -> Result<(), ShelfError> {
        // What is damaged is of no concern to somebody who throws it away.
        if let Err(away @ ShelfError::Away(_)) = self.check() {
            return Err(away);
        }
        self.set_trouble(None);
        self.with(Entries::clear);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_was_written_but_for_streams_of_an_earlier_life() {
        let mut shelf = MemoryShelf::default();
        let entry = |drawer| (drawer, vec![1], vec![2]);
        let drawers = [Drawer::Index, Drawer::Answers(1), Drawer::Answers(2), Drawer::Streams];
        shelf.write(Batch(drawers.map(entry).to_vec())).unwrap();
        shelf.clear(Drawer::Answers(1)).unwrap();
        let mut later = shelf.clone();
        later.open().unwrap();
        let found = drawers.map(|drawer| later.get(drawer, &[1]).unwrap().is_some());
        assert_eq!(found, [true, false, true, false]);
    }

    #[test]
    fn in_trouble_it_keeps_what_it_has_and_takes_nothing() {
        let mut shelf = MemoryShelf::default();
        shelf.write(Batch(vec![(Drawer::Index, vec![1], vec![2])])).unwrap();
        shelf.set_trouble(Some(ShelfError::Away("disk full".to_owned())));
        assert!(shelf.write(Batch(vec![(Drawer::Index, vec![1], vec![3])])).is_err());
        assert!(shelf.reset().is_err());
        shelf.set_trouble(None);
        assert_eq!(shelf.get(Drawer::Index, &[1]).unwrap(), Some(vec![2]));
        shelf.set_trouble(Some(ShelfError::Damaged("checksum".to_owned())));
        shelf.reset().unwrap();
        assert!(shelf.is_empty());
    }
}
