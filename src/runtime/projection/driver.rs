//! The poll thread of a projection: reads, moves the machines on, and sleeps until something
//! happens.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::group::{Key, Membership, Partitions, Shared};
use super::letters::Letters;
use super::position::Positions;
use super::{Settings, Status};
use crate::config::Config;
use crate::kernel::message::Record;
use crate::kernel::stream::{AggregateName, Kind};
use crate::log::kafka::Error;
use crate::log::kafka::group::{Member, ends_reading};
use crate::read_model::store::Store;
use crate::runtime::lane::SchemaLookUp;

/// The most records that are read before the machines are looked after.
const READ_MAX: usize = 1_000;
/// The longest sleep: librdkafka wakes the thread for records, tasks for completions.
const NAP: Duration = Duration::from_millis(100);
const STATUS_EVERY: Duration = Duration::from_millis(250);
const ENDS_EVERY: Duration = Duration::from_secs(3);
/// How long a consumer that broke for good is left alone before a new one takes its place.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);

/// A projection's poll thread, before it runs.
pub(super) struct Driver<S: Store> {
    config: Config,
    group: String,
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
        settings: Settings,
        look_up: SchemaLookUp,
        runtime: tokio::runtime::Handle,
        (stop, status): (Arc<AtomicBool>, Arc<Mutex<Status>>),
    ) -> Result<Self, Error> {
        let name = store.name();
        let group = config.namespace.dotted(&format!("millrace.{name}"));
        let topic = |aggregate: &AggregateName| {
            (config.namespace.dotted(&aggregate.topic(Kind::Events)), *aggregate)
        };
        let topics: Vec<_> = store.definition().aggregates.iter().map(topic).collect();
        let names: Vec<&str> = topics.iter().map(|(name, _)| name.as_str()).collect();
        let positions = Arc::new(Positions::new(&config.kafka, &group, &names)?);
        let letters = Arc::new(Letters::new(&config.kafka, &config.namespace, &name));
        *lock(&status) = Status { name, group: group.clone(), ..Default::default() };
        Ok(Self {
            config: config.clone(),
            group,
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
            let outcome = self.join().and_then(|(member, shared)| self.poll(&member, &shared));
            if let Err(error) = outcome {
                tracing::error!(group = self.group, %error, "joining the group anew");
                lock(&self.status).last_error = Some(error.to_string());
                std::thread::park_timeout(REJOIN_PAUSE);
            }
        }
    }

    fn join(&self) -> Result<(Arc<Membership<S>>, Shared<S>), Error> {
        let shared = Partitions::shared(
            Arc::clone(&self.store),
            self.topics.clone(),
            Arc::clone(&self.positions),
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
    fn poll(&self, member: &Membership<S>, shared: &Shared<S>) -> Result<(), Error> {
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
