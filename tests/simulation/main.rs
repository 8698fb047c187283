//! The real command handlers and reactors of the bank over an in-memory log: seeded crashes,
//! takeovers, zombies, aborts, lost acknowledgements, late deliveries, resets, repeats, and time
//! that jumps. What is simulated is what runs.
//!
//! | variable | what it does |
//! |---|---|
//! | `MILLRACE_SEEDS` | how many worlds are tried |
//! | `MILLRACE_SEED` | tries that one alone, as a failure names it |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

mod bank;
mod bounds;
mod cases;
mod clients;
mod disks;
mod faulty;
mod judge;
mod lane;
mod lives;
mod operator;
mod planted;
mod projecting;
mod puppets;
mod reacting;
mod shared;
mod starts;
mod store;
mod world;

use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bank::Bank;
use clients::Clients;
use judge::Verdict;
use shared::{Faults, Planted};
use world::World;

/// How many worlds are tried unless somebody says otherwise.
const SEEDS: u64 = if cfg!(debug_assertions) { 100 } else { 2_000 };
const STEPS: u32 = 4_000;

fn run(seed: u64, bank: &Arc<Bank>, bug: Option<Planted>) -> Verdict {
    // What is planted is in handlers and reactors; the projections' troubles would take up steps.
    let poison = if bug.is_some() { 0 } else { Faults::MANY.poison };
    let faults = Faults { poison, ..Faults::MANY };
    let mut world = World::new(seed, Arc::clone(bank), faults, bug);
    let mut clients = Clients::new(seed);
    for _ in 0..STEPS {
        clients.maybe_send(&mut world.shared);
        world.step();
    }
    clients.send_rest(&mut world.shared);
    world.settle();
    let verdict = judge::judge(&world, &clients);
    judge::nothing_follows_from_a_reset(&mut world);
    verdict
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// Tries the seeds on every core; the lowest one that fails is the error.
fn run_all(seeds: Range<u64>, bug: Option<Planted>) -> Result<Verdict, u64> {
    let bank = Arc::new(Bank::new());
    let next = AtomicU64::new(seeds.start);
    let total = Mutex::new(Verdict::default());
    let failed = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || !failed.lock().unwrap().is_empty() {
                        return;
                    }
                    match catch_unwind(AssertUnwindSafe(|| run(seed, &bank, bug))) {
                        Ok(verdict) => total.lock().unwrap().add(&verdict),
                        Err(_) => failed.lock().unwrap().push(seed),
                    }
                }
            });
        }
    });
    let lowest = failed.into_inner().unwrap().into_iter().min();
    lowest.map_or_else(|| Ok(total.into_inner().unwrap()), Err)
}

#[test]
fn every_seed_ends_exactly_once() {
    let seeds = match number("MILLRACE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLRACE_SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let started = Instant::now();
    let total = run_all(seeds, None)
        .unwrap_or_else(|seed| panic!("seed {seed} fails; MILLRACE_SEED={seed} shows it alone"));
    let seconds = started.elapsed().as_secs_f64();
    let faults = total.tally.faults();
    // Not by `println`, which is kept back unless the test fails.
    let line = format!("simulation: {count} seeds, {seconds:.1} s, {faults} faults; {total:?}");
    writeln!(std::io::stdout(), "{line}").unwrap();
    // A simulation in which nothing happens proves nothing.
    if count >= 50 {
        assert!(total.events >= 100 * count, "{total:?}");
        assert!(total.tally.crashes >= 5 * count, "{total:?}");
        assert!(total.tally.repaired >= count, "{total:?}");
        assert!(total.tally.chunks >= 5 * count, "{total:?}");
        assert!(total.tally.abandoned >= count && total.tally.freed >= count, "{total:?}");
        assert!(total.tally.bounded_starts >= 5 * count && total.tally.left_out >= count);
        assert!(total.warm_starts >= 2 * count && total.tally.waits >= count, "{total:?}");
    }
}
