//! A whole audit: the cut is taken, then one partition after the other is compared.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::banking::{Aggregate, DOMAIN};
use super::cell::Cell;
use super::clickhouse::{End, Events};
use super::difference::{Difference, Place, Report};
use super::fact::{Writers, stream_and_sequence};
use super::partition::{self, Means, Told};
use super::pass::Part;
use super::postgres::{Checkpoint, Moment};
use super::snapshots::{self, Found};
use super::{Error, Parked, Progress, Scope, Settings, clickhouse};
use crate::config::Config;
use crate::kernel::stream::partition_of;
use crate::log::kafka;
use crate::log::kafka::group::{Standing, Witness};
use crate::log::kafka::partition_reader::{PartitionReader, Start};
use crate::log::kafka::reader::{Begin, ReaderPool};

/// What a group's commits begin with that are the projection's own.
const OWN_COMMIT: &str = "millrace1";

/// A topic of events.
struct Source {
    aggregate: Aggregate,
    topic: String,
    topic_id: uuid::Uuid,
    count: i32,
    /// What the projections have committed, by store and partition.
    committed: [HashMap<i32, Commit>; 2],
}

/// A commit of a projection's own.
#[derive(Clone, Copy)]
struct Commit {
    generation: i32,
    epoch: i64,
    offset: i64,
}

/// Compares every store with the log.
///
/// # Errors
/// A service does not answer.
pub async fn run(
    config: &Config,
    writers: Arc<Writers>,
    settings: Settings,
    progress: Progress,
) -> Result<Report, Error> {
    let started = Instant::now();
    let mut report = Report::default();
    // In this order: what is committed lies in the rows, and what lies in the rows, in the log.
    let mut sources = sources(config, &settings).await?;
    let (mut moment, mut events) = (None, None);
    if settings.postgres {
        moment = Moment::open(config, settings.generation).await?;
    }
    if settings.clickhouse {
        events = Events::open(config, settings.generation).await?;
    }
    // Others' commits are about other rows.
    let generations = [
        moment.as_ref().map(|moment| moment.generation),
        events.as_ref().map(|events| events.generation),
    ];
    for source in &mut sources {
        for (committed, own) in source.committed.iter_mut().zip(generations) {
            committed.retain(|_, commit| Some(commit.generation) == own);
        }
    }
    let mut parked = moment.as_ref().map_or_else(Parked::new, |moment| moment.parked.clone());
    let ends = match &events {
        Some(events) => {
            let ends = events.ends().await?;
            parked.extend(events.parked().await?);
            ends
        }
        None => Vec::new(),
    };
    if settings.postgres && moment.is_none() {
        report.notes.push(format!("postgres.{DOMAIN} has never run: it has no rows"));
    }
    if settings.clickhouse && events.is_none() {
        report.notes.push(format!("clickhouse.{DOMAIN} has never run: it has no rows"));
    }
    let salt = if matches!(settings.scope, Scope::Sample(_)) { rand::random() } else { 0 };
    let means = Means { settings, writers, moment, events, parked, progress, salt };
    let mut fees: HashMap<String, i128> = HashMap::new();
    let mut reader = None;
    let all: u64 = sources.iter().map(|source| u64::from(source.count.unsigned_abs())).sum();
    let only = means.settings.only.map(|nth| nth % all.max(1));
    report.audited = only;
    let mut nth = 0;
    for source in &sources {
        for partition in 0..source.count {
            nth += 1;
            if !means.wants(source, partition) || only.is_some_and(|only| only + 1 != nth) {
                continue;
            }
            let opened = match reader.take() {
                Some(reader) => reader,
                None => open(config, &source.topic, partition).await?,
            };
            let back = one(config, &means, opened, source, partition, &ends, &mut report).await?;
            reader = Some(back.0);
            for (currency, units) in back.1.fees {
                *fees.entry(currency).or_default() += units;
            }
        }
    }
    let name = |((projection, topic, stream), first): (&(String, String, String), &u64)| {
        format!("{projection}: {topic} {stream} from event {first}")
    };
    report.parked = means.parked.iter().map(name).collect();
    report.parked.sort();
    if means.is_whole() {
        whole(&means, &sources, &ends, &fees, &mut report).await?;
    }
    report.compared.took(started.elapsed());
    Ok(report)
}

impl Means {
    /// Whether everything is compared.
    fn is_whole(&self) -> bool {
        let Settings { scope, since, only, .. } = &self.settings;
        *scope == Scope::All && since.is_none() && only.is_none()
    }

