//! Everything at once on the real brokers: three handlers, two clients, kills, broken brokers.
//! Afterwards the whole log is read and judged.
//!
//! These tests break the services of the stack that they run on, so they run alone on a stack of
//! their own: `ops/test --test chaos`, and `ops/chaos` for as long as you like. `CHAOS_SECONDS` is
//! the length of the load, `CHAOS_SEED` draws the same commands and moments again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test's expectations"
)]

mod brokers;
mod checker;
mod clients;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "shared with tests/e2e, which uses all of it")]
mod harness;
mod instances;
mod log;
mod model;
mod plant;
mod run;

use run::Run;

#[test]
fn one_broker_killed_and_paused_under_load() {
    let (run, log) = Run::of(75, brokers::one_broker);
    run.judge(&log);
    // A judge who finds nothing must be able to find.
    plant::doctored_logs_are_found_out(&run, &log);
}

#[test]
fn three_brokers_of_which_one_dies_at_a_time() {
    let (run, log) = Run::of(80, brokers::three_brokers);
    run.judge(&log);
}
