//! Sagas: each ends, none contradicts the accounts, no timer is early, nobody has a sixth account.

use std::collections::BTreeMap;

use millrace::domain::banking::account::Event as Account;
use millrace::domain::banking::account_opening::{Event as Opening, Outcome};
use millrace::domain::banking::customer::Event as Customer;
use millrace::domain::banking::transfer::Event as Transfer;
use millrace::kernel::time::Timestamp;

use super::Verdict;
use super::story::{Fact, Happened, Story};

const OPEN_MAX: i32 = 5;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Fate {
    received: u32,
    settled: u32,
    reversed: u32,
}

#[derive(Default)]
struct Seen<'s> {
    transfers: BTreeMap<&'s str, Fate>,
    /// How each saga ended; `None` while it has not.
    ends: BTreeMap<&'s str, Option<&'static str>>,
    /// Not before this a saga is woken.
    due: BTreeMap<&'s str, Timestamp>,
    open: BTreeMap<&'s str, i32>,
    slots: BTreeMap<&'s str, i32>,
}

pub(super) fn judge(story: &Story, verdict: &mut Verdict) {
    let mut seen = Seen::default();
    for happened in &story.events {
        match &happened.fact {
            Fact::Account(event) => seen.account(event),
            Fact::Customer(event) => seen.customer(event),
            Fact::Transfer(event) => seen.transfer(happened, event, verdict),
            Fact::Opening(event) => seen.opening(happened, event, verdict),
        }
    }
    for (saga, end) in &seen.ends {
        assert!(end.is_some(), "{saga} never ends");
    }
    for (transfer, fate) in &seen.transfers {
        let end = seen.ends.get(transfer).copied().flatten();
        let expected = match end {
            Some("completed") => Fate { received: 1, settled: 1, reversed: 0 },
            Some("reversed") => Fate { received: 0, settled: 0, reversed: 1 },
            other => panic!("{transfer}: {other:?} {fate:?}"),
        };
        assert_eq!(*fate, expected, "{transfer} {end:?}");
    }
    seen.slots.retain(|_, slots| *slots != 0);
    seen.open.retain(|_, open| *open != 0);
    assert_eq!(seen.slots, seen.open, "slots against open accounts");
    verdict.transfers = seen.transfers.len() as u64;
    verdict.openings = seen.ends.len() as u64 - verdict.transfers;
    verdict.reversed = seen.transfers.values().map(|fate| u64::from(fate.reversed)).sum();
}

impl<'s> Seen<'s> {
    fn account(&mut self, event: &'s Account) {
        match event {
            Account::AccountCreated(event) => {
                let open = self.open.entry(&event.user_id).or_default();
                *open += 1;
                assert!(*open <= OPEN_MAX, "{} has {open} open accounts", event.user_id);
            }
            Account::AccountClosed(event) => *self.open.get_mut(&*event.user_id).unwrap() -= 1,
            Account::MoneyTransferred(event) => {
                self.transfers.entry(&event.transfer_id).or_default();
            }
            Account::MoneyReceived(event) => self.fate(&event.transfer_id).received += 1,
            Account::TransferSettled(event) => self.fate(&event.transfer_id).settled += 1,
            Account::TransferReversed(event) => self.fate(&event.transfer_id).reversed += 1,
            _ => {}
        }
    }

    fn fate(&mut self, transfer: &str) -> &mut Fate {
        self.transfers.get_mut(transfer).unwrap()
    }

    fn customer(&mut self, event: &'s Customer) {
        match event {
            Customer::SlotReserved(slot) => *self.slots.entry(&slot.user_id).or_default() += 1,
            Customer::SlotReleased(slot) | Customer::SlotFreed(slot) => {
                *self.slots.get_mut(&*slot.user_id).unwrap() -= 1;
            }
            Customer::SlotDenied(_) | Customer::SlotConfirmed(_) => {}
        }
    }

    fn transfer(&mut self, happened: &'s Happened, event: &Transfer, verdict: &mut Verdict) {
        let id = happened.stream.as_str();
        let end = self.ends.entry(id).or_default();
        assert_eq!(*end, None, "{id} goes on behind its end");
        let due = match event {
            Transfer::TransferStarted(event) => event.deadline,
            Transfer::TransferReceived(event) => event.deadline,
            Transfer::ReversalStarted(event) => event.deadline,
            Transfer::StepRepeated(event) => {
                verdict.repeated_steps += 1;
                self.woken(happened, event.attempt);
                event.deadline
            }
            Transfer::StepFailed(event) => event.retry_at,
            Transfer::TransferParked(_) => {
                verdict.parked += 1;
                return;
            }
            Transfer::TransferCompleted(_) => {
                *end = Some("completed");
                return;
            }
            Transfer::TransferReversed(_) => {
                *end = Some("reversed");
                return;
            }
        };
        self.due.insert(id, due);
    }

    fn opening(&mut self, happened: &'s Happened, event: &Opening, verdict: &mut Verdict) {
        let id = happened.stream.as_str();
        let end = self.ends.entry(id).or_default();
        let due = match event {
            Opening::OpeningStarted(event) => event.deadline,
            Opening::OpeningAdvanced(event) => {
                verdict.repeated_steps += u64::from(event.attempt > 1);
                self.woken(happened, event.attempt);
                event.deadline
            }
            Opening::StepFailed(event) => event.retry_at,
            Opening::OpeningParked(_) => {
                verdict.parked += 1;
                return;
            }
            Opening::OpeningEnded(event) => {
                *end = Some(match event.outcome {
                    Outcome::Opened => "opened",
                    Outcome::Refused => "refused",
                    Outcome::Closed => "closed",
                });
                return;
            }
        };
        self.due.insert(id, due);
    }

    /// Another attempt follows from a timer, and those are never early.
    fn woken(&self, happened: &Happened, attempt: u32) {
        let id = happened.stream.as_str();
        assert!(attempt == 1 || happened.at >= self.due[id], "{id} was woken early");
    }
}
