//! What banking's stores must hold, said once more and in another way: facts -> rows.
//!
//! Each aggregate's events stand in a table of rules here, with the sign of every amount; the
//! projections and the domain have code of their own, and neither is looked at.

pub mod account;
pub mod event;
pub mod snapshot;
pub mod transfer;

#[cfg(test)]
mod tests;

use account::Account;
use transfer::Transfer;

use super::cell::Row;
use super::fact::Fact;

/// The domain's name.
pub const DOMAIN: &str = "banking";

/// A kind of aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// Bank accounts.
    Account,
    /// Customers, with their slots.
    Customer,
    /// Transfers: sagas.
    Transfer,
    /// Openings of accounts: sagas.
    Opening,
}

impl Aggregate {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Account, Self::Customer, Self::Transfer, Self::Opening];

    /// As topics call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Customer => "customer",
            Self::Transfer => "transfer",
            Self::Opening => "account-opening",
        }
    }

    /// The events that the stores know.
    #[must_use]
    pub const fn events(self) -> &'static [&'static str] {
        match self {
            Self::Account => &account::EVENTS,
            Self::Customer => &event::CUSTOMER,
            Self::Transfer => &transfer::EVENTS,
            Self::Opening => &event::OPENING,
        }
    }

    /// The tables in Postgres that are made of it: one row a stream, and perhaps rows of events.
    #[must_use]
    pub const fn tables(self) -> Option<Tables> {
        match self {
            Self::Account => {
                Some(Tables { stream: account::SUMMARY, events: Some(account::TRANSACTION) })
            }
            Self::Transfer => Some(Tables { stream: transfer::TABLE, events: None }),
            Self::Customer | Self::Opening => None,
        }
    }
}

/// A table that is compared.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The column that names the stream.
    pub id: &'static str,
    /// The columns that are compared.
    pub columns: &'static [&'static str],
    /// How many of them stand in the table itself; the others are its view's.
    pub own: usize,
}

/// The tables of one aggregate.
#[derive(Clone, Copy, Debug)]
pub struct Tables {
    /// One row a stream.
    pub stream: Table,
    /// One row for some of its events.
    pub events: Option<Table>,
}

/// What a stream's own row is made of.
#[derive(Clone, Debug)]
pub enum Fold {
    /// An account.
    Account(Box<Account>),
    /// A transfer.
    Transfer(Box<Transfer>),
}

impl Fold {
    /// Starts with nothing; `None` for an aggregate that has no rows in Postgres. `recent_from` is
    /// where the last 30 days begin.
    #[must_use]
    pub fn new(aggregate: Aggregate, recent_from: i64) -> Option<Self> {
        match aggregate {
            Aggregate::Account => Some(Self::Account(Box::new(Account::new(recent_from)))),
            Aggregate::Transfer => Some(Self::Transfer(Box::default())),
            Aggregate::Customer | Aggregate::Opening => None,
        }
    }

    /// Takes the next event in.
    pub fn take(&mut self, fact: &Fact) {
        match self {
            Self::Account(account) => account.take(fact),
            Self::Transfer(transfer) => transfer.take(fact),
        }
    }

    /// The row that a store must hold then.
    #[must_use]
    pub fn row(&self) -> Row {
        match self {
            Self::Account(account) => account.row(),
            Self::Transfer(transfer) => transfer.row(),
        }
    }

    /// How many events it has taken.
    #[must_use]
    pub fn version(&self) -> u64 {
        match self {
            Self::Account(account) => account.version,
            Self::Transfer(transfer) => transfer.version,
        }
    }
}
