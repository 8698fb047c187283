//! A long and simple log, written fast: accounts that are opened, paid into and paid out of.

use millrace::codec::schemas::Schemas;
use millrace::codec::{avro, compiled};
use millrace::domain::banking::account;
use millrace::domain::money::Amount;
use millrace::kernel::message::Headers;
use millrace::kernel::stream::{StreamHash, event_key, partition_of};
use millrace::log::kafka::load::Feed;
use millrace::log::kafka::partition_reader::{PartitionReader, Start};
use serde::Serialize;
use uuid::Uuid;

use crate::stack::{PARTITIONS, Stack};

#[derive(Serialize)]
struct AccountCreated<'a> {
    account_id: &'a str,
    user_id: &'a str,
    account_type: &'a str,
    initial_deposit: Amount,
    currency: &'a str,
    slot_id: Option<&'a str>,
}

#[derive(Serialize)]
struct MoneyDeposited<'a> {
    user_id: &'a str,
    currency: &'a str,
    amount: Amount,
    balance_after: Amount,
    reference: Option<&'a str>,
}

#[derive(Serialize)]
struct MoneyWithdrawn<'a> {
    user_id: &'a str,
    currency: &'a str,
    amount: Amount,
    fee: Amount,
    balance_after: Amount,
    reference: Option<&'a str>,
}

pub(crate) struct Ledger<'a> {
    stack: &'a Stack,
    feed: Feed,
    /// Version and cents of each account.
    accounts: Vec<(u64, i64)>,
    random: u64,
    pub(crate) written: u64,
}

fn cents(cents: i64) -> Amount {
    Amount::from_units(i128::from(cents) * 1_000_000).unwrap()
}

fn form(schemas: &Schemas, name: &str) -> (u32, usize) {
    let place = compiled::current(&format!("millrace.banking.account.{name}")).unwrap();
    (schemas.own_id(place).unwrap(), place)
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(stack: &'a Stack, accounts: u64) -> Self {
        let feed = Feed::open(&stack.config.kafka).unwrap();
        let accounts = vec![(0, 0); usize::try_from(accounts).unwrap()];
        Self { stack, feed, accounts, random: 5, written: 0 }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    /// Writes so many events.
    pub(crate) fn write(&mut self, events: u64) {
        for _ in 0..events {
            let count = self.accounts.len() as u64;
            let mut index = usize::try_from(self.random(count)).unwrap();
            // Every account is opened before any moves money twice.
            if self.written < count {
                index = usize::try_from(self.written).unwrap();
            }
            self.write_one(index);
            self.written += 1;
        }
        self.feed.flush().unwrap();
    }

    fn write_one(&mut self, index: usize) {
        let id = format!("acc-{index:07}");
        let user = format!("user-{:06}", index / 3);
        let (version, balance) = self.accounts[index];
        let amount = i64::try_from(self.random(50_000)).unwrap() + 1;
        let schemas = &self.stack.schemas;
        let mut value = Vec::new();
        let (name, balance) = if version == 0 {
            let event = AccountCreated {
                account_id: &id,
                user_id: &user,
                account_type: ["CHECKING", "SAVINGS"][index % 2],
                initial_deposit: cents(10_000 + amount),
                currency: ["USD", "EUR"][index % 2],
                slot_id: None,
            };
            encode(schemas, "AccountCreated", &event, &mut value);
            ("AccountCreated", 10_000 + amount)
        } else if amount % 3 == 0 && balance >= amount {
            let event = MoneyWithdrawn {
                user_id: &user,
                currency: ["USD", "EUR"][index % 2],
                amount: cents(amount),
                fee: Amount::ZERO,
                balance_after: cents(balance - amount),
                reference: None,
            };
            encode(schemas, "MoneyWithdrawn", &event, &mut value);
            ("MoneyWithdrawn", balance - amount)
        } else {
            let event = MoneyDeposited {
                user_id: &user,
                currency: ["USD", "EUR"][index % 2],
                amount: cents(amount),
                balance_after: cents(balance + amount),
                reference: Some("salary"),
            };
            encode(schemas, "MoneyDeposited", &event, &mut value);
            ("MoneyDeposited", balance + amount)
        };
        self.accounts[index] = (version + 1, balance);
        self.send(&id, version + 1, name, &value);
    }

    fn send(&self, id: &str, sequence: u64, name: &str, value: &[u8]) {
        let at = millrace::clock::now();
        let mut headers = Headers::default();
        headers.push("ce_id", StreamHash::new(account::NAME, id).event_id(sequence).to_string());
        headers.push("ce_type", format!("millrace.banking.account.{name}"));
        headers.push("ce_time", at.to_rfc3339());
        headers.push("schema_version", "2");
        headers.push("command_id", Uuid::from_u64_pair(3, sequence).to_string());
        let key = event_key(id, sequence);
        let partition = partition_of(id, PARTITIONS);
        self.feed.send(&self.stack.topic, partition, &key, value, &headers).unwrap();
    }
}

fn encode(schemas: &Schemas, name: &str, event: &impl Serialize, value: &mut Vec<u8>) {
    let (id, place) = form(schemas, name);
    avro::encode(id, &compiled::all()[place].schema, event, value).unwrap();
}

/// The end of an accounts' partition.
pub(crate) fn end(stack: &Stack, partition: i32) -> i64 {
    let kafka = &stack.config.kafka;
    let reader = PartitionReader::open(kafka, &stack.topic, partition, Start::End).unwrap();
    reader.watermarks().unwrap().1
}
