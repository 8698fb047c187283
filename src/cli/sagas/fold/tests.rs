//! What is shown of which streams and dead letters.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::cli::sagas::saga::Standing;
use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::schemas::Schemas;
use crate::domain::banking::account::AccountType;
use crate::domain::banking::account_opening::{self as opening, Opening};
use crate::domain::banking::transfer::{self, Transfer};
use crate::domain::money::{Amount, Currency};
use crate::engine::reply::INTERNAL_ERROR;
use crate::kernel::message::Headers;
use crate::kernel::stream::event_key;

const NOW: Timestamp = Timestamp(1_760_000_000_000_000);
const START: &str = r#"{"type":"StartTransfer","user_id":"ann","currency":"USD",
    "from_account_id":"a","to_account_id":"b","amount":"12.50","fee":"2"}"#;

fn text(text: &str) -> String {
    text.to_owned()
}

fn record(id: &str, sequence: u64, command: Uuid, value: Vec<u8>) -> Record {
    let mut headers = Headers::default();
    headers.push("ce_time", NOW.to_rfc3339());
    headers.push("command_id", command.to_string());
    headers.push("causation_id", "cause");
    let key = Some(event_key(id, sequence).into_boxed_slice());
    Record { key, value: Some(value.into_boxed_slice()), headers, ..Record::default() }
}

fn letter(id: &str, command: Uuid, body: &str) -> Record {
    let mut headers = Headers::default();
    headers.push("ce_id", command.to_string());
    headers.push("causation_id", "money left");
    headers.push("origin", "process-manager;g;00000000-0000-0000-0000-000000000000;0;7;0;00");
    headers.push("error_code", INTERNAL_ERROR);
    headers.push("error_message", "the decision broke");
    headers.push("failed_at", NOW.to_rfc3339());
    let (key, value) = (Some(id.as_bytes().into()), Some(body.as_bytes().into()));
    Record { key, value, headers, ..Record::default() }
}

/// Folds these events, each its own stream's next, and gives what was let go and what is left.
fn fold<D: Shown>(
    codec: &dyn Codec<D>,
    let_go: LetGo,
    letters: &[Record],
    events: &[(&str, u64, D::Event)],
) -> (Vec<Saga>, Folds) {
    let mut known = Letters::default();
    letters.iter().for_each(|letter| known.take(letter, None));
    let mut fold = Fold::<D>::new(let_go, None, known);
    let mut gone = Vec::new();
    for (id, sequence, event) in events {
        let mut value = Vec::new();
        codec.encode_event(event, &mut value).unwrap();
        let record = record(id, *sequence, Uuid::from_u128(u128::from(*sequence)), value);
        let taken = fold.take(&record, |value| Ok(codec.decode_event(value)?)).unwrap();
        gone.extend(taken);
    }
    (gone, fold.finish(codec, NOW))
}

fn transfers() -> TransferCodec {
    TransferCodec::new(Arc::new(Schemas::numbered_from(1)))
}

