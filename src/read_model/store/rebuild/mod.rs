//! Generations of a projection's tables side by side: made, compared, switched, dropped.
//!
//! Users see one of them, through views. Another one is built beside it, and takes its place when
//! it has everything that users have seen: in Postgres in one transaction that lets no batch in
//! between, in ClickHouse while those who write the one in use hold still.

mod clickhouse;
mod lock;
mod postgres;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use uuid::Uuid;

pub use lock::Lock;

use super::{Error, Store};

/// What a generation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Users see it.
    Live,
    /// It is not complete yet.
    Building,
    /// Users saw it until then (microseconds since 1970); it is kept for a roll-back.
    Retired(i64),
}

/// A generation that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub number: i32,
    /// What it is for.
    pub state: State,
    /// Whether it was made by this version of the code and of the tables.
    pub is_ours: bool,
}

/// Where a generation's rows end in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The topic that they were read from.
    pub topic_id: Uuid,
    /// The next offset.
    pub next_offset: i64,
}

/// The same for all partitions, by topic and number.
pub type Ends = BTreeMap<(String, i32), End>;

/// Parked streams, by topic and id, each with what was said about its first parked event.
pub type ParkedStreams = BTreeMap<(String, String), String>;

/// What came of an attempt to put a generation in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Users see it, since so long after the attempt began.
    Done(Duration),
    /// Users have seen something that it does not have yet.
    Behind,
    /// Somebody reads the views and would not end.
    Locked,
}

/// A store that keeps several generations of a projection's tables.
pub trait Generations: Store + Sized {
    /// The same over that generation, in use or not, with nothing prepared yet.
    #[must_use]
    fn over(&self, generation: i32) -> Self;

    /// Every generation that there is; none if the projection has never run.
    fn known(&self) -> impl Future<Output = Result<Vec<Known>, Error>> + Send;

    /// Makes the tables of a new generation.
    fn begin(&self, generation: i32) -> impl Future<Output = Result<(), Error>> + Send;

    /// Makes what it takes to look at a generation that is not in use as users would.
    fn show_beside(&self, generation: i32) -> impl Future<Output = Result<(), Error>> + Send;

    /// Where the rows of a generation end.
    fn ends(&self, generation: i32) -> impl Future<Output = Result<Ends, Error>> + Send;

    /// The streams of a generation that are parked.
    fn parked_streams(
        &self,
        generation: i32,
    ) -> impl Future<Output = Result<ParkedStreams, Error>> + Send;

    /// Marks everything that is parked of a generation as wanted back.
    fn want_parked_of(&self, generation: i32) -> impl Future<Output = Result<(), Error>> + Send;

    /// Asks those who write the generation in use to hold still, at most so long. `false`: it takes
    /// no holding still.
    fn hold(&self, longest: Duration) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Takes that back.
    fn release(&self) -> impl Future<Output = Result<(), Error>> + Send;

    /// Puts a generation in the place of the one in use, if it has all that this one has. Up to
    /// `proven` it has everything, whatever its rows say.
    fn switch(
        &self,
        from: i32,
        to: i32,
        proven: &Ends,
    ) -> impl Future<Output = Result<Switch, Error>> + Send;

    /// Drops the tables of a generation that is not in use, and all that is known of it.
    fn discard(&self, generation: i32) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Whether a generation with these ends has everything that the one in use has. A partition that
/// was read from a topic that is not there any more is no example.
#[must_use]
pub fn covers(own: &Ends, proven: &Ends, in_use: &Ends) -> bool {
    in_use.iter().all(|(place, due)| {
        let known = [own.get(place), proven.get(place)];
        let mut known = known.into_iter().flatten();
        known.any(|end| end.topic_id != due.topic_id || end.next_offset >= due.next_offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(all: &[(i32, u128, i64)]) -> Ends {
        let end = |(partition, topic, next_offset): &(i32, u128, i64)| {
            let end = End { topic_id: Uuid::from_u128(*topic), next_offset: *next_offset };
            (("t".to_owned(), *partition), end)
        };
        all.iter().map(end).collect()
    }

    #[test]
    fn a_generation_covers_another_one_that_is_nowhere_ahead() {
        let none = Ends::new();
        let in_use = ends(&[(0, 7, 10), (1, 7, 20)]);
        assert!(covers(&ends(&[(0, 7, 10), (1, 7, 25)]), &none, &in_use));
        assert!(!covers(&ends(&[(0, 7, 9), (1, 7, 25)]), &none, &in_use));
        assert!(!covers(&ends(&[(0, 7, 10)]), &none, &in_use));
        assert!(covers(&none, &none, &none));
    }

    #[test]
    fn what_is_proven_counts_like_rows() {
        let in_use = ends(&[(0, 7, 10), (1, 7, 20)]);
        let own = ends(&[(0, 7, 9)]);
        assert!(covers(&own, &ends(&[(0, 7, 10), (1, 7, 20)]), &in_use));
        assert!(!covers(&own, &ends(&[(0, 7, 10), (1, 7, 19)]), &in_use));
    }

    #[test]
    fn a_topic_that_is_no_more_is_no_example() {
        let in_use = ends(&[(0, 7, 1_000)]);
        assert!(covers(&ends(&[(0, 8, 3)]), &Ends::new(), &in_use));
    }
}
