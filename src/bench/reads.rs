//! Point queries through the read model while everything runs: an account by its id over HTTP,
//! against the same row by a prepared statement of a client of its own.
//!
//! Both are asked at a fixed rate, beside the open-loop load and both projections, and timed from
//! the moment at which they should have been asked; neither waits for the other.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::Child;
use super::figures::{Latencies, Percentiles, ratio};
use super::ground::names;
use super::latency::{WARM_UP, drive};
use super::load::key;
use super::{Bench, Error, blocking, clickhouse, postgres};
use crate::read_model::store;
use crate::read_model::store::postgres::Database;

/// Questions a second, each way.
const RATE: u32 = 100;
/// How long after a question over HTTP the next statement is sent.
const BETWEEN: Duration = Duration::from_millis(5);
/// The longest that one may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process may take to say where it listens.
const LISTENING_WITHIN: Duration = Duration::from_secs(10);

/// What reading came to.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// An account over HTTP.
    #[serde(flatten)]
    pub real: Percentiles,
    /// As `p50_ms`, by a statement.
    pub raw_p50_ms: f64,
    /// As `p99_ms`, by a statement.
    pub raw_p99_ms: f64,
    /// `p99_ms` over `raw_p99_ms`: 1.5 is half as long again.
    pub ratio: f64,
    /// Questions a second over HTTP, and as many by statements.
    pub rate: u32,
}

/// Measures reading, with all roles at work.
///
/// # Errors
/// A question is not answered, or a process broke.
pub async fn measure(bench: &mut Bench) -> Result<Figures, Error> {
    bench.ensure_handled().await?;
    let config = bench.ground.config("")?;
    bench.progress.begin("a serve with all roles, to be read from", 0);
    let child = bench.start(&config, &["serve"]).await?;
    let child = bench.wait_handled(child, &config, names(&config.namespace)).await?;
    postgres::wait_projected(bench).await?;
    clickhouse::wait_projected(bench).await?;
    let door = listening(&child).await?;
    bench.progress.begin("point queries while projections run", 0);
    let database = bench.ground.postgres()?;
    let start = Instant::now();
    let (real, raw, driven) = tokio::join!(
        ask_door(bench, start, &door),
        ask_postgres(bench, start + BETWEEN, &database),
        drive(bench)
    );
    driven?;
    let (real, raw) = (real?, raw?);
    blocking(move || child.stop()).await?;
    Ok(Figures {
        real,
        raw_p50_ms: raw.p50_ms,
        raw_p99_ms: raw.p99_ms,
        ratio: ratio(real.p99_ms, raw.p99_ms),
        rate: RATE,
    })
}

async fn listening(child: &Child) -> Result<String, Error> {
    let deadline = Instant::now() + LISTENING_WITHIN;
    loop {
        if let Some(addr) = child.http_addr() {
            return Ok(format!("http://{addr}"));
        }
        if Instant::now() > deadline {
            return Err(Error::Wrong("serve does not say where it listens".to_owned()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// When questions are to be asked, and how long each took from then on.
struct Questions<'b> {
    bench: &'b Bench,
    start: Instant,
    took: Latencies,
}

impl<'b> Questions<'b> {
    fn new(bench: &'b Bench, start: Instant) -> Result<Self, Error> {
        Ok(Self { bench, start, took: Latencies::new()? })
    }

    fn count(&self) -> u32 {
        RATE * (self.bench.options.seconds + u32::try_from(WARM_UP.as_secs()).unwrap_or(0))
    }

    /// Waits for the moment of the `nth` question; gives it, and whose account it is about.
    async fn next(&self, nth: u32) -> Result<(Instant, String), Error> {
        self.bench.check()?;
        let due = self.start + Duration::from_secs(1) * nth / RATE;
        tokio::time::sleep_until(due.into()).await;
        // Far apart, and every account some time.
        let account = usize::try_from(nth).unwrap_or(0) * 7_919 % self.bench.options.accounts;
        Ok((due, key(account)))
    }

    fn answered(&mut self, due: Instant) {
        if due >= self.start + WARM_UP {
            self.took.add(i64::try_from(due.elapsed().as_micros()).unwrap_or(i64::MAX));
        }
    }
}

/// Asks over HTTP.
async fn ask_door(bench: &Bench, start: Instant, door: &str) -> Result<Percentiles, Error> {
    let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(unanswered)?;
    let mut questions = Questions::new(bench, start)?;
    for nth in 0..questions.count() {
        let (due, account) = questions.next(nth).await?;
        let url = format!("{door}/v1/banking/accounts/{account}");
        let answer = http.get(url).send().await.map_err(unanswered)?;
        let (status, body) = (answer.status(), answer.bytes().await.map_err(unanswered)?);
        if !status.is_success() {
            let body = String::from_utf8_lossy(&body);
            return Err(Error::Wrong(format!("{account}: {status} {body}")));
        }
        questions.answered(due);
    }
    questions.took.percentiles("reading over HTTP")
}

/// Asks by a prepared statement.
async fn ask_postgres(
    bench: &Bench,
    start: Instant,
    database: &Database,
) -> Result<Percentiles, Error> {
    let failed = || store::Error::postgres("reading an account");
    let client = database.client().await?;
    let schema = database.namespace().underscored("banking");
    let select = format!("SELECT * FROM {schema}.account_summary WHERE account_id = $1");
    let statement = client.prepare(&select).await.map_err(failed())?;
    let mut questions = Questions::new(bench, start)?;
    for nth in 0..questions.count() {
        let (due, account) = questions.next(nth).await?;
        if client.query(&statement, &[&account]).await.map_err(failed())?.is_empty() {
            return Err(Error::Wrong(format!("account {account} has no row")));
        }
        questions.answered(due);
    }
    questions.took.percentiles("reading by statements")
}

fn unanswered(error: reqwest::Error) -> Error {
    Error::Wrong(format!("a question was not answered: {error}"))
}
