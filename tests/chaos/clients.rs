//! Two clients: one puts a command where its owner reads and sends Avro where it can, one leaves
//! the partition to librdkafka. Each sends what it or the other sent before up to four times more.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apache_avro::types::Value as Avro;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::avro::{Registry, encode, money};
use crate::harness::commands::{create, deposit, transfer, withdraw};
use crate::harness::kafka::{Message, Producer, own_partition};
use crate::harness::namespace::Namespace;
use crate::model::{Sent, Wish};

/// How many accounts there are; each is opened first, by one client or the other.
pub(crate) const ACCOUNTS: u32 = 10_000;
/// These few get every fifth command, so that commands of one account meet in one transaction.
const HOTTEST: u32 = 100;
const OPENING_BURST: usize = 500;
/// New commands that a client sends at once; repeats come on top.
const BURST: usize = 30;
const BURST_EVERY: Duration = Duration::from_millis(100);
/// The most repeats that wait to be sent.
const WAITING_MAX: usize = 5_000;

/// What the clients have sent, and what of it is to be sent again.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) sent: HashMap<Uuid, Sent>,
    /// How many records there are under each id.
    pub(crate) records: HashMap<Uuid, usize>,
    waiting: Vec<(Uuid, Message)>,
}

/// One client.
pub(crate) struct Client<'n> {
    namespace: &'n Namespace,
    shared: &'n Mutex<Shared>,
    producer: Producer,
    random: StdRng,
    number: usize,
    order: u64,
    deposits: (u32, Rc<apache_avro::Schema>),
}

impl<'n> Client<'n> {
    pub(crate) fn new(
        namespace: &'n Namespace,
        shared: &'n Mutex<Shared>,
        seed: u64,
        number: usize,
    ) -> Self {
        let subject = format!("{}-millrace.banking.account.Deposit", namespace.topic("commands"));
        let settings = [("enable.idempotence", "true"), ("reconnect.backoff.max.ms", "1000")];
        Self {
            namespace,
            shared,
            producer: Producer::with(&namespace.stack, &settings),
            random: StdRng::seed_from_u64(seed.wrapping_add(number as u64)),
            number,
            order: 0,
            deposits: Registry::new(namespace).latest(&subject),
        }
    }

    fn by_owner(&self) -> bool {
        self.number == 0
    }

    /// Opens every other account, waits until all are, then sends until it is told to stop.
    pub(crate) fn run(mut self, opened: &AtomicBool, stop: &AtomicBool) {
        let accounts: Vec<u32> =
            (0..ACCOUNTS).filter(|n| (n % 2 == 0) == self.by_owner()).collect();
        for some in accounts.chunks(OPENING_BURST) {
            let burst = some.iter().map(|account| self.opening(*account)).collect();
            self.send(burst);
        }
        while !opened.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(BURST_EVERY);
        }
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let mut burst: Vec<_> = (0..BURST).map(|_| self.fresh()).collect();
            self.add_repeats(&mut burst);
            self.send(burst);
            std::thread::sleep(BURST_EVERY.saturating_sub(started.elapsed()));
        }
    }

    fn opening(&mut self, account: u32) -> (Uuid, Message) {
        let is_savings = self.random.random_bool(0.5);
        let kind = if is_savings { "SAVINGS" } else { "CHECKING" };
        let body = create(&format!("user-{}", account / 4), kind, "2500");
        let wish = Wish::Create { is_savings, deposit: Decimal::from(2_500) };
        self.note(format!("acc-{account}"), wish, None, body.to_string().into_bytes())
    }

    fn fresh(&mut self) -> (Uuid, Message) {
        let among = if self.random.random_bool(0.2) { HOTTEST } else { ACCOUNTS };
        let account = format!("acc-{}", self.random.random_range(0..among));
        let cents: i64 = self.random.random_range(1..200_000);
        let text = format!("{}.{:02}", cents / 100, cents % 100);
        let amount = Decimal::new(cents, 2);
        let expected = self.random.random_bool(0.15).then(|| self.random.random_range(1..=8));
        let bytes = |body: Value| body.to_string().into_bytes();
        let (wish, value) = match self.random.random_range(0..100) {
            0..45 if self.by_owner() && self.random.random_bool(0.5) => {
                let fields = [("amount", money(&text)), ("reference", Avro::String("x".into()))];
                (Wish::Deposit(amount), encode(self.deposits.0, &self.deposits.1, &fields))
            }
            0..45 => (Wish::Deposit(amount), bytes(deposit(&text))),
            45..70 => (Wish::Withdraw(amount), bytes(withdraw(&text))),
            // Nobody receives it here: the money stays under way.
            70..90 => (Wish::Transfer(amount), bytes(transfer("acc-elsewhere", &text))),
            90..93 => (Wish::Freeze, bytes(json!({"type": "FreezeAccount"}))),
            _ => (Wish::Unfreeze, bytes(json!({"type": "UnfreezeAccount"}))),
        };
        self.note(account, wish, expected, value)
    }

    fn note(
        &mut self,
        account: String,
        wish: Wish,
        expected_version: Option<u64>,
        value: Vec<u8>,
    ) -> (Uuid, Message) {
        let id = Uuid::from_u128(self.random.random());
        let mut message = Message::new(&account, value).header("ce_id", id.to_string());
        if let Some(expected) = expected_version {
            message = message.header("expected_version", expected.to_string());
        }
        let (client, order) = (self.number, self.order);
        self.order += 1;
        let repeated_by_another = false;
        let sent = Sent { account, wish, expected_version, client, order, repeated_by_another };
        self.shared.lock().unwrap().sent.insert(id, sent);
        (id, message)
    }

    /// As many of the waiting repeats as there are new commands, at random.
    fn add_repeats(&mut self, burst: &mut Vec<(Uuid, Message)>) {
        let mut shared = self.shared.lock().unwrap();
        for _ in 0..BURST.min(shared.waiting.len()) {
            let at = self.random.random_range(0..shared.waiting.len());
            let (id, mut message) = shared.waiting.swap_remove(at);
            let Some(sent) = shared.sent.get_mut(&id) else { continue };
            // Only what its owner read first is sure to be first: else the mistake would count.
            if sent.client == 0 && self.random.random_bool(0.02) {
                message.value = Some(deposit("0.07").to_string().into_bytes());
            }
            sent.repeated_by_another |= sent.client != self.number;
            burst.push((id, message));
        }
    }

    /// Sends, waits until Kafka has it all, and draws what will be sent again and how often.
    fn send(&mut self, burst: Vec<(Uuid, Message)>) {
        let (ids, mut messages): (Vec<Uuid>, Vec<Message>) = burst.into_iter().unzip();
        for message in &mut messages {
            let key = message.key.as_deref().unwrap();
            let own = own_partition(key, self.namespace.partitions);
            message.partition = self.by_owner().then_some(own);
        }
        self.producer.send(&self.namespace.topic("commands"), &messages);
        let mut shared = self.shared.lock().unwrap();
        for (id, message) in ids.into_iter().zip(messages) {
            let count = shared.records.entry(id).or_default();
            *count += 1;
            if *count > 1 || shared.waiting.len() > WAITING_MAX {
                continue;
            }
            let repeats = match self.random.random_range(0..100) {
                0..50 => 0,
                50..70 => 1,
                70..83 => 2,
                83..93 => 3,
                _ => 4,
            };
            for _ in 0..repeats {
                shared.waiting.push((id, message.clone()));
            }
        }
    }
}
