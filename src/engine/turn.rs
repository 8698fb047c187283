//! One turn of a handler: commands -> decide -> events, results, dead letters, all for one
//! transaction.
//!
//! A turn works on an overlay: the committed state stays as it is until the transaction has
//! committed, so an abort costs nothing but the overlay.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hashbrown::HashMap;

use super::dedup::Answer;
use super::draft::{Changes, Draft};
use super::metadata::Metadata;
use super::origin::{Origin, Sender};
use super::position::Position;
use super::protocol::{Crossing, Settings};
use super::recall::Memory;
use super::reply::{
    EventPlace, FORBIDDEN, Place, Refusal, Request, Verdict, command_result, dead_letter,
    event_record, malformed, owned, panic_text, result_record, version_conflict,
};
use super::shelf::ShelfError;
use super::snapshot;
use super::sweep::SAVED;
use crate::kernel::codec::{BadCommand, Codec, Decoded, Undecoded};
use crate::kernel::decider::{Context, Decider, Rejection, Timer};
use crate::kernel::message::{Outgoing, Record};
use crate::kernel::result::CommandResult;
use crate::kernel::stream::{ID_BYTES_MAX, StreamHash, is_aggregate_id, partition_of};
use crate::kernel::time::Timestamp;

/// The longest value of a command, in bytes.
pub const COMMAND_BYTES_MAX: usize = 1024 * 1024;
/// The most bytes of one event with key and headers; the topics take a little more.
pub const EVENT_BYTES_MAX: usize = 1_572_864;

/// What is known of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream<S> {
    /// The fold of its events.
    pub state: S,
    /// How many events it has.
    pub version: u64,
    /// The time of its last event.
    pub last_time: Timestamp,
    /// Its hash.
    pub hash: StreamHash,
    /// A lower bound of the place of its first event that no snapshot covers, or `SAVED`.
    pub unsaved_from: i64,
}

/// Streams by aggregate id.
pub type Overlay<S> = HashMap<Arc<str>, Stream<S>>;

/// The schema that the registry must be asked for before this command can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeedsSchema(pub u32);

/// The work of one transaction, before it is committed.
pub struct Turn<'a, D: Decider, C> {
    pub(super) settings: &'a Settings,
    codec: &'a C,
    pub(super) memory: Memory<'a, D::State>,
    /// Streams that were fetched from the shelf.
    pub(super) fetched: Overlay<D::State>,
    /// Once the shelf did not answer, nothing that was decided counts.
    pub(super) trouble: Option<ShelfError>,
    pub(super) position: &'a Position,
    pub(super) now: Timestamp,
    pub(super) changes: Changes<D>,
    pub(super) snapshots_due: BTreeSet<String>,
    time_text: (Timestamp, String),
    /// The records of the transaction, in order.
    pub records: Vec<Outgoing>,
    /// What goes to other partitions first.
    pub crossings: Vec<Crossing>,
}

impl<'a, D: Decider, C: Codec<D>> Turn<'a, D, C> {
    /// Goes on with a turn, or begins one.
    pub fn resume(
        settings: &'a Settings,
        codec: &'a C,
        memory: Memory<'a, D::State>,
        position: &'a Position,
        draft: Draft<D>,
    ) -> Self {
        let Draft { now, fetched, changes, snapshots_due, time_text, records, crossings } = draft;
        Self {
            settings,
            codec,
            memory,
            fetched,
            trouble: None,
            position,
            now,
            changes,
            snapshots_due,
            time_text,
            records,
            crossings,
        }
    }

    /// What has come of the turn so far.
    ///
    /// # Errors
    /// The shelf did not answer: nothing that was decided counts.
    pub fn pause(self) -> Result<Draft<D>, ShelfError> {
        let Self { now, fetched, changes, snapshots_due, time_text, records, crossings, .. } = self;
        let draft = Draft { now, fetched, changes, snapshots_due, time_text, records, crossings };
        self.trouble.map_or(Ok(draft), Err)
    }

