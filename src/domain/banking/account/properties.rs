//! What holds for every history: no money appears or disappears, and no balance is below zero.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Context, Decider};
use crate::kernel::stream::StreamHash;
use crate::kernel::time::Timestamp;

const ACCOUNTS: usize = 4;

/// What somebody does next.
#[derive(Clone, Debug)]
enum Step {
    /// A client's command at an account.
    Wish(usize, Box<Command>),
    /// The process manager takes the oldest open transfer one step further.
    Deliver,
    /// The same, after the transfer's time.
    DeliverLate,
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (-100_i128..3_000_000).prop_map(|cents| cents * 1_000_000),
        (-100_i128..20_000).prop_map(|units| units * 100_000_000),
        Just(99_999_999_999_999_900_000_000_i128),
    ]
    .prop_map(|units| Amount::from_units(units).unwrap())
}

fn step() -> impl Strategy<Value = Step> {
    let id = |index: usize| format!("acc-{index}");
    let reason = Some("because".to_owned());
    let command = prop_oneof![
        2 => (amount(), prop_oneof!["USD", "USD", "EUR"], prop_oneof!["savings", "checking"])
            .prop_map(|(initial_deposit, currency, account_type)| {
                Command::CreateAccount(CreateAccount {
                    account_id: String::new(),
                    user_id: "user".to_owned(),
                    account_type,
                    initial_deposit,
                    currency, grant: None, })
            }),
        3 => amount().prop_map(|amount| {
            Command::Deposit(Deposit { amount, reference: None })
        }),
        3 => amount().prop_map(|amount| {
            Command::Withdraw(Withdraw { amount, reference: None })
        }),
        6 => (0..=ACCOUNTS, amount()).prop_map(move |(to, amount)| {
            Command::Transfer(Transfer { to_account_id: id(to), amount, reference: None })
        }),
        1 => Just(Command::FreezeAccount(FreezeAccount { reason: reason.clone() })),
        1 => Just(Command::UnfreezeAccount(UnfreezeAccount { reason: reason.clone() })),
        1 => Just(Command::CloseAccount(CloseAccount { reason: reason.clone() })),
        2 => (amount(), 0_u64..8, any::<bool>()).prop_map(|(amount, sequence, negative)| {
            Command::CorrectEntry(CorrectEntry {
                compensates_event_id: sequence.to_string(),
                amount: if negative { amount.negated() } else { amount },
                reason: None,
            })
        }),
    ];
    prop_oneof![
        8 => (0..ACCOUNTS, command).prop_map(|(at, command)| Step::Wish(at, Box::new(command))),
        4 => Just(Step::Deliver),
        1 => Just(Step::DeliverLate),
    ]
}

/// Accounts, the open transfers between them, and the books that must balance.
#[derive(Default)]
struct Bank {
    accounts: BTreeMap<String, (Account, u64)>,
    open: Vec<(String, MoneyTransferred)>,
    /// For each currency: what came in less what left, as the events say.
    books: BTreeMap<Currency, i128>,
    now: Timestamp,
}

impl Bank {
    fn send(&mut self, id: &str, mut command: Command) -> Result<Vec<Event>, Rejection> {
        self.now = self.now.plus_seconds(1);
        let (state, version) = self.accounts.entry(id.to_owned()).or_default();
        let context = Context {
            now: self.now,
            stream: StreamHash::new(NAME, id),
            version: *version,
            command_id: uuid::Uuid::nil(),
        };
        if let Command::CreateAccount(command) = &mut command {
            id.clone_into(&mut command.account_id);
        }
        if let Command::CorrectEntry(command) = &mut command {
            let sequence = command.compensates_event_id.parse().unwrap();
            command.compensates_event_id = context.stream.event_id(sequence).to_string();
        }
        let events = Account::decide(&command, state, &context)?;
        for event in &events {
            *version += 1;
            Account::evolve(state, event, self.now);
        }
        for event in &events {
            self.book(id, event);
        }
        Ok(events)
    }

