//! The rules: command and state -> events or a refusal. Checks stand in the order in which they
//! are promised.

use uuid::Uuid;

use super::{
    Account, AccountClosed, AccountCreated, AccountFrozen, AccountType, AccountUnfrozen,
    CloseAccount, Command, CorrectEntry, CreateAccount, Deposit, EntryCorrected, Event,
    FreezeAccount, MoneyDeposited, MoneyReceived, MoneyTransferred, MoneyWithdrawn, NAME,
    ReceiveTransfer, Rejection, ReverseTransfer, SettleTransfer, Status, Transfer,
    TransferReversed, TransferSettled, UnfreezeAccount, Withdraw, minimum_deposit, opening,
};
use crate::domain::money::{Amount, Currency};
use crate::kernel::decider::{Behalf, Context, Decider};
use crate::kernel::reactor::Dispatch;
use crate::kernel::stream::AggregateName;
use crate::kernel::time::Timestamp;

/// The most digits before the point that an amount in a command has.
pub const AMOUNT_WHOLE_DIGITS_MAX: u32 = 15;
/// The most digits before the point that a balance has, money under way included.
const BALANCE_WHOLE_DIGITS_MAX: u32 = 18;
/// How long after `valid_until` a transfer is refused for certain.
const REFUSAL_DEFINITE_SECONDS: i64 = 7 * 24 * 60 * 60;

impl Decider for Account {
    const NAME: AggregateName = NAME;
    const STATE_SCHEMA: u16 = 2;

    type Command = Command;
    type Event = Event;
    type State = Self;
    type Rejection = Rejection;

    fn decide(command: &Command, state: &Self, context: &Context) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::CreateAccount(command) => state.create(command, context),
            _ if state.status == Status::Unopened => Err(Rejection::AccountNotFound),
            Command::Deposit(command) => state.deposit(command),
            Command::Withdraw(command) => state.withdraw(command),
            Command::Transfer(command) => state.transfer(command, context),
            Command::ReceiveTransfer(command) => state.receive(command, context.now),
            Command::ReverseTransfer(command) => state.reverse(command),
            Command::SettleTransfer(command) => Ok(state.settle(command)),
            Command::FreezeAccount(command) => state.freeze(command),
            Command::UnfreezeAccount(command) => state.unfreeze(command),
            Command::CloseAccount(command) => state.close(command),
            Command::CorrectEntry(command) => state.correct(command, context),
        }
    }

    fn evolve(state: &mut Self, event: &Event, at: Timestamp) {
        state.apply(event, at);
    }

    fn is_internal(command: &Command) -> bool {
        matches!(
            command,
            Command::ReceiveTransfer(_)
                | Command::ReverseTransfer(_)
                | Command::SettleTransfer(_)
                | Command::CreateAccount(CreateAccount { grant: Some(_), .. })
        )
    }

    fn hand_on(command: &Command, context: &Context, reply_to: Option<&str>) -> Option<Dispatch> {
        let Command::CreateAccount(command) = command else { return None };
        command.grant.is_none().then(|| opening::ask(command, context, reply_to))
    }

    fn on_behalf_of(command: &Command) -> Option<Behalf> {
        let Command::CreateAccount(CreateAccount { grant: Some(grant), .. }) = command else {
            return None;
        };
        let reply_to = grant.client_reply_to.clone();
        Some(Behalf { command_id: grant.client_command_id, reply_to })
    }
}

impl Account {
    fn create(&self, command: &CreateAccount, context: &Context) -> Result<Vec<Event>, Rejection> {
        if self.opened.slot_id.is_some()
            && self.opened.slot_id == Some(opening::slot_of(command, context))
        {
            return Ok(Vec::new()); // This very wish has made the account.
        }
        let account_type = AccountType::parse(&command.account_type).ok_or_else(|| {
            Rejection::InvalidAccountType { account_type: command.account_type.clone() }
        })?;
        if command.user_id.trim().is_empty() {
            return Err(Rejection::MissingUser);
        }
        let currency = Currency::parse(&command.currency)
            .ok_or_else(|| Rejection::InvalidCurrency { currency: command.currency.clone() })?;
        check_form("initial_deposit", command.initial_deposit, currency)?;
        if command.initial_deposit < minimum_deposit() {
            return Err(Rejection::MinimumDeposit {
                initial_deposit: command.initial_deposit,
                currency,
            });
        }
        if self.status != Status::Unopened {
            return Err(Rejection::AccountExists);
        }
        if command.grant.as_ref().is_some_and(|grant| grant.refused.is_some()) {
            return Err(Rejection::AccountLimit);
        }
        Ok(vec![Event::AccountCreated(AccountCreated {
            account_id: command.account_id.clone(),
            user_id: command.user_id.clone(),
            account_type,
            initial_deposit: command.initial_deposit,
            currency,
            slot_id: command.grant.as_ref().map(|grant| grant.slot_id.clone()),
        })])
    }

