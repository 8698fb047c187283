//! One partition: passes over its log, comparisons with the stores, and each difference by name.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::banking::{DOMAIN, Fold};
use super::clickhouse::Events;
use super::compare::{clickhouse_part, compare};
use super::detail::{Detail, Rows, Verdict};
use super::difference::{Place, Report};
use super::fact::Writers;
use super::pass::{Choice, Part, Pass};
use super::postgres::Moment;
use super::snapshots::Found;
use super::{Error, Parked, Progress, Settings};
use crate::kernel::stream::partition_of;
use crate::log::kafka::partition_reader::PartitionReader;

/// The most events that are held in memory to name the differences of a few streams.
const EVENTS_AT_ONCE: u64 = 20_000;
/// A stream with more events than this is not named in full.
const EVENTS_MAX: u64 = 200_000;
/// The most streams of which differences are named in one reading.
const STREAMS_AT_ONCE: usize = 2_000;

/// What an audit works with.
pub(super) struct Means {
    pub(super) settings: Settings,
    pub(super) writers: Arc<Writers>,
    pub(super) moment: Option<Moment>,
    pub(super) events: Option<Events>,
    pub(super) parked: Parked,
    pub(super) progress: Progress,
    pub(super) salt: u64,
}

/// What is told of a partition besides its differences.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) verdict: Verdict,
    /// Fees by currency, as Postgres must have them.
    pub(super) fees: HashMap<String, i128>,
}

/// Compares a partition and adds what differs to the report.
pub(super) async fn audit(
    means: &Means,
    mut reader: PartitionReader,
    part: Part,
    ids: Option<Arc<HashSet<String>>>,
    snapshots: &HashMap<String, Found>,
    report: &mut Report,
) -> Result<(PartitionReader, Told), Error> {
    let part = Arc::new(part);
    let mut told = Told::default();
    let (mut from, is_sample) = (0, means.sample().is_some());
    loop {
        let max = means.sample().unwrap_or(means.settings.streams_max);
        let salt = means.salt;
        let choice = Choice { ids: ids.clone(), from, to: None, max, is_sample, salt };
        let pass = Pass::new(Arc::clone(&part), choice, snapshots);
        let (back, mut pass) = read(means, reader, pass).await?;
        reader = back;
        let (moment, events) = (means.moment.as_ref(), means.events.as_ref());
        let (suspects, rows) = compare(&mut pass, moment, events).await?;
        report.compared.postgres_rows += rows.postgres;
        report.compared.clickhouse_rows += rows.clickhouse;
        report.compared.events += pass.events;
        report.compared.streams += pass.streams.len() as u64;
        report.compared.snapshots += pass.snapshots.len() as u64;
        told.add(&pass, &suspects);
        strange(&pass, report);
        reader = name(means, reader, &pass, suspects, &mut told, report).await?;
        match pass.choice.to {
            Some(to) if !is_sample => from = to,
            Some(_) | None => break,
        }
    }
    report.compared.partitions += 1;
    Ok((reader, told))
}

impl Means {
    fn sample(&self) -> Option<usize> {
        match self.settings.scope {
            super::Scope::Sample(count) => Some(count.max(1)),
            super::Scope::All | super::Scope::Stream { .. } => None,
        }
    }
}

impl Told {
    fn add(&mut self, pass: &Pass, suspects: &BTreeSet<String>) {
        for (id, stream) in &pass.streams {
            if !suspects.contains(id) {
                self.verdict.applied = self.verdict.applied.max(stream.applied);
            }
            if let Some(Fold::Account(account)) = stream.row()
                && let Some(currency) = account.currency()
            {
                *self.fees.entry(currency.to_owned()).or_default() += account.fees;
            }
        }
    }
}

/// Reads the log in a thread of its own.
async fn read(
    means: &Means,
    mut reader: PartitionReader,
    mut pass: Pass,
) -> Result<(PartitionReader, Pass), Error> {
    let (writers, rest) = (Arc::clone(&means.writers), means.settings.rest);
    let progress = Arc::clone(&means.progress);
    let reading = tokio::task::spawn_blocking(move || {
        pass.read(&mut reader, &writers, rest, &progress)?;
        Ok((reader, pass))
    });
    reading.await.map_err(|_| Error::Cut)?
}

