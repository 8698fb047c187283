//! The real command handler over an in-memory log: seeded crashes, takeovers, zombies, aborts, lost
//! acknowledgements, resets and repeats. What is simulated is what runs.
//!
//! `MILLRACE_SIMULATION_SEED=17 cargo test --release --test simulation` runs one seed alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    reason = "a test stops where its expectation ends, and says what it saw"
)]

mod clients;
mod disks;
mod judge;
mod lives;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use millrace::codec::banking::AccountCodec;
use millrace::codec::schemas::Schemas;

use clients::Clients;
use world::World;

/// How many worlds are tried.
const SEEDS: u64 = 1_000;
const STEPS: u32 = 1_500;

fn run(seed: u64, codec: &Arc<AccountCodec>) -> judge::Verdict {
    let mut world = World::new(seed, Arc::clone(codec));
    let mut clients = Clients::new(seed);
    for _ in 0..STEPS {
        clients.maybe_send(&mut world);
        world.step();
    }
    clients.send_rest(&mut world);
    world.settle();
    judge::judge(&world, &clients, codec)
}

#[test]
fn every_seed_ends_exactly_once() {
    let codec = Arc::new(AccountCodec::new(Arc::new(Schemas::numbered_from(1))));
    let only = std::env::var("MILLRACE_SIMULATION_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let count = seeds.end - seeds.start;
    let mut total = judge::Verdict::default();
    for seed in seeds {
        let verdict = catch_unwind(AssertUnwindSafe(|| run(seed, &codec)));
        match verdict {
            Ok(verdict) => total.add(&verdict),
            Err(_) => panic!("seed {seed} fails: MILLRACE_SIMULATION_SEED={seed} shows it alone"),
        }
    }
    println!("{count} seeds: {total:?}");
    // A simulation in which nothing happens proves nothing.
    assert!(total.events >= 60 * count, "{total:?}");
    assert!(total.duplicates >= 5 * count && total.refusals >= 5 * count, "{total:?}");
    assert!(total.crashes >= count && total.moved >= 10 * count, "{total:?}");
    assert!(total.warm_starts >= 2 * count && total.shelf_waits >= count, "{total:?}");
}
