//! An operator's word to a saga: a signed command, and the saga's answer to it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use ring::hmac;
use serde_json::{Value, json};
use uuid::Uuid;

use super::saga::{Saga, Standing, Witness};
use super::{Manager, read, search};
use crate::cli::{Exit, Output, send};
use crate::clock;
use crate::config::Config;
use crate::engine::dispatch::Targets;
use crate::engine::letter::Broken;
use crate::engine::protocol::Crossing;
use crate::kernel::reactor::Dispatch;
use crate::kernel::result::{CommandResult, Outcome};
use crate::kernel::stream::Kind;
use crate::log::kafka::group;
use crate::log::kafka::partition_reader::{PartitionReader, Start};
use crate::log::kafka::sender::Sender;
use crate::runtime;
use crate::runtime::signing::{internal_key, targets};

/// How long the saga's answer is waited for.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

/// Has a saga go on: what it was told and broke is told again, and if it is parked then, its step
/// is tried again.
pub(super) async fn resume(
    config: &Config,
    manager: Manager,
    id: &str,
    output: Output,
) -> anyhow::Result<Exit> {
    let mut saga = read::one(config, manager, id, output).await?;
    let had_broken = !saga.broken.is_empty();
    if had_broken {
        for broken in &saga.broken {
            let result = say(config, manager, &Word::Again(broken)).await?;
            send::show(&result, output)?;
            if result.outcome == Outcome::Failed {
                output.note(format!("command {} broke again", broken.command_id));
                return Ok(Exit::Failed);
            }
        }
        saga = read::one(config, manager, id, output).await?;
    }
    match &saga.standing {
        Standing::Ended(_) | Standing::Waiting if had_broken => return Ok(Exit::Done),
        Standing::Ended(how) => bail!("{} {id} has ended: {how}", manager.as_str()),
        Standing::Waiting => bail!(
            "{} {id} is not parked: it waits by itself; `millrace sagas show` says until when",
            manager.as_str()
        ),
        Standing::Parked(_) => {}
    }
    let body = what_to_say(config, &saga, output).await?;
    tell(config, manager, id, &body, output).await
}

/// What another stream says of the step, or just that it shall be tried again.
async fn what_to_say(config: &Config, saga: &Saga, output: Output) -> anyhow::Result<Value> {
    let Some(witness) = &saga.witness else { return Ok(json!({"type": "Resume"})) };
    let (Witness::Receiver(id) | Witness::Sender(id) | Witness::Customer(id)) = witness;
    if let Some(found) = search::ask(config, witness, &saga.id, output).await? {
        output.note(format!("the stream of {id} tells what became of it"));
        return Ok(found);
    }
    Ok(if matches!(witness, Witness::Receiver(_)) && is_unverifiable(saga) {
        output.note(format!("{id} does not have it: its whole stream was read"));
        json!({"type": "Resume", "received": "NO"})
    } else {
        json!({"type": "Resume"})
    })
}

/// Whether the receiver's word has no weight any more, so that its stream must tell.
fn is_unverifiable(saga: &Saga) -> bool {
    matches!(&saga.standing, Standing::Parked(reason) if reason == "Unverifiable")
}

/// Leaves a saga alone.
pub(super) async fn abandon(
    config: &Config,
    manager: Manager,
    id: &str,
    reason: &str,
    output: Output,
) -> anyhow::Result<Exit> {
    let saga = read::one(config, manager, id, output).await?;
    if let Standing::Ended(how) = saga.standing {
        bail!("{} {id} has ended: {how}", manager.as_str());
    }
    if saga.version == 0 {
        bail!(
            "{} {id} never began: its start broke. `millrace sagas resume` sends that again",
            manager.as_str()
        );
    }
    tell(config, manager, id, &json!({"type": "Abandon", "reason": reason}), output).await
}

async fn tell(
    config: &Config,
    manager: Manager,
    id: &str,
    body: &Value,
    output: Output,
) -> anyhow::Result<Exit> {
    let dispatch = Dispatch {
        aggregate: manager.aggregate(),
        id: id.to_owned(),
        command_id: clock::new_id(),
        body: body.to_string().into_bytes(),
        reply_to: None,
        correlation_id: None,
        causation_id: None,
        metadata: vec![("actor".to_owned(), "operator".to_owned())],
    };
    let result = say(config, manager, &Word::New(&dispatch)).await?;
    send::show(&result, output)?;
    Ok(if result.outcome == Outcome::Accepted { Exit::Done } else { Exit::Failed })
}

/// What is said to a saga.
enum Word<'w> {
    New(&'w Dispatch),
    /// What broke, as it was.
    Again(&'w Broken),
}

impl Word<'_> {
    fn saga(&self) -> &str {
        match self {
            Self::New(dispatch) => &dispatch.id,
            Self::Again(broken) => &broken.id,
        }
    }

    const fn command_id(&self) -> Uuid {
        match self {
            Self::New(dispatch) => dispatch.command_id,
            Self::Again(broken) => broken.command_id,
        }
    }

    fn signed(
        &self,
        manager: Manager,
        targets: &Targets,
        key: &hmac::Key,
    ) -> anyhow::Result<Crossing> {
        match self {
            Self::New(dispatch) => {
                targets.address_by_operator(dispatch, key).map_err(anyhow::Error::msg)
            }
            Self::Again(broken) => {
                let target = targets.of(manager.aggregate()).with_context(|| {
                    format!("{} cannot be reached: this is a bug", manager.as_str())
                })?;
                let topic = (&*target.topic, target.partition_count);
                broken.again(topic, key).with_context(|| {
                    format!(
                        "command {} cannot be sent again (is MILLRACE_INTERNAL_KEY the handlers' \
                         own?)",
                        broken.command_id
                    )
                })
            }
        }
    }
}

/// Says it, and waits for the answer.
async fn say(config: &Config, manager: Manager, word: &Word<'_>) -> anyhow::Result<CommandResult> {
    let aggregate = manager.aggregate();
    let schemas = runtime::schemas::load(config).await?;
    let opened = config.clone();
    let (targets, key) = tokio::task::spawn_blocking(move || {
        let witness = group::Witness::open(&opened.kafka, "millrace.operator")?;
        let key = internal_key(&opened, &witness.cluster_id()?);
        anyhow::Ok((targets(&opened, std::iter::once(aggregate), &witness)?, key))
    })
    .await??;
    let crossing = word.signed(manager, &targets, &key)?;
    let (opened, partition) = (config.clone(), crossing.partition);
    let (sender, results) = tokio::task::spawn_blocking(move || {
        // Opened before the command goes out, so that its result cannot be missed.
        let topic = opened.namespace.dotted(&aggregate.topic(Kind::Results));
        let results = PartitionReader::open(&opened.kafka, &topic, partition, Start::End)?;
        anyhow::Ok((Sender::open(&opened.kafka)?, results))
    })
    .await??;
    let key = crossing.record.key.as_deref().unwrap_or_default();
    let value = crossing.record.value.as_deref().unwrap_or_default();
    let headers = &crossing.record.headers;
    sender.send(&crossing.topic, crossing.partition, key, value, headers).await?;
    let command_id = word.command_id();
    let waiting = move || send::await_result(results, command_id, ANSWER_WAIT);
    let value = tokio::task::spawn_blocking(waiting).await??.with_context(|| {
        format!(
            "no answer of {aggregate} {} within {} s: is `millrace serve` running, with the \
             same MILLRACE_INTERNAL_KEY? The command is in Kafka",
            word.saga(),
            ANSWER_WAIT.as_secs()
        )
    })?;
    send::decode(config, &schemas, &value).await
}
