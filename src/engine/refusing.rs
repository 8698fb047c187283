//! Commands that cannot be read, or that break something of ours: each is answered once and kept as
//! a dead letter, and the partition goes on.

use super::metadata::Metadata;
use super::origin::Origin;
use super::reply::{Place, Request, Verdict, malformed, raw_content_hash};
use super::turn::Turn;
use crate::kernel::codec::{BadCommand, BodyMetadata, Codec};
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::stream::is_aggregate_id;

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    pub(super) fn refuse_unread(&mut self, record: &Record, bad: BadCommand) {
        let first_place = self.place(record);
        self.refuse(record, bad, first_place, false);
    }

    /// Answers a command that broke something of ours, whatever it was.
    pub(super) fn fail(&mut self, record: &Record, reason: String) {
        let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
        let id = key.filter(|id| is_aggregate_id(id)).unwrap_or_default();
        let body = BodyMetadata::default();
        let (metadata, _) = Metadata::read(&record.headers, &body);
        let from_process_manager = record
            .headers
            .get("origin")
            .and_then(|header| Origin::verify(header, self.signed(record, id), &self.settings.key))
            .is_some_and(|origin| origin.sender.is_process_manager());
        let request = Request {
            record: Some(record),
            aggregate_id: id,
            stream: self.stream_hash(id),
            command_id: metadata.command_id_or(|| self.place(record).id()),
            content_hash: raw_content_hash(id, record.value.as_deref()),
            metadata,
            from_process_manager,
            on_behalf_of: None,
        };
        self.answer(&request, Verdict::Failed(reason));
    }

    /// Answers a command that could not be read.
    pub(super) fn refuse(
        &mut self,
        record: &Record,
        bad: BadCommand,
        first_place: Place,
        from_process_manager: bool,
    ) {
        let (metadata, _) = Metadata::read(&record.headers, &bad.body);
        let command_id = metadata.command_id_or(|| first_place.id());
        let aggregate_id = bad.aggregate_id.unwrap_or_default();
        let aggregate_id = aggregate_id.as_str();
        self.fetch(aggregate_id);
        let content_hash = raw_content_hash(aggregate_id, record.value.as_deref());
        let request = Request {
            record: Some(record),
            aggregate_id,
            stream: self.stream_hash(aggregate_id),
            command_id,
            content_hash,
            metadata,
            from_process_manager,
            on_behalf_of: None,
        };
        let verdict = self
            .known(&request)
            .unwrap_or_else(|| Verdict::Refused(malformed(bad.code, bad.field, bad.reason)));
        self.answer(&request, verdict);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ring::hmac;
    use serde::{Deserialize, Serialize};
    use uuid::Uuid;

    use super::*;
    use crate::engine::answers::Answers;
    use crate::engine::dispatch::Targets;
    use crate::engine::draft::Draft;
    use crate::engine::position::Position;
    use crate::engine::protocol::Settings;
    use crate::engine::recall::Memory;
    use crate::engine::shelf::MemoryShelf;
    use crate::engine::streams::Streams;
    use crate::kernel::codec::{CodecError, Decoded, EventType, Undecoded};
    use crate::kernel::decider::{Context, Rejection};
    use crate::kernel::message::{Headers, Outgoing};
    use crate::kernel::result::{CommandResult, Outcome};
    use crate::kernel::stream::{AggregateName, Kind};
    use crate::kernel::time::Timestamp;

    /// Counts; what its command names breaks.
    struct Counter;

    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Breaks {
        Nothing,
        Decoding,
        Decide,
        Evolve,
        Timers,
        Encoding,
    }

    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    struct Count(u64);

    #[derive(Clone, Debug, PartialEq)]
    struct Never;

    impl Rejection for Never {
        fn code(&self) -> &'static str {
            "Never"
        }

        fn message(&self) -> String {
            String::new()
        }
    }

    /// As a panic is, but without its message on the screen.
    fn break_if(breaks: bool) {
        if breaks {
            std::panic::resume_unwind(Box::new("broken"));
        }
    }

    impl Decider for Counter {
        const NAME: AggregateName = AggregateName { domain: "test", aggregate: "counter" };
        const STATE_SCHEMA: u16 = 1;

        type Command = Breaks;
        type Event = Breaks;
        type State = Count;
        type Rejection = Never;

        fn decide(command: &Breaks, _: &Count, _: &Context) -> Result<Vec<Breaks>, Never> {
            break_if(*command == Breaks::Decide);
            Ok(vec![Breaks::Nothing, command.clone()])
        }

        fn evolve(state: &mut Count, event: &Breaks, _: Timestamp) {
            break_if(*event == Breaks::Evolve);
            state.0 += 1;
        }

        fn timers(event: &Breaks) -> Vec<crate::kernel::decider::Timer> {
            break_if(*event == Breaks::Timers);
            Vec::new()
        }
    }

    impl Codec<Counter> for Counter {
        fn decode_command(
            &self,
            key_id: Option<&str>,
            value: Option<&[u8]>,
        ) -> Result<Decoded<Breaks>, Undecoded> {
            let command = match value {
                Some(b"decoding") => Breaks::Decoding,
                Some(b"decide") => Breaks::Decide,
                Some(b"evolve") => Breaks::Evolve,
                Some(b"timers") => Breaks::Timers,
                Some(b"encoding") => Breaks::Encoding,
                _ => Breaks::Nothing,
            };
            break_if(command == Breaks::Decoding);
            Ok(Decoded {
                command,
                aggregate_id: key_id.is_none().then(String::new),
                type_name: "Count",
                content_hash: [0; 32],
                body: BodyMetadata::new(),
            })
        }

        fn encode_event(&self, event: &Breaks, _: &mut Vec<u8>) -> Result<EventType, CodecError> {
            break_if(*event == Breaks::Encoding);
            Ok(EventType { full_name: "test.Counted", schema_version: 1 })
        }

        fn decode_event(&self, _: &[u8]) -> Result<Breaks, CodecError> {
            Ok(Breaks::Nothing)
        }

        fn encode_result(
            &self,
            result: &CommandResult,
            value: &mut Vec<u8>,
        ) -> Result<(), CodecError> {
            break_if(result.aggregate_id == "untold");
            value.push(u8::from(result.outcome == Outcome::Failed));
            Ok(())
        }

        fn decode_result(&self, _: &[u8]) -> Result<CommandResult, CodecError> {
            Err(CodecError::UnknownSchema(0))
        }
    }

    fn settings() -> Settings {
        Settings {
            group: "group".to_owned(),
            cluster_id: "cluster".to_owned(),
            commands_topic: "test.counter.commands".to_owned(),
            commands_topic_id: Uuid::from_u128(1),
            events_topic: "test.counter.events".to_owned(),
            events_topic_id: Uuid::from_u128(2),
            results_topic_id: Uuid::from_u128(3),
            partition: 0,
            partition_count: 1,
            batch_max: 100,
            chunk_max: 100,
            batch_bytes_max: 1_000_000,
            trust_command_time: false,
            snapshot_every: 100,
            window_seconds: 100,
            answers_in_memory: 100,
            streams_in_memory: 100,
            restore_events: 100,
            key: hmac::Key::new(hmac::HMAC_SHA256, b"key"),
            targets: Targets::default(),
        }
    }

    fn of(kind: Kind, records: &[Outgoing]) -> Vec<&Outgoing> {
        records.iter().filter(|record| record.kind == kind).collect()
    }

    fn command(offset: u64, id: &str, value: &str) -> Record {
        let mut headers = Headers::default();
        headers.push("ce_id", Uuid::from_u128(u128::from(offset)).to_string());
        Record {
            offset: i64::try_from(offset).unwrap(),
            key: Some(id.as_bytes().into()),
            value: Some(value.as_bytes().into()),
            headers,
            ..Record::default()
        }
    }

    /// Its result cannot be written, but it is decided: the next one builds on it.
    #[test]
    fn what_breaks_behind_a_decision_leaves_no_gap() {
        let (settings, shelf) = (settings(), MemoryShelf::default());
        let (streams, answers) = (Streams::new(100), Answers::new(100, 100));
        let (log_end, position) = (0, Position::default());
        let memory = Memory { streams: &streams, answers: &answers, shelf: &shelf, log_end };
        let draft = Draft::<Counter>::new(Timestamp(1_000_000));
        let mut turn = Turn::resume(&settings, &Counter, memory, &position, draft);
        for offset in 0..2 {
            turn.take(&command(offset, "untold", "count")).unwrap();
        }
        let Draft { changes, records, .. } = turn.pause().unwrap();
        let sequences: Vec<_> = of(Kind::Events, &records)
            .iter()
            .map(|record| record.headers.text("sequence").unwrap())
            .collect();
        assert_eq!(sequences, ["1", "2", "3", "4"]);
        assert_eq!(changes.streams[&Arc::from("untold")].version, 4);
        assert_eq!(of(Kind::Results, &records).len(), 0);
    }

    #[test]
    fn whatever_breaks_is_answered_failed_and_the_next_command_is_decided() {
        for value in ["decoding", "decide", "evolve", "timers", "encoding"] {
            let settings = settings();
            let (streams, answers) = (Streams::new(100), Answers::new(100, 100));
            let shelf = MemoryShelf::default();
            let memory = Memory { streams: &streams, answers: &answers, shelf: &shelf, log_end: 0 };
            let position = Position::default();
            let now = Timestamp(1_000_000);
            let draft = Draft::<Counter>::new(now);
            let mut turn = Turn::resume(&settings, &Counter, memory, &position, draft);
            for (offset, value) in (0..).zip(["count", value, "count"]) {
                turn.take(&command(offset, "one", value)).unwrap();
            }
            let Draft { changes, records, .. } = turn.pause().unwrap();
            let failed: Vec<bool> = of(Kind::Results, &records)
                .iter()
                .map(|record| record.value.as_deref() == Some(&[1]))
                .collect();
            assert_eq!(failed, [false, true, false], "{value}");
            assert_eq!(of(Kind::Events, &records).len(), 4, "{value}: two events a good command");
            let letters = of(Kind::DeadLetters, &records);
            assert_eq!(letters.len(), 1, "{value}");
            assert_eq!(letters[0].value.as_deref(), Some(value.as_bytes()));
            assert_eq!(letters[0].headers.text("error_code"), Some("InternalError"));
            let stream = &changes.streams[&Arc::from("one")];
            assert_eq!((stream.version, stream.state.0), (4, 4), "{value}");
            assert_eq!(changes.answers.len(), 2, "{value}: a failure is not remembered");
        }
    }
}
