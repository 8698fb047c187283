//! Blue/green rebuilds through the real binary, on the real services: filled under load, verified,
//! switched and rolled back without anybody seeing a missing or a partial answer.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test's expectations"
)]

mod broken_off;
#[path = "../e2e/harness/mod.rs"]
#[allow(dead_code, reason = "shared with tests/e2e, which uses all of it")]
mod harness;
mod load;
mod probe;
mod under_load;
mod versions;

use serde_json::Value;

use harness::namespace::{Namespace, texts};

/// The projections.
const POSTGRES: &str = "postgres.banking";
const CLICKHOUSE: &str = "clickhouse.banking";

/// Runs a rebuild, which must succeed; gives what it says of itself.
#[track_caller]
fn rebuilt(namespace: &Namespace, arguments: &[&str]) -> Value {
    let mut outcome = namespace.json(&[&["rebuild"], arguments].concat());
    assert_eq!(outcome.len(), 1, "{outcome:?}");
    outcome.remove(0)
}

/// Runs a rebuild, which must fail with that exit code; gives its words.
#[track_caller]
fn refused(namespace: &Namespace, arguments: &[&str], code: i32) -> String {
    let output = namespace.run(&[&["rebuild"], arguments].concat());
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    err
}
