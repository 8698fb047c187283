//! A world: actors that hold the seats of their groups, come and go, and take one step at a time.

use std::sync::Arc;

use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;
use millrace::log::memory::Place;
use rand::RngExt;

use super::bank::{AGGREGATES, Bank, POSITIONS, Role};
use super::lane::Lane;
use super::operator::Operator;
use super::projecting::Projects;
use super::reacting::Reacts;
use super::shared::{Faults, Planted, Shared};

const DAY_SECONDS: i64 = 24 * 60 * 60;

pub(crate) struct Actor {
    /// Which seat it holds, or held.
    pub(crate) seat: usize,
    /// Whether the group still counts it in. One that it does not is a zombie.
    pub(crate) is_member: bool,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Handler(Box<Lane>),
    Reactor(Box<Reacts>),
    Projector(Box<Projects>),
}

impl Actor {
    pub(crate) fn is_idle(&self, shared: &Shared) -> bool {
        match &self.body {
            Body::Handler(lane) => lane.is_idle(shared),
            Body::Reactor(reacts) => reacts.is_idle(shared),
            Body::Projector(projects) => projects.is_idle(shared),
        }
    }

    fn wakes_at(&self) -> Option<Timestamp> {
        match &self.body {
            Body::Handler(lane) => lane.wakes_at(),
            Body::Reactor(reacts) => reacts.wakes_at(),
            Body::Projector(projects) => projects.wakes_at(),
        }
    }

    pub(crate) fn advance(&mut self, shared: &mut Shared) -> bool {
        match &mut self.body {
            Body::Handler(lane) => lane.advance(shared, self.is_member),
            Body::Reactor(reacts) => reacts.advance(shared, self.is_member),
            Body::Projector(projects) => projects.advance(shared, self.is_member),
        }
    }

    pub(crate) fn bury(self, shared: &mut Shared, was_asked: bool) {
        match self.body {
            Body::Handler(lane) => lane.bury(shared),
            Body::Reactor(reacts) => reacts.bury(shared, was_asked),
            Body::Projector(_) => {}
        }
    }
}

pub(crate) struct World {
    pub(crate) shared: Shared,
    pub(crate) actors: Vec<Actor>,
    operator: Operator,
}

impl World {
    pub(crate) fn new(seed: u64, bank: Arc<Bank>, faults: Faults, bug: Option<Planted>) -> Self {
        let seats = bank.seats.len();
        let mut shared = Shared::new(seed, bank, faults);
        shared.planted = bug;
        let mut world = Self { shared, actors: Vec::new(), operator: Operator::default() };
        (0..seats).for_each(|seat| world.take_over(seat));
        world
    }

    /// Gives a seat to a new owner. The old one is not told.
    pub(crate) fn take_over(&mut self, seat: usize) {
        for actor in self.actors.iter_mut().filter(|actor| actor.seat == seat) {
            actor.is_member = false;
        }
        let found = self.shared.bank.seats[seat];
        let body = match found.role {
            Role::Handler => Body::Handler(Box::new(Lane::new(&mut self.shared, found))),
            Role::Projector => Body::Projector(Box::new(Projects::new(&mut self.shared, found))),
            Role::Reactor(index) => {
                Body::Reactor(Box::new(Reacts::new(&self.shared, found, index)))
            }
        };
        self.actors.push(Actor { seat, is_member: true, body });
    }

    /// Lets something happen: a fault, a late delivery, or one step of one actor.
    pub(crate) fn step(&mut self) {
        self.disturb();
        let Some(index) = self.pick() else {
            self.shared.now.0 += 10_000;
            return;
        };
        if self.shared.one_in(self.shared.faults.crash) {
            self.crash(index);
            return;
        }
        let mut actor = self.actors.swap_remove(index);
        let zombie_ends = !actor.is_member && self.shared.one_in(30);
        if zombie_ends || !actor.advance(&mut self.shared) {
            let was_asked = self.shared.one_in(2);
            let (seat, was_member) = (actor.seat, actor.is_member);
            actor.bury(&mut self.shared, was_asked);
            if was_member {
                self.shared.tally.crashes += 1;
                self.take_over(seat);
            }
        } else {
            self.actors.push(actor);
        }
    }

    /// Somebody who has something to do, if a few tries find one.
    fn pick(&mut self) -> Option<usize> {
        (0..6).find_map(|_| {
            let index = self.shared.rng.random_range(0..self.actors.len());
            let is_idle = self.actors[index].is_idle(&self.shared);
            (!is_idle).then_some(index)
        })
    }

