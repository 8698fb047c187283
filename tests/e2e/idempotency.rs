//! A command id is one command: repeats, conflicts, expected versions.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::commands::{command, command_with_id, create, deposit, new_id, withdraw};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer};
use crate::harness::log::{Answers, Message as Decoded};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

struct Desk<'a> {
    namespace: &'a Namespace,
    producer: Producer,
    answers: Answers<'a>,
}

impl Desk<'_> {
    fn send(&self, message: &Message) {
        self.producer.send(&self.namespace.topic("commands"), std::slice::from_ref(message));
    }

    /// Sends a command under an id; gives that id's answer to it.
    fn ask(&mut self, account: &str, id: Uuid, body: &Value) -> Decoded {
        let before = self.answers.all(id).len();
        self.send(&command_with_id(account, id, body));
        self.answers.nth(id, before + 1)
    }

    fn expecting(&mut self, account: &str, version: &str, body: &Value) -> Decoded {
        let id = new_id();
        self.send(&command_with_id(account, id, body).header("expected_version", version));
        self.answers.first(id)
    }
}

#[test]
fn the_same_id_is_the_same_command() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "");
    let producer = Producer::new(&namespace.stack);
    let mut desk = Desk { namespace: &namespace, producer, answers: Answers::new(&namespace) };
    let (opening, paying, poor) = (new_id(), new_id(), new_id());
    let first = desk.ask("acc-1", opening, &create("eve", "CHECKING", "100.00"));
    assert!(first.is_accepted());
    let paid = desk.ask("acc-1", paying, &deposit("25.00"));
    assert_eq!(paid.fields["version"], 2);

    // The same content, however it is written, is answered as before.
    let again = json!({"amount": "25", "account_id": "acc-1", "type": "Deposit", "reference": null,
        "actor": "somebody else"});
    let repeat = desk.ask("acc-1", paying, &again);
    let mut expected = paid.fields.clone();
    expected["duplicate"] = json!(true);
    assert_eq!(repeat.fields, expected);

    // Other content is a conflict, and leaves the first answer alone.
    let conflict = desk.ask("acc-1", paying, &deposit("25.01"));
    assert_eq!(conflict.fields["outcome"], "REJECTED");
    assert_eq!(conflict.fields["code"], "IdempotencyConflict");
    assert_eq!(conflict.fields["duplicate"], false);
    assert_ne!(conflict.fields["content_hash"], paid.fields["content_hash"]);
    assert_eq!(desk.ask("acc-1", paying, &deposit("25")).fields, expected);

    // A refusal is an answer, too: it does not become a yes when there is money later.
    let refused = desk.ask("acc-1", poor, &withdraw("500"));
    assert_eq!(refused.fields["code"], "InsufficientFunds");
    assert!(desk.ask("acc-1", new_id(), &deposit("1000")).is_accepted());
    let repeat = desk.ask("acc-1", poor, &withdraw("500.00"));
    assert_eq!(repeat.fields["code"], "InsufficientFunds");
    assert!(repeat.is_duplicate());

    // Another account's command is another command, even under the same id.
    let other = desk.ask("acc-2", paying, &create("eve", "SAVINGS", "100"));
    assert!(other.is_accepted() && !other.is_duplicate(), "{other:?}");

    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), 4);
    judge::read_models_equal_log(&namespace, &all);
    serve.terminate();
}

#[test]
fn an_expected_version_is_met_or_refused() {
    let namespace = Namespace::new();
    let serve = Serve::ready(&namespace, "handler,reactor");
    let producer = Producer::new(&namespace.stack);
    let mut desk = Desk { namespace: &namespace, producer, answers: Answers::new(&namespace) };
    let opening = create("finn", "CHECKING", "100");
    let early = desk.expecting("acc-1", "1", &opening);
    assert_eq!(early.fields["code"], "VersionConflict", "there is no event yet");
    assert!(desk.expecting("acc-1", "0", &opening).is_accepted());
    assert!(desk.expecting("acc-1", "1", &deposit("1")).is_accepted());
    let late = desk.expecting("acc-1", "1", &deposit("1"));
    assert_eq!(late.fields["outcome"], "REJECTED");
    assert_eq!(late.fields["code"], "VersionConflict");
    assert_eq!(late.fields["retryable"], true);
    assert_eq!(late.fields["details"], json!({"expected": "1", "actual": "2"}));
    assert_eq!(late.fields["version"], 2);

    // A conflict is an answer like any other: the same id gives it again when it would fit.
    let tried = new_id();
    let eager = command_with_id("acc-1", tried, &deposit("1")).header("expected_version", "3");
    desk.send(&eager);
    assert_eq!(desk.answers.first(tried).fields["code"], "VersionConflict");
    assert!(desk.expecting("acc-1", "2", &deposit("1")).is_accepted());
    desk.send(&eager);
    let again = desk.answers.nth(tried, 2);
    assert!(again.is_duplicate() && !again.is_accepted(), "{again:?}");

    // A known id comes before the expected version: the repeat is answered, not refused.
    let id = new_id();
    let message = command_with_id("acc-1", id, &deposit("5")).header("expected_version", "3");
    desk.send(&message);
    desk.send(&message);
    assert!(desk.answers.nth(id, 2).is_accepted());
    // In the body it counts as well; before the account is looked for at all.
    let body = json!({"type": "Deposit", "amount": "1", "expected_version": 7,
        "command_id": "6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11"});
    desk.send(&command("acc-none", &body));
    let id = Uuid::parse_str("6f1c8d6e-6c0f-4e52-9c2b-0a4d8d5f1a11").unwrap();
    assert_eq!(desk.answers.first(id).fields["code"], "VersionConflict");
    let unknown = desk.ask("acc-none", new_id(), &deposit("1"));
    assert_eq!(unknown.fields["code"], "AccountNotFound");
    let all = judge::log_is_sound(&namespace);
    assert_eq!(all.len(), 4);
    judge::results_match_log(&desk.answers.into_all(), &all);
    serve.terminate();
}
