//! The thread of a reactor: carries out what the machines of its partitions want.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use ring::hmac;
use uuid::Uuid;

use super::partitions::{Doing, Outbox, Owned, Partitions};
use super::{Board, Status};
use crate::clock;
use crate::config::Config;
use crate::engine::dispatch::Targets;
use crate::engine::protocol::{Committed, Crossing};
use crate::engine::reactor::{Action, Input, Reacting, Settings, Stored};
use crate::kernel::reactor::Reactor;
use crate::kernel::stream::{AggregateName, Kind};
use crate::log::kafka::group::{self, Member, Place, Witness};
use crate::log::kafka::{Error, positions};
use crate::runtime::lane::SchemaLookUp;
use crate::runtime::lane_status::LaneState;

/// How long the thread waits for records.
const POLL: Duration = Duration::from_millis(50);
/// The most records that are taken in before they are reacted to.
const RECORDS_MAX: usize = 5_000;
/// How long a service that does not answer is left alone.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How long a consumer that broke for good is left alone before a new one takes its place.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);
/// How long brokers may take to acknowledge before `status` says so.
const SLOW: Duration = Duration::from_secs(2);

/// What never changes while a reactor runs.
pub(super) struct Driver {
    pub(super) config: Config,
    pub(super) reactor: Arc<dyn Reactor>,
    pub(super) group: String,
    pub(super) cluster_id: String,
    pub(super) topics: HashMap<String, (Uuid, (AggregateName, Kind))>,
    pub(super) positions_topic: String,
    pub(super) witness: Witness,
    pub(super) targets: Targets,
    pub(super) key: hmac::Key,
    pub(super) look_up: SchemaLookUp,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) board: Arc<Board>,
}

/// One membership of the group.
struct Session {
    member: Member<Partitions>,
    partitions: Partitions,
}

