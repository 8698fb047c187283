//! The command handlers of one domain in this process: one consumer, a thread for each partition.
//!
//! ```text
//! poll thread: consumer -> bounded channel -> lane (a thread) -> transaction
//!      ^------- where to start reading ---------'
//! ```
//!
//! Guarantees: a partition's lane is quiet before the partition is given back; a lane reads only
//! from where its position record says. Backpressure: the poll thread waits for a full lane as long
//! as the lane makes progress; a lane that stands still has its partition paused, so that it delays
//! nobody else.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::lane::{FromLane, Membership, SchemaLookUp, Shared, ToLane};
use super::lane_handle::{LaneHandle, Offer};
use super::lane_status::LaneStatus;
use super::plan::Plan;
use crate::config::Config;
use crate::engine::protocol::{Handler, Settings};
use crate::engine::shelf::Shelf;
use crate::kernel::message::Record;
use crate::kernel::stream::AggregateName;
use crate::log::kafka::Error;
use crate::log::kafka::group::{self, Member, Place, Rebalance, Witness};
use crate::log::kafka::reader::ReaderPool;
use crossbeam_channel::{Receiver, bounded};

const POLL: Duration = Duration::from_millis(50);
/// How long a consumer that broke for good is left alone before a new one takes its place.
const REJOIN_PAUSE: Duration = Duration::from_secs(1);
/// A static member that is fenced off this soon after it joined has a namesake; later, it may be
/// a broker's crash that did it.
const NAMESAKE_WITHIN: Duration = Duration::from_secs(30);
/// How many partitions are restored at a time.
const RESTORES_MAX: usize = 4;

/// Makes the handler of one partition.
pub type MakeHandler = Arc<dyn Fn(Settings, Box<dyn Shelf>) -> Box<dyn Handler> + Send + Sync>;

/// One kind of aggregate in a group.
#[derive(Clone)]
pub struct Aggregate {
    /// What it is called.
    pub name: AggregateName,
    /// Whether it has a timers topic.
    pub has_timers: bool,
    /// Makes its handlers.
    pub make: MakeHandler,
}

/// The running handlers of a domain.
pub struct HandlerGroup {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    lanes: Arc<Lanes>,
}

impl HandlerGroup {
    /// Joins the group and starts handling.
    ///
    /// # Errors
    /// No broker answers, or a topic is missing or not as it must be.
    pub fn start(
        config: &Config,
        domain: &str,
        aggregates: Vec<Aggregate>,
        look_up: SchemaLookUp,
    ) -> Result<Self, Error> {
        let group = config.namespace.dotted(&format!("millrace.handler.{domain}"));
        let witness = Witness::open(&config.kafka, &group)?;
        let plan = Plan::make(config, &group, &aggregates, &witness)?;
        let stop = Arc::new(AtomicBool::new(false));
        let lanes = Arc::new(Lanes::default());
        let poller = Poller {
            config: config.clone(),
            plan,
            witness: Arc::new(Mutex::new(witness)),
            readers: Arc::new(ReaderPool::new(&config.kafka, RESTORES_MAX)),
            look_up,
            stop: Arc::clone(&stop),
            lanes: Arc::clone(&lanes),
        };
        let thread = std::thread::Builder::new()
            .name(format!("handler-{domain}"))
            .spawn(move || poller.run())
            .map_err(|error| Error::Unexpected(format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, thread: Some(thread), lanes })
    }

    /// How each partition that is ours fares.
    #[must_use]
    pub fn status(&self) -> Vec<LaneStatus> {
        self.lanes.status()
    }

    /// Whether the group has given this process its partitions, which may be none.
    #[must_use]
    pub fn has_joined(&self) -> bool {
        self.lanes.has_joined.load(Ordering::Acquire)
    }

    /// Whether it was thrown out of the group, and is to join again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lanes.is_lost.load(Ordering::Acquire)
    }

    /// Why it has left for good, if it has, although nobody asked it to.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.lanes.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to finish the transactions in hand and leave the group.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it has left.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for HandlerGroup {
    fn drop(&mut self) {
        self.request_stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a handler's poll thread broke");
        }
    }
}

#[derive(Default)]
struct Lanes {
    running: Mutex<HashMap<Place, LaneHandle>>,
    /// Partitions that were given to us and have no lane yet.
    assigned: Mutex<Vec<Place>>,
    /// Taken by a lane while it asks for the group's metadata, and by a rebalance while it marks
    /// lanes as stopping: whoever is marked gets no metadata of the next generation.
    generation: RwLock<()>,
    /// Whether a first assignment has come.
    has_joined: AtomicBool,
    /// Whether the group has given our partitions away since then.
    is_lost: AtomicBool,
    /// Why there will be no lanes any more.
    failure: Mutex<Option<String>>,
}

