//! One partition's saga streams and dead letters -> where each saga stands: a fold of the log with
//! the deciders' own `evolve`.
//!
//! What has ended is let go at once, so that memory holds what is open and not all that ever was.
//! An event that follows later finds no stream: that is noted, and the stream is read once more,
//! alone.
//!
//! A command that broke counts until the stream, a later result or the decider itself says that
//! nothing would come of it any more.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::bail;

use super::saga::{End, Saga, Shown, Told};
use crate::engine::letter::Broken;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Context;
use crate::kernel::message::Record;
use crate::kernel::stream::{StreamHash, parse_event_key};
use crate::kernel::time::Timestamp;

/// The most broken commands that are held; what is beyond is read by the next call.
pub(super) const BROKEN_MAX: usize = 100_000;

/// Which ended sagas are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LetGo {
    /// None.
    Nothing,
    /// Those to which nothing will happen any more, once they are shown.
    Shown,
    /// All of them.
    Ended,
}

/// What broke and still counts, by saga, in the order in which it was sent.
#[derive(Debug, Default)]
pub(super) struct Letters {
    by_saga: HashMap<String, Vec<Broken>>,
    count: usize,
    /// How many did not fit.
    pub(super) left_out: u64,
}

/// The fold of one partition.
pub(super) struct Fold<D: Shown> {
    let_go: LetGo,
    only: Option<HashSet<String>>,
    letters: Letters,
    streams: HashMap<String, Folded<D::State>>,
}

/// A stream as far as it was read.
struct Folded<S> {
    state: S,
    version: u64,
    /// Its beginning was let go.
    is_cut: bool,
    since: Timestamp,
    failure: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
}

/// What a partition came to.
#[derive(Debug, Default)]
pub(super) struct Folds {
    pub(super) sagas: Vec<Saga>,
    /// What must be read again, alone.
    pub(super) again: HashSet<String>,
}

impl Letters {
    /// Takes a dead letter in, if it is a broken command and for one of these.
    pub(super) fn take(&mut self, letter: &Record, only: Option<&HashSet<String>>) {
        let Some(broken) = Broken::of(letter) else { return };
        if only.is_some_and(|only| !only.contains(&broken.id)) {
            return;
        }
        let known = self.by_saga.entry(broken.id.clone()).or_default();
        // It may have broken again; its place is the first one.
        if let Some(same) = known.iter_mut().find(|one| one.command_id == broken.command_id) {
            *same = broken;
        } else if self.count < BROKEN_MAX {
            self.count += 1;
            known.push(broken);
        } else {
            self.left_out += 1;
        }
    }

    fn is_done(&mut self, saga: &str, command_id: &str) {
        if let Some(known) = self.by_saga.get_mut(saga) {
            known.retain(|one| one.command_id.to_string() != command_id);
        }
    }
}

impl<D: Shown> Fold<D> {
    /// Begins a partition whose dead letters were read, for all sagas or only these.
    pub(super) fn new(let_go: LetGo, only: Option<HashSet<String>>, letters: Letters) -> Self {
        Self { let_go, only, letters, streams: HashMap::new() }
    }

    /// Takes an event in. Gives a saga that is let go and should be shown.
    pub(super) fn take(
        &mut self,
        record: &Record,
        decode: impl FnOnce(&[u8]) -> anyhow::Result<D::Event>,
    ) -> anyhow::Result<Option<Saga>> {
        let Some((id, sequence)) = record.key.as_deref().and_then(parse_event_key) else {
            bail!("a key that is no event's");
        };
        let Some(value) = record.value.as_deref() else { return Ok(None) };
        if self.only.as_ref().is_some_and(|only| !only.contains(id)) {
            return Ok(None);
        }
        let text = |name: &str| record.headers.text(name);
        let at = text("ce_time").and_then(Timestamp::parse_rfc3339).unwrap_or_default();
        // What has broken is looked at in the end, whatever became of the saga.
        let let_go = match self.letters.by_saga.contains_key(id) {
            true => LetGo::Nothing,
            false => self.let_go,
        };
        let is_cut = let_go != LetGo::Nothing && sequence > 1;
        let folded = self.streams.entry(id.to_owned()).or_insert_with(|| Folded {
            state: D::State::default(),
            version: if is_cut { sequence - 1 } else { 0 },
            is_cut,
            since: at,
            failure: None,
            correlation_id: text("correlation_id").map(str::to_owned),
            causation_id: None,
        });
        if sequence <= folded.version {
            return Ok(None); // An exact repeat that compaction has not removed yet.
        }
        if sequence != folded.version + 1 {
            bail!("{id} jumps from {} to {sequence}", folded.version);
        }
        let event = decode(value)?;
        D::evolve(&mut folded.state, &event, at);
        folded.version = sequence;
        folded.causation_id = text("causation_id").map(str::to_owned);
        if let Some(code) = D::failure(&event) {
            folded.failure = Some(code.to_owned());
        }
        let is_over = match D::end(&folded.state) {
            End::No => false,
            End::ForNow => let_go == LetGo::Ended,
            End::ForGood => let_go != LetGo::Nothing,
        };
        if let Some(command_id) = text("command_id") {
            self.letters.is_done(id, command_id);
        }
        if !is_over {
            return Ok(None);
        }
        let gone = self.streams.remove_entry(id);
        // One whose beginning is gone was shown with it.
        let shown = gone.filter(|(_, gone)| let_go == LetGo::Shown && !gone.is_cut);
        Ok(shown.map(|(id, folded)| saga::<D>(id, folded, Vec::new())))
    }

