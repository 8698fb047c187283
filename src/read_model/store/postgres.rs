//! Rows and checkpoint in one Postgres transaction: batch -> fold -> rows + place.
//!
//! The rows of a batch are written on the assumption that nothing of it is there yet, which the
//! statements themselves check (each row's version must be the one before). Where that does not
//! hold, all is rolled back, the rows' versions are read, and what they have is left out.

use std::future::Future;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deadpool_postgres::{
    Client, Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Transaction,
};
use postgres_native_tls::MakeTlsConnector;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::checkpoint::Checkpoints;
use super::fold::{Versions, fold};
use super::generation::{self, Generation};
use super::parked::postgres::ParkedEvents;
use super::parked::{Count, pointed_out};
use super::{Definition, Error, InUse, Source, Store, migration};
use crate::config;
use crate::engine::projector::{Failure, Refusal};
use crate::kernel::codec::CodecError;
use crate::kernel::message::Record;
use crate::kernel::projection::{Applied, Batch, Head, Held, Place, Redriven};
use crate::kernel::stream::{Namespace, parse_event_key};

/// The most connections that one process keeps.
const CONNECTIONS_MAX: usize = 12;

/// The longest that making a connection or waiting for one may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest that a peer may leave bytes unacknowledged.
const TCP_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest that reading a place may take.
const READ_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest that writing a batch, or clearing a partition's rows, may take.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// What a domain's rows are in Postgres.
pub trait Rows: Send + Sync + 'static {
    /// What a batch changes.
    type Changes: Default + Send + Sync;

    /// What is projected.
    fn definition(&self) -> &Definition;

    /// Adds an event's changes; `false` if its type is not known here.
    ///
    /// # Errors
    /// The event cannot be decoded.
    fn take(
        &self,
        source: &Source,
        head: &Head<'_>,
        record: &Record,
        changes: &mut Self::Changes,
    ) -> Result<bool, CodecError>;

    /// Reads the versions of streams' rows, and locks them.
    fn versions(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
        streams: &[&str],
    ) -> impl Future<Output = Result<Versions, tokio_postgres::Error>> + Send;

    /// Writes the changes; `false` if a row was not at the version that they follow on.
    fn write(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
        changes: &Self::Changes,
    ) -> impl Future<Output = Result<bool, tokio_postgres::Error>> + Send;

    /// Deletes the rows of a source.
    fn clear(
        &self,
        transaction: &Transaction<'_>,
        generation: &Generation,
        source: &Source,
    ) -> impl Future<Output = Result<(), tokio_postgres::Error>> + Send;
}

/// A way to Postgres.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    host: String,
    namespace: Namespace,
}

impl Database {
    /// Reads the address; connects when first used.
    ///
    /// # Errors
    /// The address or the machine's TLS set-up is unusable.
    pub fn new(settings: &config::Postgres, namespace: &Namespace) -> Result<Self, Error> {
        Self::open(settings, namespace, None)
    }

