//! The rules by examples, worked out by hand.

use uuid::Uuid;

use super::account::{Account, SUMMARY, transaction};
use super::snapshot::{self, Snapshot};
use super::transfer::{TABLE, Transfer};
use super::{Aggregate, Table, event};
use crate::audit::cell::{Cell, Row, parse_money};
use crate::audit::fact::{Fact, Field};

const DAY: i64 = 86_400 * 1_000_000;

/// An event; a value that reads as a number with a point is money, `@` a moment, `-` a null.
fn fact(sequence: u64, name: &str, fields: &[(&str, &str)]) -> Fact {
    let field = |(name, text): &(&str, &str)| {
        let value = if *text == "-" {
            Field::Null
        } else if let Some(micros) = text.strip_prefix('@') {
            Field::Moment(micros.parse().unwrap())
        } else if text.contains('.') {
            Field::Money(parse_money(text).unwrap())
        } else {
            Field::Text((*text).to_owned())
        };
        ((*name).to_owned(), value)
    };
    Fact {
        stream: "a-1".to_owned(),
        sequence,
        offset: 100 + i64::try_from(sequence).unwrap(),
        event_id: Uuid::from_u128(u128::from(sequence)),
        name: name.to_owned(),
        schema_version: 2,
        at: i64::try_from(sequence).unwrap() * DAY,
        command_id: Uuid::nil(),
        correlation_id: String::new(),
        causation_id: String::new(),
        fields: fields.iter().map(field).collect(),
    }
}

fn opened() -> Fact {
    let fields = [
        ("account_id", "a-1"),
        ("user_id", "ada"),
        ("account_type", "SAVINGS"),
        ("initial_deposit", "100.00"),
        ("currency", "USD"),
        ("slot_id", "-"),
    ];
    fact(1, "AccountCreated", &fields)
}

fn sent(sequence: u64) -> Fact {
    let fields = [
        ("user_id", "ada"),
        ("currency", "USD"),
        ("transfer_id", "t-1"),
        ("to_account_id", "b-1"),
        ("amount", "30.00"),
        ("transfer_fee", "2.00"),
        ("balance_after", "68.00"),
        ("reference", "rent"),
    ];
    fact(sequence, "MoneyTransferred", &fields)
}

fn given_back(sequence: u64) -> Fact {
    let fields = [
        ("user_id", "ada"),
        ("currency", "USD"),
        ("transfer_id", "t-1"),
        ("amount", "30.00"),
        ("transfer_fee", "2.00"),
        ("balance_after", "100.00"),
        ("reason", "AccountNotFound"),
    ];
    fact(sequence, "TransferReversed", &fields)
}

/// An account; the last 30 days begin with the sixteenth event.
fn account(facts: &[Fact]) -> Account {
    let mut account = Account::new(15 * DAY);
    facts.iter().for_each(|fact| account.take(fact));
    account
}

fn shown(table: &Table, row: &Row, column: &str) -> String {
    let place = table.columns.iter().position(|found| *found == column).unwrap();
    row[place].to_string()
}

#[test]
fn a_transfer_is_under_way_until_it_is_given_back_with_its_fee() {
    let columns = [
        "current_balance",
        "pending_out",
        "total_transfers_out",
        "total_fees",
        "version",
        "status",
    ];
    let said = |row: &Row| columns.map(|column| shown(&SUMMARY, row, column));
    let under_way = account(&[opened(), sent(2)]).row();
    assert_eq!(said(&under_way), ["68", "30", "30", "2", "2", "ACTIVE"]);
    let back = account(&[opened(), sent(2), given_back(3)]).row();
    assert_eq!(said(&back), ["100", "0", "0", "0", "3", "ACTIVE"]);
    let settled = fact(3, "TransferSettled", &[("amount", "30.00")]);
    let settled = account(&[opened(), sent(2), settled]).row();
    assert_eq!(said(&settled), ["68", "0", "30", "2", "3", "ACTIVE"]);
}

