//! Commands that cross partitions: sent again, sent late, sent by the dead.

use millrace::domain::banking::{account, account_opening, customer, transfer};
use millrace::kernel::stream::Kind;
use serde_json::json;

use super::stage::{DAY, Stage, commands_of, is_handler, own_partition, reacts_to};
use crate::shared::{Forced, Planted};
use crate::world::Body;

/// How many events and results there are.
fn size(stage: &Stage) -> [usize; 3] {
    let mut size = crate::judge::counts(&stage.world);
    size[0] = 0; // The repeats are commands.
    size
}

/// Everything that was ever sent on comes again a day later, when no command id is remembered.
fn all_comes_again_after_the_window(stage: &mut Stage) {
    stage.pass(DAY + 2 * 3_600);
    stage.halt(is_handler);
    stage.start(is_handler);
    let before = size(stage);
    let repeats = stage.sent_on();
    assert!(!repeats.is_empty());
    for (place, record) in repeats {
        stage.world.shared.append(place, &record);
    }
    stage.rest();
    assert_eq!(size(stage), before, "a repeat was taken for a command");
}

#[test]
fn a_repeat_after_the_window_from_a_dead_re_router() {
    a_dead_re_router(Stage::new());
}

/// Nothing else stands in its way.
#[test]
#[should_panic(expected = "a repeat was taken for a command")]
fn origins_alone_keep_a_dead_re_routers_repeat_out() {
    a_dead_re_router(Stage::planted(Some(Planted::Origins)));
}

fn a_dead_re_router(mut stage: Stage) {
    stage.open_all(&["acc-1"]);
    let elsewhere = (own_partition(account::NAME, "acc-1") + 1) % 3;
    let body = json!({"type": "Deposit", "amount": "5.00"});
    let id = stage.wish_at(elsewhere, "acc-1", &body);
    stage.rest();
    assert_eq!(stage.results(id).len(), 1);
    all_comes_again_after_the_window(&mut stage);
    assert_eq!(stage.count(account::NAME, "acc-1", "MoneyDeposited"), 1);
    stage.end();
}

#[test]
fn a_repeat_after_the_window_of_everything_that_reactors_sent() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.transfer("acc-1", "acc-2");
    stage.transfer("acc-2", "nobody");
    stage.pass(60);
    for aggregate in [transfer::NAME, account_opening::NAME, customer::NAME] {
        assert_ne!(stage.streams(aggregate), Vec::<String>::new());
    }
    all_comes_again_after_the_window(&mut stage);
    stage.end();
}

/// It stood still in the middle of a delivery, and wakes when nobody remembers its commands.
#[test]
fn a_repeat_after_the_window_from_a_zombie_reactor() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.transfer("acc-1", "acc-2");
    let zombie = stage.world.hold(
        reacts_to(account::NAME, Kind::Events),
        |body| matches!(body, Body::Reactor(reacts) if reacts.is_sending()),
    );
    stage.pass(60);
    assert_eq!(stage.count(account::NAME, "acc-2", "MoneyReceived"), 1);
    stage.pass(DAY + 2 * 3_600);
    stage.halt(is_handler);
    stage.start(is_handler);
    let before = size(&stage);
    stage.world.let_go_on(zombie, 100);
    stage.rest();
    assert_eq!(size(&stage), before, "a zombie's repeat was taken for a command");
    stage.end();
}

/// The first was taken; then a new producer sends everything again, in order.
#[test]
fn a_delivery_that_fails_between_two_sends() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    let elsewhere = (own_partition(account::NAME, "acc-1") + 1) % 3;
    let ids = ["1.00", "2.00", "3.00"].map(|amount| {
        let body = json!({"type": "Deposit", "amount": amount});
        stage.wish_at(elsewhere, "acc-1", &body)
    });
    let place = crate::bank::place(account::NAME, Kind::Commands, elsewhere);
    stage.world.shared.batch_max = Some(10);
    stage.halt(|seat| seat.place == place);
    stage.force(place, Forced::Delivery(1));
    stage.force(place, Forced::Delivery(2));
    stage.start(|seat| seat.place == place);
    stage.was_forced();
    let versions = ids.map(|id| match &stage.results(id)[..] {
        [result] => result.version,
        other => panic!("{other:?}"),
    });
    assert_eq!(versions, [2, 3, 4], "each once, in the client's order");
    stage.end();
}

/// As above, but where a reactor tells two sagas.
#[test]
fn a_reactors_delivery_that_fails_between_two_sends() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    let is_meant = reacts_to(account::NAME, Kind::Events);
    stage.halt(&is_meant);
    for _ in 0..3 {
        stage.transfer("acc-1", "acc-2");
    }
    stage.rest();
    let place = crate::bank::place(
        account::NAME,
        Kind::Events,
        commands_of(account::NAME, "acc-1").partition,
    );
    stage.force(place, Forced::Delivery(1));
    stage.start(&is_meant);
    stage.was_forced();
    stage.pass(60);
    assert_eq!(stage.streams(transfer::NAME).len(), 3);
    assert_eq!(stage.count(account::NAME, "acc-2", "MoneyReceived"), 3);
    stage.end();
}
