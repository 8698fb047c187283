//! Durable timers: set and cleared by events, fired into commands. Late is allowed, early never.
//!
//! The timers topic is the truth (key: aggregate id, 0x00, name; value: the moment as i64
//! big-endian, in microseconds); the owner of the partition keeps them in order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hashbrown::HashMap;
use uuid::Uuid;

use super::metadata::{ID_NAMESPACE, Metadata};
use super::reply::{Request, Verdict, panic_text};
use super::turn::Turn;
use crate::kernel::codec::Codec;
use crate::kernel::decider::{Decider, Timer};
use crate::kernel::message::{Headers, Outgoing};
use crate::kernel::stream::Kind;
use crate::kernel::time::Timestamp;

/// How long a timer whose command broke waits before it is tried again, in seconds.
const BROKEN_PAUSE_SECONDS: i64 = 10;

/// The timers of a partition, in order of time.
#[derive(Debug, Default)]
pub struct Timers {
    in_order: BTreeSet<Due>,
    at: HashMap<(Arc<str>, Arc<str>), Timestamp>,
}

/// A timer and when it is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    /// Not before this.
    pub at: Timestamp,
    /// The aggregate.
    pub id: Arc<str>,
    /// The timer's name.
    pub name: Arc<str>,
}

impl Timers {
    /// Sets a timer, or forgets it.
    pub fn set(&mut self, id: &str, name: &str, at: Option<Timestamp>) {
        let (id, name): (Arc<str>, Arc<str>) = (id.into(), name.into());
        let key = (Arc::clone(&id), Arc::clone(&name));
        let before = match at {
            Some(at) => self.at.insert(key, at),
            None => self.at.remove(&key),
        };
        if let Some(at) = before {
            self.in_order.remove(&Due { at, id: Arc::clone(&id), name: Arc::clone(&name) });
        }
        if let Some(at) = at {
            self.in_order.insert(Due { at, id, name });
        }
    }

    /// When the next one is due.
    #[must_use]
    pub fn next(&self) -> Option<Timestamp> {
        self.in_order.first().map(|due| due.at)
    }

    /// Those that are due, the oldest first, at most `max`.
    #[must_use]
    pub fn due(&self, now: Timestamp, max: usize) -> Vec<Due> {
        self.in_order.iter().take_while(|due| due.at <= now).take(max).cloned().collect()
    }

    /// How many are set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether none is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }
}

/// The key of a timer's record.
fn timer_key(id: &str, name: &str) -> Vec<u8> {
    [id.as_bytes(), &[0], name.as_bytes()].concat()
}

/// Takes a timer's key apart into id and name; ids hold no NUL.
#[must_use]
pub fn parse_timer_key(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key).ok()?.split_once('\0')
}

/// Reads a timer's value.
#[must_use]
pub fn parse_timer_value(value: &[u8]) -> Option<Timestamp> {
    Some(Timestamp(i64::from_be_bytes(value.try_into().ok()?)))
}

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    /// Keeps what an accepted decision does to the timers.
    pub(super) fn follow_timers(&mut self, id: &str, timers: Vec<Timer>) {
        for timer in timers {
            let (name, at) = match timer {
                Timer::Set { name, at } => (name, Some(at)),
                Timer::Clear { name } => (name, None),
            };
            self.changes.timers.insert((id.to_owned(), name.to_owned()), at);
        }
    }

    /// Decides the command of a timer that is due. Nobody waits for its result. A panic on the way
    /// is our bug, but it must not stop the partition.
    pub fn fire(&mut self, due: &Due) {
        let records = self.records.len();
        let fired = catch_unwind(AssertUnwindSafe(|| self.fire_unguarded(due)));
        if let Err(panic) = fired {
            self.records.truncate(records);
            self.fire_later(due, &panic_text(panic.as_ref()));
        }
    }

    fn fire_later(&mut self, due: &Due, reason: &str) {
        let (id, name) = (&due.id, &due.name);
        tracing::error!(%id, %name, reason, "timer's command broke; trying again later");
        let later = self.now.plus_seconds(BROKEN_PAUSE_SECONDS);
        self.changes.timers.insert((id.to_string(), name.to_string()), Some(later));
    }

    fn fire_unguarded(&mut self, due: &Due) {
        let key = (due.id.to_string(), due.name.to_string());
        self.changes.timers.insert(key, None);
        let Some(command) = D::on_timer(&due.name) else { return };
        self.fetch(&due.id);
        let cause = format!("{}\0{}\0{}\0{}", D::NAME, due.id, due.name, due.at.0);
        let request = Request {
            record: None,
            aggregate_id: &due.id,
            stream: self.stream_hash(&due.id),
            command_id: Uuid::new_v5(&ID_NAMESPACE, cause.as_bytes()),
            content_hash: [0; 32],
            metadata: Metadata::default(),
            from_process_manager: true,
            on_behalf_of: None,
        };
        let (id, name) = (&due.id, &due.name);
        match self.judge(&request, &command) {
            Verdict::Accepted { .. } | Verdict::Repeat(_) | Verdict::HandedOn => {}
            Verdict::Refused(refusal) => {
                tracing::warn!(%id, %name, code = refusal.code, "timer's command was refused");
            }
            Verdict::Failed(reason) => self.fire_later(due, &reason),
        }
    }
}

/// The records of all changed timers, as they are after a turn.
pub(super) fn records(
    changed: &BTreeMap<(String, String), Option<Timestamp>>,
) -> impl Iterator<Item = Outgoing> {
    changed.iter().map(|((id, name), at)| Outgoing {
        kind: Kind::Timers,
        key: Some(timer_key(id, name)),
        value: at.map(|at| at.0.to_be_bytes().to_vec()),
        headers: Headers::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order_of_time_and_never_early() {
        let mut timers = Timers::default();
        timers.set("a", "retry", Some(Timestamp(30)));
        timers.set("b", "retry", Some(Timestamp(10)));
        timers.set("a", "deadline", Some(Timestamp(20)));
        assert_eq!(timers.next(), Some(Timestamp(10)));
        assert!(timers.due(Timestamp(9), 10).is_empty());
        let due: Vec<_> = timers.due(Timestamp(20), 10).iter().map(|due| due.at.0).collect();
        assert_eq!(due, [10, 20]);
        assert_eq!(timers.due(Timestamp(99), 2).len(), 2);
    }

    #[test]
    fn setting_one_again_moves_it() {
        let mut timers = Timers::default();
        timers.set("a", "retry", Some(Timestamp(10)));
        timers.set("a", "retry", Some(Timestamp(50)));
        assert_eq!((timers.len(), timers.next()), (1, Some(Timestamp(50))));
        timers.set("a", "retry", None);
        assert!(timers.is_empty());
        timers.set("a", "retry", None);
    }

    #[test]
    fn a_key_comes_apart_again() {
        assert_eq!(parse_timer_key(&timer_key("t-1", "retry")), Some(("t-1", "retry")));
        assert_eq!(parse_timer_value(&7_i64.to_be_bytes()), Some(Timestamp(7)));
        assert_eq!(parse_timer_value(b"7"), None);
    }
}
