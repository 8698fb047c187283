//! The partitions that are ours: their machines, what these want done, and rebalances.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::letters::{Letters, Told};
use super::look::{Look, Sightings};
use super::parked::{Counts, LookAtParked};
use super::position::Positions;
use super::steady::Steady;
use super::{PartitionStatus, Settings};
use crate::clock;
use crate::engine::projector::{Failure, Input, Projector, State};
use crate::kernel::message::Record;
use crate::kernel::stream::AggregateName;
use crate::log::kafka::group::{Member, Place, Rebalance};
use crate::read_model::store::{Source, Store};
use crate::runtime::lane::SchemaLookUp;

/// The longest that giving a partition back waits for its batch in hand.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);
/// The most completions that wait: a partition has one at most, and what a look found.
const COMPLETIONS_MAX: usize = 8_192;
/// How long a full buffer may stand still before its partition is paused.
const FULL_PATIENCE_US: i64 = 1_000_000;

/// A partition: the topic's place in the list, and its number.
pub(super) type Key = (usize, i32);

/// This process's membership.
pub(super) type Membership<S> = Member<Shared<S>>;

/// What an action came to, or what a look found.
pub(super) struct Completion {
    pub(super) key: Key,
    /// Of an earlier assignment, if it is not the partition's present one.
    pub(super) nonce: u64,
    pub(super) topic_id: Option<Uuid>,
    pub(super) input: Input,
}

pub(super) struct Owned {
    pub(super) source: Arc<Source>,
    machine: Projector,
    pub(super) paused: bool,
    /// What dead letters were sent about.
    pub(super) told: Arc<Told>,
    full_since: Option<i64>,
    events: u64,
    passed_over: u64,
    reported: Option<String>,
}

/// The partitions of this process, behind the lock that rebalances take too.
pub(super) struct Partitions<S: Store> {
    pub(super) store: Arc<S>,
    pub(super) topics: Vec<(String, AggregateName)>,
    pub(super) positions: Arc<Positions>,
    pub(super) settings: Settings,
    pub(super) look_up: SchemaLookUp,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) letters: Arc<Letters>,
    name: String,
    pub(super) slots: Arc<Semaphore>,
    pub(super) poller: Thread,
    /// Weak: what it knows of must not keep it from leaving.
    pub(super) member: Weak<Membership<S>>,
    pub(super) owned: HashMap<Key, Owned>,
    /// Whether the group has given this process its partitions, which may be none.
    pub(super) has_joined: bool,
    sightings: Sightings,
    parked: Counts,
    clock: Steady,
    pub(super) give: Sender<Completion>,
    take: Receiver<Completion>,
}

/// The partitions as the poll thread and rebalances share them. Both are on one thread.
pub(super) struct Shared<S: Store>(Arc<Mutex<Partitions<S>>>);

impl<S: Store> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: Store> Shared<S> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Partitions<S>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Rebalance for Shared<S> {
    fn assigned(&self, places: Vec<Place>) {
        let mut partitions = self.lock();
        partitions.has_joined = true;
        partitions.add(&places);
    }

    fn revoked(&self, places: &[Place], lost: bool) {
        let mut partitions = self.lock();
        partitions.has_joined &= !lost;
        let keys: Vec<Key> = places.iter().filter_map(|place| partitions.key(place)).collect();
        partitions.release(&keys);
    }
}

impl<S: Store> Partitions<S> {
    /// Starts with none.
    pub(super) fn shared(
        store: Arc<S>,
        topics: Vec<(String, AggregateName)>,
        positions: Arc<Positions>,
        settings: Settings,
        look_up: SchemaLookUp,
        (runtime, letters): (tokio::runtime::Handle, Arc<Letters>),
    ) -> Shared<S> {
        let (give, take) = bounded(COMPLETIONS_MAX);
        Shared(Arc::new(Mutex::new(Self {
            name: store.name(),
            store,
            topics,
            positions,
            settings,
            look_up,
            runtime,
            letters,
            slots: Arc::new(Semaphore::new(settings.parallel.max(1))),
            poller: std::thread::current(),
            member: Weak::new(),
            owned: HashMap::new(),
            has_joined: false,
            sightings: Sightings::default(),
            parked: Counts::default(),
            clock: Steady::start(),
            give,
            take,
        })))
    }