    /// Takes one command in. A panic on the way is our bug, but it must not stop the partition.
    ///
    /// # Errors
    /// A schema must be looked up first; the turn is as it was before.
    pub fn take(&mut self, record: &Record) -> Result<(), NeedsSchema> {
        let (records, crossings) = (self.records.len(), self.crossings.len());
        match catch_unwind(AssertUnwindSafe(|| self.take_unguarded(record))) {
            Ok(taken) => taken,
            Err(panic) => {
                self.records.truncate(records);
                self.crossings.truncate(crossings);
                self.fail(record, panic_text(panic.as_ref()));
                Ok(())
            }
        }
    }

    fn take_unguarded(&mut self, record: &Record) -> Result<(), NeedsSchema> {
        let Some(key) = record.key.as_deref() else {
            return self.take_without_key(record);
        };
        match std::str::from_utf8(key) {
            Ok(id) if is_aggregate_id(id) => {
                let partition = partition_of(id, self.settings.partition_count);
                if partition == self.settings.partition {
                    self.take_own(record, id)
                } else {
                    self.cross(record, id, partition);
                    Ok(())
                }
            }
            _ => {
                let reason =
                    format!("the key must be UTF-8 of 1 to {ID_BYTES_MAX} bytes without NUL");
                let code = "InvalidKey";
                self.refuse_unread(record, BadCommand { code, reason, ..BadCommand::default() });
                Ok(())
            }
        }
    }

    /// A command without a key: its body says whose it is.
    fn take_without_key(&mut self, record: &Record) -> Result<(), NeedsSchema> {
        match self.decode(record, None)? {
            Ok(decoded) => {
                let id = decoded.aggregate_id.as_deref().unwrap_or_default();
                let partition = partition_of(id, self.settings.partition_count);
                if partition == self.settings.partition {
                    self.take_own(record, id)
                } else {
                    self.cross(record, id, partition);
                    Ok(())
                }
            }
            Err(bad) => {
                self.refuse_unread(record, bad);
                Ok(())
            }
        }
    }

    fn decode(
        &self,
        record: &Record,
        key_id: Option<&str>,
    ) -> Result<Result<Decoded<D::Command>, BadCommand>, NeedsSchema> {
        let length = record.value.as_ref().map_or(0, |value| value.len());
        if length > COMMAND_BYTES_MAX {
            let reason = format!("{length} bytes; at most {COMMAND_BYTES_MAX} are taken");
            return Ok(Err(BadCommand { code: "TooLarge", reason, ..BadCommand::default() }));
        }
        match self.codec.decode_command(key_id, record.value.as_deref()) {
            Ok(decoded) => Ok(Ok(decoded)),
            Err(Undecoded::Bad(bad)) => Ok(Err(*bad)),
            Err(Undecoded::UnknownSchema(id)) => Err(NeedsSchema(id)),
        }
    }

    /// A command of an aggregate that is ours.
    fn take_own(&mut self, record: &Record, id: &str) -> Result<(), NeedsSchema> {
        let origin = record
            .headers
            .get("origin")
            .and_then(|header| Origin::verify(header, self.signed(record, id), &self.settings.key));
        if origin.as_ref().is_some_and(|origin| !self.is_news(origin)) {
            return Ok(()); // A repeat of ours is no command.
        }
        let decoded = self.decode(record, Some(id))?;
        let first_place = match &origin {
            Some(Origin { sender: Sender::Router, source, offset, .. }) => {
                Place(source.topic_id, source.partition, *offset)
            }
            _ => self.place(record),
        };
        let from_process_manager =
            origin.as_ref().is_some_and(|origin| origin.sender.is_process_manager());
        if let Some(origin) = origin.filter(|origin| origin.sender.is_ordered()) {
            self.changes.origins.insert(origin.source, (origin.offset, origin.index));
        }
        self.fetch(id);
        match decoded {
            Ok(decoded) => {
                let (metadata, bad) = Metadata::read(&record.headers, &decoded.body);
                let behalf =
                    if from_process_manager { D::on_behalf_of(&decoded.command) } else { None };
                let command_id = metadata.command_id_or(|| first_place.id());
                let request = Request {
                    record: Some(record),
                    aggregate_id: id,
                    stream: self.stream_hash(id),
                    command_id,
                    content_hash: decoded.content_hash,
                    metadata,
                    from_process_manager,
                    on_behalf_of: None,
                };
                let request = self.naming_its_client(request, behalf.as_ref());
                let verdict = match bad {
                    Some(bad) => self.known(&request).unwrap_or_else(|| {
                        Verdict::Refused(malformed("InvalidField", Some(bad.field), bad.reason))
                    }),
                    None => self.judge(&request, &decoded.command),
                };
                if matches!(verdict, Verdict::HandedOn) {
                    self.changes.command_count += 1;
                    return Ok(());
                }
                let result = self.answer(&request, verdict);
                if let Some(behalf) = behalf {
                    self.answer_on_behalf(&request, &behalf, result);
                }
            }
            Err(mut bad) => {
                bad.aggregate_id = Some(id.to_owned());
                self.refuse(record, bad, first_place, from_process_manager);
            }
        }
        Ok(())
    }