    fn wants(&self, source: &Source, partition: i32) -> bool {
        match &self.settings.scope {
            Scope::Stream { id, .. } => partition_of(id, source.count) == partition,
            Scope::All | Scope::Sample(_) => true,
        }
    }
}

async fn open(config: &Config, topic: &str, partition: i32) -> Result<PartitionReader, Error> {
    let (kafka, topic) = (config.kafka.clone(), topic.to_owned());
    let opening = tokio::task::spawn_blocking(move || {
        PartitionReader::open(&kafka, &topic, partition, Start::Beginning)
    });
    Ok(opening.await.map_err(|_| Error::Cut)??)
}

/// The topics, and what the projections have committed in them.
async fn sources(config: &Config, settings: &Settings) -> Result<Vec<Source>, Error> {
    let (config, settings) = (config.clone(), settings.clone());
    let asking = tokio::task::spawn_blocking(move || {
        let beside = settings.generation.map_or_else(String::new, |number| format!(".g{number}"));
        let group =
            |store: &str| config.namespace.dotted(&format!("millrace.{store}.{DOMAIN}{beside}"));
        let witness = Witness::open(&config.kafka, &group("postgres"))?;
        let other = Witness::open(&config.kafka, &group("clickhouse"))?;
        let mut all = Vec::new();
        for aggregate in Aggregate::ALL {
            if let Scope::Stream { aggregate: wanted, .. } = &settings.scope
                && wanted != aggregate.name()
            {
                continue;
            }
            let topic = config.namespace.dotted(&format!("{DOMAIN}.{}.events", aggregate.name()));
            let count = witness.partition_count(&topic)?;
            let ids = witness.topic_ids(&[&topic])?;
            let topic_id = ids.first().copied().unwrap_or_default();
            let mut committed = [HashMap::new(), HashMap::new()];
            for partition in 0..count {
                for (store, witness) in [&witness, &other].into_iter().enumerate() {
                    let place = (topic.clone(), partition);
                    let standing = witness.standing(&place).map_err(kafka::Error::call(
                        format!("asking for the offsets of {topic}/{partition}"),
                    ))?;
                    if let Some(own) = own_commit(&standing) {
                        committed[store].insert(partition, own);
                    }
                }
            }
            all.push(Source { aggregate, topic, topic_id, count, committed });
        }
        Ok(all)
    });
    asking.await.map_err(|_| Error::Cut)?
}

/// A commit, if it is the projection's own and nobody has moved it since.
fn own_commit(standing: &Standing) -> Option<Commit> {
    let (offset, metadata) = standing.committed.as_ref()?;
    let words: Vec<&str> = metadata.split(' ').collect();
    let [OWN_COMMIT, cluster, epoch, _, said] = words[..] else { return None };
    let said: i64 = said.parse().ok()?;
    // Where no generation is named it is the first.
    let generation = cluster.rsplit_once(".g").and_then(|(_, number)| number.parse().ok());
    let epoch = epoch.parse().ok()?;
    (said == *offset).then_some(Commit { generation: generation.unwrap_or(1), epoch, offset: said })
}

/// One partition: its snapshots, its cut, and what comes of comparing.
async fn one(
    config: &Config,
    means: &Means,
    reader: PartitionReader,
    source: &Source,
    partition: i32,
    ends: &[End],
    report: &mut Report,
) -> Result<(PartitionReader, Told), Error> {
    let (reader, end, found) = look(config, means, reader, source, partition).await?;
    let checkpoint = means.checkpoint(source, partition);
    let mut part = Part {
        aggregate: source.aggregate,
        topic: source.topic.clone(),
        topic_id: source.topic_id,
        partition,
        count: source.count,
        end,
        recent_from: means.moment.as_ref().map_or(0, |moment| moment.recent_from),
        postgres: checkpoint.map(|checkpoint| checkpoint.next_offset.min(end)),
        clickhouse: None,
        parked: parked(means, &source.topic),
    };
    if means.moment.is_some() && source.aggregate.tables().is_some() && checkpoint.is_none() {
        // Nothing may be there.
        part.postgres = Some(0);
    }
    let stream = format!("{DOMAIN}.{}[{partition}]", source.aggregate.name());
    let clickhouse =
        Place { store: "clickhouse", stream: stream.clone(), table: "event", partition };
    if let Some(events) = &means.events {
        part.clickhouse = Some(cut(events, source, &part, ends, &clickhouse, report).await?);
    }
    let ids = since(config, means, source, partition, end).await?;
    let ids = match (&means.settings.scope, ids) {
        (Scope::Stream { id, .. }, _) => Some(Arc::new(HashSet::from([id.clone()]))),
        (Scope::All | Scope::Sample(_), ids) => ids.map(Arc::new),
    };
    if means.sample_is_empty(ids.as_deref()) {
        return Ok((reader, Told::default()));
    }
    let (reader, told) = partition::audit(means, reader, part, ids, &found, report).await?;
    if means.moment.is_some() && source.aggregate.tables().is_some() {
        let place = Place { store: "postgres", stream, table: "checkpoint", partition };
        checkpoints(means, source, checkpoint, end, &told, &place, report);
    }
    Ok((reader, told))
}