    fn deposit(&self, command: &Deposit) -> Result<Vec<Event>, Rejection> {
        self.check_movement(command.amount)?;
        Ok(vec![Event::MoneyDeposited(MoneyDeposited {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            amount: command.amount,
            balance_after: self.balance_with(command.amount)?,
            reference: command.reference.clone(),
        })])
    }

    fn withdraw(&self, command: &Withdraw) -> Result<Vec<Event>, Rejection> {
        self.check_movement(command.amount)?;
        let large = command.amount > Amount::whole(1_000);
        let fee = if self.opened.account_type == AccountType::Savings && large {
            Amount::whole(5)
        } else {
            Amount::ZERO
        };
        Ok(vec![Event::MoneyWithdrawn(MoneyWithdrawn {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            amount: command.amount,
            fee,
            balance_after: self.balance_without(command.amount, fee)?,
            reference: command.reference.clone(),
        })])
    }

    fn transfer(&self, command: &Transfer, context: &Context) -> Result<Vec<Event>, Rejection> {
        self.check_movement(command.amount)?;
        if command.to_account_id == self.opened.account_id {
            return Err(Rejection::SelfTransfer);
        }
        let transfer_fee = if command.amount > Amount::whole(10_000) {
            Amount::whole(10)
        } else {
            Amount::whole(2)
        };
        Ok(vec![Event::MoneyTransferred(MoneyTransferred {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            transfer_id: context.event_id(1).to_string(),
            to_account_id: command.to_account_id.clone(),
            amount: command.amount,
            transfer_fee,
            balance_after: self.balance_without(command.amount, transfer_fee)?,
            reference: command.reference.clone(),
        })])
    }

    fn receive(&self, command: &ReceiveTransfer, now: Timestamp) -> Result<Vec<Event>, Rejection> {
        if self.has_received(&command.transfer_id) {
            return Ok(Vec::new());
        }
        if now > command.valid_until.plus_seconds(REFUSAL_DEFINITE_SECONDS) {
            return Err(Rejection::Unverifiable);
        }
        if now > command.valid_until {
            return Err(Rejection::Expired);
        }
        self.check_active()?;
        if command.currency != self.opened.currency.as_str() {
            return Err(Rejection::CurrencyMismatch {
                expected: self.opened.currency,
                actual: command.currency.clone(),
            });
        }
        check_form("amount", command.amount, self.opened.currency)?;
        check_positive(command.amount)?;
        Ok(vec![Event::MoneyReceived(MoneyReceived {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            transfer_id: command.transfer_id.clone(),
            from_account_id: command.from_account_id.clone(),
            amount: command.amount,
            balance_after: self.balance_with(command.amount)?,
            reference: command.reference.clone(),
        })])
    }

    /// Works in any status: money that was refused elsewhere must not be stranded by a freeze.
    fn reverse(&self, command: &ReverseTransfer) -> Result<Vec<Event>, Rejection> {
        let sent = self.under_way.get(&command.transfer_id).ok_or_else(|| {
            Rejection::TransferNotOpen { transfer_id: command.transfer_id.clone() }
        })?;
        let balance_after = self.balance.checked_add(sent.total());
        Ok(vec![Event::TransferReversed(TransferReversed {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            transfer_id: command.transfer_id.clone(),
            amount: sent.amount,
            transfer_fee: sent.fee,
            balance_after: balance_after.ok_or(Rejection::LimitExceeded)?,
            reason: command.reason.clone(),
        })])
    }

    fn settle(&self, command: &SettleTransfer) -> Vec<Event> {
        let sent = self.under_way.get(&command.transfer_id);
        sent.map(|sent| {
            Event::TransferSettled(TransferSettled {
                user_id: self.opened.user_id.clone(),
                currency: self.opened.currency,
                transfer_id: command.transfer_id.clone(),
                to_account_id: sent.to_account_id.clone(),
                amount: sent.amount,
            })
        })
        .into_iter()
        .collect()
    }