    pub(super) fn place(&self, record: &Record) -> Place {
        Place(self.settings.commands_topic_id, self.settings.partition, record.offset)
    }

    /// The order of checks: known id, who may, expected version, then the domain's own.
    pub(super) fn judge(&mut self, request: &Request<'_>, command: &D::Command) -> Verdict {
        if let Some(known) = self.known(request) {
            return known;
        }
        if D::is_internal(command) && !request.from_process_manager {
            return Verdict::Refused(Refusal {
                code: FORBIDDEN,
                message: "only a process manager may send this command".to_owned(),
                ..Refusal::default()
            });
        }
        let stream = self.stream(request.aggregate_id).cloned();
        let mut stream = stream.unwrap_or_else(|| Stream {
            state: D::State::default(),
            version: 0,
            last_time: Timestamp::default(),
            hash: request.stream,
            unsaved_from: SAVED,
        });
        if let Some(expected) = request.metadata.expected_version
            && expected != stream.version
        {
            return version_conflict(expected, stream.version);
        }
        let context = Context {
            now: self.now.max(stream.last_time),
            stream: stream.hash,
            version: stream.version,
            command_id: request.command_id,
        };
        let at = self.event_time(request, stream.last_time);
        // A panic is our bug, but it must not stop the partition: the state is dropped with it.
        let decided = catch_unwind(AssertUnwindSafe(|| {
            let events = D::decide(command, &stream.state, &context)?;
            for event in &events {
                D::evolve(&mut stream.state, event, at);
            }
            Ok::<_, D::Rejection>((events, stream))
        }));
        match decided {
            Ok(Ok((events, stream))) => self
                .hand_on(request, command, &events, &context)
                .unwrap_or_else(|| self.accept(request, &events, stream, at)),
            Ok(Err(rejection)) => Verdict::Refused(Refusal {
                code: rejection.code(),
                message: rejection.message(),
                retryable: rejection.is_retryable(),
                details: owned(rejection.details()),
                is_malformed: rejection.is_malformed(),
            }),
            Err(panic) => Verdict::Failed(panic_text(panic.as_ref())),
        }
    }

    /// A client's own time counts if it is trusted. What a process manager says of its own accord
    /// happens now, although the client's time goes along with it.
    fn event_time(&self, request: &Request<'_>, last_time: Timestamp) -> Timestamp {
        let now = self.now.max(last_time);
        let is_clients = !request.from_process_manager || request.on_behalf_of.is_some();
        match request.metadata.time {
            Some(time)
                if self.settings.trust_command_time
                    && is_clients
                    && time >= last_time
                    && time <= now =>
            {
                time
            }
            _ => now,
        }
    }

