//! `kill -9` at random moments under load. Afterwards every command has one answer, every accepted
//! one its events once, and both stores equal the log.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apache_avro::types::Value as Avro;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clients::topic_id;
use crate::harness::avro::{Registry, encode, money};
use crate::harness::await_some;
use crate::harness::commands::{command, command_with_id, create, deposit, transfer, withdraw};
use crate::harness::judge;
use crate::harness::kafka::{Message, Place, Producer, own_partition};
use crate::harness::log::{Answers, Message as Decoded, await_transfers, events};
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

const KILLS: usize = 20;
const ACCOUNTS: u32 = 200;
/// Processes side by side, each with every role.
const PROCESSES: usize = 3;
/// How long all partitions may be without an owner: a dead member's session takes 6 s to run out.
const OWNED_WITHIN: Duration = Duration::from_secs(45);
/// Commands that a client sends at once, and its pause behind them.
const BURST: usize = 6;
const PAUSE: Duration = Duration::from_millis(60);

/// One client: what it sends, and what it has sent.
struct Client<'n> {
    namespace: &'n Namespace,
    producer: Producer,
    random: StdRng,
    /// A client that hashes as Java does and speaks Avro where it can.
    by_owner: bool,
    deposits: (u32, std::rc::Rc<apache_avro::Schema>),
    sent: Vec<(Uuid, Message)>,
    ids: BTreeSet<Uuid>,
    without_id: Vec<Place>,
}

impl<'n> Client<'n> {
    fn new(namespace: &'n Namespace, seed: u64, by_owner: bool) -> Self {
        let subject = format!("{}-millrace.banking.account.Deposit", namespace.topic("commands"));
        Self {
            namespace,
            producer: Producer::new(&namespace.stack),
            random: StdRng::seed_from_u64(seed),
            by_owner,
            deposits: Registry::new(namespace).latest(&subject),
            sent: Vec::new(),
            ids: BTreeSet::new(),
            without_id: Vec::new(),
        }
    }

    /// Opens the accounts that are this client's.
    fn open(&mut self) {
        let first = u32::from(self.by_owner);
        let mut burst = Vec::new();
        for account in (first..ACCOUNTS).step_by(2) {
            let opening = create(&format!("jo-{account}"), "SAVINGS", "2500");
            burst.push(self.fresh(&format!("acc-{account}"), &opening));
        }
        self.send(&burst);
    }

    fn run(mut self, stop: &AtomicBool) -> Self {
        self.open();
        while !stop.load(Ordering::Relaxed) {
            let burst: Vec<_> = (0..BURST).map(|_| self.next()).collect();
            self.send(&burst);
            std::thread::sleep(PAUSE);
        }
        self
    }

    fn next(&mut self) -> Message {
        let account = format!("acc-{}", self.random.random_range(0..ACCOUNTS));
        let cents = self.random.random_range(1..200_000);
        let amount = format!("{}.{:02}", cents / 100, cents % 100);
        match self.random.random_range(0..100) {
            // A client that was not answered in time sends again; some mix up their ids.
            0..10 if !self.sent.is_empty() => {
                let at = self.random.random_range(0..self.sent.len());
                self.sent[at].1.clone()
            }
            10..12 if !self.sent.is_empty() => {
                let at = self.random.random_range(0..self.sent.len());
                let (id, old) = &self.sent[at];
                let key = String::from_utf8(old.key.clone().unwrap()).unwrap();
                let other = command_with_id(&key, *id, &deposit("0.07"));
                Message { partition: old.partition, ..other }
            }
            12..17 => Message {
                partition: self.partition(&account),
                ..command(&account, &deposit(&amount))
            },
            17..50 if self.by_owner => {
                let fields = [("amount", money(&amount)), ("reference", Avro::String("x".into()))];
                let value = encode(self.deposits.0, &self.deposits.1, &fields);
                self.fresh_bytes(&account, value)
            }
            17..50 => self.fresh(&account, &deposit(&amount)),
            50..75 => self.fresh(&account, &withdraw(&amount)),
            75..95 => {
                let to = format!("acc-{}", self.random.random_range(0..ACCOUNTS));
                self.fresh(&account, &transfer(&to, &amount))
            }
            95..97 => self.fresh(&account, &json!({"type": "FreezeAccount"})),
            97..99 => self.fresh(&account, &json!({"type": "UnfreezeAccount"})),
            _ => self.fresh(&account, &json!({"type": "Deposit", "amount": 1})),
        }
    }

    fn partition(&self, account: &str) -> Option<i32> {
        self.by_owner.then(|| own_partition(account.as_bytes(), self.namespace.partitions))
    }

    fn fresh(&mut self, account: &str, body: &Value) -> Message {
        self.fresh_bytes(account, body.to_string().into_bytes())
    }

