//! Point queries through the read model while everything runs: an account by its id over HTTP,
//! against the same row by a prepared statement of a client of its own.
//!
//! Both are asked in turn at a fixed rate, beside the open-loop load and both projections, and
//! timed from the moment at which they should have been asked.

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

/// Questions a second, half of them over HTTP.
const RATE: u32 = 200;
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
    let (asked, driven) = tokio::join!(ask(bench, &door, &database), drive(bench));
    driven?;
    let (real, raw) = asked?;
    blocking(move || child.stop()).await?;
    Ok(Figures {
        real,
        raw_p50_ms: raw.p50_ms,
        raw_p99_ms: raw.p99_ms,
        ratio: ratio(real.p99_ms, raw.p99_ms),
        rate: RATE / 2,
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

/// Asks in turn, over HTTP and by the statement.
async fn ask(
    bench: &Bench,
    door: &str,
    database: &Database,
) -> Result<(Percentiles, Percentiles), Error> {
    let failed = || store::Error::postgres("reading an account");
    let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(unanswered)?;
    let client = database.client().await?;
    let schema = database.namespace().underscored("banking");
    let select = format!("SELECT * FROM {schema}.account_summary WHERE account_id = $1");
    let statement = client.prepare(&select).await.map_err(failed())?;
    let (mut real, mut raw) = (Latencies::new()?, Latencies::new()?);
    let start = Instant::now();
    let total = RATE * (bench.options.seconds + u32::try_from(WARM_UP.as_secs()).unwrap_or(0));
    for nth in 0..total {
        bench.check()?;
        let due = start + Duration::from_secs(1) * nth / RATE;
        tokio::time::sleep_until(due.into()).await;
        // Far apart, and every account some time.
        let account = usize::try_from(nth).unwrap_or(0) * 7_919 % bench.options.accounts;
        let account = key(account);
        let is_real = nth % 2 == 0;
        if is_real {
            let url = format!("{door}/v1/banking/accounts/{account}");
            let answer = http.get(url).send().await.map_err(unanswered)?;
            let (status, body) = (answer.status(), answer.bytes().await.map_err(unanswered)?);
            if !status.is_success() {
                let body = String::from_utf8_lossy(&body);
                return Err(Error::Wrong(format!("{account}: {status} {body}")));
            }
        } else if client.query(&statement, &[&account]).await.map_err(failed())?.is_empty() {
            return Err(Error::Wrong(format!("account {account} has no row")));
        }
        if due >= start + WARM_UP {
            let took = i64::try_from(due.elapsed().as_micros()).unwrap_or(i64::MAX);
            if is_real { real.add(took) } else { raw.add(took) }
        }
    }
    Ok((real.percentiles("reading over HTTP")?, raw.percentiles("reading by statements")?))
}

fn unanswered(error: reqwest::Error) -> Error {
    Error::Wrong(format!("a question was not answered: {error}"))
}
