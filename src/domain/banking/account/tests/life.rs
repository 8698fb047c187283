//! Opening, freezing, closing, and what every event says.

use super::*;

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
        concat!(
            r#"{"user_id":"user-1","currency":"USD","#,
            r#""amount":"1.5","balance_after":"2","reference":"pay"}"#
        )
    );
}
