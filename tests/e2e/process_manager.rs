//! What only a process manager may say, signed as one would: the far side of a transfer, its
//! reversal and its end, down to the rows.

use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use millrace::engine::origin::{Origin, Sender, Signed, Source};

use crate::harness::commands::{command_with_id, create, new_id, transfer};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer, own_partition};
use crate::harness::log::{Answers, Message as Decoded};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::stores::Postgres;

const KEY: &str = "a key that both sides know";

/// Sends commands with a signed origin, each with the next offset of its cause.
struct ProcessManager<'n> {
    namespace: &'n Namespace,
    producer: Producer,
    answers: Answers<'n>,
    offset: i64,
}

impl ProcessManager<'_> {
    fn signed(&self, account: &str, id: Uuid, body: &Value) -> Message {
        let message = command_with_id(account, id, body);
        let source = Source { group: "manager".to_owned(), topic_id: Uuid::nil(), partition: 0 };
        let origin =
            Origin { sender: Sender::ProcessManager, source, offset: self.offset, index: 0 };
        let topic = self.namespace.topic("commands");
        let id = id.to_string();
        let signed = Signed {
            topic: &topic,
            key: account.as_bytes(),
            command_id: id.as_bytes(),
            value: message.value.as_deref().unwrap(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        let header = origin.to_header(signed, &key);
        Message { partition: Some(own_partition(account.as_bytes(), 2)), ..message }
            .header("origin", header)
    }

    fn say(&mut self, account: &str, body: &Value) -> Decoded {
        self.offset += 1;
        let id = new_id();
        let message = self.signed(account, id, body);
        self.producer.send(&self.namespace.topic("commands"), &[message]);
        self.answers.first(id)
    }

    fn client(&mut self, account: &str, body: &Value) -> Decoded {
        let id = new_id();
        let message = command_with_id(account, id, body);
        self.producer.send(&self.namespace.topic("commands"), &[message]);
        self.answers.first(id)
    }
}

#[test]
fn a_transfer_arrives_or_comes_back_down_to_the_rows() {
    let namespace = Namespace::new();
    let mut serve = Serve::start_with(&namespace, "", &[("MILLRACE_INTERNAL_KEY", KEY)]);
    serve.wait_ready();
    let producer = Producer::new(&namespace.stack);
    let answers = Answers::new(&namespace);
    let mut manager = ProcessManager { namespace: &namespace, producer, answers, offset: 0 };
    assert!(manager.client("from", &create("ann", "CHECKING", "50000")).is_accepted());
    assert!(manager.client("to", &create("bob", "CHECKING", "100")).is_accepted());
    assert!(manager.client("from", &transfer("to", "20000")).is_accepted());
    assert!(manager.client("from", &transfer("nobody", "300")).is_accepted());
    let all = judge::log_is_sound(&namespace);
    let mut sent = all.iter().filter(|event| event.short_name() == "MoneyTransferred");
    let mut next = || sent.next().unwrap().header("ce_id").unwrap().to_owned();
    let (arriving, returning) = (next(), next());

    let receive = json!({
        "type": "ReceiveTransfer", "transfer_id": arriving, "from_account_id": "from",
        "amount": "20000", "currency": "USD", "reference": "house",
        "valid_until": "2100-01-01T00:00:00Z",
    });
    assert_eq!(manager.say("to", &receive).fields["version"], 2);
    // Received once only, also under another command id.
    let again = manager.say("to", &receive);
    assert!(again.is_accepted() && again.fields["first_sequence"].is_null(), "{again:?}");
    let settle = json!({"type": "SettleTransfer", "transfer_id": arriving, "to_account_id": "to"});
    assert_eq!(manager.say("from", &settle).fields["version"], 4);
    let reverse =
        json!({"type": "ReverseTransfer", "transfer_id": returning, "reason": "not found"});
    assert_eq!(manager.say("from", &reverse).fields["version"], 5);
    let late = manager.say("from", &reverse);
    assert_eq!(late.fields["code"], "TransferNotOpen");
    let old = json!({
        "type": "ReceiveTransfer", "transfer_id": returning, "from_account_id": "from",
        "amount": "300", "currency": "USD", "valid_until": "2020-01-01T00:00:00Z",
    });
    assert_eq!(manager.say("to", &old).fields["code"], "Unverifiable");

    let first = all.iter().find(|event| event.account == "from").unwrap();
    let correct = json!({
        "type": "CorrectEntry", "compensates_event_id": first.header("ce_id"), "amount": "-10",
        "reason": "miscounted",
    });
    assert!(manager.client("from", &correct).is_accepted());

    let all = judge::log_is_sound(&namespace);
    judge::read_models_equal_log(&namespace, &all);
    let postgres = Postgres::connect(&namespace).unwrap();
    let rows = judge::summaries(&namespace, &postgres);
    let sums = |id: &str| {
        let names = ["current_balance", "pending_out", "total_transfers_in", "total_transfers_out"];
        let text = names.map(|name| rows[id][name].clone().unwrap()).join(" ");
        format!("{text} {}", rows[id]["total_fees"].as_deref().unwrap())
    };
    // 50,000 - 20,000 - 10 (fee) - 302 + 302 - 10.
    assert_eq!(sums("from"), "29980 0 0 20000 10");
    assert_eq!(sums("to"), "20100 0 20000 0 0");
    let transactions = judge::transactions(&namespace, &postgres);
    let kinds: Vec<_> = transactions
        .iter()
        .map(|(key, row)| {
            let told = ["type", "amount", "fee"].map(|name| row[name].as_deref().unwrap());
            format!("{key} {}", told.join(" "))
        })
        .collect();
    let expected = [
        "from#1 CREDIT 50000 0",
        "from#2 TRANSFER_OUT 20000 10",
        "from#3 TRANSFER_OUT 300 2",
        "from#5 REVERSAL 300 -2",
        "from#6 CORRECTION -10 0",
        "to#1 CREDIT 100 0",
        "to#2 TRANSFER_IN 20000 0",
    ];
    assert_eq!(kinds, expected);
    serve.terminate();
}