impl Means {
    fn checkpoint(&self, source: &Source, partition: i32) -> Option<Checkpoint> {
        let key = (source.topic.clone(), partition);
        self.moment.as_ref()?.checkpoints.get(&key).copied()
    }

    /// Whether there is nothing to choose from.
    fn sample_is_empty(&self, ids: Option<&HashSet<String>>) -> bool {
        self.settings.since.is_some() && ids.is_some_and(HashSet::is_empty)
    }
}

/// Reads the snapshots, then takes down where the log ends: every event of theirs lies before.
async fn look(
    config: &Config,
    means: &Means,
    mut reader: PartitionReader,
    source: &Source,
    partition: i32,
) -> Result<(PartitionReader, i64, HashMap<String, Found>), Error> {
    let (topic, aggregate) = (source.topic.clone(), source.aggregate);
    let snapshots = format!("{DOMAIN}.{}.snapshots", aggregate.name());
    let snapshots = config.namespace.dotted(&snapshots);
    let wanted = means.settings.snapshots;
    let looking = tokio::task::spawn_blocking(move || {
        let found = if wanted {
            match snapshots::read(&mut reader, aggregate, &snapshots, partition) {
                // An installation that only projects has none.
                Err(kafka::Error::NoTopic(_)) => HashMap::new(),
                found => found?,
            }
        } else {
            HashMap::new()
        };
        let (_, end) = reader.go_to(&topic, partition, Start::Beginning)?;
        Ok((reader, end, found))
    });
    looking.await.map_err(|_| Error::Cut)?
}

fn parked(means: &Means, topic: &str) -> [HashMap<String, u64>; 2] {
    ["postgres", "clickhouse"].map(|store| {
        let projection = format!("{store}.{DOMAIN}");
        let all = means.parked.iter();
        all.filter(|((name, found, _), _)| *name == projection && found == topic)
            .map(|((_, _, stream), first)| (stream.clone(), *first))
            .collect()
    })
}

/// The offset up to which ClickHouse must have every event.
async fn cut(
    events: &Events,
    source: &Source,
    part: &Part,
    ends: &[End],
    place: &Place<'_>,
    report: &mut Report,
) -> Result<i64, Error> {
    let aggregate = source.aggregate.name();
    let ours = |end: &&End| {
        end.aggregate == aggregate
            && end.kafka_partition == part.partition
            && end.topic_id == part.topic_id
    };
    let rows_end = ends.iter().find(ours).map_or(0, |end| end.last + 1);
    let committed = source.committed[1].get(&part.partition).map_or(0, |commit| commit.offset);
    let mut asked = clickhouse::Part {
        aggregate,
        partition: part.partition,
        topic_id: part.topic_id,
        end: part.end,
    };
    let rows_end = if rows_end <= part.end {
        rows_end
    } else {
        asked.end = part.end;
        let mut rows = Vec::new();
        events.rows_behind(asked, |id, row| rows.push((id, row))).await?;
        // The projection goes on from there, and passes over what the log will have until then.
        let name = |id: &str| format!("{DOMAIN}.{aggregate}/{id}");
        for (id, row) in rows {
            let place = Place { stream: name(&id), ..place.clone() };
            let offset =
                row.iter().rev().find_map(|cell| cell.whole().filter(|at| *at >= part.end));
            report.differences.push(place.orphan((None, offset), &row));
        }
        events.end_before(asked).await?
    };
    Ok(rows_end.max(committed).min(part.end))
}

