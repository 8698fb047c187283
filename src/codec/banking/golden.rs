//! Golden bytes: what another program wrote <-> what is read here, for every stored version.

use std::collections::BTreeSet;

use crate::codec::compiled::{self, Source};
use crate::kernel::stream::Kind;

/// Reads every line with schemas numbered from 1. `read` gives the event as JSON and its bytes as
/// written today, which are the same where the line's version is the current one.
pub(super) fn check(lines: &str, sources: &[Source], read: impl Fn(&[u8]) -> (String, Vec<u8>)) {
    let mut seen = BTreeSet::new();
    for line in lines.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap();
        let (record, version, hex, expected) = (word(), word(), word(), word());
        let version: u16 = version.parse().unwrap();
        let place = compiled::all()
            .iter()
            .position(|one| one.source.record == record && one.source.version == version)
            .unwrap();
        let mut value = vec![0];
        value.extend_from_slice(&u32::try_from(place + 1).unwrap().to_be_bytes());
        value.extend(
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()),
        );
        let (json, again) = read(&value);
        assert_eq!(json, expected, "{record} {version}");
        if compiled::all()[place].current {
            assert_eq!(again, value, "{record} {version}");
        }
        seen.insert((record, version));
    }
    let stored = sources.iter().filter(|source| source.kind == Kind::Events);
    assert_eq!(seen, stored.map(|source| (source.record, source.version)).collect());
}