    /// Says through what to read and commit.
    pub(super) fn join(&mut self, member: &Arc<Membership<S>>) {
        self.member = Arc::downgrade(member);
    }

    fn key(&self, place: &Place) -> Option<Key> {
        let topic = self.topics.iter().position(|(name, _)| *name == place.0)?;
        Some((topic, place.1))
    }

    fn add(&mut self, places: &[Place]) {
        let keys: Vec<Key> = places.iter().filter_map(|place| self.key(place)).collect();
        for key in &keys {
            let (topic, aggregate) = self.topics[key.0].clone();
            let nonce = clock::new_id().as_u64_pair().1;
            let mut limits = self.settings.limits;
            limits.retry.seed = nonce;
            let source =
                Source { aggregate, topic, partition: key.1, topic_id: Uuid::nil(), nonce };
            let owned = Owned {
                source: Arc::new(source),
                machine: Projector::new(limits),
                paused: false,
                told: Arc::default(),
                full_since: None,
                events: 0,
                passed_over: 0,
                reported: None,
            };
            self.owned.insert(*key, owned);
            self.step(*key, Input::Tick);
        }
    }

    /// Lets the batches in hand end, commits them, and forgets the partitions.
    fn release(&mut self, keys: &[Key]) {
        for key in keys {
            self.step(*key, Input::Finish);
        }
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        let is_over =
            |owned: &Owned| matches!(owned.machine.state(), State::Finished | State::Stopped);
        while !keys.iter().all(|key| self.owned.get(key).is_none_or(is_over)) {
            let take = self.take.clone();
            match take.recv_deadline(deadline) {
                Ok(completion) => self.complete(completion),
                Err(_) => {
                    tracing::warn!(projection = self.name, "a batch in hand did not end in time");
                    break;
                }
            }
        }
        for key in keys {
            self.owned.remove(key);
        }
    }

    pub(super) fn release_all(&mut self) {
        let keys: Vec<Key> = self.owned.keys().copied().collect();
        self.release(&keys);
    }

    /// Takes records that were read.
    pub(super) fn offer(&mut self, read: &mut Vec<(Key, Record)>) {
        let now = self.clock.now();
        for (key, record) in read.drain(..) {
            if let Some(owned) = self.owned.get_mut(&key) {
                owned.machine.offer(now, record);
            }
        }
    }

    /// Moves every machine on as far as it goes without waiting.
    pub(super) fn advance(&mut self) {
        while let Ok(completion) = self.take.try_recv() {
            self.complete(completion);
        }
        let keys: Vec<Key> = self.owned.keys().copied().collect();
        for key in keys {
            self.step(key, Input::Tick);
        }
    }

    /// How long until the next machine has something to do although nothing happens.
    pub(super) fn idle_time(&self) -> Option<Duration> {
        let due = self.owned.values().filter_map(|owned| owned.machine.deadline()).min()?;
        let left = due.0.saturating_sub(self.clock.now().0);
        Some(Duration::from_micros(left.max(0).unsigned_abs()))
    }

    /// Has every partition find out anew where it stands: the client does not say which one it
    /// cannot read any more.
    pub(super) fn lose(&mut self, reason: &str) {
        let keys: Vec<Key> = self.owned.keys().copied().collect();
        for key in keys {
            self.step(key, Input::Lost(reason.to_owned()));
        }
    }

    /// Decides whether to read on: not while a full buffer is being emptied. A partition whose
    /// full buffer stands still is paused instead (which throws away what librdkafka has already
    /// fetched), so that it delays nobody else.
    pub(super) fn may_read(&mut self) -> bool {
        let Some(member) = self.member.upgrade() else { return true };
        let now = self.clock.now().0;
        let mut may_read = true;
        for owned in self.owned.values_mut() {
            if !owned.machine.is_full() {
                owned.full_since = None;
                if owned.paused && owned.machine.state() != State::Stopped {
                    owned.paused = member.resume(&owned.place()).is_err();
                }
                continue;
            }
            let since = *owned.full_since.get_or_insert(now);
            let works = matches!(
                owned.machine.state(),
                State::Applying | State::Committing | State::Redriving
            );
            if owned.paused {
                continue;
            }
            if works && now - since < FULL_PATIENCE_US {
                may_read = false;
            } else {
                owned.paused = member.pause(&owned.place()).is_ok();
            }
        }
        may_read
    }

