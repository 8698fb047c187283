//! What the stores have of the streams of a pass: rows -> digests, rows that are not as they must
//! be, streams that nobody knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Error;
use super::clickhouse::{self, Events};
use super::pass::{Part, Pass};
use super::postgres::Moment;

/// The most streams without events that are taken down.
const UNKNOWN_MAX: usize = 100_000;

/// How many rows were read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rows {
    pub(super) postgres: u64,
    pub(super) clickhouse: u64,
}

/// Compares what the pass has found with the stores. Returns the streams that differ, or of which a
/// store has rows and the log has nothing.
pub(super) async fn compare(
    pass: &mut Pass,
    moment: Option<&Moment>,
    events: Option<&Events>,
) -> Result<(BTreeSet<String>, Rows), Error> {
    let ids: Option<Vec<String>> = narrow(pass);
    let mut unknown = BTreeSet::new();
    let mut rows = Rows::default();
    if let Some(moment) = moment {
        rows.postgres = postgres(pass, moment, ids.as_deref(), &mut unknown).await?;
    }
    let part = Arc::clone(&pass.part);
    if let (Some(events), Some(part)) = (events, clickhouse_part(&part)) {
        let Pass { streams, choice, .. } = &mut *pass;
        let mut count = 0;
        events
            .rows(part, ids.as_deref(), |id, row| {
                if let Some(stream) = streams.get_mut(&id) {
                    count += 1;
                    stream.events[1].add(&row);
                } else if choice.takes(&id) && unknown.len() < UNKNOWN_MAX {
                    unknown.insert(id);
                }
            })
            .await?;
        rows.clickhouse = count;
    }
    let of_postgres = moment.is_some() && pass.part.postgres.is_some();
    let of_clickhouse = events.is_some() && pass.part.clickhouse.is_some();
    let mut suspects = unknown;
    for (id, stream) in &pass.streams {
        if stream.is_erased {
            continue;
        }
        let differs = stream.is_suspect
            || (of_postgres
                && (stream.has_row != stream.row().is_some()
                    || stream.transactions[0] != stream.transactions[1]))
            || (of_clickhouse && stream.events[0] != stream.events[1]);
        if differs {
            suspects.insert(id.clone());
        }
    }
    Ok((suspects, rows))
}

async fn postgres(
    pass: &mut Pass,
    moment: &Moment,
    ids: Option<&[String]>,
    unknown: &mut BTreeSet<String>,
) -> Result<u64, Error> {
    let Some(tables) = pass.part.aggregate.tables() else { return Ok(0) };
    let partition = pass.part.partition;
    let mut count = 0;
    let Pass { streams, choice, .. } = pass;
    moment
        .rows(&tables.stream, Some(partition), ids, |id, _, row| {
            let Some(stream) = streams.get_mut(&id) else {
                if choice.takes(&id) && unknown.len() < UNKNOWN_MAX {
                    unknown.insert(id);
                }
                return;
            };
            count += 1;
            stream.has_row = true;
            let is_same = stream.row().is_some_and(|fold| fold.row() == row);
            stream.is_suspect |= !is_same;
        })
        .await?;
    if let Some(table) = tables.events {
        moment
            .rows(&table, Some(partition), ids, |id, _, row| {
                if let Some(stream) = streams.get_mut(&id) {
                    count += 1;
                    stream.transactions[1].add(&row);
                } else if choice.takes(&id) && unknown.len() < UNKNOWN_MAX {
                    unknown.insert(id);
                }
            })
            .await?;
    }
    Ok(count)
}

/// The rows of ClickHouse that are compared.
pub(super) fn clickhouse_part(part: &Part) -> Option<clickhouse::Part<'_>> {
    Some(clickhouse::Part {
        aggregate: part.aggregate.name(),
        partition: part.partition,
        topic_id: part.topic_id,
        end: part.clickhouse?,
    })
}

/// The streams to ask the stores for, if they are few.
fn narrow(pass: &Pass) -> Option<Vec<String>> {
    let choice = &pass.choice;
    if !choice.is_sample && choice.ids.is_none() {
        return None;
    }
    let asked = choice.ids.iter().filter(|_| !choice.is_sample).flat_map(|ids| ids.iter().cloned());
    let mut ids: BTreeSet<String> = asked.filter(|id| choice.takes(id)).collect();
    ids.extend(pass.streams.keys().cloned());
    (ids.len() <= 10_000).then(|| ids.into_iter().collect())
}
