//! The load: openings of accounts, then deposits and withdrawals that all succeed.
//!
//! The same numbers give the same commands, so that two runs are comparable.

use std::sync::Arc;

use ring::hmac;
use serde::Serialize;
use uuid::Uuid;

use super::Error;
use super::ground::names;
use crate::codec::schemas::Schemas;
use crate::codec::{avro, compiled};
use crate::config::Config;
use crate::domain::money::Amount;
use crate::engine::origin::{Origin, Sender, Signed, Source};
use crate::kernel::message::Headers;
use crate::kernel::stream::partition_of;
use crate::log::kafka::group::Witness;
use crate::runtime::signing::internal_key;

const TYPES: [&str; 4] = ["CHECKING", "SAVINGS", "BUSINESS", "INVESTMENT"];
const CENT: i128 = 1_000_000;
const OPENING_CENTS: i64 = 100_000;
/// Below the amount from which on a withdrawal costs a fee, so that no balance is too low.
const CENTS_MAX: u64 = 90_000;

#[derive(Serialize)]
struct CreateAccount<'a> {
    account_id: Option<&'a str>,
    user_id: Option<&'a str>,
    account_type: &'a str,
    initial_deposit: Amount,
    currency: Option<&'a str>,
    grant_slot_id: &'a str,
    grant_client_command_id: &'a str,
    grant_client_reply_to: Option<&'a str>,
    grant_refused: Option<&'a str>,
}

#[derive(Serialize)]
struct Movement<'a> {
    account_id: Option<&'a str>,
    amount: Amount,
    reference: Option<&'a str>,
}

/// A command, ready to be sent.
pub struct Wire {
    /// Where its aggregate lives.
    pub partition: i32,
    /// The aggregate id.
    pub key: String,
    /// Avro in the registry's wire format.
    pub value: Vec<u8>,
    /// `ce_id` alone.
    pub headers: Headers,
}

/// Makes commands.
pub struct Load {
    forms: [(u32, &'static compiled::Compiled); 3],
    partitions: i32,
    balances: Vec<i64>,
    accounts: usize,
    opened: usize,
    random: u64,
    /// The first half of every command id; the second counts.
    run: u64,
    made: u64,
    grants: Grants,
}

/// Openings are signed as the process manager's own, with the slot granted: what is measured is the
/// account's handler.
#[derive(Clone, Debug)]
pub struct Grants {
    /// The commands topic.
    pub topic: String,
    /// What signs them.
    pub key: hmac::Key,
}

impl Grants {
    /// The grants that a handler in that namespace believes.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub fn find(config: &Config) -> Result<Self, Error> {
        let topic = names(&config.namespace).commands;
        let cluster_id = Witness::open(&config.kafka, "millrace.bench")?.cluster_id()?;
        Ok(Self { topic, key: internal_key(config, &cluster_id) })
    }

    /// Signs a granted opening; of two, the later one has the higher `nth`.
    pub fn sign(&self, wire: &mut Wire, nth: u64) {
        let source =
            Source { group: "millrace.bench".to_owned(), topic_id: Uuid::nil(), partition: 0 };
        let offset = i64::try_from(nth).unwrap_or(i64::MAX);
        let origin = Origin { sender: Sender::ProcessManager, source, offset, index: 0 };
        let signed = Signed {
            topic: &self.topic,
            key: wire.key.as_bytes(),
            command_id: wire.headers.get("ce_id").unwrap_or_default(),
            value: &wire.value,
        };
        let header = origin.to_header(signed, &self.key);
        wire.headers.push("origin", header);
    }
}

impl Load {
    /// Starts with no account; `run` tells this load's command ids from every other's.
    ///
    /// # Errors
    /// A command's schema has no id.
    pub fn new(
        schemas: &Arc<Schemas>,
        accounts: usize,
        partitions: i32,
        run: u64,
        grants: Grants,
    ) -> Result<Self, Error> {
        let form = |name: &str| {
            let record = format!("millrace.banking.account.{name}");
            let place = compiled::current(&record);
            place
                .and_then(|place| Some((schemas.own_id(place)?, &compiled::all()[place])))
                .ok_or_else(|| Error::Wrong(format!("{record} has no schema id")))
        };
        Ok(Self {
            forms: [form("CreateAccount")?, form("Deposit")?, form("Withdraw")?],
            partitions,
            balances: Vec::with_capacity(accounts),
            accounts,
            opened: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            run,
            made: 0,
            grants,
        })
    }

