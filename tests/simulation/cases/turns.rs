//! Turns whose transaction nobody knows the end of.

use millrace::domain::banking::{account, transfer};
use millrace::kernel::stream::Kind;
use serde_json::json;

use super::stage::{DAY, Stage, commands_of, handles, is_handler, reacts_to};
use crate::shared::Forced;
use crate::world::Body;

fn deposit_ends_once(forced: Forced) {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    stage.force(commands_of(account::NAME, "acc-1"), forced);
    let id = stage.wish("acc-1", &json!({"type": "Deposit", "amount": "5.00"}));
    stage.rest();
    stage.was_forced();
    assert_eq!(stage.count(account::NAME, "acc-1", "MoneyDeposited"), 1, "{forced:?}");
    assert_eq!(stage.results(id).len(), 1, "{forced:?}");
    stage.end();
}

#[test]
fn a_lost_commit_is_settled_by_its_nonce() {
    deposit_ends_once(Forced::LostDone);
    deposit_ends_once(Forced::LostOpen);
}

/// A broker comes back without the marker beside the group's offset, which stays pending: nobody is
/// told what it is, so the position record alone says where the log stands.
#[test]
fn a_commit_whose_marker_is_lost_with_a_broker() {
    deposit_ends_once(Forced::LostMarker);
}

/// The offset alone says nothing: a tool may have set the very one.
#[test]
fn a_foreign_commit_at_the_batchs_own_offset() {
    deposit_ends_once(Forced::ForeignDone);
    deposit_ends_once(Forced::ForeignOpen);
}

/// Its offset is that of the turn before, so only the nonce tells them apart.
#[test]
fn the_lost_commit_of_a_turn_with_timers_alone() {
    for forced in [Forced::LostDone, Forced::LostOpen, Forced::ForeignDone, Forced::ForeignOpen] {
        let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
        // Nobody asks the receiver, so the saga is woken.
        stage.halt(reacts_to(transfer::NAME, Kind::Events));
        stage.transfer("acc-1", "acc-2");
        stage.rest();
        let saga = stage.streams(transfer::NAME).remove(0);
        assert_eq!(stage.events(transfer::NAME, &saga), ["TransferStarted"]);
        stage.force(commands_of(transfer::NAME, &saga), forced);
        stage.pass(12);
        stage.was_forced();
        let events = stage.events(transfer::NAME, &saga);
        assert_eq!(events, ["TransferStarted", "StepRepeated"], "{forced:?}");
        stage.start(reacts_to(transfer::NAME, Kind::Events));
        let stage = stage.end();
        assert_eq!(stage.count(transfer::NAME, &saga, "TransferCompleted"), 1);
    }
}

/// Else the first lost commit behind it could not be told from nothing.
#[test]
fn a_blank_or_missing_commit_is_stamped_before_the_first_turn() {
    for offset in [None, Some(0), Some(2)] {
        let mut stage = Stage::with_accounts(&["acc-1"]);
        let place = commands_of(account::NAME, "acc-1");
        let before = stage.world.committed(place).unwrap();
        stage.halt(is_handler);
        stage.world.reset(place, offset);
        stage.start(is_handler);
        let stamped = stage.world.committed(place).unwrap();
        assert_eq!(stamped.0, before.0, "the position goes nowhere");
        assert_ne!(stamped.1, before.1, "another turn has written it");
        stage.force(place, Forced::LostDone);
        stage.wish("acc-1", &json!({"type": "Deposit", "amount": "5.00"}));
        stage.rest();
        stage.was_forced();
        assert_eq!(stage.count(account::NAME, "acc-1", "MoneyDeposited"), 1);
        stage.end();
    }
}

/// Whoever is fenced off goes on for a while: what it writes comes to nothing.
#[test]
fn a_fenced_handler_that_goes_on() {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    let place = commands_of(account::NAME, "acc-1");
    let id = stage.wish("acc-1", &json!({"type": "Deposit", "amount": "5.00"}));
    // In the middle of its transaction another owner takes over.
    let zombie = stage.world.hold(
        |seat| is_handler(seat) && seat.place == place,
        |body| matches!(body, Body::Handler(lane) if lane.is_writing()),
    );
    // It would go on before the other has fenced it off, and after that.
    stage.rest();
    assert_eq!(stage.results(id).len(), 1);
    stage.world.let_go_on(zombie, 100);
    stage.rest();
    assert_eq!(stage.results(id).len(), 1);
    assert_eq!(stage.count(account::NAME, "acc-1", "MoneyDeposited"), 1);
    stage.end();
}

/// A repeat of yesterday's, sent within the hour, and read by a handler that was away for a day:
/// the window ends where the log is read, not where the clock stands.
#[test]
fn a_repeat_that_waits_behind_a_dead_handler_is_a_repeat() {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    let id = stage.wish("acc-1", &json!({"type": "Deposit", "amount": "5"}));
    stage.rest();
    stage.halt(handles(account::NAME));
    stage.pass(3_600);
    stage.wish_again(id, "acc-1", &json!({"type": "Deposit", "amount": "5"}));
    stage.pass(DAY + 3 * 3_600);
    stage.start(handles(account::NAME));
    stage.rest();
    let answers = stage.results(id);
    let duplicates: Vec<bool> = answers.iter().map(|answer| answer.duplicate).collect();
    assert_eq!(duplicates, [false, true]);
    assert_eq!(stage.count(account::NAME, "acc-1", "MoneyDeposited"), 1);
    stage.end();
}
