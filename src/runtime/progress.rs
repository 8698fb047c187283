//! How far a restore is: the ends of its topics, the place in one of them -> per cent.
//!
//! It goes by offsets, which have holes, so it tells people how long they have to wait and nothing
//! else. Whether a topic is read to its end is the reader's to say.

use crate::kernel::stream::Kind;

/// A restore's topics, in the order in which they are read, each with its first offset and the one
/// behind its last record.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Vec<(Kind, i64, i64)>);

impl Progress {
    /// Adds a topic.
    pub(super) fn add(&mut self, kind: Kind, begin: i64, end: i64) {
        self.0.push((kind, begin, end.max(begin)));
    }

    /// A topic is read from that offset on only.
    pub(super) fn begin_at(&mut self, kind: Kind, offset: i64) {
        for (found, begin, end) in &mut self.0 {
            if *found == kind {
                *begin = offset.clamp(*begin, *end);
            }
        }
    }

    /// How much is read once that offset of that topic is, from 0 to 100.
    pub(super) fn percent(&self, kind: Kind, offset: i64) -> u8 {
        let (mut read, mut all) = (0, 0);
        let mut is_before = true;
        for (found, begin, end) in &self.0 {
            all += end - begin;
            if *found == kind {
                read += (offset + 1).clamp(*begin, *end) - begin;
                is_before = false;
            } else if is_before {
                read += end - begin;
            }
        }
        let percent = if all == 0 { 100 } else { read * 100 / all };
        u8::try_from(percent.clamp(0, 100)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_up_from_topic_to_topic() {
        let mut progress = Progress::default();
        progress.add(Kind::Snapshots, 100, 200);
        progress.add(Kind::Events, 0, 300);
        let percents = [
            progress.percent(Kind::Snapshots, 0),
            progress.percent(Kind::Snapshots, 149),
            progress.percent(Kind::Events, -1),
            progress.percent(Kind::Events, 149),
            progress.percent(Kind::Events, 10_000),
        ];
        assert_eq!(percents, [0, 12, 25, 62, 100]);
        // The last hundred events are all that is read of them.
        progress.begin_at(Kind::Events, 200);
        let percents = [
            progress.percent(Kind::Snapshots, 199),
            progress.percent(Kind::Events, 249),
            progress.percent(Kind::Events, 299),
        ];
        assert_eq!(percents, [50, 75, 100]);
        progress.begin_at(Kind::Events, 1_000);
        assert_eq!(progress.percent(Kind::Snapshots, 199), 100);
        assert_eq!(Progress::default().percent(Kind::Events, 0), 100);
    }
}
