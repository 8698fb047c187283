//! The checker's power: a real log, doctored, and what is found then.

use crate::checker::check;
use crate::harness::kafka::Place;
use crate::log::{Answer, Event, Log};
use crate::run::Run;

/// Doctors a copy of the log and gives the kinds of findings.
fn found(run: &Run, log: &Log, doctor: impl FnOnce(&mut Log)) -> Vec<&'static str> {
    let mut doctored = log.clone();
    doctor(&mut doctored);
    check(&doctored, run.sent(), run.partitions()).kinds()
}

#[track_caller]
fn finds(run: &Run, log: &Log, kind: &str, doctor: impl FnOnce(&mut Log)) {
    let kinds = found(run, log, doctor);
    assert!(kinds.contains(&kind), "{kind} is not among {kinds:?}");
    println!("  planted: {kind}; found: {}", kinds.join(", "));
}

/// Where an event of that name stands, somewhere in the middle.
fn event(log: &Log, name: &str) -> usize {
    let all: Vec<usize> = (0..log.events.len()).filter(|at| log.events[*at].name == name).collect();
    all[all.len() / 2]
}

fn answer(log: &Log, which: impl Fn(&Answer) -> bool) -> usize {
    let all: Vec<usize> = (0..log.answers.len()).filter(|at| which(&log.answers[*at])).collect();
    all[all.len() / 2]
}

/// The event once more as a new one, at its partition's end: what a second decision would write.
fn applied_again(log: &mut Log) {
    let at = event(log, "MoneyDeposited");
    let last = log.events.iter().rev().find(|one| one.account == log.events[at].account);
    let last = last.unwrap().clone();
    let amount = log.events[at].amount;
    log.events.push(Event {
        place: Place { offset: last.place.offset + 1_000_000, ..last.place },
        sequence: last.sequence + 1,
        id: "another".to_owned(),
        micros: last.micros,
        balance_after: last.balance_after.map(|balance| balance + amount),
        ..log.events[at].clone()
    });
}

/// Shows that nothing of this kind can pass unseen. The log is one that the checker found sound.
pub(crate) fn doctored_logs_are_found_out(run: &Run, log: &Log) {
    finds(run, log, "doubled or reordered event", |log| {
        let at = event(log, "MoneyDeposited");
        let twin = log.events[at].clone();
        log.events.insert(at + 1, twin);
    });
    finds(run, log, "gap in a stream", |log| {
        // One that others of its stream follow.
        let followed = log.events.iter().rposition(|one| one.sequence > 2).unwrap();
        let (account, sequence) =
            (log.events[followed].account.clone(), log.events[followed].sequence - 1);
        log.events.retain(|one| one.account != account || one.sequence != sequence);
    });
    finds(run, log, "lost event", |log| {
        log.events.pop();
    });
    finds(run, log, "command applied twice", applied_again);
    finds(run, log, "not one first answer", |log| {
        let at = answer(log, |one| one.is_duplicate);
        log.answers[at].is_duplicate = false;
    });
    finds(run, log, "a repeat says something else", |log| {
        let at = answer(log, |one| one.is_duplicate);
        log.answers[at].digest ^= 1;
    });
    finds(run, log, "answers and commands differ in number", |log| {
        let at = answer(log, |one| one.is_duplicate);
        log.answers.remove(at);
    });
    finds(run, log, "command without an answer", |log| {
        let id = log.answers[answer(log, |one| one.outcome == "REJECTED")].id;
        log.answers.retain(|one| one.id != id);
    });
    finds(run, log, "money appeared or vanished", |log| {
        let at = event(log, "MoneyDeposited");
        log.events[at].balance_after = log.events[at].balance_after.map(|sum| sum + sum);
    });
    finds(run, log, "wrong decision", |log| {
        let at = answer(log, |one| one.code.as_deref() == Some("VersionConflict"));
        log.answers[at].code = Some("InsufficientFunds".to_owned());
    });
    finds(run, log, "time goes back in a stream", |log| {
        let at = log.events.iter().rposition(|one| one.sequence > 1).unwrap();
        log.events[at].micros -= 3_600_000_000;
    });
    finds(run, log, "a client's order is lost", |log| {
        for at in 0..log.answers.len() {
            log.answers[at].place.offset *= -1;
        }
    });
}
