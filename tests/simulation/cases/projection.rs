//! Projections whose group is reset, whose database is lost, or who are two at once.

use millrace::domain::banking::account;
use millrace::kernel::stream::Kind;
use millrace::log::memory::Place;
use serde_json::json;

use super::stage::{Stage, own_partition};
use crate::bank::{Role, Seat, place};
use crate::world::Body;

fn projects(seat: &Seat) -> bool {
    seat.role == Role::Projector
}

fn played() -> (Stage, Place) {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    for amount in ["1.00", "2.00", "3.00"] {
        stage.wish("acc-1", &json!({"type": "Deposit", "amount": amount}));
        stage.pass(5);
    }
    (stage, place(account::NAME, Kind::Events, own_partition(account::NAME, "acc-1")))
}

/// Each event is in its row once, and the epoch says whether there was a replay.
fn end(stage: Stage, at: Place, epoch: u32) {
    let stage = stage.end();
    let row = stage.world.shared.store.rows(at)["acc-1"];
    assert_eq!(row.version, 4);
    let held = stage.world.shared.store.held(at).place.unwrap();
    assert_eq!(held.epoch, epoch);
    assert!(held.next_offset > 0);
}

#[test]
fn a_reset_to_the_middle_adds_nothing_twice() {
    let (mut stage, at) = played();
    stage.halt(projects);
    stage.world.reset_projection(at, Some(2));
    stage.start(projects);
    end(stage, at, 1);
}

#[test]
fn a_forward_reset_skips_nothing() {
    let (mut stage, at) = played();
    stage.halt(projects);
    stage.wish("acc-1", &json!({"type": "FreezeAccount"}));
    stage.rest();
    stage.wish("acc-1", &json!({"type": "UnfreezeAccount"}));
    stage.rest();
    let end = stage.world.shared.log.end_offset(at);
    stage.world.reset_projection(at, Some(end));
    stage.start(projects);
    let stage = stage.end();
    assert_eq!(stage.world.shared.store.rows(at)["acc-1"].version, 6);
    assert_eq!(stage.world.shared.store.held(at).place.unwrap().epoch, 0);
}

/// Without a checkpoint it begins at the start, whatever somebody has set.
#[test]
fn a_forward_reset_without_a_checkpoint_skips_nothing() {
    let (mut stage, at) = played();
    stage.halt(projects);
    stage.world.shared.store.wipe(at);
    stage.world.reset_projection(at, Some(3));
    stage.start(projects);
    end(stage, at, 0);
}

#[test]
fn a_lost_database_is_rebuilt() {
    let (mut stage, at) = played();
    stage.world.shared.store.wipe(at);
    stage.rest();
    // The next batch finds that its place is gone.
    stage.wish("acc-1", &json!({"type": "FreezeAccount"}));
    stage.pass(5);
    let stage = stage.end();
    assert_eq!(stage.world.shared.store.rows(at)["acc-1"].version, 5);
}

/// An owner who was slow may not undo what the next one did: the place is compared before it is
/// replaced.
#[test]
fn a_slow_owners_reset_and_batch_come_to_nothing() {
    let (mut stage, at) = played();
    stage.halt(projects);
    stage.world.reset_projection(at, Some(0));
    stage.world.start(projects);
    let zombie = stage.world.hold(
        |seat| projects(seat) && seat.place == at,
        |body| matches!(body, Body::Projector(projects) if projects.is_resetting()),
    );
    stage.rest();
    stage.pass(5);
    stage.world.let_go_on(zombie, 100);
    end(stage, at, 1);
}

/// Two who think that it is theirs: one batch goes in, the other finds another place.
#[test]
fn two_owners_of_a_partition_at_once() {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    let at = place(account::NAME, Kind::Events, own_partition(account::NAME, "acc-1"));
    for amount in ["1.00", "2.00", "3.00"] {
        stage.wish("acc-1", &json!({"type": "Deposit", "amount": amount}));
        stage.world.shared.now.0 += 200_000;
        let zombie = stage.world.hold(
            |seat| projects(seat) && seat.place == at,
            |body| matches!(body, Body::Projector(projects) if projects.is_applying()),
        );
        stage.pass(5);
        stage.world.let_go_on(zombie, 100);
    }
    end(stage, at, 0);
}
