//! A generation filled beside the one in use: log -> rows, up to where the log ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Error, Means, Step, Told};
use crate::engine::projector::State;
use crate::kernel::stream::Kind;
use crate::log::kafka;
use crate::log::kafka::group::{Place, Witness};
use crate::log::kafka::partition_reader::{Next, PartitionReader, Start};
use crate::read_model::store::rebuild::{End, Ends, Generations};
use crate::runtime::projection::{self, PartitionStatus, Projection, Status};

/// The time between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long to wait for a record that would show that more is left.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A projection that fills a generation which users do not see.
pub(super) struct Filling {
    pub(super) generation: i32,
    projection: Option<Projection>,
    places: Vec<Place>,
    witness: Arc<Witness>,
    kafka: crate::config::Kafka,
    /// Where the log began, and where it ended when that was last asked.
    starts: BTreeMap<Place, i64>,
    pub(super) group: String,
    since: Instant,
}

impl Filling {
    /// Goes on where the generation ends.
    pub(super) async fn start<S: Generations>(
        means: &Means<'_>,
        store: &S,
        generation: i32,
    ) -> Result<Self, Error> {
        let config = means.config;
        let group = projection::group_beside(config, &store.name(), generation);
        let aggregates = store.definition().aggregates;
        let topics: Vec<String> = aggregates
            .iter()
            .map(|name| config.namespace.dotted(&name.topic(Kind::Events)))
            .collect();
        let (kafka, own) = (config.kafka.clone(), group.clone());
        let opening = tokio::task::spawn_blocking(move || {
            let witness = Witness::open(&kafka, &own)?;
            let mut places = Vec::new();
            for topic in topics {
                let count = witness.partition_count(&topic)?;
                places.extend((0..count).map(|partition| (topic.clone(), partition)));
            }
            Ok::<_, Error>((Arc::new(witness), places))
        });
        let (witness, places) = opening.await.map_err(|_| Error::Cut)??;
        let look_up = Arc::clone(&means.look_up);
        let own = store.over(generation);
        let projection = Projection::start_beside(config, own, means.settings, look_up).await?;
        Ok(Self {
            generation,
            projection: Some(projection),
            places,
            witness,
            kafka: config.kafka.clone(),
            starts: BTreeMap::new(),
            group,
            since: Instant::now(),
        })
    }

    pub(super) fn status(&self) -> Status {
        self.projection.as_ref().map(Projection::status).unwrap_or_default()
    }

    /// How many events have become rows since the start.
    pub(super) fn events(&self) -> u64 {
        self.status().partitions.iter().map(|partition| partition.events).sum()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Where the log ends now.
    pub(super) async fn log_ends(&mut self) -> Result<Ends, Error> {
        let (witness, places) = (Arc::clone(&self.witness), self.places.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let mut ends = Ends::new();
            let mut starts = BTreeMap::new();
            let mut ids = BTreeMap::new();
            for place in places {
                let topic_id = match ids.get(&place.0) {
                    Some(id) => *id,
                    None => witness.topic_ids(&[&place.0])?.first().copied().unwrap_or_default(),
                };
                ids.insert(place.0.clone(), topic_id);
                let action = || format!("asking for the end of {}/{}", place.0, place.1);
                let standing = witness.standing(&place).map_err(kafka::Error::call(action()))?;
                starts.insert(place.clone(), standing.log_start);
                ends.insert(place, End { topic_id, next_offset: standing.log_end });
            }
            Ok::<_, kafka::Error>((starts, ends))
        });
        let (starts, ends) = asking.await.map_err(|_| Error::Cut)??;
        self.starts = starts;
        Ok(ends)
    }

    /// Waits until everything in front of these ends has become rows.
    pub(super) async fn reach(&self, ends: &Ends, told: Option<&Told>) -> Result<(), Error> {
        let mut left: Vec<&Place> = ends.keys().collect();
        loop {
            let status = self.status();
            if let Some(told) = told {
                self.tell(told, &status, ends);
            }
            let mut still = Vec::new();
            for place in left {
                let found = status.partitions.iter().find(|found| is_at(found, place));
                if let Some(found) = found {
                    refuse_stopped(&status, found)?;
                }
                let end = ends.get(place).map_or(0, |end| end.next_offset);
                let is_there = match found.filter(|found| is_at_rest(found)) {
                    Some(found) if found.place.next_offset >= end => true,
                    // What is left may be nothing but the markers of transactions.
                    Some(found) if found.lag_ms == 0 && found.state == State::Ready => {
                        !self.has_events(place, found.place.next_offset, end).await?
                    }
                    _ => false,
                };
                if !is_there {
                    still.push(place);
                }
            }
            if still.is_empty() {
                return Ok(());
            }
            left = still;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn tell(&self, told: &Told, status: &Status, ends: &Ends) {
        let (mut done, mut of, mut events) = (0, 0, 0);
        for (place, end) in ends {
            let start = self.starts.get(place).copied().unwrap_or_default();
            of += (end.next_offset - start).max(0).unsigned_abs();
            let found = status.partitions.iter().find(|found| is_at(found, place));
            if let Some(found) = found.filter(|found| is_at_rest(found)) {
                let reached = found.place.next_offset.min(end.next_offset);
                done += (reached - start).max(0).unsigned_abs();
                events += found.events;
            }
        }
        told(Step::Building { generation: self.generation, done, of, events });
    }

    async fn has_events(&self, place: &Place, from: i64, to: i64) -> Result<bool, Error> {
        let (kafka, (topic, partition)) = (self.kafka.clone(), place.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let mut reader = PartitionReader::open(&kafka, &topic, partition, Start::At(from))?;
            Ok::<_, kafka::Error>(match reader.next(LOOK_TIMEOUT)? {
                Next::Record(record) => record.offset < to,
                Next::End(_) => false,
                // No word from the brokers: nobody knows.
                Next::Nothing => true,
            })
        });
        Ok(looking.await.map_err(|_| Error::Cut)??)
    }

    /// Ends it, if it has not ended yet: the batches in hand are finished.
    pub(super) async fn stop(&mut self) {
        if let Some(projection) = self.projection.take() {
            // Blocks until it has left its group.
            let _ = tokio::task::spawn_blocking(move || drop(projection)).await;
        }
    }
}

fn is_at(found: &PartitionStatus, place: &Place) -> bool {
    found.topic == place.0 && found.partition == place.1
}

/// Whether its place is known.
fn is_at_rest(found: &PartitionStatus) -> bool {
    !matches!(found.state, State::Locating | State::Positioning)
}

fn refuse_stopped(status: &Status, found: &PartitionStatus) -> Result<(), Error> {
    if found.state != State::Stopped {
        return Ok(());
    }
    let reason = found.last_error.as_deref().unwrap_or("no reason given");
    let (name, topic, partition) = (&status.name, &found.topic, found.partition);
    let generation = status.generation;
    Err(Error::Refused(format!(
        "generation {generation} of {name} cannot go on in {topic} partition {partition}: \
         {reason}; `millrace rebuild {name} --start-over` builds it from the beginning"
    )))
}
