//! Generations in Postgres: a schema each, listed in `millrace.projection`; views over one.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use deadpool_postgres::{Client, Transaction};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use super::{End, Ends, Generations, Known, ParkedStreams, State, Switch, covers};
use crate::kernel::stream::parse_event_key;
use crate::read_model::store::generation::{self, Generation, Patience, tables_hash};
use crate::read_model::store::migration;
use crate::read_model::store::postgres::{Postgres, Rows, WRITE_TIMEOUT, answered};
use crate::read_model::store::{Error, Store};

/// The longest that a batch of the generation in use, and readers of its views, wait at a time.
const LOCK_TIMEOUT: &str = "300ms";
/// The longest that they wait until the other one has what they have.
const BEHIND_MAX: Duration = Duration::from_millis(300);
const BEHIND_PAUSE: Duration = Duration::from_millis(5);

impl<R: Rows> Postgres<R> {
    fn millrace(&self) -> String {
        self.database.namespace().underscored("millrace")
    }

    fn generation_of(&self, number: i32) -> Generation {
        Generation::new(self.database.namespace(), self.definition().domain, number)
    }

    async fn rows_of(&self, select: &str, generation: i32) -> Result<Vec<Row>, Error> {
        let client = self.database.client().await?;
        let rows = client.query(select, &[&self.name(), &generation]).await;
        rows.map_err(Error::postgres("asking about a generation"))
    }

    async fn try_switch(
        &self,
        client: &mut Client,
        from: i32,
        to: i32,
        proven: &Ends,
    ) -> Result<Switch, Error> {
        let (name, millrace) = (self.name(), self.millrace());
        let failed = || Error::postgres(format!("putting generation {to} of {name} in use"));
        let transaction = client.transaction().await.map_err(failed())?;
        let patience = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
        transaction.batch_execute(&patience).await.map_err(failed())?;
        migration::lock(&transaction).await?;
        let started = Instant::now();
        // From here on no batch goes into the generation in use.
        let in_use = ends(&transaction, &millrace, &name, from, "FOR UPDATE").await?;
        while !covers(&ends(&transaction, &millrace, &name, to, "").await?, proven, &in_use) {
            if started.elapsed() > BEHIND_MAX {
                return Ok(Switch::Behind);
            }
            tokio::time::sleep(BEHIND_PAUSE).await;
        }
        let retire = format!(
            "UPDATE {millrace}.projection SET state = 'retired', retired_at = clock_timestamp()
             WHERE name = $1 AND generation = $2 AND state = 'live'"
        );
        let was_live = transaction.execute(&retire, &[&name, &from]).await.map_err(failed())?;
        let put_in_use = format!(
            "UPDATE {millrace}.projection SET state = 'live', retired_at = NULL
             WHERE name = $1 AND generation = $2"
        );
        let is_live = transaction.execute(&put_in_use, &[&name, &to]).await.map_err(failed())?;
        if (was_live, is_live) != (1, 1) {
            return Err(Error::Generation(format!("generation {from} of {name} is not in use")));
        }
        let patience = Patience { lock_timeout: LOCK_TIMEOUT, tries: 1 };
        let generation = self.generation_of(to);
        generation::switch_views(&transaction, &generation, self.definition(), patience).await?;
        transaction.commit().await.map_err(failed())?;
        Ok(Switch::Done(started.elapsed()))
    }

    async fn drop_views_beside(&self, generation: i32) -> Result<(), Error> {
        let beside = self.generation_of(generation).beside().domain;
        // Nobody but the comparison knows of them.
        let drop = format!("DROP SCHEMA IF EXISTS {beside} CASCADE");
        let client = self.database.client().await?;
        let dropped = client.batch_execute(&drop).await;
        dropped.map_err(Error::postgres(format!("dropping the views of {beside}")))
    }
}

impl<R: Rows> Generations for Postgres<R> {
    fn over(&self, generation: i32) -> Self {
        self.with_target(Some(generation))
    }

    async fn known(&self) -> Result<Vec<Known>, Error> {
        let (name, millrace) = (self.name(), self.millrace());
        let failed = || Error::postgres(format!("listing the generations of {name}"));
        let mut client = self.database.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        migration::lock(&transaction).await?;
        migration::migrate(&transaction, &millrace).await?;
        transaction.commit().await.map_err(failed())?;
        let select = format!(
            "SELECT generation, state, version, tables_hash, retired_at
             FROM {millrace}.projection WHERE name = $1 ORDER BY generation"
        );
        let definition = self.definition();
        let hash = tables_hash(definition);
        let known = |row: &Row| {
            let retired_at: Option<DateTime<Utc>> = row.get("retired_at");
            Known {
                number: row.get("generation"),
                state: match row.get("state") {
                    "live" => State::Live,
                    "building" => State::Building,
                    _ => State::Retired(retired_at.map_or(0, |at| at.timestamp_micros())),
                },
                is_ours: row.get::<_, i32>("version") == definition.version
                    && row.get::<_, &str>("tables_hash") == hash,
            }
        };
        let rows = client.query(&select, &[&name]).await.map_err(failed())?;
        Ok(rows.iter().map(known).collect())
    }

