//! Process managers over a bag of messages: whatever is delayed, reordered, repeated, lost or
//! broken, money is conserved, nothing is both received and reversed, nobody has six open accounts,
//! and everything ends.
//!
//! It asks more of the rules than `tests/simulation` does: there a partition keeps its order and
//! loses nothing, here messages overtake each other anywhere, and results are lost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

mod world;

use world::World;

#[test]
fn every_transfer_ends_and_nobody_has_a_sixth_account() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        world.open_accounts();
        for _ in 0..400 {
            world.step();
            world.check();
        }
        world.settle();
        world.check_ended();
    }
}
