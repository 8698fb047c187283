//! One run: load and faults side by side, then quiet, then the judgement.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use uuid::Uuid;

use crate::checker::check;
use crate::clients::{ACCOUNTS, Client, Shared};
use crate::harness::await_some;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;
use crate::harness::watch::{Watch, longest_gap};
use crate::instances::Instances;
use crate::log::Log;
use crate::model::Sent;

const INSTANCES: usize = 3;
/// How long everything may take to be answered once nothing is broken any more.
const ANSWERED_WITHIN: Duration = Duration::from_secs(90);
/// How long the openings may take; each is a saga.
const OPENED_WITHIN: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);

/// What a run's faults need to know and to tell.
pub(crate) struct Scene<'n> {
    pub(crate) namespace: &'n Namespace,
    pub(crate) watch: &'n Watch,
    pub(crate) until: Instant,
    /// Set while no instance is to be killed.
    pub(crate) quiet: &'n AtomicBool,
}

/// A run that is over.
pub(crate) struct Run {
    seed: u64,
    partitions: i32,
    shared: Shared,
    lines: Vec<String>,
}

impl Run {
    /// Loads for that many seconds (or `CHAOS_SECONDS`) while `faults` goes on; it returns a line
    /// for each of them.
    pub(crate) fn of(
        seconds: u64,
        faults: impl FnOnce(&Scene<'_>, &mut StdRng) -> Vec<String> + Send,
    ) -> (Self, Log) {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
        let seed = number("CHAOS_SEED").unwrap_or_else(rand::random);
        let seconds = number("CHAOS_SECONDS").unwrap_or(seconds);
        println!("seed {seed}, {seconds} s");
        let namespace = Namespace::as_declared();
        let mut random = StdRng::seed_from_u64(seed);
        let mut instances = Instances::start(&namespace, INSTANCES);
        let watch = Watch::start(&namespace);
        let shared = Mutex::new(Shared::default());
        let (stop, quiet) = (AtomicBool::new(false), AtomicBool::new(false));
        let opened = AtomicBool::new(false);
        let (started, mut lines) = std::thread::scope(|scope| {
            // Also if something fails: the clients must not go on for ever.
            let _stop = OnDrop(|| stop.store(true, Ordering::Relaxed));
            for number in 0..2 {
                let (namespace, shared) = (&namespace, &shared);
                let (opened, stop) = (&opened, &stop);
                scope.spawn(move || {
                    Client::new(namespace, shared, seed, number).run(opened, stop);
                });
            }
            // Openings ask the customers first; afterwards every command is its account's own.
            let reactors = Serve::ready(&namespace, "reactor");
            // Not by counting results: each opening has its client's and its granted command's.
            await_some("every account open", OPENED_WITHIN, || {
                let answers = watch.answers();
                let shared = shared.lock().unwrap();
                match shared.sent.keys().filter(|id| answers.contains_key(id)).count() {
                    count if count == ACCOUNTS as usize => Ok(()),
                    count => Err(format!("{count} of {} are", shared.sent.len())),
                }
            });
            reactors.terminate();
            opened.store(true, Ordering::Relaxed);
            let started = Instant::now();
            let until = started + Duration::from_secs(seconds);
            let scene = Scene { namespace: &namespace, watch: &watch, until, quiet: &quiet };
            let breaking = scope.spawn(move || {
                let mut random = StdRng::seed_from_u64(seed ^ 1);
                faults(&scene, &mut random)
            });
            while !breaking.is_finished() || Instant::now() < until {
                instances.supervise();
                if !quiet.load(Ordering::Relaxed) {
                    instances.maybe_kill(&mut random, watch.count());
                }
                std::thread::sleep(TICK);
            }
            stop.store(true, Ordering::Relaxed);
            (started, breaking.join().unwrap())
        });
        let ended = Instant::now();
        instances.wait_ready();
        let shared = shared.into_inner().unwrap();
        await_answers(&watch, &shared);
        let gap = longest_gap(&watch.arrivals(), started, ended, |_| true);
        lines.push(format!(
            "{} kills -9 and {} stops of an instance, {} starts without a broker",
            instances.killed, instances.stopped, instances.refused_starts
        ));
        lines.push(format!(
            "longest time without a committed result {gap:.1?}; all answered {:.1?} after the load",
            ended.elapsed()
        ));
        instances.terminate();
        drop(watch);
        let read = Instant::now();
        let log = Log::read(&namespace);
        lines.push(format!("log read in {:.1?}", read.elapsed()));
        let run = Self { seed, partitions: namespace.partitions, shared, lines };
        (run, log)
    }

    pub(crate) fn sent(&self) -> &HashMap<Uuid, Sent> {
        &self.shared.sent
    }

    pub(crate) fn partitions(&self) -> i32 {
        self.partitions
    }

    /// Prints what was, and fails if anything is wrong.
    pub(crate) fn judge(&self, log: &Log) {
        let started = Instant::now();
        let findings = check(log, &self.shared.sent, self.partitions);
        let records: usize = self.shared.records.values().sum();
        for line in &self.lines {
            println!("  {line}");
        }
        println!(
            "  {ACCOUNTS} accounts, {} commands sent {records} times, {} answers, {} events; \
             judged in {:.1?}",
            self.shared.sent.len(),
            log.answers.len(),
            log.events.len(),
            started.elapsed(),
        );
        assert!(findings.is_empty(), "seed {}:\n{findings}", self.seed);
        assert!(log.answers.len() >= records, "every record has its answer");
        assert!(log.events.len() > ACCOUNTS as usize, "a real load");
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn await_answers(watch: &Watch, shared: &Shared) {
    await_some("an answer to every command", ANSWERED_WITHIN, || {
        let answers = watch.answers();
        let lacks = |(id, count): &(&_, &usize)| answers.get(*id).is_none_or(|found| found < count);
        match shared.records.iter().filter(lacks).count() {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} ids wait", shared.records.len())),
        }
    });
}
