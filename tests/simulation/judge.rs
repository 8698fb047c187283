//! Reads the whole log afterwards and finds what must not be.

use std::collections::{BTreeMap, BTreeSet};

use millrace::codec::banking::AccountCodec;
use millrace::domain::banking::account::{Account, Event};
use millrace::domain::money::Amount;
use millrace::kernel::codec::Codec;
use millrace::kernel::message::Record;
use millrace::kernel::result::{CommandResult, Outcome};
use millrace::kernel::stream::{Kind, parse_event_key, partition_of};
use uuid::Uuid;

use super::clients::Clients;
use super::world::{PARTITIONS, World};

/// What happened in a world, so that a test can see that something did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) events: u64,
    pub(crate) duplicates: u64,
    pub(crate) refusals: u64,
    pub(crate) crashes: u64,
    pub(crate) moved: u64,
    /// Starts with a disk that held answers.
    pub(crate) warm_starts: u64,
    /// How often a disk was waited for.
    pub(crate) shelf_waits: u64,
}

impl Verdict {
    pub(crate) fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.duplicates += other.duplicates;
        self.refusals += other.refusals;
        self.crashes += other.crashes;
        self.moved += other.moved;
        self.warm_starts += other.warm_starts;
        self.shelf_waits += other.shelf_waits;
    }
}

fn all(world: &World, kind: Kind) -> Vec<(i32, Record)> {
    (0..PARTITIONS)
        .flat_map(|partition| {
            let (records, ..) = world.log.read((kind, partition), 0, usize::MAX);
            records.into_iter().map(move |record| (partition, record))
        })
        .collect()
}

pub(crate) fn judge(world: &World, clients: &Clients, codec: &AccountCodec) -> Verdict {
    let mut verdict = Verdict {
        crashes: u64::from(world.crashes),
        warm_starts: u64::from(world.warm_starts()),
        shelf_waits: u64::from(world.shelf_waits),
        ..Verdict::default()
    };
    let by_command = events_by_command(world, codec, &mut verdict);
    let results = first_results(world, codec, &mut verdict);
    for (id, sent) in &clients.sent {
        let result = results.get(id).unwrap_or_else(|| panic!("no result for {id}: {sent:?}"));
        assert_eq!(result.aggregate_id, sent.account);
        let found = by_command.get(id).cloned().unwrap_or_default();
        let promised: Vec<(String, u64)> = match (result.first_sequence, result.last_sequence) {
            (Some(first), Some(last)) => {
                (first..=last).map(|sequence| (sent.account.clone(), sequence)).collect()
            }
            _ => Vec::new(),
        };
        assert_eq!(found, promised, "events of {id} against its result");
        assert_eq!(sent.is_bad, is_bad_code(result), "{sent:?} {result:?}");
        verdict.refusals += u64::from(result.outcome == Outcome::Rejected);
    }
    assert!(by_command.keys().all(|id| clients.sent.contains_key(id)), "events out of nowhere");
    each_clients_order_is_kept(clients, &results);
    dead_letters_hold_each_bad_command_once(world, clients);
    let commands = all(world, Kind::Commands);
    let moved = commands.iter().filter(|(_, record)| record.headers.get("origin").is_some());
    verdict.moved = moved.count() as u64;
    verdict
}

fn is_bad_code(result: &CommandResult) -> bool {
    matches!(result.code.as_deref(), Some("Undecodable" | "MissingField" | "InvalidField"))
}

