//! What the sagas' rules stand against.

use millrace::domain::banking::{account, account_opening, customer, transfer};
use millrace::kernel::reactor::step_id;
use millrace::kernel::result::Outcome;
use millrace::kernel::stream::Kind;
use serde_json::json;

use super::stage::{DAY, Stage, commands_of, handles, reacts_to};
use crate::operator::Operator;

fn outcomes(stage: &Stage, saga: &str, step: &str) -> Vec<(Outcome, bool)> {
    let results = stage.results(step_id(saga, step));
    results.iter().map(|result| (result.outcome, result.duplicate)).collect()
}

/// A failure is not remembered: the same command id may be accepted later, and only then it counts.
#[test]
fn a_failed_step_that_is_accepted_later() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    stage.halt(handles(transfer::NAME));
    stage.world.shared.mood.set(1, 0);
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    assert_eq!(outcomes(&stage, &saga, "RECEIVE"), [(Outcome::Failed, false)]);
    stage.world.shared.mood.set(0, 0);
    stage.start(handles(transfer::NAME));
    assert_eq!(stage.events(transfer::NAME, &saga), ["TransferStarted", "StepFailed"]);
    stage.pass(2);
    let expected = [(Outcome::Failed, false), (Outcome::Accepted, false)];
    assert_eq!(outcomes(&stage, &saga, "RECEIVE"), expected);
    assert_eq!(stage.count(account::NAME, "acc-2", "MoneyReceived"), 1);
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferCompleted"), 1);
    stage.end();
}

/// Nobody reads the sagas' own results, and the origin is taken: only an operator's repeat is one.
#[test]
fn a_start_that_broke_is_sent_again_by_an_operator() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.world.shared.mood.set(1, 0);
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    stage.world.shared.mood.set(0, 0);
    // It is not made good by a reactor's repeat, nor by time.
    let (place, start) = stage.sent_on().pop().unwrap();
    assert_eq!(place.aggregate, transfer::NAME);
    stage.world.shared.append(place, &start);
    stage.pass(DAY);
    assert_eq!(stage.streams(transfer::NAME), Vec::<String>::new());
    let mut operator = Operator::default();
    assert!(operator.repair(&mut stage.world.shared));
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferCompleted"), 1);
    assert!(!operator.repair(&mut stage.world.shared), "there is nothing left to be done");
    stage.end();
}

/// The opening has ended and has no timer: without the news the slot would be taken for ever.
#[test]
fn news_of_a_closing_that_broke_is_sent_again_by_an_operator() {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    let saga = stage.streams(account_opening::NAME).remove(0);
    stage.world.shared.mood.set(1, 0);
    stage.wish("acc-1", &json!({"type": "Withdraw", "amount": "1000.00"}));
    stage.wish("acc-1", &json!({"type": "CloseAccount"}));
    stage.rest();
    stage.world.shared.mood.set(0, 0);
    stage.pass(DAY);
    assert_eq!(stage.events(account_opening::NAME, &saga).pop().unwrap(), "OpeningEnded");
    assert_eq!(stage.count(account::NAME, "acc-1", "AccountClosed"), 1);
    assert_eq!(stage.count(customer::NAME, "user-1", "SlotFreed"), 0);
    let stage = stage.end();
    assert_eq!(stage.count(customer::NAME, "user-1", "SlotFreed"), 1);
}

/// Every repeat is answered with the same yes, which may also have been the customer's no.
#[test]
fn a_slot_of_which_the_news_is_lost_is_found_in_the_customers_stream() {
    let mut stage = Stage::new();
    stage.halt(reacts_to(customer::NAME, Kind::Events));
    stage.open("acc-1", "user-1");
    stage.rest();
    let saga = stage.streams(account_opening::NAME).remove(0);
    for _ in 0..20 {
        stage.pass(12);
    }
    assert_eq!(stage.count(customer::NAME, "user-1", "SlotReserved"), 1);
    assert_eq!(stage.events(account_opening::NAME, &saga).pop().unwrap(), "OpeningParked");
    Operator::default().resume_parked(&mut stage.world.shared);
    stage.rest();
    assert_eq!(stage.count(account::NAME, "acc-1", "AccountCreated"), 1);
    stage.start(reacts_to(customer::NAME, Kind::Events));
    stage.end();
}

/// Asked again when nobody remembers the command, the sender only knows that it is not open.
#[test]
fn a_reversal_of_which_the_news_is_lost_is_found_in_the_senders_stream() {
    let mut stage = Stage::with_accounts(&["acc-1"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "nobody");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    stage.halt(reacts_to(account::NAME, Kind::Events));
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    assert_eq!(stage.count(account::NAME, "acc-1", "TransferReversed"), 1);
    stage.halt(handles(transfer::NAME));
    stage.halt(handles(account::NAME));
    stage.pass(DAY + 2 * 3_600);
    stage.start(handles(account::NAME));
    // The window ends where the last command was appended: one has to come for it to move on.
    stage.wish("acc-1", &json!({"type": "Deposit", "amount": "5"}));
    stage.rest();
    stage.start(handles(transfer::NAME));
    let code = stage.results(step_id(&saga, "REVERSE")).pop().unwrap().code;
    assert_eq!(code.as_deref(), Some("TransferNotOpen"));
    assert_eq!(stage.events(transfer::NAME, &saga).pop().unwrap(), "TransferParked");
    Operator::default().resume_parked(&mut stage.world.shared);
    stage.rest();
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferReversed"), 1);
    stage.start(reacts_to(account::NAME, Kind::Events));
    stage.end();
}

/// Three times, then nothing is sent until an operator says so.
#[test]
fn a_step_that_fails_again_and_again_parks() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    for _ in 0..20 {
        stage.pass(12);
    }
    let events = stage.events(transfer::NAME, &saga);
    let expected = ["TransferStarted", "StepRepeated", "StepRepeated", "TransferParked"];
    assert_eq!(events, expected);
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    let stage = stage.end();
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferCompleted"), 1);
}

