//! Saga streams -> where each saga stands: a fold of the log with the deciders' own `evolve`.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use indicatif::ProgressBar;

use super::Manager;
use crate::cli::{Output, reading};
use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::{account_opening, transfer};
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::message::Record;
use crate::kernel::stream::{Kind, parse_event_key, partition_of};
use crate::kernel::time::Timestamp;
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;
use crate::runtime;

/// How often the bar is told.
const PROGRESS_EVERY: u64 = 4_096;

/// Where a saga stands.
#[derive(Debug)]
pub(super) struct Saga {
    pub(super) manager: Manager,
    pub(super) id: String,
    /// Whose it is, in a few words.
    pub(super) about: String,
    pub(super) state: State,
    pub(super) step: Option<&'static str>,
    pub(super) attempt: u32,
    /// Its first event's time.
    pub(super) since: Timestamp,
    /// When it looks again by itself.
    pub(super) deadline: Option<Timestamp>,
    /// The last failure's code.
    pub(super) failure: Option<String>,
    pub(super) correlation_id: Option<String>,
    /// What caused its last event.
    pub(super) causation_id: Option<String>,
    pub(super) version: u64,
    /// The receiver of a transfer that may have arrived.
    pub(super) receiver: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    /// An operator is waited for, and why.
    Parked(String),
    Ended(&'static str),
}

impl State {
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Parked(_) => "PARKED",
            Self::Ended(how) => how,
        }
    }
}

impl Saga {
    /// The last thing that went wrong.
    pub(super) fn error(&self) -> Option<&str> {
        match &self.state {
            State::Parked(reason) => Some(reason),
            State::Waiting | State::Ended(_) => self.failure.as_deref(),
        }
    }
}

/// What a saga's state says.
struct Told {
    about: String,
    state: State,
    step: Option<&'static str>,
    attempt: u32,
    deadline: Option<Timestamp>,
    receiver: Option<String>,
}

fn of_transfer(state: &transfer::Transfer) -> Told {
    let step = state.step();
    let ended = match state.phase {
        transfer::Phase::Completed => Some("COMPLETED"),
        transfer::Phase::Reversed => Some("REVERSED"),
        transfer::Phase::Unknown
        | transfer::Phase::Receiving
        | transfer::Phase::Settling
        | transfer::Phase::Reversing => None,
    };
    let receiving = step == Some(transfer::Step::Receive);
    Told {
        about: format!(
            "{} {} from {} to {}",
            state.amount, state.currency, state.from_account_id, state.to_account_id
        ),
        state: standing(ended, state.parked.as_ref()),
        step: step.map(transfer::Step::as_str),
        attempt: state.attempt,
        deadline: (ended.is_none() && state.parked.is_none()).then_some(state.due),
        receiver: receiving.then(|| state.to_account_id.clone()),
    }
}

fn of_opening(state: &account_opening::Opening) -> Told {
    use account_opening::{Outcome, Phase};
    let (step, ended) = match state.phase {
        Phase::Unknown => (None, None),
        Phase::Waiting(step) => (Some(step.as_str()), None),
        Phase::Ended(Outcome::Opened) => (None, Some("OPENED")),
        Phase::Ended(Outcome::Refused) => (None, Some("REFUSED")),
        Phase::Ended(Outcome::Closed) => (None, Some("CLOSED")),
    };
    let wanted = state.wanted.as_ref();
    let about = wanted.map(|wanted| format!("{} for {}", wanted.account_id, wanted.user_id));
    Told {
        about: about.unwrap_or_default(),
        state: standing(ended, state.parked.as_ref()),
        step,
        attempt: state.attempt,
        deadline: (ended.is_none() && state.parked.is_none()).then_some(state.due),
        receiver: None,
    }
}

/// The code of the failure that an event tells of.
type Failure<D> = fn(&<D as Decider>::Event) -> Option<&str>;

fn failure_of_transfer(event: &transfer::Event) -> Option<&str> {
    if let transfer::Event::StepFailed(event) = event { Some(&event.reason) } else { None }
}

fn failure_of_opening(event: &account_opening::Event) -> Option<&str> {
    if let account_opening::Event::StepFailed(event) = event { Some(&event.reason) } else { None }
}

fn standing(ended: Option<&'static str>, parked: Option<&String>) -> State {
    match (ended, parked) {
        (Some(how), _) => State::Ended(how),
        (None, Some(reason)) => State::Parked(reason.clone()),
        (None, None) => State::Waiting,
    }
}

/// Reads one saga.
///
/// # Errors
/// There is none of that id, or the brokers do not answer.
pub(super) async fn one(
    config: &Config,
    manager: Manager,
    id: &str,
    output: Output,
) -> anyhow::Result<Saga> {
    let found = all(config, manager, Some(id), output).await?.pop();
    found.with_context(|| format!("there is no {} with the id {id}", manager.as_str()))
}

