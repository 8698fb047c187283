//! The whole path against the real services, through the real binary: commands in from a foreign
//! client, results, events and rows out, whatever happens in between.
//!
//! Every test has a namespace of its own and cleans it up, so that they run side by side. Nothing
//! here is decoded or added up with the product's code: Avro comes from the registry, sums from a
//! fold of the log that was written for the purpose.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test's expectations"
)]

mod bad_input;
mod bounded_start;
mod clients;
mod compaction;
mod dead_letters;
mod doors;
#[allow(dead_code, reason = "tests/chaos and tests/faults use the rest")]
mod harness;
mod idempotency;
mod kills;
mod operator;
mod process_manager;
mod replay;
mod restart;
mod state;