fn strange(pass: &Pass, report: &mut Report) {
    let part = &pass.part;
    let stream = format!("{DOMAIN}.{}[{}]", part.aggregate.name(), part.partition);
    let place = Place { store: "log", stream, table: "events", partition: part.partition };
    for (offset, key) in &pass.strange {
        let expected = Some("an id, a zero byte and a sequence".to_owned());
        let difference = place.say((None, Some(*offset)), "key", expected, Some(key.clone()));
        report.differences.push(difference);
    }
}

/// Names the differences of those streams, a few at a time.
async fn name(
    means: &Means,
    mut reader: PartitionReader,
    pass: &Pass,
    suspects: BTreeSet<String>,
    told: &mut Told,
    report: &mut Report,
) -> Result<PartitionReader, Error> {
    let mut left = suspects.into_iter().peekable();
    let mut named = 0;
    while left.peek().is_some() {
        let (mut ids, mut events) = (Vec::new(), 0);
        while let Some(id) = left.peek() {
            let records = pass.streams.get(id).map_or(0, |stream| stream.records);
            let is_full = ids.len() >= STREAMS_AT_ONCE || events + records > EVENTS_AT_ONCE;
            if is_full && !ids.is_empty() {
                break;
            }
            if records > EVENTS_MAX || named >= means.settings.named_max {
                report.more_streams += 1;
                left.next();
                continue;
            }
            events += records;
            named += 1;
            ids.extend(left.next());
        }
        if !ids.is_empty() {
            reader = few(means, reader, pass, ids, told, report).await?;
        }
    }
    Ok(reader)
}

async fn few(
    means: &Means,
    mut reader: PartitionReader,
    pass: &Pass,
    ids: Vec<String>,
    told: &mut Told,
    report: &mut Report,
) -> Result<PartitionReader, Error> {
    let (stream_rows, event_rows) = postgres_rows(means, &pass.part, &ids).await?;
    let clickhouse_rows = clickhouse_rows(means, &pass.part, &ids).await?;
    let (part, writers) = (Arc::clone(&pass.part), Arc::clone(&means.writers));
    let snapshots: HashMap<String, Found> =
        ids.iter().filter_map(|id| Some((id.clone(), pass.snapshots.get(id)?.clone()))).collect();
    let naming = tokio::task::spawn_blocking(move || {
        let mut detail = Detail::new(&part);
        detail.stream_rows = stream_rows;
        detail.event_rows = event_rows;
        detail.clickhouse_rows = clickhouse_rows;
        let wanted: HashSet<String> = ids.iter().cloned().collect();
        detail.read(&mut reader, &writers, &wanted)?;
        let judged = ids.iter().flat_map(|id| detail.judge(id, snapshots.get(id)));
        let differences: Vec<_> = judged.collect();
        Ok::<_, Error>((reader, differences, detail.verdict))
    });
    let (reader, differences, verdict) = naming.await.map_err(|_| Error::Cut)??;
    report.differences.extend(differences);
    told.verdict.merge(verdict);
    Ok(reader)
}

impl Verdict {
    fn merge(&mut self, other: Self) {
        self.applied = self.applied.max(other.applied);
        self.ahead_to = self.ahead_to.max(other.ahead_to);
        self.missing_from = match (self.missing_from, other.missing_from) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
    }
}

async fn postgres_rows(means: &Means, part: &Part, ids: &[String]) -> Result<(Rows, Rows), Error> {
    let (mut streams, mut events) = (Rows::new(), Rows::new());
    let (Some(moment), Some(tables)) = (&means.moment, part.aggregate.tables()) else {
        return Ok((streams, events));
    };
    let keep = |rows: &mut Rows, id: String, partition, row| {
        // A row that says to be of another partition than its stream is looked at in both.
        if partition == part.partition || partition_of(&id, part.count) == part.partition {
            rows.entry(id).or_default().push((partition, row));
        }
    };
    moment
        .rows(&tables.stream, None, Some(ids), |id, at, row| keep(&mut streams, id, at, row))
        .await?;
    if let Some(table) = tables.events {
        moment.rows(&table, None, Some(ids), |id, at, row| keep(&mut events, id, at, row)).await?;
    }
    Ok((streams, events))
}

async fn clickhouse_rows(means: &Means, part: &Part, ids: &[String]) -> Result<Rows, Error> {
    let mut rows = Rows::new();
    if let (Some(events), Some(asked)) = (&means.events, clickhouse_part(part)) {
        let visit = |id: String, row| rows.entry(id).or_default().push((part.partition, row));
        events.rows(asked, Some(ids), visit).await?;
    }
    Ok(rows)
}
