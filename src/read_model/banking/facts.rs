//! What a row says of an event beside its head and payload: whose it is, and about what money.

use crate::domain::banking::{account, account_opening, customer, transfer};
use crate::domain::money::{Amount, Currency};

/// What one event is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts<'a> {
    /// Who owns the account; of a transfer, the sender's.
    pub(super) user_id: &'a str,
    /// The event's own money, if it is about any.
    pub(super) money: Option<(Amount, Currency)>,
    /// What it charged; negative if it was given back. Only an account's event charges: a process
    /// manager's tells the same fee once more.
    pub(super) fee: Amount,
    /// The account's balance after it, if it moved money.
    pub(super) balance_after: Option<Amount>,
    /// The account's type, on the event that opens it.
    pub(super) account_type: &'static str,
}

impl<'a> From<&'a account::Event> for Facts<'a> {
    fn from(event: &'a account::Event) -> Self {
        use account::Event;
        let (fee, balance_after) = match event {
            Event::AccountCreated(event) => (Amount::ZERO, Some(event.initial_deposit)),
            Event::MoneyDeposited(event) => (Amount::ZERO, Some(event.balance_after)),
            Event::MoneyWithdrawn(event) => (event.fee, Some(event.balance_after)),
            Event::MoneyTransferred(event) => (event.transfer_fee, Some(event.balance_after)),
            Event::MoneyReceived(event) => (Amount::ZERO, Some(event.balance_after)),
            Event::TransferReversed(event) => {
                (event.transfer_fee.negated(), Some(event.balance_after))
            }
            Event::EntryCorrected(event) => (Amount::ZERO, Some(event.balance_after)),
            Event::TransferSettled(_)
            | Event::AccountFrozen(_)
            | Event::AccountUnfrozen(_)
            | Event::AccountClosed(_) => (Amount::ZERO, None),
        };
        let account_type =
            if let Event::AccountCreated(event) = event { event.account_type.as_str() } else { "" };
        let money = event.amount().map(|amount| (amount, event.currency()));
        Self { user_id: event.user_id(), money, fee, balance_after, account_type }
    }
}

impl<'a> From<&'a customer::Event> for Facts<'a> {
    fn from(event: &'a customer::Event) -> Self {
        use customer::Event;
        match event {
            Event::SlotReserved(event)
            | Event::SlotConfirmed(event)
            | Event::SlotReleased(event)
            | Event::SlotFreed(event) => Self::of(&event.user_id, None),
            Event::SlotDenied(event) => Self::of(&event.user_id, None),
        }
    }
}

impl<'a> From<&'a transfer::Event> for Facts<'a> {
    fn from(event: &'a transfer::Event) -> Self {
        use transfer::Event;
        match event {
            Event::TransferStarted(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::TransferReceived(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::TransferCompleted(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::ReversalStarted(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::TransferReversed(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::StepRepeated(event) => {
                Self::of(&event.user_id, Some((event.amount, event.currency)))
            }
            Event::StepFailed(event) => Self::of(&event.user_id, None),
            Event::TransferParked(event) => Self::of(&event.user_id, None),
        }
    }
}

impl<'a> From<&'a account_opening::Event> for Facts<'a> {
    fn from(event: &'a account_opening::Event) -> Self {
        use account_opening::Event;
        match event {
            Event::OpeningStarted(event) => {
                Self::of(&event.user_id, Some((event.initial_deposit, event.currency)))
            }
            Event::OpeningAdvanced(event) => {
                Self::of(&event.user_id, Some((event.initial_deposit, event.currency)))
            }
            Event::StepFailed(event) => Self::of(&event.user_id, None),
            Event::OpeningParked(event) => Self::of(&event.user_id, None),
            Event::OpeningEnded(event) => Self::of(&event.user_id, None),
        }
    }
}

impl<'a> Facts<'a> {
    fn of(user_id: &'a str, money: Option<(Amount, Currency)>) -> Self {
        Self { user_id, money, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::banking::account_opening::{OpeningEnded, Outcome};
    use crate::domain::banking::customer::SlotTaken;
    use crate::domain::banking::transfer::{Step, TransferParked, TransferReversed};

    #[test]
    fn a_process_managers_fee_is_not_charged_again() {
        let reversed = TransferReversed {
            user_id: "ada".to_owned(),
            currency: Currency::USD,
            amount: Amount::whole(300),
            fee: Amount::whole(2),
            reason: "AccountNotFound".to_owned(),
        };
        let event = transfer::Event::TransferReversed(reversed);
        let money = Some((Amount::whole(300), Currency::USD));
        assert_eq!(Facts::from(&event), Facts { user_id: "ada", money, ..Facts::default() });
    }

    #[test]
    fn what_is_about_no_money_has_an_owner_all_the_same() {
        let user_id = || "ada".to_owned();
        let reason = "no answer".to_owned();
        let parked = TransferParked { user_id: user_id(), step: Step::Receive, reason };
        let parked = transfer::Event::TransferParked(parked);
        let taken =
            SlotTaken { user_id: user_id(), slot_id: "s".to_owned(), account_id: "a".to_owned() };
        let freed = customer::Event::SlotFreed(taken);
        let ended = account_opening::Event::OpeningEnded(OpeningEnded {
            user_id: user_id(),
            account_id: "a".to_owned(),
            outcome: Outcome::Opened,
            reason: None,
        });
        let expected = Facts { user_id: "ada", ..Facts::default() };
        assert_eq!(Facts::from(&parked), expected);
        assert_eq!(Facts::from(&freed), expected);
        assert_eq!(Facts::from(&ended), expected);
    }
}