/// The receiver has it; its event is not read yet. By now its account is frozen, the time is over,
/// and nobody remembers the command: asked once more it must not say no.
#[test]
fn a_refusal_that_overtakes_an_acceptance() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    // Nobody hears of the account's events from here on, and the saga sleeps.
    stage.halt(reacts_to(account::NAME, Kind::Events));
    stage.halt(handles(transfer::NAME));
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    assert_eq!(outcomes(&stage, &saga, "RECEIVE"), [(Outcome::Accepted, false)]);
    stage.wish("acc-2", &json!({"type": "FreezeAccount"}));
    stage.rest();
    stage.halt(handles(account::NAME));
    stage.pass(DAY + 2 * 3_600);
    stage.start(handles(account::NAME));
    // The window ends where the last command was appended: one has to come for it to move on.
    stage.wish("acc-2", &json!({"type": "FreezeAccount"}));
    stage.rest();
    stage.start(handles(transfer::NAME));
    // A first answer again, since the id is forgotten; and it is the same.
    let expected = [(Outcome::Accepted, false), (Outcome::Accepted, false)];
    assert_eq!(outcomes(&stage, &saga, "RECEIVE"), expected);
    assert_eq!(stage.count(account::NAME, "acc-2", "MoneyReceived"), 1);
    assert_eq!(stage.count(transfer::NAME, &saga, "ReversalStarted"), 0);
    stage.start(reacts_to(account::NAME, Kind::Events));
    let stage = stage.end();
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferCompleted"), 1);
}

fn asked_after(seconds: i64) -> (Stage, String) {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    stage.halt(handles(transfer::NAME));
    stage.pass(seconds);
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    (stage, saga)
}

#[test]
fn a_transfer_that_comes_after_its_time_is_given_back() {
    let (stage, saga) = asked_after(DAY + 3_600);
    let code = stage.results(step_id(&saga, "RECEIVE")).remove(0).code;
    assert_eq!(code.as_deref(), Some("Expired"));
    let mut stage = stage;
    stage.start(handles(transfer::NAME));
    let stage = stage.end();
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferReversed"), 1);
    assert_eq!(stage.count(account::NAME, "acc-1", "TransferReversed"), 1);
}

/// So late, a no might be about what was forgotten: only the receiver's whole stream tells.
#[test]
fn an_unverifiable_transfer_is_ended_by_the_receivers_stream() {
    let (mut stage, saga) = asked_after(9 * DAY);
    let code = stage.results(step_id(&saga, "RECEIVE")).remove(0).code;
    assert_eq!(code.as_deref(), Some("Unverifiable"));
    stage.start(handles(transfer::NAME));
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferParked"), 1);
    assert_eq!(stage.count(transfer::NAME, &saga, "ReversalStarted"), 0, "it is no refusal");
    let stage = stage.end();
    assert_eq!(stage.count(transfer::NAME, &saga, "TransferReversed"), 1);
}

/// Operators have no order among them: nothing but its command id makes a word of theirs a repeat.
#[test]
fn what_operators_say_counts_whatever_was_said_before() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    let mut operator = Operator::default();
    for kind in ["Abandon", "Resume", "Abandon"] {
        let body = json!({"type": kind}).to_string();
        operator.send(&mut stage.world.shared, transfer::NAME, &saga, body);
        stage.rest();
    }
    let expected = ["TransferStarted", "TransferParked", "StepRepeated", "TransferParked"];
    assert_eq!(stage.events(transfer::NAME, &saga), expected);
    // A later owner reads no such origin back, and remembers the ids.
    stage.halt(handles(transfer::NAME));
    stage.start(handles(transfer::NAME));
    let place = commands_of(transfer::NAME, &saga);
    let mut said = stage.sent_on();
    said.retain(|(at, record)| *at == place && record.headers.text("reply_to").is_none());
    for (place, record) in said {
        stage.world.shared.append(place, &record);
    }
    stage.rest();
    assert_eq!(stage.events(transfer::NAME, &saga), expected);
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    stage.end();
}

/// A saga's timer survives its owner, and is never early.
#[test]
fn a_deadline_outlives_its_owner() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2"]);
    stage.halt(reacts_to(transfer::NAME, Kind::Events));
    stage.transfer("acc-1", "acc-2");
    stage.rest();
    let saga = stage.streams(transfer::NAME).remove(0);
    stage.halt(handles(transfer::NAME));
    stage.start(handles(transfer::NAME));
    stage.pass(10);
    assert_eq!(stage.events(transfer::NAME, &saga), ["TransferStarted"]);
    stage.pass(2);
    assert_eq!(stage.events(transfer::NAME, &saga), ["TransferStarted", "StepRepeated"]);
    stage.start(reacts_to(transfer::NAME, Kind::Events));
    stage.end();
}

#[test]
fn two_at_once_for_the_fifth_account() {
    let mut stage = Stage::with_accounts(&["acc-1", "acc-2", "acc-3", "acc-4"]);
    let ids = ["acc-5", "acc-6"].map(|account| stage.open(account, "user-1"));
    stage.pass(60);
    let mut codes = ids.map(|id| match &stage.results(id)[..] {
        [result] => result.code.clone(),
        other => panic!("{other:?}"),
    });
    codes.sort();
    assert_eq!(codes, [None, Some("AccountLimit".to_owned())], "exactly one wins");
    assert_eq!(stage.streams(account_opening::NAME).len(), 6);
    stage.end();
}
