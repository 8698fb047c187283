//! The poll thread of a projection: reads, moves the machines on, and sleeps until something
//! happens.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::group::{Key, Membership, Partitions, Shared};
use super::letters::Letters;
use super::position::Positions;
use super::watch::Watch;
use super::{Settings, Status};
use crate::config::Config;
use crate::kernel::message::Record;
use crate::kernel::stream::{AggregateName, Kind};
use crate::log::kafka::Error;
use crate::log::kafka::group::{Member, ends_reading};
use crate::read_model::store::{self, Store};
use crate::runtime::lane::SchemaLookUp;

/// The most records that are read before the machines are looked after.
const READ_MAX: usize = 1_000;
/// The longest sleep: librdkafka wakes the thread for records, tasks for completions.
const NAP: Duration = Duration::from_millis(100);
const STATUS_EVERY: Duration = Duration::from_millis(250);
const ENDS_EVERY: Duration = Duration::from_secs(3);
/// How long a consumer that broke for good is left alone before a new one takes its place.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

/// Whose rows a projection writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Those that users see, whichever generation's they are by then.
    InUse,
    /// Those of the store's own generation, in a group of its own.
    Beside,
}

/// A projection's poll thread, before it runs.
pub(super) struct Driver<S: Store> {
    config: Config,
    group: String,
    part: Part,
    store: Arc<S>,
    settings: Settings,
    look_up: SchemaLookUp,
    runtime: tokio::runtime::Handle,
    positions: Arc<Positions>,
    letters: Arc<Letters>,
    topics: Vec<(String, AggregateName)>,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<Status>>,
}

impl<S: Store> Driver<S> {
    pub(super) fn new(
        config: &Config,
        store: S,
        (part, settings): (Part, Settings),
        look_up: SchemaLookUp,
        runtime: tokio::runtime::Handle,
        (stop, status): (Arc<AtomicBool>, Arc<Mutex<Status>>),
    ) -> Result<Self, Error> {
        let name = store.name();
        let group = group(config, part, &store);
        let topic = |aggregate: &AggregateName| {
            (config.namespace.dotted(&aggregate.topic(Kind::Events)), *aggregate)
        };
        let topics: Vec<_> = store.definition().aggregates.iter().map(topic).collect();
        let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
        let positions = Arc::new(Positions::new(&config.kafka, &group, &names)?);
        let letters = Arc::new(Letters::new(&config.kafka, &config.namespace, &name));
        let generation = store.generation();
        *lock(&status) = Status { name, group: group.clone(), generation, ..Default::default() };
        Ok(Self {
            config: config.clone(),
            group,
            part,
            store: Arc::new(store),
            settings,
            look_up,
            runtime,
            positions,
            letters,
            topics,
            stop,
            status,
        })
    }

