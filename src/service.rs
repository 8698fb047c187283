//! Everything that one process runs: started together, watched, stopped together.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::http::Health;
use crate::http::health::Readiness;
use crate::log::kafka;
use crate::runtime::handler_group::HandlerGroup;
use crate::runtime::lane::{LaneState, LaneStatus, SchemaLookUp};
use crate::{runtime, topology};

/// What a process is to run besides HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The command handlers.
    pub handler: bool,
    /// The projections into Postgres.
    pub postgres: bool,
    /// The projections into ClickHouse.
    pub clickhouse: bool,
}

/// Why a process cannot start its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schemas' ids cannot be found out.
    #[error("cannot load the schemas")]
    Schemas(#[source] runtime::schemas::Error),
    /// The handlers cannot start.
    #[error("cannot start the command handlers")]
    Handlers(#[source] kafka::Error),
}

/// The running components.
pub struct Service {
    handlers: Vec<(&'static str, HandlerGroup)>,
    figures: HandlerFigures,
}

impl Service {
    /// Starts what is wanted.
    ///
    /// # Errors
    /// A service that is needed at the start cannot be reached, or topics or schemas are missing.
    pub async fn start(
        config: &Config,
        wanted: Wanted,
        metrics: &mut Registry,
    ) -> Result<Self, Error> {
        let schemas = runtime::schemas::load(config).await.map_err(Error::Schemas)?;
        let mut service = Self { handlers: Vec::new(), figures: HandlerFigures::register(metrics) };
        if wanted.handler {
            service.start_handlers(config, &schemas)?;
        }
        Ok(service)
    }

    fn start_handlers(&mut self, config: &Config, schemas: &Arc<Schemas>) -> Result<(), Error> {
        for (domain, aggregates) in topology::handlers(schemas) {
            let look_up = look_up(config, schemas);
            let group = HandlerGroup::start(config, domain, aggregates, look_up)
                .map_err(Error::Handlers)?;
            self.handlers.push((domain, group));
        }
        Ok(())
    }

    /// Tells how every component is.
    pub fn report(&self, health: &Health) {
        for (domain, group) in &self.handlers {
            let lanes = group.status();
            let (readiness, detail) = summary(&lanes, group.has_joined());
            health.set(&format!("handler.{domain}"), readiness, &detail);
            self.figures.show(&lanes);
        }
    }

    /// Asks every component to finish what it has in hand.
    pub fn request_stop(&mut self) {
        for (_, group) in &self.handlers {
            group.request_stop();
        }
    }

    /// Whether every component has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.handlers.iter().all(|(_, group)| group.is_stopped())
    }

    /// Leaves hanging components to the end of the process.
    pub fn abandon(&mut self) {
        for (_, group) in self.handlers.drain(..) {
            std::mem::forget(group);
        }
    }
}

/// Asks the registry from a lane's thread.
fn look_up(config: &Config, schemas: &Arc<Schemas>) -> SchemaLookUp {
    let runtime = tokio::runtime::Handle::current();
    let (config, schemas) = (config.clone(), Arc::clone(schemas));
    Arc::new(move |id| {
        runtime
            .block_on(runtime::schemas::look_up(&config, &schemas, id))
            .map_err(|error| error.to_string())
    })
}

/// The handlers of a domain in one word and one line.
fn summary(lanes: &[LaneStatus], has_joined: bool) -> (Readiness, String) {
    let count = |state: LaneState| lanes.iter().filter(|lane| lane.state == state).count();
    if let Some(lane) = lanes.iter().find(|lane| lane.state == LaneState::Stopped) {
        let reason = lane.last_error.as_deref().unwrap_or("stopped");
        return (
            Readiness::Failed,
            format!("{} partition {}: {reason}", lane.topic, lane.partition),
        );
    }
    if let Some(lane) = lanes.iter().find(|lane| lane.state == LaneState::Waiting) {
        let reason = lane.last_error.as_deref().unwrap_or("waiting");
        return (
            Readiness::Waiting,
            format!("{} partition {}: {reason}", lane.topic, lane.partition),
        );
    }
    let running = count(LaneState::Running);
    let detail = format!("{running} of {} partitions running", lanes.len());
    let ready = has_joined && running == lanes.len();
    (if ready { Readiness::Ready } else { Readiness::Starting }, detail)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    topic: String,
    partition: i32,
}

/// What the handlers show at `/metrics`, by partition.
struct HandlerFigures {
    commands: Family<Partition, Gauge>,
    events: Family<Partition, Gauge>,
    transactions: Family<Partition, Gauge>,
    streams: Family<Partition, Gauge>,
    answers: Family<Partition, Gauge>,
    next_offset: Family<Partition, Gauge>,
    is_running: Family<Partition, Gauge>,
}

impl HandlerFigures {
    fn register(registry: &mut Registry) -> Self {
        let mut family = |name: &str, help: &str| {
            let family = Family::<Partition, Gauge>::default();
            registry.register(format!("millrace_handler_{name}"), help, family.clone());
            family
        };
        Self {
            commands: family("commands", "Commands decided since the partition was taken over"),
            events: family("events", "Events written since the partition was taken over"),
            transactions: family("transactions", "Transactions since the partition was taken over"),
            streams: family("streams", "Streams in memory"),
            answers: family("answers", "Command ids remembered"),
            next_offset: family("next_offset", "The next command to read"),
            is_running: family("running", "1 if the partition's commands are being handled"),
        }
    }

    fn show(&self, lanes: &[LaneStatus]) {
        for lane in lanes {
            let label = Partition { topic: lane.topic.clone(), partition: lane.partition };
            let figures = [
                (&self.commands, lane.counts.commands),
                (&self.events, lane.counts.events),
                (&self.transactions, lane.counts.transactions),
                (&self.streams, lane.counts.streams),
                (&self.answers, lane.counts.answers),
                (&self.next_offset, lane.counts.next_offset.unsigned_abs()),
                (&self.is_running, u64::from(lane.state == LaneState::Running)),
            ];
            for (family, value) in figures {
                family.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
    }
}
