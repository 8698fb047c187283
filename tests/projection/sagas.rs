//! Transfers, openings and customers that write their own log: random news, decided by the real
//! rules. What the read models must show of it is folded from the events' JSON, not from their
//! types.

use std::collections::BTreeMap;
use std::time::Duration;

use millrace::domain::banking::account::AccountType;
use millrace::domain::banking::account_opening::{self, Opening, Wanted};
use millrace::domain::banking::customer::{self, Customer};
use millrace::domain::banking::transfer::{
    Abandon, Command, RecordFailed, RecordRefused, Resume, StartTransfer, Step, Transfer,
};
use millrace::domain::money::{Amount, Currency};
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::{Context, Decider};
use millrace::kernel::message::Headers;
use millrace::kernel::stream::{StreamHash, event_key, partition_of};
use millrace::kernel::time::Timestamp;
use millrace::log::kafka::client;
use millrace::log::kafka::convert::to_owned_headers;
use millrace::read_model::banking::Codecs;
use millrace::topology;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::stack::{PARTITIONS, Stack};

const TIMEOUT: Duration = Duration::from_secs(30);

/// An event that is in the log.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) aggregate: &'static str,
    pub(crate) id: String,
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    pub(crate) event_type: String,
    pub(crate) fields: Value,
}

type Streams<D> = BTreeMap<String, (<D as Decider>::State, u64)>;

pub(crate) struct Sagas<'a> {
    stack: &'a Stack,
    producer: ThreadedProducer<DefaultProducerContext>,
    codecs: Codecs,
    random: u64,
    now: Timestamp,
    transfers: Streams<Transfer>,
    openings: Streams<Opening>,
    customers: Streams<Customer>,
    pub(crate) log: Vec<Told>,
}

