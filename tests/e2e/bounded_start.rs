//! A start reads the snapshots and the last events, not all events; and whatever it begins with,
//! it decides as if it had read them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::harness::await_some;
use crate::harness::commands::{command_with_id, create, deposit, new_id, withdraw};
use crate::harness::judge;
use crate::harness::kafka::{Message, Producer, Record, read_all};
use crate::harness::log::Answers;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

const ACCOUNTS: usize = 400;
/// Deposits into each account; no snapshot is due for any.
const DEPOSITS: usize = 9;
/// So many events may be left for the next start, in each of the two partitions.
const WANTED: i64 = 100;
/// How long a partition without commands may take until that few are left.
const SWEPT_WITHIN: Duration = Duration::from_secs(60);
const CLEANED_WITHIN: Duration = Duration::from_secs(90);
const POSITION: &[u8] = b"\0position";

struct Bank<'n> {
    namespace: &'n Namespace,
    producer: Producer,
    answers: Answers<'n>,
    /// What each account holds, in dollars, and its version.
    holds: (usize, usize),
}

impl<'n> Bank<'n> {
    fn new(namespace: &'n Namespace) -> Self {
        let (producer, answers) = (Producer::new(&namespace.stack), Answers::new(namespace));
        Self { namespace, producer, answers, holds: (0, 0) }
    }

    fn serve(&self) -> Serve {
        let wanted = WANTED.to_string();
        let settings = [("MILLRACE_HANDLER_RESTORE_EVENTS", wanted.as_str())];
        let mut serve = Serve::start_with(self.namespace, "handler,reactor", &settings);
        serve.wait_ready();
        serve
    }

    /// Sends each account a command that is accepted, or refused for that reason.
    fn round(&mut self, refusal: Option<&str>, body: impl Fn(usize) -> serde_json::Value) {
        let ids: Vec<Uuid> = (0..ACCOUNTS).map(|_| new_id()).collect();
        let message = |account: usize| {
            command_with_id(&format!("acc-{account}"), ids[account], &body(account))
        };
        let messages: Vec<Message> = (0..ACCOUNTS).map(message).collect();
        self.producer.send(&self.namespace.topic("commands"), &messages);
        self.answers.await_count(&ids, 1);
        self.holds.1 += usize::from(refusal.is_none());
        for id in ids {
            let answer = &self.answers.all(id)[0];
            assert_eq!(answer.text("code").filter(|_| !answer.is_accepted()), refusal);
            assert_eq!(answer.fields["version"], self.holds.1, "{answer:?}");
        }
    }

    /// Accounts with a hundred and nine dollars each, and a log that is swept.
    fn open(&mut self, serve: &Serve) {
        self.round(None, |account| create(&format!("kim-{account}"), "CHECKING", "100.00"));
        for _ in 0..DEPOSITS {
            self.round(None, |_| deposit("1.00"));
        }
        self.holds.0 = 100 + DEPOSITS;
        self.await_swept(serve);
    }

    fn snapshots(&self) -> Vec<Record> {
        read_all(self.namespace, &self.namespace.topic("snapshots"))
    }

    /// The last record of a key in a partition of the snapshots.
    fn last(&self, key: &[u8], partition: i32) -> Vec<u8> {
        let found = self.snapshots().into_iter().rev();
        let mut found = found.filter(|one| one.place.partition == partition);
        found.find(|one| one.key.as_deref() == Some(key)).unwrap().value.unwrap()
    }

    /// Writes a record of the snapshots while nobody is there.
    fn meddle(&self, key: &[u8], value: Option<Vec<u8>>, partition: i32) {
        let (key, partition) = (Some(key.to_vec()), Some(partition));
        let message = Message { key, value, partition, ..Message::default() };
        self.producer.send(&self.namespace.topic("snapshots"), &[message]);
    }

    /// Waits until few enough events are left for the next start.
    fn await_swept(&self, serve: &Serve) {
        let topic = format!("topic=\"{}\"", self.namespace.topic("commands"));
        await_some("the sweep", SWEPT_WITHIN, || {
            let metrics = serve.get("/metrics");
            let lines = metrics.lines().filter(|line| line.contains(&topic));
            let lines = lines.filter(|line| line.starts_with("millrace_handler_to_restore"));
            let left: Vec<i64> =
                lines.map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            let is_done = left.len() == 2 && left.iter().all(|left| *left <= WANTED);
            if is_done { Ok(()) } else { Err(format!("{left:?} events are left")) }
        });
    }

    /// What a start has said of the accounts' partitions: the events it has read, by partition.
    fn events_read(&self, serve: &Serve) -> BTreeMap<i64, i64> {
        let log = serve.log();
        let topic = self.namespace.topic("commands");
        let lines = log.lines().filter(|line| line.contains("partition ready"));
        let lines = lines.filter(|line| line.contains(&topic));
        let figure = |line: &str, name: &str| {
            let text = line.split(name).nth(1).unwrap_or_else(|| panic!("{name}: {line}"));
            let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<i64>().unwrap()
        };
        let pair = |line| (figure(line, "partition="), figure(line, "events_read="));
        lines.map(pair).collect()
    }

