//! The streams of one partition: as many in memory as are set, the others on a shelf.
//!
//! While all fit, this is a map and nothing more. Beyond the limit the streams that were not
//! changed for longest are put on the shelf and are fetched when a command asks for them. They are
//! put there between two transactions only, and only once the shelf has them are they let go.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::shelf::{Batch, Drawer, Shelf, ShelfError};
use super::snapshot;
use super::turn::Stream;
use crate::kernel::decider::Decider;

/// The most streams that are put on the shelf in one batch.
const MOVED_MAX: usize = 5_000;

/// The streams of a partition, by aggregate id.
#[derive(Debug)]
pub struct Streams<S> {
    limit: usize,
    near: HashMap<Arc<str>, Stream<S>>,
    /// The streams in memory in the order in which they are put away, with the version that each
    /// had when it got its place. Empty until there are too many.
    order: VecDeque<(Arc<str>, u64)>,
    /// Whether any stream was put on the shelf.
    is_shelved: bool,
    /// How many streams there are, near and far.
    count: u64,
}

impl<S> Streams<S> {
    /// Keeps up to about `limit` in memory.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let near = HashMap::new();
        Self { limit: limit.max(1), near, order: VecDeque::new(), is_shelved: false, count: 0 }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// A stream that is in memory.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Stream<S>> {
        self.near.get(id)
    }

    /// The shared name of a stream that is in memory.
    #[must_use]
    pub fn name(&self, id: &str) -> Option<Arc<str>> {
        self.near.get_key_value(id).map(|(id, _)| Arc::clone(id))
    }

    /// Whether the shelf has to be asked for that stream.
    #[must_use]
    pub fn may_be_far(&self, id: &str) -> bool {
        self.is_shelved && !self.near.contains_key(id)
    }

    /// Takes in streams as they are now, of which so many are new.
    pub fn extend(&mut self, changed: HashMap<Arc<str>, Stream<S>>, new: u64) {
        if self.is_shelved {
            for (id, stream) in changed {
                self.insert(id, stream);
            }
        } else {
            self.near.extend(changed);
        }
        self.count += new;
    }

    /// How many there are, and how many of them are in memory.
    #[must_use]
    pub fn len(&self) -> (u64, usize) {
        (self.count, self.near.len())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn insert(&mut self, id: Arc<str>, stream: Stream<S>) {
        let version = stream.version;
        if self.near.insert(Arc::clone(&id), stream).is_none() && self.is_shelved {
            self.order.push_back((id, version));
        }
    }
}

/// A stream that is on the shelf.
///
/// # Errors
/// The shelf is away, or the stream cannot be read.
pub fn fetch<D: Decider>(
    id: &str,
    shelf: &dyn Shelf,
) -> Result<Option<Stream<D::State>>, ShelfError> {
    let Some(bytes) = shelf.get(Drawer::Streams, id.as_bytes())? else { return Ok(None) };
    let stream = bytes.split_last_chunk::<8>().and_then(|(bytes, unsaved_from)| {
        let stream = snapshot::from_bytes::<D>(id, bytes)?;
        Some(Stream { unsaved_from: i64::from_be_bytes(*unsaved_from), ..stream })
    });
    let damaged = || ShelfError::Damaged(format!("stream {id} on the shelf cannot be read"));
    stream.map(Some).ok_or_else(damaged)
}

impl<S: Clone> Streams<S> {
    /// A stream to be changed by a restore, fetched if it is far.
    ///
    /// # Errors
    /// The shelf is away, or the stream cannot be read.
    pub fn restore_mut<D: Decider<State = S>>(
        &mut self,
        id: &str,
        shelf: &dyn Shelf,
    ) -> Result<Option<&mut Stream<S>>, ShelfError> {
        if self.may_be_far(id)
            && let Some(stream) = fetch::<D>(id, shelf)?
        {
            self.insert(id.into(), stream);
        }
        Ok(self.near.get_mut(id))
    }

    /// Takes in a stream as a restore found it in the log, whatever was known of it.
    pub fn restore(&mut self, id: &str, stream: Stream<S>) {
        match self.near.get_mut(id) {
            Some(known) => *known = stream,
            None => self.insert(id.into(), stream),
        }
    }

    /// Says by how many streams more a restore knows.
    pub const fn restored(&mut self, more: i64) {
        self.count = self.count.saturating_add_signed(more);
    }