fn started() -> transfer::Event {
    transfer::Event::TransferStarted(transfer::TransferStarted {
        user_id: text("ann"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(10),
        fee: Amount::whole(2),
        reference: None,
        valid_until: NOW,
        deadline: NOW,
    })
}

fn received() -> transfer::Event {
    transfer::Event::TransferReceived(transfer::TransferReceived {
        user_id: text("ann"),
        currency: Currency::USD,
        from_account_id: text("a"),
        to_account_id: text("b"),
        amount: Amount::whole(10),
        deadline: NOW,
    })
}

fn completed() -> transfer::Event {
    transfer::Event::TransferCompleted(transfer::TransferCompleted {
        user_id: text("ann"),
        currency: Currency::USD,
        amount: Amount::whole(10),
    })
}

#[test]
fn what_has_ended_is_not_held() {
    let events = [
        ("over", 1, started()),
        ("open", 1, started()),
        ("over", 2, received()),
        ("over", 3, completed()),
    ];
    let (gone, left) = fold::<Transfer>(&transfers(), LetGo::Ended, &[], &events);
    assert!(gone.is_empty());
    let ids: Vec<_> = left.sagas.iter().map(|saga| saga.id.as_str()).collect();
    assert_eq!(ids, ["open"]);
    let (gone, left) = fold::<Transfer>(&transfers(), LetGo::Shown, &[], &events);
    let shown: Vec<_> = gone.iter().map(|saga| (saga.id.as_str(), saga.state())).collect();
    assert_eq!(shown, [("over", "COMPLETED")]);
    assert_eq!((left.sagas.len(), left.again.len()), (1, 0));
    let (gone, left) = fold::<Transfer>(&transfers(), LetGo::Nothing, &[], &events);
    assert_eq!((gone.len(), left.sagas.len()), (0, 2));
}

fn openings() -> AccountOpeningCodec {
    AccountOpeningCodec::new(Arc::new(Schemas::numbered_from(1)))
}

fn opened() -> Vec<(&'static str, u64, opening::Event)> {
    let started = opening::Event::OpeningStarted(opening::OpeningStarted {
        user_id: text("ann"),
        account_id: text("acc-1"),
        account_type: AccountType::Savings,
        initial_deposit: Amount::whole(100),
        currency: Currency::USD,
        client_command_id: Uuid::nil().to_string(),
        client_reply_to: None,
        deadline: NOW,
    });
    let ended = opening::Event::OpeningEnded(opening::OpeningEnded {
        user_id: text("ann"),
        account_id: text("acc-1"),
        outcome: opening::Outcome::Opened,
        reason: None,
    });
    let (open, confirm) = (sent(opening::Step::Open), sent(opening::Step::Confirm));
    vec![("slot", 1, started), ("slot", 2, open), ("slot", 3, confirm), ("slot", 4, ended)]
}

fn sent(step: opening::Step) -> opening::Event {
    opening::Event::OpeningAdvanced(opening::OpeningAdvanced {
        user_id: text("ann"),
        account_id: text("acc-1"),
        account_type: AccountType::Savings,
        initial_deposit: Amount::whole(100),
        currency: Currency::USD,
        client_command_id: Uuid::nil().to_string(),
        client_reply_to: None,
        step,
        attempt: 1,
        reason: None,
        deadline: NOW,
    })
}

#[test]
fn what_goes_on_behind_its_end_is_read_again() {
    let mut events = opened();
    let (gone, left) = fold::<Opening>(&openings(), LetGo::Ended, &[], &events);
    assert!(gone.is_empty() && left.sagas.is_empty() && left.again.is_empty());
    events.push(("slot", 5, sent(opening::Step::Free)));
    let (_, left) = fold::<Opening>(&openings(), LetGo::Ended, &[], &events);
    assert!(left.sagas.is_empty());
    assert_eq!(left.again, HashSet::from([text("slot")]));
    let (_, left) = fold::<Opening>(&openings(), LetGo::Nothing, &[], &events);
    let saga = &left.sagas[0];
    assert_eq!((saga.step, saga.version, saga.about.as_str()), (Some("FREE"), 5, "acc-1 for ann"));
    // Where all are shown, it is held: it may go on.
    let (gone, left) = fold::<Opening>(&openings(), LetGo::Shown, &[], &opened());
    assert_eq!((gone.len(), left.sagas[0].state()), (0, "OPENED"));
}

#[test]
fn a_saga_whose_start_broke_is_shown_without_a_stream() {
    let id = Uuid::from_u128(77);
    let letters = [letter("t-1", id, START), letter("t-1", id, START)];
    let (_, left) = fold::<Transfer>(&transfers(), LetGo::Ended, &letters, &[]);
    let [saga] = &left.sagas[..] else { panic!("{left:?}") };
    assert_eq!((saga.state(), saga.version), ("FAILED", 0));
    assert_eq!(saga.about, "12.5 USD from a to b");
    assert_eq!(saga.error(), Some("the decision broke"));
    assert_eq!((saga.since, saga.deadline), (NOW, None));
    assert_eq!(saga.causation_id.as_deref(), Some("money left"));
    assert_eq!(saga.broken.len(), 1, "one command, though it broke twice");
    // What has become of it since is seen in the stream.
    let (_, left) =
        fold::<Transfer>(&transfers(), LetGo::Ended, &letters, &[("t-1", 1, started())]);
    assert_eq!((left.sagas[0].state(), left.sagas[0].broken.len()), ("WAITING", 0));
}

#[test]
fn what_an_ended_saga_was_told_and_broke_is_shown() {
    let closed = Uuid::from_u128(77);
    let letters = [letter("slot", closed, r#"{"type":"RecordClosed"}"#)];
    let (_, left) = fold::<Opening>(&openings(), LetGo::Ended, &letters, &opened());
    let [saga] = &left.sagas[..] else { panic!("{left:?}") };
    assert_eq!((saga.state(), &saga.standing), ("FAILED", &Standing::Ended("OPENED")));
    // The command itself, some other day.
    let command = Uuid::from_u128(5);
    let letters = [letter("slot", command, r#"{"type":"RecordClosed"}"#)];
    let mut events = opened();
    events.push(("slot", 5, sent(opening::Step::Free)));
    let (_, left) = fold::<Opening>(&openings(), LetGo::Ended, &letters, &events);
    assert_eq!((left.sagas[0].state(), left.sagas[0].broken.len()), ("WAITING", 0));
}

#[test]
fn what_is_no_news_any_more_and_what_an_operator_said_do_not_count() {
    let events = [("t-1", 1, started()), ("t-1", 2, received())];
    let count = |body: &str| {
        let letters = [letter("t-1", Uuid::from_u128(77), body)];
        let (_, left) = fold::<Transfer>(&transfers(), LetGo::Ended, &letters, &events);
        left.sagas[0].broken.len()
    };
    assert_eq!(count(r#"{"type":"RecordReceived"}"#), 0);
    assert_eq!(count(r#"{"type":"RecordSettled"}"#), 1);
    assert_eq!(count(r#"{"type":"Abandon","reason":"x"}"#), 0);
    assert_eq!(count(r#"{"type":"Newer"}"#), 1, "a newer program may know what it is");
}
