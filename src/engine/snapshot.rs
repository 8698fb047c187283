//! State at a sequence, so that a restore need not fold every event: stream <-> record.
//!
//! A snapshot of another form or another state schema is not read: the events are folded instead.
//!
//! It names no place in the events topic. The position record does, for all of them together:
//! whatever is before that place is in the latest snapshot of its stream (see `sweep`).

use serde::{Deserialize, Serialize};

use super::sweep::SAVED;
use super::turn::Stream;
use crate::kernel::decider::Decider;
use crate::kernel::stream::StreamHash;
use crate::kernel::time::Timestamp;

/// The form of the record; another number is not read.
const FORM: u8 = 2;

/// How many events lie between two snapshots of a stream, unless set otherwise.
pub const EVERY: u64 = 100;
/// The most events that may lie between two snapshots.
pub const EVERY_MAX: u64 = 10_000;

#[derive(Serialize, Deserialize)]
struct Body<S> {
    version: u64,
    last_time: Timestamp,
    state: S,
}

/// Whether a stream that grew from one version to another passed a multiple of `every`.
#[must_use]
pub const fn is_due(before: u64, after: u64, every: u64) -> bool {
    before / every != after / every
}

/// How every snapshot begins that is read and written here: its form and the state's schema.
#[must_use]
pub const fn header<D: Decider>() -> [u8; 3] {
    let [high, low] = D::STATE_SCHEMA.to_be_bytes();
    [FORM, high, low]
}

/// The record's value; `None` if the state cannot be written, which is a bug but loses nothing.
#[must_use]
pub fn to_bytes<D: Decider>(stream: &Stream<D::State>) -> Option<Vec<u8>> {
    let bytes = header::<D>().to_vec();
    let (version, last_time) = (stream.version, stream.last_time);
    let body = Body { version, last_time, state: &stream.state };
    postcard::to_extend(&body, bytes).ok()
}

/// Reads the record's value; `None` if it is of another form or state schema, or damaged.
#[must_use]
pub fn from_bytes<D: Decider>(id: &str, bytes: &[u8]) -> Option<Stream<D::State>> {
    let (found, rest) = bytes.split_first_chunk::<3>()?;
    if *found != header::<D>() {
        return None;
    }
    let (body, rest): (Body<D::State>, _) = postcard::take_from_bytes(rest).ok()?;
    let Body { version, last_time, state } = body;
    let hash = StreamHash::new(D::NAME, id);
    rest.is_empty().then_some(Stream { state, version, last_time, hash, unsaved_from: SAVED })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::banking::account::Account;

    #[test]
    fn one_is_due_whenever_a_multiple_is_passed() {
        assert!(is_due(99, 100, 100));
        assert!(is_due(98, 102, 100));
        assert!(!is_due(100, 199, 100));
        assert!(is_due(0, 1, 1));
    }

    fn sample() -> Stream<<Account as Decider>::State> {
        let hash = StreamHash::new(Account::NAME, "a-1");
        let (state, last_time) = (Default::default(), Timestamp(99));
        Stream { state, version: 7, last_time, hash, unsaved_from: SAVED }
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = to_bytes::<Account>(&sample()).unwrap();
        assert_eq!(from_bytes::<Account>("a-1", &bytes), Some(sample()));
    }

    #[test]
    fn another_form_or_state_schema_is_ignored_and_never_misread() {
        let bytes = to_bytes::<Account>(&sample()).unwrap();
        for form in (0..=u8::MAX).filter(|form| *form != FORM) {
            let other = [&[form], &bytes[1..]].concat();
            assert_eq!(from_bytes::<Account>("a-1", &other), None, "form {form}");
        }
        for schema in (0..=u16::MAX).filter(|schema| *schema != Account::STATE_SCHEMA) {
            let other = [&bytes[..1], &schema.to_be_bytes(), &bytes[3..]].concat();
            assert_eq!(from_bytes::<Account>("a-1", &other), None, "schema {schema}");
        }
    }

    #[test]
    fn one_that_is_cut_off_or_goes_on_is_ignored() {
        let bytes = to_bytes::<Account>(&sample()).unwrap();
        for length in 0..bytes.len() {
            assert_eq!(from_bytes::<Account>("a-1", &bytes[..length]), None, "{length} bytes");
        }
        assert_eq!(from_bytes::<Account>("a-1", &[&bytes[..], &[0]].concat()), None);
    }
}
