//! The bank's wiring: which aggregates, reactors and topics there are, and how each is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace::codec::banking::AccountCodec;
use millrace::codec::banking::account_opening::AccountOpeningCodec;
use millrace::codec::banking::customer::CustomerCodec;
use millrace::codec::banking::transfer::TransferCodec;
use millrace::codec::schemas::Schemas;
use millrace::domain::banking::account::{self, Account};
use millrace::domain::banking::account_opening::{self, AccountOpeningReactor, Opening};
use millrace::domain::banking::customer::{self, Customer};
use millrace::domain::banking::transfer::{self, Transfer, TransferReactor};
use millrace::engine::command_handler::CommandHandler;
use millrace::engine::dispatch::{Target, Targets};
use millrace::engine::protocol::{Handler, Settings};
use millrace::engine::reactor;
use millrace::kernel::codec::Codec;
use millrace::kernel::reactor::Reactor;
use millrace::kernel::stream::{AggregateName, Kind};
use millrace::log::memory::Place;
use ring::hmac;
use uuid::Uuid;

pub(crate) const CLUSTER_ID: &str = "simulated";
/// The aggregates, and how many partitions each has.
pub(crate) const AGGREGATES: [(AggregateName, i32); 4] =
    [(account::NAME, 3), (customer::NAME, 1), (transfer::NAME, 2), (account_opening::NAME, 2)];
/// Where reactors store how far they have come.
pub(crate) const POSITIONS: Place = Place {
    aggregate: AggregateName { domain: "millrace", aggregate: "positions" },
    kind: Kind::Snapshots,
    partition: 0,
};
const HANDLERS: &str = "millrace.handler.banking";
const REACTORS: [&str; 2] = ["millrace.reactor.transfer", "millrace.reactor.account-opening"];

/// How many partitions an aggregate's topics have.
pub(crate) fn partitions(aggregate: AggregateName) -> i32 {
    AGGREGATES.iter().find(|(name, _)| *name == aggregate).unwrap().1
}

/// Stands for the topic's id.
pub(crate) fn topic_id(aggregate: AggregateName, kind: Kind) -> Uuid {
    let index = AGGREGATES.iter().position(|(name, _)| *name == aggregate).unwrap();
    Uuid::from_u128(0x7000 + (index as u128) * 16 + kind as u128)
}

/// Whose commands topic that is.
pub(crate) fn aggregate_of(topic: &str) -> AggregateName {
    let is_it = |(name, _): &&(AggregateName, i32)| name.topic(Kind::Commands) == topic;
    AGGREGATES.iter().find(is_it).unwrap().0
}

/// Somebody's place in a group: who holds it does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) role: Role,
    pub(crate) group: &'static str,
    /// What is read.
    pub(crate) place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Handler,
    /// The reactor with that number.
    Reactor(usize),
}

/// What never changes: one for all worlds.
pub(crate) struct Bank {
    pub(crate) accounts: Arc<AccountCodec>,
    pub(crate) customers: Arc<CustomerCodec>,
    pub(crate) transfers: Arc<TransferCodec>,
    pub(crate) openings: Arc<AccountOpeningCodec>,
    reactors: Vec<Arc<dyn Reactor>>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) targets: Targets,
    pub(crate) key: hmac::Key,
}

impl Bank {
    pub(crate) fn new() -> Self {
        let schemas = Arc::new(Schemas::numbered_from(1));
        let accounts = Arc::new(AccountCodec::new(Arc::clone(&schemas)));
        let customers = Arc::new(CustomerCodec::new(Arc::clone(&schemas)));
        let transfers = Arc::new(TransferCodec::new(Arc::clone(&schemas)));
        let openings = Arc::new(AccountOpeningCodec::new(schemas));
        let for_accounts: Arc<dyn Codec<Account>> = Arc::<AccountCodec>::clone(&accounts);
        let transfer = TransferReactor::new(
            Arc::clone(&for_accounts),
            Arc::<TransferCodec>::clone(&transfers),
        );
        let opening = AccountOpeningReactor::new(
            for_accounts,
            Arc::<CustomerCodec>::clone(&customers),
            Arc::<AccountOpeningCodec>::clone(&openings),
        );
        let reactors: Vec<Arc<dyn Reactor>> = vec![Arc::new(transfer), Arc::new(opening)];
        let seats = seats(&reactors);
        let target = |(name, partition_count): &(AggregateName, i32)| {
            let topic = name.topic(Kind::Commands).into();
            (*name, Target { topic, partition_count: *partition_count })
        };
        let targets: BTreeMap<_, _> = AGGREGATES.iter().map(target).collect();
        Self {
            accounts,
            customers,
            transfers,
            openings,
            reactors,
            seats,
            targets: Targets::new(targets),
            key: hmac::Key::new(hmac::HMAC_SHA256, b"simulated"),
        }
    }

    pub(crate) fn handler(&self, seat: Seat, batch_max: usize) -> Box<dyn Handler> {
        let Place { aggregate, partition, .. } = seat.place;
        let settings = Settings {
            group: seat.group.to_owned(),
            cluster_id: CLUSTER_ID.to_owned(),
            commands_topic: aggregate.topic(Kind::Commands),
            commands_topic_id: topic_id(aggregate, Kind::Commands),
            events_topic: aggregate.topic(Kind::Events),
            events_topic_id: topic_id(aggregate, Kind::Events),
            partition,
            partition_count: partitions(aggregate),
            batch_max,
            batch_bytes_max: 1 << 20,
            trust_command_time: false,
            snapshot_every: 5,
            window_seconds: 90_000,
            key: self.key.clone(),
            targets: self.targets.clone(),
        };
        match aggregate {
            account::NAME => {
                let codec = Arc::clone(&self.accounts);
                Box::new(CommandHandler::<Account, _>::new(settings, codec))
            }
            customer::NAME => {
                let codec = Arc::clone(&self.customers);
                Box::new(CommandHandler::<Customer, _>::new(settings, codec))
            }
            transfer::NAME => {
                let codec = Arc::clone(&self.transfers);
                Box::new(CommandHandler::<Transfer, _>::new(settings, codec))
            }
            _ => {
                let codec = Arc::clone(&self.openings);
                Box::new(CommandHandler::<Opening, _>::new(settings, codec))
            }
        }
    }

    pub(crate) fn reacting(&self, seat: Seat, reactor: usize) -> reactor::Reacting {
        let Place { aggregate, kind, partition } = seat.place;
        let settings = reactor::Settings {
            group: seat.group.to_owned(),
            cluster_id: CLUSTER_ID.to_owned(),
            topic: aggregate.topic(kind),
            topic_id: topic_id(aggregate, kind),
            aggregate,
            kind,
            partition,
            targets: self.targets.clone(),
            key: self.key.clone(),
        };
        reactor::Reacting::new(settings, Arc::clone(&self.reactors[reactor]))
    }
}

fn seats(reactors: &[Arc<dyn Reactor>]) -> Vec<Seat> {
    let mut seats = Vec::new();
    for (aggregate, count) in AGGREGATES {
        for partition in 0..count {
            let place = Place { aggregate, kind: Kind::Commands, partition };
            seats.push(Seat { role: Role::Handler, group: HANDLERS, place });
        }
    }
    for (index, reactor) in reactors.iter().enumerate() {
        for (aggregate, kind) in reactor.inputs() {
            for partition in 0..partitions(aggregate) {
                let place = Place { aggregate, kind, partition };
                let group = REACTORS[index];
                seats.push(Seat { role: Role::Reactor(index), group, place });
            }
        }
    }
    seats
}
