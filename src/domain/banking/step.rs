//! A process manager's step: sent, waited for, sent again. When and how often.
//!
//! | what | how long |
//! |---|---|
//! | an answer is waited for | 10 s (a receiver may just be taken over) and the back-off |
//! | back-off after attempt 1, 2, 3, ... | 1 s, 2 s, 4 s, ... at most 10 s, of it 50 to 100 % |
//! | attempts before an operator is asked | 3 |

use crate::kernel::decider::Context;
use crate::kernel::time::Timestamp;

/// How often a step is sent before the process manager parks.
pub const ATTEMPTS_MAX: u32 = 3;
/// The one timer that a process manager has.
pub const TIMER: &str = "step";

const ANSWER_WAIT_SECONDS: i64 = 10;
const BACK_OFF_SECONDS_MAX: i64 = 10;

/// Until when the answer to that attempt (from 1) is waited for.
#[must_use]
pub fn answer_due(context: &Context, attempt: u32) -> Timestamp {
    let wait = context.now.plus_seconds(ANSWER_WAIT_SECONDS);
    Timestamp(wait.0.saturating_add(back_off_micros(context, attempt)))
}

/// When a step that failed at that attempt (from 1) is sent again.
#[must_use]
pub fn retry_due(context: &Context, attempt: u32) -> Timestamp {
    Timestamp(context.now.0.saturating_add(back_off_micros(context, attempt)))
}

/// The jitter comes from the stream and the attempt: the same in every replay of the decision, and
/// spread over the streams.
fn back_off_micros(context: &Context, attempt: u32) -> i64 {
    let doublings = attempt.saturating_sub(1).min(4);
    let whole = (1_i64 << doublings).min(BACK_OFF_SECONDS_MAX) * 1_000_000;
    let half = whole / 2;
    let seed = context.stream.0 ^ (u128::from(attempt) << 96);
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835) >> 64;
    let jitter = mixed % (half.unsigned_abs() as u128 + 1);
    half + i64::try_from(jitter).unwrap_or(half)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::kernel::stream::{AggregateName, StreamHash};

    #[test]
    fn a_retry_waits_longer_each_time_with_a_jitter_of_its_own() {
        let name = AggregateName { domain: "banking", aggregate: "transfer" };
        let mut seen = std::collections::BTreeSet::new();
        for id in 0..100 {
            let context = Context {
                now: Timestamp(0),
                stream: StreamHash::new(name, &id.to_string()),
                version: 0,
                command_id: Uuid::nil(),
            };
            for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (50, 10)] {
                let due = retry_due(&context, attempt);
                assert!(
                    Timestamp(seconds * 500_000) <= due && due <= Timestamp(seconds * 1_000_000)
                );
                assert_eq!(retry_due(&context, attempt), due);
                assert_eq!(answer_due(&context, attempt), due.plus_seconds(10));
            }
            seen.insert(retry_due(&context, 1));
        }
        assert!(seen.len() > 90);
    }
}
