//! Saga streams, their dead letters and results -> each saga, partition by partition.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Context as _;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use super::Manager;
use super::fold::{Fold, Folds, LetGo, Letters};
use super::saga::{Saga, Shown};
use crate::cli::{Output, reading};
use crate::clock;
use crate::codec;
use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::account_opening::Opening;
use crate::domain::banking::transfer::Transfer;
use crate::kernel::codec::Codec;
use crate::kernel::message::Record;
use crate::kernel::result::{Outcome, RESULT_OF};
use crate::kernel::stream::{Kind, partition_of};
use crate::log::kafka::partition_reader::{PartitionReader, Start, Visit};
use crate::log::kafka::sender::Sender;
use crate::runtime;

/// How often the bar is told.
const PROGRESS_EVERY: u64 = 4_096;
/// How many sagas wait to be shown while the next ones are read.
const WAITING_MAX: usize = 1_000;

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
    let only = HashSet::from([id.to_owned()]);
    let mut found = None;
    each(config, manager, (LetGo::Nothing, Some(only)), output, |saga| found = Some(saga)).await?;
    found.with_context(|| format!("there is no {} with the id {id}", manager.as_str()))
}

/// Reads the sagas of a process manager, all or only those, and hands each on. What is let go may
/// not be handed on at all.
///
/// # Errors
/// The brokers do not answer, or an event cannot be read.
pub(super) async fn each(
    config: &Config,
    manager: Manager,
    (let_go, only): (LetGo, Option<HashSet<String>>),
    output: Output,
    mut show: impl FnMut(Saga),
) -> anyhow::Result<()> {
    let schemas = runtime::schemas::load(config).await?;
    let handle = tokio::runtime::Handle::current();
    let (sagas, mut coming) = mpsc::channel(WAITING_MAX);
    let reading = Reading { config: config.clone(), schemas, handle, output, let_go, only, sagas };
    let read = tokio::task::spawn_blocking(move || {
        let schemas = Arc::clone(&reading.schemas);
        match manager {
            Manager::Transfer => reading.run::<Transfer>(&TransferCodec::new(schemas)),
            Manager::AccountOpening => reading.run::<Opening>(&AccountOpeningCodec::new(schemas)),
        }
    });
    while let Some(saga) = coming.recv().await {
        show(saga);
    }
    read.await?
}

struct Reading {
    config: Config,
    schemas: Arc<Schemas>,
    handle: tokio::runtime::Handle,
    output: Output,
    let_go: LetGo,
    only: Option<HashSet<String>>,
    sagas: mpsc::Sender<Saga>,
}

impl Reading {
    fn run<D: Shown>(&self, codec: &dyn Codec<D>) -> anyhow::Result<()> {
        let topic = |kind| self.config.namespace.dotted(&D::NAME.topic(kind));
        let events = topic(Kind::Events);
        let count = Sender::open(&self.config.kafka)?.partition_count(&events)?;
        let partitions: Vec<i32> = match &self.only {
            Some(ids) => ids.iter().map(|id| partition_of(id, count)).collect(),
            None => (0..count).collect(),
        };
        let bar = self.output.progress(0, format!("reading {events}"));
        let mut left_out = 0;
        for partition in partitions {
            let mut letters = Letters::default();
            self.read(&topic(Kind::DeadLetters), partition, &bar, |letter| {
                letters.take(letter, self.only.as_ref());
                Ok(())
            })?;
            left_out += letters.left_out;
            let fold = Fold::new(self.let_go, self.only.clone(), letters);
            let mut folds = self.fold::<D>((&events, partition), codec, fold, &bar)?;
            if !folds.again.is_empty() {
                let again = std::mem::take(&mut folds.again);
                let fold = Fold::new(LetGo::Nothing, Some(again), Letters::default());
                let more = self.fold::<D>((&events, partition), codec, fold, &bar)?;
                // Those that have ended for good were let go, and shown if they should be.
                let open = |saga: &Saga| !saga.has_ended_for_good();
                folds.sagas.extend(more.sagas.into_iter().filter(open));
            }
            self.drop_answered(&topic(Kind::Results), partition, &mut folds.sagas, &bar)?;
            folds.sagas.retain(|saga| saga.version > 0 || !saga.broken.is_empty());
            folds.sagas.into_iter().for_each(|saga| self.hand_on(saga));
        }
        bar.finish_and_clear();
        if left_out > 0 {
            self.output.note(format!(
                "{left_out} more commands of {} broke than are looked at in one go",
                D::NAME
            ));
        }
        Ok(())
    }

    fn hand_on(&self, saga: Saga) {
        // It is closed when nobody wants the rest.
        let _ = self.sagas.blocking_send(saga);
    }

    fn fold<D: Shown>(
        &self,
        (topic, partition): (&str, i32),
        codec: &dyn Codec<D>,
        mut fold: Fold<D>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Folds> {
        self.read(topic, partition, bar, |record| {
            let gone = fold.take(record, |value| {
                let decode = || codec.decode_event(value);
                self.handle.block_on(reading::decoded(&self.config, &self.schemas, decode))
            })?;
            gone.into_iter().for_each(|saga| self.hand_on(saga));
            Ok(())
        })?;
        Ok(fold.finish(codec, clock::now()))
    }

    /// Forgets what broke and was answered later. The results are long, so they are read only if
    /// something seems to be left over.
    fn drop_answered(
        &self,
        topic: &str,
        partition: i32,
        sagas: &mut [Saga],
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let broken = sagas.iter().flat_map(|saga| &saga.broken);
        let mut open: HashSet<String> = broken.map(|one| one.command_id.to_string()).collect();
        if open.is_empty() {
            return Ok(());
        }
        self.read(topic, partition, bar, |record| {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            let Some(key) = key.filter(|key| open.contains(*key)) else { return Ok(()) };
            let Some(value) = record.value.as_deref() else { return Ok(()) };
            if record.headers.get(RESULT_OF).is_none() {
                return Ok(());
            }
            let decode = || codec::result::decode(&self.schemas, value);
            let decoded = reading::decoded(&self.config, &self.schemas, decode);
            if self.handle.block_on(decoded)?.outcome != Outcome::Failed {
                open.remove(key);
            }
            Ok(())
        })?;
        for saga in sagas {
            saga.broken.retain(|one| open.contains(&one.command_id.to_string()));
        }
        Ok(())
    }

    fn read(
        &self,
        topic: &str,
        partition: i32,
        bar: &ProgressBar,
        mut take: impl FnMut(&Record) -> anyhow::Result<()>,
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
            match take(&record) {
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
}
