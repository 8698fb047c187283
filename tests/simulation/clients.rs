//! Clients that send commands for a few accounts, each in its own order, some of them twice.

use std::collections::BTreeMap;

use millrace::kernel::message::{Headers, Outgoing};
use millrace::kernel::stream::{Kind, partition_of};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use uuid::Uuid;

use super::world::{PARTITIONS, World};

const CLIENTS: usize = 3;
const ACCOUNTS: u32 = 8;
const COMMANDS: u32 = 60;

/// What a client sent under one id: the aggregate, and its place in the client's order.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) client: usize,
    pub(crate) number: u32,
    pub(crate) account: String,
    pub(crate) is_bad: bool,
}

pub(crate) struct Clients {
    rng: StdRng,
    left: Vec<u32>,
    pub(crate) sent: BTreeMap<Uuid, Sent>,
    again: Vec<(i32, Outgoing)>,
}

impl Clients {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed ^ 0xc11e),
            left: vec![COMMANDS; CLIENTS],
            sent: BTreeMap::new(),
            again: Vec::new(),
        }
    }

    pub(crate) fn maybe_send(&mut self, world: &mut World) {
        if self.rng.random_range(0..5) == 0 {
            self.send_one(world);
        }
        if !self.again.is_empty() && self.rng.random_range(0..15) == 0 {
            let index = self.rng.random_range(0..self.again.len());
            let (partition, record) = self.again.swap_remove(index);
            world.produce(partition, &record);
        }
    }

    pub(crate) fn send_rest(&mut self, world: &mut World) {
        while self.left.iter().any(|left| *left > 0) {
            self.send_one(world);
        }
        for (partition, record) in std::mem::take(&mut self.again) {
            world.produce(partition, &record);
        }
    }

    fn send_one(&mut self, world: &mut World) {
        let client = self.rng.random_range(0..CLIENTS);
        if self.left[client] == 0 {
            return;
        }
        self.left[client] -= 1;
        let number = COMMANDS - self.left[client];
        let account = format!("acc-{}", self.rng.random_range(0..ACCOUNTS));
        let (body, is_bad) = self.body(number);
        let id = Uuid::from_u128((client as u128) << 64 | u128::from(number));
        let mut headers = Headers::default();
        headers.push("ce_id", id.to_string());
        if self.rng.random_range(0..8) == 0 {
            headers.push("expected_version", self.rng.random_range(0..12).to_string());
        }
        let record = Outgoing {
            kind: Kind::Commands,
            key: Some(account.clone().into_bytes()),
            value: Some(body),
            headers,
        };
        // The first client hashes as Java does; the others have partitioners of their own.
        let partition = match client {
            0 => partition_of(&account, PARTITIONS),
            _ => partition_of(&format!("{client}{account}"), PARTITIONS),
        };
        world.produce(partition, &record);
        if self.rng.random_range(0..4) == 0 {
            self.again.push((partition, record));
        }
        self.sent.insert(id, Sent { client, number, account, is_bad });
    }

    fn body(&mut self, number: u32) -> (Vec<u8>, bool) {
        let amount =
            format!("{}.{:02}", self.rng.random_range(1..400), self.rng.random_range(0..99));
        let value: Value = match self.rng.random_range(0..24) {
            0..=3 => json!({"type": "CreateAccount", "user_id": "u", "account_type": "savings",
                "initial_deposit": "500.00"}),
            4..=13 => json!({"type": "Deposit", "amount": amount, "reference": number.to_string()}),
            14..=17 => json!({"type": "Withdraw", "amount": amount}),
            18..=19 => json!({"type": "Transfer", "to_account_id": "elsewhere", "amount": amount}),
            20 => json!({"type": "FreezeAccount", "reason": "check"}),
            _ => match self.rng.random_range(0..8) {
                0 => return (b"not a command".to_vec(), true),
                1 => return (br#"{"type":"Deposit"}"#.to_vec(), true),
                2 => return (br#"{"type":"Deposit","amount":1}"#.to_vec(), true),
                _ => json!({"type": "UnfreezeAccount", "reason": "fine"}),
            },
        };
        (value.to_string().into_bytes(), false)
    }
}
