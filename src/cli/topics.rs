//! `millrace topics plan|apply`: declarations -> drift, or topics as declared.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::{Exit, Failure, Output};
use crate::config::Config;
use crate::log::kafka::topic::{self, Admin, Applied, Declared, Drift, File};
use crate::topics;

/// How long the brokers may take to tell each other of a change.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const SETTLE_LOOK: Duration = Duration::from_millis(200);

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  millrace topics plan\n  millrace topics apply\n  \
                        millrace topics plan --from deploy/topics --json")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Shows where the brokers' topics differ from their declarations; exit code 1 if they do
    #[command(after_help = "Example:\n  millrace topics plan || millrace topics apply")]
    Plan(Options),
    /// Creates missing topics and changes settings that differ; never deletes, refuses to lose data
    #[command(after_help = "Example:\n  millrace topics apply")]
    Apply(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    /// Reads the declarations from the .yaml files of this directory instead of the built-in ones
    #[arg(long, value_name = "DIRECTORY")]
    from: Option<PathBuf>,
}

/// What still differs once the brokers had time to tell each other.
async fn settled(admin: &Admin, declared: &[Declared]) -> Result<Vec<Vec<Drift>>, topic::Error> {
    let started = Instant::now();
    loop {
        let left = admin.plan(declared).await?;
        if left.iter().all(Vec::is_empty) || started.elapsed() > SETTLE_MAX {
            return Ok(left);
        }
        tokio::time::sleep(SETTLE_LOOK).await;
    }
}

/// Runs the subcommand.
///
/// # Errors
/// A declaration is wrong or would lose data, or the brokers do not answer.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::Plan(options) => {
            let declared = declared(&options, config)?;
            let admin = Admin::connect(&config.kafka).await?;
            let drift = admin.plan(&declared).await?;
            show(&declared, &drift, output)
        }
        Action::Apply(options) => {
            let declared = declared(&options, config)?;
            let admin = Admin::connect(&config.kafka).await?;
            let applied = admin.apply(&declared).await?;
            let left = settled(&admin, &declared).await?;
            if left.iter().any(|drift| !drift.is_empty()) {
                show(&declared, &left, output)?;
                anyhow::bail!("the brokers took the changes, but the topics still differ");
            }
            report(&declared, &applied, output)
        }
    }
}

fn declared(options: &Options, config: &Config) -> anyhow::Result<Vec<Declared>> {
    let namespace = &config.namespace;
    let declared = match &options.from {
        None => topics::declared(namespace),
        Some(directory) => {
            let texts = read_files(directory)
                .with_context(|| format!("cannot read declarations in {}", directory.display()))?;
            let mut files: Vec<File<'_>> =
                texts.iter().map(|(path, text)| File { path, text }).collect();
            let own_kinds = files.iter().any(|file| file.path.ends_with("kinds.yaml"));
            if !own_kinds {
                files.extend(topics::FILES.iter().filter(|file| file.path.ends_with("kinds.yaml")));
            }
            topic::parse(&files, namespace)
        }
    };
    // What is wrong with a file is wrong with the usage.
    let declared = declared.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(topic::replicated(declared, config.kafka.replication))
}

fn read_files(directory: &Path) -> std::io::Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push((path.display().to_string(), std::fs::read_to_string(&path)?));
        }
    }
    files.sort();
    Ok(files)
}

fn show(declared: &[Declared], drift: &[Vec<Drift>], output: Output) -> anyhow::Result<Exit> {
    let pairs = || declared.iter().zip(drift);
    let count: usize = drift.iter().map(Vec::len).sum();
    output.json(&json!({
        "drift": count,
        "topics": pairs().map(|(topic, drift)| json!({
            "topic": topic.name,
            "drift": drift.iter().map(|one| json!({
                "what": one.what(),
                "declared": one.declared(),
                "found": one.found(),
                "repairable": one.is_repairable(),
            })).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
    }))?;
    if count == 0 {
        output.line(format!("no drift: {} topics are as declared", declared.len()));
        return Ok(Exit::Done);
    }
    let rows = pairs().flat_map(|(topic, drift)| {
        drift.iter().map(move |one| {
            let action = match one {
                Drift::Missing => "create it",
                Drift::Config { .. } => "set it",
                Drift::Partitions { .. } | Drift::Replication { .. } => "refuse",
            };
            let reason = match one {
                Drift::Config { name, .. } => topic.configs.get(name).map(|it| it.reason.clone()),
                Drift::Missing | Drift::Partitions { .. } | Drift::Replication { .. } => None,
            };
            let what = one.what().to_owned();
            let (wanted, found) = (one.declared(), one.found());
            [topic.name.clone(), what, wanted, found, action.to_owned(), reason.unwrap_or_default()]
        })
    });
    output.table(["topic", "what", "declared", "found", "apply would", "because"], rows);
    output.line(format!("{count} differences: `millrace topics apply` settles what is safe"));
    Ok(Exit::Failed)
}

fn report(declared: &[Declared], applied: &Applied, output: Output) -> anyhow::Result<Exit> {
    output.json(&json!({"created": applied.created, "altered": applied.altered}))?;
    for name in &applied.created {
        output.line(format!("created {name}"));
    }
    for name in &applied.altered {
        output.line(format!("changed {name}"));
    }
    output.line(format!("{} topics are as declared", declared.len()));
    Ok(Exit::Done)
}
