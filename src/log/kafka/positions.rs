//! How far each reactor has come: a compacted topic, a record for each group, topic and partition.
//!
//! Written by the reactor's own sender, outside any transaction. An older record than the last one
//! (a dead owner's, late) costs repeats that their targets drop, and nothing else.

use std::collections::HashMap;

use super::Error;
use super::group::Place;
use super::partition_reader::{PartitionReader, Start, Visit};
use crate::config;
use crate::kernel::message::{Headers, Outgoing};
use crate::kernel::stream::Kind;

/// The topic's name, without a namespace.
pub const TOPIC: &str = "millrace.positions";
/// Its one partition.
pub const PARTITION: i32 = 0;

/// The record that says where a group stands.
#[must_use]
pub fn record(group: &str, place: &Place, value: Vec<u8>) -> Outgoing {
    Outgoing {
        // The topic is the sender's to name; it is no aggregate's.
        kind: Kind::Snapshots,
        key: Some(key(group, place)),
        value: Some(value),
        headers: Headers::default(),
    }
}

fn key(group: &str, (topic, partition): &Place) -> Vec<u8> {
    format!("{group}\0{topic}\0{partition}").into_bytes()
}

fn parse<'k>(key: &'k [u8], group: &str) -> Option<(&'k str, i32)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('\0');
    if parts.next()? != group {
        return None;
    }
    let topic = parts.next()?;
    let partition = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((topic, partition))
}

/// Reads where a group stands, everywhere.
///
/// # Errors
/// The brokers do not answer, or the topic does not exist.
pub fn read(
    kafka: &config::Kafka,
    topic: &str,
    group: &str,
) -> Result<HashMap<Place, Vec<u8>>, Error> {
    let mut positions = HashMap::new();
    let mut reader = PartitionReader::open(kafka, topic, PARTITION, Start::Beginning)?;
    reader.to_end(|record| {
        let place = record.key.as_deref().and_then(|key| parse(key, group));
        if let Some((topic, partition)) = place {
            let place = (topic.to_owned(), partition);
            match record.value {
                Some(value) => positions.insert(place, value.into_vec()),
                None => positions.remove(&place),
            };
        }
        Visit::Continue
    })?;
    Ok(positions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_group_topic_and_partition() {
        let place = ("banking.account.events".to_owned(), 3);
        let key = key("millrace.reactor.transfer", &place);
        let found = parse(&key, "millrace.reactor.transfer");
        assert_eq!(found, Some(("banking.account.events", 3)));
        assert_eq!(parse(&key, "millrace.reactor.account-opening"), None);
        assert_eq!(parse(b"\xff", "millrace.reactor.transfer"), None);
    }
}
