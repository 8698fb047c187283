//! `millrace rebuild`: a projection -> built anew beside itself, verified, put in its place.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::{Exit, Failure, Output};
use crate::config::Config;
use crate::rebuild::{self, Asked, Error, Means, Outcome, Projected, Step};
use crate::runtime::projection::Settings;
use crate::{runtime, service, topology};

/// How often a line is printed where there is no bar.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// A rate is none before that.
const RATE_AFTER_MS: u64 = 500;
/// The most differences that are printed; `--json` has no limit.
const DIFFERENCES_MAX: usize = 20;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    millrace rebuild postgres.banking\n  \
    millrace rebuild postgres.banking --roll-back\n  \
    millrace rebuild postgres.banking --drop-old\n  \
    millrace rebuild clickhouse.banking --json | jq .switch_ms\n\n\
    Another generation of the projection's tables is filled from the log's beginning, beside\n\
    the one that users see and while everything runs; it is compared with the log by the\n\
    auditor's own fold, and put in place in one step. What serves goes over to it by itself. If\n\
    anything differs it is not put in use (exit code 1). Killed, it goes on where it was when\n\
    it is given again.\n\n\
    What was in use is kept until --drop-old. --roll-back fills it up from where it stopped,\n\
    compares it, and returns to it: nobody is shown what is old. One rebuild of a projection at a\n\
    time; the lock is kept in Postgres for both stores.")]
pub struct Arguments {
    /// The projection: postgres.banking or clickhouse.banking
    projection: String,
    /// Drops what was in use before
    #[arg(long, conflicts_with_all = ["roll_back", "start_over"])]
    drop_old: bool,
    /// Returns to what was in use before
    #[arg(long, conflicts_with = "start_over")]
    roll_back: bool,
    /// Builds from the beginning what is half built
    #[arg(long)]
    start_over: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A service does not answer, another rebuild is at work, or the result differs from the log.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let projected = projected(&arguments.projection)?;
    let asked = match (arguments.drop_old, arguments.roll_back) {
        (true, _) => Asked::DropOld,
        (_, true) => Asked::RollBack,
        (false, false) => Asked::Rebuild { start_over: arguments.start_over },
    };
    let working = work(config, projected, asked, output);
    let done = tokio::select! {
        done = working => done?,
        _ = tokio::signal::ctrl_c() => {
            let again = format!("millrace rebuild {}", arguments.projection);
            output.note(format!("stopped; `{again}` goes on from here"));
            return Ok(Exit::Failed);
        }
    };
    match done {
        Ok(outcome) => {
            output.json(&outcome)?;
            say(output, asked, &outcome);
            Ok(Exit::Done)
        }
        Err(error) => {
            for one in error.differences().iter().take(DIFFERENCES_MAX) {
                output.note(serde_json::to_string(one)?);
            }
            Err(error.into())
        }
    }
}

/// The outer error is that of the set-up.
async fn work(
    config: &Config,
    projected: Projected,
    asked: Asked,
    output: Output,
) -> anyhow::Result<Result<Outcome, Error>> {
    let schemas = runtime::schemas::load(config).await?;
    let look_up = service::look_up_or_wait(config, &schemas);
    let shown = Shown::new(output);
    let told: rebuild::Told = {
        let shown = Arc::clone(&shown);
        Arc::new(move |step| shown.tell(step))
    };
    let done = match projected {
        Projected::Postgres => {
            let store = topology::postgres_banking_store(config, &schemas)?;
            let means = Means { config, settings: Settings::POSTGRES, look_up, told };
            rebuild::run(&means, (projected, &store), asked).await
        }
        Projected::ClickHouse => {
            let store = topology::clickhouse_banking_store(config, &schemas)?;
            let means = Means { config, settings: Settings::CLICKHOUSE, look_up, told };
            rebuild::run(&means, (projected, &store), asked).await
        }
    };
    shown.end();
    Ok(done)
}

fn projected(name: &str) -> anyhow::Result<Projected> {
    let known: Vec<String> = topology::PROJECTIONS
        .iter()
        .map(|(store, domain, _)| format!("{store}.{domain}"))
        .collect();
    let full = known.iter().find(|known| {
        *known == name || known.split_once('.').is_some_and(|(store, _)| store == name)
    });
    match full.and_then(|full| full.split_once('.')) {
        Some(("postgres", _)) => Ok(Projected::Postgres),
        Some(("clickhouse", _)) => Ok(Projected::ClickHouse),
        _ => Err(Failure::usage(format!(
            "unknown projection {name:?}: there are {}",
            known.join(", ")
        ))),
    }
}

