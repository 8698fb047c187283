//! Every rule and every refusal, one by one.

use super::*;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Decider, Rejection as _};
use crate::kernel::scenario::{SCENARIO_ID, SCENARIO_NOW, given, scenario_context};

const DAY: i64 = 24 * 60 * 60;

fn amount(text: &str) -> Amount {
    Amount::parse(text).unwrap()
}

fn create(edit: impl FnOnce(&mut CreateAccount)) -> Command {
    let mut command = CreateAccount {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type: "CHECKING".to_owned(),
        initial_deposit: amount("100"),
        currency: "USD".to_owned(),
    };
    edit(&mut command);
    Command::CreateAccount(command)
}

fn opened_as(account_type: AccountType, deposit: &str, currency: &str) -> Event {
    Event::AccountCreated(AccountCreated {
        account_id: SCENARIO_ID.to_owned(),
        user_id: "user-1".to_owned(),
        account_type,
        initial_deposit: amount(deposit),
        currency: Currency::parse(currency).unwrap(),
    })
}

fn opened(deposit: &str) -> Event {
    opened_as(AccountType::Checking, deposit, "USD")
}

fn deposit(text: &str) -> Command {
    Command::Deposit(Deposit { amount: amount(text), reference: Some("pay".to_owned()) })
}

fn deposited(text: &str, after: &str) -> Event {
    Event::MoneyDeposited(MoneyDeposited {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        amount: amount(text),
        balance_after: amount(after),
        reference: Some("pay".to_owned()),
    })
}

fn withdraw(text: &str) -> Command {
    Command::Withdraw(Withdraw { amount: amount(text), reference: None })
}

fn withdrawn(text: &str, fee: &str, after: &str) -> Event {
    Event::MoneyWithdrawn(MoneyWithdrawn {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        amount: amount(text),
        fee: amount(fee),
        balance_after: amount(after),
        reference: None,
    })
}

fn transfer(text: &str) -> Command {
    Command::Transfer(Transfer {
        to_account_id: "other".to_owned(),
        amount: amount(text),
        reference: Some("rent".to_owned()),
    })
}

/// The id that a transfer gets which is the stream's second event.
fn transfer_id() -> String {
    let context = scenario_context::<Account>(1, SCENARIO_NOW);
    context.event_id(1).to_string()
}

fn transferred(text: &str, fee: &str, after: &str) -> Event {
    Event::MoneyTransferred(MoneyTransferred {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        to_account_id: "other".to_owned(),
        amount: amount(text),
        transfer_fee: amount(fee),
        balance_after: amount(after),
        reference: Some("rent".to_owned()),
    })
}

fn receive(edit: impl FnOnce(&mut ReceiveTransfer)) -> Command {
    let mut command = ReceiveTransfer {
        transfer_id: "t-1".to_owned(),
        from_account_id: "other".to_owned(),
        amount: amount("50"),
        currency: "USD".to_owned(),
        reference: None,
        valid_until: SCENARIO_NOW.plus_seconds(DAY),
    };
    edit(&mut command);
    Command::ReceiveTransfer(command)
}

fn received(after: &str) -> Event {
    Event::MoneyReceived(MoneyReceived {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: "t-1".to_owned(),
        from_account_id: "other".to_owned(),
        amount: amount("50"),
        balance_after: amount(after),
        reference: None,
    })
}

fn reverse(transfer_id: String) -> Command {
    Command::ReverseTransfer(ReverseTransfer {
        transfer_id,
        reason: Some("AccountNotFound".to_owned()),
    })
}

fn reversed(text: &str, fee: &str, after: &str) -> Event {
    Event::TransferReversed(TransferReversed {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        amount: amount(text),
        transfer_fee: amount(fee),
        balance_after: amount(after),
        reason: Some("AccountNotFound".to_owned()),
    })
}

fn settle(transfer_id: String) -> Command {
    Command::SettleTransfer(SettleTransfer { transfer_id, to_account_id: "other".to_owned() })
}

