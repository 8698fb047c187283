//! `millrace sagas`: the log -> what each process manager is waiting for, and an operator's word to
//! one of them.

mod read;
mod word;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Exit, Output, history};
use crate::clock;
use crate::config::Config;
use crate::kernel::time::Timestamp;
use read::{Saga, State};

/// The most rows of a table; `--json` has no limit.
const ROWS_MAX: usize = 1_000;

/// The subcommand's arguments.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  millrace sagas list\n  millrace sagas list --state parked\n  \
    millrace sagas show transfer 0e1f6a52-8c1d-8f0e-9d2b-000000000002\n  \
    millrace sagas resume transfer 0e1f6a52-8c1d-8f0e-9d2b-000000000002\n\n\
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
    /// Has a parked saga try its step again; if nobody knows what became of it, the other stream is
    /// read to its end first and tells
    Resume(Named),
    /// Leaves a saga alone from now on. It reverses nothing; `resume` takes it up again
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

    const fn as_str(self) -> &'static str {
        match self {
            Self::Transfer => "transfer",
            Self::AccountOpening => "account-opening",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Those that have not ended.
    Open,
    /// Those that wait for an operator.
    Parked,
    /// Also those that have ended.
    All,
}

impl Which {
    fn wants(self, state: &State) -> bool {
        match self {
            Self::Open => !matches!(state, State::Ended(_)),
            Self::Parked => matches!(state, State::Parked(_)),
            Self::All => true,
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
    let mut sagas = Vec::new();
    for one in Manager::ALL.into_iter().filter(|one| manager.is_none_or(|wanted| wanted == *one)) {
        let all = read::all(config, one, None, output).await?;
        sagas.extend(all.into_iter().filter(|saga| which.wants(&saga.state)));
    }
    sagas.sort_by_key(|saga| saga.since);
    for saga in &sagas {
        output.json(&as_json(saga, now))?;
    }
    let count = sagas.len();
    let header = [
        "process manager",
        "saga",
        "about",
        "state",
        "step",
        "try",
        "age",
        "deadline",
        "last error",
    ];
    let rows = sagas.iter().take(ROWS_MAX).map(|saga| {
        [
            saga.manager.as_str().to_owned(),
            saga.id.clone(),
            saga.about.clone(),
            saga.state.as_str().to_owned(),
            saga.step.unwrap_or_default().to_owned(),
            saga.attempt.to_string(),
            age(saga.since, now),
            saga.deadline.map(Timestamp::to_rfc3339).unwrap_or_default(),
            saga.error().unwrap_or_default().to_owned(),
        ]
    });
    if count > 0 {
        output.table(header, rows);
    }
    if !output.is_json() {
        let more = count.saturating_sub(ROWS_MAX);
        let hint =
            if more > 0 { format!("; {more} not shown, --json shows all") } else { String::new() };
        output.note(format!("{count} sagas{hint}"));
    }
    Ok(Exit::Done)
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
            ["state".to_owned(), saga.state.as_str().to_owned()],
            ["step".to_owned(), told(saga.step)],
            ["try".to_owned(), saga.attempt.to_string()],
            ["age".to_owned(), age(saga.since, now)],
            ["deadline".to_owned(), told(saga.deadline.map(Timestamp::to_rfc3339).as_deref())],
            ["last error".to_owned(), told(saga.error())],
            ["correlation id".to_owned(), told(saga.correlation_id.as_deref())],
        ];
        output.table(["saga", ""], rows);
    }
    let stream = format!("banking.{}", named.manager.as_str());
    history::run(config, history::Arguments::of(stream, named.id.clone()), output).await
}

fn as_json(saga: &Saga, now: Timestamp) -> Value {
    json!({
        "process_manager": saga.manager.as_str(),
        "saga": saga.id,
        "about": saga.about,
        "state": saga.state.as_str(),
        "step": saga.step,
        "attempt": saga.attempt,
        "since": saga.since.to_rfc3339(),
        "age_seconds": (now.0 - saga.since.0) / 1_000_000,
        "deadline": saga.deadline.map(Timestamp::to_rfc3339),
        "last_error": saga.error(),
        "correlation_id": saga.correlation_id,
        "causation_id": saga.causation_id,
        "version": saga.version,
    })
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
