//! Paying in, paying out and correcting.

use super::*;

#[test]
fn pays_in() {
    given::<Account>([opened("100")]).when(deposit("0.01")).then([deposited("0.01", "100.01")]);
}

#[test]
fn amounts_have_a_form() {
    let finer = Rejection::InvalidField {
        field: "amount",
        reason: "has more decimals than USD, which has 2".to_owned(),
    };
    let longer = Rejection::InvalidField {
        field: "amount",
        reason: "has more than 15 digits before the point".to_owned(),
    };
    for make in [deposit, withdraw, transfer, |text: &str| correct(1, text)] {
        let given_one = || given::<Account>([opened("100"), frozen()]);
        given_one().when(make("-0.001")).then_rejected(finer.clone());
        given_one().when(make("1000000000000000")).then_rejected(longer.clone());
    }
    let yen = opened_as(AccountType::Checking, "1000", "JPY");
    given::<Account>([yen.clone()]).when(deposit("1.5")).then_rejected(Rejection::InvalidField {
        field: "amount",
        reason: "has more decimals than JPY, which has 0".to_owned(),
    });
    let state = given::<Account>([yen]).when(deposit("5.000")).state();
    assert_eq!(state.balance, amount("1005"));
    assert!(longer.is_malformed() && !Rejection::AccountExists.is_malformed());
}

#[test]
fn moves_only_positive_amounts() {
    for make in [deposit, withdraw, transfer] {
        for text in ["0", "-1"] {
            given::<Account>([opened("100"), frozen()])
                .when(make(text))
                .then_rejected(Rejection::NonPositiveAmount { amount: amount(text) });
        }
    }
}

#[test]
fn moves_nothing_in_an_inactive_account() {
    for make in [deposit, withdraw, transfer, |_: &str| receive(|_| ())] {
        given::<Account>([opened("100"), frozen()])
            .when(make("500"))
            .then_rejected(Rejection::AccountInactive);
        given::<Account>(past_of_closed())
            .when(make("500"))
            .then_rejected(Rejection::AccountInactive);
    }
}

#[test]
fn a_balance_stops_at_18_digits_and_counts_what_is_under_way() {
    let almost = [opened("100"), deposited("1", "999999999999999999.98")];
    given::<Account>(almost.clone())
        .when(deposit("0.01"))
        .then([deposited("0.01", "999999999999999999.99")]);
    given::<Account>(almost.clone()).when(deposit("0.02")).then_rejected(Rejection::LimitExceeded);
    given::<Account>(almost.clone())
        .when(correct(1, "0.02"))
        .then_rejected(Rejection::LimitExceeded);
    given::<Account>(almost.clone()).when(receive(|_| ())).then_rejected(Rejection::LimitExceeded);
    let sent = transferred("1000", "2", "999999999999998997.98");
    given::<Account>([almost[0].clone(), sent.clone(), almost[1].clone()])
        .when(deposit("0.01"))
        .then_rejected(Rejection::LimitExceeded);
    given::<Account>([almost[0].clone(), sent]).when(reverse(transfer_id())).then([reversed(
        "1000",
        "2",
        "999999999999999999.98",
    )]);
}

#[test]
fn pays_out_for_a_fee_only_from_large_savings() {
    let savings = opened_as(AccountType::Savings, "5000", "USD");
    given::<Account>([savings.clone()])
        .when(withdraw("1000"))
        .then([withdrawn("1000", "0", "4000")]);
    given::<Account>([savings])
        .when(withdraw("1000.01"))
        .then([withdrawn("1000.01", "5", "3994.99")]);
    given::<Account>([opened("5000")]).when(withdraw("5000")).then([withdrawn("5000", "0", "0")]);
}

#[test]
fn never_pays_out_more_than_there_is() {
    given::<Account>([opened("100")])
        .when(withdraw("100.01"))
        .then_rejected(too_poor("100", "100.01"));
    given::<Account>([opened_as(AccountType::Savings, "1004.99", "USD")])
        .when(withdraw("1000.01"))
        .then_rejected(too_poor("1004.99", "1005.01"));
    given::<Account>([opened("100")])
        .when(transfer("98.01"))
        .then_rejected(too_poor("100", "100.01"));
    let rejection = too_poor("100", "100.01");
    assert_eq!(
        rejection.details(),
        [("available", "100.00".to_owned()), ("requested", "100.01".to_owned())]
    );
    assert_eq!(rejection.message(), "The balance of 100.00 USD does not cover 100.01 USD.");
}

#[test]
fn corrects_an_earlier_event_of_its_own() {
    let past = [opened("100"), deposited("50", "150")];
    given::<Account>(past.clone()).when(correct(2, "-150")).then([corrected(2, "-150", "0")]);
    given::<Account>([past[0].clone(), past[1].clone(), frozen()])
        .when(correct(1, "7.5"))
        .then([corrected(1, "7.5", "157.5")]);
    given::<Account>(past.clone())
        .when(correct(2, "-150.01"))
        .then_rejected(too_poor("150", "150.01"));
    given::<Account>(past)
        .when(correct(2, "0"))
        .then_rejected(Rejection::NonPositiveAmount { amount: Amount::ZERO });
    given::<Account>(past_of_closed())
        .when(correct(1, "1"))
        .then_rejected(Rejection::AccountInactive);
}

#[test]
fn an_event_may_be_named_in_any_form_of_its_id() {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    let named = CorrectEntry {
        compensates_event_id: context.event_id(1).simple().to_string().to_uppercase(),
        amount: amount("1"),
        reason: Some("typo".to_owned()),
    };
    given::<Account>([opened("100")])
        .when(Command::CorrectEntry(named))
        .then([corrected(1, "1", "101")]);
}

#[test]
fn corrects_no_event_that_is_not_there() {
    for sequence in [0, 2, 1 << 39] {
        let command = correct(sequence, "0");
        let Command::CorrectEntry(CorrectEntry { compensates_event_id: event_id, .. }) =
            command.clone()
        else {
            unreachable!("it is one");
        };
        given::<Account>([opened("100")])
            .when(command)
            .then_rejected(Rejection::UnknownEvent { event_id });
    }
    given::<Account>([opened("100")])
        .when(Command::CorrectEntry(CorrectEntry {
            compensates_event_id: "the last one".to_owned(),
            amount: amount("1"),
            reason: None,
        }))
        .then_rejected(Rejection::UnknownEvent { event_id: "the last one".to_owned() });
}
