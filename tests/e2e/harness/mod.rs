//! What the tests share: the stack, a namespace, processes, clients, and a fold of the log.

pub(crate) mod avro;
pub(crate) mod commands;
pub(crate) mod fold;
pub(crate) mod http;
pub(crate) mod judge;
pub(crate) mod kafka;
pub(crate) mod log;
pub(crate) mod namespace;
pub(crate) mod serve;
pub(crate) mod services;
pub(crate) mod stores;
pub(crate) mod watch;

use std::time::{Duration, Instant};

/// Looks again and again until there is an answer; says what was missing when the time is over.
#[track_caller]
pub(crate) fn await_some<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return found,
            Err(missing) if Instant::now() > deadline => {
                panic!("{what}: not within {} s: {missing}", limit.as_secs())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
