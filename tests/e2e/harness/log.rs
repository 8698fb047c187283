//! The log of one namespace, decoded: results and events.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use serde_json::Value;
use uuid::Uuid;

use super::avro::Registry;
use super::await_some;
use super::kafka::{Reader, Record, read_all};
use super::namespace::Namespace;

/// How long results may take: a killed owner's session runs out after 6 s.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

/// How long transfers may take; those that meet a killed owner wait for its session.
const TRANSFERRED_WITHIN: Duration = Duration::from_secs(90);

/// A record with its fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) record: Record,
    /// The full name of its Avro record.
    pub(crate) name: String,
    pub(crate) fields: Value,
}

impl Message {
    fn new(registry: &Registry, record: Record) -> Self {
        let (name, fields) = registry.decode(record.value.as_deref().expect("a value"));
        Self { record, name, fields }
    }

    /// The record's key as text.
    pub(crate) fn key(&self) -> &str {
        std::str::from_utf8(self.record.key.as_deref().expect("a key")).unwrap()
    }

    /// A field's text.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.fields[field].as_str()
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.text("outcome") == Some("ACCEPTED")
    }

    pub(crate) fn is_duplicate(&self) -> bool {
        self.fields["duplicate"] == true
    }
}

/// An event with its place in its stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    pub(crate) message: Message,
    /// The aggregate's id, an account's or another's.
    pub(crate) account: String,
    pub(crate) sequence: u64,
}

impl Event {
    /// `MoneyDeposited` of the full name.
    pub(crate) fn short_name(&self) -> &str {
        self.message.name.rsplit('.').next().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.message.record.header(name)
    }
}

/// Every committed event of an account, by partition in the order of the log.
pub(crate) fn events(namespace: &Namespace) -> Vec<Event> {
    events_of_kind(namespace, "account")
}

/// The same of another kind of aggregate: `transfer`.
pub(crate) fn events_of_kind(namespace: &Namespace, aggregate: &str) -> Vec<Event> {
    let registry = Registry::new(namespace);
    let topic = format!("{}.banking.{aggregate}.events", namespace.name);
    let mut records = read_all(namespace, &topic);
    // Partitions come as the broker answers: two readings of one log are to be equal.
    records.sort_by_key(|record| (record.place.partition, record.place.offset));
    records.into_iter().map(|record| event(&registry, record)).collect()
}

/// Waits until every transfer has been settled or reversed; gives the log as it is then.
pub(crate) fn await_transfers(namespace: &Namespace) -> Vec<Event> {
    await_some("the end of every transfer", TRANSFERRED_WITHIN, || {
        let events = events(namespace);
        let mut open: HashSet<&str> = HashSet::new();
        for event in &events {
            let id = event.message.text("transfer_id").unwrap_or_default();
            match event.short_name() {
                "MoneyTransferred" => open.insert(id),
                "TransferSettled" | "TransferReversed" => open.remove(id),
                _ => false,
            };
        }
        let count = open.len();
        if count == 0 { Ok(events) } else { Err(format!("{count} transfers under way")) }
    })
}

/// Waits until the process managers have told themselves the end of every transfer and opening.
pub(crate) fn await_process_managers(namespace: &Namespace) {
    await_some("process managers at rest", TRANSFERRED_WITHIN, || {
        let sent = events(namespace);
        let sent = sent.iter().filter(|event| event.short_name() == "MoneyTransferred").count();
        let mut last = HashMap::new();
        for aggregate in ["transfer", "account-opening"] {
            for event in events_of_kind(namespace, aggregate) {
                let name = event.short_name().to_owned();
                last.insert((aggregate, event.account), name);
            }
        }
        let known = last.keys().filter(|(aggregate, _)| *aggregate == "transfer").count();
        let ends = ["TransferCompleted", "TransferReversed", "OpeningEnded"];
        let open = last.values().filter(|name| !ends.contains(&name.as_str())).count();
        let what = format!("{known} of {sent} transfers have begun, {open} have not ended");
        if known == sent && open == 0 { Ok(()) } else { Err(what) }
    });
}

fn event(registry: &Registry, record: Record) -> Event {
    let key = record.key.clone().expect("an event's key");
    let (id, sequence) = key.split_at(key.len() - 9);
    assert_eq!(sequence[0], 0, "id, 0x00, sequence");
    Event {
        message: Message::new(registry, record),
        account: String::from_utf8(id.to_vec()).unwrap(),
        sequence: u64::from_be_bytes(sequence[1..].try_into().unwrap()),
    }
}

/// The events of one account, in order.
pub(crate) fn events_of<'e>(events: &'e [Event], account: &str) -> Vec<&'e Event> {
    events.iter().filter(|event| event.account == account).collect()
}

/// The results, as far as they were read.
pub(crate) struct Answers<'n> {
    namespace: &'n Namespace,
    reader: Reader,
    registry: Registry,
    by_id: HashMap<String, Vec<Message>>,
}

impl<'n> Answers<'n> {
    pub(crate) fn new(namespace: &'n Namespace) -> Self {
        Self {
            namespace,
            reader: Reader::new(namespace, &namespace.topic("results")),
            registry: Registry::new(namespace),
            by_id: HashMap::new(),
        }
    }

    /// Waits until each of these command ids has so many answers.
    #[track_caller]
    pub(crate) fn await_count(&mut self, ids: &[Uuid], count: usize) {
        let deadline = Instant::now() + ANSWERED_WITHIN;
        let missing = |by_id: &HashMap<String, Vec<Message>>| {
            let has = |id: &&Uuid| by_id.get(&id.to_string()).is_none_or(|all| all.len() < count);
            ids.iter().filter(has).count()
        };
        // Counting is dear with thousands of ids: only when nothing more comes at once.
        loop {
            match self.reader.poll(Duration::from_millis(50)) {
                Some(record) => self.take(record),
                None if missing(&self.by_id) == 0 => return,
                None => {}
            }
            if Instant::now() > deadline {
                let missing = missing(&self.by_id);
                assert_eq!(missing, 0, "commands of {} without an answer", ids.len());
            }
        }
    }

    fn take(&mut self, record: Record) {
        let message = Message::new(&self.registry, record);
        assert_eq!(message.name, "millrace.CommandResult");
        assert_eq!(message.text("command_id"), Some(message.key()), "a result's key is its id");
        self.by_id.entry(message.key().to_owned()).or_default().push(message);
    }

    /// Every answer to a command id that has come so far.
    pub(crate) fn all(&self, id: Uuid) -> &[Message] {
        self.by_id.get(&id.to_string()).map_or(&[], Vec::as_slice)
    }

    /// Waits for the first answer to a command.
    #[track_caller]
    pub(crate) fn first(&mut self, id: Uuid) -> Message {
        self.await_count(&[id], 1);
        self.all(id)[0].clone()
    }

    /// Waits for that answer to a command, counted from 1.
    #[track_caller]
    pub(crate) fn nth(&mut self, id: Uuid, nth: usize) -> Message {
        self.await_count(&[id], nth);
        self.all(id)[nth - 1].clone()
    }

    /// Every answer that there is, by command id.
    pub(crate) fn into_all(mut self) -> BTreeMap<String, Vec<Message>> {
        self.by_id.clear();
        for record in read_all(self.namespace, &self.namespace.topic("results")) {
            self.take(record);
        }
        self.by_id.into_iter().collect()
    }
}
