//! The schemas that are compiled in: every version of every record that was ever stored.
//!
//! A file without a version in its name is the current one; `MoneyDeposited.v1.avsc` is an earlier
//! one that events on the log may still have.

use std::fmt::Write as _;
use std::sync::LazyLock;

use ring::digest;
use serde_avro_fast::Schema;

use crate::domain::banking;
use crate::kernel::stream::{AggregateName, Kind, Namespace};

/// Every aggregate whose records are compiled in.
pub const AGGREGATES: &[AggregateName] = &[
    banking::account::NAME,
    banking::customer::NAME,
    banking::transfer::NAME,
    banking::account_opening::NAME,
];

/// One version of one record, as it stands in the repository.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The full name of the record.
    pub record: &'static str,
    /// Its version, from 1.
    pub version: u16,
    /// Where it is written: commands, events or results.
    pub kind: Kind,
    /// The schema itself.
    pub text: &'static str,
}

/// A compiled-in schema, ready for use.
#[derive(Debug)]
pub struct Compiled {
    /// Where it comes from.
    pub source: Source,
    /// Whether it is what is written today.
    pub current: bool,
    /// SHA-256 of the schema without spaces and with sorted attributes, in hex.
    pub fingerprint: String,
    /// For readers and writers.
    pub schema: Schema,
}

/// A subject of the registry and what is registered under it.
#[derive(Debug)]
pub struct Subject {
    /// Its name: `<topic>-<record>`.
    pub name: String,
    /// What a new version must keep to.
    pub level: Level,
    /// The versions, oldest first.
    pub versions: Vec<&'static Compiled>,
}

/// What a new version of a schema must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Readers with the new version read what the last one wrote.
    Backward,
    /// Readers with any version read what any version wrote.
    FullTransitive,
}

impl Level {
    /// The registry's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backward => "BACKWARD",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }
}

static ALL: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    let sources: Vec<&Source> = super::banking::SOURCES
        .iter()
        .chain([&super::result::SOURCE])
        .chain(super::banking::transfer::SOURCES)
        .chain(super::banking::customer::SOURCES)
        .chain(super::banking::account_opening::SOURCES)
        .collect();
    sources.iter().map(|source| compile(source, &sources)).collect()
});

/// All of them.
#[must_use]
pub fn all() -> &'static [Compiled] {
    &ALL
}

/// The place in [`all`] of a record's current version.
#[must_use]
pub fn current(record: &str) -> Option<usize> {
    ALL.iter().position(|compiled| compiled.current && compiled.source.record == record)
}

/// Every subject that this program writes to, with its versions.
#[must_use]
pub fn subjects(namespace: &Namespace) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for aggregate in AGGREGATES {
        let own = format!("{}.", aggregate.record_namespace());
        for compiled in ALL.iter().filter(|compiled| compiled.current) {
            let Source { record, kind, .. } = compiled.source;
            if kind != Kind::Results && !record.starts_with(&own) {
                continue;
            }
            let mut versions: Vec<_> =
                ALL.iter().filter(|other| other.source.record == record).collect();
            versions.sort_by_key(|compiled| compiled.source.version);
            subjects.push(Subject {
                name: format!("{}-{record}", namespace.dotted(&aggregate.topic(kind))),
                level: if kind == Kind::Commands { Level::Backward } else { Level::FullTransitive },
                versions,
            });
        }
    }
    subjects
}

/// SHA-256 of a schema without spaces and with sorted attributes, in hex. Unlike the parsing
/// canonical form it keeps logical types, defaults and docs: it stands for what is registered.
///
/// # Errors
/// Says where the text is no JSON.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let schema: serde_json::Value =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let hash = digest::digest(&digest::SHA256, schema.to_string().as_bytes());
    Ok(hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    }))
}

#[expect(clippy::expect_used, reason = "compiled in, and a test parses every one")]
fn compile(source: &Source, all: &[&Source]) -> Compiled {
    let parsed = super::avro::parse(source.text).expect("a schema that parses");
    assert_eq!(parsed.record, source.record, "the file's record");
    Compiled {
        source: *source,
        current: all
            .iter()
            .all(|other| other.record != source.record || other.version <= source.version),
        fingerprint: fingerprint(source.text).expect("a schema in JSON"),
        schema: parsed.schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn files(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "avsc") {
                found.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn every_file_is_compiled_in() {
        let mut found = Vec::new();
        files(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/schemas")), &mut found);
        found.sort();
        let mut compiled: Vec<_> = all().iter().map(|one| one.source.text.to_owned()).collect();
        compiled.sort();
        assert_eq!(found, compiled);
    }

    #[test]
    fn every_field_is_documented_and_personal_data_is_marked() {
        for compiled in all() {
            let schema: serde_json::Value = serde_json::from_str(compiled.source.text).unwrap();
            assert!(schema["doc"].is_string(), "{}", compiled.source.record);
            for field in schema["fields"].as_array().unwrap() {
                let name = field["name"].as_str().unwrap();
                assert!(field["doc"].is_string(), "{}.{name}", compiled.source.record);
                let personal = ["user_id", "reference", "reason", "details"].contains(&name);
                assert_eq!(field["personal"] == true, personal, "{name}");
            }
        }
    }

    #[test]
    fn a_subject_is_named_after_topic_and_record() {
        let subjects = subjects(&Namespace::new("test1").unwrap());
        let of = |name: &str| subjects.iter().find(|subject| subject.name == name).unwrap();
        let deposited = of("test1.banking.account.events-millrace.banking.account.MoneyDeposited");
        let versions: Vec<_> = deposited.versions.iter().map(|one| one.source.version).collect();
        assert_eq!(versions, [1, 2]);
        assert_eq!(deposited.level, Level::FullTransitive);
        let command = of("test1.banking.account.commands-millrace.banking.account.Deposit");
        assert_eq!(command.level, Level::Backward);
        of("test1.banking.account.results-millrace.CommandResult");
        let transfer = 9 + 8 + 1;
        let customer = 4 + 5 + 1;
        let opening = 13 + 5 + 1;
        assert_eq!(subjects.len(), 11 + 11 + 1 + transfer + customer + opening);
    }

    #[test]
    fn a_fingerprint_sees_attributes_but_no_spaces_or_order() {
        let one = fingerprint(r#"{"a": 1, "b": [2]}"#).unwrap();
        assert_eq!(fingerprint(r#"{"b":[2],"a":1}"#).unwrap(), one);
        assert_ne!(fingerprint(r#"{"b":[2],"a":2}"#).unwrap(), one);
        assert_eq!(one.len(), 64);
    }
}
