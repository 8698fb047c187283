//! Sending, receiving, settling and giving back.

use super::*;

#[test]
fn sends_money_for_a_fee_and_has_it_under_way() {
    let when = || given::<Account>([opened("100")]).when(transfer("98"));
    when().then([transferred("98", "2", "0")]);
    let state = when().state();
    assert_eq!(state.under_way_total, amount("100"));
    assert_eq!(state.under_way[&transfer_id()].amount, amount("98"));
    given::<Account>([opened("20010")])
        .when(transfer("10000"))
        .then([transferred("10000", "2", "10008")]);
    given::<Account>([opened("20010")])
        .when(transfer("10000.01"))
        .then([transferred("10000.01", "10", "9999.99")]);
}

#[test]
fn sends_nothing_to_itself() {
    given::<Account>([opened("100")])
        .when(Command::Transfer(Transfer {
            to_account_id: SCENARIO_ID.to_owned(),
            amount: amount("500"),
            reference: None,
        }))
        .then_rejected(Rejection::SelfTransfer);
}

#[test]
fn receives_a_transfer_once() {
    given::<Account>([opened("100")]).when(receive(|_| ())).then([received("150")]);
    given::<Account>([opened("100"), received("150")]).when(receive(|_| ())).then_nothing();
}

#[test]
fn what_was_received_stays_accepted_whatever_came_after() {
    let past = [opened("100"), received("150"), frozen()];
    given::<Account>(past)
        .at(SCENARIO_NOW.plus_seconds(9 * DAY - 120))
        .when(receive(|command| command.currency = "EUR".to_owned()))
        .then_nothing();
}

#[test]
fn a_received_transfer_is_forgotten_only_when_its_refusal_would_not_be_definite_any_more() {
    let mut state = Account::default();
    let take = |state: &mut Account, event: &Event, day: i64| {
        Account::evolve(state, event, SCENARIO_NOW.plus_seconds(day * DAY));
    };
    take(&mut state, &opened("100"), 0);
    take(&mut state, &received("150"), 0);
    let later = |id: &str| {
        let Event::MoneyReceived(mut event) = received("200") else {
            unreachable!("it is one");
        };
        event.transfer_id = id.to_owned();
        Event::MoneyReceived(event)
    };
    take(&mut state, &later("t-2"), 8);
    assert!(state.has_received("t-1") && state.has_received("t-2"));
    take(&mut state, &later("t-3"), 10);
    assert!(!state.has_received("t-1") && state.has_received("t-2"));
    let bytes = postcard::to_stdvec(&state).unwrap();
    assert_eq!(postcard::from_bytes::<Account>(&bytes).unwrap(), state);
}

#[test]
fn refuses_a_late_transfer_for_good_and_then_knows_no_more() {
    let at = |seconds: i64| {
        given::<Account>([opened("100"), frozen()])
            .at(SCENARIO_NOW.plus_seconds(seconds))
            .when(receive(|command| command.valid_until = SCENARIO_NOW))
    };
    at(0).then_rejected(Rejection::AccountInactive);
    at(1).then_rejected(Rejection::Expired);
    at(7 * DAY).then_rejected(Rejection::Expired);
    at(7 * DAY + 1).then_rejected(Rejection::Unverifiable);
}

#[test]
fn receives_only_its_own_currency() {
    given::<Account>([opened("100")])
        .when(receive(|command| {
            command.currency = "EUR".to_owned();
            command.amount = amount("0.001");
        }))
        .then_rejected(Rejection::CurrencyMismatch {
            expected: Currency::USD,
            actual: "EUR".to_owned(),
        });
    given::<Account>([opened("100")])
        .when(receive(|command| command.amount = amount("-1")))
        .then_rejected(Rejection::NonPositiveAmount { amount: amount("-1") });
}

#[test]
fn gives_a_refused_transfer_back_with_its_fee_once() {
    let past = [opened("100"), transferred("98", "2", "0")];
    let back = reversed("98", "2", "100");
    given::<Account>(past.clone()).when(reverse(transfer_id())).then([back.clone()]);
    let state = given::<Account>(past.clone()).when(reverse(transfer_id())).state();
    assert_eq!(state.under_way_total, Amount::ZERO);
    let not_open = |transfer_id: String| Rejection::TransferNotOpen { transfer_id };
    given::<Account>([past[0].clone(), past[1].clone(), back])
        .when(reverse(transfer_id()))
        .then_rejected(not_open(transfer_id()));
    given::<Account>([past[0].clone(), past[1].clone(), settled("98")])
        .when(reverse(transfer_id()))
        .then_rejected(not_open(transfer_id()));
    given::<Account>(past)
        .when(reverse("nobody's".to_owned()))
        .then_rejected(not_open("nobody's".to_owned()));
}

#[test]
fn a_frozen_account_gets_its_refused_transfer_back() {
    given::<Account>([opened("100"), transferred("98", "2", "0"), frozen()])
        .when(reverse(transfer_id()))
        .then([reversed("98", "2", "100")]);
}

#[test]
fn settles_a_transfer_once_and_moves_no_money() {
    let past = [opened("100"), transferred("50", "2", "48")];
    given::<Account>(past.clone()).when(settle(transfer_id())).then([settled("50")]);
    let state = given::<Account>(past.clone()).when(settle(transfer_id())).state();
    assert!(state.under_way.is_empty());
    assert_eq!(state.balance, amount("48"));
    given::<Account>([past[0].clone(), past[1].clone(), settled("50")])
        .when(settle(transfer_id()))
        .then_nothing();
}

#[test]
fn only_the_process_manager_may_finish_transfers() {
    for command in [receive(|_| ()), reverse(transfer_id()), settle(transfer_id())] {
        assert!(Account::is_internal(&command));
    }
    for command in [transfer("1"), deposit("1"), close(), create(|_| ())] {
        assert!(!Account::is_internal(&command));
    }
}