    /// Asks for the ends of the logs and the topics' ids; the answers show when they come.
    pub(super) fn look(&self) {
        let asked = self.owned.iter().map(|(key, owned)| (*key, Arc::clone(&owned.source)));
        let look = Look {
            positions: Arc::clone(&self.positions),
            topics: self.topics.iter().map(|(name, _)| name.clone()).collect(),
            asked: asked.collect(),
            give: self.give.clone(),
        };
        self.sightings.begin(&self.runtime, look);
    }

    /// Asks the store how many events are parked, and which ones somebody wants back.
    pub(super) fn look_at_parked(&self) {
        let asked = self.owned.iter().map(|(key, owned)| (*key, Arc::clone(&owned.source)));
        let (asked, give, poller) = (asked.collect(), self.give.clone(), self.poller.clone());
        let look = LookAtParked { asked, give, poller };
        self.parked.begin(&self.runtime, Arc::clone(&self.store), look);
    }

    /// How the last look ended, once.
    pub(super) fn take_look(&self) -> Option<Result<(), String>> {
        self.sightings.take_outcome()
    }

    pub(super) fn status(&self) -> Vec<PartitionStatus> {
        let now_ms = clock::now().millis();
        let mut all: Vec<_> = self
            .owned
            .iter()
            .map(|(key, owned)| PartitionStatus {
                topic: owned.source.topic.clone(),
                partition: owned.source.partition,
                state: owned.machine.state(),
                place: owned.machine.place(),
                log_end: self.sightings.end(*key),
                lag_ms: owned.machine.oldest_ms().map_or(0, |oldest| (now_ms - oldest).max(0)),
                events: owned.events,
                passed_over: owned.passed_over,
                parked: self.parked.of(*key),
                last_error: owned.machine.error().map(str::to_owned),
            })
            .collect();
        all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        all
    }

    fn complete(&mut self, completion: Completion) {
        let Completion { key, nonce, topic_id, input } = completion;
        let Some(owned) = self.owned.get_mut(&key) else { return };
        if owned.source.nonce != nonce {
            return;
        }
        if let Some(topic_id) = topic_id {
            owned.source = Arc::new(Source { topic_id, ..Source::clone(&owned.source) });
        }
        if let Input::Applied(Ok(applied)) = &input {
            owned.events += applied.events;
            owned.passed_over += applied.passed_over;
        }
        self.step(key, input);
    }

    fn step(&mut self, key: Key, input: Input) {
        let mut input = Some(input);
        while let Some(next) = input.take() {
            let now = self.clock.now();
            let Some(owned) = self.owned.get_mut(&key) else { return };
            let action = owned.machine.step(now, next);
            owned.report(&self.name);
            if let Some(action) = action {
                input = self.perform(key, action);
            }
        }
    }
}

impl Owned {
    pub(super) fn place(&self) -> Place {
        place_of(&self.source)
    }

    /// Says in the log what has changed.
    fn report(&mut self, projection: &str) {
        let (topic, partition) = (&self.source.topic, self.source.partition);
        if let Some(note) = self.machine.take_note() {
            if note.is_warning() {
                tracing::warn!(projection, topic, partition, "{note}");
            } else {
                tracing::info!(projection, topic, partition, "{note}");
            }
        }
        let error = self.machine.error();
        if error == self.reported.as_deref() {
            return;
        }
        match error {
            Some(error) if self.machine.state() == State::Stopped => {
                tracing::error!(projection, topic, partition, error, "stopped");
            }
            // As at every change of owners: it asks where the store stands, and goes on.
            Some(error) if error == Failure::Conflict.to_string() => {
                tracing::info!(projection, topic, partition, error, "looking again");
            }
            Some(error) => tracing::warn!(projection, topic, partition, error, "waiting"),
            None => tracing::info!(projection, topic, partition, "going on"),
        }
        self.reported = error.map(str::to_owned);
    }
}

pub(super) fn place_of(source: &Source) -> Place {
    (source.topic.clone(), source.partition)
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(chain);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
