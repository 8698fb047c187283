//! A customer: how many open accounts somebody has. At most five, whoever asks at the same time.
//!
//! Its id is the user's. Each account that is to be opened needs a slot of its own. Every slot id
//! is remembered, also one that was denied or freed, so that what is sent again changes nothing.

#[cfg(test)]
mod tests;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::kernel::decider::{self, Context, Decider};
use crate::kernel::stream::AggregateName;
use crate::kernel::time::Timestamp;

/// What customers are called.
pub const NAME: AggregateName = AggregateName { domain: "banking", aggregate: "customer" };
/// How many open accounts a customer has at most.
pub const OPEN_MAX: usize = 5;
/// The code of the no to a sixth account.
pub const ACCOUNT_LIMIT: &str = "AccountLimit";

/// A wish about one customer's slots. All of them are internal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A slot is wanted for an account that is to be opened.
    ReserveSlot {
        /// The customer: the stream's own id.
        user_id: String,
        /// The slot.
        slot_id: String,
        /// The account.
        account_id: String,
    },
    /// The account was opened.
    ConfirmSlot {
        /// The slot.
        slot_id: String,
    },
    /// The account was not opened.
    ReleaseSlot {
        /// The slot.
        slot_id: String,
    },
    /// The account was closed.
    FreeSlot {
        /// The slot.
        slot_id: String,
    },
}

/// A fact about one customer's slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// The slot was set aside.
    SlotReserved(SlotTaken),
    /// All slots are taken: a remembered no.
    SlotDenied(SlotDenied),
    /// Its account was opened.
    SlotConfirmed(SlotTaken),
    /// Its account was not opened: it can be given again.
    SlotReleased(SlotTaken),
    /// Its account was closed: it can be given again.
    SlotFreed(SlotTaken),
}

/// Which slot, whose, and for which account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTaken {
    /// The customer.
    pub user_id: String,
    /// The slot.
    pub slot_id: String,
    /// The account.
    pub account_id: String,
}

/// Which slot there is none of, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotDenied {
    /// The customer.
    pub user_id: String,
    /// The slot.
    pub slot_id: String,
    /// The account.
    pub account_id: String,
    /// The code.
    pub code: String,
}

/// A typed refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// That slot was denied before.
    AccountLimit,
    /// That slot was released or freed before.
    SlotOver,
    /// That slot was never asked for.
    SlotNotFound,
}

/// A customer as the events have made it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    user_id: String,
    /// The slots that count, with their accounts.
    open: OrdMap<String, Slot>,
    /// The slots that count no more, and whether they were denied.
    over: OrdMap<String, bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    account_id: String,
    confirmed: bool,
}

impl Decider for Customer {
    const NAME: AggregateName = NAME;
    const STATE_SCHEMA: u16 = 1;

    type Command = Command;
    type Event = Event;
    type State = Self;
    type Rejection = Rejection;

    fn decide(
        command: &Command,
        state: &Self,
        _context: &Context,
    ) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::ReserveSlot { user_id, slot_id, account_id } => {
                state.reserve(user_id, slot_id, account_id)
            }
            Command::ConfirmSlot { slot_id } => state.change(slot_id, |slot, taken| {
                (!slot.confirmed).then_some(Event::SlotConfirmed(taken))
            }),
            Command::ReleaseSlot { slot_id } => state.change(slot_id, |slot, taken| {
                // What was opened is freed by its closing, and by nothing else.
                (!slot.confirmed).then_some(Event::SlotReleased(taken))
            }),
            Command::FreeSlot { slot_id } => {
                state.change(slot_id, |_, taken| Some(Event::SlotFreed(taken)))
            }
        }
    }

    fn evolve(state: &mut Self, event: &Event, _at: Timestamp) {
        match event {
            Event::SlotReserved(event) => {
                state.user_id.clone_from(&event.user_id);
                let slot = Slot { account_id: event.account_id.clone(), confirmed: false };
                state.open.insert(event.slot_id.clone(), slot);
            }
            Event::SlotDenied(event) => {
                state.over.insert(event.slot_id.clone(), true);
            }
            Event::SlotConfirmed(event) => {
                if let Some(slot) = state.open.get_mut(&event.slot_id) {
                    slot.confirmed = true;
                }
            }
            Event::SlotReleased(event) | Event::SlotFreed(event) => {
                state.open.remove(&event.slot_id);
                state.over.insert(event.slot_id.clone(), false);
            }
        }
    }

    fn is_internal(_command: &Command) -> bool {
        true
    }
}

impl Customer {
    /// The state for people.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let open = self.open.iter().map(|(slot_id, slot)| {
            let Slot { account_id, confirmed } = slot;
            (slot_id.clone(), json!({"account_id": account_id, "confirmed": confirmed}))
        });
        let over = self.over.iter().map(|(slot_id, denied)| {
            (slot_id.clone(), if *denied { "DENIED" } else { "GIVEN_BACK" }.into())
        });
        json!({
            "user_id": self.user_id,
            "open": open.collect::<Map<_, _>>(),
            "over": over.collect::<Map<_, _>>(),
        })
    }

    /// How many slots count.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    fn reserve(
        &self,
        user_id: &str,
        slot_id: &str,
        account_id: &str,
    ) -> Result<Vec<Event>, Rejection> {
        if self.open.contains_key(slot_id) {
            return Ok(Vec::new());
        }
        match self.over.get(slot_id) {
            Some(true) => return Err(Rejection::AccountLimit),
            Some(false) => return Err(Rejection::SlotOver),
            None => {}
        }
        let (user_id, slot_id) = (user_id.to_owned(), slot_id.to_owned());
        let account_id = account_id.to_owned();
        Ok(vec![if self.open.len() < OPEN_MAX {
            Event::SlotReserved(SlotTaken { user_id, slot_id, account_id })
        } else {
            let code = ACCOUNT_LIMIT.to_owned();
            Event::SlotDenied(SlotDenied { user_id, slot_id, account_id, code })
        }])
    }

    /// What becomes of a slot that counts. One that is over stays so.
    fn change(
        &self,
        slot_id: &str,
        event: impl FnOnce(&Slot, SlotTaken) -> Option<Event>,
    ) -> Result<Vec<Event>, Rejection> {
        let Some(slot) = self.open.get(slot_id) else {
            let known = self.over.contains_key(slot_id);
            return if known { Ok(Vec::new()) } else { Err(Rejection::SlotNotFound) };
        };
        let taken = SlotTaken {
            user_id: self.user_id.clone(),
            slot_id: slot_id.to_owned(),
            account_id: slot.account_id.clone(),
        };
        Ok(event(slot, taken).into_iter().collect())
    }
}

impl Event {
    /// The short name: `SlotReserved`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::SlotReserved(_) => "SlotReserved",
            Self::SlotDenied(_) => "SlotDenied",
            Self::SlotConfirmed(_) => "SlotConfirmed",
            Self::SlotReleased(_) => "SlotReleased",
            Self::SlotFreed(_) => "SlotFreed",
        }
    }
}

impl decider::Rejection for Rejection {
    fn code(&self) -> &'static str {
        match self {
            Self::AccountLimit => ACCOUNT_LIMIT,
            Self::SlotOver => "SlotOver",
            Self::SlotNotFound => "SlotNotFound",
        }
    }

    fn message(&self) -> String {
        match self {
            Self::AccountLimit => format!("The customer has {OPEN_MAX} open accounts."),
            Self::SlotOver => "The slot was given back before.".to_owned(),
            Self::SlotNotFound => "There is no such slot.".to_owned(),
        }
    }
}
