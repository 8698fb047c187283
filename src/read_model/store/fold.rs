//! A batch's records in stream order, each once: records -> events -> changes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use hashbrown::HashMap;

use crate::engine::projector::Refusal;
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::{Applied, Batch, Cause, Head, Obstacle};

/// Turns one event into changes; `false` if its type is not known.
///
/// # Errors
/// As the codec's.
pub trait Take: FnMut(&Head<'_>, &Record) -> Result<bool, CodecError> {}
impl<F: FnMut(&Head<'_>, &Record) -> Result<bool, CodecError>> Take for F {}

/// How many records are folded before other tasks have their turn: about a millisecond's worth.
const RECORDS_AT_ONCE: usize = 256;

/// The versions of streams' rows, as far as they were read.
pub type Versions = HashMap<String, u64>;

/// Hands each event of a batch to `take`, in order. With `versions`, events that a row already
/// has are left out, and the others must follow on it; without, only the order within the batch
/// is known. What cannot be read ends the batch there.
///
/// It lets other tasks of its thread go first now and then: a large batch takes tens of
/// milliseconds.
///
/// # Errors
/// `take` broke on an event, so the changes so far are worth nothing.
pub async fn fold(
    batch: &Batch,
    versions: Option<&Versions>,
    mut take: impl Take,
) -> Result<Applied, Refusal> {
    let mut applied = Applied { next_offset: batch.from.next_offset, ..Applied::default() };
    let mut last: HashMap<&str, u64> = HashMap::new();
    for (index, record) in batch.records.iter().enumerate() {
        if index % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        match one(record, versions, &mut last, &mut take) {
            Ok(Folded::Taken) => applied.events += 1,
            Ok(Folded::PassedOver) => applied.passed_over += 1,
            Ok(Folded::AlreadyThere) => {}
            Err(Stop::At(obstacle)) => {
                applied.next_offset = record.offset;
                applied.obstacle = Some(obstacle);
                return Ok(applied);
            }
            Err(Stop::Broken(reason)) => {
                let suspect = Some(record.offset);
                return Err(Refusal { cause: Cause::ProjectionFailed, reason, suspect });
            }
        }
    }
    applied.next_offset = batch.end();
    Ok(applied)
}

/// Why the fold ends before the batch does.
enum Stop {
    At(Obstacle),
    /// The changes so far are half of something.
    Broken(String),
}

impl From<Obstacle> for Stop {
    fn from(obstacle: Obstacle) -> Self {
        Self::At(obstacle)
    }
}

enum Folded {
    Taken,
    PassedOver,
    AlreadyThere,
}

fn one<'a>(
    record: &'a Record,
    versions: Option<&Versions>,
    last: &mut HashMap<&'a str, u64>,
    take: &mut impl Take,
) -> Result<Folded, Stop> {
    let offset = record.offset;
    if record.value.is_none() {
        // The tombstone of an erased event: what remains of it is said by the stream's last one.
        return Ok(Folded::AlreadyThere);
    }
    let head = Head::read(record).map_err(|reason| Obstacle::Undecodable { offset, reason })?;
    let known = last.get(head.stream).copied();
    let version = known.or_else(|| {
        versions.map(|versions| versions.get(head.stream).copied().unwrap_or_default())
    });
    if let Some(version) = version {
        if head.sequence <= version {
            return Ok(Folded::AlreadyThere);
        }
        if head.sequence != version + 1 {
            let (stream, sequence) = (head.stream.to_owned(), head.sequence);
            return Err(Obstacle::Gap { offset, stream, version, sequence }.into());
        }
    }
    let taken = catch_unwind(AssertUnwindSafe(|| take(&head, record)));
    let is_known = match taken {
        Ok(taken) => taken.map_err(|error| stop(offset, &error))?,
        Err(panic) => {
            return Err(Stop::Broken(format!(
                "the projection's code panicked on event {} of {}: {}",
                head.sequence,
                head.stream,
                words(panic.as_ref())
            )));
        }
    };
    last.insert(head.stream, head.sequence);
    Ok(if is_known { Folded::Taken } else { Folded::PassedOver })
}

fn stop(offset: i64, error: &CodecError) -> Stop {
    match error {
        CodecError::UnknownSchema(schema_id) => {
            Obstacle::UnknownSchema { offset, schema_id: *schema_id }.into()
        }
        CodecError::Corrupt { .. } => {
            Obstacle::Undecodable { offset, reason: error.to_string() }.into()
        }
        // Half of its row may be there.
        CodecError::Unencodable { .. } => Stop::Broken(error.to_string()),
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no word")
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;

    use super::*;
    use crate::kernel::message::Headers;
    use crate::kernel::stream::event_key;

    fn batch(events: &[(&str, u64)]) -> Batch {
        let record = |(offset, (stream, sequence)): (i64, &(&str, u64))| {
            let mut headers = Headers::default();
            headers.push("ce_id", "0198c0de-0000-8000-8000-000000000001");
            headers.push("ce_type", "millrace.test.thing.Happened");
            headers.push("ce_time", "2026-11-21T10:15:00Z");
            headers.push("schema_version", "1");
            Record {
                offset,
                key: Some(event_key(stream, *sequence).into()),
                value: Some(Box::from([])),
                headers,
                ..Record::default()
            }
        };
        let records = (0..).zip(events).map(record).collect();
        Batch { records, ..Batch::default() }
    }

    fn fold_all(batch: &Batch, versions: Option<&Versions>) -> (Applied, Vec<(String, u64)>) {
        let mut taken = Vec::new();
        let applied = block_on(fold(batch, versions, |head: &Head<'_>, _: &Record| {
            taken.push((head.stream.to_owned(), head.sequence));
            Ok(true)
        }));
        (applied.unwrap(), taken)
    }

    #[test]
    fn repeats_within_a_batch_are_left_out() {
        let (applied, taken) = fold_all(&batch(&[("a", 5), ("a", 6), ("a", 5), ("b", 1)]), None);
        assert_eq!((applied.next_offset, applied.events), (4, 3));
        assert_eq!(taken.len(), 3);
    }

    #[test]
    fn what_a_row_has_is_left_out() {
        let versions = Versions::from([("a".to_owned(), 5)]);
        let batch = batch(&[("a", 4), ("a", 5), ("a", 6), ("b", 1)]);
        let (applied, taken) = fold_all(&batch, Some(&versions));
        assert_eq!((applied.next_offset, applied.obstacle), (4, None));
        assert_eq!(taken, [("a".to_owned(), 6), ("b".to_owned(), 1)]);
    }

    #[test]
    fn a_gap_ends_the_batch_in_front_of_it() {
        let gap = |offset, stream: &str, version, sequence| {
            Some(Obstacle::Gap { offset, stream: stream.to_owned(), version, sequence })
        };
        let (applied, _) = fold_all(&batch(&[("a", 1), ("a", 3)]), None);
        assert_eq!(applied.next_offset, 1);
        assert_eq!(applied.obstacle, gap(1, "a", 1, 3));
        let (applied, taken) = fold_all(&batch(&[("b", 2)]), Some(&Versions::new()));
        assert_eq!(applied.obstacle, gap(0, "b", 0, 2));
        assert!(taken.is_empty());
    }

    #[test]
    fn an_unknown_schema_may_be_known_later_and_corrupt_bytes_will_not() {
        let batch = batch(&[("a", 1), ("a", 2)]);
        let refuse = |error: CodecError| {
            let mut error = Some(error);
            block_on(fold(&batch, None, move |head: &Head<'_>, _: &Record| {
                match error.take_if(|_| head.sequence == 2) {
                    Some(error) => Err(error),
                    None => Ok(true),
                }
            }))
            .unwrap()
        };
        let unknown = refuse(CodecError::UnknownSchema(77));
        assert_eq!(unknown.next_offset, 1);
        assert!(unknown.obstacle.unwrap().is_transient());
        let corrupt = refuse(CodecError::Corrupt { what: "event", reason: "short".to_owned() });
        assert!(!corrupt.obstacle.unwrap().is_transient());
    }

    #[test]
    fn an_event_that_breaks_the_code_is_named() {
        let batch = batch(&[("a", 1), ("b", 1), ("a", 2)]);
        let refusal = block_on(fold(&batch, None, |head: &Head<'_>, _: &Record| {
            assert_ne!((head.stream, head.sequence), ("b", 1), "no rule for this");
            Ok(true)
        }));
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.cause, refusal.suspect), (Cause::ProjectionFailed, Some(1)));
        assert!(refusal.reason.contains("event 1 of b") && refusal.reason.contains("no rule"));
    }
}
