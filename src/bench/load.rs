//! The load: openings of accounts, then deposits and withdrawals that all succeed.
//!
//! The same numbers give the same commands, so that two runs are comparable.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::Error;
use crate::codec::schemas::Schemas;
use crate::codec::{avro, compiled};
use crate::domain::money::Amount;
use crate::kernel::message::Headers;
use crate::kernel::stream::partition_of;

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
        let command = CreateAccount {
            account_id: None,
            user_id: Some(&user_id),
            account_type: TYPES[index % TYPES.len()],
            initial_deposit: amount(OPENING_CENTS)?,
            currency: Some("USD"),
        };
        self.wire(0, key, &command)
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

fn key(index: usize) -> String {
    format!("acc-{index:08}")
}

fn amount(cents: i64) -> Result<Amount, Error> {
    let amount = Amount::from_units(i128::from(cents) * CENT);
    amount.ok_or_else(|| Error::Wrong(format!("{cents} cents are no amount")))
}
