//! Faults of every kind, each at a stream of its own: in both stores by SQL, in the log and the
//! snapshots by records.

use std::collections::BTreeMap;

use millrace::domain::banking::account::{self, Account, Event};
use millrace::domain::money::Amount;
use millrace::engine::snapshot;
use millrace::engine::turn;
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::Decider;
use millrace::kernel::message::Headers;
use millrace::kernel::stream::{Kind, StreamHash, event_key, partition_of};
use millrace::kernel::time::Timestamp;
use millrace::log::kafka::client::{self, Quiet};
use millrace::log::kafka::sender::Sender;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;

use crate::bank::Written;
use crate::sagas::Told;
use crate::stack::{PARTITIONS, Stack};

/// A fault, and what must be said of it.
#[derive(Clone, Debug)]
pub(crate) struct Planted {
    pub(crate) kind: &'static str,
    pub(crate) store: &'static str,
    pub(crate) stream: String,
    /// One of these must be named.
    pub(crate) columns: Vec<&'static str>,
}

pub(crate) struct Faults<'a> {
    stack: &'a Stack,
    /// The events of each account, of those that nothing was done to yet.
    accounts: BTreeMap<String, Vec<Written>>,
    transfers: Vec<String>,
    pub(crate) planted: Vec<Planted>,
}

impl<'a> Faults<'a> {
    pub(crate) fn new(stack: &'a Stack, log: &[Written], sagas: &[Told]) -> Self {
        let mut accounts: BTreeMap<String, Vec<Written>> = BTreeMap::new();
        for written in log {
            accounts.entry(written.account_id.clone()).or_default().push(written.clone());
        }
        // So that there is something in the middle.
        let moving = |one: &&Written| moves_money(&one.event);
        accounts.retain(|_, events| events.iter().filter(moving).count() >= 4);
        let mut transfers: Vec<String> = sagas
            .iter()
            .filter(|told| told.aggregate == "transfer" && told.sequence == 1)
            .map(|told| told.id.clone())
            .collect();
        transfers.sort();
        Self { stack, accounts, transfers, planted: Vec::new() }
    }

    /// An account that nothing was done to yet.
    fn take(&mut self) -> (String, Vec<Written>) {
        self.accounts.pop_first().expect("enough accounts")
    }

    fn note(
        &mut self,
        kind: &'static str,
        store: &'static str,
        id: &str,
        columns: &[&'static str],
    ) {
        let stream = format!("banking.account/{id}");
        self.planted.push(Planted { kind, store, stream, columns: columns.to_vec() });
    }

    pub(crate) async fn plant(&mut self) {
        self.in_postgres().await;
        self.in_transfers().await;
        self.in_clickhouse().await;
        self.in_the_log().await;
        self.in_snapshots().await;
    }

    async fn in_postgres(&mut self) {
        let client = self.stack.database().client().await.unwrap();
        let schema = self.stack.config.namespace.underscored("banking_g1");
        // Kind, how often, table, what is done to `{id}` (`{v}` is an event in its middle that
        // moved money), what is said.
        let changes: [(&str, usize, &str, &[&str]); 13] = [
            (
                "missing row",
                4,
                "DELETE FROM {s}.account_summary WHERE account_id = '{id}'",
                &["row"],
            ),
            (
                "missing row",
                4,
                "DELETE FROM {s}.account_transaction WHERE account_id = '{id}' AND version = {v}",
                &["row"],
            ),
            (
                "doubled under another sequence",
                5,
                "INSERT INTO {s}.account_transaction SELECT account_id, occurred_at, version + 500,
                 transaction_id, kafka_partition, event_type, type, amount, fee, currency,
                 description, reference, counterparty_account, balance_after
                 FROM {s}.account_transaction WHERE account_id = '{id}' AND version = {v}",
                &["row"],
            ),
            (
                "altered row",
                4,
                "UPDATE {s}.account_summary SET user_id = 'mallory' WHERE account_id = '{id}'",
                &["user_id"],
            ),
            (
                "altered row",
                3,
                "UPDATE {s}.account_transaction SET description = 'gift'
                 WHERE account_id = '{id}' AND version = {v}",
                &["description"],
            ),
            (
                "wrong sum",
                5,
                "UPDATE {s}.account_summary SET total_deposits = total_deposits + 0.01
                 WHERE account_id = '{id}'",
                &["total_deposits"],
            ),
            (
                "wrong balance",
                4,
                "UPDATE {s}.account_summary SET current_balance = current_balance * 2 + 1
                 WHERE account_id = '{id}'",
                &["current_balance"],
            ),
            (
                "wrong fee",
                4,
                "UPDATE {s}.account_summary SET total_fees = total_fees + 5
                 WHERE account_id = '{id}'",
                &["total_fees"],
            ),
            (
                "wrong fee",
                3,
                "UPDATE {s}.account_transaction SET fee = fee - 2
                 WHERE account_id = '{id}' AND version = {v}",
                &["fee"],
            ),
            (
                "altered time",
                5,
                "UPDATE {s}.account_transaction SET occurred_at = occurred_at - interval '90 days'
                 WHERE account_id = '{id}' AND version = (SELECT max(version)
                 FROM {s}.account_transaction WHERE account_id = '{id}')",
                &["occurred_at"],
            ),
            (
                "wrong version",
                3,
                "UPDATE {s}.account_summary SET version = version - 1 WHERE account_id = '{id}'",
                &["version"],
            ),
            (
                "altered row",
                2,
                "UPDATE {s}.account_summary SET kafka_partition = 1 - kafka_partition
                 WHERE account_id = '{id}'",
                &["kafka_partition"],
            ),
            (
                "orphan row",
                4,
                "INSERT INTO {s}.account_summary SELECT 'ghost-' || account_id, kafka_partition,
                 user_id, account_type, currency, status, current_balance, pending_out, created_at,
                 last_transaction_at, total_deposits, total_withdrawals, total_transfers_in,
                 total_transfers_out, total_fees, first_version, version, updated_at
                 FROM {s}.account_summary WHERE account_id = '{id}'",
                &["row"],
            ),
        ];
        for (kind, count, change, columns) in changes {
            for _ in 0..count {
                let (id, events) = self.take();
                let moving = events.iter().filter(|written| moves_money(&written.event)).nth(2);
                let version = moving.unwrap().sequence.to_string();
                let statement =
                    change.replace("{s}", &schema).replace("{id}", &id).replace("{v}", &version);
                assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1, "{statement}");
                let id = if kind == "orphan row" { format!("ghost-{id}") } else { id };
                self.note(kind, "postgres", &id, columns);
            }
        }
    }