    fn book(&mut self, id: &str, event: &Event) {
        let book = self.books.entry(event.currency()).or_default();
        match event {
            Event::AccountCreated(event) => *book += event.initial_deposit.units(),
            Event::MoneyDeposited(event) => *book += event.amount.units(),
            Event::EntryCorrected(event) => *book += event.amount.units(),
            Event::MoneyWithdrawn(event) => *book -= event.amount.units() + event.fee.units(),
            // Between accounts only the fee leaves; what is under way is in the books all the time.
            Event::MoneyTransferred(event) => {
                *book -= event.transfer_fee.units();
                self.open.push((id.to_owned(), event.clone()));
            }
            Event::TransferReversed(event) => *book += event.transfer_fee.units(),
            Event::MoneyReceived(_)
            | Event::TransferSettled(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => {}
        }
    }

    /// The receiver answers, and its answer goes back to the sender at once.
    fn deliver(&mut self, late: bool) {
        if self.open.is_empty() {
            return;
        }
        let (from, sent) = self.open.remove(0);
        let receive = Command::ReceiveTransfer(ReceiveTransfer {
            transfer_id: sent.transfer_id.clone(),
            from_account_id: from.clone(),
            amount: sent.amount,
            currency: sent.currency.to_string(),
            reference: None,
            valid_until: self.now.plus_seconds(if late { -5 } else { 100 }),
        });
        let finish = match self.send(&sent.to_account_id, receive.clone()) {
            Ok(_) => {
                assert_eq!(self.send(&sent.to_account_id, receive), Ok(Vec::new()));
                Command::SettleTransfer(SettleTransfer {
                    transfer_id: sent.transfer_id,
                    to_account_id: sent.to_account_id,
                })
            }
            Err(rejection) => Command::ReverseTransfer(ReverseTransfer {
                transfer_id: sent.transfer_id,
                reason: Some(format!("{rejection:?}")),
            }),
        };
        assert_eq!(self.send(&from, finish).map(|events| events.len()), Ok(1));
    }

    /// Balances and money under way, for each currency.
    fn check(&self) {
        let mut held: BTreeMap<Currency, i128> = BTreeMap::new();
        for (account, _) in self.accounts.values() {
            assert!(!account.balance.is_negative());
            let under_way: i128 = account.under_way.values().map(|sent| sent.amount.units()).sum();
            *held.entry(account.opened.currency).or_default() +=
                account.balance.units() + under_way;
            let total: i128 = account.under_way.values().map(|sent| sent.total().units()).sum();
            assert_eq!(account.under_way_total.units(), total);
        }
        held.retain(|_, units| *units != 0);
        let mut books = self.books.clone();
        books.retain(|_, units| *units != 0);
        assert_eq!(held, books);
    }
}

proptest! {
    #[test]
    fn money_is_conserved_and_no_balance_is_negative(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut bank = Bank { now: Timestamp(1_767_225_600_000_000), ..Bank::default() };
        for index in 0..ACCOUNTS - 1 {
            let _ = bank.send(&format!("acc-{index}"), Command::CreateAccount(CreateAccount {
                account_id: String::new(),
                user_id: "user".to_owned(),
                account_type: "SAVINGS".to_owned(),
                initial_deposit: Amount::whole(5_000),
                currency: "USD".to_owned(), grant: None, }));
        }
        for step in steps {
            match step {
                Step::Wish(at, command) => {
                    let _ = bank.send(&format!("acc-{at}"), *command);
                }
                Step::Deliver => bank.deliver(false),
                Step::DeliverLate => bank.deliver(true),
            }
            bank.check();
        }
        while !bank.open.is_empty() {
            bank.deliver(false);
            bank.check();
        }
        prop_assert!(bank.accounts.values().all(|(account, _)| account.under_way.is_empty()));
    }
}
