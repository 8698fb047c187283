//! One fault at a time against the real services: what a client notices, for how long, and that
//! nothing is lost or doubled by it.
//!
//! Figures are printed and asserted. These tests break the services of the stack that they run on:
//! `ops/test --test faults` runs them one after the other, alone.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test's expectations"
)]

mod backlog;
mod clock;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "shared with tests/e2e, which uses all of it")]
mod harness;
mod load;
mod outage;
mod poison;
mod rebalance;
mod takeover;
