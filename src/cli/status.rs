//! `millrace status`: services, topics and groups -> one picture, once or again and again.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::failure::one_line;
use super::owners::{self, Owned};
use super::{Exit, Output};
use crate::clock;
use crate::codec::registry::Registry;
use crate::codec::schemas::Schemas;
use crate::config::{Config, redact_url};
use crate::kernel::stream::{AggregateName, Kind, Namespace};
use crate::log::kafka::lag::{Group, Observer};
use crate::log::kafka::topic::{self, Admin, Declared};
use crate::read_model::store;
use crate::read_model::store::parked::Count;
use crate::{topics, topology};

/// The longest to wait for a service's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two pictures.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The subcommand's arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  millrace status\n  millrace status --watch\n  \
    millrace status --json | jq '.groups[] | {group, lag_events, lag_seconds}'\n  \
    millrace status --json | jq '.handlers[] | {topic, partition, state, last_error}'\n\n\
    Who owns a handler's partition is told by Kafka; what it is doing (restoring n %, running, \
    waiting), its transactions and its last error by that process itself, at its \
    MILLRACE_HTTP_ADDR.\n\n\
    Lag in events is counted where it is short (no ~); a long one is the distance of two offsets, \
    which also counts transaction markers: at most so many. Zero always means that nothing is left \
    to read. The exit code is 1 if a service does not answer.")]
pub struct Arguments {
    /// Shows it again every two seconds, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// One service that the product needs.
#[derive(Debug, Serialize)]
struct Service {
    service: &'static str,
    address: String,
    reachable: bool,
    version: Option<String>,
    /// What else it says of itself.
    detail: Option<String>,
    ms: u128,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

struct Picture {
    services: Vec<Service>,
    /// How many topics are declared, and what is wrong with them.
    topics: Result<(usize, Vec<(String, String)>), String>,
    groups: Result<Vec<Group>, String>,
    /// The handlers' partitions.
    handlers: Vec<Owned>,
    /// What projections have parked.
    parked: Result<Vec<Count>, String>,
}

/// Runs the subcommand.
///
/// # Errors
/// A declaration is wrong. A service that does not answer is shown, not an error.
pub async fn run(config: &Config, arguments: Arguments, output: Output) -> anyhow::Result<Exit> {
    let declared = topics::declared(&config.namespace)?;
    let declared = topic::replicated(declared, config.kafka.replication);
    let mut observer = Some(Observer::new(&config.kafka));
    // One for all pictures: a Ctrl-C while one is being taken must not get lost.
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let (picture, again) = tokio::select! {
            looked = look(config, &declared, observer.take()) => looked,
            _ = &mut stop => return Ok(if arguments.watch { Exit::Done } else { Exit::Failed }),
        };
        observer = again;
        if arguments.watch {
            output.clear();
        }
        show(&picture, output)?;
        if !arguments.watch {
            let all = picture.services.iter().all(|service| service.reachable);
            return Ok(if all { Exit::Done } else { Exit::Failed });
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_INTERVAL) => {}
            _ = &mut stop => return Ok(Exit::Done),
        }
    }
}

async fn look(
    config: &Config,
    declared: &[Declared],
    observer: Option<Observer>,
) -> (Picture, Option<Observer>) {
    let (kafka, registry, postgres, clickhouse) = futures::join!(
        ask("Kafka", config.kafka.brokers.clone(), ask_kafka(config)),
        ask("registry", redact_url(&config.registry.url), ask_registry(config)),
        ask("Postgres", redact_url(&config.postgres.url), ask_postgres(config)),
        ask("ClickHouse", redact_url(&config.clickhouse.url), ask_clickhouse(config)),
    );
    let parked = parked(config, postgres.reachable, clickhouse.reachable).await;
    let services = vec![kafka, registry, postgres, clickhouse];
    if !services[0].reachable {
        let away = "Kafka does not answer".to_owned();
        let topics = Err(away.clone());
        let (groups, handlers) = (Err(away), Vec::new());
        let picture = Picture { services, topics, groups, handlers, parked };
        return (picture, observer);
    }
    let topics = drift(config, declared).await;
    let names = groups(declared, &config.namespace);
    let mut observer = observer.unwrap_or_else(|| Observer::new(&config.kafka));
    let measured = tokio::task::spawn_blocking(move || {
        let all = names.iter().map(|(name, topics)| observer.group(name, topics, clock::now()));
        let all: Result<Vec<_>, _> = all.collect();
        (all.map_err(|error| one_line(&error)), observer)
    });
    let (groups, observer) = match measured.await {
        Ok((groups, observer)) => (groups, Some(observer)),
        Err(error) => (Err(error.to_string()), None),
    };
    let of_handlers = config.namespace.dotted("millrace.handler.");
    let handlers: Vec<Group> = groups.iter().flatten().cloned().collect();
    let handlers = handlers.into_iter().filter(|group| group.group.starts_with(&of_handlers));
    let handlers = owners::ask(&handlers.collect::<Vec<_>>()).await;
    (Picture { services, topics, groups, handlers, parked }, observer)
}

