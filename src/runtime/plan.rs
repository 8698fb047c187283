//! What is settled before a handler group is joined: topics, their ids and partition counts, the
//! key for origins. Whatever is not as it must be is an error here, not a surprise later.

use std::collections::HashMap;
use std::sync::Arc;

use super::handler_group::{Aggregate, MakeHandler};
use super::signing::{internal_key, targets};
use crate::config::{CommandTime, Config};
use crate::engine::protocol::Settings;
use crate::kernel::stream::{AggregateName, Kind};
use crate::log::kafka::Error;
use crate::log::kafka::group::Witness;

/// The most bytes of commands in one transaction.
const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The most commands whose records are held at a time: with some 1.5 kB a command, about what a
/// processor's second cache holds.
const CHUNK_MAX: usize = 250;
/// Answers are remembered a little longer than the 24 h that are promised.
const WINDOW_SECONDS: i64 = 25 * 3_600;

/// The names of one aggregate's topics.
#[derive(Clone, Debug)]
pub(super) struct TopicNames {
    pub(super) commands: String,
    pub(super) events: String,
    pub(super) snapshots: String,
    pub(super) results: String,
    pub(super) dead_letters: String,
    pub(super) timers: String,
}

impl TopicNames {
    pub(super) fn of(&self, kind: Kind) -> &str {
        match kind {
            Kind::Commands => &self.commands,
            Kind::Events => &self.events,
            Kind::Snapshots => &self.snapshots,
            Kind::Results => &self.results,
            Kind::DeadLetters => &self.dead_letters,
            Kind::Timers => &self.timers,
        }
    }
}

/// What is settled before the group is joined.
pub(super) struct Plan {
    pub(super) group: String,
    pub(super) aggregates: HashMap<String, AggregatePlan>,
}

pub(super) struct AggregatePlan {
    pub(super) make: MakeHandler,
    pub(super) topics: TopicNames,
    pub(super) settings: Settings,
}

impl Plan {
    pub(super) fn make(
        config: &Config,
        group: &str,
        aggregates: &[Aggregate],
        witness: &Witness,
    ) -> Result<Self, Error> {
        let cluster_id = witness.cluster_id()?;
        let key = internal_key(config, &cluster_id);
        let names = aggregates.iter().map(|aggregate| aggregate.name);
        let targets = targets(config, names, witness)?;
        let mut plans = HashMap::new();
        for aggregate in aggregates {
            let topics = topic_names(config, aggregate.name);
            let partition_count = same_partitions(witness, &topics, aggregate.has_timers)?;
            let ids = [&topics.commands, &topics.events, &topics.results].map(String::as_str);
            let ids = witness.topic_ids(&ids)?;
            let [commands_topic_id, events_topic_id, results_topic_id] = ids[..] else {
                return Err(Error::NoTopic(topics.commands));
            };
            let settings = Settings {
                group: group.to_owned(),
                cluster_id: cluster_id.clone(),
                commands_topic: topics.commands.clone(),
                commands_topic_id,
                events_topic: topics.events.clone(),
                events_topic_id,
                results_topic_id,
                partition: 0,
                partition_count,
                batch_max: config.handler.batch.clamp(1, 5_000),
                chunk_max: CHUNK_MAX,
                batch_bytes_max: BATCH_BYTES_MAX,
                trust_command_time: config.handler.command_time == CommandTime::Trust,
                snapshot_every: config.handler.snapshot_every,
                window_seconds: WINDOW_SECONDS,
                answers_in_memory: config.handler.answers_in_memory,
                streams_in_memory: config.handler.streams_in_memory,
                restore_events: config.handler.restore_events,
                key: key.clone(),
                targets: targets.clone(),
            };
            let make = Arc::clone(&aggregate.make);
            plans.insert(topics.commands.clone(), AggregatePlan { make, topics, settings });
        }
        Ok(Self { group: group.to_owned(), aggregates: plans })
    }
}

fn topic_names(config: &Config, name: AggregateName) -> TopicNames {
    let topic = |kind| config.namespace.dotted(&name.topic(kind));
    TopicNames {
        commands: topic(Kind::Commands),
        events: topic(Kind::Events),
        snapshots: topic(Kind::Snapshots),
        results: topic(Kind::Results),
        dead_letters: topic(Kind::DeadLetters),
        timers: topic(Kind::Timers),
    }
}

/// The partition count that all of an aggregate's topics share.
fn same_partitions(witness: &Witness, topics: &TopicNames, has_timers: bool) -> Result<i32, Error> {
    let count = witness.partition_count(&topics.commands)?;
    let always = [Kind::Events, Kind::Snapshots, Kind::Results, Kind::DeadLetters];
    for kind in always.into_iter().chain(has_timers.then_some(Kind::Timers)) {
        let topic = topics.of(kind);
        let other = witness.partition_count(topic)?;
        if other != count {
            return Err(Error::Unexpected(format!(
                "{topic} has {other} partitions but {} has {count}: an aggregate's topics must \
                 have the same number; see `millrace topics plan`",
                topics.commands
            )));
        }
    }
    Ok(count)
}
