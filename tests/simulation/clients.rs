//! Clients that send commands for a few accounts, each in its own order, some of them twice.

use std::collections::BTreeMap;

use millrace::domain::banking::account;
use millrace::engine::metadata::derived_id;
use millrace::kernel::message::{Headers, Outgoing};
use millrace::kernel::stream::{Kind, StreamHash, partition_of};
use millrace::kernel::time::Timestamp;
use millrace::log::memory::Place;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::bank::{partitions, topic_id};
use super::shared::Shared;

const CLIENTS: usize = 3;
const ACCOUNTS: u32 = 10;
const COMMANDS: u32 = 30;
/// For so long a client asks again under the same id.
const REPEAT_SECONDS: i64 = 23 * 60 * 60;

/// What a client sent under one id.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) client: usize,
    /// Its place in the client's order.
    pub(crate) number: u32,
    pub(crate) account: String,
    pub(crate) what: What,
    /// How many times the client itself has sent it.
    pub(crate) times: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Opens an account: somebody else is asked first.
    Opening,
    /// An ordinary wish.
    Wish,
    /// One whose id is in its body alone: its place in the order is not promised.
    Keyless,
    /// What only a process manager may say.
    Forged,
    /// What cannot be read.
    Bad,
}

pub(crate) struct Clients {
    rng: StdRng,
    left: Vec<u32>,
    wishes: Vec<u32>,
    pub(crate) sent: BTreeMap<Uuid, Sent>,
    again: Vec<(Uuid, Place, Outgoing, Timestamp)>,
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed ^ 0xc11e),
            left: vec![COMMANDS; CLIENTS],
            wishes: (0..ACCOUNTS).collect(),
            sent: BTreeMap::new(),
            again: Vec::new(),
        }
    }

    pub(crate) fn maybe_send(&mut self, shared: &mut Shared) {
        if self.rng.random_range(0..30) == 0 {
            self.send_one(shared);
        }
        if !self.again.is_empty() && self.rng.random_range(0..60) == 0 {
            self.send_again(shared);
        }
    }

    pub(crate) fn send_rest(&mut self, shared: &mut Shared) {
        while self.left.iter().any(|left| *left > 0) {
            self.send_one(shared);
        }
        while !self.again.is_empty() {
            self.send_again(shared);
        }
    }

    fn send_again(&mut self, shared: &mut Shared) {
        let index = self.rng.random_range(0..self.again.len());
        let (id, place, record, first) = self.again.swap_remove(index);
        if shared.now <= first.plus_seconds(REPEAT_SECONDS) {
            shared.append(place, &record);
            self.sent.get_mut(&id).unwrap().times += 1;
        }
    }

    fn send_one(&mut self, shared: &mut Shared) {
        let client = self.rng.random_range(0..CLIENTS);
        if self.left[client] == 0 {
            return;
        }
        self.left[client] -= 1;
        let number = COMMANDS - self.left[client];
        let (account, body, what) = match self.wishes.pop() {
            Some(account) => (account, opening(account, account / 7), What::Opening),
            None => self.wish(number),
        };
        let account = format!("acc-{account}");
        // The first client hashes as Java does; the others have partitioners of their own.
        let count = partitions(account::NAME);
        let partition = match client {
            0 => partition_of(&account, count),
            _ => partition_of(&format!("{client}{account}"), count),
        };
        let place = Place { aggregate: account::NAME, kind: Kind::Commands, partition };
        let mut id = Uuid::from_u128((client as u128) << 64 | u128::from(number));
        let mut headers = Headers::default();
        let has_id = what != What::Wish || self.rng.random_range(0..8) != 0;
        if has_id {
            headers.push("ce_id", id.to_string());
        } else {
            // It gets one from where it stands first, wherever it is moved.
            let topic_id = topic_id(account::NAME, Kind::Commands);
            id = derived_id(topic_id, partition, shared.log.end_offset(place));
        }
        if what == What::Wish && self.rng.random_range(0..10) == 0 {
            headers.push("expected_version", self.rng.random_range(0..12).to_string());
        }
        let record = Outgoing {
            kind: Kind::Commands,
            key: (what != What::Keyless).then(|| account.clone().into_bytes()),
            value: Some(body),
            headers,
        };
        shared.append(place, &record);
        if has_id && self.rng.random_range(0..3) == 0 {
            self.again.push((id, place, record, shared.now));
        }
        self.sent.insert(id, Sent { client, number, account, what, times: 1 });
    }

    fn wish(&mut self, number: u32) -> (u32, Vec<u8>, What) {
        let account = self.rng.random_range(0..ACCOUNTS);
        let amount =
            format!("{}.{:02}", self.rng.random_range(1..400), self.rng.random_range(0..99));
        let value: Value = match self.rng.random_range(0..40) {
            0..=2 => {
                let user = self.rng.random_range(0..2);
                return (account, opening(account, user), What::Opening);
            }
            3 => {
                let body = json!({"type": "Deposit", "amount": amount,
                    "account_id": format!("acc-{account}")});
                return (account, body.to_string().into_bytes(), What::Keyless);
            }
            4..=8 => json!({"type": "Deposit", "amount": amount, "reference": number.to_string()}),
            9..=13 => json!({"type": "Withdraw", "amount": amount}),
            14..=29 => {
                let to = format!("acc-{}", self.rng.random_range(0..=ACCOUNTS));
                json!({"type": "Transfer", "to_account_id": to, "amount": amount})
            }
            30 => json!({"type": "FreezeAccount", "reason": "check"}),
            31..=32 => json!({"type": "UnfreezeAccount", "reason": "fine"}),
            33 => json!({"type": "CloseAccount"}),
            34 => {
                let stream = StreamHash::new(account::NAME, &format!("acc-{account}"));
                json!({"type": "CorrectEntry", "amount": format!("-{amount}"),
                    "compensates_event_id": stream.event_id(1).to_string()})
            }
            35 => json!({"type": "Withdraw", "amount": "1000.00"}),
            36 => {
                let body = json!({"type": "ReceiveTransfer", "transfer_id": "forged",
                    "from_account_id": "acc-0", "amount": "1.00", "currency": "USD",
                    "valid_until": "2099-01-01T00:00:00Z"});
                return (account, body.to_string().into_bytes(), What::Forged);
            }
            37 => return (account, b"not a command".to_vec(), What::Bad),
            38 => return (account, br#"{"type":"Deposit"}"#.to_vec(), What::Bad),
            _ => return (account, br#"{"type":"Deposit","amount":1}"#.to_vec(), What::Bad),
        };
        (account, value.to_string().into_bytes(), What::Wish)
    }
}

/// Seven accounts are wanted for the first user, who may have five.
fn opening(account: u32, user: u32) -> Vec<u8> {
    let currency = if account.is_multiple_of(5) { "EUR" } else { "USD" };
    let body = json!({"type": "CreateAccount", "user_id": format!("user-{user}"),
        "account_type": "savings", "initial_deposit": "1000.00", "currency": currency});
    body.to_string().into_bytes()
}
