//! Which schema an id stands for: the one store that readers and writers share.
//!
//! Reading is cheap (no lock). Whoever drives a loop fills it: from `millrace.schemas` at the
//! start, from the registry when an id turns up that nobody here has seen.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, Guard};
use hashbrown::HashMap;
use serde_avro_fast::Schema;

use super::flat::Flat;
use super::{avro, compiled};
use crate::kernel::codec::CodecError;

/// The most ids that are remembered as missing. Ids come from outside: this bounds the memory.
const MISSING_MAX: usize = 1_000;

/// All schemas that are known, by the registry's ids.
#[derive(Debug)]
pub struct Schemas {
    table: ArcSwap<Table>,
    /// The id of each compiled-in schema, in their order. Once set, it stays.
    own: Vec<OnceLock<u32>>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    by_id: HashMap<u32, usize>,
    writers: Vec<Arc<Writer>>,
    missing: Vec<u32>,
}

/// A schema that messages were written with.
#[derive(Debug)]
pub struct Writer {
    /// The full name of its record.
    pub record: String,
    /// The version, if it is one of the compiled-in schemas; else it is newer than this program,
    /// or another client's own.
    pub version: Option<u16>,
    /// For reading.
    pub schema: Schema,
    /// For reading its fields faster, if they are all plain.
    pub flat: Option<Flat>,
}

/// A known schema, for as long as it is looked at. Counting references to the schema itself, which
/// all threads share, would cost more than reading a command does.
#[derive(Debug)]
pub struct Known {
    table: Guard<Arc<Table>>,
    place: usize,
}

impl Deref for Known {
    type Target = Writer;

    fn deref(&self) -> &Writer {
        &self.table.writers[self.place]
    }
}

/// What is known about an id.
#[derive(Debug)]
pub enum Lookup {
    /// The schema.
    Known(Known),
    /// The registry says that there is none.
    Missing,
    /// Nobody has asked yet.
    Unknown,
}

impl Default for Schemas {
    fn default() -> Self {
        let own = compiled::all().iter().map(|_| OnceLock::new()).collect();
        Self { table: ArcSwap::default(), own }
    }
}

impl Schemas {
    /// Says what is known about an id.
    #[must_use]
    pub fn lookup(&self, id: u32) -> Lookup {
        let table = self.table.load();
        match table.by_id.get(&id) {
            Some(place) => Lookup::Known(Known { place: *place, table }),
            None if table.missing.contains(&id) => Lookup::Missing,
            None => Lookup::Unknown,
        }
    }

    /// Gives what reading needs: the schema, or why it cannot be had.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`], also if the registry has denied it: what is on our own log
    /// must have a schema, so the registry is asked again.
    pub fn writer(&self, id: u32) -> Result<Known, CodecError> {
        match self.lookup(id) {
            Lookup::Known(writer) => Ok(writer),
            Lookup::Missing | Lookup::Unknown => Err(CodecError::UnknownSchema(id)),
        }
    }

    /// Learns what an id stands for.
    ///
    /// # Errors
    /// The text is no Avro record's schema.
    pub fn add_writer(&self, id: u32, text: &str) -> Result<(), CodecError> {
        let corrupt = |reason: String| CodecError::Corrupt {
            what: "a schema from the registry",
            reason: format!("id {id}: {reason}"),
        };
        let fingerprint = compiled::fingerprint(text).map_err(corrupt)?;
        let own = compiled::all().iter().position(|compiled| compiled.fingerprint == fingerprint);
        let avro::Parsed { record, schema, flat } = avro::parse(text).map_err(corrupt)?;
        let writer = Arc::new(Writer {
            record,
            version: own.map(|place| compiled::all()[place].source.version),
            schema,
            flat,
        });
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            match table.by_id.get(&id) {
                Some(place) => table.writers[*place] = Arc::clone(&writer),
                None => {
                    table.by_id.insert(id, table.writers.len());
                    table.writers.push(Arc::clone(&writer));
                }
            }
            table.missing.retain(|missing| *missing != id);
            table
        });
        if let Some(place) = own {
            // One schema under several subjects may have several ids: any will do.
            self.own[place].get_or_init(|| id);
        }
        Ok(())
    }

    /// Learns that the registry knows no such id. Commands that name it are refused from now on.
    /// Returns whether it is the only one: then somebody should see to it that it is forgotten.
    pub fn mark_missing(&self, id: u32) -> bool {
        let before = self.table.rcu(|table| {
            let mut table = Table::clone(table);
            if table.missing.len() >= MISSING_MAX {
                table.missing.truncate(1);
            }
            if !table.by_id.contains_key(&id) && !table.missing.contains(&id) {
                table.missing.push(id);
            }
            table
        });
        // Of several at once, just one finds the list empty.
        before.missing.is_empty() && self.table.load().missing.contains(&id)
    }

    /// Forgets which ids are missing, so that the registry is asked again. To be called now and
    /// then: a schema may be registered after its first command came.
    pub fn forget_missing(&self) {
        if !self.table.load().missing.is_empty() {
            self.table.rcu(|table| {
                let mut table = Table::clone(table);
                table.missing.clear();
                table
            });
        }
    }

    /// The id of the compiled-in schema at that place of [`compiled::all`], once it is known.
    #[must_use]
    pub fn own_id(&self, place: usize) -> Option<u32> {
        self.own.get(place)?.get().copied()
    }

    /// The compiled-in schemas whose ids are still to be found out.
    #[must_use]
    pub fn without_id(&self) -> Vec<&'static compiled::Compiled> {
        compiled::all()
            .iter()
            .enumerate()
            .filter(|(place, _)| self.own_id(*place).is_none())
            .map(|(_, compiled)| compiled)
            .collect()
    }

    /// Gives every compiled-in schema an id from `first` on, for tests and simulations that have
    /// no registry.
    #[must_use]
    pub fn numbered_from(first: u32) -> Self {
        let schemas = Self::default();
        for (id, compiled) in (first..).zip(compiled::all()) {
            let added = schemas.add_writer(id, compiled.source.text);
            debug_assert_eq!(added, Ok(()));
        }
        schemas
    }
}
