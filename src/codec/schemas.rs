//! Which schema an id stands for: the one store that readers and writers share.
//!
//! Reading is cheap (no lock). Whoever drives a loop fills it: from `millrace.schemas` at the
//! start, from the registry when an id turns up that nobody here has seen.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use serde_avro_fast::Schema;

use super::{avro, compiled};
use crate::kernel::codec::CodecError;

/// The most ids that are remembered as missing. Ids come from outside: this bounds the memory.
const MISSING_MAX: usize = 1_000;

/// All schemas that are known, by the registry's ids.
#[derive(Debug, Default)]
pub struct Schemas {
    table: ArcSwap<Table>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    by_id: HashMap<u32, Arc<Writer>>,
    missing: Vec<u32>,
    /// The id of each compiled-in schema, in their order.
    own: Vec<Option<u32>>,
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
}

/// What is known about an id.
#[derive(Debug)]
pub enum Lookup {
    /// The schema.
    Known(Arc<Writer>),
    /// The registry says that there is none.
    Missing,
    /// Nobody has asked yet.
    Unknown,
}

impl Schemas {
    /// Says what is known about an id.
    #[must_use]
    pub fn lookup(&self, id: u32) -> Lookup {
        let table = self.table.load();
        match table.by_id.get(&id) {
            Some(writer) => Lookup::Known(Arc::clone(writer)),
            None if table.missing.contains(&id) => Lookup::Missing,
            None => Lookup::Unknown,
        }
    }

    /// Gives what reading needs: the schema, or why it cannot be had.
    ///
    /// # Errors
    /// [`CodecError::UnknownSchema`], also if the registry has denied it: what is on our own log
    /// must have a schema, so the registry is asked again.
    pub fn writer(&self, id: u32) -> Result<Arc<Writer>, CodecError> {
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
        let (record, schema) = avro::parse(text).map_err(corrupt)?;
        let writer = Arc::new(Writer {
            record,
            version: own.map(|place| compiled::all()[place].source.version),
            schema,
        });
        self.table.rcu(|table| {
            let mut table = Table::clone(table);
            table.by_id.insert(id, Arc::clone(&writer));
            table.missing.retain(|missing| *missing != id);
            table.own.resize(compiled::all().len(), None);
            if let Some(place) = own {
                // One schema under several subjects may have several ids: any will do.
                table.own[place].get_or_insert(id);
            }
            table
        });
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
        self.table.load().own.get(place).copied().flatten()
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
