//! `millrace sagas`: the log -> what each process manager is waiting for, and an operator's word to
//! one of them.

mod fold;
mod read;
mod saga;
mod search;
mod word;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, Output, history};
use crate::clock;
use crate::config::Config;
use crate::domain::banking::{account_opening, transfer};
use crate::engine::letter::Broken;
use crate::kernel::stream::AggregateName;
use crate::kernel::time::Timestamp;
use fold::LetGo;
use saga::{Saga, Standing};

/// The most rows of a table, the oldest sagas; `--json` has no limit.
const ROWS_MAX: usize = 1_000;

/// The subcommand's arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  millrace sagas list\n  millrace sagas list --state parked\n  \
    millrace sagas show transfer 0e1f6a52-8c1d-8f0e-9d2b-000000000002\n  \
    millrace sagas resume transfer 0e1f6a52-8c1d-8f0e-9d2b-000000000002\n\n\
    State FAILED: something that the saga was told broke (a bug) and is kept as a dead letter, for \
    30 days; nobody but `resume` sends it again. A saga whose start broke has no events.\n\n\
    Everything is read from the log. A word to a saga is a signed command: MILLRACE_INTERNAL_KEY \
    must be the handlers' own."
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists sagas: what they wait for, since when and until when, and what went wrong
    List {
        /// Only this process manager's
        #[arg(long, value_name = "NAME")]
        manager: Option<Manager>,
        /// Which ones
        #[arg(long, value_enum, default_value_t = Which::Open)]
        state: Which,
    },
    /// Shows one saga: where it stands, and its events with what caused each
    Show(Named),
    /// Has a saga go on: commands to it that broke (FAILED) are sent again as they were, in order;
    /// then, if it is parked, its step is tried again, or the other stream, read to its end, tells
    /// what became of it
    Resume(Named),
    /// Leaves a saga alone from now on, for that reason, also one that is parked already. It
    /// reverses nothing; an answer that comes late still takes it further, and `resume` takes it up
    /// again
    Abandon {
        #[command(flatten)]
        named: Named,
        /// Why, for those who look later
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// The process manager
    manager: Manager,
    /// The saga's id: of a transfer its transfer_id, of an opening its slot_id
    id: String,
}

/// A process manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Manager {
    /// Money on its way from one account to another.
    Transfer,
    /// An account that waits for its customer's slot.
    AccountOpening,
}

impl Manager {
    const ALL: [Self; 2] = [Self::Transfer, Self::AccountOpening];

    const fn aggregate(self) -> AggregateName {
        match self {
            Self::Transfer => transfer::NAME,
            Self::AccountOpening => account_opening::NAME,
        }
    }

    const fn as_str(self) -> &'static str {
        self.aggregate().aggregate
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Those that have not ended, or were told something that broke.
    Open,
    /// Those that wait for an operator: parked, or told something that broke.
    Parked,
    /// Those that were told something that broke.
    Failed,
    /// Also those that have ended.
    All,
}

impl Which {
    fn wants(self, saga: &Saga) -> bool {
        let is_broken = !saga.broken.is_empty();
        match self {
            Self::Open => is_broken || !matches!(saga.standing, Standing::Ended(_)),
            Self::Parked => is_broken || matches!(saga.standing, Standing::Parked(_)),
            Self::Failed => is_broken,
            Self::All => true,
        }
    }

