//! What `/metrics` shows of handlers, reactors and projections, by partition.

use std::collections::BTreeMap;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::engine::projector::State;
use crate::log::kafka::group::Place;
use crate::runtime::lane_status::{LaneState, LaneStatus};
use crate::runtime::{projection, reactor_group};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Partition {
    topic: String,
    partition: i32,
}

/// What the handlers show at `/metrics`, by partition.
pub(super) struct HandlerFigures {
    commands: Family<Partition, Gauge>,
    events: Family<Partition, Gauge>,
    transactions: Family<Partition, Gauge>,
    streams: Family<Partition, Gauge>,
    streams_in_memory: Family<Partition, Gauge>,
    answers: Family<Partition, Gauge>,
    answers_in_memory: Family<Partition, Gauge>,
    to_restore_events: Family<Partition, Gauge>,
    restored_percent: Family<Partition, Gauge>,
    ready_after_ms: Family<Partition, Gauge>,
    next_offset: Family<Partition, Gauge>,
    is_running: Family<Partition, Gauge>,
    /// What was ours when it was last shown.
    shown: Mutex<BTreeSet<Partition>>,
}

impl HandlerFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::<Partition, Gauge>::default();
            registry.register(format!("millrace_handler_{name}"), help, family.clone());
            family
        };
        Self {
            commands: family("commands", "Commands decided since the partition was taken over"),
            events: family("events", "Events written since the partition was taken over"),
            transactions: family("transactions", "Transactions since the partition was taken over"),
            streams: family("streams", "Streams that there are"),
            streams_in_memory: family("streams_in_memory", "Streams in memory"),
            answers: family("answers", "Command ids remembered"),
            answers_in_memory: family("answers_in_memory", "Command ids remembered in memory"),
            to_restore_events: family(
                "to_restore_events",
                "About how many events a start would read, but for the snapshots",
            ),
            restored_percent: family("restored_percent", "How much of the state is read back"),
            ready_after_ms: family(
                "ready_after_ms",
                "From the assignment until commands could be handled, in ms",
            ),
            next_offset: family("next_offset", "The next command to read"),
            is_running: family("running", "1 if the partition's commands are being handled"),
            shown: Mutex::default(),
        }
    }

    /// Shows the lanes of all groups; what somebody else has taken over is shown no more.
    pub(super) fn show(&self, lanes: &[LaneStatus]) {
        let of =
            |lane: &LaneStatus| Partition { topic: lane.topic.clone(), partition: lane.partition };
        let ours: BTreeSet<_> = lanes.iter().map(of).collect();
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for gone in shown.difference(&ours) {
            for family in [
                &self.commands,
                &self.events,
                &self.transactions,
                &self.streams,
                &self.streams_in_memory,
                &self.answers,
                &self.answers_in_memory,
                &self.to_restore_events,
                &self.restored_percent,
                &self.ready_after_ms,
                &self.next_offset,
                &self.is_running,
            ] {
                family.remove(gone);
            }
        }
        *shown = ours;
        drop(shown);
        for lane in lanes {
            let label = of(lane);
            let ready_after_ms = lane.ready_after.unwrap_or_default().as_millis();
            let ready_after_ms = u64::try_from(ready_after_ms).unwrap_or(u64::MAX);
            let figures = [
                (&self.commands, lane.counts.commands),
                (&self.events, lane.counts.events),
                (&self.transactions, lane.counts.transactions),
                (&self.streams, lane.counts.streams),
                (&self.streams_in_memory, lane.counts.streams_in_memory),
                (&self.answers, lane.counts.answers),
                (&self.answers_in_memory, lane.counts.answers_in_memory),
                (&self.to_restore_events, lane.counts.to_restore_events),
                (&self.restored_percent, u64::from(lane.restored_percent)),
                (&self.ready_after_ms, ready_after_ms),
                (&self.next_offset, lane.counts.next_offset.unsigned_abs()),
                (&self.is_running, u64::from(lane.state == LaneState::Running)),
            ];
            for (family, value) in figures {
                family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reacted {
    reactor: String,
    topic: String,
    partition: i32,
}

/// What the reactors show.
pub(super) struct ReactorFigures {
    records: Family<Reacted, Gauge>,
    commands: Family<Reacted, Gauge>,
    next_offset: Family<Reacted, Gauge>,
    is_running: Family<Reacted, Gauge>,
}

impl ReactorFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::<Reacted, Gauge>::default();
            registry.register(format!("millrace_reactor_{name}"), help, family.clone());
            family
        };
        Self {
            records: family("records", "Events and results seen since the partition was taken"),
            commands: family("commands", "Commands sent since the partition was taken"),
            next_offset: family("next_offset", "The next record to react to"),
            is_running: family("running", "1 if the partition's records are being reacted to"),
        }
    }

    pub(super) fn show(&self, reactor: &str, partitions: &BTreeMap<Place, reactor_group::Status>) {
        for ((topic, partition), status) in partitions {
            let label = Reacted {
                reactor: reactor.to_owned(),
                topic: topic.clone(),
                partition: *partition,
            };
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let figures = [
                (&self.records, number(status.counts.records)),
                (&self.commands, number(status.counts.commands)),
                (&self.next_offset, status.counts.next_offset),
                (&self.is_running, i64::from(status.state == LaneState::Running)),
            ];
            for (family, value) in figures {
                family.get_or_create(&label).set(value);
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Projected {
    projection: String,
    topic: String,
    partition: i32,
}

/// What the projections show.
pub(super) struct ProjectionFigures {
    events: Family<Projected, Gauge>,
    passed_over: Family<Projected, Gauge>,
    parked: Family<Projected, Gauge>,
    parked_streams: Family<Projected, Gauge>,
    next_offset: Family<Projected, Gauge>,
    lag_ms: Family<Projected, Gauge>,
    is_stopped: Family<Projected, Gauge>,
}

impl ProjectionFigures {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::<Projected, Gauge>::default();
            registry.register(format!("millrace_projection_{name}"), help, family.clone());
            family
        };
        Self {
            events: family("events", "Events applied since the partition was taken over"),
            passed_over: family("passed_over", "Events of types that the projection ignores"),
            parked: family("parked", "Events that are parked: see millrace dead-letters"),
            parked_streams: family("parked_streams", "Streams that have parked events"),
            next_offset: family("next_offset", "The next event to apply"),
            lag_ms: family("lag_ms", "How long the oldest waiting event has been waiting, in ms"),
            is_stopped: family("stopped", "1 if the partition has stopped and somebody must act"),
        }
    }

    pub(super) fn show(&self, status: &projection::Status) {
        for partition in &status.partitions {
            let label = Projected {
                projection: status.name.clone(),
                topic: partition.topic.clone(),
                partition: partition.partition,
            };
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let figures = [
                (&self.events, number(partition.events)),
                (&self.passed_over, number(partition.passed_over)),
                (&self.parked, number(partition.parked.0)),
                (&self.parked_streams, number(partition.parked.1)),
                (&self.next_offset, partition.place.next_offset),
                (&self.lag_ms, partition.lag_ms),
                (&self.is_stopped, i64::from(partition.state == State::Stopped)),
            ];
            for (family, value) in figures {
                family.get_or_create(&label).set(value);
            }
        }
    }
}
