//! `millrace schemas check|register|list`: compiled-in schemas <-> the registry.

use serde::Serialize;

use super::{Exit, Output};
use crate::codec::compatibility::{self, Violation};
use crate::codec::compiled::{self, Level, Subject};
use crate::codec::registry::Registered;
use crate::config::Config;
use crate::runtime::schemas;

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  millrace schemas check\n  millrace schemas register\n  \
                        millrace schemas list --json")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Compares every schema with its kept and its registered versions; exit code 1 if one breaks
    #[command(after_help = "Example:\n  millrace schemas check || echo 'not compatible'")]
    Check,
    /// Registers every version of every schema and makes the ids known to all services
    #[command(after_help = "Example:\n  millrace schemas register")]
    Register,
    /// Shows which schema has which id
    #[command(after_help = "Example:\n  millrace schemas list --json | jq '.[].id'")]
    List,
}

/// Runs the subcommand.
///
/// # Errors
/// The registry or Kafka does not answer, or the registry refuses a schema.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    match arguments.action {
        Action::Check => {
            let subjects = schemas::registered(config).await?;
            check(&subjects, output)
        }
        Action::Register => {
            let spinner = output.spinner("registering schemas");
            let written = schemas::register(config).await;
            spinner.finish_and_clear();
            let written = written?;
            output.line(format!("{} schemas are registered", written.len()));
            output.json(&listed(written))?;
            Ok(Exit::Done)
        }
        Action::List => list(schemas::entries(config).await?, output),
    }
}

/// One schema against one that came before it.
#[derive(Debug, Serialize)]
struct Compared {
    subject: String,
    level: &'static str,
    version: u16,
    against: String,
    ok: bool,
    field: Option<String>,
    reason: Option<String>,
}

fn check(subjects: &[(Subject, Vec<Registered>)], output: Output) -> anyhow::Result<Exit> {
    let compared: Vec<_> = subjects.iter().flat_map(|(own, theirs)| compare(own, theirs)).collect();
    output.table(
        ["SUBJECT", "LEVEL", "VERSION", "AGAINST", "", "FIELD", "REASON"],
        compared.iter().map(|one| {
            [
                one.subject.clone(),
                one.level.to_owned(),
                one.version.to_string(),
                one.against.clone(),
                if one.ok { "ok" } else { "BREAKS" }.to_owned(),
                one.field.clone().unwrap_or_default(),
                one.reason.clone().unwrap_or_default(),
            ]
        }),
    );
    output.json(&compared)?;
    let broken = compared.iter().filter(|one| !one.ok).count();
    if broken == 0 {
        return Ok(Exit::Done);
    }
    output.line(format!("{broken} of {} comparisons break", compared.len()));
    Ok(Exit::Failed)
}

/// Compares each version with what came before it: in the repository, and in the registry.
fn compare(subject: &Subject, registered: &[Registered]) -> Vec<Compared> {
    let mut all = Vec::new();
    let fingerprints: Vec<_> =
        registered.iter().map(|one| compiled::fingerprint(&one.text).unwrap_or_default()).collect();
    for (index, own) in subject.versions.iter().enumerate() {
        let mut earlier: Vec<(String, &str)> = subject.versions[..index]
            .iter()
            .map(|kept| (format!("kept {}", kept.source.version), kept.source.text))
            .collect();
        let place = fingerprints.iter().position(|found| *found == own.fingerprint);
        let is_current = index + 1 == subject.versions.len();
        for (place_of_other, other) in registered.iter().enumerate() {
            // An earlier version of ours was judged when it was new; today's must fit all there is.
            let is_before = place.map_or(is_current, |place| place_of_other < place);
            if is_before && Some(place_of_other) != place {
                earlier.push((format!("registered {}", other.version), &other.text));
            }
        }
        if subject.level == Level::Backward && earlier.len() > 1 {
            let last_kept = index.checked_sub(1);
            let last_registered = earlier.len() - 1;
            let mut position = 0;
            earlier.retain(|_| {
                let keep = Some(position) == last_kept || position == last_registered;
                position += 1;
                keep
            });
        }
        if earlier.is_empty() {
            all.push(compared(subject, own.source.version, "nothing before it".to_owned(), None));
        }
        for (name, text) in earlier {
            let violations = compatibility::check(subject.level, text, own.source.text);
            if violations.is_empty() {
                all.push(compared(subject, own.source.version, name.clone(), None));
            }
            all.extend(violations.into_iter().map(|violation| {
                compared(subject, own.source.version, name.clone(), Some(violation))
            }));
        }
    }
    all
}

fn compared(
    subject: &Subject,
    version: u16,
    against: String,
    violation: Option<Violation>,
) -> Compared {
    let ok = violation.is_none();
    let (field, reason) = violation.map_or((None, None), |violation| {
        (violation.field, Some(format!("{}: {}", violation.direction, violation.reason)))
    });
    Compared {
        subject: subject.name.clone(),
        level: subject.level.as_str(),
        version,
        against,
        ok,
        field,
        reason,
    }
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Listed {
    subject: String,
    version: u32,
    id: u32,
    fingerprint: String,
}

fn listed(entries: Vec<(u32, schemas::Entry)>) -> Vec<Listed> {
    let line = |(id, entry): (u32, schemas::Entry)| Listed {
        subject: entry.subject,
        version: entry.version,
        id,
        fingerprint: entry.fingerprint,
    };
    let mut lines: Vec<_> = entries.into_iter().map(line).collect();
    lines.sort_by(|one, other| (&one.subject, one.version).cmp(&(&other.subject, other.version)));
    lines
}

fn list(entries: Vec<(u32, schemas::Entry)>, output: Output) -> anyhow::Result<Exit> {
    let lines = listed(entries);
    output.table(
        ["SUBJECT", "VERSION", "ID", "FINGERPRINT"],
        lines.iter().map(|line| {
            let short = line.fingerprint.chars().take(16).collect();
            [line.subject.clone(), line.version.to_string(), line.id.to_string(), short]
        }),
    );
    output.json(&lines)?;
    if lines.is_empty() {
        output.line("no schema is registered yet: run `millrace schemas register`");
    }
    Ok(Exit::Done)
}
