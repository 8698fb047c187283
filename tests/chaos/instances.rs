//! The handler's processes, as a supervisor has them: killed by us, started again by it.

use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::harness::await_some;
use crate::harness::namespace::Namespace;
use crate::harness::serve::Serve;

/// What it logs once it has started. A start that finds no broker ends; a supervisor tries again.
const STARTED: &str = "listening";
/// How long a start may take, a start again included.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A dead member's session takes 6 s to run out: a kill that finds nobody at work shows nothing.
const ANSWERED_BETWEEN: usize = 500;
/// A stop may have to wait for a broker that does not answer, but not for ever.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// Instances side by side.
pub(crate) struct Instances<'n> {
    namespace: &'n Namespace,
    running: Vec<Serve>,
    /// When the next one is killed, if enough has been answered since the last.
    next: Instant,
    answered: usize,
    pub(crate) killed: usize,
    pub(crate) stopped: usize,
    pub(crate) refused_starts: usize,
}

impl<'n> Instances<'n> {
    pub(crate) fn start(namespace: &'n Namespace, count: usize) -> Self {
        let mut running: Vec<_> = (0..count).map(|_| Self::one(namespace)).collect();
        running.iter_mut().for_each(Serve::wait_ready);
        let next = Instant::now();
        let (answered, killed, stopped, refused_starts) = (0, 0, 0, 0);
        Self { namespace, running, next, answered, killed, stopped, refused_starts }
    }

    fn one(namespace: &Namespace) -> Serve {
        Serve::start(namespace, "handler")
    }

    /// Starts again what could not reach a broker. Whatever else ends by itself is a bug.
    pub(crate) fn supervise(&mut self) {
        for serve in &mut self.running {
            let Some((status, log)) = serve.ended() else { continue };
            assert!(!log.contains(STARTED), "it ended by itself with {status}:\n{log}");
            self.refused_starts += 1;
            *serve = Self::one(self.namespace);
        }
    }

    /// Kills one every few seconds, as long as there is work to be killed in the middle of; every
    /// fifth time asks it to stop instead.
    pub(crate) fn maybe_kill(&mut self, random: &mut StdRng, answered: usize) {
        let works = answered > self.answered + ANSWERED_BETWEEN;
        if Instant::now() < self.next || !works {
            return;
        }
        self.answered = answered;
        self.next = Instant::now() + Duration::from_millis(random.random_range(1_000..6_000));
        let at = random.random_range(0..self.running.len());
        let victim = std::mem::replace(&mut self.running[at], Self::one(self.namespace));
        if random.random_bool(0.8) {
            self.killed += 1;
            victim.kill();
        } else {
            self.stopped += 1;
            victim.stop_within(STOP_WITHIN);
        }
    }

    /// Waits until all do their work; a start may still meet a broker that has only just come back.
    pub(crate) fn wait_ready(&mut self) {
        await_some("every instance ready", READY_WITHIN, || {
            self.supervise();
            match self.running.iter().find_map(|serve| serve.is_ready().err()) {
                None => Ok(()),
                Some(waiting) => Err(waiting),
            }
        });
    }

    pub(crate) fn terminate(self) {
        self.running.into_iter().for_each(Serve::terminate);
    }
}
