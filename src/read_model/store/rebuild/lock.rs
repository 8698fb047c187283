//! One rebuild at a time: projection -> a lock that ends with its holder.
//!
//! Postgres keeps it for both stores: it lasts as long as the connection, so that of a process that
//! is killed nothing is left.

use deadpool_postgres::Client;
use ring::digest;

use crate::read_model::store::Error;
use crate::read_model::store::postgres::Database;

/// A projection's generations are ours to change until this is dropped.
pub struct Lock {
    client: Option<Client>,
}

impl Lock {
    /// Takes the lock; `None` if somebody else has it.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn take(database: &Database, projection: &str) -> Result<Option<Self>, Error> {
        let name = format!("{} rebuild {projection}", database.namespace().as_str());
        let digest = digest::digest(&digest::SHA256, name.as_bytes());
        let mut key = [0; 8];
        key.copy_from_slice(&digest.as_ref()[..8]);
        let client = database.client().await?;
        // Whoever was killed is noticed at once; whose machine is gone, by this.
        let take = "SELECT pg_try_advisory_lock($1) AS taken";
        let row = client.query_one(take, &[&i64::from_be_bytes(key)]).await;
        let row = row.map_err(Error::postgres("taking the rebuild's lock"))?;
        let lock = Self { client: Some(client) };
        Ok(row.get::<_, bool>("taken").then_some(lock))
    }

    /// Makes sure that it is still ours.
    ///
    /// # Errors
    /// The connection is gone, and with it the lock.
    pub async fn check(&self) -> Result<(), Error> {
        let Some(client) = &self.client else { return Ok(()) };
        let alive = client.simple_query("SELECT 1").await;
        alive.map(drop).map_err(Error::postgres("keeping the rebuild's lock"))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not back into the pool: closed, and the lock with it.
        if let Some(client) = self.client.take() {
            drop(Client::take(client));
        }
    }
}