    async fn in_transfers(&mut self) {
        let client = self.stack.database().client().await.unwrap();
        let schema = self.stack.config.namespace.underscored("banking_g1");
        let changes: [(&str, &str, &str); 5] = [
            ("missing row", "DELETE FROM {s}.transfer WHERE transfer_id = '{id}'", "row"),
            (
                "altered row",
                "UPDATE {s}.transfer SET state = 'LOST' WHERE transfer_id = '{id}'",
                "state",
            ),
            (
                "wrong fee",
                "UPDATE {s}.transfer SET fee = fee + 1 WHERE transfer_id = '{id}'",
                "fee",
            ),
            (
                "altered time",
                "UPDATE {s}.transfer SET created_at = created_at + interval '1 us'
                 WHERE transfer_id = '{id}'",
                "created_at",
            ),
            (
                "altered row",
                "UPDATE {s}.transfer SET amount = 1, currency = 'EUR' WHERE transfer_id = '{id}'",
                "currency",
            ),
        ];
        for (kind, change, column) in changes {
            let id = self.transfers.pop().unwrap();
            let statement = change.replace("{s}", &schema).replace("{id}", &id);
            assert_eq!(client.execute(&statement, &[]).await.unwrap(), 1, "{statement}");
            self.planted.push(Planted {
                kind,
                store: "postgres",
                stream: format!("banking.transfer/{id}"),
                columns: vec![column],
            });
        }
    }

