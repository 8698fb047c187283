//! What an account's rules need to remember: events -> state.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::event::{AccountType, Event};
use crate::domain::money::{Amount, Currency};
use crate::kernel::time::Timestamp;

/// How long a received transfer is remembered, in seconds: the day in which it is valid, the seven
/// days in which a refusal would be definite, and a day of slack for clocks that disagree.
const RECEIVED_REMEMBERED_SECONDS: i64 = (1 + 7 + 1) * 24 * 60 * 60;

/// An account as its events have made it. Cheap to clone: what can grow or stays is shared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Whether it exists, and what may be done with it.
    pub status: Status,
    /// What it got at its opening.
    #[serde(with = "shared")]
    pub opened: Arc<Opened>,
    /// What it holds. Money under way is out of it already.
    pub balance: Amount,
    /// What all transfers under way would give back: amounts and fees.
    pub under_way_total: Amount,
    /// The transfers under way, by their id.
    pub under_way: OrdMap<String, UnderWay>,
    /// The transfers received of late, and until when each is remembered.
    received: OrdMap<String, Timestamp>,
    /// The same by time, so that what is over can be forgotten.
    received_by_time: OrdMap<(Timestamp, String), ()>,
}

/// What an account gets at its opening and keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Its id, for the rule against transfers to oneself.
    pub account_id: String,
    /// Who owns it.
    pub user_id: String,
    /// The customer's slot that it took, if openings were granted then.
    pub slot_id: Option<String>,
    /// What kind of account it is.
    pub account_type: AccountType,
    /// The currency of everything in it.
    pub currency: Currency,
}

/// Shared in memory, as if it were not where it is written.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        shared: &Arc<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        shared.as_ref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

/// Where an account is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Nothing has happened yet.
    #[default]
    Unopened,
    /// Money may move.
    Active,
    /// No money may move but by corrections.
    Frozen,
    /// It is over.
    Closed,
}

impl Status {
    /// The name in read models.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unopened => "UNOPENED",
            Self::Active => "ACTIVE",
            Self::Frozen => "FROZEN",
            Self::Closed => "CLOSED",
        }
    }
}

/// Money that was sent and has neither arrived nor come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Who shall have it.
    pub to_account_id: String,
    /// How much.
    pub amount: Amount,
    /// The fee that was paid for it.
    pub fee: Amount,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            status: Status::Unopened,
            opened: Arc::new(Opened {
                account_id: String::new(),
                user_id: String::new(),
                slot_id: None,
                account_type: AccountType::Checking,
                currency: Currency::USD,
            }),
            balance: Amount::ZERO,
            under_way_total: Amount::ZERO,
            under_way: OrdMap::new(),
            received: OrdMap::new(),
            received_by_time: OrdMap::new(),
        }
    }
}

impl Account {
    /// Whether that transfer was received of late.
    #[must_use]
    pub fn has_received(&self, transfer_id: &str) -> bool {
        self.received.contains_key(transfer_id)
    }

    /// The state for people: amounts as text, times as RFC 3339.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let under_way = self.under_way.iter().map(|(transfer_id, sent)| {
            let UnderWay { to_account_id, amount, fee } = sent;
            let sent = json!({"to_account_id": to_account_id, "amount": amount, "fee": fee});
            (transfer_id.clone(), sent)
        });
        let received = self.received.iter();
        let received = received.map(|(id, until)| (id.clone(), until.to_rfc3339().into()));
        json!({
            "status": self.status.as_str(),
            "account_id": self.opened.account_id,
            "user_id": self.opened.user_id,
            "account_type": self.opened.account_type,
            "currency": self.opened.currency,
            "slot_id": self.opened.slot_id,
            "balance": self.balance,
            "under_way_total": self.under_way_total,
            "under_way": under_way.collect::<Map<_, _>>(),
            "received_remembered_until": received.collect::<Map<_, _>>(),
        })
    }

    /// Takes a fact in.
    pub(super) fn apply(&mut self, event: &Event, at: Timestamp) {
        match event {
            Event::AccountCreated(event) => {
                self.status = Status::Active;
                self.opened = Arc::new(Opened {
                    account_id: event.account_id.clone(),
                    user_id: event.user_id.clone(),
                    slot_id: event.slot_id.clone(),
                    account_type: event.account_type,
                    currency: event.currency,
                });
                self.balance = event.initial_deposit;
            }
            Event::MoneyDeposited(event) => self.balance = event.balance_after,
            Event::MoneyWithdrawn(event) => self.balance = event.balance_after,
            Event::MoneyTransferred(event) => {
                self.balance = event.balance_after;
                let sent = UnderWay {
                    to_account_id: event.to_account_id.clone(),
                    amount: event.amount,
                    fee: event.transfer_fee,
                };
                self.under_way_total = sum(self.under_way_total, sent.total());
                self.under_way.insert(event.transfer_id.clone(), sent);
            }
            Event::MoneyReceived(event) => {
                self.balance = event.balance_after;
                self.remember(&event.transfer_id, at);
            }
            Event::TransferReversed(event) => {
                self.balance = event.balance_after;
                self.end_transfer(&event.transfer_id);
            }
            Event::TransferSettled(event) => self.end_transfer(&event.transfer_id),
            Event::AccountFrozen(_) => self.status = Status::Frozen,
            Event::AccountUnfrozen(_) => self.status = Status::Active,
            Event::AccountClosed(_) => self.status = Status::Closed,
            Event::EntryCorrected(event) => self.balance = event.balance_after,
        }
    }

    fn end_transfer(&mut self, transfer_id: &str) {
        if let Some(ended) = self.under_way.remove(transfer_id) {
            self.under_way_total = sum(self.under_way_total, ended.total().negated());
        }
    }

    fn remember(&mut self, transfer_id: &str, at: Timestamp) {
        while let Some(((until, id), ())) = self.received_by_time.get_min()
            && *until < at
        {
            let over = (*until, id.clone());
            self.received.remove(&over.1);
            self.received_by_time.remove(&over);
        }
        let until = at.plus_seconds(RECEIVED_REMEMBERED_SECONDS);
        self.received.insert(transfer_id.to_owned(), until);
        self.received_by_time.insert((until, transfer_id.to_owned()), ());
    }
}

impl UnderWay {
    /// What a reversal gives back.
    #[must_use]
    pub fn total(&self) -> Amount {
        sum(self.amount, self.fee)
    }
}

/// Adds amounts that the rules keep far below what an amount can hold.
fn sum(left: Amount, right: Amount) -> Amount {
    left.checked_add(right).unwrap_or(left)
}