/// What projections have parked, in the stores that answer.
async fn parked(config: &Config, postgres: bool, clickhouse: bool) -> Result<Vec<Count>, String> {
    let asked = async {
        let mut counts = Vec::new();
        if postgres {
            let database = store::postgres::Database::new(&config.postgres, &config.namespace)?;
            counts.extend(database.count_parked().await?);
        }
        if clickhouse {
            let settings = &config.clickhouse;
            let database = store::clickhouse::Database::new(settings, &config.namespace)?;
            counts.extend(database.count_parked().await?);
        }
        Ok::<_, store::Error>(counts)
    };
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(counts) => counts.map_err(|error| one_line(&error)),
        Err(_) => Err(format!("no answer in {} s", ANSWER_TIMEOUT.as_secs())),
    }
}

async fn drift(
    config: &Config,
    declared: &[Declared],
) -> Result<(usize, Vec<(String, String)>), String> {
    let admin = Admin::connect(&config.kafka).await.map_err(|error| one_line(&error))?;
    let plan = admin.plan(declared).await.map_err(|error| one_line(&error))?;
    let differences = declared.iter().zip(plan).flat_map(|(topic, drift)| {
        drift.into_iter().map(|one| {
            let text = format!("{}: {} instead of {}", one.what(), one.found(), one.declared());
            (topic.name.clone(), text)
        })
    });
    Ok((declared.len(), differences.collect()))
}

/// Every group, each with the topics that it reads and their declared partitions.
fn groups(declared: &[Declared], namespace: &Namespace) -> Vec<(String, Vec<(String, i32)>)> {
    let named = |group: String, inputs: Vec<(AggregateName, Kind)>| {
        let topics = inputs.into_iter().filter_map(|(aggregate, kind)| {
            let name = namespace.dotted(&aggregate.topic(kind));
            let found = declared.iter().find(|topic| topic.name == name)?;
            Some((name, found.partitions))
        });
        (namespace.dotted(&format!("millrace.{group}")), topics.collect())
    };
    // What a group reads does not hang on any schema.
    let schemas = Arc::new(Schemas::default());
    let handlers = topology::handlers(&schemas).into_iter().map(|(domain, aggregates)| {
        let commands = aggregates.iter().map(|aggregate| (aggregate.name, Kind::Commands));
        named(format!("handler.{domain}"), commands.collect())
    });
    let reactors = topology::reactors(&schemas)
        .into_iter()
        .map(|(reactor, _)| named(format!("reactor.{}", reactor.name()), reactor.inputs()));
    let projections = topology::PROJECTIONS.into_iter().map(|(store, domain, aggregates)| {
        let events = aggregates.iter().map(|aggregate| (*aggregate, Kind::Events));
        named(format!("{store}.{domain}"), events.collect())
    });
    handlers.chain(reactors).chain(projections).collect()
}

/// What a service says of itself. Kafka and the registry do not tell clients their versions.
#[derive(Default)]
struct Answer {
    version: Option<String>,
    detail: Option<String>,
}

async fn ask(
    service: &'static str,
    address: String,
    answer: impl Future<Output = anyhow::Result<Answer>>,
) -> Service {
    let start = Instant::now();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, answer).await;
    let ms = start.elapsed().as_millis();
    let (answer, error) = match answer {
        Ok(Ok(answer)) => (answer, None),
        Ok(Err(error)) => (Answer::default(), Some(one_line(error.as_ref()))),
        Err(_) => {
            let error = format!("no answer in {} s", ANSWER_TIMEOUT.as_secs());
            (Answer::default(), Some(error))
        }
    };
    let (reachable, Answer { version, detail }) = (error.is_none(), answer);
    Service { service, address, reachable, version, detail, ms, error }
}

async fn ask_kafka(config: &Config) -> anyhow::Result<Answer> {
    let admin = Admin::connect(&config.kafka).await?;
    let detail = match admin.broker_count().await? {
        1 => "1 broker".to_owned(),
        count => format!("{count} brokers"),
    };
    Ok(Answer { version: None, detail: Some(detail) })
}

async fn ask_registry(config: &Config) -> anyhow::Result<Answer> {
    let subjects = Registry::new(&config.registry.url)?.subjects().await?;
    let prefix = config.namespace.dotted("");
    let own = subjects.iter().filter(|subject| subject.starts_with(&prefix)).count();
    Ok(Answer { version: None, detail: Some(format!("{own} subjects")) })
}

async fn ask_postgres(config: &Config) -> anyhow::Result<Answer> {
    let database = store::postgres::Database::new(&config.postgres, &config.namespace)?;
    let version = database.version().await?;
    // "15.18 (Debian 15.18-0+deb12u1)"
    let number = version.split(' ').next().map(str::to_owned);
    Ok(Answer { version: number, detail: None })
}