impl Lanes {
    fn status(&self) -> Vec<LaneStatus> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = running
            .values()
            .map(|lane| lane.status.lock().unwrap_or_else(PoisonError::into_inner).clone())
            .collect();
        all.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        all
    }

    /// Stops lanes and waits until each has finished what it had in hand.
    fn stop(&self, which: impl Fn(&Place) -> bool) {
        let mut stopping = Vec::new();
        {
            let _generation = self.generation.write().unwrap_or_else(PoisonError::into_inner);
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let keys: Vec<_> = running.keys().filter(|key| which(key)).cloned().collect();
            for key in keys {
                if let Some(lane) = running.remove(&key) {
                    lane.stop.store(true, Ordering::Release);
                    // If there is no room, it is not waiting.
                    let _ = lane.to_lane.try_send(ToLane::Stop);
                    stopping.push((key, lane.thread));
                }
            }
        }
        for ((topic, partition), thread) in stopping {
            if thread.join().is_err() {
                tracing::error!(topic, partition, "a lane broke");
            }
        }
    }
}

/// Takes part in rebalances.
struct Rebalancer(Arc<Lanes>);

impl Rebalance for Rebalancer {
    fn assigned(&self, places: Vec<Place>) {
        self.0.has_joined.store(true, Ordering::Release);
        self.0.is_lost.store(false, Ordering::Release);
        self.0.assigned.lock().unwrap_or_else(PoisonError::into_inner).extend(places);
    }

    fn revoked(&self, places: &[Place], lost: bool) {
        if lost {
            self.0.has_joined.store(false, Ordering::Release);
            self.0.is_lost.store(true, Ordering::Release);
        }
        let assigned = &self.0.assigned;
        assigned
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|place| !places.contains(place));
        self.0.stop(|place| places.contains(place));
    }
}

struct Poller {
    config: Config,
    plan: Plan,
    witness: Arc<Mutex<Witness>>,
    readers: Arc<ReaderPool>,
    look_up: SchemaLookUp,
    stop: Arc<AtomicBool>,
    lanes: Arc<Lanes>,
}

/// One membership of the group.
struct Session {
    member: Arc<Member<Rebalancer>>,
    shared: Shared,
    from_lanes: Receiver<FromLane>,
    /// Lanes whose wish could not be carried out yet.
    wishes: Vec<FromLane>,
    joined_at: Instant,
}

impl Poller {
    fn run(self) {
        while !self.stop.load(Ordering::Acquire) {
            match self.join() {
                Ok(session) => self.poll(session),
                Err(error) => tracing::error!(%error, "cannot join the group; trying again"),
            }
            if !self.stop.load(Ordering::Acquire) {
                std::thread::sleep(REJOIN_PAUSE);
            }
        }
    }

    fn join(&self) -> Result<Session, Error> {
        let topics: Vec<&str> = self.plan.aggregates.keys().map(String::as_str).collect();
        let rebalancer = Rebalancer(Arc::clone(&self.lanes));
        let name = self.config.handler.instance_id.as_deref();
        let Poller { config, plan, .. } = self;
        let member = Member::join(&config.kafka, &plan.group, name, &topics, rebalancer)?;
        let member = Arc::new(member);
        let (to_poller, from_lanes) = bounded(1_024);
        let shared = Shared {
            kafka: self.config.kafka.clone(),
            readers: Arc::clone(&self.readers),
            witness: Arc::clone(&self.witness),
            membership: membership(&member, &self.lanes),
            look_up: Arc::clone(&self.look_up),
            state_dir: self.config.handler.state_dir().into(),
            to_poller,
        };
        let joined_at = Instant::now();
        Ok(Session { member, shared, from_lanes, wishes: Vec::new(), joined_at })
    }