    async fn begin(&self, number: i32) -> Result<(), Error> {
        let (name, millrace) = (self.name(), self.millrace());
        let failed = || Error::postgres(format!("making generation {number} of {name}"));
        let mut client = self.database.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        migration::lock(&transaction).await?;
        let definition = self.definition();
        generation::create(&transaction, &self.generation_of(number), definition).await?;
        let insert = format!(
            "INSERT INTO {millrace}.projection (name, generation, state, version, tables_hash)
             VALUES ($1, $2, 'building', $3, $4)"
        );
        let hash = tables_hash(definition);
        transaction
            .execute(&insert, &[&name, &number, &definition.version, &hash])
            .await
            .map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }

    async fn show_beside(&self, number: i32) -> Result<(), Error> {
        let failed = || Error::postgres("making the views to compare");
        let mut client = self.database.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        migration::lock(&transaction).await?;
        let beside = self.generation_of(number).beside();
        let patience = Patience { lock_timeout: "2s", tries: 1 };
        generation::switch_views(&transaction, &beside, self.definition(), patience).await?;
        transaction.commit().await.map_err(failed())
    }

    async fn ends(&self, generation: i32) -> Result<Ends, Error> {
        let mut client = self.database.client().await?;
        let failed = || Error::postgres("asking where a generation ends");
        let transaction = client.transaction().await.map_err(failed())?;
        ends(&transaction, &self.millrace(), &self.name(), generation, "").await
    }

    async fn parked_streams(&self, generation: i32) -> Result<ParkedStreams, Error> {
        let select = format!(
            "SELECT DISTINCT ON (topic, stream) topic, event_key, error_message FROM {}.failed_event
             WHERE projection = $1 AND generation = $2 ORDER BY topic, stream, kafka_offset",
            self.millrace()
        );
        let rows = self.rows_of(&select, generation).await?;
        let stream = |row: &Row| {
            let (stream, _) = parse_event_key(row.get("event_key"))?;
            Some(((row.get("topic"), stream.to_owned()), row.get("error_message")))
        };
        Ok(rows.iter().filter_map(stream).collect())
    }

    async fn want_parked_of(&self, generation: i32) -> Result<(), Error> {
        let update = format!(
            "UPDATE {}.failed_event SET redrive_requested_at = now()
             WHERE projection = $1 AND generation = $2",
            self.millrace()
        );
        self.rows_of(&update, generation).await.map(drop)
    }

    /// The switch itself holds them.
    async fn hold(&self, _longest: Duration) -> Result<bool, Error> {
        Ok(false)
    }

    async fn release(&self) -> Result<(), Error> {
        Ok(())
    }

    async fn switch(&self, from: i32, to: i32, proven: &Ends) -> Result<Switch, Error> {
        let mut client = self.database.client().await?;
        let outcome = timeout(WRITE_TIMEOUT, self.try_switch(&mut client, from, to, proven)).await;
        match answered(outcome, client, "switching the views", WRITE_TIMEOUT) {
            Err(Error::Postgres { source, .. })
                if source.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) =>
            {
                Ok(Switch::Locked)
            }
            Ok(Switch::Done(took)) => {
                // Left behind by whoever is killed here, they are made anew when next needed.
                if let Err(error) = self.drop_views_beside(to).await {
                    tracing::debug!(error = error.chain(), "the compared views stay");
                }
                Ok(Switch::Done(took))
            }
            other => other,
        }
    }

    async fn discard(&self, number: i32) -> Result<(), Error> {
        self.drop_views_beside(number).await?;
        let (name, millrace) = (self.name(), self.millrace());
        let failed = || {
            Error::postgres(format!(
                "dropping generation {number} of {name} (drop what you made over its tables)"
            ))
        };
        let mut client = self.database.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        migration::lock(&transaction).await?;
        let forget = format!(
            "DELETE FROM {millrace}.projection
             WHERE name = $1 AND generation = $2 AND state <> 'live'"
        );
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 2] = [&name, &number];
        if transaction.execute(&forget, &values).await.map_err(failed())? != 1 {
            return Err(Error::Generation(format!("generation {number} of {name} is in use")));
        }
        for table in ["checkpoint", "failed_event"] {
            let delete =
                format!("DELETE FROM {millrace}.{table} WHERE projection = $1 AND generation = $2");
            transaction.execute(&delete, &values).await.map_err(failed())?;
        }
        let schema = self.generation_of(number).schema;
        let tables = "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') AS tables
             FROM pg_tables WHERE schemaname = $1";
        let row = transaction.query_one(tables, &[&schema]).await.map_err(failed())?;
        // All at once, and nothing that hangs on them.
        let drop = row
            .get::<_, Option<String>>("tables")
            .map_or_else(String::new, |tables| format!("DROP TABLE {tables};"));
        let drop = format!("{drop} DROP SCHEMA IF EXISTS {schema}");
        transaction.batch_execute(&drop).await.map_err(failed())?;
        transaction.commit().await.map_err(failed())
    }
}

async fn ends(
    transaction: &Transaction<'_>,
    millrace: &str,
    projection: &str,
    generation: i32,
    lock: &str,
) -> Result<Ends, Error> {
    let select = format!(
        "SELECT topic, partition, topic_id, next_offset FROM {millrace}.checkpoint
         WHERE projection = $1 AND generation = $2 ORDER BY topic, partition {lock}"
    );
    let rows = transaction.query(&select, &[&projection, &generation]).await;
    let rows = rows.map_err(Error::postgres("asking where a generation ends"))?;
    let end = |row: &Row| {
        let end = End { topic_id: row.get("topic_id"), next_offset: row.get("next_offset") };
        ((row.get("topic"), row.get("partition")), end)
    };
    Ok(rows.iter().map(end).collect())
}