/// The streams that have an event since then.
async fn since(
    config: &Config,
    means: &Means,
    source: &Source,
    partition: i32,
    end: i64,
) -> Result<Option<HashSet<String>>, Error> {
    let Some(moment) = means.settings.since else { return Ok(None) };
    let (kafka, topic) = (config.kafka.clone(), source.topic.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let mut ids = HashSet::new();
        let pool = ReaderPool::new(&kafka, 1);
        pool.read_to_end(&topic, partition, Begin::Moment(moment), |records| {
            let keys = records.iter().filter(|record| record.offset < end);
            let keys = keys.filter_map(|record| record.key.as_deref());
            ids.extend(keys.filter_map(stream_and_sequence).map(|(id, _)| id.to_owned()));
            records.last().is_none_or(|record| record.offset < end)
        })?;
        Ok::<_, Error>(ids)
    });
    reading.await.map_err(|_| Error::Cut)?.map(Some)
}

/// Whether the checkpoint is where the rows are.
fn checkpoints(
    means: &Means,
    source: &Source,
    checkpoint: Option<Checkpoint>,
    end: i64,
    told: &Told,
    place: &Place<'_>,
    report: &mut Report,
) {
    let verdict = told.verdict;
    let mut say = |column: &str, expected: String, found: Option<String>| {
        report.differences.push(place.say((None, None), column, Some(expected), found));
    };
    let Some(checkpoint) = checkpoint else {
        if let Some(ahead_to) = verdict.ahead_to {
            say("next_offset", ahead_to.to_string(), None);
        }
        return;
    };
    let next = checkpoint.next_offset;
    if checkpoint.topic_id != source.topic_id {
        let (due, found) = (source.topic_id.to_string(), checkpoint.topic_id.to_string());
        say("topic_id", due, Some(found));
    }
    if next > end {
        say("next_offset", format!("{end} at most, the log's end"), Some(next.to_string()));
    }
    // Rows end somewhere before the checkpoint, and nothing behind that place was applied.
    if let Some(missing) = verdict.missing_from
        && means.is_whole()
        && verdict.applied.is_none_or(|applied| applied < missing)
    {
        say("next_offset", missing.to_string(), Some(next.to_string()));
    }
    if let Some(ahead_to) = verdict.ahead_to {
        // A rewound partition's rows are ahead until its replay has come as far as it was.
        let committed = source.committed[0].get(&place.partition);
        let was_further =
            committed.is_some_and(|one| one.epoch == checkpoint.epoch && one.offset > next);
        if checkpoint.epoch == 0 || was_further {
            say("next_offset", ahead_to.to_string(), Some(next.to_string()));
        } else {
            let stream = &place.stream;
            report.notes.push(format!("{stream}: a replay is under way, at offset {next}"));
        }
    }
}

/// What only an audit of everything can see: rows of partitions that there are not, and sums.
async fn whole(
    means: &Means,
    sources: &[Source],
    ends: &[End],
    fees: &HashMap<String, i128>,
    report: &mut Report,
) -> Result<(), Error> {
    for end in ends {
        let known = sources.iter().find(|source| source.aggregate.name() == end.aggregate);
        if known.is_some_and(|source| (0..source.count).contains(&end.kafka_partition)) {
            continue;
        }
        let stream = format!("{DOMAIN}.{}[{}]", end.aggregate, end.kafka_partition);
        let partition = end.kafka_partition;
        let place = Place { store: "clickhouse", stream, table: "event", partition };
        report.differences.push(place.orphan((None, Some(end.last)), &[]));
    }
    let Some(moment) = &means.moment else { return Ok(()) };
    for source in sources {
        let Some(tables) = source.aggregate.tables() else { continue };
        for table in [Some(tables.stream), tables.events].into_iter().flatten() {
            for (id, partition) in moment.astray(&table, source.count).await? {
                let stream = format!("{DOMAIN}.{}/{id}", source.aggregate.name());
                let place = Place { store: "postgres", stream, table: table.name, partition };
                report.differences.push(place.orphan((None, None), &[]));
            }
        }
    }
    let rows_elsewhere = |one: &Difference| one.store == "postgres" && one.table == "checkpoint";
    if moment.parked.is_empty() && !report.differences.iter().any(rows_elsewhere) {
        let found = moment.fee_ledger().await?;
        let mut currencies: Vec<&String> = fees.keys().chain(found.keys()).collect();
        currencies.sort();
        currencies.dedup();
        for currency in currencies {
            let expected = fees.get(currency).map_or(Cell::Null, |units| Cell::Money(*units));
            let found = found.get(currency).cloned().unwrap_or(Cell::Null);
            if expected != found {
                let stream = format!("{DOMAIN}.account");
                let place = Place { store: "postgres", stream, table: "fee_ledger", partition: -1 };
                let column = format!("total of {currency}");
                let difference = place.say((None, None), &column, expected.shown(), found.shown());
                report.differences.push(difference);
            }
        }
    }
    Ok(())
}