    /// Every account has just what it had: all of it can be withdrawn, and then nothing more.
    fn decides_as_ever(&mut self) {
        let all = format!("{}.00", self.holds.0);
        self.round(None, |_| withdraw(&all));
        self.round(Some("InsufficientFunds"), |_| withdraw("0.01"));
        self.round(None, |_| deposit(&all));
    }
}

/// What a start that trusts nothing reads: every event there is.
fn events_there(namespace: &Namespace) -> BTreeMap<i64, i64> {
    let mut count = BTreeMap::new();
    for event in read_all(namespace, &namespace.topic("events")) {
        *count.entry(i64::from(event.place.partition)).or_default() += 1;
    }
    count
}

#[test]
fn a_start_reads_snapshots_and_the_last_events_alone() {
    let namespace = Namespace::new();
    let topic = namespace.topic("snapshots");
    let settings = "segment.bytes=1048576,segment.ms=500,min.cleanable.dirty.ratio=0.01,\
                    max.compaction.lag.ms=1000,delete.retention.ms=0";
    let entity = ["configs", "--alter", "--entity-type", "topics", "--entity-name", &topic];
    namespace.kafka_tool(&[&entity[..], &["--add-config", settings]].concat());
    let mut bank = Bank::new(&namespace);
    let serve = bank.serve();
    bank.open(&serve);
    serve.kill();

    // The next life begins where the sweep has come to.
    let serve = bank.serve();
    let (read, all) = (bank.events_read(&serve), events_there(&namespace));
    assert_eq!(all.values().sum::<i64>(), (ACCOUNTS * (1 + DEPOSITS)) as i64);
    assert!(read.len() == 2 && read.values().all(|read| *read <= WANTED), "{read:?} of {all:?}");
    bank.decides_as_ever();

    // And after compaction: a record for each account and the position, but for the newest.
    bank.await_swept(&serve);
    let before: BTreeSet<_> = bank.snapshots().iter().map(|one| one.place).collect();
    await_some("the cleaner", CLEANED_WITHIN, || {
        // A write after segment.ms rolls the active segment, which the cleaner never touches.
        bank.round(Some("InsufficientFunds"), |_| withdraw("5000"));
        let left = bank.snapshots();
        let left = left.iter().filter(|one| before.contains(&one.place)).count();
        let is_done = left <= ACCOUNTS;
        if is_done { Ok(()) } else { Err(format!("{left} of {} stand", before.len())) }
    });
    serve.terminate();
    let serve = bank.serve();
    let (read, all) = (bank.events_read(&serve), events_there(&namespace));
    assert!(read.len() == 2 && read.values().all(|read| *read <= WANTED), "{read:?} of {all:?}");
    assert!(!serve.log().contains("reading all"), "{}", serve.log());
    bank.decides_as_ever();
    judge::results_match_log(&bank.answers.into_all(), &judge::log_is_sound(&namespace));
    serve.terminate();
}

#[test]
fn what_a_start_cannot_rely_on_has_all_events_read() {
    let namespace = Namespace::new();
    let mut bank = Bank::new(&namespace);
    let serve = bank.serve();
    bank.open(&serve);
    serve.terminate();

    // A snapshot is gone, in each partition: what is found is less than what was counted.
    let mut lost = BTreeMap::new();
    for one in bank.snapshots().iter().filter(|one| one.key.as_deref() != Some(POSITION)) {
        lost.insert(one.place.partition, one.key.clone().unwrap());
    }
    assert_eq!(lost.len(), 2);
    for (partition, key) in lost {
        bank.meddle(&key, None, partition);
    }
    let serve = bank.serve();
    assert_eq!(bank.events_read(&serve), events_there(&namespace));
    let log = serve.log();
    assert_eq!(log.matches("began; reading all").count(), 2, "{log}");
    bank.decides_as_ever();
    bank.await_swept(&serve);
    serve.terminate();

    // The position counts on snapshots of another state schema.
    for partition in 0..2 {
        let mut position = bank.last(POSITION, partition);
        let any = bank.snapshots().into_iter().rev();
        let any = any.filter(|one| one.key.as_deref() != Some(POSITION)).find_map(|one| one.value);
        let header = any.unwrap()[..3].to_vec();
        let at = position.windows(3).rposition(|found| found == header).unwrap();
        position[at + 2] ^= 1;
        bank.meddle(POSITION, Some(position), partition);
    }
    let serve = bank.serve();
    assert_eq!(bank.events_read(&serve), events_there(&namespace));
    let log = serve.log();
    assert_eq!(log.matches("the snapshots are those of another version").count(), 2, "{log}");
    bank.decides_as_ever();
    judge::results_match_log(&bank.answers.into_all(), &judge::log_is_sound(&namespace));
    serve.terminate();
}
