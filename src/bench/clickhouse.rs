//! Rows in ClickHouse: the projection over the backlog against the same blocks, made beforehand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::figures::{mean, per_second};
use super::visible::{self, Figures, Log, Mark, Rows};
use super::{Bench, Error};
use crate::domain;
use crate::kernel::message::Record;
use crate::kernel::projection::Head;
use crate::read_model::banking::event::Events;
use crate::read_model::store::block::Block;
use crate::read_model::store::clickhouse::{Blocks, Database};
use crate::read_model::store::{self, Source};
use crate::runtime::projection::Settings;

/// How often rows are looked at: each look is a query on all of the table's offsets.
const LOOK: Duration = Duration::from_millis(25);
const LOOK_LATENCY: Duration = Duration::from_millis(4);
/// What the server says if there is no such table or database.
const NOT_THERE: [&str; 2] = ["Code: 60.", "Code: 81."];

struct Table(Database);

impl Rows for Table {
    async fn marks(&self) -> Result<Vec<Mark>, Error> {
        let statement = format!(
            "SELECT kafka_partition, max(kafka_offset) + 1 FROM {}.banking_event_g1
             WHERE aggregate = 'account' GROUP BY kafka_partition ORDER BY kafka_partition",
            self.0.name()
        );
        match self.0.client().query_raw(&statement).fetch_all::<(i32, i64)>().await {
            Ok(marks) => Ok(marks),
            Err(error) if NOT_THERE.iter().any(|code| error.to_string().contains(code)) => {
                Ok(Vec::new())
            }
            Err(error) => {
                Err(store::Error::clickhouse("looking how far the rows are")(error).into())
            }
        }
    }
}

/// Measures the part: raw, real, raw, then event to row.
///
/// # Errors
/// Whatever would make the figures wrong.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    bench.ensure_handled().await?;
    bench.progress.begin("making blocks for ClickHouse", 0);
    let prepared = Prepared::read(bench).await?;
    let rows = Table(bench.ground.clickhouse()?);
    bench.progress.begin("inserting raw blocks into ClickHouse", 0);
    let before = prepared.insert(&rows.0).await?;
    bench.progress.begin("projecting into ClickHouse", prepared.log.len());
    let at_once = Settings::CLICKHOUSE.parallel;
    let real = visible::run(bench, &rows, &prepared.log, "clickhouse", (at_once, LOOK)).await?;
    check(&rows.0, "banking_event_g1", prepared.log.len()).await?;
    bench.progress.begin("inserting raw blocks into ClickHouse", 0);
    let after = prepared.insert(&rows.0).await?;
    bench.progress.begin("event to row in ClickHouse", 0);
    let seen = visible::visible(bench, &rows, "clickhouse", LOOK_LATENCY).await?;
    Ok(visible::figures(real, mean(&[before, after]), seen, &prepared.log))
}

/// Waits until everything is projected.
///
/// # Errors
/// It stands still.
pub async fn wait_projected(bench: &Bench) -> Result<(), Error> {
    let log = Log::read(bench, |_, _| Ok(())).await?;
    visible::wait_for(bench, &Table(bench.ground.clickhouse()?), &log).await
}

/// The backlog as blocks, cut as the projection cuts them.
struct Prepared {
    log: Log,
    blocks: Vec<Bytes>,
    events: Events,
}

/// A partition's block that is being put together.
#[derive(Default)]
struct Open {
    partition: i32,
    block: Option<Block>,
    bytes: usize,
}

