//! The one clock. Drivers read it and hand the moment in; pure stages never see it.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{NoContext, Uuid};

use crate::kernel::time::Timestamp;

/// Reads the machine's clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one clock")]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// A new time-ordered id (UUIDv7), for commands and aggregates whose sender left it out.
#[must_use]
pub fn new_id() -> Uuid {
    let moment = now();
    let seconds = moment.0.div_euclid(1_000_000).unsigned_abs();
    let nanos = u32::try_from(moment.0.rem_euclid(1_000_000) * 1_000).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanos))
}

/// A number that nobody has drawn before, as far as 64 random bits can promise.
#[must_use]
pub fn nonce() -> u64 {
    rand::random()
}