async fn ask_clickhouse(config: &Config) -> anyhow::Result<Answer> {
    let database = store::clickhouse::Database::new(&config.clickhouse, &config.namespace)?;
    Ok(Answer { version: Some(database.version().await?), detail: None })
}

fn show(picture: &Picture, output: Output) -> anyhow::Result<()> {
    output.json(&as_json(picture))?;
    let services = picture.services.iter().map(|service| {
        let state = match &service.error {
            None => "reachable".to_owned(),
            Some(error) => format!("AWAY: {error}"),
        };
        let version = service.version.clone().or_else(|| service.detail.clone());
        [
            service.service.to_owned(),
            service.address.clone(),
            state,
            version.unwrap_or_default(),
            service.ms.to_string(),
        ]
    });
    output.table(["service", "address", "state", "version", "ms"], services);
    match &picture.topics {
        Ok((count, differences)) if differences.is_empty() => {
            output.line(format!("\ntopics: {count}, all as declared\n"));
        }
        Ok((count, differences)) => {
            let what = differences.len();
            output.line(format!("\ntopics: {count} declared, {what} differences:"));
            for (topic, text) in differences {
                output.line(format!("  {topic}: {text}"));
            }
            output.line("see `millrace topics plan`\n");
        }
        Err(error) => output.line(format!("\ntopics: unknown: {error}")),
    }
    match &picture.groups {
        Ok(groups) => output.table(
            ["group", "state", "members", "lag (events)", "lag (s)"],
            groups.iter().map(|group| {
                let approximately = if group.exact { "" } else { "~" };
                [
                    group.group.clone(),
                    group.state.to_owned(),
                    group.members.to_string(),
                    format!("{approximately}{}", group.lag_events),
                    format!("{:.1}", group.lag_seconds),
                ]
            }),
        ),
        Err(error) => output.line(format!("groups: unknown: {error}")),
    }
    if !picture.handlers.is_empty() {
        output.line("\nhandlers, as their owners say:");
        output.table(
            ["topic", "partition", "owner", "state", "lag", "tx/s", "last error"],
            picture.handlers.iter().map(Owned::row),
        );
    }
    match &picture.parked {
        Ok(counts) if counts.is_empty() => {}
        Ok(counts) => {
            output.line("\nparked events (see `millrace dead-letters list`):");
            output.table(
                ["projection", "topic", "partition", "events", "streams"],
                counts.iter().map(|count| {
                    let Count { projection, topic, partition, events, streams, .. } = count;
                    [
                        projection.clone(),
                        topic.clone(),
                        partition.to_string(),
                        events.to_string(),
                        streams.to_string(),
                    ]
                }),
            );
        }
        Err(error) => output.line(format!("\nparked events: unknown: {error}")),
    }
    Ok(())
}

fn as_json(picture: &Picture) -> Value {
    let topics = match &picture.topics {
        Ok((count, differences)) => json!({
            "declared": count,
            "drift": differences.len(),
            "differences": differences.iter().map(|(topic, text)| json!({
                "topic": topic, "difference": text,
            })).collect::<Vec<_>>(),
        }),
        Err(error) => json!({"error": error}),
    };
    let (groups, error) = match &picture.groups {
        Ok(groups) => (json!(groups), None),
        Err(error) => (Value::Null, Some(error)),
    };
    json!({
        "at": clock::now().to_rfc3339(),
        "services": picture.services,
        "topics": topics,
        "groups": groups,
        "handlers": picture.handlers,
        "parked": match &picture.parked {
            Ok(counts) => counts.iter().map(|count| json!({
                "projection": count.projection, "topic": count.topic,
                "partition": count.partition, "events": count.events, "streams": count.streams,
            })).collect(),
            Err(error) => json!({"error": error}),
        },
        "error": error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_is_shown_with_what_it_reads() {
        let namespace = Namespace::new("test1").unwrap();
        let declared = topics::declared(&namespace).unwrap();
        let groups = groups(&declared, &namespace);
        let shown = groups.iter().map(|(group, topics)| {
            let topics = topics.iter().map(|(name, partitions)| {
                assert!(*partitions > 0);
                name.strip_prefix("test1.banking.").unwrap()
            });
            let group = group.strip_prefix("test1.millrace.").unwrap();
            format!("{group}: {}", topics.collect::<Vec<_>>().join(" "))
        });
        let expected = [
            "handler.banking: account.commands customer.commands transfer.commands \
             account-opening.commands",
            "reactor.transfer: account.events account.results transfer.events",
            "reactor.account-opening: account.events account.results customer.events \
             customer.results account-opening.events",
            "postgres.banking: account.events transfer.events",
            "clickhouse.banking: account.events customer.events transfer.events \
             account-opening.events",
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
    }
}
