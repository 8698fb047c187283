//! What a machine wants done: actions -> the client, tasks over the store -> completions.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use uuid::Uuid;

use super::group::{Completion, Key, Partitions, chain, place_of};
use crate::engine::projector::{Action, Failure, Input, Refusal};
use crate::kernel::projection::{Applied, Batch, Cause, Obstacle};
use crate::read_model::store::{Source, Store};
use crate::runtime::lane::SchemaLookUp;

/// The longest that a batch may take before it counts as failed.
const APPLY_TIMEOUT: Duration = Duration::from_secs(90);

impl<S: Store> Partitions<S> {
    /// Carries out an action, or begins it; what is known at once is the next input.
    pub(super) fn perform(&mut self, key: Key, action: Action) -> Option<Input> {
        let owned = self.owned.get_mut(&key)?;
        let source = Arc::clone(&owned.source);
        match action {
            Action::Seek { offset } => {
                let member = self.member.upgrade()?;
                let outcome = member.start_reading(&owned.place(), offset);
                owned.paused = owned.paused && outcome.is_err();
                return Some(Input::Sought(outcome.map_err(|error| error.to_string())));
            }
            Action::Commit { offset, metadata } => {
                let member = Weak::clone(&self.member);
                self.spawn(key, source, move |source| async move {
                    // The answer does not come through the poll thread, which may be waiting for
                    // it in a rebalance.
                    let commit = tokio::task::spawn_blocking(move || {
                        let member = member.upgrade().ok_or("the group was left")?;
                        let outcome = member.commit(&place_of(&source), offset, &metadata);
                        outcome.map_err(|error| error.to_string())
                    });
                    let outcome = commit.await.map_err(|error| error.to_string());
                    (None, Input::Committed(outcome.flatten()))
                });
            }
            Action::Stop => {
                let member = self.member.upgrade()?;
                owned.paused = member.pause(&owned.place()).is_ok();
            }
            Action::ReadPosition => self.read_position(key, source),
            Action::LookBetween { from, to } => {
                let positions = Arc::clone(&self.positions);
                self.spawn(key, source, move |source| async move {
                    let looked = tokio::task::spawn_blocking(move || {
                        positions.has_events(&place_of(&source), from, to)
                    });
                    let looked = looked.await.map_err(|error| error.to_string());
                    let looked = looked.and_then(|found| found.map_err(|error| chain(&error)));
                    (None, Input::LookedBetween(looked))
                });
            }
            Action::ResetCheckpoint { expected, place, clear } => {
                let store = Arc::clone(&self.store);
                self.spawn(key, source, move |source| async move {
                    let outcome = store.reset(&source, expected, place, clear).await;
                    (None, Input::CheckpointReset(outcome.map_err(|error| error.chain())))
                });
            }
            Action::Apply { batch } => self.apply(key, source, batch),
            Action::Redrive { from, stream, rows } => {
                let (store, slots) = (Arc::clone(&self.store), Arc::clone(&self.slots));
                self.spawn(key, source, move |source| async move {
                    let _slot = slots.acquire().await;
                    let work = AssertUnwindSafe(store.redrive(&source, from, &stream, rows));
                    let outcome = answered(work.catch_unwind()).await;
                    (None, Input::Redriven(outcome))
                });
            }
            Action::Keep { stream, refusal } => {
                let store = Arc::clone(&self.store);
                self.spawn(key, source, move |source| async move {
                    let outcome = store.keep(&source, &stream, &refusal).await;
                    (None, Input::Kept(outcome.map_err(|error| error.chain())))
                });
            }
        }
        None
    }

