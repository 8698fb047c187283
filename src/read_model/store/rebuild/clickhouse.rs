//! Generations in ClickHouse: a table each, whose comment says what it is for; views over one.

use std::time::Duration;

use ::clickhouse::Row;
use serde::Deserialize;
use uuid::Uuid;

use super::{End, Ends, Generations, Known, ParkedStreams, State, Switch, covers};
use crate::clock;
use crate::kernel::stream::Kind;
use crate::read_model::store::clickhouse::{Blocks, ClickHouse};
use crate::read_model::store::clickhouse_place::{Shown, made_by};
use crate::read_model::store::{Error, Store};

#[derive(Row, Deserialize)]
struct EndRow {
    aggregate: String,
    partition: i32,
    #[serde(with = "::clickhouse::serde::uuid")]
    topic_id: Uuid,
    next_offset: i64,
}

impl<B: Blocks> ClickHouse<B> {
    async fn set_comment(&self, table: &str, comment: &str) -> Result<(), Error> {
        let (database, comment) = (self.database.name(), comment.replace('\'', "\\'"));
        let alter = format!("ALTER TABLE {database}.{table} MODIFY COMMENT '{comment}'");
        self.database.execute(&alter, &format!("marking {table}")).await
    }

    /// Says what a generation's table is for.
    async fn mark(&self, generation: i32, state: State) -> Result<(), Error> {
        let table = self.table_of(generation);
        let comment = self.database.comment(&table).await?.unwrap_or_default();
        let made_by = made_by(&comment).0;
        let marked = match state {
            State::Live => made_by.to_owned(),
            State::Building => format!("{made_by} building"),
            State::Retired(at) => format!("{made_by} retired {at}"),
        };
        self.set_comment(&table, &marked).await
    }

    async fn is_ours(&self, generation: i32) -> Result<bool, Error> {
        let comment = self.database.comment(&self.table_of(generation)).await?;
        Ok(comment.is_some_and(|comment| made_by(&comment).0 == self.made_by()))
    }

    /// Does what somebody did not who was killed in the middle of a switch.
    async fn finish_switch(&self, live: i32) -> Result<(), Error> {
        let comment = self.database.comment(&self.table_of(live)).await?.unwrap_or_default();
        let (found, state) = made_by(&comment);
        if state != State::Live && found == self.made_by() {
            self.mark(live, State::Live).await?;
        }
        Ok(())
    }

    /// Which rows of the system's tables are about a generation of this projection.
    fn of(&self, generation: i32) -> String {
        format!("projection = '{}' AND generation = {generation}", self.name())
    }

    async fn delete_parked(&self, generation: i32) -> Result<(), Error> {
        for table in ["failed_event", "failed_event_request"] {
            let (database, of) = (self.database.name(), self.of(generation));
            let delete = format!("DELETE FROM {database}.{table} WHERE {of}");
            self.database.execute(&delete, "forgetting parked events").await?;
        }
        Ok(())
    }
}

impl<B: Blocks> Generations for ClickHouse<B> {
    fn over(&self, generation: i32) -> Self {
        self.with_target(Some(generation))
    }

    async fn known(&self) -> Result<Vec<Known>, Error> {
        let prefix = self.table_of(0);
        let prefix = prefix.trim_end_matches('0');
        let rows = self
            .database
            .client()
            .query_raw(
                "SELECT name, comment FROM system.tables
                 WHERE database = {database: String} AND startsWith(name, {prefix: String})",
            )
            .param("database", self.database.name())
            .param("prefix", prefix)
            .fetch_all::<(String, String)>()
            .await
            .map_err(|error| self.database.failed(error, "listing the generations"))?;
        let live = self.shown().await?.map(|shown| shown.generation);
        if let Some(live) = live {
            self.finish_switch(live).await?;
        }
        let known = |(name, comment): &(String, String)| {
            let number: i32 = name.strip_prefix(prefix)?.parse().ok()?;
            let (made_by, state) = made_by(comment);
            let state = match state {
                _ if live == Some(number) => State::Live,
                // It was in use until somebody was killed in the middle of a switch.
                State::Live => State::Retired(i64::MAX),
                State::Building | State::Retired(_) => state,
            };
            Some(Known { number, state, is_ours: made_by == self.made_by() })
        };
        let mut all: Vec<Known> = rows.iter().filter_map(known).collect();
        all.sort_by_key(|known| known.number);
        Ok(if live.is_some() { all } else { Vec::new() })
    }

