//! Everything that one process runs: started together, watched, stopped together.

mod audit;
mod figures;
mod rates;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;

use crate::codec::schemas::{Lookup, Schemas};
use crate::config::Config;
use crate::engine::projector;
use crate::engine::protocol::Counts;
use crate::http::Health;
use crate::http::health::{Partition, Readiness};
use crate::log::kafka;
use crate::log::kafka::group::Place;
use crate::read_model::store;
use crate::runtime::handler_group::HandlerGroup;
use crate::runtime::lane::SchemaLookUp;
use crate::runtime::lane_status::{LaneState, LaneStatus};
use crate::runtime::projection::{self, Projection};
use crate::runtime::reactor_group::{self, ReactorGroup};
use crate::{runtime, topics, topology};
use figures::{HandlerFigures, ProjectionFigures, ReactorFigures};
use rates::Rates;

/// The longest that a service waits for its components when it is dropped unfinished.
const DROP_MAX: Duration = Duration::from_secs(3);
const THROWN_OUT: &str = "thrown out of the group, joining it again: no Kafka broker answers, or \
                          this process stood still";

/// What a process is to run besides HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The command handlers.
    pub handler: bool,
    /// The process managers' reactors.
    pub reactor: bool,
    /// The projections into Postgres.
    pub postgres: bool,
    /// The projections into ClickHouse.
    pub clickhouse: bool,
}

