//! The answers in memory, in the order in which they were given: key -> answer.
//!
//! ```text
//! index: tag of the key's hash, number  ->  segments: the answers by their number
//! ```
//!
//! Guarantees: adding one copies no other. A handler that catches up adds many thousands a second,
//! and a map that holds the answers themselves copies them all whenever it grows.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::dedup::{Answer, CommandKey};
use crate::kernel::time::Timestamp;

/// How many answers are made room for at a time.
const SEGMENT: usize = 1_024;
/// Spreads a tag over the bits that the table looks at.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

/// An answer that is remembered.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: CommandKey,
    pub(super) answer: Answer,
    /// From then on the window counts for it.
    pub(super) at: Timestamp,
}

/// Where an answer stands. Four bytes of each, so that eight hold both: numbers are counted from
/// the first one, of which there are fewer.
#[derive(Clone, Copy, Debug)]
struct Slot {
    tag: u32,
    number: u32,
}

impl Slot {
    const fn hash(self) -> u64 {
        spread(self.tag)
    }
}

const fn spread(tag: u32) -> u64 {
    (tag as u64).wrapping_mul(SPREAD)
}

/// Answers by key and by age.
#[derive(Debug, Default)]
pub(super) struct Recent {
    /// All of the same length but the last one.
    segments: VecDeque<Vec<Entry>>,
    /// How many at the front of the first segment are gone.
    gone: usize,
    count: usize,
    /// The number of the oldest; it comes round again.
    first: u32,
    index: HashTable<Slot>,
    hasher: DefaultHashBuilder,
}

impl Recent {
    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, key: CommandKey) -> Option<&Entry> {
        let tag = self.tag(key);
        let slot = self.index.find(spread(tag), |slot| self.is_at(*slot, tag, key))?;
        self.entry(slot.number)
    }

    /// Remembers an answer as the newest. If there is one of that key, the later one takes its
    /// place, and the answer is no.
    pub(super) fn insert(&mut self, key: CommandKey, answer: Answer, at: Timestamp) -> bool {
        let tag = self.tag(key);
        let found = self.index.find(spread(tag), |slot| self.is_at(*slot, tag, key)).copied();
        if let Some(known) = found.and_then(|slot| self.entry_mut(slot.number)) {
            (known.answer, known.at) = (answer, at);
            return false;
        }
        let number = self.first.wrapping_add(as_number(self.count));
        self.index.insert_unique(spread(tag), Slot { tag, number }, |slot| slot.hash());
        if self.segments.back().is_none_or(|last| last.len() == SEGMENT) {
            self.segments.push_back(Vec::with_capacity(SEGMENT));
        }
        if let Some(last) = self.segments.back_mut() {
            last.push(Entry { key, answer, at });
        }
        self.count += 1;
        true
    }

    /// From the oldest to the newest.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.segments.iter().flatten().skip(self.gone)
    }

    /// Forgets that many of the oldest.
    pub(super) fn forget(&mut self, count: usize) {
        for _ in 0..count.min(self.count) {
            let number = self.first;
            let Some(entry) = self.entry(number) else { break };
            let tag = self.tag(entry.key);
            let is_it = |slot: &Slot| slot.tag == tag && slot.number == number;
            if let Ok(found) = self.index.find_entry(spread(tag), is_it) {
                found.remove();
            }
            self.first = self.first.wrapping_add(1);
            self.count -= 1;
            self.gone += 1;
            if self.gone == SEGMENT {
                self.segments.pop_front();
                self.gone = 0;
            }
        }
        if self.count == 0 {
            self.segments.clear();
            self.gone = 0;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half is as good as any")]
    fn tag(&self, key: CommandKey) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    fn is_at(&self, slot: Slot, tag: u32, key: CommandKey) -> bool {
        slot.tag == tag && self.entry(slot.number).is_some_and(|entry| entry.key == key)
    }

    fn place(&self, number: u32) -> (usize, usize) {
        let at = number.wrapping_sub(self.first) as usize + self.gone;
        (at / SEGMENT, at % SEGMENT)
    }

    fn entry(&self, number: u32) -> Option<&Entry> {
        let (segment, at) = self.place(number);
        self.segments.get(segment)?.get(at)
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        let (segment, at) = self.place(number);
        self.segments.get_mut(segment)?.get_mut(at)
    }
}

#[expect(clippy::cast_possible_truncation, reason = "there are never that many in memory")]
const fn as_number(count: usize) -> u32 {
    count as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::kernel::result::Accepted;
    use crate::kernel::stream::StreamHash;

    fn key(id: u16) -> CommandKey {
        CommandKey::new(StreamHash(0), Uuid::from_u128(u128::from(id)), false)
    }

    fn answer(version: u64) -> Answer {
        let accepted = Accepted {
            command_id: Uuid::nil(),
            aggregate_id: "a",
            content_hash: [0; 32],
            decided_at: Timestamp(0),
            version,
            event_count: 1,
            duplicate: false,
        };
        Answer::of_accepted(&accepted).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes and goes: the same as a map and a list.
        #[test]
        fn it_is_a_map_and_a_list(
            first in any::<u32>(),
            steps in prop::collection::vec((0_u16..3_000, 0_usize..900, 0_usize..900), 1..40),
        ) {
            let mut recent = Recent { first, ..Recent::default() };
            let mut map = BTreeMap::new();
            let mut list: VecDeque<u16> = VecDeque::new();
            let mut version = 0;
            for (from, added, forgotten) in steps {
                for id in (from..).take(added) {
                    version += 1;
                    let is_new = recent.insert(key(id), answer(version), Timestamp(7));
                    prop_assert_eq!(is_new, map.insert(id, version).is_none());
                    if is_new {
                        list.push_back(id);
                    }
                }
                recent.forget(forgotten);
                for id in list.drain(..forgotten.min(list.len())) {
                    map.remove(&id);
                }
                prop_assert_eq!(recent.len(), list.len());
                let keys = recent.iter().map(|entry| entry.key);
                prop_assert!(keys.eq(list.iter().map(|id| key(*id))));
                for id in 0..4_000 {
                    let found = recent.get(key(id)).map(|entry| entry.answer.clone());
                    prop_assert_eq!(found, map.get(&id).map(|version| answer(*version)));
                }
            }
        }
    }
}
