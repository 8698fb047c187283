//! A small bank that writes its own log: random commands, decided by the real rules, written in
//! real transactions, of which some are aborted. It keeps what it has written, to fold it again.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::domain::banking::account::{
    self, Account, Command, CorrectEntry, CreateAccount, Deposit, Event, FreezeAccount,
    ReceiveTransfer, ReverseTransfer, SettleTransfer, Transfer, UnfreezeAccount, Withdraw,
};
use millrace::domain::money::Amount;
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::{Context, Decider};
use millrace::kernel::message::Headers;
use millrace::kernel::stream::{StreamHash, event_key, partition_of};
use millrace::kernel::time::Timestamp;
use millrace::log::kafka::client;
use millrace::log::kafka::convert::to_owned_headers;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use uuid::Uuid;

use crate::stack::{PARTITIONS, Stack};

/// An event that is in the log.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) account_id: String,
    pub(crate) partition: i32,
    pub(crate) sequence: u64,
    pub(crate) event_id: Uuid,
    pub(crate) at: Timestamp,
    pub(crate) event: Event,
}

pub(crate) struct Bank<'a> {
    stack: &'a Stack,
    producer: ThreadedProducer<DefaultProducerContext>,
    random: u64,
    accounts: BTreeMap<String, (Account, u64)>,
    now: Timestamp,
    pub(crate) log: Vec<Written>,
}

const TIMEOUT: Duration = Duration::from_secs(30);