    /// Puts streams on the shelf while there are too many in memory.
    ///
    /// # Errors
    /// The shelf is away or damaged; every stream is in memory still.
    pub fn relieve<D: Decider<State = S>>(
        &mut self,
        shelf: &mut dyn Shelf,
    ) -> Result<(), ShelfError> {
        while self.near.len() > self.limit {
            if !self.is_shelved {
                let all = self.near.iter().map(|(id, stream)| (Arc::clone(id), stream.version));
                self.order = all.collect();
                self.is_shelved = true;
            }
            // Some more than need be, so that not every turn writes.
            let slack = (self.limit / 100).min(MOVED_MAX / 2);
            let count = (self.near.len() - self.limit + slack).min(MOVED_MAX);
            if self.put_away::<D>(count, shelf)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn put_away<D: Decider<State = S>>(
        &mut self,
        count: usize,
        shelf: &mut dyn Shelf,
    ) -> Result<usize, ShelfError> {
        let mut going = Vec::with_capacity(count);
        let mut batch = Vec::with_capacity(count);
        while going.len() < count
            && let Some((id, version)) = self.order.pop_front()
        {
            let Some(stream) = self.near.get(&id) else { continue };
            if stream.version != version {
                // It has changed since it got its place: it gets another one.
                let version = stream.version;
                self.order.push_back((id, version));
                continue;
            }
            // A state that cannot be written is a bug; it stays in memory.
            let Some(mut bytes) = snapshot::to_bytes::<D>(stream) else { continue };
            bytes.extend_from_slice(&stream.unsaved_from.to_be_bytes());
            batch.push((Drawer::Streams, id.as_bytes().to_vec(), bytes));
            going.push((id, version));
        }
        if let Err(error) = shelf.write(Batch(batch)) {
            for place in going.into_iter().rev() {
                self.order.push_front(place);
            }
            return Err(error);
        }
        for (id, _) in &going {
            self.near.remove(id);
        }
        Ok(going.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::banking::account::Account;
    use crate::engine::shelf::MemoryShelf;
    use crate::kernel::stream::StreamHash;
    use crate::kernel::time::Timestamp;

    type State = <Account as Decider>::State;

    fn stream(id: &str, version: u64) -> Stream<State> {
        let hash = StreamHash::new(Account::NAME, id);
        let (state, last_time) = (State::default(), Timestamp(1));
        let unsaved_from = i64::try_from(version).unwrap();
        Stream { state, version, last_time, hash, unsaved_from }
    }

    fn change(streams: &mut Streams<State>, id: &str, version: u64) {
        let changed = [(Arc::from(id), stream(id, version))].into_iter().collect();
        streams.extend(changed, u64::from(version == 1));
    }

    #[test]
    fn while_all_fit_the_shelf_is_not_touched() {
        let (mut streams, mut shelf) = (Streams::new(10), MemoryShelf::default());
        (0..10).for_each(|number| change(&mut streams, &format!("s{number}"), 1));
        streams.relieve::<Account>(&mut shelf).unwrap();
        assert!(shelf.is_empty());
        assert!(!streams.may_be_far("elsewhere"));
        assert_eq!(streams.len(), (10, 10));
    }

    #[test]
    fn those_that_were_not_changed_for_longest_go_and_come_back_as_they_were() {
        let (mut streams, mut shelf) = (Streams::new(10), MemoryShelf::default());
        for number in 0..50 {
            change(&mut streams, &format!("s{number}"), 1);
            // One that is busy all the time.
            change(&mut streams, "busy", number + 1);
            streams.relieve::<Account>(&mut shelf).unwrap();
            assert!(streams.len().1 <= 10);
        }
        assert_eq!(streams.len().0, 51);
        assert!(streams.get("busy").is_some(), "it stays at hand");
        for number in 0..50 {
            let id = format!("s{number}");
            let near = streams.get(&id).cloned();
            let found = near.or_else(|| fetch::<Account>(&id, &shelf).unwrap());
            assert_eq!(found, Some(stream(&id, 1)));
        }
        assert!(streams.may_be_far("nobody"));
        assert_eq!(fetch::<Account>("nobody", &shelf).unwrap(), None);
    }

    #[test]
    fn what_is_changed_again_counts_and_not_what_was_put_away_before() {
        let (mut streams, mut shelf) = (Streams::new(2), MemoryShelf::default());
        for version in 1..=20 {
            for id in ["a", "b", "c", "d"] {
                change(&mut streams, id, version);
                streams.relieve::<Account>(&mut shelf).unwrap();
            }
        }
        for id in ["a", "b", "c", "d"] {
            let found = streams.restore_mut::<Account>(id, &shelf).unwrap().unwrap();
            assert_eq!(found.version, 20, "{id}");
        }
        assert_eq!(streams.len().0, 4);
    }

    #[test]
    fn a_shelf_that_is_away_keeps_every_stream_in_memory() {
        let (mut streams, mut shelf) = (Streams::new(2), MemoryShelf::default());
        (0..9).for_each(|number| change(&mut streams, &format!("s{number}"), 1));
        shelf.set_trouble(Some(ShelfError::Away("disk full".to_owned())));
        assert!(streams.relieve::<Account>(&mut shelf).is_err());
        assert_eq!(streams.len(), (9, 9));
        shelf.set_trouble(None);
        streams.relieve::<Account>(&mut shelf).unwrap();
        assert_eq!(streams.len(), (9, 2));
    }
}
