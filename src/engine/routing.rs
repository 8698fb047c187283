//! Commands that cross partitions: what is sent on, and what came from ourselves before.

use super::origin::{Origin, Sender, Signed, Source};
use super::protocol::Crossing;
use super::turn::Turn;
use crate::kernel::codec::{BadCommand, Codec};
use crate::kernel::decider::Decider;
use crate::kernel::message::{Headers, Outgoing, Record};
use crate::kernel::stream::Kind;

/// The most bytes of a record that is sent on to its own partition; what is larger is refused where
/// it landed, since with an origin it might not fit the topic any more.
const CROSSING_BYTES_MAX: usize = 4 * 1024 * 1024;

impl<D: Decider, C: Codec<D>> Turn<'_, D, C> {
    /// Sends a command on to the partition that owns its aggregate.
    pub(super) fn cross(&mut self, record: &Record, id: &str, partition: i32) {
        if record.byte_count() > CROSSING_BYTES_MAX {
            let reason = format!("over {CROSSING_BYTES_MAX} bytes with its headers");
            let aggregate_id = Some(id.to_owned());
            let code = "TooLarge";
            let bad = BadCommand { code, reason, aggregate_id, ..BadCommand::default() };
            return self.refuse_unread(record, bad);
        }
        let mut headers = Headers::with_capacity(record.headers.byte_count() + 256);
        for (name, value) in record.headers.iter().filter(|(name, _)| *name != "origin") {
            headers.push_optional(name, value);
        }
        let origin = Origin {
            sender: Sender::Router,
            source: Source {
                group: self.settings.group.clone(),
                topic_id: self.settings.commands_topic_id,
                partition: self.settings.partition,
            },
            offset: record.offset,
            index: 0,
        };
        let header = origin.to_header(self.signed(record, id), &self.settings.key);
        headers.push("origin", header);
        let record = Outgoing {
            kind: Kind::Commands,
            key: Some(id.as_bytes().to_vec()),
            value: record.value.as_deref().map(<[u8]>::to_vec),
            headers,
        };
        let topic = self.settings.commands_topic.as_str().into();
        self.crossings.push(Crossing { topic, partition, record });
    }

    pub(super) fn signed<'r>(&'r self, record: &'r Record, id: &'r str) -> Signed<'r> {
        Signed {
            topic: &self.settings.commands_topic,
            key: id.as_bytes(),
            command_id: record.headers.get("ce_id").unwrap_or_default(),
            value: record.value.as_deref().unwrap_or_default(),
        }
    }

    /// Whether nothing from that place or behind it has been taken yet.
    pub(super) fn is_news(&self, origin: &Origin) -> bool {
        if !origin.sender.is_ordered() {
            return true;
        }
        let highest = self
            .changes
            .origins
            .get(&origin.source)
            .or_else(|| self.position.origins.get(&origin.source));
        highest.is_none_or(|highest| (origin.offset, origin.index) > *highest)
    }
}