    async fn in_clickhouse(&mut self) {
        let events = self.stack.events();
        let table = format!("{}.banking_event_g1", events.name());
        let all = "aggregate, aggregate_id, sequence, event_id, event_type, schema_version,
             occurred_at, user_id, amount, currency, correlation_id, causation_id, command_id,
             kafka_partition, kafka_offset, payload, fee, balance_after, account_type, topic_id,
             epoch";
        let changed = |column: &str, value: &str| all.replacen(column, value, 1);
        let here = "WHERE aggregate = 'account' AND aggregate_id = '{id}' AND sequence = {v}";
        let changes: [(&str, usize, String, &[&str]); 10] = [
            ("ClickHouse row lost", 6, format!("ALTER TABLE {table} DELETE {here}"), &["row"]),
            (
                "payload altered",
                6,
                format!(
                    "ALTER TABLE {table} UPDATE payload = replaceOne(payload, 'user-', 'no-')
                     {here}"
                ),
                &["payload"],
            ),
            (
                "altered time",
                5,
                format!(
                    "ALTER TABLE {table} UPDATE occurred_at = occurred_at - INTERVAL 31 DAY {here}"
                ),
                &["occurred_at"],
            ),
            (
                "wrong sum",
                4,
                format!("ALTER TABLE {table} UPDATE amount = amount + 1 {here}"),
                &["amount"],
            ),
            ("wrong fee", 4, format!("ALTER TABLE {table} UPDATE fee = fee + 1 {here}"), &["fee"]),
            (
                "wrong balance",
                2,
                format!("ALTER TABLE {table} UPDATE balance_after = NULL {here}"),
                &["balance_after"],
            ),
            (
                "altered row",
                3,
                format!("ALTER TABLE {table} UPDATE user_id = 'mallory' {here}"),
                &["user_id"],
            ),
            (
                "doubled under another sequence",
                5,
                format!(
                    "INSERT INTO {table} ({all}) SELECT {} FROM {table} {here}",
                    changed("sequence", "sequence + 700 AS moved")
                ),
                &["row"],
            ),
            (
                "orphan row",
                5,
                format!(
                    "INSERT INTO {table} ({all}) SELECT {} FROM {table} {here}",
                    changed("aggregate_id", "concat('ghost-', aggregate_id) AS moved")
                ),
                &["row"],
            ),
            (
                "altered row",
                2,
                format!("ALTER TABLE {table} UPDATE kafka_offset = kafka_offset + 1 {here}"),
                &["kafka_offset"],
            ),
        ];
        for (kind, count, change, columns) in changes {
            for _ in 0..count {
                let (id, written) = self.take();
                let moving = written.iter().filter(|written| moves_money(&written.event)).nth(2);
                let version = moving.unwrap().sequence.to_string();
                let statement = change.replace("{id}", &id).replace("{v}", &version);
                let query = events.client().query_raw(&statement);
                query.with_setting("mutations_sync", "2").execute().await.unwrap();
                let id = if kind == "orphan row" { format!("ghost-{id}") } else { id };
                self.note(kind, "clickhouse", &id, columns);
            }
        }
    }

    async fn in_the_log(&mut self) {
        for _ in 0..4 {
            let (id, events) = self.take();
            let last = events.last().unwrap();
            let event = deposit(last, Amount::whole(1), Amount::whole(1));
            // Nor is the balance that it says what it would be.
            self.send(&id, last.sequence + 2, last.at, &event).await;
            self.note("missing sequence", "log", &id, &["sequence"]);
        }
        for _ in 0..4 {
            let (id, events) = self.take();
            let third = &events[2];
            let event = deposit(third, Amount::whole(7), Amount::whole(7));
            self.send(&id, third.sequence, third.at, &event).await;
            self.note("doubled sequence", "log", &id, &["sequence"]);
        }
        for _ in 0..3 {
            let (id, events) = self.take();
            let last = events.last().unwrap();
            let (_, version, state) = folded(&id, &events, events.len());
            let (amount, fee) = (Amount::whole(1), Amount::whole(3));
            let balance_after =
                state.balance.checked_sub(amount).unwrap().checked_sub(fee).unwrap();
            let event = Event::MoneyWithdrawn(account::MoneyWithdrawn {
                user_id: state.opened.user_id.clone(),
                currency: state.opened.currency,
                amount,
                fee,
                balance_after,
                reference: None,
            });
            self.send(&id, version + 1, last.at, &event).await;
            self.note("wrong fee", "log", &id, &["fee"]);
        }
        for _ in 0..3 {
            let (id, events) = self.take();
            let last = events.last().unwrap();
            let (_, version, state) = folded(&id, &events, events.len());
            let wrong = state.balance.checked_add(Amount::whole(2)).unwrap();
            let event = deposit(last, Amount::whole(1), wrong);
            self.send(&id, version + 1, last.at, &event).await;
            self.note("wrong balance", "log", &id, &["balance_after"]);
        }
    }

