//! declared + found -> drift. Pure.

use std::collections::BTreeMap;

use super::Declared;

/// A topic as the brokers have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many partitions.
    pub partitions: i32,
    /// How many copies the partition with the fewest has.
    pub replication: i32,
    /// Every setting in force, by name.
    pub configs: BTreeMap<String, String>,
    /// The names of those that are set on the topic itself.
    pub overridden: Vec<String>,
}

/// One way in which a topic is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It does not exist.
    Missing,
    /// It has another number of partitions.
    Partitions {
        /// As declared.
        declared: i32,
        /// As found.
        found: i32,
    },
    /// It has another number of copies.
    Replication {
        /// As declared.
        declared: i32,
        /// As found.
        found: i32,
    },
    /// A setting has another value.
    Config {
        /// Kafka's name of it.
        name: String,
        /// As declared.
        declared: String,
        /// As found; `None` if this broker has no such setting.
        found: Option<String>,
    },
}

impl Drift {
    /// Whether `apply` can put it right without losing data.
    #[must_use]
    pub const fn is_repairable(&self) -> bool {
        matches!(self, Self::Missing | Self::Config { .. })
    }

    /// What it is about, as a table shows it.
    #[must_use]
    pub fn what(&self) -> &str {
        match self {
            Self::Missing => "topic",
            Self::Partitions { .. } => "partitions",
            Self::Replication { .. } => "replication",
            Self::Config { name, .. } => name,
        }
    }

    /// The value as declared.
    #[must_use]
    pub fn declared(&self) -> String {
        match self {
            Self::Missing => "present".to_owned(),
            Self::Partitions { declared, .. } | Self::Replication { declared, .. } => {
                declared.to_string()
            }
            Self::Config { declared, .. } => declared.clone(),
        }
    }

    /// The value as found.
    #[must_use]
    pub fn found(&self) -> String {
        match self {
            Self::Missing => "missing".to_owned(),
            Self::Partitions { found, .. } | Self::Replication { found, .. } => found.to_string(),
            Self::Config { found, .. } => found.clone().unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Why `apply` leaves it alone, and what to do; `None` if it does not.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Missing | Self::Config { .. } => None,
            Self::Partitions { declared, found } => Some(format!(
                "has {found} partitions, declared are {declared}: the count is fixed for life, \
                 since another one would part aggregates from their past; declare {found}, or copy \
                 the topic into a new one"
            )),
            Self::Replication { declared, found } => Some(format!(
                "has {found} copies, declared are {declared}: move its replicas with Kafka's own \
                 kafka-reassign-partitions"
            )),
        }
    }
}

/// Compares a topic with what was found of it.
#[must_use]
pub fn drift(declared: &Declared, found: Option<&Found>) -> Vec<Drift> {
    let Some(found) = found else {
        return vec![Drift::Missing];
    };
    let mut drift = Vec::new();
    if declared.partitions != found.partitions {
        drift.push(Drift::Partitions { declared: declared.partitions, found: found.partitions });
    }
    if declared.replication != found.replication {
        drift.push(Drift::Replication { declared: declared.replication, found: found.replication });
    }
    for (name, setting) in &declared.configs {
        let value = found.configs.get(name);
        if value != Some(&setting.value) {
            drift.push(Drift::Config {
                name: name.clone(),
                declared: setting.value.clone(),
                found: value.cloned(),
            });
        }
    }
    drift
}

#[cfg(test)]
mod tests {
    use super::super::{Key, Setting};
    use super::*;

    fn declared() -> Declared {
        let setting = Setting { value: "compact".to_owned(), reason: "store".to_owned() };
        Declared {
            name: "shop.cart.events".to_owned(),
            kind: None,
            key: Key::AggregateIdAndSequence,
            partitions: 4,
            replication: 1,
            configs: BTreeMap::from([("cleanup.policy".to_owned(), setting)]),
        }
    }

    #[test]
    fn every_difference_is_found_and_only_safe_ones_are_repaired() {
        assert_eq!(drift(&declared(), None), [Drift::Missing]);
        let mut found = Found {
            partitions: 4,
            replication: 1,
            configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
            overridden: Vec::new(),
        };
        assert_eq!(drift(&declared(), Some(&found)), []);
        found.partitions = 8;
        found.replication = 3;
        found.configs.insert("cleanup.policy".to_owned(), "delete".to_owned());
        let all = drift(&declared(), Some(&found));
        let repairable: Vec<_> = all.iter().map(Drift::is_repairable).collect();
        assert_eq!(repairable, [false, false, true]);
        assert!(all[0].refusal().unwrap().contains("has 8 partitions"));
        found.configs.clear();
        let text = drift(&declared(), Some(&found))[2].found();
        assert_eq!(text, "unknown");
    }
}