    /// Writes the events and keeps the new state in the overlay.
    fn accept(
        &mut self,
        request: &Request<'_>,
        events: &[D::Event],
        mut stream: Stream<D::State>,
        at: Timestamp,
    ) -> Verdict {
        if self.time_text.0 != at {
            // Nearly all events of a turn have the same time, so its text is made once.
            self.time_text = (at, at.to_rfc3339());
        }
        let timers: Vec<Timer> = events.iter().flat_map(D::timers).collect();
        let first = self.records.len();
        for (sequence, event) in (stream.version + 1..).zip(events) {
            let mut value = Vec::with_capacity(96);
            let event_type = match self.codec.encode_event(event, &mut value) {
                Ok(event_type) => event_type,
                Err(error) => {
                    self.records.truncate(first);
                    return Verdict::Failed(error.to_string());
                }
            };
            let place = EventPlace { sequence, at: &self.time_text.1 };
            let record = event_record(self.settings, request, place, event_type, value);
            if record.byte_count() > EVENT_BYTES_MAX {
                self.records.truncate(first);
                let reason = format!("its event would be over {EVENT_BYTES_MAX} bytes");
                return Verdict::Refused(malformed("TooLarge", None, reason));
            }
            self.records.push(record);
        }
        self.follow_timers(request.aggregate_id, timers);
        let event_count = events.len() as u64;
        let version = stream.version + event_count;
        if snapshot::is_due(stream.version, version, self.settings.snapshot_every) {
            self.snapshots_due.insert(request.aggregate_id.to_owned());
        }
        if event_count > 0 {
            self.changes.new_streams += u64::from(stream.version == 0);
            stream.version = version;
            stream.last_time = at;
            self.changes.event_count += event_count;
            match self.changes.streams.get_mut(request.aggregate_id) {
                Some(overlay) => *overlay = stream,
                None => {
                    let known = self.memory.streams.name(request.aggregate_id);
                    let id = known.unwrap_or_else(|| request.aggregate_id.into());
                    if stream.unsaved_from == SAVED {
                        stream.unsaved_from = self.memory.log_end;
                        self.changes.unsaved.push(Arc::clone(&id));
                    }
                    self.changes.streams.insert(id, stream);
                }
            }
        }
        Verdict::Accepted { version, event_count }
    }

    /// Writes the result, the dead letter if the command was bad, and remembers the answer.
    pub(super) fn answer(&mut self, request: &Request<'_>, verdict: Verdict) -> CommandResult {
        self.changes.command_count += 1;
        let is_dead_letter = match &verdict {
            Verdict::Refused(refusal) => refusal.is_malformed,
            Verdict::Failed(reason) => {
                let Settings { commands_topic, partition, .. } = self.settings;
                let (command_id, stream) = (request.command_id, request.aggregate_id);
                let offset = request.record.map(|record| record.offset);
                tracing::error!(%command_id, stream, %commands_topic, partition, offset, reason,
                    "a command broke; it is answered FAILED and kept as a dead letter");
                true
            }
            Verdict::Accepted { .. } | Verdict::Repeat(_) | Verdict::HandedOn => false,
        };
        let version = self.stream(request.aggregate_id).map_or(0, |stream| stream.version);
        let result = command_result(self.settings, request, verdict, version, self.now);
        if is_dead_letter {
            self.records.extend(dead_letter(self.settings, request, &result, self.now));
        }
        self.tell(request, &result);
        result
    }

    /// Writes a result and remembers it, if it is final.
    pub(super) fn tell(&mut self, request: &Request<'_>, result: &CommandResult) {
        // Its fields are plain text and numbers, so whatever goes wrong is a bug in the codec. The
        // command itself stands: its events are written, and the state has them.
        let command_id = request.command_id;
        let encode = || result_record::<D>(self.codec, request, result);
        match catch_unwind(AssertUnwindSafe(encode)) {
            Ok(Ok(record)) => self.records.push(record),
            Ok(Err(error)) => tracing::error!(%command_id, %error, "result not written"),
            Err(panic) => {
                let error = panic_text(panic.as_ref());
                tracing::error!(%command_id, error, "result not written");
            }
        }
        if let Some(answer) = Answer::of(result) {
            let key = request.key();
            self.changes.answers.entry(key).or_insert(answer);
        }
    }
}