impl<'a> Bank<'a> {
    pub(crate) fn new(stack: &'a Stack, seed: u64) -> Self {
        let id = stack.config.namespace.dotted(&format!("bank-{seed}"));
        let options = client::transactional_producer(&stack.config.kafka, &id);
        let producer = client::threaded_producer(&options, DefaultProducerContext).unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        // The last days, so that some of it lies in the window of 30 days and some does not.
        let now = millrace::clock::now().plus_seconds(-40 * 86_400);
        Self { stack, producer, random: seed, accounts: BTreeMap::new(), now, log: Vec::new() }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    fn amount(&mut self, most: u64) -> Amount {
        let cents = i128::from(self.random(most * 100) + 1);
        Amount::from_units(cents * 1_000_000).unwrap()
    }

    fn command(&mut self, account_id: &str) -> Command {
        let (account, version) = self.accounts.get(account_id).cloned().unwrap_or_default();
        if version == 0 {
            let types = ["CHECKING", "savings", "BUSINESS", "INVESTMENT"];
            return Command::CreateAccount(CreateAccount {
                account_id: account_id.to_owned(),
                user_id: format!("user-{}", self.random(5)),
                account_type: types[usize::try_from(self.random(4)).unwrap()].to_owned(),
                initial_deposit: Amount::whole(i32::try_from(100 + self.random(20_000)).unwrap()),
                currency: ["USD", "EUR", "JPY"][usize::try_from(self.random(3)).unwrap()]
                    .to_owned(),
                grant: None,
            });
        }
        let words = (self.random(2) == 0).then(|| format!("no. {}", self.random(1_000)));
        let under_way = account.under_way.keys().next().cloned();
        match (self.random(16), under_way) {
            (0..=4, _) => {
                Command::Deposit(Deposit { amount: self.amount(3_000), reference: words })
            }
            (5..=7, _) => {
                Command::Withdraw(Withdraw { amount: self.amount(2_500), reference: words })
            }
            (8..=9, _) => Command::Transfer(Transfer {
                to_account_id: "elsewhere".to_owned(),
                amount: self.amount(11_000),
                reference: words,
            }),
            (10, Some(transfer_id)) => {
                Command::ReverseTransfer(ReverseTransfer { transfer_id, reason: words })
            }
            (11, Some(transfer_id)) => Command::SettleTransfer(SettleTransfer {
                transfer_id,
                to_account_id: "elsewhere".to_owned(),
            }),
            (12, _) => Command::ReceiveTransfer(ReceiveTransfer {
                transfer_id: Uuid::from_u64_pair(7, self.random(u64::MAX >> 33)).to_string(),
                from_account_id: "outside".to_owned(),
                amount: self.amount(900),
                currency: account.opened.currency.as_str().to_owned(),
                reference: words,
                valid_until: self.now.plus_seconds(60),
            }),
            (13, _) => Command::FreezeAccount(FreezeAccount { reason: words }),
            (14, _) => Command::UnfreezeAccount(UnfreezeAccount { reason: words }),
            _ => {
                let stream = StreamHash::new(account::NAME, account_id);
                Command::CorrectEntry(CorrectEntry {
                    compensates_event_id: stream.event_id(1).to_string(),
                    amount: self.amount(50),
                    reason: words,
                })
            }
        }
    }

    /// Decides so many random commands over so many accounts; their events are not yet in the log.
    fn decide(&mut self, commands: u64, accounts: u64) -> Vec<Written> {
        let mut written = Vec::new();
        for _ in 0..commands {
            let account_id = format!("acc-{}", self.random(accounts));
            let command = self.command(&account_id);
            self.now = self.now.plus_seconds(i64::try_from(self.random(2_000)).unwrap());
            written.extend(self.decide_one(account_id, &command));
        }
        written
    }

    fn decide_one(&mut self, account_id: String, command: &Command) -> Vec<Written> {
        let mut written = Vec::new();
        let (state, version) = self.accounts.entry(account_id.clone()).or_default();
        let stream = StreamHash::new(account::NAME, &account_id);
        let context = Context {
            now: self.now,
            stream,
            version: *version,
            command_id: Uuid::from_u64_pair(9, *version),
        };
        for event in Account::decide(command, state, &context).unwrap_or_default() {
            Account::evolve(state, &event, self.now);
            *version += 1;
            written.push(Written {
                partition: partition_of(&account_id, PARTITIONS),
                account_id: account_id.clone(),
                sequence: *version,
                event_id: stream.event_id(*version),
                at: self.now,
                event,
            });
        }
        written
    }

    /// Writes events of random commands in one transaction.
    pub(crate) fn work(&mut self, commands: u64, accounts: u64) {
        let written = self.decide(commands, accounts);
        self.write(&written, true);
        self.log.extend(written);
    }

    /// Writes events of random commands, but none of that account's.
    pub(crate) fn work_elsewhere(&mut self, commands: u64, account_id: &str) {
        let mut written = self.decide(commands, 10);
        written.retain(|written| written.account_id != account_id);
        self.write(&written, true);
        self.log.extend(written);
    }

    /// Opens so many accounts and gives each so many deposits, turn by turn.
    pub(crate) fn open_and_deposit(&mut self, accounts: usize, deposits: usize) {
        let mut written = Vec::with_capacity(accounts);
        for account in 0..accounts {
            let account_id = format!("many-{account}");
            let command = self.command(&account_id);
            written.extend(self.decide_one(account_id, &command));
        }
        self.write(&written, true);
        self.log.extend(written);
        self.deposit(accounts, deposits);
    }

    /// Gives each of those accounts so many deposits, turn by turn.
    pub(crate) fn deposit(&mut self, accounts: usize, deposits: usize) {
        for _ in 0..deposits {
            let mut written = Vec::with_capacity(accounts);
            for account in 0..accounts {
                let deposit = Deposit { amount: Amount::whole(5), reference: None };
                self.now.0 += 1_000;
                let account_id = format!("many-{account}");
                written.extend(self.decide_one(account_id, &Command::Deposit(deposit)));
            }
            self.write(&written, true);
            self.log.extend(written);
        }
    }

    /// Writes events of random commands and takes them back.
    pub(crate) fn work_in_vain(&mut self, commands: u64, accounts: u64) {
        let before = (self.accounts.clone(), self.now);
        let written = self.decide(commands, accounts);
        self.write(&written, false);
        (self.accounts, self.now) = before;
    }

    /// Writes events that are in the log already once more, as a restored log might.
    pub(crate) fn repeat(&self, count: usize) {
        let last = self.log.len().saturating_sub(count);
        self.write(&self.log[last..], true);
    }

    fn write(&self, written: &[Written], commit: bool) {
        self.producer.begin_transaction().unwrap();
        for written in written {
            let mut value = Vec::new();
            let kind = self.stack.codec.encode_event(&written.event, &mut value).unwrap();
            self.send(written, kind.full_name, kind.schema_version, &value);
        }
        self.producer.flush(TIMEOUT).unwrap();
        if commit {
            self.producer.commit_transaction(TIMEOUT).unwrap();
        } else {
            self.producer.abort_transaction(TIMEOUT).unwrap();
        }
    }

    /// Writes an event of a type that nobody knows yet.
    pub(crate) fn write_unknown(&mut self, account_id: &str) {
        self.write_bytes(account_id, "millrace.banking.account.AccountPainted", b"whatever");
    }

    /// Writes an event that cannot be decoded.
    pub(crate) fn write_corrupt(&mut self, account_id: &str) {
        self.write_bytes(account_id, "millrace.banking.account.MoneyDeposited", b"\x00");
    }

    fn write_bytes(&mut self, account_id: &str, event_type: &str, value: &[u8]) {
        let (_, version) = self.accounts.get_mut(account_id).unwrap();
        *version += 1;
        let last = self.log.iter().rfind(|written| written.account_id == account_id).unwrap();
        let stream = StreamHash::new(account::NAME, account_id);
        let event_id = stream.event_id(*version);
        let written = Written { sequence: *version, event_id, ..last.clone() };
        self.producer.begin_transaction().unwrap();
        self.send(&written, event_type, 1, value);
        self.producer.flush(TIMEOUT).unwrap();
        self.producer.commit_transaction(TIMEOUT).unwrap();
    }

    fn send(&self, written: &Written, event_type: &str, schema_version: u16, value: &[u8]) {
        let mut headers = Headers::default();
        headers.push("ce_specversion", "1.0");
        headers.push("ce_id", written.event_id.to_string());
        headers.push("ce_type", event_type);
        headers.push("ce_source", &self.stack.topic);
        headers.push("ce_subject", &written.account_id);
        headers.push("ce_time", written.at.to_rfc3339());
        headers.push("sequence", written.sequence.to_string());
        headers.push("schema_version", schema_version.to_string());
        headers.push("command_id", Uuid::from_u64_pair(9, written.sequence).to_string());
        headers.push("correlation_id", "a \"case\"");
        let key = event_key(&written.account_id, written.sequence);
        let mut record = BaseRecord::to(&self.stack.topic)
            .partition(written.partition)
            .key(&key)
            .payload(value)
            .headers(to_owned_headers(&headers));
        while let Err((_, back)) = self.producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
