//! A restart on a handled backlog: time to ready, against reading and folding the same topic with
//! nothing around it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use serde::Serialize;

use super::child::Child;
use super::figures::{per_second, ratio, seconds, whole};
use super::ground::names;
use super::{Bench, Error, blocking};
use crate::domain::banking::account::Account;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::stream::parse_event_key;
use crate::kernel::time::Timestamp;
use crate::log::kafka::reader::{Begin, ReaderPool};

/// What a restart came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// Events a second, from `ready_s` less `idle_ready_s`.
    pub rate: f64,
    /// Events a second of reading, decoding and folding alone, all partitions at once.
    pub raw_rate: f64,
    /// `rate` over `raw_rate`.
    pub ratio: f64,
    /// Seconds from the start of the process until all partitions were ready.
    pub ready_s: f64,
    /// The same with nothing to restore.
    pub idle_ready_s: f64,
    /// Events on the log. The handler also reads as many results, for the ids it remembers.
    pub events: usize,
}

/// Measures a restart, then the raw fold.
///
/// # Errors
/// The handler does not become ready, or the log cannot be read.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    bench.ensure_handled().await?;
    let config = bench.ground.config("")?;
    bench.progress.begin("restarting a handler", 0);
    // What the parts before have sent and nobody has handled yet.
    let child = bench.start(&config, &["serve", "--only", "handler"]).await?;
    let child = bench.wait_handled(child, &config, names(&config.namespace)).await?;
    blocking(move || child.stop()).await?;
    let mut child = Child::start(&config, bench.options.batch, &["serve", "--only", "handler"])?;
    let (stop, partitions) = (Arc::clone(&bench.stop), bench.partition_count());
    let ready = blocking(move || {
        let ready = child.wait_ready(partitions, &stop)?;
        child.stop()?;
        Ok(ready)
    })
    .await?;
    let idle = bench.idle_start();
    bench.progress.begin("reading and folding the log", 0);
    let (events, elapsed) = fold(bench).await?;
    let restoring = ready.saturating_sub(idle);
    let rate = per_second("the restart", events, restoring)?;
    let raw_rate = per_second("the fold", events, elapsed)?;
    Ok(Figures {
        rate: whole(rate),
        raw_rate: whole(raw_rate),
        ratio: ratio(rate, raw_rate),
        ready_s: seconds(ready),
        idle_ready_s: seconds(idle),
        events,
    })
}

/// Reads every partition at once, as a handler does, and folds each stream.
async fn fold(bench: &Bench) -> Result<(usize, Duration), Error> {
    let topic = names(&bench.ground.namespace("")?).events;
    let partitions = bench.partition_count();
    let pool = Arc::new(ReaderPool::new(&bench.ground.installation.kafka, partitions));
    // Readers are made when they are first used: that is no part of reading.
    read_all(bench, &pool, &topic, true).await?;
    let started = Instant::now();
    let events = read_all(bench, &pool, &topic, false).await?;
    Ok((events, started.elapsed()))
}

async fn read_all(
    bench: &Bench,
    pool: &Arc<ReaderPool>,
    topic: &str,
    first_only: bool,
) -> Result<usize, Error> {
    let reads = (0..bench.ground.partitions).map(|partition| {
        let (pool, topic, codec) = (Arc::clone(pool), topic.to_owned(), bench.codec());
        blocking(move || {
            let mut streams: HashMap<String, <Account as Decider>::State> = HashMap::new();
            let (mut count, mut outcome) = (0, Ok(()));
            pool.read_to_end(&topic, partition, Begin::Oldest, |records| {
                for record in &records {
                    let key = record.key.as_deref().unwrap_or_default();
                    let Some((id, _)) = parse_event_key(key) else { continue };
                    match codec.decode_event(record.value.as_deref().unwrap_or_default()) {
                        Ok(event) => {
                            let state = streams.entry_ref(id).or_default();
                            let at = Timestamp::from_millis(record.timestamp_ms);
                            Account::evolve(state, &event, at);
                            count += 1;
                        }
                        Err(error) => outcome = Err(Error::Codec(error)),
                    }
                }
                outcome.is_ok() && !first_only
            })?;
            outcome.map(|()| count)
        })
    });
    let counts = futures::future::join_all(reads).await;
    counts.into_iter().sum()
}