    /// As [`Database::new`], for questions that may not take longer than that.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn for_questions(
        settings: &config::Postgres,
        namespace: &Namespace,
        limit: Duration,
    ) -> Result<Self, Error> {
        let limit = format!("SET statement_timeout = {}", limit.as_millis());
        Self::open(settings, namespace, Some(limit))
    }

    fn open(
        settings: &config::Postgres,
        namespace: &Namespace,
        greeting: Option<String>,
    ) -> Result<Self, Error> {
        let address = |reason: String| Error::Address { setting: "MILLRACE_POSTGRES_URL", reason };
        let mut client = tokio_postgres::Config::from_str(&settings.url)
            .map_err(|error| address(chain(&error)))?;
        client.application_name("millrace");
        client
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(TCP_TIMEOUT)
            .keepalives_idle(TCP_TIMEOUT)
            .keepalives_interval(CONNECT_TIMEOUT)
            .keepalives_retries(3);
        let host = hosts(&client);
        let tls = native_tls::TlsConnector::new().map_err(|error| address(error.to_string()))?;
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(client, MakeTlsConnector::new(tls), recycling);
        let greet = Hook::async_fn(move |client, _| {
            let greeting = greeting.clone().unwrap_or_default();
            Box::pin(
                async move { client.batch_execute(&greeting).await.map_err(HookError::Backend) },
            )
        });
        let pool = Pool::builder(manager)
            .post_create(greet)
            .max_size(CONNECTIONS_MAX)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .build()
            .map_err(|error| address(error.to_string()))?;
        Ok(Self { pool, host, namespace: namespace.clone() })
    }

    /// A connection of the pool.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn client(&self) -> Result<Client, Error> {
        let client = self.pool.get().await;
        client.map_err(|source| Error::PostgresUnreachable { host: self.host.clone(), source })
    }

    /// What the server calls its version.
    ///
    /// # Errors
    /// Postgres does not answer.
    pub async fn version(&self) -> Result<String, Error> {
        let failed = || Error::postgres("asking for the version");
        let row = self.client().await?.query_one("SHOW server_version", &[]).await;
        row.map_err(failed())?.try_get(0).map_err(failed())
    }

    /// The prefix of every schema.
    #[must_use]
    pub const fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// The projection of a domain's events into Postgres.
#[derive(Debug)]
pub struct Postgres<R> {
    pub(super) database: Database,
    pub(super) rows: Arc<R>,
    /// The generation in use, if it is not this one.
    target: Option<i32>,
    opened: OnceLock<Opened>,
}

/// What is known once the tables are there.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    pub(super) generation: Generation,
    pub(super) checkpoints: Checkpoints,
    pub(super) parked: ParkedEvents,
}

impl<R: Rows> Postgres<R> {
    /// Puts rows and database together.
    #[must_use]
    pub fn new(database: Database, rows: R) -> Self {
        Self { database, rows: Arc::new(rows), target: None, opened: OnceLock::new() }
    }

    /// The same over a generation, or over the one in use, with nothing prepared yet.
    pub(super) fn with_target(&self, target: Option<i32>) -> Self {
        let (database, rows) = (self.database.clone(), Arc::clone(&self.rows));
        Self { database, rows, target, opened: OnceLock::new() }
    }

    pub(super) fn opened(&self) -> Result<&Opened, Error> {
        let missing = || Error::Corrupt("the tables were not prepared".to_owned());
        self.opened.get().ok_or_else(missing)
    }

    /// Writes a batch in one transaction. `None`: a row was at another version than expected.
    async fn attempt(
        &self,
        source: &Source,
        batch: &Batch,
        careful: bool,
    ) -> Result<Option<Applied>, Failure> {
        let mut client = self.database.client().await?;
        let work = self.write(&mut client, source, batch, careful);
        let outcome = timeout(WRITE_TIMEOUT, work).await;
        answered(outcome, client, "writing a batch", WRITE_TIMEOUT)
    }

    async fn write(
        &self,
        client: &mut Client,
        source: &Source,
        batch: &Batch,
        careful: bool,
    ) -> Result<Option<Applied>, Failure> {
        let Opened { generation, checkpoints, parked } = self.opened()?;
        let failed = || Error::postgres(format!("writing the rows of {}", source.topic));
        let mut changes = R::Changes::default();
        let mut applied = self.fold(source, batch, None, &mut changes).await?;
        let advance = client.prepare_cached(&checkpoints.advance).await;
        let advance = advance.map_err(failed())?;
        let transaction = client.transaction().await.map_err(failed())?;
        if careful {
            let streams = streams(batch);
            let versions = self
                .rows
                .versions(&transaction, generation, source, &streams)
                .await
                .map_err(failed())?;
            changes = R::Changes::default();
            applied = self.fold(source, batch, Some(&versions), &mut changes).await?;
        }
        if applied.next_offset == batch.from.next_offset {
            return Ok(Some(applied));
        }
        // One round trip for all of them; they are carried out in this order.
        let next_offset = applied.next_offset;
        let aside = batch.parked_before(next_offset).collect();
        parked.insert(&transaction, source, aside).await.map_err(failed())?;
        let (relaxed, advanced, written) = futures::join!(
            relax(&transaction, batch),
            checkpoints.advance(&transaction, &advance, source, batch.from, next_offset),
            self.rows.write(&transaction, generation, source, &changes),
        );
        relaxed.map_err(failed())?;
        if !advanced.map_err(failed())? {
            return Err(Failure::Conflict);
        }
        if !written.map_err(failed())? {
            return Ok(None);
        }
        transaction.commit().await.map_err(failed())?;
        Ok(Some(applied))
    }

