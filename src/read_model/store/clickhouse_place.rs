//! What ClickHouse's tables say of themselves: rows' ends -> a place; comments -> generations.
//!
//! The comment of a domain's view names the generation in use, so that both change in one step; the
//! comment of a generation's table says what made it, and what it is for.

use std::fmt;

use ::clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use super::rebuild::State;
use crate::kernel::projection::{Held, Place};

/// Where the rows of one epoch of a partition begin and end.
#[derive(Row, Deserialize)]
pub(super) struct EpochRow {
    #[serde(with = "::clickhouse::serde::uuid")]
    pub(super) topic_id: Uuid,
    pub(super) epoch: u32,
    pub(super) first: i64,
    pub(super) last: i64,
}

/// What the rows of a partition say about where it stands.
pub(super) fn held(rows: &[EpochRow], topic_id: Uuid) -> Held {
    let ours: Vec<&EpochRow> = rows.iter().filter(|row| row.topic_id == topic_id).collect();
    let Some(newest) = ours.iter().max_by_key(|row| row.epoch) else {
        let other = rows.first().map(|row| row.topic_id);
        return Held { topic_id: other, ..Held::default() };
    };
    Held {
        place: Some(Place {
            epoch: newest.epoch,
            epoch_start: newest.first,
            next_offset: newest.last + 1,
        }),
        topic_id: Some(topic_id),
        rows_end: ours.iter().map(|row| row.last + 1).max(),
        ..Held::default()
    }
}

/// What the comment of a domain's view says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The generation in use.
    pub(super) generation: i32,
    /// The hash of all views over it.
    pub(super) views: String,
    /// Until when it may not be written, in milliseconds by the server's clock.
    pub(super) held_until: Option<i64>,
}

impl Shown {
    /// Reads a comment; `None` if it names no generation.
    pub(super) fn read(comment: &str) -> Option<Self> {
        let generation = in_brackets(comment, "generation")?.parse().ok()?;
        let views = in_brackets(comment, "views").unwrap_or_default().to_owned();
        let held_until = in_brackets(comment, "held until").and_then(|text| text.parse().ok());
        Some(Self { generation, views, held_until })
    }

    /// A comment that says the same, and that the generation may not be written until then.
    pub(super) fn held(comment: &str, until_ms: i64) -> String {
        format!("{} (held until {until_ms})", Self::free(comment))
    }

    /// The comment without that.
    pub(super) fn free(comment: &str) -> &str {
        comment.split_once(" (held until ").map_or(comment, |(before, _)| before)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(generation {})", self.generation)?;
        if self.views.is_empty() { Ok(()) } else { write!(f, " (views {})", self.views) }
    }
}

fn in_brackets<'c>(comment: &'c str, word: &str) -> Option<&'c str> {
    let (_, rest) = comment.split_once(&format!("({word} "))?;
    Some(rest.split_once(')')?.0)
}

/// What the comment of a generation's table says besides what made it.
pub(super) fn made_by(comment: &str) -> (&str, State) {
    if let Some(made_by) = comment.strip_suffix(" building") {
        return (made_by, State::Building);
    }
    match comment.rsplit_once(" retired ") {
        Some((made_by, at)) => (made_by, State::Retired(at.parse().unwrap_or_default())),
        None => (comment, State::Live),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: Uuid = Uuid::from_u128(7);

    fn row(topic_id: Uuid, epoch: u32, first: i64, last: i64) -> EpochRow {
        EpochRow { topic_id, epoch, first, last }
    }

    #[test]
    fn the_newest_epochs_rows_are_the_checkpoint() {
        let rows = [row(TOPIC, 0, 0, 99), row(TOPIC, 1, 40, 59)];
        let held = held(&rows, TOPIC);
        let place = Place { epoch: 1, epoch_start: 40, next_offset: 60 };
        assert_eq!(held.place, Some(place));
        assert_eq!(held.rows_end, Some(100));
    }

    #[test]
    fn rows_of_another_topic_are_no_checkpoint() {
        let other = Uuid::from_u128(8);
        let found = held(&[row(other, 3, 0, 9)], TOPIC);
        assert_eq!((found.place, found.topic_id), (None, Some(other)));
        let found = held(&[row(other, 3, 0, 9), row(TOPIC, 0, 0, 4)], TOPIC);
        assert_eq!(found.place.map(|place| place.next_offset), Some(5));
        assert_eq!(held(&[], TOPIC), Held::default());
    }

    #[test]
    fn a_views_comment_names_its_generation() {
        let comment = "Every event (generation 12) (views abc)";
        let shown = Shown { generation: 12, views: "abc".to_owned(), held_until: None };
        assert_eq!(Shown::read(comment), Some(shown.clone()));
        assert_eq!(Shown::read(&shown.to_string()), Some(shown.clone()));
        let held = Shown::held(comment, 77);
        assert_eq!(Shown::read(&held), Some(Shown { held_until: Some(77), ..shown }));
        assert_eq!(Shown::free(&held), comment);
        assert_eq!(Shown::held(&held, 78), Shown::held(comment, 78));
        assert_eq!(
            Shown::read("Every event (generation 3)").map(|shown| shown.generation),
            Some(3)
        );
        assert_eq!(Shown::read("something else"), None);
    }

    #[test]
    fn a_tables_comment_says_what_it_is_for() {
        assert_eq!(made_by("version 1 tables ab"), ("version 1 tables ab", State::Live));
        assert_eq!(made_by("version 1 tables ab building").1, State::Building);
        let retired = ("version 1 tables ab", State::Retired(12));
        assert_eq!(made_by("version 1 tables ab retired 12"), retired);
    }
}
