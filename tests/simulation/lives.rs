//! A handler and its shelf from life to life, with a driver that is a few lines.

use std::sync::Arc;

use hashbrown::HashMap;
use ring::hmac;
use uuid::Uuid;

use millrace::codec::banking::transfer::TransferCodec;
use millrace::codec::schemas::Schemas;
use millrace::domain::banking::transfer::Transfer;
use millrace::engine::command_handler::CommandHandler;
use millrace::engine::dispatch::Targets;
use millrace::engine::origin::{Origin, Sender, Signed, Source};
use millrace::engine::protocol::{
    Action, Chunk, Committed, From, Handler, Input, Moment, Settings, Transaction,
};
use millrace::engine::shelf::{MemoryShelf, ShelfError};
use millrace::kernel::message::{Headers, Outgoing, Record};
use millrace::kernel::stream::Kind;
use millrace::kernel::time::Timestamp;

pub(crate) const NOW: Timestamp = Timestamp(1_760_000_000_000_000);

/// One life of a handler, over a log that outlives it.
pub(crate) struct Life<'l> {
    pub(crate) handler: CommandHandler<Transfer, TransferCodec>,
    pub(crate) log: &'l mut Log,
    pub(crate) now: Timestamp,
    pub(crate) committed: Option<(i64, String)>,
    /// The offset of the transaction that is open, and where its next records stand.
    open: (i64, String),
    ends: HashMap<Kind, i64>,
    /// What was asked for, in order.
    pub(crate) restored: Vec<(Kind, From)>,
    pub(crate) waits: Vec<String>,
    /// What it came to rest with.
    pub(crate) last: Action,
}

/// What outlives a handler.
pub(crate) type Log = Vec<(Kind, Record)>;

fn settings() -> Settings {
    Settings {
        group: "g".to_owned(),
        cluster_id: "c".to_owned(),
        commands_topic: "commands".to_owned(),
        commands_topic_id: Uuid::from_u128(1),
        events_topic: "events".to_owned(),
        events_topic_id: Uuid::from_u128(2),
        results_topic_id: Uuid::from_u128(3),
        partition: 0,
        partition_count: 1,
        batch_max: 3,
        chunk_max: 2,
        batch_bytes_max: 1 << 20,
        trust_command_time: false,
        snapshot_every: 100,
        window_seconds: 90_000,
        answers_in_memory: 4,
        streams_in_memory: 2,
        restore_events: 1_000,
        key: hmac::Key::new(hmac::HMAC_SHA256, b"key"),
        targets: Targets::default(),
    }
}

impl<'l> Life<'l> {
    fn new(log: &'l mut Log, shelf: &MemoryShelf) -> Self {
        Self::sweeping(log, 1_000, shelf)
    }

    /// One that sweeps from so many events on.
    pub(crate) fn sweeping(log: &'l mut Log, restore_events: u64, shelf: &MemoryShelf) -> Self {
        let codec = Arc::new(TransferCodec::new(Arc::new(Schemas::numbered_from(1))));
        let settings = Settings { restore_events, ..settings() };
        let handler = CommandHandler::new(settings, codec, Box::new(shelf.clone()));
        let (restored, waits, open) = (Vec::new(), Vec::new(), <(i64, String)>::default());
        let (last, ends) = (Action::More, HashMap::new());
        Self { handler, log, now: NOW, committed: None, restored, waits, last, open, ends }
    }

