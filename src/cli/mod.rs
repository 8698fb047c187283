//! The command line: arguments -> one subcommand -> output and an exit code.
//!
//! One file a subcommand; each has its `Arguments` and
//! `async fn run(&Config, Arguments, Output) -> anyhow::Result<Exit>`. Only [`output`] prints.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | the work failed, or its answer is a no |
//! | 2 | the usage or a setting is wrong |
//! | 3 | a service that is needed cannot be reached at the start |

pub mod bench;
pub mod dead_letters;
pub mod failure;
pub mod history;
pub mod output;
mod owners;
mod reading;
pub mod rebuild;
pub mod sagas;
pub mod schemas;
pub mod send;
pub mod serve;
pub mod status;
mod stream_name;
pub mod topics;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{self, Config};
use crate::telemetry;

pub use failure::{Exit, Failure};
pub use output::Output;

/// A Kafka-native event store with read models that can be trusted.
#[derive(Debug, Parser)]
#[command(
    name = "millrace",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    after_help = "Settings come from MILLRACE_* variables, millrace.toml and .millrace/stack.env.\n\
                  Exit codes: 0 done, 1 failed, 2 usage or setting, 3 service unreachable."
)]
struct CommandLine {
    /// Prints JSON for scripts instead of tables for people
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compares topics with their declarations, or makes them so
    Topics(topics::Arguments),
    /// Compares schemas with what is registered, registers them, or lists them
    Schemas(schemas::Arguments),
    /// Runs handlers, projections and HTTP until Ctrl-C or SIGTERM
    Serve(serve::Arguments),
    /// Sends a command, and waits for its result if told so
    Send(send::Arguments),
    /// Shows a stream's events, straight from the log
    History(history::Arguments),
    /// Lists what could not be applied or decided, shows one of them, or has it tried again
    DeadLetters(dead_letters::Arguments),
    /// Lists what process managers wait for, and speaks to one of them
    Sagas(sagas::Arguments),
    /// Shows whether services answer, topics are as declared, and how far groups are behind
    Status(status::Arguments),
    /// Compares snapshots, Postgres and ClickHouse with the log, and names each difference
    Verify(verify::Arguments),
    /// Builds a projection anew beside the one in use, verifies it, and puts it in its place
    Rebuild(rebuild::Arguments),
    /// Measures commands, latencies and rows a second against the raw limits of the services
    Bench(bench::Arguments),
}

/// Runs the program: parses its arguments, does the work, reports errors on one line.
#[must_use]
pub fn main() -> ExitCode {
    let line = CommandLine::parse();
    let output = Output::new(line.json);
    match start(line.command, output) {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(failure::FAILED),
        Err(error) => {
            output.error(&error);
            ExitCode::from(failure::exit_code(&error))
        }
    }
}

fn start(command: Command, output: Output) -> anyhow::Result<Exit> {
    let config = Config::load()?;
    telemetry::init(&log_of(&config, &command))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(dispatch(&config, command, output));
    // Whatever still blocks in a driver's thread must not keep the process.
    runtime.shutdown_background();
    exit
}

/// What a rebuild's own projection has to say is for a service's log: here it would run through the
/// progress.
fn log_of(config: &Config, command: &Command) -> config::Log {
    let mut log = config.log.clone();
    if matches!(command, Command::Rebuild(_)) && log.filter == config::Log::default().filter {
        "warn".clone_into(&mut log.filter);
    }
    log
}

async fn dispatch(config: &Config, command: Command, output: Output) -> anyhow::Result<Exit> {
    match command {
        Command::Bench(arguments) => bench::run(config, arguments, output).await,
        Command::DeadLetters(arguments) => dead_letters::run(config, arguments, output).await,
        Command::Topics(arguments) => topics::run(config, arguments, output).await,
        Command::Schemas(arguments) => schemas::run(config, arguments, output).await,
        Command::Serve(arguments) => serve::run(config, arguments, output).await,
        Command::Send(arguments) => send::run(config, arguments, output).await,
        Command::History(arguments) => history::run(config, arguments, output).await,
        Command::Sagas(arguments) => sagas::run(config, arguments, output).await,
        Command::Status(arguments) => status::run(config, arguments, output).await,
        Command::Rebuild(arguments) => rebuild::run(config, arguments, output).await,
        Command::Verify(arguments) => verify::run(config, arguments, output).await,
    }
}