    /// Polls until it is to stop, or the client broke for good.
    fn poll(&self, mut session: Session) {
        // Kept, since most records come from the topic that the one before came from.
        let mut place = Place::default();
        while !self.stop.load(Ordering::Acquire) {
            if session.member.is_left_outside() {
                tracing::warn!(group = %self.plan.group, "still outside the group; joining anew");
                break;
            }
            let mut handed = self.start_lanes(&session);
            session.start_reading(&self.lanes);
            handed = handed.and_then(|()| session.resume_paused(&self.lanes));
            let polled = session.member.poll(POLL, |topic, partition, record| {
                topic.clone_into(&mut place.0);
                place.1 = partition;
                if handed.is_ok() {
                    handed = session.hand_over(&self.lanes, &place, record, &self.stop);
                }
            });
            if let Err(reason) = handed {
                // What was not handed over is read again.
                tracing::error!(reason, "joining anew");
                break;
            }
            if let Err(error) = polled {
                tracing::warn!(group = %self.plan.group, %error, "consumer error");
                if let Some(reason) = session.member.is_broken() {
                    if session.member.is_replaced() && session.joined_at.elapsed() < NAMESAKE_WITHIN
                    {
                        self.give_way();
                    } else {
                        tracing::error!(reason, "the consumer broke; joining anew");
                    }
                    break;
                }
                if group::ends_reading(&error) {
                    tracing::error!("a partition is not read on; joining anew");
                    break;
                }
            }
        }
        self.lanes.has_joined.store(false, Ordering::Release);
        self.lanes.stop(|_| true);
        // Dropping the consumer leaves the group; the others take over at once.
    }

    /// Leaves for good: two processes under one name would throw each other out for ever.
    fn give_way(&self) {
        let name = self.config.handler.instance_id.as_deref().unwrap_or_default();
        let group = &self.plan.group;
        let reason = format!(
            "another process is a member of {group} as {name:?}: give each process a \
             MILLRACE_HANDLER_INSTANCE_ID of its own, or none"
        );
        tracing::error!(reason, "leaving the group");
        *self.lanes.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        self.stop.store(true, Ordering::Release);
    }

    fn start_lanes(&self, session: &Session) -> Result<(), String> {
        let assigned = std::mem::take(
            &mut *self.lanes.assigned.lock().unwrap_or_else(PoisonError::into_inner),
        );
        for (topic, partition) in assigned {
            let Some(plan) = self.plan.aggregates.get(&topic) else { continue };
            let handle = LaneHandle::start(plan, &self.plan.group, partition, &session.shared)
                .map_err(|error| format!("{topic} partition {partition}: no thread: {error}"))?;
            let mut running = self.lanes.running.lock().unwrap_or_else(PoisonError::into_inner);
            running.insert((topic, partition), handle);
        }
        Ok(())
    }
}

fn membership(member: &Arc<Member<Rebalancer>>, lanes: &Arc<Lanes>) -> Membership {
    // Weak: lanes must not keep a member alive that is to leave the group.
    let member: Weak<_> = Arc::downgrade(member);
    let lanes = Arc::clone(lanes);
    Arc::new(move |stop| {
        let _generation = lanes.generation.read().unwrap_or_else(PoisonError::into_inner);
        if stop.load(Ordering::Acquire) {
            return None;
        }
        member.upgrade()?.metadata()
    })
}

impl Session {
    /// Carries out where lanes want their commands read from.
    fn start_reading(&mut self, lanes: &Lanes) {
        self.wishes.extend(self.from_lanes.try_iter());
        let member = &self.member;
        self.wishes.retain(|wish| {
            let mut running = lanes.running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(lane) = running.get_mut(&wish.place) else { return false };
            // It will be read again, in its place.
            if let Some(held) = lane.held.take() {
                tracing::debug!(place = ?wish.place, offset = held.offset, "read again");
            }
            match member.start_reading(&wish.place, wish.next_offset) {
                Ok(()) => lane.to_lane.try_send(ToLane::Started).is_err(),
                Err(error) => {
                    tracing::debug!(place = ?wish.place, %error, "cannot seek yet");
                    true
                }
            }
        });
    }

    /// Reads on for lanes that have room again.
    fn resume_paused(&self, lanes: &Lanes) -> Result<(), String> {
        let mut running = lanes.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, lane) in running.iter_mut().filter(|(_, lane)| lane.held.is_some()) {
            if lane.has_room() {
                lane.take_held();
                let resumed = self.member.resume(place);
                resumed.map_err(|error| format!("cannot read {place:?} on: {error}"))?;
            }
        }
        Ok(())
    }

    /// Gives a command to its lane; one that takes none has its partition paused.
    fn hand_over(
        &self,
        lanes: &Lanes,
        place: &Place,
        record: Record,
        stop: &AtomicBool,
    ) -> Result<(), String> {
        let mut running = lanes.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lane) = running.get_mut(place) else { return Ok(()) };
        match lane.offer(record, stop) {
            Offer::Taken => return Ok(()),
            Offer::Full(record) => lane.held = Some(record),
            // Whoever owns the partition next reads it again.
            Offer::Ended => {}
        }
        self.member.pause(place).map_err(|error| format!("cannot pause {place:?}: {error}"))
    }
}