    /// Projects until it is to stop.
    pub(super) fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            let outcome = self.serve();
            if let Err(error) = outcome {
                tracing::error!(group = self.group, %error, "joining the group anew");
                lock(&self.status).last_error = Some(error.to_string());
                std::thread::park_timeout(REJOIN_PAUSE);
            }
        }
    }

    /// Projects into one generation until that is not the one to write any more.
    fn serve(&self) -> Result<(), Error> {
        let Some(store) = self.store_to_write() else { return Ok(()) };
        let watch = (self.part == Part::InUse).then(|| Watch::start(&self.runtime, &store));
        let (member, shared) = self.join(store)?;
        self.poll(&member, &shared, watch.as_ref())
    }

    /// The store over the generation in use, once that may be written. `None`: it is to stop.
    fn store_to_write(&self) -> Option<Arc<S>> {
        if self.part == Part::Beside {
            return Some(Arc::clone(&self.store));
        }
        while !self.stop.load(Ordering::Acquire) {
            match self.runtime.block_on(self.opened()) {
                Ok(Some(store)) => {
                    let mut status = lock(&self.status);
                    status.generation = store.generation();
                    status.last_error = None;
                    return Some(store);
                }
                // Another generation is about to take its place.
                Ok(None) => std::thread::park_timeout(NAP),
                Err(error) => {
                    let error = error.chain();
                    let mut status = lock(&self.status);
                    if status.last_error.as_ref() != Some(&error) {
                        tracing::error!(group = self.group, error, "cannot open the tables");
                        status.last_error = Some(error);
                    }
                    drop(status);
                    std::thread::park_timeout(REJOIN_PAUSE);
                }
            }
        }
        None
    }

    async fn opened(&self) -> Result<Option<Arc<S>>, store::Error> {
        let in_use = self.store.in_use().await?;
        if in_use.is_held {
            return Ok(None);
        }
        if in_use.generation == self.store.generation() {
            return Ok(Some(Arc::clone(&self.store)));
        }
        let store = self.store.anew();
        store.prepare().await?;
        let generation = store.generation();
        tracing::info!(group = self.group, generation, "goes on with another generation");
        Ok(Some(Arc::new(store)))
    }

    fn join(&self, store: Arc<S>) -> Result<(Arc<Membership<S>>, Shared<S>), Error> {
        let positions = Arc::new(self.positions.of_generation(store.generation()));
        let shared = Partitions::shared(
            store,
            self.topics.clone(),
            positions,
            self.settings,
            Arc::clone(&self.look_up),
            (self.runtime.clone(), Arc::clone(&self.letters)),
        );
        let topics: Vec<&str> = self.topics.iter().map(|(name, _)| name.as_str()).collect();
        let mut member =
            Member::join_lean(&self.config.kafka, &self.group, &topics, shared.clone())?;
        let poller = std::thread::current();
        member.wake_with(move || poller.unpark());
        let member = Arc::new(member);
        shared.lock().join(&member);
        Ok((member, shared))
    }

    /// Polls until it is to stop, or the client broke for good. Dropping the member leaves the
    /// group; the others take over at once.
    fn poll(
        &self,
        member: &Membership<S>,
        shared: &Shared<S>,
        watch: Option<&Watch>,
    ) -> Result<(), Error> {
        let mut read: Vec<(Key, Record)> = Vec::with_capacity(READ_MAX);
        let mut told = Instant::now();
        let mut looked = Instant::now();
        let mut has_read = false;
        let mut outcome = Ok(None);
        while !self.stop.load(Ordering::Acquire) && outcome.is_ok() {
            if member.is_left_outside() {
                tracing::warn!(group = self.group, "still outside the group; joining anew");
                break;
            }
            if watch.is_some_and(Watch::is_over) {
                break;
            }
            let may_read = shared.lock().may_read();
            if may_read {
                outcome = self.read(member, &mut read);
            }
            let is_idle = read.is_empty();
            has_read |= !is_idle;
            let sleep = {
                let mut partitions = shared.lock();
                partitions.offer(&mut read);
                if let Ok(Some(reason)) = &outcome {
                    partitions.lose(reason);
                    outcome = Ok(None);
                }
                partitions.advance();
                if told.elapsed() >= STATUS_EVERY {
                    told = Instant::now();
                    let mut status = lock(&self.status);
                    status.has_joined = partitions.has_joined;
                    status.partitions = partitions.status();
                    // Silence proves nothing: only an answer does.
                    match (partitions.take_look(), mem::take(&mut has_read)) {
                        (Some(look), _) => status.last_error = look.err(),
                        (None, true) => status.last_error = None,
                        (None, false) => {}
                    }
                }
                if looked.elapsed() >= ENDS_EVERY {
                    looked = Instant::now();
                    partitions.look();
                    partitions.look_at_parked();
                }
                partitions.idle_time().map_or(NAP, |time| time.min(NAP))
            };
            if is_idle && !sleep.is_zero() {
                std::thread::park_timeout(sleep);
            }
        }
        shared.lock().release_all();
        let mut status = lock(&self.status);
        status.has_joined = false;
        status.partitions.clear();
        outcome.map(drop)
    }

    /// Takes what has come, without waiting. A reason: some partition is not read any more.
    fn read(
        &self,
        member: &Membership<S>,
        read: &mut Vec<(Key, Record)>,
    ) -> Result<Option<String>, Error> {
        let mut lost = None;
        // A rebalance or a commit's answer looks like nothing, and there may be more behind it.
        let mut nothing = 0;
        while nothing < 2 && read.len() < READ_MAX {
            let before = read.len();
            let polled = member.poll(Duration::ZERO, |topic, partition, record| {
                if let Some(place) = self.topics.iter().position(|(name, _)| name == topic) {
                    read.push(((place, partition), record));
                }
            });
            if let Err(error) = polled {
                if let Some(reason) = member.is_broken() {
                    return Err(Error::Unexpected(format!("the consumer broke: {reason}")));
                }
                tracing::debug!(group = self.group, %error, "consumer error");
                lock(&self.status).last_error = Some(error.to_string());
                if ends_reading(&error) {
                    lost = Some(error.to_string());
                    nothing += 1;
                }
            } else if read.len() == before {
                nothing += 1;
            }
        }
        Ok(lost)
    }
}

/// The consumer group.
fn group<S: Store>(config: &Config, part: Part, store: &S) -> String {
    let name = store.name();
    match part {
        Part::InUse => config.namespace.dotted(&format!("millrace.{name}")),
        Part::Beside => group_beside(config, &name, store.generation()),
    }
}

/// The group that builds a generation which is not in use.
pub(super) fn group_beside(config: &Config, projection: &str, generation: i32) -> String {
    config.namespace.dotted(&format!("millrace.{projection}.g{generation}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