impl Driver {
    pub(super) fn run(self) {
        while !self.is_stopping() {
            match self.join() {
                Ok(session) => self.work(&session),
                Err(error) => {
                    tracing::error!(group = %self.group, %error, "cannot join; trying again");
                }
            }
            if !self.is_stopping() {
                std::thread::sleep(REJOIN_PAUSE);
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn join(&self) -> Result<Session, Error> {
        let partitions = Partitions {
            owned: Arc::default(),
            given: Arc::default(),
            outbox: Arc::new(Mutex::new(Outbox {
                kafka: self.config.kafka.clone(),
                group: self.group.clone(),
                positions_topic: self.positions_topic.clone(),
                producer: None,
            })),
            board: Arc::clone(&self.board),
        };
        let topics: Vec<&str> = self.topics.keys().map(String::as_str).collect();
        let member =
            Member::join_lean(&self.config.kafka, &self.group, &topics, partitions.clone())?;
        Ok(Session { member, partitions })
    }

    /// Reacts until it is to stop, or the client broke for good.
    fn work(&self, session: &Session) {
        while !self.is_stopping() {
            if session.member.is_left_outside() {
                tracing::warn!(group = %self.group, "still outside the group; joining anew");
                break;
            }
            self.take_over(session);
            self.settle(session);
            if let Err(reason) = self.poll(session) {
                tracing::error!(group = %self.group, reason, "joining anew");
                break;
            }
            self.feed(session);
        }
        self.board.leave(false);
        let places: Vec<Place> = session.partitions.lock().keys().cloned().collect();
        let last = session.partitions.release(&places);
        for (place, stored, metadata) in &last {
            if let Err(error) = session.member.commit(place, stored.next_offset, metadata) {
                tracing::debug!(?place, %error, "offset not committed; the position is stored");
            }
        }
    }

    /// Makes the machines of partitions that were given to us.
    fn take_over(&self, session: &Session) {
        let given = std::mem::take(&mut *session.partitions.given());
        for place in given {
            let Some((topic_id, (aggregate, kind))) = self.topics.get(&place.0) else { continue };
            let settings = Settings {
                group: self.group.clone(),
                cluster_id: self.cluster_id.clone(),
                topic: place.0.clone(),
                topic_id: *topic_id,
                aggregate: *aggregate,
                kind: *kind,
                partition: place.1,
                targets: self.targets.clone(),
                key: self.key.clone(),
            };
            let machine = Reacting::new(settings, Arc::clone(&self.reactor));
            let counts = machine.counts();
            let status = Status { state: LaneState::Fencing, counts, last_error: None };
            self.board.lock().insert(place.clone(), status);
            let doing = Doing::Standing(Instant::now());
            session.partitions.lock().insert(place, Owned { machine, doing, inbox: Vec::new() });
        }
    }

    fn poll(&self, session: &Session) -> Result<(), String> {
        let mut count = 0;
        let started = Instant::now();
        loop {
            let wait = if count == 0 { POLL } else { Duration::ZERO };
            let mut took = false;
            let polled = session.member.poll(wait, |topic, partition, record| {
                took = true;
                let place = (topic.to_owned(), partition);
                if let Some(owned) = session.partitions.lock().get_mut(&place)
                    && !matches!(owned.doing, Doing::Stopped)
                {
                    owned.inbox.push(record);
                }
            });
            if let Err(error) = polled {
                tracing::warn!(group = %self.group, %error, "consumer error");
                if let Some(reason) = session.member.is_broken() {
                    return Err(reason);
                }
                if group::ends_reading(&error) {
                    return Err(error.to_string());
                }
                return Ok(());
            }
            count += 1;
            if !took || count >= RECORDS_MAX || started.elapsed() > 2 * POLL {
                return Ok(());
            }
        }
    }

    /// Gives the machines what has arrived, or wakes them.
    fn feed(&self, session: &Session) {
        let now = clock::now();
        for (place, owned) in session.partitions.lock().iter_mut() {
            let input = match &owned.doing {
                Doing::Receiving(_) if !owned.inbox.is_empty() => {
                    Input::Arrived(std::mem::take(&mut owned.inbox))
                }
                Doing::Receiving(Some(until)) if *until <= now => Input::Woken,
                Doing::Receiving(_)
                | Doing::Standing(_)
                | Doing::Ready(_)
                | Doing::Delivering(_)
                | Doing::Storing(..)
                | Doing::LookingUp(_)
                | Doing::Stopped => continue,
            };
            self.step(place, owned, input);
        }
    }

    fn step(&self, place: &Place, owned: &mut Owned, input: Input) {
        owned.doing = match owned.machine.step(clock::now(), input) {
            Action::ReadStanding => Doing::Standing(Instant::now()),
            Action::Ready { next_offset } => Doing::Ready(next_offset),
            Action::Receive { until } => Doing::Receiving(until),
            Action::Deliver(crossings) => Doing::Delivering(crossings),
            Action::Store(stored, metadata) => Doing::Storing(stored, metadata),
            Action::LookUpSchema(id) => Doing::LookingUp(self.look_up(place, id)),
            Action::Stop(reason) => {
                let (topic, partition) = place;
                tracing::error!(group = %self.group, topic, partition, reason, "stopped");
                self.board.update(place, |status| {
                    status.state = LaneState::Stopped;
                    status.last_error = Some(reason);
                });
                Doing::Stopped
            }
        };
        let counts = owned.machine.counts();
        self.board.update(place, |status| {
            status.counts = counts;
            if matches!(owned.doing, Doing::Receiving(_)) {
                status.state = LaneState::Running;
            }
        });
    }

    /// Carries out what the machines want until each of them waits for something from outside.
    fn settle(&self, session: &Session) {
        loop {
            self.start_reading(session);
            self.look_after_schemas(session);
            let has_sent = self.deliver(session);
            let has_stored = self.store(session);
            if !(has_sent || has_stored) || self.is_stopping() {
                return;
            }
        }
    }

    fn start_reading(&self, session: &Session) {
        let mut positions = None;
        for (place, owned) in session.partitions.lock().iter_mut() {
            if self.is_stopping() {
                return;
            }
            if matches!(owned.doing, Doing::Standing(at) if at <= Instant::now()) {
                match self.standing(place, &mut positions) {
                    Ok(input) => self.step(place, owned, input),
                    Err(reason) => {
                        self.waiting(place, reason);
                        owned.doing = Doing::Standing(Instant::now() + RETRY_PAUSE);
                    }
                }
            }
            if let Doing::Ready(next_offset) = owned.doing {
                owned.inbox.clear();
                match session.member.start_reading(place, next_offset) {
                    Ok(()) => self.step(place, owned, Input::Started),
                    Err(error) => tracing::debug!(?place, %error, "cannot seek yet"),
                }
            }
        }
    }

    /// Where reactor and group stand; the positions are read once for all partitions.
    fn standing(
        &self,
        place: &Place,
        positions: &mut Option<HashMap<Place, Vec<u8>>>,
    ) -> Result<Input, String> {
        let found = match positions.take() {
            Some(found) => found,
            None => {
                let topic = &self.positions_topic;
                positions::read(&self.config.kafka, topic, &self.group)
                    .map_err(|error| error.to_string())?
            }
        };
        let stored = match found.get(place) {
            None => None,
            Some(bytes) => Some(Stored::from_bytes(bytes).ok_or_else(|| {
                format!("{}: a position of a form that this version cannot read", place.0)
            })?),
        };
        *positions = Some(found);
        let standing = self.witness.standing(place).map_err(|error| error.to_string())?;
        let committed = Committed {
            offset: standing.committed,
            log_start: standing.log_start,
            log_end: standing.log_end,
            ..Committed::default()
        };
        Ok(Input::Standing { stored, committed })
    }

    fn waiting(&self, place: &Place, reason: String) {
        tracing::warn!(group = %self.group, topic = place.0, partition = place.1, reason,
            "waiting");
        self.board.update(place, |status| {
            status.state = LaneState::Waiting;
            status.last_error = Some(reason);
        });
    }

    /// Sends what the machines want sent; says whether there was anything.
    fn deliver(&self, session: &Session) -> bool {
        let mut owned = session.partitions.lock();
        let mut all = Vec::new();
        let mut places = Vec::new();
        for (place, owned) in owned.iter_mut() {
            if let Doing::Delivering(crossings) = &mut owned.doing {
                all.append(crossings);
                places.push(place.clone());
            }
        }
        if places.is_empty() || !self.send(session, &places, &all) {
            return false;
        }
        for place in &places {
            if let Some(owned) = owned.get_mut(place) {
                self.step(place, owned, Input::Delivered);
            }
        }
        true
    }

    /// Sends until everything is acknowledged, or the process is to stop.
    fn send(&self, session: &Session, places: &[Place], crossings: &[Crossing]) -> bool {
        let mut outbox = session.partitions.outbox();
        loop {
            let (started, has_told) = (Instant::now(), Cell::new(false));
            let give_up = || {
                if started.elapsed() > SLOW && !has_told.replace(true) {
                    let reason = "the brokers do not acknowledge commands";
                    for place in places {
                        self.board.update(place, |status| {
                            status.state = LaneState::Waiting;
                            status.last_error = Some(reason.to_owned());
                        });
                    }
                }
                self.is_stopping()
            };
            match outbox.deliver(crossings.iter().map(Crossing::parts), give_up) {
                Ok(()) => return true,
                Err(_) if self.is_stopping() => return false,
                Err(error) => {
                    for place in places {
                        self.waiting(place, error.to_string());
                    }
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
    }

    /// Stores positions; says whether there was any.
    fn store(&self, session: &Session) -> bool {
        let mut owned = session.partitions.lock();
        let mut storing = Vec::new();
        for (place, owned) in owned.iter() {
            if let Doing::Storing(stored, metadata) = &owned.doing {
                storing.push((place.clone(), *stored, metadata.clone()));
            }
        }
        if storing.is_empty() {
            return false;
        }
        if let Err(error) = session.partitions.outbox().store(&storing, || self.is_stopping()) {
            // They are stored once more when everything is given back.
            if self.is_stopping() {
                return false;
            }
            for (place, ..) in &storing {
                self.waiting(place, error.to_string());
            }
            std::thread::sleep(RETRY_PAUSE);
            return true;
        }
        let offsets = storing
            .iter()
            .map(|(place, stored, metadata)| (place, stored.next_offset, metadata.as_str()));
        if let Err(error) = session.member.commit_later(offsets) {
            tracing::debug!(group = %self.group, %error, "offsets not committed");
        }
        for (place, ..) in &storing {
            if let Some(owned) = owned.get_mut(place) {
                self.step(place, owned, Input::Stored);
            }
        }
        true
    }

    /// Asks the registry on a thread of its own, again and again.
    fn look_up(&self, place: &Place, id: u32) -> Receiver<()> {
        let (done, receiver) = bounded(1);
        let (look_up, stop) = (Arc::clone(&self.look_up), Arc::clone(&self.stop));
        let (board, place) = (Arc::clone(&self.board), place.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) && board.lock().contains_key(&place) {
                match look_up(id) {
                    Ok(()) => {
                        // Whoever has gone meanwhile does not listen.
                        let _ = done.send(());
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(
                            topic = place.0,
                            partition = place.1,
                            id,
                            error,
                            "waiting for a schema"
                        );
                        board.update(&place, |status| {
                            status.state = LaneState::Waiting;
                            status.last_error = Some(format!("schema {id}: {error}"));
                        });
                        std::thread::sleep(RETRY_PAUSE);
                    }
                }
            }
        });
        receiver
    }

    /// Pauses the partitions that wait for a schema or have stopped, and goes on with those that
    /// have their schema.
    fn look_after_schemas(&self, session: &Session) {
        for (place, owned) in session.partitions.lock().iter_mut() {
            let outcome = match &owned.doing {
                Doing::LookingUp(receiver) if receiver.try_recv().is_ok() => {
                    self.step(place, owned, Input::SchemaLookedUp);
                    session.member.resume(place)
                }
                Doing::LookingUp(_) | Doing::Stopped => session.member.pause(place),
                Doing::Standing(_)
                | Doing::Ready(_)
                | Doing::Receiving(_)
                | Doing::Delivering(_)
                | Doing::Storing(..) => continue,
            };
            if let Err(error) = outcome {
                tracing::debug!(?place, %error, "cannot pause or resume");
            }
        }
    }
}
