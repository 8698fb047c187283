//! An account as the rules describe it, written anew: what was sent and what it must come to.

use rust_decimal::Decimal;

use crate::log::Event;

/// What a command asks for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Create { is_savings: bool, deposit: Decimal },
    Deposit(Decimal),
    Withdraw(Decimal),
    Transfer(Decimal),
    Freeze,
    Unfreeze,
}

/// A command as its client first sent it.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) account: String,
    pub(crate) wish: Wish,
    pub(crate) expected_version: Option<u64>,
    /// Which client had it first, and as its how-manieth.
    pub(crate) client: usize,
    pub(crate) order: u64,
    /// A repeat by the other client may come in first: then it tells nothing about order.
    pub(crate) repeated_by_another: bool,
}

/// What must come of a command.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Event { name: &'static str, amount: Decimal, fee: Decimal, balance: Decimal },
    Nothing,
    Refused { code: &'static str, details: Vec<(&'static str, String)> },
}

/// One account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) version: u64,
    is_savings: bool,
    is_frozen: bool,
    balance: Decimal,
}

impl Model {
    pub(crate) fn decide(&mut self, sent: &Sent) -> Expected {
        if let Some(expected) = sent.expected_version.filter(|one| *one != self.version) {
            let actual = self.version;
            let details = vec![("expected", expected.to_string()), ("actual", actual.to_string())];
            return Expected::Refused { code: "VersionConflict", details };
        }
        let refused = |code| Expected::Refused { code, details: Vec::new() };
        match &sent.wish {
            Wish::Create { .. } if self.version > 0 => refused("AccountExists"),
            Wish::Create { is_savings, deposit } => {
                self.is_savings = *is_savings;
                self.event("AccountCreated", *deposit, Decimal::ZERO, *deposit)
            }
            _ if self.version == 0 => refused("AccountNotFound"),
            Wish::Freeze | Wish::Unfreeze => {
                let freezes = matches!(sent.wish, Wish::Freeze);
                let name = if freezes { "AccountFrozen" } else { "AccountUnfrozen" };
                if freezes == self.is_frozen {
                    return Expected::Nothing;
                }
                self.event(name, Decimal::ZERO, Decimal::ZERO, self.balance)
            }
            _ if self.is_frozen => refused("AccountInactive"),
            Wish::Deposit(amount) => {
                self.event("MoneyDeposited", *amount, Decimal::ZERO, self.balance + amount)
            }
            Wish::Withdraw(amount) => {
                let dear = self.is_savings && *amount > Decimal::from(1_000);
                self.pay("MoneyWithdrawn", *amount, if dear { 5 } else { 0 })
            }
            Wish::Transfer(amount) => {
                let dear = *amount > Decimal::from(10_000);
                self.pay("MoneyTransferred", *amount, if dear { 10 } else { 2 })
            }
        }
    }

    fn pay(&self, name: &'static str, amount: Decimal, fee: i64) -> Expected {
        let fee = Decimal::from(fee);
        if self.balance >= amount + fee {
            return self.event(name, amount, fee, self.balance - amount - fee);
        }
        let text = |amount: Decimal| format!("{amount:.2}");
        let details = vec![("available", text(self.balance)), ("requested", text(amount + fee))];
        Expected::Refused { code: "InsufficientFunds", details }
    }

    fn event(
        &self,
        name: &'static str,
        amount: Decimal,
        fee: Decimal,
        balance: Decimal,
    ) -> Expected {
        Expected::Event { name, amount, fee, balance }
    }

    /// Takes in what stands in the log.
    pub(crate) fn take(&mut self, event: &Event) {
        self.version = event.sequence;
        match event.name.as_str() {
            "AccountFrozen" => self.is_frozen = true,
            "AccountUnfrozen" => self.is_frozen = false,
            _ => self.balance = event.balance_after.unwrap_or(self.balance),
        }
    }
}
