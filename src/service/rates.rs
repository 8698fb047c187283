//! How many transactions a second: counters that only grow -> what they grew by of late.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::runtime::lane_status::LaneStatus;

/// The time over which is counted.
const SPAN: Duration = Duration::from_secs(5);
/// The most looks that are kept of a partition.
const LOOKS_MAX: usize = 64;

/// The transactions of each partition, as they were at the last looks.
#[derive(Default)]
pub(super) struct Rates(HashMap<(String, i32), VecDeque<(Instant, u64)>>);

impl Rates {
    /// Takes a look.
    pub(super) fn look(&mut self, lanes: &[LaneStatus], now: Instant) {
        self.0.retain(|(topic, partition), _| {
            lanes.iter().any(|lane| lane.topic == *topic && lane.partition == *partition)
        });
        for lane in lanes {
            let looks = self.0.entry((lane.topic.clone(), lane.partition)).or_default();
            // Another owner's life begins at zero.
            if looks.back().is_some_and(|(_, last)| *last > lane.counts.transactions) {
                looks.clear();
            }
            looks.push_back((now, lane.counts.transactions));
            while looks.len() > LOOKS_MAX
                || looks.front().is_some_and(|(at, _)| now.duration_since(*at) > SPAN)
            {
                looks.pop_front();
            }
        }
    }

    /// Transactions a second of a partition.
    pub(super) fn per_second(&self, lane: &LaneStatus) -> u64 {
        let looks = self.0.get(&(lane.topic.clone(), lane.partition));
        let ends = looks.and_then(|looks| Some((looks.front()?, looks.back()?)));
        let Some(((from, before), (to, after))) = ends else { return 0 };
        let ms = u64::try_from(to.duration_since(*from).as_millis()).unwrap_or(u64::MAX);
        (after - before) * 1_000 / ms.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::protocol::Counts;
    use crate::runtime::lane_status::LaneState;

    fn lane(transactions: u64) -> LaneStatus {
        LaneStatus {
            topic: "t".to_owned(),
            partition: 0,
            state: LaneState::Running,
            counts: Counts { transactions, ..Counts::default() },
            restored_percent: 100,
            ready_after: None,
            last_error: None,
        }
    }

    #[test]
    fn it_is_what_the_last_seconds_brought() {
        let mut rates = Rates::default();
        let start = Instant::now();
        for second in 0..20 {
            rates.look(&[lane(second * 30)], start + Duration::from_secs(second));
        }
        assert_eq!(rates.per_second(&lane(0)), 30);
        for second in 20..40 {
            rates.look(&[lane(570)], start + Duration::from_secs(second));
        }
        assert_eq!(rates.per_second(&lane(0)), 0, "it rests");
        rates.look(&[lane(3)], start + Duration::from_secs(41));
        assert_eq!(rates.per_second(&lane(0)), 0, "another life");
    }
}