#[test]
fn the_view_counts_thirty_days_and_names_the_last_ten() {
    let deposit = |sequence| {
        let fields = [("amount", "1.00"), ("balance_after", "1.00")];
        fact(sequence, "MoneyDeposited", &fields)
    };
    let mut facts = vec![opened()];
    facts.extend((2..=40).map(deposit));
    let row = account(&facts).row();
    assert_eq!(shown(&SUMMARY, &row, "transaction_count_30_days"), "25");
    let ids = shown(&SUMMARY, &row, "recent_transaction_ids");
    let newest = Uuid::from_u128(40).to_string();
    assert_eq!((ids.split(',').count(), ids.split(',').next()), (10, Some(newest.as_str())));
    let frozen = fact(41, "AccountFrozen", &[]);
    facts.push(frozen);
    let row = account(&facts).row();
    assert_eq!(shown(&SUMMARY, &row, "available_balance"), "0");
    assert_eq!(shown(&SUMMARY, &row, "is_active"), "false");
}

#[test]
fn an_unknown_event_moves_the_version_and_nothing_else() {
    let before = account(&[opened()]).row();
    let after = account(&[opened(), fact(2, "AccountPainted", &[])]).row();
    let differing: Vec<&str> = (SUMMARY.columns.iter())
        .zip(before.iter().zip(&after))
        .filter(|(_, (before, after))| before != after)
        .map(|(column, _)| *column)
        .collect();
    assert_eq!(differing, ["version", "updated_at"]);
    assert_eq!(account(&[fact(1, "AccountPainted", &[])]).row().last(), Some(&Cell::Null));
}

#[test]
fn the_rules_of_money_are_checked_in_the_log_itself() {
    let savings = account(&[opened()]);
    let withdrawn = |amount: &str, fee: &str, after: &str| {
        let fields = [("amount", amount), ("fee", fee), ("balance_after", after)];
        fact(2, "MoneyWithdrawn", &fields)
    };
    let wrong = |fact: &Fact| {
        let all = savings.check(fact).into_iter();
        all.map(|(column, due, found)| format!("{column} {due} {found}")).collect::<Vec<_>>()
    };
    assert_eq!(wrong(&withdrawn("10.00", "0.00", "90.00")), Vec::<String>::new());
    assert_eq!(wrong(&withdrawn("10.00", "1.00", "89.00")), ["fee 0 1"]);
    assert_eq!(wrong(&withdrawn("1000.01", "5.00", "-905.01")), Vec::<String>::new());
    assert_eq!(wrong(&withdrawn("10.00", "0.00", "91.00")), ["balance_after 90 91"]);
    assert_eq!(wrong(&sent(2)), Vec::<String>::new());
}

#[test]
fn a_transactions_words_and_signs() {
    let said = |fact: &Fact| {
        let row = transaction(fact).unwrap();
        let columns = super::account::TRANSACTION.columns;
        ["type", "amount", "fee", "description", "counterparty_account", "balance_after"]
            .map(|column| row[columns.iter().position(|one| *one == column).unwrap()].to_string())
    };
    assert_eq!(said(&opened()), ["CREDIT", "100", "0", "Opening deposit", "null", "100"]);
    assert_eq!(said(&sent(2)), ["TRANSFER_OUT", "30", "2", "Transfer to b-1", "b-1", "68"]);
    let back = "Transfer reversed - AccountNotFound";
    assert_eq!(said(&given_back(3)), ["REVERSAL", "30", "-2", back, "null", "100"]);
    assert_eq!(transaction(&fact(4, "AccountFrozen", &[])), None);
}

