//! What the processes that own partitions say of them: Kafka's description of a group -> each
//! owner's `/readyz` -> a line for each partition.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::log::kafka::lag::{self, Group};
use crate::log::kafka::members::Owner;

/// The longest to wait for one process.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The most processes that are asked.
const ASKED_MAX: usize = 64;

/// One partition of the handlers: who has it, and how it fares there.
#[derive(Debug, Serialize)]
pub(super) struct Owned {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) owner: Option<Owner>,
    /// As its owner says; else what is known of it without its owner.
    pub(super) state: String,
    pub(super) lag_events: i64,
    pub(super) exact: bool,
    pub(super) lag_seconds: f64,
    pub(super) transactions_per_second: Option<u64>,
    pub(super) last_error: Option<String>,
}

/// Asks every owner in these groups, all at the same time.
pub(super) async fn ask(groups: &[Group]) -> Vec<Owned> {
    let partitions = groups.iter().flat_map(|group| &group.partitions);
    let mut addrs: Vec<String> =
        partitions.filter_map(|one| one.owner.as_ref()?.http_addr()).collect();
    addrs.sort();
    addrs.dedup();
    addrs.truncate(ASKED_MAX);
    let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build();
    let answers = futures::future::join_all(addrs.into_iter().map(|addr| {
        let client = client.as_ref().ok().cloned();
        async move {
            let answer = match client {
                Some(client) => ask_one(&client, &addr).await,
                None => None,
            };
            (addr, answer)
        }
    }));
    let answers: BTreeMap<String, Option<Value>> = answers.await.into_iter().collect();
    let mut owned = Vec::new();
    for group in groups {
        let all = group.partitions.iter();
        owned.extend(all.map(|partition| describe(group, partition, &answers)));
    }
    owned
}

async fn ask_one(client: &reqwest::Client, addr: &str) -> Option<Value> {
    // 503 is what a process answers that is not ready, with the same report.
    let answer = client.get(format!("http://{addr}/readyz")).send().await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

fn describe(
    group: &Group,
    partition: &lag::Partition,
    answers: &BTreeMap<String, Option<Value>>,
) -> Owned {
    let addr = partition.owner.as_ref().and_then(Owner::http_addr);
    let said = addr.as_ref().and_then(|addr| answers.get(addr)?.as_ref());
    let found = said.and_then(|report| find(report, &partition.topic, partition.partition));
    let state = match (&found, &partition.owner, addr) {
        (Some(found), ..) => found["state"].as_str().unwrap_or("unknown").to_owned(),
        (None, None, _) if group.state == "rebalancing" => "rebalancing".to_owned(),
        (None, None, _) => "without an owner".to_owned(),
        (None, Some(_), Some(addr)) if said.is_none() => format!("{addr} does not answer"),
        (None, Some(_), _) => "assigned".to_owned(),
    };
    Owned {
        group: group.group.clone(),
        topic: partition.topic.clone(),
        partition: partition.partition,
        owner: partition.owner.clone(),
        state,
        lag_events: partition.lag_events,
        exact: partition.exact,
        lag_seconds: partition.lag_seconds,
        transactions_per_second: found.and_then(|found| found["transactions_per_second"].as_u64()),
        last_error: found.and_then(|found| found["last_error"].as_str()).map(str::to_owned),
    }
}

/// What a report says of a partition.
fn find<'r>(report: &'r Value, topic: &str, partition: i32) -> Option<&'r Value> {
    let components = report["components"].as_object()?.values();
    let mut all = components.filter_map(|component| component["partitions"].as_array()).flatten();
    all.find(|found| found["topic"] == topic && found["partition"] == partition)
}

impl Owned {
    /// A line of the table for people.
    pub(super) fn row(&self) -> [String; 7] {
        let owner = self
            .owner
            .as_ref()
            .map_or_else(String::new, |owner| format!("{} ({})", owner.instance, owner.host));
        let approximately = if self.exact { "" } else { "~" };
        let rate = self.transactions_per_second;
        [
            self.topic.clone(),
            self.partition.to_string(),
            owner,
            self.state.clone(),
            format!("{approximately}{} ({:.1} s)", self.lag_events, self.lag_seconds),
            rate.map_or_else(String::new, |rate| rate.to_string()),
            self.last_error.clone().unwrap_or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn group(state: &'static str, owner: Option<&str>) -> Group {
        let owner = owner
            .map(|instance| Owner { instance: instance.to_owned(), host: "127.0.0.1".to_owned() });
        let partition = lag::Partition {
            topic: "t".to_owned(),
            partition: 3,
            owner,
            committed: None,
            end: 9,
            lag_events: 9,
            exact: true,
            lag_seconds: 1.0,
        };
        Group {
            group: "g".to_owned(),
            state,
            members: 1,
            lag_events: 9,
            exact: true,
            lag_seconds: 1.0,
            partitions: vec![partition],
        }
    }

    fn state(group: &Group, answer: Option<Value>) -> (String, Option<u64>) {
        let answers = [("127.0.0.1:1".to_owned(), answer)].into_iter().collect();
        let owned = describe(group, &group.partitions[0], &answers);
        (owned.state, owned.transactions_per_second)
    }

    #[test]
    fn a_partition_is_as_its_owner_says_or_as_the_group_tells() {
        let owned = group("running", Some("millrace-1@127.0.0.1:1"));
        let report = |partition| {
            json!({"components": {"api": {}, "handler.x": {"partitions": [
                {"topic": "t", "partition": partition, "state": "restoring 43 %",
                 "transactions_per_second": 7}]}}})
        };
        assert_eq!(state(&owned, Some(report(3))), ("restoring 43 %".to_owned(), Some(7)));
        assert_eq!(state(&owned, Some(report(4))), ("assigned".to_owned(), None));
        let silent = "127.0.0.1:1 does not answer".to_owned();
        assert_eq!(state(&owned, None), (silent, None));
        assert_eq!(state(&group("rebalancing", None), None).0, "rebalancing");
        assert_eq!(state(&group("stopped", None), None).0, "without an owner");
        assert_eq!(state(&group("running", Some("foreign")), None).0, "assigned");
    }
}