    fn freeze(&self, command: &FreezeAccount) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Frozen => Ok(Vec::new()),
            Status::Closed | Status::Unopened => Err(Rejection::AccountInactive),
            Status::Active => Ok(vec![Event::AccountFrozen(AccountFrozen {
                user_id: self.opened.user_id.clone(),
                currency: self.opened.currency,
                reason: command.reason.clone(),
            })]),
        }
    }

    fn unfreeze(&self, command: &UnfreezeAccount) -> Result<Vec<Event>, Rejection> {
        match self.status {
            Status::Active => Ok(Vec::new()),
            Status::Closed | Status::Unopened => Err(Rejection::AccountInactive),
            Status::Frozen => Ok(vec![Event::AccountUnfrozen(AccountUnfrozen {
                user_id: self.opened.user_id.clone(),
                currency: self.opened.currency,
                reason: command.reason.clone(),
            })]),
        }
    }

    fn close(&self, command: &CloseAccount) -> Result<Vec<Event>, Rejection> {
        if self.status == Status::Closed {
            return Ok(Vec::new()); // Already so: its slot must not be freed twice.
        }
        if !self.balance.is_zero() {
            return Err(Rejection::BalanceNotZero {
                balance: self.balance,
                currency: self.opened.currency,
            });
        }
        if !self.under_way.is_empty() {
            return Err(Rejection::TransferPending);
        }
        Ok(vec![Event::AccountClosed(AccountClosed {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            reason: command.reason.clone(),
            slot_id: self.opened.slot_id.clone(),
        })])
    }

    fn correct(&self, command: &CorrectEntry, context: &Context) -> Result<Vec<Event>, Rejection> {
        let sequence = Uuid::parse_str(&command.compensates_event_id)
            .ok()
            .and_then(|id| context.stream.sequence_of(id))
            .filter(|sequence| (1..=context.version).contains(sequence));
        let Some(sequence) = sequence else {
            return Err(Rejection::UnknownEvent { event_id: command.compensates_event_id.clone() });
        };
        check_form("amount", command.amount, self.opened.currency)?;
        if command.amount.is_zero() {
            return Err(Rejection::NonPositiveAmount { amount: command.amount });
        }
        // Too little money comes before the account's status, too much after it.
        let reduced = if command.amount.is_negative() {
            Some(self.balance_without(command.amount.negated(), Amount::ZERO)?)
        } else {
            None
        };
        if self.status == Status::Closed {
            return Err(Rejection::AccountInactive);
        }
        Ok(vec![Event::EntryCorrected(EntryCorrected {
            user_id: self.opened.user_id.clone(),
            currency: self.opened.currency,
            // As the event itself writes its id, however the sender did.
            compensates_event_id: context.stream.event_id(sequence).to_string(),
            amount: command.amount,
            balance_after: match reduced {
                Some(balance) => balance,
                None => self.balance_with(command.amount)?,
            },
            reason: command.reason.clone(),
        })])
    }

    fn check_active(&self) -> Result<(), Rejection> {
        if self.status == Status::Active { Ok(()) } else { Err(Rejection::AccountInactive) }
    }

    /// What holds for every amount that a client moves.
    fn check_movement(&self, amount: Amount) -> Result<(), Rejection> {
        check_form("amount", amount, self.opened.currency)?;
        check_positive(amount)?;
        self.check_active()
    }

    /// The balance after money came in. What is under way counts in, so that it can come back.
    fn balance_with(&self, amount: Amount) -> Result<Amount, Rejection> {
        let balance = self.balance.checked_add(amount);
        balance
            .filter(|balance| {
                balance
                    .checked_add(self.under_way_total)
                    .is_some_and(|all| all.fits_whole_digits(BALANCE_WHOLE_DIGITS_MAX))
            })
            .ok_or(Rejection::LimitExceeded)
    }

    /// The balance after amount and fee went out.
    fn balance_without(&self, amount: Amount, fee: Amount) -> Result<Amount, Rejection> {
        let requested = amount.checked_add(fee).ok_or(Rejection::LimitExceeded)?;
        let balance = self.balance.checked_sub(requested);
        balance.filter(|balance| !balance.is_negative()).ok_or(Rejection::InsufficientFunds {
            available: self.balance,
            requested,
            currency: self.opened.currency,
        })
    }
}

fn check_positive(amount: Amount) -> Result<(), Rejection> {
    if amount.is_positive() { Ok(()) } else { Err(Rejection::NonPositiveAmount { amount }) }
}

/// Refuses an amount that its currency cannot express, or that is longer than amounts may be.
fn check_form(field: &'static str, amount: Amount, currency: Currency) -> Result<(), Rejection> {
    let reason = if amount.decimals() > currency.decimals() {
        format!("has more decimals than {currency}, which has {}", currency.decimals())
    } else if !amount.fits_whole_digits(AMOUNT_WHOLE_DIGITS_MAX) {
        format!("has more than {AMOUNT_WHOLE_DIGITS_MAX} digits before the point")
    } else {
        return Ok(());
    };
    Err(Rejection::InvalidField { field, reason })
}