    fn read_position(&self, key: Key, source: Arc<Source>) {
        let (positions, store) = (Arc::clone(&self.positions), Arc::clone(&self.store));
        self.spawn(key, source, move |source| async move {
            let (place, positions_again) = (place_of(&source), Arc::clone(&positions));
            let read = tokio::task::spawn_blocking(move || positions.read(&place));
            let mut position = match read.await {
                Ok(Ok(position)) => position,
                Ok(Err(error)) => return (None, Input::PositionRead(Err(chain(&error)))),
                Err(error) => return (None, Input::PositionRead(Err(error.to_string()))),
            };
            let topic_id = position.topic_id;
            let source = Source { topic_id, ..Source::clone(&source) };
            match store.read_held(&source).await {
                Ok(held) => position.held = held,
                Err(error) => return (None, Input::PositionRead(Err(error.chain()))),
            }
            // Another owner may have gone on meanwhile, beyond what was the log's end a moment ago.
            let next_offset = position.held.place.map(|place| place.next_offset);
            if next_offset.is_some_and(|next_offset| next_offset > position.log_end) {
                let place = place_of(&source);
                let read = tokio::task::spawn_blocking(move || positions_again.log_end(&place));
                match read.await {
                    Ok(Ok(log_end)) => position.log_end = log_end,
                    Ok(Err(error)) => return (None, Input::PositionRead(Err(chain(&error)))),
                    Err(error) => return (None, Input::PositionRead(Err(error.to_string()))),
                }
            }
            (Some(topic_id), Input::PositionRead(Ok(Box::new(position))))
        });
    }

    fn apply(&self, key: Key, source: Arc<Source>, batch: Arc<Batch>) {
        let (store, look_up) = (Arc::clone(&self.store), Arc::clone(&self.look_up));
        let (slots, letters) = (Arc::clone(&self.slots), Arc::clone(&self.letters));
        let told = self.owned.get(&key).map(|owned| Arc::clone(&owned.told)).unwrap_or_default();
        self.spawn(key, source, move |source| async move {
            // Acknowledged before the checkpoint passes them.
            if let Err(reason) = letters.send(&source, &batch, &told).await {
                return (None, Input::Applied(Err(Failure::Transient(reason))));
            }
            let slot = slots.acquire().await;
            let work = AssertUnwindSafe(store.apply(&source, batch)).catch_unwind();
            let outcome = answered(work).await;
            // The registry may take its time; others' batches need not wait for it.
            drop(slot);
            (None, Input::Applied(learn(outcome, look_up).await))
        });
    }

    /// Runs an action's work as a task; its completion wakes the poll thread.
    fn spawn<F, W>(&self, key: Key, source: Arc<Source>, work: W)
    where
        W: FnOnce(Arc<Source>) -> F,
        F: Future<Output = (Option<Uuid>, Input)> + Send + 'static,
    {
        let (give, poller, nonce) = (self.give.clone(), self.poller.clone(), source.nonce);
        let work = work(source);
        self.runtime.spawn(async move {
            let (topic_id, input) = work.await;
            // There is room: one completion a partition.
            let _ = give.try_send(Completion { key, nonce, topic_id, input });
            poller.unpark();
        });
    }
}

/// If a schema was in the way that the registry knows, there is no obstacle any more.
async fn learn(
    outcome: Result<Applied, Failure>,
    look_up: SchemaLookUp,
) -> Result<Applied, Failure> {
    let mut applied = outcome?;
    if let Some(Obstacle::UnknownSchema { schema_id, .. }) = applied.obstacle {
        let learnt = tokio::task::spawn_blocking(move || look_up(schema_id)).await;
        if matches!(learnt, Ok(Ok(()))) {
            applied.obstacle = None;
        }
    }
    Ok(applied)
}

/// What the store answered, if it did in time and its code held.
async fn answered<T>(
    work: impl Future<Output = Result<Result<T, Failure>, Box<dyn Any + Send>>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(APPLY_TIMEOUT, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            let reason = "the projection's code panicked: see the log".to_owned();
            let cause = Cause::ProjectionFailed;
            Err(Failure::Refused(Refusal { cause, reason, suspect: None }))
        }
        Err(_) => Err(Failure::Transient("the store did not answer in time".to_owned())),
    }
}
