//! Where a projection goes on after an assignment: committed offset, store, log -> decision.
//!
//! Kafka's committed offset is the operators' interface; the store is the truth. Every form of
//! `--reset-offsets` leaves a commit without our metadata, and that is how a reset is told from
//! our own commits.
//!
//! | store | Kafka's commit | what happens |
//! |---|---|---|
//! | none | none | start fresh at the log's start |
//! | none | ours | the database was wiped: rebuild from the log's start |
//! | parked events alone | any | from the log's start, in an epoch after theirs |
//! | none | foreign | start at the log's start; skipping events is not followed |
//! | place | none | the place rules; stamp it |
//! | place | ours | the place rules; stamp it where it differs |
//! | rows, older epoch | ours, newer epoch | begin at the smaller of its start and the rows' end |
//! | place | foreign, equal | stamp it |
//! | place | foreign, behind | an operator's reset: epoch + 1, from there |
//! | place | foreign, ahead | not followed, unless no event lies between: stamp the place |
//! | another topic id | any | stop |
//! | place beyond the log's end, or before its start | any | stop |

use std::cmp::Ordering;
use std::fmt;

use uuid::Uuid;

use crate::kernel::projection::{Held, Place};

/// What we write beside every offset that we commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitMetadata {
    /// The cluster that the offset belongs to.
    pub cluster_id: String,
    /// The place; its `next_offset` equals the committed offset.
    pub place: Place,
}

impl CommitMetadata {
    const MARK: &'static str = "millrace1";

    /// Writes it as one line of text.
    #[must_use]
    pub fn encode(&self) -> String {
        let Place { epoch, epoch_start, next_offset } = self.place;
        let cluster = &self.cluster_id;
        format!("{} {cluster} {epoch} {epoch_start} {next_offset}", Self::MARK)
    }

    /// Reads it back; `None` if it is not ours.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(' ');
        if parts.next()? != Self::MARK {
            return None;
        }
        let metadata = Self {
            cluster_id: parts.next()?.to_owned(),
            place: Place {
                epoch: parts.next()?.parse().ok()?,
                epoch_start: parts.next()?.parse().ok()?,
                next_offset: parts.next()?.parse().ok()?,
            },
        };
        parts.next().is_none().then_some(metadata)
    }
}

/// A committed offset as Kafka holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset.
    pub offset: i64,
    /// What its committer wrote beside it.
    pub metadata: String,
}

/// Everything that the decision rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The cluster's id.
    pub cluster_id: String,
    /// The id of the topic as it exists now.
    pub topic_id: Uuid,
    /// The first offset of the log.
    pub log_start: i64,
    /// The offset behind the log's last record.
    pub log_end: i64,
    /// What the group has committed.
    pub committed: Option<Committed>,
    /// What the store holds.
    pub held: Held,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Read on from this place; stamp it in Kafka first where that differs.
    Continue {
        /// Where.
        place: Place,
        /// Whether Kafka's commit must be put right first.
        stamp: bool,
        /// What to say about it.
        note: Note,
    },
    /// Write this place into the store (a compare-and-set on what was read), stamp it, read on.
    Reset {
        /// What the store must still hold; `None` is nothing.
        expected: Option<Place>,
        /// Where.
        place: Place,
        /// Whether the partition's rows go.
        clear: bool,
        /// What to say about it.
        note: Note,
    },
    /// Find out whether an event lies in `from..to`, and decide again.
    LookBetween {
        /// The first offset to look at.
        from: i64,
        /// The offset to stop before.
        to: i64,
    },
    /// Do not go on with this partition.
    Refuse(Refusal),
}

/// Why a projection is where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The first start.
    Fresh,
    /// An ordinary restart.
    Resumed,
    /// The store had nothing although Kafka has our commit.
    Wiped,
    /// An operator moved the offset back.
    Rewound {
        /// From where.
        from: i64,
        /// To where.
        to: i64,
    },
    /// Somebody moved the offset forward over events; that is not followed.
    ForwardIgnored {
        /// The place that stays.
        stays: i64,
        /// The offset that was asked for.
        asked: i64,
    },
}

impl Note {
    /// Whether somebody should look at it.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(self, Self::Wiped | Self::ForwardIgnored { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fresh => f.write_str("starts at the log's start"),
            Self::Resumed => f.write_str("goes on at its checkpoint"),
            Self::Wiped => f.write_str(
                "has committed offsets but an empty database: rebuilt from the log's start",
            ),
            Self::Rewound { from, to } => {
                write!(f, "follows a reset of its offset from {from} back to {to}: replay")
            }
            Self::ForwardIgnored { stays, asked } => write!(
                f,
                "does not follow a reset of its offset to {asked}, which would skip events: \
                 it goes on at {stays}"
            ),
        }
    }
}

