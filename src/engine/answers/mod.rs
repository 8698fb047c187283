//! The answers of one partition within the window: the newest in memory, older ones on a shelf.
//!
//! ```text
//! result -> in memory, in order -> (too many) -> shelf: a drawer for each span of time
//!                                                `-> the drawer is emptied when its span is past
//! ```
//!
//! | limit | value |
//! |---|---|
//! | remembered | at least the window after the decision, on the shelf at most half as long again |
//! | the window's end | the append time of the last command that was decided |
//! | in memory | as many as set, and a few hundred more |
//! | moved at a time | what came in since the last time, and at most [`MOVED_MAX`] beyond |
//!
//! Guarantees: what stands on the shelf are answers of committed results, and the index says up to
//! which record of the results topic none is missing from it. So it is brought up to date by
//! reading the results from that record on; a topic that does not hold this very record has another
//! history, and everything is read anew.

use std::collections::{BTreeMap, VecDeque};

use ring::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::recent::{Entry, Recent};
use super::dedup::{Answer, CommandKey};
use super::shelf::{Batch, Drawer, Shelf, ShelfError};
use crate::kernel::time::Timestamp;

mod recent;

/// The form of the index; another number is not read.
const FORM: u8 = 1;
const INDEX_KEY: &[u8] = b"results";
/// The most answers that are moved or forgotten at a time.
pub const MOVED_MAX: usize = 10_000;
/// So many more than the limit have to come together before the oldest are moved.
const SLACK: usize = 512;
/// The fewest answers between two marks, unless the limit is small.
const MARK_EVERY: u64 = 256;

/// A record of the results topic, by its place and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Its offset.
    pub offset: i64,
    /// Tells it from another record at that offset.
    pub fingerprint: [u8; 16],
    /// The clock when it was written or read.
    pub at: Timestamp,
}

impl Noted {
    /// Notes a record.
    #[must_use]
    pub fn new(offset: i64, key: Option<&[u8]>, value: Option<&[u8]>, at: Timestamp) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        let key = key.unwrap_or_default();
        hash.update(&(key.len() as u64).to_be_bytes());
        hash.update(key);
        hash.update(value.unwrap_or_default());
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finish().as_ref()[..16]);
        Self { offset, fingerprint, at }
    }

    /// Whether that is the same record.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.offset == other.offset && self.fingerprint == other.fingerprint
    }
}

/// How far the shelf goes; written together with the answers that take it there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    topic_id: Uuid,
    /// Up to this record no answer is missing.
    noted: Option<Noted>,
    /// The drawers, and about how many answers each holds.
    drawers: BTreeMap<i64, u64>,
}

impl Index {
    fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_extend(self, vec![FORM]).ok()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&form, rest) = bytes.split_first()?;
        let (index, rest) = postcard::take_from_bytes(rest).ok()?;
        (form == FORM && rest.is_empty()).then_some(index)
    }
}

/// A place in the order of the answers, and the last record of the results before it.
#[derive(Clone, Copy, Debug)]
struct Mark {
    answers: u64,
    results: u64,
    noted: Noted,
}

/// The answers of one partition within the window.
#[derive(Debug)]
pub struct Answers {
    limit: usize,
    window_seconds: i64,
    recent: Recent,
    marks: VecDeque<Mark>,
    /// How many answers were ever taken in, and how many of them have left the memory.
    taken: u64,
    left: u64,
    /// How many results were ever noted, and how many of them the index covers.
    results: u64,
    covered: u64,
    index: Index,
}

impl Answers {
    /// Remembers up to about `limit` in memory, and each at least that long.
    #[must_use]
    pub fn new(limit: usize, window_seconds: i64) -> Self {
        Self {
            limit: limit.max(1),
            window_seconds,
            recent: Recent::default(),
            marks: VecDeque::new(),
            taken: 0,
            left: 0,
            results: 0,
            covered: 0,
            index: Index::default(),
        }
    }