    async fn begin(&self, generation: i32) -> Result<(), Error> {
        self.make_tables(generation, &format!("{} building", self.made_by())).await
    }

    /// What is compared is the table.
    async fn show_beside(&self, _generation: i32) -> Result<(), Error> {
        Ok(())
    }

    async fn ends(&self, generation: i32) -> Result<Ends, Error> {
        let select = format!(
            "SELECT aggregate, kafka_partition AS partition, topic_id,
                 max(kafka_offset) + 1 AS next_offset
             FROM {}.{} GROUP BY aggregate, partition, topic_id",
            self.database.name(),
            self.table_of(generation)
        );
        let rows = self.database.client().query_raw(&select).fetch_all::<EndRow>().await;
        let rows =
            rows.map_err(|error| self.database.failed(error, "asking where the rows end"))?;
        let end = |row: EndRow| {
            let EndRow { aggregate, partition, topic_id, next_offset } = row;
            let all = self.definition().aggregates.iter();
            let name = all.copied().find(|name| name.aggregate == aggregate)?;
            let topic = self.database.namespace().dotted(&name.topic(Kind::Events));
            Some(((topic, partition), End { topic_id, next_offset }))
        };
        Ok(rows.into_iter().filter_map(end).collect())
    }

    async fn parked_streams(&self, generation: i32) -> Result<ParkedStreams, Error> {
        let select = format!(
            "SELECT topic, stream, argMin(error_message, kafka_offset)
             FROM {}.failed_event FINAL WHERE {} GROUP BY topic, stream",
            self.database.name(),
            self.of(generation)
        );
        let rows = self.database.client().query_raw(&select);
        let rows = rows.fetch_all::<(String, String, String)>().await;
        let rows = rows.map_err(|error| self.database.failed(error, "reading parked streams"))?;
        Ok(rows.into_iter().map(|(topic, stream, error)| ((topic, stream), error)).collect())
    }

    async fn want_parked_of(&self, generation: i32) -> Result<(), Error> {
        let (database, of) = (self.database.name(), self.of(generation));
        let insert = format!(
            "INSERT INTO {database}.failed_event_request
                 (projection, generation, topic, partition, stream, requested_at)
             SELECT DISTINCT projection, generation, topic, partition, stream, now64(6)
             FROM {database}.failed_event FINAL WHERE {of}"
        );
        self.database.execute(&insert, "asking for parked events").await
    }

    async fn hold(&self, longest: Duration) -> Result<bool, Error> {
        let view = self.view();
        let comment = self.database.comment(view).await?.unwrap_or_default();
        let now = self.database.client().query_raw("SELECT toUnixTimestamp64Milli(now64(3))");
        let now = now.fetch_one::<i64>().await;
        let now = now.map_err(|error| self.database.failed(error, "asking for the time"))?;
        let until = now + i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
        self.set_comment(view, &Shown::held(&comment, until)).await?;
        Ok(true)
    }

    async fn release(&self) -> Result<(), Error> {
        let view = self.view();
        let comment = self.database.comment(view).await?.unwrap_or_default();
        let free = Shown::free(&comment);
        if free == comment { Ok(()) } else { self.set_comment(view, free).await }
    }

    async fn switch(&self, from: i32, to: i32, proven: &Ends) -> Result<Switch, Error> {
        let (own, in_use) = (self.ends(to).await?, self.ends(from).await?);
        if !covers(&own, proven, &in_use) {
            return Ok(Switch::Behind);
        }
        let took = self.show(to).await?;
        self.mark(to, State::Live).await?;
        self.mark(from, State::Retired(clock::now().0)).await?;
        Ok(Switch::Done(took))
    }

    async fn discard(&self, generation: i32) -> Result<(), Error> {
        let live = self.shown().await?.map(|shown| shown.generation);
        if live == Some(generation) {
            let name = self.name();
            return Err(Error::Generation(format!("generation {generation} of {name} is in use")));
        }
        // All of them read the one in use, also if somebody was killed in a switch.
        if let Some(live) = live
            && self.is_ours(live).await?
        {
            self.show(live).await?;
        }
        let table = format!("{}.{}", self.database.name(), self.table_of(generation));
        let drop = format!("DROP TABLE IF EXISTS {table} SYNC");
        self.database.execute(&drop, &format!("dropping {table}")).await?;
        self.delete_parked(generation).await
    }
}