fn say(output: Output, asked: Asked, outcome: &Outcome) {
    let Outcome { projection, generation, .. } = outcome;
    if asked == Asked::DropOld {
        let dropped: Vec<String> = outcome.dropped.iter().map(i32::to_string).collect();
        output.line(match dropped.as_slice() {
            [] => format!("{projection}: nothing to drop; generation {generation} is in use"),
            all => format!(
                "{projection}: dropped {}; generation {generation} is in use",
                all.join(", ")
            ),
        });
        return;
    }
    let compared = outcome.compared.unwrap_or_default();
    let rows = compared.postgres_rows + compared.clickhouse_rows;
    output.line(format!(
        "filled    {} events in {}, {} a second",
        outcome.events,
        seconds(outcome.build_ms),
        outcome.rate
    ));
    output.line(format!(
        "verified  {} streams, {} events and {rows} rows in {}: no difference",
        compared.streams,
        compared.events,
        seconds(compared.ms)
    ));
    for parked in &outcome.parked {
        output.line(format!("parked    not compared: {parked} on"));
    }
    output.line(format!("switched  in {} ms", outcome.switch_ms));
    output.line(format!("{projection}: generation {generation} is in use"));
    if let Some(previous) = outcome.previous {
        output.note(format!(
            "generation {previous} is kept: `millrace rebuild {projection} --roll-back` returns to \
             it, `--drop-old` drops it"
        ));
    }
    if outcome.handed_over == Some(false) {
        output.note(
            "what serves has not gone over to it yet: see `millrace status` and its log (a process \
             of another version of the code stops projecting)",
        );
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1_000, ms % 1_000)
}

/// What is shown while it works: a bar on a terminal, else a line now and then.
struct Shown {
    output: Output,
    state: Mutex<Picture>,
}

struct Picture {
    bar: ProgressBar,
    step: Option<Step>,
    since: Instant,
    said: Option<Instant>,
}

impl Shown {
    fn new(output: Output) -> Arc<Self> {
        let bar = ProgressBar::hidden();
        let picture = Picture { bar, step: None, since: Instant::now(), said: None };
        Arc::new(Self { output, state: Mutex::new(picture) })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Picture> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, step: Step) {
        let mut picture = self.lock();
        let is_new = picture.step.as_ref().map(word) != Some(word(&step));
        let before = picture.step.replace(step);
        if is_new {
            // The last of the step before.
            if let Some(before @ (Step::Building { .. } | Step::Verifying { .. })) = before
                && picture.bar.is_hidden()
            {
                self.line(&picture, before);
            }
            picture.bar.finish_and_clear();
            picture.bar = self.output.progress(0, word(&step));
            (picture.since, picture.said) = (Instant::now(), None);
        }
        if let Step::Building { done, of, .. } | Step::Verifying { done, of, .. } = step {
            picture.bar.set_length(of.max(1));
            picture.bar.set_position(done);
        }
        let is_due = picture.said.is_none_or(|said| said.elapsed() >= LINE_EVERY);
        if picture.bar.is_hidden() && is_due {
            picture.said = Some(Instant::now());
            self.line(&picture, step);
        }
    }

    fn line(&self, picture: &Picture, step: Step) {
        let (done, of) = match step {
            Step::Building { done, of, .. } | Step::Verifying { done, of, .. } => (done, of),
            Step::Switching { .. } | Step::HandingOver { .. } => {
                self.say(&json!(step), || word(&step).to_owned());
                return;
            }
        };
        let ms = u64::try_from(picture.since.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = (ms > RATE_AFTER_MS).then(|| done.saturating_mul(1_000) / ms);
        let left = rate.and_then(|rate| of.saturating_sub(done).checked_div(rate));
        let percent = done.saturating_mul(100).checked_div(of).unwrap_or(100);
        let mut value = json!(step);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("rate".to_owned(), json!(rate));
            fields.insert("left_seconds".to_owned(), json!(left));
        }
        let rate = rate.map_or_else(String::new, |rate| format!(", {rate} a second"));
        let left = left.map_or_else(String::new, |left| format!(", {left} s left"));
        let word = word(&step);
        self.say(&value, || format!("{word}  {percent} % ({done} of {of}){rate}{left}"));
    }

    /// To standard error, so that what scripts read is the outcome alone.
    fn say(&self, value: &Value, text: impl FnOnce() -> String) {
        self.output.note(if self.output.is_json() { value.to_string() } else { text() });
    }

    fn end(&self) {
        self.lock().bar.finish_and_clear();
    }
}

const fn word(step: &Step) -> &'static str {
    match step {
        Step::Building { .. } => "filling",
        Step::Verifying { .. } => "verifying",
        Step::Switching { .. } => "switching",
        Step::HandingOver { .. } => "handing over",
    }
}
