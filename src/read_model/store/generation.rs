//! Generations of tables: templates -> tables, and the views over the one in use.
//!
//! Each generation's tables live in a schema of their own (`banking_g1`); users read views
//! (`banking.account_summary`) over the live one. Code and tables of another version never mix: a
//! projection whose version or tables differ from its generation's does not start.

use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::error::SqlState;

use super::migration::hash;
use super::{Definition, Error};
use crate::kernel::stream::Namespace;

/// The longest that new views wait for those who read the old ones; readers wait behind them.
const LOCK_TIMEOUT: &str = "2s";
/// How often that is tried.
const LOCK_TRIES: u32 = 5;
/// How long the readers have their way between two tries.
const LOCK_PAUSE: Duration = Duration::from_millis(500);

/// The tables that a projection writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number, from 1.
    pub number: i32,
    /// The schema of its tables: `banking_g1`.
    pub schema: String,
    /// The schema of the views: `banking`.
    pub domain: String,
    /// The system schema.
    pub millrace: String,
}

impl Generation {
    /// Names the schemas of a generation.
    #[must_use]
    pub fn new(namespace: &Namespace, domain: &str, number: i32) -> Self {
        Self {
            number,
            schema: namespace.underscored(&format!("{domain}_g{number}")),
            domain: namespace.underscored(domain),
            millrace: namespace.underscored("millrace"),
        }
    }

    /// Fills in the schemas' names.
    #[must_use]
    pub fn fill(&self, template: &str) -> String {
        template
            .replace("{schema}", &self.schema)
            .replace("{domain}", &self.domain)
            .replace("{millrace}", &self.millrace)
    }
}

/// The hash of a definition's tables.
#[must_use]
pub fn tables_hash(definition: &Definition) -> String {
    hash(definition.tables.iter().copied())
}

/// Finds the live generation, or makes the first, and checks that this code may write it. Under
/// the migration lock.
///
/// # Errors
/// A statement fails, or the generation was made by other code.
pub async fn open(
    transaction: &Transaction<'_>,
    namespace: &Namespace,
    projection: &str,
    definition: &Definition,
) -> Result<Generation, Error> {
    let millrace = namespace.underscored("millrace");
    let failed = || Error::postgres(format!("opening the tables of {projection}"));
    let select = format!(
        "SELECT generation, version, tables_hash FROM {millrace}.projection
         WHERE name = $1 AND state = 'live'"
    );
    let live = transaction.query_opt(&select, &[&projection]).await.map_err(failed())?;
    let hash = tables_hash(definition);
    let Some(row) = live else {
        let generation = Generation::new(namespace, definition.domain, 1);
        create(transaction, &generation, definition).await?;
        let insert = format!(
            "INSERT INTO {millrace}.projection (name, generation, state, version, tables_hash)
             VALUES ($1, 1, 'live', $2, $3)"
        );
        transaction
            .execute(&insert, &[&projection, &definition.version, &hash])
            .await
            .map_err(failed())?;
        switch_views(transaction, &generation, definition).await?;
        return Ok(generation);
    };
    let number: i32 = row.get("generation");
    let is_ours = row.get::<_, i32>("version") == definition.version
        && row.get::<_, &str>("tables_hash") == hash;
    if !is_ours {
        return Err(Error::Outdated { projection: projection.to_owned(), generation: number });
    }
    let generation = Generation::new(namespace, definition.domain, number);
    switch_views(transaction, &generation, definition).await?;
    Ok(generation)
}

/// Makes the tables of a generation.
async fn create(
    transaction: &Transaction<'_>,
    generation: &Generation,
    definition: &Definition,
) -> Result<(), Error> {
    let schema = &generation.schema;
    let mut script = format!("CREATE SCHEMA IF NOT EXISTS {schema};\n");
    for table in definition.tables {
        script.push_str(&generation.fill(table));
    }
    transaction
        .batch_execute(&script)
        .await
        .map_err(Error::postgres(format!("making the tables of {schema}")))
}

/// Points the views that users read at a generation's tables, all at once; not if they are those
/// already: replacing one waits for every reader, and every later reader for it.
async fn switch_views(
    transaction: &Transaction<'_>,
    generation: &Generation,
    definition: &Definition,
) -> Result<(), Error> {
    let domain = &generation.domain;
    let failed = || Error::postgres(format!("making the views of {domain}"));
    let views: String = definition.views.iter().map(|view| generation.fill(view)).collect();
    let comment = format!("views {} of millrace", hash([views.as_str()]));
    let count = i64::try_from(views.matches("CREATE OR REPLACE VIEW").count()).unwrap_or(i64::MAX);
    let known = "SELECT 1 FROM pg_namespace WHERE nspname = $1
         AND obj_description(oid, 'pg_namespace') = $2
         AND (SELECT count(*) FROM pg_views WHERE schemaname = $1) >= $3";
    let known = transaction.query_opt(known, &[domain, &comment, &count]).await;
    if known.map_err(failed())?.is_some() {
        return Ok(());
    }
    let script = format!(
        "SAVEPOINT views; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
         CREATE SCHEMA IF NOT EXISTS {domain};\n{views}
         COMMENT ON SCHEMA {domain} IS '{comment}'; SET LOCAL lock_timeout TO DEFAULT"
    );
    for tries_left in (0..LOCK_TRIES).rev() {
        match transaction.batch_execute(&script).await {
            Ok(()) => break,
            Err(error) if tries_left > 0 && error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                let undo = "ROLLBACK TO SAVEPOINT views";
                transaction.batch_execute(undo).await.map_err(failed())?;
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(())
}