/// Why a partition cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The topic is not the one that the rows were read from.
    #[error(
        "the topic was deleted and made again (its id was {was}, now {is}): the read model is \
         of another log; rebuild the projection"
    )]
    TopicRecreated {
        /// The id that the store holds.
        was: Uuid,
        /// The id of today's topic.
        is: Uuid,
    },
    /// The log ends before the checkpoint.
    #[error(
        "the checkpoint {next_offset} lies beyond the log's end {log_end}: the log has lost \
         events or is another one; rebuild the projection"
    )]
    BeyondEnd {
        /// The checkpoint.
        next_offset: i64,
        /// The log's end.
        log_end: i64,
    },
    /// The log starts behind the checkpoint.
    #[error(
        "the log starts at {log_start}, behind the checkpoint {next_offset}: events were deleted \
         before they were projected"
    )]
    Truncated {
        /// The checkpoint.
        next_offset: i64,
        /// The log's start.
        log_start: i64,
    },
}

/// Decides where to go on. `events_between` answers an earlier [`Decision::LookBetween`].
#[must_use]
pub fn decide(position: &Position, events_between: Option<bool>) -> Decision {
    let topic_id = position.topic_id;
    if let Some(was) = position.held.topic_id.filter(|was| *was != topic_id) {
        return Decision::Refuse(Refusal::TopicRecreated { was, is: topic_id });
    }
    let ours = position.committed.as_ref().and_then(|committed| {
        CommitMetadata::parse(&committed.metadata).filter(|metadata| {
            // Whoever copies our metadata to another offset or cluster is somebody else.
            metadata.place.next_offset == committed.offset
                && metadata.cluster_id == position.cluster_id
        })
    });
    match position.held.place {
        None => without_place(position, ours.as_ref(), events_between),
        Some(place) => with_place(position, place, ours.as_ref(), events_between),
    }
}

fn without_place(
    position: &Position,
    ours: Option<&CommitMetadata>,
    events_between: Option<bool>,
) -> Decision {
    let start = position.log_start;
    let asked = position.committed.as_ref().map(|committed| committed.offset);
    let note = match (ours, asked) {
        (Some(metadata), _) if metadata.place.next_offset > start => Note::Wiped,
        (None, Some(asked)) if asked > start => match events_between {
            None => return look(position, start, asked),
            Some(true) => Note::ForwardIgnored { stays: start, asked },
            Some(false) => Note::Fresh,
        },
        _ => Note::Fresh,
    };
    let committed = ours.map_or(0, |metadata| metadata.place.epoch);
    // What is parked is tried again, and taken off the list in an epoch after its own.
    let epoch = position.held.parked_epoch.map_or(committed, |parked| committed.max(parked + 1));
    let place = Place { epoch, epoch_start: start, next_offset: start };
    Decision::Reset { expected: None, place, clear: true, note }
}

fn with_place(
    position: &Position,
    place: Place,
    ours: Option<&CommitMetadata>,
    events_between: Option<bool>,
) -> Decision {
    let place = as_rows_say(position, place, ours);
    let next_offset = place.next_offset;
    if next_offset > position.log_end {
        return Decision::Refuse(Refusal::BeyondEnd { next_offset, log_end: position.log_end });
    }
    let stay = |note| Decision::Continue {
        place,
        stamp: ours.is_none_or(|metadata| metadata.place != place),
        note,
    };
    let foreign = position.committed.as_ref().filter(|_| ours.is_none());
    let decision = match foreign.map(|committed| committed.offset) {
        Some(asked) if asked < next_offset => return rewind(position, place, asked),
        Some(asked) if asked > next_offset => match events_between {
            None => look(position, next_offset, asked),
            Some(true) => stay(Note::ForwardIgnored { stays: next_offset, asked }),
            Some(false) => stay(Note::Resumed),
        },
        _ => stay(Note::Resumed),
    };
    if next_offset < position.log_start {
        return Decision::Refuse(Refusal::Truncated { next_offset, log_start: position.log_start });
    }
    decision
}

/// Where the rows are the checkpoint, only Kafka knows where an epoch began. One that has begun may
/// have no rows yet, or no longer (a backup was restored): it begins at its start, or where the
/// rows end, if that is earlier.
fn as_rows_say(position: &Position, place: Place, ours: Option<&CommitMetadata>) -> Place {
    let (Some(rows_end), Some(ours)) = (position.held.rows_end, ours) else {
        return place;
    };
    let begun = ours.place;
    match begun.epoch.cmp(&place.epoch) {
        Ordering::Less => place,
        Ordering::Equal => Place { epoch_start: begun.epoch_start, ..place },
        Ordering::Greater => Place { next_offset: begun.epoch_start.min(rows_end), ..begun },
    }
}

fn rewind(position: &Position, place: Place, asked: i64) -> Decision {
    let to = asked.max(position.log_start);
    Decision::Reset {
        expected: Some(place),
        place: Place { epoch: place.epoch.saturating_add(1), epoch_start: to, next_offset: to },
        clear: to == position.log_start,
        note: Note::Rewound { from: place.next_offset, to },
    }
}

fn look(position: &Position, from: i64, asked: i64) -> Decision {
    Decision::LookBetween { from, to: asked.min(position.log_end) }
}

#[cfg(test)]
mod tests;