    async fn send(&self, id: &str, sequence: u64, at: Timestamp, event: &Event) {
        let mut value = Vec::new();
        let kind = self.stack.codec.encode_event(event, &mut value).unwrap();
        let mut headers = Headers::default();
        let event_id = StreamHash::new(account::NAME, id).event_id(sequence);
        headers.push("ce_id", event_id.to_string());
        headers.push("ce_type", kind.full_name);
        headers.push("ce_time", at.to_rfc3339());
        headers.push("schema_version", kind.schema_version.to_string());
        let sender = Sender::open(&self.stack.config.kafka).unwrap();
        let (key, partition) = (event_key(id, sequence), partition_of(id, PARTITIONS));
        sender.send(&self.stack.topic, partition, &key, &value, &headers).await.unwrap();
    }

    async fn in_snapshots(&mut self) {
        let kafka = &self.stack.config.kafka;
        let topic = self.stack.config.namespace.dotted(&account::NAME.topic(Kind::Snapshots));
        let admin = AdminClient::from_config_and_context(&client::base(kafka), Quiet).unwrap();
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1))
            .set("cleanup.policy", "compact");
        admin.create_topics(&[new], &AdminOptions::new()).await.unwrap();
        let sender = Sender::open(kafka).unwrap();
        // True ones are no fault.
        let (accounts, mut all) = (self.accounts.clone(), Vec::new());
        for (id, events) in accounts.iter().rev().take(20) {
            all.push((id.clone(), bytes(id, events, events.len() - 1, None)));
            all.push((id.clone(), bytes(id, events, events.len(), None)));
        }
        for round in 0..10 {
            let (id, events) = self.take();
            let count = events.len();
            let (kind, columns): (_, &[_]) = match round % 5 {
                // A state of before under the version of now.
                0 => {
                    let mut at = count;
                    while folded(&id, &events, at - 1).2.balance
                        == folded(&id, &events, count).2.balance
                    {
                        at -= 1;
                    }
                    let said = events[count - 1].sequence;
                    all.push((id.clone(), bytes(&id, &events, at - 1, Some(said))));
                    ("stale snapshot", &["balance"])
                }
                // An older one behind a newer one.
                1 => {
                    all.push((id.clone(), bytes(&id, &events, count, None)));
                    all.push((id.clone(), bytes(&id, &events, count - 2, None)));
                    ("stale snapshot", &["version"])
                }
                2 => {
                    let said = events[count - 1].sequence + 5;
                    all.push((id.clone(), bytes(&id, &events, count, Some(said))));
                    ("snapshot of the future", &["version"])
                }
                3 => {
                    let mut damaged = bytes(&id, &events, count, None);
                    damaged.truncate(damaged.len() - 1);
                    all.push((id.clone(), damaged));
                    ("damaged snapshot", &["value"])
                }
                _ => {
                    let id = format!("ghost-{id}");
                    all.push((id.clone(), bytes(&id, &events, count, None)));
                    ("orphan snapshot", &["version"])
                }
            };
            let id = if kind == "orphan snapshot" { format!("ghost-{id}") } else { id };
            self.note(kind, "snapshots", &id, columns);
        }
        for (id, value) in all {
            let partition = partition_of(&id, PARTITIONS);
            let headers = Headers::default();
            sender.send(&topic, partition, id.as_bytes(), &value, &headers).await.unwrap();
        }
    }
}

fn moves_money(event: &Event) -> bool {
    !matches!(
        event,
        Event::TransferSettled(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_)
    )
}

fn deposit(like: &Written, amount: Amount, balance_after: Amount) -> Event {
    Event::MoneyDeposited(account::MoneyDeposited {
        user_id: like.event.user_id().to_owned(),
        currency: like.event.currency(),
        amount,
        balance_after,
        reference: None,
    })
}

/// When the last of the first so many events was, how many there are, and what they make.
fn folded(id: &str, events: &[Written], count: usize) -> (Timestamp, u64, Account) {
    assert_eq!(events[0].account_id, id.trim_start_matches("ghost-"));
    let mut state = Account::default();
    for written in &events[..count] {
        Account::evolve(&mut state, &written.event, written.at);
    }
    (events[count - 1].at, events[count - 1].sequence, state)
}

/// A snapshot of the first so many events, which may say that it is of another version.
fn bytes(id: &str, events: &[Written], count: usize, said: Option<u64>) -> Vec<u8> {
    let (last_time, version, state) = folded(id, events, count);
    let last_time = if said == events.last().map(|last| last.sequence) {
        events[events.len() - 1].at
    } else {
        last_time
    };
    let version = said.unwrap_or(version);
    let hash = StreamHash::new(account::NAME, id);
    let stream = turn::Stream::<Account> { state, version, last_time, hash, unsaved_from: 0 };
    snapshot::to_bytes::<Account>(&stream).unwrap()
}
