//! All wiring on one screen: which aggregates a domain has, who handles them, who reacts to them,
//! and who projects their events into which tables.

use std::sync::Arc;

use crate::codec::banking::AccountCodec;
use crate::codec::banking::account_opening::AccountOpeningCodec;
use crate::codec::banking::customer::CustomerCodec;
use crate::codec::banking::transfer::TransferCodec;
use crate::codec::schemas::Schemas;
use crate::config::Config;
use crate::domain::banking::account::Account;
use crate::domain::banking::account_opening::{AccountOpeningReactor, Opening};
use crate::domain::banking::customer::Customer;
use crate::domain::banking::transfer::{Transfer, TransferReactor};
use crate::engine::command_handler::CommandHandler;
use crate::kernel::codec::Codec;
use crate::kernel::decider::Decider;
use crate::kernel::reactor::Reactor;
use crate::kernel::stream::AggregateName;
use crate::read_model::banking::{self, event, postgres as rows};
use crate::read_model::store::{self, clickhouse, postgres};
use crate::runtime::handler_group::Aggregate;
use crate::runtime::lane::SchemaLookUp;
use crate::runtime::projection::{Error, Projection, Settings};

/// The domains that have command handlers, each with its aggregates.
#[must_use]
pub fn handlers(schemas: &Arc<Schemas>) -> Vec<(&'static str, Vec<Aggregate>)> {
    let banking = vec![
        handled_by::<Account, _>(AccountCodec::new(Arc::clone(schemas))),
        handled_by::<Customer, _>(CustomerCodec::new(Arc::clone(schemas))),
        handled_by::<Transfer, _>(TransferCodec::new(Arc::clone(schemas))),
        handled_by::<Opening, _>(AccountOpeningCodec::new(Arc::clone(schemas))),
    ];
    vec![("banking", banking)]
}

/// The process managers, each with the aggregates that its commands may go to.
#[must_use]
pub fn reactors(schemas: &Arc<Schemas>) -> Vec<(Arc<dyn Reactor>, Vec<AggregateName>)> {
    let codecs = banking_codecs(schemas);
    let transfer = TransferReactor::new(Arc::clone(&codecs.accounts), codecs.transfers);
    let opening = AccountOpeningReactor::new(codecs.accounts, codecs.customers, codecs.openings);
    vec![
        (Arc::new(transfer), vec![Account::NAME, Transfer::NAME]),
        (Arc::new(opening), vec![Account::NAME, Customer::NAME, Opening::NAME]),
    ]
}

fn handled_by<D: Decider, C: Codec<D>>(codec: C) -> Aggregate {
    let codec = Arc::new(codec);
    Aggregate {
        name: D::NAME,
        has_timers: D::HAS_TIMERS,
        make: Arc::new(move |settings, shelf| {
            Box::new(CommandHandler::<D, C>::new(settings, Arc::clone(&codec), shelf))
        }),
    }
}

/// The projections, by store and domain, each with the aggregates whose events it reads.
pub const PROJECTIONS: [(&str, &str, &[AggregateName]); 2] = [
    ("postgres", banking::DOMAIN, &rows::AGGREGATES),
    ("clickhouse", banking::DOMAIN, &event::AGGREGATES),
];

/// What reads the events of banking's aggregates.
#[must_use]
pub fn banking_codecs(schemas: &Arc<Schemas>) -> banking::Codecs {
    banking::Codecs {
        accounts: Arc::new(AccountCodec::new(Arc::clone(schemas))),
        customers: Arc::new(CustomerCodec::new(Arc::clone(schemas))),
        transfers: Arc::new(TransferCodec::new(Arc::clone(schemas))),
        openings: Arc::new(AccountOpeningCodec::new(Arc::clone(schemas))),
    }
}

/// Banking's balances, transactions and transfers.
///
/// # Errors
/// Postgres or the brokers do not answer, or tables or topics are not as they must be.
pub async fn postgres_banking(
    config: &Config,
    schemas: &Arc<Schemas>,
    look_up: SchemaLookUp,
) -> Result<Projection, Error> {
    let store = postgres_banking_store(config, schemas)?;
    Projection::start(config, store, Settings::POSTGRES, look_up).await
}

/// Where they are kept.
///
/// # Errors
/// The address of Postgres is unusable.
pub fn postgres_banking_store(
    config: &Config,
    schemas: &Arc<Schemas>,
) -> Result<postgres::Postgres<rows::Banking>, store::Error> {
    let database = postgres::Database::new(&config.postgres, &config.namespace)?;
    Ok(postgres::Postgres::new(database, rows::Banking::new(banking_codecs(schemas))))
}

/// Banking's events, for its panels.
///
/// # Errors
/// ClickHouse or the brokers do not answer, or tables or topics are not as they must be.
pub async fn clickhouse_banking(
    config: &Config,
    schemas: &Arc<Schemas>,
    look_up: SchemaLookUp,
) -> Result<Projection, Error> {
    let store = clickhouse_banking_store(config, schemas)?;
    Projection::start(config, store, Settings::CLICKHOUSE, look_up).await
}

/// Where they are kept.
///
/// # Errors
/// The address of ClickHouse is unusable.
pub fn clickhouse_banking_store(
    config: &Config,
    schemas: &Arc<Schemas>,
) -> Result<clickhouse::ClickHouse<event::Events>, store::Error> {
    let database = clickhouse::Database::new(&config.clickhouse, &config.namespace)?;
    Ok(clickhouse::ClickHouse::new(database, event::Events::new(banking_codecs(schemas))))
}
