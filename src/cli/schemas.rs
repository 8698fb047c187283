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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stream::Namespace;

    fn subject(record: &str) -> Subject {
        let subjects = compiled::subjects(&Namespace::default());
        subjects.into_iter().find(|subject| subject.name.ends_with(record)).unwrap()
    }

    fn registered(version: u32, text: &str) -> Registered {
        Registered { id: version, version, text: text.to_owned() }
    }

    fn against(compared: &[Compared]) -> Vec<(u16, &str, bool)> {
        compared.iter().map(|one| (one.version, one.against.as_str(), one.ok)).collect()
    }

    #[test]
    fn each_version_is_compared_with_what_came_before_it() {
        let deposited = subject(".MoneyDeposited");
        let texts: Vec<_> = deposited.versions.iter().map(|own| own.source.text).collect();
        let nothing = (1, "nothing before it", true);
        let kept = (2, "kept 1", true);
        assert_eq!(against(&compare(&deposited, &[])), [nothing, kept]);
        let both = [registered(1, texts[0]), registered(2, texts[1])];
        let found = compare(&deposited, &both);
        assert_eq!(against(&found), [nothing, kept, (2, "registered 1", true)]);
        let other = texts[1].replace("Money was paid in.", "Somebody else's words.");
        let found = compare(&deposited, &[registered(7, &other)]);
        assert_eq!(against(&found), [nothing, kept, (2, "registered 7", true)]);
    }

    #[test]
    fn what_breaks_is_named() {
        let frozen = subject(".AccountFrozen");
        let text = frozen.versions[0].source.text;
        let other = text.replace(r#""fields": ["#, r#""fields": [{"name":"by","type":"string"},"#);
        let found = compare(&frozen, &[registered(1, &other)]);
        assert_eq!(against(&found), [(1, "registered 1", false)]);
        assert_eq!(found[0].field.as_deref(), Some("by"));
        assert!(found[0].reason.as_deref().unwrap().contains("default"));
    }

    #[test]
    fn a_command_need_only_read_its_last_version() {
        let deposit = subject(".Deposit");
        let text = deposit.versions[0].source.text;
        let broken = text.replace(r#""name": "amount""#, r#""name": "sum""#);
        let readable = text.replace("Pays money in.", "Pays in.");
        let found = compare(&deposit, &[registered(1, &broken), registered(2, &readable)]);
        assert_eq!(against(&found), [(1, "registered 2", true)]);
        let found = compare(&deposit, &[registered(1, &readable), registered(2, &broken)]);
        assert_eq!(against(&found), [(1, "registered 2", false)]);
    }
}