    /// Forgets what is in memory and looks what the shelf holds of this topic: the record from
    /// which on the results are to be read, or `None` for everything within the window. A shelf
    /// that is of no use is emptied.
    ///
    /// # Errors
    /// The shelf is away or damaged.
    pub fn open(
        &mut self,
        topic_id: Uuid,
        shelf: &mut dyn Shelf,
    ) -> Result<Option<Noted>, ShelfError> {
        *self = Self::new(self.limit, self.window_seconds);
        shelf.open()?;
        let found = shelf.get(Drawer::Index, INDEX_KEY)?;
        let index = found.as_deref().and_then(Index::from_bytes);
        match index {
            Some(index) if index.topic_id == topic_id && index.noted.is_some() => {
                self.index = index;
            }
            _ => {
                shelf.reset()?;
                self.index.topic_id = topic_id;
            }
        }
        Ok(self.index.noted)
    }

    /// Empties the shelf's drawers if they end before the window that ends at that moment: to read
    /// on from there would take longer than to read the window.
    ///
    /// # Errors
    /// The shelf is away or damaged.
    pub fn forget_stale(
        &mut self,
        now: Timestamp,
        shelf: &mut dyn Shelf,
    ) -> Result<(), ShelfError> {
        match self.index.noted {
            Some(noted) if noted.at < self.oldest(now) => self.forget(shelf),
            _ => Ok(()),
        }
    }

    /// Empties the shelf's drawers: the topic's history is not the one that they were made of.
    ///
    /// # Errors
    /// The shelf is away or damaged.
    pub fn forget(&mut self, shelf: &mut dyn Shelf) -> Result<(), ShelfError> {
        // The index first: a crash in between leaves drawers that nobody opens.
        shelf.clear(Drawer::Index)?;
        for drawer in self.index.drawers.keys() {
            shelf.clear(Drawer::Answers(*drawer))?;
        }
        let index = Index { topic_id: self.index.topic_id, ..Index::default() };
        *self = Self { index, ..Self::new(self.limit, self.window_seconds) };
        Ok(())
    }

    /// The record from which on the results are to be read, as far as the shelf goes.
    #[must_use]
    pub const fn noted(&self) -> Option<Noted> {
        self.index.noted
    }

    /// The answer to that command, if it is in memory.
    #[must_use]
    pub fn recent(&self, key: CommandKey) -> Option<&Answer> {
        self.recent.get(key).map(|entry| &entry.answer)
    }

