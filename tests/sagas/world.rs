//! The aggregates, their reactors, and what is under way between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace::codec::banking::AccountCodec;
use millrace::codec::banking::account_opening::AccountOpeningCodec;
use millrace::codec::banking::customer::CustomerCodec;
use millrace::codec::banking::transfer::TransferCodec;
use millrace::codec::schemas::Schemas;
use millrace::domain::banking::account::{self, Account, Event, Status};
use millrace::domain::banking::account_opening::{
    AccountOpeningReactor, Opening, Phase as OpeningPhase,
};
use millrace::domain::banking::customer::Customer;
use millrace::domain::banking::transfer::{Phase, Transfer, TransferReactor};
use millrace::kernel::codec::Codec;
use millrace::kernel::decider::{Context, Decider, Rejection, Timer};
use millrace::kernel::message::{Headers, Record};
use millrace::kernel::reactor::{Dispatch, Reactor};
use millrace::kernel::result::{CommandResult, Outcome, PROCESS_MANAGER, RESULT_OF};
use millrace::kernel::stream::{AggregateName, Kind, StreamHash, event_key};
use millrace::kernel::time::Timestamp;
use uuid::Uuid;

const WINDOW_SECONDS: i64 = 24 * 60 * 60;
const USER: &str = "user-1";

/// A small generator of numbers: SplitMix64.
pub(crate) struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).unwrap()
    }
}

#[derive(Clone)]
enum Message {
    /// A command, and whether a process manager has sent it.
    Command(Dispatch, bool),
    Record(AggregateName, Kind, Record),
}

/// One kind of aggregate as a handler keeps it.
struct Kept<D: Decider> {
    codec: Arc<dyn Codec<D>>,
    streams: BTreeMap<String, (D::State, u64)>,
    answers: BTreeMap<(String, Uuid, bool), CommandResult>,
    timers: BTreeMap<String, Timestamp>,
    log: Vec<(String, D::Event)>,
}

impl<D: Decider> Kept<D> {
    fn new(codec: impl Codec<D>) -> Self {
        let codec: Arc<dyn Codec<D>> = Arc::new(codec);
        let (streams, answers) = (BTreeMap::new(), BTreeMap::new());
        Self { codec, streams, answers, timers: BTreeMap::new(), log: Vec::new() }
    }

    /// One command's turn: what follows from it goes into the bag.
    fn take(
        &mut self,
        sent: &Dispatch,
        internal: bool,
        now: Timestamp,
        fails: bool,
    ) -> Vec<Message> {
        let decoded = self.codec.decode_command(Some(&sent.id), Some(&sent.body)).unwrap();
        let key = (sent.id.clone(), sent.command_id, internal);
        let known = self.answers.get(&key);
        let known = known.filter(|known| now <= known.decided_at.plus_seconds(WINDOW_SECONDS));
        if let Some(known) = known {
            assert_eq!(known.content_hash, decoded.content_hash, "one content for an id");
            let repeat = CommandResult { duplicate: true, ..known.clone() };
            return self.result(sent, internal, &repeat).into_iter().collect();
        }
        assert!(internal || !D::is_internal(&decoded.command));
        let (mut state, version) = self.streams.get(&sent.id).cloned().unwrap_or_default();
        let stream = StreamHash::new(D::NAME, &sent.id);
        let context = Context { now, stream, version, command_id: sent.command_id };
        let decided = D::decide(&decoded.command, &state, &context);
        let mut follows = Vec::new();
        if !internal
            && decided.as_ref().is_ok_and(|events| !events.is_empty())
            && let Some(dispatch) = D::hand_on(&decoded.command, &context, None)
        {
            return vec![Message::Command(dispatch, true)];
        }
        let mut result = CommandResult {
            command_id: sent.command_id,
            aggregate_id: sent.id.clone(),
            outcome: Outcome::Accepted,
            code: None,
            message: None,
            retryable: false,
            details: Vec::new(),
            content_hash: decoded.content_hash,
            first_sequence: None,
            last_sequence: None,
            version,
            decided_at: now,
            duplicate: false,
            consistency_token: String::new(),
        };
        if fails {
            (result.outcome, result.code) = (Outcome::Failed, Some("InternalError".to_owned()));
            return self.result(sent, internal, &result).into_iter().collect();
        }
        match decided {
            Err(rejection) => {
                (result.outcome, result.code) =
                    (Outcome::Rejected, Some(rejection.code().to_owned()));
            }
            Ok(events) => {
                let count = events.len() as u64;
                for (sequence, event) in (version + 1..).zip(events) {
                    follows.push(self.event(&sent.id, stream, sequence, &event));
                    D::evolve(&mut state, &event, now);
                    self.keep_timers(&sent.id, &event);
                    self.log.push((sent.id.clone(), event));
                }
                if count > 0 {
                    result.first_sequence = Some(version + 1);
                    result.last_sequence = Some(version + count);
                    self.streams.insert(sent.id.clone(), (state, version + count));
                }
            }
        }
        if let Some(behalf) = D::on_behalf_of(&decoded.command) {
            let answer = CommandResult { command_id: behalf.command_id, ..result.clone() };
            self.answers.insert((sent.id.clone(), behalf.command_id, false), answer);
        }
        follows.extend(self.result(sent, internal, &result));
        self.answers.insert(key, result);
        follows
    }