/// Every stream is dense and on its own partition; money is conserved at every prefix of it.
fn events_by_command(
    world: &World,
    codec: &AccountCodec,
    verdict: &mut Verdict,
) -> BTreeMap<Uuid, Vec<(String, u64)>> {
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    let mut balances: BTreeMap<String, Amount> = BTreeMap::new();
    let mut by_command: BTreeMap<Uuid, Vec<(String, u64)>> = BTreeMap::new();
    for (partition, record) in all(world, Kind::Events) {
        let (id, sequence) = parse_event_key(record.key.as_deref().unwrap()).unwrap();
        assert_eq!(partition, partition_of(id, PARTITIONS), "{id} is on its own partition");
        let version = versions.entry(id.to_owned()).or_default();
        assert_eq!(sequence, *version + 1, "{id} is dense");
        *version = sequence;
        let event: Event =
            Codec::<Account>::decode_event(codec, record.value.as_deref().unwrap()).unwrap();
        follow_money(balances.entry(id.to_owned()).or_default(), &event);
        let command_id = record.headers.text("command_id").unwrap().parse().unwrap();
        by_command.entry(command_id).or_default().push((id.to_owned(), sequence));
        verdict.events += 1;
    }
    by_command
}

/// Follows an account's balance by what each event says was moved.
fn follow_money(balance: &mut Amount, event: &Event) {
    let sum = |a: Amount, b: Amount| a.checked_add(b).unwrap();
    let less = |a: Amount, b: Amount| a.checked_sub(b).unwrap();
    let after = match event {
        Event::AccountCreated(event) => {
            *balance = event.initial_deposit;
            return;
        }
        Event::MoneyDeposited(event) => {
            *balance = sum(*balance, event.amount);
            event.balance_after
        }
        Event::MoneyWithdrawn(event) => {
            *balance = less(less(*balance, event.amount), event.fee);
            event.balance_after
        }
        Event::MoneyTransferred(event) => {
            *balance = less(less(*balance, event.amount), event.transfer_fee);
            event.balance_after
        }
        Event::AccountFrozen(_) | Event::AccountUnfrozen(_) => return,
        other => panic!("nobody asked for {other:?}"),
    };
    assert_eq!(*balance, after, "{event:?}");
}

/// One first answer an id; every repeat says the same.
fn first_results(
    world: &World,
    codec: &AccountCodec,
    verdict: &mut Verdict,
) -> BTreeMap<Uuid, CommandResult> {
    let mut first: BTreeMap<Uuid, CommandResult> = BTreeMap::new();
    let mut repeats = Vec::new();
    for (partition, record) in all(world, Kind::Results) {
        let value = record.value.as_deref().unwrap();
        let result = Codec::<Account>::decode_result(codec, value).unwrap();
        assert_eq!(record.key.as_deref(), Some(result.command_id.to_string().as_bytes()));
        assert_eq!(partition, partition_of(&result.aggregate_id, PARTITIONS));
        if result.duplicate {
            repeats.push(result);
        } else if let Some(earlier) = first.insert(result.command_id, result) {
            panic!("{} was answered twice", earlier.command_id);
        }
    }
    verdict.duplicates = repeats.len() as u64;
    for repeat in repeats {
        let earlier = &first[&repeat.command_id];
        assert_eq!(CommandResult { duplicate: false, ..repeat }, *earlier);
    }
    first
}

/// What one client asked of one account happened in the order in which it asked.
fn each_clients_order_is_kept(clients: &Clients, results: &BTreeMap<Uuid, CommandResult>) {
    let mut last: BTreeMap<(usize, &str), (u32, u64)> = BTreeMap::new();
    let mut in_order: Vec<_> = clients.sent.iter().collect();
    in_order.sort_by_key(|(_, sent)| (sent.client, sent.number));
    for (id, sent) in in_order {
        let Some(sequence) = results[id].first_sequence else { continue };
        let place = last.entry((sent.client, &sent.account)).or_default();
        assert!(sequence > place.1, "{sent:?} overtook {place:?}");
        *place = (sent.number, sequence);
    }
}

fn dead_letters_hold_each_bad_command_once(world: &World, clients: &Clients) {
    let mut seen = BTreeSet::new();
    for (_, record) in all(world, Kind::DeadLetters) {
        let id: Uuid = record.headers.text("ce_id").unwrap().parse().unwrap();
        assert!(clients.sent[&id].is_bad, "{id} was not bad");
        assert!(seen.insert(id), "{id} is a dead letter twice");
    }
    let bad = clients.sent.values().filter(|sent| sent.is_bad).count();
    assert_eq!(seen.len(), bad, "every bad command is kept");
}