    const fn let_go(self) -> LetGo {
        match self {
            Self::Open | Self::Parked | Self::Failed => LetGo::Ended,
            Self::All => LetGo::Shown,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// There is no such saga, the brokers do not answer, or the saga does not take the word.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::List { manager, state } => list(config, manager, state, output).await,
        Action::Show(named) => show(config, &named, output).await,
        Action::Resume(named) => word::resume(config, named.manager, &named.id, output).await,
        Action::Abandon { named, reason } => {
            word::abandon(config, named.manager, &named.id, &reason, output).await
        }
    }
}

async fn list(
    config: &Config,
    manager: Option<Manager>,
    which: Which,
    output: Output,
) -> anyhow::Result<Exit> {
    let now = clock::now();
    let mut shown = Vec::new();
    let (mut count, mut printed) = (0, Ok(()));
    for one in Manager::ALL.into_iter().filter(|one| manager.is_none_or(|wanted| wanted == *one)) {
        let take = |saga: Saga| {
            if !which.wants(&saga) {
                return;
            }
            count += 1;
            if output.is_json() && which == Which::All && printed.is_ok() {
                printed = output.json(&as_json(&saga, now));
            } else if printed.is_ok() {
                shown.push(saga);
            }
            // All that ever were do not fit a table, nor perhaps memory.
            if which == Which::All && shown.len() >= 2 * ROWS_MAX {
                keep_oldest(&mut shown);
            }
        };
        read::each(config, one, (which.let_go(), None), output, take).await?;
    }
    printed?;
    shown.sort_by_key(|saga| saga.since);
    for saga in &shown {
        output.json(&as_json(saga, now))?;
    }
    if count > 0 {
        output.table(
            [
                "process manager",
                "saga",
                "about",
                "state",
                "step",
                "try",
                "age",
                "deadline",
                "last error",
                "caused by",
            ],
            shown.iter().take(ROWS_MAX).map(|saga| as_row(saga, now)),
        );
    }
    if !output.is_json() {
        let more = count.max(ROWS_MAX) - ROWS_MAX;
        let hint =
            if more > 0 { format!("; {more} not shown, --json shows all") } else { String::new() };
        output.note(format!("{count} sagas{hint}"));
    }
    Ok(Exit::Done)
}

fn keep_oldest(sagas: &mut Vec<Saga>) {
    sagas.sort_by_key(|saga| saga.since);
    sagas.truncate(ROWS_MAX);
}

fn as_row(saga: &Saga, now: Timestamp) -> [String; 10] {
    [
        saga.manager.as_str().to_owned(),
        saga.id.clone(),
        saga.about.clone(),
        saga.state().to_owned(),
        saga.step.unwrap_or_default().to_owned(),
        saga.attempt.to_string(),
        age(saga.since, now),
        saga.deadline.map(Timestamp::to_rfc3339).unwrap_or_default(),
        saga.error().unwrap_or_default().to_owned(),
        saga.causation_id.clone().unwrap_or_default(),
    ]
}

async fn show(config: &Config, named: &Named, output: Output) -> anyhow::Result<Exit> {
    let saga = read::one(config, named.manager, &named.id, output).await?;
    let now = clock::now();
    if output.is_json() {
        output.json(&as_json(&saga, now))?;
    } else {
        let told = |value: Option<&str>| value.unwrap_or("none").to_owned();
        let rows = [
            ["process manager", saga.manager.as_str()].map(str::to_owned),
            ["saga".to_owned(), saga.id.clone()],
            ["about".to_owned(), saga.about.clone()],
            ["state".to_owned(), saga.state().to_owned()],
            ["step".to_owned(), told(saga.step)],
            ["try".to_owned(), saga.attempt.to_string()],
            ["age".to_owned(), age(saga.since, now)],
            ["deadline".to_owned(), told(saga.deadline.map(Timestamp::to_rfc3339).as_deref())],
            ["last error".to_owned(), told(saga.error())],
            ["correlation id".to_owned(), told(saga.correlation_id.as_deref())],
            ["caused by".to_owned(), told(saga.causation_id.as_deref())],
        ];
        output.table(["saga", ""], rows);
        if !saga.broken.is_empty() {
            let rows = saga.broken.iter().map(|broken| {
                let command_id = broken.command_id.to_string();
                [command_of(broken), command_id, broken.failed_at.clone(), broken.error.clone()]
            });
            output.table(["broke", "command id", "at", "error"], rows);
        }
    }
    if saga.version == 0 {
        return Ok(Exit::Done); // It never began: there is no stream.
    }
    let stream = format!("banking.{}", named.manager.as_str());
    history::run(config, history::Arguments::of(stream, named.id.clone()), output).await
}

fn as_json(saga: &Saga, now: Timestamp) -> Value {
    let broken = saga.broken.iter().map(|broken| {
        json!({
            "command": command_of(broken),
            "command_id": broken.command_id,
            "failed_at": broken.failed_at,
            "error": broken.error,
        })
    });
    json!({
        "process_manager": saga.manager.as_str(),
        "saga": saga.id,
        "about": saga.about,
        "state": saga.state(),
        "step": saga.step,
        "attempt": saga.attempt,
        "since": saga.since.to_rfc3339(),
        "age_seconds": (now.0 - saga.since.0) / 1_000_000,
        "deadline": saga.deadline.map(Timestamp::to_rfc3339),
        "last_error": saga.error(),
        "correlation_id": saga.correlation_id,
        "causation_id": saga.causation_id,
        "version": saga.version,
        "failed_commands": broken.collect::<Vec<_>>(),
    })
}

/// A broken command's type: process managers write JSON.
fn command_of(broken: &Broken) -> String {
    let body: Option<Value> = serde_json::from_slice(&broken.value).ok();
    body.as_ref().and_then(|body| body["type"].as_str()).unwrap_or("unknown").to_owned()
}

/// `3 d 4 h`, the two largest units.
fn age(since: Timestamp, now: Timestamp) -> String {
    let seconds = (now.0 - since.0).max(0) / 1_000_000;
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let first = units.iter().position(|(_, size)| seconds >= *size).unwrap_or(3);
    let mut left = seconds;
    let mut parts = Vec::new();
    for (name, size) in units.iter().skip(first).take(2) {
        if left / size > 0 || parts.is_empty() {
            parts.push(format!("{} {name}", left / size));
        }
        left %= size;
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_two_largest_units() {
        let at = |seconds: i64| age(Timestamp(0), Timestamp(seconds * 1_000_000));
        assert_eq!(at(0), "0 s");
        assert_eq!(at(59), "59 s");
        assert_eq!(at(60), "1 min");
        assert_eq!(at(3_725), "1 h 2 min");
        assert_eq!(at(90_000), "1 d 1 h");
        assert_eq!(at(-5), "0 s");
    }
}