    /// The answer to that command, if it is on the shelf.
    ///
    /// # Errors
    /// The shelf is away or damaged.
    pub fn shelved(
        &self,
        key: CommandKey,
        shelf: &dyn Shelf,
    ) -> Result<Option<Answer>, ShelfError> {
        for drawer in self.index.drawers.keys().rev() {
            if let Some(bytes) = shelf.get(Drawer::Answers(*drawer), &key.to_bytes())? {
                let answer = Answer::from_bytes(&bytes).ok_or_else(|| {
                    ShelfError::Damaged("an answer on the shelf cannot be read".to_owned())
                })?;
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    /// Remembers an answer for the window after that moment. A later one of the same id was given
    /// because the first was forgotten, so it stays: a first answer may be old although its result
    /// is new, since a transaction may be committed long after its commands were decided.
    pub fn insert(&mut self, key: CommandKey, answer: Answer, at: Timestamp) {
        self.taken += u64::from(self.recent.insert(key, answer, at));
    }

    /// Notes up to which of the results all answers were inserted, and how many results that is
    /// more than the last time.
    pub fn note(&mut self, noted: Option<Noted>, results: u64) {
        self.results += results;
        // Where nobody knows the place, the next one that is known stands for this one too.
        let Some(noted) = noted else { return };
        let mark = Mark { answers: self.taken, results: self.results, noted };
        let before = self.marks.len().checked_sub(2).map_or(self.left, |at| self.marks[at].answers);
        let enough = before + self.mark_every();
        match self.marks.back_mut() {
            Some(last) if last.answers < enough => *last = mark,
            _ => self.marks.push_back(mark),
        }
    }

    /// Moves the oldest answers to the shelf while there are too many in memory, and forgets what
    /// is older than the window.
    ///
    /// # Errors
    /// The shelf is away or damaged; everything is in memory still.
    pub fn relieve(&mut self, now: Timestamp, shelf: &mut dyn Shelf) -> Result<(), ShelfError> {
        self.forget_old(now, shelf)?;
        // Results without answers (repeats) would have to be read again at the next start.
        let is_behind = self.results - self.covered > 4 * self.limit as u64 + 100_000;
        let limit = if is_behind { 0 } else { self.limit };
        let slack = if is_behind { 0 } else { SLACK.min(self.limit / 4) };
        while self.recent.len() > limit + slack {
            let count = (self.recent.len() - limit).min(MOVED_MAX);
            self.move_out(count, shelf)?;
        }
        if is_behind && self.recent.len() == 0 {
            self.move_out(0, shelf)?;
        }
        Ok(())
    }

    fn mark_every(&self) -> u64 {
        (self.limit as u64 / 4).clamp(1, MARK_EVERY)
    }

    fn oldest(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(-self.window_seconds)
    }

    fn drawer_of(&self, at: Timestamp) -> i64 {
        at.0.div_euclid((self.window_seconds.max(2) / 2) * 1_000_000)
    }

    fn forget_old(&mut self, now: Timestamp, shelf: &mut dyn Shelf) -> Result<(), ShelfError> {
        let oldest = self.oldest(now);
        let is_old = |entry: &&Entry| entry.at < oldest;
        let count = self.recent.iter().take(MOVED_MAX).take_while(is_old).count();
        self.recent.forget(count);
        self.left += count as u64;
        // Only the last mark before what is left can take the index further.
        while self.marks.get(1).is_some_and(|mark| mark.answers <= self.left) {
            self.marks.pop_front();
        }
        let first = self.drawer_of(oldest);
        let past = self.index.drawers.keys().next().copied().filter(|drawer| *drawer < first);
        if let Some(drawer) = past {
            shelf.clear(Drawer::Answers(drawer))?;
            self.index.drawers.remove(&drawer);
        }
        Ok(())
    }

    /// Moves that many of the oldest answers, and the index with them.
    fn move_out(&mut self, count: usize, shelf: &mut dyn Shelf) -> Result<(), ShelfError> {
        let mut index = self.index.clone();
        let mut batch = Vec::with_capacity(count + 1);
        for Entry { key, answer, at } in self.recent.iter().take(count) {
            let Some(bytes) = answer.to_bytes() else { continue };
            let drawer = self.drawer_of(*at);
            *index.drawers.entry(drawer).or_default() += 1;
            batch.push((Drawer::Answers(drawer), key.to_bytes().to_vec(), bytes));
        }
        let left = self.left + count as u64;
        let marks = self.marks.iter().take_while(|mark| mark.answers <= left).count();
        let reached = marks.checked_sub(1).map(|last| self.marks[last]);
        if let Some(mark) = reached {
            index.noted = Some(mark.noted);
        }
        let bytes = index.to_bytes().ok_or_else(|| {
            ShelfError::Damaged("the index cannot be written: this is a bug".to_owned())
        })?;
        batch.push((Drawer::Index, INDEX_KEY.to_vec(), bytes));
        shelf.write(Batch(batch))?;
        self.recent.forget(count);
        self.marks.drain(..marks);
        self.left = left;
        self.covered = reached.map_or(self.covered, |mark| mark.results);
        self.index = index;
        Ok(())
    }

    /// About how many answers are remembered: in memory, and on the shelf.
    #[must_use]
    pub fn len(&self) -> (usize, u64) {
        (self.recent.len(), self.index.drawers.values().sum())
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
}

#[cfg(test)]
mod tests;
