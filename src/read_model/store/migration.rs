//! The system schema `millrace`, step by step: numbered files -> tables.
//!
//! Only this schema is migrated. Read models are made anew instead, a generation at a time.

use ring::digest;
use tokio_postgres::Transaction;

use super::Error;

/// Every step, in order. A step that was released is never changed.
const STEPS: [(i32, &str); 3] = [
    (1, include_str!("migrations/001_system.sql")),
    (2, include_str!("migrations/002_parked.sql")),
    (3, include_str!("migrations/003_retired.sql")),
];

/// Keeps two processes from making tables at the same time, whatever their namespace.
const LOCK: i64 = 0x6d69_6c6c_7261_6365;

/// Waits until nobody else makes tables in this database, until the transaction ends.
///
/// # Errors
/// The statement fails.
pub async fn lock(transaction: &Transaction<'_>) -> Result<(), Error> {
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
        .await
        .map_err(Error::postgres("waiting for the migration lock"))?;
    Ok(())
}

/// Brings the system schema up to date, under the lock.
///
/// # Errors
/// A statement fails, or an applied step is not the one in this program.
pub async fn migrate(transaction: &Transaction<'_>, schema: &str) -> Result<(), Error> {
    let ledger = format!(
        "CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE TABLE IF NOT EXISTS {schema}.migration (
             number integer PRIMARY KEY, checksum text NOT NULL,
             applied_at timestamptz NOT NULL DEFAULT now())"
    );
    let failed = || Error::postgres(format!("migrating schema {schema}"));
    transaction.batch_execute(&ledger).await.map_err(failed())?;
    let select = format!("SELECT number, checksum FROM {schema}.migration");
    let applied = transaction.query(&select, &[]).await.map_err(failed())?;
    for (number, text) in STEPS {
        let checksum = hash([text]);
        let found = applied.iter().find(|row| row.get::<_, i32>("number") == number);
        match found.map(|row| row.get::<_, &str>("checksum")) {
            Some(known) if known == checksum => {}
            Some(_) => {
                return Err(Error::Migration { schema: schema.to_owned(), number });
            }
            None => {
                let step = text.replace("{millrace}", schema);
                transaction.batch_execute(&step).await.map_err(failed())?;
                let insert = format!("INSERT INTO {schema}.migration VALUES ($1, $2)");
                transaction.execute(&insert, &[&number, &checksum]).await.map_err(failed())?;
            }
        }
    }
    Ok(())
}

/// The first 128 bits of SHA-256 over texts, as hexadecimal digits.
#[must_use]
pub fn hash<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for text in texts {
        context.update(text.as_bytes());
        context.update(&[0]);
    }
    let digest = context.finish();
    let bytes = &digest.as_ref()[..16];
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