    /// Takes all accounts as open, with ids under `run` from now on.
    pub fn go_on(&mut self, run: u64) {
        self.opened = self.accounts;
        self.balances.resize(self.accounts, OPENING_CENTS);
        self.run = run;
        self.made = 0;
    }

    /// The next command: an opening until all accounts are open, then a movement.
    ///
    /// # Errors
    /// It does not fit its schema.
    pub fn command(&mut self) -> Result<Wire, Error> {
        if self.opened < self.accounts {
            let index = self.opened;
            self.opened += 1;
            self.balances.push(OPENING_CENTS);
            return self.opening(index);
        }
        let account = usize::try_from(self.draw() % self.accounts as u64).unwrap_or(0);
        let cents = i64::try_from(self.draw() % CENTS_MAX + 1).unwrap_or(1);
        let takes = self.draw() % 10 < 4 && self.balances[account] >= cents;
        self.balances[account] += if takes { -cents } else { cents };
        self.movement(account, cents, takes)
    }

    /// A deposit whatever the balance is, for loads that nobody keeps books of.
    ///
    /// # Errors
    /// It does not fit its schema.
    pub fn deposit(&mut self) -> Result<Wire, Error> {
        let account = usize::try_from(self.draw() % self.accounts as u64).unwrap_or(0);
        let cents = i64::try_from(self.draw() % CENTS_MAX + 1).unwrap_or(1);
        self.movement(account, cents, false)
    }

    fn opening(&mut self, index: usize) -> Result<Wire, Error> {
        let user_id = format!("user-{:07}", index / 4);
        let key = key(index);
        let client = command_id(self.run ^ 1, self.made).to_string();
        let command = CreateAccount {
            account_id: None,
            user_id: Some(&user_id),
            account_type: TYPES[index % TYPES.len()],
            initial_deposit: amount(OPENING_CENTS)?,
            currency: Some("USD"),
            grant_slot_id: &key,
            grant_client_command_id: &client,
            grant_client_reply_to: None,
            grant_refused: None,
        };
        let mut wire = self.wire(0, key.clone(), &command)?;
        self.grants.sign(&mut wire, self.made);
        Ok(wire)
    }

    fn movement(&mut self, account: usize, cents: i64, takes: bool) -> Result<Wire, Error> {
        let reference = format!("invoice {:08}", self.made);
        let command =
            Movement { account_id: None, amount: amount(cents)?, reference: Some(&reference) };
        self.wire(if takes { 2 } else { 1 }, key(account), &command)
    }

    fn wire(&mut self, form: usize, key: String, command: &impl Serialize) -> Result<Wire, Error> {
        let (id, compiled) = self.forms[form];
        let mut value = Vec::with_capacity(64);
        avro::encode(id, &compiled.schema, command, &mut value).map_err(Error::Wrong)?;
        let mut headers = Headers::with_capacity(48);
        headers.push("ce_id", command_id(self.run, self.made).to_string());
        self.made += 1;
        Ok(Wire { partition: partition_of(&key, self.partitions), key, value, headers })
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.random;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }
}

/// The id of a load's `nth` command, from 0.
#[must_use]
pub fn command_id(run: u64, nth: u64) -> Uuid {
    Uuid::from_u64_pair(run, nth)
}

/// Which command of a load an id belongs to.
#[must_use]
pub fn place_in(run: u64, text: &[u8]) -> Option<u64> {
    let id = Uuid::try_parse_ascii(text).ok()?;
    let (found, nth) = id.as_u64_pair();
    (found == run).then_some(nth)
}

/// An account's id.
#[must_use]
pub fn key(index: usize) -> String {
    format!("acc-{index:08}")
}

fn amount(cents: i64) -> Result<Amount, Error> {
    let amount = Amount::from_units(i128::from(cents) * CENT);
    amount.ok_or_else(|| Error::Wrong(format!("{cents} cents are no amount")))
}
