//! The snapshots topic: a partition -> the newest snapshot of each stream, and whether an older one
//! came behind a newer one.

use std::collections::HashMap;

use super::banking::Aggregate;
use super::banking::snapshot::{self, Snapshot};
use crate::log::kafka::Error;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};

/// What was found of a stream.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What it says, or why it cannot be read.
    pub(super) snapshot: Result<Snapshot, String>,
    /// Where it stands in the snapshots topic.
    pub(super) offset: i64,
    /// The highest version of those before it.
    pub(super) highest: u64,
}

/// Reads a partition to its end.
pub(super) fn read(
    reader: &mut PartitionReader,
    aggregate: Aggregate,
    topic: &str,
    partition: i32,
) -> Result<HashMap<String, Found>, Error> {
    reader.go_to(topic, partition, Start::Beginning)?;
    let mut all: HashMap<String, Found> = HashMap::new();
    reader.to_end(|record| {
        let key = record.key.as_deref().unwrap_or_default();
        // A zero byte in front: the owner's position.
        let id = std::str::from_utf8(key).ok().filter(|id| !id.is_empty() && !id.contains('\0'));
        let Some(id) = id else { return Visit::Continue };
        let Some(value) = record.value.as_deref() else {
            all.remove(id);
            return Visit::Continue;
        };
        let snapshot = match snapshot::read(aggregate, value) {
            Ok(Some(snapshot)) => Ok(snapshot),
            Ok(None) => return Visit::Continue,
            Err(reason) => Err(reason),
        };
        let version = snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
        let before = all.get(id).map_or(0, |before| before.highest);
        let highest = before.max(version);
        all.insert(id.to_owned(), Found { snapshot, offset: record.offset, highest });
        Visit::Continue
    })?;
    Ok(all)
}
