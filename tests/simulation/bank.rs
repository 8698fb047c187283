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
use millrace::engine::shelf::MemoryShelf;
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::Decider;
use millrace::kernel::reactor::Reactor;
use millrace::kernel::stream::{AggregateName, Kind};
use millrace::log::memory::Place;
use ring::hmac;
use uuid::Uuid;

use super::faulty::{Flaky, Leaky, LeakyCodec, Mood};

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
/// Answers are remembered for 24 h, and an hour more.
const WINDOW_SECONDS: i64 = 90_000;
/// Whose events are projected.
pub(crate) const PROJECTED: [AggregateName; 2] = [account::NAME, transfer::NAME];
pub(crate) const HANDLERS: &str = "millrace.handler.banking";
pub(crate) const PROJECTORS: &str = "millrace.postgres.banking";
const REACTORS: [&str; 2] = ["millrace.reactor.transfer", "millrace.reactor.account-opening"];

/// How many partitions an aggregate's topics have.
pub(crate) fn partitions(aggregate: AggregateName) -> i32 {
    AGGREGATES.iter().find(|(name, _)| *name == aggregate).unwrap().1
}

/// One partition of an aggregate's topic.
pub(crate) fn place(aggregate: AggregateName, kind: Kind, partition: i32) -> Place {
    Place { aggregate, kind, partition }
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
    Projector,
}

/// What never changes: one for all worlds.
pub(crate) struct Bank {
    pub(crate) accounts: Arc<AccountCodec>,
    pub(crate) customers: Arc<CustomerCodec>,
    pub(crate) transfers: Arc<TransferCodec>,
    pub(crate) openings: Arc<AccountOpeningCodec>,
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
        let target = |(name, partition_count): &(AggregateName, i32)| {
            let topic = name.topic(Kind::Commands).into();
            (*name, Target { topic, partition_count: *partition_count })
        };
        let targets: BTreeMap<_, _> = AGGREGATES.iter().map(target).collect();
        let mut bank = Self {
            accounts,
            customers,
            transfers,
            openings,
            seats: Vec::new(),
            targets: Targets::new(targets),
            key: hmac::Key::new(hmac::HMAC_SHA256, b"simulated"),
        };
        bank.seats = seats(&bank.reactors(&Arc::new(Mood::new(0))));
        bank
    }

    /// A handler's settings: its most commands, streams and answers in memory, events to restore.
    pub(crate) fn settings(
        &self,
        seat: Seat,
        (batch_max, chunk_max, in_memory, restore_events): (usize, usize, usize, u64),
    ) -> Settings {
        let Place { aggregate, partition, .. } = seat.place;
        Settings {
            group: seat.group.to_owned(),
            cluster_id: CLUSTER_ID.to_owned(),
            commands_topic: aggregate.topic(Kind::Commands),
            commands_topic_id: topic_id(aggregate, Kind::Commands),
            events_topic: aggregate.topic(Kind::Events),
            events_topic_id: topic_id(aggregate, Kind::Events),
            results_topic_id: topic_id(aggregate, Kind::Results),
            partition,
            partition_count: partitions(aggregate),
            batch_max,
            chunk_max,
            batch_bytes_max: 1 << 20,
            trust_command_time: false,
            snapshot_every: 5,
            window_seconds: WINDOW_SECONDS,
            answers_in_memory: in_memory,
            streams_in_memory: in_memory,
            restore_events,
            key: self.key.clone(),
            targets: self.targets.clone(),
        }
    }

    pub(crate) fn handler(
        &self,
        seat: Seat,
        sizes: (usize, usize, usize, u64),
        (mood, leaks): (&Arc<Mood>, bool),
        shelf: MemoryShelf,
    ) -> Box<dyn Handler> {
        let settings = self.settings(seat, sizes);
        match seat.place.aggregate {
            account::NAME if leaks => {
                let codec = Arc::new(LeakyCodec(Flaky::new(&self.accounts, mood)));
                Box::new(CommandHandler::<Leaky<Account>, _>::new(settings, codec, Box::new(shelf)))
            }
            account::NAME => handler::<Account, _>(settings, &self.accounts, mood, shelf),
            customer::NAME => handler::<Customer, _>(settings, &self.customers, mood, shelf),
            transfer::NAME => handler::<Transfer, _>(settings, &self.transfers, mood, shelf),
            _ => handler::<Opening, _>(settings, &self.openings, mood, shelf),
        }
    }

    /// A world's reactors: they read with codecs of its mood.
    pub(crate) fn reactors(&self, mood: &Arc<Mood>) -> Vec<Arc<dyn Reactor>> {
        let accounts: Arc<dyn Codec<Account>> = Flaky::new(&self.accounts, mood);
        let customers = Flaky::new(&self.customers, mood);
        let transfers = Flaky::new(&self.transfers, mood);
        let openings = Flaky::new(&self.openings, mood);
        let transfer = TransferReactor::new(Arc::clone(&accounts), transfers);
        let opening = AccountOpeningReactor::new(accounts, customers, openings);
        vec![Arc::new(transfer), Arc::new(opening)]
    }

    pub(crate) fn reacting(&self, seat: Seat, reactor: &Arc<dyn Reactor>) -> reactor::Reacting {
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
        reactor::Reacting::new(settings, Arc::clone(reactor))
    }
}

fn handler<D: Decider, C: Codec<D>>(
    settings: Settings,
    codec: &Arc<C>,
    mood: &Arc<Mood>,
    shelf: MemoryShelf,
) -> Box<dyn Handler> {
    Box::new(CommandHandler::<D, _>::new(settings, Flaky::new(codec, mood), Box::new(shelf)))
}

fn seats(reactors: &[Arc<dyn Reactor>]) -> Vec<Seat> {
    let mut seats = Vec::new();
    let mut add = |role, group, aggregate, kind| {
        for partition in 0..partitions(aggregate) {
            let place = Place { aggregate, kind, partition };
            seats.push(Seat { role, group, place });
        }
    };
    for (aggregate, _) in AGGREGATES {
        add(Role::Handler, HANDLERS, aggregate, Kind::Commands);
    }
    for (index, reactor) in reactors.iter().enumerate() {
        for (aggregate, kind) in reactor.inputs() {
            add(Role::Reactor(index), REACTORS[index], aggregate, kind);
        }
    }
    for aggregate in PROJECTED {
        add(Role::Projector, PROJECTORS, aggregate, Kind::Events);
    }
    seats
}
