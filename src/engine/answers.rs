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
//! | in memory | as many as set, and a few hundred more |
//! | moved at a time | what came in since the last time, and at most [`MOVED_MAX`] beyond |
//!
//! Guarantees: what stands on the shelf are answers of committed results, and the index says up to
//! which record of the results topic none is missing from it. So it is brought up to date by reading
//! the results from that record on; a topic that does not hold this very record has another history,
//! and everything is read anew.

use std::collections::{BTreeMap, VecDeque};

use hashbrown::HashMap;
use ring::digest;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dedup::{Answer, CommandKey};
use super::shelf::{Batch, Drawer, Shelf, ShelfError};
use crate::kernel::time::Timestamp;

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
    recent: HashMap<CommandKey, Answer>,
    /// The keys of the recent ones, the oldest first.
    order: VecDeque<CommandKey>,
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
            recent: HashMap::new(),
            order: VecDeque::new(),
            marks: VecDeque::new(),
            taken: 0,
            left: 0,
            results: 0,
            covered: 0,
            index: Index::default(),
        }
    }

    /// Forgets what is in memory and looks what the shelf holds of this topic: the record from which
    /// on the results are to be read, or `None` for everything within the window. A shelf that is of
    /// no use is emptied.
    ///
    /// # Errors
    /// The shelf is away or damaged.
    pub fn open(
        &mut self,
        topic_id: Uuid,
        now: Timestamp,
        shelf: &mut dyn Shelf,
    ) -> Result<Option<Noted>, ShelfError> {
        *self = Self::new(self.limit, self.window_seconds);
        shelf.open()?;
        let found = shelf.get(Drawer::Index, INDEX_KEY)?;
        let index = found.as_deref().and_then(Index::from_bytes);
        let is_new = |noted: &Noted| noted.at >= self.oldest(now);
        match index {
            Some(index)
                if index.topic_id == topic_id && index.noted.as_ref().is_some_and(is_new) =>
            {
                self.index = index;
            }
            _ => {
                shelf.reset()?;
                self.index.topic_id = topic_id;
            }
        }
        Ok(self.index.noted)
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
        self.recent.get(&key)
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

    /// Remembers an answer. The first one of an id stays.
    pub fn insert(&mut self, key: CommandKey, answer: Answer) {
        if let hashbrown::hash_map::Entry::Vacant(entry) = self.recent.entry(key) {
            entry.insert(answer);
            self.order.push_back(key);
            self.taken += 1;
        }
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
        while self.order.len() > limit + slack {
            let count = (self.order.len() - limit).min(MOVED_MAX);
            self.move_out(count, shelf)?;
        }
        if is_behind && self.order.is_empty() {
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
        let old = |key: &CommandKey| {
            self.recent.get(key).is_none_or(|answer| answer.decided_at() < oldest)
        };
        let count = self.order.iter().take(MOVED_MAX).take_while(|key| old(key)).count();
        for key in self.order.drain(..count) {
            self.recent.remove(&key);
        }
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
        for key in self.order.iter().take(count) {
            let Some(answer) = self.recent.get(key) else { continue };
            let Some(bytes) = answer.to_bytes() else { continue };
            let drawer = self.drawer_of(answer.decided_at());
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
        for key in self.order.drain(..count) {
            self.recent.remove(&key);
        }
        self.marks.drain(..marks);
        self.left = left;
        self.covered = reached.map_or(self.covered, |mark| mark.results);
        self.index = index;
        Ok(())
    }

    /// About how many answers are remembered: in memory, and on the shelf.
    #[must_use]
    pub fn len(&self) -> (usize, u64) {
        (self.order.len(), self.index.drawers.values().sum())
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shelf::MemoryShelf;
    use crate::kernel::result::{CommandResult, Outcome};
    use crate::kernel::stream::StreamHash;

    const WINDOW: i64 = 1_000;
    const TOPIC: Uuid = Uuid::from_u128(7);

    fn key(id: u64) -> CommandKey {
        CommandKey::new(StreamHash(0), Uuid::from_u128(u128::from(id)), false)
    }

    fn answer(id: u64, second: i64) -> Answer {
        Answer::of(&CommandResult {
            command_id: Uuid::from_u128(u128::from(id)),
            aggregate_id: "a".to_owned(),
            outcome: Outcome::Accepted,
            code: None,
            message: None,
            retryable: false,
            details: Vec::new(),
            content_hash: [1; 32],
            first_sequence: Some(id),
            last_sequence: Some(id),
            version: id,
            decided_at: at(second),
            duplicate: false,
            consistency_token: String::new(),
        })
        .unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::default().plus_seconds(second)
    }

    fn noted(id: u64, second: i64) -> Noted {
        let bytes = id.to_be_bytes();
        Noted::new(i64::try_from(id).unwrap(), Some(&bytes), Some(&bytes), at(second))
    }

    fn take(answers: &mut Answers, ids: std::ops::Range<u64>, second: i64) {
        for id in ids {
            answers.insert(key(id), answer(id, second));
            answers.note(Some(noted(id, second)), 1);
        }
    }

    fn opened(limit: usize, shelf: &mut MemoryShelf) -> Answers {
        let mut answers = Answers::new(limit, WINDOW);
        answers.open(TOPIC, at(0), shelf).unwrap();
        answers
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_forgotten() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(10, &mut shelf);
        for round in 0..100 {
            take(&mut answers, round * 7..(round + 1) * 7, 1);
            answers.relieve(at(1), &mut shelf).unwrap();
            assert!(answers.len().0 <= 12, "{:?}", answers.len());
        }
        assert_eq!(answers.len().0 as u64 + answers.len().1, 700);
        for id in 0..700 {
            let found = answers.recent(key(id)).cloned();
            let found = found.or_else(|| answers.shelved(key(id), &shelf).unwrap());
            assert_eq!(found, Some(answer(id, 1)), "{id}");
        }
        assert_eq!(answers.shelved(key(700), &shelf).unwrap(), None);
    }

    #[test]
    fn the_index_never_goes_further_than_its_answers() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(10, &mut shelf);
        for end in 1..200 {
            take(&mut answers, end - 1..end, 1);
            answers.relieve(at(1), &mut shelf).unwrap();
            // A crash at this point: what the index promises must be on the shelf.
            let mut later = shelf.copied();
            let mut next = Answers::new(10, WINDOW);
            let Some(noted) = next.open(TOPIC, at(2), &mut later).unwrap() else { continue };
            for id in 0..=u64::try_from(noted.offset).unwrap() {
                assert!(next.shelved(key(id), &later).unwrap().is_some(), "{id} of {noted:?}");
            }
            assert!(end - u64::try_from(noted.offset).unwrap() <= 16, "{end}: {noted:?}");
        }
    }

    #[test]
    fn a_place_that_nobody_knows_keeps_the_index_back() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(4, &mut shelf);
        for id in 0..50 {
            answers.insert(key(id), answer(id, 1));
            answers.note(None, 1);
        }
        answers.relieve(at(1), &mut shelf).unwrap();
        assert_eq!(answers.noted(), None);
        let mut next = Answers::new(4, WINDOW);
        assert_eq!(next.open(TOPIC, at(1), &mut shelf).unwrap(), None);
        assert!(shelf.is_empty(), "of no use without a place");
    }

    #[test]
    fn what_is_older_than_the_window_goes_drawer_by_drawer() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(4, &mut shelf);
        for span in 0..4 {
            let second = span * WINDOW / 2 + 1;
            let first = u64::try_from(span).unwrap() * 10;
            take(&mut answers, first..first + 10, second);
            answers.relieve(at(second), &mut shelf).unwrap();
        }
        assert_eq!(shelf.len(Drawer::Answers(0)), 0, "its span is past");
        assert!(answers.shelved(key(1), &shelf).unwrap().is_none());
        assert!(answers.shelved(key(11), &shelf).unwrap().is_some(), "within the window");
        answers.relieve(at(5 * WINDOW), &mut shelf).unwrap();
        assert_eq!(answers.len().0, 0, "nor does memory keep it");
        for _ in 0..4 {
            answers.relieve(at(5 * WINDOW), &mut shelf).unwrap();
        }
        assert_eq!(answers.len(), (0, 0));
    }

    #[test]
    fn a_shelf_of_another_topic_form_or_time_is_emptied() {
        let filled = || {
            let mut shelf = MemoryShelf::default();
            let mut answers = opened(4, &mut shelf);
            take(&mut answers, 0..40, 1);
            answers.relieve(at(1), &mut shelf).unwrap();
            assert!(answers.noted().is_some());
            shelf
        };
        let open = |topic, now, mut shelf: MemoryShelf| {
            let found = Answers::new(4, WINDOW).open(topic, now, &mut shelf).unwrap();
            (found.is_some(), shelf.is_empty())
        };
        assert_eq!(open(TOPIC, at(2), filled()), (true, false));
        assert_eq!(open(Uuid::from_u128(8), at(2), filled()), (false, true), "another topic");
        assert_eq!(open(TOPIC, at(WINDOW + 2), filled()), (false, true), "before the window");
        let mut other = filled();
        let mut bytes = other.get(Drawer::Index, INDEX_KEY).unwrap().unwrap();
        bytes[0] = FORM + 1;
        other.write(Batch(vec![(Drawer::Index, INDEX_KEY.to_vec(), bytes.clone())])).unwrap();
        assert_eq!(open(TOPIC, at(2), other), (false, true), "another form");
        let mut cut = filled();
        bytes[0] = FORM;
        bytes.pop();
        cut.write(Batch(vec![(Drawer::Index, INDEX_KEY.to_vec(), bytes)])).unwrap();
        assert_eq!(open(TOPIC, at(2), cut), (false, true), "cut off");
    }

    #[test]
    fn a_shelf_that_is_away_loses_nothing() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(4, &mut shelf);
        take(&mut answers, 0..40, 1);
        shelf.set_trouble(Some(ShelfError::Away("disk full".to_owned())));
        assert!(answers.relieve(at(1), &mut shelf).is_err());
        assert!((0..40).all(|id| answers.recent(key(id)).is_some()));
        shelf.set_trouble(None);
        answers.relieve(at(1), &mut shelf).unwrap();
        assert_eq!(answers.len(), (4, 36));
    }

    #[test]
    fn repeats_alone_take_the_index_further() {
        let mut shelf = MemoryShelf::default();
        let mut answers = opened(10, &mut shelf);
        take(&mut answers, 0..5, 1);
        answers.note(Some(noted(900_000, 1)), 900_000);
        answers.relieve(at(1), &mut shelf).unwrap();
        assert_eq!(answers.noted().map(|noted| noted.offset), Some(900_000));
        assert_eq!(answers.len(), (0, 5));
    }
}