#[test]
fn a_saga_waits_parks_and_ends() {
    let started = fact(
        1,
        "TransferStarted",
        &[
            ("from_account_id", "a"),
            ("to_account_id", "b"),
            ("amount", "3.00"),
            ("fee", "2.00"),
            ("currency", "USD"),
            ("deadline", "@50"),
        ],
    );
    let parked = fact(2, "TransferParked", &[("step", "RECEIVE"), ("reason", "no answer")]);
    let reversal = fact(3, "ReversalStarted", &[("reason", "Expired"), ("deadline", "@90")]);
    let failed = fact(4, "StepFailed", &[("reason", "broke"), ("retry_at", "@95")]);
    let ended = fact(5, "TransferReversed", &[("reason", "Expired"), ("amount", "3.00")]);
    let columns = ["state", "is_parked", "parked_because", "refusal", "deadline", "ended_at"];
    let mut transfer = Transfer::default();
    let mut after = |fact: &Fact| {
        transfer.take(fact);
        let row = transfer.row();
        columns.map(|column| shown(&TABLE, &row, column))
    };
    let moment = |micros| Cell::Moment(micros).to_string();
    let because = "parked at RECEIVE: no answer";
    assert_eq!(after(&started), ["PENDING", "false", "null", "null", &moment(50), "null"]);
    assert_eq!(after(&parked), ["PENDING", "true", because, "null", &moment(50), "null"]);
    assert_eq!(after(&reversal), ["PENDING", "false", because, "Expired", &moment(90), "null"]);
    assert_eq!(after(&failed), ["PENDING", "false", because, "Expired", &moment(95), "null"]);
    let last = ["REVERSED", "false", because, "Expired", &moment(95), &moment(5 * DAY)];
    assert_eq!(after(&ended), last);
}

#[test]
fn a_process_managers_event_charges_nothing() {
    let row = |aggregate, fact: &Fact| event::row(aggregate, fact, Uuid::nil(), 0).unwrap();
    let cell = |row: &Row, column: &str| {
        row[event::COLUMNS.iter().position(|found| *found == column).unwrap()].to_string()
    };
    let of_account = row(Aggregate::Account, &given_back(3));
    assert_eq!(cell(&of_account, "fee"), "-2");
    assert_eq!(cell(&of_account, "balance_after"), "100");
    let of_saga = row(Aggregate::Transfer, &given_back(3));
    assert_eq!((cell(&of_saga, "fee"), cell(&of_saga, "amount")), ("0".into(), "30".into()));
    assert_eq!(cell(&of_saga, "balance_after"), "null");
    let payload = cell(&row(Aggregate::Account, &opened()), "payload");
    let expected = concat!(
        r#"{"account_id":"a-1","account_type":"SAVINGS","currency":"USD","#,
        r#""initial_deposit":"100","user_id":"ada"}"#
    );
    assert_eq!(payload, expected);
    let unknown = fact(1, "AccountPainted", &[]);
    assert_eq!(event::row(Aggregate::Account, &unknown, Uuid::nil(), 0), None);
}

#[test]
fn a_snapshot_remembers_what_was_received_for_nine_days() {
    let received = |sequence, id| {
        let fields = [("transfer_id", id), ("amount", "1.00"), ("balance_after", "101.00")];
        fact(sequence, "MoneyReceived", &fields)
    };
    let of = |facts: &[Fact]| {
        let mut snapshot = Snapshot::new(Aggregate::Account);
        facts.iter().for_each(|fact| snapshot.take(fact));
        snapshot
    };
    let early = of(&[opened(), received(2, "t-1"), received(11, "t-2")]);
    let late = of(&[opened(), received(2, "t-1"), received(12, "t-2")]);
    let said = |one: &Snapshot| format!("{one:?}");
    assert!(said(&early).contains("t-1") && !said(&late).contains("t-1"));
    let columns: Vec<&str> = early.compare(&late).iter().map(|(column, ..)| *column).collect();
    assert_eq!(columns, ["version", "last_time", "received", "received_by_time"]);
    assert_eq!(snapshot::read(Aggregate::Account, &[1, 0, 2]), Ok(None));
    assert!(snapshot::read(Aggregate::Account, &[2, 0, 2]).is_err());
}
