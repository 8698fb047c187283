//! Reading on the real services, through the real binary and HTTP: never older than a client's own
//! command, and a stream as it was at any moment.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test's expectations"
)]

mod desk;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "shared with tests/e2e, which uses all of it")]
mod harness;
mod history;
mod pairs;
mod refusals;