/// Reads every saga of a process manager, or the one of that id.
///
/// # Errors
/// The brokers do not answer, or an event cannot be read.
pub(super) async fn all(
    config: &Config,
    manager: Manager,
    id: Option<&str>,
    output: Output,
) -> anyhow::Result<Vec<Saga>> {
    let schemas = runtime::schemas::load(config).await?;
    let (config, id) = (config.clone(), id.map(str::to_owned));
    let reading =
        Reading { config, schemas, handle: tokio::runtime::Handle::current(), output, id };
    tokio::task::spawn_blocking(move || {
        let schemas = Arc::clone(&reading.schemas);
        match manager {
            Manager::Transfer => {
                let codec = TransferCodec::new(schemas);
                reading.fold(manager, &codec, failure_of_transfer, of_transfer)
            }
            Manager::AccountOpening => {
                let codec = AccountOpeningCodec::new(schemas);
                reading.fold(manager, &codec, failure_of_opening, of_opening)
            }
        }
    })
    .await?
}

struct Reading {
    config: Config,
    schemas: Arc<Schemas>,
    handle: tokio::runtime::Handle,
    output: Output,
    id: Option<String>,
}

/// A stream as far as it was read.
struct Folded<S> {
    state: S,
    version: u64,
    since: Timestamp,
    failure: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
}

impl Reading {
    fn fold<D: Decider>(
        &self,
        manager: Manager,
        codec: &dyn Codec<D>,
        failure: Failure<D>,
        tell: impl Fn(&D::State) -> Told,
    ) -> anyhow::Result<Vec<Saga>> {
        let topic = self.config.namespace.dotted(&D::NAME.topic(Kind::Events));
        let count = Sender::open(&self.config.kafka)?.partition_count(&topic)?;
        let partitions = match &self.id {
            Some(id) => {
                let own = partition_of(id, count);
                own..own + 1
            }
            None => 0..count,
        };
        let bar = self.output.progress(0, format!("reading {topic}"));
        let mut streams = HashMap::new();
        for partition in partitions {
            self.read(&topic, partition, (codec, failure), &mut streams, &bar)?;
        }
        bar.finish_and_clear();
        let saga = |(id, folded): (String, Folded<D::State>)| {
            let Told { about, state, step, attempt, deadline, receiver } = tell(&folded.state);
            let Folded { version, since, failure, correlation_id, causation_id, .. } = folded;
            Saga {
                manager,
                id,
                about,
                state,
                step,
                attempt,
                since,
                deadline,
                failure,
                correlation_id,
                causation_id,
                version,
                receiver,
            }
        };
        Ok(streams.into_iter().map(saga).collect())
    }

    fn read<D: Decider>(
        &self,
        topic: &str,
        partition: i32,
        how: (&dyn Codec<D>, Failure<D>),
        streams: &mut HashMap<String, Folded<D::State>>,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let mut reader =
            PartitionReader::open(&self.config.kafka, topic, partition, Start::Beginning)?;
        let (start, end) = reader.watermarks()?;
        bar.inc_length((end - start).unsigned_abs());
        let mut wrong = None;
        let mut reached = start;
        reader.to_end(|record| {
            let passed = (record.offset + 1 - reached).unsigned_abs();
            if passed >= PROGRESS_EVERY {
                bar.inc(passed);
                reached = record.offset + 1;
            }
            match self.take(&record, how, streams) {
                Ok(()) => Visit::Continue,
                Err(error) => {
                    wrong = Some(error.context(format!("{topic}/{partition}@{}", record.offset)));
                    Visit::Stop
                }
            }
        })?;
        bar.inc((end - reached).unsigned_abs());
        wrong.map_or(Ok(()), Err)
    }

    fn take<D: Decider>(
        &self,
        record: &Record,
        (codec, failure): (&dyn Codec<D>, Failure<D>),
        streams: &mut HashMap<String, Folded<D::State>>,
    ) -> anyhow::Result<()> {
        let Some((id, sequence)) = record.key.as_deref().and_then(parse_event_key) else {
            bail!("a key that is no event's");
        };
        let Some(value) = record.value.as_deref() else { return Ok(()) };
        if self.id.as_deref().is_some_and(|wanted| wanted != id) {
            return Ok(());
        }
        let text = |name: &str| record.headers.text(name);
        let at = text("ce_time").and_then(Timestamp::parse_rfc3339).unwrap_or_default();
        let folded = streams.entry(id.to_owned()).or_insert_with(|| Folded {
            state: D::State::default(),
            version: 0,
            since: at,
            failure: None,
            correlation_id: text("correlation_id").map(str::to_owned),
            causation_id: None,
        });
        if sequence <= folded.version {
            return Ok(()); // An exact repeat that compaction has not removed yet.
        }
        if sequence != folded.version + 1 {
            bail!("{id} jumps from {} to {sequence}", folded.version);
        }
        let decode = || codec.decode_event(value);
        let event = self.handle.block_on(reading::decoded(&self.config, &self.schemas, decode))?;
        D::evolve(&mut folded.state, &event, at);
        folded.version = sequence;
        folded.causation_id = text("causation_id").map(str::to_owned);
        if let Some(code) = failure(&event) {
            folded.failure = Some(code.to_owned());
        }
        Ok(())
    }
}