    fn keep_timers(&mut self, id: &str, event: &D::Event) {
        for timer in D::timers(event) {
            match timer {
                Timer::Set { at, .. } => self.timers.insert(id.to_owned(), at),
                Timer::Clear { .. } => self.timers.remove(id),
            };
        }
    }

    fn event(&self, id: &str, stream: StreamHash, sequence: u64, event: &D::Event) -> Message {
        let mut value = Vec::new();
        let kind = self.codec.encode_event(event, &mut value).unwrap();
        let mut headers = Headers::default();
        headers.push("ce_id", stream.event_id(sequence).to_string());
        headers.push("ce_type", kind.full_name);
        let key = Some(event_key(id, sequence).into_boxed_slice());
        let value = Some(value.into_boxed_slice());
        let record = Record { key, value, headers, ..Record::default() };
        Message::Record(D::NAME, Kind::Events, record)
    }

    fn result(&self, sent: &Dispatch, internal: bool, result: &CommandResult) -> Option<Message> {
        let mut value = Vec::new();
        self.codec.encode_result(result, &mut value).unwrap();
        let mut headers = Headers::default();
        headers.push("reply_to", sent.reply_to.as_deref()?);
        if internal {
            headers.push(RESULT_OF, PROCESS_MANAGER);
        }
        let value = Some(value.into_boxed_slice());
        let record = Record { value, headers, ..Record::default() };
        Some(Message::Record(D::NAME, Kind::Results, record))
    }

    /// Timers that are due, as commands.
    fn fire(&mut self, now: Timestamp, wake: &str, count: &mut i64) -> Vec<Message> {
        let due = |at: &Timestamp| *at <= now;
        let ids: Vec<_> =
            self.timers.iter().filter(|(_, at)| due(at)).map(|(id, _)| id.clone()).collect();
        self.timers.retain(|_, at| *at > now);
        ids.into_iter().map(|id| internal(D::NAME, &id, wake, count)).collect()
    }
}

fn internal(aggregate: AggregateName, id: &str, body: &str, count: &mut i64) -> Message {
    command(aggregate, id, body, count, true)
}

fn command(
    aggregate: AggregateName,
    id: &str,
    body: &str,
    count: &mut i64,
    internal: bool,
) -> Message {
    *count += 1;
    let dispatch = Dispatch {
        aggregate,
        id: id.to_owned(),
        command_id: Uuid::from_u128(u128::try_from(*count).unwrap()),
        body: body.as_bytes().to_vec(),
        reply_to: None,
        correlation_id: None,
        causation_id: None,
        metadata: Vec::new(),
    };
    Message::Command(dispatch, internal)
}