    fn fresh_bytes(&mut self, account: &str, value: Vec<u8>) -> Message {
        let id = Uuid::from_u128(self.random.random());
        let message =
            Message { partition: self.partition(account), ..Message::new(account, value) }
                .header("ce_id", id.to_string());
        self.sent.push((id, message.clone()));
        self.ids.insert(id);
        message
    }

    fn send(&mut self, burst: &[Message]) {
        let places = self.producer.send(&self.namespace.topic("commands"), burst);
        let without = burst.iter().zip(places).filter(|(message, _)| message.headers.is_empty());
        self.without_id.extend(without.map(|(_, place)| place));
    }
}

/// How many partitions' commands are being handled by that process.
fn running(serve: &Serve) -> usize {
    let detail = serve.component("handler.banking").unwrap_or_default();
    let words = detail["detail"].as_str().unwrap_or_default();
    words.split(' ').next().and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Kills until it is enough: all processes at their work, each at its own moment; some of their
/// successors again while they start.
fn kill_on(namespace: &Namespace, processes: &mut [Serve], random: &mut StdRng) -> [usize; 2] {
    let (mut at_work, mut at_start) = (0, 0);
    while at_work + at_start < KILLS {
        let deadline = Instant::now() + OWNED_WITHIN;
        // Four kinds of aggregates have that many partitions each.
        let total = 4 * usize::try_from(namespace.partitions).unwrap();
        while processes.iter().map(running).sum::<usize>() < total {
            assert!(Instant::now() < deadline, "partitions without an owner");
            std::thread::sleep(Duration::from_millis(20));
        }
        for process in processes.iter_mut() {
            // The random moment itself.
            std::thread::sleep(Duration::from_millis(random.random_range(0..700)));
            std::mem::replace(process, Serve::start(namespace, "")).kill();
            at_work += 1;
        }
        if random.random_bool(0.5) {
            std::thread::sleep(Duration::from_millis(random.random_range(0..1_500)));
            let at = random.random_range(0..PROCESSES);
            std::mem::replace(&mut processes[at], Serve::start(namespace, "")).kill();
            at_start += 1;
        }
    }
    [at_work, at_start]
}

#[test]
fn kills_at_any_moment_lose_nothing_and_double_nothing() {
    let namespace = Namespace::as_declared();
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut processes: Vec<Serve> = (0..PROCESSES).map(|_| Serve::start(&namespace, "")).collect();
    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let (sent, kills) = std::thread::scope(|scope| {
        let clients: Vec<_> = [(1, false), (2, true)]
            .map(|(more, by_owner)| {
                let (stop, namespace) = (&stop, &namespace);
                scope.spawn(move || {
                    let client = Client::new(namespace, seed.wrapping_add(more), by_owner);
                    let client = client.run(stop);
                    (client.ids, client.without_id)
                })
            })
            .into();
        // An opening takes several hops: with a kill a second, hardly any account would be there.
        await_some("open accounts", OWNED_WITHIN, || match events(&namespace).len() {
            count if count >= ACCOUNTS as usize / 2 => Ok(()),
            count => Err(format!("{count} events")),
        });
        let kills = kill_on(&namespace, &mut processes, &mut random);
        stop.store(true, Ordering::Relaxed);
        let sent: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (sent, kills)
    });
    let topic = namespace.topic("commands");
    let topic_id = topic_id(&namespace.kafka_tool(&["topics", "--describe", "--topic", &topic]));
    let derived = |place: &Place| {
        Uuid::new_v5(&topic_id, format!("{}:{}", place.partition, place.offset).as_bytes())
    };
    let mut ids: Vec<Uuid> = sent.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    ids.extend(sent.iter().flat_map(|(_, places)| places.iter().map(derived)));
    let load = started.elapsed();
    let mut answers = Answers::new(&namespace);
    answers.await_count(&ids, 1);
    let recovered = started.elapsed() - load;

    await_transfers(&namespace);
    let all = judge::log_is_sound(&namespace);
    judge::read_models_equal_log(&namespace, &all);
    for serve in processes {
        serve.terminate();
    }
    let answers = answers.into_all();
    let known: BTreeSet<String> = ids.iter().map(Uuid::to_string).collect();
    let of_process_manager = |all: &[Decoded]| all[0].record.header("result_of").is_some();
    let is_known =
        |(id, all): (&String, &Vec<Decoded>)| known.contains(id) || of_process_manager(all);
    assert!(answers.iter().all(is_known), "answers to nobody's command");
    judge::results_match_log(&answers, &all);
    let total: usize = answers.values().map(Vec::len).sum();
    println!(
        "{} commands, {total} answers, {} events; {kills:?} kills at work and at a start \
         in {load:?}, \
         recovered in {recovered:?}",
        ids.len(),
        all.len(),
    );
    assert!(ids.len() > 2_000 && all.len() > 1_000 && total > ids.len() + 50, "a real load");
}
