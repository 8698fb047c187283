//! Money, at every prefix of the log taken as a whole: for each currency, deposits and corrections
//! are balances, fees, money under way and withdrawals; and no balance is below zero.

use std::collections::BTreeMap;

use millrace::domain::banking::account::Event;

use super::story::{Fact, Happened, Story};

#[derive(Default)]
struct Books {
    /// In units of the smallest decimal.
    balances: BTreeMap<String, i128>,
    /// Amount and fee of each transfer that has neither arrived nor come back.
    under_way: BTreeMap<String, (i128, i128)>,
    totals: BTreeMap<String, Totals>,
}

#[derive(Debug, Default)]
struct Totals {
    came_in: i128,
    balances: i128,
    fees: i128,
    under_way: i128,
    withdrawn: i128,
}

pub(super) fn judge(story: &Story) {
    let mut books = Books::default();
    for happened in &story.events {
        if let Fact::Account(event) = &happened.fact {
            books.enter(happened, event);
        }
    }
    assert!(books.under_way.is_empty(), "never arrived nor reversed: {:?}", books.under_way);
}

impl Books {
    fn enter(&mut self, happened: &Happened, event: &Event) {
        let stream = happened.stream.as_str();
        let totals = self.totals.entry(event.currency().as_str().to_owned()).or_default();
        let mut after = None;
        let change = match event {
            Event::AccountCreated(event) => {
                totals.came_in += event.initial_deposit.units();
                event.initial_deposit.units()
            }
            Event::MoneyDeposited(event) => {
                after = Some(event.balance_after);
                totals.came_in += event.amount.units();
                event.amount.units()
            }
            Event::EntryCorrected(event) => {
                after = Some(event.balance_after);
                totals.came_in += event.amount.units();
                event.amount.units()
            }
            Event::MoneyWithdrawn(event) => {
                after = Some(event.balance_after);
                let (amount, fee) = (event.amount.units(), event.fee.units());
                totals.withdrawn += amount;
                totals.fees += fee;
                -amount - fee
            }
            Event::MoneyTransferred(event) => {
                after = Some(event.balance_after);
                let (amount, fee) = (event.amount.units(), event.transfer_fee.units());
                let known = self.under_way.insert(event.transfer_id.clone(), (amount, fee));
                assert_eq!(known, None, "{stream}: a transfer id twice");
                totals.under_way += amount;
                totals.fees += fee;
                -amount - fee
            }
            Event::MoneyReceived(event) => {
                after = Some(event.balance_after);
                let sent = self.under_way.remove(&event.transfer_id);
                let amount = sent.map(|(amount, _)| amount);
                assert_eq!(amount, Some(event.amount.units()), "{stream}: {event:?}");
                totals.under_way -= event.amount.units();
                event.amount.units()
            }
            Event::TransferReversed(event) => {
                after = Some(event.balance_after);
                let (amount, fee) = (event.amount.units(), event.transfer_fee.units());
                let sent = self.under_way.remove(&event.transfer_id);
                assert_eq!(sent, Some((amount, fee)), "{stream}: {event:?}");
                totals.under_way -= amount;
                totals.fees -= fee;
                amount + fee
            }
            Event::TransferSettled(event) => {
                assert!(!self.under_way.contains_key(&event.transfer_id), "{event:?}");
                0
            }
            Event::AccountFrozen(_) | Event::AccountUnfrozen(_) => 0,
            Event::AccountClosed(_) => {
                assert_eq!(self.balances[stream], 0, "{stream} was closed with money");
                0
            }
        };
        totals.balances += change;
        let balance = self.balances.entry(stream.to_owned()).or_default();
        *balance += change;
        assert!(*balance >= 0, "{stream} is below zero");
        assert!(after.is_none_or(|after| after.units() == *balance), "{stream}: {event:?}");
        let Totals { came_in, balances, fees, under_way, withdrawn } = *totals;
        assert_eq!(came_in, balances + fees + under_way + withdrawn, "{stream}: {event:?}");
    }
}