impl<'a> Sagas<'a> {
    pub(crate) fn new(stack: &'a Stack, seed: u64) -> Self {
        let id = stack.config.namespace.dotted(&format!("sagas-{seed}"));
        let options = client::transactional_producer(&stack.config.kafka, &id);
        let producer = client::threaded_producer(&options, DefaultProducerContext).unwrap();
        producer.init_transactions(TIMEOUT).unwrap();
        Self {
            stack,
            producer,
            codecs: topology::banking_codecs(&stack.schemas),
            random: seed,
            now: millrace::clock::now().plus_seconds(-86_400),
            transfers: BTreeMap::new(),
            openings: BTreeMap::new(),
            customers: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % below
    }

    /// Tells so many streams of each kind so much news, in one transaction.
    pub(crate) fn work(&mut self, news: u64, streams: u64) {
        self.producer.begin_transaction().unwrap();
        for _ in 0..news {
            self.now = self.now.plus_seconds(i64::try_from(self.random(60)).unwrap());
            let id = format!("{}", self.random(streams));
            match self.random(4) {
                0 => self.tell_a_customer(&id),
                1 => self.tell_an_opening(&id),
                _ => self.tell_a_transfer(&id),
            }
        }
        self.producer.flush(TIMEOUT).unwrap();
        self.producer.commit_transaction(TIMEOUT).unwrap();
    }

    fn tell_a_transfer(&mut self, id: &str) {
        // Mostly about what is under way.
        let under_way = self.transfers.get(id).and_then(|(state, _)| state.step());
        let any = Step::ALL[usize::try_from(self.random(3)).unwrap()];
        let step = under_way.filter(|_| self.random(4) > 0).unwrap_or(any);
        let codes = ["AccountNotFound", "Expired", "TransferNotOpen", "Unverifiable"];
        let code = codes[usize::try_from(self.random(4)).unwrap()].to_owned();
        let command = match self.random(13) {
            _ if !self.transfers.contains_key(id) => Command::StartTransfer(StartTransfer {
                user_id: format!("user-{}", self.random(5)),
                currency: Currency::parse(["USD", "JPY"][usize::from(id.len() > 1)]).unwrap(),
                from_account_id: format!("from-{id}"),
                to_account_id: format!("to-{id}"),
                amount: Amount::whole(i32::try_from(1 + self.random(20_000)).unwrap()),
                fee: Amount::whole(2),
                reference: (self.random(2) == 0).then(|| "rent".to_owned()),
            }),
            0..=1 => Command::RecordReceived,
            2 => Command::RecordSettled,
            3 => Command::RecordReversed,
            4..=5 => Command::RecordRefused(RecordRefused { step, code }),
            6..=8 => Command::RecordFailed(RecordFailed { step, code }),
            9..=10 => Command::Wake,
            11 => Command::Resume(Resume { received: None }),
            _ => Command::Abandon(Abandon { reason: None }),
        };
        let (codec, mut streams) = (self.codecs.transfers.clone(), Streams::<Transfer>::new());
        std::mem::swap(&mut streams, &mut self.transfers);
        self.decide::<Transfer>(&*codec, &mut streams, id, &command);
        self.transfers = streams;
    }

    fn tell_an_opening(&mut self, id: &str) {
        use account_opening::{Command, Step};
        let step = Step::ALL[usize::try_from(self.random(6)).unwrap()];
        let code = "InternalError".to_owned();
        let command = match self.random(12) {
            _ if !self.openings.contains_key(id) => Command::StartOpening(Wanted {
                user_id: format!("user-{}", self.random(5)),
                account_id: format!("acc-{id}"),
                account_type: AccountType::parse("SAVINGS").unwrap(),
                initial_deposit: Amount::whole(i32::try_from(100 + self.random(900)).unwrap()),
                currency: Currency::USD,
                client_command_id: Uuid::from_u64_pair(5, self.random).to_string(),
                client_reply_to: None,
            }),
            0..=1 => Command::RecordReserved,
            2 => Command::RecordDenied { code: "AccountLimit".to_owned() },
            3..=4 => Command::RecordOpened,
            5 => Command::RecordConfirmed,
            6 => Command::RecordReleased,
            7 => Command::RecordClosed,
            8 => Command::RecordFreed,
            9..=10 => Command::RecordFailed { step, code },
            _ => Command::Wake,
        };
        let (codec, mut streams) = (self.codecs.openings.clone(), Streams::<Opening>::new());
        std::mem::swap(&mut streams, &mut self.openings);
        self.decide::<Opening>(&*codec, &mut streams, id, &command);
        self.openings = streams;
    }

    fn tell_a_customer(&mut self, id: &str) {
        use customer::Command;
        let slot_id = format!("slot-{}", self.random(12));
        let command = match self.random(6) {
            0..=2 => Command::ReserveSlot {
                user_id: id.to_owned(),
                account_id: format!("acc-{slot_id}"),
                slot_id,
            },
            3 => Command::ConfirmSlot { slot_id },
            4 => Command::ReleaseSlot { slot_id },
            _ => Command::FreeSlot { slot_id },
        };
        let (codec, mut streams) = (self.codecs.customers.clone(), Streams::<Customer>::new());
        std::mem::swap(&mut streams, &mut self.customers);
        self.decide::<Customer>(&*codec, &mut streams, id, &command);
        self.customers = streams;
    }

    fn decide<D: Decider<Event: Serialize>>(
        &mut self,
        codec: &dyn Codec<D>,
        streams: &mut Streams<D>,
        id: &str,
        command: &D::Command,
    ) {
        let (state, version) = streams.get(id).cloned().unwrap_or_default();
        let stream = StreamHash::new(D::NAME, id);
        let command_id = Uuid::from_u64_pair(11, version);
        let context = Context { now: self.now, stream, version, command_id };
        for event in D::decide(command, &state, &context).unwrap_or_default() {
            let (state, version) = streams.entry(id.to_owned()).or_default();
            D::evolve(state, &event, self.now);
            *version += 1;
            let mut value = Vec::new();
            let kind = codec.encode_event(&event, &mut value).unwrap();
            let told = Told {
                aggregate: D::NAME.aggregate,
                id: id.to_owned(),
                sequence: *version,
                at: self.now,
                event_type: kind.full_name.rsplit('.').next().unwrap().to_owned(),
                fields: serde_json::to_value(&event).unwrap(),
            };
            let event_id = stream.event_id(*version).to_string();
            let number = kind.schema_version.to_string();
            self.send(&told, &event_id, kind.full_name, &number, &value);
            self.log.push(told);
        }
    }

    fn send(&self, told: &Told, event_id: &str, name: &str, schema_version: &str, value: &[u8]) {
        let mut headers = Headers::default();
        headers.push("ce_id", event_id);
        headers.push("ce_type", name);
        headers.push("ce_time", told.at.to_rfc3339());
        headers.push("schema_version", schema_version);
        let key = event_key(&told.id, told.sequence);
        let topic = self.stack.topic_of(told.aggregate);
        let mut record = BaseRecord::to(&topic)
            .partition(partition_of(&told.id, PARTITIONS))
            .key(&key)
            .payload(value)
            .headers(to_owned_headers(&headers));
        while let Err((_, back)) = self.producer.send(record) {
            record = back;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// One line a transfer, in the order of the view's columns.
fn transfers(log: &[Told]) -> Vec<String> {
    let mut streams: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in log.iter().filter(|told| told.aggregate == "transfer") {
        streams.entry(&told.id).or_default().push(told);
    }
    let line = |(id, all): (&str, Vec<&Told>)| {
        let named = |name: &str| all.iter().rfind(|told| told.event_type == name).copied();
        let of = |told: &Told, field: &str| told.fields[field].as_str().map(str::to_owned);
        let (first, last) = (all[0], all[all.len() - 1]);
        let refusal = named("ReversalStarted").and_then(|told| of(told, "reason"));
        // What only repeats or fails does not unpark; a failure does not happen to a parked one.
        let parked = (last.event_type == "TransferParked").then(|| {
            format!("parked at {}: {}", of(last, "step").unwrap(), of(last, "reason").unwrap())
        });
        let ended = named("TransferCompleted").or(named("TransferReversed"));
        let state = match ended.map(|told| told.event_type.as_str()) {
            Some("TransferCompleted") => "COMPLETED",
            Some(_) => "REVERSED",
            None => "PENDING",
        };
        let due = last.fields["deadline"].as_i64().or(last.fields["retry_at"].as_i64());
        let time = |at: Option<i64>| at.map_or("-".to_owned(), |at| at.to_string());
        [
            id.to_owned(),
            state.to_owned(),
            of(first, "from_account_id").unwrap(),
            of(first, "to_account_id").unwrap(),
            of(first, "amount").unwrap(),
            of(first, "fee").unwrap(),
            of(first, "currency").unwrap(),
            parked.or(refusal).unwrap_or("-".to_owned()),
            time(due),
            time(Some(first.at.0)),
            time(ended.map(|told| told.at.0)),
            last.sequence.to_string(),
        ]
        .join("|")
    };
    streams.into_iter().map(line).collect()
}

/// Compares Postgres' transfers with a fold of the log; gives them.
pub(crate) async fn assert_transfers(stack: &Stack, log: &[Told]) -> Vec<String> {
    let client = stack.database().client().await.unwrap();
    let domain = stack.config.namespace.underscored("banking");
    let micros = |name| format!("coalesce((extract(epoch FROM {name}) * 1e6)::bigint::text, '-')");
    let select = format!(
        "SELECT concat_ws('|', transfer_id, state, from_account_id, to_account_id,
             trim_scale(amount), trim_scale(fee), currency, coalesce(reason, '-'),
             {}, {}, {}, version) AS line
         FROM {domain}.transfer ORDER BY transfer_id COLLATE \"C\"",
        micros("deadline"),
        micros("created_at"),
        micros("ended_at"),
    );
    let rows = client.query(&select, &[]).await.unwrap();
    let found: Vec<String> = rows.iter().map(|row| row.get("line")).collect();
    assert_eq!(found, transfers(log));
    found
}

/// Compares ClickHouse's events of these aggregates with the log.
pub(crate) async fn assert_events(stack: &Stack, log: &[Told]) {
    let database = stack.events();
    let select = format!(
        "SELECT concat(aggregate, '/', aggregate_id, '#', toString(sequence), ' ', event_type, ' ',
             user_id, ' ', toString(toFloat64(amount)), ' ', currency, ' ', payload)
         FROM {}.event WHERE domain = 'banking' AND aggregate != 'account'",
        database.name()
    );
    let mut found: Vec<String> = database.client().query(&select).fetch_all().await.unwrap();
    let text = |told: &Told, field: &str| told.fields[field].as_str().map(str::to_owned);
    let line = |told: &Told| {
        let Told { aggregate, id, sequence, event_type, fields, .. } = told;
        let amount = text(told, "amount").or(text(told, "initial_deposit"));
        let currency = amount.as_ref().and_then(|_| text(told, "currency")).unwrap_or_default();
        let (amount, user_id) = (amount.unwrap_or("0".to_owned()), text(told, "user_id").unwrap());
        format!("{aggregate}/{id}#{sequence} {event_type} {user_id} {amount} {currency} {fields}")
    };
    let mut expected: Vec<String> = log.iter().map(line).collect();
    // Both as parsed JSON would print it: the order of fields is nobody's business.
    found.iter_mut().chain(&mut expected).for_each(|line| {
        let (head, payload) = line.split_once('{').unwrap();
        let payload: Value = serde_json::from_str(&format!("{{{payload}")).unwrap();
        *line = format!("{head}{payload}");
    });
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}
