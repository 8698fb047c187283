//! Bugs that are put in on purpose: each is found within a few seeds, or the judge is blind.

use super::run_all;
use super::shared::Planted;

fn is_found(bug: Planted, within: u64) {
    match run_all(0..within, Some(bug)) {
        Err(seed) => println!("{bug:?} is found by seed {seed}"),
        Ok(total) => panic!("{bug:?} is not found within {within} seeds: {total:?}"),
    }
}

#[test]
fn a_commit_before_everything_is_sent_is_found() {
    is_found(Planted::Drain, 10);
}

#[test]
fn a_lost_commit_that_is_taken_for_none_is_found() {
    is_found(Planted::Witness, 10);
}

#[test]
fn a_state_that_keeps_what_was_aborted_is_found() {
    is_found(Planted::Rollback, 10);
}

#[test]
fn answers_that_are_forgotten_are_found() {
    is_found(Planted::Answers, 10);
}

#[test]
fn origins_that_are_forgotten_are_found() {
    // Rare: the repeat has to outlive the window, which later commands have to move on.
    is_found(Planted::Origins, 1_000);
}

#[test]
fn a_reactor_that_follows_its_groups_offset_is_found() {
    is_found(Planted::Position, 10);
}

#[test]
fn a_start_that_leaves_out_too_much_is_found() {
    is_found(Planted::Bound { is_counted: false }, 10);
}

#[test]
fn a_start_that_leaves_out_too_much_finds_out_by_itself() {
    let total = run_all(0..10, Some(Planted::Bound { is_counted: true }));
    let total = total.unwrap_or_else(|seed| panic!("seed {seed}: it went on with too little"));
    assert!(total.tally.whole_reads > 0, "{total:?}");
}