    /// Ends the partition.
    pub(super) fn finish(mut self, codec: &dyn Codec<D>, now: Timestamp) -> Folds {
        let mut folds = Folds::default();
        for (id, folded) in self.streams {
            if folded.is_cut {
                folds.again.insert(id);
                continue;
            }
            let letters = self.letters.by_saga.remove(&id).unwrap_or_default();
            let (broken, _) = still_news::<D>(codec, &folded, letters, now);
            folds.sagas.push(saga::<D>(id, folded, broken));
        }
        // They never began.
        for (id, letters) in self.letters.by_saga {
            let since = letters.first().and_then(|one| Timestamp::parse_rfc3339(&one.failed_at));
            let nothing = Folded {
                state: D::State::default(),
                version: 0,
                is_cut: false,
                since: since.unwrap_or_default(),
                failure: None,
                correlation_id: letters.first().and_then(Broken::correlation_id),
                causation_id: letters.first().and_then(Broken::causation_id),
            };
            let (broken, state) = still_news::<D>(codec, &nothing, letters, now);
            if !broken.is_empty() {
                let about =
                    if state == nothing.state { String::new() } else { D::tell(&state).about };
                folds.sagas.push(Saga { about, ..saga::<D>(id, nothing, broken) });
            }
        }
        folds
    }
}

/// The broken commands that would change something if they were decided now, or break again; and
/// the state after them.
fn still_news<D: Shown>(
    codec: &dyn Codec<D>,
    folded: &Folded<D::State>,
    letters: Vec<Broken>,
    now: Timestamp,
) -> (Vec<Broken>, D::State) {
    let mut state = folded.state.clone();
    let mut version = folded.version;
    let mut kept = Vec::new();
    for letter in letters {
        let Ok(decoded) = codec.decode_command(Some(&letter.id), Some(&letter.value)) else {
            kept.push(letter); // A newer program's.
            continue;
        };
        if D::is_operators(&decoded.command) {
            continue;
        }
        let stream = StreamHash::new(D::NAME, &letter.id);
        let context = Context { now, stream, version, command_id: letter.command_id };
        // What broke there may break here.
        let decided = catch_unwind(AssertUnwindSafe(|| {
            let events = D::decide(&decoded.command, &state, &context)?;
            let mut after = state.clone();
            events.iter().for_each(|event| D::evolve(&mut after, event, now));
            Ok::<_, D::Rejection>((events.len() as u64, after))
        }));
        match decided {
            Ok(Ok((0, _))) => continue,
            Ok(Ok((count, after))) => {
                version += count;
                state = after;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        kept.push(letter);
    }
    (kept, state)
}

fn saga<D: Shown>(id: String, folded: Folded<D::State>, broken: Vec<Broken>) -> Saga {
    let Told { about, standing, step, attempt, deadline, witness } = D::tell(&folded.state);
    let Folded { version, since, failure, correlation_id, causation_id, .. } = folded;
    Saga {
        manager: D::MANAGER,
        id,
        about,
        standing,
        step,
        attempt,
        since,
        deadline: deadline.filter(|_| version > 0),
        failure,
        correlation_id,
        causation_id,
        version,
        witness,
        broken,
    }
}

#[cfg(test)]
mod tests;
