//! A process of our own program: started, watched from outside, asked to stop.
//!
//! Its CPU time and memory are the kernel's figures of that process alone.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Error;
use super::figures::grown;
use crate::clock;
use crate::config::Config;

/// How often its CPU time is read. The kernel counts it in steps of 10 ms.
const SAMPLE: Duration = Duration::from_millis(20);
/// USER_HZ: fixed at 100 on Linux, whatever the kernel's own clock is.
const TICKS_PER_SECOND: f64 = 100.0;
/// The line that a partition's owner writes when it starts to handle commands.
pub const READY: &str = "partition ready";
/// The aggregate whose partitions count: part of its topics' names.
const MEASURED: &str = "banking.account.";
const LAST_LINES: usize = 20;
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(2);

/// How many children there are: one may be in the hands of a thread that nobody waits for any more.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Whether every child has ended.
#[must_use]
pub fn all_ended() -> bool {
    ALIVE.load(Ordering::Acquire) == 0
}

/// What is known of a child from outside.
#[derive(Default)]
struct Seen {
    ready: AtomicUsize,
    /// When the last partition became ready, in microseconds since 1970.
    ready_at: AtomicU64,
    lines: Mutex<VecDeque<String>>,
    http_addr: Mutex<Option<String>>,
    /// Moments (microseconds since 1970) and CPU time (ticks).
    cpu: Mutex<Vec<(i64, u64)>>,
    rss_kilobytes: AtomicU64,
    rss_kilobytes_max: AtomicU64,
    over: AtomicBool,
}

/// A running process of our own program; dropping it ends it.
pub struct Child {
    what: String,
    process: std::process::Child,
    started: Instant,
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Child {
    /// Starts our own program in a namespace.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(config: &Config, batch: usize, arguments: &[&str]) -> Result<Self, Error> {
        let what = format!("millrace {}", arguments.join(" "));
        let failed = |source| Error::Child { what: what.clone(), source };
        let program = std::env::current_exe().map_err(failed)?;
        let started = Instant::now();
        let mut process = Command::new(program)
            .args(arguments)
            .env("MILLRACE_NAMESPACE", config.namespace.as_str())
            .env("MILLRACE_HANDLER_BATCH", batch.to_string())
            // Any free port: the log says which.
            .env("MILLRACE_HTTP_ADDR", "127.0.0.1:0")
            .env("MILLRACE_LOG", "info")
            .env("MILLRACE_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        ALIVE.fetch_add(1, Ordering::AcqRel);
        let seen = Arc::new(Seen::default());
        let mut threads = Vec::new();
        if let Some(stderr) = process.stderr.take() {
            let seen = Arc::clone(&seen);
            threads.push(std::thread::spawn(move || seen.listen(BufReader::new(stderr))));
        }
        let (sampled, id) = (Arc::clone(&seen), process.id());
        threads.push(std::thread::spawn(move || sampled.sample(id)));
        Ok(Self { what, process, started, seen, threads })
    }

    /// Waits until that many partitions are handled. Returns how long that took from the start.
    ///
    /// # Errors
    /// It ends before, or takes too long.
    pub fn wait_ready(
        &mut self,
        partitions: usize,
        give_up: &AtomicBool,
    ) -> Result<Duration, Error> {
        while self.seen.ready.load(Ordering::Acquire) < partitions {
            self.check()?;
            if give_up.load(Ordering::Acquire) {
                return Err(Error::Interrupted);
            }
            if self.started.elapsed() > START_TIMEOUT {
                return Err(self.wrong("did not become ready in time"));
            }
            std::thread::sleep(LOOK);
        }
        Ok(self.started.elapsed())
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// It has ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.wrong(&format!("ended with {status}"))),
            Err(source) => Err(Error::Child { what: self.what.clone(), source }),
        }
    }

    fn wrong(&self, how: &str) -> Error {
        let lines = self.seen.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let last: Vec<&str> = lines.iter().rev().take(3).map(String::as_str).collect();
        Error::Wrong(format!("{} {how}; its last lines: {}", self.what, last.join(" | ")))
    }

    /// The CPU seconds that it used between two moments (microseconds since 1970).
    #[must_use]
    pub fn cpu_seconds_between(&self, start: i64, end: i64) -> f64 {
        let samples = self.seen.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        grown(&samples, start, end, TICKS_PER_SECOND)
    }

    /// Its resident memory now and at its highest, in bytes.
    #[must_use]
    pub fn rss_bytes(&self) -> (u64, u64) {
        let bytes = |kilobytes: &AtomicU64| kilobytes.load(Ordering::Acquire) * 1_024;
        (bytes(&self.seen.rss_kilobytes), bytes(&self.seen.rss_kilobytes_max))
    }

    /// Where its HTTP answers, once it has said so.
    #[must_use]
    pub fn http_addr(&self) -> Option<String> {
        self.seen.http_addr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    /// It did not stop in time, or not as it should.
    pub fn stop(mut self) -> Result<(), Error> {
        self.check()?;
        self.terminate();
        let asked = Instant::now();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.wrong(&format!("stopped with {status}"))),
                Ok(None) if asked.elapsed() < STOP_TIMEOUT => std::thread::sleep(LOOK),
                Ok(None) => return Err(self.wrong("did not stop in time")),
                Err(source) => return Err(Error::Child { what: self.what.clone(), source }),
            }
        }
    }

    /// SIGTERM, so that it leaves its group: after a SIGKILL the next owner waits for 6 s.
    fn terminate(&self) {
        let id = self.process.id().to_string();
        let _ = Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]).status();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
            let asked = Instant::now();
            while matches!(self.process.try_wait(), Ok(None)) && asked.elapsed() < STOP_TIMEOUT {
                std::thread::sleep(LOOK);
            }
            // What still runs then, is ended; what has ended does not mind.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        self.seen.over.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        ALIVE.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Seen {
    fn listen(&self, lines: impl BufRead) {
        for line in lines.lines().map_while(Result::ok) {
            if line.contains(READY) {
                // The other aggregates' partitions have nothing to do here.
                if line.contains("\"topic\"") && !line.contains(MEASURED) {
                    continue;
                }
                self.ready_at.store(clock::now().0.unsigned_abs(), Ordering::Release);
                self.ready.fetch_add(1, Ordering::AcqRel);
                continue;
            }
            if let Some(addr) = listening_at(&line) {
                *self.http_addr.lock().unwrap_or_else(PoisonError::into_inner) = Some(addr);
            }
            let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= LAST_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        }
    }

    fn sample(&self, id: u32) {
        while !self.over.load(Ordering::Acquire) {
            let (Some(ticks), Some(rss)) = (cpu_ticks(id), rss_kilobytes(id)) else {
                return; // It has ended.
            };
            let now = clock::now().0;
            self.cpu.lock().unwrap_or_else(PoisonError::into_inner).push((now, ticks));
            self.rss_kilobytes.store(rss, Ordering::Release);
            self.rss_kilobytes_max.fetch_max(rss, Ordering::AcqRel);
            std::thread::sleep(SAMPLE);
        }
    }
}

/// The address in the line that a process writes once it listens.
fn listening_at(line: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == "listening").then(|| line["addr"].as_str().map(str::to_owned))?
}

/// User and system time of a process, all its threads together.
fn cpu_ticks(id: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name may hold spaces; it ends with the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn rss_kilobytes(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").trim().parse().ok()
}
