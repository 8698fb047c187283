//! The steps of a rebuild, one after the other: what was asked -> generations -> what came of it.

use std::sync::Arc;

use super::fill::Filling;
use super::hand_over::{Switched, hand_over};
use super::{Asked, Error, Means, Outcome, Step};
use crate::audit::fact::Writers;
use crate::audit::{self, Report};
use crate::log::kafka::topic::Admin;
use crate::read_model::store::postgres;
use crate::read_model::store::rebuild::{Generations, Known, Lock, ParkedStreams, State};
use crate::runtime::schemas;

/// A projection, by the store that it is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projected {
    /// Rows in Postgres.
    Postgres,
    /// Rows in ClickHouse.
    ClickHouse,
}

/// Does what was asked.
///
/// # Errors
/// A service does not answer, somebody else is at it, or the result is not what the log says.
pub async fn run<S: Generations>(
    means: &Means<'_>,
    (projected, store): (Projected, &S),
    asked: Asked,
) -> Result<Outcome, Error> {
    let name = store.name();
    let config = means.config;
    let database = postgres::Database::new(&config.postgres, &config.namespace)?;
    let lock = Lock::take(&database, &name).await?.ok_or_else(|| {
        Error::Refused(format!(
            "another rebuild of {name} is at work: wait until it has ended (one that was killed \
             frees its lock at once)"
        ))
    })?;
    let known = store.known().await?;
    let Some(live) = known.iter().find(|one| one.state == State::Live).copied() else {
        return Err(Error::Refused(format!(
            "{name} has no tables yet: `millrace serve` makes and fills them"
        )));
    };
    let mut outcome = Outcome {
        projection: name,
        generation: live.number,
        previous: None,
        dropped: Vec::new(),
        resumed: false,
        events: 0,
        build_ms: 0,
        rate: 0,
        compared: None,
        parked: Vec::new(),
        switch_ms: 0,
        held_ms: 0,
        handed_over: None,
    };
    let target = match asked {
        Asked::DropOld => {
            let old = known.iter().filter(|one| matches!(one.state, State::Retired(_)));
            for one in old {
                store.discard(one.number).await?;
                outcome.dropped.push(one.number);
            }
            return Ok(outcome);
        }
        Asked::RollBack => last_in_use(store, &known)?,
        Asked::Rebuild { start_over } => {
            let (number, resumed) = to_build(store, &known, start_over).await?;
            outcome.resumed = resumed;
            number
        }
    };
    let mut filling = Filling::start(means, store, target).await?;
    let done = put_in_use(means, (projected, store), (&lock, live), &mut filling, outcome).await;
    let group = filling.group.clone();
    filling.stop().await;
    let outcome = done?;
    // Its offsets are in the rows. What is left behind is no harm.
    let admin = Admin::connect(&config.kafka).await?;
    if let Err(error) = admin.delete_group(&group).await {
        tracing::debug!(group, %error, "the group stays");
    }
    Ok(outcome)
}

/// The generation that was in use before this one.
fn last_in_use<S: Generations>(store: &S, known: &[Known]) -> Result<i32, Error> {
    let name = store.name();
    let old = known.iter().filter(|one| matches!(one.state, State::Retired(_)));
    let last = old.max_by_key(|one| one.state).ok_or_else(|| {
        Error::Refused(format!("{name} has no generation from before: there is no way back"))
    })?;
    if !last.is_ours {
        return Err(Error::Refused(format!(
            "generation {} of {name} was made by another version of the code: roll back with the \
             program of that version, and go on serving with it",
            last.number
        )));
    }
    Ok(last.number)
}

/// The generation to be built: a new one, or one that is half built already.
async fn to_build<S: Generations>(
    store: &S,
    known: &[Known],
    start_over: bool,
) -> Result<(i32, bool), Error> {
    let mut next = known.iter().map(|one| one.number).max().unwrap_or_default() + 1;
    for one in known.iter().filter(|one| one.state == State::Building) {
        if one.is_ours && !start_over {
            // What was in the way may be mended.
            store.want_parked_of(one.number).await?;
            return Ok((one.number, true));
        }
        store.discard(one.number).await?;
        next = next.max(one.number + 1);
    }
    store.begin(next).await?;
    Ok((next, false))
}

async fn put_in_use<S: Generations>(
    means: &Means<'_>,
    (projected, store): (Projected, &S),
    (lock, live): (&Lock, Known),
    filling: &mut Filling,
    mut outcome: Outcome,
) -> Result<Outcome, Error> {
    let ends = filling.log_ends().await?;
    filling.reach(&ends, Some(&means.told)).await?;
    outcome.events = filling.events();
    let elapsed = filling.elapsed();
    outcome.build_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    outcome.rate = outcome.events.saturating_mul(1_000) / outcome.build_ms.max(1);
    store.show_beside(filling.generation).await?;
    let report = verify(means, projected, filling.generation).await?;
    outcome.compared = Some(report.compared);
    outcome.parked.clone_from(&report.parked);
    let name = &outcome.projection;
    if !report.is_clean() {
        let (projection, generation) = (name.clone(), filling.generation);
        return Err(Error::Differs { projection, generation, report: Box::new(report) });
    }
    let parked = store.parked_streams(filling.generation).await?;
    let known = store.parked_streams(live.number).await?;
    refuse_new(name, filling.generation, &parked, &known)?;
    let switched = hand_over(means, store, lock, live.number, filling).await?;
    let Switched { took, held, handed_over } = switched;
    outcome.previous = Some(live.number);
    outcome.generation = filling.generation;
    outcome.switch_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    outcome.held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
    outcome.handed_over = handed_over;
    Ok(outcome)
}

/// Streams that users see now must not stop where the new generation cannot go on.
fn refuse_new(
    name: &str,
    generation: i32,
    parked: &ParkedStreams,
    known: &ParkedStreams,
) -> Result<(), Error> {
    let mut new = parked.iter().filter(|(stream, _)| !known.contains_key(stream));
    let count = new.clone().count();
    let Some(((topic, stream), error)) = new.next() else { return Ok(()) };
    Err(Error::Refused(format!(
        "{count} streams are parked in generation {generation} of {name} that are not in the one \
         in use, so it is not put in use; the first is {stream} of {topic}: {error}; mend the \
         cause, then run `millrace rebuild {name}` again: it tries them again"
    )))
}

/// Compares the generation with the log, at one cut, by the auditor's own fold.
async fn verify(means: &Means<'_>, projected: Projected, generation: i32) -> Result<Report, Error> {
    let mut writers = Writers::default();
    for (id, entry) in schemas::entries(means.config).await? {
        let added = writers.add(id, &entry.schema);
        added.map_err(|reason| audit::Error::Schema(id, reason))?;
    }
    let settings = audit::Settings {
        snapshots: false,
        postgres: projected == Projected::Postgres,
        clickhouse: projected == Projected::ClickHouse,
        generation: Some(generation),
        ..audit::Settings::default()
    };
    let told = Arc::clone(&means.told);
    let progress: audit::Progress =
        Arc::new(move |done, of| told(Step::Verifying { generation, done, of }));
    let report = audit::run(means.config, Arc::new(writers), settings, progress).await?;
    if report.compared.partitions == 0 {
        return Err(Error::Refused(format!("no partition was compared: {:?}", report.notes)));
    }
    Ok(report)
}