fn settled(text: &str) -> Event {
    Event::TransferSettled(TransferSettled {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        transfer_id: transfer_id(),
        to_account_id: "other".to_owned(),
        amount: amount(text),
    })
}

fn freeze() -> Command {
    Command::FreezeAccount(FreezeAccount { reason: Some("fraud".to_owned()) })
}

fn frozen() -> Event {
    Event::AccountFrozen(AccountFrozen {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: Some("fraud".to_owned()),
    })
}

fn unfreeze() -> Command {
    Command::UnfreezeAccount(UnfreezeAccount { reason: None })
}

fn unfrozen() -> Event {
    Event::AccountUnfrozen(AccountUnfrozen {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: None,
    })
}

fn close() -> Command {
    Command::CloseAccount(CloseAccount { reason: None })
}

fn closed() -> Event {
    Event::AccountClosed(AccountClosed {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        reason: None,
    })
}

/// A closed account's past.
fn past_of_closed() -> [Event; 3] {
    [opened("100"), withdrawn("100", "0", "0"), closed()]
}

/// Corrects the event with that sequence.
fn correct(sequence: u64, text: &str) -> Command {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    Command::CorrectEntry(CorrectEntry {
        compensates_event_id: context.event_id(sequence).to_string(),
        amount: amount(text),
        reason: Some("typo".to_owned()),
    })
}

fn corrected(sequence: u64, text: &str, after: &str) -> Event {
    let context = scenario_context::<Account>(0, SCENARIO_NOW);
    Event::EntryCorrected(EntryCorrected {
        user_id: "user-1".to_owned(),
        currency: Currency::USD,
        compensates_event_id: context.event_id(sequence).to_string(),
        amount: amount(text),
        balance_after: amount(after),
        reason: Some("typo".to_owned()),
    })
}

fn too_poor(available: &str, requested: &str) -> Rejection {
    Rejection::InsufficientFunds {
        available: amount(available),
        requested: amount(requested),
        currency: Currency::USD,
    }
}

#[test]
fn opens_an_account_of_any_type_in_any_case() {
    given::<Account>([])
        .when(create(|command| command.account_type = "sAvInGs".to_owned()))
        .then([opened_as(AccountType::Savings, "100", "USD")]);
    for name in ["CHECKING", "SAVINGS", "BUSINESS", "INVESTMENT"] {
        assert_eq!(AccountType::parse(name).unwrap().as_str(), name);
    }
}

#[test]
fn refuses_an_opening_in_the_promised_order() {
    let worst = |command: &mut CreateAccount| {
        command.account_type = "GOLD".to_owned();
        command.user_id = " ".to_owned();
        command.currency = "usd".to_owned();
        command.initial_deposit = amount("99.999");
    };
    let given_one = || given::<Account>([opened("100")]);
    given_one()
        .when(create(worst))
        .then_rejected(Rejection::InvalidAccountType { account_type: "GOLD".to_owned() });
    let next = |command: &mut CreateAccount| {
        worst(command);
        command.account_type = "business".to_owned();
    };
    given_one().when(create(next)).then_rejected(Rejection::MissingUser);
    let next = |command: &mut CreateAccount| {
        next(command);
        command.user_id = "user-2".to_owned();
    };
    given_one()
        .when(create(next))
        .then_rejected(Rejection::InvalidCurrency { currency: "usd".to_owned() });
    let next = |command: &mut CreateAccount| {
        next(command);
        command.currency = "EUR".to_owned();
    };
    given_one().when(create(next)).then_rejected(Rejection::InvalidField {
        field: "initial_deposit",
        reason: "has more decimals than EUR, which has 2".to_owned(),
    });
    let next = |command: &mut CreateAccount| {
        next(command);
        command.initial_deposit = amount("99.99");
    };
    given_one().when(create(next)).then_rejected(Rejection::MinimumDeposit {
        initial_deposit: amount("99.99"),
        currency: Currency::parse("EUR").unwrap(),
    });
    given_one().when(create(|_| ())).then_rejected(Rejection::AccountExists);
}