    fn disturb(&mut self) {
        let shared = &mut self.shared;
        let seat = shared.rng.random_range(0..shared.bank.seats.len());
        if shared.one_in(shared.faults.reset) {
            shared.tally.resets += 1;
            let found = shared.bank.seats[seat];
            let offset = shared.rng.random_range(0..200);
            let offset = shared.one_in(2).then_some(offset);
            shared.log.reset_offset(found.group, found.place, offset);
        }
        if shared.one_in(shared.faults.late) {
            shared.arrive_late();
        }
        if shared.one_in(shared.faults.pause) {
            let seconds = shared.rng.random_range(1..15);
            shared.now = shared.now.plus_seconds(seconds);
        }
        if shared.one_in(shared.faults.long_pause) {
            shared.tally.days += 1;
            let days = if shared.one_in(4) { 8 } else { 1 };
            let more = shared.rng.random_range(0..7_200);
            shared.now = shared.now.plus_seconds(days * DAY_SECONDS + more);
        }
        if shared.one_in(shared.faults.wipe) {
            let found = shared.bank.seats[seat];
            shared.store.wipe(found.place);
        }
        if shared.one_in(shared.faults.compaction) {
            compact(shared);
        }
        if shared.one_in(shared.faults.takeover) {
            shared.tally.takeovers += 1;
            self.take_over(seat);
        }
    }

    fn crash(&mut self, index: usize) {
        self.shared.tally.crashes += 1;
        let actor = self.actors.swap_remove(index);
        let (seat, was_member) = (actor.seat, actor.is_member);
        actor.bury(&mut self.shared, false);
        if was_member {
            self.take_over(seat);
        }
    }

    /// The faults are over: what is under way arrives, zombies end, time passes, and an operator
    /// sends again what broke and resumes what is parked, until everything has ended.
    pub(crate) fn settle(&mut self) {
        self.shared.be_calm();
        while self.shared.arrive_late() {}
        self.remove(|actor| !actor.is_member);
        // A dead owner's old position may just have come in. Only whoever starts there sends
        // again what came since, and stores a newer one.
        self.restart(|role| role != Role::Handler);
        for _ in 0..3_000 {
            self.come_to_rest();
            if let Some(at) = self.actors.iter().filter_map(Actor::wakes_at).min() {
                // A little late, so that what is due at nearly the same time is done at once.
                self.shared.now = self.shared.now.max(Timestamp(at.0 + 20_000));
            } else if !self.operator.repair(&mut self.shared)
                && !self.operator.resume_parked(&mut self.shared)
            {
                return;
            }
        }
        let parked = self.operator.parked(&self.shared);
        panic!("after a long calm there is still something under way; parked: {parked:?}");
    }

    /// Goes on until nobody has anything to do at this moment.
    pub(crate) fn come_to_rest(&mut self) {
        for _ in 0..1_000_000 {
            let mut moved = false;
            for actor in &mut self.actors {
                if !actor.is_idle(&self.shared) {
                    moved = true;
                    assert!(actor.advance(&mut self.shared), "an owner stopped without a fault");
                }
            }
            if !moved {
                return;
            }
        }
        panic!("the actors never come to rest");
    }

    /// Ends actors. What they were about to send never arrives.
    pub(crate) fn remove(&mut self, is_meant: impl Fn(&Actor) -> bool) {
        for index in (0..self.actors.len()).rev() {
            if is_meant(&self.actors[index]) {
                let actor = self.actors.swap_remove(index);
                if let Body::Handler(lane) = &actor.body {
                    lane.leave(&mut self.shared);
                }
            }
        }
    }

    /// Everybody with such a role goes and comes back.
    fn restart(&mut self, is_meant: impl Fn(Role) -> bool) {
        let seats = self.shared.bank.seats.clone();
        self.remove(|actor| is_meant(seats[actor.seat].role));
        for (seat, found) in seats.iter().enumerate() {
            if is_meant(found.role) {
                self.take_over(seat);
            }
        }
    }

    /// Everybody goes and comes back, and all offsets are set to the start meanwhile, or removed.
    pub(crate) fn reset_all(&mut self, offset: Option<i64>) {
        for seat in self.shared.bank.seats.clone() {
            self.shared.log.reset_offset(seat.group, seat.place, offset);
        }
        self.restart(|_| true);
    }
}

/// Kafka removes what was replaced, some day, from the topics that are compacted.
fn compact(shared: &mut Shared) {
    let (aggregate, count) = AGGREGATES[shared.rng.random_range(0..AGGREGATES.len())];
    for partition in 0..count {
        for kind in [Kind::Snapshots, Kind::Timers] {
            shared.log.compact(Place { aggregate, kind, partition });
        }
    }
    shared.log.compact(POSITIONS);
}