/// Why a process cannot start its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A topic cannot take what is written to it.
    #[error("cannot check the topics")]
    Topics(#[source] kafka::topic::Error),
    /// The schemas' ids cannot be found out.
    #[error("cannot load the schemas")]
    Schemas(#[source] runtime::schemas::Error),
    /// The handlers cannot start.
    #[error("cannot start the command handlers")]
    Handlers(#[source] kafka::Error),
    /// A reactor cannot start.
    #[error("cannot start reactor {0}")]
    Reactor(String, #[source] kafka::Error),
    /// A projection cannot read its events.
    #[error("cannot start projection {0}")]
    ProjectionLog(String, #[source] kafka::Error),
    /// A projection cannot use its store.
    #[error("cannot start projection {0}")]
    ProjectionStore(String, #[source] store::Error),
    /// The machine gives no thread.
    #[error("cannot start projection {0}")]
    ProjectionThread(String, #[source] std::io::Error),
}

impl Error {
    fn projection(name: &str) -> impl FnOnce(projection::Error) -> Self {
        let name = name.to_owned();
        move |error| match error {
            projection::Error::Kafka(source) => Self::ProjectionLog(name, source),
            projection::Error::Store(source) => Self::ProjectionStore(name, source),
            projection::Error::Thread(source) => Self::ProjectionThread(name, source),
        }
    }
}

/// The running components.
pub struct Service {
    handlers: Vec<(&'static str, HandlerGroup)>,
    reactors: Vec<ReactorGroup>,
    projections: Vec<Projection>,
    handler_figures: HandlerFigures,
    reactor_figures: ReactorFigures,
    projection_figures: ProjectionFigures,
    rates: Rates,
    has_told: bool,
    schemas: Arc<Schemas>,
    /// Runs as long as the service does.
    audit: Option<audit::Background>,
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
        let declared = topics::declared(&config.namespace).map_err(Error::Topics)?;
        let admin = kafka::topic::Admin::connect(&config.kafka).await.map_err(Error::Topics)?;
        admin.check_limits(&declared).await.map_err(Error::Topics)?;
        let schemas = runtime::schemas::load(config).await.map_err(Error::Schemas)?;
        let mut service = Self {
            handlers: Vec::new(),
            reactors: Vec::new(),
            projections: Vec::new(),
            handler_figures: HandlerFigures::register(metrics),
            reactor_figures: ReactorFigures::register(metrics),
            projection_figures: ProjectionFigures::register(metrics),
            rates: Rates::default(),
            has_told: false,
            schemas: Arc::clone(&schemas),
            audit: None,
        };
        if wanted.handler {
            service.start_handlers(config, &schemas)?;
        }
        let look_up = look_up_or_wait(config, &schemas);
        if wanted.reactor {
            for (reactor, reached) in topology::reactors(&schemas) {
                let name = reactor.name().to_owned();
                let group = ReactorGroup::start(config, reactor, &reached, Arc::clone(&look_up));
                service.reactors.push(group.map_err(|error| Error::Reactor(name, error))?);
            }
        }
        if wanted.postgres {
            let failed = Error::projection("postgres.banking");
            let started = topology::postgres_banking(config, &schemas, Arc::clone(&look_up)).await;
            service.projections.push(started.map_err(failed)?);
        }
        if wanted.clickhouse {
            let failed = Error::projection("clickhouse.banking");
            let started = topology::clickhouse_banking(config, &schemas, look_up).await;
            service.projections.push(started.map_err(failed)?);
        }
        service.audit = audit::Background::start(config, wanted, metrics);
        Ok(service)
    }

    #[expect(clippy::result_large_err, reason = "made once, at the start")]
    fn start_handlers(&mut self, config: &Config, schemas: &Arc<Schemas>) -> Result<(), Error> {
        for (domain, aggregates) in topology::handlers(schemas) {
            let look_up = look_up(config, schemas);
            let group = HandlerGroup::start(config, domain, aggregates, look_up)
                .map_err(Error::Handlers)?;
            self.handlers.push((domain, group));
        }
        Ok(())
    }

    /// What every schema's id stands for.
    #[must_use]
    pub fn schemas(&self) -> Arc<Schemas> {
        Arc::clone(&self.schemas)
    }

    /// Tells how every component is.
    pub fn report(&mut self, health: &Health) {
        let now = Instant::now();
        let mut all = Vec::new();
        for (domain, group) in &self.handlers {
            let lanes = group.status();
            let (readiness, detail) = if let Some(reason) = group.failure() {
                (Readiness::Failed, reason)
            } else if group.is_stopped() {
                (Readiness::Failed, "its thread has ended: see the log".to_owned())
            } else if group.is_lost() {
                (Readiness::Waiting, THROWN_OUT.to_owned())
            } else {
                summary(&lanes, group.has_joined())
            };
            let name = format!("handler.{domain}");
            health.set(&name, readiness, &detail);
            all.extend(lanes.into_iter().map(|lane| (name.clone(), lane)));
        }
        let lanes: Vec<_> = all.iter().map(|(_, lane)| lane.clone()).collect();
        self.handler_figures.show(&lanes);
        self.rates.look(&lanes, now);
        for (domain, _) in &self.handlers {
            let name = format!("handler.{domain}");
            let own = all.iter().filter(|(found, _)| *found == name);
            let partitions = own.map(|(_, lane)| partition(lane, &self.rates)).collect();
            health.set_partitions(&name, partitions);
        }
        self.tell_when_restored(&lanes);
        for group in &self.reactors {
            let partitions = group.status();
            let (readiness, detail) = if group.is_stopped() {
                (Readiness::Failed, "its thread has ended: see the log".to_owned())
            } else if group.is_lost() {
                (Readiness::Waiting, THROWN_OUT.to_owned())
            } else {
                reactor_summary(&partitions, group.has_joined())
            };
            health.set(&format!("reactor.{}", group.name()), readiness, &detail);
            self.reactor_figures.show(group.name(), &partitions);
        }
        for projection in &self.projections {
            let status = projection.status();
            let (readiness, detail) = projection_summary(&status);
            health.set(&status.name, readiness, &detail);
            self.projection_figures.show(&status);
        }
    }

    /// Says once how long it took until all partitions were ready, and what was read for it.
    fn tell_when_restored(&mut self, lanes: &[LaneStatus]) {
        let is_ready = !lanes.is_empty() && lanes.iter().all(|lane| lane.ready_after.is_some());
        if self.has_told || !is_ready {
            return;
        }
        self.has_told = true;
        let sum = |count: fn(&Counts) -> u64| -> u64 {
            lanes.iter().map(|lane| count(&lane.counts)).sum()
        };
        let longest = lanes.iter().filter_map(|lane| lane.ready_after).max().unwrap_or_default();
        tracing::info!(
            partitions = lanes.len(),
            ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
            streams = sum(|counts| counts.streams),
            snapshots = sum(|counts| counts.restored_snapshots),
            events = sum(|counts| counts.restored_events),
            timers = sum(|counts| counts.restored_timers),
            results = sum(|counts| counts.restored_results),
            "handlers ready"
        );
    }

    /// Why a component has given up for good, if one has.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.handlers.iter().find_map(|(_, group)| group.failure())
    }

    /// Asks every component to finish what it has in hand.
    pub fn request_stop(&mut self) {
        self.audit = None;
        for (_, group) in &self.handlers {
            group.request_stop();
        }
        for group in &self.reactors {
            group.request_stop();
        }
        for projection in &self.projections {
            projection.request_stop();
        }
    }

    /// Whether every component has stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.handlers.iter().all(|(_, group)| group.is_stopped())
            && self.reactors.iter().all(ReactorGroup::is_stopped)
            && self.projections.iter().all(Projection::is_stopped)
    }

    /// Leaves hanging components to the end of the process.
    pub fn abandon(&mut self) {
        for (_, group) in self.handlers.drain(..) {
            std::mem::forget(group);
        }
        for group in self.reactors.drain(..) {
            std::mem::forget(group);
        }
        for projection in self.projections.drain(..) {
            std::mem::forget(projection);
        }
    }
}

impl Drop for Service {
    /// A start that is broken off has members that may be joining still: a group answers nobody
    /// until a dead member's session has run out, so they are not waited for to the end.
    fn drop(&mut self) {
        self.request_stop();
        let started = Instant::now();
        while !self.is_stopped() {
            if started.elapsed() > DROP_MAX {
                return self.abandon();
            }
            std::thread::sleep(Duration::from_millis(20));
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

/// As [`look_up`]; a schema that the registry does not have either is an error. What a handler may
/// refuse, a projection must wait for.
pub(crate) fn look_up_or_wait(config: &Config, schemas: &Arc<Schemas>) -> SchemaLookUp {
    let (look_up, schemas) = (look_up(config, schemas), Arc::clone(schemas));
    Arc::new(move |id| {
        look_up(id)?;
        match schemas.lookup(id) {
            Lookup::Known(_) => Ok(()),
            Lookup::Missing | Lookup::Unknown => Err(format!("the registry has no schema {id}")),
        }
    })
}

fn partition(lane: &LaneStatus, rates: &Rates) -> Partition {
    Partition {
        topic: lane.topic.clone(),
        partition: lane.partition,
        state: lane.state_text(),
        transactions_per_second: rates.per_second(lane),
        last_error: lane.last_error.clone(),
    }
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
    let restoring = lanes.iter().filter(|lane| lane.state == LaneState::Restoring);
    let restored = restoring.map(|lane| lane.restored_percent).min();
    let detail = restored.map_or_else(String::new, |percent| format!(", restoring {percent} %"));
    let detail = format!("{running} of {} partitions running{detail}", lanes.len());
    let ready = has_joined && running == lanes.len();
    (if ready { Readiness::Ready } else { Readiness::Starting }, detail)
}

/// A reactor in one word and one line.
fn reactor_summary(
    partitions: &BTreeMap<Place, reactor_group::Status>,
    has_joined: bool,
) -> (Readiness, String) {
    for (state, readiness) in
        [(LaneState::Stopped, Readiness::Failed), (LaneState::Waiting, Readiness::Waiting)]
    {
        let found = partitions.iter().find(|(_, status)| status.state == state);
        if let Some(((topic, partition), status)) = found {
            let reason = status.last_error.as_deref().unwrap_or(state.as_str());
            return (readiness, format!("{topic} partition {partition}: {reason}"));
        }
    }
    let is_running = |status: &&reactor_group::Status| status.state == LaneState::Running;
    let running = partitions.values().filter(is_running).count();
    let all = partitions.len();
    let ready = has_joined && running == all;
    let readiness = if ready { Readiness::Ready } else { Readiness::Starting };
    (readiness, format!("{running} of {all} partitions running"))
}

/// A projection in one word and one line.
fn projection_summary(status: &projection::Status) -> (Readiness, String) {
    use projector::State;
    if let Some(reason) = &status.last_error {
        return (Readiness::Waiting, reason.clone());
    }
    for partition in &status.partitions {
        let reason = partition.last_error.as_deref().unwrap_or("no reason given");
        let line = format!("{} partition {}: {reason}", partition.topic, partition.partition);
        if partition.state == State::Stopped {
            return (Readiness::Failed, line);
        }
        if partition.state == State::BackingOff {
            return (Readiness::Waiting, line);
        }
    }
    let at_work = |state| {
        matches!(state, State::Ready | State::Applying | State::Committing | State::Redriving)
    };
    let working = status.partitions.iter().filter(|partition| at_work(partition.state)).count();
    let all = status.partitions.len();
    let readiness =
        if status.has_joined && working == all { Readiness::Ready } else { Readiness::Starting };
    let parked: u64 = status.partitions.iter().map(|partition| partition.parked.0).sum();
    let parked = match parked {
        0 => String::new(),
        1 => ", 1 event parked: see `millrace dead-letters list`".to_owned(),
        count => format!(", {count} events parked: see `millrace dead-letters list`"),
    };
    (readiness, format!("{working} of {all} partitions projecting{parked}"))
}
