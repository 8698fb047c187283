//! Reads the whole log afterwards, in the order in which it became visible, and finds what must
//! not be. It folds with nothing of the deciders' own.

mod answers;
mod money;
mod rows;
mod sagas;
mod story;

use super::clients::Clients;
use super::shared::Tally;
use super::world::World;
use story::Story;

/// What happened in a world, so that a test can see that something did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) refusals: u64,
    pub(crate) moved: u64,
    pub(crate) transfers: u64,
    pub(crate) reversed: u64,
    pub(crate) openings: u64,
    pub(crate) repeated_steps: u64,
    pub(crate) parked: u64,
    /// Starts with a disk that held answers.
    pub(crate) warm_starts: u64,
    pub(crate) tally: Tally,
}

impl Verdict {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.refusals += other.refusals;
        self.moved += other.moved;
        self.transfers += other.transfers;
        self.reversed += other.reversed;
        self.openings += other.openings;
        self.repeated_steps += other.repeated_steps;
        self.parked += other.parked;
        self.warm_starts += other.warm_starts;
        self.tally.add(&other.tally);
    }
}

/// Judges what the log says without asking clients.
pub(crate) fn judge_log(world: &World) {
    let story = Story::read(&world.shared);
    story.streams_are_dense();
    money::judge(&story);
    sagas::judge(&story, &mut Verdict::default());
    rows::judge(&world.shared);
}

/// How many commands, events and results there are.
pub(crate) fn counts(world: &World) -> [usize; 3] {
    Story::counts(&world.shared)
}

pub(crate) fn judge(world: &World, clients: &Clients) -> Verdict {
    let mut verdict = Verdict { tally: world.shared.tally, ..Verdict::default() };
    let story = Story::read(&world.shared);
    verdict.events = story.events.len() as u64;
    verdict.moved = story.moved;
    verdict.warm_starts = world.shared.warm_starts();
    story.streams_are_dense();
    answers::judge(&story, clients, &mut verdict);
    money::judge(&story);
    sagas::judge(&story, &mut verdict);
    rows::judge(&world.shared);
    verdict
}

/// A reset of any group, at a time when everything is done, leads to no command, event or result.
pub(crate) fn nothing_follows_from_a_reset(world: &mut World) {
    let before = Story::counts(&world.shared);
    let offset = world.shared.one_in(2).then_some(0);
    world.reset_all(offset);
    world.settle();
    assert_eq!(Story::counts(&world.shared), before, "a reset to {offset:?} led to something");
    rows::judge(&world.shared);
}
