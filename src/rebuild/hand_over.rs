//! From one generation to another: views switched in one step, and what runs goes over to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fill::Filling;
use super::{Error, Means, Step};
use crate::log::kafka;
use crate::log::kafka::group::Witness;
use crate::read_model::store::Store;
use crate::read_model::store::rebuild::{Ends, Generations, Lock, Switch};
use crate::runtime::projection;

/// How long the writers may be asked to hold still.
const HOLD_MAX: Duration = Duration::from_secs(20);
/// How long they are waited for: a process that stands still is thrown out of the group.
const STILL_MAX: Duration = Duration::from_secs(8);
const STILL_PAUSE: Duration = Duration::from_millis(25);
/// How long a switch is tried; somebody may read for long.
const SWITCH_MAX: Duration = Duration::from_secs(120);
const BEHIND_PAUSE: Duration = Duration::from_millis(50);
const LOCKED_PAUSE: Duration = Duration::from_millis(700);
/// How often it is behind before the log is looked at again.
const BEHIND_TRIES: u32 = 10;
/// How long what runs has to go over.
const OVER_MAX: Duration = Duration::from_secs(30);
const OVER_PAUSE: Duration = Duration::from_millis(50);

/// How it went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switched {
    pub(super) took: Duration,
    pub(super) held: Duration,
    pub(super) handed_over: Option<bool>,
}

/// The group that fills the generation in use.
struct Group {
    name: String,
    witness: Arc<Witness>,
}

impl Group {
    async fn open<S: Store>(means: &Means<'_>, store: &S) -> Result<Self, Error> {
        let name = means.config.namespace.dotted(&format!("millrace.{}", store.name()));
        let (kafka, own) = (means.config.kafka.clone(), name.clone());
        let opening = tokio::task::spawn_blocking(move || Witness::open(&kafka, &own));
        let witness = Arc::new(opening.await.map_err(|_| Error::Cut)??);
        Ok(Self { name, witness })
    }

    async fn has_members(&self) -> Result<bool, Error> {
        let (witness, name) = (Arc::clone(&self.witness), self.name.clone());
        let asking = tokio::task::spawn_blocking(move || witness.member_count(&name));
        Ok(asking.await.map_err(|_| Error::Cut)?? > 0)
    }

    /// How many partitions' commits are of that generation.
    async fn count_at(&self, ends: &Ends, generation: i32) -> Result<usize, Error> {
        let witness = Arc::clone(&self.witness);
        let places: Vec<_> = ends.keys().cloned().collect();
        let asking = tokio::task::spawn_blocking(move || {
            let mut count = 0;
            for place in places {
                let action = format!("asking for the offset of {}/{}", place.0, place.1);
                let standing = witness.standing(&place).map_err(kafka::Error::call(action))?;
                let committed = standing.committed.map(|(_, metadata)| metadata);
                let found = committed.as_deref().and_then(projection::generation_of);
                count += usize::from(found == Some(generation));
            }
            Ok::<_, kafka::Error>(count)
        });
        Ok(asking.await.map_err(|_| Error::Cut)??)
    }
}

/// Puts the generation that is being filled in the place of the one in use.
pub(super) async fn hand_over<S: Generations>(
    means: &Means<'_>,
    store: &S,
    lock: &Lock,
    from: i32,
    filling: &mut Filling,
) -> Result<Switched, Error> {
    let to = filling.generation;
    let group = Group::open(means, store).await?;
    let is_running = group.has_members().await?;
    (means.told)(Step::Switching { generation: to });
    let outcome = switch(store, (lock, &group), from, filling).await;
    if outcome.is_err() {
        store.release().await?;
    }
    let (took, held, ends) = outcome?;
    (means.told)(Step::HandingOver { generation: to });
    let mut handed_over = is_running.then_some(false);
    let since = Instant::now();
    while handed_over == Some(false) && since.elapsed() < OVER_MAX {
        let count = group.count_at(&ends, to).await?;
        handed_over = Some(count == ends.len());
        if count > 0 {
            // Two who write the same would only get in each other's way.
            filling.stop().await;
        }
        tokio::time::sleep(OVER_PAUSE).await;
    }
    Ok(Switched { took, held, handed_over })
}

async fn switch<S: Generations>(
    store: &S,
    (lock, group): (&Lock, &Group),
    from: i32,
    filling: &mut Filling,
) -> Result<(Duration, Duration, Ends), Error> {
    let to = filling.generation;
    let mut proven = prove(store, from, filling).await?;
    let since = Instant::now();
    let mut held: Option<Instant> = None;
    let mut behind = 0;
    while since.elapsed() < SWITCH_MAX {
        lock.check().await?;
        let is_still = held.is_some_and(|held| held.elapsed() < HOLD_MAX / 2);
        if !is_still && store.hold(HOLD_MAX).await? {
            held = Some(Instant::now());
            let deadline = Instant::now() + STILL_MAX;
            while group.has_members().await? && Instant::now() < deadline {
                tokio::time::sleep(STILL_PAUSE).await;
            }
        }
        // Whoever was asked goes on by itself when the time is over.
        if held.is_some_and(|held| held.elapsed() > HOLD_MAX / 2) {
            continue;
        }
        match store.switch(from, to, &proven).await? {
            Switch::Done(took) => {
                let held = held.map_or(took, |held| held.elapsed());
                return Ok((took, held, proven));
            }
            Switch::Behind => {
                behind += 1;
                if behind % BEHIND_TRIES == 0 {
                    proven = prove(store, from, filling).await?;
                }
                tokio::time::sleep(BEHIND_PAUSE).await;
            }
            Switch::Locked => tokio::time::sleep(LOCKED_PAUSE).await,
        }
    }
    let (name, seconds) = (store.name(), SWITCH_MAX.as_secs());
    Err(Error::Refused(format!(
        "generation {to} of {name} could not be put in use within {seconds} s: a session holds the \
         views, or the log grows faster than it is filled; nothing has changed, run `millrace \
         rebuild {name}` again"
    )))
}

/// Up to where the generation has everything, whatever its rows say. A place of the one in use that
/// lies behind the log's end is no example: the log has lost what it was.
async fn prove<S: Generations>(store: &S, from: i32, filling: &mut Filling) -> Result<Ends, Error> {
    let in_use = store.ends(from).await?;
    let mut ends = filling.log_ends().await?;
    filling.reach(&ends, None).await?;
    for (place, end) in &mut ends {
        if let Some(beyond) = in_use.get(place).filter(|own| own.next_offset > end.next_offset) {
            end.next_offset = beyond.next_offset;
        }
    }
    Ok(ends)
}
