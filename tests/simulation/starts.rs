//! Two handlers restored beside the one that works: one as it would be, one that reads all events.
//! They must know the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace::domain::banking::account::{self, Account};
use millrace::domain::banking::account_opening::Opening;
use millrace::domain::banking::customer::{self, Customer};
use millrace::domain::banking::transfer::{self, Transfer};
use millrace::engine::command_handler::CommandHandler;
use millrace::engine::position::Position;
use millrace::engine::protocol::{Action, Committed, From, Handler, Input, Moment, Settings};
use millrace::engine::shelf::MemoryShelf;
use millrace::engine::snapshot;
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::Decider;
use millrace::kernel::message::Record;
use millrace::kernel::stream::{Kind, POSITION_KEY, parse_event_key};
use millrace::log::memory::{MemoryLog, Place};

use super::bank::{Bank, Seat};
use super::shared::Shared;

/// Changes a position record as it is read back.
pub(crate) fn rewrite(record: &mut Record, change: impl FnOnce(&mut Position)) {
    if record.key.as_deref() == Some(POSITION_KEY) {
        let mut position = Position::from_bytes(record.value.as_deref().unwrap()).unwrap();
        change(&mut position);
        record.value = Some(position.to_bytes().into_boxed_slice());
    }
}

/// Compares what two new owners of a partition would know, and says how many events the one that
/// begins at the bound leaves out.
pub(crate) fn agree(shared: &Shared, seat: Seat) -> u64 {
    let settings = shared.bank.settings(seat, (1, 1, 1 << 20, 1));
    let Bank { accounts, customers, transfers, openings, .. } = shared.bank.as_ref();
    match seat.place.aggregate {
        account::NAME => compare::<Account, _>(&settings, accounts, shared, seat),
        customer::NAME => compare::<Customer, _>(&settings, customers, shared, seat),
        transfer::NAME => compare::<Transfer, _>(&settings, transfers, shared, seat),
        _ => compare::<Opening, _>(&settings, openings, shared, seat),
    }
}

fn compare<D: Decider, C: Codec<D>>(
    settings: &Settings,
    codec: &Arc<C>,
    shared: &Shared,
    seat: Seat,
) -> u64 {
    let (bounded, read) = restored::<D, C>(settings, codec, &shared.log, seat, |_| {});
    let (whole, all) = restored::<D, C>(settings, codec, &shared.log, seat, |record| {
        rewrite(record, |position| position.bound = None);
    });
    assert_eq!(bounded, whole, "{seat:?}: what is read from the bound is not enough");
    all - read
}

type Known = BTreeMap<String, Vec<u8>>;

/// What a new owner knows of every stream, and how many events it has read for that.
fn restored<D: Decider, C: Codec<D>>(
    settings: &Settings,
    codec: &Arc<C>,
    log: &MemoryLog,
    seat: Seat,
    change: impl Fn(&mut Record),
) -> (Known, u64) {
    let shelf = Box::new(MemoryShelf::default());
    let mut handler = CommandHandler::<D, C>::new(settings.clone(), Arc::clone(codec), shelf);
    let own = |kind| Place { kind, ..seat.place };
    let moment = Moment { now: millrace::kernel::time::Timestamp(0), nonce: 1 };
    let mut action = handler.start();
    loop {
        let input = match action {
            Action::Fence => Input::Fenced,
            Action::ReadCommitted => Input::Committed(Committed {
                offset: None,
                log_start: 0,
                log_end: log.end_offset(own(Kind::Commands)),
                events_end: log.end_offset(own(Kind::Events)),
            }),
            // What was answered is not compared.
            Action::Restore { kind: Kind::Results, .. } => Input::RestoreEnd,
            Action::Restore { kind, from } => {
                let from = if let From::Offset(offset) = from { offset } else { 0 };
                let (mut records, ..) = log.read(own(kind), from, usize::MAX);
                records.iter_mut().for_each(&change);
                match handler.step(moment, Input::Restored(records)) {
                    Action::More => Input::RestoreEnd,
                    other => panic!("{seat:?}: {other:?}"),
                }
            }
            Action::Transact(_) | Action::Ready { .. } => break,
            other => panic!("{seat:?}: {other:?}"),
        };
        action = handler.step(moment, input);
    }
    let counts = handler.counts();
    assert_eq!(counts.whole_reads, 0, "{seat:?}: the bound was not believed");
    let (events, ..) = log.read(own(Kind::Events), 0, usize::MAX);
    let mut known = Known::new();
    for (id, _) in events.iter().filter_map(|event| parse_event_key(event.key.as_deref()?)) {
        let stream = handler.streams().get(id);
        let stream = stream.unwrap_or_else(|| panic!("{seat:?}: stream {id} is not known"));
        known.insert(id.to_owned(), snapshot::to_bytes::<D>(stream).unwrap());
    }
    (known, counts.read_events)
}
