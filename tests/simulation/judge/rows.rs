//! The rows of the read models, once everything is projected, are the fold of the log.

use std::collections::BTreeMap;

use millrace::kernel::stream::{Kind, parse_event_key};
use millrace::log::memory::Place;

use crate::bank::{PROJECTED, partitions};
use crate::shared::Shared;
use crate::store::Row;

pub(super) fn judge(shared: &Shared) {
    for aggregate in PROJECTED {
        for partition in 0..partitions(aggregate) {
            let place = Place { aggregate, kind: Kind::Events, partition };
            let mut expected: BTreeMap<String, Row> = BTreeMap::new();
            for record in shared.log.read(place, 0, usize::MAX).0 {
                let (stream, _) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
                expected.entry(stream.to_owned()).or_default().follow(&record);
            }
            assert_eq!(shared.store.rows(place), expected, "the rows of {place:?}");
        }
    }
}