    pub(super) async fn fold(
        &self,
        source: &Source,
        batch: &Batch,
        versions: Option<&Versions>,
        changes: &mut R::Changes,
    ) -> Result<Applied, Failure> {
        let folded = fold(batch, versions, |head: &Head<'_>, record: &Record| {
            self.rows.take(source, head, record, changes)
        });
        folded.await.map_err(Failure::Refused)
    }
}

impl<R: Rows> Store for Postgres<R> {
    fn name(&self) -> String {
        format!("postgres.{}", self.definition().domain)
    }

    fn definition(&self) -> &Definition {
        self.rows.definition()
    }

    fn generation(&self) -> i32 {
        self.opened.get().map_or(1, |opened| opened.generation.number)
    }

    fn anew(&self) -> Self {
        self.with_target(None)
    }

    async fn in_use(&self) -> Result<InUse, Error> {
        let (name, millrace) = (self.name(), self.database.namespace().underscored("millrace"));
        let client = self.database.client().await?;
        let asked = generation::live(&client, &millrace, &name);
        let outcome = timeout(READ_TIMEOUT, asked).await;
        let action = "asking for the generation in use";
        let live = answered(outcome, client, action, READ_TIMEOUT)?;
        Ok(InUse { generation: live.unwrap_or(1), is_held: false })
    }

    async fn prepare(&self) -> Result<(), Error> {
        let name = self.name();
        let failed = || Error::postgres(format!("preparing the tables of {name}"));
        let mut client = self.database.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        let namespace = self.database.namespace();
        migration::lock(&transaction).await?;
        migration::migrate(&transaction, &namespace.underscored("millrace")).await?;
        let definition = self.definition();
        let generation = match self.target {
            None => generation::open(&transaction, namespace, &name, definition).await?,
            Some(number) => {
                generation::open_only(&transaction, namespace, &name, definition, number).await?
            }
        };
        transaction.commit().await.map_err(failed())?;
        self.opened.get_or_init(|| Opened {
            checkpoints: Checkpoints::new(&name, &generation),
            parked: ParkedEvents::new(&name, &generation),
            generation,
        });
        Ok(())
    }

    async fn read_held(&self, source: &Source) -> Result<Held, Error> {
        let Opened { checkpoints, parked, .. } = self.opened()?;
        let client = self.database.client().await?;
        let outcome = timeout(READ_TIMEOUT, async {
            let statement = client.prepare_cached(&checkpoints.select).await;
            let statement = statement.map_err(Error::postgres("reading the checkpoint"))?;
            let held = checkpoints.read(&client, &statement, source).await?;
            // After the place: whoever parks more moves that, and then it is not ours to go on.
            let parked = parked.streams(&client, source).await?;
            Ok(Held { parked, ..held })
        })
        .await;
        answered(outcome, client, "reading the checkpoint", READ_TIMEOUT)
    }

    async fn reset(
        &self,
        source: &Source,
        expected: Option<Place>,
        place: Place,
        clear: bool,
    ) -> Result<bool, Error> {
        let Opened { generation, checkpoints, parked } = self.opened()?;
        let failed = || Error::postgres("resetting the checkpoint");
        let mut client = self.database.client().await?;
        let outcome = timeout(WRITE_TIMEOUT, async {
            // Synchronous, unlike a batch's: Kafka is told of it next.
            let transaction = client.transaction().await.map_err(failed())?;
            if !checkpoints.reset(&transaction, source, expected, place).await? {
                return Ok(false);
            }
            if clear {
                self.rows.clear(&transaction, generation, source).await.map_err(failed())?;
            }
            parked.clear(&transaction, source, place.next_offset).await.map_err(failed())?;
            transaction.commit().await.map_err(failed())?;
            Ok(true)
        })
        .await;
        answered(outcome, client, "resetting the checkpoint", WRITE_TIMEOUT)
    }

