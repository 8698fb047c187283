//! The stack's services as an accident sees them: killed, paused, brought back, by name.

use std::process::Command;

/// Has `ops/stack` do something to a service of the stack that the tests run on.
///
/// Only a stack that was named for the purpose: nobody's own is paused or killed by a test.
fn stack(verb: &str, service: &str) -> Result<(), String> {
    assert!(
        std::env::var("MILLRACE_STACK_NAME").is_ok_and(|name| name != "main"),
        "MILLRACE_STACK_NAME is not set, or main: run `ops/test`, or start a stack of another name"
    );
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/ops/stack"))
        .args([verb, service])
        .output()
        .unwrap();
    let (out, err) = super::namespace::texts(&output);
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ops/stack {verb} {service}\n{out}\n{err}")),
    }
}

/// `kill -9`.
#[track_caller]
pub(crate) fn kill(service: &str) {
    stack("kill", service).unwrap();
}

/// Starts it and waits until it answers.
#[track_caller]
pub(crate) fn start(service: &str) {
    stack("start", service).unwrap();
}

/// `SIGSTOP`, until the value is dropped.
#[must_use]
pub(crate) struct Paused<'s>(&'s str);

/// Holds a service still.
#[track_caller]
pub(crate) fn pause(service: &str) -> Paused<'_> {
    stack("pause", service).unwrap();
    Paused(service)
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        report(stack("resume", self.0));
    }
}

/// A service that is down until the value is dropped, also if the test fails meanwhile.
#[must_use]
pub(crate) struct Killed<'s>(&'s str);

/// Kills a service.
#[track_caller]
pub(crate) fn kill_for_a_while(service: &str) -> Killed<'_> {
    kill(service);
    Killed(service)
}

impl Drop for Killed<'_> {
    fn drop(&mut self) {
        report(stack("start", self.0));
    }
}

/// A test that has failed already must not fail again while it cleans up.
fn report(outcome: Result<(), String>) {
    if let Err(error) = outcome {
        eprintln!("{error}");
    }
}