impl Prepared {
    async fn read(bench: &Bench) -> Result<Self, Error> {
        let limits = Settings::CLICKHOUSE.limits;
        let cutter = Events::new(bench.codecs());
        let columns = cutter.columns();
        let shared: Arc<Mutex<(Open, Vec<Bytes>)>> = Arc::default();
        let kept = Arc::clone(&shared);
        let log = Log::read(bench, move |partition, record| {
            let mut shared = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (open, blocks) = &mut *shared;
            let full = open.block.as_ref().is_some_and(|block| block.rows() >= limits.rows)
                || open.bytes >= limits.bytes;
            if full || open.partition != partition {
                blocks.extend(open.block.take().map(|block| Bytes::from(block.into_bytes())));
                *open = Open { partition, ..Open::default() };
            }
            open.bytes += record.byte_count();
            let block = open.block.get_or_insert_with(|| Block::new(columns, limits.bytes));
            take(&cutter, partition, &record, block)
        })
        .await?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let (open, blocks) = &mut *shared;
        blocks.extend(open.block.take().map(|block| Bytes::from(block.into_bytes())));
        let events = Events::new(bench.codecs());
        Ok(Self { log, blocks: std::mem::take(blocks), events })
    }

    /// Inserts all blocks into a table of the same form, as many at once as the projection does.
    async fn insert(&self, database: &Database) -> Result<f64, Error> {
        let failed = || store::Error::clickhouse("inserting raw blocks");
        let table = format!("raw{}", crate::clock::nonce());
        let make = format!("CREATE DATABASE IF NOT EXISTS {} ENGINE = Atomic", database.name());
        database.client().query_raw(&make).execute().await.map_err(failed())?;
        let template = self.events.definition().tables[0];
        let statement = template
            .replace("{database}", database.name())
            .replace("{table}", &table)
            .replace("{made_by}", "a raw baseline");
        database.client().query_raw(&statement).execute().await.map_err(failed())?;
        let columns: Vec<&str> = self.events.columns().iter().map(|(name, _)| *name).collect();
        let into = format!(
            "INSERT INTO {}.{table} ({}) FORMAT RowBinaryWithNamesAndTypes",
            database.name(),
            columns.join(", ")
        );
        let slots = Arc::new(Semaphore::new(Settings::CLICKHOUSE.parallel));
        let started = Instant::now();
        let inserts = self.blocks.iter().map(|block| {
            let (slots, into) = (Arc::clone(&slots), into.clone());
            async move {
                let _slot = slots.acquire().await;
                let mut insert = database
                    .client()
                    .insert_formatted_with(into)
                    .with_setting("async_insert", "0")
                    .with_setting("wait_end_of_query", "1")
                    .with_setting("max_insert_block_size", "1048449")
                    .with_setting("max_insert_threads", "1")
                    .with_setting("input_format_parallel_parsing", "0");
                insert.send(block.clone()).await.map_err(failed())?;
                insert.end().await.map_err(failed())
            }
        });
        futures::future::try_join_all(inserts).await?;
        let elapsed = started.elapsed();
        check(database, &table, self.log.len()).await?;
        let drop = format!("DROP TABLE {}.{table} SYNC", database.name());
        database.client().query_raw(&drop).execute().await.map_err(failed())?;
        per_second("raw blocks", self.log.len(), elapsed)
    }
}

fn take(cutter: &Events, partition: i32, record: &Record, block: &mut Block) -> Result<(), Error> {
    let source = Source {
        aggregate: domain::banking::account::NAME,
        topic: String::new(),
        partition,
        topic_id: Uuid::nil(),
        nonce: 0,
    };
    let head = Head::read(record).map_err(Error::Wrong)?;
    if cutter.take(&source, 0, &head, record, block)? {
        return Ok(());
    }
    Err(Error::Wrong(format!("{} is not known", head.event_type)))
}

/// Every event has its row, once.
async fn check(database: &Database, table: &str, events: usize) -> Result<(), Error> {
    let statement = format!(
        "SELECT count() FROM {}.{table} FINAL WHERE aggregate = 'account'",
        database.name()
    );
    let count = database.client().query_raw(&statement).fetch_one::<u64>().await;
    let count = count.map_err(store::Error::clickhouse("counting rows"))?;
    if usize::try_from(count) == Ok(events) {
        return Ok(());
    }
    Err(Error::Wrong(format!("ClickHouse has {count} rows of {events} events")))
}