    /// Lives until commands are waited for; `heal` is called at every wait for the shelf.
    pub(crate) fn run(&mut self, mut action: Action, heal: impl Fn()) {
        for _ in 0..10_000 {
            let input = match action {
                Action::Receive { .. } => {
                    self.last = action;
                    return;
                }
                Action::Fence => Input::Fenced,
                Action::ReadCommitted => Input::Committed(Committed {
                    offset: self.committed.clone(),
                    log_start: 0,
                    log_end: 1_000,
                    events_end: self.end(Kind::Events),
                }),
                Action::Restore { kind, from } => {
                    self.restored.push((kind, from));
                    let first = match from {
                        From::Offset(offset) => offset,
                        From::Start | From::Moment(_) => 0,
                    };
                    let of_kind = self.log.iter().filter(|(found, _)| *found == kind);
                    let records: Vec<_> = of_kind.map(|(_, record)| record.clone()).collect();
                    let records = records.into_iter().filter(|record| record.offset >= first);
                    let next = self.step(Input::Restored(records.collect()));
                    match next {
                        Action::More => Input::RestoreEnd,
                        other => {
                            action = other;
                            continue;
                        }
                    }
                }
                Action::Ready { .. } => Input::Started,
                Action::Transact(Transaction { next_offset, metadata, chunk }) => {
                    self.open = (next_offset, metadata);
                    self.ends.clear();
                    self.write(&chunk)
                }
                Action::Append(chunk) => self.write(&chunk),
                Action::Wait { reason, .. } => {
                    self.waits.push(reason);
                    heal();
                    Input::Woken
                }
                other => panic!("{other:?}"),
            };
            action = self.step(input);
        }
        panic!("it never comes to rest");
    }

    /// The offset behind the last transaction's marker.
    fn end(&self, kind: Kind) -> i64 {
        let of_kind = self.log.iter().rfind(|(found, _)| *found == kind);
        of_kind.map_or(0, |(_, record)| record.offset + 2)
    }

    pub(crate) fn step(&mut self, input: Input) -> Action {
        self.handler.step(Moment { now: self.now, nonce: self.log.len() as u64 + 1 }, input)
    }

    pub(crate) fn start(&mut self) {
        let action = self.handler.start();
        self.run(action, || {});
    }

    fn write(&mut self, chunk: &Chunk) -> Input {
        let mut last_result = None;
        for Outgoing { kind, key, value, headers } in &chunk.records {
            let end = self.end(*kind);
            let next = self.ends.entry(*kind).or_insert(end);
            let offset = *next;
            *next += 1;
            let boxed = |bytes: &Option<Vec<u8>>| bytes.clone().map(Vec::into_boxed_slice);
            let (key, value, headers) = (boxed(key), boxed(value), headers.clone());
            let record = Record { offset, timestamp_ms: NOW.millis(), key, value, headers };
            self.log.push((*kind, record));
            if *kind == Kind::Results {
                last_result = Some(offset);
            }
        }
        if !chunk.is_last {
            return Input::Written(Vec::new());
        }
        self.committed = Some(self.open.clone());
        Input::TransactionCommitted { last_result }
    }

    /// Sends a command for each of these numbers, each to a transfer of its own.
    pub(crate) fn send(
        &mut self,
        numbers: std::ops::Range<u64>,
        first_offset: i64,
        heal: impl Fn(),
    ) {
        let command = |(number, offset): (u64, i64)| {
            let (id, key) =
                (Uuid::from_u128(u128::from(number)).to_string(), format!("t-{number}"));
            let body = r#"{"type":"StartTransfer","user_id":"u","currency":"USD","amount":"1.00",
                "from_account_id":"a","to_account_id":"b","fee":"2.00"}"#;
            let signed = Signed {
                topic: "commands",
                key: key.as_bytes(),
                command_id: id.as_bytes(),
                value: body.as_bytes(),
            };
            let source =
                Source { group: "r".to_owned(), topic_id: Uuid::from_u128(9), partition: 0 };
            let origin = Origin { sender: Sender::ProcessManager, source, offset, index: 0 };
            let mut headers = Headers::default();
            headers.push("ce_id", &id);
            headers.push("origin", origin.to_header(signed, &settings().key));
            let key = Some(key.into_bytes().into_boxed_slice());
            let value = Some(body.as_bytes().into());
            Record { offset, timestamp_ms: NOW.millis(), key, value, headers }
        };
        let records = numbers.zip(first_offset..).map(command).collect();
        let action = self.step(Input::Arrived(records));
        self.run(action, heal);
    }

    pub(crate) fn count(log: &[(Kind, Record)], kind: Kind) -> usize {
        log.iter().filter(|(found, _)| *found == kind).count()
    }

    fn counts(log: &[(Kind, Record)]) -> (usize, usize) {
        (Self::count(log, Kind::Results), Self::count(log, Kind::Events))
    }
}

