//! Transfers from end to end: the client's command -> six commands and their events -> completed.
//!
//! First an open loop at a tenth of the commands' rate, each transfer timed from the moment at
//! which it should have been sent to its `TransferCompleted` at a reader; then a backlog, timed
//! between the transfer at 5 % and the last one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::figures::{Latencies, Percentiles, per_second, ratio, whole};
use super::ground::names;
use super::latency::{self, WARM_UP};
use super::load::{Grants, Wire, command_id, place_in};
use super::{Bench, Error, blocking};
use crate::clock;
use crate::config::Config;
use crate::domain::banking::{account, transfer};
use crate::kernel::message::Headers;
use crate::kernel::stream::{AggregateName, Kind, partition_of};
use crate::log::kafka::load::{Feed, Tail};

/// Who sends to whom: enough that no two transfers of a turn wait for each other.
const ACCOUNTS: usize = 2_000;
/// Transfers in the backlog for each hundred commands in the other backlog.
const BACKLOG_SHARE: usize = 25;
/// The handlers' transactions that a transfer goes through, one after the other.
const TRANSACTIONS: f64 = 6.0;
/// The longest pause between two that complete.
const STALL_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What transfers came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// From the intended moment of sending to `TransferCompleted`, in the open loop.
    #[serde(flatten)]
    pub real: Percentiles,
    /// Transfers a second in the open loop.
    pub open_loop_rate: u32,
    /// Transfers a second of the backlog.
    pub rate: f64,
    /// Transfers in the backlog.
    pub count: usize,
    /// `p50_ms` over that of six raw passages, in a row; null without the part `latency`.
    pub ratio: Option<f64>,
}

/// Measures transfers; `raw` is the raw passage of the same run, if it was measured.
///
/// # Errors
/// One did not complete, or a process broke.
pub async fn measure(bench: &mut Bench, raw: Option<&latency::Figures>) -> Result<Figures, Error> {
    let config = bench.ground.config("")?;
    bench.progress.begin("opening accounts for transfers", ACCOUNTS);
    let child = bench.start(&config, &["serve", "--only", "handler,reactor"]).await?;
    let teller = Teller {
        grants: Grants::find(&config)?,
        partitions: bench.ground.partitions,
        config,
        stop: Arc::clone(&bench.stop),
    };
    let teller = blocking(move || teller.open()).await?;
    let rate = (bench.options.rate / 10).max(1);
    let seconds = bench.options.seconds;
    bench.progress.begin("the open loop of transfers", 0);
    let (teller, real) = blocking(move || {
        let real = teller.open_loop(u64::from(rate), seconds)?;
        Ok((teller, real))
    })
    .await?;
    let count = (bench.options.commands / BACKLOG_SHARE).max(1_000);
    bench.progress.begin("a backlog of transfers", 0);
    let backlog = blocking(move || teller.backlog(count)).await?;
    blocking(move || child.stop()).await?;
    Ok(Figures {
        real,
        open_loop_rate: rate,
        rate: whole(backlog),
        count,
        ratio: raw.map(|raw| ratio(real.p50_ms, six(raw.raw_p50_ms))),
    })
}

#[expect(clippy::float_arithmetic, reason = "a figure for people; no money is computed here")]
fn six(raw_ms: f64) -> f64 {
    TRANSACTIONS * raw_ms
}

struct Teller {
    config: Config,
    grants: Grants,
    partitions: i32,
    stop: Arc<AtomicBool>,
}

impl Teller {
    fn topic(&self, name: AggregateName, kind: Kind) -> String {
        self.config.namespace.dotted(&name.topic(kind))
    }

    fn wire(&self, key: String, run: u64, nth: u64, body: &Value) -> Wire {
        let mut headers = Headers::with_capacity(64);
        headers.push("ce_id", command_id(run, nth).to_string());
        let value = body.to_string().into_bytes();
        Wire { partition: partition_of(&key, self.partitions), key, value, headers }
    }

    fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Acquire) { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// Opens the accounts, and waits until they are there.
    fn open(self) -> Result<Self, Error> {
        let events = self.topic(account::NAME, Kind::Events);
        let tail = Tail::open(&self.config.kafka, &events, self.partitions)?;
        let producer = Feed::open(&self.config.kafka)?;
        let run = clock::nonce();
        for (nth, index) in (1_000_000_000..).zip(0..ACCOUNTS) {
            let key = account(index);
            let body = json!({
                "type": "CreateAccount", "user_id": key, "account_type": "BUSINESS",
                "initial_deposit": "100000000", "grant_slot_id": key,
                "grant_client_command_id": command_id(run ^ 1, nth).to_string(),
            });
            let mut wire = self.wire(key, run, nth, &body);
            self.grants.sign(&mut wire, nth);
            self.send(&producer, &wire)?;
        }
        producer.flush()?;
        self.await_events(&tail, ACCOUNTS, "AccountCreated", |_, _| {})?;
        Ok(self)
    }

    fn send(&self, producer: &Feed, wire: &Wire) -> Result<(), Error> {
        let topic = names(&self.config.namespace).commands;
        let key = wire.key.as_bytes();
        Ok(producer.send(&topic, wire.partition, key, &wire.value, &wire.headers)?)
    }

    /// Waits for so many events of that name; says of each which command it goes back to.
    fn await_events(
        &self,
        tail: &Tail,
        count: usize,
        name: &str,
        mut seen: impl FnMut(&str, Instant),
    ) -> Result<(), Error> {
        let (mut found, mut last) = (0, Instant::now());
        while found < count {
            self.check()?;
            if last.elapsed() > STALL_MAX {
                let missing = count - found;
                return Err(Error::Wrong(format!("{missing} of {count} {name} did not come")));
            }
            let Some((_, record)) = tail.next(POLL)? else { continue };
            let kind = record.headers.text("ce_type").unwrap_or_default();
            if kind.rsplit('.').next() == Some(name) {
                (found, last) = (found + 1, Instant::now());
                seen(record.headers.text("correlation_id").unwrap_or_default(), last);
            }
        }
        Ok(())
    }

    fn transfer(&self, run: u64, nth: u64) -> Wire {
        let index = usize::try_from(nth).unwrap_or(0);
        let (from, to) = (index % ACCOUNTS, (index * 7 + 1) % ACCOUNTS);
        let to = if from == to { (to + 1) % ACCOUNTS } else { to };
        let body = json!({"type": "Transfer", "to_account_id": account(to), "amount": "1.00"});
        self.wire(account(from), run, nth, &body)
    }

    fn completions(&self) -> Result<Tail, Error> {
        let events = self.topic(transfer::NAME, Kind::Events);
        Ok(Tail::open(&self.config.kafka, &events, self.partitions)?)
    }

    fn open_loop(&self, rate: u64, seconds: u32) -> Result<Percentiles, Error> {
        let (tail, run) = (self.completions()?, clock::nonce());
        let warm = rate * WARM_UP.as_secs();
        let total = warm + rate * u64::from(seconds);
        let due = |nth: u64| Duration::from_nanos(nth.saturating_mul(1_000_000_000) / rate);
        let start = Instant::now() + Duration::from_millis(300);
        let mut seen = HashMap::new();
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let producer = Feed::open(&self.config.kafka)?;
                for nth in 0..total {
                    let wire = self.transfer(run, nth);
                    let moment = start + due(nth);
                    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
                    self.send(&producer, &wire)?;
                    self.check()?;
                }
                Ok(producer.flush()?)
            });
            let count = usize::try_from(total).unwrap_or(usize::MAX);
            let read = self.await_events(&tail, count, "TransferCompleted", |command, at| {
                seen.extend(place_in(run, command.as_bytes()).map(|nth| (nth, at)));
            });
            let sent = sending
                .join()
                .unwrap_or_else(|_| Err(Error::Wrong("the sending thread broke".to_owned())));
            sent.and(read)
        })?;
        let mut latencies = Latencies::new()?;
        for (nth, at) in seen.into_iter().filter(|(nth, _)| *nth >= warm) {
            let latency = at.saturating_duration_since(start + due(nth));
            latencies.add(i64::try_from(latency.as_micros()).unwrap_or(i64::MAX));
        }
        latencies.percentiles("the open loop of transfers")
    }

    fn backlog(&self, count: usize) -> Result<f64, Error> {
        let (tail, run) = (self.completions()?, clock::nonce());
        let producer = Feed::open(&self.config.kafka)?;
        for (nth, _) in (0..).zip(0..count) {
            self.send(&producer, &self.transfer(run, nth))?;
        }
        producer.flush()?;
        let mut times = Vec::with_capacity(count);
        self.await_events(&tail, count, "TransferCompleted", |_, at| times.push(at))?;
        let first = count / 20;
        let elapsed = times[count - 1].saturating_duration_since(times[first]);
        per_second("the backlog of transfers", count - first, elapsed)
    }
}

fn account(index: usize) -> String {
    format!("transfers-{index:06}")
}
