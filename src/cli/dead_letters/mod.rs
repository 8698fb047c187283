//! `millrace dead-letters`: what could not be applied or decided -> a list, one of them, another
//! try.
//!
//! Two things end as dead letters: events that a projection parked, and commands that their handler
//! refused as malformed or broke on. The first are in the projection's store and go back into it;
//! the second stand in their topic, and are sent again as new commands.

mod commands;
mod parked;

use clap::{Args, Subcommand};

use super::{Exit, Failure, Output, stream_name};
use crate::config::Config;
use crate::kernel::stream::Kind;
use crate::topology;

/// The most rows of a table; `--json` has only the limit that is asked for.
const LIMIT: usize = 100;
/// How long a redrive waits for the projection.
const WAIT_SECONDS: u64 = 30;
const WAIT_SECONDS_MAX: u64 = 3_600;

/// The subcommand's arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  millrace dead-letters list\n  \
    millrace dead-letters list --projection postgres.banking --json | jq .stream\n  \
    millrace dead-letters show banking.account/acc-1\n  \
    millrace dead-letters redrive banking.account/acc-1\n  \
    millrace dead-letters redrive --all --projection postgres.banking\n  \
    millrace dead-letters redrive banking.account.dead-letters/2/17")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Lists parked events, and the commands that were malformed or broke their handler
    #[command(after_help = "Examples:\n  millrace dead-letters list\n  \
        millrace dead-letters list --projection clickhouse.banking --limit 10000 --json\n  \
        millrace dead-letters list --topic banking.account\n\n\
        Parked events are listed oldest first, by projection; commands newest last. With --json, \
        one line each.")]
    List {
        #[command(flatten)]
        which: Which,
        /// The most parked events, and the most commands of each topic
        #[arg(long, value_name = "N", default_value_t = LIMIT)]
        limit: usize,
    },
    /// Shows a stream's parked events, or one command, with headers, error and content
    #[command(after_help = "Examples:\n  millrace dead-letters show banking.account/acc-1\n  \
        millrace dead-letters show banking.account.dead-letters/2/17 --json")]
    Show {
        /// A stream (banking.account/acc-1), or a command's place (TOPIC/PARTITION/OFFSET)
        #[arg(value_name = "STREAM|PLACE")]
        what: String,
        /// Only what this projection parked
        #[arg(long, value_name = "STORE.DOMAIN")]
        projection: Option<String>,
    },
    /// Has parked events applied after all, in order; or sends a command again
    #[command(after_help = "Examples:\n  \
        millrace dead-letters redrive banking.account/acc-1\n  \
        millrace dead-letters redrive --all --projection postgres.banking --wait 120\n  \
        millrace dead-letters redrive banking.account.dead-letters/2/17\n\n\
        Parked events are applied by the running projection itself, once, before any later event \
        of their stream; the exit code is 1 if some are still parked when the wait ends. A command \
        goes out untouched: under its own id if it broke something of ours (FAILED), else under \
        another, the same each time, since a refusal is the answer of its id.")]
    Redrive {
        /// A stream (banking.account/acc-1), or a command's place (TOPIC/PARTITION/OFFSET)
        #[arg(value_name = "STREAM|PLACE", required_unless_present = "all")]
        what: Option<String>,
        /// Everything that the projection has parked
        #[arg(long, requires = "projection", conflicts_with = "what")]
        all: bool,
        /// Only what this projection parked
        #[arg(long, value_name = "STORE.DOMAIN")]
        projection: Option<String>,
        /// How long to wait for the projection
        #[arg(long, value_name = "SECONDS", default_value_t = WAIT_SECONDS,
              value_parser = clap::value_parser!(u64).range(0..=WAIT_SECONDS_MAX))]
        wait: u64,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// Only what this projection parked, and no commands
    #[arg(long, value_name = "STORE.DOMAIN")]
    projection: Option<String>,
    /// Only this aggregate's, for example banking.account
    #[arg(long, value_name = "DOMAIN.AGGREGATE")]
    topic: Option<String>,
}

/// What somebody names.
enum Named {
    /// A stream: aggregate and id.
    Stream(String, String),
    /// A place in a dead-letters topic: aggregate, partition, offset.
    Place(String, i32, i64),
}

impl Named {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let kind = format!(".{}", Kind::DeadLetters.as_str());
        let place = text.split_once('/').and_then(|(topic, place)| {
            let aggregate = topic.strip_suffix(&kind)?;
            let (partition, offset) = place.split_once('/')?;
            Some((aggregate, partition.parse().ok()?, offset.parse().ok()?))
        });
        if let Some((aggregate, partition, offset)) = place {
            return Ok(Self::Place(stream_name::aggregate(aggregate)?, partition, offset));
        }
        let (aggregate, id) = stream_name::stream(text, None)?;
        Ok(Self::Stream(aggregate, id))
    }
}

/// Runs the subcommand.
///
/// # Errors
/// There is no such letter, a service does not answer, or the letter cannot be sent again.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::List { which, limit } => list(config, which, limit, output).await,
        Action::Show { what, projection } => {
            let projection = known(projection)?;
            match Named::parse(&what)? {
                Named::Stream(aggregate, id) => {
                    parked::show(config, parked::Stream { aggregate, id }, projection, output).await
                }
                Named::Place(aggregate, partition, offset) => {
                    commands::show(config, &aggregate, partition, offset, output).await
                }
            }
        }
        Action::Redrive { what, projection, wait, .. } => {
            let projection = known(projection)?;
            match what.as_deref().map(Named::parse).transpose()? {
                Some(Named::Place(aggregate, partition, offset)) => {
                    commands::redrive(config, &aggregate, partition, offset, output).await
                }
                Some(Named::Stream(aggregate, id)) => {
                    let stream = Some(parked::Stream { aggregate, id });
                    parked::redrive(config, stream, projection, wait, output).await
                }
                None => parked::redrive(config, None, projection, wait, output).await,
            }
        }
    }
}

async fn list(config: &Config, which: Which, limit: usize, output: Output) -> anyhow::Result<Exit> {
    let projection = known(which.projection)?;
    let aggregate = which.topic.as_deref().map(stream_name::aggregate).transpose()?;
    parked::list(config, projection.clone(), aggregate.as_deref(), limit, output).await?;
    if projection.is_none() {
        commands::list(config, aggregate.as_deref(), limit, output).await?;
    }
    Ok(Exit::Done)
}

/// Checks a projection's name.
fn known(projection: Option<String>) -> anyhow::Result<Option<String>> {
    let Some(name) = projection else { return Ok(None) };
    let all = topology::PROJECTIONS.map(|(store, domain, _)| format!("{store}.{domain}"));
    if all.contains(&name) {
        return Ok(Some(name));
    }
    let all = all.join(", ");
    Err(Failure::usage(format!("unknown projection {name:?}: there are {all}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_a_stream_or_a_place() {
        let Ok(Named::Place(aggregate, partition, offset)) =
            Named::parse("banking.account.dead-letters/2/17")
        else {
            panic!("not a place")
        };
        assert_eq!((aggregate.as_str(), partition, offset), ("banking.account", 2, 17));
        let Ok(Named::Stream(aggregate, id)) = Named::parse("banking.account/acc/1/2") else {
            panic!("not a stream")
        };
        assert_eq!((aggregate.as_str(), id.as_str()), ("banking.account", "acc/1/2"));
        assert!(Named::parse("banking.account.dead-letters/2/x").is_err());
        assert!(known(Some("postgres.banking".to_owned())).is_ok());
        assert!(known(Some("mysql.banking".to_owned())).is_err());
    }
}
