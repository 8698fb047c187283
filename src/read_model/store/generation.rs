//! Generations of tables: templates -> tables, and the views over the one in use.
//!
//! Each generation's tables live in a schema of their own (`banking_g1`); users read views
//! (`banking.account_summary`) over the live one. Code and tables of another version never mix: a
//! projection whose version or tables differ from its generation's does not start.

use std::time::Duration;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

use super::migration::hash;
use super::{Definition, Error};
use crate::kernel::stream::Namespace;

/// How new views wait for those who read the old ones; readers wait behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The longest at a time, as Postgres writes it.
    pub(super) lock_timeout: &'static str,
    /// How often that is tried.
    pub(super) tries: u32,
}

/// How the definition of a view begins.
const CREATE_VIEW: &str = "CREATE OR REPLACE VIEW ";
/// At a start.
const PATIENT: Patience = Patience { lock_timeout: "2s", tries: 5 };
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

    /// The same with views of its own beside those that users read.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { domain: format!("{}_next", self.schema), ..self.clone() }
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
        switch_views(transaction, &generation, definition, PATIENT).await?;
        return Ok(generation);
    };
    let number: i32 = row.get("generation");
    let is_ours = row.get::<_, i32>("version") == definition.version
        && row.get::<_, &str>("tables_hash") == hash;
    if !is_ours {
        return Err(Error::Outdated { projection: projection.to_owned(), generation: number });
    }
    let generation = Generation::new(namespace, definition.domain, number);
    switch_views(transaction, &generation, definition, PATIENT).await?;
    Ok(generation)
}

/// Checks that this code may write that generation, in use or not. Under the migration lock.
///
/// # Errors
/// A statement fails, there is none, or it was made by other code.
pub async fn open_only(
    transaction: &Transaction<'_>,
    namespace: &Namespace,
    projection: &str,
    definition: &Definition,
    number: i32,
) -> Result<Generation, Error> {
    let millrace = namespace.underscored("millrace");
    let select = format!(
        "SELECT 1 FROM {millrace}.projection
         WHERE name = $1 AND generation = $2 AND version = $3 AND tables_hash = $4"
    );
    let hash = tables_hash(definition);
    let values: [&(dyn ToSql + Sync); 4] = [&projection, &number, &definition.version, &hash];
    let found = transaction.query_opt(&select, &values).await;
    let failed = Error::postgres(format!("opening the tables of {projection}"));
    if found.map_err(failed)?.is_none() {
        return Err(Error::Outdated { projection: projection.to_owned(), generation: number });
    }
    Ok(Generation::new(namespace, definition.domain, number))
}

/// The number of the generation in use; `None` if the projection has never run.
///
/// # Errors
/// The statement fails.
pub async fn live(client: &Client, millrace: &str, projection: &str) -> Result<Option<i32>, Error> {
    let select =
        format!("SELECT generation FROM {millrace}.projection WHERE name = $1 AND state = 'live'");
    let row = client.query_opt(&select, &[&projection]).await;
    let row = row.map_err(Error::postgres("asking for the generation in use"))?;
    Ok(row.map(|row| row.get("generation")))
}

/// Makes the tables of a generation.
pub(super) async fn create(
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
pub(super) async fn switch_views(
    transaction: &Transaction<'_>,
    generation: &Generation,
    definition: &Definition,
    patience: Patience,
) -> Result<(), Error> {
    let domain = &generation.domain;
    let failed = || Error::postgres(format!("making the views of {domain}"));
    let views: String = definition.views.iter().map(|view| generation.fill(view)).collect();
    let comment = format!("views {} of millrace", hash([views.as_str()]));
    let count = i64::try_from(views.matches(CREATE_VIEW).count()).unwrap_or(i64::MAX);
    let known = "SELECT 1 FROM pg_namespace WHERE nspname = $1
         AND obj_description(oid, 'pg_namespace') = $2
         AND (SELECT count(*) FROM pg_views WHERE schemaname = $1) >= $3";
    let known = transaction.query_opt(known, &[domain, &comment, &count]).await;
    if known.map_err(failed())?.is_some() {
        return Ok(());
    }
    let Patience { lock_timeout, mut tries } = patience;
    let (mut before, mut after) = (String::new(), String::new());
    loop {
        let script = format!(
            "SAVEPOINT views; SET LOCAL lock_timeout = '{lock_timeout}';
             CREATE SCHEMA IF NOT EXISTS {domain};\n{before}\n{views}\n{after}
             COMMENT ON SCHEMA {domain} IS '{comment}'; SET LOCAL lock_timeout TO DEFAULT"
        );
        let Err(error) = transaction.batch_execute(&script).await else { break };
        let undo = "ROLLBACK TO SAVEPOINT views";
        let state = error.code();
        if state == Some(&SqlState::LOCK_NOT_AVAILABLE) && tries > 1 {
            tries -= 1;
            transaction.batch_execute(undo).await.map_err(failed())?;
            tokio::time::sleep(LOCK_PAUSE).await;
        } else if state == Some(&SqlState::INVALID_TABLE_DEFINITION) && before.is_empty() {
            // Other columns than before: no view can be replaced by that one.
            transaction.batch_execute(undo).await.map_err(failed())?;
            let names = names(&views, domain);
            after = grants(transaction, domain, &names).await?;
            let drop = |name: &String| format!("DROP VIEW IF EXISTS {domain}.{name};\n");
            before = names.iter().map(drop).collect();
        } else {
            return Err(failed()(error));
        }
    }
    Ok(())
}

/// The names of the views that a script makes in a schema.
fn names(script: &str, domain: &str) -> Vec<String> {
    let prefix = format!("{CREATE_VIEW}{domain}.");
    let name = |part: &str| part.split_whitespace().next().map(str::to_owned);
    script.split(&prefix).skip(1).filter_map(name).collect()
}

/// Statements that give the readers of views what they may now, once those are made anew.
async fn grants(
    transaction: &Transaction<'_>,
    domain: &str,
    names: &[String],
) -> Result<String, Error> {
    let select = "SELECT format('GRANT %s ON %I.%I TO %s;', a.privilege_type, n.nspname, c.relname,
             CASE WHEN a.grantee = 0 THEN 'PUBLIC'
                  ELSE quote_ident(pg_get_userbyid(a.grantee)) END) AS statement
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
         WHERE n.nspname = $1 AND c.relname = ANY($2) AND c.relkind = 'v'
           AND a.grantee <> c.relowner";
    let rows = transaction.query(select, &[&domain, &names]).await;
    let rows = rows.map_err(Error::postgres("reading who may read the views"))?;
    Ok(rows.iter().map(|row| row.get::<_, String>("statement")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_has_tables_of_its_own_and_views_that_all_share() {
        let namespace = Namespace::new("test1").unwrap();
        let generation = Generation::new(&namespace, "banking", 2);
        let filled = generation.fill("{domain}.a FROM {schema}.b, {millrace}.c");
        assert_eq!(filled, "test1_banking.a FROM test1_banking_g2.b, test1_millrace.c");
        let beside = generation.beside().fill("{domain}.a FROM {schema}.b");
        assert_eq!(beside, "test1_banking_g2_next.a FROM test1_banking_g2.b");
    }

    #[test]
    fn the_views_of_a_script_are_known_by_name() {
        let script = "CREATE OR REPLACE VIEW b.one AS\nSELECT 1;\nCOMMENT ON VIEW b.one IS 'x';
             CREATE OR REPLACE VIEW b.two AS SELECT 2;";
        assert_eq!(names(script, "b"), ["one", "two"]);
    }
}