    async fn apply(&self, source: &Source, batch: Arc<Batch>) -> Result<Applied, Failure> {
        let applied = match self.attempt(source, &batch, false).await {
            Ok(None) => self.attempt(source, &batch, true).await,
            other => other,
        };
        applied.map_err(|failure| pointed_out(failure, &batch))?.ok_or_else(|| {
            let topic = &source.topic;
            Failure::Permanent(format!("rows of {topic} changed under their lock"))
        })
    }

    async fn redrive(
        &self,
        source: &Source,
        from: Place,
        stream: &str,
        rows: usize,
    ) -> Result<Redriven, Failure> {
        self.try_again(source, from, stream, rows).await
    }

    async fn keep(&self, source: &Source, stream: &str, refusal: &Refusal) -> Result<(), Error> {
        let parked = &self.opened()?.parked;
        let client = self.database.client().await?;
        let work = parked.keep(&client, source, stream, refusal);
        let outcome = timeout(WRITE_TIMEOUT, work).await;
        answered(outcome, client, "keeping parked events", WRITE_TIMEOUT)
    }

    async fn parked(&self) -> Result<Vec<Count>, Error> {
        let parked = &self.opened()?.parked;
        let client = self.database.client().await?;
        let outcome = timeout(READ_TIMEOUT, parked.count(&client)).await;
        answered(outcome, client, "counting the parked events", READ_TIMEOUT)
    }
}

/// What came of work on a connection. One that did not answer in time is closed: put back, it would
/// keep the next waiting too, and its transaction open.
pub(super) fn answered<T, E: From<Error>>(
    outcome: Result<Result<T, E>, Elapsed>,
    client: Client,
    action: &str,
    limit: Duration,
) -> Result<T, E> {
    outcome.unwrap_or_else(|_| {
        drop(Client::take(client));
        let (action, seconds) = (action.to_owned(), limit.as_secs());
        Err(Error::PostgresTimeout { action, seconds }.into())
    })
}

/// Every stream of a batch, once each. Not those of a fold: it ends where its own knowledge does,
/// which may be in front of events that fit once the rows' versions are known.
pub(super) fn streams(batch: &Batch) -> Vec<&str> {
    let keys = batch.records.iter().filter_map(|record| record.key.as_deref());
    let mut streams: Vec<&str> =
        keys.filter_map(parse_event_key).map(|(stream, _)| stream).collect();
    streams.sort_unstable();
    streams.dedup();
    streams
}

/// Spares a batch the wait for the disk, if another follows at once: a commit that waits makes all
/// before it durable too. Were the last one lost in a crash, nobody would notice until more came.
async fn relax(transaction: &Transaction<'_>, batch: &Batch) -> Result<(), tokio_postgres::Error> {
    if !batch.has_followers {
        return Ok(());
    }
    transaction.batch_execute("SET LOCAL synchronous_commit = off").await
}

fn hosts(client: &tokio_postgres::Config) -> String {
    let names = client.get_hosts().iter().map(|host| match host {
        tokio_postgres::config::Host::Tcp(name) => name.clone(),
        tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
    });
    let ports = client.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let all: Vec<String> =
        names.enumerate().map(|(index, name)| format!("{name}:{}", port(index))).collect();
    all.join(",")
}

fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(chain);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::stream::event_key;

    #[test]
    fn a_batchs_streams_are_those_of_all_its_keys() {
        let record = |key: Vec<u8>| Record { key: Some(key.into()), ..Record::default() };
        let keys = [event_key("b", 7), event_key("a", 1), b"x".to_vec(), event_key("b", 9)];
        let records = keys.into_iter().map(record).collect();
        let batch = Batch { records, ..Batch::default() };
        assert_eq!(streams(&batch), ["a", "b"]);
    }
}
