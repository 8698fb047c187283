//! A world without chance faults, on which a case is played step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace::domain::banking::account::{self, Account};
use millrace::kernel::codec::Codec;
use millrace::kernel::message::{Headers, Outgoing, Record};
use millrace::kernel::result::CommandResult;
use millrace::kernel::stream::{AggregateName, Kind, parse_event_key, partition_of};
use millrace::log::memory::Place;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::bank::{Bank, Role, Seat, partitions};
use crate::judge;
use crate::shared::{Faults, Forced, Planted};
use crate::world::World;

pub(super) const DAY: i64 = 24 * 60 * 60;

pub(super) struct Stage {
    pub(super) world: World,
    sent: u128,
}

impl Stage {
    /// Everybody is at work, and nothing has happened.
    pub(super) fn new() -> Self {
        Self::planted(None)
    }

    /// As new, but something is switched off.
    pub(super) fn planted(bug: Option<Planted>) -> Self {
        // In the first world memory has room for everything, so that what is forgotten is
        // forgotten.
        let world = World::new(0, Arc::new(Bank::new()), Faults::NONE, bug);
        let mut stage = Self { world, sent: 0 };
        stage.rest();
        stage
    }

    /// Accounts that are open, with 1,000 each.
    pub(super) fn with_accounts(ids: &[&str]) -> Self {
        let mut stage = Self::new();
        stage.open_all(ids);
        stage
    }

    pub(super) fn open_all(&mut self, ids: &[&str]) {
        for id in ids {
            self.open(id, "user-1");
        }
        self.rest();
    }

    pub(super) fn open(&mut self, account: &str, user: &str) -> Uuid {
        self.wish(
            account,
            &json!({"type": "CreateAccount", "user_id": user, "account_type": "checking",
            "initial_deposit": "1000.00"}),
        )
    }

    /// A client's command, on the account's own partition.
    pub(super) fn wish(&mut self, account: &str, body: &Value) -> Uuid {
        self.wish_at(own_partition(account::NAME, account), account, body)
    }

    pub(super) fn wish_at(&mut self, partition: i32, account: &str, body: &Value) -> Uuid {
        self.sent += 1;
        let id = Uuid::from_u128(self.sent);
        self.send(partition, id, account, body);
        id
    }

    /// Sends a command of that id once more.
    pub(super) fn wish_again(&mut self, id: Uuid, account: &str, body: &Value) {
        self.send(own_partition(account::NAME, account), id, account, body);
    }

    fn send(&mut self, partition: i32, id: Uuid, account: &str, body: &Value) {
        let mut headers = Headers::default();
        headers.push("ce_id", id.to_string());
        let record = Outgoing {
            kind: Kind::Commands,
            key: Some(account.as_bytes().to_vec()),
            value: Some(body.to_string().into_bytes()),
            headers,
        };
        let place = Place { aggregate: account::NAME, kind: Kind::Commands, partition };
        self.world.shared.append(place, &record);
    }

    pub(super) fn transfer(&mut self, from: &str, to: &str) {
        let body = json!({"type": "Transfer", "to_account_id": to, "amount": "10.00"});
        self.wish(from, &body);
    }

    /// Everybody does what there is to do at this moment.
    pub(super) fn rest(&mut self) {
        self.world.come_to_rest();
    }

    /// Time passes, and what is due by then is done.
    pub(super) fn pass(&mut self, seconds: i64) {
        self.world.shared.now = self.world.shared.now.plus_seconds(seconds);
        self.rest();
    }

    pub(super) fn force(&mut self, place: Place, forced: Forced) {
        self.world.shared.forced.push((place, forced));
    }

    /// All that was forced has happened.
    pub(super) fn was_forced(&self) {
        assert_eq!(self.world.shared.forced, [], "it never came to that");
    }

    /// These seats are left empty.
    pub(super) fn halt(&mut self, is_meant: impl Fn(&Seat) -> bool) {
        self.world.halt(is_meant);
    }

    /// These seats have new owners.
    pub(super) fn start(&mut self, is_meant: impl Fn(&Seat) -> bool) {
        self.world.start(is_meant);
        self.rest();
    }

    /// The short names of a stream's events, in order.
    pub(super) fn events(&self, aggregate: AggregateName, stream: &str) -> Vec<String> {
        let mut names = Vec::new();
        for (place, record) in self.world.shared.log.in_order() {
            if (place.aggregate, place.kind) != (aggregate, Kind::Events) {
                continue;
            }
            let (id, _) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
            if id == stream {
                let name = record.headers.text("ce_type").unwrap();
                names.push(name.rsplit_once('.').unwrap().1.to_owned());
            }
        }
        names
    }

    pub(super) fn count(&self, aggregate: AggregateName, stream: &str, name: &str) -> usize {
        self.events(aggregate, stream).iter().filter(|found| *found == name).count()
    }

    /// The streams of an aggregate, in the order of their names.
    pub(super) fn streams(&self, aggregate: AggregateName) -> Vec<String> {
        let mut streams = BTreeMap::new();
        for (place, record) in self.world.shared.log.in_order() {
            if (place.aggregate, place.kind) == (aggregate, Kind::Events) {
                let (id, _) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
                streams.insert(id.to_owned(), ());
            }
        }
        streams.into_keys().collect()
    }

    /// The results of an account's command, in order.
    pub(super) fn results(&self, id: Uuid) -> Vec<CommandResult> {
        let log = self.world.shared.log.in_order();
        log.filter(|(place, _)| (place.aggregate, place.kind) == (account::NAME, Kind::Results))
            .map(|(_, record)| {
                let codec = &*self.world.shared.bank.accounts;
                let value = record.value.as_deref().unwrap();
                Codec::<Account>::decode_result(codec, value).unwrap()
            })
            .filter(|result| result.command_id == id)
            .collect()
    }

    /// The commands that were sent on, as they stand in the log.
    pub(super) fn sent_on(&self) -> Vec<(Place, Outgoing)> {
        let log = self.world.shared.log.in_order();
        let sent = log.filter(|(place, record)| {
            place.kind == Kind::Commands && record.headers.get("origin").is_some()
        });
        sent.map(|(place, record)| (place, outgoing(record))).collect()
    }

    /// Everything ends, and the judge finds nothing.
    pub(super) fn end(mut self) -> Self {
        self.world.settle();
        judge::judge_log(&self.world);
        self
    }
}

fn outgoing(record: &Record) -> Outgoing {
    Outgoing {
        kind: Kind::Commands,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        headers: record.headers.clone(),
    }
}

pub(super) fn own_partition(aggregate: AggregateName, id: &str) -> i32 {
    partition_of(id, partitions(aggregate))
}

pub(super) fn commands_of(aggregate: AggregateName, id: &str) -> Place {
    Place { aggregate, kind: Kind::Commands, partition: own_partition(aggregate, id) }
}

/// The seats that read such a topic with a reactor.
pub(super) fn reacts_to(aggregate: AggregateName, kind: Kind) -> impl Fn(&Seat) -> bool {
    move |seat| {
        matches!(seat.role, Role::Reactor(_))
            && (seat.place.aggregate, seat.place.kind) == (aggregate, kind)
    }
}

pub(super) fn handles(aggregate: AggregateName) -> impl Fn(&Seat) -> bool {
    move |seat| seat.role == Role::Handler && seat.place.aggregate == aggregate
}

pub(super) fn is_handler(seat: &Seat) -> bool {
    seat.role == Role::Handler
}
