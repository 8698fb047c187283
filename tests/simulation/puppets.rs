//! Moves a world's actors by hand, for cases that are played step by step.

use millrace::log::memory::Place;

use super::bank::{HANDLERS, PROJECTORS, Seat};
use super::world::{Actor, Body, World};

/// An owner that stands still, while somebody else has its seat.
pub(crate) struct Zombie(Actor);

impl World {
    /// Whoever has such a seat is gone at once.
    pub(crate) fn halt(&mut self, is_meant: impl Fn(&Seat) -> bool) {
        let seats = self.shared.bank.seats.clone();
        self.remove(|actor| is_meant(&seats[actor.seat]));
    }

    /// Such a seat has a new owner, and nobody else.
    pub(crate) fn start(&mut self, is_meant: impl Fn(&Seat) -> bool) {
        self.halt(&is_meant);
        for (index, seat) in self.shared.bank.seats.clone().iter().enumerate() {
            if is_meant(seat) {
                self.take_over(index);
            }
        }
    }

    /// Everybody goes on, one step each, until the owner of such a seat stands where it should;
    /// there it is held, and somebody else takes over.
    pub(crate) fn hold(
        &mut self,
        is_meant: impl Fn(&Seat) -> bool,
        is_there: impl Fn(&Body) -> bool,
    ) -> Zombie {
        for _ in 0..10_000 {
            let mut moved = false;
            for index in 0..self.actors.len() {
                let actor = &self.actors[index];
                let seat = actor.seat;
                if is_meant(&self.shared.bank.seats[seat]) && is_there(&actor.body) {
                    let mut actor = self.actors.swap_remove(index);
                    actor.is_member = false;
                    self.take_over(seat);
                    return Zombie(actor);
                }
                if !self.actors[index].is_idle(&self.shared) {
                    moved = true;
                    assert!(self.actors[index].advance(&mut self.shared), "no fault ends anybody");
                }
            }
            if !moved {
                self.shared.now.0 += 50_000;
            }
        }
        panic!("it never stands there");
    }

    /// It goes on where it stood still, for so many steps, and then it is gone.
    pub(crate) fn let_go_on(&mut self, zombie: Zombie, steps: usize) {
        let mut actor = zombie.0;
        for _ in 0..steps {
            if !actor.advance(&mut self.shared) {
                break;
            }
        }
        actor.bury(&mut self.shared, false);
    }

    /// What the handlers' group has committed for a commands partition.
    pub(crate) fn committed(&self, place: Place) -> Option<(i64, String)> {
        self.shared.log.committed_offset(HANDLERS, place).unwrap()
    }

    /// Sets the handlers' offset, as an operator does.
    pub(crate) fn reset(&mut self, place: Place, offset: Option<i64>) {
        self.shared.log.reset_offset(HANDLERS, place, offset);
    }

    /// Sets the projection's offset, as an operator does.
    pub(crate) fn reset_projection(&mut self, place: Place, offset: Option<i64>) {
        self.shared.log.reset_offset(PROJECTORS, place, offset);
    }
}