/// A first life that has decided forty commands.
fn lived(log: &mut Log, shelf: &MemoryShelf) -> Option<(i64, String)> {
    let mut life = Life::new(log, shelf);
    life.start();
    life.send(0..40, 0, || {});
    let counts = life.handler.counts();
    assert_eq!((counts.streams, counts.answers), (40, 40));
    assert!(counts.streams_in_memory <= 2 && counts.answers_in_memory <= 5, "{counts:?}");
    life.committed
}

/// The next life gets every command again, and answers each as a repeat.
fn all_is_remembered(life: &mut Life<'_>) {
    life.start();
    assert_eq!(life.handler.counts().streams, 40);
    life.send(0..40, 40, || {});
    let (results, events) = Life::counts(life.log);
    assert_eq!((results, events), (80, 40), "nothing was decided twice");
}

fn results_read(life: &Life<'_>) -> Vec<From> {
    let of_results = life.restored.iter().filter(|(kind, _)| *kind == Kind::Results);
    of_results.map(|(_, from)| *from).collect()
}

#[test]
fn the_next_owner_reads_the_tail_alone() {
    let (mut log, shelf) = (Vec::new(), MemoryShelf::default());
    let committed = lived(&mut log, &shelf);
    let mut life = Life { committed, ..Life::new(&mut log, &shelf) };
    all_is_remembered(&mut life);
    let read = results_read(&life);
    assert!(matches!(read[..], [From::Offset(offset)] if offset >= 32), "{read:?}");
}

#[test]
fn without_its_shelf_it_reads_the_window() {
    let (mut log, shelf) = (Vec::new(), MemoryShelf::default());
    let committed = lived(&mut log, &shelf);
    let mut life = Life { committed, ..Life::new(&mut log, &MemoryShelf::default()) };
    all_is_remembered(&mut life);
    let since = From::Moment(NOW.plus_seconds(-90_000));
    assert_eq!(results_read(&life), [since]);
}

#[test]
fn a_log_with_another_history_has_the_window_read_again() {
    for lost in [true, false] {
        let (mut log, shelf) = (Vec::new(), MemoryShelf::default());
        let committed = lived(&mut log, &shelf);
        let mut results = log.iter_mut().filter(|(kind, _)| *kind == Kind::Results);
        if lost {
            // The brokers' log ends before the record that the shelf knows.
            results.for_each(|(_, record)| record.offset /= 4);
        } else {
            // The record that the shelf knows stands elsewhere, and another one in its place.
            results.next_back().unwrap().1.offset += 1;
            let mut before = 0;
            for (_, record) in results {
                before += 1;
                record.offset += i64::from(before > 20);
            }
        }
        let mut life = Life { committed, ..Life::new(&mut log, &shelf) };
        life.start();
        let read = results_read(&life);
        assert!(matches!(read[..], [From::Offset(_), From::Moment(_)]), "{read:?}");
        life.send(0..40, 40, || {});
        assert_eq!(Life::counts(life.log).1, 40, "nothing was decided twice");
    }
}

#[test]
fn a_full_disk_is_waited_for_and_loses_nothing() {
    let (mut log, shelf) = (Vec::new(), MemoryShelf::default());
    let mut life = Life::new(&mut log, &shelf);
    life.start();
    let full = ShelfError::Away("disk full".to_owned());
    shelf.set_trouble(Some(full.clone()));
    life.send(0..40, 0, || shelf.set_trouble(None));
    assert_eq!(life.waits, ["disk full"]);
    assert_eq!(Life::counts(life.log), (40, 40));
    // And for a lookup.
    shelf.set_trouble(Some(full));
    life.send(0..40, 40, || shelf.set_trouble(None));
    assert_eq!(life.waits.len(), 2);
    assert_eq!(Life::counts(life.log), (80, 40));
}

#[test]
fn a_damaged_shelf_is_thrown_away_and_everything_read_again() {
    let (mut log, shelf) = (Vec::new(), MemoryShelf::default());
    let mut life = Life::new(&mut log, &shelf);
    life.start();
    life.send(0..40, 0, || {});
    shelf.set_trouble(Some(ShelfError::Damaged("checksum".to_owned())));
    let arrived = life.restored.len();
    life.send(0..1, 40, || {});
    assert!(life.restored.len() > arrived, "it started over");
    // The commands that had arrived are read again from its position.
    life.send(0..40, 40, || {});
    assert_eq!(Life::counts(life.log), (80, 40));
}
