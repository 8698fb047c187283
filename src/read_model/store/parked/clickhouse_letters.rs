//! What people ask ClickHouse about parked events of the generations in use: filter -> letters,
//! counts, a request.

use super::clickhouse::{EVENT, EventRow, WANTED, counts, fetch, quoted, record};
use super::{Count, Filter, Letter, identity};
use crate::kernel::time::Timestamp;
use crate::read_model::store::Error;
use crate::read_model::store::clickhouse::Database;

impl Database {
    async fn has_parked(&self) -> Result<bool, Error> {
        let select = format!(
            "SELECT count() FROM system.tables WHERE database = {}
             AND name IN ('failed_event', 'failed_event_request')",
            quoted(self.name())
        );
        let found: Vec<u64> = fetch(self, &select, "looking for parked events").await?;
        Ok(found == [2])
    }

    /// Only of the generations in use: each domain's view names its own.
    fn in_use(&self) -> String {
        format!(
            "(projection, generation) IN (
                 SELECT concat('clickhouse.', name),
                     toInt32OrZero(extract(comment, 'generation (\\\\d+)'))
                 FROM system.tables WHERE database = {} AND engine = 'View'
                 AND startsWith(comment, '(generation '))",
            quoted(self.name())
        )
    }

    fn matching(&self, filter: &Filter) -> String {
        let of = |column: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{column} = {}", quoted(value)))
        };
        let parts = [
            Some(self.in_use()),
            of("projection", &filter.projection),
            of("topic", &filter.topic),
            of("stream", &filter.stream),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        parts.join(" AND ")
    }

    /// How many events of each projection and partition are parked.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn count_parked(&self) -> Result<Vec<Count>, Error> {
        if !self.has_parked().await? {
            return Ok(Vec::new());
        }
        counts(self, &self.in_use()).await
    }

    /// Parked events, by projection and place in the log.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn list_parked(&self, filter: &Filter) -> Result<Vec<Letter>, Error> {
        if !self.has_parked().await? {
            return Ok(Vec::new());
        }
        let name = self.name();
        let select = format!(
            "SELECT {EVENT}, (projection, generation, topic, partition, stream) IN (
                 SELECT projection, generation, topic, partition, stream
                 FROM {name}.failed_event_request {WANTED}) AS is_wanted
             FROM {name}.failed_event FINAL WHERE {}
             ORDER BY projection, generation, topic, partition, kafka_offset LIMIT {}",
            self.matching(filter),
            filter.limit
        );
        let rows: Vec<EventRow> = fetch(self, &select, "reading the parked events").await?;
        Ok(rows.into_iter().map(letter).collect())
    }

    /// How many such events are parked, and how many of them are still to be tried.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn left_parked(&self, filter: &Filter) -> Result<(u64, u64), Error> {
        if !self.has_parked().await? {
            return Ok((0, 0));
        }
        let name = self.name();
        let select = format!(
            "SELECT count() AS parked, countIf((projection, generation, topic, partition, stream)
                 IN (SELECT projection, generation, topic, partition, stream
                     FROM {name}.failed_event_request {WANTED})) AS wanted
             FROM {name}.failed_event FINAL WHERE {}",
            self.matching(filter)
        );
        let found: Vec<(u64, u64)> = fetch(self, &select, "counting the parked events").await?;
        Ok(found.first().copied().unwrap_or_default())
    }

    /// Asks the projection to try parked events again; says how many those are.
    ///
    /// # Errors
    /// ClickHouse does not answer.
    pub async fn want_parked(&self, filter: &Filter) -> Result<u64, Error> {
        if !self.has_parked().await? {
            return Ok(0);
        }
        let (name, matching) = (self.name(), self.matching(filter));
        let count = format!("SELECT count() FROM {name}.failed_event FINAL WHERE {matching}");
        let found: Vec<u64> = fetch(self, &count, "counting the parked events").await?;
        let insert = format!(
            "INSERT INTO {name}.failed_event_request
                 (projection, generation, topic, partition, stream, requested_at)
             SELECT DISTINCT projection, generation, topic, partition, stream, now64(6)
             FROM {name}.failed_event FINAL WHERE {matching}"
        );
        self.execute(&insert, "asking for parked events").await?;
        Ok(found.first().copied().unwrap_or_default())
    }
}

fn letter(mut row: EventRow) -> Letter {
    let take = |text: &mut String| std::mem::take(text);
    let (projection, topic) = (take(&mut row.projection), take(&mut row.topic));
    let (error_code, error) = (take(&mut row.error_code), take(&mut row.error_message));
    let (generation, partition) = (row.generation, row.partition);
    let (attempts, is_wanted) = (row.attempts, row.is_wanted == 1);
    let parked_at = Timestamp(row.created_us);
    let record = record(row);
    let (stream, sequence) = identity(&record);
    Letter {
        stream: stream.to_owned(),
        sequence,
        projection,
        generation,
        topic,
        partition,
        error_code,
        error,
        attempts,
        parked_at,
        is_wanted,
        record,
    }
}