#[test]
fn an_id_is_used_up_even_when_its_account_is_closed() {
    given::<Account>(past_of_closed()).when(create(|_| ())).then_rejected(Rejection::AccountExists);
}

#[test]
fn nothing_but_an_opening_works_without_an_account() {
    let all = [
        deposit("1"),
        withdraw("1"),
        transfer("1"),
        receive(|_| ()),
        reverse(transfer_id()),
        settle(transfer_id()),
        freeze(),
        unfreeze(),
        close(),
        correct(1, "1"),
    ];
    for command in all {
        given::<Account>([]).when(command).then_rejected(Rejection::AccountNotFound);
    }
}

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
fn freezes_and_unfreezes() {
    given::<Account>([opened("100")]).when(freeze()).then([frozen()]);
    given::<Account>([opened("100"), frozen()]).when(freeze()).then_nothing();
    given::<Account>([opened("100"), frozen()]).when(unfreeze()).then([unfrozen()]);
    given::<Account>([opened("100")]).when(unfreeze()).then_nothing();
    for command in [freeze(), unfreeze()] {
        given::<Account>(past_of_closed()).when(command).then_rejected(Rejection::AccountInactive);
    }
}

#[test]
fn closes_only_what_is_empty_and_still() {
    given::<Account>([opened("100")]).when(close()).then_rejected(Rejection::BalanceNotZero {
        balance: amount("100"),
        currency: Currency::USD,
    });
    let emptied = [opened("100"), transferred("98", "2", "0")];
    given::<Account>(emptied.clone()).when(close()).then_rejected(Rejection::TransferPending);
    given::<Account>([emptied[0].clone(), emptied[1].clone(), settled("98")])
        .when(close())
        .then([closed()]);
    given::<Account>([opened("100"), withdrawn("100", "0", "0"), frozen()])
        .when(close())
        .then([closed()]);
    given::<Account>(past_of_closed()).when(close()).then_nothing();
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

#[test]
fn only_the_process_manager_may_finish_transfers() {
    for command in [receive(|_| ()), reverse(transfer_id()), settle(transfer_id())] {
        assert!(Account::is_internal(&command));
    }
    for command in [transfer("1"), deposit("1"), close(), create(|_| ())] {
        assert!(!Account::is_internal(&command));
    }
}

#[test]
fn every_event_says_whose_it_is_and_how_much_it_is_about() {
    let events = [
        (opened("100"), "AccountCreated", Some("100")),
        (deposited("1", "2"), "MoneyDeposited", Some("1")),
        (withdrawn("1", "0", "2"), "MoneyWithdrawn", Some("1")),
        (transferred("1", "2", "3"), "MoneyTransferred", Some("1")),
        (received("1"), "MoneyReceived", Some("50")),
        (reversed("1", "2", "3"), "TransferReversed", Some("1")),
        (settled("1"), "TransferSettled", Some("1")),
        (frozen(), "AccountFrozen", None),
        (unfrozen(), "AccountUnfrozen", None),
        (closed(), "AccountClosed", None),
        (corrected(1, "-1", "0"), "EntryCorrected", Some("-1")),
    ];
    for (event, name, own_amount) in events {
        assert_eq!(event.name(), name);
        assert_eq!(event.user_id(), "user-1");
        assert_eq!(event.currency(), Currency::USD);
        assert_eq!(event.amount(), own_amount.map(amount));
    }
}

#[test]
fn a_deposit_reads_well_as_json() {
    assert_eq!(
        serde_json::to_string(&deposited("1.50", "2")).unwrap(),
        r#"{"user_id":"user-1","currency":"USD","amount":"1.5","balance_after":"2","reference":"pay"}"#
    );
}