/// Everything.
pub(crate) struct World {
    dice: Dice,
    now: Timestamp,
    count: i64,
    accounts: Kept<Account>,
    customers: Kept<Customer>,
    transfers: Kept<Transfer>,
    openings: Kept<Opening>,
    reactors: Vec<Box<dyn Reactor>>,
    bag: Vec<Message>,
    /// Commands that may come once more, long after.
    repeats: Vec<Message>,
    calm: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let schemas = Arc::new(Schemas::numbered_from(1));
        let accounts = Kept::new(AccountCodec::new(Arc::clone(&schemas)));
        let customers = Kept::new(CustomerCodec::new(Arc::clone(&schemas)));
        let transfers = Kept::new(TransferCodec::new(Arc::clone(&schemas)));
        let openings = Kept::new(AccountOpeningCodec::new(schemas));
        let transfer =
            TransferReactor::new(Arc::clone(&accounts.codec), Arc::clone(&transfers.codec));
        let opening = AccountOpeningReactor::new(
            Arc::clone(&accounts.codec),
            Arc::clone(&customers.codec),
            Arc::clone(&openings.codec),
        );
        Self {
            dice: Dice(seed),
            now: Timestamp(1_767_225_600_000_000),
            count: 0,
            accounts,
            customers,
            transfers,
            openings,
            reactors: vec![Box::new(transfer), Box::new(opening)],
            bag: Vec::new(),
            repeats: Vec::new(),
            calm: false,
        }
    }

    /// Seven wishes at once for one user, and one account in another currency.
    pub(crate) fn open_accounts(&mut self) {
        for index in 0..8 {
            let (user, currency) = if index == 7 { ("other", "EUR") } else { (USER, "USD") };
            let body = format!(
                r#"{{"type":"CreateAccount","user_id":"{user}","account_type":"checking",
                    "initial_deposit":"1000","currency":"{currency}"}}"#
            );
            self.wish(&format!("acc-{index}"), &body);
        }
    }

    fn wish(&mut self, id: &str, body: &str) {
        let message = command(account::NAME, id, body, &mut self.count, false);
        self.bag.push(message);
    }

    pub(crate) fn step(&mut self) {
        match self.dice.below(20) {
            0 => self.client(),
            1 => self.pass_time(),
            2 if !self.repeats.is_empty() => {
                let index = self.dice.index(self.repeats.len());
                self.bag.push(self.repeats[index].clone());
            }
            _ => self.deliver(),
        }
    }

    fn client(&mut self) {
        let id = format!("acc-{}", self.dice.below(8));
        let to = self.dice.below(10);
        let amount = 1 + self.dice.below(400);
        let body = match self.dice.below(12) {
            0 => r#"{"type":"FreezeAccount"}"#.to_owned(),
            1 | 2 => r#"{"type":"UnfreezeAccount"}"#.to_owned(),
            3 => r#"{"type":"CloseAccount"}"#.to_owned(),
            4 => format!(r#"{{"type":"Withdraw","amount":"{}"}}"#, amount * 3),
            _ => format!(
                r#"{{"type":"Transfer","to_account_id":"acc-{to}","amount":"{amount}",
                    "reference":"r"}}"#
            ),
        };
        self.wish(&id, &body);
    }

    fn pass_time(&mut self) {
        let seconds = match self.dice.below(40) {
            0 => WINDOW_SECONDS + 60,
            1 => 8 * WINDOW_SECONDS,
            _ => 1 + i64::try_from(self.dice.below(15)).unwrap(),
        };
        self.now = self.now.plus_seconds(seconds);
        let wake = r#"{"type":"Wake"}"#;
        let mut fired = self.transfers.fire(self.now, wake, &mut self.count);
        fired.extend(self.openings.fire(self.now, wake, &mut self.count));
        self.bag.extend(fired);
    }

    /// Anything that is under way arrives: perhaps it breaks, perhaps it comes again.
    fn deliver(&mut self) {
        if self.bag.is_empty() {
            return;
        }
        let index = self.dice.index(self.bag.len());
        let message = self.bag.swap_remove(index);
        if !self.calm && self.dice.below(10) == 0 {
            self.bag.push(message.clone());
        }
        let follows = match &message {
            Message::Command(sent, internal) => {
                if *internal && self.dice.below(10) == 0 {
                    self.repeats.push(message.clone());
                }
                // What breaks is a step: news to a saga is its handler's own work.
                let step = sent.reply_to.is_some();
                let fails = !self.calm && step && self.dice.below(8) == 0;
                let now = self.now;
                match sent.aggregate.aggregate {
                    "account" => self.accounts.take(sent, *internal, now, fails),
                    "customer" => self.customers.take(sent, *internal, now, fails),
                    "transfer" => self.transfers.take(sent, *internal, now, fails),
                    _ => self.openings.take(sent, *internal, now, fails),
                }
            }
            Message::Record(_, Kind::Results, _) if !self.calm && self.dice.below(5) == 0 => {
                Vec::new() // Lost.
            }
            Message::Record(aggregate, kind, record) => {
                self.count += 1;
                let record = Record { offset: self.count, ..record.clone() };
                let readers = self
                    .reactors
                    .iter()
                    .filter(|reactor| reactor.inputs().contains(&(*aggregate, *kind)));
                readers
                    .flat_map(|reactor| reactor.react(*aggregate, *kind, &record).unwrap())
                    .map(|dispatch| Message::Command(dispatch, true))
                    .collect()
            }
        };
        self.bag.extend(follows);
    }

    /// Nothing is lost or broken any more, and an operator resumes what is parked.
    pub(crate) fn settle(&mut self) {
        self.calm = true;
        for round in 0..200 {
            while !self.bag.is_empty() {
                self.deliver();
                self.check();
            }
            self.now = self.now.plus_seconds(15);
            let wake = r#"{"type":"Wake"}"#;
            let mut fired = self.transfers.fire(self.now, wake, &mut self.count);
            fired.extend(self.openings.fire(self.now, wake, &mut self.count));
            for (id, (state, _)) in &self.transfers.streams {
                if state.parked.is_some() {
                    let body = self.resumption(id, state, round);
                    fired.push(internal(Transfer::NAME, id, &body, &mut self.count));
                }
            }
            for (id, (state, _)) in &self.openings.streams {
                if state.parked.is_some() {
                    let body = r#"{"type":"Resume"}"#;
                    fired.push(internal(Opening::NAME, id, body, &mut self.count));
                }
            }
            if fired.is_empty() && self.ended() {
                return;
            }
            self.bag = fired;
        }
    }

    /// What the operator's command line does: it reads the receiver's stream where nothing else
    /// helps.
    fn resumption(&self, id: &str, state: &Transfer, round: usize) -> String {
        if round.is_multiple_of(2) || state.parked.as_deref() != Some("Unverifiable") {
            return r#"{"type":"Resume"}"#.to_owned();
        }
        let received = self.has_received(id);
        format!(r#"{{"type":"Resume","received":"{}"}}"#, if received { "YES" } else { "NO" })
    }

    fn has_received(&self, transfer: &str) -> bool {
        self.accounts.log.iter().any(|(_, event)| match event {
            Event::MoneyReceived(event) => event.transfer_id == transfer,
            _ => false,
        })
    }

    fn ended(&self) -> bool {
        let transfers = self.transfers.streams.values();
        let openings = self.openings.streams.values();
        transfers
            .map(|(state, _)| state.phase)
            .all(|phase| matches!(phase, Phase::Completed | Phase::Reversed))
            && openings
                .map(|(state, _)| state.phase)
                .all(|phase| matches!(phase, OpeningPhase::Ended(_)))
    }

    /// What holds at every prefix.
    pub(crate) fn check(&self) {
        let open = self.accounts.streams.values().filter(|(account, _)| {
            account.opened.user_id == USER
                && !matches!(account.status, Status::Closed | Status::Unopened)
        });
        assert!(open.count() <= 5, "six open accounts");
        assert!(self.accounts.streams.values().all(|(one, _)| !one.balance.is_negative()));
    }

    /// Books and ends, when nothing is under way any more.
    pub(crate) fn check_ended(&self) {
        for (id, (state, _)) in &self.transfers.streams {
            assert!(self.ended(), "{id}: {state:?}");
        }
        let (mut came, mut left) = (0, 0);
        let mut fate: BTreeMap<&str, (u32, u32, u32)> = BTreeMap::new();
        for (_, event) in &self.accounts.log {
            match event {
                Event::AccountCreated(event) => came += event.initial_deposit.units(),
                Event::MoneyWithdrawn(event) => left += event.amount.units() + event.fee.units(),
                Event::MoneyTransferred(event) => {
                    left += event.transfer_fee.units();
                    fate.entry(&event.transfer_id).or_default();
                }
                Event::MoneyReceived(event) => fate.entry(&event.transfer_id).or_default().0 += 1,
                Event::TransferReversed(event) => {
                    left -= event.transfer_fee.units();
                    fate.entry(&event.transfer_id).or_default().1 += 1;
                }
                Event::TransferSettled(event) => {
                    fate.entry(&event.transfer_id).or_default().2 += 1;
                }
                _ => {}
            }
        }
        for (transfer, fate) in fate {
            assert!(matches!(fate, (1, 0, 1) | (0, 1, 0)), "{transfer}: {fate:?}");
        }
        let held: i128 = self.accounts.streams.values().map(|(one, _)| one.balance.units()).sum();
        assert_eq!(held, came - left, "money is conserved");
        let customers = self.customers.streams.values();
        let slots: usize = customers.map(|(customer, _)| customer.open_count()).sum();
        let accounts = self.accounts.streams.values();
        assert_eq!(slots, accounts.filter(|(one, _)| one.status != Status::Closed).count());
    }
}
